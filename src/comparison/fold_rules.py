"""Which arm's folds may be used for what: thresholds, a temperature, a comparison over folds.

Folds whose validation images the generator or the initial weights may have seen enter nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arms.options import differing_options
from arms.result_files import Arm
from common.options import Affects

if TYPE_CHECKING:
    import pandas as pd

ONE_FIT = "each by one fit on part of the training images, while test results are of the final model"


def choose_folds(arm: Arm, baseline: Arm | None) -> tuple[str | None, str, pd.DataFrame | None]:
    """(name of the arm, sentence, out-of-fold predictions) that thresholds and temperature are chosen on.

    The arm's own if its folds are clean, else those of the baseline, else (None, why, None).
    """
    own = why_folds_are_unfit(arm, arm)
    if own is None:
        return arm.name, f"chosen on its own {_describe(arm)}", arm.cv_predictions
    if baseline is None or baseline.name == arm.name:
        absent = "" if baseline else "; and the baseline is not among the arms"
        return None, f"none chosen: {own}{absent}", None
    other = why_folds_are_unfit(baseline, arm)
    if other is not None:
        return None, f"none chosen: {own}; {other}", None
    note = f"chosen on the baseline's {_describe(baseline)}, because {own}; they may fit this arm less well"
    return baseline.name, note, baseline.cv_predictions


def why_folds_are_unfit(source: Arm, arm: Arm) -> str | None:
    """Why nothing may be chosen for ``arm`` on the out-of-fold predictions of ``source``, or None."""
    who = source.name
    if source.cv is None or source.cv_predictions is None:
        return f"{who} has no out-of-fold predictions"
    if source.cv["contaminated"]:
        return f"the folds of {who} are contaminated"
    if arm.metrics is None:
        return f"how {arm.name} was trained is unknown"
    for key, what in (("split_sha256", "split"), ("data_sha256", "metadata")):
        if source.cv.get(key, arm.metrics.get(key)) != arm.metrics.get(key):
            return f"the folds of {who} are of another {what}"
    ours, theirs = arm.metrics.get("config") or {}, source.cv.get("config") or {}
    if differ := differing_options(ours, theirs, Affects.COMPARISON | Affects.THRESHOLDS):
        return f"the folds of {who} were trained otherwise ({differ[0]})"
    if len(source.cv_predictions) != source.cv["n_images"]:
        return f"the out-of-fold predictions of {who} are of another run than its folds"
    if source.cv_predictions["label"].nunique() < 2:
        return f"the out-of-fold predictions of {who} are of one class only"
    tested = set() if arm.predictions is None else set(arm.predictions["patient"])
    if tested & set(source.cv_predictions["patient"]):
        return f"patients of the test images are among the folds of {who}"
    return None


def _describe(arm: Arm) -> str:
    images = f"{len(arm.cv_predictions):,} training images"
    return f"out-of-fold predictions ({images}, {arm.cv['k']} folds, {ONE_FIT})"


def why_no_fold_test(a: Arm, b: Arm) -> str | None:
    """Why two arms cannot be compared over their folds, or None if they can."""
    for arm in (a, b):
        if arm.cv is None:
            return f"{arm.name} has no folds (--k-folds)"
        if arm.cv["contaminated"]:
            return f"the folds of {arm.name} are contaminated"
    first, second = a.cv, b.cv
    # Only what arms share: what they differ in by design is none of the options compared.
    ours, theirs = second.get("config") or {}, first.get("config") or {}
    if differ := differing_options(ours, theirs, Affects.COMPARISON | Affects.FOLDS):
        return f"the folds of {b.name} were trained otherwise ({differ[0].replace('the baseline', a.name)})"
    if first["k"] != second["k"]:
        return f"{a.name} has {first['k']} folds and {b.name} {second['k']}"
    if first["k"] < 2:
        return "one fold has no variance"
    for key, what in (("split_sha256", "splits"), ("data_sha256", "metadata files")):
        if None not in (first.get(key), second.get(key)) and first[key] != second[key]:
            return f"their folds are of different {what}"
    if [row["n_images"] for row in first["folds"]] != [row["n_images"] for row in second["folds"]]:
        return "their folds are of different images"
    if a.cv_predictions is not None and b.cv_predictions is not None:
        columns = ["image_id", "fold"]
        if all("fold" in arm.cv_predictions for arm in (a, b)) and not (
            a.cv_predictions[columns].equals(b.cv_predictions[columns])
        ):
            return "their folds are of different images"
    return None
