"""The figures of the comparison of generators: ``gan_benchmark.json`` in, matplotlib ``Figure`` out.

No computing: a point for every seed, lines for what real images give.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.plot_style import INK, PALETTE, new_figure, panels, styled
from report.image_figures import ImageSection, image_sections

SPACES = {"resnet18": "ResNet-18 of the benchmark", "hog": "HOG", "pixels": "16 x 16 pixels"}
MARKERS = "osD^v"
OURS, OTHERS = PALETTE[0], PALETTE[1]
COLUMNS = 8  # images of a contender in the grid
DECADES = 3  # of the axis of KID

Summaries = Mapping[tuple[str, str], Mapping[str, Any]]  # of gan_benchmark_table.summaries


@styled
def gan_benchmark(content: Mapping[str, Any], summaries: Summaries) -> Figure:
    """KID (above, lower is better) and recall (below, higher is better) of every contender in each space.

    ``summaries``: of ``gan_benchmark_table``, in the order wanted. Every seed is a point, the generator of
    it that counts; bars are 95 % intervals of KID over the held-out patients, thick for contenders that
    cannot be told from the best. Hollow points are of seeds that gave noise, whose recall means nothing, few
    different images, or no chests. Crosses are of images known to be bad.
    """
    rows = [row for one in summaries.values() for row in one["rows"]]
    budgets = list(dict.fromkeys(budget for budget, _ in summaries))
    names = list(dict.fromkeys(contender for _, contender in summaries))
    order = [*names, *content["controls"]]
    figure = new_figure(11.5, 2.8 + 0.5 * len(order))
    axes = panels(figure, 2, len(SPACES), sharey=True)
    for row_of_axes, figure_name in enumerate(("kid", "recall")):
        for column, space in enumerate(SPACES):
            ax = axes[row_of_axes * len(SPACES) + column]
            _floor(ax, content["reals"][space], figure_name)
            if figure_name == "kid":
                _intervals(ax, summaries, names, budgets, space)
            for row in rows:
                _point(ax, row, names, budgets, space, figure_name)
            for place, score in enumerate(content["controls"].values(), len(names)):
                ax.plot(score["spaces"][space][figure_name], place, "x", color=INK, markersize=6)
            _dress(ax, order, space if row_of_axes == 0 else None, figure_name)
    handles = _legend(rows, budgets)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    facts = content["data"]
    title = (
        f"Generators beside {facts['heldout_positives']:,} held-out real positives, learned from "
        f"{facts['learned_positives']:,} at {facts['image_size']} px; {_machine(content['machine'], rows)}. "
        "Smaller KID than the axis shows stands at its left edge."
    )
    figure.suptitle(textwrap.fill(title, 120), x=0.01, ha="left", fontsize="medium")
    return figure


def _intervals(
    ax: Axes, summaries: Summaries, names: Sequence[str], budgets: Sequence[str], space: str
) -> None:
    for (budget, contender), one in summaries.items():
        if one["rows"]:
            found, place = one["spaces"][space], _place(contender, budget, names, budgets)
            colour = OURS if one["rows"][0]["ours"] else OTHERS
            width = 5.0 if found["tied"] else 1.5
            ax.plot(found["kid_ci95"], [place, place], color=colour, linewidth=width, alpha=0.3, zorder=1)


def _place(contender: str, budget: str, names: Sequence[str], budgets: Sequence[str]) -> float:
    """Budgets beside one another, so that points of one do not hide those of the next."""
    return names.index(contender) + 0.22 * (budgets.index(budget) - (len(budgets) - 1) / 2)


def _machine(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A GPU, or processors and how many threads each contender had of them."""
    if facts["gpu"]:
        return facts["gpu"]
    threads = sorted({row["threads"] for row in rows if row.get("threads")})
    words = f"{facts['cpu']}, {facts['cores']} core{'' if facts['cores'] == 1 else 's'}"
    if threads:
        words += f", {' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'} each"
    return words


def _point(
    ax: Axes, row: Mapping[str, Any], order: Sequence[str], budgets: Sequence[str], space: str, figure: str
) -> None:
    value = row["scores"][row["better"]]["spaces"][space][figure]
    budget, place = budgets.index(row["budget"]), _place(row["contender"], row["budget"], order, budgets)
    marker, colour = MARKERS[budget % len(MARKERS)], OURS if row["ours"] else OTHERS
    style = {"markeredgecolor": "white"} if row["trained"] else {"markerfacecolor": "none"}
    ax.plot(value, place, marker, color=colour, markersize=6, alpha=0.75, **style)


def _floor(ax: Axes, reals: Mapping[str, Any], figure: str) -> None:
    """Half of the reals against the other half, and those learned from against the held-out ones."""
    ax.axvline(reals["floor"][figure], color=INK, linewidth=1.2, linestyle="--")
    ax.axvline(reals["training"][figure], color=INK, linewidth=1.2, linestyle=":")


def _dress(ax: Axes, order: Sequence[str], space: str | None, figure: str) -> None:
    ax.set_yticks(range(len(order)), order)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color="0.88")
    if space is not None:
        ax.set_title(SPACES[space], fontsize="medium")
    if figure == "recall":
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("Recall; farther right is better")
        return
    _log_from_floor(ax)


def _log_from_floor(ax: Axes) -> None:
    """KID of noise is a thousand times that of a good generator, and that of a perfect one may be negative:
    a logarithmic axis over ``DECADES``, at whose left edge all that is smaller stands."""
    most = max(float(np.max(line.get_xdata())) for line in ax.lines)
    edge = max(most, 1e-6) / 10**DECADES
    for line in ax.lines:
        line.set_xdata(np.maximum(line.get_xdata(), edge))
    ax.set_xscale("log")
    ax.set_xlim(edge / 1.4, most * 1.6)
    ax.tick_params(axis="x", labelsize="small")
    ax.set_xlabel("KID; farther left is better")


def _legend(rows: Sequence[Mapping[str, Any]], budgets: Sequence[str]) -> list[Line2D]:
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
        hollow = {"color": INK, "linestyle": "", "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], label="did not train: noise, collapse or no chests", **hollow))
    return handles + [
        Line2D([], [], color=INK, linewidth=5.0, alpha=0.3, label="95 %, patients: ties with the best"),
        Line2D([], [], color=INK, linewidth=1.5, alpha=0.3, label="95 %, patients: worse than the best"),
        Line2D([], [], color=INK, linestyle="", marker="x", label="images known to be bad"),
        Line2D([], [], color=INK, linestyle="--", label="reals: half against half"),
        Line2D([], [], color=INK, linestyle=":", label="reals: those learned from against those held out"),
    ]


def contender_grid(made: Mapping[str, np.ndarray], title: str) -> Figure:
    """A row of generated images uint8 [N, S, S] for each contender, under its name."""
    sections = [ImageSection(name, images[:COLUMNS]) for name, images in made.items()]
    return image_sections(sections, COLUMNS, title)
