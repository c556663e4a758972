"""Pixels of DICOM files against formulas of the standard, and against the PNG that the file was exported from."""

import math
import re

import numpy as np
import pytest
from PIL import Image
from pydicom import Sequence, dcmread
from pydicom.dataset import Dataset

from dataset.dicom_files import read_dicom
from dataset.images import read_gray
from dicom_data import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    as_stored,
    write_dicom,
)
from utils import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8)
GRAY[:, :25] = np.linspace(0, 255, 25)
SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED, RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth_sign_and_compression_shows_the_picture_that_was_exported(tmp_path, photometric, bits, signed):
    stored = as_stored(GRAY, bits, photometric, signed)
    for syntax in SYNTAXES:
        file = write_dicom(
            tmp_path / f"{syntax}.dcm", stored, photometric=photometric, bits=bits, signed=signed, syntax=syntax
        )
        assert np.array_equal(read_gray(file), GRAY), syntax
        assert read_dicom(file).pixels.dtype == np.uint16


def test_lossy_jpeg_is_near_the_picture(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    file = write_dicom(tmp_path / "x.dcm", smooth, syntax=JPEG_BASELINE)
    assert np.abs(read_gray(file).astype(int) - smooth).max() <= 2


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG_BASELINE, RLE])
def test_colours_become_gray_as_in_a_png(tmp_path, syntax):
    smooth = np.stack([np.tile(np.linspace(a, b, 64), (48, 1)) for a, b in ((0, 255), (255, 0), (90, 90))], 2)
    colours = smooth.astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    found = read_dicom(write_dicom(tmp_path / "x.dcm", colours, syntax=syntax))
    limit = 8 if syntax == JPEG_BASELINE else 0
    assert np.abs(found.pixels / 257 - read_gray(tmp_path / "x.png")).max() <= limit
    assert found.header.warnings == ("colours, turned into gray",)


# --- the formulas of the standard ------------------------------------------------------------------
VALUES = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits


def shown(tmp_path, pixels=VALUES, bits=12, **header) -> np.ndarray:
    """Gray in [0, 1] of a file with these values and this header, [H, W]."""
    return read_dicom(write_dicom(tmp_path / "x.dcm", pixels, bits=bits, **header)).pixels / 65535


def linear(x, centre, width):
    """PS3.3 C.11.2.1.2.1, literally."""
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if x > centre - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (centre - 0.5)) / (width - 1) + 0.5


def exact(x, centre, width):
    """PS3.3 C.11.2.1.3.2, literally."""
    if x <= centre - width / 2:
        return 0.0
    return 1.0 if x > centre + width / 2 else (x - centre) / width + 0.5


def sigmoid(x, centre, width):
    """PS3.3 C.11.2.1.3.1, literally."""
    return 1 / (1 + math.exp(min(700, -4 * (x - centre) / width)))


@pytest.mark.parametrize(
    ("function", "formula"),
    [(None, linear), ("LINEAR", linear), ("LINEAR_EXACT", exact), ("SIGMOID", sigmoid)],
)
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (1000, 500), (2000.5, 1), (-50, 800), (4000, 10_000)])
def test_windows_follow_the_standard(tmp_path, function, formula, centre, width):
    expected = [formula(float(x), centre, width) for x in VALUES.ravel()]
    found = shown(tmp_path, window=(centre, width), VOILUTFunction=function)
    assert np.abs(found.ravel() - expected).max() < 1e-5


def test_the_first_of_several_windows_counts(tmp_path):
    several = shown(tmp_path, window=([1000, 2000], [500, 900]))
    assert np.array_equal(several, shown(tmp_path, window=(1000, 500)))


def test_a_window_is_of_rescaled_values(tmp_path):
    plain = shown(tmp_path, window=(1000, 500))
    twice = {"RescaleSlope": 2, "RescaleIntercept": -100, "VOILUTFunction": "LINEAR_EXACT"}
    rescaled = shown(tmp_path, window=(2 * 1000 - 100, 2 * 500), **twice)
    assert np.abs(rescaled - plain).max() < 0.005
    around_zero = shown(tmp_path, window=(0, 500), RescaleSlope=1, RescaleIntercept=-1000)
    assert np.abs(around_zero - plain).max() < 1e-4
    falling = shown(tmp_path, window=(-1000, 500), RescaleSlope=-1, RescaleIntercept=0, VOILUTFunction="LINEAR_EXACT")
    assert np.abs(falling + plain - 1).max() < 0.005


@pytest.mark.parametrize("window", [("", ""), (5, 0), (5, -3)])
def test_an_empty_window_is_none(tmp_path, window):
    assert np.abs(shown(tmp_path, window=window) - VALUES / 4095).max() < 1e-5


def test_a_negative_is_turned_after_its_window(tmp_path):
    turned = shown(tmp_path, photometric="MONOCHROME1", window=(1000, 500))
    assert np.abs(turned + shown(tmp_path, window=(1000, 500)) - 1).max() < 1e-4


def table(first: int, entries, bits: int, as_words: bool = False) -> Sequence:
    """The sequence of a look-up table, as numbers or as binary words."""
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    values = [int(entry) for entry in entries]
    item.add_new("LUTData", "OW" if as_words else "US", np.array(values, "<u2").tobytes() if as_words else values)
    return Sequence([item])


@pytest.mark.parametrize("as_words", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_table_maps_values_and_holds_its_ends(tmp_path, bits, as_words):
    entries = np.linspace(0, 2**bits - 1, 1000).round()[::-1]
    found = shown(tmp_path, VOILUTSequence=table(500, entries, bits, as_words), window=(1, 2))
    expected = entries[(VALUES.astype(int) - 500).clip(0, 999)] / (2**bits - 1)
    assert np.abs(found - expected).max() < 1e-4, "it comes before the window"
    first = shown(tmp_path, ModalityLUTSequence=table(500, entries, bits, as_words), RescaleSlope=7)
    assert np.abs(first - expected).max() < 1e-4


def test_a_table_may_begin_below_zero(tmp_path):
    entries = np.arange(4096)
    found = shown(tmp_path, VALUES.astype(np.int16) - 2048, signed=True, VOILUTSequence=table(-2048, entries, 12))
    assert np.abs(found - VALUES / 4095).max() < 1e-4


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 4095])
def test_padding_is_black_and_no_part_of_the_range(tmp_path, photometric, limit):
    padding = {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": limit}
    framed = (VALUES // 5).copy()
    framed[:10], framed[-1] = 3000, limit or 3000
    found = shown(tmp_path, framed, photometric=photometric, window=(400, 800), **padding)
    assert (found[:10] == 0).all() and (found[-1] == 0).all()
    unframed = shown(tmp_path, framed, photometric=photometric, window=(400, 800))
    assert np.array_equal(found[10:-1], unframed[10:-1])


def test_unused_high_bits_do_not_matter(tmp_path):
    with_overlay = VALUES | 0x8000  # old files keep a drawing in the highest bit
    assert np.array_equal(shown(tmp_path, with_overlay), shown(tmp_path))


def test_compressed_pixels_know_their_bits_better_than_the_header(tmp_path):
    file = write_dicom(tmp_path / "x.dcm", VALUES, bits=12, window=(2048, 4096), syntax=JPEG_2000)
    expected = read_dicom(file).pixels
    dataset = dcmread(file)
    dataset.BitsStored, dataset.HighBit = 10, 9
    dataset.save_as(file)
    assert np.array_equal(read_dicom(file).pixels, expected)


# --- no window -------------------------------------------------------------------------------------
def test_without_a_window_the_range_is_that_of_the_bits(tmp_path):
    half = (VALUES // 2).astype(np.uint16)
    assert np.abs(shown(tmp_path, half) - half / 4095).max() < 1e-4
    assert np.abs(shown(tmp_path, half, RescaleSlope=3, RescaleIntercept=-7) - half / 4095).max() < 1e-4


@pytest.mark.parametrize("used", [8, 10, 12])
def test_where_almost_nothing_would_be_seen_the_bits_in_use_count(tmp_path, used):
    values = as_stored(GRAY, used).astype(np.uint16)
    assert np.array_equal((shown(tmp_path, values, bits=16) * 255).round(), GRAY)
    assert np.array_equal((shown(tmp_path, values.astype(np.int16), bits=16, signed=True) * 255).round(), GRAY)


def test_an_empty_picture_stays_empty(tmp_path):
    assert (shown(tmp_path, np.zeros_like(VALUES)) == 0).all()
    assert (shown(tmp_path, np.full_like(VALUES, 9), PixelPaddingValue=9) == 0).all()


# --- what cannot be shown --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "holds palette colours; export it as gray"),
        ({"PhotometricInterpretation": "DOE^JOHN"}, "holds an unknown kind of gray or colours; export it as gray"),
        ({"HighBit": 15}, "keeps its values in the upper bits"),
        ({"VOILUTFunction": "DOE^JOHN", "window": (1, 2)}, "a function of the window that is not read"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "is rescaled so that all its values are alike"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": 0}, "a window that is no number"),
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "a window that is no number"),
        ({"window": ("inf", "nan")}, "a window that is no number"),
        ({"PixelData": b""}, "holds no pixels"),
        ({"PixelData": None}, "holds no pixels"),
        ({"PixelData": bytes(100)}, "its pixels are damaged or cut short"),
        ({"Rows": 65535, "Columns": 65535}, "65,535 x 65,535 pixels, more than any X-ray has"),
        ({"Rows": 0}, "64 x 0 pixels"),
        ({"SamplesPerPixel": 3}, "its pixels are damaged or cut short"),
        ({"BitsStored": 4}, "stores 4 bits of 16; 8 to 16 are read"),
        ({"BitsAllocated": 32, "BitsStored": 32}, "stores 32 bits of 32"),
        ({"NumberOfFrames": 30}, "a sequence of 30 frames; export one as a file of its own"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(tmp_path, header, reason):
    file = write_dicom(tmp_path / "x.dcm", VALUES, bits=12, **header)
    with pytest.raises(UserError) as refused:
        read_dicom(file)
    assert reason in str(refused.value) and str(file) in str(refused.value) and "DOE" not in str(refused.value)
    with pytest.raises(OSError, match=re.escape(reason)):
        read_gray(file)


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.10008.1.2.4.102", "is compressed in a way that is not read (MPEG-4"),
        ("1.2.840.10008.1.2.4.203", "is compressed in a way that is not read (High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.51", "is compressed in a way that is not read (JPEG Extended"),  # of 12 bits
        ("1.2.3.4.5678", "has no transfer syntax of the standard"),
    ],
)
def test_another_compression_is_refused_by_name(tmp_path, syntax, reason):
    file = write_dicom(tmp_path / "x.dcm", VALUES, bits=12, syntax=JPEG_LOSSLESS)
    dataset = dcmread(file)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(file, implicit_vr=False, little_endian=True)
    with pytest.raises(UserError, match=re.escape(reason)):
        read_dicom(file)
