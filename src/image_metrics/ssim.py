"""Structural similarity (SSIM) of pairs of images, and the diversity of a set that follows from it.

Arrays in, numbers out; everything random is a function of a seed. SSIM measures similarity, not diagnostic
quality: a value can only be read beside the same value for real images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypedDict

import numpy as np


class SsimSummary(TypedDict):
    """SSIM of pairs of images: values in [-1, 1], 1 for identical images."""

    ssim: Annotated[float | None, "mean over the pairs; null without pairs"]
    ssim_sd: Annotated[float | None, "sample standard deviation; null below 2 pairs"]
    ssim_median: Annotated[float | None, "median over the pairs; null without pairs"]
    n_pairs: Annotated[int, "pairs of images"]
    n_images: Annotated[list[int], "distinct images: of each side, or one number for pairs within one set"]


class SsimDiversity(TypedDict):
    """Variety of the synthetic images relative to real ones, by SSIM."""

    ssim_diversity: Annotated[
        float | None, "(1 - SSIM of synthetic pairs) / (1 - SSIM of real pairs): 1 if equally varied"
    ]
    ssim_diversity_ci95: Annotated[list[float] | None, "95 % interval by the delta method over pairs"]


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
    """Draw distinct random pairs (row of a, row of b): int [min(n_pairs, n_a * n_b), 2]."""
    flat = np.random.default_rng(seed).choice(n_a * n_b, size=min(n_pairs, n_a * n_b), replace=False)
    return np.stack(np.divmod(flat, n_b), axis=1)


def draw_pairs_within(groups: Sequence[Any] | np.ndarray, n_pairs: int, seed: int) -> np.ndarray:
    """Draw distinct pairs i < j of one set whose ``groups`` (patients) differ: int [at most n_pairs, 2]."""
    groups = np.asarray(groups)
    # More than half of the candidates are dropped below, so many more are drawn; a small set is drawn whole.
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


def summarise_pairs(values: np.ndarray, pairs: np.ndarray, same_set: bool = False) -> SsimSummary:
    """Summarise the SSIM of pairs: mean, sample SD, median, and how many pairs and distinct images there are.

    ``n_images`` holds one number for pairs within one set (``same_set``), else one for each side.
    """
    first, second = set(pairs[:, 0].tolist()), set(pairs[:, 1].tolist())
    return {
        "ssim": float(values.mean()) if len(values) else None,
        "ssim_sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "ssim_median": float(np.median(values)) if len(values) else None,
        "n_pairs": len(values),
        "n_images": [len(first | second)] if same_set else [len(first), len(second)],
    }


def relative_diversity(synthetic: SsimSummary, real: SsimSummary) -> SsimDiversity:
    """Return how varied synthetic images are relative to real ones, from the pairs within each set.

    (1 - mean SSIM of synthetic pairs) / (1 - mean SSIM of real pairs): 1 if the synthetic images differ from
    one another as much as real ones do, 0 if they are all the same. The interval is by the delta method, with
    pairs taken as independent. All values are None if a set has fewer than 2 pairs or all real images
    are identical.
    """
    parts = [(part["ssim"], part["ssim_sd"], part["n_pairs"]) for part in (synthetic, real)]
    (made, made_sd, made_n), (born, born_sd, born_n) = parts
    if made is None or made_sd is None or born is None or born_sd is None or born >= 1.0:
        return {"ssim_diversity": None, "ssim_diversity_ci95": None}
    ratio = (1.0 - made) / (1.0 - born)
    error = np.hypot(made_sd / np.sqrt(made_n), ratio * born_sd / np.sqrt(born_n)) / (1.0 - born)
    interval = [max(0.0, ratio - 1.96 * error), ratio + 1.96 * error]
    return {"ssim_diversity": ratio, "ssim_diversity_ci95": interval}
