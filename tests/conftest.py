"""Fixtures that several test files share: tiny datasets in the real layout, made anew for every test run."""

from __future__ import annotations

import contextlib
import csv
import gc
import json
import logging
import os
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from common import paths
from common.logs import start_console

if TYPE_CHECKING:
    from torch import nn

SMALL = "resnet18"  # the smallest backbone, for tests that are not about the default one
MADE = 1_700_000_000 * 10**9  # ns; a process searches images of the same names, sizes and times for twins only once
COLUMNS = ["patientId", "x", "y", "width", "height", "Target", "class", "age", "sex", "modality", "position"]


@pytest.fixture(scope="session", autouse=True)
def one_thread_each() -> Iterator[None]:
    """Tests run side by side: one thread each is faster, and keeps sums in one order.

    NumPy's and SciPy's libraries would start as many as there are cores in every worker. These wait for one another
    busily, so that a singular value decomposition took ten times as long.
    """
    import scipy.linalg  # noqa: F401  its library can be held to one thread only once it is there
    import torch
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Files need not outlive a power cut: a test would wait some 10 ms for each that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later search for garbage, which takes half a second with it."""
    gc.freeze()


@pytest.fixture(autouse=True)
def console() -> None:
    """Messages go to the console as in a script, whichever function a test calls."""
    start_console()


@pytest.fixture
def as_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """A function that runs a script's ``main`` as ``python src/<script>.py WORDS`` does, without a new process.

    It returns the exit code, standard output and standard error. What a process of its own is needed for
    (streams, signals, encodings) is held by tests/common.
    """
    from common import logs
    from common.command_line import run_script

    root = logging.getLogger()
    handlers = list(root.handlers)

    def run(main: Callable[[list[str]], None], *words: Any) -> tuple[int, str, str]:
        argv = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *argv])
        capsys.readouterr()
        code = 0
        try:
            run_script(lambda: main(argv))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return code, *capsys.readouterr()

    yield run
    root.handlers[:] = handlers
    logs._run_log = None
    logging.captureWarnings(False)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that the scripts' default folders lie inside it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def metadata_row(image_id: str, kind: str, **extra: Any) -> dict[str, Any]:
    """One metadata row; ``kind`` is a class name. Positives get a box."""
    positive = kind == "Lung Opacity"
    box = {"x": 100, "y": 200, "width": 300, "height": 250} if positive else {}
    return {"patientId": image_id, **box, "Target": int(positive), "class": kind, "age": 50, "sex": "F",
            "modality": "CR", "position": "AP", **extra}  # fmt: skip


def blob_image(rng: np.random.Generator, size: int, positive: bool) -> np.ndarray:
    """uint8 [size, size]: noise, with a bright square at a random place if ``positive``: easily learned."""
    pixels = rng.integers(15, 150, (size, size))
    if positive:
        top, left = rng.integers(0, size // 2, 2)
        pixels[top : top + size // 2, left : left + size // 2] += 100
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a small dataset into the test's own folder; see ``make_small_dataset``."""

    def make(folder: str = "data/processed", **options: Any) -> Path:
        return make_small_dataset(tmp_path / folder, **options)

    return make


def make_small_dataset(data_dir: Path, n: int = 128, size: int = 40, with_map: bool = True, seed: int = 0) -> Path:
    """Write a dataset of ``n`` images, two per patient, a quarter positive; returns its folder."""
    rng = np.random.default_rng(seed)
    images = paths.training_images(data_dir)
    images.mkdir(parents=True)
    classes = ["Lung Opacity", "Normal", "No Lung Opacity / Not Normal", "Normal"]
    rows, mapping = [], []
    for index in range(n):
        kind = classes[(index // 2) % 4]  # both images of a patient share a class
        name = f"img-{index:04d}"
        box_rows = 2 if kind == "Lung Opacity" and index % 3 == 0 else 1
        view = "PA" if index % 3 == 0 else "AP"
        row = metadata_row(name, kind, age=20 + index % 60, sex="MF"[index // 2 % 2], position=view)
        rows += [row] * box_rows
        mapping.append({"subset_img_id": name, "img_id": f"{index // 2:08d}_{index % 2:03d}.png"})
        Image.fromarray(blob_image(rng, size, kind == "Lung Opacity")).save(images / f"{name}.png")
        os.utime(images / f"{name}.png", ns=(MADE, MADE))
    write_csv(data_dir / paths.TRAIN_METADATA, rows, COLUMNS)
    tests = [{"patientId": f"test-{i}", "PredictionString": "0.5 0 0 100 100"} for i in range(4)]
    write_csv(data_dir / paths.TEST_METADATA, tests)
    paths.test_images(data_dir).mkdir()
    for row in tests:
        pixels = blob_image(rng, size, positive=False)
        Image.fromarray(pixels).save(paths.test_images(data_dir) / f"{row['patientId']}.png")
    if with_map:
        (data_dir / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    return data_dir


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a baseline of ``thin_backbone`` without folds, trained as ``frozen`` says.

    It is not to be changed.
    """
    from classifier_runs import frozen, run

    folder = tmp_path_factory.mktemp("baseline")
    make_small_dataset(folder / "data/processed")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("classifier.build_backbone", thin_backbone)
        run(*frozen(folder), "--k-folds", "0")
    return folder


@pytest.fixture
def data_dir(baseline: Path, in_tmp: Path, thin_network: None) -> Path:
    """The dataset in a copy of ``baseline``, which is the working directory."""
    shutil.copytree(baseline, in_tmp, dirs_exist_ok=True)
    return in_tmp / "data/processed"


def leave_unrendered(patch: pytest.MonkeyPatch) -> None:
    """Let figures be made but not rendered, which takes half of a small run: their files hold one pixel."""
    from matplotlib.figure import Figure

    def save(_: Figure, file: Path, **__: Any) -> None:
        Image.new("L", (1, 1)).save(file, format="PNG")

    patch.setattr(Figure, "draw_without_rendering", lambda _: None)
    patch.setattr(Figure, "savefig", save)


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_unrendered(monkeypatch)


def thin_backbone(name: str) -> nn.Module:
    """Build two convolutions in place of a ResNet, with names as in one, by which weights are found in a file."""
    from torch import nn

    from networks.backbone_builder import build_backbone
    from networks.backbones import BACKBONES, DEFAULT

    if name not in (SMALL, DEFAULT):
        return build_backbone(name)
    features = BACKBONES[name].features
    layers = {
        "conv1": nn.Conv2d(3, 16, 3, stride=2, padding=1), "bn1": nn.BatchNorm2d(16), "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(16, features, 3, stride=2, padding=1), "bn2": nn.BatchNorm2d(features), "relu2": nn.ReLU(),
    }  # fmt: skip
    block = nn.Sequential(nn.Sequential(OrderedDict(layers)))
    return nn.Sequential(OrderedDict(layer4=block, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


@pytest.fixture
def thin_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``thin_backbone`` stand in for ResNets, whose files of 45 to 100 MB take longer than a test's subject."""
    monkeypatch.setattr("classifier.build_backbone", thin_backbone)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, unrendered: None) -> None:
    """Leave out the figures of an analysis, for tests of what is said."""
    from report import image_steps, reviewer_steps, steps

    for module, names in (
        (steps, ("draw_comparison", "draw_training")),
        (reviewer_steps, ("draw_reviewer_figures", "draw_real_images")),
        (image_steps, ("draw_heat_maps",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: None)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, models and results of a thin baseline, two folds, two repeats; not to be changed."""
    from classifier_runs import frozen, run

    folder = tmp_path_factory.mktemp("trained")
    data_dir = make_small_dataset(folder / "data/processed", n=96)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("classifier.build_backbone", thin_backbone)
        options = [*frozen(folder, SMALL), "--k-folds", "2", "--repeats", "2"]
        run("--data-dir", str(data_dir), *options)
    return folder
