"""Option tables: one entry per flag, from which the parser and every check of options follow.

A script's table is a tuple of ``Option``. ``add_options`` builds the parser from it; the resume check, the
comparability check and the fold check ask ``names_affecting`` which options matter to them. A new flag is
one entry.
"""

from __future__ import annotations

import argparse
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Affects(enum.Flag):
    """What the value of an option changes."""

    NOTHING = 0
    RUN = enum.auto()  # the numbers of this run: --resume must be given the same value
    FOLDS = enum.auto()  # what the models of the folds learn
    COMPARISON = enum.auto()  # two arms must share it for their difference to mean anything
    THRESHOLDS = enum.auto()  # how probabilities relate to labels: a threshold holds for one value only


@dataclass(frozen=True)
class HandedOn:
    """What an option hands on: words for ``script``, in an experiment file its section, of these ``options``.

    ``refused``: flag that cannot be handed on -> why.
    """

    script: str
    options: tuple[Option, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Option:
    """One flag of a script.

    ``flag``: as it is typed, with dashes. ``help``: without the default, which the parser appends unless the
    text holds "(default: ...)" itself. ``group``: heading in the help text, None for the first one.
    ``excludes``: options of one group that share this word exclude each other. ``set_by_study``: the low-data
    study sets it itself, so that it cannot be handed through. ``hands_on``: set if its value is a list of words
    for another script. The other fields are those of
    ``argparse.ArgumentParser.add_argument``; ``switch`` is a flag without a value, ``on_off`` one that also
    has a ``--no-`` form, ``append`` one that may be repeated and gives a list.
    """

    flag: str
    help: str
    affects: Affects = Affects.NOTHING
    type: Callable[[str], Any] | None = None
    default: Any = None
    choices: Sequence[Any] | None = None
    metavar: str | None = None
    nargs: str | None = None
    const: Any = None
    required: bool = False
    switch: bool = False
    on_off: bool = False
    append: bool = False
    group: str | None = None
    excludes: str | None = None
    set_by_study: bool = False
    hands_on: HandedOn | None = None

    @property
    def name(self) -> str:
        """The name in the parsed arguments and in result files: "--image-size" -> "image_size"."""
        return self.flag.lstrip("-").replace("-", "_")

    def _argparse_keywords(self) -> dict[str, Any]:
        if self.switch:
            return {"action": "store_true", "help": self.help}
        given = {key: getattr(self, key) for key in ("type", "choices", "metavar", "nargs", "const")}
        given["action"] = argparse.BooleanOptionalAction if self.on_off else "append" if self.append else None
        given["required"] = self.required or None
        keywords = {key: value for key, value in given.items() if value is not None}
        return {"default": self.default, "help": self.help, **keywords}


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """Add ``options`` to ``parser`` in their order, each under the heading of its ``group``."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    exclusive: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for option in options:
        place: argparse._ActionsContainer = parser
        if option.group is not None:
            place = groups.get(option.group) or parser.add_argument_group(option.group)
            groups[option.group] = place
        if option.excludes is not None:
            place = exclusive.get(option.excludes) or place.add_mutually_exclusive_group()
            exclusive[option.excludes] = place
        place.add_argument(option.flag, **option._argparse_keywords())


def names_affecting(options: Iterable[Option], what: Affects) -> frozenset[str]:
    """Return the names of the ``options`` whose value changes ``what``."""
    return frozenset(option.name for option in options if what in option.affects)


def flags_set_by_study(options: Iterable[Option]) -> frozenset[str]:
    """Return the flags of the ``options`` that the low-data study sets itself."""
    return frozenset(option.flag for option in options if option.set_by_study)


def values_affecting(options: Iterable[Option], what: Affects, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of ``values`` (name -> value) whose options change ``what``, in the order of the table."""
    return {o.name: values[o.name] for o in options if what in o.affects and o.name in values}
