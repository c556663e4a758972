"""Which images of a dataset does somebody's list of training images name? Spelling must not hide any."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.records import Dataset, OfficialTest

NIH_NAME = re.compile(r"(\d{8})_\d{3}")  # <patient>_<number>, of which RSNA's images are a part
FILE_ENDINGS = re.compile(r"(\.(png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|npy))+$", re.IGNORECASE)


@dataclass(frozen=True)
class Seen:
    """What a list says: ``ids``, each once, as the dataset spells them where it has them; the ``patients``
    that they tell; ``nih``, those ids that are NIH file names and tell their patient only; ``unknown``, those
    that tell nothing here. All sorted.
    """

    ids: list[str]
    patients: list[str]
    nih: list[str]
    unknown: list[str]


def known_patients(dataset: Dataset, official: OfficialTest | None) -> dict[str, str]:
    """image id -> patient of all images whose patient is known here, those of the official test included."""
    sets = [] if official is None else [official.images]
    return {
        image_id: patient
        for images in (*sets, dataset.images)
        for image_id, patient in zip(images["image_id"], images["patient"], strict=True)
    }


def match_ids(listed: Iterable[str], patient_of: Mapping[str, str]) -> Seen:
    """Find the images of ``patient_of`` (image id -> patient) that are ``listed``.

    Folders, endings of image files and upper or lower case make no difference; any part of a path may be the
    id. NIH file names tell a patient only where patients are NIH's, not groups of one image.
    """
    spelled: dict[str, list[str]] = {}
    for image_id in patient_of:
        spelled.setdefault(image_id.casefold(), []).append(image_id)
    by_patient = any(patient != image_id for image_id, patient in patient_of.items())
    found: set[str] = set()
    nih: dict[str, str] = {}
    unknown: set[str] = set()
    for name in {str(name) for name in listed}:
        parts = _parts(name)
        own = [image_id for part in parts for image_id in spelled.get(part.casefold(), [])]
        patient = nih_patient(name) if by_patient else None
        found.update(own)
        if not own and patient:
            nih[name] = patient
        elif not own:
            unknown.add(name)
    patients = {patient_of[image_id] for image_id in found} | set(nih.values())
    ids = found | set(nih) | unknown
    return Seen(*(sorted(names) for names in (ids, patients, nih, unknown)))


def nih_patient(name: str) -> str | None:
    """The patient that a file name of NIH ChestX-ray14 tells, None for other names."""
    matches = (NIH_NAME.fullmatch(part) for part in _parts(name))
    return next((match[1] for match in matches if match), None)


def without_ending(name: str) -> str:
    """ "a/b.PNG" -> "a/b"; dots within an id stay."""
    return FILE_ENDINGS.sub("", name.strip())


def _parts(name: str) -> list[str]:
    return [without_ending(part) for part in re.split(r"[\\/]", name) if part.strip()]


def unknown_ids_flag(seen: Seen) -> str | None:
    """A red flag if a list names images that are unknown here."""
    if not seen.unknown:
        return None
    return (
        f"{len(seen.unknown):,} of {len(seen.ids):,} image ids listed as the generator's training images are "
        "unknown here and could not be compared with the test images"
    )
