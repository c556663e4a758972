"""A study as an analysis knows it, from made-up results: for tests of the files for authors and reviewers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from arms.result_files import find_arms
from comparison.arms import compare_arms
from dataset.file_formats import Provenance
from dataset.records import Dataset
from dataset.splits import TEST, TRAIN, Splits
from fake_results import SPLIT, fake_out_of_fold, fake_records, write_arm
from report.patient_flow import DataFolder, count_flow
from report.study import Study


def make_study(metrics_dir: Path, data_dir: Path | None = None) -> Study:
    """A study of the arms in ``metrics_dir``, with the data folder of ``fake_results`` if one is given."""
    arms, data = find_arms(metrics_dir), None
    if data_dir is not None:
        parts = fake_out_of_fold(3).assign(role=TRAIN), fake_records().assign(role=TEST)
        images = pd.concat(parts, ignore_index=True)
        dataset = Dataset(data_dir, images.drop(columns="role"), "nih_patient", "d" * 64, len(images), 7)
        columns = ["image_id", "patient", "label", "class", "role"]
        data = DataFolder(dataset, Splits(images[columns], "nih_patient", 42, SPLIT, Path("splits.json"), False))
    flow = count_flow(arms, data)
    comparison = compare_arms(arms, n_resamples=40)
    commands = [("Train the arm", "python src/train_classifier.py --epochs 3")]
    return Study(comparison, arms, flow, data, flags=comparison["flags"], commands=commands)


def fake_provenance(**left_out: int) -> Provenance:
    """What an import of the 480 labelled images of ``make_study`` would have written."""
    return {
        "version": 1, "product_version": "0.1.0", "complete": True, "date": "2026-01-02", "layout": "folders",
        "data_set": "Kermany",
        "positive": {"names": ["PNEUMONIA"], "negative": ["NORMAL"], "uncertain": "",
                     "labelled_by": "two physicians", "sentence": "images in folders called PNEUMONIA"},
        "images": {"labelled": 480, "positive": 120, "official_test": 40, "official_positive": None, "linked": 100,
                   "copied": 0, "rewritten": 420, "padded": 0, "padding_positive": 0.0, "padding_negative": 0.0,
                   "left_out": left_out},
        "patients": {"source": "file names", "known": 361, "unknown_images": 7, "pseudonyms": True, "key": None},
        "names": "hashed", "source_sha256": "0" * 64, "tables_sha256": {}, "settings_sha256": "0" * 64,
        "red_flags": [],
    }  # fmt: skip


def two_arms(folder: Path) -> Study:
    """A study of baseline and augmented, whose files and data are in ``folder``."""
    config = {"epochs": 9, "image_size": 224, "lr": 0.001, "weights": "imagenet", "unfreeze": False,
              "backbone": "densenet121"}  # fmt: skip
    write_arm(folder, "baseline", fake_records(), folds=3, config=config, environment={"torch": "2.15.0"})
    write_arm(folder, "augmented", fake_records(), seed=1, n_synthetic=24, config=config)
    return make_study(folder, folder)
