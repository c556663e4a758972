"""The rows of ``gan_benchmark.json``: one contender, one seed, one budget each.

The file is written whole after every row, by one command at a time. Finished rows are kept, whatever command
made them; rows of failures are tried again. Rows that were scored otherwise than now, by an older version or
another ResNet-18, are scored anew from the images that are kept, and are in no table until they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.generators.contender_runs import (
    DONE,
    FAILED,
    Field,
    Made,
    UnitBusyError,
    UnitFailedError,
    make_images,
    read_made,
)
from benchmarks.generators.contenders import Unit
from benchmarks.generators.scores import SPACES, VERSION, Judge, better_of, shipped
from common import paths
from common.file_lock import hold_lock
from utils import UserError, load_json, public_path, save_json

log = logging.getLogger(__name__)


FORMAT = "gan-benchmark-1"
HEADER = ("machine", "data", "images")  # what rows of one file share
PLACE = ("what", "contender", "budget", "seed")  # of a row in the table
DESCRIBED = ("scorer", "reals", "references", "controls")  # what is said of the judge and the reals
# Of a generator that counts as trained, in every space; diversity beside the reals'. Noise surrounds
# everything, so its recall may be 1, but it lies near no real image: its precision is 0.
MIN_RECALL, MIN_DIVERSITY, MIN_PRECISION = 0.1, 0.5, 0.1


class GANResults:
    """The content of the result file. ``header``: machine, data, number of generated images; ``mark``: see
    ``Judge``.

    What is there is kept; ``UserError`` if it was measured with another ``header``, as figures of two
    machines or two sets of images do not belong into one table, or scored by a newer version.
    """

    def __init__(self, file: Path, header: Mapping[str, Any], mark: Mapping[str, Any]) -> None:
        self.file, self.header, self.mark = file, dict(header), dict(mark)
        self.content = self._read()

    def _read(self) -> dict[str, Any]:
        empty = {"format": FORMAT, **self.header, **dict.fromkeys(DESCRIBED), "rows": []}
        return empty | (read_fitting(self.file, self.header) or {})

    def describe_reals(self, scorer: Mapping[str, Any], judge: Judge) -> None:
        """What the judge says of real and of bad images, unless the file has it from the same judge."""
        if mark_of(self.content) == self.mark and all(self.content[key] for key in DESCRIBED):
            return
        described = {
            "scorer": dict(scorer) | {"mark": self.mark},
            "reals": judge.floors(),
            "references": judge.references(),
            "controls": judge.controls(),
        }
        with hold_lock(paths.lock_beside(self.file)):
            save_json(self.file, self._read() | described)
        self.content = load_json(self.file)

    def has(self, unit: Unit) -> bool:
        """A finished row of it, scored as now?"""
        return any(
            row["id"] == unit.id and row["status"] == DONE and row.get("scoring") == self.mark
            for row in self.content["rows"]
        )

    def add(self, row: Mapping[str, Any]) -> bool:
        """In place of an earlier one of the same contender, budget and seed, be it of other settings; but a
        failure never takes the place of a finished row: False then. The file is read anew: another command
        may have added to it."""
        with hold_lock(paths.lock_beside(self.file)):
            content = self._read() | {key: self.content[key] for key in DESCRIBED}
            same = [kept for kept in content["rows"] if all(kept[name] == row[name] for name in PLACE)]
            if row["status"] != DONE and any(kept["status"] == DONE for kept in same):
                return False
            others = [kept for kept in content["rows"] if kept not in same]
            content["rows"] = [*others, dict(row)]
            save_json(self.file, content)
        self.content = load_json(self.file)  # as it will be read by others
        return True

    def rescore(self, field: Field, judge: Judge) -> None:
        """Score anew what was scored otherwise, from the images that are kept: nothing is trained."""
        stale = stale_rows(self.content["rows"], self.mark)
        if not stale:
            return
        log.info(
            f"{len(stale)} rows were scored by another version or ResNet-18: scored anew, not trained anew"
        )
        lost = 0
        for row in stale:
            made = read_made(paths.made_images(field.folder_of_row(row)))
            if made is None:
                lost += 1
            else:
                self.add(row | scored(made, judge, row["what"]))
        if lost:
            log.info(
                f"{lost} of them have no images in --work-dir: in no table, measured anew when asked for"
            )


def read_fitting(file: Path, header: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of a result file, None if it is not there; ``UserError`` if it was measured with another
    ``header``."""
    if not file.is_file():
        return None
    earlier = read_results(file)
    if other := [name for name in HEADER if earlier.get(name) != header[name]]:
        raise UserError(
            f"{public_path(file)} was measured with other {', '.join(other)}; give another --output-dir, or "
            "move the file away"
        )
    return earlier


def mark_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of the judge by whom the reals of a file were described; None before there were marks."""
    return (content.get("scorer") or {}).get("mark")


def stale_rows(rows: Sequence[Mapping[str, Any]], mark: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Finished, but scored otherwise than ``mark`` says."""
    return [row for row in rows if row["status"] == DONE and row.get("scoring") != mark]


def read_results(file: Path) -> dict[str, Any]:
    """``UserError`` if the file is missing, something else, or scored by a newer version than this. Threads,
    which rows tell, are left out of the machine, where earlier versions recorded them."""
    content = load_json(file, "`python src/benchmark_gan.py`")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{public_path(file)} is no {FORMAT} file: give another --output-dir, or move it away"
        )
    marks = [mark_of(content), *(row.get("scoring") for row in content["rows"])]
    if any(mark["version"] > VERSION for mark in marks if mark):
        raise UserError(f"{public_path(file)} was scored by a newer version of this project: update it")
    content["machine"].pop("threads", None)
    return content


def needs_scoring(content: Mapping[str, Any]) -> bool:
    """Is anything in the file scored otherwise than this version and the file's own judge would?"""
    mark = mark_of(content)
    return mark is None or mark["version"] != VERSION or bool(stale_rows(content["rows"], mark))


def merged(contents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The rows of several files in one; of two of the same place a finished one before a failure, then the
    earlier file's. ``UserError`` if they do not belong together."""
    first, rows = contents[0], {}
    for content, name in zip(contents, names, strict=True):
        other = [part for part in HEADER if content.get(part) != first[part]]
        other += ["scoring"] if mark_of(content) != mark_of(first) else []
        if other:
            raise UserError(f"{name} was measured with other {', '.join(other)} than {names[0]}: not merged")
        for row in content["rows"]:
            place = tuple(row[part] for part in PLACE)
            if place not in rows or (row["status"] == DONE and rows[place]["status"] != DONE):
                rows[place] = row
    return {**first, "rows": list(rows.values())}


def merge_into(file: Path, others: Sequence[Path]) -> dict[str, Any]:
    """Write the rows of ``others`` into ``file``, too; returns what it then holds. ``UserError`` as in
    ``merged``; then nothing is written."""
    with hold_lock(paths.lock_beside(file)):
        names = [public_path(path) for path in (file, *others)]
        content = merged([read_results(path) for path in (file, *others)], names)
        save_json(file, content)
    return content


# --- measuring -------------------------------------------------------------------------------------
def measure_units(
    units: Sequence[Unit], field: Field, judge: Judge, results: GANResults, what: str, again: bool
) -> None:
    """A row for each of ``units`` that has none, or for all of them with ``again``."""
    todo = [unit for unit in units if again or not results.has(unit)]
    if kept := len(units) - len(todo):
        log.info(f"{kept} finished before and kept")
    for number, unit in enumerate(todo, 1):
        name = f"{unit.contender.name}, {unit.budget.words}, seed {unit.seed}"
        log.info(f"[{number}/{len(todo)}] {name} ...")
        try:
            row = measure(unit, field, judge, what, again)
        except UnitBusyError:
            log.info("    left to another command that is at it")
            continue
        kept = "" if results.add(row) else " (the finished row stays)"
        log.info(f"    {describe(row)}{kept}")


def measure(unit: Unit, field: Field, judge: Judge, what: str, again: bool = False) -> dict[str, Any]:
    """The row; one of a contender that failed says why."""
    row = {
        "id": unit.id,
        "what": what,
        "contender": unit.contender.name,
        "ours": unit.contender.ours,
        "seed": unit.seed,
        "minutes": unit.budget.minutes,
        "kimg": unit.budget.kimg,
        "budget": unit.budget.words,
        "status": DONE,
        "reason": None,
    }
    try:
        made = make_images(unit, field, again)
        check_images(made.images, judge)
    except UnitFailedError as failure:
        return row | {"status": failure.status, "reason": str(failure)}
    seconds, seen = made.facts["train_seconds"], made.facts["images_seen"]
    kept = ("package", "parameters", "steps", "settings", "threads", "command_seconds", "cpu_seconds")
    return row | {
        **{key: made.facts.get(key) for key in kept},
        "images_seen": seen,
        "train_seconds": seconds,
        "images_per_second": seen / seconds if seconds else None,
        **scored(made, judge, what),
    }


def scored(made: Made, judge: Judge, what: str) -> dict[str, Any]:
    """{"scoring", "better", "trained", "scores"} of a row: of options the average counts, which is what
    users get; of peers the generator that is nearer to the positives learned from."""
    scores = {name: judge.score(images) for name, images in made.images.items()}
    better = shipped(scores) if what == "options" else better_of(scores)
    trained = is_trained(scores[better])
    return {"scoring": judge.mark, "better": better, "trained": trained, "scores": scores}


def check_images(images: Mapping[str, Any], judge: Judge) -> None:
    """``UnitFailedError`` if they are too few, or of another size than the reals."""
    for name, made in images.items():
        if made.dtype != "uint8" or made.shape[1:] != judge.reference.shape[1:]:
            raise UnitFailedError(FAILED, f"its {name} images are {made.dtype} {list(made.shape)}")
        if len(made) < judge.n:
            raise UnitFailedError(FAILED, f"{len(made)} {name} images are fewer than the {judge.n} held out")


def is_trained(score: Mapping[str, Any]) -> bool:
    """Neither one chest over and over, nor noise, nor no chest at all: recall, precision and diversity above
    their limits in every space."""
    limits = {"recall": MIN_RECALL, "precision": MIN_PRECISION, "diversity": MIN_DIVERSITY}
    return all(score["spaces"][space][name] > limit for space in SPACES for name, limit in limits.items())


# --- words -----------------------------------------------------------------------------------------
def describe(row: Mapping[str, Any]) -> str:
    if row["status"] != DONE:
        return f"{row['status'].replace('_', ' ')}: {row['reason']}"
    figures = row["scores"][row["better"]]["spaces"]
    kids = ", ".join(f"{space} {figures[space]['kid']:.4f}" for space in SPACES)
    return (
        f"KID {kids}; recall {in_spaces(figures, 'recall')} ({row['better']}); "
        f"{row['images_seen']:,} images, {row['images_per_second']:.0f} a second"
    )


def in_spaces(figures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """E.g. "0.86/0.58/0.64": in the order of ``SPACES``."""
    return "/".join(f"{figures[space][name]:.2f}" for space in SPACES)
