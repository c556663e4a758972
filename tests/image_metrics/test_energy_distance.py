"""Energy distance by groups, against closed forms and plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from image_metrics import energy_distance
from image_metrics.energy_distance import measure_energy


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(energy_distance, "PERMUTATIONS", 100)


def measure(real, synthetic, patients=None, groups=None, level=0.05, seed=0):
    patients = [f"p{i}" for i in range(len(real))] if patients is None else patients
    groups = [f"s{i}" for i in range(len(synthetic))] if groups is None else groups
    return measure_energy(real, patients, synthetic, groups, level=level, seed=seed)


def mean(a, ga, b, gb):
    pairs = itertools.product(zip(a, ga, strict=True), zip(b, gb, strict=True))
    return np.mean([np.linalg.norm(x - y) for (x, g), (y, h) in pairs if g != h])


def plain_excess(real, synthetic, patients, groups):
    within = mean(real, patients, real, patients) + mean(synthetic, groups, synthetic, groups)
    return 2 * mean(real, patients, synthetic, groups) - within


@pytest.mark.parametrize("shared", [False, True])
def test_the_excess_is_that_of_pairs_of_different_groups(shared):
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(14, 3)), rng.normal(0.5, 1, size=(9, 3))
    patients = [f"p{i // 2}" for i in range(14)]
    groups = [f"{'p' if shared else 's'}{i // 3}" for i in range(9)]
    found = measure(real, made, patients, groups)
    assert found.value - found.floor == pytest.approx(plain_excess(real, made, patients, groups), abs=1e-5)


def test_the_floor_of_single_images_is_twice_their_mean_distance_over_n():
    real = np.random.default_rng(2).normal(size=(60, 4))
    found = measure(real, real[:30] + 0.01)
    mean = np.mean([np.linalg.norm(x - y) for x, y in itertools.combinations(real, 2)])
    assert found.n == 30
    assert found.floor == pytest.approx(2 * mean / 30, rel=0.15)  # a mean over 20 draws of halves
    assert found.margin == pytest.approx(found.floor * 0.3)


def test_the_error_is_that_of_leaving_out_one_group_at_a_time():
    rng = np.random.default_rng(3)
    sides = [rng.normal(size=(10, 2)), rng.normal(4, 1, size=(8, 2))]
    names = [[f"p{i // 2}" for i in range(10)], [f"s{i}" for i in range(8)]]
    found = measure(*sides, *names)
    assert found.farther and found.half_width >= found.chance
    within = [mean(a, g, a, g) for a, g in zip(sides, names, strict=True)]
    assert found.variety == pytest.approx(within[1] / within[0])
    variance = 0.0
    for own in (0, 1):
        ratios = []
        for left_out in sorted(set(names[own])):
            keep = [name != left_out for name in names[own]]
            kept = [name for name in names[own] if name != left_out]
            parts = list(within)
            parts[own] = mean(sides[own][keep], kept, sides[own][keep], kept)
            ratios.append(parts[1] / parts[0])
        variance += (len(ratios) - 1) * np.var(ratios)
    assert found.variety_error == pytest.approx(np.sqrt(variance), rel=1e-4)


def test_lost_variety_is_farther_where_the_frechet_distance_of_few_images_is_nearer():
    from image_metrics.distances import frechet_distance_of_features

    rng = np.random.default_rng(4)
    real, made = rng.normal(size=(80, 200)), 0.6 * rng.normal(size=(40, 200))
    assert measure(real, made).farther
    halves = frechet_distance_of_features(real[:40], real[40:])
    assert frechet_distance_of_features(made, real[:40]) < halves


def test_few_groups_of_many_images_say_less_than_as_many_single_images():
    rng = np.random.default_rng(5)
    people = rng.normal(size=(24, 6))
    real = np.repeat(people[:16], 5, axis=0) + 0.2 * rng.normal(size=(80, 6))
    made = np.repeat(people[16:], 5, axis=0) + 0.2 * rng.normal(size=(40, 6))
    named = measure(real, made, [f"p{i // 5}" for i in range(80)], [f"s{i // 5}" for i in range(40)])
    unnamed = measure(real, made)
    assert named.half_width > 1.5 * unnamed.half_width
    assert not named.farther and unnamed.farther  # eight people differ from sixteen others by chance


@pytest.mark.slow
def test_equal_kinds_are_called_farther_in_at_most_five_percent_of_draws():
    rng = np.random.default_rng(6)
    farther = [measure(rng.normal(size=(60, 8)), rng.normal(size=(30, 8)), seed=s).farther for s in range(400)]
    assert np.mean(farther) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
