"""Figure of the speed benchmark: ``benchmark.json`` in, matplotlib ``Figure`` out; nothing is computed."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.file_formats import SpeedBenchmark, SpeedRow
from common.plot_style import INK, PALETTE, new_figure, panels, styled

REACHED, MISSED = PALETTE[0], PALETTE[1]


@styled
def speed_figure(content: SpeedBenchmark) -> Figure:
    """Draw a bar per row from its target (1) to its ratio, as a multiple of the target (log axis)."""
    rows = content["rows"][::-1]
    figure = new_figure(9.6, 1.9 + 0.36 * len(rows))
    (ax,) = panels(figure, 1, 1)
    values = [multiple for row in rows if (multiple := _multiple_of_target(row)) is not None]
    low, high = min([0.5, *values]), max([2.0, *values])
    ax.set_xscale("log")
    ax.set_xlim(low / 1.3, high * 4)  # room for the words beside the bars
    for place, row in enumerate(rows):
        _draw_bar(ax, place, row)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.axvline(1.0, color=INK, linewidth=1.2, linestyle="--")
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color="0.88")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("Ratio as a multiple of its target (dashed line); farther right is better")
    handles = [Patch(color=REACHED, label="target reached"), Patch(color=MISSED, label="target missed")]
    ax.legend(handles=handles, loc="lower right", frameon=True, fontsize="small")
    figure.suptitle(_title(content), x=0.01, ha="left", fontsize="medium")
    return figure


def _multiple_of_target(row: SpeedRow) -> float | None:
    return None if row["ratio"] is None else row["ratio"] / row["target"]


def _draw_bar(ax: Axes, place: int, row: SpeedRow) -> None:
    multiple, words = _multiple_of_target(row), "not measured"
    if multiple is not None:
        words = _bar_label(row)
        ax.barh(place, multiple - 1, left=1, height=0.62, color=REACHED if multiple >= 1 else MISSED)
    ax.text(max(multiple or 1.0, 1.0) * 1.06, place, words, va="center", fontsize="small", color=INK)


def _bar_label(row: SpeedRow) -> str:
    """Label a measured row: "2.4x, target 2x"; a limit or a share in its own unit."""
    ratio, ours, unit = row["ratio"] or 0.0, row["ours"] or 0.0, row["unit"]
    if row["plain"] is None:
        return f"{ours:.3g} {unit}, limit {ours * ratio:.3g} {unit}"
    if row["target"] < 1:
        return f"{100 * ratio:.0f} %, target {100 * row['target']:.0f} %"
    extrapolated = " (plain extrapolated)" if row["extrapolated"] else ""
    return f"{ratio:.3g}x, target {row['target']:g}x{extrapolated}"


def _title(content: SpeedBenchmark) -> str:
    facts = content["machine"]
    where = f"{facts['gpu']}, " if facts["gpu"] else ""
    quick = ", few images (--quick)" if content["settings"]["quick"] else ""
    title = f"This project beside the plain way: {where}{facts['cpu']}, {facts['cores']} cores{quick}"
    return textwrap.fill(title, 96)
