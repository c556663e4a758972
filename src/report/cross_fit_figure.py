"""The figure of a cross-fitted study: ``comparison.json`` in, matplotlib ``Figure`` out; no computing."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from arms.figures import arm_colours
from common.plot_style import INK, new_figure, panels, styled
from comparison.cross_fit_file_formats import CrossFitComparison
from comparison.file_formats import metric_entry
from report.blocks import scale_of, title_in_points
from stats.metric_registry import compared_metrics

CAPTION = (
    "differences between arms, pooled (large, with their 95 % interval) and of each fold (small); the band is the "
    "margin"
)


@styled
def draw_cross_fit(content: CrossFitComparison) -> Figure:
    """Draw each pair's differences, a column per compared metric: pooled with interval, and of each fold."""
    metrics, pairs = compared_metrics(), content["pairs"]
    colours = arm_colours(list(content["arms"]))
    figure = new_figure(4.8 * len(metrics), 1.3 + 0.8 * len(pairs))
    axes = panels(figure, 1, len(metrics), sharey=True)
    for ax, metric in zip(axes, metrics, strict=True):
        scale, _ = scale_of(metric)
        margin = scale * content["settings"]["margin"]
        ax.axvspan(-margin, margin, color=INK, alpha=0.08, lw=0)
        ax.axvline(0, color=INK, lw=0.8)
        for place, pair in enumerate(pairs):
            difference, ci95, by_fold = (metric_entry(pair, metric, w) for w in ("difference", "ci95", "by_fold"))
            colour = colours[pair["b"]]
            below = np.full(len(by_fold), place + 0.22)
            ax.plot(scale * np.array(by_fold), below, "o", ms=3.5, mfc="none", color=colour)
            if ci95 is not None:
                ax.plot(scale * np.array(ci95), [place, place], color=colour, lw=2)
            if difference is not None:
                ax.plot(scale * difference, place, "o", ms=7, color=colour)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.set_xlabel(f"difference in {title_in_points(metric)}")
        ax.set_yticks(range(len(pairs)), [f"{pair['b']}\nminus {pair['a']}" for pair in pairs])
        ax.set_ylim(len(pairs) - 0.5, -0.5)
    return figure
