"""Bring the images of a source into a data folder: written once each, resumed after an interruption, tables last."""

from __future__ import annotations

import datetime
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from common.command_line import VERSION as PRODUCT_VERSION
from common.progress import progress_bar
from dataset.file_formats import ImportedImages, Provenance
from dataset.picture_checks import auroc_if_given_away
from dataset.provenance import VERSION
from importers.pixel_files import BAD, bytes_needed, why_bad, write_image
from importers.sources import Source, SourceImage
from importers.survey import Survey, refuse_bad
from importers.tables import hashed_id, kept_ids, prove_tables, read_map, write_tables
from importers.target import Finished, Journal, find_earlier
from utils import UserError, save_json, sha256_file, sha256_json

log = logging.getLogger(__name__)

TRIED = 6  # images whose sizes tell how much room all of them need
RESERVE = 1.1  # of what was estimated


@dataclass(frozen=True)
class Import:
    """An import that was checked: its ``provenance`` so far.

    ``ids``: of the images; None: they depend on the files' contents. ``person_of``: image id -> NIH file name, where
    the ids tell the patients.
    """

    folder: Path
    source: Source
    survey: Survey
    ids: list[str] | None
    person_of: dict[str, str] | None
    provenance: Provenance


# --- before anything is written --------------------------------------------------------------------
def plan_import(
    folder: Path, source: Source, survey: Survey, layout: str, *,
    keep_names: bool, patient_map: Path | None, key_fingerprint: str | None, settings: dict[str, Any],
) -> Import:  # fmt: skip
    """Check that the images fit together and that the product accepts their tables.

    ``patient_map``: RSNA's mapping; ``key_fingerprint``: of a key that is kept; ``settings``: options that change what
    is written. Raises ``UserError``.
    """
    names_kept = keep_names or source.public
    ids = kept_ids(survey.images, source.root) if names_kept else None
    person_of = read_map(patient_map, ids) if patient_map and ids else None
    if source.nih_names and ids:
        person_of = {image_id: f"{image_id}.png" for image_id in ids}
    prove_tables(survey.images, person_of, ids)
    people = person_of.values() if person_of else [image.patient for image in survey.images if image.patient]
    known = len({person.split("_")[0] for person in people}) if person_of else len(set(people))
    flags = list(survey.red_flags)
    pseudonyms = survey.pseudonyms and not person_of and known > 0
    if pseudonyms and key_fingerprint is None:
        flags.append(
            "patients have pseudonyms of a key that was thrown away, so whether other data sets show the same people "
            "is unknown"
        )
    provenance: Provenance = {
        "complete": False,
        "images": _count([], {}),
        "version": VERSION,
        "product_version": PRODUCT_VERSION,
        "date": datetime.date.today().isoformat(),
        "layout": layout,
        "data_set": source.data_set,
        "positive": source.positive,
        "patients": {
            "source": survey.patients or ("RSNA's mapping to NIH patients" if person_of else "unknown"),
            "known": known,
            "unknown_images": len(survey.images) - len(person_of) if person_of else survey.unknown,
            "pseudonyms": pseudonyms,
            "key": key_fingerprint if pseudonyms else None,
        },
        "names": "kept" if names_kept else "hashed",
        "source_sha256": _source_sha256(source),
        "tables_sha256": {role: sha256_file(file) for role, file in source.tables.items()},
        "settings_sha256": sha256_json({**settings, "map": sha256_file(patient_map) if patient_map else ""}),
        "red_flags": flags,
    }
    return Import(folder, source, survey, ids, person_of, provenance)


def _source_sha256(source: Source) -> str:
    """Hash the names and sizes of the images, and the tables."""
    sizes = [[image.file.relative_to(source.root).as_posix(), image.file.stat().st_size] for image in source.images]
    return sha256_json([sizes, [sha256_file(file) for file in source.tables.values()]])


def _check_disk(plan: Import, to_go: int) -> None:
    """Raise ``UserError`` if the disk has no room for ``to_go`` more images, judged by a few."""
    images = plan.survey.images
    same_disk = plan.folder.stat().st_dev == images[0].file.stat().st_dev
    tried = []
    for image in images[:: max(1, len(images) // TRIED)][:TRIED]:
        try:
            tried.append(bytes_needed(image.file, image.file.read_bytes(), same_disk))
        except BAD:  # told with all the others
            continue
    needed = RESERVE * to_go * sum(tried) / max(1, len(tried))
    free = shutil.disk_usage(plan.folder).free
    if needed > free:
        raise UserError(
            f"{to_go:,} images need about {needed / 1e9:.1f} GB, and {plan.folder} has {free / 1e9:.1f} GB free; "
            "make room, or give a --data-dir on another disk"
        )


# --- the import ------------------------------------------------------------------------------------
def run_import(plan: Import, workers: int, skip_bad: bool) -> Provenance:
    """Write what is missing of the images, then the tables and the provenance; returns that.

    Does nothing where the same import has ended before. Raises ``UserError`` if the folder holds something else or its
    disk has no room, and one that names the images that cannot be read; with ``skip_bad`` these are left out and
    counted.
    """
    earlier = find_earlier(plan.folder, plan.provenance)
    if earlier is not None and earlier["complete"]:
        log.info(f"{plan.folder} already holds this import: nothing to do")
        return earlier
    journal = Journal(plan.folder)
    _check_disk(plan, len(plan.survey.images) - len(journal.finished))
    if earlier is None:
        save_json(paths.provenance(plan.folder), plan.provenance)
    if journal.finished:
        log.info(f"{len(journal.finished):,} of {len(plan.survey.images):,} images are finished")
    bad = _write_images(plan, journal, workers)
    refuse_bad(bad, plan.source.root, skip_bad)
    done = [(image, journal.finished[place]) for place, image in enumerate(plan.survey.images) if image.file not in bad]
    if len({image.label for image, _ in done if not image.official}) < 2:
        raise UserError("without the unreadable images the training images are of one class only; mend some of them")
    write_tables(plan.folder, [image for image, _ in done], [each.image_id for _, each in done], plan.person_of)
    left_out = plan.survey.left_out | ({"unreadable": len(bad)} if bad else {})
    flags = plan.provenance["red_flags"] + _file_flags(done)
    complete: Provenance = {
        **plan.provenance, "complete": True, "images": _count(done, left_out), "red_flags": flags
    }  # fmt: skip
    save_json(paths.provenance(plan.folder), complete)
    journal.remove()
    return complete


def _write_images(plan: Import, journal: Journal, workers: int) -> dict[Path, str]:
    """Write the images that ``journal`` lacks; returns the bad ones: file -> reason."""
    images = plan.survey.images
    to_do = [place for place in range(len(images)) if place not in journal.finished]
    folders = {True: paths.test_images(plan.folder), False: paths.training_images(plan.folder)}

    def bring(place: int) -> Finished | str:
        image = images[place]
        try:
            content = image.file.read_bytes()
            image_id = plan.ids[place] if plan.ids else hashed_id(image, plan.source.root, content)
            file, written = write_image(image.file, content, folders[image.official] / image_id)
        except BAD as error:
            if isinstance(error, OSError) and error.errno is not None and error.filename != str(image.file):
                raise  # the disk is full, or the like
            return why_bad(error)
        return Finished(image_id, file.name, written)

    bad: dict[Path, str] = {}
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        results = progress_bar(pool.map(bring, to_do), total=len(to_do), desc="importing", unit="img")
        for place, result in zip(to_do, results, strict=True):
            if isinstance(result, Finished):
                journal.add(place, result)
            else:
                bad[images[place].file] = result
    finally:
        pool.shutdown(cancel_futures=True)
    return bad


# --- what was done ---------------------------------------------------------------------------------
def _count(done: Sequence[tuple[SourceImage, Finished]], left_out: dict[str, int]) -> ImportedImages:
    labelled = [(image, finished) for image, finished in done if not image.official]
    official = [image for image, _ in done if image.official]
    ways = [finished.written.way for _, finished in done]

    def padding(label: int) -> float:
        shares = [finished.written.added for image, finished in labelled if image.label == label]
        return sum(shares) / len(shares) if shares else 0.0

    known = [image.label for image in official if image.label is not None]
    return {
        "labelled": len(labelled),
        "positive": sum(image.label == 1 for image, _ in labelled),
        "official_test": len(official),
        "official_positive": sum(known) if known else None,
        "linked": ways.count("linked"),
        "copied": ways.count("copied"),
        "rewritten": ways.count("rewritten"),
        "padded": sum(finished.written.added > 0 for _, finished in done),
        "padding_positive": padding(1),
        "padding_negative": padding(0),
        "left_out": left_out,
    }


def _file_flags(done: Sequence[tuple[SourceImage, Finished]]) -> list[str]:
    """Flag source files that give the labels away: once they are written anew, the checker cannot see that."""
    import pandas as pd

    labelled = [(image, finished, finished.written) for image, finished in done if not image.official]
    rows = [
        {
            "width": written.size[0], "height": written.size[1], "file_bytes": written.file_bytes, "mode": written.mode,
            "jpeg": written.jpeg, "label": image.label, "patient": image.patient or finished.image_id,
        }
        for image, finished, written in labelled
    ]  # fmt: skip
    if (auroc := auroc_if_given_away(pd.DataFrame(rows))) is None:
        return []
    return [
        f"the files of the source alone give the labels away: size, shape, bytes per pixel and JPEG tables reach AUROC "
        f"{auroc:.2f}, so the classes come from different sources; compression and black edges still show that"
    ]
