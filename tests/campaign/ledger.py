"""The results of a campaign: a line of JSON per trial, from which it goes on, and two tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FAULT = "FAULT"


class Ledger:
    """Lines of ``campaign.jsonl`` in a folder; one that was half written when it was killed is dropped."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "campaign.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            self.file.write_text(text, encoding="utf-8")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]

    def add(self, **row: Any) -> None:
        """Append a row; it is on the disk when this returns."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        self.rows.append(row)

    def of(self, what: str) -> list[dict[str, Any]]:
        """Return the rows of "kills" or "mutation"; of a trial that was repeated, the last one."""
        return list({(row.get("job"), row["number"]): row for row in self.rows if row["what"] == what}.values())

    def faulty(self) -> list[dict[str, Any]]:
        """Return the rows of both sorts that name a fault."""
        return [row for what in ("kills", "mutation") for row in self.of(what) if is_faulty(row)]


def is_faulty(row: dict[str, Any]) -> bool:
    return bool(row.get("faults")) or row.get("outcome") == FAULT


# --- tables ----------------------------------------------------------------------------------------
def kill_table(rows: Iterable[dict[str, Any]]) -> str:
    """One line per script: trials, kills, runs to the end, and what was wrong afterwards."""
    rows = list(rows)
    kinds = ("trials", "kills", "new processes", "ended before", "corrupt", "left over", "lost", "different", "failed")
    lines: dict[str, Counter[str]] = {}
    for row in rows:
        line = lines.setdefault(row["job"], Counter())
        line["trials"] += 1
        line["kills"] += row["kills"]
        line["new processes"] += row["fresh"]
        line["ended before"] += row["ended_before"]
        for kind in row["faults"]:
            line[kind] += 1
    return _table("killed", kinds, lines)


def mutation_table(rows: Iterable[dict[str, Any]]) -> str:
    """One line per kind of file: mutations, and what the script that reads it made of them."""
    kinds = ("mutations", "refused", "same", "honest", FAULT)
    lines: dict[str, Counter[str]] = {}
    for row in rows:
        line = lines.setdefault(row["kind"], Counter())
        line["mutations"] += 1
        line[row["outcome"]] += 1
    return _table("mutated", kinds, lines)


def _table(head: str, kinds: tuple[str, ...], lines: dict[str, Counter[str]]) -> str:
    if not lines:
        return f"{head}: nothing yet"
    total: Counter[str] = sum(lines.values(), Counter())
    rows = [[head, *kinds], *([name, *(str(line[kind]) for kind in kinds)] for name, line in lines.items())]
    rows.append(["all", *(str(total[kind]) for kind in kinds)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) if place == 0 else cell.rjust(width)
                          for place, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
        for row in rows
    )  # fmt: skip
