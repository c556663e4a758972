"""The one reader and the one writer of image files: gray uint8 pixels from PNG or JPEG, and to PNG.

Whoever accepts another format, or changes pixels, raises ``DECODING``: caches depend on it. Which files are
looked for: ``IMAGE_SUFFIXES`` for images made elsewhere; those of a dataset are PNG files (``records``).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SIZED = 50  # files whose size is looked at, to say how large images typically are
DECODING = 1  # version of ``read_image``
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}
# How to compress. The grain of X-rays does not shrink: more effort takes longer and saves next to nothing.
RUNS_ONLY = {"compress_type": zlib.Z_RLE}  # three times as fast as the search for repetitions
LOW_EFFORT = {"compress_level": 1}


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """Decode an image of any size to gray uint8 [image_size, image_size], antialiased bilinear.

    Formats and gray values: see ``read_gray``; 16-bit samples are rounded after the resize. Raises
    ``OSError`` if the file is missing or damaged.
    """
    import numpy as np
    from PIL import Image

    gray = _open_gray(path)
    resized = gray.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(resized).round().astype(np.uint8)


def read_reduced(path: str | Path, image_size: int, side: int) -> np.ndarray:
    """Decode an image as ``read_image`` does, through a square of ``side`` pixels first.

    A real image then has gone the way of a synthetic one of ``side`` pixels: reduced for its generator,
    rounded to uint8, and brought to ``image_size`` by the classifier's reader.
    """
    return enlarged(read_image(path, side), image_size)


def enlarged(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Bring gray pixels uint8 [H, W] to [image_size, image_size] as ``read_image`` would those of a file."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((image_size, image_size), Image.Resampling.BILINEAR))


def read_side(path: str | Path) -> int | None:
    """Return the smaller side of an image file in pixels, from its header alone; None if it is unreadable."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def typical_side(files: Sequence[str | Path]) -> int | None:
    """Return the median of the smaller sides of the first ``SIZED`` files; None if none is readable."""
    from statistics import median

    sides = [side for file in files[:SIZED] if (side := read_side(file))]
    return int(median(sides)) if sides else None


def read_gray(path: str | Path) -> np.ndarray:
    """Decode 8- or 16-bit gray, RGB(A) or palette PNG, or JPEG, to gray uint8 [H, W].

    8-bit gray keeps its values; 16-bit samples are divided by 257, PNG's own scaling to 8 bits, and
    rounded; colours become ITU-R 601 luma; transparency is ignored. Raises ``OSError`` if the file is
    missing or damaged.
    """
    import numpy as np

    return np.asarray(_open_gray(path)).round().astype(np.uint8)


def _open_gray(path: str | Path) -> Image.Image:
    """Decode a file to PIL's mode L, or to mode F in [0, 255] if it has 16 bits."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        _verify_checksums(path)
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):  # 16-bit gray: PIL would clip it to 255
                return Image.fromarray((np.asarray(image, dtype=np.float32) / 257.0).clip(0, 255))
            return image if image.mode == "L" else image.convert("RGB").convert("L")
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"not a readable image: {error}") from None


def _verify_checksums(path: str | Path) -> None:
    """Verify the checksums of a PNG's chunks; raises ``OSError``, ``SyntaxError`` or ``ValueError``.

    Decoding does not: Pillow skips them, and stops before the checksum of the pixels once it has all rows.
    """
    from PIL import Image

    with Image.open(path) as image:
        image.verify()


def decoder_version(side: int | None = None) -> str:
    """Name what pixels depend on besides the file and the size: this code and the library that it calls.

    ``side``: see ``read_reduced``.
    """
    import PIL

    reduced = "" if side is None else f", through {side} pixels"
    return f"gray, antialiased bilinear{reduced}, version {DECODING}, Pillow {PIL.__version__}"


def save_png(path: Path, pixels: np.ndarray, compression: Mapping[str, int] = RUNS_ONLY) -> None:
    """Write uint8 [H, W] as 8-bit gray PNG; ``compression`` is one of the constants above.

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
