"""Decision curves: the net benefit of acting on a prediction, threshold by threshold.

Vickers and Elkin, "Decision curve analysis", Medical Decision Making 26 (2006). At a threshold t, an image is
called positive from a probability of t; whoever chooses t weighs a false alarm as t / (1 - t) of a case that
is found.
"""

from __future__ import annotations

import numpy as np

from stats.calibration import apply_temperature

# 5 % to 50 %: from "19 false alarms for one case" to "one for one". Below, nearly everybody is called.
THRESHOLDS = np.arange(5, 51) / 100


def net_benefit_of_images(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return what each of N images adds at each of ``THRESHOLDS``, [N, T]; its mean is the net benefit.

    1 for a positive that is called, -t / (1 - t) for a negative that is called, 0 for what is not called.
    """
    called = np.asarray(probabilities, dtype=float)[:, None] >= THRESHOLDS
    return np.where(np.asarray(labels)[:, None] == 1, 1.0, -THRESHOLDS / (1 - THRESHOLDS)) * called


def net_benefit(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the net benefit [T]: true positives minus t / (1 - t) times false positives, per image."""
    return net_benefit_of_images(labels, probabilities).mean(axis=0)


def treat_all(prevalence: float) -> np.ndarray:
    """Return the net benefit [T] of calling every image positive; that of calling none is 0."""
    return prevalence - (1 - prevalence) * THRESHOLDS / (1 - THRESHOLDS)


def weighted_net_benefit(
    labels: np.ndarray, temperature: float | None, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the net benefit [R, T] at ``THRESHOLDS`` of images weighted by ``weights`` [R, N].

    The logits of the ``probabilities`` [N] are divided by ``temperature`` first; None: they stay.
    """
    used = probabilities if temperature is None else apply_temperature(probabilities, temperature)
    return weights @ net_benefit_of_images(labels, used) / weights.sum(axis=1, keepdims=True)
