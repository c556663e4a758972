"""Metadata tables in the dataset's own words: names of columns, spellings of cells, one row per box.

In the metadata tables ``patientId`` names an image, not a person, and an image with two boxes has two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dataset.image_ids import name_some, why_no_id
from dataset.labels import read_class, read_target
from dataset.people import Understood, is_unknown, read_ages, read_number, read_sexes, read_views
from dataset.tables import Table, agreed_cells, find_columns, read_table
from utils import UserError

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMN = "patientId"
# Squeezed names of columns that name images, the first that is there is taken; and of those that name people.
IMAGE_NAMES = ("imageid", "imageindex", "imagename", "imagefilename", "imagefile", "image", "filename", "file",
               "imgid", "img", "dicomid", "sopinstanceuid")  # fmt: skip
PERSON_OR_IMAGE = "patientid"  # RSNA's patientId names an image, DICOM's PatientID and NIH's "Patient ID" a person
PERSON_NAMES = ("patient", "patientnumber", "patientkey", "subjectid", "subject", "personid", "person",
                "participantid", "participant")  # fmt: skip
# Our names of columns -> squeezed names: ours, DICOM's, NIH's.
MEANINGS = {
    "x": ("x",), "y": ("y",), "width": ("width",), "height": ("height",), "Target": ("target",),
    "class": ("class",), "PredictionString": ("predictionstring",),
    "age": ("age", "patientage", "ageyears", "ageinyears", "patientageyears"),
    "sex": ("sex", "patientsex", "gender", "patientgender"),
    "position": ("position", "viewposition", "view", "projection"),
}  # fmt: skip
KNOWN_NAMES = frozenset(
    (PERSON_OR_IMAGE, *IMAGE_NAMES, *PERSON_NAMES, *(name for names in MEANINGS.values() for name in names))
)
PEOPLE = ("position", "sex", "age")
PERSON = "person"

Value = TypeVar("Value", str, float)


@dataclass(frozen=True)
class Metadata:
    """A metadata table as it was understood.

    ``rows``, one per box: patientId, and what is there of x, y, width, height, Target ("0", "1", or a text that
    is neither), class, PredictionString, age (years, NaN if unknown), sex (M, F), position (AP, PA, LATERAL),
    person; "" stands for unknown. ``person_column``: the name of the last one in the file.
    """

    rows: pd.DataFrame
    notes: list[str]
    person_column: str = ""


def read_metadata(path: Path, patient_column: str | None = None, column_needed: bool = True) -> Metadata:
    """Read a metadata CSV, one row per box; ``patient_column``: the column that names the person.

    Raises ``UserError`` if it is missing, no CSV, lacks ``patientId`` or (``column_needed``) the patient column,
    has two columns of one meaning that disagree, or an id that is no file name.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(
            f"{path} is missing; `python src/download_dataset.py` fetches the dataset, `python src/import_dataset.py` "
            "imports X-rays from another layout"
        )
    table = read_table(path, KNOWN_NAMES)
    ids, persons = _find_ids(table, patient_column, column_needed)
    notes = [*table.notes, *_name_notes(table, ids)]
    columns: dict[str, Sequence[str] | Sequence[float]] = {ID_COLUMN: _read_ids(table, ids)}
    found = find_columns(table, MEANINGS)
    for name, places in found.items():
        if name in PEOPLE:
            columns[name] = _read_people(table, name, places, notes)
        else:
            read = READERS.get(name, _read_box)
            columns[name] = agreed_cells(table, places, [list(map(read, table.column(place))) for place in places])
    if persons:
        remedy = "name the right one with --patient-column"
        columns[PERSON] = agreed_cells(table, persons, [_without_zero(table.column(p)) for p in persons], remedy)
        notes.append(f"column {table.names[persons[0]]} says whose images are whose")
    used = {place for places in (ids, persons, *found.values()) for place in places}
    unused = [name for place, name in enumerate(table.names) if name and place not in used and name != "modality"]
    if unused:
        notes.append(f"columns that are not read: {', '.join(unused)}")
    series = {name: pd.Series(values, dtype=None if values else str) for name, values in columns.items()}
    person_column = table.names[persons[0]] if persons else ""
    return Metadata(pd.DataFrame(series), [f"{path.name}: {note}" for note in notes], person_column)


# --- ids and people --------------------------------------------------------------------------------
def _find_ids(table: Table, patient_column: str | None, column_needed: bool) -> tuple[list[int], list[int]]:
    """Return the places of the columns that name the image, and of those that name the person."""
    squeezed = table.squeezed
    given = _find_given(table, patient_column, column_needed) if patient_column else []
    exact = [i for i, name in enumerate(table.names) if name == ID_COLUMN and i not in given]
    images = [[i for i, name in enumerate(squeezed) if name == image_name and i not in given]
              for image_name in IMAGE_NAMES]  # fmt: skip
    either = [i for i, name in enumerate(squeezed) if name == PERSON_OR_IMAGE and i not in given]
    ids = exact or next((places for places in images if places), either)
    if not ids:
        raise UserError(f"{table.path} has no column {ID_COLUMN}; its columns are {table.listed_names}")
    if patient_column:
        return ids, given
    others = [i for i in either if i not in ids]
    return ids, others + [i for i, name in enumerate(squeezed) if name in PERSON_NAMES]


def _find_given(table: Table, patient_column: str, needed: bool) -> list[int]:
    found = table.places_of(patient_column)
    if not found and needed:
        raise UserError(
            f"--patient-column {patient_column}: {table.path} has no such column; its columns are {table.listed_names}"
        )
    return found


def _read_ids(table: Table, places: Sequence[int]) -> list[str]:
    remedy = f"call the one that names the image files {ID_COLUMN}"
    ids = agreed_cells(table, places, [table.column(place) for place in places], remedy)
    for image_id, line in zip(ids, table.lines, strict=True):
        if why := why_no_id(image_id):
            name = table.names[places[0]]
            raise UserError(
                f"{table.path.name}: {name} {image_id!r} is not a plain file name: {why} (line {line}); correct it"
            )
    return ids


def _read_known(cell: str) -> str:
    return "" if is_unknown(cell) else cell


def _read_box(cell: str) -> str:
    """Write a coordinate with a point: "1,5" -> "1.5"."""
    return _read_known(cell if read_number(cell) is None else cell.replace(",", "."))


READERS = {"Target": read_target, "class": read_class, "PredictionString": _read_known}


def _without_zero(cells: Sequence[str]) -> list[str]:
    """Undo what pandas makes of whole numbers in a column with blanks: "12.0" -> "12"."""
    return [cell.removesuffix(".0") if cell.removesuffix(".0").isdecimal() else cell for cell in cells]


# --- view, sex and age -----------------------------------------------------------------------------
def _read_people(table: Table, name: str, places: Sequence[int], notes: list[str]) -> Sequence[str] | Sequence[float]:
    """Return what one or more columns say about view, sex or age; adds ``notes``."""
    if name == "age":
        return _known_of(table, places, read_ages, float("nan"), notes)
    return _known_of(table, places, read_views if name == "position" else read_sexes, "", notes)


def _known_of(
    table: Table, places: Sequence[int], read: Callable[[Sequence[str]], Understood[Value]], unknown: Value,
    notes: list[str],
) -> list[Value]:  # fmt: skip
    """Merge columns of one meaning; where two known values disagree, the row's is unknown."""
    columns = [read(table.column(place)) for place in places]
    notes += dict.fromkeys(note for column in columns for note in column.notes)
    merged, differ = [], 0
    for values in zip(*(column.values for column in columns), strict=True):
        known = {value for value in values if value not in ("", unknown) and value == value}
        differ += len(known) > 1
        merged.append(known.pop() if len(known) == 1 else unknown)
    if differ:
        both = " and ".join(table.describe_column(place) for place in places)
        notes.append(f"columns {both} disagree in {differ:,} rows, whose values count as unknown")
    return merged


def _name_notes(table: Table, ids: Sequence[int]) -> list[str]:
    """Say which columns have other names than the dataset's."""
    renamed = [(table.names[place], name) for name, places in find_columns(table, MEANINGS).items() for place in places]
    renamed += [(table.names[place], "image id") for place in ids if table.names[place] != ID_COLUMN]
    unusual = [f"{written} ({name})" for written, name in renamed if written != name]
    return [f"columns understood: {', '.join(unusual)}"] if unusual else []


def settle_people(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return view, sex and age per image (index patientId): the known value, unknown where rows disagree."""
    import pandas as pd

    empty = pd.Series("", index=rows.index, dtype=rows[ID_COLUMN].dtype)
    table = pd.DataFrame({ID_COLUMN: rows[ID_COLUMN]})
    for column in PEOPLE:
        values = rows[column] if column in rows else empty if column != "age" else pd.Series(float("nan"), rows.index)
        table[column] = values.where(values != "")
    grouped = table.groupby(ID_COLUMN, sort=True)
    people = grouped.first()
    for column in PEOPLE:
        counts = grouped[column].nunique()
        if len(mixed := list(counts.index[counts > 1])):
            what = "view" if column == "position" else column
            notes.append(f"rows of different {what}: {name_some(mixed, 3)}; it counts as unknown")
            people.loc[mixed, column] = None
    return people.fillna({"position": "", "sex": ""})
