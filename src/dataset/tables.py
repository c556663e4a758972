"""Metadata tables of the RSNA dataset, and its facts: one row per bounding box in, one record per image out.

``patientId`` names an image, not a person, and an image with two boxes has two rows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from utils import UserError

if TYPE_CHECKING:
    import pandas as pd

POSITIVE_CLASS = "Lung Opacity"
LABEL_OF_CLASS = {"Normal": 0, "No Lung Opacity / Not Normal": 0, POSITIVE_CLASS: 1}
BOX_FRAME = 1024  # box coordinates are pixels of a 1024 x 1024 image, whatever the PNG's size
PLAUSIBLE_AGE = 110  # years; the source has typos up to 155
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # no separator, so an id cannot leave its folder


def read_metadata(path: Path) -> pd.DataFrame:
    """Read a metadata CSV as it is, one row per box, every value a stripped string.

    Tolerates a byte-order mark and CRLF. ``UserError`` if it is missing, empty, not a CSV, lacks
    ``patientId``, or has an id that is not a plain file name.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path} is missing; `python src/download_dataset.py` fetches the dataset")
    try:
        rows = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}") from None
    rows.columns = rows.columns.str.strip()
    if "patientId" not in rows:
        raise UserError(f"{path} has no column patientId; its columns are {', '.join(rows.columns)}")
    rows = rows.apply(lambda column: column.str.strip())
    bad = rows.loc[~rows["patientId"].map(lambda name: bool(SAFE_ID.fullmatch(name))), "patientId"]
    if not bad.empty:
        raise UserError(
            f"{path.name}: patientId {bad.iloc[0]!r} is not a plain file name without folders; correct it"
        )
    return rows


def reduce_to_images(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Make one record per image: image_id, label, class, view, sex, age, n_boxes; sorted by image_id.

    ``UserError`` naming the image if its rows carry two labels or classes, or Target and class disagree.
    """
    import pandas as pd

    if "Target" not in rows and "class" not in rows:
        raise UserError(f"{source} has no labels: it needs a column Target or class")
    classes = _canonical_classes(rows, source) if "class" in rows else None
    labels = _labels(rows, classes, source)
    table = pd.DataFrame(
        {
            "image_id": rows["patientId"],
            "label": labels,
            "class": classes if classes is not None else labels.map({1: POSITIVE_CLASS, 0: ""}),
            "view": _column(rows, "position").str.upper(),
            "sex": _column(rows, "sex").str.upper(),
            "age": _ages(rows),
            "n_boxes": (_column(rows, "x") != "").astype(int),
        }
    )
    per_image = table.groupby("image_id", sort=True)
    for column in ("label", "class"):
        mixed = per_image[column].nunique()
        mixed = mixed[mixed > 1]
        if not mixed.empty:
            raise UserError(f"{source}: image {mixed.index[0]} has rows of different {column}; correct them")
    images = per_image.first()
    images["n_boxes"] = per_image["n_boxes"].sum()
    return images.reset_index()


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    import pandas as pd

    return rows[name] if name in rows else pd.Series("", index=rows.index, dtype=str)


def _ages(rows: pd.DataFrame) -> pd.Series:
    import pandas as pd

    ages = pd.to_numeric(_column(rows, "age"), errors="coerce")
    return ages.where(ages.between(0, PLAUSIBLE_AGE))


def _canonical_classes(rows: pd.DataFrame, source: str) -> pd.Series:
    """Class names in the official spelling; spaces around the slash and case do not matter."""
    canonical = {re.sub(r"\s+", "", name).lower(): name for name in LABEL_OF_CLASS}
    classes = rows["class"].map(lambda name: canonical.get(re.sub(r"\s+", "", name).lower()))
    if classes.isna().any():
        row = rows.loc[classes.isna()].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has class {row['class']!r}; "
            f"allowed are {', '.join(LABEL_OF_CLASS)}"
        )
    return classes


def _labels(rows: pd.DataFrame, classes: pd.Series | None, source: str) -> pd.Series:
    """Return 0/1 per row from Target, class, or both, which then must agree."""
    import pandas as pd

    from_class = classes.map(LABEL_OF_CLASS).astype(int) if classes is not None else None
    if from_class is not None and "Target" not in rows:
        return from_class
    target = pd.to_numeric(rows["Target"], errors="coerce")
    if not target.isin([0, 1]).all():
        row = rows.loc[~target.isin([0, 1])].iloc[0]
        raise UserError(f"{source}: image {row['patientId']} has Target {row['Target']!r}; allowed: 0, 1")
    target = target.astype(int)
    if from_class is not None and (target != from_class).any():
        row = rows.loc[target != from_class].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has Target {row['Target']} but class {row['class']!r}; "
            f"only {POSITIVE_CLASS!r} is 1"
        )
    return target
