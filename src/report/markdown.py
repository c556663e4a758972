"""Markdown files that an author goes on with: safe text in, and what the author wrote in them kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from utils import without_folders

Row = Sequence[str]  # the cells of a row of a table, as they stand in the file


def escape_text(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, in one line, also in a cell of a table."""
    text = re.sub(r"\s+", " ", without_folders(text)).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$#])", r"\\\1", text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word it marks nothing


def write_table(columns: Row, rows: Sequence[Row]) -> str:
    """Write a table; the cells must be Markdown already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def code_block(lines: Sequence[str]) -> str:
    """Write lines as they are; the fence is longer than any row of backticks in them."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(row) for row in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n"


def join_cells(cells: Row) -> str:
    """Return the text of a cell that an author wrote, also if a bare | in it made several cells of it."""
    return r" \| ".join(cells)


def read_tables(path: Path) -> list[list[str]]:
    """Return the rows of all tables in a file, as they stand there; none if there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text("utf-8", errors="replace").splitlines()
    found = [line.strip() for line in lines if re.fullmatch(r"\s*\|.*\|\s*", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found]
