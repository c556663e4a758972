"""Two predictors on the same images or folds: McNemar, DeLong, Nadeau-Bengio, Holm, and the verdict.

Arrays in, plain numbers out. The image-level tests (McNemar, DeLong) take every image for independent of
every other, which images of one patient are not; ``stats.bootstrap`` draws whole patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, t

from stats.metrics import CONFIDENCE, THRESHOLD

ALPHA = 0.05
BETTER, WORSE, NO_EVIDENCE = "better", "worse", "no evidence of a difference"
Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


# --- image-level tests -----------------------------------------------------------------------------
def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute AUROCs [M] of predictors ``scores`` [M, N] on the same images, and their covariance [M, M].

    DeLong, DeLong and Clarke-Pearson 1988, from mid-ranks (Sun and Xu 2014). Needs two images of each class.
    """
    labels, scores = np.asarray(labels, dtype=bool), np.atleast_2d(np.asarray(scores, dtype=float))
    positives, negatives = scores[:, labels], scores[:, ~labels]
    m, n = positives.shape[1], negatives.shape[1]
    ranks = rankdata(scores, axis=1)
    # Share of the negatives below each positive, of the positives above each negative; ties count half.
    of_positives = (ranks[:, labels] - rankdata(positives, axis=1)) / n
    of_negatives = 1.0 - (ranks[:, ~labels] - rankdata(negatives, axis=1)) / m
    covariance = np.atleast_2d(np.cov(of_positives)) / m + np.atleast_2d(np.cov(of_negatives)) / n
    return of_positives.mean(axis=1), covariance


def delong_interval(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """Return the 95 % interval of the AUROC, [low, high], image-level.

    DeLong's variance on the logit scale, so that it stays within 0 and 1 (Pepe 2003, section 5.2). A perfect
    separation has no variance to go by: there it is Newcombe's (2006) score interval, his method 5. None
    with fewer than two images of a class.
    """
    labels = np.asarray(labels, dtype=bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < 2:
        return [None, None]
    (area,), ((variance,),) = delong(labels, probabilities)
    if variance <= 0 or not 0 < area < 1:
        return _newcombe_interval(float(area), positives, negatives)
    half = Z * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return [1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))]


def _newcombe_interval(area: float, positives: int, negatives: int) -> list[float | None]:
    """The areas whose own standard error (Hanley and McNeil 1982) puts ``area`` at most Z of it away."""
    pseudo = (positives + negatives) / 2 - 1

    def excess(value: float) -> float:
        spread = 1 + pseudo * ((1 - value) / (2 - value) + value / (1 + value))
        return (value - area) ** 2 - Z**2 * value * (1 - value) * spread / (positives * negatives)

    edge = 1e-12
    low = brentq(excess, edge, area - edge) if area > 2 * edge else 0.0
    high = brentq(excess, area + edge, 1 - edge) if area < 1 - 2 * edge else 1.0
    return [float(low), float(high)]


def delong_p(labels: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> float | None:
    """Two-sided p of equal AUROCs on the same images (DeLong 1988); None with too few of a class."""
    labels = np.asarray(labels, dtype=bool)
    if min(labels.sum(), (~labels).sum()) < 2:
        return None
    areas, covariance = delong(labels, np.stack([p_a, p_b]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = areas[1] - areas[0]
    if variance <= 1e-15:  # rounding: every image counts the same in both
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(difference) / math.sqrt(variance)))


def mcnemar(labels: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> tuple[float, int, int]:
    """(exact two-sided p of equal accuracy, images that only a has right, that only b has right)."""
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    labels = np.asarray(labels)
    right_a, right_b = ((np.asarray(p) >= THRESHOLD) == labels for p in (p_a, p_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    table = [[0, only_a], [only_b, 0]]  # the images on which both agree do not enter
    return float(min(1.0, exact_mcnemar(table, exact=True).pvalue)), only_a, only_b


# --- folds -----------------------------------------------------------------------------------------
class FoldTest(TypedDict):
    """Mean difference over folds with its 95 % interval and p; both None if every fold gives the same."""

    difference: float
    ci95: list[float] | None
    p: float | None


def nadeau_bengio(differences: Sequence[float], test_sizes: Sequence[int]) -> FoldTest:
    """Corrected resampled t-test of the mean of ``differences`` over k folds of ``test_sizes`` images.

    The folds share training images, which the factor 1/k + n_test/n_train of the variance makes up for
    (Nadeau and Bengio 2003, equation 13, with the mean fold). If every fold gives the same difference, no
    variance is left to go by: interval and p are None.
    """
    values, k = np.asarray(differences, dtype=float), len(differences)
    test_size = float(np.mean(test_sizes))
    factor = 1 / k + test_size / (float(np.sum(test_sizes)) - test_size)
    mean, error = float(values.mean()), math.sqrt(factor * values.var(ddof=1))
    if np.ptp(values) < 1e-12:
        return {"difference": mean, "ci95": None, "p": None}
    half = float(t.ppf(0.5 + CONFIDENCE / 2, k - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, k - 1))
    return {"difference": mean, "ci95": [mean - half, mean + half], "p": p}


# --- several pairs, and the verdict ----------------------------------------------------------------
def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number (Holm 1979); None stays None and does not count.

    Not statsmodels' ``multipletests``: it collects garbage, which takes half a second in a program of this size.
    """
    defined = np.array([index for index, p in enumerate(p_values) if p is not None], dtype=int)
    p = np.array([p_values[index] for index in defined], dtype=float)
    order = np.argsort(p)
    corrected = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    adjusted: list[float | None] = [None] * len(p_values)
    for index, value in zip(defined[order], corrected, strict=True):
        adjusted[index] = float(value)
    return adjusted


def decide_verdict(difference: float | None, ci95: Sequence[float] | None, p_holm: float | None, margin: float) -> str:
    """Choose one of four wordings for b against a, by a rule that was fixed before any result was seen.

    In this order: the interval lies inside +-``margin`` (a fraction) -> equivalent; adjusted p below .05 ->
    better or worse; else no evidence of a difference.
    """
    if difference is None or ci95 is None or p_holm is None:
        return NO_EVIDENCE
    low, high = ci95
    if -margin < low and high < margin:
        return equivalent(margin)
    if p_holm < ALPHA:
        return BETTER if difference > 0 else WORSE
    return NO_EVIDENCE


def equivalent(margin: float) -> str:
    """Write the verdict: "equivalent within 1 point" for 0.01."""
    return f"equivalent within {points(margin)}"


def points(fraction: float) -> str:
    """Write a fraction in percentage points: "1 point" for 0.01."""
    number = f"{100 * fraction:g}"
    return f"{number} point" + ("" if number == "1" else "s")
