"""Pixels of DICOM files against formulas of the standard, and against the PNG that the file was exported from."""

import numpy as np
import pytest

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
