"""What a run of GAN training is given: images, how long to train on them, and where files go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from data_loader import ImageSet


@dataclass(frozen=True)
class TrainingSet:
    """``pixels`` uint8 [N, S, S] on the device; ``origin``: what a checkpoint says about its images;
    ``red_flags``: what everybody who uses the generator must know.

    ``patients``: of each image, "" for all where nobody cares; ``labels``: classes int64 [N] on the device,
    for a conditional GAN; ``images``: where the pixels came from, for caches; ``holdout``: uint8 [M, S, S] of
    patients that are not trained on, ``holdout_labels``: their classes.
    """

    pixels: Tensor
    origin: dict[str, Any]
    skipped: list[str]
    red_flags: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    labels: Tensor | None = None
    images: ImageSet | None = None
    holdout: Any = None
    holdout_labels: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.patients:  # each image a patient of its own
            object.__setattr__(self, "patients", [str(row) for row in range(len(self.pixels))])


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to save: whole epochs, and intervals in steps and epochs.

    ``batch_size`` is that of all processes together, which must be able to share it evenly. ``max_minutes``:
    the epoch in which so much time is used up is the last for now.
    """

    epochs: int
    batch_size: int
    save_interval: int
    checkpoint_interval: int
    max_minutes: float | None = None


@dataclass(frozen=True)
class Folders:
    """Where files go: models (its subfolder gan/), sample grids, history, curves; each with names of its own
    for a GAN that never saw fold ``fold``."""

    models: str
    output: str
    results: str
    figures: str
    fold: int | None = None
