"""The calibration line, held against statsmodels' logistic regression."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from stats.calibration_line import calibration_line, fit_intercept, fit_slope


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    logits = rng.normal(-0.5, 1.5, 400)
    labels = (rng.random(400) < expit(0.4 + 0.6 * logits)).astype(float)
    return labels, logits, rng.integers(0, 4, (3, 400)).astype(float)


def test_both_fits_are_those_of_a_logistic_regression(drawn):
    labels, logits, weights = drawn
    found = fit_intercept(labels, logits, weights), fit_slope(labels, logits, weights)
    for row, a, b in zip(weights, *found, strict=True):
        binomial = {"family": sm.families.Binomial(), "freq_weights": row}
        line = sm.GLM(labels, sm.add_constant(logits), **binomial).fit()
        large = sm.GLM(labels, np.ones((400, 1)), offset=logits, **binomial).fit()
        assert b == pytest.approx(line.params[1], abs=1e-6)
        assert a == pytest.approx(large.params[0], abs=1e-6)


@pytest.mark.parametrize(
    ("centre", "spread", "true"), [(-3.0, 3.0, 0.15), (-6.0, 4.0, 0.4), (0.0, 0.05, 5.0), (2.0, 6.0, -0.1)]
)
def test_far_from_calibrated_it_converges_too(centre, spread, true):
    """Plain Newton from a slope of 1 jumps to and fro between 1 and -1 for probabilities that are much too bold."""
    rng = np.random.default_rng(1)
    logits = rng.normal(centre, spread, 300)
    labels = (rng.random(300) < expit(-1 + true * (logits - centre))).astype(float)
    weights = np.vstack([np.ones(300), rng.integers(0, 3, (4, 300))])
    for row, b in zip(weights, fit_slope(labels, logits, weights), strict=True):
        line = sm.GLM(labels, sm.add_constant(logits), family=sm.families.Binomial(), freq_weights=row).fit()
        assert b == pytest.approx(line.params[1], rel=1e-5)


def test_the_intervals_hold_what_the_labels_were_drawn_with(drawn):
    labels, logits, _ = drawn
    line = calibration_line(labels, expit(logits), list(range(400)))
    low, high = line["slope_ci95"]
    assert low < 0.6 < high < 1 and low < line["slope"] < high
    assert line["intercept"] > 0 and line["intercept_ci95"][0] < line["intercept"] < line["intercept_ci95"][1]
    assert line["share_positive"] == labels.mean()


def test_images_of_a_patient_stay_together(drawn):
    labels, logits, _ = drawn
    patients = np.arange(400)
    twice = calibration_line(np.tile(labels, 2), expit(np.tile(logits, 2)), np.tile(patients, 2), seed=1)
    once = calibration_line(labels, expit(logits), patients, seed=1)
    assert twice["slope_ci95"] == pytest.approx(once["slope_ci95"], abs=1e-9)


@pytest.mark.parametrize(("labels", "reason"), [([0, 0, 0, 0], "one class"), ([0, 0, 1, 1], "separated")])
def test_a_line_that_cannot_be_fitted_is_null(labels, reason):
    line = calibration_line(np.array(labels), expit(np.array([-2.0, -1, 1, 2])), range(4))
    assert line["slope"] is None and line["slope_ci95"] is None
    assert (line["intercept"] is None) is (reason == "one class")


def test_probabilities_of_0_and_1_are_finite():
    line = calibration_line(np.array([0, 1, 1, 0]), np.array([0.0, 1.0, 0.2, 0.4]), range(4))
    assert np.isfinite([line["intercept"], logit(line["mean_probability"])]).all()
