"""The registry of arms: what its entries must hold, and that one more entry is enough for a new arm."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from arms import figures as arm_figures
from arms.options import share_schedule
from arms.registry import (
    ARMS,
    BASELINE,
    CHOSEN_BY_USER,
    Addition,
    ArmKind,
    FitImages,
    Synthetic,
    balance_weights,
    control_names,
    few_label_arms,
    study_arms,
    treatment_of,
)
from arms.result_files import find_arms
from classifier_runs import METRICS, frozen, make_synthetic, run, training_positives
from common.command_line import command_line
from comparison.arms import compare_arms
from fake_comparison import fake_comparison
from fake_results import fake_records, write_arm
from report.details import training
from studies.commands import Words
from studies.options import chosen_arms
from studies.plan import Part, folders_of_fraction, part_steps
from train_classifier import parse_train_options, recorded_options
from utils import UserError, load_json

FEW = ["--labelled-patients", "9", "--k-folds", "0", "--epochs-final", "1"]
SRC = Path(__file__).parents[2] / "src"


def halve_real(images: FitImages) -> Addition:
    """Draw every other real image twice."""
    return Addition(images.real_rows[::2])


@pytest.fixture
def toy(monkeypatch) -> ArmKind:
    """A new arm that trains differently: one entry and one function."""
    kind = ArmKind(
        "toy",
        title="toy",
        words="every other real image twice",
        colour=7,
        options={"control": "every-other"},
        synthetic=Synthetic.COUNTED,
        add=halve_real,
        measured_against=(BASELINE, "augmented"),
    )
    monkeypatch.setitem(ARMS, "toy", kind)
    return kind


class TestEntries:
    def test_names_colours_and_controls_are_unique(self):
        assert len({kind.colour for kind in ARMS.values()}) == len(ARMS)
        assert len(set(control_names())) == len(control_names())
        assert all(name == kind.name and kind.prefix == f"{name}_" for name, kind in ARMS.items())

    def test_arms_are_measured_against_arms(self):
        for kind in ARMS.values():
            assert set(kind.measured_against) <= set(ARMS) - {kind.name}

    def test_each_arm_is_the_one_that_its_own_options_select(self):
        for kind in ARMS.values():
            chosen = {"synthetic_schedule": ((0, 0.5),), "pretrain_synthetic": 3}
            options = {name: chosen[name] if value is CHOSEN_BY_USER else value for name, value in kind.options.items()}
            assert treatment_of(options).kind is kind

    def test_a_study_trains_the_arms_that_need_no_value(self):
        assert study_arms() == ["baseline", "augmented", "control_duplicate", "control_weight"]
        assert few_label_arms() == ["baseline", "control_duplicate", "semi", "control_pseudo"]

    def test_the_registry_imports_nothing_heavy(self):
        code = (
            "import sys; import arms.registry; "
            "print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


class TestToyArm:
    def test_it_is_in_the_study_plan(self, toy, tmp_path):
        assert chosen_arms("toy,baseline") == ["baseline", "toy"]
        part = Part(0.5, n_images=100, n_patients=80, n_positive=25, n_synthetic=50, epochs=2, steps=8)
        folders = folders_of_fraction(tmp_path, "data", 0.5)
        steps = part_steps(part, folders, ["baseline", "toy"], Words(), kimg=1.0)
        assert [step.name for step in steps][-1] == "train toy" and len(steps) == 4
        assert steps[-1].artifact.name == "toy_final_metrics.json"
        options = steps[-1].options
        assert options[options.index("--control") + 1] == "every-other" and "--synthetic-dir" in options

    def test_it_has_its_order_and_colour_in_comparison_and_figures(self, toy, tmp_path):
        records = fake_records()
        for seed, name in enumerate(("another", "baseline", "toy")):
            write_arm(tmp_path, name, records, seed=seed)
        arms = find_arms(tmp_path)
        assert list(arms) == ["baseline", "toy", "another"]
        pairs = compare_arms(arms, n_resamples=20)["pairs"]
        assert [(pair["a"], pair["b"]) for pair in pairs][0] == ("baseline", "toy")
        colours = arm_figures.arm_colours(list(arms))
        assert colours["toy"] == arm_figures.PALETTE[7]
        assert len({tuple(colours[name]) for name in arms}) == 3

    def test_the_report_says_what_it_trains_on(self, toy):
        text = str(training(fake_comparison(("baseline", "toy")), {}))
        assert "toy (every other real image twice): trained on" in text

    def test_it_trains_and_resuming_it_as_another_arm_is_refused(
        self, toy, make_dataset, in_tmp, monkeypatch, unrendered, thin_network
    ):
        from arms import training as arm_training

        positives = training_positives_of(make_dataset)
        make_synthetic(Path("data/synthetic"), 12, list(positives["image_id"]), list(positives["patient"]))
        options = [*frozen(in_tmp), "--k-folds", "0", "--epochs-final", "1"]
        run(*options, "--control", "every-other")
        metrics = load_json(METRICS / "toy_final_metrics.json")
        assert metrics["n_duplicated"] == (metrics["n_train_images"] + 1) // 2

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(arm_training, "fit_heads", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(*options, "--control", "every-other", "--prefix", "mine")
        with pytest.raises(UserError, match="--resume: control was every-other"):
            run(*options, "--control", "duplicate-positives", "--prefix", "mine", "--resume")


def training_positives_of(make_dataset):
    """Training positives of a new dataset with its split, as the script will draw it."""
    from dataset.records import load_dataset
    from dataset.splits import load_or_create_splits

    data_dir = make_dataset()
    load_or_create_splits(load_dataset(data_dir))
    return training_positives(data_dir)


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
            (["--use-synthetic", "--soft-labels", *FEW], "semi_"),
            (["--control", "pseudo-labels", *FEW], "control_pseudo_"),
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
