"""Steps of analyze_results.py that need no image: figures of the arms, commands, what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sklearn.metrics import precision_recall_curve, roc_curve

from arms import figures as arm_figures
from arms.registry import AUGMENTED, BASELINE
from arms.result_files import TRAIN_COMMAND, Arm, training_command, training_command_of
from common import paths
from common.command_line import command_line
from comparison.file_formats import Comparison
from report import comparison_figures
from report.sections import Picture
from report.verdict import asked_arm
from utils import load_json, save_figure, save_json

log = logging.getLogger(__name__)


COMPARISON_FIGURES = ("differences", "roc_pr", "confusion", "calibration", "subgroups")
REVIEWER_FIGURES = ("decision_curve", "subgroup_differences", "robustness")
REAL_FIGURES = ("worst_errors", "perturbations")  # they show real X-rays, and their names say so
IMAGE_FIGURES = ("nearest_neighbours", "gradcam")
PREDICTIONS_REMEDY = f"`{TRAIN_COMMAND}` writes it"


@dataclass
class Outcome:
    """What a run made and what it could not make, collected for the report."""

    folder: Path
    pictures: list[Picture] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def picture(self, path: Path, figure: Any, what: str, section: str) -> None:
        """Write a figure; ``section`` is the key of the section of the report that shows it."""
        save_figure(path, figure)
        self.pictures.append(Picture(path.name, what, section))

    def numbers(self, path: Path, content: Mapping[str, Any], what: str) -> None:
        """Write a JSON file that the report names."""
        save_json(path, content)
        self.files.append((path.name, what))

    def without(self, what: str, remedy: str = "") -> None:
        """Note what could not be made and why, and how to get it."""
        self.missing.append((what, remedy))

    def written(self) -> set[str]:
        """Return the names of the files written so far."""
        return {picture.file for picture in self.pictures} | {name for name, _ in self.files}


# --- figures ---------------------------------------------------------------------------------------
def draw_training(arms: Mapping[str, Arm], outcome: Outcome) -> None:
    """Draw comparison_acc.png, comparison_loss.png and cv_comparison.png of the arms that have the files."""
    contaminated = [name for name, arm in arms.items() if arm.cv and arm.cv["contaminated"]]
    histories = {name: arm.history for name, arm in arms.items() if arm.history}
    for quantity, word in (("acc", "Accuracy"), ("loss", "Loss")):
        path = paths.comparison_figure(outcome.folder, quantity)
        if not histories:
            outcome.without(f"{path.name}: no training history was found", PREDICTIONS_REMEDY)
            continue
        title = f"{word} while training: {_sizes(arms)}"
        figure = arm_figures.comparison_curves(histories, quantity, title, contaminated)
        outcome.picture(path, figure, f"{word.lower()} by epoch, training and validation", "training")
    summaries = {name: arm.cv for name, arm in arms.items() if arm.cv}
    path = paths.cv_comparison_figure(outcome.folder)
    if summaries:
        figure = arm_figures.cv_comparison(summaries)
        outcome.picture(path, figure, "cross-validation of each arm", "training")
    else:
        remedy = f"`{TRAIN_COMMAND} --k-folds 5` writes them"
        outcome.without(f"{path.name}: no arm has cross-validation results", remedy)


def _sizes(arms: Mapping[str, Arm]) -> str:
    """Write how many real training images there are, for a title."""
    for arm in arms.values():
        if arm.metrics and arm.metrics.get("n_train_images"):
            return f"n = {arm.metrics['n_train_images']:,} real training images"
    return "all real training images"


def draw_comparison(arms: Mapping[str, Arm], comparison: Comparison, outcome: Outcome) -> None:
    """Draw those of ``COMPARISON_FIGURES`` for which comparison.json has the data."""
    folder, scored = outcome.folder, comparison["arms"]
    path = paths.analysis_figure(folder, "differences")
    if comparison["pairs"]:
        what = "the difference of every pair of arms with its 95 % CI and its verdict; the margin is shaded"
        outcome.picture(path, comparison_figures.differences(comparison), what, "differences")
    else:
        others = comparison["not_compared"] or comparison["left_out"]
        remedy = "" if others else _command_of_another_arm(scored)
        outcome.without(f"{path.name}: it needs two arms on the same test images", remedy)
    path = paths.analysis_figure(folder, "roc_pr")
    if curves := _curves({name: arms[name] for name in scored}):
        what = "ROC and precision-recall curves of each arm on the test images"
        outcome.picture(path, comparison_figures.roc_pr(curves, comparison), what, "arms")
    else:
        outcome.without(f"{path.name}: all test images have the same class")
    what = "right and wrong calls of each arm at a probability of 0.5: counts and shares of each row"
    path = paths.analysis_figure(folder, "confusion")
    outcome.picture(path, comparison_figures.confusion(comparison), what, "arms")
    what = "the share of positives against the predicted probability, as trained and after the temperature"
    path = paths.analysis_figure(folder, "calibration")
    outcome.picture(path, comparison_figures.calibration(comparison), what, "calibration")
    path = paths.analysis_figure(folder, "subgroups")
    if any(arm["subgroups"] for arm in scored.values()):
        what = "AUROC by view, sex and age, and the share called correctly by original class, with 95 % CI"
        outcome.picture(path, comparison_figures.subgroups(comparison), what, "subgroups")
    else:
        reason = "the prediction files lack view, sex, age and class"
        outcome.without(f"{path.name}: {reason}", f"`{TRAIN_COMMAND}` writes files that do")


def _curves(arms: Mapping[str, Arm]) -> dict[str, dict[str, Any]]:
    """Compute ROC and precision-recall curves of the arms whose test images have both classes."""
    curves = {}
    for name, arm in arms.items():
        if arm.predictions is None or arm.predictions["label"].nunique() < 2:
            continue
        labels, probabilities = arm.predictions["label"], arm.predictions["probability"]
        fpr, tpr, _ = roc_curve(labels, probabilities)
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        curves[name] = {"fpr": fpr, "tpr": tpr, "precision": precision, "recall": recall}
    return curves


# --- what is missing, what is stale ----------------------------------------------------------------
def _command_of_another_arm(names: Iterable[str]) -> str:
    name = BASELINE if BASELINE not in names else AUGMENTED
    return f"`{training_command_of(name)}` trains another"


def note_missing(arms: Mapping[str, Arm], left_out: Mapping[str, Arm], metrics_dir: str, outcome: Outcome) -> None:
    """Note the result files that are missing, and the command that writes them; not of ``left_out``."""
    for name in (BASELINE, asked_arm(arms)):
        if name not in arms and name not in left_out:
            file = paths.test_predictions(metrics_dir, f"{name}_").name
            outcome.without(f"{file}: there is no {name} arm", f"`{training_command_of(name)}` trains it")
    for arm in arms.values():
        if arm.predictions is None:
            file = paths.test_predictions(metrics_dir, arm.prefix).name
            outcome.without(f"{file}: without it, {arm.name} takes no part in the comparison", PREDICTIONS_REMEDY)
        elif arm.metrics is None:
            file = paths.final_metrics(metrics_dir, arm.prefix).name
            outcome.without(f"{file}: without it, nothing says how {arm.name} was trained", PREDICTIONS_REMEDY)


def remove_reports(folder: Path) -> None:
    """Remove reports of an earlier analysis, so that a failed one leaves no old words beside new numbers."""
    for path in (paths.report_page(folder), paths.comparison_report(folder)):
        path.unlink(missing_ok=True)


def remove_stale(outcome: Outcome) -> None:
    """Remove files of an earlier run that this one did not make, so that they do not pass for its own."""
    folder = outcome.folder
    made_by_this_script = [
        paths.comparison_figure(folder, "acc"),
        paths.comparison_figure(folder, "loss"),
        paths.cv_comparison_figure(folder),
        paths.real_vs_synthetic_figure(folder),
        paths.ssim_analysis(folder),
        paths.fid_score(folder),
        paths.image_quality(folder),
        *(paths.real_figure(folder, name) for name in REAL_FIGURES),
        *(paths.analysis_figure(folder, name) for name in (*COMPARISON_FIGURES, *REVIEWER_FIGURES, *IMAGE_FIGURES)),
    ]
    written = outcome.written()
    stale = sorted(path for path in made_by_this_script if path.name not in written and path.is_file())
    for path in stale:
        path.unlink()
    if stale:
        log.info(f"removed from {folder} (from an earlier run): {', '.join(path.name for path in stale)}")


# --- commands --------------------------------------------------------------------------------------
def commands(
    arms: Mapping[str, Arm],
    comparison: Comparison,
    metrics_dir: str,
    manifest: Mapping[str, Any] | None,
    own: str,
) -> list[tuple[str, str]]:
    """List (what it does, command line) of every step that recorded its options.

    ``arms``: the compared arms, and others whose folds alone were used; ``manifest``: manifest of the
    synthetic images, None if there is none; ``own``: the command line of this analysis.
    """
    rows: list[tuple[str, str]] = []
    history = paths.gan_history(metrics_dir)
    trained = load_json(history) if history.is_file() else {}
    config = trained.get("config")
    if config and _made_by(manifest, config):
        # train_gan.py takes one of the two, and records the default of --epochs beside --kimg.
        unused = ["resume", *(["epochs"] if config.get("kimg") is not None else [])]
        rows.append((_with_file("Train the generator", trained), command_line("train_gan", config, leave_out=unused)))
    if manifest and manifest.get("created_by") == "generate_synthetic.py":
        options = {
            "model_path": "generator", "output_dir": "output_dir", "label": "class",
            "num_images": "count", "seed": "seed",
        }  # fmt: skip
        recorded = {flag: manifest.get(key) for flag, key in options.items()}
        what = _with_file("Generate the synthetic images", manifest)
        rows.append((what, command_line("generate_synthetic", recorded)))
    for name, arm in arms.items():
        own_command = comparison["arms"][name]["command"] if name in comparison["arms"] else None
        rows += _folds_command(arm, own_command)
        rows += [(_with_file(f"Train the arm {name}", arm.recorded), own_command)] if own_command else []
    if external := comparison.get("external"):
        test = external["test"]
        rows.append((f"Predict the images of {test['name']}", command_line("evaluate_external", test["config"])))
    return [*rows, (_with_file("Make this report, its numbers and its figures", comparison), own)]


def _with_file(what: str, result: Mapping[str, Any]) -> str:
    """Add to a step the experiment file that its ``result`` names, if it names one."""
    sha256 = result.get("config_sha256")
    return f"{what} (experiment file with SHA-256 {sha256[:12]})" if sha256 else what


def _made_by(manifest: Mapping[str, Any] | None, config: Mapping[str, Any]) -> bool:
    """Tell whether the training of ``config`` may have made the generator of ``manifest``.

    Not if that lies elsewhere; of paths outside the project only the last part is recorded.
    """
    folder = Path((manifest or {}).get("generator") or "").parent
    own = config.get("model_dir")
    return not own or folder in (Path(), paths.gan_dir(own, config.get("fold")))


def _folds_command(arm: Arm, own_command: str | None) -> list[tuple[str, str]]:
    """List the run that trained the arm's folds, unless it is the one that trained its final model."""
    command = training_command(arm.fold_record.get("config"))
    return [(f"Train the folds of the arm {arm.name}", command)] if command not in (None, own_command) else []
