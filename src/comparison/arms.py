"""The content of comparison.json: every arm, every pair of arms and the warnings.

It is computed from the prediction tables and the summaries beside them, so it can be computed again later
without images, models or a GPU. Rates are fractions; a difference is b minus a.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd

from arms.registry import BASELINE
from arms.result_files import TRAIN_COMMAND, Arm, probabilities_of_runs, training_command, why_not_comparable
from comparison.file_formats import (
    FORMAT,
    ArmResult,
    AtPrevalence,
    Calibration,
    Comparison,
    FoldComparison,
    GoalOfArm,
    NotCompared,
    PairResult,
    PlannedPair,
    ReferenceScores,
    RunScores,
    Thresholds,
    metric_entry,
    metric_key,
)
from comparison.fold_rules import ChosenFolds, choose_folds, why_no_fold_test
from comparison.planned_pairs import add_tests
from comparison.warnings import comparison_flags
from stats.bootstrap import (
    RESAMPLES,
    PatientDraws,
    ResampledScore,
    ScoreDifference,
    bootstrap_test,
    resample_score,
)
from stats.calibration import (
    apply_temperature,
    at_threshold,
    calibration_scores,
    choose_thresholds,
    fit_temperature,
)
from stats.metric_registry import METRICS, classification_metrics, compared_metrics
from stats.metrics import CONFIDENCE, THRESHOLD, predictive_values, reliability_bins
from stats.paired_tests import ALPHA, delong_p, mcnemar, nadeau_bengio
from stats.subgroups import subgroup_rows
from utils import UserError, derive_seed

MARGIN = 0.01
GOAL_ACCURACY = 0.85  # of the specification: accuracy above it on the test set
IMAGE_LEVEL = ["mcnemar_p", "delong_p"]
# What the metrics file of an arm says about its training, copied as it is.
TRAINING_FACTS = (
    "n_train_images", "n_train_patients", "n_synthetic", "n_duplicated", "n_extra_positive", "class_weights",
    "optimizer_steps",
)  # fmt: skip


def compare_arms(
    arms: dict[str, Arm], *, margin: float = MARGIN, prevalence: float | None = None,
    n_resamples: int = RESAMPLES, seed: int = 42, left_out: Mapping[str, Arm] | None = None,
    question: PlannedPair | None = None,
) -> Comparison:  # fmt: skip
    """Compare arms (by name): the content of comparison.json.

    ``question``: of the plan that the arms were held to; None: all pairs are exploratory.
    ``margin``: differences (fractions, of accuracy and of AUROC) below it are taken for none;
    ``prevalence``: share of ill people for which PPV and NPV are given too. Arms without test predictions
    are named under "not_compared". ``left_out``: arms that are there but not asked for; nothing is said of
    them, but the baseline's folds can still serve others. Raises ``UserError`` if no arm has any predictions.
    """
    left_out = left_out or {}
    scored = {name: arm for name, arm in arms.items() if arm.predictions is not None}
    if not scored:
        raise UserError(f"no arm has predictions of the test images; `{TRAIN_COMMAND}` writes them")
    resampled = {name: resample_arm(arm, n_resamples, seed) for name, arm in scored.items()}
    baseline = arms.get(BASELINE) or left_out.get(BASELINE)
    rows = {name: _arm_result(arm, baseline, resampled[name], prevalence, seed) for name, arm in scored.items()}
    pairs, not_compared = _pair_results(arms, resampled, margin, seed, question)
    first = next(iter(rows.values()))
    goals: dict[str, GoalOfArm] = {}
    for name, row in rows.items():
        accuracy = metric_entry(row, METRICS["accuracy"])
        goals[name] = {"met": accuracy > GOAL_ACCURACY, "difference": accuracy - GOAL_ACCURACY}
    return {
        "format": FORMAT,
        "settings": {
            "margin": margin, "n_resamples": n_resamples, "seed": seed, "confidence": CONFIDENCE,
            "alpha": ALPHA, "prevalence": prevalence,
        },
        **({"plan": question} if question else {}),  # type: ignore[typeddict-item]
        "test_set": {
            "n_images": first["n_images"], "n_patients": first["n_patients"],
            "n_positive": first["n_positive"], "prevalence": first["n_positive"] / first["n_images"],
            "grouped_by": first_recorded(scored, "grouped_by"),
            "split_sha256": first_recorded(scored, "split_sha256"),
        },
        "goal": {"accuracy": GOAL_ACCURACY, "arms": goals},
        "arms": rows,
        "pairs": pairs,
        "not_compared": not_compared,
        "left_out": list(left_out),
        "references": _references(scored, first),
        "flags": comparison_flags(list(arms.values()), rows, pairs, margin, n_resamples),
    }  # fmt: skip


def first_recorded(arms: Mapping[str, Arm], key: str) -> Any:
    """Return what the first arm with a metrics file recorded under ``key``; None without such an arm."""
    return next((arm.recorded[key] for arm in arms.values() if arm.metrics), None)


def _references(arms: dict[str, Arm], first: ArmResult) -> ReferenceScores:
    """Return the scores of predictors that ignore the lungs, on the test images of the first arm."""
    recorded = (first_recorded(arms, "references") or {}).get("test") or {}
    return {
        "always_negative_accuracy": 1 - first["n_positive"] / first["n_images"],
        "metadata_auroc": recorded.get("metadata_auroc"),
        "thumbnail_auroc": recorded.get("thumbnail_auroc"),
    }


def resample_arm(arm: Arm, n_resamples: int, seed: int) -> dict[str, ResampledScore]:
    """Score an arm by every metric with a weighted form on draws of patients, the same for all arms."""
    table, runs = arm.tested, probabilities_of_runs(arm)
    draws, labels = PatientDraws(list(table["patient"]), n_resamples, seed), table["label"].to_numpy()
    weighted = [metric for metric in METRICS.values() if metric.weighted]
    return {metric.name: resample_score(draws, metric, labels, runs) for metric in weighted}


# --- one arm ---------------------------------------------------------------------------------------
def _arm_result(
    arm: Arm, baseline: Arm | None, resampled: dict[str, ResampledScore], prevalence: float | None, seed: int
) -> ArmResult:
    table = arm.tested
    labels, probabilities = _columns(table)
    scores = classification_metrics(labels, probabilities)
    recorded, runs = arm.recorded, probabilities_of_runs(arm)
    folds = choose_folds(arm, baseline)
    row: dict[str, Any] = {
        "prefix": arm.prefix,
        "n_images": len(labels),
        "n_patients": int(table["patient"].nunique()),
        "n_positive": int(labels.sum()),
        "repeats": recorded.get("repeats", len(runs)),
        "seeds": recorded.get("seeds"),
        "per_repeat": scores_of_runs(arm, labels, runs),
        **{key: recorded.get(key) for key in TRAINING_FACTS},
        **({"n_extra_positive": None} if "few_labels" in recorded else {}),  # what is added has soft labels, or any
        "contaminated": arm.cv["contaminated"] if arm.cv else None,
        "command": training_command(recorded.get("config")),
        **scores,
        **_intervals(labels, probabilities, resampled, seed),
        "at_prevalence": _at_prevalence(scores, prevalence),
        "thresholds": _thresholds(labels, probabilities, folds),
        "calibration": _calibration(labels, probabilities, folds),
        "subgroups": subgroup_rows(table),
    }
    return cast(ArmResult, row)


def _intervals(
    labels: np.ndarray, probabilities: np.ndarray, resampled: dict[str, ResampledScore], seed: int
) -> dict[str, Any]:
    """Return the intervals that each metric's entry asks for, by patient and image-level."""
    intervals: dict[str, Any] = {}
    for name, metric in METRICS.items():
        if name in resampled:
            intervals[metric_key(metric, "ci95")] = resampled[name].interval(derive_seed(seed, "runs"))
        if metric.image_level:
            intervals[metric_key(metric, "ci95_image_level")] = metric.image_level(labels, probabilities)
    return intervals


def _at_prevalence(scores: Mapping[str, Any], prevalence: float | None) -> AtPrevalence | None:
    if prevalence is None:
        return None
    ppv, npv = predictive_values(scores["sensitivity"], scores["specificity"], prevalence)
    return {"prevalence": prevalence, "ppv": ppv, "npv": npv}


def scores_of_runs(arm: Arm, labels: np.ndarray, runs: np.ndarray) -> list[RunScores]:
    """Score each training run, from their probabilities ``runs`` [R, N]; none for a single one."""
    if len(runs) == 1:
        return []
    rows: list[dict[str, Any]] = []
    for repeat, own in zip(arm.repeats, runs, strict=True):
        scores = {metric.name: metric.point_estimate(labels, own) for metric in compared_metrics()}
        rows.append({"repeat": repeat.number, "seed": repeat.seed, **scores})
    return cast(list[RunScores], rows)


def _thresholds(labels: np.ndarray, probabilities: np.ndarray, folds: ChosenFolds) -> Thresholds:
    """Apply to the test images 0.5 and, with out-of-fold predictions, the thresholds that were chosen on them."""
    chosen: dict[str, float | None] = {"fixed": THRESHOLD, "youden": None, "sensitivity_90": None}
    if folds.predictions is not None:
        chosen |= choose_thresholds(*_columns(folds.predictions))
    rules = {
        rule: None if threshold is None else at_threshold(labels, probabilities, threshold)
        for rule, threshold in chosen.items()
    }
    return {"source": folds.source, "note": folds.note, "rules": rules}


def _calibration(labels: np.ndarray, probabilities: np.ndarray, folds: ChosenFolds) -> Calibration:
    """Score the calibration before and, with out-of-fold predictions, after the temperature fitted on them."""
    temperature = scaled = None
    if folds.predictions is not None:
        temperature = fit_temperature(*_columns(folds.predictions))
        scaled = apply_temperature(probabilities, temperature)
    return {
        "source": folds.source,
        "note": folds.note,
        "temperature": temperature,
        "before": calibration_scores(labels, probabilities),
        "after": None if scaled is None else calibration_scores(labels, scaled),
        "bins_before": reliability_bins(labels, probabilities),
        "bins_after": None if scaled is None else reliability_bins(labels, scaled),
    }


def _columns(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return table["label"].to_numpy(), table["probability"].to_numpy()


# --- pairs -----------------------------------------------------------------------------------------
def _pair_results(
    arms: dict[str, Arm], resampled: dict[str, dict[str, ResampledScore]], margin: float, seed: int,
    question: PlannedPair | None,
) -> tuple[list[PairResult], list[NotCompared]]:  # fmt: skip
    """Return (every pair on the same test images, every other pair with the reason)."""
    rows: list[dict[str, Any]] = []
    not_compared: list[NotCompared] = []
    tests: dict[str, list[ScoreDifference]] = {metric.name: [] for metric in compared_metrics()}
    for a, b in combinations(arms.values(), 2):
        if reason := why_not_comparable(a, b):
            not_compared.append({"a": a.name, "b": b.name, "reason": reason})
            continue
        facts = _facts_of_pair(a, b)
        rows.append(facts)
        same = bool(np.array_equal(a.tested["probability"], b.tested["probability"]))
        for name, found in tests.items():
            one, other = resampled[a.name][name], resampled[b.name][name]
            own_seed = derive_seed(seed, a.name, b.name, name)
            found.append(bootstrap_test(one, other, facts["n_patients"], same, own_seed))
    for metric in compared_metrics():
        add_tests(rows, metric, tests[metric.name], question, margin)
    return cast(list[PairResult], rows), not_compared


def _facts_of_pair(a: Arm, b: Arm) -> dict[str, Any]:
    """Return the facts of a row of "pairs" other than the differences of the metrics."""
    (labels, p_a), (_, p_b) = _columns(a.tested), _columns(b.tested)
    mcnemar_p, only_a, only_b = mcnemar(labels, p_a, p_b)
    why_not = why_no_fold_test(a, b)
    return {
        "a": a.name,
        "b": b.name,
        "n_images": len(labels),
        "n_patients": int(a.tested["patient"].nunique()),
        "mcnemar_p": mcnemar_p,
        "mcnemar_b": only_a,
        "mcnemar_c": only_b,
        "delong_p": delong_p(labels, p_a, p_b),
        "image_level": IMAGE_LEVEL,
        "nadeau_bengio": None if why_not else _fold_comparison(a.cv or {}, b.cv or {}),
        "nadeau_bengio_why_not": why_not,
        "seed_variance_included": all(len(probabilities_of_runs(arm)) > 1 for arm in (a, b)),
    }


def _fold_comparison(cv_a: Mapping[str, Any], cv_b: Mapping[str, Any]) -> FoldComparison:
    """Test every compared metric over the folds of two arms' cv_summary.json."""
    folds = list(zip(cv_a["folds"], cv_b["folds"], strict=True))
    result: dict[str, Any] = {"k": len(folds)}
    sizes = [row["n_images"] for row, _ in folds]
    for metric in compared_metrics():
        pairs = [(x.get(metric.name), y.get(metric.name)) for x, y in folds]
        differences = [y - x for x, y in pairs if x is not None and y is not None]
        result[metric.name] = nadeau_bengio(differences, sizes) if len(differences) == len(pairs) else None
    return cast(FoldComparison, result)
