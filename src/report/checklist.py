"""checklist.md: each item of CLAIM 2024 and TRIPOD+AI, and who answers it: these files, the author, or nobody."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common import paths
from report.guideline_items import GUIDELINES, Guideline, Item
from report.markdown import escape_text, join_cells, read_tables, write_table
from report.study import Study
from utils import save_text

HERE, AUTHOR, FILLED, NOT_APPLICABLE = (
    "answered here", "the author must answer", "answered by the author", "not applicable"
)  # fmt: skip
COLUMNS = ("item", "topic", "status", "what the files say, and where", "author: page or answer")
INTRODUCTION = """Written by `analyze_results.py`. Topics are in our own words; the guideline's text decides.

- **answered here**: the number or fact is in the files named. It still has to be said in the paper.
- **the author must answer**: no file can know it. What the files do know about it stands beside.
- **not applicable**: the reason stands beside.

Write into the last column, in one line: the page of your manuscript, or the answer. A new analysis keeps that column
and writes everything else anew.
"""


@dataclass(frozen=True)
class Answered:
    """The status of an item and, in words, what the files say about it and what is left to say."""

    status: str
    text: str


def write_checklist(study: Study, folder: Path) -> None:
    """Write checklist.md; what the author wrote in the last column stays."""
    file = paths.checklist(folder)
    filled = authors_column(file)
    parts = ["# Checklist of reporting guidelines\n", INTRODUCTION]
    for guideline in GUIDELINES:
        rows = [_row(guideline, item, answer_item(item, study), filled) for item in guideline.items]
        counts = Counter(row[2] for row in rows)
        order = (HERE, FILLED, AUTHOR, NOT_APPLICABLE)
        said = ", ".join(f"{counts[status]} {status}" for status in order if counts[status])
        size = f"{guideline.size}; numbers and topics were read in {guideline.read_in}."
        parts += [
            f"## {guideline.name}\n",
            f"{escape_text(guideline.article)}. {size}\n",
            f"{len(rows)} rows: {said}.\n",
            write_table(COLUMNS, rows),
        ]
    save_text(file, "\n".join(parts))


def answer_item(item: Item, study: Study) -> Answered:
    """Say who answers an item, and what the files say about it."""
    facts = [fact for find in item.facts if (fact := find(study))]
    known = "; ".join(f"{fact.text} (from {fact.source})" for fact in facts)
    if item.not_applicable and not facts:
        return Answered(NOT_APPLICABLE, item.not_applicable)
    lacking = not facts or (item.all_needed and len(facts) < len(item.facts))
    rest = f"{'the rest' if facts else 'all of it'}, which no file of this analysis holds"
    if ask := item.ask or (lacking and rest):
        return Answered(AUTHOR, f"to say: {ask}" + (f". Known here: {known}" if known else ""))
    return Answered(HERE, known)


def _row(guideline: Guideline, item: Item, answer: Answered, filled: dict[str, str]) -> tuple[str, ...]:
    """Return the cells of an item; ``filled``: what the author wrote, by item."""
    name = f"{guideline.name} {item.number}"
    own = filled.get(name, "")
    status = FILLED if own and answer.status == AUTHOR else answer.status
    return name, escape_text(item.topic), status, escape_text(answer.text), own


def authors_column(file: Path) -> dict[str, str]:
    """Return item -> what the author wrote beside it, where that is something."""
    known = {f"{guideline.name} {item.number}" for guideline in GUIDELINES for item in guideline.items}
    written = {row[0]: join_cells(row[len(COLUMNS) - 1 :]) for row in read_tables(file) if row[0] in known}
    return {name: text for name, text in written.items() if text}


def count_open_items(file: Path) -> int:
    """Count the items that still wait for the author."""
    return sum(row[2] == AUTHOR for row in read_tables(file) if len(row) == len(COLUMNS))
