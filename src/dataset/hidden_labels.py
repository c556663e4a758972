"""Few labels: patients whose labels are known, drawn at random, and the others', hidden within the training images.

A hidden label is no number (NaN), so that a loss, a count or a score that reads it comes to nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from utils import UserError, derive_seed, sha256_json

if TYPE_CHECKING:
    import pandas as pd

HIDDEN = float("nan")


@dataclass(frozen=True)
class FewLabels:
    """How many patients' labels are known, and the ``seed`` of their draw."""

    patients: int
    seed: int


def draw_labelled(images: pd.DataFrame, few: FewLabels) -> frozenset[str]:
    """Draw the patients of ``images`` (patient, label) whose labels are known: a pure function of the arguments.

    Patients with and without a positive image are each put in one random order, and as many of the first of
    each taken as their share asks for: smaller draws lie within larger ones. Raises ``UserError`` if one kind would be
    missing, or no label hidden.
    """
    import numpy as np

    has_positive = images.groupby("patient")["label"].max()
    n_all, n = len(has_positive), few.patients
    if n >= n_all:
        raise UserError(f"--labelled-patients {n} hides no label: there are {n_all:,} training patients; give fewer")
    n_positive = round(n * float(has_positive.mean()))
    drawn: list[str] = []
    for label, count, kind in ((1, n_positive, "with"), (0, n - n_positive, "without")):
        if count == 0:
            raise UserError(
                f"--labelled-patients {n} leaves no patient {kind} pneumonia ({(has_positive == label).sum():,} of "
                f"{n_all:,} training patients are); give more"
            )
        patients = np.sort(has_positive.index[has_positive == label].to_numpy(dtype=str))
        order = np.random.default_rng(derive_seed(few.seed, "labelled patients", label)).permutation(patients)
        drawn += [str(name) for name in order[:count]]
    return frozenset(drawn)


def hide_labels(images: pd.DataFrame, labelled: Collection[str]) -> pd.DataFrame:
    """Copy ``images``, and replace what tells the labels of patients that are not ``labelled``."""
    hidden = ~images["patient"].isin(list(labelled))
    shown = images.assign(label=images["label"].astype(float).mask(hidden, HIDDEN))
    for column, nothing in (("class", ""), ("n_boxes", 0)):
        if column in shown:
            shown[column] = shown[column].mask(hidden, nothing)
    return shown


def sha256_labelled(images: pd.DataFrame) -> str:
    """Hash which of ``images`` (image_id, label) have a label that is known, and the labels."""
    known = images[images["label"].notna()].sort_values("image_id")
    return sha256_json([known["image_id"].tolist(), known["label"].astype(int).tolist()])
