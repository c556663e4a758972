"""Steps of a longer run: commands that could be typed by hand, skipped when finished, resumed when not.

A log beside the results says which step was started and finished with which command. It is written before
and after each step, so that a run may be interrupted anywhere.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from common import paths
from common.paths import SRC
from gan.settings import CLASS_FLAGS
from utils import UserError, load_json, save_json

log = logging.getLogger(__name__)

T = TypeVar("T")


FINISHED, STARTED, OUTDATED = "finished", "started", "outdated"
GENERATION = "generate synthetic images"
MAKE_NOTHING = {"--estimate", "--help", "-h"}  # with which a script ends well, its step undone


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes; below ``output`` in the layout of README."""

    data: Path
    synthetic: Path
    models: Path
    output: Path

    @property
    def metrics(self) -> Path:
        return self.output / Path(paths.METRICS_DIR).name

    @property
    def figures(self) -> Path:
        return self.output / Path(paths.FIGURES_DIR).name

    @property
    def analysis(self) -> Path:
        return self.output / Path(paths.ANALYSIS_DIR).name


@dataclass(frozen=True)
class Step:
    """One command: ``script`` with ``options``; done when ``artifact`` is there.

    ``needs``: names of the earlier steps that it builds on (None: all of them). When one of these has run
    again, it runs again, too, and from the beginning; else an interrupted one with ``resumable`` goes on.
    ``images``: the folder whose synthetic images it replaces if they are this run's and outdated. ``cache``:
    options that change no result, so that a step finished with others is finished.
    """

    name: str
    script: str
    options: list[str]
    artifact: Path
    resumable: bool = False
    needs: tuple[str, ...] | None = None
    images: Path | None = None
    cache: list[str] = field(default_factory=list)

    def command(self) -> list[str]:
        """What the log remembers it by."""
        return [f"src/{self.script}.py", *self.options]

    def builds_on(self, ran: list[str]) -> bool:
        """Does it build on one of the steps that have ``ran``?"""
        return bool(ran) if self.needs is None else not set(self.needs).isdisjoint(ran)


# --- command line ----------------------------------------------------------------------------------
def add_passed_on_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that are handed to the scripts as they are."""
    for flag, script, example in (
        ("--classifier-args", "train_classifier.py", "--weights none --unfreeze"),
        ("--gan-args", "train_gan.py", "--num-channels 1"),
    ):
        parser.add_argument(
            flag, type=words, default=[], metavar="'ARGS'",
            help=f"more options of {script}, e.g. '{example}' (default: none)",
        )  # fmt: skip


def words(text: str) -> list[str]:
    """An argparse type: options in one string, split as a shell would."""
    try:
        options = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split into options: {error}") from None
    if idle := [option for option in options if option in MAKE_NOTHING]:
        raise argparse.ArgumentTypeError(f"{idle[0]} cannot be passed on: the step would make nothing")
    return options


def positives_of(gan_args: Sequence[str]) -> list[str]:
    """What generate_synthetic.py must be told so that a GAN trained with ``gan_args`` makes positives."""
    return ["--label", CLASS_FLAGS[0]] if "--conditional" in gan_args else []


def data_options(args: argparse.Namespace) -> list[str]:
    """What every step that reads the dataset is told besides its folder."""
    return [
        *(["--splits", args.splits] if args.splits else []),
        *(["--patient-map", args.patient_map] if args.patient_map else []),
        *(["--skip-bad-images"] if args.skip_bad_images else []),
    ]


def cache_options(args: argparse.Namespace) -> list[str]:
    """What every step that decodes images is told about its cache; nothing if that is the usual one."""
    if args.no_cache:
        return ["--no-cache"]
    return [] if args.cache_dir == paths.CACHE_DIR else ["--cache-dir", args.cache_dir]


def check_options(steps: list[Step]) -> None:
    """Let every script read its options before hours are spent; wrong usage ends here, with exit code 2.

    With ``--help`` last, a script checks the options before it and then does nothing.
    """
    for step in steps:
        command = [sys.executable, str(SRC / f"{step.script}.py"), *step.options, *step.cache, "--help"]
        checked = subprocess.run(command, capture_output=True, text=True)
        if checked.returncode != 0:
            log.error(checked.stderr.strip().splitlines()[-1])
            sys.exit(2)


# --- running ---------------------------------------------------------------------------------------
def read_log(log_file: Path) -> dict[str, Any]:
    """Step name -> its command and state; empty if nothing has run."""
    return load_json(log_file) if log_file.is_file() else {}


def unfinished(steps: list[Step], steps_log: dict[str, Any]) -> list[Step]:
    """The steps that ``run_steps`` would run: not finished with this command, or built on such a one."""
    due: list[Step] = []
    for step in steps:
        entry = steps_log.get(step.name, {})
        finished = entry.get("state") == FINISHED and entry.get("command") == step.command()
        if not finished or not step.artifact.exists() or step.builds_on([other.name for other in due]):
            due.append(step)
    return due


def run_steps(steps: list[Step], log_file: Path) -> None:
    """Run what is not finished; the log says which command each step was started and finished with."""
    steps_log = read_log(log_file)
    due = unfinished(steps, steps_log)
    mark_outdated(due, steps_log)
    for number_, step in enumerate(steps, start=1):
        title = f"step {number_}/{len(steps)}: {step.name}"
        if step not in due:
            log.info(f"\n== {title}: already finished")
            continue
        entry, extra = steps_log.get(step.name, {}), [*step.cache]
        started: dict[str, Any] = {"command": step.command(), "state": STARTED}
        if step.resumable and entry.get("state") == STARTED and entry["command"] == step.command():
            extra.append("--resume")
        if step.images:
            started["own_images"] = owns_images(step, entry)
            if started["own_images"] and are_outdated(step, entry):
                extra.append("--overwrite")
                started["replaces"] = modified(step.artifact)
        log.info(f"\n== {title}\n$ python {shlex.join([*step.command(), *extra])}")
        steps_log[step.name] = started
        save_json(log_file, steps_log)
        seconds = run_command(step, extra)
        steps_log[step.name] = {"command": step.command(), "state": FINISHED, "seconds": round(seconds, 1)}
        save_json(log_file, steps_log)
        log.info(f"== {step.name}: done in {seconds / 60:.1f} min")


def mark_outdated(due: list[Step], steps_log: dict[str, Any]) -> None:
    """What was finished, or builds on a step that runs again, is neither finished nor resumable any more.

    It stands in the log before the first step runs, so that a run that is interrupted between the two does
    not take old results for new ones later.
    """
    for number_, step in enumerate(due):
        entry = steps_log.get(step.name)
        earlier = [other.name for other in due[:number_]]
        if entry and (entry["state"] == FINISHED or step.builds_on(earlier)):
            owned = {"own_images": owns_images(step, entry)} if step.images else {}
            steps_log[step.name] = entry | owned | {"state": OUTDATED}


def owns_images(step: Step, entry: dict[str, Any]) -> bool:
    """Are all images in the step's folder this run's? Then they may be replaced; others never are.

    They are if an earlier run, whose log ``entry`` is given, made them there, or if there are none yet.
    """
    if str(step.images) in entry.get("command", []) and (
        entry.get("state") == FINISHED or entry.get("own_images")
    ):
        return True
    return not step.artifact.exists() and not any(step.images.glob(paths.SYNTHETIC_PATTERN))


def are_outdated(step: Step, entry: dict[str, Any]) -> bool:
    """Must the images be made anew? Not if an interrupted run of the same command can be taken up."""
    if not entry:
        return False
    if entry["state"] == OUTDATED or entry["command"] != step.command():
        return True
    # Interrupted while it replaced others: before or after it had removed them?
    return "replaces" in entry and modified(step.artifact) in (None, entry["replaces"])


def modified(path: Path) -> int | None:
    """Time of the last change in nanoseconds; None if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else None


def in_process_of_its_own(function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function`` in a new process, whose memory is free again afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run_command(step: Step, extra: list[str]) -> float:
    """Run one step to its end and return its seconds. ``UserError`` if it fails or makes no artifact."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, str(SRC / f"{step.script}.py"), *step.options, *extra])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # At a terminal Ctrl-C has reached the step too; it cleans up after itself.
        process.terminate()
        process.wait()
        raise
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
