"""The epochs of an arm's final model: chosen by the user, by folds, or the baseline's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from arms.file_formats import FinalMetrics
from arms.options import flag_of
from arms.output import ArmOutput, earlier_folds
from arms.registry import BASELINE, BASELINE_PREFIX, CHOSEN_BY_USER, Treatment
from arms.result_files import read_result
from common import paths
from utils import UserError


def planned_epochs(treatment: Treatment, out: ArmOutput) -> tuple[int | None, str]:
    """Return (epochs of the final model, or None if the folds tell them, where they come from).

    Raises ``UserError`` if the baseline is missing or does not fit, or the share of synthetic images would
    still change after the last epoch.
    """
    epochs, source = _planned_epochs(treatment, out)
    if epochs is not None and treatment.last_change >= epochs:
        (name,) = (name for name, value in treatment.kind.options.items() if value is CHOSEN_BY_USER)
        raise UserError(
            f"{flag_of(name)} still changes after epoch {treatment.last_change}, but the final model is "
            f"trained for {epochs} epochs; give smaller epochs"
        )
    return epochs, source


def _planned_epochs(treatment: Treatment, out: ArmOutput) -> tuple[int | None, str]:
    if (chosen := out.origin["config"]["epochs_final"]) is not None:
        return chosen, "--epochs-final"
    if treatment.kind.name != BASELINE:
        return _baseline_epochs(out), "the baseline's"
    if out.origin["config"]["k_folds"]:
        return None, "median best epoch of the folds"
    if (summary := earlier_folds(out)) is not None:
        best = (row["best_epoch"] for row in summary["folds"])
        return median_epoch(best), f"median best epoch of the {summary['k']} folds of an earlier run"
    return None, "best epoch on a validation tenth"


def _baseline_epochs(out: ArmOutput) -> int:
    """Return the epochs of the baseline's final model."""
    file = paths.final_metrics(out.results_dir, BASELINE_PREFIX)
    baseline = read_result(file, FinalMetrics)
    config = out.origin["config"]
    epochs, fraction, schedule = config["epochs"], config["train_fraction"], config["schedule"]
    if baseline is None:
        raise UserError(
            f"{file} is missing: every arm takes the baseline's number of epochs; train the baseline first "
            "(the same command without --use-synthetic or --control), or give --epochs-final N"
        )
    if baseline["split_sha256"] != out.origin["split_sha256"]:
        raise UserError(f"{file} was made on another split; train the baseline again on this one")
    if baseline["train_fraction"] != fraction:
        raise UserError(
            f"{file} is of --train-fraction {baseline['train_fraction']:g}, not {fraction:g}; "
            "train the baseline with the same, in a --results-dir of its own"
        )
    if schedule != "none" and baseline["epochs_final"] > epochs:
        raise UserError(
            f"--schedule {schedule} ends after --epochs {epochs}, but the baseline took "
            f"{baseline['epochs_final']} for its final model; give its --epochs"
        )
    return baseline["epochs_final"]


def median_epoch(best_epochs: Iterable[int]) -> int:
    """Return the median, rounded half up."""
    return int(np.median(list(best_epochs)) + 0.5)
