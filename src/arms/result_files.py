"""Reading the result files of train_classifier.py: one ``Arm`` per prefix, and which arms may be compared.

An arm's name is its file prefix without the last ``_``. Arms are found by their files alone, so that any
run that writes these files takes part in the comparison; the predictions of the test images are enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from arms.file_formats import (
    NEEDED_COLUMNS,
    OPTIONAL_COLUMNS,
    WORD_COLUMNS,
    CVSummary,
    FinalMetrics,
    TrainingHistory,
)
from arms.options import differing_options
from arms.registry import ARMS, BASELINE, BASELINE_PREFIX, arm_order
from common import paths
from common.command_line import command_line
from common.file_formats import format_problems
from networks.backbones import DEFAULT
from stats.metric_registry import classification_metrics
from utils import UserError, load_json

TRAIN_COMMAND = "python src/train_classifier.py"
SAME = 1e-6  # by which a score may differ from the same score of the same predictions
File = TypeVar("File")  # a type of ``arms.file_formats``


@dataclass(frozen=True)
class RepeatPredictions:
    """One of an arm's training runs, counted from 1; ``predictions`` as in ``Arm``."""

    number: int
    seed: int | None
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Arm:
    """What was found of one arm; None for a file that is not there.

    ``predictions``: image_id, patient, label, probability of the test images, and class, view, sex and age
    where the file has them, sorted by image_id; ``cv_predictions`` the same of the training images out of
    fold, with fold. ``repeats``: its training runs where it had more than one, each with its own seed.
    """

    name: str
    prefix: str
    metrics: FinalMetrics | None = None
    history: TrainingHistory | None = None
    cv: CVSummary | None = None
    predictions: pd.DataFrame | None = None
    cv_predictions: pd.DataFrame | None = None
    repeats: tuple[RepeatPredictions, ...] = ()

    @property
    def recorded(self) -> Mapping[str, Any]:
        """The content of its ``metrics``, empty without that file."""
        return cast("Mapping[str, Any]", self.metrics or {})

    @property
    def fold_record(self) -> Mapping[str, Any]:
        """The content of its ``cv``, empty without that file."""
        return cast("Mapping[str, Any]", self.cv or {})

    @property
    def backbone(self) -> str:
        """Name of its network, as the names of its checkpoints have it."""
        return str(self.recorded.get("config", {}).get("backbone", DEFAULT))

    @property
    def tested(self) -> pd.DataFrame:
        """The ``predictions`` of an arm that is known to have them."""
        if self.predictions is None:
            raise ValueError(f"{self.name} has no predictions of the test images")
        return self.predictions


# --- finding ---------------------------------------------------------------------------------------
def find_arms(metrics_dir: str | Path) -> dict[str, Arm]:
    """Read all arms, name -> arm: those of the registry in its order, then the others by name.

    Raises ``UserError`` if no arm has final metrics or test predictions, or a file is broken.
    """
    metrics_dir = Path(metrics_dir)
    kinds = (paths.final_metrics, paths.cv_summary, paths.training_history, paths.test_predictions)
    prefixes = {prefix for name_of in kinds for prefix in find_prefixes(metrics_dir, name_of)}
    runs = {prefix: own for prefix in prefixes if (own := repeat_of(prefix, prefixes))}
    found = [
        _read_arm(metrics_dir, prefix, [own[1] for own in runs.values() if own[0] == prefix])
        for prefix in prefixes - set(runs)
    ]
    if not any(arm.metrics or arm.predictions is not None for arm in found):
        wanted = paths.final_metrics(metrics_dir, BASELINE_PREFIX).name
        raise UserError(
            f"{metrics_dir} holds no metrics of any classifier ({wanted}, or those of another arm); "
            f"`{TRAIN_COMMAND}` writes them, --metrics-dir says where they are"
        )
    return {arm.name: arm for arm in sorted(found, key=lambda arm: arm_order(arm.prefix))}


def select_arms(arms: dict[str, Arm], names: Sequence[str]) -> dict[str, Arm]:
    """Return the ``names`` among ``arms``, in the order of ``arms``.

    Raises ``UserError`` for unknown names.
    """
    if unknown := [name for name in names if name not in arms]:
        raise UserError(f"--arms: there is no {', '.join(unknown)}; choose from {', '.join(arms)}")
    return {name: arm for name, arm in arms.items() if name in names}


def find_prefixes(metrics_dir: str | Path, name_of: Callable[[str | Path, str], Path]) -> list[str]:
    """Return the prefixes with one kind of file (``paths.cv_summary``, ...), ordered as in ``find_arms``."""
    suffix = name_of("", "").name
    found = {file.name.removesuffix(suffix) for file in Path(metrics_dir).glob(f"?*_{suffix}")}
    return sorted((prefix for prefix in found if not paths.is_gan_prefix(prefix)), key=arm_order)


def repeat_of(prefix: str, prefixes: Collection[str]) -> tuple[str, int] | None:
    """Return (prefix of its arm, number) if ``prefix`` is of a training run of an arm in ``prefixes``."""
    match = re.fullmatch(r"(.+_)r([1-9]\d*)_", prefix)
    return (match[1], int(match[2])) if match and match[1] in prefixes else None


def run_prefixes(prefix: str, n_runs: int) -> list[str]:
    """Return the prefix of the files of each training run of an arm: the arm's own if it had one run only."""
    return [paths.repeat_prefix(prefix, number) for number in range(1, n_runs + 1)] if n_runs > 1 else [prefix]


def training_command(config: Mapping[str, Any] | None) -> str | None:
    """Return the command line with the recorded options ``config``; None without them."""
    return command_line("train_classifier", config, leave_out=("resume",)) if config else None


def training_command_of(name: str) -> str:
    """Return the command that trains an arm of the registry with default options."""
    return " ".join([TRAIN_COMMAND, *ARMS[name].words_of_command()])


# --- reading ---------------------------------------------------------------------------------------
def read_result(file: Path, kind: type[File]) -> File | None:
    """Read a JSON file of type ``kind``; None if it is missing. Raises ``UserError`` if it is broken."""
    if not file.is_file():
        return None
    content = load_json(file)
    # Keys of others do no harm; a number that is missing or of another type does.
    problems = [text for text in format_problems(content, kind) if not text.endswith("is not described")]
    if problems:
        raise UserError(f"{file}: {problems[0]}; delete it and run `{TRAIN_COMMAND}` again")
    return content


def _read_arm(metrics_dir: Path, prefix: str, numbers: list[int]) -> Arm:
    metrics = read_result(paths.final_metrics(metrics_dir, prefix), FinalMetrics)
    return Arm(
        name=prefix.removesuffix("_"),
        prefix=prefix,
        metrics=metrics,
        history=read_result(paths.training_history(metrics_dir, prefix), TrainingHistory),
        cv=read_result(paths.cv_summary(metrics_dir, prefix), CVSummary),
        predictions=read_predictions(paths.test_predictions(metrics_dir, prefix)),
        cv_predictions=read_predictions(paths.cv_predictions(metrics_dir, prefix)),
        repeats=_read_repeats(metrics_dir, prefix, metrics, numbers),
    )


def _read_repeats(
    metrics_dir: Path, prefix: str, metrics: FinalMetrics | None, numbers: list[int]
) -> tuple[RepeatPredictions, ...]:
    """Read the training runs that the metrics, or else the files, tell of; () for a single one or if one is missing."""
    seeds: Sequence[int | None] = [None] * max(numbers, default=1)
    if metrics:
        seeds = metrics["seeds"][: metrics["repeats"]]
    if len(seeds) < 2:
        return ()
    repeats = []
    for number, seed in enumerate(seeds, start=1):
        path = paths.test_predictions(metrics_dir, paths.repeat_prefix(prefix, number))
        if (predictions := read_predictions(path)) is None:
            return ()
        repeats.append(RepeatPredictions(number, seed, predictions))
    return tuple(repeats)


def read_predictions(path: Path) -> pd.DataFrame | None:
    """Read a table of predictions, sorted by image_id; None if it is missing, ``UserError`` if it is broken."""
    if not path.is_file():
        return None
    text = dict.fromkeys(("image_id", "patient", *WORD_COLUMNS), str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])  # an id may be NA
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file ({error}); `{TRAIN_COMMAND}` writes it") from None
    if problem := _problem_of(table):
        raise UserError(f"{path} {problem}; `{TRAIN_COMMAND}` writes it")
    kept = [*NEEDED_COLUMNS, *(column for column in OPTIONAL_COLUMNS if column in table)]
    words = {column: "" for column in WORD_COLUMNS if column in table}
    return table[kept].fillna(words).sort_values("image_id", ignore_index=True)


def _problem_of(table: pd.DataFrame) -> str | None:
    """Say why a table holds no predictions that can be used; None if it does."""
    if missing := [column for column in NEEDED_COLUMNS if column not in table]:
        return f"lacks {', '.join(missing)}"
    if table[[*NEEDED_COLUMNS]].isna().any(axis=None):
        return "has empty cells"
    if table.empty:
        return "has no rows"
    if table["image_id"].duplicated().any():
        return "has images twice"
    numeric = all(table[column].dtype.kind in "iuf" for column in ("label", "probability"))
    if not numeric or not table["label"].isin([0, 1]).all() or not table["probability"].between(0, 1).all():
        return "has labels other than 0 and 1, or probabilities outside 0 to 1"
    for column in ("age", "fold"):
        if column in table and table[column].dtype.kind not in "iuf":
            return f"has words in its column {column}, where numbers or nothing may stand"
    return None


def probabilities_of_runs(arm: Arm) -> np.ndarray:
    """Return the probabilities of each training run, float [R, N], in the order of ``arm.predictions``.

    R is 1, for the arm's own predictions, if it had one run or they are not the mean of those of its runs.
    """
    own = arm.tested["probability"].to_numpy(dtype=float)
    same = all(run.predictions["image_id"].equals(arm.tested["image_id"]) for run in arm.repeats)
    if arm.repeats and same:
        runs = np.stack([run.predictions["probability"].to_numpy(dtype=float) for run in arm.repeats])
        if np.abs(runs.mean(axis=0) - own).max() < SAME:
            return runs
    return own[None]


# --- what may be compared --------------------------------------------------------------------------
def why_not_comparable(base: Arm, other: Arm) -> str | None:
    """Say why two arms' test predictions cannot be paired; None if they can."""
    for arm in (base, other):
        if arm.predictions is None:
            return f"{paths.test_predictions('', arm.prefix).name} is missing"
    if base.metrics and other.metrics and base.metrics["split_sha256"] != other.metrics["split_sha256"]:
        return "they were trained and tested on different splits"
    if base.metrics and other.metrics and len({_labelled(arm) for arm in (base, other)}) > 1:
        return "they were trained on the labels of different patients (--labelled-patients, --seed)"
    a, b = base.tested, other.tested
    if not a["image_id"].equals(b["image_id"]):
        only = len(set(a["image_id"]) ^ set(b["image_id"]))
        return f"they were scored on different images ({only} images are in one set of predictions only)"
    if not (a["label"].equals(b["label"]) and a["patient"].equals(b["patient"])):
        return "their predictions give different labels or patients for the same images"
    return None


def _labelled(arm: Arm) -> str | None:
    return arm.recorded.get("few_labels", {}).get("labelled_sha256")


def warnings_of(arms: Sequence[Arm]) -> list[str]:
    """Return sentences that a reader must see before any number: the arms' red flags, and what differs."""
    known = {arm.name: arm.metrics for arm in arms if arm.metrics}
    raised: dict[str, list[str]] = {}
    for name, metrics in known.items():
        for flag in metrics["red_flags"]:
            raised.setdefault(flag, []).append(name)
    flags = [f"{', '.join(names)}: {flag}" for flag, names in raised.items()]
    compared = {
        "split_sha256": "trained and tested on DIFFERENT SPLITS",
        "data_sha256": "trained on DIFFERENT METADATA files",
        "optimizer_steps": "trained for DIFFERENT NUMBERS OF STEPS",
        "test_set": "scored on DIFFERENT TEST SETS",
        "n_train_images": "trained on DIFFERENT NUMBERS OF REAL IMAGES",
        "weights_sha256": "trained from DIFFERENT FILES OF WEIGHTS",
    }
    for key, what in compared.items():
        values = {name: dict(metrics).get(key) for name, metrics in known.items()}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
            flags.append(f"the arms were {what}: {shown}")
    flags += _unlike_baseline(known)
    return flags + [stale for arm in arms if (stale := _unknown_or_stale(arm))]


def _unlike_baseline(known: Mapping[str, FinalMetrics]) -> list[str]:
    """Say how arms were trained otherwise than the baseline, unless their red flags say so already."""
    flags: list[str] = []
    if (baseline := known.get(BASELINE)) is None:
        return []
    for name, metrics in known.items():
        sentences = differing_options(metrics["config"], baseline["config"])
        if metrics["precision"] != baseline["precision"]:
            sentences.append(f"precision was {metrics['precision']} here and {baseline['precision']} in the baseline")
        flags += [f"{name}: {sentence}" for sentence in sentences if sentence not in metrics["red_flags"]]
    return flags


def _unknown_or_stale(arm: Arm) -> str | None:
    """Warn of predictions of an unknown run, or of another run than that of the metrics."""
    if arm.predictions is None:
        return None
    kinds = (paths.test_predictions, paths.final_metrics)
    predictions, metrics = (name_of("", arm.prefix).name for name_of in kinds)
    if arm.metrics is None:
        return f"{arm.name}: provenance unknown: {metrics} is missing, so nobody knows how it was trained"
    if not are_scores_of(arm.predictions, arm.metrics):
        files = f"{predictions} and {metrics}"
    elif arm.repeats and len(probabilities_of_runs(arm)) == 1:
        files = f"{predictions} and those of its {len(arm.repeats)} training runs"
    else:
        return None
    return f"{arm.name}: {files} DO NOT BELONG TO THE SAME RUN; run `{TRAIN_COMMAND}` again"


def are_scores_of(predictions: pd.DataFrame, recorded: Mapping[str, Any]) -> bool:
    """Tell whether ``recorded`` scores (metrics of an arm, of its folds, of a run) are those of a table.

    A score that is not recorded is not compared. One changed probability changes the Brier score.
    """
    labels, probabilities = (predictions[column].to_numpy() for column in ("label", "probability"))
    counts = {"n_images": len(labels), "n_patients": predictions["patient"].nunique(), "n_positive": int(labels.sum())}
    for name, value in (counts | classification_metrics(labels, probabilities)).items():
        other = recorded.get(name, value)
        numbers = isinstance(value, int | float) and isinstance(other, int | float)
        if abs(value - other) >= SAME if numbers else value != other:  # the others: null, and the confusion matrix
            return False
    return True


def _short(value: Any) -> str:
    """Shorten a hash to its first 12 characters; write a number with commas."""
    return value[:12] if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else str(value)
