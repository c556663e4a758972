"""The registry of arms: name, options, training, colour, reference arms and words of each, in one place.

Trainer, study, pipeline, comparison, figures and report read it. A new arm is one entry in ``ARMS`` and, if
it trains differently, one treatment function.
"""

from __future__ import annotations

import argparse
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils import derive_seed

if TYPE_CHECKING:
    import numpy as np

BASELINE = "baseline"
AUGMENTED = "augmented"
CONTROL_DUPLICATE = "control_duplicate"
CONTROL_WEIGHT = "control_weight"
CURRICULUM = "curriculum"
PRETRAIN = "pretrain"
SEMI = "semi"
CONTROL_PSEUDO = "control_pseudo"

# (first epoch, counted from 1, share of added images among those drawn), ...; None: by their number.
Shares = tuple[tuple[int, float | None], ...]
BY_NUMBER: Shares = ((1, None),)


@dataclass(frozen=True)
class FitImages:
    """The images that one fit may use, n real and m synthetic; ``name`` and ``seed`` determine its chance.

    Rows and labels: int [n], [m]. Rows count in the pool of ``arms.data.ArmData``; those of synthetic images
    are none if the arm only counts them, and their labels NaN if they have none. ``unlabelled_rows``: of real images
    whose labels are hidden.
    """

    name: str
    seed: int
    real_rows: np.ndarray
    real_labels: np.ndarray
    synthetic_rows: np.ndarray
    synthetic_labels: np.ndarray
    unlabelled_rows: np.ndarray


@dataclass(frozen=True)
class Addition:
    """What an arm adds to the real images of a fit: rows of the pool, int [a].

    ``class_weights``: factors of the loss of negatives and positives, None for 1.
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
    """Add real images of the labels of the synthetic ones, of any if these have none, drawn with replacement."""
    import numpy as np

    rng = np.random.default_rng(derive_seed(images.seed, "duplicates", images.name))
    drawn = [
        rng.choice(images.real_rows[(images.real_labels == label) | np.isnan(label)], n)
        for label, n in zip(*np.unique(images.synthetic_labels, return_counts=True), strict=True)
    ]
    return Addition(np.concatenate([images.real_rows[:0], *drawn]))


def add_unlabelled(images: FitImages) -> Addition:
    """Let real images whose labels are hidden join, as many as there are synthetic ones, none twice."""
    import numpy as np

    rng = np.random.default_rng(derive_seed(images.seed, "unlabelled", images.name))
    return Addition(rng.permutation(images.unlabelled_rows)[: len(images.synthetic_labels)])


def weight_loss(images: FitImages) -> Addition:
    """Add no image, but weight the loss to the class balance that the synthetic images would give."""
    labels, real = images.synthetic_labels, images.real_labels
    share = float(labels.mean()) if len(labels) else 0.0
    return Addition(images.real_rows[:0], balance_weights(int(real.sum()), len(real), len(labels), share))


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


def half(_: Mapping[str, Any]) -> Shares:
    """Draw as many added images as real ones."""
    return ((1, 0.5),)


def half_if_few_labels(options: Mapping[str, Any]) -> Shares:
    """Draw as many added images as real ones if only few are labelled, else by their number."""
    return half(options) if options.get("labelled_patients") else BY_NUMBER


def steps_per_epoch(n_real: int, batch_size: int) -> int:
    """Return the optimiser steps of an epoch in every arm: synthetic images change what is drawn only."""
    return math.ceil(n_real / batch_size)


# --- the arms --------------------------------------------------------------------------------------
CHOSEN_BY_USER = object()  # in ``ArmKind.options``: any value but None


class Synthetic(enum.Enum):
    """What an arm does with the folder of synthetic images."""

    UNUSED = "unused"
    TRAINED_ON = "trained on"
    COUNTED = "counted"  # a control: their number and labels matter, they are never trained on


@dataclass(frozen=True)
class ArmKind:
    """One kind of arm.

    ``name``: its files begin with ``<name>_``. ``title``: its name in a list of steps. ``words``: what it
    trains on, for the report. ``colour``: place in ``common.plot_style.PALETTE``, far apart for colour-blind
    readers too. ``options``: the options of train_classifier.py (name -> value) that make it, beside those
    of the baseline. ``add``: what joins the real images of a fit; ``shares``: the share of it by epoch, from
    the options; None: by its number. ``measured_against``: the arms that it is compared with first. ``few_labels``:
    it can be trained with --labelled-patients. ``soft_labels``: an ensemble of baselines labels what it adds, so
    that it needs that option.
    """

    name: str
    title: str
    words: str
    colour: int
    options: Mapping[str, Any]
    synthetic: Synthetic
    add: Callable[[FitImages], Addition]
    shares: Callable[[Mapping[str, Any]], Shares] | None = None
    measured_against: tuple[str, ...] = (BASELINE,)
    few_labels: bool = False
    soft_labels: bool = False

    @property
    def prefix(self) -> str:
        """The first letters of all its files."""
        return f"{self.name}_"

    @property
    def is_control(self) -> bool:
        """Tell whether --control selects the arm."""
        return "control" in self.options

    @property
    def needs_value(self) -> bool:
        """Tell whether the user must choose a value for one of its options."""
        return any(value is CHOSEN_BY_USER for value in self.options.values())

    def matches(self, options: Mapping[str, Any]) -> bool:
        """Tell whether ``options`` (name -> value) of train_classifier.py hold all of the arm's."""
        return all(
            options.get(name) is not None if value is CHOSEN_BY_USER else options.get(name) == value
            for name, value in self.options.items()
        )

    def words_of_command(self) -> list[str]:
        """Return what the arm adds to the baseline's command line; needs an arm without ``needs_value``."""
        words = []
        for name, value in self.options.items():
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return words


_ARMS = (
    ArmKind(BASELINE, "baseline classifier", "real images only",
            0, {}, Synthetic.UNUSED, add_nothing, measured_against=(), few_labels=True),
    ArmKind(AUGMENTED, "augmented classifier", "real and synthetic images",
            1, {"use_synthetic": True}, Synthetic.TRAINED_ON, add_synthetic,
            measured_against=(BASELINE, CONTROL_DUPLICATE)),
    ArmKind(CONTROL_DUPLICATE, "control with duplicated positives",
            "a control: as many real images again as there are synthetic ones",
            2, {"control": "duplicate-positives"}, Synthetic.COUNTED, repeat_real, half_if_few_labels,
            few_labels=True),
    ArmKind(CONTROL_WEIGHT, "control with a weighted loss",
            "a control: real images, the loss weighted to the class balance that synthetic ones would give",
            4, {"control": "class-weight"}, Synthetic.COUNTED, weight_loss),
    ArmKind(CURRICULUM, "classifier with a schedule of synthetic images",
            "real and synthetic images, whose share changes from epoch to epoch",
            5, {"use_synthetic": True, "synthetic_schedule": CHOSEN_BY_USER}, Synthetic.TRAINED_ON,
            add_synthetic, scheduled_shares),
    ArmKind(PRETRAIN, "classifier pretrained on synthetic images",
            "real and synthetic images in the first epochs, then real ones only",
            9, {"use_synthetic": True, "pretrain_synthetic": CHOSEN_BY_USER}, Synthetic.TRAINED_ON,
            add_synthetic, pretraining_shares),
    ArmKind(SEMI, "classifier with softly labelled synthetic images",
            "few labelled real images, and synthetic ones that an ensemble of baselines labels softly",
            3, {"use_synthetic": True, "soft_labels": True}, Synthetic.TRAINED_ON, add_synthetic, half,
            measured_against=(BASELINE, CONTROL_PSEUDO, CONTROL_DUPLICATE), few_labels=True, soft_labels=True),
    ArmKind(CONTROL_PSEUDO, "control with softly labelled real images",
            "a control: few labelled real images, and real ones that an ensemble of baselines labels softly",
            7, {"control": "pseudo-labels"}, Synthetic.COUNTED, add_unlabelled, half,
            few_labels=True, soft_labels=True),
)  # fmt: skip
# Name -> arm, in the order of lists, figures and training.
ARMS: dict[str, ArmKind] = {kind.name: kind for kind in _ARMS}
BASELINE_PREFIX = ARMS[BASELINE].prefix


@dataclass(frozen=True)
class Treatment:
    """One run's arm with the values that the user chose: ``shares`` of the added images by epoch."""

    kind: ArmKind
    shares: Shares = BY_NUMBER

    @property
    def last_change(self) -> int:
        """The epochs after which the share of added images changes no more."""
        return self.shares[-1][0] - 1


def treatment_of(options: Mapping[str, Any]) -> Treatment:
    """Return the arm that the ``options`` (name -> value) of train_classifier.py select."""
    kind = max((kind for kind in ARMS.values() if kind.matches(options)), key=lambda kind: len(kind.options))
    return Treatment(kind, kind.shares(options) if kind.shares else BY_NUMBER)


def control_names() -> list[str]:
    """Return the values that --control takes."""
    return [kind.options["control"] for kind in ARMS.values() if kind.is_control]


def control_name(text: str) -> str:
    """Read an argparse value: one of ``control_names``."""
    if text not in control_names():
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(control_names())}, got {text!r}")
    return text


def study_arms() -> list[str]:
    """Return the arms that a study can train: those whose options need no value of the user, and no hidden label."""
    return [name for name, kind in ARMS.items() if not (kind.needs_value or kind.soft_labels)]


def few_label_arms() -> list[str]:
    """Return the arms that a study can train with --labelled-patients."""
    return [name for name, kind in ARMS.items() if kind.few_labels]


def arm_order(prefix: str) -> tuple[int, str]:
    """Return a sort key of file prefixes: arms of the registry in its order, then others by name."""
    known = [kind.prefix for kind in ARMS.values()]
    return (known.index(prefix) if prefix in known else len(known)), prefix
