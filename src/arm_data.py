"""What one arm of the comparison is trained and scored on, checked before anything is trained.

Synthetic images join the training pool only: rows 0..N-1 of the pool are real, N..N+M-1 synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import paths
from data_loader import (
    Dataset,
    ImageSet,
    OfficialTest,
    load_dataset,
    load_images,
    load_official_test,
    name_some,
)
from splits import (
    TEST,
    TRAIN,
    Splits,
    assign_folds,
    assign_validation_part,
    describe_splits,
    load_or_create_splits,
    select,
)
from synthetic import SyntheticSet, load_synthetic
from utils import UserError


@dataclass
class ArmData:
    """Decoded images and their roles.

    ``folds``: int [N], 1..k for each training image; without folds, 1 marks the validation tenth.
    ``unlabelled``: the official test images where they have no labels: predicted, never scored.
    """

    dataset: Dataset
    splits: Splits
    train: ImageSet
    test: ImageSet
    unlabelled: ImageSet | None
    synthetic: SyntheticSet | None
    synthetic_pixels: np.ndarray | None
    folds: np.ndarray

    @property
    def n_real(self) -> int:
        return len(self.train.records)

    def pool(self) -> tuple[np.ndarray, np.ndarray]:
        """All training inputs: uint8 [N + M, S, S] and labels float32 [N + M]."""
        labels = self.train.records["label"].to_numpy(dtype=np.float32)
        if self.synthetic_pixels is None:
            return self.train.pixels, labels.copy()
        extra = np.full(len(self.synthetic_pixels), self.synthetic.label, dtype=np.float32)
        return np.concatenate([self.train.pixels, self.synthetic_pixels]), np.concatenate([labels, extra])

    def synthetic_rows(self, n_real: int, ratio: float | None) -> np.ndarray:
        """Pool rows of the synthetic images that join ``n_real`` real ones: ``ratio`` of each, or all."""
        available = 0 if self.synthetic_pixels is None else len(self.synthetic_pixels)
        n = available if ratio is None else min(available, round(ratio * n_real))
        return self.n_real + np.arange(n)

    def skipped(self) -> dict[str, Any]:
        """Images left out by --skip-bad-images: count and ids."""
        sets = [self.train, self.test, *([self.unlabelled] if self.unlabelled else [])]
        ids = sorted(name for images in sets for name in images.skipped)
        return {"count": len(ids), "image_ids": ids}


def load_arm_data(
    data_dir: str | Path,
    *,
    splits_file: str | Path | None,
    patient_map: str | Path | None,
    test_set: str,
    k_folds: int,
    image_size: int,
    workers: int,
    skip_bad: bool,
    synthetic_dir: str | Path | None,
    allow_unverified: bool,
) -> ArmData:
    """Read, check and decode. ``UserError`` for whatever would make a result wrong or stop training."""
    dataset = load_dataset(data_dir, patient_map)
    splits = load_or_create_splits(dataset, splits_file)
    print(describe_splits(splits))
    official = load_official_test(data_dir, patient_map)
    train_records = select(dataset, splits, TRAIN)
    test_records = _test_records(test_set, dataset, splits, official, train_records)
    synthetic = None
    if synthetic_dir is not None:
        synthetic = _checked_synthetic(synthetic_dir, dataset, test_records, allow_unverified)
    folds = assign_folds(splits, k_folds) if k_folds else assign_validation_part(splits)

    def decode(records: pd.DataFrame, what: str, skip: bool = skip_bad) -> ImageSet:
        return load_images(records, image_size, workers=workers, skip_bad=skip, desc=f"decoding {what}")

    train, test = decode(train_records, "training images"), decode(test_records, "test images")
    for images, what in ((train, "training"), (test, "test")):
        if images.records["label"].nunique() < 2:
            raise UserError(f"the readable {what} images are of one class only: nothing can be measured")
    unlabelled = None
    if official is not None and not official.labelled:
        print(f"official test images are unlabelled ({official.why}): predicted, never scored")
        unlabelled = decode(official.images, "unlabelled images")
    pixels = decode(synthetic.records, "synthetic images", False).pixels if synthetic else None
    train_folds = folds.loc[train.records["image_id"]].to_numpy()
    return ArmData(dataset, splits, train, test, unlabelled, synthetic, pixels, train_folds)


def _test_records(
    test_set: str,
    dataset: Dataset,
    splits: Splits,
    official: OfficialTest | None,
    train_records: pd.DataFrame,
) -> pd.DataFrame:
    """The images that are scored once: the frozen hold-out, or a labelled official test set."""
    if test_set == "split":
        return select(dataset, splits, TEST)
    if official is None or not official.labelled:
        why = official.why if official else f"{paths.TEST_METADATA} is not there"
        raise UserError(f"--test-set official: the official test images have no labels ({why}); use split")
    shared = official.images["patient"].isin(train_records["patient"])
    if shared.any():
        names = name_some(list(official.images.loc[shared, "image_id"]), 3)
        raise UserError(f"--test-set official: {names} show training patients; use --test-set split")
    return official.images


def _checked_synthetic(
    folder: str | Path, dataset: Dataset, test_records: pd.DataFrame, allow_unverified: bool
) -> SyntheticSet:
    patient_of = dict(zip(dataset.images["image_id"], dataset.images["patient"], strict=True))
    test_images = dict(zip(test_records["image_id"], test_records["patient"], strict=True))
    synthetic = load_synthetic(folder, patient_of, test_images, allow_unverified)
    for flag in synthetic.red_flags:
        print(f"RED FLAG: {flag}")
    return synthetic
