"""Are synthetic images copies of training images? Distances to the nearest real ones, and their yardsticks.

Distances in, numbers out; nothing here reads a file or plots. The yardstick is held-out real images, which
cannot be copies: how close do they come to the training images? Two questions are asked, since either alone
misleads: is an image closer to a training image than real strangers come to one, and are synthetic images
closer to the training images than to as many unseen ones? Blurred images are close to everything: the
first question takes them for copies where the second does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import gammaln

from stats.metrics import wilson_interval
from stats.shortcut_baselines import thumbnail_features

DETAIL_SIDE = 32  # cells; the finest at which a copy that was moved by 2 % is still aligned to half a cell
DETAIL_SIGMA = 3.0  # cells; what is smoother than this is left out
DETAIL_SHIFT = 1  # cells in either direction, 3 % of the image's side
CLOSEST_SHARE = 0.01  # of the held-out images lie below the threshold for a near-copy
PERMUTATIONS = 500
CHUNK = 512  # rows of a distance matrix computed at once


# --- distances in pixels ---------------------------------------------------------------------------
def detail_distances(
    a: np.ndarray, b: np.ndarray, progress: Callable[[Iterable], Iterable] = lambda chunks: chunks
) -> np.ndarray:
    """1 - r of the details of images uint8 [N, S, S] and [M, S, S], shifted for the best fit: float32 [N, M].

    Details are the 32 x 32 area averages minus their Gaussian blur, so that neither brightness, contrast,
    a gradient of light nor the common shape of a chest counts, but ribs, heart border, devices and opacities
    do. r is Pearson's correlation of the inner 30 x 30 cells of ``a`` with each window of ``b``, the largest
    over shifts of up to one cell. 0: the same image, though it be brighter, blurred or moved by 3 % of its
    side; 1: nothing in common.
    """
    inner = DETAIL_SIDE - 2 * DETAIL_SHIFT
    details_a, details_b = _details(a), _details(b)
    centre = slice(DETAIL_SHIFT, DETAIL_SHIFT + inner)
    rows = _unit_rows(details_a[:, centre, centre])
    offsets = range(2 * DETAIL_SHIFT + 1)
    windows = [_unit_rows(details_b[:, y : y + inner, x : x + inner]) for y in offsets for x in offsets]
    distances = np.empty((len(a), len(b)), dtype=np.float32)
    for start in progress(range(0, len(a), CHUNK)):
        chunk = rows[start : start + CHUNK]
        best = np.full((len(chunk), len(b)), -1.0, dtype=np.float32)
        for window in windows:
            np.maximum(best, chunk @ window.T, out=best)
        distances[start : start + CHUNK] = 1.0 - best
    return distances.clip(min=0.0)  # rounding can leave an exact copy a hair below zero


def _details(pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] -> float32 [N, 32, 32] without what is smoother than ``DETAIL_SIGMA`` cells."""
    small = thumbnail_features(pixels, DETAIL_SIDE).reshape(-1, DETAIL_SIDE, DETAIL_SIDE)
    return (small - gaussian_filter(small, (0, DETAIL_SIGMA, DETAIL_SIGMA))).astype(np.float32)


def _unit_rows(images: np.ndarray) -> np.ndarray:
    """[N, h, w] -> [N, h * w] with mean 0 and length 1, so that products are correlations (constant: 0)."""
    rows = images.reshape(len(images), images.shape[1] * images.shape[2])
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-6)


# --- near-copies -----------------------------------------------------------------------------------
def near_copies(to_training: np.ndarray, yardstick: np.ndarray) -> dict[str, Any]:
    """Synthetic images closer to a training image than nearly all held-out real images are.

    ``to_training``: distances [S, T] of synthetic to training images; ``yardstick``: [H, T] of held-out
    real to the same training images, so that both minima are over T candidates. The threshold is the
    ``CLOSEST_SHARE`` quantile of the held-out images' nearest distances: about that share of fresh real
    images lies below it, a little more where H is small. "nearly identical" are those below half of it.
    """
    nearest, usual = to_training.min(axis=1), yardstick.min(axis=1)
    threshold = float(np.quantile(usual, CLOSEST_SHARE))
    flagged = int((nearest < threshold).sum())
    return {
        "threshold": threshold,
        "flagged": flagged,
        "share": flagged / len(nearest),
        "share_ci95": wilson_interval(flagged, len(nearest)),
        "heldout_share": float((usual < threshold).mean()),
        "nearly_identical": int((nearest < threshold / 2).sum()),
        "median_nearest": float(np.median(nearest)),
        "heldout_median_nearest": float(np.median(usual)),
        "n_synthetic": len(nearest),
        "n_training": to_training.shape[1],
        "n_heldout": len(usual),
    }


# --- training images against unseen ones -----------------------------------------------------------
def closer_to_training(
    to_training: np.ndarray,
    to_heldout: np.ndarray,
    training_patients: Sequence[Any],
    heldout_patients: Sequence[Any],
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> dict[str, Any]:
    """Share of synthetic images that are closer to the training images than to the held-out ones.

    ``to_training`` [S, T], ``to_heldout`` [S, H]: distances. The larger set is reduced to the size of the
    smaller one, on average over all ways of doing so (exactly, see ``_share``): with equally many candidates
    on each side 0.5 is what a generator gives that never saw either. ``chance95`` is the central 95 % of
    the share when whole patients change sides at random, which a few real images that are close to
    everything make wide. After Meehan et al., "A non-parametric test to detect data-copying", AISTATS 2020.
    """
    distances = np.concatenate([to_training, to_heldout], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    patients = np.concatenate([np.asarray(training_patients, str), np.asarray(heldout_patients, str)])
    n_training, n_heldout = to_training.shape[1], to_heldout.shape[1]
    is_heldout = np.arange(n_training + n_heldout) >= n_training
    rng = np.random.default_rng(seed)
    chance = [_share(order, _relabel(patients, n_heldout, rng)) for _ in range(permutations)]
    return {
        "share": _share(order, is_heldout),
        "chance95": np.quantile(chance, [0.025, 0.975]).tolist(),
        "candidates": min(n_training, n_heldout),
        "n_synthetic": len(distances),
        "n_training": n_training,
        "n_heldout": n_heldout,
    }


def _relabel(patients: np.ndarray, n_heldout: int, rng: np.random.Generator) -> np.ndarray:
    """bool [N]: random whole patients whose images are ``n_heldout``, as nearly as whole patients allow."""
    names, member, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(names))
    taken = np.searchsorted(np.cumsum(sizes[shuffled]), n_heldout) + 1
    chosen = np.zeros(len(names), dtype=bool)
    chosen[shuffled[: min(taken, len(names) - 1)]] = True
    return chosen[member]


def _share(order: np.ndarray, is_heldout: np.ndarray) -> float:
    """Mean chance that an image's nearest of m training images is closer than its nearest of m held-out ones.

    ``order`` [S, N]: the N real images of each synthetic one, nearest first; ``is_heldout`` bool [N]. m is
    the size of the smaller set; the larger one is reduced to m at random. If its c nearest images come before
    the first of the smaller set, none of them is kept with probability C(n - c, m) / C(n, m).
    """
    n_heldout = int(is_heldout.sum())
    larger = ~is_heldout if n_heldout <= len(is_heldout) / 2 else is_heldout
    n, m = int(larger.sum()), int((~larger).sum())
    ahead = larger[order].argmin(axis=1)  # images of the larger set before the first of the smaller one
    none_kept = np.exp(_log_choose(n - ahead, m) - _log_choose(np.array(n), m))
    larger_is_closer = float(np.mean(1.0 - none_kept))
    return larger_is_closer if n_heldout <= len(is_heldout) / 2 else 1.0 - larger_is_closer


def _log_choose(n: np.ndarray, m: int) -> np.ndarray:
    """log of C(n, m); -inf where n < m."""
    n = np.asarray(n, dtype=float)
    kept = np.maximum(n, m)
    return np.where(n < m, -np.inf, gammaln(kept + 1) - gammaln(m + 1) - gammaln(kept - m + 1))
