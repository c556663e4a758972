"""Net benefit, against numbers worked out by hand, scikit-learn's counts and draws of patients made one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import confusion_matrix

from stats.bootstrap import PatientDraws, resample_score, resample_scores
from stats.decision_curve import THRESHOLDS, net_benefit, net_benefit_of_images, treat_all, weighted_net_benefit
from stats.metric_registry import METRICS


def test_ten_images_by_hand():
    """At 0.2, four of five positives and two of five negatives are called: 4/10 - 2/10 * 0.25."""
    labels = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.6, 0.3, 0.2, 0.1, 0.7, 0.25, 0.1, 0.05, 0.0])
    at = np.isin(THRESHOLDS, [0.2, 0.5])
    assert net_benefit(labels, probabilities)[at] == pytest.approx([0.4 - 0.2 * 0.25, 0.2 - 0.1])
    assert treat_all(0.5)[at] == pytest.approx([0.5 - 0.5 / 4, 0.0])


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    labels = (rng.random(200) < 0.3).astype(int)
    patients = [f"p{i // 3}" for i in range(200)]
    runs = expit(rng.normal(size=(3, 200)) + labels * 1.5 - 1)
    return labels, patients, runs


def test_every_threshold_agrees_with_counts_of_another_library(sample):
    labels, _, runs = sample
    found = net_benefit(labels, runs[0])
    for threshold, value in zip(THRESHOLDS, found, strict=True):
        tn, fp, fn, tp = confusion_matrix(labels, runs[0] >= threshold).ravel()
        assert tn + fp + fn + tp == 200
        assert value == pytest.approx(tp / 200 - fp / 200 * threshold / (1 - threshold))


def test_references_are_the_extremes(sample):
    labels, _, _ = sample
    assert net_benefit(labels, np.ones(200)) == pytest.approx(treat_all(labels.mean()))
    assert net_benefit(labels, np.zeros(200)) == pytest.approx(0)
    assert net_benefit(labels, labels.astype(float)) == pytest.approx(labels.mean()), "a perfect predictor"


def test_an_image_adds_between_minus_one_and_one():
    each = net_benefit_of_images(np.array([0, 1]), np.ones(2))
    assert each.min() == -1 and each.max() == 1


def test_a_temperature_moves_the_threshold(sample):
    """p after the temperature T is at least t where p is at least expit(T * logit(t))."""
    labels, _, runs = sample
    scaled = weighted_net_benefit(labels, 1.7, runs[0], np.ones((1, 200)))[0]
    moved = expit(1.7 * logit(THRESHOLDS))
    calls = runs[0][:, None] >= moved
    expected = np.where(labels[:, None] == 1, 1, -THRESHOLDS / (1 - THRESHOLDS)) * calls
    assert scaled == pytest.approx(expected.mean(axis=0))


def test_resamples_repeat_whole_patients(sample):
    labels, patients, runs = sample
    draws = PatientDraws(patients, 20, seed=1)
    values = draws.values(lambda weights: weighted_net_benefit(labels, None, runs[0], weights))
    for number in range(20):
        rows = np.repeat(np.arange(200), draws.weights(slice(number, number + 1))[0].astype(int))
        assert values[number] == pytest.approx(net_benefit(labels[rows], runs[0][rows]))


@pytest.mark.parametrize("n_runs", [1, 2, 3])
def test_several_statistics_at_once_are_those_one_by_one(sample, n_runs):
    labels, patients, runs = sample
    draws = PatientDraws(patients, 50, seed=2)
    metrics = [METRICS["accuracy"], METRICS["auroc"]]

    def both(probabilities, weights):
        return np.stack([metric.on_weights(labels, probabilities, weights) for metric in metrics], axis=1)

    found = resample_scores(draws, both, runs[:n_runs])
    for metric, score in zip(metrics, found, strict=True):
        alone = resample_score(draws, metric, labels, runs[:n_runs])
        assert (score.score, score.run_variance, score.chance, score.freedom) == (
            alone.score, alone.run_variance, alone.chance, alone.freedom,
        )  # fmt: skip
        assert np.array_equal(score.patients, alone.patients)
        assert score.score == metric.point_estimate(labels, runs[:n_runs].mean(axis=0))
