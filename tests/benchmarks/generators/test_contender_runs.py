"""Training and sampling of one contender, and contenders that fail."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import benchmark_paths
from benchmarks.generators import contender_runs as runs
from benchmarks.generators.contenders import Budget, Contender, Unit
from benchmarks.generators.results import measure_unit
from fake_contenders import SIDE, has_ended, unit


@pytest.mark.parametrize(
    ("name", "reason"),
    [("fails", "AssertionError: file.py is not what it needs"), ("too few", "3 raw images are fewer"),
     ("wrong size", r"its raw images are uint8 \[40, 8, 8\]")],
)  # fmt: skip
def test_one_that_fails_stands_in_the_table_with_the_reason(name, reason, setup, judge, tmp_path):
    row = measure_unit(unit(tmp_path, name), setup, judge, "peers")
    assert row["status"] == "failed"
    assert re.search(reason, row["reason"]), row["reason"]
    assert "/some" not in row["reason"]


def test_one_that_runs_over_its_time_is_ended(data, judge, setup, tmp_path):
    short = runs.RunSetup(**{**vars(setup), "grace": 1.5})
    start = time.monotonic()
    slow = unit(tmp_path, "slow")
    row = measure_unit(slow, short, judge, "peers")
    assert row["status"] == "over_time" and "minutes" in row["reason"]
    assert time.monotonic() - start < 30
    pid = int(next(short.folder(slow).glob("*.pid")).read_text())
    assert has_ended(pid)


def test_what_a_driver_learned_from_does_not_stay(setup, judge, tmp_path):
    for name in ("noise", "fails"):
        measure_unit(unit(tmp_path, name), setup, judge, "peers")
        assert not list(setup.work.rglob("reals*"))


def test_a_package_that_is_not_installed_is_said_so(setup, judge, tmp_path):
    bare = runs.RunSetup(**{**vars(setup), "peers_python": tmp_path / "nothing" / "bin" / "python"})
    peer = Unit(Contender("p", driver="drive_ddpm.py", package="diffusers"), 0, Budget(minutes=1))
    row = measure_unit(peer, bare, judge, "peers")
    assert row["status"] == "not_installed" and "--what install" in row["reason"]


def test_images_of_an_earlier_time_are_scored_without_training_again(setup, judge, tmp_path):
    here = unit(tmp_path, "noise")
    first = measure_unit(here, setup, judge, "peers")
    Path(here.contender.driver).unlink()
    assert measure_unit(here, setup, judge, "peers") == first
    benchmark_paths.made_images(setup.folder(here)).write_bytes(b"PK cut off")
    assert measure_unit(here, setup, judge, "peers")["status"] == "failed"


@pytest.mark.parametrize(("folder", "file"), [("bin", "python"), ("Scripts", "python.exe")])
def test_packages_are_installed_by_the_python_of_the_new_environment(folder, file, monkeypatch, tmp_path):
    commands = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        commands.append(command)
        (tmp_path / "peers" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "peers" / folder / file).touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(runs.shutil, "which", lambda _: None)
    monkeypatch.setattr(runs.subprocess, "run", run)
    runs.install_peers(tmp_path / "peers")
    assert commands[0][1:] == ["-m", "venv", str(tmp_path / "peers")]
    assert commands[1] == [str(tmp_path / "peers" / folder / file), "-m", "pip", "install", *runs.PACKAGES]


@pytest.mark.parametrize(
    ("budget", "wanted", "unwanted"),
    [(Budget(minutes=10), ["--max-minutes 10", "--epochs 1000000"], "--resume"),
     (Budget(kimg=64), ["--kimg 64", "--resume"], "--max-minutes")],
)  # fmt: skip
def test_ours_are_trained_by_a_command_that_train_gan_understands(budget, wanted, unwanted, setup, monkeypatch):
    import train_gan

    commands = []
    monkeypatch.setattr(runs, "run_contender", lambda command, _, limit: commands.append((command, limit)))
    facts = {"precision": "fp32", "perceptual": "off"}
    monkeypatch.setattr(runs, "sample_ours", lambda *_: ({"raw": np.zeros(1)}, dict(facts)))
    ours = Unit(Contender("ours-cpu", ("--preset", "cpu")), 7, budget)
    made = runs.make_unit_images(ours, setup)
    ((command, limit),) = commands
    text = " ".join(command)
    wanted = [*wanted, "--fold 1 --k-folds 5", "--seed 7", "--perceptual off --preset cpu"]
    assert all(words in text for words in wanted)
    assert unwanted not in text and "--no-real-images" in text
    assert limit == (None if budget.minutes is None else 600 + setup.grace)
    assert train_gan.parse_arguments(command[2:]).images.image_size == SIDE
    assert made.facts["settings"] == {"flags": "--preset cpu"} | facts
