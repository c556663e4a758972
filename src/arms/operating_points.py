"""Temperature and thresholds of an arm's final models, chosen on out-of-fold predictions of the same recipe.

Final models saw all training images, so their own predictions of these choose nothing. The models of the folds
did not: what is chosen on their out-of-fold predictions is carried over to the final models, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from arms import options as arm_options
from arms.file_formats import CVSummary, Origin
from arms.result_files import are_scores_of, find_prefixes, read_predictions, read_result
from common import paths
from common.options import Affects, values_affecting
from stats.bootstrap import PatientDraws, percentile_interval
from stats.calibration import (
    ChosenThreshold,
    OperatingPoints,
    apply_temperature,
    at_threshold,
    choose_thresholds,
    choose_thresholds_weighted,
    fit_temperature,
    fit_temperatures,
)
from utils import UserError, public_path, sha256_json

log = logging.getLogger(__name__)

CHOSEN_ON = "chosen on fold models"
RESAMPLES = 1000


# --- recipe ----------------------------------------------------------------------------------------
def recipe_sha256(origin: Origin) -> str:
    """Hash what all training runs of one arm share: options, images and initial weights, not seed and folds."""
    options = values_affecting(arm_options.TRAIN_OPTIONS, Affects.FOLDS, origin["config"])
    options.pop("seed", None)
    if few := origin["config"].get("labelled_patients"):  # there are no such folds
        options["labelled_patients"] = few
    images = {key: origin[key] for key in ("split_sha256", "data_sha256", "skipped_images")}
    # Of the images that the final model learns from; those of single folds have manifests of their own.
    manifest = origin["manifest_sha256"].get("0")
    return sha256_json({**images, "options": options, "manifest": manifest, "weights": origin.get("weights_sha256")})


# --- finding folds ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class FoldRun:
    """Out-of-fold predictions of one training run: file ``prefix``, ``seed`` and ``k`` folds."""

    prefix: str
    seed: int
    k: int
    predictions: pd.DataFrame


def find_operating_points(
    results_dir: str | Path, recipe: str, seeds: Sequence[int]
) -> tuple[OperatingPoints | None, str]:
    """Find what to use for the mean of final models of ``recipe`` with ``seeds``: (points or None, a sentence).

    The sentence says what they were chosen on, or why there are none. As many runs of folds are averaged as
    there are models, those of their own seeds first: averaged probabilities are calibrated otherwise than single
    ones. Files of other runs that cannot be read are left out.
    """
    place = public_path(results_dir)
    runs, unfit = _find_fold_runs(results_dir, recipe)
    if len(runs) < len(seeds):
        if not runs:
            return None, unfit or f"no out-of-fold predictions of this recipe, split and arm are in {place}"
        return None, (
            f"out-of-fold predictions of {len(runs)} training run{'s' if len(runs) > 1 else ''} of this recipe are in "
            f"{place}, and {len(seeds)} averaged models need as many (train with other --seed and --prefix)"
        )
    runs.sort(key=lambda run: (run.seed not in seeds, run.prefix))
    first = runs[0].predictions
    same = [run for run in runs if run.predictions[["image_id", "label"]].equals(first[["image_id", "label"]])]
    if len(same) < len(seeds):
        return None, f"the training runs of this recipe in {place} have out-of-fold predictions of other images"
    points = choose_points(same[: len(seeds)])
    return points, points["note"]


def _find_fold_runs(results_dir: str | Path, recipe: str) -> tuple[list[FoldRun], str]:
    """Return (a run of clean folds for each seed, why others of the recipe are unfit)."""
    found: dict[int, FoldRun] = {}
    unfit = ""
    for prefix in find_prefixes(results_dir, paths.cv_summary):
        try:
            summary = read_result(paths.cv_summary(results_dir, prefix), CVSummary)
            if summary is None or recipe_sha256(summary) != recipe:
                continue
            predictions = read_predictions(paths.cv_predictions(results_dir, prefix))
        except UserError as error:
            log.debug(f"left out: {error}")
            continue
        if reason := _why_unfit(summary, predictions):
            unfit = f"the {reason} ({paths.cv_summary('', prefix)})"
        elif predictions is not None:
            seed = summary["config"]["seed"]
            found.setdefault(seed, FoldRun(prefix, seed, summary["k"], predictions))
    return list(found.values()), unfit


def _why_unfit(summary: CVSummary, predictions: pd.DataFrame | None) -> str | None:
    """Say why nothing may be chosen on folds of the recipe; None if it may."""
    if summary["contaminated"]:
        return "folds of this arm are contaminated: what was trained on may have shown them their validation patients"
    if predictions is None:
        return "out-of-fold predictions of this arm are missing"
    counts = {key: summary[key] for key in ("n_images", "n_patients")}
    if not are_scores_of(predictions, {**counts, **summary["out_of_fold"]}):
        return "out-of-fold predictions of this arm and its folds come from different runs"
    return "out-of-fold predictions of this arm have one class only" if predictions["label"].nunique() < 2 else None


# --- choosing --------------------------------------------------------------------------------------
def choose_points(runs: Sequence[FoldRun]) -> OperatingPoints:
    """Choose on the mean probabilities of ``runs``, which predict the same images; intervals by patient."""
    table = runs[0].predictions
    labels = table["label"].to_numpy()
    probabilities = np.mean([run.predictions["probability"].to_numpy(dtype=float) for run in runs], axis=0)
    temperature = fit_temperature(labels, probabilities)
    calibrated = apply_temperature(probabilities, temperature)
    thresholds = choose_thresholds(labels, calibrated)
    draws = PatientDraws(list(table["patient"]), RESAMPLES)
    patients = table["patient"].nunique()

    def chosen(rule: str) -> ChosenThreshold:
        values = draws.values(lambda weights: choose_thresholds_weighted(labels, calibrated, weights)[rule])
        row = at_threshold(labels, calibrated, thresholds[rule])
        return {**row, "threshold_ci95": percentile_interval(values)}

    folds = f"{runs[0].k} folds" + (f" of {len(runs)} training runs each" if len(runs) > 1 else "")
    return {
        "note": f"{CHOSEN_ON}: out-of-fold predictions of {len(labels):,} training images of {patients:,} patients "
        f"({folds}, {', '.join(run.prefix.removesuffix('_') for run in runs)})",
        "runs": len(runs),
        "n_images": len(labels),
        "n_patients": patients,
        "n_positive": int(labels.sum()),
        "temperature": temperature,
        "temperature_ci95": percentile_interval(
            draws.values(lambda weights: fit_temperatures(labels, probabilities, weights))
        ),
        "youden": chosen("youden"),
        "sensitivity_90": chosen("sensitivity_90"),
    }
