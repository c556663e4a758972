"""CSV tables as people have them: encodings, separators, stray commas, and names of columns.

What is unambiguous is read, and a note says so; what is not ends in one line that names the file and the line.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils import UserError

SEPARATORS = (",", ";", "\t", "|")  # Excel writes semicolons where the comma is the decimal mark
# The mark of UTF-32 begins with that of UTF-16, so it stands before it.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
NO_TEXT = (
    (b"PK\x03\x04", "an Excel workbook or a ZIP archive"), (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"\x1f\x8b", "compressed"), (b"%PDF", "a PDF"), (b"\x89PNG", "an image"),
)  # fmt: skip
SAVE_AS_UTF8 = 'save the table as "CSV UTF-8"'
FOREIGN = re.compile("[\udc80-\udcff]")  # how bytes of an unknown encoding are kept
INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f"))


@dataclass(frozen=True)
class Table:
    """Cells of a CSV file: ``rows`` [N][C] under ``names`` [C] ("" for none; a name may occur twice).

    ``lines``: line of the file in which each row ends. ``notes``: what was unusual, as sentences.
    """

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: list[str]

    @property
    def squeezed(self) -> list[str]:
        """The names as ``squeeze`` writes them."""
        return [squeeze(name) for name in self.names]

    @property
    def listed_names(self) -> str:
        """The names with commas between them, for messages."""
        return ", ".join(filter(None, self.names))

    def places_of(self, given: str) -> list[int]:
        """Return the places (from 0) of the columns called ``given``; without any, of those that spell it otherwise."""
        exact = [place for place, name in enumerate(self.names) if name == given.strip()]
        return exact or [place for place, name in enumerate(self.squeezed) if name == squeeze(given)]

    def column(self, place: int) -> list[str]:
        """Return the cells of column ``place`` (from 0); raises ``UserError`` if letters are not known."""
        cells = [row[place] for row in self.rows]
        for cell, line in zip(cells, self.lines, strict=True):
            if not cell.isascii() and FOREIGN.search(cell):
                raise UserError(
                    f"{self.path}: line {line} holds letters that are not UTF-8 in column {self.names[place]}; "
                    f"{SAVE_AS_UTF8}"
                )
        return cells

    def describe_column(self, place: int) -> str:
        """Name a column beyond doubt: "'Target' (column 6)"."""
        return f"{self.names[place]!r} (column {place + 1})"


# --- files -----------------------------------------------------------------------------------------
def read_table(path: Path, known: Collection[str] = ()) -> Table:
    """Read a CSV file, its first line as names; every cell is a stripped string.

    Comma, semicolon, tab or bar separate cells, whichever gives most of the ``known`` names (as ``squeeze``
    writes them). UTF-8, or UTF-16 and UTF-32 with their marks. Empty lines, comments and stray separators at
    the end of lines are left out. Raises ``UserError`` if the file is missing, no such text, or has rows that
    do not fit its names.
    """
    text, notes = _read_text(path)
    lines = list(io.StringIO(text, newline=""))
    first, separator = _find_header(lines, known)
    parsed = _parse(lines[first:], separator, path, first)
    if parsed and len(parsed[0][1]) == 1 and separator in parsed[0][1][0] and all(len(c) == 1 for _, c in parsed):
        notes.append("every line is in quotes, which were removed")
        parsed = [(line, _parse([cells[0]], separator, path, line - 1)[0][1]) for line, cells in parsed]
    names = [_clean_name(name) for name in parsed[0][1]] if parsed else []
    body = [(line, cells) for line, cells in parsed[1:] if not _is_comment(cells, len(names))]
    if len(body) < len(parsed) - 1:
        notes.append(f"{len(parsed) - 1 - len(body):,} comments were left out")
    complete = text.endswith(("\n", "\r"))
    rows = _fit_rows([cells for _, cells in body], [line for line, _ in body], len(names), path, complete, notes)
    return Table(path, names, rows, [line for line, _ in body], notes)


def _read_text(path: Path) -> tuple[str, list[str]]:
    """Return (text of the file, notes); bytes of an unknown encoding become lone surrogates."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    for beginning, kind in NO_TEXT:
        if content.startswith(beginning):
            raise UserError(f"{path} is not a readable CSV file: it is {kind}; {SAVE_AS_UTF8}")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        raise UserError(f"{path} is not a readable CSV file: it holds zero bytes, as UTF-16 does; {SAVE_AS_UTF8}")
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UserError(f"{path} is not a readable CSV file ({error.reason}); {SAVE_AS_UTF8}") from None
        line = content.count(b"\n", 0, error.start) + 1
        note = f"its encoding is unknown (not UTF-8 in line {line}): only columns in plain ASCII can be used"
        return content.decode("ascii", "surrogateescape"), [note]


def _find_header(lines: Sequence[str], known: Collection[str]) -> tuple[int, str]:
    """Return (index of the line with the names, the separator)."""
    for index, line in enumerate(lines):
        if match := re.fullmatch(r'"?sep=(.)"?', line.strip(" \r\n")):  # Excel's own hint
            return index + 1, match[1]
        if not line.strip():
            continue
        separator = max(SEPARATORS, key=lambda separator: _count_names(line, separator, known))
        if line.startswith("#") and not _count_names(line, separator, known)[0]:
            continue
        return index, separator
    return len(lines), SEPARATORS[0]


def _count_names(line: str, separator: str, known: Collection[str]) -> tuple[int, int]:
    """Return (number of known names, number of cells) in a line split by ``separator``."""
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return 0, 0
    return sum(squeeze(cell) in known for cell in cells), len(cells)


def _parse(lines: Sequence[str], separator: str, path: Path, before: int) -> list[tuple[int, list[str]]]:
    """Return (line, stripped cells) of each row that is not empty; ``before``: number of lines before."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        parsed = [(before + reader.line_num, [_clean(cell) for cell in cells]) for cells in reader]
    except csv.Error as error:
        line = before + reader.line_num
        raise UserError(f"{path} is not a readable CSV file (line {line}: {error}); correct or replace it") from None
    return [(line, cells) for line, cells in parsed if any(cells)]


def _clean(cell: str) -> str:
    """Strip a cell; Excel protects leading zeros as ="0012"."""
    cell = cell.strip()
    match = re.fullmatch('="?([^"]*)"?', cell) if cell.startswith("=") else None
    return match[1].strip() if match else cell


def _clean_name(name: str) -> str:
    return FOREIGN.sub("?", name.translate(INVISIBLE).removeprefix("#")).strip()


def _is_comment(cells: Sequence[str], width: int) -> bool:
    """Tell whether a row is a comment: it begins with "#" and does not have a cell under every name."""
    return cells[0].startswith("# " if width == 1 else "#") and (width == 1 or len(cells) != width)


def _fit_rows(
    rows: list[list[str]], lines: Sequence[int], width: int, path: Path, complete: bool, notes: list[str]
) -> list[list[str]]:
    """Give every row ``width`` cells; ``complete``: the last line has an end."""
    if any(any(row[width:]) for row in rows):
        numbers = [row[0] for row in rows]
        if not all(len(row) == width + 1 for row in rows) or not _counts_up(numbers):
            place = next(place for place, row in enumerate(rows) if any(row[width:]))
            raise UserError(
                f"{path}: line {lines[place]} has {len(rows[place])} cells for {width} names of columns; put cells "
                "that hold the separator in quotes, or name every column"
            )
        notes.append("its first column has no name and counts the rows: left out")
        rows = [row[1:] for row in rows]
    if rows and len(rows[-1]) < width and not complete:
        raise UserError(f"{path} ends within line {lines[-1]}; it is incomplete, so get it again")
    if longer := sum(len(row) > width for row in rows):
        notes.append(f"{longer:,} rows end in empty cells without a name: left out")
    if shorter := sum(len(row) < width for row in rows):
        _check_short_rows(rows, lines, width, path)
        notes.append(f"{shorter:,} rows have fewer cells than names: the others are blank")
    return [[*row[:width], *[""] * (width - len(row))] for row in rows]


def _check_short_rows(rows: Sequence[Sequence[str]], lines: Sequence[int], width: int, path: Path) -> None:
    """Raise ``UserError`` if a row with fewer than ``width`` cells may lack an inner one, not the last ones.

    Programs that write tables leave out blank cells at the end of a row. If an inner cell is missing, those
    after it stand under the wrong names, where their values are of another kind than the column's.
    """
    full = [row for row in rows if len(row) >= width]
    kinds = [_column_kind([row[place] for row in full if row[place]]) for place in range(width)]
    for row, line in zip(rows, lines, strict=True):
        if len(row) >= width:
            continue
        strange = next((place for place, cell in enumerate(row) if cell and not kinds[place](cell)), None)
        if strange is not None or not full:
            where = f", and {row[strange]!r} is unlike column {strange + 1}" if strange is not None else ""
            raise UserError(
                f"{path}: line {line} has {len(row)} cells for {width} names of columns{where}; write a separator for "
                "every blank cell"
            )


def _column_kind(cells: Sequence[str]) -> Callable[[str], bool]:
    """Return a test: may a cell stand among these ``cells``? Theirs are a few words, numbers, or any text."""
    words, shapes = set(cells), {_is_number(cell) for cell in cells}
    if False in shapes and 4 * len(words) <= len(cells):
        return words.__contains__
    return lambda cell: not shapes or _is_number(cell) in shapes


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?", cell) is not None


def _counts_up(cells: Sequence[str]) -> bool:
    return any(list(cells) == [str(start + n) for n in range(len(cells))] for start in (0, 1))


# --- columns ---------------------------------------------------------------------------------------
def squeeze(name: str) -> str:
    """Write a name of a column without case, blanks, marks, and the number of a repetition ("Target.1")."""
    return re.sub(r"[\W_]+", "", re.sub(r"\.\d+$", "", name.strip()).casefold())


def find_columns(table: Table, meanings: Mapping[str, Collection[str]]) -> dict[str, list[int]]:
    """Return the places of the columns of each meaning; ``meanings``: the squeezed names of each."""
    squeezed = table.squeezed
    found = {key: [i for i, name in enumerate(squeezed) if name in names] for key, names in meanings.items()}
    return {key: places for key, places in found.items() if places}


def agreed_cells(table: Table, places: Sequence[int], cells: Sequence[Sequence[str]], remedy: str = "") -> list[str]:
    """Merge ``cells`` of several columns of one meaning, blanks filled from one another.

    Raises ``UserError`` naming both columns if they disagree in a row.
    """
    merged = list(cells[0])
    for place, others in zip(places[1:], cells[1:], strict=True):
        for row, (one, other) in enumerate(zip(merged, others, strict=True)):
            if one and other and one != other:
                raise UserError(
                    f"{table.path.name}: columns {table.describe_column(places[0])} and "
                    f"{table.describe_column(place)} disagree in line {table.lines[row]} ({one!r} and {other!r}); "
                    f"{remedy or 'remove or rename the wrong one'}"
                )
            merged[row] = one or other
    return merged
