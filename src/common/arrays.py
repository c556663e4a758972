"""NumPy arrays and memory maps as torch tensors."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Make a tensor over the same memory, which may be a read-only map: do not write to it."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


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
