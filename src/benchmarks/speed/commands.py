"""Rows of the speed benchmark that time whole commands, as a user types them, on made-up chest phantoms.

The plain path's time for all its epochs is extrapolated from one pass over some of the images.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from arms.registry import BASELINE_PREFIX
from benchmarks.file_formats import SpeedRow
from benchmarks.machine import wall_seconds
from benchmarks.measured_commands import CommandCost, CommandFailedError, run_measured
from benchmarks.speed import plain_path
from benchmarks.speed.plan import MAX_GB, REAL_SIZE, Bench, measured, not_measured, note_of_agreement
from classifier import PneumoniaClassifier, build_classifier, feature_caches, load_classifier
from common import paths
from common.paths import SRC
from data_loader import load_images
from dataset.records import load_dataset
from networks.backbones import BACKBONES, DEFAULT, LITE0
from networks.lite0 import check_lite0
from phantom.dataset import make_phantom_dataset
from utils import UserError, load_json, set_seed

BATCH = 32
PIXEL_TOLERANCE = 1.001  # gray levels
PROBABILITY_TOLERANCE = {"fp32": 0.001, "bf16": 0.02}
FEATURE_TOLERANCE = {"fp32": 0.001, "bf16": 0.02}  # relative


# --- commands --------------------------------------------------------------------------------------
def run_baseline(command: Sequence[str]) -> CommandCost:
    """Run ``command``; ``UserError`` with the last line of its output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run_measured(command, Path(folder, "log"))
        except CommandFailedError as failure:
            raise UserError(f"{Path(command[1]).name} failed: {failure}") from None


def baseline_command(bench: Bench, data: Path, cache: Path, out: Path, backbone: str = DEFAULT) -> list[str]:
    """Return the command of the default baseline on ``data``; caches go to ``cache``, the rest to ``out``.

    Another ``backbone`` than the default takes its ImageNet weights.
    """
    sizes = bench.sizes
    options = {
        "data-dir": data, "cache-dir": cache, "model-dir": out, "results-dir": out, "figures-dir": out,
        "backbone": backbone, "weights": bench.weights if backbone == DEFAULT else "imagenet",
        "image-size": sizes.side, "epochs": sizes.epochs, "k-folds": sizes.folds,
        "precision": bench.precision, "workers": bench.workers, "seed": bench.seed,
    }  # fmt: skip
    command = [sys.executable, str(SRC / "train_classifier.py")]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return command + (["--cpu"] if bench.device.type == "cpu" else [])


def run_cold(bench: Bench, data: Path, name: str, backbone: str = DEFAULT) -> tuple[CommandCost, Path]:
    """Run the default baseline with nothing cached; returns also its folder of results."""
    cache, out = bench.work / name / "cache", bench.work / name / "out"
    for folder in (cache, out):
        shutil.rmtree(folder, ignore_errors=True)
    return run_baseline(baseline_command(bench, data, cache, out, backbone)), out


def run_warm(bench: Bench, data: Path, name: str, backbone: str = DEFAULT) -> CommandCost:
    """Run the same command again with the caches that ``run_cold`` of that name left."""
    cache, out = bench.work / name / "cache", bench.work / name / "out"
    return run_baseline(baseline_command(bench, data, cache, out, backbone))


def phantom_folder(bench: Bench, count: int, side: int) -> Path:
    """Make a phantom dataset of ``count`` labelled images of ``side`` pixels, unless it is there."""
    folder = bench.work / f"phantoms_{count}_{side}px"
    return make_phantom_dataset(folder, count, side, bench.seed, num_test_images=0, progress=True)


# --- the plain path --------------------------------------------------------------------------------
def seconds_per_image(times: Sequence[tuple[int, float]]) -> float:
    """Return the time per image from passes over (few, many) images, without the constant cost of a pass."""
    (few, short), (many, long) = times
    return max(long - short, 0.0) / (many - few)


class PlainBaseline:
    """The plain path on the first images of ``data``, with the weights of ``model``."""

    def __init__(self, bench: Bench, data: Path, model: PneumoniaClassifier) -> None:
        self.bench = bench
        self.records = load_dataset(data).images.head(bench.sizes.plain_images)
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format).to(bench.device)
        self.optimizer = torch.optim.AdamW(self.model.head.parameters(), lr=0.001, weight_decay=0.0)

    def loader(self, records: pd.DataFrame, shuffle: bool = False) -> Any:
        """Load the images of ``records`` in batches."""
        files, labels = list(records["path"]), list(records["label"])
        images = plain_path.PlainImages(files, labels, self.bench.sizes.side)
        return plain_path.plain_loader(images, BATCH, self.bench.workers, shuffle)

    def time_passes(self) -> tuple[float, float]:
        """Return the seconds per image of (training, validation)."""
        training, validation = [], []
        for count in (max(1, len(self.records) // 4), len(self.records)):
            loader = self.loader(self.records.head(count), shuffle=True)
            training.append((count, wall_seconds(self._train(loader), self.bench.device)))
            validation.append((count, wall_seconds(self._validate(loader), self.bench.device)))
        return seconds_per_image(training), seconds_per_image(validation)

    def _train(self, loader: Any) -> Callable[[], float]:
        return lambda: plain_path.train_pass(self.model, loader, self.optimizer, self.bench.device)

    def _validate(self, loader: Any) -> Callable[[], float]:
        return lambda: plain_path.validation_pass(self.model, loader, self.bench.device)

    def features(self, records: pd.DataFrame) -> np.ndarray:
        """Return the features of the images of ``records``, float32 [N, 2048]."""
        return plain_path.plain_features(self.model, self.loader(records), self.bench.device)


def image_passes(metrics: Mapping[str, Any], epochs: int, folds: int) -> tuple[int, int]:
    """Count the images that the plain path passes for a baseline's result: (trained on, only scored)."""
    n = metrics["n_train_images"]
    return (folds - 1) * epochs * n + metrics["epochs_final"] * n, epochs * n + metrics["n_images"]


# --- rows ------------------------------------------------------------------------------------------
def measure_default_baseline(bench: Bench) -> SpeedRow:
    """Time the default baseline with nothing cached beside the plain path."""
    sizes = bench.sizes
    data = phantom_folder(bench, sizes.baseline_images, sizes.source_side)
    finished, out = run_cold(bench, data, "baseline_default")
    model, _ = load_classifier(paths.classifier_model(out, BASELINE_PREFIX))
    plain = PlainBaseline(bench, data, model)
    note = note_of_same_probabilities(bench, data, plain, out)
    our_times, plain_times = [finished.seconds], [plain.time_passes()]
    for _ in range(sizes.command_repeats - 1):
        our_times.append(run_cold(bench, data, "baseline_default")[0].seconds)
        plain_times.append(plain.time_passes())
    metrics = load_json(paths.final_metrics(out, BASELINE_PREFIX))
    trained, scored = image_passes(metrics, sizes.epochs, sizes.folds)
    training, validation = (statistics.median(times) for times in zip(*plain_times, strict=True))
    return measured(
        "baseline_default", statistics.median(our_times), trained * training + scored * validation,
        extrapolated=True,
        note=f"{sizes.folds} folds x {sizes.epochs} epochs, {sizes.baseline_images:,} phantoms from "
        f"{sizes.source_side} px PNG, nothing cached; plain: {trained:,} images trained on x "
        f"{1000 * training:.1f} ms and {scored:,} scored x {1000 * validation:.1f} ms, measured on "
        f"{len(plain.records)} images; {bench.weights_note()}; {note}",
    )  # fmt: skip


def note_of_same_probabilities(bench: Bench, data: Path, plain: PlainBaseline, out: Path) -> str:
    """Check that the plain path predicts the test images as our command did, from the same weights."""
    ours = pd.read_csv(paths.test_predictions(out, BASELINE_PREFIX)).head(bench.sizes.plain_images)
    records = load_dataset(data).images.set_index("image_id").loc[ours["image_id"]]
    features = torch.from_numpy(plain.features(records)).to(bench.device)
    with torch.no_grad():
        theirs = torch.sigmoid(plain.model.head(features).squeeze(1)).cpu().numpy()
    gap = float(np.abs(theirs - ours["probability"].to_numpy()).max())
    what = f"probabilities of {len(ours)} test images"
    return note_of_agreement(what, gap, PROBABILITY_TOLERANCE[bench.precision])


def measure_first_pass(bench: Bench) -> SpeedRow:
    """Time decoding and features of images that are not cached beside the plain path."""
    sizes = bench.sizes
    data = phantom_folder(bench, sizes.baseline_images, sizes.source_side)
    set_seed(bench.seed)
    model = build_classifier(bench.weights, frozen=True)
    plain = PlainBaseline(bench, data, model)
    records, cache = plain.records, bench.work / "first_pass"

    def ours() -> tuple[np.ndarray, np.ndarray]:
        shutil.rmtree(cache, ignore_errors=True)
        images = load_images(records, sizes.side, workers=bench.workers, cache_dir=cache)
        (features_of,) = feature_caches(model, cache, device=bench.device, precision=bench.precision)
        features = features_of.features(images)
        return np.array(images.pixels), features.astype(np.float32)

    note = note_of_same_features(bench, plain, *ours())
    times = [
        (wall_seconds(lambda: plain.features(records), bench.device), wall_seconds(ours, bench.device))
        for _ in range(sizes.command_repeats)
    ]
    theirs, own = (1000 * statistics.median(column) / len(records) for column in zip(*times, strict=True))
    shutil.rmtree(cache, ignore_errors=True)
    return measured(
        "first_pass", own, theirs,
        note=f"{len(records)} phantoms from {sizes.source_side} px PNG to {sizes.side} px, "
        f"{bench.precision}; {bench.weights_note()}; {note}",
    )  # fmt: skip


def note_of_same_features(bench: Bench, plain: PlainBaseline, pixels: np.ndarray, features: np.ndarray) -> str:
    """Check that both paths give the same ``pixels`` [N, S, S] and ``features`` [N, 2048]."""
    theirs = np.concatenate([plain_path.gray_levels(images) for images, _ in plain.loader(plain.records)])
    same_pixels = note_of_agreement("pixels (gray levels)", float(np.abs(theirs - pixels).max()), PIXEL_TOLERANCE)
    expected = plain.features(plain.records)
    gap = float(np.linalg.norm(features - expected) / np.linalg.norm(expected))
    tolerance = FEATURE_TOLERANCE[bench.precision]
    return f"{same_pixels}; {note_of_agreement('features (relative)', gap, tolerance)}"


def measure_memory(bench: Bench) -> SpeedRow:
    """Measure the peak memory of the default baseline at the real dataset's size.

    With fewer images the pixels and features of the missing ones are added.
    """
    sizes, n = bench.sizes, bench.sizes.full_images
    finished, _ = run_cold(bench, phantom_folder(bench, n, sizes.small_side), "full")
    if finished.peak_bytes is None:
        return not_measured("memory", "this system does not tell the peak memory of a process")
    missing = (REAL_SIZE - n) * (sizes.side**2 + 4 * BACKBONES[DEFAULT].features)
    note = f"peak resident memory, mapped files included, of the whole command with {n:,} phantoms of "
    note += f"{sizes.small_side} px at {sizes.side} px, nothing cached, {finished.seconds:.0f} s; "
    if missing:
        note += f"measured {finished.peak_bytes / 1e9:.2f} GB, plus {missing / 1e9:.2f} GB of pixels and "
        note += f"features for {REAL_SIZE:,} images; "
    return measured(
        "memory", (finished.peak_bytes + missing) / 1e9, extrapolated=missing > 0,
        note=f"{note}limit {MAX_GB:g} GB; {bench.weights_note()}",
    )  # fmt: skip


def measure_warm_baseline(bench: Bench) -> SpeedRow:
    """Time the default baseline with warm caches at the real dataset's size, or a line through two sizes."""
    sizes = bench.sizes
    counts = [sizes.full_images]
    if sizes.full_images < REAL_SIZE:
        counts = [sizes.full_images // 4, sizes.full_images]
    points = []
    for count in counts:
        name = "full" if count == sizes.full_images else f"full_{count}"
        data = phantom_folder(bench, count, sizes.small_side)
        run_warm(bench, data, name)  # fills the caches unless the row of memory has
        times = [run_warm(bench, data, name).seconds for _ in range(sizes.command_repeats)]
        points.append((count, statistics.median(times)))
    n, seconds = points[-1]
    note = f"whole command, {n:,} phantoms, {sizes.side} px, {seconds:.1f} s"
    if len(points) > 1:
        seconds += seconds_per_image(points) * (REAL_SIZE - n)
        note = f"{note}, {points[0][1]:.1f} s with {points[0][0]:,}: a line through two points, rough"
    return measured(
        "warm_full", seconds, extrapolated=len(points) > 1,
        note=f"{note}; images and features cached by the same command before; {bench.weights_note()}",
    )  # fmt: skip


def measure_growth(bench: Bench) -> SpeedRow:
    """Measure by how many per cent the cost of more images differs from proportion to their number.

    The cost is processor time where the work is done by processors and the system tells it, else wall time. Between
    the commands the same constant work is timed alike: what it varies by is the machine's doing.
    """
    sizes = bench.sizes
    data = [phantom_folder(bench, count, sizes.small_side) for count in sizes.growth]
    controls = [seconds_of_constant_work(bench)]
    rounds: list[list[CommandCost]] = []
    for _ in range(sizes.command_repeats):
        rounds.append([])
        for folder in data:
            rounds[-1].append(run_cold(bench, folder, "growth")[0])
            controls.append(seconds_of_constant_work(bench))
    wall = [[cost.seconds for cost in costs] for costs in rounds]
    processor = [[cost.cpu_seconds for cost in costs if cost.cpu_seconds is not None] for costs in rounds]
    in_processor_time = bench.device.type == "cpu" and all(len(row) == len(data) for row in processor)
    medians = [statistics.median(column) for column in zip(*(processor if in_processor_time else wall), strict=True)]
    deviation = beyond_proportion(medians)
    if deviation is None:
        return not_measured("growth", f"{sizes.growth[2]:,} images took no longer than {sizes.growth[1]:,}")
    by_wall = beyond_proportion([statistics.median(column) for column in zip(*wall, strict=True)])
    measurements = ", ".join(f"{n:,}: {t:.1f} s" for n, t in zip(sizes.growth, medians, strict=True))
    few = "" if sizes.growth[-1] >= 4000 else "; so few images that the start of the command weighs more"
    return measured(
        "growth", max(abs(deviation), 0.1),
        note=f"{measurements} ({'processor' if in_processor_time else 'wall'} time of the whole command, "
        f"{sizes.side} px, nothing cached, median of {sizes.command_repeats}); the step from {sizes.growth[2]:,} to "
        f"{sizes.growth[3]:,} beside twice that from {sizes.growth[1]:,} to {sizes.growth[2]:,}: {deviation:+.1f} %, "
        f"by wall time {'not known' if by_wall is None else f'{by_wall:+.1f} %'}; constant work between the commands: "
        f"{min(controls):.2f} to {max(controls):.2f} s, {100 * (max(controls) / min(controls) - 1):.0f} % apart{few}",
    )  # fmt: skip


def seconds_of_constant_work(bench: Bench) -> float:
    """Time matrix products that are always the same: processor time of all threads, or wall time on a GPU."""
    a = torch.ones(bench.sizes.matrix, bench.sizes.matrix, device=bench.device)

    def work() -> None:
        for _ in range(3):
            a @ a

    if bench.device.type != "cpu":
        return wall_seconds(work, bench.device)
    start = time.process_time()
    work()
    return time.process_time() - start


def beyond_proportion(seconds: Sequence[float]) -> float | None:
    """Return by how many per cent the last doubling of the images costs more than twice the one before.

    ``seconds``: of four numbers of images, each twice the one before. The constant part of a command, which the
    differences do not hold, counts as none. None if the doubling before costs nothing.
    """
    _, one, two, four = seconds
    return 100 * ((four - two) / (2 * (two - one)) - 1) if two > one else None


def measure_lite0(bench: Bench) -> SpeedRow:
    """Time the default baseline with EfficientNet-Lite0 and its ImageNet weights, with nothing cached."""
    check_lite0()
    data = phantom_folder(bench, bench.sizes.baseline_images, bench.sizes.source_side)
    times = [run_cold(bench, data, LITE0, LITE0)[0].seconds for _ in range(bench.sizes.command_repeats)]
    return _lite0_row(bench, "lite0", times, "nothing cached")


def measure_warm_lite0(bench: Bench) -> SpeedRow:
    """Time the same command with warm caches."""
    check_lite0()
    data = phantom_folder(bench, bench.sizes.baseline_images, bench.sizes.source_side)
    run_warm(bench, data, LITE0, LITE0)  # fills the caches unless the other row has
    times = [run_warm(bench, data, LITE0, LITE0).seconds for _ in range(bench.sizes.command_repeats)]
    return _lite0_row(bench, "lite0_warm", times, "images and features cached by the same command before")


def _lite0_row(bench: Bench, row_id: str, times: Sequence[float], caches: str) -> SpeedRow:
    sizes = bench.sizes
    spread = ", ".join(f"{seconds:.1f}" for seconds in sorted(times))
    return measured(
        row_id, statistics.median(times),
        note=f"whole command, frozen, ImageNet weights, {sizes.folds} folds x {sizes.epochs} epochs, "
        f"{sizes.baseline_images:,} phantoms from {sizes.source_side} px PNG at {sizes.side} px, {caches}; {spread} s",
    )  # fmt: skip
