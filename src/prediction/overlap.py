"""What an external data set shares with the data that models were trained on: images, patients, pictures, families."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from arms.file_formats import DroppedImages
from data_loader import ImageSet
from dataset.image_ids import name_some, without_ending
from dataset.near_copies import find_copies
from dataset.twins import confirm_pairs
from image_metrics.planted_copies import at_search_size
from prediction.data_origin import DataOrigin
from prediction.training_data import TrainingData
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)

SEARCH = 1  # version; results in the cache depend on it
IMAGE_ID, PATIENT, PICTURE, UNKNOWN = "image id", "patient", "picture", "unknown patient"


@dataclass(frozen=True)
class Overlap:
    """Images of an external set that training has seen (image id -> why), and those of the internal test."""

    used: Mapping[str, str]
    tested: frozenset[str]

    def dropped(self) -> DroppedImages:
        """Return the counts and the ids of the images that training has seen, for a result file."""
        counts = Counter(self.used.values())
        return {
            "by_image_id": counts[IMAGE_ID], "by_patient": counts[PATIENT], "by_picture": counts[PICTURE],
            "by_unknown_patient": counts[UNKNOWN], "image_ids": sorted(self.used),
        }  # fmt: skip

    def joined(self, other: Overlap) -> Overlap:
        """Return both together; the reason found first counts."""
        return Overlap({**other.used, **self.used}, self.tested | other.tested)


# --- ids, patients, families -------------------------------------------------------------------------
def compare_people(images: pd.DataFrame, origin: DataOrigin, training: TrainingData) -> tuple[Overlap, list[str]]:
    """Compare ids and patients of external ``images`` (image_id, patient) with the training data; add red flags."""
    used: dict[str, str] = {}
    tested: set[str] = set()
    flags: list[str] = []
    ids = {_spelled(name): bool(is_used) for name, is_used in zip(*_columns(training.images, "used"), strict=True)}
    people: dict[str, bool] = {}
    for image_id, patient, is_used in zip(*_columns(training.images, "patient", "used"), strict=True):
        if person := training.origin.person(image_id, patient):
            people[person] = people.get(person, False) or bool(is_used)
    comparable = origin.knows_people_of(training.origin)
    maybe = set()
    for image_id, patient in zip(*_columns(images, "patient"), strict=True):
        person = origin.person(image_id, patient)
        reasons = [(IMAGE_ID, ids.get(_spelled(image_id))), (PATIENT, people.get(person or ""))]
        if not comparable and person in people:
            maybe.add(patient)
            reasons.pop()
        for reason, is_used in reasons:
            if is_used:
                used.setdefault(image_id, reason)
            elif is_used is not None:
                tested.add(image_id)
    if maybe:
        flags.append(
            f"{len(maybe):,} patient ids are ids of training patients, too: nobody knows whether they are the "
            "same people"
        )
    people_seen = set(images.loc[images["image_id"].isin(used), "patient"])  # whoever is seen once, was trained on
    for image_id in images.loc[images["patient"].isin(people_seen), "image_id"]:
        used.setdefault(image_id, PATIENT)
    return Overlap(used, frozenset(tested - set(used))), flags


def compare_families(images: pd.DataFrame, origin: DataOrigin, training: TrainingData) -> tuple[Overlap, list[str]]:
    """Look whether the data may share people unseen: (images of unknown patients in such data, red flags).

    Raises ``UserError`` if that holds for all of them, whatever is left out.
    """
    for name, families in training.elsewhere.items():
        if shared := origin.families & families:
            raise UserError(
                f"the models learned from {name} before, and these images are of the same family of data sets "
                f"({_words(shared)}): nobody can tell whether their patients were seen; give images of other people"
            )
    if not (shared := origin.families & training.origin.families):
        return Overlap({}, frozenset()), []
    what = f"the models were trained on the same family of data sets ({_words(shared)})"
    if not origin.knows_people_of(training.origin) or training.unknown_people:
        few = f" ({training.unknown_people:,} training images)" if training.unknown_people else ""
        raise UserError(
            f"{what}, and the patients cannot be compared{few}, so these images may show training patients; "
            "give a --patient-map or a --patient-column of the ids that both have, import both with one --patient-key, "
            "or give images of other people"
        )
    unknown = [
        image_id for image_id, patient in zip(*_columns(images, "patient"), strict=True)
        if origin.person(image_id, patient) is None
    ]  # fmt: skip
    flag = f"{what}; no patient is in both, but this is no test on images of another source"
    return Overlap(dict.fromkeys(unknown, UNKNOWN), frozenset()), [flag]


def _columns(table: pd.DataFrame, *names: str) -> list[list]:
    return [table[name].tolist() for name in ("image_id", *names)]


def _spelled(image_id: str) -> str:
    return without_ending(str(image_id)).casefold()


def _words(families: Collection[str]) -> str:
    return ", ".join(sorted(families))


# --- pictures ----------------------------------------------------------------------------------------
def compare_pictures(external: ImageSet, training: ImageSet, cache_dir: str | Path | None, workers: int) -> Overlap:
    """Find external images that show pictures of ``training`` images (with a column ``used``: trained on).

    All images of a patient who is seen on such a picture count. It takes N * M * 16,200 multiplications.
    """
    pairs = _shared_pictures(external, training, cache_dir, workers)
    people, used = external.records["patient"].to_numpy(), training.records["used"].to_numpy(dtype=bool)
    seen = {people[row] for row, other in pairs if used[other]}
    tested = {people[row] for row, other in pairs if not used[other]} - seen
    of_people = {True: seen, False: tested}
    ids = {kind: external.records.loc[np.isin(people, list(names)), "image_id"] for kind, names in of_people.items()}
    return Overlap(dict.fromkeys(ids[True], PICTURE), frozenset(ids[False]))


def _shared_pictures(
    external: ImageSet, training: ImageSet, cache_dir: str | Path | None, workers: int
) -> list[tuple[int, int]]:
    """Return (row of ``external``, row of ``training``) of images that show one picture, perhaps from the cache."""
    file = None
    if cache_dir is not None and external.key and training.key:
        key = sha256_json([external.key, training.key, SEARCH])[:20]
        file = Path(cache_dir) / "external_copies" / f"{key}.json"
        try:
            kept = [(int(row), int(other)) for row, other in load_json(file)["pairs"]]
            if all(row < len(external.records) and other < len(training.records) for row, other in kept):
                return kept
        except (UserError, OSError, KeyError, TypeError, ValueError):
            pass  # not there, or damaged
    small = [at_search_size(images.pixels) for images in (external, training)]
    found = find_copies(small[0], small[1], "searching for training pictures")
    first = len(external.records)
    files = [*external.records["path"], *training.records["path"]]
    confirmed = confirm_pairs(files, found.rows + [0, first], found.mirrored, workers)
    pairs = [(row, other - first) for row, other in confirmed]
    if file is not None:
        with contextlib.suppress(OSError):  # the cache cannot be used, as its other users say
            save_json(file, {"pairs": pairs})
    return pairs


# --- refusing ----------------------------------------------------------------------------------------
def refuse_overlap(overlap: Overlap, folder: str | Path) -> None:
    """Raise ``UserError`` naming images that training has seen."""
    if not overlap.used:
        return
    named = name_some([f"{image_id}: {reason}" for image_id, reason in sorted(overlap.used.items())], 3)
    raise UserError(
        f"{folder}: training has, or may have, seen {named}; --drop-overlap leaves such images out and counts them"
    )
