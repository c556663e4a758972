"""The one reader of DICOM files: pixels as they are presented, and the few things of the header that are used.

Only the tags in ``TAGS`` are read. No text of a header is ever written out: errors and warnings say what is wrong
in words of our own, and pydicom's messages, which quote headers, are silenced. What a header means is in
``dicom_headers``, how stored values become gray in ``dicom_pixels``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dataset.dicom_decoding import UnsuitablePixelsError
from dataset.dicom_headers import HEADER_TAGS, DicomHeader, understand
from utils import UserError, is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from pydicom.dataset import FileDataset

DICOM_SUFFIXES = {".dcm", ".dicom"}
OTHER_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".csv", ".txt", ".json", ".xml"}
MARK, MARK_PLACE = b"DICM", 128  # how a DICOM file begins, after 128 bytes of anything
# What a user installs -> what Python imports.
PACKAGES = {"pydicom": "pydicom", "python-gdcm": "gdcm"}
INSTALL = "pip install -r requirements-dicom.txt"
PIXEL_TAGS = (
    "SamplesPerPixel", "PlanarConfiguration", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "PixelData",
)  # fmt: skip
TAGS = [*HEADER_TAGS, *PIXEL_TAGS]
OF_PYDICOM = r"pydicom\b"  # modules whose warnings are silenced
DECODING = 2  # version of the way from stored values to gray


class DicomError(UserError):
    """A DICOM file that cannot be used. ``reason``: the message without the name of the file."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class DicomImage:
    """A decoded file: ``pixels`` uint16 [H, W] as presented, 0 black and 65535 white; ``header``: what it says."""

    pixels: np.ndarray
    header: DicomHeader


def is_pipe(path: Path) -> bool:
    """Tell whether ``path`` is a pipe, socket or device: opening one could wait forever."""
    return path.exists() and not (path.is_file() or path.is_dir())


def is_dicom(path: str | Path) -> bool:
    """Tell whether a file is DICOM: by its ending, else, as archives often give none, by how it begins."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix in OTHER_SUFFIXES or path.name.startswith("."):
        return False
    try:
        if is_pipe(path):
            return False
        with path.open("rb") as file:
            return file.read(MARK_PLACE + len(MARK))[MARK_PLACE:] == MARK
    except OSError:
        return False


def require_dicom_packages() -> None:
    """Raise ``UserError`` if pydicom or its decoder is not installed."""
    missing = [package for package, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"DICOM files need {' and '.join(missing)}, not installed here: {INSTALL}")


def dicom_decoder_version() -> str:
    """Name what pixels of DICOM files depend on besides the file; raises ``UserError`` without the packages."""
    require_dicom_packages()
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    return f"DICOM version {DECODING}, {versions}"


def read_header(path: str | Path) -> DicomHeader:
    """Read what the header of a DICOM file says, without its pixels.

    ``header.refusal`` says why the file is no X-ray of a chest. Raises ``UserError`` if it is missing, damaged
    or no DICOM file.
    """
    return _header_of(_read(path, HEADER_TAGS), path)


def read_dicom(path: str | Path) -> DicomImage:
    """Decode a DICOM file; a lateral view is decoded, too, and says so in its header.

    Raises ``DicomError`` (a ``UserError``) if it is missing, damaged, or no X-ray of a chest in one frame.
    """
    from dataset.dicom_pixels import presented

    dataset = _read(path, TAGS)
    header = _header_of(dataset, path)
    if header.refusal:
        raise DicomError(path, header.refusal)
    try:
        return DicomImage(presented(dataset, path), header)
    except UnsuitablePixelsError as error:
        raise DicomError(path, str(error)) from None
    except Exception as error:  # damaged bytes make pydicom and its decoders raise nearly anything
        if is_out_of_memory(error):
            raise
        # Not the error's own text: it may quote the header.
        raise DicomError(path, "its pixels are damaged or cut short; export it again") from None


# --- pydicom ---------------------------------------------------------------------------------------
def _read(path: str | Path, tags: list[str] | tuple[str, ...]) -> FileDataset:
    """Read the elements ``tags`` of a file; raises ``DicomError``."""
    require_dicom_packages()
    _silence()
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return dcmread(path, stop_before_pixels="PixelData" not in tags, specific_tags=list(tags))
    except InvalidDicomError:
        raise DicomError(path, _why_not_dicom(Path(path))) from None
    except OSError as error:
        if error.strerror is None:  # pydicom's own, for a file that ends too early
            raise DicomError(path, "cut short or damaged; export it again") from None
        missing = isinstance(error, FileNotFoundError)
        raise DicomError(path, "missing" if missing else error.strerror.lower()) from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DicomError(path, "its header is damaged; export it again") from None


def _header_of(dataset: FileDataset, path: str | Path) -> DicomHeader:
    try:
        return understand(dataset)
    except Exception:  # a number that is none, a sequence that is a text, ...; its message would quote the header
        raise DicomError(path, "its header is damaged; export it again") from None


def _why_not_dicom(path: Path) -> str:
    if path.stat().st_size == 0:
        return "empty (0 bytes)"
    return "not a DICOM file (no DICM after 128 bytes)"


def _silence() -> None:
    """Silence pydicom, whose warnings quote values of headers, for the whole process."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").disabled = True
    # Once more if it is gone: whoever catches warnings restores the filters that there were before.
    if not any(getattr(rule[3], "pattern", "") == OF_PYDICOM for rule in warnings.filters):
        warnings.filterwarnings("ignore", module=OF_PYDICOM)
