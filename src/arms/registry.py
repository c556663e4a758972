"""The registry of arms: name, options, training, colour, reference arms and words of each, in one place.

Trainer, study, pipeline, comparison, figures and report read it. A new arm is one entry in ``ARMS`` and, if
it trains differently, one function in ``arms.treatments``.
"""

from __future__ import annotations

import argparse
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arms.treatments import (
    BY_NUMBER,
    Addition,
    FitImages,
    Shares,
    add_nothing,
    add_synthetic,
    pretraining_shares,
    repeat_real,
    scheduled_shares,
    weight_loss,
)

BASELINE = "baseline"
AUGMENTED = "augmented"
CONTROL_DUPLICATE = "control_duplicate"
CONTROL_WEIGHT = "control_weight"
CURRICULUM = "curriculum"
PRETRAIN = "pretrain"

CHOSEN_BY_USER = object()  # in ``ArmKind.options``: any value but None


class Synthetic(enum.Enum):
    """What an arm does with the folder of synthetic images."""

    UNUSED = "unused"
    TRAINED_ON = "trained on"
    COUNTED = "counted"  # a control: their number and labels matter, they are never trained on


@dataclass(frozen=True)
class ArmKind:
    """One kind of arm.

    ``name``: its files begin with ``<name>_``. ``options``: the options of train_classifier.py (name ->
    value) that make it, beside those of the baseline. ``synthetic``: what it does with synthetic images.
    ``add``: what joins the real images of a fit; ``shares``: the share of it by epoch, from
    the options; None: by its number in all epochs.
    ``colour``: place in ``common.plot_style.PALETTE``, far apart for colour-blind readers too.
    ``measured_against``: the arms that its results are set against first. ``title``: its name in a list of
    steps. ``words``: what it trains on, for the report.
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
    ArmKind(
        BASELINE,
        title="baseline classifier",
        words="real images only",
        colour=0,
        options={},
        synthetic=Synthetic.UNUSED,
        add=add_nothing,
        measured_against=(),
    ),
    ArmKind(
        AUGMENTED,
        title="augmented classifier",
        words="real and synthetic images",
        colour=1,
        options={"use_synthetic": True},
        synthetic=Synthetic.TRAINED_ON,
        add=add_synthetic,
        measured_against=(BASELINE, CONTROL_DUPLICATE),
    ),
    ArmKind(
        CONTROL_DUPLICATE,
        title="control with duplicated positives",
        words="a control: as many real images again as there are synthetic ones",
        colour=2,
        options={"control": "duplicate-positives"},
        synthetic=Synthetic.COUNTED,
        add=repeat_real,
    ),
    ArmKind(
        CONTROL_WEIGHT,
        title="control with a weighted loss",
        words="a control: real images, the loss weighted to the class balance that synthetic ones would give",
        colour=4,
        options={"control": "class-weight"},
        synthetic=Synthetic.COUNTED,
        add=weight_loss,
    ),
    ArmKind(
        CURRICULUM,
        title="classifier with a schedule of synthetic images",
        words="real and synthetic images, whose share changes from epoch to epoch",
        colour=5,
        options={"use_synthetic": True, "synthetic_schedule": CHOSEN_BY_USER},
        synthetic=Synthetic.TRAINED_ON,
        add=add_synthetic,
        shares=scheduled_shares,
    ),
    ArmKind(
        PRETRAIN,
        title="classifier pretrained on synthetic images",
        words="real and synthetic images in the first epochs, then real ones only",
        colour=9,
        options={"use_synthetic": True, "pretrain_synthetic": CHOSEN_BY_USER},
        synthetic=Synthetic.TRAINED_ON,
        add=add_synthetic,
        shares=pretraining_shares,
    ),
)
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
    """Return the arms that a study can train: those whose options need no value of the user."""
    return [name for name, kind in ARMS.items() if not kind.needs_value]


def arm_order(prefix: str) -> tuple[int, str]:
    """Return a sort key of file prefixes: arms of the registry in its order, then others by name."""
    known = [kind.prefix for kind in ARMS.values()]
    return (known.index(prefix) if prefix in known else len(known)), prefix
