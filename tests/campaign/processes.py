"""Runs of a script in a process group of its own, which can be killed at any moment.

Importing torch takes longer than most of these runs. So a run is usually a fork of this process, which has
imported everything, and does what ``python src/<script>.py`` does after its imports; the steps of a sequence
are then forks, too. A fork dies of SIGKILL as any process does. Some runs are real new processes all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from common.command_line import run_script
from common.paths import SRC

LIMIT = 900.0  # seconds after which a run counts as hanging
POLL = 0.01
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink"}
FACTS = "facts.json"  # in the folder of a run: what ``Run.look`` found
BECOME_REAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


@dataclass(frozen=True)
class Run:
    """One command in ``folder``: ``script`` with ``words``.

    ``prepare`` is called before it in a fork, for example to leave out what takes long; ``look`` after it, if
    it ended well, and its result is kept as JSON.
    """

    script: str
    words: list[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] | None = None
    look: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Moment:
    """When to kill: after ``seconds``, or ``seconds`` after the file operation number ``operation``."""

    seconds: float
    operation: int | None = None

    def __str__(self) -> str:
        if self.operation is None:
            return f"after {self.seconds:.2f} s"
        return f"{1000 * self.seconds:.0f} ms after file operation {self.operation}"


@dataclass(frozen=True)
class Ended:
    """How a run ended. ``code`` is None if it was killed; ``operations``: file operations of a fork."""

    code: int | None
    seconds: float
    operations: int
    said: str
    facts: Any = None

    @property
    def killed(self) -> bool:
        return self.code is None


def import_everything() -> None:
    """Import what the scripts need, so that forks need not; one thread, as forks of several can hang."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import torch

    torch.set_num_threads(1)
    for file in sorted(SRC.rglob("*.py")):
        if "peer_drivers" not in file.parts and file.name != "__init__.py":
            importlib.import_module(".".join(file.relative_to(SRC).with_suffix("").parts))
    import captum.attr  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401
    import skimage.metrics  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import sklearn.model_selection  # noqa: F401

    ctypes.CDLL(None).prctl(BECOME_REAPER, 1, 0, 0, 0)  # children of killed forks become ours


# --- running ---------------------------------------------------------------------------------------
def execute(run: Run, moment: Moment | None = None, fresh: bool = False, limit: float = LIMIT) -> Ended:
    """Run to the end, or until ``moment``. ``fresh``: a new Python, which is killed by the clock alone."""
    counter = mmap.mmap(-1, 8)
    output = run.folder.parent / f"{run.folder.name}.output"
    facts = run.folder.parent / f"{run.folder.name}.{FACTS}"
    facts.unlink(missing_ok=True)
    start = time.monotonic()
    if (pid := os.fork()) == 0:
        _become(run, moment, counter, output, facts, fresh)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    by_clock = moment is not None and moment.operation is None
    status, deadline = None, start + (moment.seconds if by_clock and moment else limit)
    while status is None and time.monotonic() < deadline:
        found, code = os.waitpid(pid, os.WNOHANG)
        if found:
            status = code
        else:
            time.sleep(POLL)
    timed_out = status is None and not by_clock
    _kill_group(pid)
    if status is None:
        _, status = os.waitpid(pid, 0)
    _reap(pid)
    said = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    if timed_out:
        said += f"\ncampaign: not done after {limit:.0f} s"
    code: int | None = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        code = -1 if timed_out else None
    seen = json.loads(facts.read_text()) if facts.exists() else None
    return Ended(code, time.monotonic() - start, int.from_bytes(counter[:8], "little"), said, seen)


def _become(run: Run, moment: Moment | None, counter: mmap.mmap, output: Path, facts: Path, fresh: bool) -> None:
    """Turn this fork into the run; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        handle = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(run.folder)
        os.environ.update(run.environment)
        sys.argv = [str(SRC / f"{run.script}.py"), *run.words]
        if fresh:
            os.execv(sys.executable, [sys.executable, *sys.argv])
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        logging.getLogger().handlers.clear()  # the campaign's own
        _fork_steps()
        if run.prepare is not None:
            run.prepare()
        _watch_files(counter, moment if moment and moment.operation is not None else None)
        code = _exit_code(run.script)
        if code == 0 and run.look is not None:
            facts.write_text(json.dumps(run.look()), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        _end_child(code)


def _end_child(code: int) -> NoReturn:
    """End a forked process without running what its parent would do at exit."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _exit_code(script: str) -> int:
    try:
        run_script(importlib.import_module(script).main)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    """Wait for all that is left of the process group."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-pid, 0)


# --- killing at a file operation -------------------------------------------------------------------
def _watch_files(counter: mmap.mmap, moment: Moment | None) -> None:
    """Count, in ``counter``, what this process and its forks change on the disk, and kill them at ``moment``."""
    here = str(Path.cwd())

    def inside(path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        text = os.fsdecode(path)
        return not text.startswith("/") or text.startswith(here)

    def notice(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not inside(path):
            return
        number = int.from_bytes(counter[:8], "little") + 1
        counter[:8] = number.to_bytes(8, "little")
        if moment is not None and number == moment.operation:
            if moment.seconds:
                threading.Timer(moment.seconds, os.killpg, [os.getpgrp(), signal.SIGKILL]).start()
            else:
                os.killpg(os.getpgrp(), signal.SIGKILL)
                time.sleep(10)

    sys.addaudithook(notice)


# --- steps as forks --------------------------------------------------------------------------------
class _ForkedStep:
    """Stands in for ``subprocess.Popen`` of a script: a fork of the process that has imported everything."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, output: int | None = None) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        if (pid := os.fork()) == 0:
            code = 70
            try:
                if output is not None:
                    for stream in (1, 2):
                        os.dup2(output, stream)
                if env is not None:
                    os.environ.clear()
                    os.environ.update(env)
                sys.argv = command[1:]
                code = _exit_code(Path(command[1]).stem)
            except BaseException:
                traceback.print_exc()
            finally:
                _end_child(code)
        self.pid = pid

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def _run_forked(command: list[str], *, env: dict[str, str] | None = None, **_: Any) -> subprocess.CompletedProcess:
    """Stand in for ``subprocess.run`` of a script whose output is captured."""
    read, write = os.pipe()
    step = _ForkedStep(command, env, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="replace") as stream:
        said = stream.read()
    return subprocess.CompletedProcess(command, step.wait(), said, said)


def _fork_steps() -> None:
    """Let ``studies.steps`` fork its commands instead of starting Python anew for each."""
    from studies import steps

    def is_script(command: Any) -> bool:
        return isinstance(command, list) and command[0] == sys.executable and str(command[1]).startswith(str(SRC))

    class Forking(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            return getattr(subprocess, name)

        @staticmethod
        def Popen(command: list[str], env: dict[str, str] | None = None, **more: Any) -> Any:  # noqa: N802
            return _ForkedStep(command, env) if is_script(command) else subprocess.Popen(command, env=env, **more)

        @staticmethod
        def run(command: list[str], **more: Any) -> Any:
            return _run_forked(command, **more) if is_script(command) else subprocess.run(command, **more)

    steps.subprocess = Forking("subprocess")


# --- folders ---------------------------------------------------------------------------------------
def fresh_copy(source: Path, target: Path) -> None:
    """Make ``target`` a copy of the folder ``source``: large files as links, since none is changed in place."""

    def copy(one: str, other: str) -> None:
        if one.endswith((".pth", ".png")):
            os.link(one, other)
        else:
            shutil.copy2(one, other)

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, copy_function=copy)


@contextlib.contextmanager
def kaggle_server(archive: bytes, mapping: bytes, delay: float) -> Iterator[dict[str, str]]:
    """Run ``KaggleServer`` in a process of its own; yields the environment of a client.

    ``delay``: seconds between two chunks.
    """
    from kaggle_server import TOKEN, KaggleServer

    port, parent = mmap.mmap(-1, 8), os.getpid()
    if (pid := os.fork()) == 0:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # clients that are killed make it complain
            sys.stderr = nowhere
            state = KaggleServer(archives=[archive], mapping=mapping, delay=delay)
            state.start()
            port[:8] = state.port.to_bytes(8, "little")
            while os.getppid() == parent:
                time.sleep(1)
        os._exit(0)
    try:
        while not (number := int.from_bytes(port[:8], "little")):
            time.sleep(POLL)
        known = KaggleServer(port=number)
        yield {**known.environment(), "KAGGLE_API_TOKEN": TOKEN, "MAPPING_URL": known.mapping_url}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
