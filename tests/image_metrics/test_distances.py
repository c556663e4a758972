"""Distances against closed forms, independent formulas and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn import functional as F

from image_metrics import distances as quality
from networks import inception
from utils import UserError, WeightsUnavailableError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# --- SSIM ------------------------------------------------------------------------------------------
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
    assert quality.ssim(a, b) == pytest.approx(ssim_by_formula(a, b), abs=1e-6)
    assert quality.ssim(a, a) == pytest.approx(1.0)


def test_pairs_are_distinct_and_seeded():
    pairs = quality.draw_pairs(7, 9, 20, seed=3)
    assert pairs.shape == (20, 2)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 20
    assert pairs[:, 0].max() < 7 and pairs[:, 1].max() < 9
    assert (pairs == quality.draw_pairs(7, 9, 20, seed=3)).all()
    assert (pairs != quality.draw_pairs(7, 9, 20, seed=4)).any()
    assert len(quality.draw_pairs(3, 4, 100, seed=0)) == 12  # all there are


def test_pairs_within_a_set_join_different_patients_once():
    patients = ["a", "a", "b", "c", "c"]
    pairs = quality.draw_pairs_within(patients, 100, seed=0)
    expected = {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4)}
    assert {tuple(pair) for pair in pairs.tolist()} == expected and len(pairs) == len(expected)
    assert len(quality.draw_pairs_within(["a"] * 6, 10, seed=0)) == 0


def test_summary_counts_pairs_and_images():
    pairs = np.array([[0, 1], [0, 2], [3, 1]])
    summary = quality.summarise(np.array([0.1, 0.2, 0.6]), pairs)
    assert summary["mean"] == pytest.approx(0.3) and summary["median"] == pytest.approx(0.2)
    assert summary["sd"] == pytest.approx(np.sqrt(((0.2**2) + 0.1**2 + 0.3**2) / 2))
    assert summary["n_pairs"] == 3 and summary["n_images"] == [2, 2]
    assert quality.summarise(np.array([0.1, 0.2, 0.6]), pairs, same_set=True)["n_images"] == [4]
    assert quality.summarise(np.empty(0), np.empty((0, 2), int))["mean"] is None


def test_relative_diversity_is_one_for_equal_spread_and_nothing_for_one_image():
    real = {"mean": 0.4, "sd": 0.1, "n_pairs": 100}
    same = quality.relative_diversity(real, real)
    assert same["ratio"] == 1.0
    # Two independent means, each with a standard error of 0.01, in a ratio of 0.6 to 0.6.
    assert same["ci95"][1] - 1 == pytest.approx(1.96 * np.sqrt(2) * 0.01 / 0.6)
    assert quality.relative_diversity({"mean": 1.0, "sd": 0.0, "n_pairs": 100}, real)["ratio"] == 0.0
    assert quality.relative_diversity({"mean": 0.7, "sd": 0.1, "n_pairs": 100}, real)[
        "ratio"
    ] == pytest.approx(0.5)
    assert quality.relative_diversity({"mean": None, "sd": None, "n_pairs": 0}, real)["ratio"] is None


# --- Fréchet distance ------------------------------------------------------------------------------
def test_frechet_closed_form_of_commuting_gaussians():
    sigma_a, sigma_b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 1.0])
    shift = np.array([1.0, -2.0, 0.5])
    # With diagonal covariances the trace term is the sum of (sqrt(a) - sqrt(b))^2 = 1 + 0 + 4.
    assert quality.frechet_distance(shift, sigma_a, np.zeros(3), sigma_b) == pytest.approx(5.25 + 5.0)
    assert quality.frechet_distance(shift, sigma_a, shift, sigma_a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_agrees_with_the_matrix_square_root(rng):
    a, b = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(1.0, 2.0, size=(80, 5))
    (mu_a, s_a), (mu_b, s_b) = quality.mean_and_covariance(a), quality.mean_and_covariance(b)
    reference = ((mu_a - mu_b) ** 2).sum() + np.trace(s_a + s_b - 2 * sqrtm(s_a @ s_b).real)
    assert quality.frechet_distance(mu_a, s_a, mu_b, s_b) == pytest.approx(reference, rel=1e-9)
    assert quality.frechet_distance_of_features(a, b) == pytest.approx(reference, rel=1e-9)


def test_fewer_images_than_features_gives_the_same_number(rng):
    a, b = rng.normal(size=(12, 30)), rng.normal(0.3, 1.5, size=(9, 30))
    by_moments = quality.frechet_distance(*quality.mean_and_covariance(a), *quality.mean_and_covariance(b))
    assert quality.frechet_distance_of_features(a, b) == pytest.approx(by_moments, rel=1e-6)


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    same = [quality.kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    standard_error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * standard_error
    assert min(same) < 0 < max(same)
    a, b = rng.normal(size=(6, 3)), rng.normal(1.0, size=(5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within_a = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert quality.kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_kernel_distance_of_whole_subsets_is_the_plain_one_and_of_parts_unbiased(rng):
    a, b = rng.normal(size=(12, 3)), rng.normal(0.5, 1.0, size=(12, 3))
    whole = quality.kernel_distance_of_subsets(a, b, size=12, seed=0, n_subsets=4)
    assert whole["mean"] == pytest.approx(quality.kernel_distance(a, b))
    assert whole["sd"] == pytest.approx(0.0, abs=1e-12)
    parts = quality.kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000)
    error = parts["sd"] / np.sqrt(3000)
    assert abs(parts["mean"] - whole["mean"]) < 4 * error < 0.5 * whole["mean"]
    assert quality.kernel_distance_of_subsets(a, b, size=4, seed=0, n_subsets=3000) == parts


# --- equal n ---------------------------------------------------------------------------------------
def test_halves_share_no_patient_and_are_about_equal(rng):
    patients = rng.integers(0, 30, 100)
    first, second = quality.halve_by_group(patients, seed=1)
    assert sorted([*first, *second]) == list(range(100))
    assert not set(patients[first]) & set(patients[second])
    assert abs(len(first) - len(second)) <= 10
    assert (first != quality.halve_by_group(patients, seed=2)[0][: len(first)]).any()


def distances(training, patients, synthetic, heldout, max_images) -> dict:
    sets = quality.equal_draws(training, patients, synthetic, heldout, max_images=max_images, seed=0)
    return quality.feature_distances(sets)


def test_every_distance_uses_the_same_n_and_the_floor_is_below_a_real_shift(rng):
    training, heldout = rng.normal(size=(80, 6)), rng.normal(size=(30, 6))
    synthetic = rng.normal(1.0, 1.0, size=(200, 6))
    patients = [f"p{i // 2}" for i in range(80)]
    result = distances(training, patients, synthetic, heldout, 1000)
    assert result["n"] == 30 and result["draws"] == quality.FID_DRAWS
    by_name = result["distances"]
    floor = by_name["floor"]["fid"]
    assert by_name["synthetic_vs_training"]["fid"] > floor + 3
    assert by_name["synthetic_vs_heldout"]["fid"] > floor + 3
    assert by_name["training_vs_heldout"]["fid"] < 2 * floor
    assert by_name["synthetic_vs_training"]["kid"] > 10 * abs(by_name["floor"]["kid"])
    assert distances(training, patients, synthetic, heldout, 1000) == result
    few = distances(training, patients, synthetic, heldout[:5], 1000)
    assert few["n"] > 30 and "synthetic_vs_heldout" not in few["distances"]
    fewer = distances(training, patients, synthetic, None, 12)
    assert fewer["n"] == 12 and set(fewer["distances"]) == {"synthetic_vs_training", "floor"}


def test_draws_never_mix_patients_and_can_be_read_twice(rng):
    training = np.arange(40.0)[:, None]  # the feature is the row
    patients = np.arange(40) // 4
    sets = quality.equal_draws(
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
        assert compared["training_vs_heldout"][0].min() >= 200 > compared["training_vs_heldout"][1].max()
    again = list(sets)
    assert all((a["floor"][0] == b["floor"][0]).all() for a, b in zip(draws, again, strict=True))


def test_too_few_images_give_no_distance(rng):
    one = rng.normal(size=(1, 4))
    assert distances(rng.normal(size=(9, 4)), list(range(9)), one, None, 100) == {"n": 1}


# --- closest pairs ---------------------------------------------------------------------------------
def test_a_planted_copy_is_the_closest_pair(rng):
    real = rng.integers(0, 256, (20, 48, 48), dtype=np.uint8)
    synthetic = rng.integers(0, 256, (10, 48, 48), dtype=np.uint8)
    synthetic[4] = real[13] // 2 + 20  # darker and flatter, but the same image
    pairs, r = quality.closest_pairs(synthetic, real, 3)
    assert pairs[0].tolist() == [4, 13] and r[0] > 0.99 > 0.9 > r[1]
    assert len(set(pairs[:, 0].tolist())) == 3
    flat = np.zeros((1, 48, 48), dtype=np.uint8)
    assert quality.closest_pairs(flat, real, 1)[1][0] == 0.0


# --- Inception -------------------------------------------------------------------------------------
@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty weight cache and no network, whatever the machine has."""
    import urllib.error

    def no_network(*_args, **_kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_missing_inception_weights_are_one_clear_error(torch_home):
    with pytest.raises(WeightsUnavailableError, match="pt_inception-2015-12-05-6726825d.pth.*--extractor"):
        inception.load_inception()
    assert not list(torch_home.iterdir())


def test_inception_weights_load_from_the_cache_and_give_features(torch_home):
    torch.manual_seed(0)
    state = inception.build_network().state_dict()
    file = torch_home / inception.WEIGHTS_URL.rsplit("/", 1)[1]
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, file)
    network = inception.load_inception()
    assert not network.training
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    features = inception.inception_features(network, images, device=torch.device("cpu"), batch_size=2)
    assert features.shape == (3, inception.FEATURES) and np.isfinite(features).all()
    first = "Conv2d_1a_3x3.conv.weight"
    assert torch.equal(network.state_dict()[first], state[first])
    assert not np.allclose(features[0], features[1], rtol=1e-3, atol=0.0)

    torch.save({**state, "fc.bias": torch.zeros(1000)}, file)  # torchvision's ImageNet network, say
    with pytest.raises(UserError, match="fc.bias does not fit"):
        inception.load_inception()


def test_inception_blocks_pool_as_fid_wants():
    """Where the port differs from torchvision: padding left out of means, a maximum in the last block."""
    network = inception.build_network()
    x = torch.rand(1, 192, 6, 6)
    # A mean that counts padding shrinks at the border; one that leaves it out keeps a constant constant.
    assert torch.allclose(network.Mixed_5b.pool(torch.ones_like(x)), torch.ones_like(x))
    assert torch.equal(network.Mixed_7c.pool(x), F.max_pool2d(x, 3, 1, 1))
    block = network.Mixed_5b.eval()
    expected = block.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    assert torch.allclose(block(x)[:, -32:], expected, atol=1e-6)
    assert torch.allclose(block(x)[:, :64], block.branch1x1(x), atol=1e-6)


def test_inception_input_range_and_size():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1).expand(2, 64, 64)
    x = inception.to_inception_range(pixels)
    assert x.shape == (2, 3, 299, 299)
    assert x[0].unique().tolist() == [-1.0] and torch.allclose(x[1], torch.ones_like(x[1]))
