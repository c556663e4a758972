"""Labels and probabilities -> numbers: classification metrics, calibration bins, the Wilson interval.

Arrays in, plain floats out; nothing here reads a file, prints or plots. All rates are fractions in [0, 1].
Positive means a probability of at least ``THRESHOLD``. ``stats.metric_registry`` says which of these metrics
appear in result files and reports, and under which names.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from scipy.stats import binomtest, rankdata

THRESHOLD = 0.5
CONFIDENCE = 0.95
CALIBRATION_BINS = 10


class ReliabilityBin(TypedDict):
    """The images of one bin of predicted probability."""

    mean_probability: float
    share_positive: float
    n: int


# --- one set of predictions ------------------------------------------------------------------------
def count_calls(labels: np.ndarray, probabilities: np.ndarray) -> list[list[int]]:
    """Return the confusion matrix [[tn, fp], [fn, tp]] of labels 0/1 [N] and probabilities [N]."""
    called = np.asarray(probabilities, dtype=float) >= THRESHOLD
    return np.bincount(2 * np.asarray(labels, dtype=int) + called, minlength=4).reshape(2, 2).tolist()


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the share of images [N] that are called correctly."""
    return float(((np.asarray(probabilities) >= THRESHOLD) == np.asarray(labels)).mean())


def sensitivity(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the share of the positive images that are called positive; None without any."""
    _, (fn, tp) = count_calls(labels, probabilities)
    return tp / (tp + fn) if tp + fn else None


def specificity(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the share of the negative images that are called negative; None without any."""
    (tn, fp), _ = count_calls(labels, probabilities)
    return tn / (tn + fp) if tn + fp else None


def positive_predictive_value(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the share of the images called positive that are positive; None if no image is called so."""
    (_, fp), (_, tp) = count_calls(labels, probabilities)
    return tp / (tp + fp) if tp + fp else None


def negative_predictive_value(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the share of the images called negative that are negative; None if no image is called so."""
    (tn, _), (fn, _) = count_calls(labels, probabilities)
    return tn / (tn + fn) if tn + fn else None


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve as the Mann-Whitney statistic with mid-ranks; NaN if one class is missing."""
    labels = np.asarray(labels, dtype=bool)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = rankdata(probabilities)[labels].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def predictive_values(
    sensitivity: float | None, specificity: float | None, prevalence: float
) -> tuple[float | None, float | None]:
    """(PPV, NPV) where a share ``prevalence`` is ill, by Bayes' theorem; None where nobody is called so."""
    if sensitivity is None or specificity is None:
        return None, None
    ill, well = prevalence, 1.0 - prevalence
    called_ill = sensitivity * ill + (1.0 - specificity) * well
    called_well = specificity * well + (1.0 - sensitivity) * ill
    ppv = sensitivity * ill / called_ill if called_ill > 0 else None
    npv = specificity * well / called_well if called_well > 0 else None
    return ppv, npv


# --- calibration -----------------------------------------------------------------------------------
def reliability_bins(labels: np.ndarray, probabilities: np.ndarray) -> list[ReliabilityBin]:
    """Return the mean probability and share of positives in ten bins of equal width over [0, 1].

    A bin holds its lower edge, the last one 1 too. Empty bins are left out.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    number = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        {
            "mean_probability": float(probabilities[number == index].mean()),
            "share_positive": float(labels[number == index].mean()),
            "n": int((number == index).sum()),
        }
        for index in np.unique(number)
    ]


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance between predicted probability and share of positives over the reliability bins.

    Bins are weighted by their size (ECE: Naeini et al. 2015, on the probability of the positive class).
    """
    bins = reliability_bins(labels, probabilities)
    return float(sum(row["n"] * abs(row["mean_probability"] - row["share_positive"]) for row in bins) / len(labels))


# --- weighted images, for the bootstrap --------------------------------------------------------------
def weighted_accuracy(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the accuracy [R] of images weighted by ``weights`` [R, N]; NaN in rows where none weighs anything."""
    correct = (np.asarray(probabilities) >= THRESHOLD) == np.asarray(labels)
    right, total = weights @ correct.astype(float), weights.sum(axis=1)
    return np.divide(right, total, out=np.full(len(weights), np.nan), where=total > 0)


def weighted_auroc(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC [R] of images weighted by ``weights`` [R, N]; NaN in the rows where one class weighs nothing.

    Each positive counts the weight of the negatives below it and half of those that tie with it
    (Mann-Whitney): the scores are sorted once, the weights cumulated per row.
    """
    positive, probabilities = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=float)
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(probabilities[negatives])]
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    left, right = (
        np.searchsorted(probabilities[negatives], probabilities[positive], side="left"),
        np.searchsorted(probabilities[negatives], probabilities[positive], side="right"),
    )
    of_positives = weights[:, positive]
    wins = (of_positives * (below[:, left] + below[:, right])).sum(axis=1) / 2
    pairs = of_positives.sum(axis=1) * below[:, -1]
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


# --- intervals of a rate -----------------------------------------------------------------------------
def wilson_interval(successes: int, n: int) -> list[float]:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927), as [low, high]."""
    interval = binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def wilson_accuracy_interval(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """95 % Wilson interval of the accuracy, which takes every image for independent of every other."""
    (tn, _), (_, tp) = count_calls(labels, probabilities)
    return wilson_interval(tn + tp, len(labels))
