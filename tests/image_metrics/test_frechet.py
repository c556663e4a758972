"""The Fréchet distance against closed forms and the matrix square root."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from image_metrics import frechet


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_frechet_closed_form_of_commuting_gaussians():
    sigma_a, sigma_b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 1.0])
    shift = np.array([1.0, -2.0, 0.5])
    # With diagonal covariances the trace term is the sum of (sqrt(a) - sqrt(b))^2 = 1 + 0 + 4.
    assert frechet.frechet_distance(shift, sigma_a, np.zeros(3), sigma_b) == pytest.approx(5.25 + 5.0)
    assert frechet.frechet_distance(shift, sigma_a, shift, sigma_a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_agrees_with_the_matrix_square_root(rng):
    a, b = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(1.0, 2.0, size=(80, 5))
    (mu_a, s_a), (mu_b, s_b) = frechet.mean_and_covariance(a), frechet.mean_and_covariance(b)
    reference = ((mu_a - mu_b) ** 2).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)
    assert frechet.frechet_distance(mu_a, s_a, mu_b, s_b) == pytest.approx(reference, rel=1e-9)
    assert frechet.frechet_distance_of_features(a, b) == pytest.approx(reference, rel=1e-9)


def test_fewer_images_than_features_gives_the_same_number(rng):
    a, b = rng.normal(size=(12, 30)), rng.normal(0.3, 1.5, size=(9, 30))
    by_moments = frechet.frechet_distance(*frechet.mean_and_covariance(a), *frechet.mean_and_covariance(b))
    assert frechet.frechet_distance_of_features(a, b) == pytest.approx(by_moments, rel=1e-6)
