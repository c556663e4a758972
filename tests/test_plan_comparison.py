"""plan_comparison.py: what it fixes, what it refuses, and how the other scripts are held to it."""

from pathlib import Path

import pytest

import analyze_results
import generate_synthetic
import plan_comparison
import run_pipeline
import train_classifier
import train_gan
from classifier_runs import make_synthetic
from common import paths, plan_files
from common.file_formats import format_problems
from common.plan_files import ComparisonPlan
from dataset.records import load_dataset
from dataset.splits import load_or_create_splits
from fake_results import a_plan, fake_records, write_arm
from gan_data import save_generator
from utils import UserError, load_json, save_json

ASK = ["--primary", "augmented:control_duplicate"]


@pytest.fixture(autouse=True)
def forget():
    yield
    plan_files._sha256 = None


@pytest.fixture
def data(in_tmp, make_dataset):
    return load_dataset(make_dataset())


def test_the_usual_sequence_is_planned_with_what_it_can_show(data, caplog):
    caplog.set_level("INFO")
    plan_comparison.main([*ASK, "--classifier-args", "--epochs 3 --repeats 2", "--gan-args", "--preset cpu"])
    plan = load_json(paths.PLAN)
    assert format_problems(plan, ComparisonPlan) == []
    splits = load_or_create_splits(data, None)
    assert plan["images"]["split_sha256"] == [splits.sha256] and plan["study"]["repeats"] == 2
    assert plan["images"]["n_images"] == int((splits.images["role"] == "test").sum())
    options = plan["options"]
    assert options["train_classifier"]["epochs"] == [3] and options["train_classifier"]["k_folds"] == [5, 0]
    assert options["train_gan"]["image_size"] == [64]  # as the preset says
    assert options["generate_synthetic"]["num_images"] == [5000]
    assert "use_synthetic" not in options["train_classifier"]  # arms differ in it
    assert "is found with 80 % power, if both arms have an AUROC of 0.8" in caplog.text


def test_the_same_plan_again_changes_nothing_and_another_is_refused(data):
    plan_comparison.main(ASK)
    before = Path(paths.PLAN).read_text(encoding="utf-8")
    plan_comparison.main(ASK)
    assert Path(paths.PLAN).read_text(encoding="utf-8") == before
    with pytest.raises(UserError, match="results/plan.json holds another plan, and results may be held to it"):
        plan_comparison.main([*ASK, "--margin", "2"])
    assert Path(paths.PLAN).read_text(encoding="utf-8") == before


def test_a_study_is_planned_with_all_its_folds(data):
    plan_comparison.main([*ASK, "--study-args", "--cross-fit 3 --gan-seeds 2 --repeats 2 --study-dir s --seed 7"])
    plan = load_json(paths.PLAN)
    assert plan["study"] == {"folds": 3, "gans": 2, "repeats": 2, "seed": 7}
    assert len(plan["images"]["split_sha256"]) == 3 and plan["images"]["n_images"] == len(data.images)
    assert plan["options"]["train_gan"]["seed"] == [7, 9, 11, 13, 15, 17]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*ASK, "--metric", "brier"], "--metric brier is not compared; choose from accuracy, auroc"),
        (["--primary", "augmented:mine", "--study-args", "--cross-fit 3"], "--primary mine is no arm of this study"),
        ([*ASK, "--study-args", "--cross-fit 3 --nonsense 1"], "run_study.py has no option --nonsense"),
        ([*ASK, "--study-args", "--fractions 0.5,1"], "run_study.py without --cross-fit cannot be planned"),
        ([*ASK, "--classifier-args", "--test-set official"], "--test-set official cannot be planned"),
        ([*ASK, "--study-args", "--cross-fit 3", "--splits", "s.json"], "--splits and --cross-fit exclude each other"),
        ([*ASK, "--study-args", "--cross-fit 3 --k-folds 2"], "--k-folds and --cross-fit exclude each other"),
        ([*ASK, "--study-args", "--cross-fit 3 --fractions 1"], "--fractions and --cross-fit exclude each other"),
        ([*ASK, "--classifier-args", "--epochs 2 --nonsense 1"], "train_classifier.py has no option --nonsense"),
    ],
)
def test_what_cannot_be_planned(data, words, said):
    with pytest.raises(UserError, match=said):
        plan_comparison.main(words)
    assert not Path(paths.PLAN).exists()


@pytest.mark.parametrize("pair", ["augmented", "augmented:", "augmented:augmented", "a b:c", ":"])
def test_a_pair_is_two_names(in_tmp, capsys, pair):
    with pytest.raises(SystemExit) as stop:
        plan_comparison.main(["--primary", pair])
    assert stop.value.code == 2 and "--primary" in capsys.readouterr().err


# --- the other scripts -----------------------------------------------------------------------------
@pytest.fixture
def planned(in_tmp):
    def write(**options) -> None:
        save_json(paths.PLAN, a_plan(options=options))

    return write


@pytest.mark.parametrize(
    ("script", "words", "options"),
    [
        (train_classifier, ["--epochs", "9"], {"train_classifier": {"epochs": [15]}}),
        (train_gan, ["--preset", "cpu"], {"train_gan": {"image_size": [112]}}),
        (generate_synthetic, ["--model-path", "g.pth", "--seed", "1"], {"generate_synthetic": {"seed": [42]}}),
    ],
)
def test_other_options_than_planned_end_before_anything_is_read(planned, script, words, options):
    planned(**options)
    with pytest.raises(UserError, match="results/plan.json planned"):
        script.main(words)


def test_the_pipeline_is_told_before_its_first_step(planned, make_dataset, capfd):
    make_dataset()
    planned(train_gan={"kimg": [100]})
    with pytest.raises(SystemExit):
        run_pipeline.main(["--image-size", "64", "--classifier-args", "--weights none --unfreeze"])
    said = "--kimg is not given in this run of train_gan.py, but results/plan.json planned 100"
    assert said in capfd.readouterr().err
    assert not Path("models").exists()


def test_another_split_is_refused_before_anything_is_decoded(planned, make_dataset):
    make_dataset()
    planned(train_classifier={})
    with pytest.raises(UserError, match="the split of this run is not the one that results/plan.json was made for"):
        train_classifier.main(["--weights", "none", "--unfreeze", "--image-size", "32"])


def test_images_and_generators_of_no_plan_are_refused(planned, make_dataset, in_tmp):
    make_dataset()
    planned(train_classifier={})
    make_synthetic(in_tmp / "data/synthetic", 2, [], [], created_by="generate_synthetic.py")
    with pytest.raises(UserError, match="data/synthetic/ was made without a plan, not under results/plan.json"):
        train_classifier.main(["--use-synthetic", "--weights", "none", "--unfreeze", "--image-size", "32"])
    save_generator(in_tmp / "g.pth")
    with pytest.raises(UserError, match="g.pth was made without a plan"):
        generate_synthetic.main(["--model-path", "g.pth"])


def test_the_analysis_refuses_a_plan_that_was_changed_after_training(in_tmp):
    save_json(paths.PLAN, a_plan())
    for name in ("augmented", "control_duplicate"):
        write_arm(in_tmp / "results/metrics", name, fake_records(), plan_sha256="b" * 64)
    with pytest.raises(UserError, match="the arm augmented was made under another plan"):
        analyze_results.main(["--skip-ssim"])
    assert not (in_tmp / "results/analysis/comparison.json").exists()
