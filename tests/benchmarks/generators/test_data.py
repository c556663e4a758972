"""The images that generators learn from and are scored by."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.generators import contender_runs as runs
from benchmarks.generators.contenders import Budget, Contender, Unit
from benchmarks.generators.data import load_benchmark_data
from fake_contenders import COUNT, SIDE
from gan_data import make_dataset
from utils import UserError, load_json


def test_nobody_sees_a_heldout_patient_and_nobody_a_test_image(data):
    learned, heldout = (set(part.records["patient"]) for part in (data.learned, data.heldout))
    assert not learned & heldout
    assert set(data.training_patients) <= learned and set(data.reference_patients) <= heldout
    split = load_json(data.splits_file)["images"]
    test = {image["patient"] for image in split if image["role"] == "test"}
    assert test and not test & (learned | heldout)
    everybody = {image["patient"] for image in split if image["role"] == "train"}
    assert learned | heldout == everybody
    share = len(data.reference) / (len(data.reference) + len(data.training))
    assert 0.15 < share < 0.25


def test_the_heldout_part_is_the_fold_that_train_gan_leaves_out(data):
    import train_gan
    from gan.training_set import training_part_of

    flags = ["--data-dir", str(data.splits_file.parent), "--fold", "1", "--k-folds", "5"]
    _, splits = training_part_of(train_gan.parse_arguments(flags).images)
    seen = splits.images[(splits.images["role"] == "train") & (splits.images["label"] == 1)]
    assert set(seen["patient"]) == set(data.training_patients)


def test_another_fold_holds_out_others(tmp_path):
    folder = make_dataset(tmp_path / "processed", n_images=320, side=4)
    load = lambda fold: load_benchmark_data(  # noqa: E731
        str(folder), None, None, SIDE, patient_column=None, workers=1, skip_bad=False, cache_dir=None, fold=fold
    )
    first, third = load(1), load(3)
    assert not set(first.heldout.records["patient"]) & set(third.heldout.records["patient"])
    assert first.summary() != third.summary() and "fold 3 of 5" in third.summary()["held_out"]
    setup = runs.RunSetup(third, (), tmp_path, Path(sys.executable), "cpu", COUNT, grace=20.0)
    commands = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run_contender", lambda command, *_: commands.append(" ".join(command)))
        facts = {"precision": "fp32", "perceptual": "off"}
        patch.setattr(runs, "sample_ours", lambda *_: ({"raw": np.zeros(1)}, facts))
        runs.make_unit_images(Unit(Contender("ours-cpu"), 7, Budget(minutes=10)), setup)
    assert "--fold 3 --k-folds 5" in commands[0]


def test_the_summary_names_nobody(data):
    text = json.dumps(data.summary())
    assert not any(name in text for name in [*data.training_patients, *data.learned.records["image_id"]])
    assert data.summary()["learned_positives"] == len(data.training)


def test_too_few_positives_are_refused(tmp_path):
    folder = make_dataset(tmp_path / "data", n_images=90, side=8)
    with pytest.raises(UserError, match="at least 12"):
        load_benchmark_data(
            str(folder), None, None, SIDE, patient_column=None, workers=1, skip_bad=False, cache_dir=None
        )
