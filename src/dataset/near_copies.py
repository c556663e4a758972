"""How alike two X-rays are, whoever took or made them: the detail distance between reduced images."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from dataset.images import release_memory_map

THUMBNAIL_SIDE = 16
DETAIL_SIDE = 32  # cells; the finest grid on which a copy moved by 2 % is still aligned to half a cell
DETAIL_SIGMA = 3.0  # cells; smoother structures are left out
DETAIL_SHIFT = 1  # cells in either direction, 3 % of the image's side
CHUNK = 512  # rows of a distance matrix computed at once


def thumbnail_features(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> np.ndarray:
    """Reduce images uint8 [N, S, S] to area averages float32 [N, side * side] in [0, 1]."""
    small = []
    for chunk in np.array_split(pixels, max(1, len(pixels) // 256)):
        images = torch.from_numpy(chunk.astype(np.float32))[:, None]
        small.append(torch.nn.functional.adaptive_avg_pool2d(images, side))
        release_memory_map(pixels)
    return torch.cat(small).flatten(1).numpy() / 255.0


def detail_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - r of the details of images uint8 [N, S, S] and [M, S, S] at the best shift: float32 [N, M].

    Details are the 32 x 32 area averages minus their Gaussian blur. Brightness, contrast, a gradient of light
    and the common shape of a chest do not count; ribs, heart border, devices and opacities do. r is Pearson's
    correlation of the inner 30 x 30 cells of ``a`` with each window of ``b``, the largest over shifts of up
    to one cell. 0: the same image, even if it is brighter, blurred or moved by 3 % of its side; 1: nothing in
    common.
    """
    inner = DETAIL_SIDE - 2 * DETAIL_SHIFT
    details_a, details_b = _details(a), _details(b)
    centre = slice(DETAIL_SHIFT, DETAIL_SHIFT + inner)
    rows = unit_rows(details_a[:, centre, centre])
    offsets = range(2 * DETAIL_SHIFT + 1)
    windows = [unit_rows(details_b[:, y : y + inner, x : x + inner]) for y in offsets for x in offsets]
    distances = np.empty((len(a), len(b)), dtype=np.float32)
    for start in range(0, len(a), CHUNK):
        chunk = rows[start : start + CHUNK]
        best = np.full((len(chunk), len(b)), -1.0, dtype=np.float32)
        for window in windows:
            np.maximum(best, chunk @ window.T, out=best)
        distances[start : start + CHUNK] = 1.0 - best
    return distances.clip(min=0.0)  # rounding can leave an exact copy a hair below zero


def _details(pixels: np.ndarray) -> np.ndarray:
    """Reduce images uint8 [N, S, S] to 32 x 32 cells and leave out smooth structures: float32 [N, 32, 32]."""
    small = thumbnail_features(pixels, DETAIL_SIDE).reshape(-1, DETAIL_SIDE, DETAIL_SIDE)
    return (small - gaussian_filter(small, (0, DETAIL_SIGMA, DETAIL_SIGMA))).astype(np.float32)


def unit_rows(images: np.ndarray) -> np.ndarray:
    """Flatten [N, ...] to rows of mean 0 and length 1: products are correlations (constant row: 0)."""
    rows = images.reshape(len(images), math.prod(images.shape[1:]))
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-6)
