"""Thresholds and a temperature, chosen on out-of-fold predictions and only applied to the test images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, log_loss, roc_curve

from stats.metrics import THRESHOLD, expected_calibration_error, wilson_interval

WANTED_SENSITIVITY = 0.90
SMALLEST = 1e-12  # probabilities this close to 0 or 1 are taken as it: their logits must be finite
TEMPERATURES = (0.05, 20.0)


# --- calibration -----------------------------------------------------------------------------------
def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """T > 0 whose logits / T have the lowest log loss (temperature scaling: Guo et al. 2017, section 4.2).

    Above 1: the probabilities were too bold. Searched between 0.05 and 20.
    """
    labels, logits = np.asarray(labels, dtype=float), _logits(probabilities)

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        return float(np.mean(np.logaddexp(0.0, scaled) - labels * scaled))

    low, high = (math.log(value) for value in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logits are divided by ``temperature``: their order, and so AUROC and the results
    at 0.5, stay as they are."""
    return expit(_logits(probabilities) / temperature)


def calibration_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """{"brier", "ece", "log_loss" (nats)}, each better when lower."""
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return {
        "brier": float(brier_score_loss(labels, probabilities, pos_label=1)),
        "ece": expected_calibration_error(labels, probabilities),
        "log_loss": float(log_loss(labels, clipped, labels=[0, 1])),
    }


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(probabilities, dtype=float), SMALLEST, 1 - SMALLEST))


# --- thresholds ------------------------------------------------------------------------------------
def choose_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Rule -> threshold (positive is a probability of at least it), from predictions with both classes.

    "fixed": 0.5. "youden": the highest sensitivity + specificity - 1 (Youden 1950). "sensitivity_90": the
    highest threshold with a sensitivity of at least 0.90.
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


def at_threshold(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, Any]:
    """Accuracy, sensitivity and specificity with Wilson intervals, PPV and NPV; None where undefined."""
    labels, called = np.asarray(labels), np.asarray(probabilities) >= threshold
    tp, fn = int((called & (labels == 1)).sum()), int((~called & (labels == 1)).sum())
    fp, tn = int((called & (labels == 0)).sum()), int((~called & (labels == 0)).sum())
    row: dict[str, Any] = {"threshold": threshold}
    for name, right, n in (
        ("accuracy", tp + tn, len(labels)), ("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp),
    ):  # fmt: skip
        row[name] = right / n if n else None
        row[f"{name}_ci95"] = wilson_interval(right, n) if n else None
    row["ppv"] = tp / (tp + fp) if tp + fp else None
    row["npv"] = tn / (tn + fn) if tn + fn else None
    return row
