"""Rows of the speed benchmark: what each compares, its target and the sizes it is measured at.

A row compares this project's path with a plain one (ratio of times), with a limit (seconds, memory) or with
a peak of the machine (share), or is a time alone. A larger ratio is better in every row that has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.file_formats import SpeedRow
from utils import UserError

MAX_SECONDS = 30.0
MAX_GB = 3.0
MAX_DEVIATION = 10.0  # per cent


@dataclass(frozen=True)
class RowPlan:
    """One row of the table.

    ``kind``: "speedup" has the ratio plain / ours, "share" has ours / peak, "limit" has ``limit`` / ours, and "time"
    has none. The row reaches its goal if the ratio is at least ``target``.
    """

    id: str
    name: str
    unit: str
    kind: Literal["speedup", "share", "limit", "time"]
    target: float | None = None
    limit: float = 0.0

    def ratio(self, ours: float, plain: float | None) -> float | None:
        """Return how good ``ours`` is; ``plain`` is the plain path's number or the peak, None for a limit or a time."""
        if self.kind == "time":
            return None
        if plain is None:
            return self.limit / ours
        return plain / ours if self.kind == "speedup" else ours / plain


PLANS = (
    RowPlan("baseline_default", "Default baseline, whole command", "s", "speedup", 150.0),
    RowPlan("first_pass", "First pass: decoding and features", "ms/image", "speedup", 3.0),
    RowPlan("warm_full", "Default baseline again, caches warm", "s", "limit", 1.0, MAX_SECONDS),
    RowPlan("unfreeze_step", "Training step of all layers", "s/step", "speedup", 2.0),
    RowPlan("gan_step", "GAN step, all three losses", "s/step", "speedup", 8.0),
    RowPlan("gan_step_no_vgg", "GAN step without VGG16", "s/step", "speedup", 2.0),
    RowPlan("generate", "Generating and writing images", "s", "speedup", 4.0),
    RowPlan("quality", "FID, KID and neighbours", "s", "speedup", 5.0),
    RowPlan("peak_share", "ResNet-50 inference beside the peak", "GFLOP/s", "share", 0.70),
    RowPlan("memory", "Peak memory of the default baseline", "GB", "limit", 1.0, MAX_GB),
    RowPlan("growth", "Cost beyond proportion to images", "%", "limit", 1.0, MAX_DEVIATION),
    RowPlan("lite0", "Default baseline with EfficientNet-Lite0", "s", "time"),
    RowPlan("lite0_warm", "The same again, caches warm", "s", "time"),
)
PLAN_OF = {plan.id: plan for plan in PLANS}


@dataclass(frozen=True)
class Sizes:
    """Sizes of everything that is measured; sides in pixels.

    ``plain_images``: images that the plain path is measured on. ``source_side``: side of the phantoms' PNG
    files for ``baseline_default`` and ``first_pass``; ``small_side``: the same for the rows with many
    images, where only the first reading depends on it.
    """

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
REAL_SIZE = FULL.full_images  # images of the real dataset; smaller runs are extrapolated to it


@dataclass(frozen=True)
class Bench:
    """Sizes, device and settings of one run of the benchmark.

    ``weights``: "imagenet" or "none", for ResNet-50; ``work``: folder of phantoms, caches and outputs.
    """

    sizes: Sizes
    device: torch.device
    precision: str
    weights: str
    workers: int
    work: Path
    seed: int = 42

    @property
    def gpu(self) -> bool:
        """Whether the work runs on an Nvidia GPU."""
        return self.device.type == "cuda"

    def weights_note(self) -> str:
        """Name the weights for a row's note."""
        return "weights: untrained" if self.weights == "none" else f"weights: {self.weights}"


class DifferentAnswersError(UserError):
    """The plain path and ours give different answers, so that their times cannot be compared."""


# --- rows ------------------------------------------------------------------------------------------
def measured(
    row_id: str, ours: float, plain: float | None = None, *, extrapolated: bool = False, note: str
) -> SpeedRow:
    """Make the row of a measurement; ``plain``: the plain path's number or the peak, None beside a limit."""
    row = not_measured(row_id, note)
    row["plain"], row["ours"], row["ratio"] = plain, ours, PLAN_OF[row_id].ratio(ours, plain)
    row["extrapolated"], row["status"] = extrapolated, "measured"
    return row


def not_measured(row_id: str, reason: str) -> SpeedRow:
    """Make a row without numbers that says why there are none."""
    plan = PLAN_OF[row_id]
    return {
        "id": row_id,
        "name": plan.name,
        "plain": None,
        "ours": None,
        "unit": plan.unit,
        "ratio": None,
        "target": plan.target,
        "extrapolated": False,
        "status": "not_measured",
        "note": reason,
    }


def note_of_agreement(what: str, difference: float, tolerance: float) -> str:
    """Say that both paths agree; raises ``DifferentAnswersError`` if ``difference`` exceeds ``tolerance``."""
    if not difference <= tolerance:  # NaN is too large
        raise DifferentAnswersError(
            f"plain and ours give different answers: {what} differ by {difference:.3g}, allowed {tolerance:g}"
        )
    return f"{what} agree within {difference:.2g} (allowed {tolerance:g})"
