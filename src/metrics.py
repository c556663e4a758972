"""Labels and probabilities -> numbers: classification metrics, intervals, paired differences.

Arrays in, plain floats out; nothing here reads a file, prints or plots. All rates are fractions in [0, 1].
A metric that is undefined (AUROC of one class, precision without predictions) is None or 0 as stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, rankdata
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

THRESHOLD = 0.5
RESAMPLES = 2000
SUMMARY_METRICS = (
    "accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "auroc", "auprc", "sensitivity",
    "specificity", "brier",
)  # fmt: skip


# --- one set of predictions ------------------------------------------------------------------------
def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Metrics of probabilities [N] for labels 0/1 [N]; positive means probability >= 0.5.

    Weighted precision, recall and F1 are means over the two classes weighted by their size (precision 0
    for a class never predicted). ``confusion_matrix`` is [[tn, fp], [fn, tp]]. AUROC and AUPRC (average
    precision) are None if only one class is there.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    predicted = (probabilities >= THRESHOLD).astype(int)
    matrix = confusion_matrix(labels, predicted, labels=[0, 1])
    (tn, fp), (fn, tp) = matrix
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="weighted", zero_division=0
    )
    both = len(np.unique(labels)) == 2
    return {
        "accuracy": float((predicted == labels).mean()),
        "weighted_precision": float(precision),
        "weighted_recall": float(recall),
        "weighted_f1": float(f1),
        "auroc": float(roc_auc_score(labels, probabilities)) if both else None,
        "auprc": float(average_precision_score(labels, probabilities)) if both else None,
        "sensitivity": float(tp / (tp + fn)) if tp + fn else None,
        "specificity": float(tn / (tn + fp)) if tn + fp else None,
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)) if both else None,
        "confusion_matrix": matrix.tolist(),
    }


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> list[float]:
    """Wilson score interval of a proportion (Wilson 1927), as [low, high]."""
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(((np.asarray(probabilities) >= THRESHOLD) == np.asarray(labels)).mean())


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic with mid-ranks; NaN if one class is missing."""
    labels = np.asarray(labels, dtype=bool)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = rankdata(probabilities)[labels].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"accuracy": accuracy, "auroc": auroc}


# --- intervals that respect patients ---------------------------------------------------------------
def cluster_resamples(patients: Sequence[str], n_resamples: int, seed: int) -> list[np.ndarray]:
    """Row indices of bootstrap resamples that draw patients with replacement and keep each one's images
    together (cluster bootstrap: Field and Welsh 2007)."""
    _, group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    order = np.argsort(group, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group))[:-1])
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(members), size=(n_resamples, len(members)))
    return [np.concatenate([members[patient] for patient in draw]) for draw in draws]


def cluster_bootstrap_ci(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str],
    statistic: str,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
) -> list[float]:
    """95 % percentile interval of ``statistic`` ("accuracy" or "auroc"), resampling patients: [low, high]."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    compute = STATISTICS[statistic]
    resamples = cluster_resamples(patients, n_resamples, seed)
    return _percentiles([compute(labels[rows], probabilities[rows]) for rows in resamples])


def paired_cluster_bootstrap(
    labels: np.ndarray,
    p_a: np.ndarray,
    p_b: np.ndarray,
    patients: Sequence[str],
    statistic: str,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
) -> dict[str, Any]:
    """``statistic`` of b minus that of a on the same images, with a 95 % percentile interval.

    Each resample draws patients and evaluates both predictors on the same rows, so that what is common to
    both cancels. Returns {"difference": float, "ci95": [low, high]}.
    """
    labels, p_a, p_b = np.asarray(labels), np.asarray(p_a, dtype=float), np.asarray(p_b, dtype=float)
    compute = STATISTICS[statistic]
    differences = [
        compute(labels[rows], p_b[rows]) - compute(labels[rows], p_a[rows])
        for rows in cluster_resamples(patients, n_resamples, seed)
    ]
    return {"difference": compute(labels, p_b) - compute(labels, p_a), "ci95": _percentiles(differences)}


def _percentiles(values: Sequence[float]) -> list[float]:
    """Central 95 % of ``values``; resamples without one of the classes (NaN) are left out."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return [float("nan"), float("nan")]
    return [float(bound) for bound in np.percentile(finite, [2.5, 97.5])]


# --- folds -----------------------------------------------------------------------------------------
def mean_and_std(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Mean and sample standard deviation (n - 1) of each summary metric over folds; None where undefined."""
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for name in (*SUMMARY_METRICS, "val_loss"):
        values = [row[name] for row in rows if row.get(name) is not None]
        mean[name] = float(np.mean(values)) if values else None
        std[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return mean, std
