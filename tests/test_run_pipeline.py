"""The pipeline starts other scripts: stub scripts show how, one slow test runs the real sequence."""

import json
from pathlib import Path

import pytest
from PIL import Image

import run_pipeline
from run_pipeline import Step, run_steps
from utils import UserError, load_json

STUB = """
import pathlib, sys
if "--help" in sys.argv:
    if "--bad" in sys.argv:
        print("usage: ...\\none.py: error: unrecognized arguments: --bad", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
with open("calls.txt", "a") as log:
    log.write(" ".join([pathlib.Path(__file__).stem, *sys.argv[1:]]) + "\\n")
if pathlib.Path("fail").exists():
    sys.exit(1)
pathlib.Path(sys.argv[1]).write_text("done")
"""


@pytest.fixture
def stubs(in_tmp, monkeypatch):
    """Two scripts that log their call and write the file they are given."""
    (in_tmp / "src").mkdir()
    for name in ("one", "two"):
        (in_tmp / "src" / f"{name}.py").write_text(STUB)
    monkeypatch.setattr(run_pipeline, "SRC", in_tmp / "src")
    return in_tmp


def steps(option: str = "x") -> list[Step]:
    first = Step("first", "one", ["a.txt", option], Path("a.txt"), resumable=True)
    return [first, Step("second", "two", ["b.txt"], Path("b.txt"))]


def calls() -> list[str]:
    return Path("calls.txt").read_text().splitlines()


LOG = Path("results/pipeline.json")


def test_steps_run_in_order_and_are_printed_as_typed(stubs, capfd):
    run_steps(steps(), LOG)
    assert calls() == ["one a.txt x", "two b.txt"]
    assert "$ python src/one.py a.txt x" in capfd.readouterr().out
    assert {entry["state"] for entry in load_json(LOG).values()} == {"finished"}


def test_finished_steps_are_skipped(stubs, capfd):
    run_steps(steps(), LOG)
    run_steps(steps(), LOG)
    assert len(calls()) == 2
    assert capfd.readouterr().out.count("already finished") == 2


def test_a_changed_option_or_a_lost_file_reruns_the_step_and_all_after_it(stubs):
    run_steps(steps(), LOG)
    run_steps(steps("y"), LOG)
    assert calls()[2:] == ["one a.txt y", "two b.txt"]
    Path("b.txt").unlink()
    run_steps(steps("y"), LOG)
    assert calls()[4:] == ["two b.txt"]


def test_a_failed_step_stops_the_pipeline_and_is_resumed(stubs):
    Path("fail").touch()
    with pytest.raises(UserError, match="step 'first' ended with exit code 1.*go on from this step"):
        run_steps(steps(), LOG)
    Path("fail").unlink()
    run_steps(steps(), LOG)
    assert calls() == ["one a.txt x", "one a.txt x --resume", "two b.txt"]


def test_wrong_options_end_before_anything_runs(stubs, capsys):
    with pytest.raises(SystemExit) as stop:
        run_pipeline.check_options(steps("--bad"))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "one.py: error: unrecognized arguments: --bad\n"
    assert not Path("calls.txt").exists()


def test_the_plan_passes_options_on_and_downloads_what_is_missing(in_tmp):
    parser = run_pipeline.build_parser()
    args = parser.parse_args(
        ["--data-dir", "d", "--image-size", "64", "--epochs", "3", "--gan-args", "--kimg 2 --num-channels 1",
         "--classifier-args", "--unfreeze --weights none", "--no-real-images", "--splits", "s.json"]
    )  # fmt: skip
    _, planned = run_pipeline.plan(args)
    commands = {step.name: " ".join(step.command()) for step in planned}
    assert list(commands)[0] == "download the dataset"
    assert "--unfreeze --weights none" in commands["train the baseline classifier"]
    assert "--use-synthetic" not in commands["train the baseline classifier"]
    assert "--unfreeze --weights none --use-synthetic" in commands["train the augmented classifier"]
    assert "--kimg 2 --num-channels 1" in commands["train the GAN"]
    assert "--epochs" not in commands["train the GAN"]
    assert "--no-real-images" in commands["analyse"]
    for name in ("check the data", "train the baseline classifier", "train the GAN", "analyse"):
        assert "--data-dir d --splits s.json" in commands[name]
    Path("d").mkdir()
    Path("d/stage2_train_metadata.csv").touch()
    assert run_pipeline.plan(args)[1][0].name == "check the data"


PROMISED = """\
data/processed/splits.json data/synthetic/manifest.json data/synthetic/synthetic_00001.png
models/baseline_resnet50.pth models/augmented_resnet50.pth
models/best_overall_baseline_resnet50.pth models/best_overall_augmented_resnet50.pth
models/gan/generator_final.pth models/gan/discriminator_final.pth
results/metrics/baseline_training_history.json results/metrics/augmented_training_history.json
results/metrics/baseline_final_metrics.json results/metrics/augmented_final_metrics.json
results/metrics/baseline_cv_summary.json results/metrics/augmented_cv_summary.json
results/metrics/gan_training_history.json
results/figures/baseline_loss.png results/figures/augmented_loss.png results/figures/baseline_acc.png
results/figures/augmented_acc.png results/figures/cv_comparison.png results/figures/gan_loss_curve.png
results/analysis/comparison_acc.png results/analysis/comparison_loss.png results/analysis/cv_comparison.png
results/analysis/comparison_report.txt results/analysis/ssim_analysis.json results/analysis/fid_score.json
results/analysis/real_vs_synthetic_comparison.png
"""


@pytest.mark.slow
def test_the_demo_writes_everything_that_is_promised(in_tmp, monkeypatch, capfd):
    """The demo's own sequence, at a size for tests."""
    small = {
        "phantoms": ["--num-images", "240", "--num-test-images", "6", "--image-size", "64"],
        "classifier": [
            "--weights",
            "none",
            "--unfreeze",
            "--image-size",
            "32",
            "--epochs",
            "2",
            "--k-folds",
            "2",
        ],
        "gan": ["--image-size", "32", "--num-channels", "1", "--kimg", "1", "--perceptual", "off"],
        "generation": ["--num-images", "40"],
        "analysis": ["--extractor", "classifier"],
    }
    monkeypatch.setattr(run_pipeline, "DEMO", small)
    run_pipeline.main(["--demo"])
    out = capfd.readouterr().out
    assert "demo/results/analysis/comparison_report.txt" in out
    for name in PROMISED.split():
        assert Path("demo", name).stat().st_size > 0, name
    assert any(Path("demo/results/gan_images").glob("*.png"))
    assert [file.name for file in in_tmp.iterdir()] == ["demo"], "nothing outside demo/ is touched"
    for file in Path("demo/results").rglob("*.png"):
        with Image.open(file) as image:
            image.verify()
    augmented = json.loads(Path("demo/results/metrics/augmented_cv_summary.json").read_text())
    assert augmented["contaminated"] is True
    run_pipeline.main(["--demo"])
    assert capfd.readouterr().out.count("already finished") == 7
