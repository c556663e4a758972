"""How alike two sets of images are: SSIM of pairs, and distances between distributions of features.

A ladder of small pure functions, each usable alone: images -> features -> (mu, sigma) -> distance. Arrays
in, numbers out; nothing here reads a file or plots. Everything random is a function of a seed.

What these numbers are not: a measure of diagnostic quality. Each is an amount of similarity, biased by how
many images went in, and readable only beside the same amount for real images against real images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stats.shortcut_baselines import thumbnail_features

FID_DRAWS = 5  # seeded draws of images that every distance is averaged over
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000  # at most; Binkowski et al. 2018


# --- SSIM ------------------------------------------------------------------------------------------
def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two gray images uint8 [S, S], in [-1, 1]; 1 only for identical images.

    Gaussian window of sigma 1.5 and population covariance: the settings of Wang et al., IEEE TIP 2004.
    """
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def draw_pairs(n_a: int, n_b: int, n_pairs: int, seed: int) -> np.ndarray:
    """Distinct random pairs (row of a, row of b): int [min(n_pairs, n_a * n_b), 2]."""
    flat = np.random.default_rng(seed).choice(n_a * n_b, size=min(n_pairs, n_a * n_b), replace=False)
    return np.stack(np.divmod(flat, n_b), axis=1)


def draw_pairs_within(groups: Sequence[Any], n_pairs: int, seed: int) -> np.ndarray:
    """Distinct random pairs i < j of one set whose ``groups`` (patients) differ: int [at most n_pairs, 2]."""
    groups = np.asarray(groups)
    # More than half of the candidates fall away below, so many more are drawn; a small set is drawn whole.
    candidates = draw_pairs(len(groups), len(groups), 20 * n_pairs, seed)
    i, j = candidates.T
    return candidates[(i < j) & (groups[i] != groups[j])][:n_pairs]


def ssim_of_pairs(
    a: np.ndarray,
    b: np.ndarray,
    pairs: np.ndarray,
    progress: Callable[[Iterable], Iterable] = lambda pairs: pairs,
) -> np.ndarray:
    """SSIM of a[i] and b[j] for each of ``pairs`` [P, 2]; a, b uint8 [N, S, S] and [M, S, S]; float [P]."""
    return np.array([ssim(a[i], b[j]) for i, j in progress(pairs)], dtype=float)


def summarise(values: np.ndarray, pairs: np.ndarray, same_set: bool = False) -> dict[str, Any]:
    """Mean, sample SD and median of ``values`` with the number of pairs and of different images in them."""
    first, second = set(pairs[:, 0].tolist()), set(pairs[:, 1].tolist())
    n_images = [len(first | second)] if same_set else [len(first), len(second)]
    return {
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "median": float(np.median(values)) if len(values) else None,
        "n_pairs": len(values),
        "n_images": n_images,
    }


def relative_diversity(synthetic: dict[str, Any], real: dict[str, Any]) -> dict[str, float | None]:
    """How varied synthetic images are beside real ones, from two ``summarise`` of pairs within each set.

    (1 - mean SSIM of synthetic pairs) / (1 - mean SSIM of real pairs): 1 where the synthetic images differ
    from one another as much as real ones do, 0 where they are all the same. ``ci95`` by the delta method,
    pairs taken as independent. All None where a set has fewer than 2 pairs or the real ones are identical.
    """
    spreads = [(1.0 - part["mean"], part["sd"], part["n_pairs"])
               for part in (synthetic, real) if part["n_pairs"] > 1]  # fmt: skip
    if len(spreads) < 2 or spreads[1][0] <= 0:
        return {"ratio": None, "ci95": None}
    (made, made_sd, made_n), (born, born_sd, born_n) = spreads
    ratio = made / born
    error = np.hypot(made_sd / np.sqrt(made_n), ratio * born_sd / np.sqrt(born_n)) / born
    return {"ratio": ratio, "ci95": [max(0.0, ratio - 1.96 * error), ratio + 1.96 * error]}


# --- Fréchet distance ------------------------------------------------------------------------------
def mean_and_covariance(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float [N, D] -> mean [D] and unbiased covariance [D, D]; at least two rows."""
    features = np.asarray(features, dtype=np.float64)
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


def frechet_distance(mu_a: np.ndarray, sigma_a: np.ndarray, mu_b: np.ndarray, sigma_b: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: mean [D] and covariance [D, D] each.

    |mu_a - mu_b|^2 + tr(sigma_a) + tr(sigma_b) - 2 tr((sigma_a sigma_b)^(1/2))   (Dowson and Landau 1982)

    The last trace is that of (r sigma_b r)^(1/2) with r = sigma_a^(1/2), a symmetric matrix: eigenvalues
    of symmetric matrices stay real, where a general matrix square root may not.
    """
    values, vectors = np.linalg.eigh(sigma_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ sigma_b @ root).clip(min=0)).sum()
    return _assemble(mu_a - mu_b, np.trace(sigma_a), np.trace(sigma_b), cross)


def frechet_distance_of_features(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to features float [N, D] and [M, D].

    With fewer images than features the cross term is the nuclear norm of the N x M matrix
    A B^T / sqrt((N - 1)(M - 1)) of the centred features: the same number, without any D x D matrix.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if max(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(*mean_and_covariance(a), *mean_and_covariance(b))
    centred_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    centred_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    return _assemble(a.mean(axis=0) - b.mean(axis=0), (centred_a**2).sum(), (centred_b**2).sum(), cross)


def _assemble(shift: np.ndarray, trace_a: float, trace_b: float, cross: float) -> float:
    """The distance from its parts; rounding can leave a zero distance a hair below zero."""
    return max(0.0, float(shift @ shift + trace_a + trace_b - 2.0 * cross))


# --- kernel distance -------------------------------------------------------------------------------
def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3 of features [N, D], [M, D]: KID.

    Zero on average for two samples of one distribution, at any N; a single value may be negative.
    Binkowski et al., "Demystifying MMD GANs", ICLR 2018.
    """
    return _unbiased_mmd(cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b))


def kernel_distance_of_subsets(
    a: np.ndarray, b: np.ndarray, *, size: int, seed: int, n_subsets: int = KID_SUBSETS
) -> dict[str, Any]:
    """KID as it is published: mean and SD over ``n_subsets`` random subsets of ``size`` images of each set,
    drawn without replacement; the kernels are computed once. {"mean", "sd", "size", "n_subsets"}."""
    k_aa, k_bb, k_ab = cubic_kernel(a, a), cubic_kernel(b, b), cubic_kernel(a, b)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_subsets):
        i, j = (rng.choice(len(k), size, replace=False) for k in (k_aa, k_bb))
        values.append(_unbiased_mmd(k_aa[np.ix_(i, i)], k_bb[np.ix_(j, j)], k_ab[np.ix_(i, j)]))
    return {
        "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)),
        "size": size, "n_subsets": n_subsets,
    }  # fmt: skip


def cubic_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _unbiased_mmd(k_aa: np.ndarray, k_bb: np.ndarray, k_ab: np.ndarray) -> float:
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (k_aa, k_bb)]
    return float(sum(within) - 2 * k_ab.mean())


# --- distances at equal n --------------------------------------------------------------------------
def halve_by_group(groups: Sequence[Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two random halves, as equal in size as whole groups (patients) allow; shuffled."""
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
    """``n``: images on either side of every comparison; ``draws``: how many; iterating gives, for each draw,
    {name: (features [n, D], reference [n, D])}."""

    n: int
    draws: int
    make: Callable[[], Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]]

    def __iter__(self) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        return self.make()

    def __len__(self) -> int:
        return self.draws


def equal_draws(
    training: np.ndarray,
    patients: Sequence[Any],
    synthetic: np.ndarray,
    heldout: np.ndarray | None,
    *,
    max_images: int,
    seed: int,
    draws: int = FID_DRAWS,
) -> EqualDraws:
    """Sets of features [N, D] to be compared, all at the same n.

    Every draw splits the training images into halves that share no patient; ``floor`` is the other half
    against the first, and the other comparisons use n images of the first half, of ``synthetic`` and of
    ``heldout`` (left out where it has so few images that n would fall below half of what the others allow).
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
                compared |= {"synthetic_vs_heldout": (made, unseen), "training_vs_heldout": (unseen, real)}
            yield compared

    return EqualDraws(n, draws, make)


REAL_TO_REAL = ("floor", "training_vs_heldout")  # of the names below, those without synthetic images


def distances_of_draws(
    sets: EqualDraws,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    known: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> dict[str, list[Sequence[float]]]:
    """(Fréchet, kernel) distance of each draw, by name. ``known``: such of an earlier time, taken as they
    are. Nothing if n is below 2, where no distance exists."""
    values: dict[str, list[Sequence[float]]] = {name: list(rows) for name, rows in (known or {}).items()}
    if sets.n < 2:
        return {}
    for compared in progress(sets):
        for name, (a, b) in compared.items():
            if name not in (known or {}):
                distances = (frechet_distance_of_features(a, b), kernel_distance(a, b))
                values.setdefault(name, []).append(distances)
    return {name: values[name] for name in compared}


def feature_distances(
    sets: EqualDraws,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    known: Mapping[str, Sequence[Sequence[float]]] | None = None,
    found: Callable[[dict[str, list[Sequence[float]]]], object] = lambda _: None,
) -> dict[str, Any]:
    """Fréchet and kernel distances between sets of features, mean and SD over the draws.

    {"n", "draws", "distances": {name: {"fid", "fid_sd", "kid", "kid_sd"}}}; or {"n": n} alone if n is
    below 2, where no distance exists. ``known``: see ``distances_of_draws``, whose result ``found`` is given.
    """
    values = distances_of_draws(sets, progress, known)
    if not values:
        return {"n": sets.n}
    found(values)
    by_name = {name: _over_draws(v) for name, v in values.items()}
    return {"n": sets.n, "draws": sets.draws, "distances": by_name}


def _over_draws(values: list[Sequence[float]]) -> dict[str, float | None]:
    fid, kid = np.array(values).T
    sd = (lambda x: float(x.std(ddof=1))) if len(values) > 1 else (lambda _: None)
    return {"fid": float(fid.mean()), "fid_sd": sd(fid), "kid": float(kid.mean()), "kid_sd": sd(kid)}


# --- closest pairs ---------------------------------------------------------------------------------
def closest_pairs(
    a: np.ndarray, b: np.ndarray, n_pairs: int, side: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of ``a`` most like some row of ``b``, best first: pairs int [P, 2] and correlations [P].

    Images uint8 [N, S, S] and [M, S, S]; likeness is Pearson's r of the ``side`` x ``side`` area averages,
    blind to brightness and contrast. Each row of ``a`` appears once, with its closest row of ``b``.
    """
    r = _standardise(thumbnail_features(a, side)) @ _standardise(thumbnail_features(b, side)).T  # [N, M]
    closest = r.argmax(axis=1)
    best = r[np.arange(len(a)), closest]
    rows = np.argsort(-best, kind="stable")[:n_pairs]
    return np.stack([rows, closest[rows]], axis=1), best[rows]


def _standardise(rows: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and length 1, so that products are correlations (a constant row: all 0)."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(min=1e-12)
