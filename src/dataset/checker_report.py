"""What the checker says about a data folder: its table, its people, its pictures, its bad images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dataset.image_ids import name_some
from dataset.images import MISSING
from dataset.labels import POSITIVE_CLASS
from dataset.patients import GROUPED_BY_IMAGE, GROUPED_BY_PATIENT, grouping_sentence
from dataset.people import PLAUSIBLE_AGE
from dataset.picture_checks import (
    almost_blank,
    bits_used,
    exact_copies,
    file_facts_auroc,
    gray_range,
    lateral,
    look_inverted,
)
from dataset.records import Dataset

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

UNREADABLE_SHOWN = 1000  # bad images that are named one by one


def describe_dataset(dataset: Dataset) -> list[str]:
    """Describe the labelled images in lines: sizes, grouping, classes, prevalence, people."""
    images = dataset.images
    groups, prevalence = images["patient"].nunique(), images["label"].mean()
    counts = images["class"].value_counts()
    lines = [
        f"{dataset.data_dir}: {dataset.rows:,} rows, {len(images):,} images, {groups:,} patients or groups",
        f"grouping: {grouping_sentence(dataset.grouped_by)}",
    ]
    if dataset.grouped_by != GROUPED_BY_IMAGE and dataset.unmapped:
        by = "mapping" if dataset.grouped_by == GROUPED_BY_PATIENT else "column"
        lines.append(f"images whose patient the {by} lacks: {dataset.unmapped:,}")
    lines += [
        "classes: " + ", ".join(f"{name or 'not Lung Opacity'} {n:,}" for name, n in counts.items()),
        f"prevalence of {POSITIVE_CLASS}: {prevalence:.1%}",
        f'accuracy of always saying "negative": {1 - prevalence:.1%}',
        *describe_people(images),
    ]
    if (unknown := int(images["age"].isna().sum())) > 0:
        lines.append(f"ages missing or above {PLAUSIBLE_AGE} years, taken as unknown: {unknown:,}")
    return lines


def describe_people(images: pd.DataFrame) -> list[str]:
    """Describe view, sex and age of each class, a line each."""

    def counts(values: pd.Series) -> str:
        return ", ".join(f"{value or 'unknown'} {n:,}" for value, n in values.value_counts().items())

    lines = []
    for name, group in images.groupby("class"):
        view, sex = counts(group["view"]), counts(group["sex"])
        known = group["age"].dropna()
        age = f"median {known.median():.0f} (quartiles {known.quantile(0.25):.0f}-{known.quantile(0.75):.0f})"
        age = age if len(known) else "unknown"
        lines.append(f"  {str(name) or 'not Lung Opacity'}: view {view}; sex {sex}; age {age}")
    return lines


# --- pictures --------------------------------------------------------------------------------------
def describe_pictures(tables: Mapping[str, pd.DataFrame], image_size: int) -> list[str]:
    """Describe the pictures of each folder, a column each, in the lines of a table.

    ``tables``: name of the folder -> its readable images (``data_loader.ImageSet.picture_table``). Inverted ones
    are told by the first folder with any.
    """
    tables = {name: table for name, table in tables.items() if len(table)}
    columns = {name: _column(table, next(iter(tables.values())), image_size) for name, table in tables.items()}
    rows = list(next(iter(columns.values()), {}))
    width = max(map(len, rows), default=0) + 2
    widths = {name: max(len(name), *map(len, cells.values())) + 2 for name, cells in columns.items()}
    lines = ["pictures".ljust(width) + "".join(name.rjust(widths[name]) for name in columns)]
    for row in rows:
        lines.append(row.ljust(width) + "".join(cells[row].rjust(widths[name]) for name, cells in columns.items()))
    return lines


def _column(table: pd.DataFrame, typical: pd.DataFrame, image_size: int) -> dict[str, str]:
    """Return the cells of one folder: what is counted -> the count and its share."""
    sides = table[["width", "height"]]
    low, high = gray_range(table)
    bits, scored = bits_used(table), file_facts_auroc(table)
    same, one, least, most = len(sides.drop_duplicates()) == 1, table.iloc[0], sides.min().min(), sides.max().max()
    return {
        "readable images": f"{len(table):,}",
        "size in pixels": f"{one['width']} x {one['height']}" if same else f"{int(least)} to {int(most)}",
        "bits in use": "8 of 8" if bits is None else f"{bits} of 16",
        "gray values in use, of 0 to 255": f"{low} to {high}",
        "almost blank": _share(almost_blank(table)),
        "look inverted (bright where the others are dark)": _share(look_inverted(table, typical)),
        "not square (squeezed to a square)": _share((sides["width"] != sides["height"]).to_numpy()),
        f"smaller than {image_size} pixels (enlarged)": _share((sides.min(axis=1) < image_size).to_numpy()),
        "lateral views, by the table": _share(lateral(table)) if "view" in table else "unknown",
        "exact copies of another image": _share(exact_copies(table)),
        "AUROC of labels by file facts alone": "-" if scored is None else f"{scored[0]:.2f}",
    }


def _share(which: np.ndarray) -> str:
    count = int(which.sum())
    return f"{count:,} ({which.mean():.1%})" if count else "0"


def describe_bad(reasons: Mapping[str, str]) -> list[str]:
    """Name the bad images: the missing ones in one line, the others with their reasons, a line each.

    ``reasons``: by image id. At most ``UNREADABLE_SHOWN`` of each kind are named.
    """
    missing = [image_id for image_id, reason in reasons.items() if reason == MISSING]
    others = [f"unreadable: {image_id}: {reason}" for image_id, reason in reasons.items() if reason != MISSING]
    return ([f"missing: {name_some(missing, UNREADABLE_SHOWN)}"] if missing else []) + others[:UNREADABLE_SHOWN]
