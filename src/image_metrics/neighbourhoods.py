"""How one set of features lies beside another: precision, recall, density, coverage, and separability.

Arrays of features in, numbers out; nothing here reads a file or plots. What the distances of
``image_quality`` add up into one number falls apart here into two: are the images like real ones, and do
they show all that real ones show?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from image_metrics.distances import EqualDraws
from stats.metrics import auroc

NEIGHBOURS = 5  # Naeem et al. 2020; one k for all four numbers
PROBE_FOLDS = 5
PROBE_C = 0.01  # inverse L2 strength: hundreds of images, thousands of standardised features
SCORES = ("precision", "recall", "density", "coverage")


# --- neighbourhoods --------------------------------------------------------------------------------
def neighbourhood_scores(features: np.ndarray, real: np.ndarray, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of ``features`` [M, D] beside ``real`` [N, D].

    Every image has a ball that reaches to its ``k``-th nearest neighbour within its own set (itself left
    out; Euclidean distance, boundary included).

    - precision: share of ``features`` inside the ball of any real image; recall: share of real images inside
      the ball of any of ``features`` (Kynkäänniemi et al., NeurIPS 2019, equations 1 to 3);
    - density: number of real balls that an image of ``features`` lies in, divided by k, on average (may
      exceed 1); coverage: share of real images whose ball holds any of ``features`` (Naeem et al., ICML
      2020, equations 5 and 6).

    ``ValueError`` unless both sets have more than ``k`` images.
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
    """Distance of each point to its ``k``-th nearest neighbour in the same set: float [N]."""
    distances = _distances(points, points)
    np.fill_diagonal(distances, np.inf)
    return np.partition(distances, k - 1, axis=1)[:, k - 1]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return euclidean_distances(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))


def scores_over_draws(sets: EqualDraws, k: int = NEIGHBOURS) -> dict[str, Any]:
    """Mean and SD over the draws of the four scores of the synthetic images, of unseen real ones
    ("training_vs_heldout") and of the other half of the training images ("floor"), beside training images.

    {"n", "k", "draws", "scores": {comparison: {score: {"mean", "sd"}}}}; without "scores" if n <= k.
    """
    result: dict[str, Any] = {"n": sets.n, "k": k, "draws": sets.draws}
    if sets.n <= k:
        return result
    values: dict[str, list[list[float]]] = {}
    for compared in sets:
        for name in ("synthetic_vs_training", "training_vs_heldout", "floor"):
            if name in compared:
                scores = neighbourhood_scores(*compared[name], k)
                values.setdefault(name, []).append([scores[score] for score in SCORES])
    return result | {"scores": {name: _summary(np.array(rows)) for name, rows in values.items()}}


def _summary(rows: np.ndarray) -> dict[str, dict[str, float | None]]:
    """float [draws, 4] -> mean and sample SD of each score."""
    sd = rows.std(axis=0, ddof=1).tolist() if len(rows) > 1 else [None] * len(SCORES)
    return {
        score: {"mean": float(mean), "sd": spread}
        for score, mean, spread in zip(SCORES, rows.mean(axis=0), sd, strict=True)
    }


# --- separability ----------------------------------------------------------------------------------
def separability(
    a: np.ndarray, groups_a: Sequence[Any], b: np.ndarray, groups_b: Sequence[Any], *, n: int, seed: int
) -> dict[str, Any]:
    """Can a linear probe tell features [N, D] from features [M, D]? Cross-validated AUROC.

    ``n`` rows of each side are drawn; folds keep ``groups`` (patients) whole, a group being one of the same
    name on either side. The probe is a standardised, L2-penalised logistic regression; the AUROC is computed
    in each fold, since scores of different fits cannot be ranked together. 0.5: cannot be told apart by
    a linear probe; 1: always.

    {"auroc", "sd" (over folds), "folds", "n"}; AUROC None with fewer than ``PROBE_FOLDS`` groups on a side.
    """
    rng = np.random.default_rng(seed)
    rows_a, rows_b = (rng.permutation(len(part))[:n] for part in (a, b))
    features = np.concatenate([a[rows_a], b[rows_b]])
    labels = np.repeat([0, 1], [len(rows_a), len(rows_b)])
    groups = np.array([*np.asarray(groups_a, dtype=str)[rows_a], *np.asarray(groups_b, dtype=str)[rows_b]])
    counts = {"folds": PROBE_FOLDS, "n": [len(rows_a), len(rows_b)]}
    if min(len(np.unique(groups[labels == side])) for side in (0, 1)) < PROBE_FOLDS:
        return {"auroc": None, "sd": None, **counts}
    folds = StratifiedGroupKFold(PROBE_FOLDS, shuffle=True, random_state=seed)
    values = []
    for train, test in folds.split(features, labels, groups):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=PROBE_C, max_iter=2000))
        probe.fit(features[train], labels[train])
        values.append(auroc(labels[test], probe.decision_function(features[test])))
    return {"auroc": float(np.nanmean(values)), "sd": float(np.nanstd(values, ddof=1)), **counts}
