"""View, sex and age as people write them -> AP, PA or LATERAL; M or F; years.

What is ambiguous counts as unknown. Notes say what was understood, and what was not.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

UNKNOWN_WORDS = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "none", "null", "nil", "-", "--", "?", ".", "unk", "unknown", "missing",
     "not available", "not specified", "unspecified", "undefined")
)  # fmt: skip
NO_SEX = frozenset(("o", "u", "other"))  # DICOM's words for others and unknown
FEMALE = frozenset(
    ("f", "female", "w", "woman", "weiblich", "frau", "femenino", "feminino", "feminin", "féminin", "femme", "mujer",
     "vrouw", "v")
)  # fmt: skip
MALE = frozenset(
    ("m", "male", "man", "männlich", "maennlich", "mann", "masculino", "maschile", "masculin", "homme", "hombre", "h",
     "mannelijk")
)  # fmt: skip
AP, PA, LATERAL = "AP", "PA", "LATERAL"
WORDS_OF_VIEWS = {
    "ap": AP, "anteroposterior": AP, "pa": PA, "posteroanterior": PA, "lateral": LATERAL, "lat": LATERAL,
    "l": LATERAL, "ll": LATERAL, "rl": LATERAL,
}  # fmt: skip
PLAUSIBLE_AGE = 110  # years; RSNA's source has typing errors up to 155, and 1900-01-01 stands for no birth date
DAYS_PER_YEAR = 365.25
UNITS = {
    **dict.fromkeys(("y", "yr", "yrs", "year", "years", "yo", "y/o", "y.o", "j", "jahre", "ans", "años"), 1.0),
    **dict.fromkeys(("mo", "mos", "mth", "mths", "month", "months", "monate", "mois", "meses"), 12.0),
    **dict.fromkeys(("wk", "wks", "week", "weeks"), DAYS_PER_YEAR / 7),
    **dict.fromkeys(("day", "days"), DAYS_PER_YEAR),
}
DICOM_UNITS = {"Y": 1.0, "M": 12.0, "W": DAYS_PER_YEAR / 7, "D": DAYS_PER_YEAR}  # of value type AS: 058Y
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)")
SHOWN = 5  # spellings in a note

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Understood(Generic[Value]):
    """The ``values`` of the cells of a column, and ``notes`` about their spelling."""

    values: list[Value]
    notes: list[str]


def is_unknown(text: str) -> bool:
    """Tell whether ``text`` says that something is not known: blank, NA, nan, None, unknown, ..."""
    return text.strip().casefold() in UNKNOWN_WORDS


def read_number(text: str) -> float | None:
    """Read a plain number, with a point or a decimal comma; None for anything else ("1e3", "1,234.5", "inf")."""
    text = text.strip().strip("'\"")
    return float(text.replace(",", ".")) if NUMBER.fullmatch(text) else None


def read_sexes(cells: Sequence[str]) -> Understood[str]:
    """Return "M", "F" or "" (unknown) for each cell; M beside an H (hombre, homme) is unknown."""
    words = {cell.casefold() for cell in cells}
    m_is_ambiguous = "h" in words and not words & {"f", "w"}  # it may be mujer

    def read(text: str) -> str | None:
        word = text.casefold()
        if word == "m" and m_is_ambiguous:
            return None
        return "F" if word in FEMALE else "M" if word in MALE else None

    return _read_all("sex", ["" if cell.casefold() in NO_SEX else cell for cell in cells], read, "")


def read_views(cells: Sequence[str]) -> Understood[str]:
    """Return "AP", "PA", "LATERAL" or "" (unknown) for each cell; other words (supine, erect) do not matter."""
    return _read_all("view", cells, _read_view, "")


def _read_view(text: str) -> str | None:
    words = re.sub(r"\b([ap])[\s/-]([ap])\b", r"\1\2", text.casefold().replace(".", ""))  # P.A., A/P
    words = re.sub(r"(antero|anterior|postero|posterior)[\s_/-]*(posterior|anterior)", _joined, words)
    found = {WORDS_OF_VIEWS.get(word) for word in re.split(r"[\W\d_]+", words)} - {None}
    if "decubitus" in words:  # a position of the patient: left lateral decubitus
        found.discard(LATERAL)
    return found.pop() if len(found) == 1 else None


def _joined(match: re.Match[str]) -> str:
    return {"a": "anteroposterior", "p": "posteroanterior"}[match[1][0]] if match[1][0] != match[2][0] else "?"


def read_ages(cells: Sequence[str]) -> Understood[float]:
    """Return years for each cell, NaN if unknown: "58", "58,5", "058Y", "018M" (months), "58 years", "7 days".

    "58M" may be a man of 58 or 58 months, so it counts as unknown.
    """
    return _read_all("age", cells, _read_age, math.nan)


def _read_age(text: str) -> float | None:
    if (number := read_number(text)) is not None:
        return number
    if match := re.fullmatch(r"(\d{3})([YMWD])", text.upper()):
        return int(match[1]) / DICOM_UNITS[match[2]]
    match = re.fullmatch(rf"({NUMBER.pattern})[\s_-]*(\D+?)(?:\s*old)?", text.casefold())
    unit = match and UNITS.get(match[4].strip(" ."))
    number = read_number(match[1]) if match else None
    return number / unit if unit and number is not None else None


def _read_all(
    what: str, cells: Sequence[str], read: Callable[[str], Value | None], unknown: Value
) -> Understood[Value]:
    """Read each spelling once; ``read`` returns None for what it does not understand."""
    spellings = Counter(cells)
    value_of = {text: None if is_unknown(text) else read(text) for text in spellings}
    unusual = {text: value for text, value in value_of.items() if value is not None and not _is_usual(text, value)}
    lost = {text: n for text, n in spellings.items() if value_of[text] is None and not is_unknown(text)}
    notes = []
    if unusual:
        # Of ages, the unit is of interest, not each value.
        values = dict.fromkeys("years" if isinstance(value, float) else str(value) for value in unusual.values())
        notes.append(f"{what}: {_some(list(unusual))} -> {', '.join(values)}")
    if lost:
        total = f"{sum(lost.values()):,} cells are not understood and count as unknown"
        notes.append(f"{what}: {total}: {_some(list(lost))}")
    values_read = (value_of[cell] for cell in cells)
    return Understood([unknown if value is None else value for value in values_read], notes)


def _is_usual(text: str, value: Hashable) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", text)) if isinstance(value, float) else text == value


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")
