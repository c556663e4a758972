"""What the benchmark measures, against which target, at which sizes, and how a row comes about.

A row compares our path with a plain one (a ratio of times), with a limit (seconds, memory) or with a peak of
the machine (a share). Ratios are larger is better throughout.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from utils import UserError

MEASURED, NOT_MEASURED = "measured", "not_measured"
FORMAT = "benchmark-1"
PEAK_GOAL = 0.70  # share of the matrix peak
MAX_SECONDS = 30.0
MAX_GB = 3.0
MAX_DEVIATION = 10.0  # per cent


@dataclass(frozen=True)
class Plan:
    """One row of the table. ``kind``: "speedup" is plain / ours, to be ``target``; "share" is ours / peak, to
    be ``target``; "limit" is ``limit`` / ours, to be 1."""

    id: str
    name: str
    unit: str
    kind: Literal["speedup", "share", "limit"]
    target: float
    limit: float | None = None

    def ratio(self, ours: float, plain: float | None) -> float:
        if self.kind == "limit":
            return self.limit / ours
        return plain / ours if self.kind == "speedup" else ours / plain


PLANS = (
    Plan("baseline_default", "Default baseline, whole command", "s", "speedup", 150.0),
    Plan("first_pass", "First pass: decoding and features", "ms/image", "speedup", 3.0),
    Plan("warm_full", "Default baseline again, caches warm", "s", "limit", 1.0, MAX_SECONDS),
    Plan("unfreeze_step", "Training step of all layers", "s/step", "speedup", 2.0),
    Plan("gan_step", "GAN step, all three losses", "s/step", "speedup", 8.0),
    Plan("gan_step_no_vgg", "GAN step without VGG16", "s/step", "speedup", 2.0),
    Plan("generate", "Generating and writing images", "s", "speedup", 4.0),
    Plan("quality", "FID, KID and neighbours", "s", "speedup", 5.0),
    Plan("peak_share", "ResNet-50 inference beside the peak", "GFLOP/s", "share", PEAK_GOAL),
    Plan("memory", "Peak memory of the default baseline", "GB", "limit", 1.0, MAX_GB),
    Plan("growth", "Cost beyond proportion to images", "%", "limit", 1.0, MAX_DEVIATION),
)  # fmt: skip
PLAN_OF = {plan.id: plan for plan in PLANS}


@dataclass(frozen=True)
class Sizes:
    """How much of everything; sides in pixels. ``plain_images``: those that the plain path is measured on;
    ``source_side``: of the phantoms' PNG files for ``baseline_default`` and ``first_pass``, ``small_side``
    for the rows with many images, of which only the first reading depends on it."""

    side: int = 224
    source_side: int = 1024
    small_side: int = 64
    epochs: int = 15
    folds: int = 5
    baseline_images: int = 1200
    plain_images: int = 256
    full_images: int = 26_684
    batch: int = 32
    feature_maps: int = 32
    generated: int = 1000
    compared: int = 1000
    features: int = 2048
    inference_images: int = 128
    growth: tuple[int, int, int, int] = (500, 1000, 2000, 4000)
    repeats: int = 5
    command_repeats: int = 3
    matrix: int = 4096
    copied_bytes: int = 2**30


FULL = Sizes()
QUICK = Sizes(
    baseline_images=100, plain_images=32, full_images=480, batch=8, generated=64, compared=500,
    inference_images=32, growth=(60, 120, 240, 480), repeats=2, command_repeats=1, matrix=2048,
    copied_bytes=2**28,
)  # fmt: skip
REAL_SIZE = FULL.full_images  # of the dataset: what smaller runs are extrapolated to


@dataclass(frozen=True)
class Bench:
    """Where and how everything is measured. ``weights``: of ResNet-50, "imagenet" or "none"; ``work``: folder
    of the phantoms, caches and outputs."""

    sizes: Sizes
    device: torch.device
    precision: str
    weights: str
    workers: int
    work: Path
    seed: int = 42

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def weights_note(self) -> str:
        return "weights: untrained" if self.weights == "none" else f"weights: {self.weights}"


class DifferentAnswersError(UserError):
    """The plain path and ours do not agree: then a time says nothing."""


# --- timing ----------------------------------------------------------------------------------------
def synchronise(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of ``work``, the device's part included."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def side_by_side(
    plain: Callable[[], object], ours: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Median seconds of both, which take turns, so that whatever else the machine does meets both.

    Both should have been called before: the first call is slower.
    """
    times = [(seconds_of(plain, device), seconds_of(ours, device)) for _ in range(repeats)]
    plain_seconds, our_seconds = zip(*times, strict=True)
    return statistics.median(plain_seconds), statistics.median(our_seconds)


# --- rows ------------------------------------------------------------------------------------------
def measured(
    row_id: str, ours: float, plain: float | None = None, *, extrapolated: bool = False, note: str
) -> dict[str, Any]:
    """The row of a measurement. ``plain``: the plain path's figure or the peak; None beside a limit."""
    return _row(row_id, plain, ours, PLAN_OF[row_id].ratio(ours, plain), extrapolated, MEASURED, note)


def not_measured(row_id: str, reason: str) -> dict[str, Any]:
    return _row(row_id, None, None, None, False, NOT_MEASURED, reason)


def _row(
    row_id: str, plain: float | None, ours: float | None, ratio: float | None,
    extrapolated: bool, status: str, note: str,
) -> dict[str, Any]:  # fmt: skip
    plan = PLAN_OF[row_id]
    return {
        "id": row_id,
        "name": plan.name,
        "plain": plain,
        "ours": ours,
        "unit": plan.unit,
        "ratio": ratio,
        "target": plan.target,
        "extrapolated": extrapolated,
        "status": status,
        "note": note,
    }


def agree(what: str, difference: float, tolerance: float) -> str:
    """Words for a note; ``DifferentAnswersError`` if the difference of the two answers is too large."""
    if not difference <= tolerance:  # NaN is too large
        raise DifferentAnswersError(
            f"plain and ours give different answers: {what} differ by {difference:.3g}, allowed {tolerance:g}"
        )
    return f"{what} agree within {difference:.2g} (allowed {tolerance:g})"


# --- the machine -----------------------------------------------------------------------------------
def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on; no host name and no path."""
    from utils import environment

    facts = environment(device)
    return {
        "cpu": facts["processor"],
        "cores": _cores(),
        "threads": facts["threads"],
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": facts["system"],
        "python": platform.python_version(),
        "torch": facts["torch"],
    }


def _cores() -> int:
    """Cores that this process may use."""
    import os

    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peaks(bench: Bench) -> dict[str, float]:
    """What the machine can do at most: GFLOP/s of large square matrix products, 2 n^3 operations each, and
    GB/s of a large copy, which reads and writes every byte. The best of several, as a peak is."""
    repeats = bench.sizes.repeats
    return {
        "bf16_gflops": matrix_gflops(bench, torch.bfloat16, repeats),
        "fp32_gflops": matrix_gflops(bench, torch.float32, repeats),
        "copy_gb_per_s": copy_speed(bench, repeats),
    }


def matrix_gflops(bench: Bench, dtype: torch.dtype, repeats: int) -> float:
    n = bench.sizes.matrix * (2 if bench.gpu else 1)
    a, b = (torch.randn(n, n, device=bench.device).to(dtype) for _ in range(2))
    out = a @ b
    seconds = min(seconds_of(lambda: torch.matmul(a, b, out=out), bench.device) for _ in range(repeats))
    return 2 * n**3 / seconds / 1e9


def copy_speed(bench: Bench, repeats: int) -> float:
    source = torch.ones(bench.sizes.copied_bytes, dtype=torch.uint8, device=bench.device)
    target = torch.zeros_like(source)
    seconds = min(seconds_of(lambda: target.copy_(source), bench.device) for _ in range(repeats))
    return 2 * bench.sizes.copied_bytes / seconds / 1e9
