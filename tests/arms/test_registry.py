"""The registry of arms: what its entries must hold, and that one more entry is enough for a new arm."""

import subprocess
import sys
from pathlib import Path

import pytest

from arms import figures as arm_figures
from arms.registry import (
    ARMS,
    BASELINE,
    CHOSEN_BY_USER,
    ArmKind,
    Synthetic,
    control_names,
    study_arms,
    treatment_of,
)
from arms.result_files import find_arms
from arms.treatments import Addition, FitImages
from classifier_runs import METRICS, frozen, make_synthetic, run, training_positives
from comparison.arms import compare_arms
from fake_comparison import fake_comparison
from fake_results import fake_records, write_arm
from report.details import training
from run_study import arms as arms_type
from studies.plan import Part, folders_of, part_steps
from utils import UserError, load_json

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
            options = {
                name: chosen[name] if value is CHOSEN_BY_USER else value
                for name, value in kind.options.items()
            }
            assert treatment_of(options).kind is kind

    def test_a_study_trains_the_arms_that_need_no_value(self):
        assert study_arms() == ["baseline", "augmented", "control_duplicate", "control_weight"]

    def test_the_registry_imports_nothing_heavy(self):
        code = (
            "import sys; import arms.registry; "
            "print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"


class TestToyArm:
    def test_it_is_in_the_study_plan(self, toy, tmp_path):
        assert arms_type("toy,baseline") == ["baseline", "toy"]
        part = Part(0.5, n_images=100, n_patients=80, n_positive=25, n_synthetic=50, epochs=2, steps=8)
        steps = part_steps(
            part, folders_of(tmp_path, "data", 0.5), ["baseline", "toy"], data_options=[], common=[],
            repeats=1, k_folds=0, kimg=1.0, classifier_args=[], gan_args=[], cache=[], cpu=True, seed=1,
        )  # fmt: skip
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
        self, toy, make_dataset, in_tmp, monkeypatch
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
