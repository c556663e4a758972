"""Cross-fitted studies with few labels: one GAN for all numbers of labelled patients, a folder for each, refusals."""

from pathlib import Path

import pytest

import run_study
from common import paths
from fake_commands import words_of
from fake_results import write_arm
from utils import UserError, load_json

STUDY = Path("study")
OPTIONS = ["--study-dir", "study", "--repeats", "2", "--image-size", "32", "--epochs", "4", "--cpu", "--cross-fit", "2"]
SKILL = {"baseline": 0.2, "semi": 0.9, "control_pseudo": 1.6, "control_duplicate": 0.2}


def write_few(folder, arm, records, words, **facts):
    copies = {
        "flagged": 3, "n_synthetic": 40, "n_training": 70, "n_heldout": 60, "heldout_share": 0.01, "threshold": 0.1,
        "nearly_identical": 1, "share": 0.075, "share_ci95": [0.0, 0.2], "median_nearest": 0.3,
        "heldout_median_nearest": 0.3,
    }  # fmt: skip
    used = {
        "labelled_sha256": f"{words['--labelled-patients']} {words['--seed']}", "n_hidden": 70, "models": 2,
        "n_hidden_patients": 35, "mean_soft_label": 0.3,
        "n_unlabelled": 40 * (arm == "control_pseudo"), "near_copies": copies if arm == "semi" else None,
    }  # fmt: skip
    write_arm(
        folder, arm, records, skill=SKILL[arm], seed=1, repeats=2, few_labels=used,
        config={"labelled_patients": int(words["--labelled-patients"])}, **facts,
    )  # fmt: skip


@pytest.fixture
def commands(pretend):
    return pretend(write_few)


def test_one_gan_of_each_fold_serves_all_numbers_of_labelled_patients(commands):
    run_study.main([*OPTIONS, "--labelled-patients", "16,8"])
    assert len(commands) == 2 * (2 + 2 * 4)
    gans = [words_of(command) for command in commands if "train_gan" in command[0]]
    assert [words["--model-dir"] for words in gans] == [f"study/fold_{n}/gan_1/models" for n in (1, 2)]
    assert {words["--classes"] for words in gans} == {"all"}
    arms = [words_of(command) for command in commands if "train_classifier" in command[0]]
    images = {words.get("--synthetic-dir") for words in arms}
    assert images == {None, "study/fold_1/gan_1/synthetic", "study/fold_2/gan_1/synthetic"}
    labelled = [words["--labelled-patients"] for words in arms]
    assert labelled == ["8"] * 4 + ["16"] * 4 + ["8"] * 4 + ["16"] * 4
    assert [words["--seed"] for words in arms] == ["42"] * 8 + ["44"] * 8, "the same patients in all arms"
    # 64 images in batches of 32, 4 epochs: 8 steps, each of all 8 or 16 images.
    assert {words["--epochs-final"] for words in arms} == {"8"}
    for n in (8, 16):
        folder = paths.few_labels_study(STUDY, n)
        assert paths.cross_fit_page(folder).is_file()
        content = load_json(paths.cross_fit_results(folder))
        assert content["images"]["n_images"] == 128 and content["few_labels"]["labelled_patients"] == n


def test_a_number_is_added_without_another_gan_and_a_lost_arm_is_trained_again(commands):
    run_study.main([*OPTIONS, "--labelled-patients", "8"])
    commands.clear()
    run_study.main([*OPTIONS, "--labelled-patients", "8,16"])
    assert len(commands) == 8 and {words_of(command)["--labelled-patients"] for command in commands} == {"16"}
    paths.final_metrics(STUDY / "labelled_8/fold_2/gan_1/metrics", "semi_").unlink()
    commands.clear()
    run_study.main([*OPTIONS, "--labelled-patients", "8,16"])
    assert [words_of(command)["--labelled-patients"] for command in commands] == ["8"]
    paths.final_metrics(STUDY / "labelled_8/fold_2/gan_1/metrics", "baseline_").unlink()
    commands.clear()
    run_study.main([*OPTIONS, "--labelled-patients", "8"])
    trained = [Path(words_of(command)["--results-dir"]).parts[2] for command in commands]
    assert trained == ["fold_2"] * 3, "the baseline, and the two arms whose images it labels"


def test_the_report_says_what_synthetic_images_keep_and_how_many_are_near_copies(commands):
    run_study.main([*OPTIONS, "--labelled-patients", "8"])
    folder = paths.few_labels_study(STUDY, 8)
    content = load_json(paths.cross_fit_results(folder))
    pairs = [(pair["b"], pair["a"]) for pair in content["pairs"]]
    assert pairs[0] == ("semi", "baseline")
    assert {("control_pseudo", "baseline"), ("semi", "control_pseudo")} < set(pairs)
    of = {(pair["b"], pair["a"]): pair["auroc_difference"] for pair in content["pairs"]}
    kept = content["few_labels"]["kept"]["auroc"]
    assert kept["share"] == pytest.approx(of["semi", "baseline"] / of["control_pseudo", "baseline"])
    assert kept["share_ci95"][0] < kept["share"] < kept["share_ci95"][1]
    assert [row["flagged"] for row in content["few_labels"]["near_copies"]] == [3, 3]
    text = " ".join(paths.cross_fit_report(folder).read_text(encoding="utf-8").split())
    assert "Share of the real images' gain that synthetic ones keep" in text and "nearly identical" in text
    assert "+ 40 without their labels" in text


@pytest.mark.parametrize("skill", [0.2, -1.0])
def test_without_a_gain_of_real_images_no_share_is_said(skill, commands, monkeypatch):
    monkeypatch.setitem(SKILL, "control_pseudo", skill)
    run_study.main([*OPTIONS, "--labelled-patients", "8"])
    folder = paths.few_labels_study(STUDY, 8)
    assert load_json(paths.cross_fit_results(folder))["few_labels"]["kept"]["auroc"] is None
    assert "not said, because" in " ".join(paths.cross_fit_report(folder).read_text(encoding="utf-8").split())


def test_more_patients_than_a_fold_has_are_refused_before_anything_is_trained(commands):
    with pytest.raises(UserError, match=r"--labelled-patients 40 hides no label: there are 3\d training patients"):
        run_study.main([*OPTIONS, "--labelled-patients", "8,40"])
    assert commands == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labelled-patients", "8"], "--labelled-patients is for --cross-fit"),
        (["--labelled-patients", "8,8"], "names a number twice"),
        (["--labelled-patients", "1"], "must be a whole number"),
        (["--cross-fit", "2", "--arms", "baseline,semi"], "--arms: semi needs --labelled-patients"),
        ([*OPTIONS, "--labelled-patients", "8", "--arms", "baseline,augmented"],
         "augmented knows labels that --labelled-patients hides; choose from baseline, control_duplicate, semi"),
        ([*OPTIONS, "--labelled-patients", "8", "--gan-args=--conditional"], "the GAN is told no label"),
        ([*OPTIONS, "--labelled-patients", "8", "--gan-args", "--classes positive"], "the GAN is told no label"),
        ([*OPTIONS, "--classifier-args", "--labelled-patients 8"], "this script gives it itself"),
    ],
)  # fmt: skip
def test_wrong_usage(in_tmp, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run_study.main(flags)
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
