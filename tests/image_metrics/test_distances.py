"""Distances against closed forms, independent formulas and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from image_metrics.distances import (
    frechet_distance,
    frechet_distance_of_features,
    kernel_distance,
    kernel_distance_of_subsets,
    mean_and_covariance,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_frechet_closed_form_of_commuting_gaussians():
    sigma_a, sigma_b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 1.0])
    shift = np.array([1.0, -2.0, 0.5])
    # With diagonal covariances the trace term is the sum of (sqrt(a) - sqrt(b))^2 = 1 + 0 + 4.
    assert frechet_distance(shift, sigma_a, np.zeros(3), sigma_b) == pytest.approx(5.25 + 5.0)
    assert frechet_distance(shift, sigma_a, shift, sigma_a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_agrees_with_the_matrix_square_root(rng):
    a, b = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(1.0, 2.0, size=(80, 5))
    (mu_a, s_a), (mu_b, s_b) = mean_and_covariance(a), mean_and_covariance(b)
    reference = ((mu_a - mu_b) ** 2).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)
    assert frechet_distance(mu_a, s_a, mu_b, s_b) == pytest.approx(reference, rel=1e-9)
    assert frechet_distance_of_features(a, b) == pytest.approx(reference, rel=1e-9)


def test_fewer_images_than_features_gives_the_same_number(rng):
    a, b = rng.normal(size=(12, 30)), rng.normal(0.3, 1.5, size=(9, 30))
    by_moments = frechet_distance(*mean_and_covariance(a), *mean_and_covariance(b))
    assert frechet_distance_of_features(a, b) == pytest.approx(by_moments, rel=1e-6)


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    same = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    standard_error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * standard_error
    assert min(same) < 0 < max(same)
    a, b = rng.normal(size=(6, 3)), rng.normal(1.0, size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within_a = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_kernel_distance_of_whole_subsets_is_the_plain_one_and_of_parts_unbiased(rng):
    a, b = rng.normal(size=(12, 3)), rng.normal(0.5, 1.0, size=(12, 3))
    whole = kernel_distance_of_subsets(a, b, size=12, seed=0, n_subsets=4)
    assert whole["kid_of_subsets"] == pytest.approx(kernel_distance(a, b))
    assert whole["kid_of_subsets_sd"] == pytest.approx(0.0, abs=1e-12)
    parts = kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000)
    error = parts["kid_of_subsets_sd"] / np.sqrt(3000)
    assert abs(parts["kid_of_subsets"] - whole["kid_of_subsets"]) < 4 * error < 0.5 * whole["kid_of_subsets"]
    assert kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000) == parts
