"""Labels of images: Target, class, and the PredictionString of an official test CSV.

A label that is not understood, or two that disagree, are refused with the image's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataset.people import is_unknown, read_number
from utils import UserError

if TYPE_CHECKING:
    import pandas as pd

POSITIVE_CLASS = "Lung Opacity"
LABEL_OF_CLASS = {"Normal": 0, "No Lung Opacity / Not Normal": 0, POSITIVE_CLASS: 1}
CLASS_OF_SPELLING = {re.sub(r"[\W_]+", "", name).lower(): name for name in LABEL_OF_CLASS}
PLACEHOLDER_PREDICTION = "0.5 0 0 100 100"  # RSNA's sample submission, the same for every test image
TRUTH_WORDS = {"true": "1", "t": "1", "yes": "1", "false": "0", "f": "0", "no": "0"}
BOX_NUMBERS = 4  # x, y, width, height
PREDICTED_NUMBERS = 5  # a confidence before each box


# --- cells -----------------------------------------------------------------------------------------
def read_target(text: str) -> str:
    """Return "0" or "1" for 0, 1.0, "1,0", True, ...; "" for unknown; other texts as they are."""
    if is_unknown(text):
        return ""
    if (number := read_number(text)) is not None and number in (0, 1):
        return str(int(number))
    return TRUTH_WORDS.get(text.casefold(), text)


def read_class(text: str) -> str:
    """Return the official spelling of a class (case, blanks and marks do not matter); other texts as they are."""
    return CLASS_OF_SPELLING.get(re.sub(r"[\W_]+", "", text).lower(), text)


# --- labelled rows ---------------------------------------------------------------------------------
def labels_of(rows: pd.DataFrame, source: str) -> pd.Series:
    """Return 0/1 per row from Target, class, or both, which then must agree; ``rows``: of ``read_metadata``.

    Raises ``UserError`` naming the image if a label is missing or something else.
    """
    import pandas as pd

    if "Target" not in rows and "class" not in rows:
        raise UserError(f"{source} has no labels: it needs a column Target or class")
    from_class = pd.Series(0, index=rows.index)
    if "class" in rows:
        _require(rows, "class", list(LABEL_OF_CLASS), source)
        from_class = rows["class"].map(LABEL_OF_CLASS).astype(int)
    if "Target" not in rows:
        return from_class
    _require(rows, "Target", ["0", "1"], source)
    target = rows["Target"].astype(int)
    if "class" in rows and (target != from_class).any():
        row = rows.loc[target != from_class].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has Target {row['Target']} but class {row['class']!r}; "
            f"only {POSITIVE_CLASS!r} is 1"
        )
    return target


def _require(rows: pd.DataFrame, column: str, allowed: Sequence[str], source: str) -> None:
    if (bad := ~rows[column].isin(allowed)).any():
        row = rows.loc[bad].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has {column} {row[column]!r}; allowed are {', '.join(allowed)}"
        )


# --- the official test -----------------------------------------------------------------------------
def official_labels(rows: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """Return (0/1 per row, or None if the CSV holds no labels; the reason in words)."""
    from_target = _from_target(rows)
    from_boxes = _from_predictions(rows)
    if from_target is None:
        labels, source = from_boxes
    else:
        labels, source = from_target
        if labels is not None and from_boxes[0] is not None and (differ := labels != from_boxes[0]).any():
            image = rows.loc[differ, "patientId"].iloc[0]
            return None, f"its Target and its PredictionString disagree (image {image})"
    if labels is not None and labels.nunique() < 2:
        return None, f"{source} says the same for every image"
    return labels, source


def _from_target(rows: pd.DataFrame) -> tuple[pd.Series | None, str] | None:
    """Return the labels of the column Target; None without one."""
    if "Target" not in rows or rows["Target"].eq("").all():
        return None
    if not rows["Target"].isin(["0", "1"]).all():
        return None, "its Target column is not 0 or 1 throughout"
    return rows["Target"].astype(int), "its Target column"


def _from_predictions(rows: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """Return the labels of PredictionString, if it holds true boxes and not what somebody predicted."""
    if "PredictionString" not in rows:
        return None, "it has neither PredictionString nor Target"
    texts = rows["PredictionString"]
    if texts.eq("").all():
        return None, "its PredictionString column is empty"
    if texts.eq(PLACEHOLDER_PREDICTION).any():
        return None, f"PredictionString is the sample-submission placeholder {PLACEHOLDER_PREDICTION!r}"
    numbers = {text: numbers_in(text) for text in texts.unique() if text}
    if any(found is not None and could_be_predicted(found) for found in numbers.values()):
        return None, "its PredictionString is a submission, with a confidence before each box"
    if wrong := [text for text, found in numbers.items() if found is None or not are_boxes(found)]:
        return None, f"its PredictionString holds no boxes of x, y, width and height (such as {wrong[0][:40]!r})"
    return texts.ne("").astype(int), "its PredictionString column (boxes or empty)"


def numbers_in(text: str) -> list[float] | None:
    """Return the numbers of a text, with blanks or commas between them; None if it holds something else."""
    text = text.strip("[](){} ")
    for pattern in (r"[\s;]+", r"[\s;,]+"):  # decimal commas first
        numbers = [read_number(word.rstrip(",")) for word in re.split(pattern, text) if word]
        if None not in numbers:
            return [number for number in numbers if number is not None]
    return None


def are_boxes(numbers: Sequence[float]) -> bool:
    """Tell whether ``numbers`` are boxes x, y, width, height with an area, and no coordinate below 0."""
    groups = _groups(numbers, BOX_NUMBERS)
    return bool(groups) and all(min(box) >= 0 and min(box[2:]) > 0 for box in groups)


def could_be_predicted(numbers: Sequence[float]) -> bool:
    """Tell whether ``numbers`` can be read as boxes with a confidence from 0 to 1 before each."""
    groups = _groups(numbers, PREDICTED_NUMBERS)
    return bool(groups) and all(0 <= group[0] <= 1 for group in groups)


def _groups(numbers: Sequence[float], size: int) -> list[Sequence[float]]:
    """Cut into groups of ``size``; none if that leaves a rest."""
    whole = len(numbers) % size == 0
    return [numbers[start : start + size] for start in range(0, len(numbers), size)] if whole else []
