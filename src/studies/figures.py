"""Figures of studies: ``learning_curve.json`` or ``dose_response.json`` in, matplotlib ``Figure`` out; no computing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from arms.figures import arm_colours
from arms.registry import BASELINE, arm_order
from common.plot_style import INK, new_figure, panels, styled
from report.comparison_figures import BAND, MARKERS
from stats.metric_registry import Metric, compared_metrics
from stats.paired_tests import points as margin_words
from studies.file_formats import CurvePoint, CurveTestSet, DosePoint, DoseResponse, LearningCurve

SPREAD = 0.045  # between arms of one fraction, in powers of ten of the axis
MARGIN = 0.32  # left and right of the points, likewise
CAPTION_WIDTH = 180  # characters
COLUMN_WIDTH = 4.8  # inches
Style = dict[str, Any]  # keywords of ``Axes.plot``


@styled
def draw_learning_curve(content: LearningCurve) -> Figure:
    """Draw each compared metric in a column, against the number of real training patients (log axis).

    Above: the value of each arm with its interval; below: the paired differences of the same fractions, with
    the margin as a band.
    """
    metrics = sorted(compared_metrics(), key=lambda metric: metric.percent)
    points, differences = content["points"], content["differences"]
    arms = sorted({point["arm"] for point in points}, key=lambda arm: arm_order(f"{arm}_"))
    colours = arm_colours(arms)
    patients = {point["fraction"]: point["n_train_patients"] for point in points}
    figure, above = _captioned(len(metrics), 8.0 if differences else 4.6, content["notes"])
    axes = panels(above, 2 if differences else 1, len(metrics), sharex=True)
    for ax, metric in zip(axes[: len(metrics)], metrics, strict=True):
        for arm in arms:
            own = [point for point in points if point["arm"] == arm]
            x = [patients[point["fraction"]] * 10 ** (SPREAD * _place(arm, arms)) for point in own]
            marker = MARKERS[arms.index(arm) % len(MARKERS)]
            _series(ax, x, own, metric, "", {"color": colours[arm], "marker": marker})
        _finish_scores(ax, metric, content["test_set"])
    pairs = list(dict.fromkeys((row["a"], row["b"]) for row in differences))
    for ax, metric in zip(axes[len(metrics) :], metrics, strict=False):
        for pair in pairs:
            rows = [row for row in differences if (row["a"], row["b"]) == pair]
            x = [patients[row["fraction"]] * 10 ** (SPREAD * _place(pair, pairs)) for row in rows]
            _series(ax, x, rows, metric, "_difference", _pair_style(pair, pairs, colours))
        _finish_differences(ax, metric, content["settings"]["margin"])
    for ax in axes[-len(metrics) :]:
        _patient_axis(ax, points)
    _legend(above, arms, pairs, colours, content["settings"]["margin"])
    above.suptitle(_title(content), x=0.01, ha="left", fontsize="medium")
    return figure


@styled
def draw_dose_response(content: DoseResponse) -> Figure:
    """Draw each compared metric in a column: the differences of all pairs against the synthetic images (log axis)."""
    metrics = sorted(compared_metrics(), key=lambda metric: metric.percent)
    doses, images, margin = content["doses"], content["images"], content["settings"]["margin"]
    pairs = [(pair["a"], pair["b"]) for pair in doses[0]["pairs"]]
    colours = arm_colours([arm for pair in pairs for arm in pair])
    figure, above = _captioned(len(metrics), 4.6, content["notes"])
    for ax, metric in zip(panels(above, 1, len(metrics)), metrics, strict=True):
        for pair in pairs:
            rows = [row for dose in doses for row in dose["pairs"] if (row["a"], row["b"]) == pair]
            x = [dose["synthetic_per_real"] * 2 ** (SPREAD * 2 * _place(pair, pairs)) for dose in doses]
            _series(ax, x, rows, metric, "_difference", _pair_style(pair, pairs, colours))
        _finish_differences(ax, metric, margin)
        _dose_axis(ax, doses)
    _legend(above, [], pairs, colours, margin)
    title = f"{images['n_images']:,} images of {images['n_patients']:,} patients, {images['n_positive']:,} positive"
    above.suptitle(f"Dose-response, n = {title}", x=0.01, ha="left", fontsize="medium")
    return figure


def _captioned(columns: int, height: float, notes: Sequence[str]) -> tuple[Figure, SubFigure]:
    """Make a figure with the ``notes`` below; returns it and its upper part, ``height`` inches high, to draw in."""
    caption = _caption(notes)
    heights = (height, 0.2 + 0.145 * caption.count("\n"))
    figure = new_figure(COLUMN_WIDTH * columns, sum(heights))
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=heights))
    below.text(0.01, 1.0, caption, va="top", fontsize="x-small", color=INK)
    return figure, above


def _dose_axis(ax: Axes, doses: Sequence[DosePoint]) -> None:
    """Set a tick per dose that says how many synthetic images it means in a fold."""
    ax.set_xscale("log", base=2)
    places = [dose["synthetic_per_real"] for dose in doses]
    ax.set_xticks(places, [f"{x:g}\n{max(dose['n_synthetic']):,}" for x, dose in zip(places, doses, strict=True)])
    ax.minorticks_off()
    ax.set_xlim(places[0] / 1.4, places[-1] * 1.4)
    ax.set_xlabel("Synthetic images per real one; below: per fold")


def _place(item: Any, items: Sequence[Any]) -> float:
    """Return a place left or right of the middle, so that intervals do not hide each other."""
    return items.index(item) - (len(items) - 1) / 2


def _pair_style(pair: tuple[str, str], pairs: Sequence[tuple[str, str]], colours: Mapping[str, Any]) -> Style:
    """Return the colour of arm b; hollow and dashed where it is not compared with the baseline."""
    style: Style = {"color": colours[pair[1]], "marker": MARKERS[1 + pairs.index(pair) % (len(MARKERS) - 1)]}
    if pair[0] != BASELINE:
        style |= {"markerfacecolor": "white", "linestyle": "--"}
    return style


def _series(
    ax: Axes,
    x: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    metric: Metric,
    what: str,
    style: Style,
) -> None:
    """Draw a line through the values ``<metric><what>`` with their intervals, without undefined ones."""
    scale, key = _scale(metric), f"{metric.name}{what}"
    known = [(place, row) for place, row in zip(x, rows, strict=True) if row[key] is not None]
    for place, row in known:
        ci = row[f"{metric.name}_ci95"]
        if ci is not None and None not in ci:
            ax.plot([place, place], np.multiply(ci, scale), color=style["color"], linewidth=2)
    values = [scale * row[key] for _, row in known]
    ax.plot([place for place, _ in known], values, linewidth=1.2, markersize=6.5, **style)


def _scale(metric: Metric) -> float:
    return 100.0 if metric.percent else 1.0


def _finish_scores(ax: Axes, metric: Metric, test_set: CurveTestSet) -> None:
    """Write the title, and mark the score of chance or of always "negative"."""
    name = f"{metric.title[0].upper()}{metric.title[1:]}"
    ax.set_title(f"{name} at 0.5 (% of images)" if metric.percent else name, fontweight="bold")
    levels = {"auroc": (0.5, "chance"), "accuracy": (test_set["always_negative_accuracy"], "always negative")}
    if metric.name not in levels:
        return
    level, word = levels[metric.name]
    level *= _scale(metric)
    ax.axhline(level, color=INK, linewidth=1, linestyle=":")
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    # Below the arms: it may not hide a point.
    ax.annotate(
        word, (0.0, level), (3, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
        fontsize="small", color=INK, zorder=1, bbox=paper,
    )  # fmt: skip


def _finish_differences(ax: Axes, metric: Metric, margin: float) -> None:
    """Write the title, and draw the margin as a band."""
    scale = _scale(metric)
    ax.axhspan(-scale * margin, scale * margin, color=BAND, linewidth=0, zorder=0)
    ax.axhline(0, color=INK, linewidth=1, zorder=1)
    unit = " (points)" if metric.percent else ""
    ax.set_title(f"Difference in {metric.title}{unit}", fontweight="bold")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.10g}".replace("-", "−") if abs(value) > 1e-9 else "0")


def _patient_axis(ax: Axes, points: Sequence[CurvePoint]) -> None:
    """Set a tick per fraction that says how many patients, images and positives it has."""
    ticks = {point["n_train_patients"]: point for point in points}
    ax.set_xscale("log")
    ax.set_xticks(list(ticks), [_tick_label(point) for point in ticks.values()], fontsize="small")
    ax.minorticks_off()
    low, high = min(ticks), max(ticks)
    ax.set_xlim(low / 10**MARGIN, high * 10**MARGIN)
    ax.set_xlabel("Real training patients (log scale)")


def _tick_label(point: Mapping[str, Any]) -> str:
    few = " (few)" if point["few_positives"] else ""
    return (
        f"{point['n_train_patients']:,}\n{100 * point['fraction']:g} %\n{point['n_train_images']:,} images\n"
        f"{point['n_train_positive']:,} positive{few}"
    )


def _legend(
    figure: FigureBase,
    arms: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    colours: Mapping[str, Any],
    margin: float,
) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=colours[arm], marker=MARKERS[i % len(MARKERS)], label=arm) for i, arm in enumerate(arms)
    ]
    handles += [Line2D([], [], label=f"{b} − {a}", **_pair_style((a, b), pairs, colours)) for a, b in pairs]
    if pairs:
        handles.append(Patch(color=BAND, label=f"margin: within {margin_words(margin)}"))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=3, fontsize="small")


def _title(content: LearningCurve) -> str:
    """Say what is drawn, and on how many images."""
    n = content["test_set"]
    runs = sorted({point["repeats"] for point in content["points"]})
    each = " to ".join(map(str, dict.fromkeys((runs[0], runs[-1]))))
    return (
        f"Learning curve, n = {n['n_images']:,} test images of {n['n_patients']:,} patients, "
        f"{n['n_positive']:,} positive; training runs per point: {each}"
    )


def _caption(notes: Sequence[str]) -> str:
    """Write what a reader must know: one sentence after the other, each on lines of its own."""
    sentences = (f"{note[0].upper()}{note[1:]}." for note in notes)
    return "\n".join(textwrap.fill(sentence, CAPTION_WIDTH) for sentence in sentences)
