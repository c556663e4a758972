"""comparison.json against its type: fresh files, the committed one, and made-up ones that tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from arms.result_files import find_arms
from common.file_formats import describe_format, format_problems
from comparison.arms import compare_arms
from comparison.cross_fit_file_formats import CROSS_FIT_FORMAT, CrossFitComparison
from comparison.file_formats import Comparison
from fake_comparison import fake_comparison
from fake_results import fake_records, write_arm
from stats.metric_registry import METRICS
from utils import load_json, save_json

COMMITTED = sorted((Path(__file__).parents[2] / "results").rglob("comparison.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: f"{file.parent.parent.name}/{file.parent.name}")
def test_committed_files_have_the_documented_keys(file):
    content = load_json(file)
    kind = CrossFitComparison if content["format"] == CROSS_FIT_FORMAT else Comparison
    assert format_problems(content, kind) == []


def test_a_fresh_file_has_the_documented_keys(tmp_path):
    records = fake_records()
    write_arm(tmp_path, "baseline", records, folds=3, repeats=2)
    write_arm(tmp_path, "augmented", records, folds=3, repeats=2, seed=1)
    write_arm(tmp_path, "other", records.iloc[:-2], seed=2)
    save_json(tmp_path / "comparison.json", compare_arms(find_arms(tmp_path), prevalence=0.1, n_resamples=50))
    content = load_json(tmp_path / "comparison.json")
    assert content["pairs"][0]["nadeau_bengio"] and content["not_compared"]
    assert format_problems(content, Comparison) == []


def test_made_up_comparisons_of_other_tests_are_like_real_ones():
    assert format_problems(fake_comparison(("baseline", "augmented", "control_weight")), Comparison) == []


def test_the_description_names_every_metric():
    words = describe_format(Comparison)
    for name, metric in METRICS.items():
        assert f"| `{name}` |" in words and metric.meaning in words
    assert "`auroc_ci95_image_level`" in words and "`accuracy_minimum_detectable_difference`" in words
