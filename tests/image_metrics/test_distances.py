"""Distances against closed forms and definitions; draws of equal size share no patient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from image_metrics.distances import (
    DRAWS,
    distances_of_draws,
    equal_draws,
    frechet_distance,
    frechet_distance_of_features,
    halve_by_group,
    kernel_distance,
    kernel_distance_of_subsets,
    mean_and_covariance,
    mean_distances,
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


# --- means over draws ---
def test_halves_share_no_patient_and_are_about_equal(rng):
    patients = rng.integers(0, 30, 100)
    first, second = halve_by_group(patients, seed=1)
    assert sorted([*first, *second]) == list(range(100))
    assert not set(patients[first]) & set(patients[second])
    assert abs(len(first) - len(second)) <= 10
    assert (first != halve_by_group(patients, seed=2)[0][: len(first)]).any()


def distances(training, patients, synthetic, heldout, max_images) -> dict:
    sets = equal_draws(training, patients, synthetic, heldout, max_images=max_images, seed=0)
    return mean_distances(sets.n, distances_of_draws(sets))


def test_every_distance_uses_the_same_n_and_the_floor_is_below_a_real_shift(rng):
    training, heldout = rng.normal(size=(80, 6)), rng.normal(size=(30, 6))
    synthetic = rng.normal(1.0, 1.0, size=(200, 6))
    patients = [f"p{i // 2}" for i in range(80)]
    result = distances(training, patients, synthetic, heldout, 1000)
    assert result["n"] == 30 and result["draws"] == DRAWS
    by_name = result["comparisons"]
    floor = by_name["floor"]["fid"]
    assert by_name["synthetic_vs_training"]["fid"] > floor + 3
    assert by_name["synthetic_vs_heldout"]["fid"] > floor + 3
    assert by_name["heldout_vs_training"]["fid"] < 2 * floor
    assert by_name["synthetic_vs_training"]["kid"] > 10 * abs(by_name["floor"]["kid"])
    assert distances(training, patients, synthetic, heldout, 1000) == result
    few = distances(training, patients, synthetic, heldout[:5], 1000)
    assert few["n"] > 30 and "synthetic_vs_heldout" not in few["comparisons"]
    fewer = distances(training, patients, synthetic, None, 12)
    assert fewer["n"] == 12 and set(fewer["comparisons"]) == {"synthetic_vs_training", "floor"}


def test_draws_never_mix_patients_and_can_be_read_twice(rng):
    training = np.arange(40.0)[:, None]  # the feature is the row
    patients = np.arange(40) // 4
    sets = equal_draws(training, patients, 100 + training, 200 + training[:19], max_images=99, seed=1, draws=3)
    assert sets.n == 19 and sets.draws == 3
    draws = list(sets)
    assert len(draws) == 3
    for compared in draws:
        assert all(len(side) == 19 for pair in compared.values() for side in pair)
        other, first = (patients[side[:, 0].astype(int)] for side in compared["floor"])
        assert not set(other) & set(first)
        assert compared["synthetic_vs_training"][0].min() >= 100
        assert compared["heldout_vs_training"][0].min() >= 200 > compared["heldout_vs_training"][1].max()
    again = list(sets)
    assert all((a["floor"][0] == b["floor"][0]).all() for a, b in zip(draws, again, strict=True))


def test_too_few_images_give_no_distance(rng):
    one = rng.normal(size=(1, 4))
    assert distances(rng.normal(size=(9, 4)), list(range(9)), one, None, 100) == {"n": 1}
