"""The images of an external test: read, compared with the training data, decoded."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from arms.result_files import Arm
from common import paths
from data_loader import ImageSet, judge_pictures, load_images
from dataset.provenance import IMPORT_COMMAND
from dataset.records import Dataset, load_dataset, load_official_test
from prediction.data_origin import DataOrigin, find_origin
from prediction.overlap import Overlap, compare_families, compare_people, compare_pictures, refuse_overlap
from prediction.training_data import find_training_data
from utils import UserError

log = logging.getLogger(__name__)

EXTERNAL = "external images"  # in messages about pictures
OF_TRAINING = re.compile("both sides of a split|^positive means:")  # flags of a data set that is to be trained on


@dataclass(frozen=True)
class ExternalOptions:
    """What is tested; the fields are options of evaluate_external.py. ``metrics_dir``: results of the training."""

    name: str
    data_dir: str
    model_dir: str
    metrics_dir: Path
    train_data_dir: str | None
    drop_overlap: bool
    patient_map: str | None
    patient_column: str | None
    skip_bad_images: bool
    bits: int | None
    cache_dir: str | None
    workers: int

    @property
    def folder(self) -> Path:
        """Folder of this test's results."""
        return paths.external_folder(self.metrics_dir, self.name)


@dataclass(frozen=True)
class ExternalData:
    """The images to be predicted, what was left out, and what readers must know.

    ``training``: images of the data set that the models learned from, with the column ``used`` of ``TrainingData``;
    None if they are not here.
    """

    dataset: Dataset
    origin: DataOrigin
    images: ImageSet
    overlap: Overlap
    training_origin: DataOrigin
    training: ImageSet | None
    red_flags: list[str]

    @property
    def tested_before(self) -> int:
        """Number of images that the internal test has, or whose patients or pictures it has."""
        return len(self.overlap.tested & set(self.images.records["image_id"]))


# --- the data ----------------------------------------------------------------------------------------
def load_external(options: ExternalOptions, arms: Sequence[Arm], facts: Mapping[str, Any]) -> ExternalData:
    """Read the external data and compare them with the training data, the quick comparisons first.

    ``facts``: ``models_by_arm.shared_facts``. Raises ``UserError`` if they cannot be tested on: no labels, one class,
    seen in training.
    """
    dataset, records = _external_records(options)
    origin = find_origin(dataset.data_dir, records, dataset.grouped_by, options.name)
    training = find_training_data(options.train_data_dir, arms, facts["config"], facts["data_sha256"])
    overlap, flags = compare_people(records, origin, training)
    records = _leave_out(overlap, records, options)
    unknown, more = compare_families(records, origin, training)
    records, overlap = _leave_out(unknown, records, options), overlap.joined(unknown)

    def decode(images: pd.DataFrame, what: str, skip: bool, bits: int | None) -> ImageSet:
        return load_images(
            images, facts["image_size"], workers=options.workers, skip_bad=skip, desc=f"decoding {what}",
            cache_dir=options.cache_dir, through=facts["match_resolution"], bits=bits,
        )  # fmt: skip

    images = decode(records, EXTERNAL, options.skip_bad_images, options.bits)
    seen = None
    if training.here:
        seen = decode(training.images, "training images", True, facts["config"].get("bits"))
        alike = compare_pictures(images, seen, options.cache_dir, options.workers)
        overlap = overlap.joined(alike)
        kept = _leave_out(alike, images.records, options)
        if len(kept) < len(images.records):
            images = decode(kept, EXTERNAL, options.skip_bad_images, options.bits)
    _require_both_classes(images.records, options)
    flags += more + judge_pictures([images], EXTERNAL, options.bits, like=seen, strict=False)
    data = ExternalData(dataset, origin, images, overlap, training.origin, seen, flags)
    data.red_flags.extend(_flags_of_data(data, options))
    return data


def _external_records(options: ExternalOptions) -> tuple[Dataset, pd.DataFrame]:
    """Read the labelled images of the folder, those of a labelled official test set among them."""
    metadata = Path(options.data_dir) / paths.TRAIN_METADATA
    if not metadata.is_file():
        raise UserError(
            f"{metadata} is missing: --data-dir must hold labelled images in the layout of {paths.DATA_DIR}; "
            f"`{IMPORT_COMMAND}` brings others into it"
        )
    dataset = load_dataset(options.data_dir, options.patient_map, options.patient_column)
    official = load_official_test(options.data_dir, options.patient_map, options.patient_column)
    dataset.log_findings()
    if official is None or not official.labelled:
        return dataset, dataset.images
    more = official.images[~official.images["image_id"].isin(dataset.images["image_id"])]
    log.info(f"{len(more):,} labelled images of {paths.TEST_METADATA} are tested, too")
    return dataset, pd.concat([dataset.images, more], ignore_index=True).sort_values("image_id", ignore_index=True)


def _leave_out(overlap: Overlap, records: pd.DataFrame, options: ExternalOptions) -> pd.DataFrame:
    """Leave out the ``records`` that training has seen; raises ``UserError`` unless --drop-overlap says so."""
    if not options.drop_overlap:
        refuse_overlap(overlap, options.data_dir)
    left = records[~records["image_id"].isin(overlap.used)].reset_index(drop=True)
    _require_both_classes(left, options)
    return left


def _require_both_classes(records: pd.DataFrame, options: ExternalOptions) -> None:
    if records["label"].nunique() < 2:
        left = f"{len(records):,} images, all of one class," if len(records) else "no images"
        raise UserError(f"{options.data_dir}: {left} are left to test on; both classes are needed, so give more images")


def _flags_of_data(data: ExternalData, options: ExternalOptions) -> list[str]:
    """Return what every reader must know of the external data."""
    # No split is made here, and what a positive label means is said first of all.
    flags = [f"{options.name}: {flag}" for flag in data.dataset.red_flags if not OF_TRAINING.search(flag)]
    n = len(data.images.records)
    if unknown := count_unknown_people(data):
        flags.append(
            f"the patients of {unknown:,} of {n:,} images are unknown: intervals count each of these images as "
            "a person of its own and may be too narrow, and nobody knows whether these people were trained on"
        )
    if left_out := len(data.overlap.used):
        flags.append(f"{left_out:,} images that training had, or may have, seen were left out (--drop-overlap)")
    if data.tested_before:
        flags.append(f"{data.tested_before:,} images are in the internal test, too, or show its patients or pictures")
    if data.training is None:
        flags.append("the training images were not here: copies of them under other names were not looked for")
    elsewhere = data.origin.families and data.training_origin.families  # of known data sets, which are not the same
    if not elsewhere and not data.origin.knows_people_of(data.training_origin):
        flags.append("patient ids here and in training name people in different ways: shared ones cannot be found")
    if skipped := len(data.images.skipped):
        flags.append(f"{skipped:,} missing or unreadable images were left out (--skip-bad-images)")
    unsaid = {"in training": data.training_origin, f"in {options.name}": data.origin}
    if where := [place for place, origin in unsaid.items() if origin.positive is None]:
        flags.append(f"nothing says what a positive label means {' and '.join(where)}: does it mean the same in both?")
    return flags


def count_unknown_people(data: ExternalData) -> int:
    """Count the images whose patient is unknown."""
    pairs = zip(data.images.records["image_id"], data.images.records["patient"], strict=True)
    return sum(data.origin.person(image_id, patient) is None for image_id, patient in pairs)
