"""Every check of what a generator has seen: training images listed, test patients, folds, other data sets.

Patients are compared, not only images: of lists of training images in any spelling, of generators whose
images join training, and of images made elsewhere before they get a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from dataset.image_ids import name_some, without_ending
from dataset.known_datasets import overlap_reason
from dataset.patients import GROUPED_BY_PATIENT
from utils import UserError

if TYPE_CHECKING:
    from dataset.records import Dataset, OfficialTest
    from dataset.splits import Splits

NIH_NAME = re.compile(r"(\d{8})_\d{3}")  # <patient>_<number>, of which RSNA's images are a part
OR_ALLOW = "or use --allow-unverified-synthetic, which puts a red flag into every result file"


# --- lists of training images ----------------------------------------------------------------------
@dataclass(frozen=True)
class Seen:
    """Training images that a list names, all fields sorted and without repeats.

    ``ids``: as the dataset spells them where it has them; ``patients``: patients of all ids whose patient
    is known; ``nih``: ids that are NIH file names, which tell the patient only; ``unknown``: ids that tell
    nothing.
    """

    ids: list[str]
    patients: list[str]
    nih: list[str]
    unknown: list[str]


def known_patients(dataset: Dataset, official: OfficialTest | None) -> dict[str, str]:
    """Return image id -> patient of all images of the dataset, the official test images included."""
    sets = [] if official is None else [official.images]
    return {
        image_id: patient
        for images in (*sets, dataset.images)
        for image_id, patient in zip(images["image_id"], images["patient"], strict=True)
    }


def match_ids(listed: Iterable[str], patient_of: Mapping[str, str], by_nih: bool = True) -> Seen:
    """Find the images of ``patient_of`` (image id -> patient) that are ``listed``.

    Folders, endings of image files and upper or lower case make no difference; any part of a path may be the
    id. NIH file names tell a patient only where patients are NIH's (``by_nih``), not groups of one image.
    """
    spelled: dict[str, list[str]] = {}
    for image_id in patient_of:
        for spelling in {image_id.casefold(), without_ending(image_id).casefold()}:
            spelled.setdefault(spelling, []).append(image_id)
    by_patient = by_nih and any(patient != image_id for image_id, patient in patient_of.items())
    found: set[str] = set()
    nih: dict[str, str] = {}
    unknown: set[str] = set()
    for name in {str(name) for name in listed}:
        matches = [image_id for part in _parts(name) for image_id in spelled.get(part.casefold(), [])]
        patient = nih_patient(name) if by_patient else None
        found.update(matches)
        if not matches and patient:
            nih[name] = patient
        elif not matches:
            unknown.add(name)
    patients = {patient_of[image_id] for image_id in found} | set(nih.values())
    ids = found | set(nih) | unknown
    return Seen(sorted(ids), sorted(patients), sorted(nih), sorted(unknown))


def nih_patient(name: str) -> str | None:
    """Return the patient in a file name of NIH ChestX-ray14, None for other names."""
    matches = (NIH_NAME.fullmatch(part) for part in _parts(name))
    return next((match[1] for match in matches if match), None)


def _parts(name: str) -> list[str]:
    return [without_ending(part) for part in re.split(r"[\\/]", name) if part.strip()]


def images_seen(ids: Collection[str], patients: Collection[str], images: Mapping[str, str]) -> list[str]:
    """Return those of ``images`` (image id -> patient) whose id or patient the generator saw, sorted."""
    ids, patients = set(ids), set(patients)
    return sorted(name for name, patient in images.items() if name in ids or patient in patients)


def overlaps(generator_patients: set[str] | None, patients: set[str]) -> bool:
    """Whether the generator may have seen one of ``patients``; True if nobody knows what it saw (None)."""
    return generator_patients is None or bool(generator_patients & patients)


# --- images that join training ---------------------------------------------------------------------
@dataclass(frozen=True)
class OriginCheck:
    """What is known of a generator.

    ``patients``: whom it saw here; None: unknown. ``verified``: everything that it saw could be compared with the test
    images, and does not touch them.
    """

    patients: set[str] | None
    verified: bool
    red_flags: list[str]


def check_origin(
    folder: Path, manifest: Mapping[str, Any], patient_of: Mapping[str, str],
    test_images: Mapping[str, str], allow_unverified: bool, by_nih: bool,
) -> OriginCheck:  # fmt: skip
    """Compare what ``manifest`` names with this dataset (image id -> patient) and its test images.

    Raises ``UserError`` if the origin is unknown or touches the test set; with ``allow_unverified`` these
    are red flags. Always red flags: those of the manifest itself, training images that are unknown here,
    and training elsewhere, which nobody can check here.
    """
    flags = list(manifest.get("red_flags", []))
    patient_of, elsewhere = {**patient_of, **test_images}, manifest.get("trained_elsewhere")
    seen = match_ids(manifest["train_image_ids"], patient_of, by_nih)
    patients = set(manifest["train_patients"]) | set(seen.patients)
    lack = _missing_proof(seen, patients, set(patient_of.values()))
    known = bool(elsewhere) or lack is None
    if lack is not None and not known:
        flags.append(unknown_origin_flag(folder, lack, allow_unverified))
    if known and (flag := unknown_ids_flag(seen)) and flag not in flags:
        flags.append(flag)
    if elsewhere:
        flags.append(
            f"the generator of {folder.name}/ was trained elsewhere ({elsewhere}): only its maker says that "
            "it saw no test patient there"
        )
    if leaked := images_seen(seen.ids, patients, test_images):
        flags.append(_leak_flag(folder, leaked, allow_unverified))
    verified = known and not elsewhere and not leaked and not seen.unknown
    return OriginCheck(patients if known else None, verified, flags)


def _missing_proof(seen: Seen, patients: set[str], known_here: set[str]) -> str | None:
    """Say why what a manifest names cannot be compared with this dataset, or None.

    Patients of another dataset may have the same names as ours: they count only where no images are listed.
    """
    if not seen.ids and not patients:
        return "names no training image"
    if seen.ids and len(seen.unknown) == len(seen.ids):
        return f"names training images ({len(seen.ids):,}), but none of this dataset"
    if not seen.ids and not patients & known_here:
        return f"names training patients ({len(patients):,}), but none of this dataset"
    return None


def unknown_origin_flag(folder: Path, lack: str, allow: bool) -> str:
    """Return the red flag of images of unknown origin; raises ``UserError`` unless they are allowed.

    ``lack``: what is wrong with the manifest, as a verb and its object: "is missing".
    """
    manifest = paths.synthetic_manifest(folder)
    if not allow:
        raise UserError(
            f"{manifest} {lack}, so nobody knows whether the generator saw the test patients; make the "
            "images with `python src/generate_synthetic.py`, name their origin with `python "
            f"src/register_synthetic.py`, {OR_ALLOW}"
        )
    state = f"a manifest that {lack}" if manifest.is_file() else "no manifest"
    return f"the images of {folder.name}/ have {state}: their generator may have seen the test patients"


def unknown_ids_flag(seen: Seen) -> str | None:
    """Return a red flag if a list names images that are unknown here, else None."""
    if not seen.unknown:
        return None
    return (
        f"{len(seen.unknown):,} of {len(seen.ids):,} image ids listed as the generator's training images are "
        "unknown here and could not be compared with the test images"
    )


def _leak_flag(folder: Path, leaked: list[str], allow: bool) -> str:
    if not allow:
        raise UserError(
            f"{folder}: its generator was trained on patients of the test set ({name_some(leaked, 3)}); "
            f"train the GAN on this split (same --splits), {OR_ALLOW}"
        )
    return (
        f"the generator of {folder.name}/ saw patients of {len(leaked)} test images: no number of this arm "
        "can be believed"
    )


def extra_patients_flag(folder: Path, generator_patients: set[str] | None, train_patients: set[str]) -> str | None:
    """Return a red flag if the generator saw more real patients than the classifier may, else None."""
    more = len((generator_patients or set()) - train_patients)
    if not more:
        return None
    return (
        f"the generator of {folder.name}/ learned from {more:,} patients that this classifier does not train "
        "on: the arm has more real data than the baseline"
    )


# --- images made elsewhere, before they get a manifest ---------------------------------------------
def refuse_overlapping(name: str | None) -> None:
    """Raise ``UserError`` if the data set ``name`` is known to share patients with RSNA's."""
    if name and (reason := overlap_reason(name)):
        raise UserError(
            f"--trained-elsewhere {name!r}: {reason}, so such data may hold the test patients; list what the "
            "generator has seen with --trained-on, by RSNA's image ids or NIH's file names"
        )


def find_seen(
    ids: list[str], dataset: Dataset, official: OfficialTest | None, elsewhere: str | None
) -> tuple[Seen, list[str]]:
    """Return (what ``ids`` name, red flags). Raises ``UserError`` if nobody knows which image an id is.

    NIH ChestX-ray14 file names tell their patient, for images of the dataset whose NIH patient is known.
    """
    seen = match_ids(ids, known_patients(dataset, official), dataset.grouped_by == GROUPED_BY_PATIENT)
    nih = [name for name in seen.unknown if nih_patient(name)]
    if nih and dataset.grouped_by != GROUPED_BY_PATIENT:
        raise UserError(
            f"--trained-on names {name_some(nih, 3)} of NIH ChestX-ray14, which can be compared only "
            "with images whose NIH patient is known: give the official --patient-map"
        )
    if seen.unknown and not elsewhere:
        raise UserError(
            f"--trained-on names {name_some(seen.unknown, 3)} that {dataset.data_dir} does not have; correct "
            "the list (a header must be image_id, patientId or Image Index), or name their data set with "
            "--trained-elsewhere NAME, which puts a red flag into every result"
        )
    flags = []
    if seen.nih and dataset.unmapped:
        flags.append(
            "the generator's training images have NIH file names, and the NIH patient of "
            f"{dataset.unmapped:,} of the dataset's images is unknown: it may have seen these images"
        )
    if flag := unknown_ids_flag(seen):
        flags.append(flag)
    return seen, flags


def refuse_leaks(seen: Seen, splits: Splits) -> None:
    """Raise ``UserError`` if the generator saw patients of the test set, its fold or beyond its fraction."""
    from dataset.splits import TEST, UNUSED, VALIDATION

    for role, whose in (
        (TEST, "of the test set"),
        (VALIDATION, "of the --fold that it is said not to know"),
        (UNUSED, "beyond the --train-fraction that it is said to have kept to"),
    ):
        images = splits.images[splits.images["role"] == role]
        held_out = dict(zip(images["image_id"], images["patient"], strict=True))
        if leaked := images_seen(seen.ids, seen.patients, held_out):
            raise UserError(
                f"refused: the generator was trained on patients {whose} ({name_some(leaked, 3)}); use one "
                f"that was trained without them ({splits.path} says who they are)"
            )
