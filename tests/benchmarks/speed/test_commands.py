"""Rows of whole commands: the command, its time and memory, what is extrapolated."""

from __future__ import annotations

import sys

import pytest

from benchmarks.speed import commands, plan
from dataset.records import load_dataset
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


def test_a_baseline_that_fails_says_so():
    with pytest.raises(UserError, match=r"-c failed: the end"):
        commands.run_baseline([sys.executable, "-c", "print('the end'); raise SystemExit(3)"])


def test_the_command_is_the_default_baseline(bench, tmp_path):
    import train_classifier

    command = commands.baseline_command(bench, tmp_path / "d", tmp_path / "c", tmp_path / "o")
    args = train_classifier.parse_train_options(command[2:])
    assert (args.epochs, args.k_folds, args.image_size, args.weights) == (1, 2, 32, "none")
    assert args.cpu and not args.unfreeze and args.cache_dir == str(tmp_path / "c")
    assert (plan.FULL.epochs, plan.FULL.folds, plan.FULL.side) == (15, 5, 224)


def test_phantoms_are_made_once_and_all_labelled(bench):
    folder = commands.phantom_folder(bench, 12, 32)
    table = load_dataset(folder).images
    times = [path.stat().st_mtime_ns for path in table["path"]]
    assert len(table) == 12 and commands.phantom_folder(bench, 12, 32) == folder
    assert [path.stat().st_mtime_ns for path in table["path"]] == times
