"""Thresholds and a temperature, chosen on out-of-fold predictions and only applied to the test images."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypedDict, cast

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, log_loss, roc_curve

from stats.metrics import THRESHOLD, expected_calibration_error, wilson_interval

WANTED_SENSITIVITY = 0.90
SMALLEST = 1e-12  # probabilities closer to 0 or 1 are moved there, so that their logits are finite
TEMPERATURES = (0.05, 20.0)
STEPS = 201  # temperatures that resamples choose from: 3 % apart


class CalibrationScores(TypedDict):
    """How well probabilities agree with what is seen; each is better when lower."""

    brier: Annotated[float, "mean squared distance of probability and label, 0 to 1"]
    ece: Annotated[float, "expected calibration error over ten bins, 0 to 1"]
    log_loss: Annotated[float, "nats per image"]


class AtThreshold(TypedDict):
    """Rates where an image is called positive from a probability of ``threshold``; null where undefined."""

    threshold: Annotated[float, "probability, 0 to 1"]
    accuracy: Annotated[float | None, "0 to 1"]
    accuracy_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    sensitivity: Annotated[float | None, "0 to 1"]
    sensitivity_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    specificity: Annotated[float | None, "0 to 1"]
    specificity_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    ppv: Annotated[float | None, "positive predictive value, 0 to 1"]
    npv: Annotated[float | None, "negative predictive value, 0 to 1"]


class ChosenThreshold(AtThreshold):
    """A threshold with the rates of the predictions that it was chosen on."""

    threshold_ci95: Annotated[list[float], "95 % interval, bootstrap over patients"]


class OperatingPoints(TypedDict):
    """Temperature and thresholds for a classifier, chosen on predictions of other models of its recipe."""

    note: Annotated[str, "what they were chosen on"]
    runs: Annotated[int, "training runs whose probabilities were averaged"]
    n_images: Annotated[int, "out-of-fold predictions"]
    n_patients: Annotated[int, "their patients"]
    n_positive: Annotated[int, "positives among them"]
    temperature: Annotated[float, "divides the logits"]
    temperature_ci95: Annotated[list[float], "95 % interval, bootstrap over patients"]
    youden: Annotated[ChosenThreshold, "highest sensitivity + specificity; of calibrated probabilities"]
    sensitivity_90: Annotated[ChosenThreshold, "highest with a sensitivity of 0.90; of calibrated probabilities"]


# --- calibration -----------------------------------------------------------------------------------
def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the T > 0 whose logits / T have the lowest log loss (Guo et al. 2017, section 4.2).

    A T above 1 means that the probabilities were too bold. Searched between 0.05 and 20.
    """
    labels, logits = np.asarray(labels, dtype=float), probability_logits(probabilities)

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        return float(np.mean(np.logaddexp(0.0, scaled) - labels * scaled))

    low, high = (math.log(value) for value in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)


def fit_temperatures(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit a temperature to each row of ``weights`` [R, N] of the images; returns [R], NaN without any image.

    The best of ``STEPS`` temperatures, refined by the parabola through its neighbours: within 0.1 %.
    """
    low_end, high_end = (math.log(value) for value in TEMPERATURES)
    logs = np.linspace(low_end, high_end, STEPS)
    scaled = probability_logits(probabilities) / np.exp(logs)[:, None]  # [STEPS, N]
    losses = weights @ (np.logaddexp(0.0, scaled) - np.asarray(labels, dtype=float) * scaled).T  # [R, STEPS]
    best, rows = losses.argmin(axis=1).clip(1, STEPS - 2), np.arange(len(losses))
    low, middle, high = (losses[rows, best + step] for step in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = np.divide(low - high, 2 * bend, out=np.zeros_like(bend), where=bend > 0).clip(-1, 1)
    found = np.exp(logs[best] + shift * (logs[1] - logs[0])).clip(*TEMPERATURES)
    return np.where(weights.sum(axis=1) > 0, found, np.nan)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities by ``temperature``.

    Their order stays, and so do AUROC and the results at 0.5.
    """
    return expit(probability_logits(probabilities) / temperature)


def calibration_scores(labels: np.ndarray, probabilities: np.ndarray) -> CalibrationScores:
    """Compute Brier score, expected calibration error and log loss."""
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return {
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)),
        "ece": expected_calibration_error(labels, probabilities),
        "log_loss": float(log_loss(labels, clipped, labels=[0, 1])),
    }


def probability_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities [N]; those of 0 and 1 are finite, too."""
    return logit(np.clip(np.asarray(probabilities, dtype=float), SMALLEST, 1 - SMALLEST))


# --- thresholds ------------------------------------------------------------------------------------
def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Choose a threshold by each rule (rule -> probability), from predictions with both classes.

    An image is called positive from a probability of the threshold. "fixed": 0.5. "youden": the highest
    sensitivity + specificity - 1 (Youden 1950). "sensitivity_90": the highest threshold with a sensitivity of
    at least 0.90.
    """
    false_positive, true_positive, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
    # The first point of the curve stands for "nobody is positive", at an infinite threshold.
    false_positive, true_positive, thresholds = false_positive[1:], true_positive[1:], thresholds[1:]
    enough = np.flatnonzero(true_positive >= WANTED_SENSITIVITY - 1e-12)
    return {
        "fixed": THRESHOLD,
        "youden": float(thresholds[np.argmax(true_positive - false_positive)]),
        "sensitivity_90": float(thresholds[enough[0]]),
    }


def choose_thresholds_weighted(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Choose "youden" and "sensitivity_90" for each row of ``weights`` [R, N]; [R] each, NaN without both classes."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    labels, probabilities = np.asarray(labels)[order], np.asarray(probabilities)[order]
    positive, negative = weights[:, order] * (labels == 1), weights[:, order] * (labels == 0)
    last = np.append(np.flatnonzero(np.diff(probabilities)), len(probabilities) - 1)  # of equal probabilities
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = positive.cumsum(axis=1)[:, last] / positive.sum(axis=1, keepdims=True)
        false_positive = negative.cumsum(axis=1)[:, last] / negative.sum(axis=1, keepdims=True)
    defined = np.isfinite(sensitivity[:, 0] + false_positive[:, 0])
    thresholds, chosen = probabilities[last], {}
    chosen["youden"] = (sensitivity - false_positive).argmax(axis=1)
    chosen["sensitivity_90"] = (sensitivity >= WANTED_SENSITIVITY - 1e-12).argmax(axis=1)
    return {rule: np.where(defined, thresholds[places], np.nan) for rule, places in chosen.items()}


def at_threshold(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> AtThreshold:
    """Compute accuracy, sensitivity and specificity with Wilson intervals, PPV and NPV."""
    labels, called = np.asarray(labels), np.asarray(probabilities) >= threshold
    tp, fn = int((called & (labels == 1)).sum()), int((~called & (labels == 1)).sum())
    fp, tn = int((called & (labels == 0)).sum()), int((~called & (labels == 0)).sum())
    row: dict[str, Any] = {"threshold": threshold}
    for name, right, n in (
        ("accuracy", tp + tn, len(labels)), ("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp),
    ):  # fmt: skip
        row[name] = right / n if n else None
        row[f"{name}_ci95_image_level"] = wilson_interval(right, n) if n else None
    row["ppv"] = tp / (tp + fp) if tp + fp else None
    row["npv"] = tn / (tn + fn) if tn + fn else None
    return cast(AtThreshold, row)
