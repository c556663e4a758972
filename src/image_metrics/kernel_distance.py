"""The kernel distance (KID) of two sets of features: features -> kernels -> distance.

Binkowski et al., "Demystifying MMD GANs", ICLR 2018.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import numpy as np

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # at most, as published


class SubsetDistance(TypedDict):
    """KID as it is published: over random subsets of the images."""

    kid_of_subsets: Annotated[float, "mean over the subsets; 0 on average for two samples of one kind"]
    kid_of_subsets_sd: Annotated[float, "standard deviation over the subsets"]
    subset_size: Annotated[int, "images of each side in a subset"]
    n_subsets: Annotated[int, "subsets drawn"]


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD, with the kernel (x.y / D + 1)^3, of features [N, D] and [M, D].

    It is 0 on average for two samples of one distribution, at any N; a single value may be negative.
    """
    return _unbiased_mmd(cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b))


def kernel_distance_of_subsets(
    a: np.ndarray, b: np.ndarray, *, size: int, seed: int, n_subsets: int = KID_SUBSETS
) -> SubsetDistance:
    """KID over ``n_subsets`` random subsets of ``size`` images of each set, drawn without replacement.

    The kernels are computed once.
    """
    k_aa, k_bb, k_ab = cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_subsets):
        i, j = (rng.choice(len(k), size, replace=False) for k in (k_aa, k_bb))
        values.append(_unbiased_mmd(k_aa[np.ix_(i, i)], k_bb[np.ix_(j, j)], k_ab[np.ix_(i, j)]))
    return {
        "kid_of_subsets": float(np.mean(values)),
        "kid_of_subsets_sd": float(np.std(values, ddof=1)),
        "subset_size": size,
        "n_subsets": n_subsets,
    }


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of features [N, D] and [M, D]: float64 [N, M]."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _unbiased_mmd(k_aa: np.ndarray, k_bb: np.ndarray, k_ab: np.ndarray) -> float:
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (k_aa, k_bb)]
    return float(sum(within) - 2 * k_ab.mean())
