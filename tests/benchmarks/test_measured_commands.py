"""Commands that are timed: cost, failure, limit of time."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.measured_commands import CommandFailedError, run_measured
from fake_contenders import has_ended


def test_a_command_tells_its_time_and_memory(tmp_path):
    hungry = "x = bytearray(150_000_000); x[::4096] = x[::4096]"
    done = run_measured([sys.executable, "-c", hungry], tmp_path / "log")
    assert 0 < done.seconds < 30 and 150e6 < done.peak_bytes < 400e6 and 0 < done.cpu_seconds < 30
    small = run_measured([sys.executable, "-c", "pass"], tmp_path / "log")
    assert small.peak_bytes < 100e6  # of this child alone, not of the largest so far
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


def test_processor_time_counts_the_children(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    assert run_measured([sys.executable, "-c", parent], tmp_path / "log").cpu_seconds > 0.5


def test_a_failure_ends_with_the_last_line_and_no_folder(tmp_path):
    with pytest.raises(CommandFailedError, match=r"^file.py: the end$"):
        run_measured([sys.executable, "-c", "raise SystemExit('/some/file.py: the end')"], tmp_path / "log")
    with pytest.raises(CommandFailedError, match="no output, exit code 3"):
        run_measured([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")


@pytest.mark.slow
def test_a_command_over_time_is_killed_with_its_children(tmp_path):
    file = tmp_path / "pid"
    child = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.monotonic()
    with pytest.raises(CommandFailedError, match="not over after") as ended:
        run_measured([sys.executable, "-c", parent], tmp_path / "log", limit=5)
    assert ended.value.over_time and time.monotonic() - start < 30
    assert has_ended(int(file.read_text()))
