"""Precision, recall, density, coverage, separability and SSIM against definitions and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from image_metrics import fidelity
from image_metrics.distances import equal_draws


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def by_definition(made: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    """The four scores with a loop for every sum of the papers."""

    def reach(points, i):
        return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]

    inside_real = [
        [np.linalg.norm(x - real[i]) <= reach(real, i) for i in range(len(real))] for x in made
    ]  # fmt: skip
    inside_made = [
        [np.linalg.norm(x - made[j]) <= reach(made, j) for j in range(len(made))] for x in real
    ]  # fmt: skip
    return {
        "precision": np.mean([any(balls) for balls in inside_real]),
        "recall": np.mean([any(balls) for balls in inside_made]),
        "density": np.sum(inside_real) / (k * len(made)),
        "coverage": np.mean([any(balls[i] for balls in inside_real) for i in range(len(real))]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_scores_are_their_definitions(rng, k):
    made, real = rng.normal(0.7, 0.8, size=(17, 3)), rng.normal(size=(23, 3))
    scores = fidelity.neighbourhood_scores(made, real, k)
    assert scores == pytest.approx(by_definition(made, real, k))
    assert 0 < scores["precision"] < 1 and 0 < scores["recall"] < 1  # the case decides something


def test_scores_in_closed_form():
    real = np.arange(5.0)[:, None]  # on a line, one apart: every ball has radius 1 with k = 1
    made = np.array([[0.0], [0.5], [9.0], [9.5]])  # radii .5, .5, .5, .5
    scores = fidelity.neighbourhood_scores(made, real, k=1)
    assert scores["precision"] == 0.5  # 0 and 0.5
    assert scores["density"] == (2 + 2 + 0 + 0) / 4  # both lie in the balls of 0 and of 1
    assert scores["coverage"] == 2 / 5  # the balls of 0 and of 1
    assert scores["recall"] == 2 / 5  # 0 in the ball of 0, 1 in that of 0.5
    with pytest.raises(ValueError, match="more than 4"):
        fidelity.neighbourhood_scores(made, real, k=4)


def test_one_distribution_scores_high_and_a_planted_collapse_scores_nothing(rng):
    training, heldout = rng.normal(size=(300, 8)), rng.normal(size=(150, 8))
    patients = list(range(300))
    fresh = rng.normal(size=(400, 8))
    collapsed = rng.normal(size=(1, 8)) + rng.normal(0, 0.01, size=(400, 8))
    scores = {}
    for name, made in (("fresh", fresh), ("collapsed", collapsed)):
        sets = equal_draws(training, patients, made, heldout, max_images=1000, seed=3)
        result = fidelity.scores_over_draws(sets)
        assert result["n"] == 150 and result["k"] == fidelity.NEIGHBOURS
        scores[name] = result["comparisons"]["synthetic_vs_training"]
        unseen = result["comparisons"]["heldout_vs_training"]
    for key in fidelity.SCORES:
        assert scores["fresh"][key] == pytest.approx(unseen[key], abs=0.1)
    assert scores["fresh"]["density"] == pytest.approx(1.0, abs=0.2)  # its expectation, Naeem et al. 2020
    assert scores["collapsed"]["recall"] == 0.0 and scores["collapsed"]["coverage"] < 0.1


def test_too_few_images_have_no_scores(rng):
    few = rng.normal(size=(8, 2))
    sets = equal_draws(few, list(range(8)), few, None, max_images=100, seed=0)
    assert fidelity.scores_over_draws(sets) == {"n": 4, "k": 5, "draws": sets.draws}


# --- separability ----------------------------------------------------------------------------------
def probe(a, b, patients=None, n=200, seed=0) -> dict:
    groups = patients if patients is not None else [f"p{i}" for i in range(len(a))]
    return fidelity.separability(a, groups, b, [f"s{i}" for i in range(len(b))], n=n, seed=seed)


def test_one_distribution_cannot_be_separated_and_two_can(rng):
    a, b = rng.normal(size=(300, 20)), rng.normal(size=(250, 20))
    same = probe(a, b)
    assert same["probe_auroc"] == pytest.approx(0.5, abs=0.12) and same["n_images"] == [200, 200]
    b[:, 7] += 4.0
    assert probe(a, b)["probe_auroc"] > 0.99
    assert probe(a, b) == probe(a, b)


def test_patients_stay_in_one_fold(rng):
    """20 patients of 10 images each, all alike: a probe that saw a patient would know her other images."""
    patients = np.repeat(np.arange(20), 10)
    a = rng.normal(size=(20, 60))[patients] + rng.normal(0, 0.05, size=(200, 60))
    b = rng.normal(size=(200, 60))
    leaking = probe(a, b)["probe_auroc"]  # every image its own group
    assert leaking > 0.8 and probe(a, b, patients)["probe_auroc"] < 0.65


def test_too_few_groups_give_no_auroc(rng):
    a, b = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    assert probe(a, b, ["one patient"] * 30)["probe_auroc"] is None


# --- SSIM ---
def ssim_by_formula(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, with torch's convolution; windows that leave the image left out."""
    x = torch.from_numpy(a).double()[None, None]
    y = torch.from_numpy(b).double()[None, None]
    t = torch.arange(-5, 6, dtype=torch.double)
    g = torch.exp(-(t**2) / (2 * 1.5**2))
    window = torch.outer(g / g.sum(), g / g.sum())[None, None]
    mx, my = F.conv2d(x, window), F.conv2d(y, window)
    vx, vy = F.conv2d(x * x, window) - mx**2, F.conv2d(y * y, window) - my**2
    cov = F.conv2d(x * y, window) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(index.mean())


def test_ssim_is_the_published_formula(rng):
    a = rng.integers(0, 256, (40, 40), dtype=np.uint8)
    b = np.clip(a * 0.6 + rng.normal(60, 20, a.shape), 0, 255).astype(np.uint8)
    assert fidelity.ssim(a, b) == pytest.approx(ssim_by_formula(a, b), abs=1e-6)
    assert fidelity.ssim(a, a) == pytest.approx(1.0)


def test_pairs_are_distinct_and_seeded():
    pairs = fidelity.draw_pairs(7, 9, 20, seed=3)
    assert pairs.shape == (20, 2)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 20
    assert pairs[:, 0].max() < 7 and pairs[:, 1].max() < 9
    assert (pairs == fidelity.draw_pairs(7, 9, 20, seed=3)).all()
    assert (pairs != fidelity.draw_pairs(7, 9, 20, seed=4)).any()
    assert len(fidelity.draw_pairs(3, 4, 100, seed=0)) == 12  # all there are


def test_pairs_within_a_set_join_different_patients_once():
    patients = ["a", "a", "b", "c", "c"]
    pairs = fidelity.draw_pairs_within(patients, 100, seed=0)
    expected = {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4)}
    assert {tuple(pair) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)
    assert len(fidelity.draw_pairs_within(["a"] * 6, 10, seed=0)) == 0


def test_summary_counts_pairs_and_images():
    pairs = np.array([[0, 1], [0, 2], [3, 1]])
    summary = fidelity.summarise_pairs(np.array([0.1, 0.2, 0.6]), pairs)
    assert summary["ssim"] == pytest.approx(0.3) and summary["ssim_median"] == pytest.approx(0.2)
    assert summary["ssim_sd"] == pytest.approx(np.sqrt(((0.2**2) + 0.1**2 + 0.3**2) / 2))
    assert summary["n_pairs"] == 3 and summary["n_images"] == [2, 2]
    assert fidelity.summarise_pairs(np.array([0.1, 0.2, 0.6]), pairs, same_set=True)["n_images"] == [4]
    assert fidelity.summarise_pairs(np.empty(0), np.empty((0, 2), int))["ssim"] is None


def test_relative_diversity_is_one_for_equal_spread_and_nothing_for_one_image():
    def ratio(mean, sd, n_pairs):
        return fidelity.relative_diversity({"ssim": mean, "ssim_sd": sd, "n_pairs": n_pairs}, real)["ssim_diversity"]

    real = {"ssim": 0.4, "ssim_sd": 0.1, "n_pairs": 100}
    same = fidelity.relative_diversity(real, real)
    assert same["ssim_diversity"] == 1.0
    # Two independent means, each with a standard error of 0.01, in a ratio of 0.6 to 0.6.
    upper = same["ssim_diversity_ci95"][1]
    assert upper - 1 == pytest.approx(1.96 * np.sqrt(2) * 0.01 / 0.6)
    assert ratio(1.0, 0.0, 100) == 0.0 and ratio(0.7, 0.1, 100) == pytest.approx(0.5)
    assert ratio(None, None, 0) is None and ratio(0.4, None, 1) is None
