"""Layout ``csv``: any images, with a CSV file that names them and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dataset.file_formats import PositiveMeaning
from dataset.image_ids import without_ending
from dataset.labels import LABEL_OF_CLASS, POSITIVE_CLASS, read_class, read_target
from dataset.metadata import ID_COLUMN, IMAGE_NAMES, KNOWN_NAMES, MEANINGS, PERSON_NAMES, PERSON_OR_IMAGE
from dataset.people import is_unknown, read_ages, read_sexes, read_views
from dataset.tables import Table, read_table
from importers.columns import only_file
from importers.sources import (
    Source,
    SourceImage,
    is_image,
    list_files,
    name_files,
    name_values,
    refuse_missing,
    require_folder,
    without_laterals,
)
from utils import UserError

# What columns hold -> their usual names, squeezed, the first that is there is taken.
USUAL_NAMES: dict[str, Sequence[str]] = {
    "image": ("path", "filepath", "imagepath", *IMAGE_NAMES, PERSON_OR_IMAGE),
    "label": ("target", "label", "pneumonia", "class", "diagnosis", "labels", "finding", "findinglabels"),
    "patient": (*PERSON_NAMES, PERSON_OR_IMAGE),
    "age": MEANINGS["age"],
    "sex": MEANINGS["sex"],
    "view": MEANINGS["position"],
}


def read_csv_table(
    source: Path, table_file: Path | None = None, given: Mapping[str, str | None] | None = None,
    positive: Sequence[str] = (), skip_bad: bool = False,
) -> Source:  # fmt: skip
    """Read a CSV file, and the images below ``source`` that it names by path or by file name.

    ``given``: what columns hold -> their names, if they are not the usual ones. Without ``positive`` the label
    column holds 0 and 1; with it, these values are positive and all others negative. Rows of one image must
    agree. Raises ``UserError`` naming what is not understood.
    """
    require_folder(source)
    file = table_file or only_file(source, "*.csv")
    table = read_table(file, {*KNOWN_NAMES, *USUAL_NAMES["image"], *USUAL_NAMES["label"]})
    places = _find_columns(table, given or {})
    labels = _labels(table, places["label"], positive)
    cells = {key: table.column(place) for key, place in places.items()}
    rows = _one_row_each(table, cells["image"], labels, cells.get("patient"))
    files = [path for path in list_files(source) if is_image(path)]
    found = _match_files(table, cells["image"], rows, source, files)
    left_out: dict[str, int] = {}
    refuse_missing([cells["image"][row] for row in rows if row not in found], file.name, source, skip_bad, left_out)
    if unlisted := len(set(files) - set(found.values())):
        left_out["not in the table"] = unlisted
    notes = list(table.notes)
    images = _make_images(cells, labels, found, notes)
    names = {key: table.names[place] for key, place in places.items()}
    understood = ", ".join(f"{name} ({key})" for key, name in names.items())
    who = f"column {names['patient']}" if "patient" in names else ""
    return Source(
        source, without_laterals(images, left_out), _meaning(names["label"], cells["label"], positive), who,
        tables={"labels": file}, left_out=left_out, notes=[f"columns: {understood}", *notes],
    )  # fmt: skip


# --- columns ---------------------------------------------------------------------------------------
def _find_columns(table: Table, given: Mapping[str, str | None]) -> dict[str, int]:
    """Return the place of each column that was given or found; image and label must be there."""
    places = {key: _place_of(table, name, f"--{key}-column") for key, name in given.items() if name}
    if len(set(places.values())) < len(places):
        raise UserError("one column was given for two things; give each its own")
    for key in USUAL_NAMES:
        if key in places:
            continue
        if (place := _usual_place(table, key, set(places.values()))) is not None:
            places[key] = place
        elif key in ("image", "label"):
            raise UserError(
                f"{table.path} has no usual column for the {key}; name it with --{key}-column ({table.listed_names})"
            )
    return {key: places[key] for key in USUAL_NAMES if key in places}


def _place_of(table: Table, name: str, flag: str) -> int:
    found = table.places_of(name)
    if len(found) != 1:
        state = f"{len(found)} such columns" if found else "no such column"
        raise UserError(f"{flag} {name}: {table.path} has {state}; its columns are {table.listed_names}")
    return found[0]


def _usual_place(table: Table, key: str, taken: set[int]) -> int | None:
    """Return the first column with a usual name of ``key`` that is not ``taken``.

    Raises ``UserError`` if several columns could be the label, and none is called Target.
    """
    squeezed = table.squeezed
    found = [place for name in USUAL_NAMES[key] for place in range(len(squeezed)) if squeezed[place] == name]
    free = [place for place in found if place not in taken]
    if key == "image":  # patientId names an image beside "Patient ID"
        free = [place for place in free if squeezed[place] != PERSON_OR_IMAGE] or sorted(
            free, key=lambda place: table.names[place] != ID_COLUMN
        )
    if key == "label" and len(free) > 1 and squeezed[free[0]] != USUAL_NAMES["label"][0]:
        both = " and ".join(table.names[place] for place in free[:2])
        raise UserError(f"{table.path} has columns {both}; name the one that holds the label with --label-column")
    return free[0] if free else None


# --- labels ----------------------------------------------------------------------------------------
def _labels(table: Table, place: int, positive: Sequence[str]) -> list[int]:
    """Return the label of each row."""
    column, cells = table.describe_column(place), table.column(place)
    if blank := [str(line) for cell, line in zip(cells, table.lines, strict=True) if is_unknown(cell)]:
        raise UserError(
            f"{table.path}: column {column} says nothing in lines {name_values(blank)}; complete or remove these rows"
        )
    if positive:
        wanted = {name.casefold() for name in positive}
        values = {cell.casefold() for cell in cells}
        if lacking := [name for name in positive if name.casefold() not in values]:
            there = name_values(sorted(set(cells)))
            raise UserError(f"--positive {lacking[0]}: column {column} of {table.path} has no such value, but {there}")
        return [int(cell.casefold() in wanted) for cell in cells]
    read = [_plain_label(cell) for cell in cells]
    if strange := list(dict.fromkeys(cell for cell, label in zip(cells, read, strict=True) if label is None)):
        raise UserError(
            f"{table.path}: column {column} holds {name_values(list(map(repr, strange)))}; say with --positive which "
            "of its values are positive; all others are then negative"
        )
    return [label for label in read if label is not None]


def _plain_label(cell: str) -> int | None:
    """Return what 0, 1, yes, no and RSNA's classes mean; None for other texts."""
    target = read_target(cell)
    if target in ("0", "1"):
        return int(target)
    return LABEL_OF_CLASS.get(read_class(cell))


def _meaning(column: str, cells: Sequence[str], positive: Sequence[str]) -> PositiveMeaning:
    values = sorted(set(cells))
    if positive:
        wanted = {name.casefold() for name in positive}
        names = [value for value in values if value.casefold() in wanted]
    else:
        names = [value for value in values if _plain_label(value) == 1]
    rsna = [read_class(name) for name in names] == [POSITIVE_CLASS]
    by = "as in RSNA's classes" if rsna else "as whoever made the table says"
    return {
        "names": names, "negative": [], "uncertain": "",  # other values may be free text about people
        "labelled_by": "unknown: whoever made the table",
        "sentence": f"{column} {' or '.join(names)}, {by}",
    }  # fmt: skip


# --- rows and files --------------------------------------------------------------------------------
def _one_row_each(
    table: Table, names: Sequence[str], labels: Sequence[int], patients: Sequence[str] | None
) -> list[int]:
    """Return the first row of each image; raises ``UserError`` if its other rows disagree."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        line = f"{table.path}: line {table.lines[row]}"
        if not name:
            raise UserError(f"{line} names no image; complete or remove it")
        other = first.setdefault(name, row)
        if labels[other] != labels[row]:
            raise UserError(f"{line}: image {name} has another label than in line {table.lines[other]}; correct one")
        if patients and patients[other] != patients[row]:
            raise UserError(f"{line}: image {name} has another patient than in line {table.lines[other]}; correct one")
    return list(first.values())


def _match_files(
    table: Table, names: Sequence[str], rows: Sequence[int], source: Path, files: Sequence[Path]
) -> dict[int, Path]:
    """Return row -> file: by its path within ``source``, else by its name, which must then be the only one."""
    by_path = {file.relative_to(source).as_posix().casefold(): file for file in files}
    by_stem = {without_ending(path): file for path, file in by_path.items()}
    by_name = name_files(files)
    found: dict[int, Path] = {}
    owner: dict[Path, int] = {}
    for row in rows:
        path = names[row].replace("\\", "/").removeprefix("./").casefold()
        file = by_path.get(path) or by_stem.get(path)
        if file is None:
            # Paths of another machine: the longest end that one file has.
            parts = path.split("/")
            ends = [file for start in range(1, len(parts)) if (file := by_path.get("/".join(parts[start:])))]
            last = by_name.get(parts[-1]) or by_name.get(without_ending(parts[-1]), [])
            if not ends and len(last) > 1:
                raise UserError(
                    f"{table.path}: line {table.lines[row]}: image {names[row]} fits two files, "
                    f"{last[0].relative_to(source)} and {last[1].relative_to(source)}; write its path in the table"
                )
            file = ends[0] if ends else last[0] if last else None
        if file is None:
            continue
        if (other := owner.setdefault(file, row)) != row:
            raise UserError(
                f"{table.path}: lines {table.lines[other]} and {table.lines[row]} name one file, "
                f"{file.relative_to(source)}; correct one"
            )
        found[row] = file
    return found


def _make_images(
    cells: Mapping[str, list[str]], labels: Sequence[int], found: Mapping[int, Path], notes: list[str]
) -> list[SourceImage]:
    """Make the images of the rows that have a file; adds ``notes`` on how people are spelled."""
    blank = [""] * len(labels)
    ages, sexes, views = (
        read_ages(cells.get("age", blank)), read_sexes(cells.get("sex", blank)), read_views(cells.get("view", blank))
    )  # fmt: skip
    notes += [*ages.notes, *sexes.notes, *views.notes]
    patients = ["" if is_unknown(cell) else cell for cell in cells.get("patient", blank)]
    return [
        SourceImage(
            file, file.stem, labels[row], patient=patients[row], age=ages.values[row], sex=sexes.values[row],
            view=views.values[row],
        )
        for row, file in found.items()
    ]  # fmt: skip
