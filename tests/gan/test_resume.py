"""A GAN's training that is killed at any moment and resumed ends as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common import paths
from gan_data import make_dataset
from utils import load_checkpoint, load_json

HERE = Path(__file__).parents[1]
KILLS = 20
CLOCK = ("time", "memory", "clock")


def lines(folder: Path) -> list[dict]:
    """The statistics without what the clock and the memory say."""
    text = paths.gan_stats(folder / "metrics").read_text()
    assert text.endswith("\n")
    content = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in content]


def history(folder: Path) -> dict:
    content = load_json(paths.gan_history(folder / "metrics"))
    del content["time"]
    config = content.pop("config")
    content["config"] = {key: value for key, value in config.items() if not key.endswith("_dir")}
    return content


def same(one, other) -> bool:
    """Nested dictionaries and lists of tensors and plain values, to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def without_clock(checkpoint: dict) -> dict:
    """A checkpoint or state without the time, the memory and the folders of its run."""
    content = {key: value for key, value in checkpoint.items() if key not in (*CLOCK, "config")}
    if "stats" in content:
        content["stats"] = [
            {key: value for key, value in line.items() if key not in CLOCK} for line in content["stats"]
        ]
        content["best"] = {**content["best"], "checkpoint": None}  # the file of its own is compared
    return content


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path):
    data = make_dataset(tmp_path / "set")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    # -P: the folder of the script, whose packages have the names of the rooms, is not searched first.
    script = ["-P", str(HERE / "gan_killer.py")]
    command = [sys.executable, *script, str(data), str(tmp_path), str(KILLS), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr

    whole = tmp_path / "whole"
    reference = history(whole)
    assert reference["best"] is not None and len(reference["epochs"]) == 8
    assert [line["epoch"] for line in reference["epochs"] if "metrics" in line] == [3, 6]
    assert reference["final_metrics"] is not None  # and what follows from it is the same, too
    steps = [line["step"] for line in lines(whole)]
    assert steps == sorted(set(steps))
    for number in range(1, KILLS + 1):
        folder = tmp_path / str(number)
        assert lines(folder) == lines(whole), number
        assert history(folder) == reference, number
        for file in sorted((whole / "models" / "gan").glob("*.pth")):
            pair = [load_checkpoint(where / "models" / "gan" / file.name) for where in (whole, folder)]
            assert same(*map(without_clock, pair)), (number, file.name)
        for file in sorted((whole / "gan_images").iterdir()):
            assert (folder / "gan_images" / file.name).read_bytes() == file.read_bytes(), (number, file.name)
        assert not list(folder.rglob("*.tmp")), number
