"""The report as text: whole for a file, the answer alone for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from report.blocks import Block, Bullets, Commands, Facts, Links, Section, Table
from report.sections import Findings, sections

WIDTH = 100
LABEL = 18  # characters of a fact's label
ANSWER = ("warnings", "verdict", "arms", "missing")  # keys of the sections that a terminal shows


def compose_text(findings: Findings) -> str:
    """Write ``comparison_report.txt``: the warnings, then the sections in their order."""
    return write_sections(sections(findings), "COMPARISON REPORT")


def compose_answer(parts: Sequence[Section]) -> str:
    """Write what a terminal shows of a report: the warnings, the verdict, the arms, what is missing."""
    return write_sections([section for section in parts if section.key in ANSWER])


def write_sections(parts: Sequence[Section], title: str = "") -> str:
    """Write ``parts`` as text under ``title``, the warnings first."""
    lines = [title, "=" * len(title)] if title else []
    for section in sorted(parts, key=lambda section: section.key != "warnings"):
        if not section.blocks:
            continue
        lines += ["", section.heading, "-" * len(section.heading)]
        for i, block in enumerate(section.blocks):
            if i and not (isinstance(block, str) and isinstance(section.blocks[i - 1], str | Table)):
                lines.append("")
            lines += _lines(block)
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> list[str]:
    if isinstance(block, str):
        return _wrap(block)
    if isinstance(block, Bullets):
        return [line for item in block.items for line in _wrap(item, "  ", "* ")]
    if isinstance(block, Table):
        return [*([block.title] if block.title else []), *_table(block.columns, block.rows)]
    if isinstance(block, Commands):
        # Never wrapped: a command is there to be copied.
        return [line for what, command in block.rows for line in (f"{what}:", f"  {command}")]
    return _facts(Facts("", block.rows) if isinstance(block, Links) else block)


def _wrap(text: str, indent: str = "", first: str = "") -> list[str]:
    held_together = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(
        held_together, WIDTH, initial_indent=first or indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _facts(block: Facts) -> list[str]:
    lines = [block.title] if block.title else []
    width = max([LABEL, *(len(label) for label, _ in block.rows)])
    for label, text in block.rows:
        lines += _wrap(text, " " * (width + 4), f"  {label:<{width}}  ")
    return lines


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, or, where they do not fit side by side, each row as a list of facts."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        facts = [Facts(row[0], list(zip(columns[1:], row[1:], strict=True))) for row in rows]
        return [f"{columns[0]}:", *(line for block in facts for line in _facts(block))]
    return [_row(columns, widths), *(_row(row, widths) for row in rows)]


def _row(cells: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return f"{first[0]:<{first[1]}}" + "".join(f"  {cell:>{width}}" for cell, width in others)
