"""Layout ``chexpert``: tables of findings that are positive, negative, uncertain, or not mentioned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset.file_formats import PositiveMeaning
from dataset.people import LATERAL, read_ages, read_sexes, read_views
from dataset.tables import Table, read_table, squeeze
from importers.columns import PNEUMONIA, find_findings, folder_of, read_columns
from importers.sources import Source, SourceImage, refuse_missing, require_folder, without_laterals
from utils import UserError

CHEXPERT = "CheXpert"  # as dataset.known_datasets calls it
COLUMNS = {"path": "Path", "sex": "Sex", "age": "Age", "side": "Frontal/Lateral", "view": "AP/PA"}
TABLES = {"train": "train.csv", "valid": "valid.csv"}
POSITIVE, NEGATIVE, UNCERTAIN, UNMENTIONED = "1", "0", "-1", ""  # cells, as numbers with or without .0


def read_chexpert(
    source: Path, positive: Sequence[str] = (), uncertain: str = "drop", skip_bad: bool = False
) -> Source:
    """Read ``train.csv``, and ``valid.csv`` as the official test set; lateral views are left out and counted.

    ``positive``: findings, of which one makes an image positive; ``uncertain``: what images count as that are
    uncertain in one and positive in none: positive, negative, or drop (left out). What a report does not mention
    is negative.
    """
    require_folder(source)
    root = folder_of(source, TABLES["train"])
    left_out: dict[str, int] = {}
    images: list[SourceImage] = []
    tables: dict[str, Path] = {}
    notes: list[str] = []
    wanted: list[str] = []
    for part, name in TABLES.items():
        if not (file := root / name).is_file():
            notes.append(f"{name} is not there, so there is no official test set")
            continue
        table = read_table(file, {squeeze(column) for column in COLUMNS.values()})
        cells = read_columns(table, COLUMNS)
        known = [column for column in table.names if column not in COLUMNS.values()]
        wanted = find_findings(positive or (PNEUMONIA,), known)
        labels = _labels(table, wanted, uncertain)
        images += _images(root, table, cells, labels, part == "valid", left_out, skip_bad)
        tables[part] = file
        notes += table.notes
    images = without_laterals(images, left_out)
    said = {"drop": "left out", "positive": "positive", "negative": "negative"}[uncertain]
    meaning: PositiveMeaning = {
        "names": wanted, "negative": [], "uncertain": uncertain,
        "labelled_by": "CheXpert's labeller of reports; the official test set by radiologists",
        "sentence": f"one of the findings {', '.join(wanted)} by CheXpert's labeller of reports, uncertain {said}, "
        "all others negative, not mentioned or sick with something else among them",
    }  # fmt: skip
    return Source(
        root, images, meaning, "CheXpert's patient ids", CHEXPERT, public=True, tables=tables, left_out=left_out,
        notes=notes,
    )  # fmt: skip


def _labels(table: Table, wanted: Sequence[str], uncertain: str) -> list[int | None]:
    """Return the label of each row; None: it is left out as uncertain."""
    columns = [table.column(table.names.index(name)) for name in wanted]
    as_number = {"positive": 1, "negative": 0, "drop": None}[uncertain]
    labels: list[int | None] = []
    for row, cells in enumerate(zip(*columns, strict=True)):
        said = [cell.removesuffix(".0") for cell in cells]
        if strange := [cell for cell in said if cell not in (POSITIVE, NEGATIVE, UNCERTAIN, UNMENTIONED)]:
            line = f"{table.path}: line {table.lines[row]}"
            raise UserError(f"{line} holds {strange[0]!r}; allowed are 1, 0, -1 and blank")
        labels.append(1 if POSITIVE in said else as_number if UNCERTAIN in said else 0)
    return labels


def _images(
    root: Path, table: Table, cells: dict[str, list[str]], labels: Sequence[int | None], official: bool,
    left_out: dict[str, int], skip_bad: bool,
) -> list[SourceImage]:  # fmt: skip
    ages, sexes, views = read_ages(cells["age"]), read_sexes(cells["sex"]), read_views(cells["view"])
    batches = [path for path in sorted(root.iterdir()) if "batch" in path.name and path.is_dir()]
    images, missing, dropped = [], [], 0
    for row, path in enumerate(cells["path"]):
        lateral = cells["side"][row].casefold().startswith("lat")
        if labels[row] is None and not lateral:
            dropped += 1
            continue
        parts = [part for part in path.replace("\\", "/").split("/") if part]
        start = next((place for place, part in enumerate(parts) if part.startswith("patient")), None)
        if start is None or start == 0:
            raise UserError(f"{table.path}: line {table.lines[row]}: Path {path!r} names no patient")
        # train/patient00001/study1/view1_frontal.jpg, which full-size downloads have in several folders of batches.
        places = [root / parts[start - 1], *batches]
        file = next((found for place in places if (found := place.joinpath(*parts[start:])).is_file()), None)
        if file is None and not lateral:
            missing.append(path)
            continue
        name = "_".join([*parts[start:-1], Path(parts[-1]).stem])
        images.append(SourceImage(
            file or root, name, labels[row], official=official, patient=parts[start], age=ages.values[row],
            sex=sexes.values[row], view=LATERAL if lateral else views.values[row],
        ))  # fmt: skip
    refuse_missing(missing, table.path.name, root, skip_bad, left_out)
    if dropped:
        left_out["uncertain labels"] = left_out.get("uncertain labels", 0) + dropped
    return images
