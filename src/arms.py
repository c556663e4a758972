"""The result files of train_classifier.py, read back: one ``Arm`` per prefix, and what may be compared.

An arm's name is its file prefix without the last ``_``. Arms are found by their files alone, so that any
run that writes these files takes part in the comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from utils import UserError, load_json

if TYPE_CHECKING:
    import pandas as pd

TRAIN_COMMAND = "python src/train_classifier.py"
BASELINE, AUGMENTED = "baseline", "augmented"
# What two arms must share for their difference to mean anything.
COMPARED_OPTIONS = (
    "epochs", "batch_size", "lr", "unfreeze", "weights", "image_size", "augment", "weight_decay", "schedule",
    "seed", "test_set",
)  # fmt: skip
PREDICTION_COLUMNS = ("image_id", "patient", "label", "probability")
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
class Arm:
    """What was found of one arm; None for a file that is not there.

    ``predictions``: image_id, patient, label, probability of the test images, sorted by image_id.
    """

    name: str
    prefix: str
    metrics: dict[str, Any] | None = None
    history: dict[str, Any] | None = None
    cv: dict[str, Any] | None = None
    predictions: pd.DataFrame | None = None


def find_arms(metrics_dir: str | Path) -> dict[str, Arm]:
    """Name -> arm: baseline first, then augmented, then the others by name.

    ``UserError`` if no arm has final metrics, or a file is broken.
    """
    metrics_dir = Path(metrics_dir)
    prefixes = {prefix for name_of in REQUIRED for prefix in find_prefixes(metrics_dir, name_of)}
    found = [_read_arm(metrics_dir, prefix) for prefix in prefixes]
    if not any(arm.metrics for arm in found):
        wanted = paths.final_metrics(metrics_dir, paths.BASELINE_PREFIX).name
        raise UserError(
            f"{metrics_dir} holds no metrics of any classifier ({wanted}, or those of another arm); "
            f"`{TRAIN_COMMAND}` writes them, --metrics-dir says where they are"
        )
    return {arm.name: arm for arm in sorted(found, key=lambda arm: _order(arm.prefix))}


def find_prefixes(metrics_dir: str | Path, name_of: Callable[[str | Path, str], Path]) -> list[str]:
    """Prefixes of the arms with one kind of file (``paths.cv_summary``, ...), ordered as in ``find_arms``."""
    suffix = name_of("", "").name
    found = {file.name.removesuffix(suffix) for file in Path(metrics_dir).glob(f"?*_{suffix}")}
    return sorted((prefix for prefix in found if not paths.is_gan_prefix(prefix)), key=_order)


def _order(prefix: str) -> tuple[int, str]:
    """Baseline first, then augmented, then the others by name."""
    return {paths.BASELINE_PREFIX: 0, paths.AUGMENTED_PREFIX: 1}.get(prefix, 2), prefix


def _read_arm(metrics_dir: Path, prefix: str) -> Arm:
    contents = {name_of: _read_json(name_of(metrics_dir, prefix), keys) for name_of, keys in REQUIRED.items()}
    return Arm(
        name=prefix.removesuffix("_"),
        prefix=prefix,
        metrics=contents[paths.final_metrics],
        history=contents[paths.training_history],
        cv=contents[paths.cv_summary],
        predictions=_read_predictions(paths.test_predictions(metrics_dir, prefix)),
    )


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
    try:
        table = pd.read_csv(path, dtype={"image_id": str, "patient": str})
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}") from None
    missing = [column for column in PREDICTION_COLUMNS if column not in table]
    if missing or table[[*PREDICTION_COLUMNS]].isna().any(axis=None):
        problem = f"lacks {', '.join(missing)}" if missing else "has empty cells"
        raise UserError(f"{path} {problem}; `{TRAIN_COMMAND}` writes it")
    return table[[*PREDICTION_COLUMNS]].sort_values("image_id", ignore_index=True)


# --- what may be compared --------------------------------------------------------------------------
def difference(base: Arm, other: Arm, seed: int, n_resamples: int) -> dict[str, Any]:
    """``other`` minus ``base`` on the test images that both scored, or {"reason": why there is none}.

    {"base", "other", "n_images", "n_patients", "n_resamples", "seed", "accuracy": {"difference", "ci95"},
    "auroc": likewise}; fractions.
    """
    from metrics import paired_cluster_bootstrap

    result: dict[str, Any] = {"base": base.name, "other": other.name}
    if reason := why_not_comparable(base, other):
        return {**result, "reason": reason}
    a, b = base.predictions, other.predictions
    result |= {"n_images": len(a), "n_patients": int(a["patient"].nunique())}
    for statistic in ("accuracy", "auroc"):
        result[statistic] = paired_cluster_bootstrap(
            a["label"].to_numpy(), a["probability"].to_numpy(), b["probability"].to_numpy(),
            list(a["patient"]), statistic, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
    return {**result, "n_resamples": n_resamples, "seed": seed}


def why_not_comparable(base: Arm, other: Arm) -> str | None:
    """The reason why two arms' test predictions cannot be paired, or None if they can."""
    for arm in (base, other):
        if arm.predictions is None:
            return f"{paths.test_predictions('', arm.prefix).name} is missing"
    if base.metrics["split_sha256"] != other.metrics["split_sha256"]:
        return "they were trained and tested on different splits"
    a, b = base.predictions, other.predictions
    if not a["image_id"].equals(b["image_id"]):
        only = len(set(a["image_id"]) ^ set(b["image_id"]))
        return f"they were scored on different images ({only} images are in one set of predictions only)"
    if not (a["label"].equals(b["label"]) and a["patient"].equals(b["patient"])):
        return "their predictions give different labels or patients for the same images"
    return None


def warnings_of(arms: list[Arm]) -> list[str]:
    """Sentences that a reader must see before any figure: each arm's own red flags, and what differs."""
    flags = [f"{arm.name}: {flag}" for arm in arms for flag in arm.metrics.get("red_flags", [])]
    for key, what in (
        ("split_sha256", "the arms were trained and tested on DIFFERENT SPLITS"),
        ("data_sha256", "the arms were trained on DIFFERENT METADATA files"),
        ("optimizer_steps", "the arms were trained for DIFFERENT NUMBERS OF STEPS"),
        ("test_set", "the arms were scored on DIFFERENT TEST SETS"),
        ("n_train_images", "the arms were trained on DIFFERENT NUMBERS OF REAL IMAGES"),
    ):
        values = {arm.name: arm.metrics.get(key) for arm in arms}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
            flags.append(f"{what}: {shown}")
    flags += _unlike_baseline(arms)
    return flags + [flag for arm in arms if (flag := _stale_predictions(arm))]


def differing_options(own: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """A sentence for each of ``COMPARED_OPTIONS`` that two runs' options ("config") give differently.

    An option that one of them lacks is no difference: an older version wrote it.
    """
    return [
        f"--{key.replace('_', '-')} was {own[key]} here and {baseline[key]} in the baseline"
        for key in COMPARED_OPTIONS
        if key in own and key in baseline and own[key] != baseline[key]
    ]


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


def _stale_predictions(arm: Arm) -> str | None:
    """Do the predictions give the accuracy that the metrics state? If not, they are of another run."""
    from metrics import accuracy

    if arm.predictions is None:
        return None
    found = accuracy(arm.predictions["label"], arm.predictions["probability"])
    if len(arm.predictions) == arm.metrics["n_images"] and abs(found - arm.metrics["accuracy"]) < 1e-6:
        return None
    files = f"{paths.test_predictions('', arm.prefix).name} and {paths.final_metrics('', arm.prefix).name}"
    return f"{arm.name}: {files} DO NOT BELONG TO THE SAME RUN; run `{TRAIN_COMMAND}` again"


def _short(value: Any) -> str:
    """A hash is shown by its first 12 characters."""
    return value[:12] if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else str(value)
