"""The one writer of images: uint8 pixels in, 8-bit gray PNG files out, each whole or not there."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from utils import atomic_path

if TYPE_CHECKING:
    import numpy as np

# How to compress. The grain of X-rays does not shrink: more effort takes longer and saves next to nothing.
RUNS_ONLY = {"compress_type": zlib.Z_RLE}  # three times as fast as the search for repetitions
LOW_EFFORT = {"compress_level": 1}


def save_png(path: Path, pixels: np.ndarray, compression: Mapping[str, int] = RUNS_ONLY) -> None:
    """Write uint8 [H, W] as 8-bit gray PNG; ``compression`` is one of the constants above.

    Does not wait for the disk: a file that a power failure cuts short is found (``is_whole``) and made again.
    """
    from PIL import Image

    with atomic_path(path, durable=False) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", **compression)


def is_whole(path: Path, size: tuple[int, int]) -> bool:
    """Whether ``path`` is an undamaged 8-bit gray PNG of ``size`` (width, height)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.mode == "L" and image.size == size
    except (OSError, SyntaxError, ValueError):  # PIL's, for all the ways a file can be damaged
        return False
