"""Layout ``nih``: ChestX-ray14, with its table of findings and its folders images_001 to images_012."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset.file_formats import PositiveMeaning
from dataset.known_datasets import NIH
from dataset.people import read_ages, read_number, read_sexes, read_views
from dataset.tables import Table, read_table, squeeze
from importers.columns import PNEUMONIA, find_findings, only_file, read_columns
from importers.sources import (
    Source,
    SourceImage,
    file_of_image,
    is_image,
    list_files,
    name_files,
    name_values,
    refuse_missing,
    require_folder,
    without_laterals,
)
from utils import UserError

TABLES, TEST_LIST = "Data_Entry_2017*.csv", "test_list.txt"
COLUMNS = {
    "image": "Image Index", "findings": "Finding Labels", "patient": "Patient ID", "age": "Patient Age",
    "sex": "Patient Gender", "view": "View Position",
}  # fmt: skip
# Wang et al., CVPR 2017, and the set's own README; docs/import.md.
FINDINGS = (
    "No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip


def read_nih(source: Path, positive: Sequence[str] = (), skip_bad: bool = False) -> Source:
    """Read ``Data_Entry_2017*.csv`` and the images below ``source``; ``test_list.txt`` names the official test set.

    An image is positive if it has one of the findings ``positive``.
    """
    require_folder(source)
    table = read_table(only_file(source, TABLES), {squeeze(name) for name in COLUMNS.values()})
    cells = read_columns(table, COLUMNS)
    wanted = find_findings(positive or (PNEUMONIA,), FINDINGS)
    findings = [text.split("|") for text in cells["findings"]]
    if strange := sorted({name for each in findings for name in each} - set(FINDINGS)):
        raise UserError(
            f"{table.path}: column Finding Labels holds {name_values(list(map(repr, strange)))}, no finding of {NIH}; "
            "correct it"
        )
    files = [file for file in list_files(source) if is_image(file)]
    by_name = name_files(files)
    ages, sexes, views = read_ages(cells["age"]), read_sexes(cells["sex"]), read_views(cells["view"])
    left_out: dict[str, int] = {}
    test_names = _read_list(source / TEST_LIST)
    images, missing = [], []
    for row, name in enumerate(cells["image"]):
        if (file := file_of_image(by_name, name)) is None:
            missing.append(name)
            continue
        stem = Path(name).stem
        images.append(SourceImage(
            file, stem, int(any(finding in wanted for finding in findings[row])),
            official=name.casefold() in test_names, patient=_patient_of(table, row, stem, cells["patient"][row]),
            age=ages.values[row], sex=sexes.values[row], view=views.values[row],
        ))  # fmt: skip
    refuse_missing(missing, table.path.name, source, skip_bad, left_out)
    if unlisted := len(files) - len(images):
        left_out["not in the table"] = unlisted
    images = without_laterals(images, left_out)
    notes = [f"{TEST_LIST} names the official test set"] if test_names else []
    sentence = (
        f"one of the findings {', '.join(wanted)} by {NIH}'s text mining of reports; negative are all other images, "
        "sick ones among them"
    )
    meaning: PositiveMeaning = {
        "names": wanted, "negative": [], "uncertain": "", "labelled_by": "text mining of radiology reports",
        "sentence": sentence,
    }  # fmt: skip
    return Source(
        source, images, meaning, f"{NIH}'s patient ids", NIH, public=True, nih_names=True,
        tables={"labels": table.path}, left_out=left_out, notes=[*table.notes, *notes],
    )  # fmt: skip


def _patient_of(table: Table, row: int, name: str, written: str) -> str:
    """Return the patient as NIH's file names spell it; raises ``UserError`` if the column says another one."""
    patient = name.split("_")[0]
    if written and read_number(written) != read_number(patient):
        raise UserError(
            f"{table.path}: line {table.lines[row]}: image {name} has Patient ID {written!r}; the name says {patient}. "
            "The rows may have slipped: get the table again"
        )
    return patient


def _read_list(file: Path) -> set[str]:
    """Return the names in a text file, a line each, in small letters; none without the file."""
    return {line.strip().casefold() for line in file.read_text("utf-8-sig").splitlines()} if file.is_file() else set()
