"""Pictures that are alike as chest X-rays are: one common shape, and details of each one's own."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = 96


def pictures(rng: np.random.Generator, n: int, size: int = SIZE) -> np.ndarray:
    """uint8 [n, size, size]: one common shape, and blobs, ribs and specks of each image's own."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    common = 90 * np.exp(-4 * (np.abs(x) - 0.5) ** 2 - y**2)
    own = gaussian_filter(rng.normal(size=(n, size, size)), (0, 4, 4))
    fine = gaussian_filter(rng.normal(size=(n, size, size)), (0, 1.5, 1.5))
    values = 70 + common + 25 * own / own.std() + 8 * fine / fine.std()
    return values.clip(0, 255).astype(np.uint8)
