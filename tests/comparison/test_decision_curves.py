"""Decision curves in comparison.json: which probabilities they use, and what the intervals are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from arms.result_files import find_arms
from common.file_formats import format_problems
from comparison.arms import compare_arms
from comparison.decision_curves import decision_curves
from comparison.reviewer_file_formats import DecisionCurves
from fake_results import fake_records, write_arm
from stats.bootstrap import PatientDraws, percentile_interval
from stats.calibration import apply_temperature
from stats.decision_curve import THRESHOLDS, net_benefit
from utils import plain


def curves_of(folder, n_resamples=100):
    arms = find_arms(folder)
    content = compare_arms(arms, n_resamples=n_resamples)
    found = decision_curves(arms, content)
    assert format_problems(json.loads(json.dumps(plain(found))), DecisionCurves) == []
    return arms, content, found


def test_calibrated_where_every_arm_has_a_temperature(tmp_path):
    records = fake_records()
    write_arm(tmp_path, "baseline", records, folds=3, repeats=2)
    write_arm(tmp_path, "augmented", records, seed=1, repeats=2)
    arms, content, found = curves_of(tmp_path)
    assert found["probabilities"] == "calibrated" and found["without_temperature"] == []
    labels = records["label"].to_numpy()
    for name, curve in found["arms"].items():
        temperature = content["arms"][name]["calibration"]["temperature"]
        assert curve["temperature"] == temperature is not None
        used = apply_temperature(arms[name].predictions["probability"].to_numpy(), temperature)
        assert curve["net_benefit"] == pytest.approx(net_benefit(labels, used))
    assert found["arms"]["baseline"]["treat_all"][-1] == pytest.approx(2 * labels.mean() - 1)


def test_as_trained_if_one_arm_has_none(tmp_path):
    records = fake_records()
    write_arm(tmp_path, "augmented", records, folds=3)
    write_arm(tmp_path, "mine", records, seed=1)
    arms, _, found = curves_of(tmp_path)
    assert found["probabilities"] == "as trained" and found["without_temperature"] == ["mine"]
    assert found["arms"]["augmented"]["temperature"] is None
    expected = net_benefit(records["label"], arms["augmented"].predictions["probability"])
    assert found["arms"]["augmented"]["net_benefit"] == pytest.approx(expected)


def test_differences_are_paired_over_patients(tmp_path):
    records = fake_records()
    for seed, name in enumerate(("augmented", "mine")):
        write_arm(tmp_path, name, records, seed=seed)
    arms, content, found = curves_of(tmp_path)
    (pair,), labels = found["pairs"], records["label"].to_numpy()
    p = [arms[name].predictions["probability"].to_numpy() for name in (pair["a"], pair["b"])]
    draws = PatientDraws(list(records["patient"]), 100, content["settings"]["seed"])
    resampled = []
    for number in range(100):
        rows = np.repeat(np.arange(120), draws.weights(slice(number, number + 1))[0].astype(int))
        resampled.append(net_benefit(labels[rows], p[1][rows]) - net_benefit(labels[rows], p[0][rows]))
    for place in (0, 15, 45):
        difference = net_benefit(labels, p[1])[place] - net_benefit(labels, p[0])[place]
        assert pair["net_benefit_difference"][place] == pytest.approx(difference)
        expected = percentile_interval(np.array(resampled)[:, place])
        assert pair["net_benefit_ci95_pointwise"][place] == pytest.approx(expected)


def test_equal_arms_differ_by_nothing(tmp_path):
    for name in ("baseline", "copy"):
        write_arm(tmp_path, name, fake_records())
    (pair,) = curves_of(tmp_path)[2]["pairs"]
    assert pair["net_benefit_difference"] == [0] * len(THRESHOLDS)
    assert pair["net_benefit_ci95_pointwise"] == [[0, 0]] * len(THRESHOLDS)
