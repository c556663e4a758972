"""Two folders compared, as text for the console and as one self-contained page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from common import paths
from image_metrics.file_formats import Axis, FolderFacts, Judgement
from image_metrics.folder_comparison import CLOSE, COPIES, FAR
from report.blocks import capital, count, percent
from report.page import data_uri, load_template

TITLE = "Are these images as near to real X-rays as other patients' are?"
ARROWS = {"lower": "↓", "higher": "↑", "near the floor": "="}
COLUMNS = ("axis", "value", "better", "floor", "95 % interval")
LEGEND = (
    "Floor: what real images of other patients score. * the floor lies outside of the interval, so that "
    "the images are worse than those"
)
TONES = {CLOSE: "", FAR: "bad", COPIES: "bad"}  # else unsure
SHOWN = 8  # images of each side, at random


@dataclass(frozen=True)
class ShownImages:
    """What ``--show-images`` adds: uint8 [P, S, S] of the closest pairs, and some images of each side."""

    synthetic_of_pairs: np.ndarray
    real_of_pairs: np.ndarray
    synthetic: np.ndarray
    real: np.ndarray


# --- text ------------------------------------------------------------------------------------------
def table_rows(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """Return the cells of the table under ``COLUMNS``."""
    return [
        (axis["name"], _number(axis["value"]), axis["better"], _number(axis["floor"]), _interval(axis)) for axis in axes
    ]  # fmt: skip


def _number(value: float) -> str:
    """Write three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _interval(axis: Axis) -> str:
    if axis["ci95"] is None:
        return "–"
    low, high = map(_number, axis["ci95"])
    return f"{low} to {high}{' *' if axis['outside'] else ''}"


def verdict_lines(judgement: Judgement) -> list[str]:
    """Return the lines of the console: verdict, reason, table, notes."""
    rows = [COLUMNS, *table_rows(judgement["axes"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]

    def line(cells: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *numbers])

    verdict = judgement["verdict"]
    lines = ["", f"VERDICT: {verdict['verdict']}", f"{capital(verdict['sentence'])}.", ""]
    lines += [*map(line, rows), LEGEND + "."]
    lines += [f"note: {note}" for note in judgement["notes"]]
    return lines


def _also(judgement: Judgement) -> str:
    also = judgement["verdict"]["also"]
    if not also:
        return ""
    return f"Also outside of what other patients give: {', '.join(also)}."


def _side(facts: FolderFacts, kind: str = "") -> str:
    named = facts["groups"] - facts["ungrouped"]
    if not named:
        return count(facts["used"], kind + "image")
    whose = count(named, "patient") + (f", {facts['ungrouped']:,} without a name" if facts["ungrouped"] else "")
    return f"{count(facts['used'], kind + 'image')} ({whose})"


def _copies(judgement: Judgement) -> str:
    found, n = judgement["copies"], judgement["synthetic"]["used"]
    what = "show" if found["copies"] != 1 else "shows"
    text = (
        f"{found['copies']:,} of {count(n, 'synthetic image')} {what} the picture of a real one. The search finds "
        f"{percent(found['found_of_planted'])} of planted copies (brighter, blurred, compressed, moved, mirrored)."
    )
    if not found["reliable"]:
        text += " That is too few, or real patients look too much alike, for a verdict on copies: look at the pairs."
    return text


# --- page ------------------------------------------------------------------------------------------
def compose_judgement(judgement: Judgement, command: str, shown: ShownImages | None = None) -> str:
    """Write the content of the page; ``command`` made it."""
    features = ", ".join(part["name"] for part in judgement["features"])
    facts = [
        ("real", f"`{judgement['real']['source']}`: {_side(judgement['real'])}"),
        ("synthetic", f"`{judgement['synthetic']['source']}`: {_side(judgement['synthetic'])}"),
        ("compared at", f"{judgement['image_size']} x {judgement['image_size']} pixels"),
        ("features", features),
        ("images needed", f"at least {judgement['verdict']['needed']:,} on each side for “as near” to mean something"),
    ]
    for side in ("real", "synthetic"):
        bad = judgement[side]["unreadable"]
        if bad:
            facts.append((f"left out, {side}", "; ".join(f"{part['file']}: {part['reason']}" for part in bad)))
    return load_template(paths.JUDGEMENT_TEMPLATE).render(
        title=TITLE, judgement=judgement, shows_patients=shown is not None,
        tone=TONES.get(judgement["verdict"]["verdict"], "unsure"),
        sides=f"{_side(judgement['synthetic'], 'synthetic ')} against {_side(judgement['real'], 'real ')}",
        reason=f"{capital(judgement['verdict']['sentence'])}.", also=_also(judgement), copies=_copies(judgement),
        columns=COLUMNS, arrows=ARROWS, rows=table_rows(judgement["axes"]), legend=LEGEND + ".",
        facts=facts, command=command,
        pictures=None if shown is None else _pictures(judgement, shown),
    )  # fmt: skip


def _pictures(judgement: Judgement, shown: ShownImages) -> dict[str, Any]:
    pairs = zip(judgement["copies"]["closest"], shown.synthetic_of_pairs, shown.real_of_pairs, strict=True)
    return {
        "pairs": [
            {
                "synthetic": _embedded(made), "real": _embedded(real),
                "caption": f"{pair['synthetic']} and {pair['real']}, distance {pair['distance']:.2f}"
                + (": a copy" if pair["copy"] else ""),
            }
            for pair, made, real in pairs
        ],
        "rows": [
            {"name": name, "images": [_embedded(image) for image in images]}
            for name, images in (("Synthetic", shown.synthetic), ("Real", shown.real))
        ],
    }  # fmt: skip


def _embedded(pixels: np.ndarray) -> Markup:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return data_uri(buffer.getvalue(), "png")
