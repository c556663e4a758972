import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, roc_auc_score

from stats import metrics
from stats.metric_registry import METRICS, Metric, classification_metrics, mean_and_std


def test_metrics_by_hand():
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([0.1, 0.5, 0.2, 0.9, 0.4])  # 0.5 counts as positive
    scores = classification_metrics(labels, probabilities)
    assert scores["confusion_matrix"] == [[2, 1], [1, 1]]
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["sensitivity"] == pytest.approx(1 / 2)
    assert scores["specificity"] == pytest.approx(2 / 3)
    assert scores["weighted_precision"] == pytest.approx(0.6 * 2 / 3 + 0.4 * 1 / 2)
    assert scores["weighted_recall"] == pytest.approx(3 / 5)
    assert scores["weighted_f1"] == pytest.approx(0.6 * 2 / 3 + 0.4 * 1 / 2)
    assert scores["auroc"] == pytest.approx(5 / 6)
    assert scores["auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert scores["brier"] == pytest.approx((0.01 + 0.25 + 0.04 + 0.01 + 0.36) / 5)
    assert scores["ppv"] == pytest.approx(1 / 2) and scores["npv"] == pytest.approx(2 / 3)
    assert scores["ece"] == pytest.approx((0.1 + 0.5 + 0.2 + 0.1 + 0.6) / 5)  # one image in each of five bins


def test_undefined_metrics_are_none():
    scores = classification_metrics(np.zeros(4), np.full(4, 0.2))
    assert scores["auroc"] is None and scores["sensitivity"] is None and scores["accuracy"] == 1.0
    assert scores["ppv"] is None and scores["npv"] == 1.0


def test_an_entry_that_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="metric toy: pairs can only be compared"):
        Metric("toy", "a toy", metrics.accuracy, compared=True)
    with pytest.raises(ValueError, match="ece has no form for weighted images"):
        METRICS["ece"].point_estimate(np.array([0, 1]), np.array([0.2, 0.8]))


def test_predictive_values_at_a_prevalence():
    """Bayes: at the data's own prevalence they are the data's own; by hand at 1 %."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 200)
    probabilities = np.clip(0.3 * labels + 0.7 * rng.random(200), 0, 1)
    scores = classification_metrics(labels, probabilities)
    values = metrics.predictive_values(scores["sensitivity"], scores["specificity"], labels.mean())
    assert values == pytest.approx((scores["ppv"], scores["npv"]))
    ppv, npv = metrics.predictive_values(0.9, 0.8, 0.01)
    assert ppv == pytest.approx(0.009 / (0.009 + 0.198)) and npv == pytest.approx(0.792 / (0.792 + 0.001))
    assert metrics.predictive_values(None, 0.8, 0.01) == (None, None)
    assert metrics.predictive_values(0.0, 1.0, 0.3) == (None, pytest.approx(0.7))


def test_calibration_error_agrees_with_scikit_learns_bins():
    rng = np.random.default_rng(8)
    for n in (50, 5000):
        probabilities = rng.beta(0.7, 1.5, n)
        labels = (rng.random(n) < probabilities**1.5).astype(int)
        share, mean = calibration_curve(labels, probabilities, n_bins=10, strategy="uniform")
        counts, _ = np.histogram(probabilities, bins=10, range=(0, 1))
        expected = (counts[counts > 0] / n * np.abs(share - mean)).sum()
        assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(expected)
        bins = metrics.reliability_bins(labels, probabilities)
        assert [row["n"] for row in bins] == counts[counts > 0].tolist()
        assert [row["share_positive"] for row in bins] == pytest.approx(share.tolist())
    assert metrics.expected_calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == 0


def test_auroc_with_ties_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = rng.integers(0, 2, 60)
        scores = rng.integers(0, 8, 60) / 8
        assert metrics.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert np.isnan(metrics.auroc(np.ones(3), np.arange(3)))


@pytest.mark.parametrize("decimals", [1, 9])
def test_weighted_scores_agree_with_scikit_learn(decimals):
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, 80)
    scores = np.round(np.clip(0.3 * labels + 0.7 * rng.random(80), 0, 1), decimals)
    weights = rng.integers(0, 4, (25, 80)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=row) for row in weights]
    assert metrics.weighted_auroc(labels, scores, weights) == pytest.approx(expected)
    expected = [accuracy_score(labels, scores >= 0.5, sample_weight=row) for row in weights]
    assert metrics.weighted_accuracy(labels, scores, weights) == pytest.approx(expected)
    weights[3, labels == 1] = 0
    assert np.isnan(metrics.weighted_auroc(labels, scores, weights)).nonzero()[0].tolist() == [3]


def test_wilson_interval_by_its_closed_form():
    n, k, z = 300, 240, 1.959964
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert metrics.wilson_interval(k, n) == pytest.approx([centre - half, centre + half], abs=1e-6)


def test_fold_means_leave_out_the_undefined():
    rows = [{"accuracy": 0.5, "auroc": None}, {"accuracy": 0.7, "auroc": 0.9}]
    mean, std = mean_and_std(rows)
    assert mean["accuracy"] == pytest.approx(0.6) and std["accuracy"] == pytest.approx(np.sqrt(0.02))
    assert mean["auroc"] == 0.9 and std["auroc"] is None and mean["brier"] is None
