"""Whose images are whose: RSNA's mapping to NIH patients, or a column of the metadata."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common import paths
from dataset.image_ids import name_some, without_ending
from dataset.people import is_unknown
from utils import UserError, load_json

GROUPED_BY_PATIENT = "nih_patient"
GROUPED_BY_COLUMN = "patient_column"
GROUPED_BY_IMAGE = "image_id"
ANONYMOUS = re.compile(r"anon(ym\w*)?|de-?identified|removed|redacted", re.IGNORECASE)
MANY_IMAGES = 20  # of one patient, from which on their share is looked at
LARGE_SHARE, LARGEST_SHARE = 0.1, 0.5  # of all images: flagged, refused


@dataclass(frozen=True)
class Grouping:
    """Whose images are whose.

    ``patients``: group of each image. ``unmapped``: images that the mapping lacks, or the column where none is mapped.
    """

    patients: list[str]
    grouped_by: str
    unmapped: int
    notes: list[str] = field(default_factory=list)
    red_flags: list[str] = field(default_factory=list)


def group_images(
    image_ids: Sequence[str], person_of: Mapping[str, str], patient_of: Mapping[str, str], sources: tuple[str, str]
) -> Grouping:
    """Tell the images of one person: by the mapping ``patient_of``, and by ``person_of``, a metadata column.

    Both: image id -> name. ``sources``: what the mapping and the column are called in messages. An image that
    neither knows is a group of its own. Raises ``UserError`` if the two disagree about whose images are the
    same, or if most images are of one patient.
    """
    mapped = {name: patient for name in image_ids if (patient := _look_up(patient_of, name))}
    persons = {name: person for name in image_ids if (person := person_of.get(name)) and not is_no_person(person)}
    notes = []
    if persons and all(persons.get(name) == name for name in image_ids):
        notes.append(f"{sources[1]} repeats the image ids, so it tells no patients")
        persons = {}
    patient_of_person = _same_people(mapped, persons, sources)
    known = {name: patient_of_person.get(person, person) for name, person in persons.items()} | mapped
    people = set(known.values())
    own = (name if name not in people else f"image {name}" for name in image_ids)
    patients = [known.get(name, alone) for name, alone in zip(image_ids, own, strict=True)]
    grouped_by = GROUPED_BY_PATIENT if mapped else GROUPED_BY_COLUMN if persons else GROUPED_BY_IMAGE
    unmapped = len(image_ids) - len(mapped or persons)
    flags = _large_groups(known, len(image_ids), sources[0] if mapped else sources[1])
    return Grouping(patients, grouped_by, unmapped, notes, flags)


def is_no_person(text: str) -> bool:
    """Tell whether a patient id says that nobody knows the patient: blank, NA, unknown, ANONYMOUS."""
    return is_unknown(text) or bool(ANONYMOUS.fullmatch(text.strip()))


def _look_up(patient_of: Mapping[str, str], name: str) -> str | None:
    return patient_of.get(name) or patient_of.get(without_ending(name))


def _same_people(mapped: Mapping[str, str], persons: Mapping[str, str], sources: tuple[str, str]) -> dict[str, str]:
    """Return the mapping's patient of each person of the column; raises ``UserError`` if they are not the same."""
    patient_of_person: dict[str, tuple[str, str]] = {}
    person_of_patient: dict[str, tuple[str, str]] = {}
    for name in sorted(mapped.keys() & persons.keys()):
        patient, person = mapped[name], persons[name]
        for seen, key, value in ((patient_of_person, person, patient), (person_of_patient, patient, person)):
            other, earlier = seen.setdefault(key, (name, value))
            if earlier != value:
                one, two = sources if seen is person_of_patient else sources[::-1]
                raise UserError(
                    f"images {other} and {name} show one patient by {one}, two by {two}; correct one of them, "
                    "or rename the column so that it is not read"
                )
    return {person: patient for person, (_, patient) in patient_of_person.items()}


def _large_groups(known: Mapping[str, str], n_images: int, source: str) -> list[str]:
    """Flag a patient with very many images; raises ``UserError`` if most images are of one."""
    if not known:
        return []
    patient, count = Counter(known.values()).most_common(1)[0]
    text = f"patient {patient!r} of {source} has {count:,} of {n_images:,} images"
    if count < MANY_IMAGES or count <= LARGE_SHARE * n_images:
        return []
    if count > LARGEST_SHARE * n_images:
        raise UserError(f"{text}, so that name tells nobody apart; leave it blank where the patient is unknown")
    return [f"{text}, which all fall on one side of the split: is that one person?"]


# --- the mapping -----------------------------------------------------------------------------------
def find_patient_map(data_dir: Path, patient_map: str | Path | None) -> Path | None:
    """Find the mapping to use: the one given, else the one in the data folder, else None."""
    if patient_map is not None:
        return Path(patient_map)
    inside = data_dir / paths.PATIENT_MAP
    return inside if inside.is_file() else None


def read_patient_map(path: Path) -> dict[str, str]:
    """Read image id -> NIH patient from the official mapping (``file_formats.MappingEntry``)."""
    entries = load_json(path, "`python src/download_dataset.py`")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise UserError(
            f"{path} is not the official mapping, a list of objects with subset_img_id and img_id; delete "
            "it, and `python src/download_dataset.py` fetches it"
        )
    if not entries:
        raise UserError(f"{path} is empty (the official mapping names 26,684 images); delete or replace it")
    patient_of: dict[str, str] = {}
    for entry in entries:
        image_id, img_id = (str(entry[key]).strip() for key in ("subset_img_id", "img_id"))
        patient = re.split(r"[\\/]", img_id)[-1].split("_", 1)[0]
        if patient_of.setdefault(image_id, patient) != patient:
            raise UserError(f"{path} maps image {image_id} to two patients; correct or replace it")
    return patient_of


def _is_entry(entry: object) -> bool:
    values = [entry.get(key) for key in ("subset_img_id", "img_id")] if isinstance(entry, dict) else [None]
    return all(type(value) in (str, int) and str(value).strip() for value in values)


def require_mapped(grouping: Grouping, image_ids: Sequence[str], map_file: Path | None, metadata: Path) -> None:
    """Raise ``UserError`` if the mapping is of other images."""
    if map_file and grouping.grouped_by != GROUPED_BY_PATIENT:
        raise UserError(
            f"{map_file} names none of the images of {metadata} ({name_some(list(image_ids), 2)}), so it is another "
            "dataset's mapping; give the right one with --patient-map"
        )


# --- words -----------------------------------------------------------------------------------------
def grouping_sentence(grouped_by: str) -> str:
    """Say in a sentence what ``grouped_by`` means; it goes into every report."""
    if grouped_by == GROUPED_BY_PATIENT:
        return "images are grouped by NIH patient (official mapping)"
    if grouped_by == GROUPED_BY_COLUMN:
        return "images are grouped by patient (a column of the metadata)"
    return (
        f"images are grouped by image id: {paths.PATIENT_MAP} is not there, so images of one person may lie "
        "on both sides of a split"
    )
