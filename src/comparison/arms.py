"""The content of comparison.json: every arm, every pair of arms and what to be wary of, from predictions.

All of it is made from the prediction tables and the summaries beside them, so that it can be made again
later without images, models or a GPU. Rates are fractions; a difference is b minus a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from arms.registry import BASELINE
from arms.result_files import (
    TRAIN_COMMAND,
    Arm,
    probabilities_of_runs,
    training_command,
    why_not_comparable,
)
from comparison.fold_rules import choose_folds, why_no_fold_test
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
from stats.paired_tests import ALPHA, decide_verdict, delong_p, holm, mcnemar, nadeau_bengio
from stats.subgroups import subgroup_rows
from utils import UserError, derive_seed

FORMAT = "comparison-1"
MARGIN = 0.01
GOAL_ACCURACY = 0.85  # of the specification: accuracy above it on the test set
IMAGE_LEVEL = ["mcnemar_p", "delong_p"]


def compare(
    arms: dict[str, Arm],
    *,
    margin: float = MARGIN,
    prevalence: float | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
    left_out: Mapping[str, Arm] | None = None,
) -> dict[str, Any]:
    """Name -> arm to the content of comparison.json.

    ``margin``: differences (fractions, of accuracy and of AUROC) below it are taken for none;
    ``prevalence``: share of ill people for which PPV and NPV are given too. Arms without test predictions
    are named under "not_compared". ``left_out``: arms that are there but not asked for; nothing is said of
    them, but the baseline's folds can still serve others. ``UserError`` if no arm has any predictions.
    """
    left_out = left_out or {}
    scored = {name: arm for name, arm in arms.items() if arm.predictions is not None}
    if not scored:
        raise UserError(f"no arm has predictions of the test images; `{TRAIN_COMMAND}` writes them")
    resampled = {name: _resample(arm, n_resamples, seed) for name, arm in scored.items()}
    baseline = arms.get(BASELINE) or left_out.get(BASELINE)
    rows = {name: _arm(arm, baseline, resampled[name], prevalence, seed) for name, arm in scored.items()}
    pairs, not_compared = _pairs(arms, resampled, margin, seed)
    first = next(iter(rows.values()))
    return {
        "format": FORMAT,
        "settings": {
            "margin": margin, "n_resamples": n_resamples, "seed": seed, "confidence": CONFIDENCE,
            "alpha": ALPHA, "prevalence": prevalence,
        },
        "test_set": {
            **{key: first[key] for key in ("n_images", "n_patients", "n_positive")},
            "prevalence": first["n_positive"] / first["n_images"],
            **{key: _stated(scored, key) for key in ("grouped_by", "split_sha256")},
        },
        "goal": {
            "accuracy": GOAL_ACCURACY,
            "arms": {
                name: {"met": row["accuracy"] > GOAL_ACCURACY, "difference": row["accuracy"] - GOAL_ACCURACY}
                for name, row in rows.items()
            },
        },
        "arms": rows,
        "pairs": pairs,
        "not_compared": not_compared,
        "left_out": list(left_out),
        "references": _references(scored, first),
        "flags": comparison_flags(list(arms.values()), rows, pairs, margin, n_resamples),
    }  # fmt: skip


def _stated(arms: dict[str, Arm], key: str) -> Any:
    """What the first arm whose metrics are there says."""
    return next((arm.metrics[key] for arm in arms.values() if arm.metrics), None)


def _references(arms: dict[str, Arm], first: dict[str, Any]) -> dict[str, float | None]:
    """What can be had without looking closely, on the test images of the first arm."""
    stated = (_stated(arms, "references") or {}).get("test") or {}
    return {
        "always_negative_accuracy": 1 - first["n_positive"] / first["n_images"],
        "metadata_auroc": stated.get("metadata_auroc"),
        "thumbnail_auroc": stated.get("thumbnail_auroc"),
    }


def _resample(arm: Arm, n_resamples: int, seed: int) -> dict[str, ResampledScore]:
    """Accuracy and AUROC of an arm on draws of patients, which are the same for all arms."""
    draws = PatientDraws(list(arm.predictions["patient"]), n_resamples, seed)
    labels, runs = arm.predictions["label"].to_numpy(), probabilities_of_runs(arm)
    return {metric.name: resample_score(draws, metric, labels, runs) for metric in compared_metrics()}


# --- one arm ---------------------------------------------------------------------------------------
def _arm(
    arm: Arm,
    baseline: Arm | None,
    resampled: dict[str, ResampledScore],
    prevalence: float | None,
    seed: int,
) -> dict[str, Any]:
    labels, probabilities = (arm.predictions[name].to_numpy() for name in ("label", "probability"))
    scores = classification_metrics(labels, probabilities)
    run_seed = derive_seed(seed, "runs")
    stated, runs = arm.metrics or {}, probabilities_of_runs(arm)
    at_prevalence = None
    if prevalence is not None:
        ppv, npv = predictive_values(scores["sensitivity"], scores["specificity"], prevalence)
        at_prevalence = {"prevalence": prevalence, "ppv": ppv, "npv": npv}
    source, note, folds = choose_folds(arm, baseline)
    return {
        "prefix": arm.prefix,
        "n_images": len(labels),
        "n_patients": int(arm.predictions["patient"].nunique()),
        "n_positive": int(labels.sum()),
        "repeats": stated.get("repeats", len(runs)),
        "seeds": stated.get("seeds") or ([stated["seed"]] if "seed" in stated else None),
        "per_repeat": scores_of_runs(arm, labels, runs),
        **{
            key: stated.get(key)
            for key in (
                "n_train_images", "n_train_patients", "n_synthetic", "n_duplicated", "n_extra_positive",
                "class_weights", "optimizer_steps",
            )
        },
        "contaminated": arm.cv["contaminated"] if arm.cv else None,
        "command": training_command(stated.get("config")),
        **scores,
        "accuracy_ci95": METRICS["accuracy"].image_level(labels, probabilities),
        "accuracy_cluster_ci95": resampled["accuracy"].interval(run_seed),
        "auroc_ci95": METRICS["auroc"].image_level(labels, probabilities),
        "auroc_cluster_ci95": resampled["auroc"].interval(run_seed),
        "at_prevalence": at_prevalence,
        "thresholds": _thresholds(labels, probabilities, source, note, folds),
        "calibration": _calibration(labels, probabilities, source, note, folds),
        "subgroups": subgroup_rows(arm.predictions),
    }  # fmt: skip


def scores_of_runs(arm: Arm, labels: np.ndarray, runs: np.ndarray) -> list[dict[str, Any]]:
    """Scores of each training run, from their probabilities ``runs`` [R, N]; none for a single one."""
    if len(runs) == 1:
        return []
    return [
        {
            "repeat": repeat.number,
            "seed": repeat.seed,
            **{metric.name: metric.point_estimate(labels, probabilities) for metric in compared_metrics()},
        }
        for repeat, probabilities in zip(arm.repeats, runs, strict=True)
    ]


def _thresholds(
    labels: np.ndarray, probabilities: np.ndarray, source: str | None, note: str, folds: pd.DataFrame | None
) -> dict[str, Any]:
    """0.5 and, with out-of-fold predictions ``folds``, what was chosen on them, applied to the test."""
    chosen = {"fixed": THRESHOLD, "youden": None, "sensitivity_90": None}
    if folds is not None:
        chosen = choose_thresholds(folds["label"].to_numpy(), folds["probability"].to_numpy())
    rules = {
        rule: None if threshold is None else at_threshold(labels, probabilities, threshold)
        for rule, threshold in chosen.items()
    }
    return {"source": source, "note": note, "rules": rules}


def _calibration(
    labels: np.ndarray, probabilities: np.ndarray, source: str | None, note: str, folds: pd.DataFrame | None
) -> dict[str, Any]:
    """Before and, with out-of-fold predictions ``folds``, after the temperature fitted on them."""
    result = {
        "source": source,
        "note": note,
        "temperature": None,
        "before": calibration_scores(labels, probabilities),
        "after": None,
        "bins_before": reliability_bins(labels, probabilities),
        "bins_after": None,
    }
    if folds is not None:
        temperature = fit_temperature(folds["label"].to_numpy(), folds["probability"].to_numpy())
        scaled = apply_temperature(probabilities, temperature)
        result |= {
            "temperature": temperature,
            "after": calibration_scores(labels, scaled),
            "bins_after": reliability_bins(labels, scaled),
        }
    return result


# --- pairs -----------------------------------------------------------------------------------------
def _pairs(
    arms: dict[str, Arm], resampled: dict[str, dict[str, ResampledScore]], margin: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(every pair on the same test images, every other pair with the reason)."""
    pairs: list[dict[str, Any]] = []
    not_compared = []
    outcomes: list[dict[str, ScoreDifference]] = []
    for a, b in combinations(arms.values(), 2):
        if reason := why_not_comparable(a, b):
            not_compared.append({"a": a.name, "b": b.name, "reason": reason})
            continue
        p_a, p_b = (arm.predictions["probability"].to_numpy() for arm in (a, b))
        same, n_patients = bool(np.array_equal(p_a, p_b)), int(a.predictions["patient"].nunique())
        outcome = {
            statistic: bootstrap_test(
                resampled[a.name][statistic], resampled[b.name][statistic], n_patients, same,
                derive_seed(seed, a.name, b.name, statistic),
            )
            for statistic in (metric.name for metric in compared_metrics())
        }  # fmt: skip
        outcomes.append(outcome)
        pairs.append(_pair(a, b, outcome))
    adjusted = {
        statistic: holm([outcome[statistic].p for outcome in outcomes])
        for statistic in (metric.name for metric in compared_metrics())
    }
    for row, outcome, p_accuracy, p_auroc in zip(pairs, outcomes, *adjusted.values(), strict=True):
        row["p_holm"], row["p_holm_auroc"] = p_accuracy, p_auroc
        row["minimum_detectable_difference"] = outcome["accuracy"].detectable(len(pairs))
        row["minimum_detectable_difference_auroc"] = outcome["auroc"].detectable(len(pairs))
        for statistic, p in (("accuracy", p_accuracy), ("auroc", p_auroc)):
            result = outcome[statistic]
            row[f"verdict_{statistic}"] = decide_verdict(result.difference, result.ci95, p, margin)
    return pairs, not_compared


def _pair(a: Arm, b: Arm, outcome: dict[str, ScoreDifference]) -> dict[str, Any]:
    """A row of "pairs", but for what depends on the other pairs."""
    labels = a.predictions["label"].to_numpy()
    p_a, p_b = (arm.predictions["probability"].to_numpy() for arm in (a, b))
    mcnemar_p, only_a, only_b = mcnemar(labels, p_a, p_b)
    accuracy, auroc = outcome["accuracy"], outcome["auroc"]
    why_not = why_no_fold_test(a, b)
    return {
        "a": a.name,
        "b": b.name,
        "n_images": len(labels),
        "n_patients": int(a.predictions["patient"].nunique()),
        "accuracy_difference": accuracy.difference,
        "accuracy_ci95": accuracy.ci95,
        "p": accuracy.p,
        "auroc_difference": auroc.difference,
        "auroc_ci95": auroc.ci95,
        "p_auroc": auroc.p,
        "mcnemar_p": mcnemar_p,
        "mcnemar_b": only_a,
        "mcnemar_c": only_b,
        "delong_p": delong_p(labels, p_a, p_b),
        "image_level": IMAGE_LEVEL,
        "nadeau_bengio": None if why_not else _fold_tests(a.cv["folds"], b.cv["folds"]),
        "nadeau_bengio_why_not": why_not,
        "seed_variance_included": all(len(probabilities_of_runs(arm)) > 1 for arm in (a, b)),
    }


def _fold_tests(folds_a: Sequence[dict[str, Any]], folds_b: Sequence[dict[str, Any]]) -> dict[str, Any]:
    sizes = [row["n_images"] for row in folds_a]
    result: dict[str, Any] = {"k": len(folds_a)}
    for statistic in (metric.name for metric in compared_metrics()):
        pairs = [(x[statistic], y[statistic]) for x, y in zip(folds_a, folds_b, strict=True)]
        defined = all(x is not None and y is not None for x, y in pairs)
        result[statistic] = nadeau_bengio([y - x for x, y in pairs], sizes) if defined else None
    return result
