import argparse
import json
import shlex

import pytest

from arms.registry import treatment_of
from arms.treatments import balance_weights, share_schedule
from common.command_line import command_line
from train_classifier import parse_train_options, recorded_options


class TestNames:
    @pytest.mark.parametrize(
        ("words", "prefix"),
        [
            ([], "baseline_"),
            (["--use-synthetic"], "augmented_"),
            (["--control", "duplicate-positives"], "control_duplicate_"),
            (["--control", "class-weight"], "control_weight_"),
            (["--use-synthetic", "--synthetic-schedule", "0:0.5"], "curriculum_"),
            (["--use-synthetic", "--pretrain-synthetic", "3"], "pretrain_"),
        ],
    )
    def test_each_arm_has_its_prefix(self, words, prefix):
        assert treatment_of(vars(parse_train_options(words))).kind.prefix == prefix


class TestShares:
    def test_a_schedule_counts_finished_epochs(self):
        schedule = share_schedule("0:0,5:0.25,10:0.5")
        treatment = treatment_of({"use_synthetic": True, "synthetic_schedule": schedule})
        assert treatment.shares == ((1, 0.0), (6, 0.25), (11, 0.5))
        assert treatment.last_change == 10

    def test_pretraining_ends_with_real_images_only(self):
        treatment = treatment_of({"use_synthetic": True, "pretrain_synthetic": 4})
        assert treatment.shares == ((1, None), (5, 0.0)) and treatment.last_change == 4

    def test_else_images_are_drawn_by_their_number(self):
        assert treatment_of({"use_synthetic": True}).shares == ((1, None),)

    @pytest.mark.parametrize(
        "text", ["", "5:0.2", "0:0,5", "0:0,5:0.2,5:0.3", "0:1", "0:-0.1", "0:x", "0:0,3:0", "0:nan"]
    )
    def test_nonsense_is_refused(self, text):
        with pytest.raises(argparse.ArgumentTypeError):
            share_schedule(text)


def test_a_recorded_run_is_printed_as_it_can_be_typed_again():
    words = ["--use-synthetic", "--synthetic-schedule", "0:0,1:0.5,12:0.125", "--lr", "0.0002"]
    args = parse_train_options(words)
    # As a result file holds it.
    config = json.loads(json.dumps(recorded_options(args)))
    command = shlex.split(command_line("train_classifier", config))
    assert command[command.index("--synthetic-schedule") + 1] == "0:0,1:0.5,12:0.125"
    assert recorded_options(parse_train_options(command[2:])) == recorded_options(args)


def test_several_folders_are_typed_again_and_one_stays_a_word():
    args = parse_train_options(["--use-synthetic", "--synthetic-dir", "data/ill", "data/my normal"])
    config = json.loads(json.dumps(recorded_options(args)))
    assert config["synthetic_dir"] == ["data/ill", "data/my normal"]
    again = parse_train_options(shlex.split(command_line("train_classifier", config))[2:])
    assert again == args
    one = parse_train_options(["--use-synthetic", "--synthetic-dir", "data/ill"])
    assert recorded_options(one)["synthetic_dir"] == "data/ill"


def test_balance_weights_give_the_augmented_balance():
    # 20 of 100 are positive; with 60 more positives it would be 80 of 160.
    negative, positive = balance_weights(20, 100, 60, 1)
    assert 80 * negative == pytest.approx(20 * positive)
    assert (80 * negative + 20 * positive) / 100 == pytest.approx(1.0)
    assert balance_weights(20, 100, 0, 1) == pytest.approx((1.0, 1.0))
    negative, positive = balance_weights(20, 100, 60, 1 / 3)  # 20 more positives, 40 more negatives
    assert 80 * negative / (20 * positive) == pytest.approx(120 / 40)
    negative, positive = balance_weights(50, 100, 100, 0)  # 100 more negatives: one quarter positive
    assert 50 * negative == pytest.approx(3 * 50 * positive)
