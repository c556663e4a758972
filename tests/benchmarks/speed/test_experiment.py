"""A user's own experiment: what options make of it, its stages, and what makes it shorter."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import benchmark
from benchmarks.speed import experiment as experiments
from studies.commands import MAKE_IMAGES, TRAIN_GAN
from studies.time_estimate import HEAD_SECONDS, SCRIPT_SECONDS, Speeds
from utils import UserError

CROSS_FIT = Path(__file__).resolve().parents[3] / "experiments" / "rsna-1500-cross-fit.yaml"
SPEEDS = Speeds(step=3.0, prediction=0.01, gan=0.02, generation=0.005, decoding=0.1)


def planned(*words: str) -> experiments.Experiment:
    args = benchmark.parse_benchmark_args(list(words))
    return experiments.plan_experiment(vars(args), 1200, 270)


def test_without_options_it_is_the_default_pipeline():
    made = planned()
    assert made.arms == ("baseline", "augmented", "control_duplicate") and made.n_synthetic == 5000
    assert (made.classifier.image_size, made.classifier.k_folds, made.classifier.epochs) == (224, 5, 15)
    assert made.classifier.frozen and made.gan.schedule.epochs == 50 and (made.n_training, made.n_scored) == (900, 300)


def test_what_is_typed_wins_over_the_file_and_a_study_has_its_folds():
    made = planned("--config", str(CROSS_FIT), "--repeats", "2")
    work = made.classifier
    assert (made.outer_folds, made.gans, made.n_training) == (5, 1, 960)
    assert (work.backbone, work.frozen, work.image_size, work.epochs) == ("efficientnet_lite0", False, 112, 5)
    assert (work.repeats, work.epochs_final, work.k_folds) == (2, 5, 0)
    assert made.gan.values["preset"] == "best" and made.gan.images.image_size == 112 and made.gan.schedule.kimg == 64
    assert made.n_synthetic == 480


def test_repeats_of_the_pipeline_and_studies_that_are_not_counted_here():
    assert planned("--pipeline-args", "--repeats 3").classifier.repeats == 3
    with pytest.raises(UserError, match="run_study.py --estimate says how long it takes"):
        planned("--study-args", "--cross-fit 3 --gans-from other")
    with pytest.raises(UserError, match="run_study.py --estimate says how long it takes"):
        planned("--study-args", "--cross-fit 3 --labelled-patients 100,200")


@pytest.mark.parametrize(
    "words",
    [
        ["--generation-args", "--num-images 450"],
        ["--generation-args=--num-images=450"],
        ["--pipeline-args", "--generation-args '--num-images 450'"],
        ["--pipeline-args", "--num-images 450"],
    ],
)
def test_the_number_of_synthetic_images_may_be_said_in_several_ways(words):
    assert planned(*words).n_synthetic == 450


def test_a_length_with_an_equals_sign_replaces_the_usual_epochs():
    assert planned("--gan-args=--kimg=64").gan.schedule.kimg == 64


@pytest.mark.parametrize("number", ["", " many"])
def test_a_wrong_number_of_images_ends_in_one_line(capsys, number):
    with pytest.raises(SystemExit):
        planned(f"--generation-args=--num-images{number}")
    assert "generate_synthetic.py: error: argument --num-images" in capsys.readouterr().err


def test_an_image_size_holds_for_both_networks():
    made = planned("--image-size", "64", "--gan-args", "--preset best --kimg 10")
    assert made.classifier.image_size == made.gan.images.image_size == 64
    assert experiments.gan_work(made).epochs == 53  # 202 positives in batches of 32: 192 an epoch


def test_stages_of_a_frozen_backbone_cost_the_first_time_only():
    first, again = (experiments.stage_seconds(planned(), SPEEDS, warm=warm) for warm in (False, True))
    assert first["decode the images"] == pytest.approx(120) and again["decode the images"] == 0
    assert 120 < first["look for twins"] < 130 and again["look for twins"] == 0  # they are decoded once more
    assert first["first pass through ResNet-50"] == pytest.approx(12)
    head = 29 * (4 + 1) * 15 * 32 * HEAD_SECONDS  # steps of folds and final model in batches of 32: some 1.4 s
    assert first["train baseline"] == again["train baseline"] == pytest.approx(SCRIPT_SECONDS + head)
    assert first["train augmented"] == pytest.approx(SCRIPT_SECONDS + 5000 * 0.11 + head)
    assert again["train augmented"] == pytest.approx(SCRIPT_SECONDS + head)
    assert first[TRAIN_GAN] == again[TRAIN_GAN] == pytest.approx(SCRIPT_SECONDS + 50 * 192 * 0.02)
    assert first[MAKE_IMAGES] == pytest.approx(SCRIPT_SECONDS + 25)


def test_stages_of_all_layers_take_the_steps_of_every_fold_and_run():
    made = planned("--classifier-args=--unfreeze", "--repeats", "2", "--arms", "baseline")
    stages = experiments.stage_seconds(made, replace(SPEEDS, prediction=0.0))
    # 29 steps an epoch; four of five folds train, in each of 5 folds, and two final models.
    assert stages["train baseline"] == pytest.approx(SCRIPT_SECONDS + (4 + 2) * 15 * 29 * 3.0, rel=0.01)
    assert TRAIN_GAN not in stages and not any("first pass" in name for name in stages)


def test_outer_folds_repeat_the_commands_and_not_the_decoding(monkeypatch):
    monkeypatch.setattr("studies.time_estimate.HEAD_SECONDS", 0.0)  # of more images in more folds
    few, many = (planned("--cross-fit", k, "--study-args", "--gan-seeds 2") for k in ("5", "10"))
    one, two = (experiments.stage_seconds(made, SPEEDS, warm=True) for made in (few, many))
    assert two["train baseline"] == 2 * one["train baseline"] == 20 * SCRIPT_SECONDS
    assert experiments.stage_seconds(many, SPEEDS)["decode the images"] == pytest.approx(120)


def test_small_fractions_take_as_many_steps():
    made = planned("--study-args", "--fractions 0.5,1", "--classifier-args=--unfreeze", "--arms", "baseline")
    both = experiments.stage_seconds(made, SPEEDS)["train baseline"]
    all_of_it = experiments.stage_seconds(replace(made, shares=(1.0,)), SPEEDS)["train baseline"]
    assert both == pytest.approx(2 * all_of_it, rel=0.01)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["--classifier-args=--unfreeze"], ["--k-folds 0", "a frozen backbone (no --unfreeze)", "--image-size 128"]),
        (["--classifier-args", "--unfreeze --augment light", "--repeats", "4"], ["--repeats 1", "--epochs 7"]),
        (["--classifier-args", "--augment light"], ["--classifier-args '--feature-views 8'"]),
        (["--gan-args", "--kimg 64"], ["--gan-args '--kimg 32'"]),
    ],
)  # fmt: skip
def test_shorter_ways_are_shorter(monkeypatch, words, offered):
    monkeypatch.setattr(experiments, "_others", lambda *_: {})
    made = planned(*words)
    ways, usual = experiments.shorter_ways(made, SPEEDS, True), sum(experiments.stage_seconds(made, SPEEDS).values())
    assert all(ways[flag] < usual for flag in offered)
    assert offered[0] in experiments.describe_shorter(usual, {offered[0]: 0.5 * usual, "no good": 0.99 * usual})


def test_smaller_networks_and_a_gan_without_the_perceptual_loss_are_timed(monkeypatch):
    monkeypatch.setattr("studies.time_estimate.PROBE_SECONDS", 0.0)
    words = ["--classifier-args", "--unfreeze --image-size 32 --batch-size 4", "--gan-args", "--image-size 32"]
    made = planned(*words, "--k-folds", "0")
    faster = experiments._others(made, replace(SPEEDS, step=500.0, gan=100.0), cpu=True)
    assert {"--classifier-args '--backbone resnet18'", "--gan-args '--perceptual off'"} <= faster.keys()
    assert faster["--classifier-args '--backbone resnet18'"][1].step < 500.0
    assert faster["--gan-args '--perceptual off'"][1].gan < 100.0


def test_the_script_prints_stages_and_needs_no_data(monkeypatch, caplog):
    monkeypatch.setattr(experiments, "measured_speeds", lambda *_: SPEEDS)
    monkeypatch.setattr(experiments, "_others", lambda *_: {})
    monkeypatch.setattr(benchmark, "phantom_files", lambda _: [])
    with caplog.at_level(logging.INFO):
        benchmark.main(["--real-images", "1000", "--cpu"])
    assert "1,000 labelled images, 225 of them positive" in caplog.text
    assert "train control_duplicate" in caplog.text and "what would make it shorter" in caplog.text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--quick"], "--quick needs --compare"),
        (["--rows", "lite0"], "--rows needs --compare"),
        (["--k-folds", "1"], "--k-folds 1 is not allowed"),
    ],
)
def test_wrong_options_end_in_one_line(capsys, words, sentence):
    with pytest.raises(SystemExit):
        benchmark.main(words)
    assert sentence in capsys.readouterr().err
