"""SSIM against its published formula; pairs, and the diversity that follows from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from image_metrics import ssim


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


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
    assert ssim.ssim(a, b) == pytest.approx(ssim_by_formula(a, b), abs=1e-6)
    assert ssim.ssim(a, a) == pytest.approx(1.0)


def test_pairs_are_distinct_and_seeded():
    pairs = ssim.draw_pairs(7, 9, 20, seed=3)
    assert pairs.shape == (20, 2)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 20
    assert pairs[:, 0].max() < 7 and pairs[:, 1].max() < 9
    assert (pairs == ssim.draw_pairs(7, 9, 20, seed=3)).all()
    assert (pairs != ssim.draw_pairs(7, 9, 20, seed=4)).any()
    assert len(ssim.draw_pairs(3, 4, 100, seed=0)) == 12  # all there are


def test_pairs_within_a_set_join_different_patients_once():
    patients = ["a", "a", "b", "c", "c"]
    pairs = ssim.draw_pairs_within(patients, 100, seed=0)
    expected = {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4)}
    assert {tuple(pair) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)
    assert len(ssim.draw_pairs_within(["a"] * 6, 10, seed=0)) == 0


def test_summary_counts_pairs_and_images():
    pairs = np.array([[0, 1], [0, 2], [3, 1]])
    summary = ssim.summarise_pairs(np.array([0.1, 0.2, 0.6]), pairs)
    assert summary["ssim"] == pytest.approx(0.3) and summary["ssim_median"] == pytest.approx(0.2)
    assert summary["ssim_sd"] == pytest.approx(np.sqrt(((0.2**2) + 0.1**2 + 0.3**2) / 2))
    assert summary["n_pairs"] == 3 and summary["n_images"] == [2, 2]
    assert ssim.summarise_pairs(np.array([0.1, 0.2, 0.6]), pairs, same_set=True)["n_images"] == [4]
    assert ssim.summarise_pairs(np.empty(0), np.empty((0, 2), int))["ssim"] is None


def test_relative_diversity_is_one_for_equal_spread_and_nothing_for_one_image():
    def ratio(mean, sd, n_pairs):
        return ssim.relative_diversity({"ssim": mean, "ssim_sd": sd, "n_pairs": n_pairs}, real)[
            "ssim_diversity"
        ]

    real = {"ssim": 0.4, "ssim_sd": 0.1, "n_pairs": 100}
    same = ssim.relative_diversity(real, real)
    assert same["ssim_diversity"] == 1.0
    # Two independent means, each with a standard error of 0.01, in a ratio of 0.6 to 0.6.
    upper = same["ssim_diversity_ci95"][1]
    assert upper - 1 == pytest.approx(1.96 * np.sqrt(2) * 0.01 / 0.6)
    assert ratio(1.0, 0.0, 100) == 0.0 and ratio(0.7, 0.1, 100) == pytest.approx(0.5)
    assert ratio(None, None, 0) is None and ratio(0.4, None, 1) is None
