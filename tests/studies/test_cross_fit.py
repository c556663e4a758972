"""Cross-fitted studies: outer folds and their splits, commands, what is finished, a GAN of another fold."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import plan_comparison
import run_study
from classifier_runs import make_synthetic, run
from common import paths, plan_files
from common.paths import SRC
from dataset.records import load_dataset
from dataset.splits import TEST, load_or_create_splits, reduce_training
from fake_commands import words_of
from studies import cross_fit
from utils import UserError, load_json, save_json, sha256_file

STUDY, PLAN = Path("study"), "plan.json"
OPTIONS = ["--study-dir", "study", "--repeats", "2", "--image-size", "32", "--epochs", "2", "--cpu"]


# --- the plan --------------------------------------------------------------------------------------
def test_no_two_trainings_share_a_seed():
    runs = cross_fit.plan_outer_runs("s", 5, 2, 3, 42)
    used = [run.seed + repeat for run in runs for repeat in range(3)]
    assert len(set(used)) == len(used) == 30 and used[0] == 42


def test_every_image_is_tested_once_and_patients_stay_together(make_dataset, tmp_path):
    dataset = load_dataset(make_dataset())
    splits = cross_fit.freeze_outer_splits(dataset, tmp_path, 3, None)
    tested = [set(own.images.loc[own.images["role"] == TEST, "image_id"]) for own in splits.values()]
    assert set.union(*tested) == set(dataset.images["image_id"])
    assert sum(map(len, tested)) == len(dataset.images)
    for own in splits.values():
        assert (own.images.groupby("patient")["role"].nunique() == 1).all()
    again = cross_fit.freeze_outer_splits(dataset, tmp_path, 3, None)
    assert [own.sha256 for own in again.values()] == [own.sha256 for own in splits.values()]


def test_the_usual_split_is_the_first_of_four_parts(make_dataset, tmp_path):
    dataset = load_dataset(make_dataset())
    usual = load_or_create_splits(dataset, tmp_path / "usual.json")
    assert usual.sha256 == cross_fit.freeze_outer_splits(dataset, tmp_path, 4, None)[1].sha256


def test_folds_of_two_studies_are_refused(make_dataset, tmp_path):
    dataset = load_dataset(make_dataset())
    cross_fit.freeze_outer_splits(dataset, tmp_path, 3, None)
    with pytest.raises(UserError, match="fold_3/splits.json is of another number of folds"):
        cross_fit.freeze_outer_splits(dataset, tmp_path, 2, None)
    shutil.copy(paths.outer_splits(tmp_path, 1), paths.outer_splits(tmp_path, 2))
    with pytest.raises(UserError, match="folds 1 and 2 both test .*; give another --study-dir"):
        cross_fit.freeze_outer_splits(dataset, tmp_path, 3, None)


def test_a_fold_with_too_few_patients_is_named(make_dataset):
    splits = reduce_training(load_or_create_splits(load_dataset(make_dataset())), 0.1)
    with pytest.raises(UserError, match="--cross-fit: fold 2 cannot be trained on: 1 patients with positive images"):
        cross_fit.part_of_fold(2, splits, 1, 8, 0.5)


# --- the script ------------------------------------------------------------------------------------
def test_every_fold_has_split_gan_and_seeds_of_its_own(commands):
    run_study.main([*OPTIONS, "--cross-fit", "3"])
    assert len(commands) == 15
    baselines = [words_of(command) for command in commands if "train_classifier" in command[0]][::3]
    assert [words["--splits"] for words in baselines] == [f"study/fold_{n}/splits.json" for n in (1, 2, 3)]
    assert [words["--seed"] for words in baselines] == ["42", "44", "46"]
    gans = [words_of(command) for command in commands if "train_gan" in command[0]]
    assert [words["--model-dir"] for words in gans] == [f"study/fold_{n}/gan_1/models" for n in (1, 2, 3)]
    content = load_json(paths.cross_fit_results(STUDY))
    assert content["images"]["n_images"] == len(load_dataset("data/processed").images)
    assert paths.cross_fit_page(STUDY).is_file() and paths.cross_fit_report(STUDY).is_file()


def test_a_finished_fold_needs_no_checkpoint_and_an_unfinished_one_is_named(commands):
    run_study.main([*OPTIONS, "--cross-fit", "3"])
    for folder in STUDY.glob("fold_*/gan_1"):
        shutil.rmtree(folder / "models")
        shutil.rmtree(folder / "synthetic")
    commands.clear()
    run_study.main([*OPTIONS, "--cross-fit", "3"])
    assert commands == []
    paths.final_metrics(STUDY / "fold_2/gan_1/metrics", "augmented_").unlink()
    run_study.main([*OPTIONS, "--cross-fit", "3", "--draw-only"])
    content = load_json(paths.cross_fit_results(STUDY))
    assert content["missing"] == ["fold 2"] and [fold["fold"] for fold in content["folds"]] == [1, 3]
    run_study.main([*OPTIONS, "--cross-fit", "3"])
    assert load_json(paths.cross_fit_results(STUDY))["missing"] == [] and len(commands) == 4  # all but the baseline


def test_longer_training_runs_all_folds_again(commands):
    run_study.main([*OPTIONS, "--cross-fit", "2"])
    commands.clear()
    run_study.main([*OPTIONS, "--cross-fit", "2", "--epochs", "3"])
    assert len([command for command in commands if "train_classifier" in command[0]]) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cross-fit", "1"], "must be a whole number >= 2"), (["--gan-seeds", "2"], "--gan-seeds is for --cross-fit"),
        (["--gans-from", "s"], "--gans-from is for --cross-fit"),
        (["--cross-fit", "3", "--fractions", "0.5"], "--fractions and --cross-fit exclude each other"),
        (["--cross-fit", "3", "--splits", "s.json"], "--splits and --cross-fit exclude each other"),
        (["--cross-fit", "3", "--k-folds", "2"], "--k-folds and --cross-fit exclude each other"),
    ],
)  # fmt: skip
def test_wrong_usage(in_tmp, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run_study.main(flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


# --- a plan ----------------------------------------------------------------------------------------
STUDIED = ["--cross-fit", "2", *OPTIONS]


@pytest.fixture
def planned(commands):
    words = " ".join(word for word in STUDIED if word != "--cpu")
    plan_comparison.main(["--primary", "augmented:control_duplicate", "--margin", "2", "--plan", PLAN,
                          "--study-args", words])  # fmt: skip
    yield commands
    plan_files._sha256 = None


def test_a_planned_study_confirms_the_planned_pair(planned):
    run_study.main([*STUDIED, "--plan", PLAN])
    assert all(words_of(command)["--plan"] == PLAN for command in planned)
    content = load_json(paths.cross_fit_results(STUDY))
    assert content["plan"]["confirmatory"] and content["settings"]["margin"] == pytest.approx(0.02)
    assert [pair["auroc_role"] for pair in content["pairs"]] == ["confirmatory", "exploratory", "exploratory"]
    assert content["plan_sha256"] == sha256_file(PLAN)
    planned.clear()
    run_study.main([*STUDIED, "--plan", PLAN])
    assert planned == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["--repeats", "3"], "plan.json planned --repeats 2, and --repeats is 3 here"),
        (["--cross-fit", "3"], "plan.json planned --cross-fit 2, and --cross-fit is 3 here"),
        (["--arms", "baseline,augmented"], "plan.json asks about the arm control_duplicate: add it to --arms"),
        (["--epochs", "3"], "--epochs is 3 in this run of train_classifier.py, but plan.json planned 2"),
        (["--gan-args", "--preset best"], "planned"),
    ],
)
def test_another_study_than_planned_is_refused_before_anything_runs(planned, other, said):
    with pytest.raises(UserError, match=said):
        run_study.main([*STUDIED, *other, "--plan", PLAN])
    assert planned == []


def test_a_plan_that_was_changed_after_training_is_refused(planned):
    run_study.main([*STUDIED, "--plan", PLAN])
    save_json(PLAN, load_json(PLAN) | {"primary": {"arm": "augmented", "against": "baseline", "metric": "auroc",
                                                   "margin": 1.0}})  # fmt: skip
    planned.clear()
    with pytest.raises(UserError, match="fold 1: the arm baseline was made under another plan, not under plan.json"):
        run_study.main([*STUDIED, "--plan", PLAN])
    assert planned == []


def test_folds_with_and_without_a_plan_are_not_mixed(commands):
    run_study.main(STUDIED)
    for file in STUDY.glob("fold_2/gan_1/metrics/*_final_metrics.json"):
        save_json(file, load_json(file) | {"plan_sha256": "b" * 64})
    with pytest.raises(UserError, match="fold 2: baseline was trained under another plan than the baseline of fold 1"):
        run_study.main(STUDIED)


def test_a_curve_takes_no_plan(in_tmp, capsys):
    with pytest.raises(SystemExit):
        run_study.main(["--plan", PLAN])
    assert "--plan is for --cross-fit" in capsys.readouterr().err


# --- GANs of another study -------------------------------------------------------------------------
def test_gans_of_another_study_are_used_and_none_is_trained(commands):
    run_study.main([*OPTIONS, "--cross-fit", "2", "--gan-seeds", "2"])
    commands.clear()
    other = ["--study-dir", "other", "--repeats", "3", "--cross-fit", "2", "--image-size", "32", "--cpu"]
    run_study.main([*other, "--gans-from", "study"])
    assert not [command for command in commands if "train_gan" in command[0]]
    made = [words_of(command) for command in commands if "generate_synthetic" in command[0]]
    assert [words["--model-path"] for words in made] == [
        f"study/fold_{fold}/gan_1/models/gan/generator_final.pth" for fold in (1, 2)
    ]
    assert [words["--output-dir"] for words in made] == [f"other/fold_{fold}/gan_1/synthetic" for fold in (1, 2)]
    content = load_json(paths.cross_fit_results("other"))
    assert content["settings"]["gans_from"] == "study" and any("GANs of study" in note for note in content["notes"])


def test_a_missing_gan_and_other_folds_are_told_before_anything_runs(commands):
    run_study.main([*OPTIONS, "--cross-fit", "2"])
    commands.clear()
    other = ["--study-dir", "other", "--image-size", "32", "--cpu", "--gans-from", "study"]
    with pytest.raises(UserError, match="its fold 1 tests other images than this study's"):
        run_study.main([*other, "--cross-fit", "3"])
    shutil.rmtree("other")
    with pytest.raises(UserError, match="fold_1/gan_2/models/gan/generator_final.pth is missing"):
        run_study.main([*other, "--cross-fit", "2", "--gan-seeds", "2"])
    paths.outer_splits(STUDY, 2).unlink()
    with pytest.raises(UserError, match="--gans-from study has no fold 2"):
        run_study.main([*other, "--cross-fit", "2"])
    assert commands == []


# --- leaks -----------------------------------------------------------------------------------------
def test_a_gan_of_another_fold_is_refused(make_dataset, in_tmp, unrendered, thin_network):
    """It has seen patients that this fold tests: an ordinary split, so that the ordinary check finds it."""
    dataset = load_dataset(make_dataset())
    splits = cross_fit.freeze_outer_splits(dataset, STUDY, 3, None)
    positives = {fold: own.images[(own.images["role"] == "train") & (own.images["label"] == 1)]
                 for fold, own in splits.items()}  # fmt: skip
    for fold, own in positives.items():
        make_synthetic(Path(f"fold_{fold}"), 4, list(own["image_id"]), list(own["patient"]),
                       split_sha256=splits[fold].sha256)  # fmt: skip
    flags = ["--unfreeze", "--weights", "none", "--backbone", "resnet18", "--image-size", "32", "--epochs", "1",
             "--epochs-final", "1", "--k-folds", "0", "--use-synthetic", "--precision", "fp32"]  # fmt: skip
    own = ["--splits", str(paths.outer_splits(STUDY, 2))]
    with pytest.raises(UserError, match="test"):
        run(*flags, *own, "--synthetic-dir", "fold_1")
    assert not paths.final_metrics("results/metrics", "augmented_").exists()
    run(*flags, *own, "--synthetic-dir", "fold_2")


# --- for real --------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_small_study_is_cross_fitted(in_tmp):
    def script(name: str, *options: str) -> None:
        command = [sys.executable, str(SRC / f"{name}.py"), *options]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr

    script("make_phantom_dataset", "--output-dir", "data/processed", "--num-images", "160", "--num-test-images", "4",
           "--image-size", "32")  # fmt: skip
    script("run_study", *OPTIONS, "--cross-fit", "2", "--kimg", "1", "--classifier-args",
           "--backbone resnet18 --weights none --unfreeze", "--gan-args",
           "--num-channels 1 --perceptual off")  # fmt: skip
    content = load_json(paths.cross_fit_results(STUDY))
    assert content["missing"] == [] and content["images"]["n_images"] == 160
    steps = [arm["optimizer_steps"] for arm in content["arms"].values()]
    assert steps[0] == steps[1] == steps[2]
    for fold in (1, 2):
        trained = set(load_json(paths.synthetic_manifest(STUDY / f"fold_{fold}/gan_1/synthetic"))["train_patients"])
        tested = load_json(paths.outer_splits(STUDY, fold))["images"]
        assert not trained & {row["patient"] for row in tested if row["role"] == TEST}
