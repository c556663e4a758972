"""The detectable difference before training: against textbook values and simulated predictions."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stats import planned_power
from stats.planned_power import area_variance, planned_difference


@pytest.mark.slow
def test_variance_of_an_auroc_is_that_of_simulated_exponential_scores():
    """Hanley and McNeil's terms are exact for exponential scores: AUROC = r / (1 + r) at rates 1 and r."""
    rng, ratio, n_pos, n_neg = np.random.default_rng(1), 4.0, 40, 120
    labels = np.repeat([1, 0], [n_pos, n_neg])
    found = [
        roc_auc_score(labels, np.concatenate([ratio * rng.exponential(size=n_pos), rng.exponential(size=n_neg)]))
        for _ in range(3000)
    ]
    assert np.mean(found) == pytest.approx(ratio / (1 + ratio), abs=0.003)
    assert np.var(found) == pytest.approx(area_variance(ratio / (1 + ratio), n_pos, n_neg), rel=0.1)


def test_accuracy_follows_mcnemars_variance(monkeypatch):
    monkeypatch.setitem(planned_power.RUN_SD, "accuracy", 0.0)
    expected = 2.80159 * math.sqrt(0.10 / 1000)
    assert planned_difference("accuracy", 100, 900, 1000, 1) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", ["auroc", "accuracy"])
def test_more_patients_and_more_runs_show_smaller_differences(metric):
    few = planned_difference(metric, 75, 226, 250, 3)
    assert planned_difference(metric, 300, 900, 1000, 3) < few
    assert planned_difference(metric, 75, 226, 250, 15) < few
    assert planned_difference(metric, 75, 226, 301, 3) < few  # one image per patient tells more
