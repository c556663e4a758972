"""The pipeline starts other scripts: stub scripts show how, one slow test runs the real sequence."""

import json
from pathlib import Path

import pytest
from PIL import Image

import run_pipeline
from studies import steps as pipeline_steps


def test_the_plan_passes_options_on_and_downloads_what_is_missing(in_tmp):
    parser = run_pipeline.build_parser()
    args = parser.parse_args(
        ["--data-dir", "d", "--image-size", "64", "--epochs", "3", "--gan-args", "--kimg 2 --num-channels 1",
         "--classifier-args", "--unfreeze --weights none", "--no-real-images", "--splits", "s.json",
         "--patient-map", "map.json", "--skip-bad-images"]
    )  # fmt: skip
    _, planned = run_pipeline.plan(args)
    commands = {step.name: " ".join(step.command()) for step in planned}
    assert list(commands)[0] == "download the dataset"
    assert "--unfreeze --weights none" in commands["train the baseline classifier"]
    assert "--use-synthetic" not in commands["train the baseline classifier"]
    assert "--image-size 64" in commands["check the data"], "images are judged at the size they are trained with"
    assert "--unfreeze --weights none --use-synthetic" in commands["train the augmented classifier"]
    assert "--kimg 2 --num-channels 1" in commands["train the GAN"]
    assert "--epochs" not in commands["train the GAN"]
    joined = run_pipeline.plan(parser.parse_args(["--gan-args=--kimg=2"]))[1]
    assert not any("--epochs" in step.options for step in joined if step.name == "train the GAN")
    for name, command in commands.items():
        assert ("--no-real-images" in command) == (name in ("train the GAN", "analyse")), name
        reads_data = name not in ("download the dataset", "generate synthetic images")
        shared = "--data-dir d --splits s.json --patient-map map.json --skip-bad-images"
        assert (shared in command) == reads_data, name
    pipeline_steps.check_options(planned)
    assert "--label" not in commands["generate synthetic images"]
    conditional = run_pipeline.plan(parser.parse_args(["--gan-args", "--conditional --preset cpu"]))[1]
    (generation,) = [step for step in conditional if step.name == "generate synthetic images"]
    assert "--label lung_opacity" in " ".join(generation.command())
    pipeline_steps.check_options(conditional)
    Path("d").mkdir()
    Path("d/stage2_train_metadata.csv").touch()
    assert run_pipeline.plan(args)[1][0].name == "check the data"


@pytest.mark.parametrize(("cores", "own", "threads"), [(2, "", "1"), (8, "", "7"), (1, "", "1"), (8, "3", "3")])
def test_the_demo_leaves_a_core_to_other_programs(cores, own, threads, monkeypatch):
    monkeypatch.setattr(run_pipeline, "usable_cores", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", own)
    assert run_pipeline.demo_environment()["OMP_NUM_THREADS"] == threads


def test_the_demo_knows_how_long_each_step_takes_and_repeats_on_request():
    _, steps = run_pipeline.demo_plan(repeats=1)
    assert sum(step.share for step in steps) == pytest.approx(1)
    assert not any("--repeats" in step.options for step in steps)
    _, repeated = run_pipeline.demo_plan(repeats=3)
    arms = [step for step in repeated if step.script == "train_classifier"]
    assert len(arms) == 3 and all("--repeats 3" in " ".join(step.options) for step in arms)


FILE = """
run_pipeline: {data-dir: d, image-size: 64, epochs: 3, cpu: yes}
train_classifier: {weights: none, unfreeze: yes, repeats: 3}
train_gan: {image-size: 112, kimg: 2, diffaug: no, conditional: yes}
generate_synthetic: {batch-size: 16}
analyze_results: {margin: 2, skip-ssim: yes}
run_study: {repeats: 2}
"""


def test_sections_of_a_file_are_handed_to_the_steps(in_tmp, monkeypatch):
    Path("x.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run_pipeline.py"])
    args = run_pipeline.parse_pipeline_args(["--config", "x.yaml", "--gan-args=--kimg 5"])
    _, planned = run_pipeline.plan(args)
    commands = {step.name: " ".join(step.command()) for step in planned}
    assert "--weights none --unfreeze --repeats 3" in commands["train the augmented classifier"]
    assert commands["train the GAN"].endswith("--image-size 112 --no-diffaug --conditional --kimg 5")
    assert "--epochs" not in commands["train the GAN"]
    assert commands["generate synthetic images"].endswith("--label lung_opacity --batch-size 16")
    assert commands["analyse"].endswith("--cpu --margin 2 --skip-ssim")
    assert all("--data-dir d" in commands[name] for name in commands if name != "generate synthetic images")
    pipeline_steps.check_options(planned)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train_gan: {model-dir: x}", "line 1: model-dir cannot stand in the section train_gan: this script gives it"),
        ("train_gan: {dry-run: yes}", "line 1: dry-run cannot stand in the section train_gan: the step would make"),
        ("analyze_results:\n  margni: 2", "line 2: there is no option margni; did you mean margin?"),
        ("train_classifier: {lr: 0}", "line 1: lr: must be a number > 0, got 0"),
        ("train_gan: {epochs: 1, kimg: 1}", "line 1: kimg and epochs exclude each other"),
        ("run_study: {repeats: 2}", "has no section run_pipeline, only run_study"),
    ],
)
def test_wrong_sections_end_before_any_step(in_tmp, monkeypatch, capsys, text, said):
    Path("x.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run_pipeline.py"])
    with pytest.raises(SystemExit) as stop:
        run_pipeline.main(["--config", "x.yaml"])
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert [file.name for file in in_tmp.iterdir()] == ["x.yaml"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--gan-args", "'"], "argument --gan-args"),
        (["--classifier-args", '"--lr'], "argument --classifier-args"),
        (["--classifier-args=--estimate"], "--classifier-args: --estimate cannot be passed on"),
        (["--gan-args", "--kimg 1 --estimate"], "--gan-args: --estimate cannot be passed on"),
        (["--gan-args=-h"], "--gan-args: -h cannot be passed on"),
        (["--k-folds", "1"], "--k-folds 1 is not allowed"),
        (["--seed", str(2**32)], "argument --seed"),
        # What each script says when it has read all of its options:
        (["--gan-args=--no-such-option"], "train_gan.py: error: unrecognized arguments: --no-such-option"),
        (["--gan-args", "--fold 1"], "--gan-args: --fold cannot be passed on: this script gives it itself"),
        (["--gan-args", "--lr 0"], "train_gan.py: error: argument --lr: must be a number > 0, got 0"),
        (["--classifier-args=--model-dir=x"], "--classifier-args: --model-dir=x cannot be passed on"),
        (["--generation-args=--label normal"], "--generation-args: --label cannot be passed on"),
        (["--analysis-args=--margin -1"], "analyze_results.py: error: argument --margin: "),
        (["--gan-args", "--config x.yaml"], "--config cannot be passed on: give this script the file, with a section "),
        (["--classifier-args", "--k-folds 1"], "train_classifier.py: error: "),
    ],
)
def test_wrong_usage_is_exit_code_2(in_tmp, capsys, wrong, said):
    with pytest.raises(SystemExit) as stop:
        run_pipeline.main(wrong)
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert list(in_tmp.iterdir()) == []


PROMISED = """\
data/processed/splits.json data/synthetic/manifest.json data/synthetic/synthetic_00001.png
models/baseline_resnet50.pth models/augmented_resnet50.pth
models/best_overall_baseline_resnet50.pth
models/gan/generator_final.pth models/gan/discriminator_final.pth
results/metrics/baseline_training_history.json results/metrics/augmented_training_history.json
results/metrics/baseline_final_metrics.json results/metrics/augmented_final_metrics.json
results/metrics/baseline_cv_summary.json
results/metrics/gan_training_history.json
results/figures/baseline_loss.png results/figures/augmented_loss.png results/figures/baseline_acc.png
results/figures/augmented_acc.png results/figures/cv_comparison.png results/figures/gan_loss_curve.png
results/analysis/comparison_acc.png results/analysis/comparison_loss.png results/analysis/cv_comparison.png
results/analysis/comparison_report.txt results/analysis/ssim_analysis.json results/analysis/fid_score.json
results/analysis/real_vs_synthetic_comparison.png
models/control_duplicate_resnet50.pth results/metrics/control_duplicate_final_metrics.json
results/analysis/comparison.json results/analysis/report.html results/analysis/image_quality.json
results/analysis/differences.png results/analysis/roc_pr.png results/analysis/calibration.png
results/analysis/confusion.png results/analysis/subgroups.png results/analysis/nearest_neighbours.png
results/analysis/gradcam.png results/analysis/decision_curve.png results/analysis/patient_flow.png
results/analysis/model_card.md results/analysis/dataset_card.md results/analysis/checklist.md
"""


@pytest.mark.slow
def test_the_demo_writes_everything_that_is_promised(in_tmp, monkeypatch, capfd):
    """The demo's own sequence, at a size for tests."""
    small = {
        "phantoms": ["--num-images", "240", "--num-test-images", "6", "--image-size", "64"],
        "check": ["--image-size", "32"],
        "classifier": ["--weights", "none", "--unfreeze", "--image-size", "32", "--epochs", "2"],
        "gan": ["--image-size", "32", "--num-channels", "1", "--kimg", "1", "--perceptual", "off"],
        "generation": ["--num-images", "40"],
        "analysis": ["--extractor", "classifier", "--robustness", "20"],
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
    augmented = json.loads(Path("demo/results/metrics/augmented_final_metrics.json").read_text(encoding="utf-8"))
    assert augmented["n_synthetic"] == 40
    assert not Path("demo/results/metrics/augmented_cv_summary.json").exists(), "its GAN has seen all folds"
    run_pipeline.main(["--demo"])
    assert capfd.readouterr().out.count("already finished") == 8
