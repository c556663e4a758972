"""Tables of a data folder from the images of a source, and the proof that the product accepts them."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import paths
from dataset.image_ids import why_no_id
from dataset.patients import read_patient_map
from importers.sources import SourceImage, name_values
from utils import UserError, load_json, save_csv, save_json

BOX_COLUMNS = ("x", "y", "width", "height")
PATIENT_COLUMN = "Patient ID"  # beside patientId, which names the image
HASH_DIGITS = 20  # of an image id


# --- ids -------------------------------------------------------------------------------------------
def kept_ids(images: Sequence[SourceImage], root: Path) -> list[str]:
    """Return the ids of ``images`` by their names; where two have one name, their folders become part of it.

    Raises ``UserError`` for a name that cannot be an id.
    """
    names = [image.name for image in images]
    twice = {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}
    ids = [
        name if name.casefold() not in twice else "_".join(image.file.relative_to(root).with_suffix("").parts)
        for name, image in zip(names, images, strict=True)
    ]
    for image_id, image in zip(ids, images, strict=True):
        if why := why_no_id(image_id):
            raise UserError(f"{image.file}: its name cannot be an image id: {why}; rename it, or omit --keep-names")
    for image_id, count in Counter(ids).items():
        if count > 1:
            raise UserError(f"{count} images would be called {image_id}; rename all but one")
    return ids


def hashed_id(image: SourceImage, root: Path, content: bytes) -> str:
    """Return an id that says nothing of the file's name: it cannot be guessed without the file's content."""
    place = image.file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(place + b"\0" + content).hexdigest()
    return f"x{digest[:HASH_DIGITS]}"


# --- tables ----------------------------------------------------------------------------------------
def write_tables(
    folder: Path, images: Sequence[SourceImage], ids: Sequence[str], person_of: Mapping[str, str] | None
) -> None:
    """Write the mapping, the test table and, last, the training table of ``images`` called ``ids``.

    ``person_of``: image id -> NIH file name of RSNA's mapping; then no column names patients.
    """
    if person_of:
        entries = [{"subset_img_id": name, "img_id": person_of[name]} for name in ids if name in person_of]
        save_json(folder / paths.PATIENT_MAP, entries)
    named = [(name, image) for name, image in zip(ids, images, strict=True)]
    official = [pair for pair in named if pair[1].official]
    if official:
        _write_table(folder / paths.TEST_METADATA, official, not person_of)
    _write_table(folder / paths.TRAIN_METADATA, [pair for pair in named if not pair[1].official], not person_of)


def _write_table(file: Path, named: Sequence[tuple[str, SourceImage]], with_patients: bool) -> None:
    """Write a row for each box, and one for each image without boxes, sorted by id; no column without a value."""
    import pandas as pd

    ordered = sorted(named, key=lambda pair: pair[0])
    table = pd.DataFrame([row for name, image in ordered for row in _rows(name, image)], dtype=str)
    if not with_patients:
        table[PATIENT_COLUMN] = ""
    save_csv(file, table.loc[:, (table != "").any()])


def _rows(name: str, image: SourceImage) -> list[dict[str, str]]:
    age = "" if math.isnan(image.age) else f"{image.age:g}"
    facts = {
        "Target": "" if image.label is None else str(image.label), "class": image.label_class, "age": age,
        "sex": image.sex, "modality": image.modality, "position": image.view, PATIENT_COLUMN: image.patient,
    }  # fmt: skip
    boxes = image.boxes or (("",) * 4,)
    return [{"patientId": name, **dict(zip(BOX_COLUMNS, box, strict=True)), **facts} for box in boxes]


# --- proof -----------------------------------------------------------------------------------------
def prove_tables(images: Sequence[SourceImage], person_of: Mapping[str, str] | None, ids: Sequence[str] | None) -> None:
    """Read the tables of ``images`` as every script will, before an image is written; ``UserError`` if that fails.

    ``ids`` None: they depend on the contents of the files, and numbers stand for them.
    """
    from dataset.records import load_dataset, load_official_test

    labelled = {image.label for image in images if not image.official}
    if not labelled:
        raise UserError("no training image is left to import; give a source that holds some, of both classes")
    if len(labelled) < 2:
        what = "positive" if 1 in labelled else "negative"
        raise UserError(f"all labels of the training images are {what}; training needs both, so add the other class")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tables(folder, images, ids or [f"image {number}" for number in range(len(images))], person_of)
        try:
            load_dataset(folder)
            load_official_test(folder)
        except UserError as error:
            raise UserError(f"the data set would not be accepted: {str(error).replace(f'{folder}/', '')}") from None


def read_map(file: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return image id -> a file name of its NIH patient for those of ``ids`` that the mapping ``file`` knows."""
    read_patient_map(file)  # which says what is wrong with it
    name_of = {str(entry["subset_img_id"]).strip(): str(entry["img_id"]).strip() for entry in load_json(file)}
    found = {name: name_of[name] for name in ids if name in name_of}
    if not found:
        raise UserError(f"{file} names none of the images ({name_values(list(ids))}); give the mapping of this set")
    return found
