"""The parts of a report, for text file and page alike: blocks in sections, and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stats.metric_registry import Metric


# --- blocks ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of cells under column headings; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Pairs of a label and a text about one thing."""

    title: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Pairs of what a command does and its command line."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Links:
    """Pairs of a file beside the report and what it holds."""

    rows: Sequence[tuple[str, str]]


Block = str | Bullets | Table | Facts | Commands | Links


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; ``key`` names it for links and for the pictures that belong to it.

    ``folded``: the page shows these words, and the blocks on a click; "" shows the blocks at once.
    """

    key: str
    heading: str
    blocks: Sequence[Block]
    folded: str = ""


# --- numbers in words ----------------------------------------------------------------------------
def percent(fraction: float | None, digits: int = 1) -> str:
    """Write a fraction in percent: "24.9 %"."""
    return "undefined" if fraction is None else f"{100 * fraction:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    """Write a number with a fixed number of digits."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """Write a number with its sign; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(bounds: Sequence[float | None] | None, scale: float = 1.0, digits: int = 3, sign: bool = False) -> str:
    """Write an interval: "low to high", or "undefined"."""
    values = [scale * bound for bound in bounds or [] if bound is not None and math.isfinite(bound)]
    if len(values) < 2:
        return "undefined"
    return " to ".join(signed(value, digits) if sign else f"{value:.{digits}f}" for value in values)


def with_interval(
    value: float | None, bounds: Sequence[float | None] | None, scale: float = 1.0, digits: int = 3
) -> str:
    """Write a cell: a number with its interval in brackets, "80.1 (75.4–84.8)"; a dash without a number."""
    if value is None:
        return "–"
    return f"{scale * value:.{digits}f} ({interval(bounds, scale, digits).replace(' to ', '–')})"


def p_value(p: float | None) -> str:
    """Write a p value: "p = 0.140"."""
    if p is None:
        return "p undefined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(n: int, noun: str) -> str:
    """Write a number of things: "1,200 images"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def capital(text: str) -> str:
    """Write the first letter as a capital."""
    return text[:1].upper() + text[1:]


# --- metrics in words ----------------------------------------------------------------------------
def scale_of(metric: Metric) -> tuple[float, int]:
    """Return the factor and the digits with which the values of a metric are written."""
    return (100.0, 1) if metric.percent else (1.0, 3)


def column_of(metric: Metric) -> str:
    """Return the heading of a metric's column, with its unit."""
    return f"{metric.heading}, %" if metric.percent else metric.heading


def title_in_points(metric: Metric) -> str:
    """Return the title of a metric, with the unit of its differences."""
    return f"{metric.title}, points" if metric.percent else metric.title


def score(metric: Metric, value: float | None) -> str:
    """Write a value of a metric: "80.1 %", "0.812" where not in percent."""
    return percent(value) if metric.percent else decimal(value)


def change(metric: Metric, difference: float | None, bounds: Sequence[float | None] | None) -> str:
    """Write a difference: "−2.7 points, 95 % CI −6.5 to +0.9"; "+0.014, 95 % CI ..." where not in percent."""
    if difference is None:
        return "difference undefined"
    scale, digits = scale_of(metric)
    unit = " points" if metric.percent else ""
    return f"{signed(scale * difference, digits)}{unit}, 95 % CI {interval(bounds, scale, digits, sign=True)}"


def amount(metric: Metric, value: float) -> str:
    """Write a size of a difference: "6.8 points of accuracy", "0.047 of AUROC"."""
    scale, digits = scale_of(metric)
    return f"{scale * value:.{digits}f}{' points' if metric.percent else ''} of {metric.title}"
