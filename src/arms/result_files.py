"""The result files of train_classifier.py, read back: one ``Arm`` per prefix, and what may be compared.

An arm's name is its file prefix without the last ``_``. Arms are found by their files alone, so that any
run that writes these files takes part in the comparison; the predictions of the test images are enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arms.options import differing_options
from arms.registry import ARMS, BASELINE, BASELINE_PREFIX, arm_order
from common import paths
from common.command_line import command_line
from utils import UserError, load_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TRAIN_COMMAND = "python src/train_classifier.py"
PREDICTION_COLUMNS = ("image_id", "patient", "label", "probability")
WORD_COLUMNS = ("class", "view", "sex")
OPTIONAL_COLUMNS = (*WORD_COLUMNS, "age", "fold")
REQUIRED = {
    paths.final_metrics: (
        "n_images", "n_patients", "n_positive", "accuracy", "accuracy_ci95", "auroc", "auroc_ci95",
        "weighted_precision", "weighted_recall", "weighted_f1", "sensitivity", "specificity", "split_sha256",
        "grouped_by", "optimizer_steps", "seed", "references",
    ),
    paths.cv_summary: ("k", "contaminated", "n_images", "n_patients", "folds", "mean", "std"),
    paths.training_history: ("folds", "final"),
}  # fmt: skip


@dataclass(frozen=True)
class Repeat:
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
    metrics: dict[str, Any] | None = None
    history: dict[str, Any] | None = None
    cv: dict[str, Any] | None = None
    predictions: pd.DataFrame | None = None
    cv_predictions: pd.DataFrame | None = None
    repeats: tuple[Repeat, ...] = ()


# --- finding ---------------------------------------------------------------------------------------
def find_arms(metrics_dir: str | Path) -> dict[str, Arm]:
    """Name -> arm: those of the registry in its order, then the others by name.

    ``UserError`` if no arm has final metrics or test predictions, or a file is broken.
    """
    metrics_dir = Path(metrics_dir)
    kinds = (*REQUIRED, paths.test_predictions)
    prefixes = {prefix for name_of in kinds for prefix in find_prefixes(metrics_dir, name_of)}
    runs = {prefix: own for prefix in prefixes if (own := _repeat_of(prefix, prefixes))}
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
    """Those of ``arms`` that ``names`` asks for, in the order of ``arms``. ``UserError`` for others."""
    if unknown := [name for name in names if name not in arms]:
        raise UserError(f"--arms: there is no {', '.join(unknown)}; there is {', '.join(arms)}")
    return {name: arm for name, arm in arms.items() if name in names}


def find_prefixes(metrics_dir: str | Path, name_of: Callable[[str | Path, str], Path]) -> list[str]:
    """Prefixes of the arms with one kind of file (``paths.cv_summary``, ...), ordered as in ``find_arms``."""
    suffix = name_of("", "").name
    found = {file.name.removesuffix(suffix) for file in Path(metrics_dir).glob(f"?*_{suffix}")}
    return sorted((prefix for prefix in found if not paths.is_gan_prefix(prefix)), key=arm_order)


def _repeat_of(prefix: str, prefixes: set[str]) -> tuple[str, int] | None:
    """(prefix of the arm, number) of one of the training runs of an arm that is there too, else None."""
    match = re.fullmatch(r"(.+_)r([1-9]\d*)_", prefix)
    return (match[1], int(match[2])) if match and match[1] in prefixes else None


def training_command(config: Mapping[str, Any] | None) -> str | None:
    """The command line with the options ``config`` that a result file recorded; None without them."""
    return command_line("train_classifier", config, leave_out=("resume",)) if config else None


def training_command_of(name: str) -> str:
    """Return the command that trains an arm of the registry with default options."""
    return " ".join([TRAIN_COMMAND, *ARMS[name].words_of_command()])


# --- reading ---------------------------------------------------------------------------------------
def _read_arm(metrics_dir: Path, prefix: str, numbers: list[int]) -> Arm:
    contents = {name_of: _read_json(name_of(metrics_dir, prefix), keys) for name_of, keys in REQUIRED.items()}
    metrics = contents[paths.final_metrics]
    return Arm(
        name=prefix.removesuffix("_"),
        prefix=prefix,
        metrics=metrics,
        history=contents[paths.training_history],
        cv=contents[paths.cv_summary],
        predictions=_read_predictions(paths.test_predictions(metrics_dir, prefix)),
        cv_predictions=_read_predictions(paths.cv_predictions(metrics_dir, prefix)),
        repeats=_read_repeats(metrics_dir, prefix, metrics, numbers),
    )


def _read_repeats(
    metrics_dir: Path, prefix: str, metrics: dict[str, Any] | None, numbers: list[int]
) -> tuple[Repeat, ...]:
    """Training runs 1..R, where R is what the metrics say, or else what is there; none if one is missing."""
    n_runs = metrics.get("repeats", 1) if metrics else max(numbers, default=1)
    seeds = (metrics or {}).get("seeds") or [None] * n_runs
    repeats = []
    for number in range(1, n_runs + 1) if n_runs > 1 else ():
        path = paths.test_predictions(metrics_dir, paths.repeat_prefix(prefix, number))
        predictions = _read_predictions(path)
        if predictions is None:
            return ()
        repeats.append(Repeat(number, seeds[number - 1], predictions))
    return tuple(repeats)


def _read_json(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = load_json(path)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; delete it and run `{TRAIN_COMMAND}` again")
    return content


def _read_predictions(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file():
        return None
    text = dict.fromkeys(("image_id", "patient", *WORD_COLUMNS), str)
    try:
        table = pd.read_csv(path, dtype=text)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}") from None
    if problem := _problem_of(table):
        raise UserError(f"{path} {problem}; `{TRAIN_COMMAND}` writes it")
    kept = [*PREDICTION_COLUMNS, *(column for column in OPTIONAL_COLUMNS if column in table)]
    words = {column: "" for column in WORD_COLUMNS if column in table}
    return table[kept].fillna(words).sort_values("image_id", ignore_index=True)


def _problem_of(table: pd.DataFrame) -> str | None:
    """Why a table holds no predictions that can be used, or None."""
    missing = [column for column in PREDICTION_COLUMNS if column not in table]
    if missing:
        return f"lacks {', '.join(missing)}"
    if table[[*PREDICTION_COLUMNS]].isna().any(axis=None):
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
    """float [R, N]: probabilities of each training run, in the order of ``arm.predictions``.

    One row, the arm's own predictions, if it had one run or the files of the runs are not those of which
    its predictions are the mean.
    """
    import numpy as np

    own = arm.predictions["probability"].to_numpy(dtype=float)
    same = all(run.predictions["image_id"].equals(arm.predictions["image_id"]) for run in arm.repeats)
    if arm.repeats and same:
        runs = np.stack([run.predictions["probability"].to_numpy(dtype=float) for run in arm.repeats])
        if np.abs(runs.mean(axis=0) - own).max() < 1e-6:
            return runs
    return own[None]


# --- what may be compared --------------------------------------------------------------------------
def difference(base: Arm, other: Arm, seed: int, n_resamples: int) -> dict[str, Any]:
    """``other`` minus ``base`` on the test images that both scored, or {"reason": why there is none}.

    {"base", "other", "n_images", "n_patients", "n_resamples", "seed", "accuracy": {"difference", "ci95"},
    "auroc": likewise}; fractions.
    """
    from stats.bootstrap import bootstrap_difference

    result: dict[str, Any] = {"base": base.name, "other": other.name}
    if reason := why_not_comparable(base, other):
        return {**result, "reason": reason}
    a, b = base.predictions, other.predictions
    result |= {"n_images": len(a), "n_patients": int(a["patient"].nunique())}
    for statistic in ("accuracy", "auroc"):
        result[statistic] = bootstrap_difference(
            a["label"].to_numpy(), a["probability"].to_numpy(), b["probability"].to_numpy(),
            list(a["patient"]), statistic, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
    return {**result, "n_resamples": n_resamples, "seed": seed}


def why_not_comparable(base: Arm, other: Arm) -> str | None:
    """The reason why two arms' test predictions cannot be paired, or None if they can."""
    for arm in (base, other):
        if arm.predictions is None:
            return f"{paths.test_predictions('', arm.prefix).name} is missing"
    if base.metrics and other.metrics and base.metrics["split_sha256"] != other.metrics["split_sha256"]:
        return "they were trained and tested on different splits"
    a, b = base.predictions, other.predictions
    if not a["image_id"].equals(b["image_id"]):
        only = len(set(a["image_id"]) ^ set(b["image_id"]))
        return f"they were scored on different images ({only} images are in one set of predictions only)"
    if not (a["label"].equals(b["label"]) and a["patient"].equals(b["patient"])):
        return "their predictions give different labels or patients for the same images"
    return None


def warnings_of(arms: Sequence[Arm]) -> list[str]:
    """Sentences that a reader must see before any figure: the arms' own red flags, and what differs."""
    known = [arm for arm in arms if arm.metrics]
    raised: dict[str, list[str]] = {}
    for arm in known:
        for flag in arm.metrics.get("red_flags", []):
            raised.setdefault(flag, []).append(arm.name)
    flags = [f"{', '.join(names)}: {flag}" for flag, names in raised.items()]
    for key, what in (
        ("split_sha256", "the arms were trained and tested on DIFFERENT SPLITS"),
        ("data_sha256", "the arms were trained on DIFFERENT METADATA files"),
        ("optimizer_steps", "the arms were trained for DIFFERENT NUMBERS OF STEPS"),
        ("test_set", "the arms were scored on DIFFERENT TEST SETS"),
        ("n_train_images", "the arms were trained on DIFFERENT NUMBERS OF REAL IMAGES"),
    ):
        values = {arm.name: arm.metrics.get(key) for arm in known}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
            flags.append(f"{what}: {shown}")
    flags += _unlike_baseline(known)
    return flags + [flag for arm in arms if (flag := _unknown_or_stale(arm))]


def _unlike_baseline(arms: list[Arm]) -> list[str]:
    """How arms were trained otherwise than the baseline, unless their own red flags say so already."""
    flags = []
    baseline = next((arm.metrics for arm in arms if arm.name == BASELINE), None)
    for arm in arms if baseline else []:
        m = arm.metrics
        sentences = differing_options(m.get("config") or {}, baseline.get("config") or {})
        own, reference = m.get("precision"), baseline.get("precision")
        if own and reference and own != reference:
            sentences.append(f"precision was {own} here and {reference} in the baseline")
        known = m.get("red_flags", [])
        flags += [f"{arm.name}: {sentence}" for sentence in sentences if sentence not in known]
    return flags


def _unknown_or_stale(arm: Arm) -> str | None:
    """Are the predictions of a known run, the one that the metrics describe?"""
    from stats.metrics import accuracy

    if arm.predictions is None:
        return None
    predictions, metrics = (
        name_of("", arm.prefix).name for name_of in (paths.test_predictions, paths.final_metrics)
    )
    if arm.metrics is None:
        return f"{arm.name}: provenance unknown: {metrics} is missing, so nobody knows how it was trained"
    found = accuracy(arm.predictions["label"], arm.predictions["probability"])
    if len(arm.predictions) != arm.metrics["n_images"] or abs(found - arm.metrics["accuracy"]) >= 1e-6:
        files = f"{predictions} and {metrics}"
    elif arm.repeats and len(probabilities_of_runs(arm)) == 1:
        files = f"{predictions} and those of its {len(arm.repeats)} training runs"
    else:
        return None
    return f"{arm.name}: {files} DO NOT BELONG TO THE SAME RUN; run `{TRAIN_COMMAND}` again"


def _short(value: Any) -> str:
    """A hash is shown by its first 12 characters."""
    return value[:12] if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else str(value)
