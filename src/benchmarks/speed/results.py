"""Results of the speed benchmark: measuring the rows one by one, benchmark.json, and a table of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.file_formats import SpeedBenchmark, SpeedRow, SpeedSettings, TimedMachine
from benchmarks.machine import machine_peaks
from benchmarks.speed import commands, steps
from benchmarks.speed.plan import PLAN_OF, PLANS, Bench, not_measured
from benchmarks.text_table import aligned_columns
from common.experiment_files import named_config
from common.file_formats import format_problems
from utils import UserError, is_out_of_memory, load_json, public_path, save_json

log = logging.getLogger(__name__)

FORMAT: Final = "benchmark-1"
# In the order of running: rows without phantoms first; "warm_full" reads the caches of "memory",
# "lite0_warm" those of "lite0".
MEASUREMENTS: dict[str, Callable[[Bench], SpeedRow]] = {
    "peak_share": steps.measure_peak_share,
    "unfreeze_step": steps.measure_unfreeze_step,
    "gan_step": steps.measure_gan_step,
    "gan_step_no_vgg": steps.measure_gan_step_without_vgg,
    "generate": steps.measure_generation,
    "quality": steps.measure_image_quality,
    "first_pass": commands.measure_first_pass,
    "baseline_default": commands.measure_default_baseline,
    "growth": commands.measure_growth,
    "memory": commands.measure_memory,
    "warm_full": commands.measure_warm_baseline,
    "lite0": commands.measure_lite0,
    "lite0_warm": commands.measure_warm_lite0,
}


class SpeedResults:
    """The content of benchmark.json, written whole after every row.

    Rows that an earlier run measured on this machine with the same ``settings`` are taken over. If the
    machine or a setting differs they are dropped with a notice, or with ``must_fit`` refused.
    """

    def __init__(self, file: Path, machine: TimedMachine, settings: SpeedSettings, must_fit: bool) -> None:
        self.file = file
        self.machine, self.settings = machine, settings
        earlier = self._earlier(must_fit) if file.is_file() else None
        self.peaks = None if earlier is None else earlier["peaks"]
        self.rows = {row["id"]: row for row in (earlier["rows"] if earlier else ()) if was_measured(row)}

    def _earlier(self, must_fit: bool) -> SpeedBenchmark | None:
        content = load_json(self.file, "`python src/benchmark.py`")
        different = self._differences(content)
        if not different:
            return content
        if must_fit:
            raise UserError(
                f"--resume: {public_path(self.file)} was measured with {different}; leave out --resume to "
                "measure all rows, or give another --output-dir"
            )
        log.info(f"{public_path(self.file)} was measured with {different}: it is replaced")
        return None

    def _differences(self, earlier: Any) -> str:
        """List settings and facts in which ``earlier`` differs: "quick True (now False)"; "" if none."""
        if format_problems(earlier, SpeedBenchmark):
            return f"another format than {FORMAT}"
        now: dict[str, Mapping[str, object]] = {"machine": self.machine, "settings": self.settings}
        return ", ".join(
            f"{key} {earlier[part][key]} (now {value})"
            for part, values in now.items()
            for key, value in values.items()
            if earlier[part][key] != value
        )

    def content(self) -> SpeedBenchmark:
        """Return what the file holds: rows in the order of the table, those without a measurement too."""
        waiting = "not chosen yet (--rows), or not reached"
        rows = [self.rows.get(plan.id) or not_measured(plan.id, waiting) for plan in PLANS]
        assert self.peaks is not None
        content: SpeedBenchmark = {
            "format": FORMAT, "settings": self.settings, "machine": self.machine, "peaks": self.peaks,
            "rows": rows, **named_config(),
        }  # fmt: skip
        return content

    def measure(self, bench: Bench, chosen: Collection[str], keep: bool) -> None:
        """Measure the rows ``chosen``; with ``keep`` only those that no earlier run measured."""
        if self.peaks is None or not keep:
            sizes = bench.sizes
            self.peaks = machine_peaks(bench.device, sizes.matrix, sizes.copied_bytes, sizes.repeats)
        save_json(self.file, self.content())
        todo = [row_id for row_id in MEASUREMENTS if row_id in chosen and not (keep and row_id in self.rows)]
        for number, row_id in enumerate(todo, 1):
            log.info(f"[{number}/{len(todo)}] {PLAN_OF[row_id].name} ...")
            row = measured_or_reason(bench, row_id)
            self.rows[row_id] = row
            save_json(self.file, self.content())
            log.info(f"    {speed_in_words(row)}")


def measured_or_reason(bench: Bench, row_id: str) -> SpeedRow:
    """Measure one row; if that fails, return a row that says why, so that the others go on."""
    try:
        return MEASUREMENTS[row_id](bench)
    except UserError as error:
        reason = " ".join(str(error).split()).replace(str(bench.work), public_path(bench.work))
        return not_measured(row_id, reason)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return not_measured(row_id, "out of memory")


# --- words -----------------------------------------------------------------------------------------
def was_measured(row: SpeedRow) -> bool:
    """Return whether the row holds numbers."""
    return row["status"] == "measured"


def reached(row: SpeedRow) -> bool:
    """Return whether the row reaches its target, if it has one."""
    return row["ratio"] is not None and row["target"] is not None and row["ratio"] >= row["target"]


def speed_in_words(row: SpeedRow) -> str:
    """Describe a row in one line: "plain 2.9, ours 1.2 s/step: 2.41, target 2 reached"."""
    if not was_measured(row):
        return f"not measured: {row['note']}"
    if row["target"] is None:
        return f"{three_digits(row['ours'])} {row['unit']}"
    plain = "" if row["plain"] is None else f"plain {three_digits(row['plain'])}, "
    word = "reached" if reached(row) else "missed"
    target = f"{three_digits(row['ratio'])}, target {row['target']:g} {word}"
    return f"{plain}ours {three_digits(row['ours'])} {row['unit']}: {target}"


def three_digits(value: float | None) -> str:
    """Write three significant digits with thousands separators, "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def speed_table(rows: Iterable[SpeedRow]) -> list[str]:
    """Return aligned lines: id, plain, ours, unit, ratio, target, outcome."""
    cells = [("row", "plain", "ours", "unit", "ratio", "target", "")]
    for row in rows:
        outcome = "not measured"
        if was_measured(row):
            outcome = "" if row["target"] is None else "reached" if reached(row) else "missed"
        if row["extrapolated"]:
            outcome += " (extrapolated)" if row["plain"] is None else " (plain extrapolated)"
        numbers = [three_digits(value) for value in (row["plain"], row["ours"], row["ratio"], row["target"])]
        cells.append((row["id"], numbers[0], numbers[1], row["unit"], numbers[2], numbers[3], outcome))
    return aligned_columns(cells, left=(0, 3, 6))


def machine_in_words(content: SpeedBenchmark) -> str:
    """Describe the machine: "AMD EPYC, 2 cores, 2 threads, torch 2.5.1; peaks: bf16 250, ..."."""
    facts, peaks = content["machine"], content["peaks"]
    bf16, fp32 = three_digits(peaks["bf16_gflops"]), three_digits(peaks["fp32_gflops"])
    gpu = f"{facts['gpu']}, " if facts["gpu"] else ""
    return (
        f"{gpu}{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, torch {facts['torch']}; "
        f"peaks: bf16 {bf16}, fp32 {fp32} GFLOP/s, copying {three_digits(peaks['copy_gb_per_s'])} GB/s"
    )
