"""Doses of synthetic images: a study for each, with the GANs of another, and what is drawn of all."""

from pathlib import Path

import pytest

import run_study
from common import paths
from common.file_formats import format_problems
from fake_commands import words_of
from studies.file_formats import DoseResponse
from utils import UserError, load_json

OPTIONS = ["--repeats", "2", "--image-size", "32", "--epochs", "2", "--cpu", "--cross-fit", "2"]
DOSES = [*OPTIONS, "--study-dir", "doses", "--gans-from", "study", "--doses"]


@pytest.fixture
def after_a_study(commands):
    run_study.main([*OPTIONS, "--study-dir", "study"])
    commands.clear()
    return commands


def test_each_dose_is_a_study_with_the_same_gans(after_a_study):
    run_study.main([*DOSES, "1,0.25"])
    assert not [command for command in after_a_study if "train_gan" in command[0]]
    made = [words_of(command) for command in after_a_study if "generate_synthetic" in command[0]]
    of_doses = ["16", "16", "64", "64"]  # of the 64 training images of a fold
    assert [words["--num-images"] for words in made] == of_doses
    assert [words["--model-path"] for words in made[:2]] == [words["--model-path"] for words in made[2:]]
    content = load_json(paths.dose_response_results("doses"))
    assert format_problems(content, DoseResponse) == []
    assert [dose["synthetic_per_real"] for dose in content["doses"]] == [0.25, 1.0]
    single = load_json(paths.cross_fit_results(Path("doses", "dose_0.25")))
    assert content["doses"][0]["pairs"] == single["pairs"]
    assert paths.dose_response_figure("doses").is_file()


def test_a_dose_is_added_and_the_others_are_not_run_again(after_a_study):
    run_study.main([*DOSES, "0.25"])
    after_a_study.clear()
    run_study.main([*DOSES, "0.25,2"])
    arms = [words_of(command) for command in after_a_study if "train_classifier" in command[0]]
    assert {words["--splits"].split("/")[1] for words in arms} == {"dose_2"}
    assert [dose["synthetic_per_real"] for dose in load_json("doses/dose_response.json")["doses"]] == [0.25, 2.0]


def test_doses_of_other_images_are_not_drawn_together(after_a_study, monkeypatch):
    run_study.main([*DOSES, "0.25,2"])
    read, other = run_study.load_json, {"images": {"n_images": 7}}
    monkeypatch.setattr(run_study, "load_json", lambda file: read(file) | (other if "dose_2" in str(file) else {}))
    with pytest.raises(UserError, match="the doses 0.25 and 2 cannot be drawn together: their images differ"):
        run_study.main([*DOSES, "0.25,2", "--draw-only"])


def test_the_committed_file_is_as_described():
    file = Path(__file__).parents[2] / "results" / "rsna_1500" / "cross_fit" / "doses" / "dose_response.json"
    assert format_problems(load_json(file), DoseResponse) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cross-fit", "2", "--doses", "1"], "--doses needs --gans-from"),
        (["--cross-fit", "2", "--gans-from", "s", "--doses", "1,1.0"], "names a number twice"),
        (["--cross-fit", "2", "--gans-from", "s", "--doses", "0"], "must be a number > 0"),
        (["--cross-fit", "2", "--gans-from", "s", "--doses", "1", "--labelled-patients", "9"], "exclude each other"),
    ],
)
def test_wrong_usage(in_tmp, capsys, flags, message):
    with pytest.raises(SystemExit):
        run_study.main(flags)
    assert message in capsys.readouterr().err
