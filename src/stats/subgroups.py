"""Scores of an arm on parts of the test images: by view, sex, age and original class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast

import numpy as np

from stats.calibration import at_threshold
from stats.metrics import THRESHOLD, auroc
from stats.paired_tests import delong_interval

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ("AP", "PA")
SEXES = ("F", "M")
AGE_BANDS = (  # years, the upper end not included
    ("under 20", 0, 20), ("20 to 39", 20, 40), ("40 to 59", 40, 60), ("60 and over", 60, np.inf),
)  # fmt: skip
# A rate of fewer images, or an AUROC of fewer of either class, is left out: it would be noise.
FEWEST = 10


class SubgroupRow(TypedDict):
    """One part of the test images; null where it has too few images, or where a rate does not apply."""

    group: Annotated[str, "view, sex, age or class"]
    value: Annotated[str, "AP, F, 20 to 39, Normal, ..."]
    n_images: int
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]
    accuracy: Annotated[float | None, "at a probability of 0.5, 0 to 1"]
    accuracy_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    sensitivity: Annotated[float | None, "at a probability of 0.5, 0 to 1"]
    sensitivity_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    specificity: Annotated[float | None, "at a probability of 0.5, 0 to 1"]
    specificity_ci95_image_level: Annotated[list[float] | None, "95 % Wilson interval"]
    auroc: Annotated[float | None, "0 to 1"]
    auroc_ci95_image_level: Annotated[list[float | None] | None, "95 % DeLong interval"]


def subgroup_rows(predictions: pd.DataFrame) -> list[SubgroupRow]:
    """Score each part of the test images, by those columns (view, sex, age, class) that are there.

    Wilson intervals for the rates, DeLong's for the AUROC: image-level, and none of them adjusted for the
    number of parts. None where a rate has fewer than ten images, an AUROC fewer than ten of a class. For an
    original class, whose images are all positive or all negative, only the rate that applies is given.
    Images whose view, sex or age is unknown are in no part of that kind.
    """
    rows: list[SubgroupRow] = []
    for group, value, chosen in parts_of(predictions):
        part = predictions[chosen]
        if len(part):
            row = {"group": group, "value": value, **_scores_of_part(part, rates_only=group == "class")}
            rows.append(cast(SubgroupRow, row))
    return rows


def parts_of(predictions: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """List the parts by view, sex, age and class: (kind, name, which rows: bool [N]), empty ones too."""
    parts = []
    for column, values in (("view", VIEWS), ("sex", SEXES)):
        if column in predictions:
            parts += [(column, value, (predictions[column] == value).to_numpy()) for value in values]
    if "age" in predictions:
        age = predictions["age"].to_numpy(dtype=float)
        parts += [("age", name, (age >= low) & (age < high)) for name, low, high in AGE_BANDS]
    if "class" in predictions:
        names = sorted(name for name in predictions["class"].unique() if name)
        parts += [("class", name, (predictions["class"] == name).to_numpy()) for name in names]
    return parts


def _scores_of_part(part: pd.DataFrame, rates_only: bool) -> dict[str, Any]:
    labels, probabilities = part["label"].to_numpy(), part["probability"].to_numpy()
    n_positive = int(labels.sum())
    sizes = {"accuracy": len(part), "sensitivity": n_positive, "specificity": len(part) - n_positive}
    scores: Mapping[str, Any] = at_threshold(labels, probabilities, THRESHOLD)
    row: dict[str, Any] = {
        "n_images": len(part), "n_patients": int(part["patient"].nunique()), "n_positive": n_positive,
    }  # fmt: skip
    for name, n in sizes.items():
        wanted = n >= FEWEST and not (rates_only and name == "accuracy")
        row |= {key: scores[key] if wanted else None for key in (name, f"{name}_ci95_image_level")}
    enough = not rates_only and min(sizes["sensitivity"], sizes["specificity"]) >= FEWEST
    row["auroc"] = auroc(labels, probabilities) if enough else None
    row["auroc_ci95_image_level"] = delong_interval(labels, probabilities) if enough else None
    return row
