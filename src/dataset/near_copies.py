"""How alike two X-rays are, whoever took or made them: the detail distance between reduced images.

``find_copies`` searches two sets, or one set in itself, for images that show the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from common.progress import progress_bar
from dataset.images import release_memory_map
from dataset.registration import match_scores

THUMBNAIL_SIDE = 16
DETAIL_SIDE = 32  # cells; the finest grid on which a copy moved by 2 % is still aligned to half a cell
DETAIL_SIGMA = 3.0  # cells; smoother structures are left out
DETAIL_SHIFT = 1  # cells in either direction, 3 % of the image's side
CHUNK = 512  # rows of a distance matrix computed at once
# Pairs that are looked at closely. Planted copies of X-rays are within CLOSE, cropped ones within NEAR and nearest.
CLOSE, CLOSEST = 0.12, 8  # distance; at most so many images per image
NEAR = 0.3
LIKELY = 0.6  # score of thumbnails from which a pair is worth opening its files


class Candidates(NamedTuple):
    """Pairs of images that may be copies: ``rows`` int [P, 2], ``mirrored`` bool [P], ``scores`` float32 [P]."""

    rows: np.ndarray
    mirrored: np.ndarray
    scores: np.ndarray


def thumbnail_features(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> np.ndarray:
    """Reduce images uint8 [N, S, S] to area averages float32 [N, side * side] in [0, 1]."""
    small = []
    for chunk in np.array_split(pixels, max(1, len(pixels) // 256)):
        images = torch.from_numpy(chunk.astype(np.float32))[:, None]
        small.append(torch.nn.functional.adaptive_avg_pool2d(images, side))
        release_memory_map(pixels)
    return torch.cat(small).flatten(1).numpy() / 255.0


def detail_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 - r of the details of images uint8 [N, S, S] and [M, S, S] at the best shift: float32 [N, M].

    Details are the 32 x 32 area averages minus their Gaussian blur. Brightness, contrast, a gradient of light
    and the common shape of a chest do not count; ribs, heart border, devices and opacities do. r is Pearson's
    correlation of the inner 30 x 30 cells of ``a`` with each window of ``b``, the largest over shifts of up
    to one cell. 0: the same image, even if it is brighter, blurred or moved by 3 % of its side; 1: nothing in
    common.
    """
    rows, windows = _centre_rows(_details(a)), _window_rows(_details(b))
    distances = np.empty((len(a), len(b)), dtype=np.float32)
    for start in range(0, len(a), CHUNK):
        distances[start : start + CHUNK] = _distances_at_best_shift(rows[start : start + CHUNK], windows)
    return distances.clip(min=0.0)  # rounding can leave an exact copy a hair below zero


def _distances_at_best_shift(rows: np.ndarray, windows: Sequence[np.ndarray]) -> np.ndarray:
    best = np.full((len(rows), len(windows[0])), -1.0, dtype=np.float32)
    for window in windows:
        np.maximum(best, rows @ window.T, out=best)
    return 1.0 - best


def _centre_rows(details: np.ndarray) -> np.ndarray:
    """Return the inner cells of details [N, 32, 32] as unit rows [N, 900]."""
    centre = slice(DETAIL_SHIFT, DETAIL_SIDE - DETAIL_SHIFT)
    return unit_rows(details[:, centre, centre])


def _window_rows(details: np.ndarray) -> list[np.ndarray]:
    """Return the nine windows of details [N, 32, 32], one for each shift, as unit rows [N, 900]."""
    inner, offsets = DETAIL_SIDE - 2 * DETAIL_SHIFT, range(2 * DETAIL_SHIFT + 1)
    return [unit_rows(details[:, y : y + inner, x : x + inner]) for y in offsets for x in offsets]


def _details(pixels: np.ndarray) -> np.ndarray:
    """Reduce images uint8 [N, S, S] to 32 x 32 cells and leave out smooth structures: float32 [N, 32, 32]."""
    small = thumbnail_features(pixels, DETAIL_SIDE).reshape(-1, DETAIL_SIDE, DETAIL_SIDE)
    return (small - gaussian_filter(small, (0, DETAIL_SIGMA, DETAIL_SIGMA))).astype(np.float32)


def unit_rows(images: np.ndarray) -> np.ndarray:
    """Flatten [N, ...] to rows of mean 0 and length 1: products are correlations (constant row: 0)."""
    rows = images.reshape(len(images), math.prod(images.shape[1:]))
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-6)


# --- search ----------------------------------------------------------------------------------------
def find_copies(a: np.ndarray, b: np.ndarray | None = None, desc: str = "searching for copies") -> Candidates:
    """Find pairs of thumbnails uint8 [N, S, S] and [M, S, S] that look like one picture, mirrored or not.

    Without ``b``, pairs within ``a``, the smaller row first. Scores are ``registration.match_scores``, those below
    ``LIKELY`` are left out. It takes N * M * 16,200 multiplications.
    """
    found = []
    for rows, mirrored in _close_pairs(a, b, desc):
        one, other = a[rows[:, 0]], (a if b is None else b)[rows[:, 1]]
        scores = match_scores(one[:, :, ::-1].copy() if mirrored else one, other)
        found.append(Candidates(rows, np.full(len(rows), mirrored), scores))
    if not found:
        return Candidates(np.empty((0, 2), dtype=int), np.empty(0, dtype=bool), np.empty(0, dtype=np.float32))
    rows, flipped, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    likely = scores >= LIKELY
    return Candidates(rows[likely], flipped[likely], scores[likely])


def _close_pairs(a: np.ndarray, b: np.ndarray | None, desc: str) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield (pairs int [P, 2], whether the first is mirrored): up to ``CLOSEST`` of each row, and its nearest."""
    details = _details(a)
    centres = _centre_rows(details if b is None else _details(b))
    with progress_bar(total=len(a), desc=desc, unit="img") as bar:
        for start in range(0, len(a), CHUNK):
            part, first = details[start : start + CHUNK], start if b is None else 0
            for mirrored in (False, True):
                windows = _window_rows(part[:, :, ::-1] if mirrored else part)
                distances = _distances_at_best_shift(centres[first:], windows).T  # [C, M - first]
                if b is None:  # each pair once, and no image with itself
                    distances[np.tril_indices(len(part), m=distances.shape[1])] = np.inf
                nearest = _nearest(distances)
                values = np.take_along_axis(distances, nearest, axis=1)
                limits = np.where(np.arange(nearest.shape[1]) == 0, NEAR, CLOSE)
                row, rank = np.nonzero(values < limits)
                if len(row):
                    yield np.stack([start + row, first + nearest[row, rank]], axis=1), mirrored
            bar.update(len(part))


def _nearest(distances: np.ndarray) -> np.ndarray:
    """Return the columns of the ``CLOSEST`` smallest ``distances`` [C, M] of each row, the nearest first."""
    if distances.shape[1] <= CLOSEST:
        return np.argsort(distances, axis=1, kind="stable")
    # Sorting whole rows takes longer than computing them.
    some = np.argpartition(distances, CLOSEST - 1, axis=1)[:, :CLOSEST]
    order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
