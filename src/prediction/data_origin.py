"""What a folder of images says about its origin: known data sets, whose the patient ids are, what positive means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from common import paths
from dataset.image_ids import without_ending
from dataset.known_datasets import NIH, OURS, families_of
from dataset.labels import POSITIVE_CLASS
from dataset.patients import GROUPED_BY_COLUMN, GROUPED_BY_IMAGE, GROUPED_BY_PATIENT
from dataset.provenance import read_provenance
from synthetic.leak_checks import nih_patient
from utils import UserError, load_json

PHANTOMS = "chest phantoms"
RSNA_CLASS = "No Lung Opacity / Not Normal"  # a class that only RSNA's table has
RSNA_POSITIVE = "a lung opacity that may be pneumonia, as marked for RSNA's challenge"
DRAWN_POSITIVE = "a drawn lung opacity"
RSNA_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
MOST = 0.5  # of the ids look like those of a data set


@dataclass(frozen=True)
class DataOrigin:
    """What is known of a data set.

    ``families``: rows of ``dataset.known_datasets`` whose images it may hold, and "chest phantoms".
    ``patients_of``: whose numbers its patient ids are; None: nobody knows, so that equal ids of two sets may be
    chance. ``grouped_by``: of ``Dataset``. ``positive``: what a positive label means, None if nothing says so.
    ``series``: distinguishes people of equal numbers.
    """

    families: frozenset[str]
    patients_of: str | None
    grouped_by: str
    positive: str | None
    series: str = ""

    def person(self, image_id: str, patient: str) -> str | None:
        """Return a name of the person that holds across data sets; None if nobody knows who that is."""
        if self.patients_of == NIH and (number := nih_patient(image_id)):
            return f"{NIH} {int(number)}"
        if self.grouped_by == GROUPED_BY_IMAGE or patient in (image_id, f"image {image_id}"):
            return None
        if self.patients_of == NIH and patient.isdecimal():
            return f"{NIH} {int(patient)}"  # 00000013 in file names, 13 in the table
        return f"{self.patients_of or 'unknown'} {self.series}{patient}"

    def knows_people_of(self, other: DataOrigin) -> bool:
        """Tell whether equal names in both mean one person, and different names different people."""
        return self.patients_of is not None and self.patients_of == other.patients_of


def find_origin(folder: Path | None, images: pd.DataFrame, grouped_by: str, name: str = "") -> DataOrigin:
    """Find out where ``images`` (image_id, class if known) of ``folder`` come from.

    ``name``: what the user calls the data. ``folder`` None: the images are not here any more.
    """
    seed = _recorded(folder, paths.phantom_marker, "seed")
    if seed is not None:
        return DataOrigin(frozenset({PHANTOMS}), PHANTOMS, grouped_by, DRAWN_POSITIVE, f"seed {seed} number ")
    families = set(families_of(name) | families_of(_recorded(folder, paths.download_marker, "dataset") or ""))
    imported = read_provenance(folder) if folder is not None else None
    if imported is not None:
        families |= families_of(imported["data_set"])
    elif folder is not None:
        families |= families_of(folder.resolve().name)
    ids = [without_ending(str(image_id)) for image_id in images["image_id"]]
    if _share(bool(nih_patient(image_id)) for image_id in ids) > MOST:
        families |= families_of(NIH)
    like_rsna = "class" in images and bool((images["class"] == RSNA_CLASS).any())
    if like_rsna and _share(bool(RSNA_ID.fullmatch(image_id)) for image_id in ids) > MOST:
        families |= families_of("RSNA")
    if grouped_by == GROUPED_BY_PATIENT:  # RSNA's own mapping
        families |= families_of("RSNA")
    positive, patients_of = RSNA_POSITIVE if like_rsna else None, _patients_of(families, grouped_by, ids)
    if imported is not None:
        meaning, patients = imported["positive"], imported["patients"]
        positive = RSNA_POSITIVE if meaning["names"] == [POSITIVE_CLASS] else meaning["sentence"]
        if patients["pseudonyms"]:  # one person has one pseudonym under a key, unless that was thrown away
            patients_of = f"key {patients['key']}" if patients["key"] else None
    return DataOrigin(frozenset(families), patients_of, grouped_by, positive)


def _patients_of(families: set[str], grouped_by: str, ids: list[str]) -> str | None:
    """Say whose numbers the patients are; the ids of one public data set are its own."""
    if grouped_by == GROUPED_BY_PATIENT or _share(bool(nih_patient(image_id)) for image_id in ids) > MOST:
        return NIH
    if grouped_by == GROUPED_BY_COLUMN and families:
        return NIH if families <= OURS else ", ".join(sorted(families))
    return None


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / len(values) if values else 0.0


def _recorded(folder: Path | None, marker: Callable[[Path], Path], key: str) -> Any:
    """Return what a marker in the folder says; None if it is not there or damaged."""
    if folder is None:
        return None
    try:
        content = load_json(marker(folder))
    except (UserError, OSError):
        return None
    return content.get(key) if isinstance(content, dict) else None
