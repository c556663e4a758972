"""Metrics of a GAN in training: when they are taken, what they say of known generators, and no trace left."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from gan.evaluation import Monitor
from gan.losses import Objective
from gan.networks import build_gan
from gan.settings import GANOptions
from gan.step import gradient_shares, image_noise, step_noise, train_step
from gan.timetable import START_SECONDS, Costs, Timetable, fit_timetable, forward_operations
from gan.training_set import TrainingSet, set_aside
from gan.warnings import active_warnings
from image_metrics.feature_spaces import grain, hog_features, hog_space

CPU = torch.device("cpu")
SHAPES = 32  # pixels


def pictures(n: int, seed: int = 0, side: int = SHAPES) -> np.ndarray:
    """uint8 [n, side, side]: a bright ellipse of random place, size and turn, on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    images = []
    for _ in range(n):
        (dy, dx), angle = rng.uniform(-0.2, 0.2, 2), rng.uniform(0, np.pi)
        u = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
        v = (y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)
        inside = (u / rng.uniform(0.2, 0.4)) ** 2 + (v / rng.uniform(0.1, 0.2)) ** 2 < 1
        images.append(60 + 120 * inside + rng.normal(0, 8, (side, side)))
    return np.stack(images).clip(0, 255).astype(np.uint8)


def monitor_of(pixels: np.ndarray, patients: list[str] | None = None, **changes) -> Monitor:
    data = TrainingSet(torch.from_numpy(pixels), {}, [], patients=patients or (), **changes)
    tables = {"HOG": Timetable(1, 1, 0.1, 0.1, 1.0)}
    return Monitor(data, [hog_space(pixels.shape[1])], tables, n_images=64, input_dim=6, seed=0)


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    return monitor_of(pictures(200))


def judged(monitor: Monitor, images: np.ndarray) -> dict:
    return monitor.evaluate(["HOG"], lambda z, label: images[: len(z)], None)


# --- when ------------------------------------------------------------------------------------------
def test_evaluations_take_their_share_of_the_time_at_most():
    share = 0.04
    for seconds, setup, epoch, wanted in ((3.0, 0.0, 1.0, None), (3.0, 60.0, 1.0, 7), (0.01, 0.1, 5.0, 1)):
        table = fit_timetable(wanted, seconds, setup, epoch, share)
        assert table.interval % (wanted or 1) == 0
        done = 0
        for number in range(1, 4000):
            done += table.due(number)
            spent = (setup if done else 0.0) + done * seconds
            assert spent <= share * (START_SECONDS + number * epoch) + 1e-9, number
        rare = max(seconds / (share * epoch), wanted or 1)  # epochs between two, if the reals cost nothing
        assert done >= 0.9 * (4000 - setup / (share * epoch)) / rare - 2


def test_an_evaluation_at_the_end_must_fit_too_and_an_interval_of_zero_means_none():
    table = fit_timetable(None, 3.0, 0.0, 1.0, 0.04)
    assert table.interval == 75 and not table.due_at_end(75, 0.04)  # it has one by itself
    assert table.due_at_end(140, 0.04) is False  # 6 s of 145 s
    assert table.due_at_end(149, 0.04) is True  # 6 s of 154 s
    none = fit_timetable(0, 3.0, 0.0, 1.0, 0.04)
    assert not none.due(5) and not none.due_at_end(10_000, 0.04)


def test_the_timetable_follows_from_the_options_and_not_from_the_clock():
    gan = build_gan(32, 1, 6, (4, 4), 1e-3, 0.5, 0, CPU)
    before = copy.deepcopy(gan.state_dict())
    costs = [Costs.of(gan, batch, CPU, "fp32") for batch in (4, 4, 64)]
    assert costs[0] == costs[1] and costs[2].step() > costs[0].step()
    z = torch.zeros(1, 6)
    root = 2 * 6 * 16 * 16  # multiplications and additions of the generator's root: 16 channels, 4 x 4 cells
    assert forward_operations(gan.G.layers[0], z[:, :, None, None]) == root
    # Threads train, and metrics gain nothing from them: on more threads they come less often.
    alone, together = (replace(costs[0], threads=threads, g=1e9) for threads in (1, 4))
    assert together.step() < alone.step()
    assert together.evaluation(hog_space(32), 50, 100) == alone.evaluation(hog_space(32), 50, 100)
    tables = costs[0].timetables([hog_space(32)], 3, 256, 100, 10, 0.04)
    assert tables["HOG"].interval % 3 == 0
    after = gan.state_dict()
    assert all(torch.equal(after["G"][name], before["G"][name]) for name in before["G"])
    assert gan.G.training and gan.D.training


# --- what ------------------------------------------------------------------------------------------
def test_images_of_the_same_kind_score_as_the_floor(monitor):
    result, floor = judged(monitor, pictures(64, seed=1))["spaces"]["HOG"], monitor.reals("HOG").floor
    assert result["recall"] == pytest.approx(floor["recall"], abs=0.2) and result["recall"] > 0.5
    assert abs(result["kid"] - floor["kid"]) < 0.02
    assert 0.8 < result["fd_relative"] < 1.25
    assert 0.9 < result["diversity"] < 1.1


def test_a_constant_generator_has_no_diversity_and_no_recall(monitor):
    one = np.repeat(pictures(1, seed=2), 64, axis=0)
    result = judged(monitor, one)["spaces"]["HOG"]
    assert result["diversity"] < 1e-3 and result["recall"] == 0
    noise = np.random.default_rng(0).integers(100, 140, (64, 32, 32)).astype(np.uint8)
    assert judged(monitor, noise)["spaces"]["HOG"]["kid"] > 10 * abs(monitor.reals("HOG").floor["kid"])


def noisy(images: np.ndarray, sd: float) -> np.ndarray:
    added = np.random.default_rng(1).normal(0, sd, images.shape)
    return (images + added).clip(0, 255).round().astype(np.uint8)


def evaluated_twice(monitor: Monitor, images: np.ndarray) -> list[dict]:
    """Two lines of statistics of a generator of ``images``, past the warm-up."""
    d = {"training": 1.0, "generated": -1.0, "training_sign": 0.5}
    metrics = judged(monitor, images) | {"discriminator": d}
    usual = {"steps": 50, "d_loss": 1.2, "d_real": 0.7, "d_fake": 0.3}
    usual |= {"g_grad_norm_max": 1.0, "d_grad_norm_max": 1.0}
    return [usual | {"images_seen": 20_000 * n, "metrics": metrics} for n in (1, 2)]


def test_a_little_grain_is_a_figure_of_its_own_and_no_collapse():
    kinds = [pictures(n, seed, side=64) for n, seed in ((140, 0), (70, 1))]
    smooth, fresh = (gaussian_filter(kind.astype(float), (0.0, 2.0, 2.0)) for kind in kinds)
    watched = monitor_of(noisy(smooth, 0.7))
    plain, grainy = (judged(watched, noisy(fresh, sd)) for sd in (0.7, 4))
    recalls = [result["spaces"]["HOG"]["recall"] for result in (plain, grainy)]
    assert recalls[1] > 0.8 * recalls[0] > 0.7
    assert plain["grain"] == pytest.approx(1.0, abs=0.05) and grainy["grain"] > 1.5
    how = (GANOptions(), "HOG", "bf16")
    assert "collapse" not in active_warnings(evaluated_twice(watched, noisy(fresh, 4)), *how)
    one = np.repeat(fresh[:1], 70, axis=0)
    assert "collapse" in active_warnings(evaluated_twice(watched, noisy(one, 20)), *how)


def test_grain_is_the_mean_size_of_the_laplacian():
    images = noisy(pictures(300, side=8), 5)
    padded = np.pad(images.astype(float), ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    middle = padded[:, 1:-1, 1:-1]
    sides = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    assert grain(images) == pytest.approx(np.abs(sides - 4 * middle).mean(), rel=1e-5)


def test_a_generator_of_training_images_is_found_to_copy(monitor):
    pixels = monitor.data.pixels.numpy()
    copies = (pixels[40:104].astype(float) * 0.9 + 12).astype(np.uint8)  # a little flatter and brighter
    assert judged(monitor, copies)["copying"]["ratio"] < 0.2
    assert 0.8 < judged(monitor, pictures(64, seed=3))["copying"]["ratio"] < 1.2


def test_nearness_to_images_of_the_same_patient_is_not_what_is_usual():
    pixels = np.repeat(pictures(60), 2, axis=0)  # both images of a patient are the same
    patients = [str(number // 2) for number in range(120)]
    assert judged(monitor_of(pixels, patients), pictures(60, seed=4))["copying"]["usual"] > 0.1
    assert judged(monitor_of(pixels), pictures(60, seed=4))["copying"]["usual"] < 1e-3


def test_both_halves_of_the_reals_are_of_different_patients():
    pixels, patients = pictures(60), [str(number // 3) for number in range(60)]
    first, second = monitor_of(pixels, patients).rows
    assert not {patients[row] for row in first} & {patients[row] for row in second}


def test_held_out_images_are_scored_and_shown_to_d(monitor):
    gan = build_gan(32, 1, 6, (4, 4), 1e-3, 0.5, 0, CPU)
    watched = monitor_of(pictures(100), holdout=pictures(20, seed=9))
    result = watched.evaluate(["HOG"], lambda z, label: pictures(len(z), seed=1), gan.D)
    assert set(result["spaces"]["HOG"]["holdout"]) == {"kid", "fd", "precision", "recall"}
    assert set(result["discriminator"]) == {
        "training", "generated", "holdout", "training_sign", "holdout_error",
    }  # fmt: skip


def test_more_held_out_images_than_an_evaluation_takes_keep_their_classes():
    gan = build_gan(32, 1, 6, (4, 4), 1e-3, 0.5, 0, CPU, GANOptions(conditional=True))
    watched = monitor_of(
        pictures(40), labels=torch.arange(40) % 3, holdout=pictures(33), holdout_labels=torch.arange(33) % 3
    )
    result = watched.evaluate(["HOG"], lambda z, label: pictures(len(z), seed=1), gan.D)
    assert watched.n < 33 and "holdout" in result["discriminator"]


def test_patients_are_set_aside_whole_and_always_the_same():
    patients = [str(number // 3) for number in range(90)]
    aside = set_aside(patients, 0.2, 42)
    assert aside.sum() == 18 and (aside == set_aside(patients, 0.2, 42)).all()
    assert not {patients[i] for i in np.flatnonzero(aside)} & {patients[i] for i in np.flatnonzero(~aside)}
    assert not set_aside(patients, 0.0, 42).any()
    assert (aside != set_aside(patients, 0.2, 43)).any()


def test_hog_blocks_have_the_length_that_makes_kernels_of_order_one():
    features = hog_features(pictures(3, side=64))
    assert features.shape == (3, hog_space(64).dim)
    blocks = features.reshape(3, -1, 32)
    assert np.allclose(np.linalg.norm(blocks, axis=2), np.sqrt(32), rtol=0.02)


# --- looking changes nothing -----------------------------------------------------------------------
def trained(look: bool) -> dict:
    gan = build_gan(32, 1, 6, (4, 4), 1e-3, 0.5, 0, CPU)
    objective = Objective(1.0, 0.0, 1.0, None, 8)
    pixels = pictures(40)
    watched = monitor_of(pixels)
    torch.manual_seed(5)
    real = torch.from_numpy(pixels[:8])[:, None].float() / 127.5 - 1
    for step in range(4):
        train_step(gan, real, step_noise(0, step, 8, 6), objective, "fp32")
        if look:
            gradient_shares(gan, real, objective, "fp32", seed=0)
            watched.evaluate(["HOG"], lambda z, label: pictures(len(z)), gan.D)
    gradients = [parameter.grad for parameter in gan.G.parameters()]
    return gan.state_dict() | {"random": torch.random.get_rng_state(), "grads": gradients}


def test_metrics_and_probes_leave_weights_statistics_gradients_and_random_numbers_alone():
    without, with_looks = trained(look=False), trained(look=True)
    for part in ("G", "D", "G_ema"):
        assert all(torch.equal(without[part][name], with_looks[part][name]) for name in without[part])
    assert torch.equal(without["random"], with_looks["random"])
    assert all(torch.equal(a, b) for a, b in zip(without["grads"], with_looks["grads"], strict=True))


def test_shares_of_the_gradient_are_those_of_the_terms_by_hand():
    gan = build_gan(32, 1, 6, (4, 4), 1e-3, 0.5, 0, CPU)
    real = torch.rand(8, 1, 32, 32) * 2 - 1
    fake = gan.G(image_noise(0, "probe", 1, 8, 6)).detach().requires_grad_()
    logits = gan.D(fake)
    expected = torch.autograd.grad(2.0 * nn.functional.softplus(-logits).mean(), fake)[0].norm()
    whole = gradient_shares(gan, real, Objective(2.0, 0.0, 1.0, None, 8), "fp32", seed=0)
    assert sum(whole.values()) == pytest.approx(1.0)
    alone = gradient_shares(gan, real, Objective(2.0, 0.0, 0.0, None, 8), "fp32", seed=0)
    assert alone == {"adversarial": 1.0}
    heavier = gradient_shares(gan, real, Objective(4.0, 0.0, 1.0, None, 8), "fp32", seed=0)
    odds = [shares["adversarial"] / shares["feature_matching"] for shares in (whole, heavier)]
    assert odds[1] == pytest.approx(2 * odds[0], rel=1e-4)
    assert expected > 0
