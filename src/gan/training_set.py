"""The images that a GAN learns from: which ones the flags of train_gan.py leave, decoded, and how often each
is shown. Test images are never read.
"""

from __future__ import annotations

import argparse
import logging
import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from common.arrays import as_tensor
from common.distributed import check_batch_size, process_count
from data_loader import ImageSet, load_images
from dataset.options import cache_folder
from dataset.patients import grouping_sentence
from dataset.records import Dataset, load_dataset
from dataset.splits import TRAIN, Splits, describe_splits, load_or_create_splits, select, training_part
from gan.flags import POSITIVE
from gan.monitor import set_aside
from gan.options import CLASS_NAMES
from gan.setup import TrainingSet
from synthetic.manifest import few_images_flags
from utils import UserError, load_checkpoint

log = logging.getLogger(__name__)


# --- which images ----------------------------------------------------------------------------------
def training_part_of(args: argparse.Namespace) -> tuple[Dataset, Splits]:
    """The dataset, and its split with the training images that --train-fraction and --fold leave."""
    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    return dataset, training_part(splits, args.train_fraction, args.fold, args.k_folds)


def records_to_learn_from(
    args: argparse.Namespace, dataset: Dataset, splits: Splits
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(records to train on, records set aside for metrics) of ``training_part_of``; ``UserError`` if there
    are fewer than two to train on, classes are asked for that the metadata lacks, or --metrics-features has
    seen what the GAN may not see."""
    check_chooser(args, splits)
    if args.conditional:
        require_classes(dataset.images)
    records = select(dataset, splits, TRAIN, label_of(args))
    records, held = without_holdout(records, args.metrics_holdout, splits.seed)
    require_two(args, len(records))
    return records, held


def label_of(args: argparse.Namespace) -> int | None:
    """Of the images to learn from; None: all."""
    return 1 if args.classes == POSITIVE else None


def without_holdout(records: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(records to train on, records set aside): by patient, the same for every run on the same split.

    ``UserError`` if nobody is left on one side of a split that is asked for.
    """
    aside = set_aside(records["patient"], fraction, seed)
    if fraction > 0 and not aside.any():
        n = len(records)
        raise UserError(
            f"--metrics-holdout {fraction:g} of {n} images is no whole patient: give a larger share"
        )
    kept, held = records[~aside], records[aside]
    return kept.reset_index(drop=True), held.reset_index(drop=True)


def require_two(args: argparse.Namespace, n_images: int, n_skipped: int = 0) -> None:
    """``UserError`` if a GAN cannot be trained on so few images."""
    if n_images < 2:
        what = _in_words(args, n_images)
        raise UserError(
            f"a GAN needs at least 2 images; there are {what} to learn from ({n_skipped} skipped): "
            f"`python src/data_loader.py --data-dir {args.data_dir}` shows what is there"
        )


def _in_words(args: argparse.Namespace, n_images: int) -> str:
    return f"{n_images:,} {'images' if label_of(args) is None else 'pneumonia images'}"


def require_classes(records: pd.DataFrame) -> None:
    """``UserError`` unless the metadata tells the three classes of --conditional apart."""
    if missing := set(CLASS_NAMES) - set(records["class"]):
        raise UserError(
            f"--conditional: the metadata has no image of class {' or '.join(sorted(missing))}: add a column "
            "class with the classes of the dataset, or leave --conditional out"
        )


# --- decoded ---------------------------------------------------------------------------------------
def load_training_set(args: argparse.Namespace, device: torch.device) -> TrainingSet:
    """Decode the images of the training split, one per record; ``UserError`` if there are fewer than two."""
    dataset, splits = training_part_of(args)
    log.info(describe_splits(splits))
    records, held = records_to_learn_from(args, dataset, splits)
    images = _decoded(args, records)
    aside = _decoded(args, held) if len(held) else None
    require_two(args, len(images.records), len(images.skipped))
    origin = origin_of(args, images.records, dataset, splits)
    patients = f"{len(origin['train_patients']):,} patients or groups"
    what = _in_words(args, len(images.records))
    log.info(f"training on {what} of {patients}; {grouping_sentence(dataset.grouped_by)}")
    flags = few_images_flags(len(images.records))
    for flag in flags:
        log.warning(f"RED FLAG: {flag}")
    return TrainingSet(
        as_tensor(images.pixels).to(device), origin, images.skipped, flags,
        patients=[str(name) for name in images.records["patient"]],
        labels=_labels(args, images, device),
        images=images,
        holdout=None if aside is None else aside.pixels,
        holdout_labels=None if aside is None else _labels(args, aside, device),
    )  # fmt: skip


def check_chooser(args: argparse.Namespace, splits: Splits) -> None:
    """``UserError`` if the classifier of --metrics-features, which chooses generator_best.pth, has learned
    from images that this GAN is to be kept away from: of test patients, of its fold, or beyond its fraction.
    """
    if args.metrics_features is None:
        return
    checkpoint = load_checkpoint(args.metrics_features)
    config = checkpoint["config"]
    name = f"--metrics-features {args.metrics_features}"
    if checkpoint["split_sha256"] != splits.sha256:
        raise UserError(
            f"{name} was trained on another split and may have seen the test patients: leave it out"
        )
    if config.get("train_fraction", 1.0) > args.train_fraction:
        raise UserError(
            f"{name} has learned from patients beyond --train-fraction {args.train_fraction:g}: give a "
            "classifier of the same fraction, or leave it out"
        )
    if args.fold is not None and (checkpoint.get("fold"), config.get("k_folds")) != (args.fold, args.k_folds):
        raise UserError(f"{name} has learned from images of fold {args.fold} of {args.k_folds}: leave it out")


def _decoded(args: argparse.Namespace, records: pd.DataFrame) -> ImageSet:
    return load_images(
        records, args.image_size,
        workers=args.workers, skip_bad=args.skip_bad_images,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
    )  # fmt: skip


def _labels(args: argparse.Namespace, images: ImageSet, device: torch.device) -> Tensor | None:
    return class_numbers(images.records).to(device) if args.conditional else None


def class_numbers(records: pd.DataFrame) -> Tensor:
    """int64 [N]: the number of each image's class in ``CLASS_NAMES``."""
    return torch.tensor([CLASS_NAMES.index(name) for name in records["class"]])


def origin_of(
    args: argparse.Namespace, records: pd.DataFrame, dataset: Dataset, splits: Splits
) -> dict[str, Any]:
    """Whose images a generator has seen: what later steps need to keep it away from test patients."""
    return {
        "classes": args.classes,
        "label": label_of(args),
        "train_image_ids": [str(name) for name in records["image_id"]],
        "train_patients": sorted({str(name) for name in records["patient"]}),
        "data_sha256": dataset.data_sha256,
        "split_sha256": splits.sha256,
        "grouped_by": dataset.grouped_by,
        "train_fraction": args.train_fraction,
        "fold": args.fold,
        "k_folds": args.k_folds,
    }


# --- how often they are shown ----------------------------------------------------------------------
def fit_batch_size(batch_size: int, n_images: int) -> int:
    """``batch_size``, or the number of images if that is smaller, with a notice; always a number that the
    processes can share evenly. ``UserError`` if there is none."""
    if batch_size > n_images:
        largest = n_images // process_count() * process_count()
        log.info(f"--batch-size {batch_size} is larger than the training set: reduced to {largest}")
        batch_size = largest
    check_batch_size(batch_size)
    return batch_size


def count_epochs(epochs: int, kimg: float | None, n_images: int, batch_size: int) -> int:
    """``epochs``, or as many as show ``kimg`` thousand images; an epoch leaves out an incomplete batch."""
    images_per_epoch = n_images // batch_size * batch_size
    return epochs if kimg is None else math.ceil(kimg * 1000 / images_per_epoch)
