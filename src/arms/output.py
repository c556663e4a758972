"""Writing the files of one arm: models, predictions, folds, curves, metrics."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from arms import options as arm_options
from arms.data import ArmData
from arms.file_formats import (
    CVSummary,
    FinalCurves,
    FinalMetrics,
    FoldCurves,
    Origin,
    RepeatScores,
    TrainingHistory,
)
from arms.operating_points import find_operating_points, recipe_sha256
from arms.options import flag_of
from arms.result_files import find_prefixes, read_predictions, read_result
from arms.scores import out_of_fold_table, prediction_table, reference_results, summarise_folds, test_scores
from arms.training_images import training_images_in_words
from classifier import CHECKPOINT_FORMAT
from common import paths
from common.options import Affects, names_affecting
from image_metrics.outliers import fit_outlier_space
from utils import UserError, save_checkpoint, save_csv, save_figure, save_json

if TYPE_CHECKING:
    from arms.initial_weights import InitialWeights
    from arms.training import ArmTrainer, FoldFit, Repeat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmOutput:
    """Where the files of an arm go; ``origin`` stands in every JSON file of it."""

    prefix: str
    model_dir: str
    results_dir: str
    figures_dir: str
    origin: Origin

    @property
    def backbone(self) -> str:
        """Name of the network, which the names of checkpoints carry."""
        return str(self.origin["config"]["backbone"])

    def prefix_of_run(self, number: int) -> str:
        """Return the prefix of the files of training run ``number``."""
        return paths.repeat_prefix(self.prefix, number)


@dataclass(frozen=True)
class TrainedArm:
    """Result of training an arm. ``training``: facts that ``file_formats.Training`` describes."""

    trainer: ArmTrainer
    folds: list[FoldFit]
    repeats: list[Repeat]
    training: dict[str, Any]
    weights: InitialWeights


def save_results(out: ArmOutput, arm: TrainedArm) -> FinalMetrics:
    """Write all files of the arm; returns the content of ``<prefix>final_metrics.json``."""
    data, repeats = arm.trainer.data, arm.repeats
    # Written last and removed first: its presence means that all files are there and belong together.
    final_file = paths.final_metrics(out.results_dir, out.prefix)
    final_file.unlink(missing_ok=True)
    remove_repeats(out)
    cv_predictions = None
    if any(item.fold for item in arm.folds):
        cv_predictions = save_folds(out, data, arm.folds, arm.weights.saw_images)
    elif earlier_folds(out) is not None:
        cv_predictions = load_folds(out)
    else:
        remove_folds(out)
    trained_on = training_images_in_words(data, data.final_addition(arm.trainer.seed))
    save_curves(out, arm.folds, repeats, trained_on)
    save_models(out, arm)
    mean = save_predictions(out, data, repeats)
    rows: list[RepeatScores] = []
    for item in repeats:
        rows.append({"repeat": item.number, "seed": item.seed, **test_scores(data, item.test)})
        if len(repeats) > 1:
            prefix = out.prefix_of_run(item.number)
            content = {"prefix": prefix, "arm": out.prefix, **out.origin, **arm.training, **rows[-1]}
            save_json(paths.final_metrics(out.results_dir, prefix), content)
    metrics = {
        "prefix": out.prefix,
        **out.origin,
        **arm.training,
        "seed": arm.trainer.seed,
        "repeats": len(repeats),
        "seeds": [item.seed for item in repeats],
        "per_repeat": rows if len(repeats) > 1 else [],
        **test_scores(data, mean),
        "references": reference_results(data, mean, cv_predictions),
    }
    save_json(final_file, metrics)
    return cast(FinalMetrics, metrics)


# --- folds -----------------------------------------------------------------------------------------
def save_folds(out: ArmOutput, data: ArmData, folds: list[FoldFit], weights_saw_folds: bool) -> pd.DataFrame:
    """Write the out-of-fold predictions and their summary; returns the predictions."""
    predictions = out_of_fold_table(data, folds)
    summary = summarise_folds(data, folds, predictions, weights_saw_folds)
    summary_file = paths.cv_summary(out.results_dir, out.prefix)
    summary_file.unlink(missing_ok=True)  # that of an earlier run must not pass for the summary of these predictions
    save_csv(paths.cv_predictions(out.results_dir, out.prefix), predictions)
    save_json(summary_file, {**summary, **out.origin})
    return predictions


def earlier_folds(out: ArmOutput) -> CVSummary | None:
    """Return the summary of folds that an earlier run of the same options and data left, or None.

    Options that only one of the two runs names are not compared.
    """
    summary = read_result(paths.cv_summary(out.results_dir, out.prefix), CVSummary)
    if summary is None or not paths.cv_predictions(out.results_dir, out.prefix).is_file():
        return None
    return None if _why_other_folds(summary, out.origin) else summary


def warn_of_folds(out: ArmOutput) -> None:
    """Warn, before hours are spent, that folds which do not belong to this run will be removed by it."""
    file = paths.cv_summary(out.results_dir, out.prefix)
    summary = read_result(file, CVSummary)
    if summary is not None and (reason := _why_other_folds(summary, out.origin)):
        log.info(
            f"the folds in {file} are of another run ({reason}) and will be removed when this one is done: "
            "to keep them, stop now and give --prefix NAME or another --results-dir"
        )


def _why_other_folds(summary: CVSummary, origin: Origin) -> str | None:
    """Say why folds with this summary do not belong to the run of this origin; None if they do."""
    earlier, now = summary["config"], origin["config"]
    if now.get("labelled_patients"):
        return f"all labels were known there, --labelled-patients is {now['labelled_patients']} here"
    compared = names_affecting(arm_options.TRAIN_OPTIONS, Affects.FOLDS)
    for key in sorted(compared & earlier.keys() & now.keys()):
        if earlier[key] != now[key]:
            return f"{flag_of(key)} was {earlier[key]} there and is {now[key]} here"
    there, here = images_of_run(summary), images_of_run(origin)
    return next((f"{key} differs" for key in here if there[key] != here[key]), None)


def images_of_run(origin: Origin) -> dict[str, Any]:
    """Return what tells the images that a run used, and its file of weights, from those of another run."""
    facts = dict(origin)
    names = ("split_sha256", "data_sha256", "manifest_sha256", "skipped_images", "weights_sha256",
             "ensemble_sha256")  # fmt: skip
    return {key: facts.get(key) for key in names}


def load_folds(out: ArmOutput) -> pd.DataFrame:
    """Return the out-of-fold predictions of ``earlier_folds``."""
    file = paths.cv_predictions(out.results_dir, out.prefix)
    table = read_predictions(file)
    if table is None or "fold" not in table:
        raise UserError(f"{file} lacks the column fold; delete it, or train the folds again (--k-folds)")
    return table


def remove_folds(out: ArmOutput) -> None:
    """Remove the folds of other options: a run without folds must not leave them beside its results."""
    tables = [name_of(out.results_dir, out.prefix) for name_of in (paths.cv_summary, paths.cv_predictions)]
    for file in (*tables, paths.best_fold_model(out.model_dir, out.prefix, out.backbone)):
        if file.is_file():
            log.info(f"removing {file}: it belongs to an earlier run with folds of other options or data")
            file.unlink()


# --- models and predictions ------------------------------------------------------------------------
def save_models(out: ArmOutput, arm: TrainedArm) -> None:
    """Write the final model of each repeat (the arm's own is the first's) and the fold of lowest loss."""
    trainer, repeats = arm.trainer, arm.repeats
    folds = [item for item in arm.folds if item.fold]
    shared = _checkpoint(out, arm)
    if folds:
        best = min(folds, key=lambda item: min(item.fit.history["val_loss"]))
        content = {**shared, "seed": trainer.seed, "state_dict": trainer.full_state(best.fit), "fold": best.fold}
        save_checkpoint(paths.best_fold_model(out.model_dir, out.prefix, out.backbone), content)
    for repeat in repeats:
        own = {"seed": repeat.seed, "state_dict": trainer.full_state(repeat.fit), "repeat": repeat.number}
        content = {**shared, **own}
        if len(repeats) > 1:
            file = paths.classifier_model(out.model_dir, out.prefix_of_run(repeat.number), out.backbone)
            save_checkpoint(file, content)
        if repeat.number == 1:
            save_checkpoint(paths.classifier_model(out.model_dir, out.prefix, out.backbone), content)


def _checkpoint(out: ArmOutput, arm: TrainedArm) -> dict[str, Any]:
    """Return what all model files of the arm hold: ``ClassifierCheckpoint`` without seed, number and weights.

    Whoever predicts may have nothing but the model file: it carries what decisions and odd images are told by.
    """
    trainer, train = arm.trainer, arm.trainer.data.train
    recipe = recipe_sha256(out.origin)
    points, note = find_operating_points(out.results_dir, recipe, [trainer.seed])
    space = fit_outlier_space(train.pixels, list(train.records["patient"]))
    content: dict[str, Any] = {
        "format": CHECKPOINT_FORMAT,
        "backbone": out.backbone,
        "prefix": out.prefix,
        "frozen": trainer.network.frozen,
        "image_size": trainer.network.image_size,
        "split_sha256": out.origin["split_sha256"],
        "data_sha256": out.origin["data_sha256"],
        "recipe_sha256": recipe,
        "config": out.origin["config"],
        "operating_points": points,
        "operating_points_note": note,
        "outliers": space.state() if space else None,
        "largest_aspect": max(max(f.width, f.height) / min(f.width, f.height) for f in train.facts),
    }
    if few := arm.training.get("few_labels"):
        content["labelled_sha256"] = few["labelled_sha256"]
    content |= {key: value for key, value in out.origin.items() if key in ("config_sha256", "plan_sha256")}
    if arm.weights.red_flags:
        content["weights_flags"] = list(arm.weights.red_flags)
    return content


def save_predictions(out: ArmOutput, data: ArmData, repeats: list[Repeat]) -> np.ndarray:
    """Write the probabilities of each repeat and their mean; returns the mean of the test images [N]."""
    runs = [(out.prefix_of_run(item.number), item.test, item.unlabelled) for item in repeats]
    mean = np.mean([test for _, test, _ in runs], axis=0)
    rests = [rest for _, _, rest in runs if rest is not None]
    unlabelled = np.mean(rests, axis=0) if rests else None
    for prefix, test, rest in [*(runs if len(runs) > 1 else []), (out.prefix, mean, unlabelled)]:
        save_csv(paths.test_predictions(out.results_dir, prefix), prediction_table(data.test.records, test))
        if rest is not None and data.unlabelled is not None:
            table = data.unlabelled.records[["image_id"]].assign(probability=rest)
            save_csv(paths.unlabelled_predictions(out.results_dir, prefix), table)
    return mean


def remove_repeats(out: ArmOutput) -> None:
    """Remove the repeats of an earlier run, which must not pass for this run's."""
    for folder in {out.model_dir, out.results_dir}:
        for file in Path(folder).glob(f"{out.prefix}r*_*"):
            if re.fullmatch(rf"{re.escape(out.prefix)}r\d+_(?!unfinished).*", file.name):
                file.unlink()


# --- curves ----------------------------------------------------------------------------------------
def save_curves(out: ArmOutput, folds: list[FoldFit], repeats: list[Repeat], trained_on: str) -> None:
    """Write the losses and accuracies of every epoch, and their figures; ``trained_on`` in words.

    Without folds of this run, the curves of an earlier run's folds that are still in use are kept.
    """
    curves: list[FoldCurves] = [
        {"fold": item.fold, "best_epoch": item.fit.best_epoch, **item.fit.curves()} for item in folds
    ] or _earlier_curves(out)
    finals: list[FinalCurves] = [
        {"repeat": item.number, "seed": item.seed, "epochs": item.fit.best_epoch, **item.fit.curves()}
        for item in repeats
    ]
    history: TrainingHistory = {"folds": curves, "final": finals[0], "repeats": finals, **out.origin}
    save_json(paths.training_history(out.results_dir, out.prefix), history)
    for item, final in zip(repeats, finals, strict=True) if len(repeats) > 1 else ():
        file = paths.training_history(out.results_dir, out.prefix_of_run(item.number))
        save_json(file, {"folds": [], "final": final, **out.origin})
    _save_figures(out, history, trained_on)


def _earlier_curves(out: ArmOutput) -> list[FoldCurves]:
    """Return the curves of ``earlier_folds``; none if the history at hand is of other folds."""
    summary = earlier_folds(out)
    history = read_result(paths.training_history(out.results_dir, out.prefix), TrainingHistory)
    if summary is None or history is None:
        return []
    best_epochs = [(row["fold"], row["best_epoch"]) for row in summary["folds"]]
    curves = history["folds"]
    return curves if [(row["fold"], row["best_epoch"]) for row in curves] == best_epochs else []


def _save_figures(out: ArmOutput, history: TrainingHistory, trained_on: str) -> None:
    """Draw the arm's curves, and the folds of all arms found so far side by side."""
    from arms import figures as plots

    title = f"{out.prefix.removesuffix('_')}: n = {trained_on}"
    for file_of, quantity in ((paths.loss_figure, "loss"), (paths.acc_figure, "acc")):
        save_figure(file_of(out.figures_dir, out.prefix), plots.training_curves(history, quantity, title))
    summaries = {}
    for other in find_prefixes(out.results_dir, paths.cv_summary):
        try:
            summary = read_result(paths.cv_summary(out.results_dir, other), CVSummary)
        except UserError as error:  # of another arm: no reason to lose what has just been trained
            log.warning(f"WARNING: {paths.CV_COMPARISON} is drawn without {other.removesuffix('_')}: {error}")
        else:
            summaries[other.removesuffix("_")] = cast(CVSummary, summary)
    if summaries:
        save_figure(paths.cv_comparison_figure(out.figures_dir), plots.cv_comparison(summaries))
