"""The one reader and the one writer of image files: gray uint8 pixels from PNG, JPEG, TIFF or DICOM, and to PNG.

Whoever accepts another format, or changes pixels, raises ``DECODING``: caches depend on it. Which file belongs
to an image id: ``image_files``. Whether pixels look like X-rays: ``picture_facts`` and ``picture_checks``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.dicom_files import (
    DICOM_SUFFIXES,
    DicomError,
    dicom_decoder_version,
    is_dicom,
    is_pipe,
    read_dicom,
    read_header,
)
from utils import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SIZED = 50  # files whose size is looked at, to say how large images typically are
DECODING = 2  # version of ``open_picture``
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", *DICOM_SUFFIXES}
MISSING = "missing"  # the reason of an image that is not there
SIXTEEN_BITS = 2**16 - 1  # largest sample
TIFF_INTERPRETATION, WHITE_IS_ZERO = 262, 0  # a tag of TIFF files, and one of its values
# How to compress. The grain of X-rays does not shrink: more effort takes longer and saves next to nothing.
RUNS_ONLY = {"compress_type": zlib.Z_RLE}  # three times as fast as the search for repetitions
LOW_EFFORT = {"compress_level": 1}
# How files begin that are no images but often lie in their place.
OTHER_CONTENTS = {
    b"version https://git-lfs": "a Git LFS pointer instead of the image; `git lfs pull` fetches it",
    b"<!doctype": "a web page instead of the image; download it again",
    b"<html": "a web page instead of the image; download it again",
    b"<?xml": "an XML text instead of the image; download it again",
}


class UnsuitableSamplesError(ValueError):
    """Whole files whose numbers cannot be turned into gray; the text says why."""


@dataclass(frozen=True)
class Picture:
    """A decoded file at its own size.

    ``gray``: of PIL's mode L, or F in [0, 255] for 16-bit samples. ``mode``: PIL's name of what the file
    holds (L, RGB, I;16, ...), or DICOM. ``frames``: more than 1 in animations, whose first one is ``gray``.
    ``largest``: largest 16-bit sample, None in files of 8 bits and in DICOM, which says itself what white is.
    ``jpeg_tables``: quantisation tables of a JPEG file. ``warnings``: what is odd by the header of a DICOM file.
    """

    gray: Image.Image
    mode: str
    frames: int
    largest: int | None
    jpeg_tables: Mapping[int, list[int]]
    warnings: tuple[str, ...] = ()

    def pixels(self) -> np.ndarray:
        """Return gray uint8 [H, W]."""
        import numpy as np

        return np.asarray(self.gray).round().astype(np.uint8)

    def resized(self, image_size: int, through: int | None = None) -> np.ndarray:
        """Return gray uint8 [image_size, image_size], antialiased bilinear.

        16 bits are rounded to 8 first: an 8-bit picture that DICOM or PNG holds in 16 bits becomes the same pixels.
        ``through``: side of a smaller square that the image is reduced to first (None: none). A real image has
        then gone the way of a synthetic one of that side: reduced for its generator, rounded to uint8, and
        brought to ``image_size`` by the classifier's reader.
        """
        import numpy as np
        from PIL import Image

        if through is not None:
            return enlarged(self.resized(through), image_size)
        gray = self.gray if self.gray.mode == "L" else Image.fromarray(self.pixels())
        return np.asarray(gray.resize((image_size, image_size), Image.Resampling.BILINEAR))


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """Decode an image of any size to gray uint8 [image_size, image_size]; see ``open_picture``."""
    return open_picture(path).resized(image_size)


def enlarged(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Bring gray pixels uint8 [H, W] to [image_size, image_size] as ``read_image`` would those of a file."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((image_size, image_size), Image.Resampling.BILINEAR))


def read_side(path: str | Path) -> int | None:
    """Return the smaller side of an image file in pixels, from its header alone; None if it is unreadable."""
    from PIL import Image

    try:
        if is_pipe(Path(path)):
            return None
        if is_dicom(path):
            return min(read_header(path).size) or None
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, DicomError):
        return None


def typical_side(files: Sequence[str | Path]) -> int | None:
    """Return the median of the smaller sides of the first ``SIZED`` files; None if none is readable."""
    from statistics import median

    sides = [side for file in files[:SIZED] if (side := read_side(file))]
    return int(median(sides)) if sides else None


def read_gray(path: str | Path, bits: int | None = None) -> np.ndarray:
    """Decode an image to gray uint8 [H, W], its own size; see ``open_picture``."""
    return open_picture(path, bits).pixels()


def open_picture(path: str | Path, bits: int | None = None) -> Picture:
    """Decode 8- or 16-bit gray, RGB(A) or palette PNG or TIFF, JPEG, or DICOM, to gray values in [0, 255].

    8-bit gray keeps its values. 16-bit samples are divided by 257, PNG's own scaling to 8 bits; with ``bits``
    they are scaled so that 2**bits - 1 becomes 255. Colours become ITU-R 601 luma; transparency is ignored.
    A DICOM file is read like a 16-bit PNG of what it shows, in all 16 bits whatever ``bits`` is.
    Raises ``OSError``, whose text is the reason, if the file is missing or damaged, holds floating-point or
    32-bit samples, or one above 2**bits - 1.
    """
    from PIL import Image, UnidentifiedImageError

    if is_pipe(Path(path)):
        raise OSError("a pipe or device, not a file")
    if is_dicom(path):
        return _open_dicom(Path(path))
    try:
        _verify_checksums(path)
        with Image.open(path) as image:
            frames = int(getattr(image, "n_frames", 1))
            image.load()
            gray, largest = _to_gray(image, bits)
            return Picture(gray, image.mode, frames, largest, getattr(image, "quantization", {}))
    except UnsuitableSamplesError as error:
        raise OSError(str(error)) from None
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError, OSError, Image.DecompressionBombError) as error:
        raise OSError(why_unreadable(Path(path), error)) from None


def _open_dicom(path: Path) -> Picture:
    from PIL import Image

    try:
        path.open("rb").close()
        found = read_dicom(path)
    except DicomError as error:
        raise OSError(_other_content(path) or error.reason) from None
    except OSError as error:
        raise OSError(why_unreadable(path, error)) from None
    gray, _ = _to_gray(Image.fromarray(found.pixels), None)
    return Picture(gray, "DICOM", 1, None, {}, found.header.warnings)


def _verify_checksums(path: str | Path) -> None:
    """Verify the checksums of a PNG's chunks; raises ``OSError``, ``SyntaxError`` or ``ValueError``.

    Decoding does not: Pillow skips them, and stops before the checksum of the pixels once it has all rows.
    """
    from PIL import Image

    with Image.open(path) as image:
        try:
            image.verify()
        except IndexError:  # Pillow's, for a PNG without pixels
            raise OSError("it holds no pixels") from None


def _to_gray(image: Image.Image, bits: int | None) -> tuple[Image.Image, int | None]:
    """Return (gray of mode L or F, the largest 16-bit sample or None)."""
    import numpy as np
    from PIL import Image

    if image.mode == "F":
        raise UnsuitableSamplesError("holds floating-point values; save it as 8- or 16-bit gray")
    if not image.mode.startswith("I"):
        return (image if image.mode == "L" else image.convert("RGB").convert("L")), None
    samples = np.asarray(image)  # 16-bit gray: PIL would clip it to 255
    if getattr(image, "tag_v2", {}).get(TIFF_INTERPRETATION) == WHITE_IS_ZERO:  # PIL turns 8 bits only
        samples = SIXTEEN_BITS - samples
    smallest, largest = int(samples.min()), int(samples.max())
    if smallest < 0 or largest > SIXTEEN_BITS:
        raise UnsuitableSamplesError(f"holds values of {smallest:,} to {largest:,}; 16 bits end at {SIXTEEN_BITS:,}")
    white = 2**bits - 1 if bits else SIXTEEN_BITS
    if largest > white:
        raise UnsuitableSamplesError(f"holds the value {largest:,}, but --bits {bits} ends at {white:,}")
    return Image.fromarray((samples.astype(np.float32) / (white / 255)).clip(0, 255)), largest


def why_unreadable(path: Path, error: Exception) -> str:
    """Say in a few words why ``path`` cannot be read."""
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "a link to a file that is not there" if path.is_symlink() else MISSING
    if isinstance(error, IsADirectoryError) or path.is_dir():
        return "a folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if content := _other_content(path):
        return content
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return "cut short" if "truncated" in str(error).lower() else f"damaged ({error})"


def _other_content(path: Path) -> str | None:
    """Say what ``path`` holds if it is plainly no image of the kind that its name promises; None else."""
    try:
        with path.open("rb") as file:
            head = file.read(200)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if not head:
        return "empty (0 bytes)"
    if head[128:132] == b"DICM" and not is_dicom(path):
        return "a DICOM file; give it the ending .dcm"
    return next((what for start, what in OTHER_CONTENTS.items() if head.lstrip().lower().startswith(start)), None)


def decoder_version(through: int | None = None, bits: int | None = None, files: Iterable[Path] = ()) -> str:
    """Name what pixels depend on besides the file and the size: this code and the libraries that it calls.

    ``through``: see ``Picture.resized``; ``bits``: see ``open_picture``; ``files``: to be decoded. Raises
    ``UserError`` if there is DICOM among them and its packages are not installed.
    """
    import PIL

    reduced = "" if through is None else f", through {through} pixels"
    scaled = "" if bits is None else f", {bits} of 16 bits"
    dicom = f", {dicom_decoder_version()}" if any(file.suffix.lower() in DICOM_SUFFIXES for file in files) else ""
    return f"gray, antialiased bilinear{reduced}{scaled}, version {DECODING}, Pillow {PIL.__version__}{dicom}"


def save_png(path: Path, pixels: np.ndarray, compression: Mapping[str, int] = RUNS_ONLY) -> None:
    """Write uint8 or uint16 [H, W] as gray PNG of as many bits; ``compression`` is one of the constants above.

    Does not wait for the disk: a file that a power failure cuts short is found (``is_whole``) and made again.
    """
    from PIL import Image

    with atomic_path(path, durable=False) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", **compression)


def is_whole(path: Path, size: tuple[int, int]) -> bool:
    """Return whether ``path`` is an undamaged 8-bit gray PNG of ``size`` (width, height)."""
    from PIL import Image

    try:
        _verify_checksums(path)
        with Image.open(path) as image:
            image.load()
            return image.mode == "L" and image.size == size
    except (OSError, SyntaxError, ValueError):  # PIL's, for all the ways a file can be damaged
        return False


def release_memory_map(pixels: np.ndarray) -> None:
    """Release the pages of a memory map that have been read; they count as this process's memory till then.

    The map stays readable: the system fetches the file's pages again. Does nothing to other arrays.
    """
    import mmap

    base: Any = pixels
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
