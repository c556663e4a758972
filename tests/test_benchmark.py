"""The script of the speed benchmark: the file's form, resuming, and words."""

from __future__ import annotations

import json

import pytest

import benchmark
from benchmarks import benchmark_paths
from benchmarks.file_formats import SpeedBenchmark, SpeedRow
from benchmarks.speed import plan, results
from common.file_formats import format_problems
from fake_speed_rows import ROW_KEYS, fake_row
from utils import UserError, load_json


@pytest.fixture
def fake_measurements(monkeypatch) -> list[str]:
    """Rows that take no time; the list names those measured."""
    asked: list[str] = []

    def measure(_: plan.Bench, row_id: str) -> SpeedRow:
        asked.append(row_id)
        return fake_row(row_id)

    monkeypatch.setattr(results, "measured_or_reason", measure)
    peaks = {"bf16_gflops": 2.0, "fp32_gflops": 1.0, "copy_gb_per_s": 3.0}
    monkeypatch.setattr(results, "machine_peaks", lambda *_: peaks)
    return asked


def run(folder, *flags: str) -> dict:
    where = ["--output-dir", str(folder), "--work-dir", str(folder / "work"), "--weights", "none", "--cpu"]
    benchmark.main(["--compare", *where, *flags])
    return load_json(benchmark_paths.benchmark_results(folder))


def test_every_row_can_be_chosen():
    assert set(results.MEASUREMENTS) == set(plan.PLAN_OF) == set(benchmark.ROW_IDS)


def test_the_file_has_its_form_and_the_figure_lies_beside_it(fake_measurements, tmp_path, capsys):
    content = run(tmp_path, "--quick")
    assert format_problems(content, SpeedBenchmark) == []
    assert [row["id"] for row in content["rows"]] == list(benchmark.ROW_IDS)
    assert all(list(row) == ROW_KEYS for row in content["rows"])
    assert content["machine"]["gpu"] is None and str(tmp_path) not in json.dumps(content)
    assert benchmark_paths.benchmark_figure(tmp_path).stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "peaks: bf16 2, fp32 1 GFLOP/s, copying 3 GB/s" in out
    assert len([line for line in out.splitlines() if line.endswith(("reached", "missed"))]) >= 11


def test_rows_are_chosen_kept_and_resumed(fake_measurements, tmp_path):
    content = run(tmp_path, "--quick", "--rows", "quality,memory")
    states = {row["id"]: row["status"] for row in content["rows"]}
    assert {row_id for row_id, state in states.items() if state == "measured"} == {"quality", "memory"}
    assert fake_measurements == ["quality", "memory"]
    run(tmp_path, "--quick", "--resume")
    assert len(fake_measurements) == len(benchmark.ROW_IDS)  # each once
    content = run(tmp_path, "--quick", "--rows", "quality")  # measured anew, the others stay
    assert fake_measurements.count("quality") == 2
    assert all(row["status"] == "measured" for row in content["rows"])


def test_an_interruption_keeps_the_rows_before_it(fake_measurements, tmp_path, monkeypatch):
    measure = results.measured_or_reason

    def interrupted(bench: plan.Bench, row_id: str) -> SpeedRow:
        if row_id == "gan_step":
            raise KeyboardInterrupt
        return measure(bench, row_id)

    monkeypatch.setattr(results, "measured_or_reason", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--quick")
    states = {row["id"]: row["status"] for row in load_json(benchmark_paths.benchmark_results(tmp_path))["rows"]}
    assert states["unfreeze_step"] == "measured" and states["gan_step"] == "not_measured"


def test_rows_of_other_settings_are_refused_by_resume_and_else_replaced(fake_measurements, tmp_path, capsys):
    run(tmp_path, "--quick", "--rows", "quality")
    with pytest.raises(UserError, match=r"quick True \(now False\).*--output-dir"):
        run(tmp_path, "--resume")
    content = run(tmp_path, "--rows", "memory")
    assert "it is replaced" in capsys.readouterr().out
    assert [row["id"] for row in content["rows"] if row["status"] == "measured"] == ["memory"]


def test_a_damaged_file_is_replaced(fake_measurements, tmp_path, capsys):
    benchmark_paths.benchmark_results(tmp_path).write_text('{"format": "benchmark-1", "rows": [3]}')
    run(tmp_path, "--quick", "--rows", "quality")
    assert "another format than benchmark-1: it is replaced" in capsys.readouterr().out


def test_an_unknown_row_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        benchmark.build_parser().parse_args(["--rows", "quality,speed"])
    assert "'speed' is not a row; choose from baseline_default" in capsys.readouterr().err
