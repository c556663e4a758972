"""Distances of two sets of features: the Fréchet distance (FID) and the kernel distance (KID).

A ladder of pure functions: features -> (mean, covariance) -> Fréchet distance; features -> kernels -> kernel
distance (Binkowski et al., "Demystifying MMD GANs", ICLR 2018).
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


# --- Fréchet distance ------------------------------------------------------------------------------
def mean_and_covariance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean [D] and unbiased covariance [D, D] of features float [N, D]; N is at least 2."""
    features = np.asarray(features, dtype=np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(mu_a: np.ndarray, sigma_a: np.ndarray, mu_b: np.ndarray, sigma_b: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians with mean [D] and covariance [D, D] each.

    |mu_a - mu_b|^2 + tr(sigma_a) + tr(sigma_b) - 2 tr((sigma_a sigma_b)^(1/2))   (Dowson and Landau 1982)

    The last trace is that of (r sigma_b r)^(1/2) with r = sigma_a^(1/2). This matrix is symmetric, so its
    eigenvalues stay real, while those of a general matrix square root may not.
    """
    values, vectors = np.linalg.eigh(sigma_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ sigma_b @ root).clip(min=0)).sum()
    return _sum_of_parts(mu_a - mu_b, np.trace(sigma_a), np.trace(sigma_b), cross)


def frechet_distance_of_features(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Fréchet distance of the Gaussians fitted to features float [N, D] and [M, D].

    With fewer images than features the cross term is computed as the nuclear norm of the N x M matrix
    A B^T / sqrt((N - 1)(M - 1)) of the centred features. The number is the same without any D x D matrix.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if max(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(*mean_and_covariance(a), *mean_and_covariance(b))
    centred_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    centred_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    return _sum_of_parts(a.mean(axis=0) - b.mean(axis=0), (centred_a**2).sum(), (centred_b**2).sum(), cross)


def _sum_of_parts(shift: np.ndarray, trace_a: float, trace_b: float, cross: float) -> float:
    """Return the distance from its parts; 0 where rounding leaves it slightly negative."""
    return max(0.0, float(shift @ shift + trace_a + trace_b - 2.0 * cross))


# --- kernel distance -------------------------------------------------------------------------------
def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared MMD, with the kernel (x.y / D + 1)^3, of features [N, D] and [M, D].

    It is 0 on average for two samples of one distribution, at any N; a single value may be negative.
    """
    return _unbiased_mmd(cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b))


def kernel_distance_of_subsets(
    a: np.ndarray, b: np.ndarray, *, size: int, seed: int, n_subsets: int = KID_SUBSETS
) -> SubsetDistance:
    """Return KID over ``n_subsets`` random subsets of ``size`` images of each set, drawn without replacement.

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
