"""What is settled before an arm is trained: epochs of the final model, and an interrupted run's state."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arms import options as arm_options
from arms.file_formats import FinalMetrics, Origin
from arms.options import flag_of
from arms.output import ArmOutput, earlier_folds
from arms.registry import BASELINE, BASELINE_PREFIX, CHOSEN_BY_USER, Treatment
from arms.result_files import read_final_metrics
from arms.training import median_epoch
from common import paths
from common.options import Affects, values_affecting
from utils import UserError, load_json, save_json

log = logging.getLogger(__name__)


# --- epochs of the final model ---------------------------------------------------------------------
@dataclass(frozen=True)
class EpochOptions:
    """The options of train_classifier.py that decide how long the final model is trained."""

    epochs: int
    epochs_final: int | None
    schedule: str
    k_folds: int
    train_fraction: float


def planned_epochs(options: EpochOptions, treatment: Treatment, out: ArmOutput) -> tuple[int | None, str]:
    """Return (epochs of the final model, or None if the folds tell them, where they come from).

    Raises ``UserError`` if an arm's baseline is missing or does not fit, or if the share of synthetic
    images would still change after the last epoch.
    """
    epochs, source = _planned_epochs(options, treatment, out)
    if epochs is not None and treatment.last_change >= epochs:
        (name,) = (name for name, value in treatment.kind.options.items() if value is CHOSEN_BY_USER)
        raise UserError(
            f"{flag_of(name)} still changes after epoch {treatment.last_change}, but the final model is "
            f"trained for {epochs} epochs; give smaller epochs"
        )
    return epochs, source


def _planned_epochs(options: EpochOptions, treatment: Treatment, out: ArmOutput) -> tuple[int | None, str]:
    if options.epochs_final is not None:
        return options.epochs_final, "--epochs-final"
    if treatment.kind.name != BASELINE:
        return _baseline_epochs(options, out), "the baseline's"
    if options.k_folds:
        return None, "median best epoch of the folds"
    if (summary := earlier_folds(out)) is not None:
        best = (row["best_epoch"] for row in summary["folds"])
        return median_epoch(best), f"median best epoch of the {summary['k']} folds of an earlier run"
    return None, "best epoch on a validation tenth"


def _baseline_epochs(options: EpochOptions, out: ArmOutput) -> int:
    """Return the epochs of the baseline's final model."""
    file, baseline = paths.final_metrics(out.results_dir, BASELINE_PREFIX), baseline_metrics(out.results_dir)
    if baseline is None:
        raise UserError(
            f"{file} is missing: every arm takes the baseline's number of epochs; train the baseline first "
            "(the same command without --use-synthetic or --control), or give --epochs-final N"
        )
    if baseline["split_sha256"] != out.origin["split_sha256"]:
        raise UserError(f"{file} was made on another split; train the baseline again on this one")
    if baseline["train_fraction"] != options.train_fraction:
        raise UserError(
            f"{file} is of --train-fraction {baseline['train_fraction']:g}, not {options.train_fraction:g}; "
            "train the baseline with the same, in a --results-dir of its own"
        )
    if options.schedule != "none" and baseline["epochs_final"] > options.epochs:
        raise UserError(
            f"--schedule {options.schedule} ends after --epochs {options.epochs}, but the baseline took "
            f"{baseline['epochs_final']} for its final model; give its --epochs"
        )
    return baseline["epochs_final"]


def baseline_metrics(results_dir: str | Path) -> FinalMetrics | None:
    """Return the final metrics of the baseline in ``results_dir``, None if it is not there."""
    return read_final_metrics(paths.final_metrics(results_dir, BASELINE_PREFIX))


# --- an interrupted run ----------------------------------------------------------------------------
def identity_of_run(
    origin: Origin, epochs_final: int | None, precision: str, processes: int
) -> dict[str, Any]:
    """Return everything that a resumed run must share with the interrupted one to end in its numbers."""
    return {
        **values_affecting(arm_options.TRAIN_OPTIONS, Affects.RUN, origin["config"]),
        "split_sha256": origin["split_sha256"],
        "data_sha256": origin["data_sha256"],
        "manifest_sha256": origin["manifest_sha256"],
        "skipped_images": origin["skipped_images"],
        "epochs_final": epochs_final,
        "precision": precision,
        "processes": processes,
    }


def prepare_state_folder(folder: Path, run: dict[str, Any], resume: bool) -> Path:
    """Prepare the ``folder`` of the unfinished run: emptied, or with ``resume`` checked against ``run``.

    ``run``: from ``identity_of_run``. Raises ``UserError`` if the interrupted run was another one.
    """
    run_file = folder / "run.json"
    if resume and run_file.is_file():
        earlier = load_json(run_file)
        for key, value in run.items():
            if earlier.get(key) != value:
                raise UserError(
                    f"--resume: {key} was {earlier.get(key)} in the interrupted run and is {value} now; "
                    "give the same options, or leave --resume out to start from the beginning"
                )
        return folder
    if resume:
        log.info("--resume: nothing to resume, starting from the beginning")
    elif folder.is_dir():
        log.info(f"starting from the beginning, without --resume the interrupted run in {folder} is dropped")
    shutil.rmtree(folder, ignore_errors=True)
    save_json(run_file, run)
    return folder
