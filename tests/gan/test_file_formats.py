"""Files that a training really wrote hold what their types say, and readers refuse others."""

import json
from pathlib import Path

import pytest

import train_gan
from common import paths
from common.file_formats import describe_format, format_problems
from conftest import leave_unrendered
from gan import evaluation, file_formats, trainer
from gan_data import make_dataset
from utils import load_checkpoint, load_json

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--preset", "cpu", "--conditional", "--image-size", "32", "--latent-dim", "6", "--feature-maps-g", "4",
    "--feature-maps-d", "4", "--batch-size", "4", "--workers", "1", "--cpu", "--no-cache", "--epochs", "3",
    "--metrics-interval", "2", "--metrics-holdout", "0.2", "--checkpoint-interval", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A run with an evaluation on the way, one at the end, and held-out images."""
    folder = tmp_path_factory.mktemp("run")
    where = ["--data-dir", str(make_dataset(folder / "set")), "--model-dir", str(folder / "models")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "SHARE", 1e9)
        patch.setattr(trainer, "STATS_EVERY", 4)
        leave_unrendered(patch)
        train_gan.main([*where, "--output-dir", str(folder), *FLAGS])
    return folder


def test_the_history(written):
    content = load_json(paths.gan_history(written / "metrics"))
    assert format_problems(content, file_formats.GanTrainingHistory) == []
    assert content["final_metrics"] and content["epochs"][1]["metrics"] and content["best"]


def test_the_statistics(written):
    lines = paths.gan_stats(written / "metrics").read_text().splitlines()
    problems = [format_problems(json.loads(line), file_formats.StatsLine) for line in lines]
    assert lines and not any(problems)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("generator_final", file_formats.NetworkCheckpoint),
        ("generator_best", file_formats.NetworkCheckpoint),
        ("discriminator_epoch_0002", file_formats.NetworkCheckpoint),
        ("training_state", file_formats.TrainingState),
    ],
)
def test_checkpoints_and_state(written, name, kind):
    content = load_checkpoint(paths.gan_dir(written / "models") / f"{name}.pth")
    assert format_problems(content, kind) == []


def test_committed_histories():
    files = sorted((ROOT / "results").rglob("gan_training_history.json"))
    contents = [load_json(file) for file in files]
    assert files and not any(format_problems(content, file_formats.GanTrainingHistory) for content in contents)


def test_a_missing_value_is_named(written):
    content = load_json(paths.gan_history(written / "metrics"))
    del content["epochs"][1]["metrics"]["grain"]
    (problem,) = format_problems(content, file_formats.GanTrainingHistory)
    assert problem.startswith("epochs[1].metrics.grain is")


def test_every_key_can_be_described():
    for kind in (file_formats.GanTrainingHistory, file_formats.TrainingState):
        assert "| `" in describe_format(kind)
