"""The table of predictions: rows go to a part file while images are predicted, and become the CSV file at the end.

A run that was interrupted goes on after the last row of its part file, if models, thresholds and files are the same.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from prediction.ensembles import Decision
from utils import atomic_path, readable, sha256_json

log = logging.getLogger(__name__)

FORMAT = "predictions-part-1"
BETWEEN = "; "  # of several warnings
# Spreadsheets take cells that begin so for formulas, and some programs strip blanks. As a path, "./=a" is "=a".
RISKY = tuple("=+-@\t\r\n ")
COLUMNS = {
    "path": "the file, as it was found",
    "probability": "of pneumonia, 0 to 1; the mean of several models",
    "probability_calibrated": "the same, its logit divided by the temperature; blank without one",
    "decision_050": "1 if the probability is at least 0.5",
    "decision_youden": "1 if it is at least the threshold of the highest sensitivity + specificity; blank without one",
    "decision_sens90": "1 if it is at least the threshold of a sensitivity of 0.90; blank without one",
    "warnings": "what is odd about the image; several are separated by `; `",
    "error": "why it could not be read; then all numbers are blank",
}


class Row(NamedTuple):
    """What was found about one file; ``decision`` is None if it could not be read, and ``error`` says why."""

    file: Path
    decision: Decision | None
    warnings: tuple[str, ...] = ()
    error: str = ""

    def cells(self) -> list[str]:
        """Return the cells of the CSV file, in the order of ``COLUMNS``; numbers in full precision."""
        path = readable(str(self.file))
        path = f"./{path}" if path.startswith(RISKY) else path
        found = self.decision
        numbers = [None] * 5 if found is None else list(astuple(found))
        return [path, *map(_cell, numbers), BETWEEN.join(self.warnings), readable(self.error)]


def _cell(value: float | bool | None) -> str:
    return "" if value is None else str(int(value)) if isinstance(value, bool) else repr(value)


class OutputTable:
    """Rows of the predictions of ``files``, in their order, on their way into ``output``.

    ``identity``: plain values that decide the rows besides the files.
    """

    def __init__(self, output: Path, files: Sequence[Path], identity: Any) -> None:
        self.output, self.files = output, files
        self.part = output.with_name(output.name + ".part")
        self.header = {"format": FORMAT, "identity": sha256_json(identity)}

    def take_up(self) -> int:
        """Keep the rows of an interrupted run that hold for ``files``; returns how many of these are done."""
        if self.part.is_file():
            done, end = self._count_valid()
            if done:
                os.truncate(self.part, end)
                log.info(f"{done:,} of {len(self.files):,} images were predicted before an interruption: {self.part}")
                return done
            if self.part.stat().st_size > max(end, len(json.dumps(self.header)) + 1):
                log.info(f"{self.part} is of other models, thresholds or files: starting from the beginning")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.write_text(json.dumps(self.header) + "\n", encoding="ascii")
        return 0

    def _count_valid(self) -> tuple[int, int]:
        """Return (number of whole rows at the beginning that belong to ``files``, where they end in bytes)."""
        done = end = 0
        with self.part.open("rb") as lines:
            first = lines.readline()
            if not first.endswith(b"\n") or _parsed(first) != self.header:
                return 0, 0
            end = lines.tell()
            for line, file in zip(lines, self.files, strict=False):
                row = _parsed(line) if line.endswith(b"\n") else None
                if not isinstance(row, list) or len(row) != 4 or row[0] != [str(file), *_state(file)]:
                    break
                done, end = done + 1, end + len(line)
        return done, end

    def append(self, rows: Sequence[Row]) -> None:
        """Add ``rows``, those of the next files; they are safe once this returns, if not from a power failure."""
        lines = []
        for row in rows:
            decision = None if row.decision is None else astuple(row.decision)
            lines.append(json.dumps([[str(row.file), *_state(row.file)], decision, row.warnings, row.error]) + "\n")
        with self.part.open("a", encoding="ascii") as file:
            file.write("".join(lines))

    def rows(self) -> Iterator[Row]:
        """Yield the rows so far."""
        with self.part.open("rb") as lines:
            next(lines)
            for line in lines:
                (path, *_), decision, warnings, error = json.loads(line)
                yield Row(Path(path), Decision(*decision) if decision else None, tuple(warnings), error)

    def finish(self, look: Callable[[Row], object]) -> None:
        """Write the CSV file of all rows and remove the part file; ``look`` sees each row."""
        with atomic_path(self.output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in self.rows():
                writer.writerow(row.cells())
                look(row)
        self.part.unlink()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _state(file: Path) -> list[int | None]:
    """Return size and time of change of a file, None for both if it is not there."""
    with contextlib.suppress(OSError):
        status = file.stat()
        return [status.st_size, status.st_mtime_ns]
    return [None, None]
