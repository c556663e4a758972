"""Distances of two sets of features, Fréchet (FID) and kernel (KID), and their means over seeded draws.

A ladder of pure functions: features -> (mean, covariance) -> Fréchet distance; features -> kernels -> kernel
distance (Binkowski et al., "Demystifying MMD GANs", ICLR 2018). Both are biased by how many images enter, so
every comparison of an analysis uses the same number, and real images against real images (the "floor") show
what chance alone gives. Distances of real images are the same for every set of synthetic images and take as
long as the others, so they are kept on disk from one analysis to the next.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from common import paths
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # at most, as published
DRAWS = 5  # seeded draws of images that every distance is averaged over
REAL_COMPARISONS = ("floor", "heldout_vs_training")  # those without synthetic images
CACHE_VERSION = 2  # of the formulas, the draws and the names

Distances = dict[str, list[tuple[float, float]]]  # of each comparison, (Fréchet, kernel) of every draw
Groups = Sequence[Any] | np.ndarray  # the patient of each row
Progress = Callable[[Iterable], Iterable]  # wraps what is iterated, to show how far it is


class SubsetDistance(TypedDict):
    """KID as it is published: over random subsets of the images."""

    kid_of_subsets: Annotated[float, "mean over the subsets; 0 on average for two samples of one kind"]
    kid_of_subsets_sd: Annotated[float, "standard deviation over the subsets"]
    subset_size: Annotated[int, "images of each side in a subset"]
    n_subsets: Annotated[int, "subsets drawn"]


class MeanDistances(TypedDict):
    """Distances of two sets of features over the draws."""

    fid: Annotated[float, "mean Fréchet distance, in squared units of the features"]
    fid_sd: Annotated[float | None, "sample standard deviation over the draws; null for one draw"]
    kid: Annotated[float, "mean kernel distance; 0 on average for two samples of one kind"]
    kid_sd: Annotated[float | None, "sample standard deviation over the draws; null for one draw"]


class EqualDistances(TypedDict):
    """Distances at an equal number of images; the number alone if it is below 2, where none exists."""

    n: Annotated[int, "images on either side of every comparison"]
    draws: NotRequired[Annotated[int, "seeded draws"]]
    comparisons: NotRequired[Annotated[dict[str, MeanDistances], "by what is compared with what"]]


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
    """KID over ``n_subsets`` random subsets of ``size`` images of each set, drawn without replacement."""
    k_aa, k_bb, k_ab = cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_subsets):
        i, j = (rng.choice(len(k), size, replace=False) for k in (k_aa, k_bb))
        values.append(_unbiased_mmd(k_aa[np.ix_(i, i)], k_bb[np.ix_(j, j)], k_ab[np.ix_(i, j)]))
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    return {"kid_of_subsets": mean, "kid_of_subsets_sd": sd, "subset_size": size, "n_subsets": n_subsets}


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 of features [N, D] and [M, D]: float64 [N, M]."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _unbiased_mmd(k_aa: np.ndarray, k_bb: np.ndarray, k_ab: np.ndarray) -> float:
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (k_aa, k_bb)]
    return float(sum(within) - 2 * k_ab.mean())


# --- draws -----------------------------------------------------------------------------------------
def halve_by_group(groups: Groups, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into two random halves, as equal in size as whole groups (patients) allow; shuffled."""
    groups = np.asarray(groups)
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(groups, return_counts=True)
    halves: tuple[list, list] = ([], [])
    counts = [0, 0]
    for position in rng.permutation(len(names)):
        smaller = int(counts[1] < counts[0])
        halves[smaller].append(names[position])
        counts[smaller] += sizes[position]
    first, second = (np.flatnonzero(np.isin(groups, half)) for half in halves)
    return rng.permutation(first), rng.permutation(second)


@dataclass(frozen=True)
class EqualDraws:
    """Draws of ``n`` images on either side: iterate {comparison: (features [n, D], reference [n, D])}."""

    n: int
    draws: int
    make: Callable[[], Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]]

    def __iter__(self) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        return self.make()

    def __len__(self) -> int:
        return self.draws


def equal_draws(
    training: np.ndarray, patients: Groups, synthetic: np.ndarray, heldout: np.ndarray | None,
    *, max_images: int, seed: int, draws: int = DRAWS,
) -> EqualDraws:  # fmt: skip
    """Draw sets of features [N, D], all of the same n, and name what is compared with what.

    Every draw splits the training images into halves that share no patient. "floor" is the second half
    against the first. "synthetic_vs_training", "heldout_vs_training" and "synthetic_vs_heldout" use n images
    of the first half, of ``synthetic`` and of ``heldout``. Held-out images are left out if there are so few
    that n would fall below half of what the others allow.
    """
    halves = [halve_by_group(patients, seed + draw) for draw in range(draws)]
    sizes = [len(half) for pair in halves for half in pair] + [len(synthetic), max_images]
    if heldout is not None and len(heldout) < min(sizes) / 2:
        heldout = None
    n = min(sizes if heldout is None else [*sizes, len(heldout)])

    def make() -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        rng = np.random.default_rng(seed)
        for first, second in halves:
            real, other_real = training[first[:n]], training[second[:n]]
            made = synthetic[rng.permutation(len(synthetic))[:n]]
            compared = {"synthetic_vs_training": (made, real), "floor": (other_real, real)}
            if heldout is not None:
                unseen = heldout[rng.permutation(len(heldout))[:n]]
                compared |= {"synthetic_vs_heldout": (made, unseen), "heldout_vs_training": (unseen, real)}
            yield compared

    return EqualDraws(n, draws, make)


# --- means over the draws --------------------------------------------------------------------------
def distances_of_draws(
    sets: EqualDraws, progress: Progress = lambda items: items, known: Distances | None = None
) -> Distances:
    """Compute the (Fréchet, kernel) distance of each draw, except those in ``known``, which are taken over.

    Empty if n is below 2, where no distance exists.
    """
    if sets.n < 2:
        return {}
    known, values = known or {}, defaultdict(list)
    for compared in progress(sets):
        for name, (a, b) in compared.items():
            if name not in known:
                values[name].append((frechet_distance_of_features(a, b), kernel_distance(a, b)))
            else:
                values[name] = list(known[name])
    return dict(values)


def mean_distances(n: int, distances: Distances) -> EqualDistances:
    """Average the distances of draws of ``n`` images."""
    if not distances:
        return {"n": n}
    draws, comparisons = len(next(iter(distances.values()))), {}
    for name, rows in distances.items():
        fid, kid = np.array(rows).T
        fid_sd, kid_sd = (float(part.std(ddof=1)) if draws > 1 else None for part in (fid, kid))
        means: MeanDistances = {
            "fid": float(fid.mean()), "fid_sd": fid_sd, "kid": float(kid.mean()), "kid_sd": kid_sd,
        }  # fmt: skip
        comparisons[name] = means
    return {"n": n, "draws": draws, "comparisons": comparisons}


# --- distances of real images, on disk -------------------------------------------------------------
class RealDistances:
    """File below ``cache_dir`` with the distances of real images of one analysis; None keeps nothing.

    ``space``: key of the features; ``images``: keys of the images of each set; ``drawing``: everything else
    that determines which images are compared. A file that is damaged or belongs to something else is ignored.
    """

    def __init__(
        self, cache_dir: str | Path | None, space: str, images: Sequence[list[str]], drawing: dict[str, Any]
    ) -> None:
        self.key = sha256_json([CACHE_VERSION, space, list(images), drawing])
        self.file: Path | None = None
        if cache_dir is not None and space and all(images):
            self.file = paths.cached_distances(cache_dir, self.key[:20])

    def load(self, draws: int) -> Distances:
        """Read the known distances of so many draws; empty if there are none."""
        if self.file is None or not self.file.is_file():
            return {}
        try:
            content = load_json(self.file)
            known = content["distances"]
            if content["key"] != self.key or content["sha256"] != sha256_json(known):
                return {}
        except (UserError, OSError, TypeError, KeyError):
            return {}
        return {name: [(fid, kid) for fid, kid in rows] for name, rows in known.items() if len(rows) == draws}

    def save(self, distances: Distances) -> None:
        """Write the distances of real images; if that fails, they are computed again next time."""
        if self.file is None or not distances:
            return
        plain = {name: distances[name] for name in REAL_COMPARISONS if name in distances}
        try:
            save_json(self.file, {"key": self.key, "sha256": sha256_json(plain), "distances": plain})
        except OSError as error:
            log.warning(
                f"WARNING: {self.file.parent} cannot be used ({error.strerror or error}), so distances "
                "of real images are computed again in every run"
            )
            self.file = None
