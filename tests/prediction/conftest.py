"""Classifiers that were trained once, on tiny made-up images, for all tests of this room."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifier_runs import frozen, run
from conftest import make_small_dataset


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, models and results of a baseline of two folds and two repeats."""
    folder = tmp_path_factory.mktemp("trained")
    data_dir = make_small_dataset(folder / "data/processed", n=96)
    with contextlib.chdir(folder):
        run("--data-dir", str(data_dir), *frozen(folder), "--k-folds", "2", "--repeats", "2")
    yield folder
