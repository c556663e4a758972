import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataset.images import (
    LOW_EFFORT,
    RUNS_ONLY,
    decoder_version,
    is_whole,
    open_picture,
    read_gray,
    read_image,
    read_side,
    save_png,
)

RAMP = np.tile(np.linspace(0, 255, 32), (24, 1)).astype(np.uint8)  # not square


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "16-bit"])
def test_every_kind_of_png_gives_the_same_gray(tmp_path, mode):
    image = Image.fromarray(RAMP)
    if mode == "16-bit":
        image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    elif mode == "P":
        image = image.quantize(256)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "image.png")
    expected = np.asarray(Image.fromarray(RAMP).resize((16, 16), Image.Resampling.BILINEAR))
    pixels = read_image(tmp_path / "image.png", 16)
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 16)
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if mode == "P" else 1)


def test_resizing_is_antialiased(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200  # finer than the result can show: must become even gray
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert np.abs(read_image(tmp_path / "stripes.png", 8)[:, 1:-1].astype(int) - 100).max() <= 2


def test_the_size_of_the_file_is_kept_where_none_is_asked_for(tmp_path):
    deep = np.linspace(0, 65535, 24 * 32).reshape(24, 32).round().astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(RAMP).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([RAMP] * 3, axis=2)).save(tmp_path / "colour.jpg")
    assert np.array_equal(read_gray(tmp_path / "gray.png"), RAMP)
    assert np.array_equal(read_gray(tmp_path / "deep.png"), (deep / 257.0).round().astype(np.uint8))
    assert np.abs(read_gray(tmp_path / "colour.jpg").astype(int) - RAMP).max() <= 8


@pytest.mark.parametrize("mode", ["L", "16-bit"])
def test_a_reduced_image_has_gone_the_way_of_a_synthetic_one(tmp_path, mode):
    """Reduced for the generator, written as PNG by it, and enlarged by the classifier's reader."""
    noise = np.random.default_rng(0).integers(0, 255, (50, 40)).astype(np.uint8)
    Image.fromarray(noise.astype(np.uint16) * 257 if mode == "16-bit" else noise).save(tmp_path / "real.png")
    save_png(tmp_path / "as_synthetic.png", read_image(tmp_path / "real.png", 16))
    reduced = open_picture(tmp_path / "real.png").resized(32, 16)
    assert np.array_equal(reduced, read_image(tmp_path / "as_synthetic.png", 32))
    again = open_picture(tmp_path / "as_synthetic.png").resized(32, 16)
    assert np.array_equal(again, reduced), "twice changes nothing"
    assert not np.array_equal(reduced, read_image(tmp_path / "real.png", 32))
    assert decoder_version(16) != decoder_version() != decoder_version(24), "caches keep them apart"
    assert read_side(tmp_path / "real.png") == 40 and read_side(tmp_path / "absent.png") is None


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_what_is_no_image_is_an_os_error(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    for read in (read_gray, lambda path: read_image(path, 8)):
        with pytest.raises(OSError):
            read(tmp_path / "x.png")


# --- writing ---------------------------------------------------------------------------------------
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


def test_no_bit_flip_gives_other_pixels(tmp_path):
    """Pillow alone shows other pixels for a fifth of the flips near the end of the compressed data."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 24)).astype(np.uint8)
    file = tmp_path / "image.png"
    save_png(file, noise)
    content = file.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 8
        file.write_bytes(damaged)
        try:
            pixels = read_gray(file)
        except OSError:
            continue
        assert np.array_equal(pixels, noise), place
    start = content.index(b"IDAT") - 4
    file.write_bytes(content[:start] + content[content.index(b"IEND") - 4 :])
    with pytest.raises(OSError):
        read_gray(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a"])
def test_a_pipe_is_named_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert read_side(tmp_path / name) is None
    with pytest.raises(OSError, match="a pipe or device, not a file"):
        read_gray(tmp_path / name)
