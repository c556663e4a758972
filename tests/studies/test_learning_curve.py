"""The curve of a low-data study, from made-up arms."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from common import paths
from common.file_formats import format_problems
from comparison.arms import compare_arms
from fake_results import fake_records, write_arm
from stats.bootstrap import bootstrap_difference
from stats.paired_tests import holm
from studies import learning_curve
from studies.file_formats import LearningCurve
from study_points import write_study
from utils import UserError, load_json, save_json

COMMITTED = Path(__file__).resolve().parents[2] / "results/rsna_1500/study/learning_curve.json"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return folder


@pytest.fixture
def points(study, tmp_path):
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    return learning_curve.find_points(tmp_path)


def test_points_agree_with_the_comparison_of_their_fraction(points):
    curve = learning_curve.build_learning_curve(points, n_resamples=400)
    for fraction in (0.05, 1.0):
        arms = {point.arm.name: point.arm for point in points if point.fraction == fraction}
        expected = compare_arms(arms, n_resamples=400)["arms"]
        for point in curve["points"]:
            if point["fraction"] == fraction:
                own = expected[point["arm"]]
                assert point["auroc"] == pytest.approx(own["auroc"])
                assert point["accuracy"] == pytest.approx(own["accuracy"])
                assert point["auroc_ci95"] == own["auroc_ci95"]
                assert point["accuracy_ci95"] == own["accuracy_ci95"]
                assert [row["auroc"] for row in point["per_repeat"]] == [row["auroc"] for row in own["per_repeat"]]
    assert curve["points"][0]["optimizer_steps"] == 501 and curve["points"][-1]["seeds"] == [42, 43, 44]


def test_differences_are_paired_and_adjusted_over_the_whole_study(points):
    curve = learning_curve.build_learning_curve(points, n_resamples=400)
    rows = curve["differences"]
    pairs = [("baseline", "augmented"), ("control_duplicate", "augmented"), ("baseline", "control_duplicate")]
    assert [(row["fraction"], row["a"], row["b"]) for row in rows] == [
        (fraction, *pair) for fraction in (0.05, 0.25, 1.0) for pair in pairs
    ]
    score = {(point["fraction"], point["arm"]): point for point in curve["points"]}
    for name in ("accuracy", "auroc"):
        assert [row[f"{name}_p_holm"] for row in rows] == holm([row[f"{name}_p"] for row in rows])
        for row in rows:
            a, b = (score[row["fraction"], row[side]] for side in "ab")
            assert row[f"{name}_difference"] == pytest.approx(b[name] - a[name])
            low, high = row[f"{name}_ci95"]
            assert low < row[f"{name}_difference"] < high
            assert row["seed_variance_included"] is True


def test_with_one_run_the_interval_is_the_paired_bootstrap(points):
    single = [dataclasses.replace(point, arm=dataclasses.replace(point.arm, repeats=())) for point in points[:2]]
    curve = learning_curve.build_learning_curve(single, n_resamples=300, seed=5)
    a, b = (point.arm.predictions for point in single)
    for name in ("accuracy", "auroc"):
        expected = bootstrap_difference(
            a["label"].to_numpy(), a["probability"].to_numpy(), b["probability"].to_numpy(),
            list(a["patient"]), name, n_resamples=300, seed=5,
        )  # fmt: skip
        np.testing.assert_allclose(curve["differences"][0][f"{name}_ci95"], expected["ci95"])
    assert curve["differences"][0]["seed_variance_included"] is False
    assert any("seed variance not included" in flag for flag in curve["flags"])


def test_what_a_reader_must_know_stands_in_the_result(points):
    curve = learning_curve.build_learning_curve(points, missing=[(0.1, "augmented")], n_resamples=100)
    notes, flags = " ".join(curve["notes"]), " ".join(curve["flags"])
    assert "(501 to 520)" in notes and "300 test images of 150 patients" in notes
    assert "The GAN of a fraction saw that fraction only".lower() in notes.lower()
    assert "0.05 of the training patients have 10 positive" in flags and "0.25 of" not in flags
    assert "lacks augmented at 0.1" in flags
    assert "UNEQUAL" not in flags and "--epochs" not in flags, "epochs differ by design"


def test_unequal_training_and_stale_files_are_flagged(points):
    metrics = points[-1].arm.metrics
    metrics["optimizer_steps"], metrics["accuracy"] = 900, 0.1
    metrics["config"]["lr"] = 0.1
    metrics["red_flags"] = ["something is odd"]
    flags = learning_curve.build_learning_curve(points, n_resamples=50)["flags"]
    assert "the points took UNEQUAL NUMBERS OF STEPS: 501 to 900" in flags
    assert "control_duplicate at 1: --lr was 0.1 here and 0.001 in baseline at 0.05" in flags
    assert "control_duplicate at 1: predictions and metrics DO NOT BELONG TO THE SAME RUN" in flags
    assert "control_duplicate at 1: something is odd" in flags


def test_points_on_other_test_images_are_refused(points, tmp_path):

    write_arm(paths.study_fraction(tmp_path, 0.5) / "metrics", "baseline", fake_records(100), train_fraction=0.5)
    found = learning_curve.find_points(tmp_path)
    with pytest.raises(UserError, match=r"baseline at 0.5, which cannot stand .* different images"):
        learning_curve.check_points(found, tmp_path)


# --- the file --------------------------------------------------------------------------------------
def test_a_new_file_and_the_committed_one_are_as_described(points, tmp_path):
    file = tmp_path / "curve.json"
    save_json(file, learning_curve.build_learning_curve(points, missing=[(0.1, "augmented")], n_resamples=20))
    assert format_problems(load_json(file), LearningCurve) == []
    assert format_problems(json.loads(COMMITTED.read_text()), LearningCurve) == []
    content = load_json(file)
    content["differences"][0]["verdict_accuracy"] = content["differences"][0].pop("accuracy_verdict")
    assert format_problems(content, LearningCurve) == [
        "differences[0].accuracy_verdict is missing", "differences[0].verdict_accuracy is not described"
    ]  # fmt: skip
