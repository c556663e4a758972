"""External test: predictions are those of training; data that training has seen are refused, left out or flagged."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import evaluate_external
from arms.file_formats import ExternalTest
from classifier_runs import METRICS
from common import paths
from common.file_formats import format_problems
from data_loader import load_images
from dataset.records import load_dataset
from external_data import make_external
from fake_study import fake_provenance
from prediction.external import predict_run
from prediction.models import load_models
from utils import UserError, load_checkpoint, load_json, save_checkpoint, save_json

pytestmark = pytest.mark.usefixtures("thin_network")


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A working folder with the models and results of ``trained``; its data are where they were."""
    for name in ("models", "results"):
        shutil.copytree(trained / name, tmp_path / name, copy_function=os.link)  # files are replaced, never changed
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_of(root, number):
    """The file of a training run, of whatever backbone."""
    (file,) = (root / "models").glob(f"baseline_r{number}_*.pth")
    return file


def evaluate(trained, *argv, name="b", data="outside"):
    folders = ["--data-dir", data, "--train-data-dir", str(trained / "data/processed")]
    evaluate_external.main([*folders, "--name", name, "--cpu", "--workers", "1", "--no-cache", *argv])
    return load_json(paths.external_test(paths.external_folder(METRICS, name)))


def test_probabilities_are_those_of_training(trained):
    table = pd.read_csv(paths.test_predictions(trained / METRICS, "baseline_r2_"))
    dataset = load_dataset(trained / "data/processed")
    records = dataset.images.set_index("image_id").loc[table["image_id"]].reset_index()
    (model,) = load_models([model_of(trained, 2)])
    probabilities = predict_run(model, load_images(records, 32, workers=1), torch.device("cpu"), None)
    np.testing.assert_allclose(probabilities, table["probability"], atol=1e-7)


def test_every_run_of_the_arm_predicts(trained, here):
    make_external(here / "outside")
    found = evaluate(trained)
    assert format_problems(found, ExternalTest) == []
    assert (found["n_images"], found["n_patients"], found["n_positive"]) == (24, 12, 8)
    assert found["positive_differs"] is None and not found["patients_compared"] and found["pictures_compared"]
    assert set(found["arms"]["baseline_"]["models"]) == {model_of(here, 1).name, model_of(here, 2).name}
    tables = [pd.read_csv(here / "results/external/b" / file) for file in found["arms"]["baseline_"]["predictions"]]
    internal = pd.read_csv(paths.test_predictions(METRICS, "baseline_"))
    assert [list(table.columns) for table in tables] == [list(internal.columns)] * 3
    mean = np.mean([table["probability"] for table in tables[1:]], axis=0)
    np.testing.assert_allclose(tables[0]["probability"], mean, atol=1e-12)
    assert 0 <= found["references"]["thumbnail_auroc"] <= 1
    assert any("nothing says what a positive label means in b" in flag for flag in found["red_flags"])


# --- what training has seen ------------------------------------------------------------------------
def training_image(trained):
    """Id, NIH patient's number and pixels of an image that the models were trained on."""
    table = pd.read_csv(paths.cv_predictions(trained / METRICS, "baseline_"), dtype=str)
    row = table[table["label"] == "0"].iloc[0]
    with Image.open(paths.training_images(trained / "data/processed") / f"{row['image_id']}.png") as image:
        return row["image_id"], int(row["patient"]), np.asarray(image)


@pytest.mark.parametrize("kind", ["image id", "patient", "picture"])
def test_what_training_has_seen_is_refused_or_left_out(kind, trained, here):
    name, number, pixels = training_image(trained)
    changes = {
        "image id": {"ids": {3: f"{name.upper()}"}},
        "patient": {"patients": "map", "first": number - 1},
        "picture": {"pictures": {3: np.ascontiguousarray(255 - (255 - pixels[:, ::-1]) // 2)}},
    }[kind]
    if kind == "patient":
        changes["n"] = 6  # patients number - 1, number, number + 1
    make_external(here / "outside", **changes)
    with pytest.raises(UserError, match=f"training has, or may have, seen .*: {kind}.*--drop-overlap leaves such"):
        evaluate(trained)
    assert not (here / "results/external/b/external_test.json").exists()
    if kind == "patient":
        with pytest.raises(UserError, match="are left to test on; both classes are needed"):
            evaluate(trained, "--drop-overlap")
        return
    found = evaluate(trained, "--drop-overlap")
    first = {"image id": ("by_image_id", 1), "picture": ("by_picture", 2)}[kind]
    assert found["dropped"][first[0]] == first[1]
    assert len(found["dropped"]["image_ids"]) == 2  # both images of that patient
    assert found["n_images"] == 22
    assert any("2 images that training had, or may have, seen were left out" in flag for flag in found["red_flags"])


def test_images_of_the_internal_test_are_flagged(trained, here):
    table = pd.read_csv(paths.test_predictions(METRICS, "baseline_"))
    make_external(here / "outside", ids={0: table["image_id"][0]})
    found = evaluate(trained)
    assert found["shared_with_test"] == 1 and found["dropped"]["image_ids"] == []
    assert any("1 images are in the internal test, too" in flag for flag in found["red_flags"])


def test_the_same_family_needs_known_patients(trained, here):
    make_external(here / "outside", patients="unknown")
    with pytest.raises(UserError, match=r"same family of data sets \(NIH ChestX-ray14\), and the patients cannot"):
        evaluate(trained, name="nih_rest")
    make_external(here / "mapped", patients="map")
    found = evaluate(trained, data="mapped", name="nih_mapped")
    assert found["patients_compared"] and any("no patient is in both" in flag for flag in found["red_flags"])


def test_what_initial_weights_learned_from_is_no_external_test(trained, here):
    for file in (*here.glob("models/*.pth"), *here.glob("results/metrics/*_metrics.json")):
        load, save = (load_checkpoint, save_checkpoint) if file.suffix == ".pth" else (load_json, save_json)
        content = load(file)
        content["config"]["weights_trained_on"] = "CheXpert"
        save(file, content)
    make_external(here / "outside")
    with pytest.raises(UserError, match=r"learned from CheXpert before, .*same family of data sets \(CheXpert\)"):
        evaluate(trained, name="chexpert_valid")


@pytest.mark.parametrize(("names", "differs"), [(["Pneumonia"], True), (["Lung Opacity"], False)])
def test_another_meaning_of_positive_is_known_from_the_import(names, differs, trained, here):
    make_external(here / "outside")
    meaning = {"names": names, "negative": [], "uncertain": "", "labelled_by": "", "sentence": "pneumonia, by a report"}
    patients = {"source": "", "known": 12, "unknown_images": 0, "pseudonyms": True, "key": "abcd"}
    content = fake_provenance() | {"layout": "csv", "data_set": "", "positive": meaning, "patients": patients}
    save_json(paths.provenance(here / "outside"), content)
    found = evaluate(trained)
    assert found["positive_differs"] is differs
    assert not any("nothing says what" in flag or "positive means" in flag for flag in found["red_flags"])


# --- training data that are not there --------------------------------------------------------------
def test_training_data_are_asked_for(trained, here):
    make_external(here / "outside")
    name, number, _ = training_image(trained)
    words = ["--data-dir", "outside", "--name", "b", "--cpu", "--no-cache"]
    with pytest.raises(UserError, match="the data that the models were trained on .*--train-data-dir PATH"):
        evaluate_external.main(words)
    with pytest.raises(UserError, match="not the table that the models were trained with"):
        evaluate_external.main([*words, "--train-data-dir", "outside"])
    evaluate_external.main([*words, "--train-data-dir", "none"])
    found = load_json(here / "results/external/b/external_test.json")
    assert not found["pictures_compared"] and found["references"] is None
    assert any("the training images were not here" in flag for flag in found["red_flags"])
    for changes, kind in (({"ids": {0: name}}, "image id"), ({"patients": "map", "first": number, "n": 12}, "patient")):
        shutil.rmtree(here / "outside")
        make_external(here / "outside", **changes)
        with pytest.raises(UserError, match=f"seen .*: {kind}"):
            evaluate_external.main([*words, "--train-data-dir", "none"])
    shutil.rmtree(here / "results/metrics")
    with pytest.raises(UserError, match="--train-data-dir none needs the predictions of train_classifier.py"):
        evaluate_external.main([*words, "--train-data-dir", "none"])


# --- models and data that do not fit ---------------------------------------------------------------
def change_model(file, **changes):
    save_checkpoint(file, load_checkpoint(file) | changes)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda root: shutil.rmtree(root / "models"), "models holds no final model; `python src/train_class"),
        (lambda root: model_of(root, 2).unlink(), "baseline_r2_.*pth is missing, one of 2"),
        (
            lambda root: save_json(paths.final_metrics(root / METRICS, "baseline_"), {}),
            "baseline_final_metrics.json: .* is missing; delete it and run",
        ),
        (
            lambda root: change_model(model_of(root, 1), split_sha256="0" * 64),
            "baseline_r1_.*pth is not the model whose results lie in --results-dir",
        ),
        (
            lambda root: change_model(model_of(root, 2), image_size=64),
            "cannot be averaged: they take images of different sizes",
        ),
        (lambda root: add_arm(root, split_sha256="0" * 64), "were trained on different splits, so they cannot"),
        (lambda root: add_arm(root, image_size=64), "take images of different sizes, so they cannot"),
        (lambda root: add_arm(root, backbone="resnet34"), "have different backbones, so they cannot"),
        (lambda root: (root / "outside" / paths.TRAIN_METADATA).unlink(), "must hold labelled images in the layout"),
        (lambda root: set_labels(root, None), "has neither Target nor class|lacks|Target"),
        (lambda root: set_labels(root, "0"), "of one class only"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(spoil, problem, trained, here):
    make_external(here / "outside")
    spoil(here)
    with pytest.raises(UserError, match=problem) as raised:
        evaluate(trained)
    assert "\n" not in str(raised.value)


def add_arm(root, **changes):
    one = model_of(root, 1)
    file = one.with_name(one.name.replace("baseline_r1_", "mine_"))
    save_checkpoint(file, load_checkpoint(one) | {"prefix": "mine_"} | changes)


def set_labels(root, value):
    file = root / "outside" / paths.TRAIN_METADATA
    table = pd.read_csv(file, dtype=str).drop(columns=["class", "x", "y", "width", "height"], errors="ignore")
    table = table.drop(columns="Target") if value is None else table.assign(Target=value)
    table.to_csv(file, index=False)


@pytest.mark.parametrize("name", ["../b", "", "a b", "-x"])
def test_names_are_letters_digits_dash_and_underline(name, capsys):
    with pytest.raises(SystemExit):
        evaluate_external.main([f"--name={name}"])
    assert "is not a name of letters, digits, - and _" in capsys.readouterr().err


def test_labelled_official_test_images_are_tested_too(trained, here):
    make_external(here / "outside", n=12)
    make_external(here / "more", n=12, first=900, ids={i: f"more-{i}" for i in range(12)})
    shutil.copy(here / "more" / paths.TRAIN_METADATA, here / "outside" / paths.TEST_METADATA)
    shutil.copytree(paths.training_images(here / "more"), paths.test_images(here / "outside"))
    assert evaluate(trained)["n_images"] == 24
    assert json.loads((here / "results/external/b/external_test.json").read_text())["dropped"]["image_ids"] == []
