"""The images that one arm of the comparison is trained and scored on, checked before anything is trained.

Synthetic images join the training pool only: its first N rows are the real training images, then come the
synthetic ones, those of the generator that saw all training images first, then those made for single folds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arms.file_formats import SkippedImages
from arms.registry import Addition, FitImages, Synthetic, Treatment
from common import paths
from data_loader import LABELLED, OFFICIAL, SYNTHETIC, ImageSet, judge_pictures, load_images
from dataset.hidden_labels import FewLabels, draw_labelled, hide_labels
from dataset.image_ids import name_some
from dataset.patients import GROUPED_BY_PATIENT
from dataset.records import Dataset, OfficialTest, load_dataset, load_official_test
from dataset.splits import (
    TEST,
    TRAIN,
    Splits,
    assign_folds,
    assign_validation_part,
    describe_splits,
    load_or_create_splits,
    reduce_training,
    select,
    twin_flags,
)
from synthetic.copy_checks import copy_flags
from synthetic.folders import SyntheticSet, join_folders, load_synthetic, resolution_flag
from synthetic.leak_checks import extra_patients_flag, known_patients
from utils import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """Which images are read, and how; the fields are options of train_classifier.py.

    ``splits`` and ``patient_map``: None for the files in ``data_dir``. ``k_folds``: 0 for one validation
    tenth. ``match_resolution``: side in pixels that every image is reduced to first, None for no reduction.
    ``bits``: how many bits of 16-bit images are in use, None for all.
    ``cache_dir``: folder of decoded images and features, None for no cache. ``few``: whose labels are known, None for
    all.
    """

    data_dir: str
    splits: str | None
    patient_map: str | None
    patient_column: str | None
    test_set: str
    train_fraction: float
    k_folds: int
    image_size: int
    match_resolution: int | None
    workers: int
    skip_bad_images: bool
    bits: int | None
    cache_dir: str | None
    few: FewLabels | None = None


@dataclass(frozen=True)
class SyntheticUse:
    """What an arm does with synthetic images.

    ``ratio``: synthetic images per real one, of each folder in proportion to what it holds; None for all.
    """

    treatment: Treatment
    folders: tuple[str, ...] = ()
    ratio: float | None = None
    allow_unverified: bool = False

    @property
    def trained_on(self) -> bool:
        """Tell whether the images join training."""
        return self.treatment.kind.synthetic is Synthetic.TRAINED_ON


@dataclass
class ArmData:
    """Decoded images and their roles.

    ``folds``: int [N], 1..k for each training image; without folds, 1 marks the validation tenth.
    ``unlabelled``: the official test images where they have no labels: predicted, never scored.
    ``synthetic``: by fold; 0 holds the images of the generator that saw all training images, used by the
    final model and by every fold that has none of its own. ``synthetic_images`` has the same keys, or none
    if the images are only counted (for a control). ``few``: how many patients' labels are known, None for all; the
    others' are NaN in ``train``.

    The pool that is drawn from is the training images, then the synthetic ones in the order of their keys.
    """

    dataset: Dataset
    splits: Splits
    train: ImageSet
    test: ImageSet
    unlabelled: ImageSet | None
    synthetic: dict[int, SyntheticSet]
    synthetic_images: dict[int, ImageSet]
    folds: np.ndarray
    use: SyntheticUse
    few: FewLabels | None = None

    @property
    def n_real(self) -> int:
        """Number of real training images, N, those with hidden labels included."""
        return len(self.train.records)

    @property
    def epoch_images(self) -> int:
        """Number of images that an epoch of all labelled images shows."""
        return self.few.patients if self.few else self.n_real

    def labels(self) -> np.ndarray:
        """Return the labels of the real training images, int [N]; float with NaN where some are hidden."""
        return self.train.records["label"].to_numpy()

    def labelled_rows(self) -> np.ndarray:
        """Return the rows of the real training images whose labels are known: all, but with ``few``."""
        return np.flatnonzero(~np.isnan(self.labels()))

    def unlabelled_rows(self) -> np.ndarray:
        """Return the rows of the real training images whose labels are hidden."""
        return np.flatnonzero(np.isnan(self.labels()))

    def labelled_images(self) -> ImageSet:
        """Return the real training images whose labels are known."""
        if not self.few:
            return self.train
        rows = self.labelled_rows()
        records = self.train.records.iloc[rows].reset_index(drop=True)
        return ImageSet(records.astype({"label": int}), self.train.pixels[rows], [])

    def pool(self) -> list[ImageSet]:
        """Return all training inputs, N + M images."""
        return [self.train, *self.synthetic_images.values()]

    def pool_pixels(self) -> np.ndarray:
        """Return the pixels of the pool, uint8 [N + M, S, S]; a copy only if there are synthetic images."""
        pixels = [images.pixels for images in self.pool()]
        return pixels[0] if len(pixels) == 1 else np.concatenate(pixels)

    def pool_labels(self) -> np.ndarray:
        """Return the labels of the pool, float32 [N + M]."""
        return np.concatenate([images.records["label"].to_numpy(dtype=np.float32) for images in self.pool()])

    def synthetic_of(self, fold: int) -> SyntheticSet | None:
        """Return the images made without fold ``fold``, or else those of the generator that saw all."""
        return self.synthetic.get(fold, self.synthetic.get(0))

    def synthetic_labels(self, fold: int, n_real: int) -> np.ndarray:
        """Labels, int [n], of the synthetic images that belong to ``n_real`` real ones in ``fold``.

        Images without labels have NaN; there are no more of them than of real images with hidden labels.
        """
        source, kind = self.synthetic_of(fold), float if self.few else int
        labels = source.records["label"].to_numpy(dtype=kind) if source else np.empty(0, kind)
        if self.few:
            labels = labels[: len(self.unlabelled_rows())]
        return labels if self.use.ratio is None else labels[: round(self.use.ratio * n_real)]

    def final_synthetic_labels(self) -> np.ndarray:
        """Return the labels of the synthetic images that belong to all labelled real ones, as above."""
        return self.synthetic_labels(0, len(self.labelled_rows()))

    def _synthetic_rows(self, fold: int, n: int) -> np.ndarray:
        """Return the rows of the pool of the first ``n`` synthetic images of ``fold``."""
        first, own = self.n_real, fold if fold in self.synthetic_images else 0
        for other, images in self.synthetic_images.items():
            if other == own:
                break
            first += len(images.records)
        return first + np.arange(n)

    def addition(self, train_rows: np.ndarray, fold: int, name: str, seed: int) -> Addition:
        """Return what the arm adds to the real images ``train_rows`` in ``fold``; see ``FitImages``."""
        labels = self.synthetic_labels(fold, len(train_rows))
        rows = self._synthetic_rows(fold, len(labels) if self.use.trained_on else 0)
        images = FitImages(name, seed, train_rows, self.labels()[train_rows], rows, labels, self.unlabelled_rows())
        return self.use.treatment.kind.add(images)

    def final_addition(self, seed: int) -> Addition:
        """Return what the arm adds to all labelled real training images."""
        return self.addition(self.labelled_rows(), 0, "final", seed)

    def softly_labelled(self) -> tuple[ImageSet, int] | None:
        """Return the images that an ensemble labels, and the row of the pool of the first; None for most arms.

        Images among them whose labels are known keep these.
        """
        if not self.use.treatment.kind.soft_labels:
            return None
        return (self.synthetic_images[0], self.n_real) if self.use.trained_on else (self.train, 0)

    def skipped(self) -> SkippedImages:
        """Return the images left out by --skip-bad-images."""
        sets = [self.train, self.test, *([self.unlabelled] if self.unlabelled else [])]
        ids = sorted(name for images in sets for name in images.skipped)
        return {"count": len(ids), "image_ids": ids}


def load_arm_data(options: DataOptions, use: SyntheticUse, check_split: Callable[[str], Any] | None = None) -> ArmData:
    """Read, check and decode the images. Raises ``UserError`` for what would make the training wrong.

    ``check_split`` is called with the SHA-256 of the split before anything is decoded.
    """
    dataset = load_dataset(options.data_dir, options.patient_map, options.patient_column)
    splits = load_or_create_splits(dataset, options.splits, options.cache_dir)
    if check_split:
        check_split(splits.sha256)
    if options.train_fraction < 1:
        splits = reduce_training(splits, options.train_fraction)
    dataset.red_flags.extend(twin_flags(dataset, splits, options.k_folds, options.cache_dir))
    log.info(describe_splits(splits))
    dataset.log_findings()
    official = load_official_test(options.data_dir, options.patient_map, options.patient_column)
    train_records = select(dataset, splits, TRAIN)
    if options.few:
        train_records = hide_labels(train_records, draw_labelled(train_records, options.few))
    test_records = _test_records(options.test_set, dataset, splits, official, train_records)
    synthetic = {}
    if use.folders:
        patient_of = known_patients(dataset, official)
        by_nih = dataset.grouped_by == GROUPED_BY_PATIENT
        synthetic = _checked_synthetic(use, options, patient_of, by_nih, train_records, test_records)
    folds = _folds_of(train_records, splits, options)  # too few patients end here, before images are decoded

    def decode(records: pd.DataFrame, what: str, skip: bool = options.skip_bad_images) -> ImageSet:
        size, workers, cache_dir = options.image_size, options.workers, options.cache_dir
        desc = f"decoding {what}"
        return load_images(
            records, size, workers=workers, skip_bad=skip, desc=desc, cache_dir=cache_dir,
            through=options.match_resolution, bits=options.bits,
        )  # fmt: skip

    train, test = decode(train_records, "training images"), decode(test_records, "test images")
    for images, what in ((train, "training"), (test, "test")):
        if images.records["label"].nunique() < 2:
            raise UserError(f"the readable {what} images are of one class only; add images of the other class")
    unlabelled = None
    if official is not None and not official.labelled:
        log.info(f"official test images are unlabelled ({official.why}): predicted, never scored")
        unlabelled = decode(official.images, "unlabelled images", True)
        if unlabelled.skipped:
            named = name_some([f"{image_id}: {reason}" for image_id, reason in unlabelled.reasons.items()], 5)
            log.warning(f"WARNING: official test: {named} missing or unreadable and not predicted")
    decoded = {
        fold: decode(found.records, f"synthetic images{f' of fold {fold}' if fold else ''}", False)
        for fold, found in synthetic.items()
        if use.trained_on
    }
    train_folds = folds.loc[train.records["image_id"]].to_numpy()
    data = ArmData(dataset, splits, train, test, unlabelled, synthetic, decoded, train_folds, use, options.few)
    dataset.red_flags.extend(_judge_pictures(data, options))
    for fold, flags in copy_flags(decoded, test, train, train_folds, use.allow_unverified, options.cache_dir).items():
        synthetic[fold].red_flags.extend(flags)
    return data


def _folds_of(train: pd.DataFrame, splits: Splits, options: DataOptions) -> pd.Series:
    """Return the fold of each training image, by image_id; 0 where few labels are known, which are not divided."""
    if options.few:
        return pd.Series(0, index=train["image_id"])
    return assign_folds(splits, options.k_folds) if options.k_folds else assign_validation_part(splits)


def _judge_pictures(data: ArmData, options: DataOptions) -> list[str]:
    """Return red flags of the pictures. Raises ``UserError`` if the labelled ones cannot be learned from."""
    bits, of_split = options.bits, options.test_set == "split"
    flags = judge_pictures([data.train, data.test] if of_split else [data.train], LABELLED, bits)
    official = data.unlabelled if of_split else data.test
    if official is not None:
        flags += judge_pictures([official], OFFICIAL, bits, like=data.train, strict=not of_split)
    made = list(data.synthetic_images.values())
    return flags + judge_pictures(made, SYNTHETIC, bits, like=data.train, strict=False)


def _test_records(
    test_set: str, dataset: Dataset, splits: Splits, official: OfficialTest | None, train: pd.DataFrame
) -> pd.DataFrame:
    """Return the images that are scored once: the frozen hold-out, or a labelled official test set."""
    if test_set == "split":
        return select(dataset, splits, TEST)
    if official is None or not official.labelled:
        why = official.why if official else f"{paths.TEST_METADATA} is not there"
        raise UserError(f"--test-set official: the official test images have no labels ({why}); use --test-set split")
    shared = official.images["patient"].isin(train["patient"])
    if shared.any():
        names = name_some(list(official.images.loc[shared, "image_id"]), 3)
        raise UserError(f"--test-set official: {names} show training patients; use --test-set split")
    return official.images


def _checked_synthetic(
    use: SyntheticUse,
    options: DataOptions,
    patient_of: dict[str, str],
    by_nih: bool,
    train: pd.DataFrame,
    test: pd.DataFrame,
) -> dict[int, SyntheticSet]:
    """Load the images of all folders together (key 0) and those of their fold folders."""
    allow_unverified = use.allow_unverified or not use.trained_on  # counting does no harm
    test_images = dict(zip(test["image_id"], test["patient"], strict=True))

    def load(place: Path) -> SyntheticSet:
        images = load_synthetic(place, patient_of, test_images, allow_unverified, by_nih, labelled=not options.few)
        if flag := extra_patients_flag(place, images.generator_patients, set(train["patient"])):
            images.red_flags.append(flag)
        return images

    found = join_folders([_sets_of_folder(Path(folder), options.k_folds, load) for folder in use.folders])
    for images in found.values():
        if flag := resolution_flag(images, list(train["path"]), options.image_size, options.match_resolution):
            images.red_flags.append(flag)
    for flag in {flag: None for images in found.values() for flag in images.red_flags}:
        log.warning(f"RED FLAG: {flag}")
    if use.trained_on:
        return found
    return {fold: replace(images, red_flags=[]) for fold, images in found.items()}


def _sets_of_folder(folder: Path, k_folds: int, load: Callable[[Path], SyntheticSet]) -> dict[int, SyntheticSet]:
    """Load the images of ``folder`` (key 0) and of those of its fold folders that are there."""
    folders = {fold: paths.synthetic_fold(folder, fold) for fold in range(1, k_folds + 1)}
    there = {fold: place for fold, place in folders.items() if paths.synthetic_manifest(place).is_file()}
    found = {fold: load(place) for fold, place in ({0: folder} | there).items()}
    labels = {images.label for images in found.values()}
    classes = {images.class_flag for images in found.values()} - {None}  # of generators that know classes
    if len(labels) > 1 or len(classes) > 1:
        raise UserError(
            f"{folder}: its fold folders hold images of other labels or classes than the folder itself; "
            "make the images of all of them with the same --label"
        )
    return found
