"""All rows of the benchmark: measuring them one by one, keeping those that are there, and a table of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed import commands, steps
from benchmarks.speed.plan import FORMAT, MEASURED, PLAN_OF, PLANS, Bench, not_measured, peaks
from utils import UserError, load_json, public_path, save_json

log = logging.getLogger(__name__)


# In the order of running: what needs no phantoms first, and memory before what its caches make warm.
MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "peak_share": steps.peak_share,
    "unfreeze_step": steps.unfreeze_step,
    "gan_step": steps.gan_step,
    "gan_step_no_vgg": steps.gan_step_no_vgg,
    "generate": steps.generate,
    "quality": steps.quality,
    "first_pass": commands.first_pass,
    "baseline_default": commands.baseline_default,
    "growth": commands.growth,
    "memory": commands.memory,
    "warm_full": commands.warm_full,
}


class Results:
    """The content of benchmark.json, written whole after every row.

    What an earlier run measured on this machine with these ``settings`` is taken over; on another machine or
    with others it is dropped, with a notice, or refused with ``must_fit``.
    """

    def __init__(self, file: Path, machine: dict[str, Any], settings: dict[str, Any], must_fit: bool) -> None:
        self.file = file
        self.content: dict[str, Any] = {
            "format": FORMAT, "settings": settings, "machine": machine, "peaks": None, "rows": [],
        }  # fmt: skip
        self.rows: dict[str, dict[str, Any]] = {}
        if file.is_file():
            self._take_over(load_json(file, "`python src/benchmark.py`"), must_fit)

    def _take_over(self, earlier: Any, must_fit: bool) -> None:
        different = _differences(earlier, self.content)
        if different and must_fit:
            raise UserError(
                f"--resume: {public_path(self.file)} was measured with {different}; leave --resume out to "
                "start anew, or give another --output-dir"
            )
        if different:
            log.info(f"{public_path(self.file)} was measured with {different}: it is replaced")
            return
        self.content["peaks"] = earlier["peaks"]
        self.rows = {row["id"]: row for row in earlier["rows"] if row["status"] == MEASURED}

    def save(self) -> None:
        """Rows in the order of the table; those that nobody measured yet say so."""
        waiting = "not chosen yet (--rows), or not reached"
        rows = [self.rows.get(plan.id) or not_measured(plan.id, waiting) for plan in PLANS]
        self.content["rows"] = rows
        save_json(self.file, self.content)


def _differences(earlier: Any, now: Mapping[str, Any]) -> str:
    """ "quick True (now False)": in what an earlier file was measured otherwise; "" if in nothing."""
    if not isinstance(earlier, dict) or earlier.get("format") != FORMAT:
        return f"another format than {FORMAT}"
    return ", ".join(
        f"{key} {earlier.get(part, {}).get(key)} (now {value})"
        for part in ("machine", "settings")
        for key, value in now[part].items()
        if earlier.get(part, {}).get(key) != value
    )


def measure_all(bench: Bench, results: Results, chosen: Collection[str], keep: bool) -> None:
    """Measure the rows ``chosen``; with ``keep`` only those that are not there yet."""
    if results.content["peaks"] is None or not keep:
        results.content["peaks"] = peaks(bench)
    results.save()
    todo = [row_id for row_id in MEASURES if row_id in chosen and not (keep and row_id in results.rows)]
    for number, row_id in enumerate(todo, 1):
        log.info(f"[{number}/{len(todo)}] {PLAN_OF[row_id].name} ...")
        results.rows[row_id] = row = measure(bench, row_id)
        results.save()
        log.info(f"    {describe(row)}")


def measure(bench: Bench, row_id: str) -> dict[str, Any]:
    """The row, or why there is none: a failure of one shall not cost the others."""
    try:
        return MEASURES[row_id](bench)
    except UserError as error:
        reason = " ".join(str(error).split()).replace(str(bench.work), public_path(bench.work))
        return not_measured(row_id, reason)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        return not_measured(row_id, "out of memory")


# --- words -----------------------------------------------------------------------------------------
def reached(row: Mapping[str, Any]) -> bool:
    return row["ratio"] is not None and row["ratio"] >= row["target"]


def describe(row: Mapping[str, Any]) -> str:
    """One line: "plain 2.9, ours 1.2 s/step: 2.41, target 2 reached"."""
    if row["status"] != MEASURED:
        return f"not measured: {row['note']}"
    plain = "" if row["plain"] is None else f"plain {figure(row['plain'])}, "
    word = "reached" if reached(row) else "missed"
    target = f"{figure(row['ratio'])}, target {row['target']:g} {word}"
    return f"{plain}ours {figure(row['ours'])} {row['unit']}: {target}"


def figure(value: float | None) -> str:
    """Three significant digits with thousands separators, "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Aligned lines: id, plain, ours, unit, ratio, target, outcome."""
    cells = [("row", "plain", "ours", "unit", "ratio", "target", "")]
    for row in rows:
        outcome = ("reached" if reached(row) else "missed") if row["status"] == MEASURED else "not measured"
        outcome += " (plain extrapolated)" if row["extrapolated"] and row["plain"] is not None else ""
        outcome += " (extrapolated)" if row["extrapolated"] and row["plain"] is None else ""
        figures = (figure(row["plain"]), figure(row["ours"]), row["unit"], figure(row["ratio"]))
        cells.append((row["id"], *figures, figure(row["target"]), outcome))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    left = (0, 3, 6)
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def describe_machine(content: Mapping[str, Any]) -> str:
    """ "AMD EPYC, 2 cores, 2 threads, torch 2.5.1; bf16 250, fp32 120 GFLOP/s, copying 20 GB/s"."""
    facts, limits = content["machine"], content["peaks"]
    gpu = f"{facts['gpu']}, " if facts["gpu"] else ""
    return (
        f"{gpu}{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, torch {facts['torch']}; "
        f"peaks: bf16 {figure(limits['bf16_gflops'])}, fp32 {figure(limits['fp32_gflops'])} GFLOP/s, "
        f"copying {figure(limits['copy_gb_per_s'])} GB/s"
    )
