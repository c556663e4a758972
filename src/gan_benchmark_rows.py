"""The rows of ``gan_benchmark.json``: one contender, one seed, one budget each; and tables of them.

The file is written whole after every row. Finished rows are kept, whatever command made them; rows of
failures are tried again.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_benchmark_scores import MAIN, SPACES, Judge, better_of
from gan_contender_runs import DONE, FAILED, Field, UnitFailedError, make_images
from gan_contenders import Unit
from utils import UserError, load_json, public_path, save_json

FORMAT = "gan-benchmark-1"
HEADER = ("machine", "data", "images")  # what rows of one file share
PLACE = ("what", "contender", "budget", "seed")  # of a row in the table
# Of a generator that counts as trained, in MAIN; diversity beside the reals'. Noise surrounds everything, so
# its recall may be 1, but it lies near no real image: its precision is 0.
MIN_RECALL, MIN_DIVERSITY, MIN_PRECISION = 0.1, 0.5, 0.1


class GANResults:
    """The content of the result file. ``header``: machine, data, number of generated images; ``judge``: the
    scorer's facts and the figures of real images.

    What is there is kept; ``UserError`` if it was measured with another ``header``: figures of two machines
    or two sets of images do not belong into one table.
    """

    def __init__(self, file: Path, header: Mapping[str, Any]) -> None:
        self.file, self.header = file, dict(header)
        self.content = self._read()

    def _read(self) -> dict[str, Any]:
        empty = {"format": FORMAT, **self.header, "scorer": None, "reals": None, "rows": []}
        if not self.file.is_file():
            return empty
        earlier = read_results(self.file)
        other = [name for name in HEADER if earlier.get(name) != self.header[name]]
        if other:
            raise UserError(
                f"{public_path(self.file)} was measured with other {', '.join(other)}; give another "
                "--output-dir, or move the file away"
            )
        return earlier

    def describe_reals(self, scorer: Mapping[str, Any], reals: Mapping[str, Any]) -> None:
        self.content = self._read() | {"scorer": scorer, "reals": reals}
        save_json(self.file, self.content)

    def has(self, unit: Unit) -> bool:
        """A finished row of it?"""
        return any(row["id"] == unit.id and row["status"] == DONE for row in self.content["rows"])

    def add(self, row: Mapping[str, Any]) -> None:
        """In place of an earlier one of the same contender, budget and seed, be it of other settings. The
        file is read anew: another command may have added to it."""
        described = {key: self.content[key] for key in ("scorer", "reals")}
        content = self._read() | described
        others = [kept for kept in content["rows"] if any(kept[name] != row[name] for name in PLACE)]
        content["rows"] = [*others, dict(row)]
        save_json(self.file, content)
        self.content = load_json(self.file)  # as it will be read by others


def read_results(file: Path) -> dict[str, Any]:
    """``UserError`` if the file is missing or something else."""
    content = load_json(file, "`python src/benchmark_gan.py`")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{public_path(file)} is no {FORMAT} file: give another --output-dir, or move it away"
        )
    return content


# --- measuring -------------------------------------------------------------------------------------
def measure_units(
    units: Sequence[Unit], field: Field, judge: Judge, results: GANResults, what: str, again: bool
) -> None:
    """A row for each of ``units`` that has none, or for all of them with ``again``."""
    todo = [unit for unit in units if again or not results.has(unit)]
    if kept := len(units) - len(todo):
        print(f"{kept} finished before and kept")
    for number, unit in enumerate(todo, 1):
        name = f"{unit.contender.name}, {unit.budget.words}, seed {unit.seed}"
        print(f"[{number}/{len(todo)}] {name} ...", flush=True)
        if again:
            shutil.rmtree(field.folder(unit), ignore_errors=True)
        row = measure(unit, field, judge, what)
        results.add(row)
        print(f"    {describe(row)}", flush=True)


def measure(unit: Unit, field: Field, judge: Judge, what: str) -> dict[str, Any]:
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
        made = make_images(unit, field)
        check_images(made.images, judge)
    except UnitFailedError as failure:
        return row | {"status": failure.status, "reason": str(failure)}
    scores = {name: judge.score(images) for name, images in made.images.items()}
    better = better_of(scores)
    seconds, seen = made.facts["train_seconds"], made.facts["images_seen"]
    return row | {
        **{key: made.facts.get(key) for key in ("package", "parameters", "steps", "settings")},
        "images_seen": seen,
        "train_seconds": seconds,
        "images_per_second": seen / seconds if seconds else None,
        "better": better,
        "trained": is_trained(scores[better]),
        "scores": scores,
    }


def check_images(images: Mapping[str, Any], judge: Judge) -> None:
    """``UnitFailedError`` if they are too few, or of another size than the reals."""
    for name, made in images.items():
        if made.dtype != "uint8" or made.shape[1:] != judge.reference.shape[1:]:
            raise UnitFailedError(FAILED, f"its {name} images are {made.dtype} {list(made.shape)}")
        if len(made) < judge.n:
            raise UnitFailedError(FAILED, f"{len(made)} {name} images are fewer than the {judge.n} held out")


def is_trained(score: Mapping[str, Any]) -> bool:
    """Neither one chest over and over, nor noise: recall, diversity and precision above their limits."""
    figures, diversity = score["spaces"][MAIN], score["diversity"]["ratio"] or 0.0
    enough = figures["recall"] > MIN_RECALL and figures["precision"] > MIN_PRECISION
    return enough and diversity >= MIN_DIVERSITY


# --- words -----------------------------------------------------------------------------------------
def describe(row: Mapping[str, Any]) -> str:
    if row["status"] != DONE:
        return f"{row['status'].replace('_', ' ')}: {row['reason']}"
    figures = row["scores"][row["better"]]["spaces"][MAIN]
    return (
        f"KID {figures['kid']:.4f}, recall {figures['recall']:.2f}, precision {figures['precision']:.2f} "
        f"({row['better']}); {row['images_seen']:,} images, {row['images_per_second']:.0f} a second"
    )


def best_scores(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the better generator of a finished row."""
    return row["scores"][row["better"]]


def grouped(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Rows by (budget, contender), budgets in their order of appearance, contenders by their KID."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["budget"], row["contender"]), []).append(row)
    budgets = list(dict.fromkeys(budget for budget, _ in groups))

    def place(key: tuple[str, str]) -> tuple[int, float]:
        done = [row for row in groups[key] if row["status"] == DONE]
        return budgets.index(key[0]), mean_of(done, "kid", MAIN) if done else float("inf")

    return {key: groups[key] for key in sorted(groups, key=place)}


def mean_of(rows: Collection[Mapping[str, Any]], figure: str, space: str) -> float:
    """Over the seeds, of the better generator."""
    return statistics.fmean(best_scores(row)["spaces"][space][figure] for row in rows)


TITLES = (
    "contender", "budget", "seeds", "trained", *(f"KID {space}" for space in SPACES), "FD/floor",
    "recall", "precision", "diversity", "copies", "minutes", "images/s", "M par.", "better",
)  # fmt: skip


def table(content: Mapping[str, Any], what: str) -> list[str]:
    """Aligned lines, best KID first; means over the seeds that came through, of the better generator each.

    "FD/floor", recall and precision are of ``MAIN``; "copies" is the share flagged as near-copies of training
    images. The last lines are what real images give.
    """
    lines = [TITLES]
    rows = [row for row in content["rows"] if row["what"] == what]
    for (budget, contender), group in grouped(rows).items():
        lines.append((contender, budget, *_cells(group, content["reals"])))
    for name, words in (("training", "reals learned from"), ("floor", "reals, half/half")):
        lines.append(_real_cells(content["reals"], name, words))
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES))]
    text = [
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]  # fmt: skip
    failures = [row for row in rows if row["status"] != DONE]
    return text + [
        f"{row['contender']}, {row['budget']}, seed {row['seed']}: {describe(row)}" for row in failures
    ]


def _cells(group: Sequence[Mapping[str, Any]], reals: Mapping[str, Any]) -> tuple[str, ...]:
    done = [row for row in group if row["status"] == DONE]
    seeds = f"{len(done)}/{len(group)}"
    if not done:
        return (seeds, *["-"] * (len(TITLES) - 3))
    floor = reals[MAIN]["floor"]["fid"]
    best = [best_scores(row) for row in done]
    mean = statistics.fmean
    return (
        seeds,
        f"{sum(row['trained'] for row in done)}/{len(group)}",
        *(f"{mean_of(done, 'kid', space):.4f}" for space in SPACES),
        f"{mean_of(done, 'fid', MAIN) / floor:.2f}" if floor > 0 else "-",
        f"{mean_of(done, 'recall', MAIN):.2f}",
        f"{mean_of(done, 'precision', MAIN):.2f}",
        f"{mean(score['diversity']['ratio'] or 0.0 for score in best):.2f}",
        f"{mean(score['copies']['share'] for score in best):.2f}",
        f"{mean(row['train_seconds'] for row in done) / 60:.1f}",
        f"{mean(row['images_per_second'] for row in done):.1f}",
        f"{done[0]['parameters'] / 1e6:.1f}" if done[0]["parameters"] else "-",
        " ".join(sorted({row["better"] for row in done})),
    )


def _real_cells(reals: Mapping[str, Any], name: str, words: str) -> tuple[str, ...]:
    figures, floor = reals[MAIN][name], reals[MAIN]["floor"]["fid"]
    kids = (f"{reals[space][name]['kid']:.4f}" for space in SPACES)
    relative = f"{figures['fid'] / floor:.2f}" if floor > 0 else "-"
    scores = (f"{figures['recall']:.2f}", f"{figures['precision']:.2f}")
    return (words, "", "", "", *kids, relative, *scores, "1.00" if name == "training" else "", *[""] * 5)
