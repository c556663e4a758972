"""The images that a GAN learns from: chosen and decoded. Test images are looked at only to find their twins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import check_batch_size, process_count
from data_loader import LABELLED, ImageSet, judge_pictures, load_images
from dataset.patients import grouping_sentence
from dataset.records import Dataset, load_dataset
from dataset.splits import TRAIN, Splits, describe_splits, load_or_create_splits, select, training_part, twin_flags
from gan.settings import CLASS_NAMES, ImageChoice, Schedule
from networks.backbones import LITE0
from synthetic.folders import few_images_flags
from utils import UserError, as_tensor, derive_seed, load_checkpoint

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """Training images ``pixels`` uint8 [N, S, S] on the device.

    ``origin``: what a checkpoint says about its images. ``red_flags``: what every user of the generator must
    know. ``patients``: patient of each image; () makes each image a patient of its own. ``labels``: classes
    int64 [N] on the device, for a conditional GAN. ``images``: where the pixels came from, for caches.
    ``holdout``: uint8 [M, S, S] of patients that are not trained on, ``holdout_labels``: their classes.
    """

    pixels: Tensor
    origin: dict[str, Any]
    skipped: list[str]
    red_flags: list[str] = field(default_factory=list)
    patients: Sequence[str] = ()
    labels: Tensor | None = None
    images: ImageSet | None = None
    holdout: np.ndarray | None = None
    holdout_labels: Tensor | None = None


# --- which images ----------------------------------------------------------------------------------
def training_part_of(choice: ImageChoice) -> tuple[Dataset, Splits]:
    """Read the dataset, and its split with the training images that --train-fraction and --fold leave."""
    dataset = load_dataset(choice.data_dir, choice.patient_map, choice.patient_column)
    splits = load_or_create_splits(dataset, choice.splits, choice.cache)
    return dataset, training_part(splits, choice.train_fraction, choice.fold, choice.k_folds)


def records_to_learn_from(choice: ImageChoice, dataset: Dataset, splits: Splits) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (records to train on, records set aside for metrics) of ``training_part_of``.

    Raises ``UserError`` if there are fewer than two to train on, classes are asked for that the metadata
    lacks, or --metrics-features has seen what the GAN may not see.
    """
    check_chooser(choice, splits)
    if choice.conditional:
        _require_classes(dataset.images)
    records = select(dataset, splits, TRAIN, choice.label)
    aside = set_aside(list(records["patient"]), choice.metrics_holdout, splits.seed)
    if choice.metrics_holdout > 0 and not aside.any():
        raise UserError(
            f"--metrics-holdout {choice.metrics_holdout:g} of {len(records)} images is less than one "
            "whole patient: give a larger share"
        )
    kept, held = records[~aside].reset_index(drop=True), records[aside].reset_index(drop=True)
    _require_two(choice, len(kept))
    return kept, held


def set_aside(patients: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """Mark the images of random patients, bool [N]: at most ``fraction`` of all, whole patients.

    A pure function of the arguments.
    """
    names, sizes = np.unique(np.asarray(patients, dtype=str), return_counts=True)
    order = np.random.default_rng(derive_seed(seed, "metrics holdout")).permutation(len(names))
    reached = np.cumsum(sizes[order])
    taken = order[reached <= fraction * len(patients)]
    return np.isin(np.asarray(patients, dtype=str), names[taken])


def check_chooser(choice: ImageChoice, splits: Splits) -> None:
    """Check the classifier of --metrics-features, which chooses generator_best.pth.

    Raises ``UserError`` if it has learned from images that this GAN is to be kept away from: of test
    patients, of its fold, or beyond its fraction.
    """
    if choice.metrics_features in (None, LITE0):
        return
    checkpoint = load_checkpoint(choice.metrics_features)
    config = checkpoint["config"]
    name = f"--metrics-features {choice.metrics_features}"
    if checkpoint["split_sha256"] != splits.sha256:
        raise UserError(f"{name} was trained on another split and may have seen the test patients: leave it out")
    doubts = checkpoint.get("weights_flags", []) if config.get("allow_unverified_weights") else []
    if config.get("allow_unverified_synthetic"):
        doubts = [*doubts, "it was trained with --allow-unverified-synthetic"]
    if doubts:
        raise UserError(
            f"{name} may have seen the test patients ({doubts[0]}): give another classifier, or leave it out"
        )
    if config["train_fraction"] > choice.train_fraction:
        raise UserError(
            f"{name} has learned from patients beyond --train-fraction {choice.train_fraction:g}: give a "
            "classifier of the same fraction, or leave it out"
        )
    if choice.fold is not None and (checkpoint.get("fold"), config["k_folds"]) != (choice.fold, choice.k_folds):
        raise UserError(f"{name} has learned from images of fold {choice.fold} of {choice.k_folds}: leave it out")


def _require_two(choice: ImageChoice, n_images: int, n_skipped: int = 0) -> None:
    if n_images < 2:
        raise UserError(
            f"a GAN needs at least 2 images; there are {_count(choice, n_images)} to learn from "
            f"({n_skipped} skipped): `python src/data_loader.py --data-dir {choice.data_dir}` shows what is "
            "there"
        )


def _count(choice: ImageChoice, n_images: int) -> str:
    return f"{n_images:,} {'images' if choice.label is None else 'pneumonia images'}"


def _require_classes(records: pd.DataFrame) -> None:
    if missing := set(CLASS_NAMES) - set(records["class"]):
        raise UserError(
            f"--conditional: the metadata has no image of class {' or '.join(sorted(missing))}: add a column "
            "class with the classes of the dataset, or leave --conditional out"
        )


# --- decoded ---------------------------------------------------------------------------------------
def load_training_set(choice: ImageChoice, device: torch.device) -> TrainingSet:
    """Decode the chosen images; raises ``UserError`` if there are fewer than two."""
    dataset, splits = training_part_of(choice)
    dataset.red_flags.extend(twin_flags(dataset, splits, cache_dir=choice.cache))
    log.info(describe_splits(splits))
    records, held = records_to_learn_from(choice, dataset, splits)
    images = _decode(choice, records)
    aside = _decode(choice, held) if len(held) else None
    _require_two(choice, len(images.records), len(images.skipped))
    seen = judge_pictures([images, aside] if aside else [images], LABELLED, choice.bits)
    dataset.log_findings()
    dataset.red_flags.extend(seen)
    origin = describe_origin(choice, images.records, dataset, splits)
    log.info(
        f"training on {_count(choice, len(images.records))} of {len(origin['train_patients']):,} patients or "
        f"groups; {grouping_sentence(dataset.grouped_by)}"
    )
    few = few_images_flags(len(images.records))
    for flag in few:
        log.warning(f"RED FLAG: {flag}")
    return TrainingSet(
        as_tensor(images.pixels).to(device), origin, images.skipped, [*dataset.red_flags, *few],
        patients=[str(name) for name in images.records["patient"]],
        labels=class_numbers(images.records).to(device) if choice.conditional else None,
        images=images,
        holdout=None if aside is None else aside.pixels,
        holdout_labels=class_numbers(aside.records).to(device) if aside and choice.conditional else None,
    )  # fmt: skip


def _decode(choice: ImageChoice, records: pd.DataFrame) -> ImageSet:
    return load_images(
        records, choice.image_size, workers=choice.workers, skip_bad=choice.skip_bad_images,
        cache_dir=choice.cache, bits=choice.bits,
    )  # fmt: skip


def class_numbers(records: pd.DataFrame) -> Tensor:
    """Return the number of each image's class in ``CLASS_NAMES``, int64 [N]."""
    return torch.tensor([CLASS_NAMES.index(name) for name in records["class"]])


def describe_origin(choice: ImageChoice, records: pd.DataFrame, dataset: Dataset, splits: Splits) -> dict[str, Any]:
    """Say whose images a generator has seen: later steps keep it away from test patients by that."""
    return {
        "classes": choice.classes,
        "label": choice.label,
        "train_image_ids": [str(name) for name in records["image_id"]],
        "train_patients": sorted({str(name) for name in records["patient"]}),
        "data_sha256": dataset.data_sha256,
        "split_sha256": splits.sha256,
        "grouped_by": dataset.grouped_by,
        "train_fraction": choice.train_fraction,
        "fold": choice.fold,
        "k_folds": choice.k_folds,
    }


def fit_schedule(schedule: Schedule, n_images: int) -> Schedule:
    """Fit ``schedule`` to ``n_images``: whole epochs, and a batch that is no larger than the training set.

    A reduced batch can still be shared evenly by the processes; raises ``UserError`` if none can.
    """
    batch_size = schedule.batch_size
    if batch_size > n_images:
        batch_size = n_images // process_count() * process_count()
        log.info(f"--batch-size {schedule.batch_size} is larger than the training set: reduced to {batch_size}")
    check_batch_size(batch_size)
    return schedule.fitted(n_images, batch_size)
