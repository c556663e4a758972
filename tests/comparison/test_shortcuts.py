"""The shortcut test: planted classifiers that do and do not call blurry images positive, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from arms.result_files import find_arms
from classifier import InputPipeline, PneumoniaClassifier, predict_batches
from common import paths
from common.file_formats import format_problems
from comparison import final_models, shortcuts
from comparison.file_formats import ShortcutTest
from comparison.final_models import FinalModels, Sources
from comparison.shortcuts import CANNOT_SAY, CLEAR, FLAGGED, NOT_NEEDED, NOT_TESTED, find_shortcuts, judge
from data_loader import ImageSet, load_images
from dataset.records import load_dataset
from dataset.splits import TEST, load_or_create_splits, select
from fake_results import fake_few_labels, write_arm, write_synthetic
from gan_data import save_generator
from phantom.dataset import make_phantom_dataset
from utils import save_csv, save_json, sha256_file

SIZE, SIDE = 48, 12
CONFIG = {"image_size": SIZE, "match_resolution": None}


# --- the statistic ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ci95", "state"),
    [
        ([0.01, 0.2], FLAGGED), ([0.01, 0.9], FLAGGED), ([-0.01, 0.2], CLEAR), ([-0.4, -0.1], CLEAR),
        ([-0.1, 0.41], CANNOT_SAY), ([-2.0, 0.0], CANNOT_SAY),
    ],
)  # fmt: skip
def test_an_interval_is_judged_by_its_lower_end_and_its_width(ci95, state):
    assert judge(ci95) == state


# --- planted classifiers ---------------------------------------------------------------------------
class Planted(nn.Module):
    """Logit: 2 times mean brightness, minus ``dislike`` of sharpness (mean gradient of neighbouring pixels)."""

    def __init__(self, dislike: float) -> None:
        super().__init__()
        self.dislike = dislike

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        gray = images.mean(dim=1)
        sharpness = gray.diff(dim=1).abs().mean(dim=(1, 2)) + gray.diff(dim=2).abs().mean(dim=(1, 2))
        return 2 * gray.mean(dim=(1, 2)) - self.dislike * sharpness


def logits_of(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    inputs = InputPipeline(torch.from_numpy(np.ascontiguousarray(pixels)))
    return predict_batches(model, inputs, np.arange(len(pixels)), batch_size=64, precision="fp32").numpy()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_phantom_dataset(
        tmp_path_factory.mktemp("phantoms") / "data", 120, image_size=64, num_test_images=2, workers=1
    )


class Study:
    """Arms of planted classifiers: their predictions, empty model files, and what a loader finds in them."""

    def __init__(self, data_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data_dir, self.folder, self.models = data_dir, folder, {}
        dataset = load_dataset(data_dir)
        self.records = select(dataset, load_or_create_splits(dataset), TEST)
        self.pixels = load_images(self.records, SIZE).pixels
        monkeypatch.setattr(final_models, "load_classifier", lambda file: self.models[file.name])
        monkeypatch.chdir(folder)

    def add(self, name: str, *dislikes: float, config: dict | None = None, **changes) -> None:
        """Add an arm with a training run for each of ``dislikes``."""
        config = {**CONFIG, **(config or {})}
        metrics = self.folder / "metrics"
        write_arm(metrics, name, self.records, repeats=len(dislikes), config=config, **changes)
        runs = np.stack([logits_of(Planted(dislike), self.pixels) for dislike in dislikes])
        probabilities = 1 / (1 + np.exp(-runs.astype(float)))
        prefixes = [paths.repeat_prefix(f"{name}_", number + 1) for number in range(len(dislikes))]
        for prefix, own in [(f"{name}_", probabilities.mean(axis=0)), *zip(prefixes, probabilities, strict=True)]:
            if prefix == f"{name}_" or len(dislikes) > 1:
                table = self.records.drop(columns="path").assign(probability=own)
                save_csv(paths.test_predictions(metrics, prefix), table)
        for prefix, dislike in zip(prefixes if len(dislikes) > 1 else [f"{name}_"], dislikes, strict=True):
            file = paths.classifier_model(self.folder / "models", prefix)
            file.parent.mkdir(exist_ok=True)
            file.touch()
            self.models[file.name] = Planted(dislike), {"config": config, "frozen": False}

    def sources(self, **changes) -> Sources:
        values = {
            "data_dir": str(self.data_dir), "patient_map": None, "patient_column": None,
            "model_dir": "models", "cache_dir": None, "workers": 1, "seed": 42, "device": torch.device("cpu"),
            **changes,
        }  # fmt: skip
        return Sources(**values)

    def test(self, **changes) -> ShortcutTest:
        """Test the one arm that was trained on synthetic images."""
        (found,) = find_shortcuts(find_arms(self.folder / "metrics"), self.sources(**changes))
        assert format_problems(found, ShortcutTest) == []
        return found


@pytest.fixture
def study(data_dir, tmp_path, monkeypatch) -> Study:
    return Study(data_dir, tmp_path, monkeypatch)


TRAINED = {"n_synthetic": 24, "synthetic": {"side": SIDE}}


def test_a_classifier_that_calls_blurry_images_positive_is_flagged(study):
    study.add("baseline", 0.0)
    study.add("control_duplicate", 0.1)
    study.add("augmented", 4.0, **TRAINED)
    found = study.test()
    assert (found["state"], found["reference"]) == (FLAGGED, "control_duplicate")
    assert found["n_images"] == int((study.records["label"] == 0).sum())
    assert found["ci95"][0] > 0 and found["difference"] == pytest.approx(found["change"] - found["change_in_reference"])
    # By hand: with the brightness unchanged, the change is 3.9 times what the sharpness loses.
    negatives = study.records[study.records["label"] == 0].reset_index(drop=True)
    loss = [
        logits_of(Planted(1.0), load_images(negatives, SIZE, through=side).pixels)
        - logits_of(Planted(0.0), load_images(negatives, SIZE, through=side).pixels)
        for side in (SIDE, None)
    ]
    assert found["difference"] == pytest.approx(3.9 * (loss[0] - loss[1]).mean(), abs=1e-3)
    (flag,) = shortcuts.shortcut_flags([found])
    assert flag.startswith("augmented: BLUR PASSES") and f"--match-resolution {SIDE} in every arm" in flag


@pytest.mark.parametrize(("dislike", "control"), [(0.0, 0.0), (4.0, 4.0), (-4.0, 0.0)])
def test_one_that_does_not_or_no_more_than_without_synthetic_images_is_not(study, dislike, control):
    study.add("baseline", control)
    study.add("augmented", dislike, **TRAINED)
    found = study.test()
    assert found["state"] == CLEAR and "no sign that blur" in found["why"] and found["reference"] == "baseline"
    assert shortcuts.shortcut_flags([found]) == []


def test_with_repeats_the_logits_of_the_runs_are_averaged(study):
    study.add("baseline", 0.0, 0.0)
    study.add("augmented", 0.0, 6.0, **TRAINED)
    twice = study.test()["difference"]
    study.add("augmented", 3.0, **TRAINED)
    study.add("baseline", 0.0)
    assert study.test()["difference"] == pytest.approx(twice, abs=1e-4)


def test_synthetic_negatives_are_tested_on_positives_the_other_way_round(study):
    """Blurry negatives teach that blur means healthy."""
    study.add("baseline", 0.0)
    study.add("augmented", -4.0, n_synthetic=24, synthetic={"side": SIDE, "label": 0})
    found = study.test()
    assert found["state"] == FLAGGED and found["label"] == 0
    assert found["n_images"] == int((study.records["label"] == 1).sum()) and "look more negative" in found["why"]


@pytest.mark.parametrize(
    ("synthetic", "config", "state", "words"),
    [
        ({"side": SIZE}, {}, NOT_NEEDED, "have 48 px, the classifier sees 48 px"),
        ({"side": SIDE}, {"match_resolution": SIDE}, NOT_NEEDED, "reduced to 12 px"),
        ({"side": 64}, {"image_size": 100}, NOT_NEEDED, "real images have 64 px, synthetic ones 64 px"),
        ({}, {}, NOT_TESTED, "do not say how many pixels"),
    ],
)
def test_images_as_sharp_as_real_ones_need_no_test(study, synthetic, config, state, words):
    study.add("baseline", 0.0, config={key: value for key, value in config.items() if key == "image_size"})
    study.add("augmented", 4.0, n_synthetic=24, synthetic=synthetic, config=config)
    found = study.test()
    assert found["state"] == state and words in found["why"] and found["difference"] is None


def test_soft_labels_are_not_tested(study):
    study.add("baseline", 0.0)
    study.add("semi", 4.0, few_labels=fake_few_labels(), **TRAINED)
    found = study.test()
    assert found["state"] == NOT_TESTED and "have soft labels" in found["why"]


def test_what_is_missing_is_named(study):
    study.add("augmented", 4.0, **TRAINED)
    assert "an arm without synthetic images" in study.test()["why"]
    study.add("baseline", 0.0, config={"image_size": 32})
    assert "baseline was trained with another --image-size" in study.test()["why"]
    study.add("baseline", 0.0)
    assert "somewhere holds no dataset" in study.test(data_dir="somewhere")["why"]
    study.models["augmented_resnet50.pth"] = Planted(4.0), {"config": {**CONFIG, "seed": 7}, "frozen": False}
    assert "is not the model whose predictions are compared" in study.test()["why"]
    paths.classifier_model("models", "augmented_").unlink()
    found = study.test()
    assert found["state"] == NOT_TESTED and found["why"].startswith("it needs models/augmented_resnet50.pth")
    assert find_shortcuts({"baseline": find_arms("metrics")["baseline"]}, study.sources()) == []


def test_a_frozen_backbone_gives_the_same_logits_as_the_whole_network(study):
    study.add("baseline", 0.0)
    torch.manual_seed(0)
    model = PneumoniaClassifier(frozen=True).eval()
    pixels = study.pixels[:5]
    images = ImageSet(pd.DataFrame({"image_id": list("abcde")}), pixels, [], key="five")
    arm = find_arms("metrics")["baseline"]
    study.models["baseline_resnet50.pth"] = model, {"config": CONFIG, "frozen": True}
    sources = study.sources()
    scored = FinalModels(arm, sources).mean_logits(images)
    assert scored == pytest.approx(logits_of(model, pixels), rel=1e-3) and len(sources.features) == 1


# --- synthetic negatives ---------------------------------------------------------------------------
def test_synthetic_negatives_stand_beside_real_ones(study):
    folder = Path("data/normal")
    write_synthetic(folder, study.data_dir, count=5, size=SIDE, label=0)
    listed = {
        "dir": str(folder), "n_available": 5, "label": 0, "class": "normal", "verified": True,
        "generator_sha256": "a", "manifest_sha256": sha256_file(paths.synthetic_manifest(folder)),
    }  # fmt: skip
    study.add("baseline", 0.0)
    study.add("augmented", 4.0, n_synthetic=24, synthetic={"side": SIDE, "label": None, "folders": [listed]})
    beside = study.test()["synthetic_negatives"]
    assert (beside["source"], beside["n_images"]) == ("data/normal", 5)
    assert beside["logit_real_reduced"] > beside["logit_real"]


def test_a_generator_that_knows_classes_makes_them_where_there_are_none(study):
    generator = save_generator(Path("generator.pth"), n_classes=3, classes="all", label=None)
    folder = Path("data/positives")
    sha256 = sha256_file(generator)
    write_synthetic(folder, study.data_dir, count=5, size=SIDE, generator="generator.pth", generator_sha256=sha256)
    listed = {
        "dir": str(folder), "n_available": 5, "label": 1, "class": "lung_opacity", "verified": True,
        "generator_sha256": sha256, "manifest_sha256": sha256_file(paths.synthetic_manifest(folder)),
    }  # fmt: skip
    study.add("baseline", 0.0)
    study.add("augmented", 4.0, n_synthetic=24, synthetic={"side": SIDE, "folders": [listed]})
    beside = study.test()["synthetic_negatives"]
    assert (beside["source"], beside["n_images"]) == ("made by generator.pth", shortcuts.MOST_SYNTHETIC)
    save_json(paths.synthetic_manifest(folder), {})  # other images by now
    assert study.test()["synthetic_negatives"] is None
