"""Writing what one arm gives: models, predictions, folds, curves; and removing what an earlier run left."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from arms import options as arm_options
from arms.data import ArmData
from arms.options import flag_of
from arms.result_files import find_prefixes
from arms.scores import out_of_fold_table, prediction_table, summarise_folds
from classifier import CHECKPOINT_FORMAT
from common import paths
from common.options import Affects, names_affecting
from utils import UserError, load_json, save_checkpoint, save_csv, save_figure, save_json

if TYPE_CHECKING:
    from arms.fitting import Fit
    from arms.training import ArmTrainer, FoldFit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repeat:
    """One training run of an arm; its probabilities of the test and unlabelled images are float64 [N]."""

    number: int
    seed: int
    fit: Fit
    test: np.ndarray
    unlabelled: np.ndarray | None


@dataclass(frozen=True)
class ArmOutput:
    """Where an arm's files go; ``origin`` stands in every JSON file of it ("config", "split_sha256", ...)."""

    prefix: str
    model_dir: str
    results_dir: str
    figures_dir: str
    origin: dict[str, Any]

    def of_repeat(self, number: int) -> str:
        return paths.repeat_prefix(self.prefix, number)


# --- folds -----------------------------------------------------------------------------------------
def save_folds(out: ArmOutput, data: ArmData, folds: list[FoldFit], weights_saw_folds: bool) -> pd.DataFrame:
    """Write the out-of-fold predictions and their summary; returns the predictions."""
    predictions = out_of_fold_table(data, folds)
    summary = summarise_folds(data, folds, predictions, weights_saw_folds)
    save_csv(paths.cv_predictions(out.results_dir, out.prefix), predictions)
    save_json(paths.cv_summary(out.results_dir, out.prefix), {**summary, **out.origin})
    return predictions


def earlier_folds(out: ArmOutput) -> dict[str, Any] | None:
    """The summary of folds that an earlier run of the same options and data left, or None.

    Options that only one of the two runs names are not compared.
    """
    file = paths.cv_summary(out.results_dir, out.prefix)
    if not file.is_file() or not paths.cv_predictions(out.results_dir, out.prefix).is_file():
        return None
    summary = load_json(file)
    return None if _why_other_folds(summary, out) else summary


def warn_of_folds(out: ArmOutput) -> None:
    """Say, before hours are spent, that folds which do not belong to this run will be removed by it."""
    file = paths.cv_summary(out.results_dir, out.prefix)
    if file.is_file() and (reason := _why_other_folds(load_json(file), out)):
        log.info(
            f"the folds in {file} are of another run ({reason}) and will be removed when this one is done: "
            "to keep them, stop now and give --prefix NAME or another --results-dir"
        )


def _why_other_folds(summary: dict[str, Any], out: ArmOutput) -> str | None:
    """Why folds with this summary do not belong to this run; None if they do."""
    earlier, now = summary.get("config"), out.origin["config"]
    if not isinstance(earlier, dict):
        return "their options are not known"
    compared = names_affecting(arm_options.TRAIN_OPTIONS, Affects.FOLDS)
    for key in sorted(compared & earlier.keys() & now.keys()):
        if earlier[key] != now[key]:
            return f"{flag_of(key)} was {earlier[key]} there and is {now[key]} here"
    for key in ("split_sha256", "data_sha256", "manifest_sha256", "skipped_images"):
        if summary.get(key, out.origin[key]) != out.origin[key]:
            return f"{key} differs"
    return None


def load_folds(out: ArmOutput) -> pd.DataFrame:
    """The out-of-fold predictions of ``earlier_folds``."""
    file = paths.cv_predictions(out.results_dir, out.prefix)
    table = pd.read_csv(file, dtype={"image_id": str, "patient": str})
    if not {"image_id", "probability", "fold"} <= set(table):
        raise UserError(f"{file} lacks columns; delete it, or train the folds again (--k-folds)")
    return table


def remove_folds(out: ArmOutput) -> None:
    """A run without folds must not leave the folds of other options beside its results."""
    for file in (
        paths.cv_summary(out.results_dir, out.prefix),
        paths.cv_predictions(out.results_dir, out.prefix),
        paths.best_fold_model(out.model_dir, out.prefix),
    ):
        if file.is_file():
            log.info(f"removing {file}: it belongs to an earlier run with folds of other options or data")
            file.unlink()


# --- models and predictions ------------------------------------------------------------------------
def save_models(
    out: ArmOutput,
    trainer: ArmTrainer,
    folds: list[FoldFit],
    repeats: list[Repeat],
    *,
    image_size: int,
    k_folds: int,
) -> None:
    """The final model of each repeat (the arm's own is the first's); of the folds that of lowest loss."""
    common = {
        "format": CHECKPOINT_FORMAT,
        "prefix": out.prefix,
        "frozen": trainer.frozen,
        "image_size": image_size,
        "split_sha256": out.origin["split_sha256"],
        "data_sha256": out.origin["data_sha256"],
        "config": out.origin["config"],
    }
    if k_folds:
        best = min(folds, key=lambda item: min(item.fit.history["val_loss"]))
        content = {**common, "seed": trainer.seed, "fold": best.fold}
        content["state_dict"] = trainer.full_state(best.fit)
        save_checkpoint(paths.best_fold_model(out.model_dir, out.prefix), content)
    for repeat in repeats:
        content = {**common, "seed": repeat.seed, "repeat": repeat.number}
        content["state_dict"] = trainer.full_state(repeat.fit)
        if len(repeats) > 1:
            save_checkpoint(paths.classifier_model(out.model_dir, out.of_repeat(repeat.number)), content)
        if repeat.number == 1:
            save_checkpoint(paths.classifier_model(out.model_dir, out.prefix), content)


def save_predictions(out: ArmOutput, data: ArmData, repeats: list[Repeat]) -> np.ndarray:
    """Write the probabilities of each repeat and their mean; returns the mean of the test images [N]."""
    tables = [(out.of_repeat(item.number), item.test, item.unlabelled) for item in repeats]
    mean = np.mean([item.test for item in repeats], axis=0)
    unlabelled = None
    if data.unlabelled is not None:
        unlabelled = np.mean([item.unlabelled for item in repeats], axis=0)
    for prefix, test, rest in [*(tables if len(repeats) > 1 else []), (out.prefix, mean, unlabelled)]:
        table = prediction_table(data.test.records, test)
        save_csv(paths.test_predictions(out.results_dir, prefix), table)
        if rest is not None:
            table = data.unlabelled.records[["image_id"]].assign(probability=rest)
            save_csv(paths.unlabelled_predictions(out.results_dir, prefix), table)
    return mean


def remove_repeats(out: ArmOutput) -> None:
    """The repeats of an earlier run must not pass for this run's."""
    for folder in {out.model_dir, out.results_dir}:
        for file in Path(folder).glob(f"{out.prefix}r*_*"):
            if re.fullmatch(rf"{re.escape(out.prefix)}r\d+_(?!unfinished).*", file.name):
                file.unlink()


# --- curves ----------------------------------------------------------------------------------------
def save_history(out: ArmOutput, folds: list[FoldFit], repeats: list[Repeat], trained_on: str) -> None:
    """Write the losses and accuracies of every epoch, and their figures; ``trained_on`` in words.

    Without folds of this run, the curves of an earlier run's folds that are still in use are kept.
    """
    curves = [{"fold": item.fold, "best_epoch": item.fit.best_epoch, **item.fit.curves()} for item in folds]
    curves = curves or _earlier_curves(out)
    finals = [
        {"repeat": item.number, "seed": item.seed, "epochs": item.fit.best_epoch, **item.fit.curves()}
        for item in repeats
    ]
    history = {"folds": curves, "final": finals[0], "repeats": finals, **out.origin}
    save_json(paths.training_history(out.results_dir, out.prefix), history)
    for final in finals if len(repeats) > 1 else []:
        file = paths.training_history(out.results_dir, out.of_repeat(final["repeat"]))
        save_json(file, {"folds": [], "final": final, **out.origin})
    _save_figures(out, history, trained_on)


def _earlier_curves(out: ArmOutput) -> list[dict[str, Any]]:
    """The curves of ``earlier_folds``; none if the history at hand is of other folds."""
    file, summary = paths.training_history(out.results_dir, out.prefix), earlier_folds(out)
    if summary is None or not file.is_file():
        return []
    curves = load_json(file).get("folds", [])

    def best_epochs(rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
        return [(row["fold"], row["best_epoch"]) for row in rows]

    return curves if best_epochs(curves) == best_epochs(summary["folds"]) else []


def _save_figures(out: ArmOutput, history: dict[str, Any], trained_on: str) -> None:
    """The arm's curves, and the folds of all arms found so far side by side."""
    from arms import figures as plots

    title = f"{out.prefix.removesuffix('_')}: n = {trained_on}"
    save_figure(paths.loss_figure(out.figures_dir, out.prefix), plots.training_curves(history, "loss", title))
    save_figure(paths.acc_figure(out.figures_dir, out.prefix), plots.training_curves(history, "acc", title))
    summaries = {
        other.removesuffix("_"): load_json(paths.cv_summary(out.results_dir, other))
        for other in find_prefixes(out.results_dir, paths.cv_summary)
    }
    if summaries:
        save_figure(paths.cv_comparison_figure(out.figures_dir), plots.cv_comparison(summaries))
