"""Figures that reviewers ask for: decision curves, differences of arms within subgroups, robustness.

As in ``comparison_figures``, nothing is computed here, and an arm has one colour throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from arms.figures import arm_colours
from common.plot_style import INK, new_figure, panels, styled, tint
from comparison.decision_curves import CALIBRATED
from comparison.file_formats import Comparison, metric_key
from comparison.reviewer_file_formats import DecisionCurves, DecisionDifference, Robustness, SubgroupsOfPair
from report.blocks import scale_of, title_in_points
from report.comparison_figures import BAND, WIDTH, arm_styles, write_heading
from report.verdict import headline_pairs
from stats.metric_registry import Metric, compared_metrics
from stats.paired_tests import points

LINES: tuple[Any, ...] = ("-", "--", "-.", ":")  # of one arm after the other
MOST_PAIRS = 6  # panels of differences


# --- decision curves -------------------------------------------------------------------------------
@styled
def decision_curve(comparison: Comparison) -> Figure:
    """Draw the net benefit of every arm; below it the difference of up to six pairs with its pointwise band.

    Of more pairs, those that answer the question and the first of the others.
    """
    curves = comparison["decision_curves"]
    asked = [{pair["a"], pair["b"]} for pair in headline_pairs(comparison)]
    places = range(len(curves["pairs"]))
    asked_first = sorted(places, key=lambda n: {curves["pairs"][n]["a"], curves["pairs"][n]["b"]} not in asked)
    pairs = [curves["pairs"][n] for n in sorted(asked_first[:MOST_PAIRS])]
    rows = -(-len(pairs) // 2)
    figure = new_figure(WIDTH, 4.6 + 0.24 * len(curves["arms"]) + 1.75 * rows)
    grid = figure.add_gridspec(1 + rows, 2, height_ratios=[2.4, *[1] * rows])
    _draw_curves(figure.add_subplot(grid[0, :]), curves)
    axes = [figure.add_subplot(grid[1 + number // 2, number % 2]) for number in range(len(pairs))]
    bounds = [bound for pair in pairs for ci in pair["net_benefit_ci95_pointwise"] for bound in ci or []]
    reach = max([0.5, *(abs(100 * bound) for bound in bounds)])
    colours = arm_colours(list(comparison["arms"]))
    for ax, pair in zip(axes, pairs, strict=True):
        _draw_difference(ax, curves["thresholds"], pair, colours[pair["b"]])
        ax.set(ylim=(-1.05 * reach, 1.05 * reach))
    for ax in axes[-2:]:
        ax.set_xlabel("Threshold")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colours[name], linestyle=LINES[i % len(LINES)], linewidth=2, label=name)
        for i, name in enumerate(curves["arms"])
    ]
    handles += [
        Line2D([], [], color="0.6", linestyle="-", linewidth=1, label="calling every image"),
        Line2D([], [], color=INK, linestyle="-", linewidth=1, label="calling none"),
        Patch(color="0.8", label="difference per 100 images: pointwise 95 % CI, by patient"),
    ]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2, fontsize="small")
    kind = "calibrated probabilities" if curves["probabilities"] == CALIBRATED else "probabilities as trained"
    write_heading(figure, f"Decision curves, {kind}", comparison["test_set"])
    return figure


def _draw_curves(ax: Axes, curves: DecisionCurves) -> None:
    thresholds, colours = curves["thresholds"], arm_colours(list(curves["arms"]))
    ax.axhline(0, color=INK, linewidth=1)
    for row in {tuple(curve["treat_all"]): None for curve in curves["arms"].values()}:
        ax.plot(thresholds, np.multiply(row, 100), color="0.6", linewidth=1)
    highest = 0.0
    for i, (name, curve) in enumerate(curves["arms"].items()):
        values = np.multiply(curve["net_benefit"], 100)
        highest = max(highest, *values)
        ax.plot(thresholds, values, color=colours[name], linestyle=LINES[i % len(LINES)], linewidth=2)
    # Far below 0, calling every image is of no interest.
    ax.set(title="Net benefit", ylabel="Net true positives\nper 100 images", xlabel="Threshold")
    ax.set(ylim=(-0.15 * max(highest, 1.0), 1.1 * max(highest, 1.0)), xlim=(thresholds[0], thresholds[-1]))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="both")


def _draw_difference(
    ax: Axes, thresholds: Sequence[float], pair: DecisionDifference, colour: tuple[float, float, float]
) -> None:
    missing = float("nan")
    values = [missing if value is None else 100 * value for value in pair["net_benefit_difference"]]
    bounds = [ci or [missing] * 2 for ci in pair["net_benefit_ci95_pointwise"]]
    low, high = 100 * np.transpose(bounds)
    ax.fill_between(thresholds, low, high, color=tint(colour, 0.75), linewidth=0)
    ax.axhline(0, color=INK, linewidth=1)
    ax.plot(thresholds, values, color=colour, linewidth=1.6)
    ax.set_title(f"{pair['b']} −\n{pair['a']}", fontsize="small")
    ax.set(xlim=(thresholds[0], thresholds[-1]))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(visible=True, axis="both")


# --- subgroups -------------------------------------------------------------------------------------
@styled
def subgroup_differences(comparison: Comparison, pairs: Sequence[SubgroupsOfPair]) -> Figure:
    """Draw a forest plot: a row of panels per pair, a column per compared metric, a line per subgroup."""
    metrics = compared_metrics()
    heights = [0.75 + 0.36 * len(pair["differences"]) for pair in pairs]
    figure = new_figure(WIDTH, 1.3 + sum(heights))
    axes = panels(figure, len(pairs), len(metrics), sharey="row", sharex="col", gridspec_kw={"height_ratios": heights})
    for column, metric in enumerate(metrics):
        reach = _reach(pairs, metric, comparison["settings"]["margin"])
        axes[column].set_xlim(-reach, reach)
    colours = arm_colours(list(comparison["arms"]))
    for number, pair in enumerate(pairs):
        own = axes[number * len(metrics) : (number + 1) * len(metrics)]
        for ax, metric in zip(own, metrics, strict=True):
            _draw_subgroups(ax, pair, metric, comparison["settings"]["margin"], colours[pair["b"]])
        labels = [f"{row['group']} {row['value']}\nn = {row['n_images']:,}" for row in pair["differences"]]
        own[0].set_yticks(range(len(labels)), labels, fontsize="small")
        own[0].set_ylim(len(labels) - 0.5, -0.5)
        own[0].set_title(f"{pair['b']} − {pair['a']}", fontsize="medium", fontweight="bold")
    margin = points(comparison["settings"]["margin"])
    handles = [
        Line2D([], [], color=INK, marker="o", linewidth=2.2, label="difference with 95 % CI, by patient"),
        Patch(color=BAND, label=f"margin: within {margin}"),
    ]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2, fontsize="small")
    write_heading(figure, "Differences between arms within subgroups (exploratory)", comparison["test_set"])
    return figure


def _draw_subgroups(
    ax: Axes, pair: SubgroupsOfPair, metric: Metric, margin: float, colour: tuple[float, float, float]
) -> None:
    scale, _ = scale_of(metric)
    ax.axvspan(-scale * margin, scale * margin, color=BAND, linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=1, zorder=1)
    rows: Sequence[Mapping[str, Any]] = pair["differences"]
    for y, row in enumerate(rows):
        if y and row["group"] != rows[y - 1]["group"]:
            ax.axhline(y - 0.5, color="0.55", linewidth=0.8, zorder=0)
        value, ci = (row[metric_key(metric, what)] for what in ("difference", "ci95"))
        if value is None or ci is None:
            ax.text(0, y, "undefined", fontsize="small", ha="center", va="center")
            continue
        ax.plot(np.multiply(ci, scale), [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(scale * value, y, "o", color=colour, markersize=6)
    ax.set(xlabel=f"Difference in {title_in_points(metric)}")
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelbottom=True)
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x")
    ax.xaxis.set_major_formatter(lambda place, _: f"{place:+.10g}".replace("-", "−") if place else "0")


def _reach(pairs: Sequence[SubgroupsOfPair], metric: Metric, margin: float) -> float:
    """Return how far from 0 the axis of a metric goes: all intervals and the margin are on it."""
    rows: list[Mapping[str, Any]] = [row for pair in pairs for row in pair["differences"]]
    bounds = [abs(bound) for row in rows for bound in row[metric_key(metric, "ci95")] or []]
    return scale_of(metric)[0] * max(1.6 * margin, *(1.08 * bound for bound in bounds), 0.0)


# --- robustness ------------------------------------------------------------------------------------
@styled
def robustness(comparison: Comparison, found: Robustness) -> Figure:
    """Draw what each perturbation changes of each compared metric: a line per perturbation, an interval per arm."""
    metrics, names = compared_metrics(), list(found["unperturbed"])
    rows = found["perturbations"]
    figure = new_figure(WIDTH, 1.5 + len(rows) * (0.2 + 0.11 * len(names)))
    axes = panels(figure, 1, len(metrics), sharey=True)
    styles = arm_styles(list(comparison["arms"]))
    spread = 0.62 * (np.arange(len(names)) - (len(names) - 1) / 2) / max(1, len(names) - 1)
    for ax, metric in zip(axes, metrics, strict=True):
        scale, _ = scale_of(metric)
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        for y, row in enumerate(rows):
            for offset, name in zip(spread, names, strict=True):
                change = cast(dict[str, Any], row["arms"][name])[metric.name]
                if change["change"] is None:
                    continue
                bounds = np.multiply(change["ci95"] or [change["change"]] * 2, scale)
                ax.plot(bounds, [y + offset] * 2, color=styles[name]["color"], linewidth=2)
                ax.plot(scale * change["change"], y + offset, linestyle="", markersize=4.5, **styles[name])
            ax.axhline(y + 0.5, color="0.9", linewidth=0.8, zorder=0)
        ax.set_xlabel(f"Change in {title_in_points(metric)}")
        ax.grid(visible=False, axis="y")
        ax.grid(visible=True, axis="x")
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize="small")
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = [Line2D([], [], linewidth=2, markersize=5, label=name, **styles[name]) for name in names]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=min(3, len(handles)))
    write_heading(figure, "Change of scores under small changes of the images, 95 % CI by patient", found)
    return figure
