"""The estimate of a study: what its steps share is paid for once, and timed as the scripts compute it."""

from pathlib import Path

import numpy as np
import pytest
import torch

import classifier
from gan import generation
from studies import timing as study_timing
from studies.plan import GAN, Part, arm_step_name
from studies.steps import GENERATION, Step
from studies.timing import SCRIPT_SECONDS, Speeds, seconds_of, seconds_of_all, workload

SPEEDS = Speeds(step=0.5, prediction=0.01, gan=0.002, generation=0.001, decoding=0.003)
CPU = torch.device("cpu")
FROZEN = workload(32, True, [], [])
SMALL = Part(0.5, n_images=100, n_patients=50, n_positive=20, n_synthetic=40, epochs=2, steps=8)
ALL = Part(1.0, n_images=200, n_patients=100, n_positive=40, n_synthetic=80, epochs=1, steps=7)
COST = {"n_scored": 30, "repeats": 2, "k_folds": 0, "kimg": 1.0}


def step(name: str) -> Step:
    return Step(name, "script", [], Path("result"))


def due(part: Part, *names: str) -> list[tuple[Part, Step]]:
    return [(part, step(name)) for name in names]


BASELINE, AUGMENTED, DUPLICATE = map(arm_step_name, ("baseline", "augmented", "control_duplicate"))
STUDY = [
    *due(SMALL, BASELINE, GAN, GENERATION, AUGMENTED, DUPLICATE),
    *due(ALL, BASELINE, GAN, GENERATION, AUGMENTED, DUPLICATE),
]


def beyond_start(seconds: list[float]) -> list[float]:
    return [value - SCRIPT_SECONDS for value in seconds]


def test_real_images_are_decoded_and_their_features_computed_once_in_a_study():
    seconds = seconds_of_all(STUDY, FROZEN, SPEEDS, cache=True, **COST)
    new = 0.003 + 0.01  # of an image that no step has seen
    assert beyond_start(seconds) == pytest.approx(
        [130 * new, 2.0, 0.04, 40 * new, 0.0, 100 * new, 2.0, 0.08, 80 * new, 0.0]
    )


def test_without_a_cache_every_step_computes_them_anew():
    seconds = seconds_of_all(STUDY[:5], FROZEN, SPEEDS, cache=False, **COST)
    new = 0.003 + 0.01
    assert beyond_start(seconds) == pytest.approx([130 * new, 2.0 + 20 * 0.003, 0.04, 170 * new, 130 * new])


def test_what_was_trained_on_before_costs_nothing():
    seconds = seconds_of_all(STUDY[5:7], FROZEN, SPEEDS, cache=True, known=100, **COST)
    assert beyond_start(seconds) == pytest.approx([100 * 0.013, 2.0])


def test_networks_are_trained_in_every_arm_all_the_same():
    whole = workload(32, True, ["--unfreeze"], [])
    first, *_, last = seconds_of_all(STUDY[:5], whole, SPEEDS, cache=True, **COST)
    training = 2 * (8 * 0.5 + 30 * 0.01)
    assert beyond_start([first, last]) == pytest.approx([training + 130 * 0.003, training])


def test_every_view_of_a_training_image_has_features():
    views = workload(32, True, ["--augment", "light", "--feature-views", "4"], [])
    assert views.cached and views.views == 4
    seconds = seconds_of(step(AUGMENTED), SMALL, views, SPEEDS, **COST)
    assert seconds == pytest.approx(SCRIPT_SECONDS + 170 * 0.003 + (4 * 140 + 30) * 0.01)


def test_flags_that_do_not_change_how_long_a_gan_takes_are_passed_over():
    others = ["--save-interval", "5", "--resume", "auto", "--lambda-adv=2", "--tensorboard"]
    assert workload(32, True, [], others) == FROZEN


def test_features_and_images_are_timed_as_they_are_computed(monkeypatch):
    monkeypatch.setattr(study_timing, "MOST_SECONDS", 0.0)
    monkeypatch.setattr(study_timing, "GENERATED_BATCH", 3)
    asked, made = [], []

    def features(self, pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        return np.zeros((len(pixels), classifier.FEATURES), np.float32)

    def images(self, indices) -> np.ndarray:
        made.append(len(indices))
        return np.zeros((len(indices), 32, 32), np.uint8)

    monkeypatch.setattr(classifier.FeatureExtractor, "__call__", features)
    monkeypatch.setattr(generation.ImageMaker, "__call__", images)
    tiny = ["--feature-maps-g", "2", "--feature-maps-d", "2", "--batch-size", "2", "--num-channels", "1"]
    speeds = study_timing.measure_here(workload(32, True, [], tiny), [])
    assert asked and speeds.step == 0 < speeds.prediction
    assert made == [1, 3] and speeds.generation > 0
