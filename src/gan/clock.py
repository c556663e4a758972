"""How long a GAN's training takes and will take, what it spends on watching itself, and its memory.

Nothing that is computed depends on these numbers, except where --max-minutes ends a run.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

log = logging.getLogger(__name__)


class Clock:
    """Seconds of training, those of earlier parts of a resumed run included, and how many of them went into
    watching: metrics, probes, grids, figures and statistics."""

    def __init__(self) -> None:
        self.before = self.watching = 0.0
        self.started = self.lap_at = time.monotonic()
        self.watching_at_lap = 0.0

    def start(self) -> None:
        self.started = self.lap_at = time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The block is watching, not training."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.watching += time.monotonic() - start

    def lap(self, images: int) -> dict[str, float]:
        """Since the last lap: {"seconds" of the run so far, "images_per_second" while it did not watch}."""
        now = time.monotonic()
        working = now - self.lap_at - (self.watching - self.watching_at_lap)
        self.lap_at, self.watching_at_lap = now, self.watching
        return {"seconds": self.seconds(), "images_per_second": images / max(working, 1e-9)}

    def summary(self) -> dict[str, float]:
        return {"seconds": self.seconds(), "watching_seconds": self.watching}

    def state(self) -> dict[str, float]:
        return self.summary()

    def restore(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.before, self.watching = state["seconds"], state["watching_seconds"]
            self.watching_at_lap = self.watching


class TimeEstimate:
    """Says once, early in the run, how long it will take; the first steps, slower, are not counted."""

    WARM_UP, SECONDS = 3, 5.0

    def __init__(self, steps_to_go: int, batch_size: int, hint: str) -> None:
        self.steps_to_go, self.batch_size, self.hint = steps_to_go, batch_size, hint
        self.done, self.started, self.pending = 0, 0.0, steps_to_go > self.WARM_UP

    def after_step(self) -> None:
        if not self.pending:
            return
        self.done += 1
        if self.done == self.WARM_UP:
            self.started = time.monotonic()
        elapsed, counted = time.monotonic() - self.started, self.done - self.WARM_UP
        if counted > 0 and (elapsed > self.SECONDS or self.done == self.steps_to_go):
            self.pending = False
            seconds = elapsed / counted
            log.info(
                f"about {seconds * self.steps_to_go / 60:.1f} minutes for {self.steps_to_go:,} steps "
                f"({self.batch_size / seconds:.0f} images/s); {self.hint}"
            )


def quicker_options(image_size: int, perceptual: bool) -> str:
    """Say which options make a training shorter."""
    flags = ["--epochs or --kimg", *(["--perceptual off"] if perceptual else [])]
    if image_size >= 64:
        flags.append("a smaller --image-size")
    return f"shorter with {', '.join(flags)}"


def peak_memory_mb(device: torch.device) -> float | None:
    """The most that this process has held so far, of an NVIDIA GPU's memory or else of the machine's; None
    where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes here
