"""Decision curves of the arms on the test images, and the difference of every pair with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from arms.result_files import Arm, probabilities_of_runs
from comparison.file_formats import Comparison
from comparison.reviewer_file_formats import DecisionCurve, DecisionCurves, DecisionDifference
from stats.bootstrap import PatientDraws, ResampledScore, bootstrap_test, resample_scores
from stats.decision_curve import THRESHOLDS, treat_all, weighted_net_benefit
from utils import derive_seed

CALIBRATED, AS_TRAINED = "calibrated", "as trained"


def decision_curves(arms: Mapping[str, Arm], content: Comparison) -> DecisionCurves:
    """Compute the net benefit of every arm that ``content`` compares, and the differences of its pairs.

    Probabilities are divided by each arm's temperature where every arm has one; otherwise all stay as trained,
    so that no pair is told apart by calibration alone.
    """
    rows, settings = content["arms"], content["settings"]
    temperatures = {name: row["calibration"]["temperature"] for name, row in rows.items()}
    without = [name for name, temperature in temperatures.items() if temperature is None]
    used = dict.fromkeys(temperatures) if without else temperatures
    scores = {name: _resample(arms[name], used[name], settings["n_resamples"], settings["seed"]) for name in rows}
    curves: dict[str, DecisionCurve] = {}
    for name, row in rows.items():
        prevalence = row["n_positive"] / row["n_images"]
        curves[name] = {
            "net_benefit": [score.score for score in scores[name]],
            "treat_all": treat_all(prevalence).tolist(),
            "temperature": used[name],
        }
    return {
        "thresholds": THRESHOLDS.tolist(),
        "probabilities": AS_TRAINED if without else CALIBRATED,
        "without_temperature": without,
        "arms": curves,
        "pairs": [_difference(arms, pair["a"], pair["b"], scores, settings["seed"]) for pair in content["pairs"]],
    }


def _resample(arm: Arm, temperature: float | None, n_resamples: int, seed: int) -> list[ResampledScore]:
    """Resample the net benefit at each threshold, on the draws of patients that every comparison uses."""
    draws = PatientDraws(list(arm.tested["patient"]), n_resamples, seed)
    statistic = partial(weighted_net_benefit, arm.tested["label"].to_numpy(), temperature)
    return resample_scores(draws, statistic, probabilities_of_runs(arm))


def _difference(
    arms: Mapping[str, Arm], a: str, b: str, scores: Mapping[str, list[ResampledScore]], seed: int
) -> DecisionDifference:
    one, other = (arms[name].tested for name in (a, b))
    same, n_patients = bool(np.array_equal(one["probability"], other["probability"])), one["patient"].nunique()
    # One seed for all thresholds: the effect of other seeds is drawn once, and the band has no steps of its own.
    own_seed = derive_seed(seed, a, b, "net benefit")
    # At these thresholds an image adds between -1 and 1, as an accuracy does, which ``bootstrap_test`` counts on.
    pairs = zip(scores[a], scores[b], strict=True)
    found = [bootstrap_test(first, second, n_patients, same, own_seed) for first, second in pairs]
    return {
        "a": a,
        "b": b,
        "net_benefit_difference": [each.difference for each in found],
        "net_benefit_ci95_pointwise": [each.ci95 for each in found],
    }
