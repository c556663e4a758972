"""A metric that only this test knows: one entry in the registry, and it is everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from arms.figures import cv_comparison
from arms.result_files import find_arms
from comparison.arms import compare_arms
from fake_results import fake_records, write_arm
from report.comparison_figures import differences
from report.page import compose_page
from report.sections import Findings
from report.text import compose_text
from stats.metric_registry import METRICS, Metric, Shown
from utils import load_json, save_json

MEANING = "share of images whose probability is on the right side of 0.4"


def share(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(((probabilities >= 0.4) == (labels == 1)).mean())


def weighted_share(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ ((probabilities >= 0.4) == (labels == 1)).astype(float) / weights.sum(axis=1)


@pytest.fixture
def arms(tmp_path, monkeypatch):
    toy = Metric(
        "toy", meaning=MEANING, value=share, title="toy share", heading="Toy", weighted=weighted_share,
        compared=True, percent=True, shown=Shown.ARMS | Shown.FOLDS | Shown.FOLDS_FIGURE,
    )  # fmt: skip
    monkeypatch.setitem(METRICS, "toy", toy)
    records = fake_records()
    write_arm(tmp_path, "baseline", records, folds=3, repeats=2)
    write_arm(tmp_path, "augmented", records, folds=3, repeats=2, seed=1, skill=2.0)
    return find_arms(tmp_path)


def texts(figure) -> str:
    return "\n".join(item.get_text() for item in figure.findobj(Text))


def test_a_new_entry_is_in_numbers_text_page_and_figures(arms, tmp_path):
    save_json(tmp_path / "comparison.json", compare_arms(arms, n_resamples=200))
    content = load_json(tmp_path / "comparison.json")
    table = arms["augmented"].predictions
    row, (pair,) = content["arms"]["augmented"], content["pairs"]
    assert row["toy"] == share(table["label"], table["probability"])
    low, high = row["toy_ci95"]
    assert low < row["toy"] < high and row["per_repeat"][0]["toy"] > 0.5
    assert pair["toy_difference"] == pytest.approx(row["toy"] - content["arms"]["baseline"]["toy"])
    assert pair["toy_p_holm"] == pair["toy_p"] and pair["nadeau_bengio"]["toy"]["p"] > 0
    assert pair["toy_minimum_detectable_difference"] > 0 and pair["toy_verdict"]

    findings = Findings(content, cross_validated={name: arm.cv for name, arm in arms.items()})
    text, page = compose_text(findings), compose_page(findings, tmp_path)
    for words in (text, page):
        flat = " ".join(words.split())
        assert f"{pair['toy_verdict']} in toy share (" in flat and "Toy, %: 95 % CI by patient" in flat
    assert f"verdict, toy share {pair['toy_verdict']}" in " ".join(text.split())
    assert f"<dt>verdict, toy share</dt><dd>{pair['toy_verdict']}</dd>" in page

    figure = differences(content)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Accuracy", "AUROC", "Toy share"]
    assert "toy\nshare" in texts(cv_comparison({name: arm.cv for name, arm in arms.items()}))
