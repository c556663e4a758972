"""Copies of every kind are planted, and fresh images too; shares and chances against brute force."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from dataset.near_copies import detail_distances
from fake_pictures import SIZE, pictures
from image_metrics.copies import closer_to_training, closest_pairs, near_copies


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    training = pictures(rng, 120)
    chosen = training[:20].astype(float)
    altered = {
        "exact": chosen,
        "brighter": 0.7 * chosen + 60,
        "moved by 1 pixel": shift(chosen, (0, 1, -1), order=1, mode="nearest"),
        "moved by 2 pixels": shift(chosen, (0, -2, 2), order=1, mode="nearest"),
        "blurred": gaussian_filter(chosen, (0, 1.5, 1.5)),
        "noisy": chosen + rng.normal(0, 15, chosen.shape),
    }
    copies = {name: images.clip(0, 255).astype(np.uint8) for name, images in altered.items()}
    return {"training": training, "heldout": pictures(rng, 60), "fresh": pictures(rng, 200), **copies}


@pytest.fixture(scope="module")
def yardstick(world) -> np.ndarray:
    return detail_distances(world["heldout"], world["training"])


@pytest.mark.parametrize("kind", ["exact", "brighter", "moved by 1 pixel", "moved by 2 pixels", "blurred", "noisy"])
def test_planted_copies_are_flagged_and_traced_to_their_originals(world, yardstick, kind):
    distances = detail_distances(world[kind], world["training"])
    found = near_copies(distances, yardstick)
    assert found["flagged"] == 20 and found["share"] == 1.0
    assert found["nearly_identical"] >= 18
    assert (distances.argmin(axis=1) == np.arange(20)).all()


def test_fresh_images_are_mostly_not_flagged(world, yardstick):
    distances = detail_distances(world["fresh"], world["training"])
    found = near_copies(distances, yardstick)
    assert found["share"] < 0.08 and found["nearly_identical"] == 0
    assert found["median_nearest"] == pytest.approx(found["heldout_median_nearest"], rel=0.1)
    assert 0 < found["heldout_share"] <= 0.02  # 1 % of 60 images
    low, high = found["share_ci95"]
    assert low <= found["share"] <= high
    assert (found["n_synthetic"], found["n_training"], found["n_heldout"]) == (200, 120, 60)


def test_a_single_copy_among_fresh_images_is_found(world, yardstick):
    mixed = world["fresh"].copy()
    mixed[17] = world["brighter"][3]
    distances = detail_distances(mixed, world["training"])
    assert near_copies(distances, yardstick)["nearly_identical"] == 1
    assert distances.min(axis=1).argmin() == 17


def test_distances_are_blind_to_light_and_know_identity(world):
    image = world["training"][:1]
    assert detail_distances(image, image)[0, 0] == pytest.approx(0.0, abs=1e-5)
    flat = np.full_like(image, 90)
    assert detail_distances(flat, image)[0, 0] == pytest.approx(1.0)
    ramp = (image * 0.5 + np.linspace(0, 90, SIZE)[None, None]).astype(np.uint8)
    assert detail_distances(ramp, image)[0, 0] < 0.05
    many = detail_distances(world["fresh"], world["training"])
    one = detail_distances(world["fresh"][:3], world["training"][:5])
    assert many[:3, :5] == pytest.approx(one, abs=1e-6)
    assert detail_distances(world["fresh"][:2], world["training"][:0]).shape == (2, 0)


# --- training against held-out ---------------------------------------------------------------------
def share_by_enumeration(to_training: np.ndarray, to_heldout: np.ndarray) -> float:
    """All ways of reducing the training images to as many as there are held-out ones."""
    m = to_heldout.shape[1]
    wins = [
        to_training[:, list(kept)].min(axis=1) < to_heldout.min(axis=1)
        for kept in combinations(range(to_training.shape[1]), m)
    ]
    return float(np.mean(wins))


def test_share_is_the_mean_over_all_equal_subsets():
    rng = np.random.default_rng(0)
    to_training, to_heldout = rng.random((9, 8)), rng.random((9, 3))
    patients = [f"t{i}" for i in range(8)], [f"h{i}" for i in range(3)]
    found = closer_to_training(to_training, to_heldout, *patients, seed=0, permutations=5)
    assert found["share"] == pytest.approx(share_by_enumeration(to_training, to_heldout))
    assert found["candidates"] == 3
    other = closer_to_training(to_heldout, to_training, *patients[::-1], seed=0, permutations=5)
    assert other["share"] == pytest.approx(1 - found["share"])


def euclid(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def test_a_generator_that_follows_its_training_images_is_outside_chance():
    rng = np.random.default_rng(3)
    training, heldout = rng.normal(size=(90, 6)), rng.normal(size=(40, 6))
    patients = np.arange(90) // 2, 1000 + np.arange(40)

    def closer(made: np.ndarray) -> dict:
        return closer_to_training(euclid(made, training), euclid(made, heldout), *patients, seed=2, permutations=200)

    honest = closer(rng.normal(size=(300, 6)))
    low, high = honest["chance95"]
    assert low <= honest["share"] <= high and low < 0.5 < high
    near = closer(training[rng.integers(0, 90, 300)] + rng.normal(0, 0.5, size=(300, 6)))
    assert near["share"] > near["chance95"][1] + 0.1
    # Blurred images lie in the middle, near everything: closer to the training images than held-out ones
    # are, but no closer than to the held-out ones.
    blurred = 0.2 * rng.normal(size=(300, 6))
    copies = near_copies(euclid(blurred, training), euclid(heldout, training))
    assert copies["median_nearest"] < copies["heldout_median_nearest"]
    middle = closer(blurred)
    assert middle["chance95"][0] <= middle["share"] <= middle["chance95"][1]


def test_chance_covers_a_generator_that_saw_neither():
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        training, heldout, made = (rng.normal(size=(n, 3)) for n in (40, 20, 60))
        found = closer_to_training(
            euclid(made, training),
            euclid(made, heldout),
            range(40),
            range(100, 120),
            seed=0,
            permutations=100,
        )
        inside.append(found["chance95"][0] <= found["share"] <= found["chance95"][1])
    assert np.mean(inside) > 0.85  # nominally 0.95; 60 trials


# --- closest pairs ---------------------------------------------------------------------------------
def test_a_planted_copy_is_the_closest_pair():
    rng = np.random.default_rng(7)
    real = rng.integers(0, 256, (20, 48, 48), dtype=np.uint8)
    synthetic = rng.integers(0, 256, (10, 48, 48), dtype=np.uint8)
    synthetic[4] = real[13] // 2 + 20  # darker and flatter, but the same image
    pairs, r = closest_pairs(synthetic, real, 3)
    assert pairs[0].tolist() == [4, 13] and r[0] > 0.99 > 0.9 > r[1]
    assert len(set(pairs[:, 0].tolist())) == 3
    flat = np.zeros((1, 48, 48), dtype=np.uint8)
    assert closest_pairs(flat, real, 1)[1][0] == 0.0
