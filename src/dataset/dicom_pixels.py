"""The stored values of a DICOM file -> gray as it is presented, by PS3.3 C.7.6.3, C.11.1 and C.11.2.

As no more than 16 bits are read, the way from a value to its gray is one table, and pixels are looked up in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.dicom_decoding import UnsuitablePixelsError, stored_pixels

if TYPE_CHECKING:
    import numpy as np
    from pydicom.dataset import Dataset, FileDataset

MOST_BITS = 16
WHITE = 2**MOST_BITS - 1
# Share of the range below which pixels would show nothing: 32 of 256 gray values, as in ``picture_checks``.
NARROW = 1 / 8
TAIL = 0.01  # share of the pixels that do not count at either end of the range
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")


def presented(dataset: FileDataset, path: str | Path) -> np.ndarray:
    """Decode a file that was read as ``dataset`` to uint16 [H, W], black 0 and white 65535, as it wants to be shown.

    Raises ``UnsuitablePixelsError``, or nearly anything if the pixels are damaged.
    """
    import numpy as np

    if not dataset.get("PixelData"):
        raise UnsuitablePixelsError("holds no pixels; it is cut short, or was exported without them")
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    if photometric in COLOURS:
        return _gray_of_colours(stored_pixels(dataset, path), int(dataset.BitsStored))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        what = "palette colours" if photometric == "PALETTE COLOR" else "an unknown kind of gray or colours"
        raise UnsuitablePixelsError(f"holds {what}; export it as gray")
    bits = int(dataset.BitsStored)
    if int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise UnsuitablePixelsError("keeps its values in the upper bits (HighBit), which is no longer allowed")
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    stored = stored_pixels(dataset, path).astype(np.int32)  # [H, W]
    # Compressed pixels know their bits better than some headers.
    needed = max(int(stored.max()).bit_length(), (~min(0, int(stored.min()))).bit_length())
    if (bits := max(bits, needed + signed)) > MOST_BITS:
        raise UnsuitablePixelsError(f"holds values of {bits} bits; 8 to {MOST_BITS} are read")
    darkest = -(2 ** (bits - 1)) if signed else 0
    stored -= darkest  # now places in the table
    counts = np.bincount(stored.ravel(), minlength=2**bits)
    padding = _padding(dataset, darkest, bits)
    counts[padding] = 0
    with np.errstate(all="ignore"):
        gray = _gray_of_values(dataset, np.arange(2**bits) + darkest, counts)
    if not np.isfinite(gray).all():
        raise UnsuitablePixelsError("has a slope, an intercept or a window that is no number; export it again")
    if photometric == "MONOCHROME1":
        gray = 1 - gray
    gray[padding] = 0
    return (gray * WHITE).round().astype(np.uint16)[stored]


def _gray_of_colours(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Turn RGB uint8 [H, W, 3] into gray as for PNG: ITU-R 601 luma."""
    import numpy as np
    from PIL import Image

    if bits != 8 or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise UnsuitablePixelsError(f"holds colours of {bits} bits; export it as gray")
    return np.asarray(Image.fromarray(pixels).convert("L")).astype(np.uint16) * 257


def _padding(dataset: Dataset, darkest: int, bits: int) -> slice:
    """Return which values only fill the frame around the image, as places in the table (PS3.3 C.7.5.1.1.2)."""
    value: Any = dataset.get("PixelPaddingValue")
    if value is None:
        return slice(0, 0)
    ends = sorted(int(end) - darkest for end in (value, dataset.get("PixelPaddingRangeLimit", value)))
    # A value that is written as unsigned although the pixels are signed, or the other way round.
    first, last = (end % 2**bits if not 0 <= end < 2**bits else end for end in ends)
    return slice(first, last + 1)


# --- from values to gray ---------------------------------------------------------------------------
def _gray_of_values(dataset: Dataset, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the gray in [0, 1] of each possible stored value; ``counts``: how often it occurs."""
    modality, voi = dataset.get("ModalityLUTSequence"), dataset.get("VOILUTSequence")
    if modality:
        shown = _look_up(modality[0], values)[0]
    else:
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        shown = values * float(1 if slope is None else slope) + float(intercept or 0)
    if voi:
        gray, white = _look_up(voi[0], shown)
        return gray / white
    if (window := _window(dataset)) is not None:
        return _windowed(shown, *window, str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper())
    return _full_range(values, shown, counts)


def _look_up(item: Dataset, values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (``values`` through the table of a sequence's item, what is white in it); PS3.3 C.11.1.1, C.11.2.1.1.

    pydicom's own look-up overflows for tables of 8 bits.
    """
    import numpy as np

    number, first, bits = (int(part) for part in item.LUTDescriptor)
    number = number or 2**16
    data: Any = item.LUTData
    if isinstance(data, bytes):
        order = "<" if item.is_little_endian is not False else ">"
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * number else f"{order}u2")
    table = np.atleast_1d(np.asarray(data, dtype=np.int64))[:number]
    if len(table) < number:
        raise ValueError("table cut short")
    if first >= 2**15 and values.min() < 0:
        first -= 2**16  # of values with a sign
    white = max(2**bits - 1, int(table.max()))
    return table[(values.round().astype(np.int64) - first).clip(0, number - 1)].astype(float), white


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Return (centre, width) of the first window; None if there is none, or an empty one."""
    import numpy as np

    # A centre of 0 is one; an empty element is None or "".
    values = (dataset.get(key) for key in ("WindowCenter", "WindowWidth"))
    centres, widths = (np.atleast_1d([] if value is None or value == "" else value) for value in values)
    if not len(centres) or not len(widths) or float(widths[0]) <= 0:
        return None
    return float(centres[0]), float(widths[0])


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Map ``values`` to [0, 1] by a window, by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    import numpy as np

    if function == "SIGMOID":
        return 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-700, 700)))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise UnsuitablePixelsError("is shown by a function of the window that is not read (VOI LUT Function)")
    if function == "LINEAR" and width >= 1:  # below 1 it is not allowed; whoever writes it means LINEAR_EXACT
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(float)
    return ((values - centre) / width + 0.5).clip(0, 1)


def _full_range(values: np.ndarray, shown: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Map to [0, 1] what has no window: all values that the bits allow, as in a PNG.

    If none is negative, 0 is black although negative ones were allowed. If hardly anything would be seen, as in an
    image of 12 bits that is declared as one of 16, only the bits in use count.
    """
    import numpy as np

    used = values[counts > 0]
    if not len(used):  # nothing but padding
        return np.zeros(len(values))
    first, last = min(0, int(values[0])) if used[0] < 0 else 0, int(values[-1])
    share = counts.cumsum() / counts.sum()
    low, high = (int(values[np.searchsorted(share, end)]) for end in (TAIL, 1 - TAIL))
    if high - low < NARROW * (last - first):
        bits = max(1, int(used[-1]).bit_length(), int(-used[0] - 1).bit_length() if used[0] < 0 else 0)
        first, last = -(2**bits) if used[0] < 0 else 0, 2**bits - 1
    ends = shown[first - values[0] : last - values[0] + 1]
    if ends.min() == ends.max():
        raise UnsuitablePixelsError("is rescaled so that all its values are alike; export it again")
    return ((shown - ends.min()) / (ends.max() - ends.min())).clip(0, 1)
