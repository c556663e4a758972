"""What a report is made of, for a text file and a page alike: blocks in sections, and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


# --- blocks ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """The first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """(label, text) pairs about one thing."""

    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """(what it made, command line) pairs."""

    rows: Sequence[tuple[str, str]]


Block = str | Bullets | Table | Facts | Commands


@dataclass(frozen=True)
class Section:
    """``key`` names the section for links, and for the pictures that belong to it."""

    key: str
    heading: str
    blocks: Sequence[Block]


# --- words ---------------------------------------------------------------------------------------
def percent(fraction: float | None, digits: int = 1) -> str:
    return "undefined" if fraction is None else f"{100 * fraction:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """With its sign, and without one for what rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(
    bounds: Sequence[float | None] | None, scale: float = 1.0, digits: int = 3, sign: bool = False
) -> str:
    """ "low to high", or "undefined"."""
    if not bounds or any(bound is None or not math.isfinite(bound) for bound in bounds):
        return "undefined"
    values = [scale * bound for bound in bounds]
    return " to ".join(signed(value, digits) if sign else f"{value:.{digits}f}" for value in values)


def with_interval(
    value: float | None, bounds: Sequence[float | None] | None, scale: float = 1.0, digits: int = 3
) -> str:
    """A number with its interval in brackets, for a cell: "80.1 (75.4–84.8)"; a dash where there is none."""
    if value is None:
        return "–"
    return f"{scale * value:.{digits}f} ({interval(bounds, scale, digits).replace(' to ', '–')})"


def p_value(p: float | None) -> str:
    if p is None:
        return "p undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
