"""Calibration line: the logits of labels as a straight line of the logits of predictions; 0 and 1 if they agree.

After Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019. Intervals draw patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, TypedDict, cast

import numpy as np
from scipy.special import expit

from stats.bootstrap import PatientDraws, percentile_interval
from stats.calibration import probability_logits

RESAMPLES = 1000
ROUNDS, SETTLED = 30, 1e-8  # of Newton's method


class CalibrationLine(TypedDict):
    """How predicted probabilities relate to labels; null where a class is missing or the classes are separated."""

    mean_probability: Annotated[float, "mean predicted probability, 0 to 1"]
    share_positive: Annotated[float, "share of positive images, 0 to 1"]
    intercept: Annotated[
        float | None, "calibration in the large, on the logit scale: 0 is right, below 0 the probabilities are too high"
    ]
    intercept_ci95: Annotated[list[float] | None, "its 95 % interval, bootstrap over patients"]
    slope: Annotated[float | None, "1 is right; below 1 the probabilities are too bold, above 1 too timid"]
    slope_ci95: Annotated[list[float] | None, "its 95 % interval, bootstrap over patients"]


def calibration_line(
    labels: np.ndarray, probabilities: np.ndarray, patients: Sequence[Any], seed: int = 42
) -> CalibrationLine:
    """Fit the line to labels and probabilities [N]; the images of one of ``patients`` stay together."""
    labels, logits = np.asarray(labels, dtype=float), probability_logits(probabilities)
    draws = PatientDraws(patients, RESAMPLES, seed)
    found: dict[str, Any] = {"mean_probability": float(np.mean(probabilities)), "share_positive": float(labels.mean())}
    for name, fit in (("intercept", fit_intercept), ("slope", fit_slope)):
        value = float(fit(labels, logits, np.ones((1, len(labels))))[0])
        bounds = percentile_interval(draws.values(partial(fit, labels, logits))) if np.isfinite(value) else None
        found |= {name: value if np.isfinite(value) else None, f"{name}_ci95": bounds}
    return cast(CalibrationLine, found)


def fit_intercept(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a [R] of logit P(label) = a + logits, of images weighted by ``weights`` [R, N]; NaN with one class."""
    a, positives = np.zeros(len(weights)), weights @ labels
    for _ in range(ROUNDS):
        p = expit(a[:, None] + logits)
        step = (positives - (weights * p).sum(axis=1)) / np.maximum((weights * p * (1 - p)).sum(axis=1), 1e-12)
        a += np.clip(step, -2, 2)
        if np.abs(step).max() < SETTLED:
            break
    return np.where((positives > 0) & (positives < weights.sum(axis=1)), a, np.nan)


def fit_slope(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return b [R] of logit P(label) = a + b * logits, weighted as above; NaN where a class is missing or apart.

    Newton's method from no slope at all; a step that lowers the likelihood is halved, as from far away it may be
    much too long.
    """
    total, positives = weights.sum(axis=1), weights @ labels
    share = np.clip(positives / total, 1e-6, 1 - 1e-6)
    line = np.stack([np.log(share / (1 - share)), np.zeros(len(weights))])  # a and b, [2, R]
    positive_logits = weights @ (labels * logits)

    def measure(line: np.ndarray) -> np.ndarray:
        """Log-likelihood [R]."""
        eta = line[0][:, None] + line[1][:, None] * logits
        return positives * line[0] + positive_logits * line[1] - (weights * np.logaddexp(0, eta)).sum(axis=1)

    likelihood = measure(line)
    for _ in range(ROUNDS):
        p = expit(line[0][:, None] + line[1][:, None] * logits)
        weighted = weights * p * (1 - p)
        h00, h01, h11 = weighted.sum(axis=1), weighted @ logits, weighted @ logits**2
        g0, g1 = positives - (weights * p).sum(axis=1), positive_logits - (weights * p) @ logits
        steps = np.stack([h11 * g0 - h01 * g1, h00 * g1 - h01 * g0]) / np.maximum(h00 * h11 - h01**2, 1e-12)
        for _ in range(ROUNDS):
            after = measure(line + steps)
            worse = after < likelihood - 1e-12 * np.abs(likelihood)
            if not worse.any():
                break
            steps[:, worse] /= 2
        line, likelihood = line + steps, after
        if np.abs(steps).max() < SETTLED:
            break
    return np.where(_classes_overlap(labels, logits, weights), line[1], np.nan)


def _classes_overlap(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Tell in which rows of ``weights`` no threshold separates the classes, so that a slope exists: bool [R]."""
    ends = []
    for label in (0, 1):
        drawn = weights[:, labels == label] > 0
        values = logits[labels == label]
        low, high = np.where(drawn, values, np.inf), np.where(drawn, values, -np.inf)
        ends.append((low.min(axis=1, initial=np.inf), high.max(axis=1, initial=-np.inf)))
    (low_0, high_0), (low_1, high_1) = ends
    return (low_1 < high_0) & (low_0 < high_1)
