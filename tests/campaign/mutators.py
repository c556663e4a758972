"""Random changes of a file: its bytes, its lines, the cells of a table, the values of JSON.

Each function takes (draw, bytes) and returns (words, bytes). ``DIRECTORY`` stands for a folder in its place.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes], tuple[str, bytes]]
DIRECTORY = b"\0a directory\0"
CELLS = [
    "nan", "inf", "-1", "1e300", "-0.5", "", " ", "abc", "1,5", "0x10", "True", "2", "0.5", "None", "1e-400", "٣",
    "\x00", "ü", '"', "1;2", "99999999999999999999", "NaN ", "1.0", "=1+1", "NULL",
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 0.5, 1e308, 10**30, "", "abc", "1", [], {}, [1], {"a": 1}, float("nan"), float("inf"),
    "nan", [[]], "ü" * 40, "../../outside",
]  # fmt: skip


# --- bytes -----------------------------------------------------------------------------------------
def flip(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    changed, n = bytearray(content), draw.choice([1, 1, 1, 2, 8, 64])
    places = [draw.randrange(len(content)) for _ in range(n)]
    for place in places:
        changed[place] ^= 1 << draw.randrange(8)
    return f"{n} bits flipped, first at byte {places[0]}", bytes(changed)


def truncate(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    length = draw.choice([0, 1, len(content) // 2, len(content) - 1, draw.randrange(len(content))])
    return f"cut to {length} bytes", content[:length]


def directory(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    return "a folder in its place", DIRECTORY


def append(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    more = draw.choice([b"\0", b"garbage", b"\n\n", content, content[: len(content) // 3]])
    return f"{len(more)} bytes appended", content + more


def cut_out(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    start = draw.randrange(len(content))
    length = draw.choice([1, 4, 64, 1000])
    return f"{length} bytes cut out at {start}", content[:start] + content[start + length :]


def overwrite(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    start = draw.randrange(len(content))
    new = draw.choice([bytes(16), draw.randbytes(16), b"\xff" * 4, draw.randbytes(300)])
    return f"{len(new)} bytes overwritten at {start}", content[:start] + new + content[start + len(new) :]


def other_file(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
    page = b"<html><body>404 Not Found</body></html>\n"
    return "another file", draw.choice(
        [pointer, page, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"{}", b"[]", b"null\n", b"\n"]
    )


BYTES: list[Mutator] = [flip, flip, flip, truncate, truncate, directory, append, cut_out, overwrite, other_file]


# --- text ------------------------------------------------------------------------------------------
def encode(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    text = content.decode()
    encoding = draw.choice(["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])
    return f"in {encoding}", text.encode(encoding)


def line_ends(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    end = draw.choice([b"\r\n", b"\r", b"\n\n"])
    return f"lines end in {end!r}", content.replace(b"\n", end)


def latin(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    place = draw.randrange(len(content))
    return f"a byte of latin-1 at {place}", content[:place] + b"\xfc" + content[place:]


def lines(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    all_lines = content.splitlines(keepends=True)
    one, other = draw.randrange(len(all_lines)), draw.randrange(len(all_lines))
    what = draw.choice(["dropped", "doubled", "swapped", "shuffled", "empty before", "half"])
    if what == "dropped":
        del all_lines[one]
    elif what == "doubled":
        all_lines.insert(other, all_lines[one])
    elif what == "swapped":
        all_lines[one], all_lines[other] = all_lines[other], all_lines[one]
    elif what == "shuffled":
        head, rest = all_lines[:1], all_lines[1:]
        draw.shuffle(rest)
        all_lines = head + rest
    elif what == "empty before":
        all_lines.insert(one, b"\n")
    else:
        all_lines[one] = all_lines[one][: len(all_lines[one]) // 2] + b"\n"
    return f"line {one + 1} {what} (with {other + 1})", b"".join(all_lines)


TEXT: list[Mutator] = [encode, line_ends, latin, lines, lines]


# --- tables ----------------------------------------------------------------------------------------
def _table(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode())))


def _as_csv(rows: list[list[str]], **style: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **style).writerows(rows)
    return out.getvalue().encode()


def cell(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    rows = _table(content)
    row, column = draw.randrange(1, len(rows)), draw.randrange(len(rows[0]))
    old, new = rows[row][column], draw.choice(CELLS)
    rows[row][column] = new
    return f"{rows[0][column]} in row {row}: {old!r} becomes {new!r}", _as_csv(rows)


def other_value(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """A cell gets what another row has in that column."""
    rows = _table(content)
    column = draw.randrange(len(rows[0]))
    row, source = draw.randrange(1, len(rows)), draw.randrange(1, len(rows))
    old, rows[row][column] = rows[row][column], rows[source][column]
    return f"{rows[0][column]} in row {row}: {old!r} becomes {rows[row][column]!r} of row {source}", _as_csv(rows)


def small_change(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """A number becomes another number of the same size."""
    rows = _table(content)
    places = [(r, c) for r in range(1, len(rows)) for c, text in enumerate(rows[r]) if text.replace(".", "").isdigit()]
    if not places:
        return cell(draw, content)
    row, column = draw.choice(places)
    old = rows[row][column]
    place = draw.choice([i for i, letter in enumerate(old) if letter.isdigit()])
    rows[row][column] = old[:place] + str((int(old[place]) + draw.randint(1, 9)) % 10) + old[place + 1 :]
    return f"{rows[0][column]} in row {row}: {old} becomes {rows[row][column]}", _as_csv(rows)


def columns(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    rows = _table(content)
    one, other = draw.sample(range(len(rows[0])), 2)
    what = draw.choice(["swapped", "names swapped", "dropped", "renamed", "doubled", "blank in name", "upper case"])
    if what == "swapped":
        for row in rows:
            row[one], row[other] = row[other], row[one]
    elif what == "names swapped":
        rows[0][one], rows[0][other] = rows[0][other], rows[0][one]
    elif what == "dropped":
        for row in rows:
            del row[one]
    elif what == "doubled":
        for row in rows:
            row.append(row[one])
    else:
        name = rows[0][one]
        rows[0][one] = {"renamed": "x" + name, "blank in name": f" {name} ", "upper case": name.upper()}[what]
    return f"columns {one + 1} and {other + 1}: {what}", _as_csv(rows)


def commas(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    rows = _table(content)
    what = draw.choice(
        ["a comma more in a row", "a cell less in a row", "a comma more in all rows", "commas but in head"]
    )
    row = draw.randrange(1, len(rows))
    if what == "a comma more in a row":
        rows[row].insert(draw.randrange(len(rows[row])), "")
    elif what == "a cell less in a row":
        del rows[row][draw.randrange(len(rows[row]))]
    else:
        for each in rows[1:] if "but" in what else rows:
            each.append("")
    return f"{what} ({row})", _as_csv(rows)


def style(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    what = draw.choice([{"delimiter": ";"}, {"delimiter": "\t"}, {"quoting": csv.QUOTE_ALL}, {"quotechar": "'"}])
    return f"written with {what}", _as_csv(_table(content), **what)


TABLE: list[Mutator] = [
    *BYTES, *TEXT, cell, cell, cell, cell, other_value, small_change, small_change, columns, columns, columns, commas,
    commas, style,
]  # fmt: skip

TABLE_OF_ONE: list[Mutator] = [*BYTES, *TEXT, cell, cell, other_value, commas]  # a table of one column


# --- JSON ------------------------------------------------------------------------------------------
def _places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in nested dicts and lists, at most three items of each list."""
    found = [place] if place else []
    if isinstance(content, dict):
        items: list[Any] = list(content.items())
    elif isinstance(content, list):
        items = list(enumerate(content))[:3] + list(enumerate(content))[3:][-1:]
    else:
        return found
    for key, value in items:
        found += _places(value, (*place, key))
    return found


def _holder(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        content = content[key]
    return content


def json_value(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    data = json.loads(content)
    place = draw.choice(_places(data) or [()])
    new = draw.choice(VALUES)
    if not place:
        return f"all becomes {new!r}", json.dumps(new).encode()
    _holder(data, place)[place[-1]] = new
    return f"{'.'.join(map(str, place))} becomes {new!r}", json.dumps(data, indent=2).encode()


def json_number(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """A number is changed a little, a word gets another letter, a truth the other."""
    data = json.loads(content)
    leaves = [place for place in _places(data) if not isinstance(_holder(data, place)[place[-1]], dict | list)]
    if not leaves:
        return json_value(draw, content)
    place = draw.choice(leaves)
    old = _holder(data, place)[place[-1]]
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, int | float):
        new = draw.choice([old + 1, -old, old * 2, float(old), old * 0.9])
    else:
        new = f"{old}x" if old is not None else 1
    _holder(data, place)[place[-1]] = new
    return f"{'.'.join(map(str, place))}: {str(old)[:40]!r} becomes {str(new)[:40]!r}", json.dumps(
        data, indent=2
    ).encode()


def json_key(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    data = json.loads(content)
    places = [place for place in _places(data) if isinstance(place[-1], str)] or _places(data)
    if not places:
        return "all in a list", json.dumps([data]).encode()
    place, what = draw.choice(places), draw.choice(["dropped", "renamed", "dropped", "in a list"])
    holder = _holder(data, place)
    old = holder[place[-1]]
    if what == "in a list":
        holder[place[-1]] = [old]
    else:
        del holder[place[-1]]
        if what == "renamed" and isinstance(holder, dict):
            holder[f"{place[-1]}_"] = old
    return f"{'.'.join(map(str, place))} {what}", json.dumps(data, indent=2).encode()


def json_list(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    data = json.loads(content)
    lists = [place for place in _places(data) if isinstance(_holder(data, place)[place[-1]], list)]
    items = data if isinstance(data, list) else None
    if items is None and lists:
        place = draw.choice(lists)
        items = _holder(data, place)[place[-1]]
    if not items:
        return json_value(draw, content)
    one, other = draw.randrange(len(items)), draw.randrange(len(items))
    what = draw.choice(["dropped", "doubled", "swapped"])
    if what == "dropped":
        del items[one]
    elif what == "doubled":
        items.append(items[one])
    else:
        items[one], items[other] = items[other], items[one]
    return f"item {one} of a list {what} (with {other})", json.dumps(data, indent=2).encode()


def json_layout(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    data = json.loads(content)
    return "another layout", json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


JSON: list[Mutator] = [*BYTES, *TEXT, json_value, json_value, json_value, json_value, json_number, json_number,
                       json_number, json_key, json_key, json_key, json_list, json_list, json_layout]  # fmt: skip
