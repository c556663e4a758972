"""Rows of ``gan_benchmark.json``: one contender, one seed and one budget each.

The file is written whole after every row, by one command at a time. Finished rows are kept, whichever command
made them; rows of failures are tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

from benchmarks import benchmark_paths
from benchmarks.file_formats import FailedRow, FinishedRow, GeneratorBenchmark, ImageScores, UnitRow
from benchmarks.generators.contender_runs import (
    MadeImages,
    RunSetup,
    UnitBusyError,
    UnitFailedError,
    make_unit_images,
)
from benchmarks.generators.contenders import Unit
from benchmarks.generators.scores import SPACES, Judge, is_trained, nearest_generator, shipped_generator
from common.experiment_files import named_config
from common.locks import hold_lock
from utils import UserError, load_json, public_path, save_json

log = logging.getLogger(__name__)

FORMAT: Final = "gan-benchmark-1"
Row = FinishedRow | FailedRow
What = Literal["peers", "options"]


# --- the file --------------------------------------------------------------------------------------
class GeneratorResults:
    """The content of the result file, which several commands may add rows to.

    ``header``: machine, data, images and scorer of this run. Raises ``UserError`` if the file was measured
    with another one: numbers of two machines or two sets of images do not belong in one table.
    """

    def __init__(self, file: Path, header: Mapping[str, Any], judge: Judge) -> None:
        self.file, self.header = file, dict(header)
        self.content = read_matching(file, header) or self._begin(judge)

    def _begin(self, judge: Judge) -> GeneratorBenchmark:
        """Write a file without rows, with the scores of real images and of images known to be bad."""
        empty = {
            "format": FORMAT,
            **self.header,
            "reals": judge.real_scores(),
            "heldout": judge.heldout_reference(),
            "controls": judge.control_scores(),
            "rows": [],
            **named_config(),
        }
        with hold_lock(benchmark_paths.lock_beside(self.file)):
            if not self.file.is_file():
                save_json(self.file, empty)
            return self._read()

    def _read(self) -> GeneratorBenchmark:
        content = read_matching(self.file, self.header)
        if content is None:
            raise UserError(f"{public_path(self.file)} was removed during the run; run the command again")
        return content

    def has(self, unit: Unit) -> bool:
        """Return whether the file holds a finished row of ``unit``."""
        return unit.id in {row["id"] for row in self.content["rows"] if row["status"] == "done"}

    def add(self, row: Row) -> bool:
        """Add ``row`` in place of an earlier one of the same contender, budget and seed.

        A failure does not replace a finished row: then nothing is added, and the result is False. The file is
        read anew, because another command may have added to it.
        """
        with hold_lock(benchmark_paths.lock_beside(self.file)):
            self.content = self._read()
            same = [kept for kept in self.content["rows"] if place_of(kept) == place_of(row)]
            if row["status"] != "done" and any(kept["status"] == "done" for kept in same):
                return False
            others = [kept for kept in self.content["rows"] if place_of(kept) != place_of(row)]
            save_json(self.file, {**self.content, "rows": [*others, row], **named_config()})
            self.content = self._read()  # as others will read it
        return True


def place_of(row: UnitRow) -> tuple[str, str, str, int]:
    """Return what a later row must share to replace this one."""
    return row["what"], row["contender"], row["budget"], row["seed"]


def read_matching(file: Path, header: Mapping[str, Any]) -> GeneratorBenchmark | None:
    """Read a result file, None if it is missing; raises ``UserError`` if another ``header`` was measured."""
    if not file.is_file():
        return None
    earlier = read_results(file)
    if other := [name for name, value in header.items() if dict(earlier).get(name) != value]:
        raise UserError(
            f"{public_path(file)} was measured with other {', '.join(other)}; give another --output-dir, or "
            "move the file away"
        )
    return earlier


def read_results(file: Path) -> GeneratorBenchmark:
    """Read a result file; raises ``UserError`` if it is missing or of another format."""
    content = load_json(file, "`python src/benchmark_gan.py`")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{public_path(file)} is no {FORMAT} file; give another --output-dir, or move it away")
    return cast(GeneratorBenchmark, content)


# --- measuring -------------------------------------------------------------------------------------
def measure_units(
    units: Sequence[Unit], setup: RunSetup, judge: Judge, results: GeneratorResults, what: What, again: bool
) -> None:
    """Measure each of ``units`` that has no finished row, or all of them with ``again``."""
    todo = [unit for unit in units if again or not results.has(unit)]
    if kept := len(units) - len(todo):
        log.info(f"{kept} finished earlier and kept")
    for number, unit in enumerate(todo, 1):
        name = f"{unit.contender.name}, {unit.budget.words}, seed {unit.seed}"
        log.info(f"[{number}/{len(todo)}] {name} ...")
        try:
            row = measure_unit(unit, setup, judge, what, again)
        except UnitBusyError:
            log.info("    another command is training it; left to that one")
            continue
        kept_words = "" if results.add(row) else " (the finished row stays)"
        log.info(f"    {scores_in_words(row)}{kept_words}")


def measure_unit(unit: Unit, setup: RunSetup, judge: Judge, what: What, again: bool = False) -> Row:
    """Train, sample and score one unit; the row of a contender that failed says why."""
    row: UnitRow = {
        "id": unit.id,
        "what": what,
        "contender": unit.contender.name,
        "ours": unit.contender.ours,
        "seed": unit.seed,
        "minutes": unit.budget.minutes,
        "kimg": unit.budget.kimg,
        "budget": unit.budget.words,
    }
    try:
        made = make_unit_images(unit, setup, again)
        check_made_images(made, judge)
    except UnitFailedError as failure:
        return {**row, "status": failure.status, "reason": str(failure)}
    scores = {name: judge.score(images) for name, images in made.images.items()}
    # Of options the average counts, which users of this project get.
    generator = shipped_generator(scores) if what == "options" else nearest_generator(scores)
    facts = made.facts
    seconds, seen = facts["train_seconds"], facts["images_seen"]
    return {
        **row,
        "status": "done",
        "package": facts.get("package"),
        "parameters": facts.get("parameters"),
        "steps": facts.get("steps"),
        "settings": facts.get("settings"),
        "threads": facts.get("threads"),
        "command_seconds": facts.get("command_seconds"),
        "cpu_seconds": facts.get("cpu_seconds"),
        "images_seen": seen,
        "train_seconds": seconds,
        "images_per_second": seen / seconds if seconds else None,
        "generator": generator,
        "trained": is_trained(scores[generator]),
        "scores": scores,
    }


def check_made_images(made: MadeImages, judge: Judge) -> None:
    """Raise ``UnitFailedError`` if there are too few images, or of another size than the real ones."""
    for name, images in made.images.items():
        if images.dtype != "uint8" or images.shape[1:] != judge.reference.shape[1:]:
            raise UnitFailedError("failed", f"its {name} images are {images.dtype} {list(images.shape)}")
        if len(images) < judge.n:
            reason = f"{len(images)} {name} images are fewer than the {judge.n} held out"
            raise UnitFailedError("failed", reason)


# --- words -----------------------------------------------------------------------------------------
def counted_scores(row: FinishedRow) -> ImageScores:
    """Return the scores of the generator that counts."""
    return row["scores"][row["generator"]]


def scores_in_words(row: Row) -> str:
    """Describe a row in one line: its scores, or why it has none."""
    if row["status"] != "done":
        return f"{row['status'].replace('_', ' ')}: {row['reason']}"
    spaces = counted_scores(row)["spaces"]
    kids = ", ".join(f"{space} {spaces[space]['kid']:.4f}" for space in SPACES)
    recall = "/".join(f"{spaces[space]['recall']:.2f}" for space in SPACES)
    speed = "" if row["images_per_second"] is None else f", {row['images_per_second']:.0f} a second"
    return f"KID {kids}; recall {recall} ({row['generator']}); {row['images_seen']:,} images{speed}"
