"""Made-up DICOM files: whatever a test needs, written by pydicom; nothing of a real patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
LOSSLESS = (RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000)


def write_dicom(
    path: str | Path,
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    bits: int | None = None,
    signed: bool = False,
    window: tuple[Any, Any] | None = None,
    syntax: str = EXPLICIT,
    **header: Any,
) -> Path:
    """Write a chest X-ray [H, W], or RGB [H, W, 3], as a DICOM file; returns ``path``.

    ``pixels`` are stored as they are (see ``as_stored`` for gray to be exported). ``bits``: BitsStored, by default
    those of the type of ``pixels``. ``window``: (centre, width). ``syntax``: transfer syntax, one of the
    constants above. ``header``: further elements by keyword, such as PatientID="7"; None leaves one out.
    """
    from pydicom import config, dcmread
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import generate_uid

    samples = 3 if pixels.ndim == 3 else 1
    bits = bits or 8 * pixels.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT if syntax in (*LOSSLESS, JPEG_BASELINE) else syntax
    elements: dict[str, Any] = {
        "SOPClassUID": DX, "SOPInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(), "Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA",
        "PatientID": "1", "PatientSex": "F", "PatientAge": "058Y", "SamplesPerPixel": samples,
        "PhotometricInterpretation": "RGB" if samples == 3 else photometric, "Rows": pixels.shape[0],
        "Columns": pixels.shape[1], "BitsAllocated": 8 * pixels.itemsize, "BitsStored": bits, "HighBit": bits - 1,
        "PixelRepresentation": int(signed),
    }  # fmt: skip
    if samples == 3:
        elements["PlanarConfiguration"] = 0
    if window is not None:
        elements["WindowCenter"], elements["WindowWidth"] = window
    order = ">" if syntax == BIG_ENDIAN else "<"
    elements["PixelData"] = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE  # some headers are wrong on purpose
    try:
        for keyword, value in (elements | header).items():
            if value is not None:
                setattr(dataset, keyword, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.file_meta.MediaStorageSOPClassUID = elements["SOPClassUID"]
        dataset.file_meta.MediaStorageSOPInstanceUID = elements["SOPInstanceUID"]
        dataset.save_as(path, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = before
    if syntax in (*LOSSLESS, JPEG_BASELINE):
        _compress(path, syntax)
    if syntax == JPEG_BASELINE and samples == 3:
        dataset = dcmread(path)
        dataset.PhotometricInterpretation = "YBR_FULL"  # GDCM turns colours into these, but does not say so
        dataset.save_as(path)
    return path


def as_stored(gray: np.ndarray, bits: int, photometric: str = "MONOCHROME2", signed: bool = False) -> np.ndarray:
    """Turn gray uint8 [H, W] into the values that an export with ``bits`` stores."""
    values = (gray.astype(float) * (2**bits - 1) / 255).round()
    if photometric == "MONOCHROME1":
        values = 2**bits - 1 - values
    if signed:
        values -= 2 ** (bits - 1)
    kind = np.dtype(f"{'int' if signed else 'uint'}{8 if bits == 8 else 16}")
    return values.astype(kind)


def _compress(path: Path, syntax: str) -> None:
    """Compress the pixels of a file, by GDCM, in place."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read(), path
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change(), f"GDCM cannot write {syntax}"
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write(), path
