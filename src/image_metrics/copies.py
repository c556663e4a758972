"""Search for synthetic images that copy training images, by distances to the nearest real images.

Held-out real images are the yardstick, since they cannot be copies. Two measures are needed, because each alone
misleads: the share of synthetic images that are closer to a training image than unseen real images are, and whether
synthetic images are closer to the training images than to equally many unseen ones. Blurred images are close to every
image: the first measure takes them for copies, the second does not.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import numpy as np
from scipy.special import gammaln

from dataset.near_copies import DETAIL_SIDE, thumbnail_features, unit_rows
from image_metrics.distances import Groups
from stats.metrics import wilson_interval

CLOSEST_SHARE = 0.01  # of the held-out images lie below the threshold for a near-copy
PERMUTATIONS = 500


class ImagesSearched(TypedDict):
    """How many images the search for copies looked at."""

    n_synthetic: Annotated[int, "synthetic images"]
    n_training: Annotated[int, "training images that the generator saw"]
    n_heldout: Annotated[int, "held-out real images"]


class NearCopies(ImagesSearched):
    """Synthetic images that are closer to a training image than nearly all held-out real images are."""

    threshold: Annotated[float, "distance below which an image is flagged: 1 % quantile of held-out images"]
    flagged: Annotated[int, "synthetic images flagged"]
    share: Annotated[float, "flagged share of the synthetic images, 0 to 1"]
    share_ci95: Annotated[list[float], "95 % Wilson interval of share"]
    heldout_share: Annotated[float, "share of the held-out images below the threshold, 0 to 1"]
    nearly_identical: Annotated[int, "synthetic images below half of the threshold"]
    median_nearest: Annotated[float, "median distance of synthetic images to the nearest training image"]
    heldout_median_nearest: Annotated[float, "the same for held-out real images"]


class CloserToTraining(ImagesSearched):
    """Synthetic images that are closer to the training images than to equally many held-out ones."""

    share: Annotated[float, "share of synthetic images closer to a training image; 0.5 without copying"]
    chance95: Annotated[list[float], "central 95 % of the share if whole patients change sides at random"]
    candidates: Annotated[int, "real images on each side after the larger side is reduced"]


# --- pairs -----------------------------------------------------------------------------------------
def closest_pairs(a: np.ndarray, b: np.ndarray, n_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of ``a`` most like some row of ``b``, best first: pairs int [P, 2] and correlations [P].

    Images uint8 [N, S, S] and [M, S, S]; likeness is Pearson's r of the 32 x 32 area averages,
    blind to brightness and contrast. Each row of ``a`` appears once, with its closest row of ``b``.
    """
    rows_a, rows_b = (unit_rows(thumbnail_features(part, DETAIL_SIDE)) for part in (a, b))
    r = rows_a @ rows_b.T  # [N, M]
    closest = r.argmax(axis=1)
    best = r[np.arange(len(a)), closest]
    rows = np.argsort(-best, kind="stable")[:n_pairs]
    return np.stack([rows, closest[rows]], axis=1), best[rows]


# --- near-copies -----------------------------------------------------------------------------------
def near_copies(to_training: np.ndarray, yardstick: np.ndarray) -> NearCopies:
    """Count synthetic images closer to a training image than nearly all held-out real images are.

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
    to_training: np.ndarray, to_heldout: np.ndarray, training_patients: Groups, heldout_patients: Groups,
    *, seed: int, permutations: int = PERMUTATIONS,
) -> CloserToTraining:  # fmt: skip
    """Measure the share of synthetic images that are closer to the training images than to the held-out ones.

    ``to_training`` [S, T], ``to_heldout`` [S, H]: distances. The larger set is reduced to the size of the
    smaller one, averaged exactly over all ways of doing so (see ``_share``). A generator that saw neither set
    gives 0.5. ``chance95`` is the central 95 % of the share when whole patients change sides at random; a few
    real images that are close to everything make it wide. After Meehan et al., "A non-parametric test to
    detect data-copying", AISTATS 2020.
    """
    distances = np.concatenate([to_training, to_heldout], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    patients = np.concatenate([np.asarray(training_patients, str), np.asarray(heldout_patients, str)])
    n_training, n_heldout = to_training.shape[1], to_heldout.shape[1]
    is_heldout = np.arange(n_training + n_heldout) >= n_training
    rng = np.random.default_rng(seed)
    chance = [_share(order, mark_whole_groups(patients, n_heldout, rng)) for _ in range(permutations)]
    return {
        "share": _share(order, is_heldout),
        "chance95": np.quantile(chance, [0.025, 0.975]).tolist(),
        "candidates": min(n_training, n_heldout),
        "n_synthetic": len(distances),
        "n_training": n_training,
        "n_heldout": n_heldout,
    }


def mark_whole_groups(groups: np.ndarray, n_marked: int, rng: np.random.Generator) -> np.ndarray:
    """Mark the rows of random whole groups (patients), ``n_marked`` as nearly as whole groups allow: bool [N]."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(names))
    taken = np.searchsorted(np.cumsum(sizes[shuffled]), n_marked) + 1
    chosen = np.zeros(len(names), dtype=bool)
    chosen[shuffled[: min(taken, len(names) - 1)]] = True
    return chosen[member]


def _share(order: np.ndarray, is_heldout: np.ndarray) -> float:
    """Return the mean chance that an image's nearest of m training images is closer than that of m held-out ones.

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
    """Return the logarithm of C(n, m); -inf where n < m."""
    n = np.asarray(n, dtype=float)
    kept = np.maximum(n, m)
    return np.where(n < m, -np.inf, gammaln(kept + 1) - gammaln(m + 1) - gammaln(kept - m + 1))
