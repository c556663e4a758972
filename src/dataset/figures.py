"""Figures of the dataset, for the notebooks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.plot_style import PALETTE, new_figure, panels, styled, tint


@styled
def stacked_counts(counts: pd.DataFrame, title: str, x_label: str) -> Figure:
    """Draw horizontal stacked bars: a bar per row of ``counts``, a colour per column, the numbers inside."""
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
    """Draw how often each whole number occurs in ``values``; the axis of the counts is logarithmic."""
    figure = new_figure(8.0, 3.8)
    ax = panels(figure, 1, 1)[0]
    numbers, counts = np.unique(np.asarray(values, dtype=int), return_counts=True)
    ax.bar(numbers, counts, 0.8, color=tint(PALETTE[0], 0.25), linewidth=0)
    ax.set(title=title, xlabel=x_label, ylabel=f"{y_label} (log scale)", yscale="log", ylim=(0.7, None))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
