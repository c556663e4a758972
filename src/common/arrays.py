"""NumPy arrays and memory maps as torch tensors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """A tensor over the same memory, also of a read-only map, which nobody here writes to."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def release_memory_map(pixels: np.ndarray) -> None:
    """Pages of a memory map that have been read count as this process's memory until they are let go; other
    arrays are left alone. They stay readable: the system keeps or fetches the file's pages as it can."""
    import mmap

    base = pixels
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
