"""Steps of a longer run: commands that could be typed by hand, skipped when finished, resumed when not.

A log beside the results says which step was started and finished with which command. It is written before
and after each step, so that a run may be interrupted anywhere.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from common import paths
from common.experiment_files import CONFIG_VARIABLE, config_sha256
from common.file_formats import format_problems
from common.logs import LOGS_VARIABLE
from common.output_folders import CHECK_ONLY
from common.paths import SRC
from common.progress import duration_in_words
from utils import UserError, load_json, save_json

if TYPE_CHECKING:
    from studies.file_formats import StepEntry

log = logging.getLogger(__name__)

T = TypeVar("T")

NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
FINISHED, STARTED, OUTDATED = "finished", "started", "outdated"
CHECKS_AT_ONCE = 4  # processes that check options, each of which takes seconds to start
# With these a script ends well and has made nothing.
MAKE_NOTHING = {"--estimate", "--dry-run", "--preview-augmentations", "--version", "--help", "-h"}


@dataclass(frozen=True)
class Step:
    """One command: ``script`` with ``options``; done when ``artifact`` is there.

    ``needs``: names of the earlier steps that it builds on (None: all of them). When one of these has run
    again, it runs again, too, and from the beginning; else an interrupted one with ``resumable`` goes on.
    ``images``: the folder whose synthetic images it replaces if they are this run's and outdated. ``cache``:
    options that change no result, so that a step finished with others is finished. ``share``: of the time of its
    sequence, where that is known; it says how much time is left.
    """

    name: str
    script: str
    options: list[str]
    artifact: Path
    resumable: bool = False
    needs: tuple[str, ...] | None = None
    images: Path | None = None
    cache: list[str] = field(default_factory=list)
    share: float | None = None

    def command(self) -> list[str]:
        """Return the command as the log records it: "./results" and "results" are one folder."""
        return [f"src/{self.script}.py", *(str(Path(w)) if w.startswith("./") else w for w in self.options)]

    def builds_on(self, ran: list[str]) -> bool:
        """Tell whether it builds on one of the steps that have ``ran``."""
        return bool(ran) if self.needs is None else not set(self.needs).isdisjoint(ran)


# --- options that are passed on --------------------------------------------------------------------
def passed_on_words(text: str) -> list[str]:
    """Read an argparse value: options in one string, split as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split into options: {error}") from None


def check_options(steps: list[Step], variables: Mapping[str, str] = NOTHING_MORE) -> None:
    """Let every script check its options and folders before hours are spent; what is wrong ends here.

    ``variables``: environment variables of the scripts beside those of this process.
    """
    environment = os.environ | {CHECK_ONLY: "1", "PYTHONIOENCODING": "utf-8:backslashreplace", **variables}

    def check(step: Step) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SRC / f"{step.script}.py"), *step.options, *step.cache]
        return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", env=environment)

    with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
        for step, checked in zip(steps, pool.map(check, steps), strict=True):
            if checked.returncode != 0:
                pool.shutdown(wait=False, cancel_futures=True)
                log.error((checked.stderr.strip().splitlines() or [f"{step.script}.py cannot be started"])[-1])
                sys.exit(checked.returncode if checked.returncode > 0 else 1)


# --- running ---------------------------------------------------------------------------------------
def read_log(log_file: Path) -> dict[str, StepEntry]:
    """Read step name -> its entry; empty if nothing has run. Raises ``UserError`` if it is another file."""
    from studies.file_formats import StepEntry

    entries = load_json(log_file) if log_file.is_file() else {}
    if problems := format_problems(entries, dict[str, StepEntry]):
        raise UserError(f"{log_file} is no log of steps ({problems[0]}); delete it, and every step runs again")
    return entries


def steps_due(steps: list[Step], steps_log: dict[str, StepEntry]) -> list[Step]:
    """List the steps that ``run_steps`` would run: unfinished with this command, or built on such a one."""
    due: list[Step] = []
    for step in steps:
        entry = steps_log.get(step.name)
        finished = entry is not None and is_finished(entry, step)
        if not finished or not step.artifact.exists() or step.builds_on([other.name for other in due]):
            due.append(step)
    return due


def run_steps(steps: list[Step], log_file: Path, variables: Mapping[str, str] = NOTHING_MORE) -> None:
    """Run what is not finished; the log says which command each step was started and finished with.

    ``variables``: environment variables of the steps beside those of this process.
    """
    steps_log = read_log(log_file)
    due = steps_due(steps, steps_log)
    mark_outdated(due, steps_log)
    took: dict[str, float] = {}
    for number, step in enumerate(steps, start=1):
        title = f"step {number}/{len(steps)}: {step.name}"
        if step not in due:
            log.info(f"\n== {title}: already finished")
            continue
        entry, extra = steps_log.get(step.name), [*step.cache]
        started: StepEntry = {"command": step.command(), "state": STARTED}
        same_command = entry is not None and entry["command"] == step.command()
        if step.resumable and entry is not None and entry["state"] == STARTED and same_command:
            extra.append("--resume")
        if step.images:
            started["own_images"] = owns_images(step, entry)
            if started["own_images"] and are_outdated(step, entry):
                extra.append("--overwrite")
                started["replaces"] = time_of_change(step.artifact)
        if left := time_left(due, took):
            title += f", about {duration_in_words(left)} left"
        log.info(f"\n== {title}\n$ python {shlex.join([*step.command(), *extra])}")
        steps_log[step.name] = started
        save_json(log_file, steps_log)
        seconds = took[step.name] = run_step(step, extra, log_file.parent / paths.LOGS, variables)
        steps_log[step.name] = {"command": step.command(), "state": FINISHED, "seconds": round(seconds, 1)}
        save_json(log_file, steps_log)
        log.info(f"== {step.name}: done in {seconds / 60:.1f} min")


def time_left(due: Sequence[Step], took: Mapping[str, float]) -> float | None:
    """Return the seconds that the steps which are ``due`` and not yet done will take; None if nobody can tell.

    ``took``: seconds of those that are done, by name.
    """
    shares = {step.name: step.share for step in due}
    known = [share for share in shares.values() if share is not None]
    done = sum(shares[name] or 0.0 for name in took)
    return sum(took.values()) * (sum(known) / done - 1) if done and len(known) == len(shares) else None


def is_finished(entry: StepEntry, step: Step) -> bool:
    """Tell whether ``step`` ended well with the command that it has now."""
    return entry["state"] == FINISHED and entry["command"] == step.command()


def mark_outdated(due: list[Step], steps_log: dict[str, StepEntry]) -> None:
    """Mark entries of steps that run again, and of steps that build on them: neither finished nor resumable.

    It stands in the log before the first step runs, so that a run that is interrupted between the two does
    not take old results for new ones later.
    """
    for number, step in enumerate(due):
        entry = steps_log.get(step.name)
        earlier = [other.name for other in due[:number]]
        if entry and (entry["state"] == FINISHED or step.builds_on(earlier)):
            if step.images:
                entry["own_images"] = owns_images(step, entry)
            entry["state"] = OUTDATED


def owns_images(step: Step, entry: StepEntry | None) -> bool:
    """Tell whether all images in the step's folder are this sequence's; only such images are ever replaced.

    They are if an earlier run, whose log ``entry`` is given, made them there, or if there are none yet.
    """
    folder = step.images
    if folder is None:
        return False
    made = entry is not None and (entry["state"] == FINISHED or entry.get("own_images", False))
    if entry is not None and made and str(folder) in entry["command"]:
        return True
    return not step.artifact.exists() and not any(folder.glob(paths.SYNTHETIC_PATTERN))


def are_outdated(step: Step, entry: StepEntry | None) -> bool:
    """Tell whether the images must be made anew; not if an interrupted run of the same command can go on."""
    if entry is None:
        return False
    if entry["state"] == OUTDATED or entry["command"] != step.command():
        return True
    # Interrupted while it replaced others: before or after it had removed them?
    return "replaces" in entry and time_of_change(step.artifact) in (None, entry["replaces"])


def time_of_change(path: Path) -> int | None:
    """Return the time of the last change in nanoseconds; None if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else None


def in_process_of_its_own(function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function`` in a new process, whose memory is free again afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_step(step: Step, extra: list[str], logs: Path, variables: Mapping[str, str]) -> float:
    """Run one step to its end, with its log file in ``logs``, and return its seconds.

    Raises ``UserError`` if it fails or makes nothing.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(SRC / f"{step.script}.py"), *step.options, *extra],
        env=os.environ | {LOGS_VARIABLE: str(logs), CONFIG_VARIABLE: config_sha256() or "", **variables},
    )
    try:
        code = process.wait()
    except KeyboardInterrupt as stop:
        stop.add_note(f"the same command goes on from step {step.name!r}")
        # At a terminal Ctrl-C has reached the step too; it cleans up after itself.
        process.terminate()
        process.wait()
        raise
    if code == -9:  # SIGKILL, which Windows does not know
        raise UserError(
            f"step {step.name!r} was killed, perhaps because memory ran out; a smaller batch or image size needs "
            "less. Run the same command again to go on from this step"
        )
    if code != 0:
        raise UserError(
            f"step {step.name!r} ended with exit code {code}; its message stands above. "
            "Run the same command again to go on from this step"
        )
    if not step.artifact.exists():
        raise UserError(
            f"step {step.name!r} ended without an error, but {step.artifact} is not there: run the same "
            "command again, and look at what the step says above if it is missing again"
        )
    return time.monotonic() - start
