"""What the arms do in training beside the baseline: one function for each way to treat the real images.

A treatment function takes the ``FitImages`` of one fit and returns the ``Addition``: rows that join the real
images, and weights of the loss. ``arms.registry`` says which arm uses which function.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils import derive_seed

if TYPE_CHECKING:
    import numpy as np

# (first epoch, counted from 1, share of added images among those drawn), ...; None: by their number.
Shares = tuple[tuple[int, float | None], ...]
BY_NUMBER: Shares = ((1, None),)


@dataclass(frozen=True)
class FitImages:
    """The images that one fit may use. Rows count in the pool of ``arms.data.ArmData``.

    ``real_rows``, ``real_labels``: int [n]. ``synthetic_labels``: int [m] of the synthetic images that
    belong to this fit; ``synthetic_rows``: int [m], empty if the arm only counts them. ``name`` and ``seed``
    determine everything that is random in the fit.
    """

    name: str
    seed: int
    real_rows: np.ndarray
    real_labels: np.ndarray
    synthetic_rows: np.ndarray
    synthetic_labels: np.ndarray


@dataclass(frozen=True)
class Addition:
    """What an arm adds to the real images of one fit.

    ``rows``: int [a], rows of the pool that join; ``class_weights``: factors of the loss of negatives and
    positives, None for 1.
    """

    rows: np.ndarray
    class_weights: tuple[float, float] | None = None


# --- treatment functions ---------------------------------------------------------------------------
def add_nothing(images: FitImages) -> Addition:
    """Train on the real images alone."""
    return Addition(images.real_rows[:0])


def add_synthetic(images: FitImages) -> Addition:
    """Let the synthetic images join."""
    return Addition(images.synthetic_rows)


def repeat_real(images: FitImages) -> Addition:
    """Add real images of the labels of the synthetic ones, drawn with replacement."""
    import numpy as np

    rng = np.random.default_rng(derive_seed(images.seed, "duplicates", images.name))
    drawn = [
        rng.choice(images.real_rows[images.real_labels == label], n)
        for label, n in zip(*np.unique(images.synthetic_labels, return_counts=True), strict=True)
    ]
    return Addition(np.concatenate([images.real_rows[:0], *drawn]))


def weight_loss(images: FitImages) -> Addition:
    """Add no image, but weight the loss to the class balance that the synthetic images would give."""
    labels = images.synthetic_labels
    share = float(labels.mean()) if len(labels) else 0.0
    n_positive = int(images.real_labels.sum())
    weights = balance_weights(n_positive, len(images.real_labels), len(labels), share)
    return Addition(images.real_rows[:0], weights)


def balance_weights(n_positive: int, n_real: int, n_extra: int, extra_label: float) -> tuple[float, float]:
    """Return factors of the loss of negatives and positives; their mean over the images is 1.

    They give ``n_real`` images, ``n_positive`` of them positive, the class balance that they would have
    together with ``n_extra`` images whose labels have the mean ``extra_label``.
    """
    now = n_positive / n_real
    wanted = (n_positive + n_extra * extra_label) / (n_real + n_extra)
    return (1 - wanted) / (1 - now), wanted / now


# --- shares of the added images, by epoch ----------------------------------------------------------
def scheduled_shares(options: Mapping[str, Any]) -> Shares:
    """Change the share as --synthetic-schedule says: ((epochs done, share), ...)."""
    return tuple((done + 1, share) for done, share in options["synthetic_schedule"])


def pretraining_shares(options: Mapping[str, Any]) -> Shares:
    """Draw the added images in the first --pretrain-synthetic epochs only."""
    return (*BY_NUMBER, (options["pretrain_synthetic"] + 1, 0.0))


def share_schedule(text: str) -> tuple[tuple[int, float], ...]:
    """Read an argparse value: "0:0,5:0.25,10:0.5" -> ((0, 0.0), (5, 0.25), (10, 0.5)).

    From so many finished epochs on, that share of the images drawn is synthetic.
    """
    try:
        schedule = tuple(
            (int(done), float(share)) for done, share in (part.split(":") for part in text.split(","))
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 0:0,5:0.25,10:0.5, got {text!r}") from None
    epochs = [done for done, _ in schedule]
    if epochs[0] != 0 or any(b <= a for a, b in zip(epochs, epochs[1:], strict=False)):
        raise argparse.ArgumentTypeError(f"the epochs must begin at 0 and rise, got {text!r}")
    if any(not 0 <= share < 1 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"each share must be >= 0 and < 1, got {text!r}")
    if all(share == 0 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"at least one share must be above 0, got {text!r}")
    return schedule


def features_computed_once(frozen: bool, augment: str, views: int) -> bool:
    """Whether the frozen backbone's features are computed once, so that heads alone are fitted on them."""
    return frozen and (augment == "none" or views > 1)


def steps_per_epoch(n_real: int, batch_size: int) -> int:
    """Return the optimiser steps of an epoch in every arm.

    Synthetic images change what is drawn, not how often.
    """
    return math.ceil(n_real / batch_size)
