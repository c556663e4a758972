"""Labels and probabilities -> numbers: classification metrics, intervals, paired differences.

Arrays in, plain floats out; nothing here reads a file, prints or plots. All rates are fractions in [0, 1].
A metric that is undefined (AUROC of one class, precision without predictions) is None or 0 as stated.
"""

from __future__ import annotations

import math
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
CONFIDENCE = 0.95
CALIBRATION_BINS = 10
BLOCK_ELEMENTS = 500_000  # weights held at once while resampling: 4 MB
SUMMARY_METRICS = (
    "accuracy", "weighted_precision", "weighted_recall", "weighted_f1", "auroc", "auprc", "sensitivity",
    "specificity", "brier",
)  # fmt: skip


# --- one set of predictions ------------------------------------------------------------------------
def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Metrics of probabilities [N] for labels 0/1 [N]; positive means probability >= 0.5.

    Weighted precision, recall and F1 are means over the two classes weighted by their size (precision 0
    for a class never predicted). ``confusion_matrix`` is [[tn, fp], [fn, tp]]. AUROC, AUPRC (average
    precision) and Brier score are None if only one class is there; PPV and NPV (of the results that say
    positive, negative: the share that is right) if nothing was called so.
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
        "ppv": float(tp / (tp + fp)) if tp + fp else None,
        "npv": float(tn / (tn + fn)) if tn + fn else None,
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)) if both else None,
        "ece": expected_calibration_error(labels, probabilities),
        "confusion_matrix": matrix.tolist(),
    }


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> list[float]:
    """Wilson score interval of a proportion (Wilson 1927), as [low, high]."""
    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def predictive_values(
    sensitivity: float | None, specificity: float | None, prevalence: float
) -> tuple[float | None, float | None]:
    """(PPV, NPV) where a share ``prevalence`` is ill, by Bayes' theorem; None where nothing is called so."""
    if sensitivity is None or specificity is None:
        return None, None
    ill, well = prevalence, 1.0 - prevalence
    called_ill = sensitivity * ill + (1.0 - specificity) * well
    called_well = specificity * well + (1.0 - sensitivity) * ill
    ppv = sensitivity * ill / called_ill if called_ill > 0 else None
    npv = specificity * well / called_well if called_well > 0 else None
    return ppv, npv


def reliability_bins(
    labels: np.ndarray, probabilities: np.ndarray, n_bins: int = CALIBRATION_BINS
) -> list[dict[str, Any]]:
    """Mean probability and share of positives in ``n_bins`` bins of equal width over [0, 1]; a bin holds its
    lower edge, the last one 1 too. Empty bins are left out."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    number = np.minimum((probabilities * n_bins).astype(int), n_bins - 1)
    return [
        {
            "mean_probability": float(probabilities[number == index].mean()),
            "share_positive": float(labels[number == index].mean()),
            "n": int((number == index).sum()),
        }
        for index in np.unique(number)
    ]


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, n_bins: int = CALIBRATION_BINS
) -> float:
    """Mean distance between predicted probability and share of positives over the reliability bins, weighted
    by their size (ECE: Naeini et al. 2015, on the probability of the positive class)."""
    bins = reliability_bins(labels, probabilities, n_bins)
    n = sum(row["n"] for row in bins)
    return float(sum(row["n"] * abs(row["mean_probability"] - row["share_positive"]) for row in bins) / n)


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
def weighted_accuracy(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy [B] of images weighted by ``weights`` [B, N]."""
    correct = (np.asarray(probabilities) >= THRESHOLD) == np.asarray(labels)
    return weights @ correct.astype(float) / weights.sum(axis=1)


def weighted_auroc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC [B] of images weighted by ``weights`` [B, N]; NaN in the rows where one class weighs nothing.

    Each positive counts the weight of the negatives below it and half of those that tie with it
    (Mann-Whitney): the scores are sorted once, the weights cumulated per row.
    """
    positive, probabilities = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=float)
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(probabilities[negatives])]
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    places = [
        np.searchsorted(probabilities[negatives], probabilities[positive], side) for side in ("left", "right")
    ]
    of_positives = weights[:, positive]
    wins = (of_positives * (below[:, places[0]] + below[:, places[1]])).sum(axis=1) / 2
    pairs = of_positives.sum(axis=1) * below[:, -1]
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


WEIGHTED_STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": weighted_accuracy,
    "auroc": weighted_auroc,
}


class PatientDraws:
    """Bootstrap resamples that draw patients with replacement and keep each one's images together (cluster
    bootstrap: Field and Welsh 2007).

    A resample is a row of ``counts`` [n_resamples, patients]: how often each patient was drawn. Predictors
    scored on the same draws are paired, so that what is common to them cancels in a difference.
    """

    def __init__(self, patients: Sequence[str], n_resamples: int = RESAMPLES, seed: int = 42) -> None:
        _, self.group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        self.n_patients = int(self.group.max()) + 1
        rng = np.random.default_rng(seed)
        self.counts = np.empty((n_resamples, self.n_patients), dtype=np.uint16)
        for row in self.counts:
            row[:] = np.bincount(rng.integers(0, self.n_patients, self.n_patients), minlength=self.n_patients)

    def weights(self, resamples: np.ndarray) -> np.ndarray:
        """float [len(resamples), N]: how often each image is in the resamples of those numbers."""
        return self.counts[resamples][:, self.group].astype(float)

    def scores(
        self,
        statistic: str,
        labels: np.ndarray,
        probabilities: np.ndarray,
        resamples: np.ndarray | None = None,
    ) -> np.ndarray:
        """``statistic`` ("accuracy" or "auroc") in each resample, or in those of the given numbers."""
        resamples = np.arange(len(self.counts)) if resamples is None else resamples
        step = max(1, BLOCK_ELEMENTS // len(labels))
        blocks = [resamples[start : start + step] for start in range(0, len(resamples), step)]
        compute = WEIGHTED_STATISTICS[statistic]
        return np.concatenate([compute(labels, probabilities, self.weights(block)) for block in blocks])


def cluster_bootstrap_ci(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str],
    statistic: str,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
) -> list[float]:
    """95 % percentile interval of ``statistic`` ("accuracy" or "auroc"), resampling patients: [low, high]."""
    draws = PatientDraws(patients, n_resamples, seed)
    return percentile_interval(draws.scores(statistic, labels, probabilities))


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

    Returns {"difference": float, "ci95": [low, high]}.
    """
    draws, compute = PatientDraws(patients, n_resamples, seed), STATISTICS[statistic]
    differences = draws.scores(statistic, labels, p_b) - draws.scores(statistic, labels, p_a)
    difference = compute(labels, p_b) - compute(labels, p_a)
    return {"difference": difference, "ci95": percentile_interval(differences)}


def percentile_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> list[float]:
    """Central share ``confidence`` of resampled ``values``: the k-th lowest and highest, k the whole part of
    (n + 1)(1 - confidence)/2, at least 1. Resamples without one of the classes (NaN) are left out."""
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return [float("nan"), float("nan")]
    k = max(1, math.floor((len(finite) + 1) * (1.0 - confidence) / 2))
    return [float(finite[k - 1]), float(finite[-k])]


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
