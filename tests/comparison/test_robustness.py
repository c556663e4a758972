"""Robustness with planted classifiers whose answer to a perturbation is known; what is kept, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import expit
from torch import nn

from arms.result_files import find_arms
from classifier import PneumoniaClassifier
from common import paths
from common.file_formats import format_problems
from comparison import final_models, robustness
from comparison.arms import compare_arms
from comparison.final_models import Sources
from comparison.perturbations import PERTURBATIONS
from comparison.reviewer_file_formats import Robustness
from comparison.robustness import draw_by_patient, measure_robustness
from data_loader import load_images
from fake_results import fake_records, write_arm
from stats.bootstrap import bootstrap_mean
from stats.metrics import auroc
from utils import UserError, plain, save_csv

SIZE = 32
CONFIG = {"image_size": SIZE, "match_resolution": None}


class Planted(nn.Module):
    """Logit: ``slope`` times the mean brightness (0 to 1) over ``level``."""

    calls = 0

    def __init__(self, slope: float, level: float = 0.45) -> None:
        super().__init__()
        self.slope, self.level = slope, level

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Planted.calls += 1
        gray = images[:, 0] * 0.229 + 0.485  # undo ImageNet's mean and SD
        return self.slope * (gray.mean(dim=(1, 2)) - self.level)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> pd.DataFrame:
    """60 test images of 30 patients, a third positive and brighter, with files."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    made = fake_records(60)
    made["label"] = [int(number // 2 % 3 == 0) for number in range(60)]
    for image_id, label in zip(made["image_id"], made["label"], strict=True):
        mean = rng.normal(100 + 30 * label, 25)
        pixels = rng.normal(mean, 30, (48, 48)).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
    return made.assign(path=[folder / f"{image_id}.png" for image_id in made["image_id"]])


class Study:
    """Arms of planted classifiers, their predictions, and model files that stand for them."""

    def __init__(self, records: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.models, self.records = folder, {}, records
        known = records[["image_id", "patient", "label", "path"]]
        monkeypatch.setattr(robustness, "find_test_records", lambda arm, sources: known)
        self.pixels = load_images(self.records, SIZE).pixels
        monkeypatch.setattr(final_models, "load_classifier", lambda file: self.models[file.name])
        monkeypatch.chdir(folder)
        self.sources = Sources("data", None, None, "models", str(folder / "cache"), 1, 42, torch.device("cpu"))
        Planted.calls = 0

    def add(self, name: str, *slopes: float) -> None:
        """Add an arm with a training run for each of ``slopes``."""
        write_arm(self.folder / "metrics", name, self.records, repeats=len(slopes), config=CONFIG)
        gray = self.pixels.mean(axis=(1, 2)) / 255
        runs = np.stack([expit(slope * (gray - 0.45)) for slope in slopes])
        prefixes = [paths.repeat_prefix(f"{name}_", number) for number in range(1, len(slopes) + 1)]
        for prefix, own in [(f"{name}_", runs.mean(axis=0)), *zip(prefixes, runs, strict=True)]:
            if prefix == f"{name}_" or len(slopes) > 1:
                table = self.records.drop(columns="path").assign(probability=own)
                save_csv(paths.test_predictions(self.folder / "metrics", prefix), table)
        for prefix, slope in zip(prefixes if len(slopes) > 1 else [f"{name}_"], slopes, strict=True):
            file = paths.classifier_model(self.folder / "models", prefix)
            file.parent.mkdir(exist_ok=True)
            file.write_text(prefix + str(slope))  # another model has another sha256
            self.models[file.name] = Planted(slope), {"config": CONFIG, "frozen": False}

    def measure(self, n_images: int = 40) -> Robustness:
        self.arms = find_arms(self.folder / "metrics")
        self.content = compare_arms(self.arms, n_resamples=60)
        found = measure_robustness(self.arms, self.content, n_images, self.sources)
        assert format_problems(json.loads(json.dumps(plain(found))), Robustness) == []
        return found


@pytest.fixture
def study(records, tmp_path, monkeypatch) -> Study:
    return Study(records, tmp_path, monkeypatch)


def of(found, name):
    return next(row for row in found["perturbations"] if row["name"] == name)


def test_changes_are_those_of_the_planted_classifiers(study):
    study.add("baseline", 8.0, 12.0)
    study.add("augmented", 0.0, 0.0)
    found = study.measure()
    drawn = draw_by_patient(study.arms["baseline"].predictions, 40, 42)
    assert found["n_images"] == len(drawn) >= 40 and found["n_positive"] == drawn["label"].sum()
    rows = pd.Index(study.records["image_id"]).get_indexer(drawn["image_id"])
    pixels, labels = study.pixels[rows], drawn["label"].to_numpy()

    def probabilities(images):
        gray = images.reshape(len(images), -1).mean(axis=1) / 255
        return np.mean([expit(slope * (gray - 0.45)) for slope in (8.0, 12.0)], axis=0)

    before = probabilities(pixels)
    assert found["unperturbed"]["baseline"]["auroc"] == pytest.approx(auroc(labels, before))
    for perturbation in PERTURBATIONS:
        if perturbation.name.startswith("noise"):
            continue
        ids = drawn["image_id"]
        made = np.stack([perturbation.apply(p, i, 42) for p, i in zip(pixels, ids, strict=True)])
        after, own = probabilities(made), of(found, perturbation.name)["arms"]["baseline"]
        assert own["probability"]["change"] == pytest.approx((after - before).mean(), abs=1e-6)
        assert own["absolute_probability"] == pytest.approx(np.abs(after - before).mean(), abs=1e-6)
        assert own["auroc"]["change"] == pytest.approx(auroc(labels, after) - auroc(labels, before), abs=1e-6)
        calls = ((after >= 0.5) == labels).mean() - ((before >= 0.5) == labels).mean()
        assert own["accuracy"]["change"] == pytest.approx(calls, abs=1e-6)


def test_intervals_are_paired_by_patient_and_between_arms(study):
    study.add("baseline", 10.0)
    study.add("augmented", 0.0)
    found = study.measure()
    brighter = of(found, "brightness +15 %")
    drawn = draw_by_patient(study.arms["baseline"].predictions, 40, 42)
    rows = pd.Index(study.records["image_id"]).get_indexer(drawn["image_id"])
    ids = list(drawn["image_id"])
    made = [PERTURBATIONS[1].apply(study.pixels[row], i, 42) for row, i in zip(rows, ids, strict=True)]
    gray = [np.mean(image) / 255 for image in made]
    moved = expit(10 * (np.array(gray) - 0.45)) - drawn["probability"].to_numpy()
    expected = bootstrap_mean(moved, list(drawn["patient"]), n_resamples=60, seed=42)
    own = brighter["arms"]["baseline"]["probability"]
    assert own["change"] == pytest.approx(expected["difference"], abs=1e-6)
    assert own["ci95"] == pytest.approx(expected["ci95"], abs=1e-6)
    assert brighter["arms"]["augmented"]["probability"] == {"change": 0, "ci95": None}, "it sees nothing"
    (pair,) = brighter["pairs"]
    assert (pair["a"], pair["b"]) == ("baseline", "augmented")
    assert pair["probability"]["change"] == pytest.approx(-own["change"])
    assert pair["probability"]["ci95"] == pytest.approx([-bound for bound in own["ci95"][::-1]], abs=1e-6)


def test_what_is_finished_is_not_computed_again(study):
    study.add("baseline", 10.0)
    first = study.measure()
    kept = sorted((study.folder / "cache" / "robustness").iterdir())
    assert len(kept) == 1 + len(PERTURBATIONS)
    calls = Planted.calls
    assert study.measure() == first and Planted.calls == calls
    kept[0].unlink()  # a run that was interrupted before it
    kept[1].write_text("{")  # and a damaged one
    assert study.measure() == first and calls < Planted.calls <= calls + 2 * 4
    study.add("baseline", 11.0)  # trained again: another checkpoint
    calls = Planted.calls
    assert study.measure() != first and Planted.calls > calls + len(PERTURBATIONS)


def test_a_frozen_backbone_is_scored_through_its_features(study, monkeypatch):
    study.add("baseline", 10.0)
    torch.manual_seed(0)
    model = PneumoniaClassifier(frozen=True).eval()
    study.models["baseline_resnet50.pth"] = model, {"config": CONFIG, "frozen": True}
    monkeypatch.setattr(robustness, "FARTHEST", 1.0)
    monkeypatch.setattr(robustness, "ALL", robustness.ALL[:2])
    monkeypatch.setattr(robustness, "PERTURBATIONS", PERTURBATIONS[:1])
    found = study.measure()
    drawn = draw_by_patient(study.arms["baseline"].predictions, 40, 42)
    rows = pd.Index(study.records["image_id"]).get_indexer(drawn["image_id"])
    from classifier import InputPipeline, predict_batches

    inputs = InputPipeline(torch.from_numpy(np.ascontiguousarray(study.pixels[rows])))
    logits = predict_batches(model, inputs, np.arange(len(rows)), batch_size=16, precision="fp32")
    expected = torch.sigmoid(logits).numpy().mean()
    assert found["unperturbed"]["baseline"]["probability"] == pytest.approx(expected, abs=2e-3)
    assert list((study.folder / "cache" / "features").iterdir())


# --- what is missing -------------------------------------------------------------------------------
def test_arms_that_cannot_be_scored_are_named(study):
    for name, slope in (("baseline", 10.0), ("augmented", 9.0), ("control_weight", 8.0)):
        study.add(name, slope)
    (study.folder / "models" / "augmented_resnet50.pth").unlink()
    study.models["control_weight_resnet50.pth"] = Planted(-30.0), {"config": CONFIG, "frozen": False}
    found = study.measure()
    assert set(found["unperturbed"]) == {"baseline"} and set(found["left_out"]) == {"augmented", "control_weight"}
    assert "augmented_resnet50.pth" in found["left_out"]["augmented"]
    assert "do not give its recorded probabilities" in found["left_out"]["control_weight"]
    assert found["perturbations"][0]["pairs"] == []


def test_an_arm_without_metrics_is_named(study):
    for name in ("baseline", "mine"):
        study.add(name, 10.0)
    paths.final_metrics(study.folder / "metrics", "mine_").unlink()
    found = study.measure()
    assert set(found["unperturbed"]) == {"baseline"}
    assert found["left_out"]["mine"] == "its metrics do not say how many pixels mine sees"


def test_nothing_to_score_is_one_line(study):
    study.add("baseline", 10.0)
    with pytest.raises(UserError, match="--robustness 4 draws .* at least 10 of each are needed"):
        study.measure(4)
    (study.folder / "models" / "baseline_resnet50.pth").unlink()
    with pytest.raises(UserError, match="it needs models/baseline_resnet50.pth; --model-dir says where"):
        study.measure()


def test_patients_are_drawn_whole():
    table = pd.DataFrame({"image_id": [f"i{n}" for n in range(60)], "patient": [f"p{n // 3}" for n in range(60)]})
    drawn = draw_by_patient(table, 10, 0)
    assert len(drawn) == 12 and (drawn["patient"].value_counts() == 3).all()
    assert not drawn.equals(draw_by_patient(table, 10, 1))
    assert draw_by_patient(table, 500, 0).equals(table)
    assert set(drawn["patient"]) <= set(draw_by_patient(table, 20, 0)["patient"]), "more images: the same and others"
