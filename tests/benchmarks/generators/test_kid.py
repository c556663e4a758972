"""KID and its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.generators.kid import KernelReference, kid_difference, kid_of, read_weights, written_weights
from image_metrics.distances import kernel_distance


@pytest.fixture(scope="module")
def features():
    """Three sets: 30 real ones of 30 patients, 50 like them, 50 that are off."""
    rng = np.random.default_rng(3)
    return [rng.normal(shift, 1, (n, 12)) for n, shift in ((30, 0.0), (50, 0.0), (50, 0.4))]


def test_kid_is_the_unbiased_one_and_its_interval_that_of_resampled_patients(features):
    real, good, bad = features
    reference = KernelReference(real, np.arange(30))
    for made in (good, bad):
        assert reference.compare(made)["kid"] == pytest.approx(kernel_distance(made, real), abs=1e-6)
    # The same by hand for a few resamples: real rows repeated, pairs of an image with itself left out.
    kernel = lambda a, b: (a @ b.T / 12 + 1) ** 3  # noqa: E731
    for weights, within in zip(reference.weights[:5], reference.kernel["resampled"], strict=False):
        rows = np.repeat(np.arange(30), weights.astype(int))
        apart = rows[:, None] != rows[None, :]
        assert within == pytest.approx(kernel(real[rows], real[rows])[apart].mean())
    found = reference.compare(bad)
    low, high = found["kid_ci95"]
    assert low < found["kid"] < high


def test_both_images_of_a_patient_come_and_go_together():
    weights = KernelReference(np.eye(4), np.array(["a", "b", "a", "c"])).weights
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 0] != weights[:, 1]).any()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (read_weights(written_weights(weights)) == weights).all()


def test_an_interval_covers_other_samples_of_reals():
    """KID beside 30 reals, against KID of the same images beside 4,000: 95 % of intervals hold it."""
    rng = np.random.default_rng(0)
    made, many = rng.normal(0.3, 1, (100, 6)), rng.normal(0, 1, (4000, 6))
    truth, inside = kernel_distance(made, many), 0
    for _ in range(100):
        real = rng.normal(0, 1, (30, 6))
        low, high = KernelReference(real, np.arange(30)).compare(made)["kid_ci95"]
        inside += low <= truth <= high
    assert inside >= 85


def test_a_paired_difference_is_surer_than_its_parts(features):
    real, good, bad = features
    reference = KernelReference(real, np.arange(30))
    a, b = reference.compare(bad), reference.compare(good)
    gap = kid_difference([a], [b], reference.weights)
    assert gap["difference"] == pytest.approx(a["kid"] - b["kid"]) and gap["ci95"][0] > 0
    width = lambda interval: interval[1] - interval[0]  # noqa: E731
    assert width(gap["ci95"]) < width(a["kid_ci95"])
    assert kid_difference([a], [a], reference.weights) == {"difference": 0.0, "ci95": [0.0, 0.0]}
    both = kid_of([a, b], reference.kernel, reference.weights)
    assert both["kid"] == pytest.approx((a["kid"] + b["kid"]) / 2)
