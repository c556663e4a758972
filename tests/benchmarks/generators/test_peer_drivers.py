"""Drivers of other generators."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import benchmark_paths
from benchmarks.generators import contender_runs as runs
from fake_contenders import SIDE, smooth_faces


@pytest.fixture
def drivers(monkeypatch):
    """Their folder on the path, as it is when one of them is run."""
    monkeypatch.syspath_prepend(str(benchmark_paths.PEER_DRIVERS))
    yield importlib.import_module
    for name in [file.stem for file in benchmark_paths.PEER_DRIVERS.glob("*.py")]:
        sys.modules.pop(name, None)


def driver_flags(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "reals.npy", smooth_faces(np.random.default_rng(0), 8, 120))
    files = ["--images", str(tmp_path / "reals.npy"), "--out", str(tmp_path / "made.npz")]
    return [*files, "--seconds", "0.3", "--seed", "3", "--count", "5"]


class CountingPeer:
    """Knows what it was given; a step takes 50 ms and looks at 4 images."""

    settings, parameters = {"batch": 4}, 11

    def __init__(self, reals, device):
        self.reals = reals

    def step(self):
        time.sleep(0.05)
        return 4

    def sample(self, count):
        return {"raw": torch.rand(count, 3, 8, 8), "averaged": self.reals[:count]}


def test_a_driver_counts_time_and_images_and_leaves_both_generators(drivers, tmp_path):
    drivers("protocol").main(CountingPeer, "torch", driver_flags(tmp_path))
    made = runs.read_made(tmp_path / "made.npz")
    assert made.images["raw"].shape == (5, 8, 8)
    reals = np.load(tmp_path / "reals.npy")
    np.testing.assert_array_equal(made.images["averaged"], reals[:5])  # [0, 1] and back without a loss
    facts = made.facts
    assert 0.3 <= facts["train_seconds"] < 2 and facts["images_seen"] == 4 * facts["steps"] > 0
    assert facts["parameters"] == 11 and facts["package"].startswith("torch ")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made.npz", "reals.npy"]


def test_a_driver_ends_without_a_file_if_its_images_are_not_finite(drivers, tmp_path):
    class Lost(CountingPeer):
        def sample(self, count):
            return {"raw": torch.full((count, 1, 8, 8), float("nan"))}

    with pytest.raises(SystemExit, match="not finite"):
        drivers("protocol").main(Lost, None, driver_flags(tmp_path))
    assert not (tmp_path / "made.npz").exists()


@pytest.mark.parametrize("missing", ["--images", "--out", "--seconds"])
def test_a_driver_tells_what_it_lacks(missing, drivers, tmp_path, capsys):
    flags = driver_flags(tmp_path)
    del flags[flags.index(missing) : flags.index(missing) + 2]
    with pytest.raises(SystemExit) as ended:
        drivers("protocol").main(CountingPeer, None, flags)
    assert ended.value.code == 2 and missing in capsys.readouterr().err


def test_batches_go_on_without_end_and_miss_no_image(drivers):
    batches = drivers("protocol").batches_of(torch.arange(6)[:, None], 3)
    epochs = [torch.cat([next(batches), next(batches)]).flatten().tolist() for _ in range(2)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert next(drivers("protocol").batches_of(torch.zeros(2, 1), 64)).shape == (2, 1)


def test_the_textbook_driver_trains_and_samples(drivers, tmp_path):
    plain = drivers("drive_plain_dcgan")
    plain.main(plain.PlainDCGAN, None, driver_flags(tmp_path))
    made = runs.read_made(tmp_path / "made.npz")
    assert list(made.images) == ["raw"] and made.images["raw"].shape == (5, SIDE, SIDE)
    assert made.images["raw"].std() > 0 and made.facts["images_seen"] == 8 * made.facts["steps"]


def test_an_average_begins_with_the_training(drivers):
    network, average = (torch.nn.BatchNorm1d(1, affine=True) for _ in range(2))
    moving = drivers("protocol").Average([network], [average], 0.5)
    mean, calls = 1.0, []
    gan = SimpleNamespace(EMA=lambda: calls.append("EMA"), reset_parameter_averaging=lambda: calls.append("reset"))
    assert "from step 0" in moving.take_over(gan)
    for step in range(1, 30):
        torch.nn.init.constant_(network.weight, value := 1.0 + step)
        network.running_mean.fill_(step)
        moving.step()
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
        gan.EMA(), gan.reset_parameter_averaging()  # the package's own do nothing any more
    assert calls == ["reset"]
    assert average.weight.item() == pytest.approx(mean) and average.running_mean.item() == 29


@pytest.mark.parametrize(("side", "trained"), [(64, 64), (112, 128), (224, 256)])
def test_reals_are_enlarged_to_a_power_of_two_and_samples_come_back(side, trained, drivers):
    protocol = drivers("protocol")
    ramp = torch.linspace(0, 1, side)[None, None, None].expand(2, 1, side, side)
    large = protocol.enlarged(ramp)
    assert large.shape == (2, 1, trained, trained)
    back = protocol.reduced(large, side)
    assert back.shape == ramp.shape and (back - ramp).abs().max() < 0.01
    assert bool(protocol.side_words(side, trained)) is (side != trained)


def test_the_small_variant_reaches_its_builder(drivers, tmp_path, capsys):
    built = []

    def build(reals, device, small):
        built.append(small)
        return CountingPeer(reals, device)

    protocol = drivers("protocol")
    for flags in ([], ["--variant", "small"]):
        protocol.main(build, None, [*driver_flags(tmp_path), *flags], variants=True)
    assert built == [False, True]
    with pytest.raises(SystemExit):
        protocol.main(CountingPeer, None, [*driver_flags(tmp_path), "--variant", "small"])


def test_a_step_that_fails_is_tried_again_and_not_for_ever(drivers):
    failures = iter([True, True, False, True, True, True])

    def step() -> None:
        if next(failures):
            raise ArithmeticError

    tried = drivers("protocol").tried
    tried(step, ArithmeticError)
    with pytest.raises(ArithmeticError):
        tried(step, ArithmeticError)
    assert next(failures, None) is None


@pytest.mark.parametrize("size", [32, 64, 112, 224])
def test_the_textbook_networks_fit_every_size(size, drivers):
    plain = drivers("drive_plain_dcgan")
    with torch.device("meta"):
        made = plain.generator(size)(torch.zeros(2, 100, 1, 1))
        assert made.shape == (2, 1, size, size)
        assert plain.discriminator(size)(made).shape == (2, 1, 1, 1)


def test_packages_that_insist_on_a_gpu_can_be_imported_and_torch_stays_honest(drivers):
    without_gpu = drivers("without_gpu")
    kept = torch.Tensor.cuda, torch.nn.Module.cuda, torch.cuda.is_available
    try:
        with without_gpu.importable(torch.device("cpu")):
            assert torch.cuda.is_available()
        assert torch.cuda.is_available is kept[2]
        number, layer = torch.ones(2), torch.nn.Linear(1, 1)
        assert number.cuda(0) is number and layer.cuda(0) is layer
        assert without_gpu.TorchOnCPU().device("cuda:0") == torch.device("cpu")
        assert without_gpu.TorchOnCPU().zeros is torch.zeros
    finally:
        torch.Tensor.cuda, torch.nn.Module.cuda = kept[:2]
        for name in without_gpu.LOGGING:
            sys.modules.pop(name, None)
