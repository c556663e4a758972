"""The style of every figure: size, axes, colours, titles.

Figures are drawn in the files whose names end in figures.py or figure.py. None of their functions computes
a metric, chooses a path or touches pyplot's global state: each draws into a ``Figure`` of its own, in
seaborn's style with its colour-blind-safe palette. ``utils.save_figure`` writes what they return.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

DPI = 150
PALETTE = sns.color_palette("colorblind")
INK = "0.25"
STYLE = {
    "font.family": "DejaVu Sans",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "axes.linewidth": 1.0,
    "grid.color": "0.88",
    "grid.linewidth": 0.8,
    "figure.titleweight": "bold",
    "figure.titlesize": "large",
}


Parameters = ParamSpec("Parameters")
Colour = tuple[float, float, float]  # red, green, blue, each 0 to 1


def styled(draw: Callable[Parameters, Figure]) -> Callable[Parameters, Figure]:
    """Run ``draw`` under the project's style, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Figure:
        seaborn_style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
        with mpl.rc_context(seaborn_style | STYLE):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made at the first draw: make them in this style
        return figure

    return wrapper


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed", "tight"] | None = "constrained"
) -> Figure:
    """Make an empty figure of ``width`` x ``height`` inches that belongs to nobody else."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(figure: FigureBase, rows: int, columns: int, **kwargs: Any) -> list[Axes]:
    """Make ``rows`` x ``columns`` axes without the upper and right spine, row by row."""
    axes = list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)
    for ax in axes:
        sns.despine(ax=ax)
    return axes


def set_title(figure: Figure, title: str) -> None:
    """Write a heading over the whole figure, wrapped to its width."""
    characters = int(figure.get_figwidth() * 10)
    figure.suptitle(textwrap.fill(title, characters), x=0.01, ha="left")


def legend_beside(ax: Axes) -> None:
    """Put the legend to the right of ``ax``, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)


def tint(colour: Colour, share: float) -> Colour:
    """Mix ``colour`` with ``share`` of white."""
    red, green, blue = (channel + (1 - channel) * share for channel in colour)
    return red, green, blue
