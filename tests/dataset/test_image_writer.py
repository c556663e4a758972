import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataset.image_writer import LOW_EFFORT, RUNS_ONLY, is_whole, save_png

PIXELS = np.arange(24 * 32, dtype=np.uint32).reshape(24, 32).astype(np.uint8)


@pytest.mark.parametrize("compression", [RUNS_ONLY, LOW_EFFORT])
def test_what_is_written_is_gray_png_of_these_pixels(tmp_path, compression):
    save_png(tmp_path / "folder" / "x.png", PIXELS, compression)
    with Image.open(tmp_path / "folder" / "x.png") as image:
        assert (image.mode, image.format) == ("L", "PNG")
        assert np.array_equal(np.asarray(image), PIXELS)
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["x.png"]


def test_whole_is_the_right_size_and_kind_down_to_the_last_byte(tmp_path):
    path = tmp_path / "x.png"
    assert not is_whole(path, (32, 24))
    save_png(path, PIXELS)
    assert is_whole(path, (32, 24)) and not is_whole(path, (24, 32))
    path.write_bytes(path.read_bytes()[:-40])
    assert not is_whole(path, (32, 24))
    Image.fromarray(np.stack([PIXELS] * 3, axis=2)).save(path)
    assert not is_whole(path, (32, 24))


def test_an_image_whose_header_is_cut_short_is_not_whole(tmp_path):
    path = tmp_path / "short.png"
    header = b"IHDR" + bytes(5)  # 13 bytes belong there; the checksum is right
    chunk = struct.pack(">I", 5) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(ValueError, match="Truncated IHDR"):
        Image.open(path)
    assert not is_whole(path, (32, 32))
