"""Studies whose commands are not run: each writes the results that it would have."""

from collections.abc import Callable
from pathlib import Path

import pytest

import run_study
from dataset.records import load_dataset
from dataset.splits import TEST, load_or_create_splits
from fake_commands import words_of
from fake_results import write_arm
from studies import steps as study_steps
from utils import save_json, sha256_file


def write_plain_arm(folder: Path, arm: str, records, words: dict[str, str], **facts) -> None:
    """Write the results that ``arm`` would have."""
    held = {"plan_sha256": sha256_file(words["--plan"])} if "--plan" in words else {}
    write_arm(folder, arm, records, seed=int(words["--seed"]), repeats=2, **held, **facts)


@pytest.fixture
def pretend(in_tmp, make_dataset, monkeypatch, unrendered) -> Callable[..., list[list[str]]]:
    """Make the commands of studies write results with ``write`` instead of running; they are remembered in the list."""
    dataset = load_dataset(make_dataset())

    def prepare(write=write_plain_arm):
        seen = []

        def stand_in(step, extra, logs, variables):
            command = [*step.command(), *extra]
            seen.append(command)
            step.artifact.parent.mkdir(parents=True, exist_ok=True)
            if step.script != "train_classifier":
                save_json(step.artifact, {})
                return 1.0
            words = words_of(command)
            splits = load_or_create_splits(dataset, words["--splits"])
            ids = splits.images.loc[splits.images["role"] == TEST, "image_id"]
            records = dataset.images[dataset.images["image_id"].isin(ids)].drop(columns=["path", "n_boxes"])
            arm = step.artifact.name.removesuffix("_final_metrics.json")
            write(step.artifact.parent, arm, records, words, split_sha256=splits.sha256)
            return 1.0

        monkeypatch.setattr(study_steps, "run_step", stand_in)
        monkeypatch.setattr(run_study, "check_options", lambda *_: None)
        monkeypatch.setattr(run_study, "log_estimate", lambda *_: None)
        return seen

    return prepare


@pytest.fixture
def commands(pretend) -> list[list[str]]:
    """Return the commands of studies, which write plain results."""
    return pretend()
