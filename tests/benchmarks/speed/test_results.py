"""Rows that fail, and the committed file."""

from __future__ import annotations

from pathlib import Path

from benchmarks import benchmark_paths
from benchmarks.file_formats import SpeedBenchmark
from benchmarks.speed import plan, results
from common.file_formats import format_problems
from fake_speed_rows import ROW_KEYS
from utils import load_json

RESULTS = Path(__file__).resolve().parents[3] / "results"


def test_different_answers_are_no_measurement(bench, monkeypatch):
    def disagree(_: plan.Bench) -> dict:
        plan.note_of_agreement("numbers", float("nan"), 1.0)

    monkeypatch.setitem(results.MEASUREMENTS, "quality", disagree)
    row = results.measured_or_reason(bench, "quality")
    assert row["status"] == "not_measured" and "different answers" in row["note"]
    assert list(row) == ROW_KEYS and row["ratio"] is None


def test_the_committed_file_has_its_documented_form():
    content = load_json(benchmark_paths.benchmark_results(RESULTS))
    assert format_problems(content, SpeedBenchmark) == []
    assert [row["id"] for row in content["rows"]] == [item.id for item in plan.PLANS]
