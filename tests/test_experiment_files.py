"""The committed experiment files are the documented commands; results name the file that they were made with."""

import hashlib
import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

import analyze_results
import generate_synthetic
import plan_comparison
import train_gan
from arms.file_formats import CVSummary, FinalMetrics, Origin, TrainingHistory
from arms.output import ArmOutput, earlier_folds
from arms.training import identity_of_run
from classifier import ClassifierCheckpoint
from classifier_runs import METRICS, frozen, run
from common import paths
from common.experiment_files import read_experiment, typed_values
from common.file_formats import format_problems
from comparison.file_formats import Comparison
from fake_results import fake_records, write_arm
from gan.file_formats import GanTrainingHistory, NetworkCheckpoint
from gan_data import make_dataset as make_gan_dataset
from studies.planned_options import study_numbers, values_of
from synthetic.file_formats import Manifest
from test_docs import commands
from utils import load_checkpoint, load_json, save_json


def write_file(name: str, text: str) -> str:
    """Write an experiment file and return its SHA-256."""
    Path(name).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


# --- the committed recipes -------------------------------------------------------------------------
pytestmark = pytest.mark.usefixtures("unrendered")
ROOT = Path(__file__).resolve().parent.parent
CROSS_FIT, FEW_LABELS = "rsna-1500-cross-fit", "rsna-1500-few-labels"
# What stands in commands that the page has once: with the file only, or the GANs of 224 px, which have none.
ONCE = (CROSS_FIT, "rsna-1500-doses", FEW_LABELS, "rsna-1500-two-gans", "--image-size 224")


def options_of(line: str, monkeypatch) -> tuple[str, dict]:
    """Return (script, its options) of a documented command."""
    script, *words = shlex.split(line, comments=True)[1:]
    monkeypatch.setattr(sys, "argv", [script])
    name = Path(script).stem
    return name, vars(importlib.import_module(name).build_parser().parse_args(words))


def test_the_recipes_are_the_documented_commands(monkeypatch):
    """The page has most commands twice: written out, and with an experiment file."""
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "results-rsna-1500.md").read_text(encoding="utf-8")
    lines = [line for line in commands(page) if line.startswith("python src/")]
    lines = [line for line in lines if not any(words in line for words in ONCE)]
    plain, short = ([line for line in lines if ("--config" in line) is with_file] for with_file in (False, True))
    assert len(plain) == len(short) == 13
    for one, other in zip(plain, short, strict=True):
        assert options_of(one, monkeypatch) == options_of(other, monkeypatch)


@pytest.mark.parametrize(("recipe", "folder"), [(CROSS_FIT, "cross_fit/lite0"), (FEW_LABELS, "few_labels")])
def test_the_committed_plan_is_that_of_its_recipe(recipe, folder, monkeypatch):
    """What the file says of a script is among the values that the plan allows it, and all else is as the plan says."""
    monkeypatch.setattr(sys, "argv", ["plan_comparison.py"])
    args = plan_comparison.build_parser().parse_args(["--config", str(ROOT / "experiments" / f"{recipe}.yaml")])
    plan = load_json(ROOT / "results" / "rsna_1500" / folder / "plan.json")
    assert list(plan["primary"].values()) == [*args.primary, args.metric, args.margin]
    study = plan_comparison.study_options(args)
    assert plan["study"] == study_numbers(study)
    of_study = {name: study[name] for name in ("epochs", "image_size", "repeats")} | {"k_folds": 0}
    # Few labels: a fold's epochs follow from its images, so that all numbers of patients take as many steps.
    of_fold = {"seed", "epochs", "labelled_patients"} if study["labelled_patients"] else {"seed"}
    own = plan["options"]["train_classifier"]
    assert own["epochs"] == own["epochs_final"]
    assert own.get("labelled_patients", [None]) == (study["labelled_patients"] or [None])
    planned = {name: values for name, values in own.items() if name not in of_fold | {"epochs_final"}}
    told = values_of("train_classifier", args.classifier_args) | of_study
    assert {name: [told[name]] for name in planned} == planned
    assert plan["options"]["train_gan"]["kimg"] == [study["kimg"]]


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_section_of_a_recipe_is_read_by_its_script_and_by_the_sequence(file, monkeypatch, in_tmp):
    needed = {"generate_synthetic": ["--model-path", "g.pth"], "plan_comparison": ["--primary", "semi:augmented"]}
    sections = read_experiment(str(file)).sections
    for script in [*sections, *({} if "run_study" in sections else {"run_pipeline"})]:
        monkeypatch.setattr(sys, "argv", [f"{script}.py"])
        parser = importlib.import_module(script).build_parser()
        given = parser.parse_args(["--config", str(file), *needed.get(script, [])])
        assert given != parser.parse_args(needed.get(script, []))


@pytest.mark.parametrize(
    ("recipe", "script", "results", "other"),
    [
        ("rsna-1500", "train_classifier", "metrics/*_final_metrics.json", set()),
        ("rsna-1500-best", "train_classifier", "metrics/augmented_best_*final_metrics.json", set()),
        # Before --diffaug was an option, and with checkpoints more often, which change nothing.
        ("rsna-1500", "train_gan", "metrics/gan_training_history.json", {"diffaug", "checkpoint_interval"}),
        ("rsna-1500-best", "train_gan", "best/gan_training_history.json", set()),
    ],
)
def test_the_committed_results_were_made_with_the_recipes(recipe, script, results, other):
    """The options that the result files record are those of the file, but for ``other``."""
    file = read_experiment(str(ROOT / "experiments" / f"{recipe}.yaml"))
    wanted = typed_values(importlib.import_module(script).build_parser(), file, file.sections[script])
    found = sorted((ROOT / "results" / "rsna_1500").glob(results))
    assert found
    for result in found:
        recorded = load_json(result)["config"]
        assert {name for name, value in wanted.items() if recorded.get(name, "") != value} == other, result.name


# --- their name in results -------------------------------------------------------------------------
def test_the_classifier_names_its_file_and_goes_on_with_another_of_the_same_values(make_dataset, in_tmp, thin_network):
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
