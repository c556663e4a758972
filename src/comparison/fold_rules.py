"""Which arm's folds may be used for what: thresholds, a temperature, a comparison over folds.

Folds whose validation images the generator or the initial weights may have seen are used for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arms.options import differing_options
from arms.result_files import Arm, are_scores_of
from common.options import Affects

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ChosenFolds:
    """Out-of-fold predictions that thresholds and a temperature are chosen on, and where they come from.

    ``source``: name of their arm; ``note``: a sentence for the report. Without usable folds ``source`` and
    ``predictions`` are None and the note says why.
    """

    source: str | None
    note: str
    predictions: pd.DataFrame | None


def choose_folds(arm: Arm, baseline: Arm | None) -> ChosenFolds:
    """Choose the arm's own folds if they are clean, else those of the baseline, else none."""
    reason = why_folds_are_unfit(arm, arm)
    if reason is None:
        return ChosenFolds(arm.name, f"chosen on its own {_describe(arm)}", arm.cv_predictions)
    if baseline is None or baseline.name == arm.name:
        absent = "" if baseline else ", and the baseline is not among the arms"
        return ChosenFolds(None, f"none chosen: {reason}{absent}", None)
    other = why_folds_are_unfit(baseline, arm)
    if other is not None:
        return ChosenFolds(None, f"none chosen: {reason}, and {other}", None)
    note = (
        f"chosen on the baseline's {_describe(baseline)}, because {reason}; thresholds and temperature may "
        "therefore fit this arm less well"
    )
    return ChosenFolds(baseline.name, note, baseline.cv_predictions)


def why_folds_are_unfit(source: Arm, arm: Arm) -> str | None:
    """Say why nothing may be chosen for ``arm`` on the out-of-fold predictions of ``source``, or None."""
    it = "the arm" if source.name == arm.name else f"the {source.name}"
    its = f"{it}'s"
    if source.cv is None or source.cv_predictions is None:
        return f"{it} has no out-of-fold predictions"
    if source.cv["contaminated"]:
        return f"{its} folds are contaminated"
    if arm.metrics is None:
        return f"nothing says how {arm.name} was trained"
    for key, what in (("split_sha256", "split"), ("data_sha256", "metadata file")):
        if source.cv.get(key, arm.metrics.get(key)) != arm.metrics.get(key):
            return f"{its} folds come from another {what}"
    ours, theirs = arm.metrics.get("config") or {}, source.cv.get("config") or {}
    if differ := differing_options(ours, theirs, Affects.COMPARISON | Affects.THRESHOLDS):
        sentence = differ[0].replace("the baseline", "its folds") if source is arm else differ[0]
        return f"{its} folds were trained with other options ({sentence})"
    if source.cv_predictions["label"].nunique() < 2:
        return f"{its} out-of-fold predictions have one class only"
    tested = set() if arm.predictions is None else set(arm.predictions["patient"])
    if tested & set(source.cv_predictions["patient"]):
        return f"{its} folds hold patients of the test images"
    counted: dict[str, int] = {key: source.cv[key] for key in ("n_images", "n_patients") if key in source.cv}
    if not are_scores_of(source.cv_predictions, {**counted, **source.cv.get("out_of_fold", {})}):
        return f"{its} out-of-fold predictions and its folds come from different runs"
    return None


def _describe(arm: Arm) -> str:
    n_images = 0 if arm.cv_predictions is None else len(arm.cv_predictions)
    k = arm.cv["k"] if arm.cv else 0
    return (
        f"out-of-fold predictions ({n_images:,} training images in {k} folds; each fold's model trained on "
        "part of them, while the test results come from the final model)"
    )


def why_no_fold_test(a: Arm, b: Arm) -> str | None:
    """Say why two arms cannot be compared over their folds, or None if they can."""
    for arm in (a, b):
        if arm.cv is None:
            return f"{arm.name} has no folds (--k-folds)"
        if arm.cv["contaminated"]:
            return f"the folds of {arm.name} are contaminated"
    first, second = a.fold_record, b.fold_record
    # Only what arms share: what they differ in by design is none of the options compared.
    ours, theirs = second.get("config") or {}, first.get("config") or {}
    if differ := differing_options(ours, theirs, Affects.COMPARISON | Affects.FOLDS):
        sentence = differ[0].replace("the baseline", a.name)
        return f"the folds of {b.name} were trained with other options ({sentence})"
    if first["k"] != second["k"]:
        return f"{a.name} has {first['k']} folds and {b.name} {second['k']}"
    if first["k"] < 2:
        return "one fold has no variance"
    for key, what in (("split_sha256", "splits"), ("data_sha256", "metadata files")):
        if None not in (first.get(key), second.get(key)) and first[key] != second[key]:
            return f"their folds come from different {what}"
    if [row["n_images"] for row in first["folds"]] != [row["n_images"] for row in second["folds"]]:
        return "their folds hold different images"
    tables = [arm.cv_predictions for arm in (a, b) if arm.cv_predictions is not None]
    if len(tables) == 2 and all("fold" in table for table in tables):
        one, other = (table[["image_id", "fold"]] for table in tables)
        if not one.equals(other):
            return "their folds hold different images"
    return None
