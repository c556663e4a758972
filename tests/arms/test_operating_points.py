"""Temperature and thresholds from out-of-fold predictions of the same recipe, or the reason why there are none."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arms.operating_points import CHOSEN_ON, find_operating_points, recipe_sha256
from common import paths
from stats.calibration import apply_temperature, choose_thresholds, fit_temperature
from stats.metric_registry import classification_metrics
from utils import load_json, save_csv, save_json

N = 200
ORIGIN = {
    "config": {"lr": 0.001, "seed": 42, "epochs": 15, "use_synthetic": False, "k_folds": 5}, "split_sha256": "s",
    "data_sha256": "d", "grouped_by": "patient", "unmapped_images": 0, "manifest_sha256": {},
    "skipped_images": {"count": 0, "image_ids": []}, "red_flags": [],
}  # fmt: skip
RECIPE = recipe_sha256(ORIGIN)


def predictions(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = (rng.random(N) < 0.3).astype(int)
    logits = 3 * labels - 2 + rng.normal(0, 1.5, N) + np.random.default_rng(seed).normal(0, 1, N)
    return pd.DataFrame({
        "image_id": [f"i{i:03d}" for i in range(N)], "patient": [f"p{i // 2}" for i in range(N)], "class": "",
        "view": "AP", "sex": "F", "age": 50, "label": labels, "probability": 1 / (1 + np.exp(-2 * logits)),
        "predicted": 0, "fold": np.arange(N) // 2 % 5 + 1,
    })  # fmt: skip


def write_folds(folder: Path, prefix: str, seed: int = 42, config: dict | None = None, **changes) -> None:
    table = predictions(seed)
    scores = classification_metrics(table["label"].to_numpy(), table["probability"].to_numpy())
    summary = {
        **ORIGIN, "config": {**ORIGIN["config"], "seed": seed, **(config or {})}, "k": 5, "contaminated": False,
        "contaminated_folds": [], "note": "", "n_images": N, "n_patients": N // 2, "folds": [], "mean": {}, "std": {},
        "out_of_fold": scores, **changes,
    }  # fmt: skip
    save_json(paths.cv_summary(folder, prefix), summary)
    save_csv(paths.cv_predictions(folder, prefix), table)


def test_points_are_those_of_the_fold_predictions(tmp_path):
    write_folds(tmp_path, "baseline_")
    points, note = find_operating_points(tmp_path, RECIPE, [42])
    table = predictions(42)
    labels, probabilities = table["label"].to_numpy(), table["probability"].to_numpy()
    temperature = fit_temperature(labels, probabilities)
    chosen = choose_thresholds(labels, apply_temperature(probabilities, temperature))
    assert points["temperature"] == temperature
    assert {rule: points[rule]["threshold"] for rule in ("youden", "sensitivity_90")} == {
        rule: chosen[rule] for rule in ("youden", "sensitivity_90")
    }
    # In the scale of uncalibrated probabilities they are the same decisions.
    raw = choose_thresholds(labels, probabilities)["youden"]
    assert points["youden"]["threshold"] == pytest.approx(float(apply_temperature(np.array([raw]), temperature)[0]))
    assert points["sensitivity_90"]["sensitivity"] >= 0.9
    assert (points["n_images"], points["n_patients"], points["n_positive"]) == (N, N // 2, int(labels.sum()))
    for value, bounds in [
        (points["temperature"], points["temperature_ci95"]),
        *((points[r]["threshold"], points[r]["threshold_ci95"]) for r in chosen if r in points),
    ]:
        assert bounds[0] <= value <= bounds[1] and bounds[0] < bounds[1]
    assert note.startswith(CHOSEN_ON) and "200 training images of 100 patients (5 folds, baseline)" in note


@pytest.mark.parametrize(
    ("config", "changes", "reason"),
    [
        ({"k_folds": 0, "epochs_final": 3}, {}, None),  # what folds do not depend on
        ({"lr": 0.01}, {}, "no out-of-fold predictions of this recipe"),
        ({"use_synthetic": True}, {}, "no out-of-fold predictions of this recipe"),
        ({}, {"split_sha256": "other"}, "no out-of-fold predictions of this recipe"),
        ({}, {"data_sha256": "other"}, "no out-of-fold predictions of this recipe"),
        ({}, {"contaminated": True}, "contaminated"),
        ({}, {"n_images": N - 1}, "different runs"),
    ],
)
def test_other_folds_choose_nothing(config, changes, reason, tmp_path):
    write_folds(tmp_path, "mine_", config=config, **changes)
    points, note = find_operating_points(tmp_path, RECIPE, [7])
    assert (points is None) == (reason is not None)
    assert (reason or CHOSEN_ON) in note


def test_folds_without_predictions_choose_nothing(tmp_path):
    write_folds(tmp_path, "baseline_")
    paths.cv_predictions(tmp_path, "baseline_").unlink()
    assert find_operating_points(tmp_path, RECIPE, [42])[0] is None
    assert "missing" in find_operating_points(tmp_path, RECIPE, [42])[1]
    assert find_operating_points(tmp_path / "absent", RECIPE, [42])[0] is None


def test_averaged_models_need_as_many_runs_of_folds(tmp_path):
    write_folds(tmp_path, "baseline_")
    points, note = find_operating_points(tmp_path, RECIPE, [42, 43])
    assert points is None and "of 1 training run of this recipe" in note and "2 averaged models need as many" in note
    write_folds(tmp_path, "again_", seed=43)
    points, _ = find_operating_points(tmp_path, RECIPE, [42, 43])
    mean = (predictions(42)["probability"] + predictions(43)["probability"]) / 2
    assert points["temperature"] == fit_temperature(predictions(42)["label"].to_numpy(), mean.to_numpy())
    assert points["runs"] == 2
    # A single model takes the folds of its own seed.
    points, _ = find_operating_points(tmp_path, RECIPE, [43])
    own = predictions(43)
    assert points["temperature"] == fit_temperature(own["label"].to_numpy(), own["probability"].to_numpy())


def test_the_same_run_twice_is_one_run(tmp_path):
    write_folds(tmp_path, "baseline_")
    for name_of in (paths.cv_summary, paths.cv_predictions):
        shutil.copy(name_of(tmp_path, "baseline_"), name_of(tmp_path, "copy_"))
    assert find_operating_points(tmp_path, RECIPE, [42, 43])[0] is None


def test_a_broken_file_of_another_arm_does_no_harm(tmp_path):
    write_folds(tmp_path, "baseline_")
    paths.cv_summary(tmp_path, "other_").write_text("{", encoding="utf-8")
    content = load_json(paths.cv_summary(tmp_path, "baseline_"))
    del content["k"]
    save_json(paths.cv_summary(tmp_path, "third_"), content)
    assert find_operating_points(tmp_path, RECIPE, [42])[0] is not None


@pytest.mark.parametrize(
    ("change", "same"),
    [({"manifest_sha256": {"1": "x"}}, True), ({"manifest_sha256": {"0": "x"}}, False), ({"red_flags": ["x"]}, True),
     ({"weights_sha256": "w"}, False)],
)  # fmt: skip
def test_the_recipe_holds_what_the_final_model_learns_from(change, same):
    assert (recipe_sha256({**ORIGIN, **change}) == RECIPE) == same
