"""Trained classifiers: which may be averaged, and probabilities that are those of their training."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from classifier_runs import METRICS, QUICK, run
from common import paths
from conftest import SMALL
from dataset.images import read_image
from prediction.models import Predictor, load_models, require_one_recipe
from utils import UserError, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("thin_network")


def pixels_of(table, folder):
    return np.stack([read_image(folder / f"{name}.png", 32) for name in table["image_id"]])


def repeats(folder):
    prefixes = [paths.repeat_prefix("baseline_", number) for number in (1, 2)]
    return [paths.classifier_model(folder / "models", prefix, SMALL) for prefix in prefixes]


@pytest.mark.parametrize("whole", [False, True], ids=["frozen", "all layers"])
def test_probabilities_are_those_of_training(whole, trained, tmp_path, monkeypatch, unrendered, request):
    folder = trained
    if whole:
        request.getfixturevalue("thin_network")
        folder = tmp_path
        monkeypatch.chdir(tmp_path)
        options = ["--k-folds", "0", "--repeats", "2", "--epochs-final", "1", "--no-cache"]
        run("--data-dir", str(trained / "data/processed"), *QUICK, *options)
    predictor = Predictor(load_models(repeats(folder)), CPU)
    prefixes = [paths.repeat_prefix("baseline_", number) for number in (1, 2)]
    tables = [pd.read_csv(paths.test_predictions(folder / METRICS, prefix)) for prefix in prefixes]
    pixels = pixels_of(tables[0], paths.training_images(trained / "data/processed"))
    expected = np.stack([table["probability"] for table in tables])
    np.testing.assert_allclose(predictor.probabilities(pixels), expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the runs differ
    assert predictor.probabilities(pixels[:0]).shape == (2, 0)


def test_a_model_counts_once(trained, caplog):
    files = [paths.classifier_model(trained / "models", "baseline_", SMALL), *repeats(trained)]
    models = load_models(files)
    assert [model.file for model in models] == [files[0], files[2]]
    assert "is the same classifier" in caplog.text
    require_one_recipe(models)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"split_sha256": "other"}, "they were trained on different splits"),
        ({"prefix": "augmented_"}, "they are of different arms"),
        ({"recipe_sha256": "other"}, "they were trained with different options"),
        ({"fold": 1}, "one of them was trained without a fold"),
    ],
)
def test_others_are_not_averaged(changes, problem, trained, tmp_path):
    first, second = repeats(trained)
    content = load_checkpoint(second) | changes
    save_checkpoint(tmp_path / "other.pth", content)
    with pytest.raises(UserError, match=problem):
        require_one_recipe(load_models([first, tmp_path / "other.pth"]))


def test_a_checkpoint_without_its_recipe_is_refused(trained, tmp_path):
    content = load_checkpoint(repeats(trained)[0])
    del content["recipe_sha256"]
    save_checkpoint(tmp_path / "old.pth", content)
    with pytest.raises(UserError, match=r"old.pth: recipe_sha256 is missing; train it again"):
        load_models([tmp_path / "old.pth"])


def test_other_files_end_in_one_line(tmp_path, trained):
    shutil.copy(paths.test_predictions(trained / METRICS, "baseline_"), tmp_path / "table.pth")
    for name in ("absent.pth", "table.pth"):
        with pytest.raises(UserError, match=name):
            load_models([tmp_path / name])
