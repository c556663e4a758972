"""What --estimate says: sums that can be checked by hand, and that it leaves nothing behind."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import generate_synthetic
import train_classifier
import train_gan
from common import distributed, progress
from common.progress import Announcement
from gan import training as gan_training
from gan.options import GANOptions
from gan_data import save_generator
from studies import estimates
from studies import timing as study_timing
from studies.estimates import ArmSize, describe, describe_arm, describe_gan
from studies.timing import SCRIPT_SECONDS, Speeds, Workload, workload

SPEEDS = Speeds(step=0.5, prediction=0.01, gan=0.0, generation=0.0, decoding=0.003)
TRAINED = workload(64, True, ["--unfreeze", "--batch-size", "10"], [])
SIZE = ArmSize(
    n_real=95, n_synthetic=30, n_scored=40, n_undecoded=7, epochs=6, epochs_final=4, repeats=3, k_folds=5
)
FINAL = 3 * (4 * 10 * 0.5 + 40 * 0.01)  # seconds of the final models: ten steps an epoch
FOLDS = 4 * 6 * 10 * 0.5 + 6 * 95 * 0.01


@pytest.fixture(autouse=True)
def one_call_of_each_kind(monkeypatch):
    monkeypatch.setattr(study_timing, "MOST_SECONDS", 0.0)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


class TestArithmetic:
    def test_folds_and_final_models(self):
        assert SIZE.training(TRAINED, SPEEDS) == pytest.approx(FINAL + FOLDS)
        assert SIZE.whole(TRAINED, SPEEDS) == pytest.approx(SCRIPT_SECONDS + 7 * 0.003 + FINAL + FOLDS)

    def test_without_folds_the_epochs_come_from_a_tenth_or_a_flag(self):
        known = replace(SIZE, k_folds=0)
        assert known.training(TRAINED, SPEEDS) == pytest.approx(FINAL)
        unknown = replace(known, epochs_final=None)
        final = 3 * (6 * 10 * 0.5 + 40 * 0.01)
        tenth = 0.9 * 6 * 10 * 0.5 + 6 * 9.5 * 0.01
        assert unknown.training(TRAINED, SPEEDS) == pytest.approx(final + tenth)

    def test_frozen_features_are_computed_once(self):
        frozen = workload(64, True, [], [])
        assert SIZE.training(frozen, SPEEDS) == pytest.approx((95 + 30 + 40) * 0.01)

    def test_flags_that_shorten_a_run_are_named_with_what_they_leave(self):
        line = describe_arm(SIZE, TRAINED, SPEEDS, ArmSize.training)
        assert line.startswith(f"ABOUT {(FINAL + FOLDS) / 60:.0f} min (20 images/s trained on, 100 predicted")
        assert f"--k-folds 0 {FINAL:.0f} s" in line
        assert f"--image-size 32 {(FINAL + FOLDS) / 4:.0f} s" in line

    def test_flags_that_hardly_help_are_not_named(self):
        assert describe(100.0, "x", {"--a": 91.0}) == "ABOUT 2 min (x, measured just now)"
        line = describe(1000.0, "x", {"--a": 800.0, "--b": 80.0, "--c": 85.0, "--d": 70.0})
        assert line.endswith("shorter: --d 70 s, --b 80 s, --c 85 s")

    def test_the_gan(self):
        line = describe_gan(20.0, 600, 0.5, 0.1, batch_size=8, image_size=64, epochs=10)
        assert line.startswith("ABOUT 5 min (600 steps of 0.5 s, 16 images/s")
        assert "--perceptual off 80 s" in line and "--image-size 32 2 min" in line
        assert "--perceptual" not in describe_gan(
            20.0, 600, 0.5, None, batch_size=8, image_size=112, epochs=1
        )


class TestSeveralProcesses:
    """One of four measures its quarter of a batch, and exchanges nothing meanwhile."""

    @pytest.fixture(autouse=True)
    def four(self, monkeypatch):
        monkeypatch.setattr(distributed, "process_count", lambda: 1 if distributed._on_its_own else 4)

    def test_the_classifier(self, monkeypatch):
        def measure(work: Workload, device: object, negligible: float) -> tuple[float, float]:
            assert (distributed.process_count(), work.batch_size) == (1, 2)
            return 0.5, 0.04

        monkeypatch.setattr(estimates, "classifier_seconds", measure)
        work = replace(TRAINED, batch_size=8)
        assert estimates.shared_seconds(work, None) == (0.5, 0.01)
        assert distributed.process_count() == 4

    def test_the_gan(self, monkeypatch):
        def step(gan: object, real: torch.Tensor, z: torch.Tensor, *others: object) -> None:
            assert distributed.process_count() == 1 and len(real) == len(z) == 2

        monkeypatch.setattr(gan_training, "train_step", step)
        gan = gan_training.build_gan(32, 1, 5, (4, 4), 2e-4, 0.5, 0, torch.device("cpu"))
        objective = gan_training.Objective(1.0, 0.0, 1.0, None, 1)
        estimates.gan_seconds(gan, lambda pixels: objective, 8, "fp32")
        assert distributed.process_count() == 4


class TestLazyParts:
    """A penalty of every 16th step costs 16 times as much as its share of a step: not timed, or timed in each
    step, it would be far off."""

    SLOW = 0.064

    @pytest.fixture(autouse=True)
    def steps_take_no_time_but_penalties(self, monkeypatch):
        def step(gan, real, z, objective, *others: object) -> None:
            assert isinstance(gan.step, int)
            if gan.options.takes_penalty(gan.step):
                time.sleep(self.SLOW)
            if objective.takes_perceptual(gan.step):
                time.sleep(self.SLOW)
            gan.step += 1

        monkeypatch.setattr(gan_training, "train_step", step)
        monkeypatch.setattr(study_timing, "MOST_SECONDS", 0.3)

    @staticmethod
    def build(**options: Any) -> gan_training.GAN:
        how = GANOptions(d_norm="none", label_smoothing=0.0, **options)
        return gan_training.build_gan(32, 1, 5, (2, 2), 2e-4, 0.5, 0, torch.device("cpu"), how)

    @pytest.mark.parametrize(("every", "steps"), [(16, 16), (4, 4), (1, 1)])
    def test_a_penalty_counts_as_often_as_it_is_taken(self, every, steps):
        objective = gan_training.Objective(1.0, 0.0, 1.0, None, 1)
        gan = self.build(r1=1.0, reg_every=every)
        _, seconds, _ = estimates.gan_seconds(gan, lambda pixels: objective, 2, "fp32")
        assert seconds == pytest.approx(self.SLOW / steps, rel=0.4)

    def test_so_does_one_beside_a_perceptual_loss(self):
        objective = gan_training.Objective(1.0, 0.1, 1.0, torch.nn.Identity(), 4)
        gan = self.build(r1=1.0, reg_every=8)
        _, seconds, plain = estimates.gan_seconds(gan, lambda pixels: objective, 2, "fp32")
        assert seconds == pytest.approx(self.SLOW * 3 / 8, rel=0.4)
        assert plain == pytest.approx(self.SLOW / 8, rel=0.4)

    def test_steps_of_a_study_are_timed_so_too(self, monkeypatch):
        monkeypatch.setattr(study_timing, "generation_seconds", lambda *args: 0.0)
        flags = ["--preset", "cpu", "--feature-maps-g", "2", "--feature-maps-d", "2", "--batch-size", "2"]
        work = study_timing.workload(32, True, [], flags)
        per_image, _ = study_timing._gan_seconds(work, torch.device("cpu"))
        assert 2 * per_image == pytest.approx(self.SLOW / 16, rel=0.4)

    def test_what_is_rare_does_not_take_for_ever(self):
        assert study_timing.steps_to_time(GANOptions(d_norm="none", r1=1.0, reg_every=10_000)) == 64
        assert study_timing.steps_to_time(GANOptions(reg_every=16), 8) == 8  # no penalty is taken


class TestAnnouncement:
    def test_it_is_made_once_and_only_of_long_loops(self, monkeypatch):
        monkeypatch.setattr(Announcement, "AFTER", 0.0)
        said = []
        short = Announcement(3, "images", "fewer", said.append)
        short.after()
        assert not said
        monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
        long = Announcement(3, "images", "fewer help", said.append)
        for _ in range(3):
            long.after()
        assert len(said) == 1 and re.fullmatch(r"about 0 s for 3 images; fewer help", said[0])


class TestScripts:
    def test_the_classifier(self, make_dataset, in_tmp, capsys):
        make_dataset()
        options = ["--weights", "none", "--unfreeze", "--image-size", "64", "--cpu", "--batch-size", "8"]
        train_classifier.main([*options, "--estimate"])
        assert re.search(r"^ABOUT .* images/s trained on, .*--k-folds 0", capsys.readouterr().out, re.M)
        assert not any((in_tmp / name).exists() for name in ("models", "results", "data/cache"))

    def test_the_classifier_with_synthetic_images(self, make_dataset, in_tmp, capsys):
        make_dataset()
        train_classifier.main(["--use-synthetic", "--image-size", "32", "--cpu", "--estimate"])
        assert "ABOUT" in capsys.readouterr().out

    def test_the_gan(self, make_dataset, in_tmp, capsys):
        make_dataset()
        small = ["--feature-maps-g", "4", "--feature-maps-d", "4", "--batch-size", "4", "--perceptual", "off"]
        train_gan.main(["--image-size", "32", *small, "--cpu", "--estimate"])
        assert re.search(r"^ABOUT .* steps of ", capsys.readouterr().out, re.M)
        assert not any((in_tmp / name).exists() for name in ("models", "results", "data/cache"))

    def test_generation(self, in_tmp, capsys):
        options = ["--model-path", str(save_generator(in_tmp / "generator.pth")), "--cpu", "--estimate"]
        before = files_below(in_tmp)
        generate_synthetic.main([*options, "--num-images", "1000"])
        assert re.search(r"^ABOUT .* images/s.*", capsys.readouterr().out, re.M)
        assert files_below(in_tmp) == before

    def test_a_long_run_says_so_and_a_short_one_does_not(self, make_dataset, in_tmp, monkeypatch):
        make_dataset()
        args = train_classifier.parse_args(["--unfreeze", "--image-size", "32", "--cpu", "--no-cache"])
        data = train_classifier.read_data(args, train_classifier.treatment_of(args))
        device = train_classifier.select_device(cpu=True)
        long = train_classifier.foresee(args, data, 10_000_000, device)
        assert re.match(r"ABOUT \d+ h", long)
        monkeypatch.setattr(estimates, "WORTH_SAYING", 1e6)
        assert train_classifier.foresee(args, data, 1, device) is None
