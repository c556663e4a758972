"""Data, judge and result file of the tests of the comparison of generators."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks.generators import contender_runs as runs
from benchmarks.generators.data import load_benchmark_data
from benchmarks.generators.results import GeneratorResults
from benchmarks.generators.scores import Judge
from dataset.picture_facts import read_and_measure
from fake_contenders import COUNT, MACHINE, SCORER, SIDE, simple_features, smooth_faces
from gan_data import make_dataset


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    """Some 80 training positives, two per patient, as smooth fields instead of the dataset's noise."""

    def pixels(path, *args):
        facts = read_and_measure(path, *args)[1]
        return smooth_faces(np.random.default_rng(zlib.crc32(Path(path).stem.encode())), 1, 120)[0], facts

    folder = make_dataset(tmp_path_factory.mktemp("data") / "processed", n_images=320, side=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_loader.read_and_measure", pixels)
        return load_benchmark_data(
            str(folder), None, None, SIDE, patient_column=None, workers=1, skip_bad=False, cache_dir=None
        )


@pytest.fixture(scope="package")
def judge(data):
    made = Judge(data, simple_features)
    found = made.real_scores(), made.control_scores()  # once: many tests begin a file
    made.real_scores, made.control_scores = (lambda part=part: part for part in found)
    return made


@pytest.fixture
def setup(data, tmp_path):
    python = Path(sys.executable)
    return runs.RunSetup(data, (), tmp_path / "work", python, "cpu", COUNT, grace=20.0)


@pytest.fixture
def results(tmp_path, data, judge):
    header = {"machine": MACHINE, "data": data.summary(), "images": COUNT, "scorer": SCORER}
    return GeneratorResults(tmp_path / "gan_benchmark.json", header, judge)
