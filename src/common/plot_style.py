"""The style of every figure, and the figures of the dataset.

No function computes a metric, chooses a path or touches pyplot's global state: each draws into a
``Figure`` of its own, in seaborn's style held in a context, with its colour-blind-safe palette.
``utils.save_figure`` writes what is returned here.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run ``draw`` under the project's style, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        seaborn_style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
        with mpl.rc_context(seaborn_style | STYLE):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made at the first draw: make them in this style
        return figure

    return wrapper


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure of ``width`` x ``height`` inches that belongs to nobody else."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Figure, rows: int, columns: int, **kwargs) -> list[Axes]:
    """``rows`` x ``columns`` axes without the upper and right spine, row by row."""
    axes = list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)
    for ax in axes:
        sns.despine(ax=ax)
    return axes


def set_title(figure: Figure, title: str) -> None:
    """A heading over the whole figure, wrapped to its width."""
    characters = int(figure.get_figwidth() * 10)
    figure.suptitle(textwrap.fill(title, characters), x=0.01, ha="left")


def legend_beside(ax: Axes) -> None:
    """The legend to the right of ``ax``, where it hides nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)


def tint(colour: tuple, share: float) -> tuple:
    """``colour`` mixed with ``share`` of white."""
    return tuple(channel + (1 - channel) * share for channel in colour)


# --- the dataset -----------------------------------------------------------------------------------
@styled
def stacked_counts(counts: pd.DataFrame, title: str, x_label: str) -> Figure:
    """Horizontal stacked bars: a bar per row of ``counts``, a colour per column, the numbers inside."""
    figure = new_figure(9.0, 1.5 + 0.55 * len(counts))
    ax = panels(figure, 1, 1)[0]
    y, left = np.arange(len(counts)), np.zeros(len(counts))
    readable = 0.04 * counts.sum(axis=1).max()  # a narrower piece has no room for its number
    for column, colour in zip(counts.columns, PALETTE, strict=False):
        values = counts[column].to_numpy(dtype=float)
        bars = ax.barh(y, values, 0.7, left=left, color=tint(colour, 0.25), label=str(column), linewidth=0)
        numbers = [f"{value:,.0f}" if value > readable else "" for value in values]
        ax.bar_label(bars, numbers, label_type="center", fontsize="small", color="black")
        left += values
    ax.set_yticks(y, [str(name) for name in counts.index])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlabel=x_label, title=title)
    figure.legend(loc="outside lower left", frameon=False, ncols=min(4, len(counts.columns)))
    return figure


@styled
def count_histogram(values: Sequence[int], title: str, x_label: str, y_label: str) -> Figure:
    """How often each whole number occurs in ``values``: one bar per number, logarithmic count axis."""
    figure = new_figure(8.0, 3.8)
    ax = panels(figure, 1, 1)[0]
    numbers, counts = np.unique(np.asarray(values, dtype=int), return_counts=True)
    ax.bar(numbers, counts, 0.8, color=tint(PALETTE[0], 0.25), linewidth=0)
    ax.set(title=title, xlabel=x_label, ylabel=f"{y_label} (log scale)", yscale="log", ylim=(0.7, None))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
