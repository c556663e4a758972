"""The low-data study: its plan and commands with a made-up runner, its statistics on made-up arms."""

import functools
import itertools
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_study
from arms.registry import study_arms
from common import paths
from common import plot_style as plots
from dataset.records import load_dataset
from dataset.splits import TRAIN, load_or_create_splits, reduce_training
from fake_results import held_out_records, write_arm
from gan.settings import Settings
from studies import figures as plots_study
from studies import learning_curve
from studies import steps as pipeline_steps
from studies.options import STUDY_OPTIONS
from studies.plan import equal_epochs, plan_parts, steps_per_epoch
from studies.time_estimate import ClassifierWork, Speeds
from utils import UserError, load_json, save_json, sha256_file

SRC = Path(__file__).resolve().parent.parent / "src"
STUDY = Path("results/study")
OPTIONS = ["--image-size", "32", "--epochs", "6", "--repeats", "2", "--kimg", "3"]
SPEEDS = Speeds(step=0.5, prediction=0.01, gan=0.002, generation=0.001, decoding=0.003)


def option(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


class Runner:
    """Stands in for the scripts: writes what they would, remembers commands, fails where it is told."""

    def __init__(self, data_dir: Path) -> None:
        self.commands: list[list[str]] = []
        self.fail_at: str | None = None
        self.records, self.split = held_out_records(data_dir)

    def __call__(self, step: pipeline_steps.Step, extra: list[str], logs: Path, _: dict[str, str]) -> float:
        command = [*step.command(), *extra]
        self.commands.append(command)
        if self.fail_at and self.fail_at in self.names()[-1]:
            raise UserError(f"{step.name} failed")
        if step.script == "train_classifier":
            self.train(command)
        elif step.script == "train_gan":
            step.artifact.parent.mkdir(parents=True, exist_ok=True)
            step.artifact.write_text("a generator")
        else:
            save_json(step.artifact, {})
        return 1.0

    def train(self, command: list[str]) -> None:
        fraction, repeats = float(option(command, "--train-fraction")), int(option(command, "--repeats"))
        arm = arm_of(command)
        place = study_arms().index(arm)
        epochs = int(option(command, "--epochs-final"))
        write_arm(
            Path(option(command, "--results-dir")), arm, self.records, skill=0.6 + fraction / 2 + 0.1 * place,
            seed=place, repeats=repeats, split_sha256=self.split, train_fraction=fraction,
            n_train_images=round(96 * fraction), n_train_patients=round(48 * fraction),
            n_train_positive=round(24 * fraction), epochs_final=epochs,
            optimizer_steps=epochs * steps_per_epoch(round(96 * fraction), 32),
        )  # fmt: skip

    def names(self) -> list[str]:
        """ "0.5 augmented", "0.5 gan", "0.5 images": what each command did, with " again" for --resume and
        " anew" for --overwrite."""
        return [describe(command) for command in self.commands]


def arm_of(command: list[str]) -> str:
    if "--control" in command:
        return {"duplicate-positives": "control_duplicate", "class-weight": "control_weight"}[
            option(command, "--control")
        ]
    return "augmented" if "--use-synthetic" in command else "baseline"


def describe(command: list[str]) -> str:
    script = Path(command[0]).stem
    what = {"train_gan": "gan", "generate_synthetic": "images"}.get(script) or arm_of(command)
    fraction = re.search(r"fraction_([\d.]+)", " ".join(command))[1]
    again = " again" if "--resume" in command else " anew" if "--overwrite" in command else ""
    return f"{fraction} {what}{again}"


@pytest.fixture
def study(in_tmp, make_dataset, monkeypatch):
    """Runs run_study.py on a small dataset without training anything; ``study.runner`` saw the commands."""
    runner = Runner(make_dataset())
    monkeypatch.setattr(pipeline_steps, "run_step", runner)
    monkeypatch.setattr(run_study, "check_options", lambda *_: None)
    monkeypatch.setattr(run_study, "in_process_of_its_own", lambda *_: SPEEDS)
    quick = functools.partial(learning_curve.build_learning_curve, n_resamples=20)
    monkeypatch.setattr(learning_curve, "build_learning_curve", quick)
    monkeypatch.setattr(plots_study, "draw_learning_curve", lambda content: plots.new_figure(1, 1))

    def run(*argv: str, failing_at: str | None = None) -> list[str]:
        runner.commands, runner.fail_at = [], failing_at
        if failing_at:
            with pytest.raises(UserError):
                run_study.main([*OPTIONS, *argv])
        else:
            run_study.main([*OPTIONS, *argv])
        return runner.names()

    run.runner = runner
    return run


FULL = "--fractions", "0.5,1", "--arms", "baseline,augmented,control_duplicate"
SEQUENCE = ["baseline", "gan", "images", "augmented", "control_duplicate"]


# --- equal steps -----------------------------------------------------------------------------------
@pytest.mark.parametrize("n_images", [4, 31, 32, 33, 222, 899, 20_013])
@pytest.mark.parametrize("steps", [1, 29, 522, 9_390])
def test_steps_are_equal_to_within_half_an_epoch(n_images, steps):
    epochs = equal_epochs(n_images, 32, steps)
    taken = epochs * steps_per_epoch(n_images, 32)
    assert epochs == 1 or abs(taken - steps) <= steps_per_epoch(n_images, 32) / 2


def test_the_parts_are_the_reduced_training_images(make_dataset):
    splits = load_or_create_splits(load_dataset(make_dataset()))
    options = {"epochs": 8, "batch_size": 16, "k_folds": 0, "synthetic_per_real": 0.5}
    small, large = plan_parts(splits, [1.0, 0.25], **options)
    for part, fraction in ((small, 0.25), (large, 1.0)):
        images = reduce_training(splits, fraction).images
        images = images[images["role"] == TRAIN]
        assert (part.n_images, part.n_positive) == (len(images), images["label"].sum())
        assert part.n_patients == images["patient"].nunique()
        assert part.n_synthetic == round(len(images) / 2)
    assert (large.epochs, small.epochs) == (8, 24), "6 and 2 batches of 16"
    assert small.steps == large.steps == 48
    with pytest.raises(UserError, match=r"--fractions 0.02 is too small: .*leaves no patient with pneumonia"):
        plan_parts(splits, [0.02], **options)
    with pytest.raises(UserError, match=r"--fractions 0.25 is too small: 3 patients with positive"):
        plan_parts(splits, [0.25], **options | {"k_folds": 5})


# --- commands --------------------------------------------------------------------------------------
def test_every_fraction_is_trained_from_few_to_many(study, in_tmp, capsys):
    assert study(*FULL) == [f"{fraction} {what}" for fraction in ("0.5", "1") for what in SEQUENCE]
    out = capsys.readouterr().out
    assert "fraction 0.5: 48 images of 24 patients, 12 positive; 9 epochs = 18 steps; 24 synthetic" in out
    assert "fraction 1: 96 images of 48 patients, 24 positive; 6 epochs = 18 steps; 48 synthetic" in out
    assert out.index("ABOUT") < out.index("==== fraction")
    made = {str(file.relative_to(in_tmp)) for file in in_tmp.rglob("*") if file.is_file()}
    assert all(name.startswith(("data/processed/", "results/study/")) for name in made)
    assert {"results/study/learning_curve.json", "results/study/learning_curve.png"} < made


def test_the_commands_share_all_but_the_fraction_and_its_epochs(study):
    study(
        *FULL, "--seed", "7", "--k-folds", "2", "--cpu", "--skip-bad-images", "--synthetic-per-real", "0.25",
        "--classifier-args", "--unfreeze --batch-size 16", "--gan-args", "--num-channels 1",
    )  # fmt: skip
    for command in study.runner.commands:
        name, text = describe(command), " ".join(command)
        half = name.startswith("0.5")
        assert "--seed 7" in text and "--cpu" in text
        if "images" in name:
            assert option(command, "--num-images") == ("12" if half else "24")
            continue
        assert option(command, "--train-fraction") == ("0.5" if half else "1")
        assert "--data-dir data/processed --skip-bad-images" in text and "--image-size 32" in text
        if "gan" in name:
            assert "--kimg 3" in text and "--num-channels 1" in text and "--no-real-images" in text
            continue
        epochs = "12" if half else "6"  # 3 and 6 batches of 16
        assert option(command, "--epochs") == option(command, "--epochs-final") == epochs
        assert "--repeats 2 --k-folds 2" in text and "--unfreeze --batch-size 16" in text
        assert ("--synthetic-dir" in text) == ("baseline" not in name)


def test_the_scripts_take_the_commands(in_tmp, make_dataset):
    args = run_study.parse_study_args([*OPTIONS, "--arms", ",".join(study_arms())])
    splits = load_or_create_splits(load_dataset(make_dataset()))
    (part,) = plan_parts(splits, [0.5], epochs=6, batch_size=32, k_folds=0, synthetic_per_real=1)
    pipeline_steps.check_options(run_study.study_steps(args, part))  # ends with exit code 2 if not
    conditional = run_study.parse_study_args([*OPTIONS, "--gan-args=--conditional"])
    commands = [" ".join(step.command()) for step in run_study.study_steps(conditional, part)]
    (generation,) = [command for command in commands if "generate_synthetic" in command]
    assert "--label lung_opacity" in generation


def test_own_options_cannot_be_passed_on(study):
    refused = {o.hands_on.script: o.hands_on.refused.keys() for o in STUDY_OPTIONS if o.hands_on}
    study(*FULL, "--cpu", "--skip-bad-images", "--splits", "data/processed/splits.json")
    for command in study.runner.commands:
        script = Path(command[0]).stem
        if script in refused:
            own = {word for word in command if word.startswith("--")}
            assert own - refused[script] <= {"--no-real-images", "--checkpoint-interval"}


def test_sections_of_a_file_are_handed_to_every_fraction(study, in_tmp, monkeypatch):
    text = "run_study: {fractions: 1, arms: 'baseline,augmented'}\ntrain_classifier: {batch-size: 16}\n"
    Path("x.yaml").write_text(f"{text}train_gan: {{num-channels: 1}}\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["run_study.py"])
    assert study("--config", "x.yaml") == ["1 baseline", "1 gan", "1 images", "1 augmented"]
    for command in study.runner.commands:
        script = Path(command[0]).stem
        assert ("--batch-size" in command) == (script == "train_classifier")
        assert ("--num-channels" in command) == (script == "train_gan")
    assert study("--config", "x.yaml") == []
    assert load_json(STUDY / "learning_curve.json")["config_sha256"] == sha256_file("x.yaml")
    Path("x.yaml").write_text(f"{text}train_gan: {{num-channels: 3}}\n", encoding="utf-8")
    assert study("--config", "x.yaml") == ["1 gan", "1 images anew", "1 augmented"], "another value, not another file"
    Path("x.yaml").write_text("train_gan: {seed: 1}", encoding="utf-8")
    with pytest.raises(SystemExit):
        study("--config", "x.yaml")


def test_the_baseline_alone_needs_no_gan(study):
    assert study("--fractions", "1", "--arms", "baseline") == ["1 baseline"]


def test_controls_take_their_number_from_the_synthetic_images(study):
    names = study("--fractions", "1", "--arms", "control_weight,baseline")
    assert names == ["1 baseline", "1 gan", "1 images", "1 control_weight"]


# --- resuming --------------------------------------------------------------------------------------
def test_finished_steps_are_skipped(study, capsys):
    study(*FULL)
    assert study(*FULL) == []
    assert "everything is trained already" in capsys.readouterr().out


def test_an_interrupted_study_goes_on_where_it_stopped(study):
    study(*FULL, failing_at="0.5 augmented")
    assert study(*FULL, failing_at="1 gan") == [
        "0.5 augmented again", "0.5 control_duplicate", "1 baseline", "1 gan"
    ]  # fmt: skip
    assert study(*FULL) == ["1 gan again", "1 images", "1 augmented", "1 control_duplicate"]


def test_fractions_and_arms_can_be_added(study):
    study("--fractions", "1", "--arms", "baseline,control_weight")
    assert study("--fractions", "0.5,1", "--arms", ",".join(study_arms())) == [
        *(f"0.5 {what}" for what in [*SEQUENCE, "control_weight"]), "1 augmented", "1 control_duplicate"
    ]  # fmt: skip
    points = load_json(paths.learning_curve_results(STUDY))["points"]
    assert [(point["fraction"], point["arm"]) for point in points] == list(itertools.product([0.5, 1.0], study_arms()))


def test_a_longer_gan_reruns_what_builds_on_it(study):
    study("--fractions", "1")
    again = study("--fractions", "1", "--kimg", "4")
    assert again == ["1 gan", "1 images anew", "1 augmented", "1 control_duplicate"]


def test_what_an_interrupted_rerun_made_outdated_is_not_taken_for_finished(study):
    study("--fractions", "1")
    study("--fractions", "1", "--kimg", "4", failing_at="1 augmented")
    curve = load_json(paths.learning_curve_results(STUDY))
    assert not curve["missing"], "the curve of the first run is still there"
    assert study("--fractions", "1", "--kimg", "4") == ["1 augmented again", "1 control_duplicate"]


def test_an_interrupted_arm_starts_afresh_on_new_images(study):
    study("--fractions", "1", failing_at="1 augmented")
    study("--fractions", "1", "--kimg", "4", failing_at="1 images")
    assert study("--fractions", "1", "--kimg", "4") == [
        "1 images anew", "1 augmented", "1 control_duplicate"
    ]  # fmt: skip


# --- estimate --------------------------------------------------------------------------------------
def test_the_estimate_alone_trains_nothing(study, in_tmp, capsys):
    assert study(*FULL, "--estimate") == []
    out = capsys.readouterr().out
    assert re.search(r"ABOUT \d+ min for 10 steps: train_classifier.py .*, train_gan.py ", out)
    assert "classifiers still to be trained take about 1.7 GB" in out
    assert not (in_tmp / "results").exists()


def test_the_work_is_measured_as_the_options_say():
    def works(*argv: str) -> tuple[ClassifierWork, Settings]:
        args = run_study.parse_study_args([*OPTIONS, *argv])
        return run_study.classifier_work(args), run_study.gan_settings(args)

    small, gan = works(
        "--classifier-args", "--unfreeze --batch-size 4", "--gan-args", "--num-channels=1 --batch-size 4"
    )
    assert gan.num_channels == 1 and gan.schedule.batch_size == small.batch_size == 4
    assert (small.image_size, gan.images.image_size, small.features_once) == (32, 32, False)
    views, penalised = works("--classifier-args", "--augment light --feature-views 4", "--gan-args", "--preset cpu")
    assert views.features_once and views.views == 4
    assert penalised.gan.r1 == 1 and penalised.images.image_size == 32


# --- wrong usage -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--fractions", "0,1"], "argument --fractions"),
        (["--fractions", "0.5,1.5"], "argument --fractions"),
        (["--fractions", "half"], "argument --fractions"),
        (["--fractions", "0.5,0.5"], "names a number twice"),
        (["--arms", "baseline,better"], "'better' is not an arm; choose from baseline, augmented"),
        (["--arms", "augmented"], "lacks the baseline"),
        (["--k-folds", "1"], "--k-folds 1 is not allowed"),
        (["--repeats", "0"], "argument --repeats"),
        (["--classifier-args", "--unfreeze --epochs=5"], "--epochs=5 cannot be passed on"),
        (["--classifier-args=--estimate"], "--estimate cannot be passed on"),
        (
            ["--classifier-args", "--batch-size 0"],
            "argument --batch-size: must be a whole number >= 2, got 0",
        ),
        (
            ["--gan-args", "--num-channels 1 --batch-size=1"],
            "argument --batch-size: must be a whole number >= 2, got 1",
        ),
        (["--gan-args", "--num-channels 2"], "argument --num-channels"),
        (["--gan-args", "--precision fp64"], "argument --precision"),
        (["--gan-args", "--latent-dim 0"], "argument --latent-dim: must be a whole number >= 1, got 0"),
        (["--gan-args", "--feature-maps-g 0"], "argument --feature-maps-g"),
        (["--gan-args", "--kimg 2"], "--kimg cannot be passed on"),
        (["--gan-args", "'"], "argument --gan-args"),
        (["--estimate", "--draw-only"], "exclude each other"),
    ],
)
def test_wrong_usage_is_exit_code_2(in_tmp, capsys, wrong, said):
    with pytest.raises(SystemExit) as stop:
        run_study.main(wrong)
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert list(in_tmp.iterdir()) == []


def test_a_missing_dataset_is_named(in_tmp):
    with pytest.raises(UserError, match="data/processed is not a folder"):
        run_study.main(OPTIONS)


def test_nothing_to_draw_is_an_error(in_tmp):
    with pytest.raises(UserError, match="holds no finished arm"):
        run_study.main(["--draw-only"])


def test_a_study_of_another_split_is_refused_before_anything_is_trained(study):
    study("--fractions", "1", "--arms", "baseline")
    file = paths.final_metrics(STUDY / "fraction_1/metrics", "baseline_")
    save_json(file, load_json(file) | {"split_sha256": "0" * 64})
    names = study("--fractions", "0.5", failing_at="nothing")
    assert names == []


# --- the curve -------------------------------------------------------------------------------------
def test_few_positives_are_said_and_flagged(study, capsys):
    study("--fractions", "0.5", "--arms", "baseline")
    sentence = "0.5 of the training patients have 12 positive images, fewer than 32"
    assert f"FEW POSITIVES: {sentence}" in capsys.readouterr().out
    curve = load_json(paths.learning_curve_results(STUDY))
    assert curve["points"][0]["few_positives"] is True and sentence in curve["flags"]


def test_a_partial_study_can_be_drawn(study, capsys):
    study(*FULL, failing_at="1 augmented")
    study.runner.commands = []
    run_study.main(["--draw-only"])
    assert study.runner.commands == []
    curve = load_json(paths.learning_curve_results(STUDY))
    assert [(p["fraction"], p["arm"]) for p in curve["points"]] == [
        (0.5, "baseline"), (0.5, "augmented"), (0.5, "control_duplicate"), (1.0, "baseline")
    ]  # fmt: skip
    assert "4 points" in capsys.readouterr().out


def test_what_the_log_calls_unfinished_is_not_drawn(study):
    names = ["augmented", "baseline", "control_duplicate"]

    def drawn() -> tuple[list[str], list[dict]]:
        run_study.main(["--draw-only"])
        curve = load_json(paths.learning_curve_results(STUDY))
        return sorted(point["arm"] for point in curve["points"]), curve["missing"]

    study("--fractions", "0.5")
    assert drawn() == (names, [])
    study("--fractions", "0.5", "--kimg", "4", failing_at="0.5 gan")
    missing = [{"fraction": 0.5, "arm": name} for name in ("augmented", "control_duplicate")]
    assert drawn() == (["baseline"], missing)
    study("--fractions", "1", "--arms", "baseline")
    curve = load_json(paths.learning_curve_results(STUDY))
    assert curve["missing"] == missing, "though it was not asked for now"
    paths.pipeline_log(paths.study_fraction(STUDY, 0.5)).unlink()
    assert drawn() == (sorted([*names, "baseline"]), [])


def test_an_unfinished_study_lists_what_is_missing(study):
    study(*FULL, failing_at="1 gan")
    curve = load_json(paths.learning_curve_results(STUDY))
    # Drawn after the first fraction, when nothing of the second was there.
    assert {"fraction": 1.0, "arm": "baseline"} in curve["missing"] and len(curve["missing"]) == 3
    assert any("unfinished" in flag for flag in curve["flags"])


# --- for real --------------------------------------------------------------------------------------
def interrupt_in_the_gan(command: list[str]) -> str:
    """Start the study and end it, as a scheduler would, once the GAN has saved a state; its output."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    state = paths.gan_state(STUDY / "fraction_0.5/models")
    deadline = time.monotonic() + 300
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    return output


@pytest.mark.slow
def test_a_small_study_is_interrupted_and_resumed(in_tmp):
    def script(name: str, *options: str) -> list[str]:
        return [sys.executable, str(SRC / f"{name}.py"), *options]

    phantoms = script("make_phantom_dataset", "--output-dir", "data/processed", "--num-images", "160",
                      "--num-test-images", "4", "--image-size", "32")  # fmt: skip
    subprocess.run(phantoms, check=True, capture_output=True)
    command = script(
        "run_study", *FULL, "--repeats", "2",
        "--image-size", "32", "--epochs", "2", "--kimg", "2", "--cpu", "--classifier-args",
        "--weights none --unfreeze --augment light", "--gan-args",
        "--num-channels 1 --perceptual off --checkpoint-interval 20",
    )  # fmt: skip
    first = interrupt_in_the_gan(command)
    assert "ABOUT" in first and "interrupted" in first and "==== fraction 1" not in first
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train baseline: already finished" in done.stdout and "resumed at step" in done.stdout
    curve = load_json(paths.learning_curve_results(STUDY))
    assert len(curve["points"]) == len(curve["differences"]) == 6 and curve["missing"] == []
    steps = [point["optimizer_steps"] for point in curve["points"]]
    assert max(steps) - min(steps) <= 2 and all(point["repeats"] == 2 for point in curve["points"])
    half, full = (point for point in curve["points"] if point["arm"] == "augmented")
    assert half["n_train_patients"] < full["n_train_patients"] and half["n_synthetic"] > 0
    manifest = load_json(paths.synthetic_manifest(STUDY / "fraction_0.5/synthetic"))
    assert manifest["train_fraction"] == 0.5
    assert len(manifest["train_image_ids"]) == half["n_train_positive"] < full["n_train_positive"]
    assert not list(STUDY.rglob("reals.png"))
    assert paths.learning_curve_figure(STUDY).stat().st_size > 10_000
