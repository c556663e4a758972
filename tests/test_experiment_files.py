"""Results name the experiment file that they were made with; another file with the same values changes nothing."""

import hashlib
import json
import sys
from pathlib import Path

import analyze_results
import generate_synthetic
import train_gan
from arms.file_formats import CVSummary, FinalMetrics, Origin, TrainingHistory
from arms.output import ArmOutput, earlier_folds
from arms.training import identity_of_run
from classifier import ClassifierCheckpoint
from classifier_runs import METRICS, frozen, run
from common import paths
from common.file_formats import format_problems
from comparison.file_formats import Comparison
from fake_results import fake_records, write_arm
from gan.file_formats import GanTrainingHistory, NetworkCheckpoint
from gan_data import make_dataset as make_gan_dataset
from synthetic.file_formats import Manifest
from utils import load_checkpoint, load_json, save_json


def write_file(name: str, text: str) -> str:
    """Write an experiment file and return its SHA-256."""
    Path(name).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_classifier_names_its_file_and_goes_on_with_another_of_the_same_values(make_dataset, in_tmp):
    data, words = make_dataset(n=48), frozen(in_tmp)
    options = {word[2:]: value for word, value in zip(words[::2], words[1::2], strict=True)}
    text = f"data-dir: {data}\nk-folds: 2\n" + "".join(f"{key}: {value}\n" for key, value in options.items())
    first, second = write_file("a.yaml", text), write_file("b.yaml", f"# the same\n{text}")
    run("--config", "a.yaml", "--epochs", "1")
    final, cv, history = (name(METRICS, "baseline_") for name in (
        paths.final_metrics, paths.cv_summary, paths.training_history,
    ))  # fmt: skip
    for file, kind in ((final, FinalMetrics), (cv, CVSummary), (history, TrainingHistory)):
        content = load_json(file)
        assert content["config_sha256"] == first and format_problems(content, kind) == []
        assert content["config"]["epochs"] == 1, "what was typed is recorded"
        assert not {"config_sha256", "config"} & content["config"].keys()
    for file in Path("models").glob("*.pth"):
        checkpoint = load_checkpoint(file)
        assert checkpoint["config_sha256"] == first and format_problems(checkpoint, ClassifierCheckpoint) == []
    origin = {key: content[key] for key in Origin.__annotations__ if key in content}
    other = origin | {"config_sha256": second}
    assert earlier_folds(ArmOutput("baseline_", "models", str(METRICS), "figures", other)) is not None
    assert identity_of_run(origin, 1, "fp32", 1) == identity_of_run(other, 1, "fp32", 1), "for --resume"


GAN = """\
image-size: 32
num-channels: 1
latent-dim: 6
feature-maps-g: 4
feature-maps-d: 4
batch-size: 4
vis-batch-size: 4
workers: 1
cpu: yes
precision: fp32
perceptual: off
metrics-interval: 0
"""


def test_the_generator_and_its_images_name_their_file(in_tmp, monkeypatch):
    data = make_gan_dataset(in_tmp / "data" / "processed")
    first, second = write_file("a.yaml", GAN), write_file("b.yaml", f"{GAN}# the same\n")
    train_gan.main(["--data-dir", str(data), "--config", "a.yaml", "--epochs", "1"])
    generator = paths.generator_final("models")
    assert load_checkpoint(generator)["config_sha256"] == first
    train_gan.main(["--data-dir", str(data), "--config", "b.yaml", "--epochs", "2", "--resume"])
    checkpoint, history = load_checkpoint(generator), load_json(paths.gan_history("results/metrics"))
    for content, kind in ((checkpoint, NetworkCheckpoint), (history, GanTrainingHistory)):
        assert content["config_sha256"] == second and format_problems(content, kind) == []
    assert len(history["epochs"]) == 2, "it went on"

    monkeypatch.setattr(sys, "argv", ["generate_synthetic.py"])
    text = f"generate_synthetic: {{model-path: {generator}, num-images: 3, cpu: yes}}\ntrain_gan:\n"
    first, second = write_file("a.yaml", text), write_file("b.yaml", f"# the same\n{text}")
    generate_synthetic.main(["--config", "a.yaml"])
    file = paths.synthetic_manifest(paths.SYNTHETIC_DIR)
    made = file.read_bytes()
    assert json.loads(made)["config_sha256"] == first and format_problems(json.loads(made), Manifest) == []
    generate_synthetic.main(["--config", "b.yaml"])
    assert file.read_bytes() == made, "arms with the same images stay comparable"
    generate_synthetic.main(["--config", "b.yaml", "--overwrite"])
    assert load_json(file)["config_sha256"] == second


def test_the_comparison_names_its_file_and_those_of_the_arms(in_tmp):
    write_arm(METRICS, "baseline", fake_records(), config={"epochs": 3})
    file = paths.final_metrics(METRICS, "baseline_")
    save_json(file, load_json(file) | {"config_sha256": "ab" * 32})
    own = write_file("a.yaml", "margin: 3\ncpu: yes\nskip-ssim: yes\n")
    analyze_results.main(["--config", "a.yaml"])
    content = load_json(paths.comparison(paths.ANALYSIS_DIR))
    assert content["config_sha256"] == own and format_problems(content, Comparison) == []
    assert content["settings"]["margin"] == 0.03
    text = paths.comparison_report(paths.ANALYSIS_DIR).read_text(encoding="utf-8")
    assert "Train the arm baseline (experiment file with SHA-256 abababababab):\n" in text
    assert f"(experiment file with SHA-256 {own[:12]}):\n  python src/analyze_results.py --cpu --margin 3.0" in text
