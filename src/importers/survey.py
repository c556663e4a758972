"""Who is on the images of a source, and which of them can be imported: headers of DICOM files, patients, pseudonyms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.progress import progress_bar
from dataset.dicom_files import is_dicom, read_header, require_dicom_packages
from dataset.dicom_headers import OLDEST
from dataset.patient_keys import Identity, pseudonym, unknown_ids
from dataset.people import PLAUSIBLE_AGE
from importers.pixel_files import why_bad
from importers.sources import Source, SourceImage, name_values, without_laterals
from utils import UserError

if TYPE_CHECKING:
    from dataset.dicom_headers import DicomHeader


@dataclass(frozen=True)
class Survey:
    """Images to be imported, with their headers read; ``left_out``, ``notes``: see ``Source``.

    ``images`` name their patients by pseudonyms (``pseudonyms``) unless these are public; ``unknown``: images whose
    patient is unknown; ``patients``: where patients come from, in words; ``red_flags``: what results must say.
    """

    images: list[SourceImage]
    patients: str
    pseudonyms: bool
    unknown: int
    left_out: dict[str, int]
    notes: list[str]
    red_flags: list[str]


def survey(source: Source, key: bytes, workers: int, skip_bad: bool) -> Survey:
    """Read the headers of DICOM files, leave out lateral views, and settle patients; ``key``: of pseudonyms.

    Raises ``UserError`` naming files that are no X-rays of a chest; with ``skip_bad`` they are left out.
    """
    left_out, notes, flags = dict(source.left_out), list(source.notes), list[str]()
    images, from_headers = _read_headers(source, workers, skip_bad, left_out, notes, flags)
    images = without_laterals(images, left_out)
    where = source.patients or ("DICOM headers" if from_headers else "")
    if not source.public:
        images = [
            replace(image, patient=pseudonym(key, image.patient) if image.patient else "", age=_plain_age(image.age))
            for image in _known_only(images, notes)
        ]
        where = where if any(image.patient for image in images) else ""
    unknown = sum(not image.patient for image in images)
    return Survey(images, where, not source.public, unknown, left_out, notes, flags)


def _plain_age(age: float) -> float:
    """Return ``age`` without what would name a person or cannot be."""
    return math.nan if age > PLAUSIBLE_AGE else min(age, OLDEST)


# --- DICOM -----------------------------------------------------------------------------------------
def _read_headers(
    source: Source, workers: int, skip_bad: bool, left_out: dict[str, int], notes: list[str], flags: list[str]
) -> tuple[list[SourceImage], bool]:
    """Return (images that may be imported, with what their headers say; whether headers name patients)."""
    images = source.images
    places = [place for place, image in enumerate(images) if is_dicom(image.file)]
    if not places:
        return list(images), False
    require_dicom_packages()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        read = pool.map(lambda place: _header_or_reason(images[place].file), places)
        headers = dict(zip(places, progress_bar(read, total=len(places), desc="headers", unit="file"), strict=True))
    bad = {images[place].file: header for place, header in headers.items() if isinstance(header, str)}
    refuse_bad(bad, source.root, skip_bad)
    if bad:
        left_out["unreadable or no X-ray of a chest"] = len(bad)
    good = {place: header for place, header in headers.items() if not isinstance(header, str)}
    says = Counter(warning for header in good.values() for warning in header.warnings)
    notes += [f"{count:,} DICOM files have this in their headers: {warning}" for warning, count in says.items()]
    if burned := sum(header.burned_in is True for header in good.values()):
        flags.append(f"{burned:,} images are said to show burned-in texts, which may name patients or give labels away")
    # RSNA's files repeat the name of the image there: that tells no patients.
    named = any(header.patient_id and header.patient_id != images[place].name for place, header in good.items())
    use_ids = named and not source.public and not source.patients
    kept = [
        _with_header(image, good[place], use_ids) if place in good else image
        for place, image in enumerate(images) if image.file not in bad
    ]  # fmt: skip
    return kept, use_ids


def _header_or_reason(file: Path) -> DicomHeader | str:
    try:
        header = read_header(file)
    except UserError as error:
        return why_bad(error)
    return header.refusal or header


def _with_header(image: SourceImage, header: DicomHeader, use_id: bool) -> SourceImage:
    """Fill what the layout does not say."""
    return replace(
        image,
        age=image.age if not math.isnan(image.age) else math.nan if header.age is None else float(header.age),
        sex=image.sex or header.sex,
        view=image.view or header.view,
        modality=image.modality or header.modality,
        patient=(header.patient_id or "") if use_id else image.patient,
    )


def refuse_bad(bad: dict[Path, str], root: Path, skip_bad: bool) -> None:
    """Raise ``UserError`` naming ``bad`` files and the reasons, unless ``skip_bad``."""
    if bad and not skip_bad:
        named = name_values([f"{file.relative_to(root)}: {reason}" for file, reason in bad.items()])
        raise UserError(
            f"{len(bad):,} files of {root} cannot be imported ({named}); mend or remove them, or leave them out with "
            "--skip-bad-images; finished images are kept"
        )


# --- patients --------------------------------------------------------------------------------------
def _known_only(images: Sequence[SourceImage], notes: list[str]) -> list[SourceImage]:
    """Blank patient ids that name nobody in particular."""
    identities = [
        Identity(image.patient or None, None if math.isnan(image.age) else image.age, image.sex) for image in images
    ]
    nobody = unknown_ids(identities)
    if count := sum(image.patient in nobody for image in images):
        notes.append(
            f"{count:,} images have a patient id that names nobody in particular (anonymous, or shared by many): their "
            "patients count as unknown"
        )
    return [replace(image, patient="") if image.patient in nobody else image for image in images]
