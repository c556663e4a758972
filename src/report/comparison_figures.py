"""Figures of the comparison: the content of ``comparison.json`` in, matplotlib ``Figure`` out.

Nothing is computed here. All are one column of about the width of a page of text, so that they can still be
read when a phone scales them down. An arm has one colour and one marker throughout: colour never tells arms
apart alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from arms.figures import arm_colours
from arms.registry import ARMS
from common.plot_style import INK, new_figure, panels, styled, tint
from comparison.file_formats import Calibration, ComparedTestSet, Comparison, PairResult, metric_entry
from comparison.reviewer_file_formats import Robustness
from report.blocks import capital, interval, percent, scale_of, signed
from stats.metric_registry import METRICS, Metric, compared_metrics
from stats.metrics import ReliabilityBin
from stats.paired_tests import BETTER, WORSE, points
from stats.subgroups import SubgroupRow

WIDTH = 6.4  # inches
MARKERS = "osD^vPX*"
BAND = "#d6e6f2"  # the margin
SHARE_TICKS = np.linspace(0, 1, 6)


def write_heading(figure: Figure, what: str, images: ComparedTestSet | Robustness) -> None:
    """Write what the figure shows, and below it on how many images and patients it rests."""
    size = (
        f"n = {images['n_images']:,} test images of {images['n_patients']:,} patients, "
        f"{images['n_positive']:,} positive"
    )
    figure.suptitle(f"{what}\n{size}", x=0.01, ha="left", fontsize="medium")


def arm_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and marker of each arm, as keyword arguments of ``plot``."""
    colours = arm_colours(arms)
    return {
        arm: {"color": colours[arm], "marker": MARKERS[i % len(MARKERS)]}
        for i, arm in enumerate(dict.fromkeys([*ARMS, *arms]))
        if arm in arms
    }


# --- differences -----------------------------------------------------------------------------------
@styled
def differences(comparison: Comparison) -> Figure:
    """Draw every pair's difference with its interval against the margin, a panel per compared metric."""
    pairs, metrics = comparison["pairs"], compared_metrics()
    figure = new_figure(WIDTH, 1.9 + len(metrics) * (0.62 * len(pairs) + 0.75))
    for ax, metric in zip(panels(figure, len(metrics), 1), metrics, strict=True):
        _difference_panel(ax, comparison, metric)
        ax.set_title(capital(metric.title), fontweight="bold")
        unit = "percentage points" if metric.percent else metric.title
        ax.set_xlabel(f"Difference in {unit}{_smallest_found(pairs, metric)}")
    handles = [
        Line2D([], [], color=INK, marker="o", linewidth=2.6, label="difference with 95 % CI, by patient"),
        Patch(color=BAND, label=f"margin: within {points(comparison['settings']['margin'])}"),
    ]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    what = "Differences between arms, called positive from a probability of 0.5"
    write_heading(figure, what, comparison["test_set"])
    return figure


def _smallest_found(pairs: Sequence[PairResult], metric: Metric) -> str:
    """Return the smallest detectable differences of all pairs in words, for an axis."""
    scale, digits = scale_of(metric)
    values = (metric_entry(pair, metric, "minimum_detectable_difference") for pair in pairs)
    found = sorted(scale * value for value in values if value is not None)
    if not found:
        return ""
    shown = dict.fromkeys(f"{value:.{digits}f}" for value in (found[0], found[-1]))
    return f" (smallest found with 80 % power: {' to '.join(shown)})"


def _difference_panel(ax: Axes, comparison: Comparison, metric: Metric) -> None:
    """Draw one metric: per pair a line of words, below it the interval; 0 and the margin run through all."""
    pairs, (scale, digits) = comparison["pairs"], scale_of(metric)
    margin = scale * comparison["settings"]["margin"]
    colours = arm_colours(list(comparison["arms"]))
    ax.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    ax.axvline(0, color=INK, linewidth=1, zorder=1)
    reach = 1.6 * margin
    for row, pair in enumerate(pairs):
        difference, ci, verdict = (metric_entry(pair, metric, what) for what in ("difference", "ci95", "verdict"))
        # A white strip behind the words: neither margin nor grid runs through them.
        ax.axhspan(row - 0.66, row - 0.2, color="white", linewidth=0, zorder=1.5)
        _row_text(ax, row, 0.0, "left", f"{pair['b']} − {pair['a']}", fontweight="bold")
        if difference is None or ci is None or None in ci:
            _row_text(ax, row, 1.0, "right", "undefined")
            continue
        numbers = f"{signed(scale * difference, digits)} ({interval(ci, scale, digits, sign=True)})"
        ax.plot(np.multiply(ci, scale), [row, row], color=colours[pair["b"]], linewidth=2.6, zorder=2)
        ax.plot(scale * difference, row, "o", color=colours[pair["b"]], markersize=7, zorder=3)
        weight = "bold" if verdict in (BETTER, WORSE) else "normal"
        _row_text(ax, row, 1.0, "right", f"{numbers}  {verdict}", fontweight=weight)
        reach = max(reach, 1.08 * abs(scale * ci[0]), 1.08 * abs(scale * ci[1]))
    ax.set(xlim=(-reach, reach), ylim=(len(pairs) - 0.68, -0.66), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.grid(visible=True, axis="x")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.10g}".replace("-", "−") if value else "0")


def _row_text(ax: Axes, row: float, x: float, side: str, text: str, **style: Any) -> None:
    """Write words above the interval of ``row``."""
    place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": side, "va": "center", "zorder": 4}
    ax.text(x, row - 0.43, text, fontsize="small", **place, **style)


# --- curves ----------------------------------------------------------------------------------------
@styled
def roc_pr(curves: Mapping[str, Mapping[str, Any]], comparison: Comparison) -> Figure:
    """Draw the ROC and precision-recall curves of all arms on the test images.

    ``curves`` maps an arm to {"fpr", "tpr", "precision", "recall"}, each a sequence of fractions.
    """
    arms = comparison["arms"]
    figure = new_figure(WIDTH, 3.45 + 0.24 * len(curves))
    roc, pr = panels(figure, 1, 2)
    styles = arm_styles(list(arms))
    handles = []
    for i, (arm, curve) in enumerate(curves.items()):
        style = {"color": styles[arm]["color"], "linewidth": 2, "linestyle": ("-", "--", "-.", ":")[i % 4]}
        roc.plot(curve["fpr"], curve["tpr"], **style)
        pr.plot(curve["recall"], curve["precision"], drawstyle="steps-post", **style)
        row: Mapping[str, Any] = arms[arm]
        bounds = interval(row["auroc_ci95_image_level"])
        label = f"{arm}: AUROC {row['auroc']:.3f} (95 % CI, image-level: {bounds}), AP {row['auprc']:.3f}"
        handles.append(Line2D([], [], label=label, **style))
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    prevalence = comparison["test_set"]["prevalence"]
    pr.axhline(prevalence, color="0.45", linewidth=1, linestyle=":")
    pr.text(0.02, prevalence - 0.02, f"prevalence {100 * prevalence:.1f} %", va="top", fontsize="small")
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="Sensitivity")
    pr.set(title="Precision and recall", xlabel="Recall (sensitivity)", ylabel="Precision (PPV)")
    for ax in (roc, pr):
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xticks=SHARE_TICKS, yticks=SHARE_TICKS, aspect="equal")
        ax.grid(visible=True, axis="both")
    figure.legend(handles=handles, loc="outside lower left", frameon=False, fontsize="small")
    write_heading(figure, "ROC and precision-recall", comparison["test_set"])
    return figure


@styled
def calibration(comparison: Comparison) -> Figure:
    """Draw a panel per arm: share of positives against mean probability, before and after the temperature.

    Bars below show how many images each bin holds.
    """
    arms = {name: arm for name, arm in comparison["arms"].items() if arm["calibration"]["bins_before"]}
    columns = min(2, len(arms))
    rows = -(-len(arms) // columns)
    figure = new_figure(WIDTH if columns == 2 else 4.8, 1.5 + 4.1 * rows)
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, gridspec_kw={"height_ratios": [3.2, 1] * rows}
    )
    styles = arm_styles(list(comparison["arms"]))
    for i, (name, arm) in enumerate(arms.items()):
        top, bottom = grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        _reliability(top, bottom, name, arm["calibration"], styles[name]["color"])
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
    for i in range(len(arms), rows * columns):
        for ax in grid[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]:
            ax.set_axis_off()
    handles = [
        Line2D([], [], color="0.6", linestyle=":", label="perfect"),
        Line2D([], [], color=INK, linestyle="--", marker="o", markerfacecolor="white", label="as trained"),
        Line2D([], [], color=INK, marker="o", label="after the temperature"),
    ]
    if not any(arm["calibration"]["bins_after"] for arm in arms.values()):
        handles.pop()
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=3)
    write_heading(figure, "Calibration", comparison["test_set"])
    return figure


def _reliability(top: Axes, bottom: Axes, name: str, content: Calibration, colour: tuple[float, float, float]) -> None:
    """Draw one arm: the curves above, the number of images of each bin below."""
    top.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":")
    words = [name, f"ECE {content['before']['ece']:.3f} as trained"]
    # Wide and hollow, so that the second histogram can stand in front.
    series: list[tuple[list[ReliabilityBin], float, Any, str]] = [(content["bins_before"], 0.06, "white", "--")]
    if content["bins_after"] and content["after"]:
        series.append((content["bins_after"], 0.02, colour, "-"))
        words.append(f"ECE {content['after']['ece']:.3f} temperature {content['temperature']:.2f}")
    else:
        words.append("no temperature")
    for bins, width, face, line in series:
        x = [row["mean_probability"] for row in bins]
        y = [row["share_positive"] for row in bins]
        top.plot(x, y, color=colour, marker="o", markersize=5, linewidth=1.8, linestyle=line,
                 markerfacecolor=face)  # fmt: skip
        bottom.bar(x, [row["n"] for row in bins], width, facecolor=face, edgecolor=colour, linewidth=1.2)
    top.set_title("\n".join(words), fontsize="small")
    ticks = {"xticks": SHARE_TICKS, "xlim": (-0.03, 1.03)}
    top.set(ylabel="Share of positives", yticks=SHARE_TICKS, ylim=(-0.03, 1.03), **ticks)
    bottom.set(xlabel="Predicted probability", ylabel="Images", **ticks)
    bottom.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    bottom.tick_params(labelbottom=True)


# --- counts ----------------------------------------------------------------------------------------
@styled
def confusion(comparison: Comparison) -> Figure:
    """Draw a panel per arm: counts and shares of each row (truth) called negative and positive at 0.5."""
    arms = comparison["arms"]
    columns = min(2, len(arms))
    rows = -(-len(arms) // columns)
    figure = new_figure(WIDTH if columns == 2 else 4.6, 0.9 + 2.7 * rows)
    axes = panels(figure, rows, columns)
    colours = arm_colours(list(arms))
    for ax, (name, arm) in zip(axes, arms.items(), strict=False):
        counts = np.asarray(arm["confusion_matrix"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            face = tint(colours[name], 1 - 0.75 * share)
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=face, edgecolor="white"))
            ax.text(column, row, f"{count:,}", ha="center", va="bottom", fontweight="bold", color="black")
            ax.text(column, row + 0.05, f"{100 * share:.1f} %", ha="center", va="top", fontsize="small")
        accuracy = f"accuracy {percent(metric_entry(arm, METRICS['accuracy']))}"
        ax.set_title(f"{name}: {accuracy}", fontsize="small")
        sums = counts.sum(axis=1)
        ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), aspect="equal", xlabel="Called", ylabel="Truth")
        ax.set_xticks([0, 1], ["negative", "positive"])
        ax.set_yticks([0, 1], [f"negative\n{sums[0]:,}", f"positive\n{sums[1]:,}"])
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    for ax in axes[len(arms) :]:
        ax.set_axis_off()
    write_heading(figure, "Right and wrong calls, positive from a probability of 0.5", comparison["test_set"])
    return figure


# --- subgroups -------------------------------------------------------------------------------------
@styled
def subgroups(comparison: Comparison) -> Figure:
    """Draw a forest plot: AUROC by view, sex and age; below it, by original class, the share called correctly.

    At least one arm must have subgroups.
    """
    arms = {name: arm["subgroups"] for name, arm in comparison["arms"].items() if arm["subgroups"]}
    parts = [
        (_rows_of(arms, mixed=True), "auroc", "AUROC by view, sex and age", "AUROC"),
        (_rows_of(arms, mixed=False), None, "Called correctly at 0.5, by original class",
         "Sensitivity (Lung Opacity) or specificity (other classes)"),
    ]  # fmt: skip
    parts = [part for part in parts if part[0]]
    heights = [len(rows) * (0.3 + 0.15 * len(arms)) for rows, *_ in parts]
    figure = new_figure(WIDTH, 1.6 + sum(heights) + 0.7 * len(parts))
    axes = panels(figure, len(parts), 1, gridspec_kw={"height_ratios": heights})
    styles = arm_styles(list(comparison["arms"]))
    for ax, (rows, metric, title, label) in zip(axes, parts, strict=True):
        _forest(ax, arms, rows, metric, styles)
        ax.set(title=title, xlabel=label)
    handles = [Line2D([], [], linewidth=2, markersize=6, label=name, **styles[name]) for name in arms]
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=min(4, len(handles)))
    write_heading(figure, "Subgroups, with image-level 95 % CI", comparison["test_set"])
    return figure


def _rows_of(arms: Mapping[str, Sequence[SubgroupRow]], *, mixed: bool) -> list[tuple[str, str]]:
    """Return (group, value) in the order of the arms' tables; ``mixed``: those that hold both labels."""
    found = {(row["group"], row["value"]): None for rows in arms.values() for row in rows}
    return [key for key in found if (key[0] != "class") is mixed]


def _forest(
    ax: Axes,
    arms: Mapping[str, Sequence[SubgroupRow]],
    keys: Sequence[tuple[str, str]],
    metric: str | None,
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    labels = []
    spread = 0.62 * (np.arange(len(arms)) - (len(arms) - 1) / 2) / max(1, len(arms) - 1)
    for y, key in enumerate(keys):
        rows: dict[str, Mapping[str, Any]] = {
            name: row for name, table in arms.items() for row in table if (row["group"], row["value"]) == key
        }
        some = next(iter(rows.values()))  # arms that are compared were tested on the same images
        labels.append(_subgroup_label(some))
        # One class holds positives only or negatives only: the one rate that is defined.
        rate = metric or ("sensitivity" if some["n_positive"] else "specificity")
        for offset, name in zip(spread, arms, strict=True):
            if name in rows:
                _draw_interval(ax, rows[name], rate, y + offset, styles[name])
        if all(row[rate] is None for row in rows.values()):
            place = ax.get_yaxis_transform()
            ax.text(0.02, y, "too few images", transform=place, va="center", fontsize="small", color=INK)
    for y in range(len(keys) - 1):
        new_group = keys[y][0] != keys[y + 1][0]
        ax.axhline(y + 0.5, color="0.55" if new_group else "0.9", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(labels)), labels, fontsize="small")
    ax.set(ylim=(len(keys) - 0.5, -0.5), xlim=(None, 1.02))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x")


def _draw_interval(ax: Axes, row: Mapping[str, Any], rate: str, y: float, style: Mapping[str, Any]) -> None:
    value, ci = row[rate], row[f"{rate}_ci95_image_level"] or []
    if value is None:
        return
    if len(ci) == 2 and None not in ci:
        ax.plot(ci, [y, y], color=style["color"], linewidth=2, solid_capstyle="butt")
    ax.plot(value, y, markersize=6, linestyle="", **style)


def _subgroup_label(row: Mapping[str, Any]) -> str:
    """Write two lines: the group, and its size."""
    name = row["value"] if row["group"] == "class" else f"{row['group']} {row['value']}"
    positive = "" if row["group"] == "class" else f", {row['n_positive']:,} positive"
    return textwrap.fill(name, 24) + f"\nn = {row['n_images']:,}{positive}"
