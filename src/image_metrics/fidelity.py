"""How one set of images lies relative to another: precision, recall, density, coverage, separability, SSIM.

Arrays in, numbers out; everything random is a function of a seed. A distance is one number; the scores by
neighbourhoods separate two questions: do the images look like real ones, and do they show everything that
real ones show? SSIM measures similarity, not diagnostic quality: read it beside the same value for real
images.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict, cast

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from image_metrics.distances import EqualDraws, Groups, Progress
from stats.metrics import auroc

NEIGHBOURS = 5  # Naeem et al. 2020; one k for all four numbers
PROBE_FOLDS = 5
PROBE_C = 0.01  # inverse L2 strength: hundreds of images, thousands of standardised features
SCORES = ("precision", "recall", "density", "coverage")


Spread = Annotated[float | None, "sample standard deviation over the draws; null for one draw"]


class MeanScores(TypedDict):
    """Scores by neighbourhoods, mean over the draws."""

    precision: Annotated[float, "share of the images that lie among the reference images, 0 to 1"]
    precision_sd: Spread
    recall: Annotated[float, "share of the reference images that lie among the images, 0 to 1"]
    recall_sd: Spread
    density: Annotated[float, "neighbourhoods of reference images that an image lies in, divided by k"]
    density_sd: Spread
    coverage: Annotated[float, "share of the reference images with an image in their neighbourhood, 0 to 1"]
    coverage_sd: Spread


class EqualScores(TypedDict):
    """Scores at an equal number of images; without comparisons if that is at most k."""

    n: Annotated[int, "images on either side of every comparison"]
    k: Annotated[int, "neighbours that a neighbourhood reaches to"]
    draws: Annotated[int, "seeded draws"]
    comparisons: NotRequired[Annotated[dict[str, MeanScores], "by what is compared with what"]]


class Probe(TypedDict):
    """Separability: a linear probe that tells one set of images from another."""

    probe_auroc: Annotated[float | None, "cross-validated AUROC, 0.5 by chance; null with too few patients"]
    probe_auroc_sd: Annotated[float | None, "sample standard deviation over the folds"]
    folds: Annotated[int, "folds of the cross-validation"]
    n_images: Annotated[list[int], "images on each side"]


class SsimSummary(TypedDict):
    """SSIM of pairs of images: values in [-1, 1], 1 for identical images."""

    ssim: Annotated[float | None, "mean over the pairs; null without pairs"]
    ssim_sd: Annotated[float | None, "sample standard deviation; null below 2 pairs"]
    ssim_median: Annotated[float | None, "median over the pairs; null without pairs"]
    n_pairs: Annotated[int, "pairs of images"]
    n_images: Annotated[list[int], "distinct images: of each side, or one number for pairs within one set"]


class SsimDiversity(TypedDict):
    """Variety of the synthetic images relative to real ones, by SSIM."""

    ssim_diversity: Annotated[float | None, "(1 - SSIM of synthetic) / (1 - SSIM of real); 1: as varied"]
    ssim_diversity_ci95: Annotated[list[float] | None, "95 % interval by the delta method over pairs"]


# --- neighbourhoods --------------------------------------------------------------------------------
def neighbourhood_scores(features: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of ``features`` [M, D] relative to ``real`` [N, D].

    Every image has a ball that reaches to its ``k``-th nearest neighbour within its own set (Euclidean
    distance; the image itself is left out, the boundary counts).

    - precision: share of ``features`` inside the ball of any real image; recall: share of real images inside
      the ball of any of ``features`` (Kynkäänniemi et al., NeurIPS 2019, equations 1 to 3);
    - density: mean number of real balls that an image of ``features`` lies in, divided by k (may exceed 1);
      coverage: share of real images whose ball holds any of ``features`` (Naeem et al., ICML 2020, 5 and 6).

    Raises ``ValueError`` unless both sets have more than ``k`` images.
    """
    if min(len(features), len(real)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} images on each side")
    between = _distances(real, features)  # [N, M]
    real_radius, own_radius = (_radius(points, k) for points in (real, features))
    in_real_ball = between <= real_radius[:, None]
    in_own_ball = between <= own_radius[None, :]
    return {
        "precision": float(in_real_ball.any(axis=0).mean()),
        "recall": float(in_own_ball.any(axis=1).mean()),
        "density": float(in_real_ball.sum(axis=0).mean() / k),
        "coverage": float(in_real_ball.any(axis=1).mean()),
    }


def _radius(points: np.ndarray, k: int) -> np.ndarray:
    """Return the distance of each point to its ``k``-th nearest neighbour in the same set: float [N]."""
    distances = _distances(points, points)
    np.fill_diagonal(distances, np.inf)
    return np.partition(distances, k - 1, axis=1)[:, k - 1]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return euclidean_distances(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))


def scores_over_draws(sets: EqualDraws, k: int = NEIGHBOURS) -> EqualScores:
    """Average the four scores over the draws, for every comparison whose reference is training images.

    These are synthetic images, unseen real ones and the other half of the training images ("floor").
    """
    result: EqualScores = {"n": sets.n, "k": k, "draws": sets.draws}
    if sets.n <= k:
        return result
    values: dict[str, list[list[float]]] = {}
    for compared in sets:
        for name in ("synthetic_vs_training", "heldout_vs_training", "floor"):
            if name in compared:
                scores = neighbourhood_scores(*compared[name], k)
                values.setdefault(name, []).append([scores[score] for score in SCORES])
    result["comparisons"] = {name: _mean_scores(np.array(rows)) for name, rows in values.items()}
    return result


def _mean_scores(rows: np.ndarray) -> MeanScores:
    """Average scores float [draws, 4]."""
    sd = rows.std(axis=0, ddof=1).tolist() if len(rows) > 1 else [None] * len(SCORES)
    spreads = {f"{name}_sd": value for name, value in zip(SCORES, sd, strict=True)}
    return cast(MeanScores, dict(zip(SCORES, rows.mean(axis=0).tolist(), strict=True)) | spreads)


# --- separability ----------------------------------------------------------------------------------
def separability(a: np.ndarray, groups_a: Groups, b: np.ndarray, groups_b: Groups, *, n: int, seed: int) -> Probe:
    """Measure how well a linear probe tells features [N, D] from features [M, D], by cross-validated AUROC.

    ``n`` rows of each side are drawn. Folds keep groups (patients) whole; the same name on either side is the
    same group. The probe is a standardised, L2-penalised logistic regression. The AUROC is computed within
    each fold, since scores of different fits cannot be ranked together. 0.5: the probe cannot tell the sets
    apart; 1: it always can; None with fewer than ``PROBE_FOLDS`` groups on a side.
    """
    rng = np.random.default_rng(seed)
    rows_a, rows_b = (rng.permutation(len(part))[:n] for part in (a, b))
    features = np.concatenate([a[rows_a], b[rows_b]])
    labels = np.repeat([0, 1], [len(rows_a), len(rows_b)])
    groups = np.array([*np.asarray(groups_a, dtype=str)[rows_a], *np.asarray(groups_b, dtype=str)[rows_b]])
    result: Probe = {
        "probe_auroc": None, "probe_auroc_sd": None, "folds": PROBE_FOLDS,
        "n_images": [len(rows_a), len(rows_b)],
    }  # fmt: skip
    if min(len(np.unique(groups[labels == side])) for side in (0, 1)) < PROBE_FOLDS:
        return result
    folds = StratifiedGroupKFold(PROBE_FOLDS, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(features, labels, groups):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=2000))
        probe.fit(features[train], labels[train])
        values.append(auroc(labels[test], probe.decision_function(features[test])))
    result["probe_auroc"] = float(np.nanmean(values))
    result["probe_auroc_sd"] = float(np.nanstd(values, ddof=1))
    return result


# --- pairs of images -------------------------------------------------------------------------------
def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two gray images uint8 [S, S], in [-1, 1]; 1 only for identical images.

    Gaussian window of sigma 1.5 and population covariance: the settings of Wang et al., IEEE TIP 2004.
    """
    from skimage.metrics import structural_similarity

    settings = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, **settings))


def draw_pairs(n_a: int, n_b: int, n_pairs: int, seed: int) -> np.ndarray:
    """Draw distinct random pairs (row of a, row of b): int [min(n_pairs, n_a * n_b), 2]."""
    flat = np.random.default_rng(seed).choice(n_a * n_b, size=min(n_pairs, n_a * n_b), replace=False)
    return np.stack(np.divmod(flat, n_b), axis=1)


def draw_pairs_within(groups: Groups, n_pairs: int, seed: int) -> np.ndarray:
    """Draw distinct pairs i < j of one set whose ``groups`` (patients) differ: int [at most n_pairs, 2]."""
    groups = np.asarray(groups)
    # More than half of the candidates are dropped below, so many more are drawn; a small set is drawn whole.
    candidates = draw_pairs(len(groups), len(groups), 20 * n_pairs, seed)
    i, j = candidates.T
    return candidates[(i < j) & (groups[i] != groups[j])][:n_pairs]


def ssim_of_pairs(
    a: np.ndarray, b: np.ndarray, pairs: np.ndarray, progress: Progress = lambda pairs: pairs
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
