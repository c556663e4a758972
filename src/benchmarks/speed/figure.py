"""Figure of the speed benchmark: ``benchmark.json`` in, matplotlib ``Figure`` out; nothing is computed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.file_formats import SpeedBenchmark, SpeedRow
from benchmarks.speed.plan import PLAN_OF
from common.plot_style import INK, PALETTE, new_figure, panels, styled

FASTER, WITHIN, BEYOND = PALETTE[0], PALETTE[2], PALETTE[1]
BAR = 0.62  # height, of the distance between two rows
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # behind words, over the lines of the grid


@styled
def speed_figure(content: SpeedBenchmark) -> Figure:
    """Draw how many times as fast each row is as the plain way (log axis), and below it limits and the peak in %."""
    faster = [row for row in content["rows"] if PLAN_OF[row["id"]].kind == "speedup"]
    bounded = [row for row in content["rows"] if PLAN_OF[row["id"]].kind in ("limit", "share")]
    heights = [len(faster) + 1.0, len(bounded) + 1.0]
    figure = new_figure(9.6, 1.8 + 0.36 * sum(heights))
    above, below = panels(figure, 2, 1, height_ratios=heights)
    _draw_speedups(above, faster)
    _draw_percentages(below, bounded)
    figure.suptitle(_title(content), x=0.01, ha="left", fontsize="medium")
    return figure


def _draw_speedups(ax: Axes, rows: Sequence[SpeedRow]) -> None:
    largest = max([2.0, *(row["ratio"] for row in rows if row["ratio"])])
    ax.set_xscale("log")
    ax.set_xlim(min([1.0, *(row["ratio"] / 1.2 for row in rows if row["ratio"])]), largest * 8)  # room for words
    for place, row in enumerate(rows):
        ratio = row["ratio"] or 1.0
        ax.barh(place, ratio - 1, left=1, height=BAR, color=FASTER)
        guessed = " (plain way extrapolated)" if row["extrapolated"] else ""
        words = f"{ratio:.3g}x{guessed}" if row["ratio"] else "not measured"
        _write_beside(ax, ratio * 1.05, place, words)
    ax.axvline(1.0, color=INK, linewidth=1.2)
    _name_rows(ax, rows)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("times as fast as the plain way (1x: equally fast)")


def _draw_percentages(ax: Axes, rows: Sequence[SpeedRow]) -> None:
    shares = [_percentage(row) for row in rows]
    ax.set_xlim(0, max([100.0, *shares]) * 1.45)
    for place, (row, share) in enumerate(zip(rows, shares, strict=True)):
        beyond = PLAN_OF[row["id"]].kind == "limit" and share > 100
        ax.barh(place, share, height=BAR, color=BEYOND if beyond else WITHIN)
        _write_beside(ax, max(share, 100.0) + 4, place, _amount(row))
    ax.axvline(100.0, color=INK, linewidth=1.2, linestyle="--")
    _name_rows(ax, rows)
    ax.set_xlabel("% of the limit, or of the machine's peak (100 %: dashed line)")


def _percentage(row: SpeedRow) -> float:
    """Return what was measured in per cent of the limit, or of the peak; 0 if nothing was measured."""
    if row["ratio"] is None:
        return 0.0
    return 100 / row["ratio"] if PLAN_OF[row["id"]].kind == "limit" else 100 * row["ratio"]


def _amount(row: SpeedRow) -> str:
    """Say what was measured: "1.48 GB, limit 3 GB", or "79 % of 688 GFLOP/s"."""
    if row["ratio"] is None:
        return "not measured"
    plan, unit = PLAN_OF[row["id"]], row["unit"]
    if plan.kind == "share":
        return f"{100 * row['ratio']:.0f} % of {row['plain']:.3g} {unit}"
    return f"{row['ours']:.3g} {unit}, limit {plan.limit:g} {unit}"


def _write_beside(ax: Axes, x: float, place: int, words: str) -> None:
    ax.text(x, place, words, va="center", fontsize="small", color=INK, bbox=WHITE)


def _name_rows(ax: Axes, rows: Sequence[SpeedRow]) -> None:
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color="0.88")


def _title(content: SpeedBenchmark) -> str:
    facts = content["machine"]
    where = f"{facts['gpu']}, " if facts["gpu"] else ""
    quick = ", few images (--quick)" if content["settings"]["quick"] else ""
    title = f"This project beside the plain way: {where}{facts['cpu']}, {facts['cores']} cores{quick}"
    return textwrap.fill(title, 96)
