"""Files that hold pixels only are linked, all others written anew; edges are black."""

import errno
import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from importers.pixel_files import bytes_needed, pad, read_pixels, size_to_link, why_bad, write_image

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)


def encoded(kind: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def with_exif(kind: str, orientation: int = 1, pixels: np.ndarray = PIXELS) -> bytes:
    exif = Image.Exif()
    exif[0x013B], exif[0x0112] = "Dr Mueller", orientation
    return encoded(kind, pixels, exif=exif)


def with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", "Mueller")
    return encoded("PNG", pnginfo=info)


@pytest.mark.parametrize(
    ("content", "linked"),
    [
        (encoded("PNG"), True),
        (encoded("PNG", dpi=(96, 96)), True),
        (encoded("JPEG"), True),
        (encoded("JPEG", progressive=True, quality=30), True),
        (encoded("JPEG", np.dstack([PIXELS] * 3)), True),
        (encoded("JPEG", comment=b"Mueller"), False),
        (with_exif("JPEG"), False),
        (with_exif("PNG"), False),
        (with_text(), False),
        (encoded("PNG", icc_profile=b"profile"), False),
        (encoded("JPEG", icc_profile=b"profile"), False),
        (encoded("PNG") + b"Mueller", False),
        (encoded("JPEG") + b"Mueller", False),
        (encoded("JPEG") + encoded("JPEG"), False),
        (encoded("JPEG")[:-40], False),
        (encoded("PNG", PIXELS[:30]), False),
        (encoded("JPEG", PIXELS[:30]), False),
        (encoded("TIFF"), False),
        (encoded("BMP"), False),
        (b"", False),
    ],
)
def test_what_may_be_linked(content, linked):
    assert (size_to_link(content) == (40, 40)) is linked


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jpg", encoded("JPEG", comment=b"Mueller")), ("a.png", with_text()), ("a.jpeg", with_exif("JPEG")),
     ("a.tif", encoded("TIFF", description="Mueller")), ("a.PNG", encoded("PNG") + b"Mueller")],
)  # fmt: skip
def test_written_anew_without_metadata(tmp_path, name, content):
    source = tmp_path / name
    source.write_bytes(content)
    file, written = write_image(source, content, tmp_path / "out" / "x1")
    assert file.name == "x1.png" and written.way == "rewritten" and written.added == 0
    assert b"Mueller" not in file.read_bytes() and size_to_link(file.read_bytes()) == (40, 40)
    with Image.open(io.BytesIO(content)) as image:
        assert np.array_equal(read_pixels(file), np.asarray(image.convert("L")))


def test_linked_files_are_the_source_and_copies_elsewhere(tmp_path, monkeypatch):
    content = encoded("PNG")
    source = tmp_path / "a.png"
    source.write_bytes(content)
    file, written = write_image(source, content, tmp_path / "out" / "x1")
    assert written.way == "linked" and file.samefile(source)
    assert write_image(source, content, tmp_path / "out" / "x1")[1].way == "linked"
    assert bytes_needed(source, content, same_disk=True) == 0 and bytes_needed(source, content, False) == len(content)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    file, written = write_image(source, content, tmp_path / "elsewhere" / "x1")
    assert written.way == "copied" and not file.samefile(source) and file.read_bytes() == content


def test_sixteen_bits_stay(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65535, (30, 40)).astype(np.uint16)
    source = tmp_path / "a.png"
    Image.fromarray(pixels).save(source)
    file, written = write_image(source, source.read_bytes(), tmp_path / "x1")
    kept = read_pixels(file)
    assert kept.dtype == np.uint16 and np.array_equal(kept[5:35], pixels) and not kept[:5].any() and not kept[35:].any()
    assert written.size == (40, 30) and written.added == pytest.approx(0.25)


def test_pictures_are_turned_upright(tmp_path):
    source = tmp_path / "a.jpg"
    source.write_bytes(with_exif("JPEG", orientation=6))
    with Image.open(source) as image:
        assert np.array_equal(read_pixels(source), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5), (1, 4)])
def test_edges_are_black_and_equal(shape):
    square = pad(np.full(shape, 9, np.uint8))
    assert square.shape == (max(shape),) * 2 and square.sum() == 9 * shape[0] * shape[1]
    rows, columns = square.any(axis=1), square.any(axis=0)
    for line in (rows, columns):
        before, after = line.argmax(), line[::-1].argmax()
        assert 0 <= after - before <= 1


def test_a_finished_file_is_not_written_twice_but_a_damaged_one_is(tmp_path):
    content = encoded("JPEG", comment=b"x")
    source = tmp_path / "a.jpg"
    source.write_bytes(content)
    file, _ = write_image(source, content, tmp_path / "x1")
    before = file.stat().st_ino
    write_image(source, content, tmp_path / "x1")
    assert file.stat().st_ino == before
    good = file.read_bytes()
    file.write_bytes(good[:-20])
    write_image(source, content, tmp_path / "x1")
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("name", "kind", "ending"),
    [("a.PNG", "PNG", ".png"), ("a.jpeg", "JPEG", ".jpeg"), ("a.png", "JPEG", ".png"), ("a.bmp", "PNG", ".png"),
     ("a.tif", "JPEG", ".jpg")],
)  # fmt: skip
def test_a_linked_file_gets_an_ending_that_every_script_reads(tmp_path, name, kind, ending):
    (tmp_path / name).write_bytes(content := encoded(kind))
    file, written = write_image(tmp_path / name, content, tmp_path / "x1")
    assert written.way == "linked" and file.name == f"x1{ending}" and file.read_bytes() == content


def test_a_reason_names_no_path():
    assert why_bad(PermissionError(errno.EACCES, "Permission denied", "/home/x/a.png")) == "permission denied"
