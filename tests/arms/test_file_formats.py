"""The result files as they are described: those that a run writes, and those that are committed."""

import json
from pathlib import Path

import pandas as pd
import pytest

from arms.file_formats import (
    CV_COLUMNS,
    TEST_COLUMNS,
    UNLABELLED_COLUMNS,
    CVSummary,
    FinalMetrics,
    RepeatMetrics,
    TrainingHistory,
)
from classifier import ClassifierCheckpoint
from classifier_runs import METRICS, QUICK, make_synthetic, run, training_positives
from common import paths
from common.file_formats import format_problems
from utils import load_checkpoint, load_json

ROOT = Path(__file__).parents[2]


def problems(file: Path) -> list[str]:
    """Where a classifier's JSON file differs from its description."""
    content = load_json(file)
    if file.name.endswith("_final_metrics.json"):
        return format_problems(content, RepeatMetrics if "arm" in content else FinalMetrics)
    return format_problems(content, CVSummary if file.name.endswith("_cv_summary.json") else TrainingHistory)


def committed_files() -> list[Path]:
    kinds = ("final_metrics", "cv_summary", "training_history")
    found = [file for kind in kinds for file in (ROOT / "results").glob(f"**/metrics/*_{kind}.json")]
    return sorted(file for file in found if not file.name.startswith("gan_"))


def test_committed_files_are_as_described():
    files = committed_files()
    assert len(files) > 50
    assert {str(file.relative_to(ROOT)): found for file in files if (found := problems(file))} == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("written")


class TestWrittenFiles:
    @pytest.fixture(autouse=True)
    def trained(self, folder, make_dataset, monkeypatch, thin_network, unrendered) -> None:
        """A baseline of two repeats with folds, and an augmented arm with them, trained once."""
        monkeypatch.chdir(folder)
        if (folder / METRICS / "augmented_final_metrics.json").is_file():
            return
        data_dir = make_dataset(n=48)
        options = [*QUICK, "--epochs", "1", "--k-folds", "2", "--data-dir", str(data_dir)]
        run(*options, "--repeats", "2")
        seen = training_positives(data_dir)
        make_synthetic(folder / "data/synthetic", 12, list(seen["image_id"]), list(seen["patient"]))
        run(*options, "--use-synthetic")

    def test_json_files_are_as_described(self):
        files = sorted(METRICS.glob("*.json"))
        assert len(files) == 6 + 4
        assert {file.name: found for file in files if (found := problems(file))} == {}

    def test_tables_have_the_described_columns(self):
        for file in METRICS.glob("*.csv"):
            kinds = {"test": TEST_COLUMNS, "cv": CV_COLUMNS, "unlabelled": UNLABELLED_COLUMNS}
            kind = file.name.removesuffix("_predictions.csv").rsplit("_", 1)[1]
            assert list(pd.read_csv(file)) == list(kinds[kind]), file.name

    def test_checkpoints_are_as_described(self):
        for file in Path("models").glob("*.pth"):
            content = load_checkpoint(file)
            assert format_problems(content, ClassifierCheckpoint) == [], file.name
            json.dumps({key: value for key, value in content.items() if key not in ("state_dict", "outliers")})

    def test_intervals_have_one_name(self):
        metrics = load_json(paths.final_metrics(METRICS, "baseline_"))
        names = {key for key in metrics if "ci95" in key}
        assert names == {f"{m}_ci95{level}" for m in ("accuracy", "auroc") for level in ("", "_image_level")}
        for name in names:
            low, high = metrics[name]
            assert low <= metrics[name.split("_")[0]] <= high
