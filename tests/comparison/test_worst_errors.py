"""The worst errors of an arm: which images they are, in which order, and what is said of each."""

from __future__ import annotations

import pandas as pd

from arms.result_files import find_arms
from common.file_formats import format_problems
from comparison.arms import compare_arms
from comparison.reviewer_file_formats import ErrorsOfArm
from comparison.worst_errors import worst_errors
from fake_results import fake_records, write_arm


def errors_in(folder):
    arms = find_arms(folder)
    found = worst_errors(arms, compare_arms(arms, n_resamples=50))
    for item in found.values():
        assert format_problems(item, ErrorsOfArm) == []
    return arms, found


def test_the_most_confident_wrong_calls_come_first(tmp_path):
    records = fake_records()
    write_arm(tmp_path, "baseline", records, repeats=3)
    write_arm(tmp_path, "augmented", records, seed=1)
    arms, found = errors_in(tmp_path)
    tables = {name: arm.predictions.set_index("image_id") for name, arm in arms.items()}
    wrong = {name: table[(table["probability"] >= 0.5) != (table["label"] == 1)] for name, table in tables.items()}
    for name, item in found.items():
        assert item["n_wrong"] == len(wrong[name]) > 10 == len(item["worst"])
        assert item["n_runs"] == (3 if name == "baseline" else 1)
        distance = (wrong[name]["probability"] - 0.5).abs().sort_values(ascending=False)
        assert [row["image_id"] for row in item["worst"]] == list(distance.index[:10])
    runs = [run.predictions.set_index("image_id")["probability"] for run in arms["baseline"].repeats]
    for row in found["baseline"]["worst"]:
        record = tables["baseline"].loc[row["image_id"]]
        assert row["probability"] == record["probability"] and row["label"] == record["label"]
        assert (row["class_name"], row["view"], row["sex"]) == (record["class"], record["view"], record["sex"])
        assert row["age"] == record["age"]
        assert row["others_wrong"] == (["augmented"] if row["image_id"] in wrong["augmented"].index else [])
        assert row["runs_wrong"] == sum((run[row["image_id"]] >= 0.5) != (row["label"] == 1) for run in runs)


def test_unknown_people_and_no_errors_at_all(tmp_path):
    records = fake_records().assign(age=float("nan"), view="", **{"class": ""})
    write_arm(tmp_path, "baseline", records)
    write_arm(tmp_path, "mine", records, skill=50.0)
    _, found = errors_in(tmp_path)
    row = found["baseline"]["worst"][0]
    assert row["age"] is row["view"] is row["class_name"] is None and row["sex"] in ("F", "M")
    assert found["mine"] == {"n_wrong": 0, "n_runs": 1, "worst": []}


def test_four_columns_are_enough(tmp_path):
    write_arm(tmp_path, "baseline", fake_records())
    file = tmp_path / "baseline_test_predictions.csv"
    kept = ["image_id", "patient", "label", "probability"]
    pd.read_csv(file, dtype={"patient": str})[kept].to_csv(file, index=False)
    _, found = errors_in(tmp_path)
    assert found["baseline"]["worst"][0]["sex"] is None
