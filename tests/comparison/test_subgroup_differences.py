"""Differences within subgroups: resampled by hand with scikit-learn, planted interactions, and small parts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from arms.result_files import find_arms
from common import paths
from common.file_formats import format_problems
from comparison.arms import compare_arms
from comparison.reviewer_file_formats import SubgroupsOfPair
from comparison.subgroup_differences import subgroup_differences
from fake_results import fake_records, write_arm
from stats.bootstrap import PatientDraws, percentile_interval, two_sided_p
from utils import plain, save_csv


def found_in(folder, n_resamples=80):
    arms = find_arms(folder)
    content = compare_arms(arms, n_resamples=n_resamples)
    found = subgroup_differences(arms, content)
    for pair in json.loads(json.dumps(plain(found))):
        assert format_problems(pair, SubgroupsOfPair) == []
    return arms, found


def write_probabilities(folder, name, records, probabilities):
    write_arm(folder, name, records)
    (folder / f"{name}_final_metrics.json").unlink()
    save_csv(paths.test_predictions(folder, f"{name}_"), records.assign(probability=probabilities))


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_intervals_and_p_are_those_of_patients_drawn_by_hand(tmp_path, metric):
    records = fake_records(160)  # two images of a patient, of different views
    for seed, name in enumerate(("baseline", "augmented")):
        write_arm(tmp_path, name, records, seed=seed)
    arms, (pair,) = found_in(tmp_path)
    labels = records["label"].to_numpy()
    p = [arms[name].predictions["probability"].to_numpy() for name in ("baseline", "augmented")]
    draws = PatientDraws(list(records["patient"]), 80, 42)
    parts = {value: np.flatnonzero(records["view"] == value) for value in ("AP", "PA")}

    def difference(rows):
        if metric == "auroc":
            a, b = (roc_auc_score(labels[rows], each[rows]) for each in p)
        else:
            a, b = (accuracy_score(labels[rows], each[rows] >= 0.5) for each in p)
        return b - a

    resampled = {value: [] for value in parts}
    for number in range(80):
        times = draws.weights(slice(number, number + 1))[0].astype(int)
        for value, rows in parts.items():
            resampled[value].append(difference(np.repeat(rows, times[rows])))
    for value, rows in parts.items():
        (row,) = [row for row in pair["differences"] if row["value"] == value]
        assert row["n_images"] == len(rows) and row["n_positive"] == labels[rows].sum()
        assert row[f"{metric}_difference"] == pytest.approx(difference(rows))
        assert row[f"{metric}_ci95"] == pytest.approx(percentile_interval(np.array(resampled[value])))
    (contrast,) = [row for row in pair["interactions"] if row["group"] == "view"]
    largest = max(parts, key=lambda value: len(parts[value]))
    other = next(value for value in parts if value != largest)
    assert (contrast["value"], contrast["reference"]) == (other, largest)
    values = np.array(resampled[other]) - np.array(resampled[largest])
    assert contrast[f"{metric}_interaction"] == pytest.approx(difference(parts[other]) - difference(parts[largest]))
    assert contrast[f"{metric}_interaction_ci95"] == pytest.approx(percentile_interval(values))
    assert contrast[f"{metric}_interaction_p"] == pytest.approx(two_sided_p(values))


def test_a_planted_interaction_is_found_and_p_is_adjusted_over_the_subgroups(tmp_path):
    records = fake_records(600)
    rng = np.random.default_rng(5)
    labels = records["label"].to_numpy()
    weak = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(0, 2, 600))))
    strong = 1 / (1 + np.exp(-4 * (2 * labels - 1) + rng.normal(0, 2, 600)))
    write_probabilities(tmp_path, "baseline", records, weak)
    write_probabilities(tmp_path, "mine", records, np.where(records["sex"] == "F", strong, weak))
    _, (pair,) = found_in(tmp_path, 400)
    p = {f"{row['group']} {row['value']}": row for row in pair["interactions"]}
    smallest = min(row["auroc_interaction_p"] for row in p.values())
    (sex,) = [row for row in p.values() if row["group"] == "sex"]
    assert sex["auroc_interaction_p"] == smallest and sex["auroc_interaction_p_holm"] < 0.05
    assert sex["auroc_interaction_p_holm"] == pytest.approx(min(1, len(p) * smallest))
    assert (sex["auroc_interaction"] > 0) == (sex["value"] == "F")
    others = [row["auroc_interaction_p_holm"] for row in p.values() if row["group"] != "sex"]
    assert min(others) > 0.05


def test_equal_arms_have_no_interaction(tmp_path):
    for name in ("baseline", "copy"):
        write_arm(tmp_path, name, fake_records(300))
    _, (pair,) = found_in(tmp_path)
    assert pair["interactions"] and pair["differences"]
    assert all(row["auroc_interaction_p"] == 1 for row in pair["interactions"])
    assert all(row["accuracy_ci95"] == [0, 0] for row in pair["differences"])


def test_small_parts_are_named_and_not_computed(tmp_path):
    records = fake_records(200)
    young = np.arange(200) < 30
    records = records.assign(view="AP", sex=np.where(np.arange(200) < 100, "F", "M"), age=np.where(young, 25, 70))
    for seed, name in enumerate(("baseline", "augmented")):
        write_arm(tmp_path, name, records, seed=seed)
    _, (pair,) = found_in(tmp_path)
    positive = records["patient"][young & (records["label"] == 1)].nunique()
    assert positive < 10
    (small,) = pair["too_small"]
    assert (small["group"], small["value"], small["n_patients_positive"]) == ("age", "20 to 39", positive)
    assert [row["value"] for row in pair["differences"]] == ["AP", "F", "M", "60 and over"]
    assert [row["group"] for row in pair["interactions"]] == ["sex"], "one part alone has nothing to be compared with"


def test_predictions_without_people_have_no_parts(tmp_path):
    records = fake_records(200)
    for seed, name in enumerate(("baseline", "foreign")):
        write_arm(tmp_path, name, records, seed=seed)
    file = paths.test_predictions(tmp_path, "foreign_")
    table = pd.read_csv(file, dtype={"patient": str})
    table.drop(columns=["view", "sex"]).to_csv(file, index=False)
    _, (pair,) = found_in(tmp_path)
    assert {row["group"] for row in pair["differences"]} == {"age"}, "only what both files tell"
