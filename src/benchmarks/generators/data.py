"""Images of the comparison of generators: positives to learn from, and those of other patients to score by.

The held-out part is one fold of 5 of the training images, stratified by label, with whole patients: the fold
that ``train_gan.py --fold F --k-folds 5`` leaves out. Test images are never read. Choose options on one fold
and compare them with others on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from benchmarks.file_formats import BenchmarkImages
from data_loader import LABELLED, ImageSet, judge_pictures, load_images
from dataset.records import load_dataset
from dataset.splits import TRAIN, VALIDATION, load_or_create_splits, select, training_part
from utils import UserError, sha256_json

K_FOLDS = 5
FEWEST = 12  # held-out positives: neighbourhoods of 5 among fewer mean nothing


class Origin(TypedDict):
    """Identity of the dataset and its split."""

    data_sha256: str
    split_sha256: str
    grouped_by: str


@dataclass(frozen=True)
class BenchmarkData:
    """Images of the training split, of both labels.

    ``learned``: the four fifths that contenders and the scorer may see. ``heldout``: the fifth that nobody
    sees, ``fold`` of ``K_FOLDS``. ``splits_file``: where the split lies. ``origin``: checksums of data and
    split, and how images of one person are recognised.
    """

    learned: ImageSet
    heldout: ImageSet
    image_size: int
    splits_file: Path
    origin: Origin
    fold: int = 1

    @property
    def training(self) -> np.ndarray:
        """Positives to learn from, uint8 [N, S, S]."""
        return np.ascontiguousarray(self.learned.pixels[_positive(self.learned)])

    @property
    def training_patients(self) -> np.ndarray:
        """Patient of each positive to learn from."""
        return self.learned.records["patient"].to_numpy(dtype=str)[_positive(self.learned)]

    @property
    def reference(self) -> np.ndarray:
        """Held-out positives, uint8 [M, S, S]."""
        return np.ascontiguousarray(self.heldout.pixels[_positive(self.heldout)])

    @property
    def reference_patients(self) -> np.ndarray:
        """Patient of each held-out positive."""
        return self.heldout.records["patient"].to_numpy(dtype=str)[_positive(self.heldout)]

    def key(self) -> str:
        """Identify the pixels and the parts they are in."""
        return sha256_json([self.learned.key, self.heldout.key, self.origin])

    def summary(self) -> BenchmarkImages:
        """Describe the data for the result file, without the names of patients or images."""
        return {
            "image_size": self.image_size,
            **self.origin,
            "held_out": f"fold {self.fold} of {K_FOLDS} of the training images, by patient",
            "learned_positives": len(self.training),
            "learned_patients": len(set(self.training_patients)),
            "heldout_positives": len(self.reference),
            "heldout_patients": len(set(self.reference_patients)),
            "scorer_images": len(self.learned.records),
        }


def _positive(images: ImageSet) -> np.ndarray:
    return images.records["label"].to_numpy() == 1


def load_benchmark_data(
    data_dir: str, splits: str | None, patient_map: str | None, image_size: int, *, patient_column: str | None,
    workers: int, skip_bad: bool, cache_dir: str | None, fold: int = 1,
    bits: int | None = None,
) -> BenchmarkData:  # fmt: skip
    """Decode the images of the training split; raises ``UserError`` if too few are held out."""
    dataset = load_dataset(data_dir, patient_map, patient_column)
    frozen = load_or_create_splits(dataset, splits, cache_dir)
    parts = training_part(frozen, 1.0, fold, K_FOLDS)
    learned, heldout = (
        load_images(
            select(dataset, parts, role), image_size, workers=workers, skip_bad=skip_bad, cache_dir=cache_dir, bits=bits
        )
        for role in (TRAIN, VALIDATION)
    )
    judge_pictures([learned, heldout], LABELLED, bits)
    origin: Origin = {
        "data_sha256": dataset.data_sha256,
        "split_sha256": frozen.sha256,
        "grouped_by": dataset.grouped_by,
    }
    if (n := int(_positive(heldout).sum())) < FEWEST:
        raise UserError(
            f"{n} of the training positives are held out, too few to score generators by; use a dataset in "
            f"which one fifth of them is at least {FEWEST}"
        )
    return BenchmarkData(learned, heldout, image_size, frozen.path, origin, fold)
