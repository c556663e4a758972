"""Layout ``rsna-kaggle``: the original files of RSNA's Pneumonia Detection Challenge on Kaggle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from common import paths
from dataset.file_formats import PositiveMeaning
from dataset.known_datasets import RSNA
from dataset.labels import LABEL_OF_CLASS, POSITIVE_CLASS, read_class, read_target
from dataset.tables import Table, read_table
from importers.columns import folder_of, read_columns
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
)
from utils import UserError

LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
TRAIN_IMAGES, TEST_IMAGES = "stage_2_train_images", "stage_2_test_images"
LABEL_COLUMNS = {name: name for name in ("patientId", "x", "y", "width", "height", "Target")}
CLASS_COLUMNS = {"patientId": "patientId", "class": "class"}
Box = tuple[str, ...]


def read_rsna_kaggle(source: Path, skip_bad: bool = False) -> Source:
    """Read RSNA's tables and DICOM files; view, age and sex come from the headers.

    Both tables have a row for each box. Raises ``UserError`` if their rows disagree, or images are missing.
    """
    require_folder(source)
    root = folder_of(source, LABELS)
    labels, boxes = _read_labels(read_table(root / LABELS, {"patientid", "target"}))
    tables, notes = {"labels": root / LABELS}, list[str]()
    class_of: dict[str, str] = {}
    if (root / CLASSES).is_file():
        tables["classes"] = root / CLASSES
        class_of = _read_classes(read_table(root / CLASSES, {"patientid", "class"}))
        _refuse_differing(labels, class_of)
    else:
        notes.append(f"{CLASSES} is not there: the negatives are not told apart")
    files = [file for file in list_files(root / TRAIN_IMAGES) if is_image(file)]
    by_name = name_files(files)
    left_out: dict[str, int] = {}
    images, missing = [], []
    for name, label in labels.items():
        if (file := file_of_image(by_name, name)) is None:
            missing.append(name)
            continue
        images.append(
            SourceImage(file, name, label, label_class=class_of.get(name, ""), boxes=tuple(boxes.get(name, ())))
        )
    refuse_missing(missing, LABELS, root / TRAIN_IMAGES, skip_bad, left_out)
    if unlisted := len(files) - len(images):
        left_out[f"not in {LABELS}"] = unlisted
    tests = [file for file in list_files(root / TEST_IMAGES) if is_image(file)]
    images += [SourceImage(file, file.stem, None, official=True) for file in tests]
    mapping = root / paths.PATIENT_MAP
    meaning: PositiveMeaning = {
        "names": [POSITIVE_CLASS], "negative": [name for name, label in LABEL_OF_CLASS.items() if not label],
        "uncertain": "", "labelled_by": "radiologists of RSNA and STR",
        "sentence": f"{POSITIVE_CLASS} by RSNA's radiologists; negative are normal images and those of other findings",
    }  # fmt: skip
    return Source(
        root, images, meaning, "", RSNA, public=True, tables=tables,
        patient_map=mapping if mapping.is_file() else None, left_out=left_out, notes=notes,
    )  # fmt: skip


def _read_labels(table: Table) -> tuple[dict[str, int], dict[str, list[Box]]]:
    """Return (image -> label, image -> its boxes)."""
    cells = read_columns(table, LABEL_COLUMNS)
    labels: dict[str, int] = {}
    boxes: dict[str, list[Box]] = defaultdict(list)
    for row, (name, target) in enumerate(zip(cells["patientId"], map(read_target, cells["Target"]), strict=True)):
        box = tuple(_whole(cells[key][row]) for key in ("x", "y", "width", "height"))
        line = f"{table.path}: line {table.lines[row]}: image {name}"
        if not name:
            raise UserError(f"{table.path}: line {table.lines[row]} names no image; get the table again")
        if target not in ("0", "1"):
            raise UserError(f"{line} has Target {target!r}; allowed are 0 and 1")
        if labels.setdefault(name, int(target)) != int(target):
            raise UserError(f"{line} has Target {target}, but {labels[name]} in an earlier line; get the table again")
        if all(box) != (target == "1") or any(box) != all(box):
            held = f"the box {', '.join(box)}" if any(box) else "no box"
            raise UserError(f"{line} has Target {target} and {held}; images of Target 1 have whole boxes, others none")
        if all(box):
            boxes[name].append(box)
    return labels, boxes


def _whole(cell: str) -> str:
    """Write a whole number without the ".0" that Kaggle's table has."""
    return cell.removesuffix(".0")


def _read_classes(table: Table) -> dict[str, str]:
    """Return image -> class; rows are repeated for each box."""
    cells = read_columns(table, CLASS_COLUMNS)
    class_of: dict[str, str] = {}
    for row, (name, kind) in enumerate(zip(cells["patientId"], map(read_class, cells["class"]), strict=True)):
        line = f"{table.path}: line {table.lines[row]}: image {name}"
        if kind not in LABEL_OF_CLASS:
            raise UserError(f"{line} has class {kind!r}; allowed are {', '.join(LABEL_OF_CLASS)}")
        if class_of.setdefault(name, kind) != kind:
            raise UserError(f"{line} has class {kind!r}, but {class_of[name]!r} before; get the table again")
    return class_of


def _refuse_differing(labels: Mapping[str, int], class_of: Mapping[str, str]) -> None:
    """Raise ``UserError`` if the two tables name other images, or another label for one."""
    for one, other, table in ((labels, class_of, CLASSES), (class_of, labels, LABELS)):
        if lacking := sorted(set(one) - set(other)):
            raise UserError(f"{table} lacks {len(lacking):,} images ({name_values(lacking)}); get both tables again")
    if wrong := [name for name, label in labels.items() if LABEL_OF_CLASS[class_of[name]] != label]:
        raise UserError(
            f"image {wrong[0]} has Target {labels[wrong[0]]} in {LABELS}, but class {class_of[wrong[0]]!r} in "
            f"{CLASSES}; get both tables again"
        )
