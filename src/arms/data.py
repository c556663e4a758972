"""The images that one arm of the comparison is trained and scored on, checked before anything is trained.

Synthetic images join the training pool only: its first N rows are the real training images, then come the
synthetic ones, those of the generator that saw all training images first, then those made for single folds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from arms.registry import Synthetic, Treatment
from arms.treatments import Addition, FitImages
from common import paths
from data_loader import ImageSet, load_images
from dataset.file_formats import SkippedImages
from dataset.records import Dataset, OfficialTest, load_dataset, load_official_test, name_some
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
)
from synthetic.folders import SyntheticSet, join_folders, load_synthetic
from synthetic.leak_checks import extra_patients_flag, known_patients
from utils import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataOptions:
    """Which images are read, and how; the fields are options of train_classifier.py.

    ``splits`` and ``patient_map``: None for the files in ``data_dir``. ``k_folds``: 0 for one validation
    tenth. ``cache_dir``: folder of decoded images and features, None for no cache.
    """

    data_dir: str
    splits: str | None
    patient_map: str | None
    test_set: str
    train_fraction: float
    k_folds: int
    image_size: int
    workers: int
    skip_bad_images: bool
    cache_dir: str | None


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
    if the images are only counted (for a control).

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

    @property
    def n_real(self) -> int:
        """Number of real training images, N."""
        return len(self.train.records)

    def labels(self) -> np.ndarray:
        """Return the labels of the real training images, int [N]."""
        return self.train.records["label"].to_numpy()

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
        """Labels, int [n], of the synthetic images that belong to ``n_real`` real ones in ``fold``."""
        source = self.synthetic_of(fold)
        labels = source.records["label"].to_numpy(dtype=int) if source else np.empty(0, dtype=int)
        return labels if self.use.ratio is None else labels[: round(self.use.ratio * n_real)]

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
        images = FitImages(
            name,
            seed,
            real_rows=train_rows,
            real_labels=self.labels()[train_rows],
            synthetic_rows=self._synthetic_rows(fold, len(labels) if self.use.trained_on else 0),
            synthetic_labels=labels,
        )
        return self.use.treatment.kind.add(images)

    def final_addition(self, seed: int) -> Addition:
        """Return what the arm adds to all real training images."""
        return self.addition(np.arange(self.n_real), 0, "final", seed)

    def skipped(self) -> SkippedImages:
        """Return the images left out by --skip-bad-images."""
        sets = [self.train, self.test, *([self.unlabelled] if self.unlabelled else [])]
        ids = sorted(name for images in sets for name in images.skipped)
        return {"count": len(ids), "image_ids": ids}


def load_arm_data(options: DataOptions, use: SyntheticUse) -> ArmData:
    """Read, check and decode the images of an arm.

    Raises ``UserError`` if something would make a result wrong or stop training.
    """
    dataset = load_dataset(options.data_dir, options.patient_map)
    splits = load_or_create_splits(dataset, options.splits)
    if options.train_fraction < 1:
        splits = reduce_training(splits, options.train_fraction)
    log.info(describe_splits(splits))
    official = load_official_test(options.data_dir, options.patient_map)
    train_records = select(dataset, splits, TRAIN)
    test_records = _test_records(options.test_set, dataset, splits, official, train_records)
    synthetic = {}
    if use.folders:
        patient_of = known_patients(dataset, official)
        synthetic = _checked_synthetic(use, patient_of, train_records, test_records, options.k_folds)
    folds = assign_folds(splits, options.k_folds) if options.k_folds else assign_validation_part(splits)

    def decode(records: pd.DataFrame, what: str, skip: bool = options.skip_bad_images) -> ImageSet:
        return load_images(
            records,
            options.image_size,
            workers=options.workers,
            skip_bad=skip,
            desc=f"decoding {what}",
            cache_dir=options.cache_dir,
        )

    train, test = decode(train_records, "training images"), decode(test_records, "test images")
    for images, what in ((train, "training"), (test, "test")):
        if images.records["label"].nunique() < 2:
            raise UserError(
                f"the readable {what} images are of one class only; add images of the other class"
            )
    unlabelled = None
    if official is not None and not official.labelled:
        log.info(f"official test images are unlabelled ({official.why}): predicted, never scored")
        unlabelled = decode(official.images, "unlabelled images")
    decoded = {
        fold: decode(found.records, f"synthetic images{f' of fold {fold}' if fold else ''}", False)
        for fold, found in synthetic.items()
        if use.trained_on
    }
    train_folds = folds.loc[train.records["image_id"]].to_numpy()
    return ArmData(dataset, splits, train, test, unlabelled, synthetic, decoded, train_folds, use)


def _test_records(
    test_set: str,
    dataset: Dataset,
    splits: Splits,
    official: OfficialTest | None,
    train_records: pd.DataFrame,
) -> pd.DataFrame:
    """Return the images that are scored once: the frozen hold-out, or a labelled official test set."""
    if test_set == "split":
        return select(dataset, splits, TEST)
    if official is None or not official.labelled:
        why = official.why if official else f"{paths.TEST_METADATA} is not there"
        raise UserError(
            f"--test-set official: the official test images have no labels ({why}); use --test-set split"
        )
    shared = official.images["patient"].isin(train_records["patient"])
    if shared.any():
        names = name_some(list(official.images.loc[shared, "image_id"]), 3)
        raise UserError(f"--test-set official: {names} show training patients; use --test-set split")
    return official.images


def _checked_synthetic(
    use: SyntheticUse,
    patient_of: dict[str, str],
    train_records: pd.DataFrame,
    test_records: pd.DataFrame,
    k_folds: int,
) -> dict[int, SyntheticSet]:
    """Load the images of all folders together (key 0) and those of their fold folders."""
    allow_unverified = use.allow_unverified or not use.trained_on  # counting does no harm
    test_images = dict(zip(test_records["image_id"], test_records["patient"], strict=True))
    train_patients = set(train_records["patient"])
    found = join_folders(
        [
            _sets_of_folder(Path(folder), patient_of, train_patients, test_images, k_folds, allow_unverified)
            for folder in use.folders
        ]
    )
    for flag in {flag: None for images in found.values() for flag in images.red_flags}:
        log.warning(f"RED FLAG: {flag}")
    if use.trained_on:
        return found
    return {fold: replace(images, red_flags=[]) for fold, images in found.items()}


def _sets_of_folder(
    folder: Path,
    patient_of: dict[str, str],
    train_patients: set[str],
    test_images: dict[str, str],
    k_folds: int,
    allow_unverified: bool,
) -> dict[int, SyntheticSet]:
    """Load the images of ``folder`` (key 0) and of those of its fold folders that are there."""
    folders = {0: folder} | {fold: paths.synthetic_fold(folder, fold) for fold in range(1, k_folds + 1)}
    found = {}
    for fold, place in folders.items():
        if fold and not paths.synthetic_manifest(place).is_file():
            continue
        images = load_synthetic(place, patient_of, test_images, allow_unverified)
        if flag := extra_patients_flag(place, images.generator_patients, train_patients):
            images.red_flags.append(flag)
        found[fold] = images
    labels = {images.label for images in found.values()}
    classes = {images.class_flag for images in found.values()} - {None}  # of generators that know classes
    if len(labels) > 1 or len(classes) > 1:
        raise UserError(
            f"{folder}: its fold folders hold images of other labels or classes than the folder itself; "
            "make the images of all of them with the same --label"
        )
    return found
