"""Logging of the scripts: plain lines on the console, and a log file of each run beside its results.

Modules write with ``logging.getLogger(__name__)``. INFO and WARNING go to standard output, ERROR to standard
error, each as the bare message. The log file also holds the command, the versions of the libraries, Python's
own warnings, and the traceback of an unexpected error, with paths as result files write them.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import os
import platform
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from common.distributed import launched
from common.paths import LOGS, SRC
from common.progress import hide_progress
from utils import atomic_path, readable, without_folders

LOGS_VARIABLE = "RUN_LOGS_DIR"  # environment variable: folder of the logs of a sequence of scripts
LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "pillow", "scikit-learn", "scipy")


class ConsoleHandler(logging.Handler):
    """Writes each message as it is to today's ``sys.stdout``, errors to today's ``sys.stderr``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message and flush."""
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        if stream is None:
            return
        try:
            with tqdm.external_write_mode(file=stream):  # lifts bars out of the way
                stream.write(readable(self.format(record)) + "\n")
                stream.flush()
        except Exception:
            self.handleError(record)


class RunLog(logging.Handler):
    """Keeps the records of a run in memory until ``open`` names its file, then appends each at once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.waiting: list[str] = []
        self.file: Path | None = None

    def open(self, folder: Path, script: str) -> None:
        """Create ``<folder>/<script>-<time>.log`` and write what waits; without a file if that fails."""
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        file = folder / f"{script}-{stamp}.log"
        try:
            with atomic_path(file) as temporary:
                temporary.write_text(readable("".join([_header(), *self.waiting])), encoding="utf-8", newline="\n")
        except OSError:
            return
        self.file, self.waiting = file, []

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record, its traceback included."""
        text = readable(without_folders(self.format(record))) + "\n"
        if self.file is None:
            self.waiting.append(text)
            return
        try:
            with self.file.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
        except OSError:
            self.file = None


def _header() -> str:
    """Return the command and the versions, in two lines."""
    command = shlex.join(["python", *sys.argv])
    versions = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{without_folders(command)}\n{', '.join(versions)}; {platform.system()} {platform.machine()}\n"


_run_log: RunLog | None = None  # of the script that ``begin_run_log`` began


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep records of this project, and warnings of any library."""
    return record.levelno >= logging.WARNING or Path(record.pathname).is_relative_to(SRC)


def start_console(quiet: bool = False, verbose: bool = False) -> None:
    """Send all records to the console: warnings and errors only (``quiet``), or also DEBUG (``verbose``)."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, ConsoleHandler)]:
        root.removeHandler(handler)
    console = ConsoleHandler(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    console.addFilter(_is_ours)
    root.addHandler(console)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    hide_progress(quiet)


def begin_run_log() -> None:
    """Keep the records of this run for a log file, which ``keep_run_log`` names."""
    global _run_log
    _run_log = RunLog()
    _run_log.addFilter(_is_ours)
    logging.getLogger().addHandler(_run_log)
    logging.captureWarnings(True)


def keep_run_log(results_dir: str | Path) -> None:
    """Write the log file of this run beside ``results_dir``: ./results/metrics -> ./results/logs/.

    A step of a sequence writes it to the sequence's folder, which ``LOGS_VARIABLE`` names. Does nothing
    outside ``run_script``, and in all but the main one of several processes.
    """
    folder = os.environ.get(LOGS_VARIABLE) or Path(results_dir).parent / LOGS
    process = launched()
    if _run_log is not None and (process is None or process[0] == 0):
        _run_log.open(Path(folder), Path(sys.argv[0]).stem)


def record_traceback(error: Exception) -> Path | None:
    """Write the traceback of ``error`` to the log file; returns that file, None if it cannot be written."""
    if _run_log is None:
        return None
    details = (type(error), error, error.__traceback__)
    _run_log.emit(logging.LogRecord(__name__, logging.ERROR, __file__, 0, "unexpected error", None, details))
    return _run_log.file
