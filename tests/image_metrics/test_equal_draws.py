"""Draws of equal size share no patient, and their distances follow planted truths."""

from __future__ import annotations

import numpy as np
import pytest

from image_metrics.equal_draws import DRAWS, equal_draws, feature_distances, halve_by_group


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_halves_share_no_patient_and_are_about_equal(rng):
    patients = rng.integers(0, 30, 100)
    first, second = halve_by_group(patients, seed=1)
    assert sorted([*first, *second]) == list(range(100))
    assert not set(patients[first]) & set(patients[second])
    assert abs(len(first) - len(second)) <= 10
    assert (first != halve_by_group(patients, seed=2)[0][: len(first)]).any()


def distances(training, patients, synthetic, heldout, max_images) -> dict:
    sets = equal_draws(training, patients, synthetic, heldout, max_images=max_images, seed=0)
    return feature_distances(sets)


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
    sets = equal_draws(
        training, patients, 100 + training, 200 + training[:19], max_images=99, seed=1, draws=3
    )
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
