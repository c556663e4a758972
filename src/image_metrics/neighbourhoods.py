"""How one set of features lies relative to another: precision, recall, density, coverage, separability.

Arrays of features in, numbers out; nothing here reads a file or plots. A distance is one number; these scores
separate two questions: do the images look like real ones, and do they show everything that real ones show?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from image_metrics.equal_draws import EqualDraws
from stats.metrics import auroc

NEIGHBOURS = 5  # Naeem et al. 2020; one k for all four numbers
PROBE_FOLDS = 5
PROBE_C = 0.01  # inverse L2 strength: hundreds of images, thousands of standardised features
SCORES = ("precision", "recall", "density", "coverage")


class MeanScores(TypedDict):
    """Scores by neighbourhoods, mean over the draws; standard deviations are null for one draw."""

    precision: Annotated[float, "share of the images that lie among the reference images, 0 to 1"]
    precision_sd: Annotated[float | None, "sample standard deviation over the draws"]
    recall: Annotated[float, "share of the reference images that lie among the images, 0 to 1"]
    recall_sd: Annotated[float | None, "sample standard deviation over the draws"]
    density: Annotated[float, "neighbourhoods of reference images that an image lies in, divided by k"]
    density_sd: Annotated[float | None, "sample standard deviation over the draws"]
    coverage: Annotated[float, "share of the reference images with an image in their neighbourhood, 0 to 1"]
    coverage_sd: Annotated[float | None, "sample standard deviation over the draws"]


class EqualScores(TypedDict):
    """Scores at an equal number of images; without comparisons if that is at most k."""

    n: Annotated[int, "images on either side of every comparison"]
    k: Annotated[int, "neighbours that a neighbourhood reaches to"]
    draws: Annotated[int, "seeded draws"]
    comparisons: NotRequired[Annotated[dict[str, MeanScores], "by what is compared with what"]]


class Probe(TypedDict):
    """Separability: a linear probe that tells one set of images from another."""

    probe_auroc: Annotated[float | None, "cross-validated AUROC, 0.5 to 1; null with too few patients"]
    probe_auroc_sd: Annotated[float | None, "sample standard deviation over the folds"]
    folds: Annotated[int, "folds of the cross-validation"]
    n_images: Annotated[list[int], "images on each side"]


# --- neighbourhoods --------------------------------------------------------------------------------
def neighbourhood_scores(features: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of ``features`` [M, D] relative to ``real`` [N, D].

    Every image has a ball that reaches to its ``k``-th nearest neighbour within its own set (Euclidean
    distance; the image itself is left out, the boundary counts).

    - precision: share of ``features`` inside the ball of any real image; recall: share of real images inside
      the ball of any of ``features`` (Kynkäänniemi et al., NeurIPS 2019, equations 1 to 3);
    - density: number of real balls that an image of ``features`` lies in, divided by k, on average (may
      exceed 1); coverage: share of real images whose ball holds any of ``features`` (Naeem et al., ICML
      2020, equations 5 and 6).

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
    result["comparisons"] = {name: _mean(np.array(rows)) for name, rows in values.items()}
    return result


def _mean(rows: np.ndarray) -> MeanScores:
    """Average scores float [draws, 4]."""
    mean = rows.mean(axis=0).tolist()
    sd = rows.std(axis=0, ddof=1).tolist() if len(rows) > 1 else [None] * len(SCORES)
    precision, recall, density, coverage = zip(mean, sd, strict=True)
    return {
        "precision": precision[0], "precision_sd": precision[1],
        "recall": recall[0], "recall_sd": recall[1],
        "density": density[0], "density_sd": density[1],
        "coverage": coverage[0], "coverage_sd": coverage[1],
    }  # fmt: skip


# --- separability ----------------------------------------------------------------------------------
def separability(
    a: np.ndarray,
    groups_a: Sequence[Any] | np.ndarray,
    b: np.ndarray,
    groups_b: Sequence[Any] | np.ndarray,
    *,
    n: int,
    seed: int,
) -> Probe:
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
    n_images = [len(rows_a), len(rows_b)]
    if min(len(np.unique(groups[labels == side])) for side in (0, 1)) < PROBE_FOLDS:
        return {"probe_auroc": None, "probe_auroc_sd": None, "folds": PROBE_FOLDS, "n_images": n_images}
    folds = StratifiedGroupKFold(PROBE_FOLDS, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(features, labels, groups):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=2000))
        probe.fit(features[train], labels[train])
        values.append(auroc(labels[test], probe.decision_function(features[test])))
    mean, sd = float(np.nanmean(values)), float(np.nanstd(values, ddof=1))
    return {"probe_auroc": mean, "probe_auroc_sd": sd, "folds": PROBE_FOLDS, "n_images": n_images}
