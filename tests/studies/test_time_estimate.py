"""Estimates of time: sums that can be checked by hand, and scripts that leave nothing behind."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classifier
import generate_synthetic
import train_classifier
import train_gan
from common import distributed, progress
from conftest import SMALL as SMALL_NETWORK
from gan import generation
from gan import losses as gan_losses
from gan import step as gan_step
from gan.settings import Settings
from gan_data import save_generator
from studies import time_estimate
from studies.commands import MAKE_IMAGES, TRAIN_GAN
from studies.plan import Part, arm_step_name
from studies.steps import Step
from studies.time_estimate import HEAD_SECONDS, SCRIPT_SECONDS, ClassifierWork, GANWork, Speeds, describe_estimate
from utils import usable_cores

CPU = torch.device("cpu")
SPEEDS = Speeds(step=0.5, prediction=0.01, gan=0.002, generation=0.001, decoding=0.003)
FROZEN = ClassifierWork(64, 10, "fp32", frozen=True, augment="none", views=1)
WHOLE = replace(FROZEN, frozen=False)
SIZES: dict[str, Any] = {
    "n_real": 95, "n_scored": 40, "n_undecoded": 7, "n_features": 165,
    "epochs": 6, "epochs_final": 4, "repeats": 3, "k_folds": 5,
}  # fmt: skip
FINAL = 3 * (4 * 10 * 0.5 + 40 * 0.01)  # seconds of the final models: ten steps an epoch
FOLDS = 4 * 6 * 10 * 0.5 + 6 * 95 * 0.01


def tiny_gan(*options: str) -> Settings:
    tiny = [
        "--image-size", "32", "--num-channels", "1", "--latent-dim", "5", "--feature-maps-g", "2",
        "--feature-maps-d", "2", "--d-norm", "none", "--batch-size", "2", "--perceptual", "off",
    ]  # fmt: skip
    return train_gan.parse_arguments([*tiny, *options])


@pytest.fixture(autouse=True)
def one_call_of_each_kind(monkeypatch):
    monkeypatch.setattr(time_estimate, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(time_estimate, "share_of_cores", lambda: 1.0)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_the_share_of_the_cores_is_what_the_process_gets(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(time_estimate, "ASKING_SECONDS", 0.1)
    assert 0 < time_estimate.share_of_cores() <= 1
    monkeypatch.setattr(time_estimate, "usable_cores", lambda: 4 * usable_cores())  # three of four are taken
    assert 0 < time_estimate.share_of_cores() <= 0.3


class TestSums:
    def test_folds_and_final_models(self):
        work = replace(WHOLE, **SIZES)
        assert work.seconds(SPEEDS) == pytest.approx(SCRIPT_SECONDS + 7 * 0.003 + FINAL + FOLDS)
        assert work.n_steps == 4 * 60 + 3 * 40

    def test_without_folds_the_epochs_come_from_a_tenth_or_an_option(self):
        known = replace(WHOLE, **SIZES | {"k_folds": 0, "n_undecoded": 0})
        assert known.seconds(SPEEDS) == pytest.approx(SCRIPT_SECONDS + FINAL)
        unknown = replace(known, epochs_final=None)
        final = 3 * (6 * 10 * 0.5 + 40 * 0.01)
        tenth = 0.9 * 6 * 10 * 0.5 + 6 * 9.5 * 0.01
        assert unknown.seconds(SPEEDS) == pytest.approx(SCRIPT_SECONDS + final + tenth)

    def test_features_of_a_frozen_backbone_are_computed_once(self):
        work = replace(FROZEN, **SIZES)
        assert work.features_once
        head = (4 * 60 + 3 * 40) * 10 * HEAD_SECONDS  # steps of the folds and the final models
        assert work.seconds(SPEEDS) == pytest.approx(SCRIPT_SECONDS + 7 * 0.003 + 165 * 0.01 + head)

    def test_the_gan(self):
        work = GANWork(tiny_gan(), epochs=3, epoch_images=100, n_undecoded=10)
        assert work.seconds(SPEEDS) == pytest.approx(SCRIPT_SECONDS + 10 * 0.003 + 300 * 0.002)


class TestWords:
    def test_options_that_shorten_a_run_are_named_with_what_they_leave(self, monkeypatch):
        monkeypatch.setattr(time_estimate, "classifier_speeds", lambda *_: replace(SPEEDS, decoding=0.0))
        line = time_estimate.estimate_classifier(replace(WHOLE, **SIZES), [], CPU)
        total = SCRIPT_SECONDS + FINAL + FOLDS
        assert line.startswith(f"ABOUT {total / 60:.0f} min (20 images/s trained on, 100 predicted")
        assert f"--k-folds 0 {SCRIPT_SECONDS + FINAL:.0f} s" in line
        assert f"--image-size 32 {SCRIPT_SECONDS + (FINAL + FOLDS) / 4:.0f} s" in line

    def test_missing_images(self, monkeypatch):
        """Half of them is no value of --num-images, which counts those that are there too."""
        monkeypatch.setattr(time_estimate, "generation_seconds", lambda *_: 0.1)
        line = time_estimate.estimate_generation(None, 100, 4, 1)
        assert line == "ABOUT 22 s (10 images/s, measured just now)"

    def test_options_that_hardly_help_are_not_named(self):
        assert describe_estimate(100.0, "x", {"--a": 91.0}) == "ABOUT 2 min (x, measured just now)"
        line = describe_estimate(1000.0, "x", {"--a": 800.0, "--b": 80.0, "--c": 85.0, "--d": 70.0})
        assert line.endswith("shorter: --d 70 s, --b 80 s, --c 85 s")

    def test_a_busy_machine_is_called_so(self, monkeypatch):
        monkeypatch.setattr(time_estimate, "share_of_cores", lambda: 0.6)
        line = describe_estimate(100.0, "x", {})
        assert line.endswith("just now; other programs take 40 % of the cores now, without them it takes less)")

    def test_the_gan(self, monkeypatch):
        def speeds(settings: Settings, device: torch.device) -> Speeds:
            return Speeds(gan=0.0625 if settings.losses.want_perceptual else 0.0125)

        monkeypatch.setattr(time_estimate, "gan_speeds", speeds)
        settings = tiny_gan("--image-size", "64", "--batch-size", "8", "--perceptual", "on")
        line = time_estimate.estimate_gan(GANWork(settings, epochs=10, epoch_images=480), [], CPU)
        assert line.startswith("ABOUT 5 min (600 steps of 0.5 s, 16 images/s")
        assert "--perceptual off 72 s" in line and "--image-size 32 87 s" in line
        other = GANWork(tiny_gan("--image-size", "112", "--batch-size", "8"), epochs=10, epoch_images=480)
        short = time_estimate.estimate_gan(other, [], CPU)
        assert "--perceptual" not in short and "--image-size" not in short


class TestSeveralProcesses:
    """One of four measures its quarter of a batch, and exchanges nothing meanwhile."""

    @pytest.fixture(autouse=True)
    def four(self, monkeypatch):
        monkeypatch.setattr(distributed, "process_count", lambda: 1 if distributed._on_its_own else 4)

    def test_the_classifier(self, monkeypatch):
        def per_call(call: object, device: object) -> float:
            assert distributed.process_count() == 1
            call()
            return 0.5

        monkeypatch.setattr(time_estimate, "seconds_per_call", per_call)
        speeds = time_estimate.classifier_speeds(replace(WHOLE, image_size=32, batch_size=8), CPU)
        assert (speeds.step, speeds.prediction) == (0.5, 0.5 / 2 / 4)
        assert distributed.process_count() == 4

    def test_the_gan(self, monkeypatch):
        def step(gan: object, real: torch.Tensor, z: torch.Tensor, *others: object) -> None:
            assert distributed.process_count() == 1 and len(real) == len(z) == 2

        monkeypatch.setattr(gan_step, "train_step", step)
        time_estimate.gan_speeds(tiny_gan("--batch-size", "8"), CPU)
        assert distributed.process_count() == 4


class TestRareParts:
    """A penalty of every 16th step costs 16 times as much as its share of a step: not timed, or timed in each
    step, it would be far off."""

    SLOW = 0.064

    @pytest.fixture(autouse=True)
    def steps_take_no_time_but_penalties(self, monkeypatch):
        def step(gan, real, z, objective, *others: object) -> None:
            if gan.options.takes_penalty(gan.step):
                time.sleep(self.SLOW)
            if objective.takes_perceptual(gan.step):
                time.sleep(self.SLOW)
            gan.step += 1

        monkeypatch.setattr(gan_step, "train_step", step)
        monkeypatch.setattr(gan_losses, "perceptual_every", lambda device: 4)

    @staticmethod
    def seconds_per_step(every: int, *options: str) -> float:
        settings = tiny_gan("--r1", "1", "--reg-every", str(every), *options)
        return 2 * time_estimate.gan_speeds(settings, CPU).gan

    @pytest.mark.parametrize(("every", "steps"), [(16, 16), (4, 4), (1, 1)])
    def test_a_penalty_counts_as_often_as_it_is_taken(self, every, steps):
        assert self.seconds_per_step(every) == pytest.approx(self.SLOW / steps, rel=0.4)

    def test_so_does_one_beside_a_perceptual_loss(self):
        assert self.seconds_per_step(8, "--perceptual", "on") == pytest.approx(self.SLOW * 3 / 8, rel=0.4)

    def test_a_rare_penalty_does_not_take_for_ever(self, monkeypatch):
        taken = []
        monkeypatch.setattr(gan_step, "train_step", lambda *_: taken.append(1))
        self.seconds_per_step(10_000)
        assert len(taken) == 2 * time_estimate.LONGEST_CYCLE == 128


SMALL = Part(0.5, n_images=100, n_patients=50, n_positive=20, n_synthetic=40, epochs=2, steps=8)
ALL = Part(1.0, n_images=200, n_patients=100, n_positive=40, n_synthetic=80, epochs=1, steps=7)
STUDY_WORK = replace(FROZEN, batch_size=25, repeats=2)
STUDY_GAN = GANWork(tiny_gan(), epoch_images=1000)


def steps_of(part: Part) -> list[tuple[Part, Step]]:
    """Baseline, GAN, images, augmented arm and control of one fraction."""
    artifact = Path("result")
    return [
        (part, step)
        for step in (
            Step(arm_step_name("baseline"), "train_classifier", [], artifact),
            Step(TRAIN_GAN, "train_gan", [], artifact),
            Step(MAKE_IMAGES, "generate_synthetic", [], artifact),
            Step(arm_step_name("augmented"), "train_classifier", ["--use-synthetic"], artifact),
            Step(arm_step_name("control_duplicate"), "train_classifier", ["--control", "x"], artifact),
        )
    ]


def beyond_start(due: list[tuple[Part, Step]], work: ClassifierWork = STUDY_WORK, **options: Any) -> list[float]:
    how = {"n_scored": 30, "cached": True} | options
    return [s - SCRIPT_SECONDS for s in time_estimate.study_seconds(due, work, STUDY_GAN, SPEEDS, **how)]


class TestStudy:
    NEW = 0.003 + 0.01  # of an image that no step has seen

    @pytest.fixture(autouse=True)
    def steps_on_features_cost_nothing(self, monkeypatch):
        monkeypatch.setattr(time_estimate, "HEAD_SECONDS", 0.0)

    def test_real_images_are_decoded_and_their_features_computed_once(self):
        seconds = beyond_start(steps_of(SMALL) + steps_of(ALL))
        new = self.NEW
        assert seconds == pytest.approx([130 * new, 2.0, 0.04, 40 * new, 0.0, 100 * new, 2.0, 0.08, 80 * new, 0.0])

    def test_without_a_cache_every_step_computes_them_anew(self):
        expected = [130 * self.NEW, 2.0 + 20 * 0.003, 0.04, 170 * self.NEW, 130 * self.NEW]
        assert beyond_start(steps_of(SMALL), cached=False) == pytest.approx(expected)

    def test_fractions_that_were_trained_before_cost_nothing(self):
        assert beyond_start(steps_of(ALL)[:2], known=100) == pytest.approx([100 * self.NEW, 2.0])

    def test_networks_are_trained_in_every_arm_all_the_same(self):
        first, *_, last = beyond_start(steps_of(SMALL), replace(STUDY_WORK, frozen=False))
        training = 2 * (8 * 0.5 + 30 * 0.01)
        assert [first, last] == pytest.approx([training + 130 * 0.003, training])

    def test_folds_choose_nothing_and_take_their_time(self):
        whole = replace(STUDY_WORK, frozen=False)
        (plain,), (folds,) = (beyond_start(steps_of(SMALL)[:1], replace(whole, k_folds=k)) for k in (0, 3))
        assert folds - plain == pytest.approx(2 * 8 * 0.5 + 2 * 100 * 0.01)

    def test_every_view_of_a_training_image_has_features(self):
        views = replace(STUDY_WORK, augment="light", views=4)
        assert views.features_once
        (seconds,) = beyond_start(steps_of(SMALL)[3:4], views)
        assert seconds == pytest.approx(170 * 0.003 + (4 * 140 + 30) * 0.01)

    def test_features_and_images_are_timed_as_they_are_computed(self, monkeypatch):
        monkeypatch.setattr(time_estimate, "GENERATED_BATCH", 3)
        asked, made = [], []

        def features(self, pixels: np.ndarray) -> np.ndarray:
            asked.append(len(pixels))
            return np.zeros((len(pixels), 2048), np.float32)

        def images(self, indices) -> np.ndarray:
            made.append(len(indices))
            return np.zeros((len(indices), 32, 32), np.uint8)

        monkeypatch.setattr(classifier.FeatureExtractor, "__call__", features)
        monkeypatch.setattr(generation.ImageMaker, "__call__", images)
        speeds = time_estimate.study_speeds(replace(STUDY_WORK, image_size=32), tiny_gan(), [], True)
        assert asked and speeds.step == 0 < speeds.prediction
        assert made == [1, 3] and speeds.generation > 0 and speeds.gan > 0

    def test_whole_networks_are_timed_and_a_missing_image_does_no_harm(self):
        work = replace(WHOLE, image_size=32, batch_size=4)
        speeds = time_estimate.study_speeds(work, None, [Path("nowhere.png")], True)
        assert min(speeds.step, speeds.prediction) > 0 == speeds.gan == speeds.generation


class TestScripts:
    @pytest.fixture
    def unsearched(self, make_dataset, monkeypatch) -> None:
        """A dataset that this process has not searched for twins."""
        make_dataset()
        monkeypatch.setattr("dataset.twins._found", {})

    def test_the_classifier(self, unsearched, in_tmp, capsys):
        options = ["--weights", "none", "--unfreeze", "--image-size", "64", "--cpu", "--batch-size", "8",
                   "--backbone", SMALL_NETWORK]  # fmt: skip
        train_classifier.main([*options, "--estimate"])
        assert re.search(r"^ABOUT .* images/s trained on, .*--k-folds 0", capsys.readouterr().out, re.M)
        assert not any((in_tmp / name).exists() for name in ("models", "results"))
        assert {folder.name for folder in (in_tmp / "data/cache").iterdir()} == {"twins"}, "those of the new split"

    def test_the_classifier_with_synthetic_images(self, make_dataset, in_tmp, capsys):
        make_dataset()
        train_classifier.main(["--use-synthetic", "--image-size", "32", "--cpu", "--estimate"])
        assert "ABOUT" in capsys.readouterr().out

    def test_the_gan(self, unsearched, in_tmp, capsys):
        small = ["--feature-maps-g", "4", "--feature-maps-d", "4", "--batch-size", "4", "--perceptual", "off"]
        train_gan.main(["--image-size", "32", *small, "--cpu", "--estimate"])
        assert re.search(r"^ABOUT .* steps of ", capsys.readouterr().out, re.M)
        assert not any((in_tmp / name).exists() for name in ("models", "results"))
        assert {folder.name for folder in (in_tmp / "data/cache").iterdir()} == {"twins"}, "those of the new split"

    def test_generation(self, in_tmp, capsys):
        options = ["--model-path", str(save_generator(in_tmp / "generator.pth")), "--cpu", "--estimate"]
        before = files_below(in_tmp)
        generate_synthetic.main([*options, "--num-images", "1000"])
        assert re.search(r"^ABOUT .* images/s.*", capsys.readouterr().out, re.M)
        assert files_below(in_tmp) == before

    def test_a_long_training_says_so_after_its_first_steps(
        self, make_dataset, in_tmp, monkeypatch, capsys, unrendered, thin_network
    ):
        monkeypatch.setattr(progress.Announcement, "AFTER", 0.0)
        monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
        make_dataset()
        train_classifier.main([
            "--weights", "none", "--unfreeze", "--image-size", "32", "--cpu", "--no-cache", "--k-folds", "0",
            "--epochs-final", "1", "--batch-size", "24", "--backbone", SMALL_NETWORK,
        ])  # fmt: skip
        out = capsys.readouterr().out
        assert len(re.findall(r"^about .* s for 4 optimiser steps; fewer --k-folds", out, re.M)) == 1
