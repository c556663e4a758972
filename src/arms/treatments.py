"""What an arm does that the baseline does not: synthetic images, or a control in their place."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from common import paths

DUPLICATE, CLASS_WEIGHT = "duplicate-positives", "class-weight"
CONTROLS = (DUPLICATE, CLASS_WEIGHT)


@dataclass(frozen=True)
class Treatment:
    """``synthetic``: synthetic images join training; ``control``: one of ``CONTROLS`` in their place.

    With synthetic images, ``schedule`` gives their share by epoch ((epochs done, share), ...), and
    ``pretrain`` the epochs after which they leave; at most one of the two.
    """

    synthetic: bool = False
    control: str | None = None
    schedule: tuple[tuple[int, float], ...] | None = None
    pretrain: int | None = None

    @property
    def any(self) -> bool:
        """Does the arm differ from the baseline, so that it is measured against it?"""
        return self.synthetic or self.control is not None

    @property
    def prefix(self) -> str:
        """Of the arm's files, unless the user names it."""
        if self.control:
            return {DUPLICATE: paths.DUPLICATE_PREFIX, CLASS_WEIGHT: paths.WEIGHT_PREFIX}[self.control]
        if self.schedule:
            return paths.CURRICULUM_PREFIX
        if self.pretrain:
            return paths.PRETRAIN_PREFIX
        return paths.AUGMENTED_PREFIX if self.synthetic else paths.BASELINE_PREFIX

    @property
    def shares(self) -> tuple[tuple[int, float | None], ...]:
        """(first epoch, counted from 1, share of extra images; None: in proportion to their number), ..."""
        if self.schedule:
            return tuple((done + 1, share) for done, share in self.schedule)
        if self.pretrain:
            return ((1, None), (self.pretrain + 1, 0.0))
        return ((1, None),)

    @property
    def last_change(self) -> int:
        """Epochs after which the share of synthetic images changes no more."""
        return self.shares[-1][0] - 1


def share_schedule(text: str) -> tuple[tuple[int, float], ...]:
    """An argparse type: "0:0,5:0.25,10:0.5" -> ((0, 0.0), (5, 0.25), (10, 0.5)).

    From so many finished epochs on, that share of the images drawn is synthetic.
    """
    try:
        schedule = tuple(
            (int(done), float(share)) for done, share in (part.split(":") for part in text.split(","))
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0:0,5:0.25,10:0.5") from None
    epochs = [done for done, _ in schedule]
    if epochs[0] != 0 or any(b <= a for a, b in zip(epochs, epochs[1:], strict=False)):
        raise argparse.ArgumentTypeError(f"{text!r}: the epochs must begin at 0 and rise")
    if any(not 0 <= share < 1 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"{text!r}: a share is at least 0 and below 1")
    if all(share == 0 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"{text!r}: no epoch would draw a synthetic image")
    return schedule


def balance_weights(n_positive: int, n_real: int, n_extra: int, extra_label: float) -> tuple[float, float]:
    """Factors of the loss of negatives and positives that give ``n_real`` images the class balance that
    they would have together with ``n_extra`` images whose labels have the mean ``extra_label``; the mean of
    the factors over the images is 1."""
    now = n_positive / n_real
    wanted = (n_positive + n_extra * extra_label) / (n_real + n_extra)
    return (1 - wanted) / (1 - now), wanted / now


def steps_per_epoch(n_real: int, batch_size: int) -> int:
    """Optimiser steps of an epoch, in every arm: synthetic images change what is drawn, not how often."""
    return math.ceil(n_real / batch_size)
