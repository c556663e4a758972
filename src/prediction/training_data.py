"""The data that trained models learned from, found again: from their folder, or from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from arms.result_files import Arm
from common import paths
from dataset.known_datasets import families_of
from dataset.patients import GROUPED_BY_IMAGE
from dataset.records import load_dataset
from prediction.data_origin import DataOrigin, find_origin
from utils import UserError, sha256_file

NOT_HERE = "none"  # a value of --train-data-dir


@dataclass(frozen=True)
class TrainingData:
    """The data that models were trained on.

    ``images``: image_id, patient, class where known; ``used``: whether it is a training image, not one of the
    internal test; where ``here``, all columns of ``Dataset.images``. ``origin``: of these images. ``elsewhere``:
    other data that initial weights and generators had learned from, name -> families. ``unknown_people``: training
    images whose patient nobody knows.
    """

    images: pd.DataFrame
    origin: DataOrigin
    elsewhere: Mapping[str, frozenset[str]]
    unknown_people: int
    here: bool


def find_training_data(
    folder: str | None, arms: Sequence[Arm], config: Mapping[str, Any], data_sha256: str
) -> TrainingData:
    """Find the data that the models of ``arms`` learned from.

    ``folder``: --train-data-dir, None for the recorded one, "none" if it is not here; ``config``: options of the
    training; ``data_sha256``: of its metadata file. Raises ``UserError`` if the images are not there, or others.
    """
    tables = _recorded_images(arms)
    grouped_by = next((arm.metrics["grouped_by"] for arm in arms if arm.metrics), None)
    if folder == NOT_HERE:
        if tables.empty:
            raise UserError(
                f"--train-data-dir {NOT_HERE} needs the predictions of train_classifier.py (--results-dir), which say "
                "whom the models were trained on"
            )
        place, images = None, tables
    else:
        place = _checked_folder(folder, config, data_sha256)
        mapping = config.get("patient_map")
        mapping = mapping if mapping and Path(mapping).is_file() else None
        dataset = load_dataset(place, mapping, config.get("patient_column"))
        images = dataset.images.assign(used=True)
        if grouped_by not in (None, dataset.grouped_by):  # its mapping has gone: the tables remember
            images["patient"] = images["image_id"].map(_look_up(tables, "patient")).fillna(images["image_id"])
        grouped_by = grouped_by or dataset.grouped_by
        tested = set(tables.loc[~tables["used"], "image_id"])
        images["used"] = ~images["image_id"].isin(tested)
    origin = find_origin(place, images, grouped_by or GROUPED_BY_IMAGE)
    used = images[images["used"]]
    unknown = sum(
        origin.person(image_id, patient) is None
        for image_id, patient in zip(used["image_id"], used["patient"], strict=True)
    )
    unnamed = max((arm.metrics["n_train_images"] for arm in arms if arm.metrics), default=0) - len(used)
    unknown += max(0, unnamed)  # without folds, no result file names the training images
    return TrainingData(images, origin, _learned_elsewhere(arms), unknown, place is not None)


def _checked_folder(folder: str | None, config: Mapping[str, Any], data_sha256: str) -> Path:
    place = Path(folder or config.get("data_dir") or paths.DATA_DIR)
    metadata = place / paths.TRAIN_METADATA
    if not metadata.is_file():
        raise UserError(
            f"{place} does not hold the data that the models were trained on ({paths.TRAIN_METADATA}), with which "
            "these images must be compared; give their folder with --train-data-dir PATH, or --train-data-dir "
            f"{NOT_HERE} to compare ids and patients only, which is flagged"
        )
    if sha256_file(metadata) != data_sha256:
        raise UserError(
            f"{metadata} is not the table that the models were trained with (other sha256); --train-data-dir says "
            "where that is"
        )
    return place


def _recorded_images(arms: Sequence[Arm]) -> pd.DataFrame:
    """Return the images that the result files name: image_id, patient, class, used."""
    found = [
        table.assign(used=used)
        for arm in arms
        for table, used in ((arm.predictions, False), (arm.cv_predictions, True))
        if table is not None
    ]
    columns = ["image_id", "patient", "class", "used"]
    if not found:
        return pd.DataFrame({name: pd.Series(dtype=bool if name == "used" else str) for name in columns})
    table = pd.concat(found, ignore_index=True).drop_duplicates("image_id")
    return table[[name for name in columns if name in table]]


def _look_up(tables: pd.DataFrame, column: str) -> dict[str, str]:
    return dict(zip(tables["image_id"], tables[column], strict=True))


def _learned_elsewhere(arms: Sequence[Arm]) -> dict[str, frozenset[str]]:
    """Return the data sets that initial weights and generators had learned from, as users named them."""
    names: dict[str, None] = {}
    for arm in arms:
        config: Mapping[str, Any] = arm.recorded.get("config") or {}
        folders = (arm.recorded.get("synthetic") or {}).get("folders") or []
        for name in (config.get("weights_trained_on"), *(folder.get("trained_elsewhere") for folder in folders)):
            if name:
                names[name] = None
    return {name: families_of(name) for name in names}
