"""Figures of the comparison of generators: ``gan_benchmark.json`` in, matplotlib ``Figure`` out.

Nothing is computed: a point for every seed, lines for the scores of real images.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.file_formats import FinishedRow, GeneratorBenchmark, Machine, RealScores
from benchmarks.generators.results import counted_scores
from benchmarks.generators.scores import SPACES
from benchmarks.generators.table import Summaries
from common.plot_style import INK, PALETTE, new_figure, panels, styled
from report.image_figures import ImageSection, image_sections

MARKERS = "osD^v"
OURS, OTHERS = PALETTE[0], PALETTE[1]
COLUMNS = 8  # images of a contender in the grid
DECADES = 3  # of the axis of KID

Score = Literal["kid", "recall"]


@styled
def contenders_figure(content: GeneratorBenchmark, summaries: Summaries) -> Figure:
    """Draw KID (above, lower is better) and recall (below, higher is better) of each contender in each space.

    ``summaries``: in the order of drawing. Each point is a seed, with the generator that counts; bars are
    95 % intervals of KID over the held-out patients, thick for contenders that cannot be told from the best.
    Hollow points are seeds that gave noise, few different images, or no chests. Crosses are images known to
    be bad.
    """
    rows = [row for one in summaries.values() for row in one.finished]
    budgets = list(dict.fromkeys(budget for budget, _ in summaries))
    names = list(dict.fromkeys(contender for _, contender in summaries))
    order = [*names, *content["controls"]]
    figure = new_figure(11.5, 2.8 + 0.5 * len(order))
    axes = panels(figure, 2, len(SPACES), sharey=True)
    shown: tuple[Score, ...] = ("kid", "recall")
    for row_of_axes, score in enumerate(shown):
        for column, space in enumerate(SPACES):
            ax = axes[row_of_axes * len(SPACES) + column]
            _draw_reals(ax, content["reals"][space], score)
            if score == "kid":
                _draw_intervals(ax, summaries, names, budgets, space)
            for row in rows:
                place = _place(row["contender"], row["budget"], names, budgets)
                _draw_point(ax, row, place, MARKERS[budgets.index(row["budget"]) % len(MARKERS)], space, score)
            for number, control in enumerate(content["controls"].values(), len(names)):
                ax.plot(control["spaces"][space][score], number, "x", color=INK, markersize=6)
            _set_axes(ax, order, space if row_of_axes == 0 else None, score)
    handles = _legend(rows, budgets)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    facts = content["data"]
    title = (
        f"Generators beside {facts['heldout_positives']:,} held-out real positives, learned from "
        f"{facts['learned_positives']:,} at {facts['image_size']} px; {_machine(content['machine'], rows)}. "
        "A KID below the axis is drawn at its left edge."
    )
    figure.suptitle(textwrap.fill(title, 120), x=0.01, ha="left", fontsize="medium")
    return figure


def _draw_intervals(ax: Axes, summaries: Summaries, names: Sequence[str], budgets: Sequence[str], space: str) -> None:
    for (budget, contender), one in summaries.items():
        if one.finished:
            found, place = one.spaces[space], _place(contender, budget, names, budgets)
            colour = OURS if one.finished[0]["ours"] else OTHERS
            width = 5.0 if found.tied else 1.5
            ax.plot(found.kid["kid_ci95"], [place, place], color=colour, linewidth=width, alpha=0.3, zorder=1)


def _place(contender: str, budget: str, names: Sequence[str], budgets: Sequence[str]) -> float:
    """Height of a contender on the axis; budgets stand beside one another and hide none of the points."""
    return names.index(contender) + 0.22 * (budgets.index(budget) - (len(budgets) - 1) / 2)


def _machine(facts: Machine, rows: Sequence[FinishedRow]) -> str:
    """Name the GPU, or the processor and the threads that each contender had."""
    if facts["gpu"]:
        return facts["gpu"]
    threads = sorted({row["threads"] for row in rows if row["threads"]})
    words = f"{facts['cpu']}, {facts['cores']} core{'' if facts['cores'] == 1 else 's'}"
    if threads:
        words += f", {' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'} each"
    return words


def _draw_point(ax: Axes, row: FinishedRow, place: float, marker: str, space: str, score: Score) -> None:
    value, colour = counted_scores(row)["spaces"][space][score], OURS if row["ours"] else OTHERS
    style: dict[str, Any] = {"markeredgecolor": "white"} if row["trained"] else {"markerfacecolor": "none"}
    ax.plot(value, place, marker, color=colour, markersize=6, alpha=0.75, **style)


def _draw_reals(ax: Axes, reals: RealScores, score: Score) -> None:
    """Draw two lines: the score between two halves of the reals, and between training and held-out reals."""
    ax.axvline(reals["floor"][score], color=INK, linewidth=1.2, linestyle="--")
    ax.axvline(reals["training"][score], color=INK, linewidth=1.2, linestyle=":")


def _set_axes(ax: Axes, order: Sequence[str], space: str | None, score: Score) -> None:
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color="0.88")
    if space is not None:
        ax.set_title(SPACES[space], fontsize="medium")
    if score == "recall":
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("Recall; farther right is better")
        return
    _set_kid_axis(ax)


def _set_kid_axis(ax: Axes) -> None:
    """Make the axis logarithmic over ``DECADES``, with all smaller values at its left edge.

    KID of noise is a thousand times that of a good generator, and that of a perfect one may be negative.
    """
    most = max(float(np.max(np.asarray(line.get_xdata()))) for line in ax.lines)
    edge = max(most, 1e-6) / 10**DECADES
    for line in ax.lines:
        line.set_xdata(np.maximum(np.asarray(line.get_xdata()), edge))
    ax.set_xscale("log")
    ax.set_xlim(edge / 1.4, most * 1.6)
    ax.tick_params(axis="x", labelsize="small")
    ax.set_xlabel("KID; farther left is better")


def _legend(rows: Sequence[FinishedRow], budgets: Sequence[str]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=INK, linestyle="", marker=MARKERS[place % len(MARKERS)], label=budget)
        for place, budget in enumerate(budgets)
    ]
    if len({row["ours"] for row in rows}) > 1:
        handles += [
            Line2D([], [], color=colour, linestyle="", marker="o", label=label)
            for colour, label in ((OURS, "this project"), (OTHERS, "others"))
        ]
    if not all(row["trained"] for row in rows):
        hollow: dict[str, Any] = {"color": INK, "linestyle": "", "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], label="did not train: noise, collapse or no chests", **hollow))
    return handles + [
        Line2D([], [], color=INK, linewidth=5.0, alpha=0.3, label="95 %, patients: ties with the best"),
        Line2D([], [], color=INK, linewidth=1.5, alpha=0.3, label="95 %, patients: worse than the best"),
        Line2D([], [], color=INK, linestyle="", marker="x", label="images known to be bad"),
        Line2D([], [], color=INK, linestyle="--", label="reals: half against half"),
        Line2D([], [], color=INK, linestyle=":", label="reals: those learned from against those held out"),
    ]


def contender_grid(made: Mapping[str, np.ndarray], title: str) -> Figure:
    """Draw a row of generated images, uint8 [N, S, S], for each contender, under its name."""
    sections = [ImageSection(name, images[:COLUMNS]) for name, images in made.items()]
    return image_sections(sections, COLUMNS, title)
