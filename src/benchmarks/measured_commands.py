"""Runs of commands that measure wall time, processor time and peak memory, with a limit of time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.plan_files import UNPLANNED

# A child's peak counts the memory of the process that starts it, which on Linux it shares until it becomes
# the command. So a small process starts it, times it, and reports what it took.
LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
numbers = (time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
with open(sys.argv[1], "w", encoding="utf-8") as report:
    print(os.waitstatus_to_exitcode(status), *numbers, file=report)
"""


@dataclass(frozen=True)
class CommandCost:
    """What a command took; None where the system does not tell.

    ``seconds``: wall-clock time from start to end; ``cpu_seconds``: processor time, its children included;
    ``peak_bytes``: the most memory that it held, mapped files included.
    """

    seconds: float
    cpu_seconds: float | None
    peak_bytes: int | None


class CommandFailedError(Exception):
    """A command failed, or was ended because it was ``over_time``; the message says why."""

    def __init__(self, reason: str, over_time: bool = False) -> None:
        super().__init__(reason)
        self.over_time = over_time


def run_measured(command: Sequence[str], log: Path, limit: float | None = None) -> CommandCost:
    """Run ``command`` with its output in ``log``; returns what it took.

    After ``limit`` seconds, or if this process is interrupted, it is killed with all that it started. Raises
    ``CommandFailedError``, with the last line of its output, if it fails or is over time.
    """
    report = log.with_name(f"{log.name}.report")
    if hasattr(os, "wait4"):
        command = [sys.executable, "-S", "-c", LAUNCHER, str(report), *command]
    start = time.perf_counter()
    try:
        code = _exit_code(command, log, limit)
        cost = CommandCost(time.perf_counter() - start, None, None)
        if report.is_file():
            code, seconds, cpu_seconds, peak = map(float, report.read_text(encoding="utf-8").split())
            unit = 1 if sys.platform == "darwin" else 1024  # bytes
            cost = CommandCost(seconds, cpu_seconds, int(peak) * unit)
    finally:
        report.unlink(missing_ok=True)
    if code != 0:
        raise CommandFailedError(_last_line(log) or f"no output, exit code {code:.0f}")
    return cost


def _exit_code(command: Sequence[str], log: Path, limit: float | None) -> float:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | UNPLANNED,
        )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        raise CommandFailedError(f"not over after {(limit or 0) / 60:.3g} minutes", over_time=True) from None
    finally:
        if process.poll() is None:
            if hasattr(os, "killpg"):  # the children, too: they are a group of their own
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()


def _last_line(log: Path) -> str:
    """Return the last line of ``log`` without the folders of this machine, which an error may name."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    words = (lines[-1] if lines else "").split()
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)[:300]
