"""What is measured of a GAN's training itself: losses, time and memory."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from common.distributed import average
from gan.file_formats import LapTime, RunTime
from gan.losses import Objective
from gan.step import TERMS

PENALTIES = ("r1", "r2", "gradient_penalty")
NORMS = ("g_grad_norm", "d_grad_norm")


# --- losses ----------------------------------------------------------------------------------------
def sum_dtype(device: torch.device) -> torch.dtype:
    """Return float64 for long sums, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class LossMeter:
    """Sums and maxima of the ``TERMS`` over an epoch, and the first step with one that is not finite.

    All are kept on the device.
    """

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.sums = torch.zeros(len(TERMS), dtype=sum_dtype(device), device=device)
        self.taken = torch.zeros_like(self.sums)  # on how many steps a term was not 0
        self.largest = torch.full_like(self.sums, -torch.inf)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad_terms = torch.zeros(len(TERMS), dtype=torch.bool, device=device)  # of that step
        self.steps = self.perceptual_steps = 0

    def add(self, terms: Tensor, step: int) -> None:
        """Count the terms of ``step`` (from 0); nothing is read back from the device."""
        self.sums += terms
        self.taken += terms != 0
        self.largest = torch.maximum(self.largest, terms)
        bad = ~terms.isfinite()
        bad_now = (self.first_bad < 0) & bad.any()
        self.first_bad = torch.where(bad_now, step + 1, self.first_bad)
        self.bad_terms = torch.where(bad_now, bad, self.bad_terms)
        self.steps += 1
        self.perceptual_steps += self.objective.takes_perceptual(step)

    def include(self, other: LossMeter) -> None:
        """Count what ``other``, of the steps after those counted here, has counted."""
        self.sums += other.sums
        self.taken += other.taken
        self.largest = torch.maximum(self.largest, other.largest)
        self.bad_terms = torch.where(self.first_bad < 0, other.bad_terms, self.bad_terms)
        self.first_bad = torch.where(self.first_bad < 0, other.first_bad, self.first_bad)
        self.steps += other.steps
        self.perceptual_steps += other.perceptual_steps

    def first_bad_step(self) -> int | None:
        """Return the first step (from 1) with a term that is not finite; waits for the device."""
        step = int(self.first_bad)
        return step if step >= 0 else None

    def first_bad_term(self) -> str | None:
        """Return the first of the ``TERMS``, in the order of a step, that was not finite then."""
        names = [name for name, bad in zip(TERMS, self.bad_terms.tolist(), strict=True) if bad]
        return names[0] if names else None

    def means(self) -> dict[str, float | None]:
        """Return the mean of every term, of G's loss, and of D's without penalties, and maxima of the norms.

        Means are over all processes, which must call this together. Lazy terms are averaged over the steps on
        which they were taken, None if never. "..._max" of the ``NORMS``, which are the same in all processes:
        one large step in hundreds hardly shows in a mean.
        """
        average([self.sums])
        means = {name: total / self.steps for name, total in zip(TERMS, self.sums.tolist(), strict=True)}
        taken = {name: int(self.taken[TERMS.index(name)]) for name in PENALTIES}
        lazy = {name: means[name] * self.steps / count if count else None for name, count in taken.items()}
        if self.perceptual_steps:
            means["g_perceptual"] *= self.steps / self.perceptual_steps
        weights = self.objective
        g_loss = weights.adversarial * means["g_adversarial"]
        g_loss += weights.perceptual * means["g_perceptual"]
        g_loss += weights.feature_matching * means["g_feature_matching"]
        if not self.perceptual_steps:
            lazy["g_perceptual"] = None
        d_loss = means["d_loss_real"] + means["d_loss_fake"]
        largest = dict(zip(TERMS, self.largest.tolist(), strict=True))
        maxima = {f"{name}_max": largest[name] for name in NORMS}
        return {"d_loss": d_loss, "g_loss": g_loss, **means, **lazy, **maxima}


# --- time and memory -------------------------------------------------------------------------------
class Clock:
    """Seconds of a run, and how many of them went into watching: metrics, probes, grids, figures, statistics.

    ``before``: of earlier parts of a resumed run. Nothing that is computed depends on the clock, except where
    --max-minutes ends a run.
    """

    def __init__(self, before: RunTime | None = None) -> None:
        self.before = before["seconds"] if before else 0.0
        self.watching = self.watching_at_lap = before["watching_seconds"] if before else 0.0
        self.started = self.lap_at = time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Count the block as watching, not training."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.watching += time.monotonic() - start

    def lap(self, images: int) -> LapTime:
        """Return the seconds of the run, and the speed since the last lap while the run did not watch."""
        now = time.monotonic()
        working = now - self.lap_at - (self.watching - self.watching_at_lap)
        self.lap_at, self.watching_at_lap = now, self.watching
        return {"seconds": self.seconds(), "images_per_second": images / max(working, 1e-9)}

    def summary(self) -> RunTime:
        return {"seconds": self.seconds(), "watching_seconds": self.watching}


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the most memory, in MiB, that this process has held so far; None if the system does not say.

    On an NVIDIA GPU this is memory of the GPU, otherwise main memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes here
