"""Figure of the patient flow: the content of ``patient_flow.json`` in, matplotlib ``Figure`` out.

Two columns of boxes, training and test, narrow enough to be read on a phone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath

from common.plot_style import INK, PALETTE, new_figure, styled, tint
from report.blocks import count
from report.file_formats import FlowFold, FlowGroup, PatientFlow
from report.patient_flow import (
    additions,
    folds_of_arms,
    group_words,
    left_out_words,
    official_words,
    steps_of_arms,
)

WIDTH, COLUMN, GAP = 5.0, 2.36, 0.16  # inches: figure, column of boxes, space between boxes
EDGE, INDENT = 0.05, 0.25  # inches: beside the boxes, before a box of images that left
LINE, PADDING = 0.17, 0.09  # inches: line of text, space around the text of a box
SIZE = 9.5  # points
LEFT_OUT = "0.93"

Kind = Literal["kept", "aside", "outside"]


@dataclass(frozen=True)
class Box:
    """A box of text: images that stay in the study, that leave it (``aside``), or that join it (``outside``).

    ``follows``: a line leads to it from the last box of images that stay.
    """

    title: str
    text: str
    kind: Kind = "kept"
    follows: bool = True

    def lines(self, width: float) -> tuple[list[str], list[str]]:
        """Return the lines of the title and of the text of a box that is ``width`` inches wide."""
        inner = width - 2 * PADDING
        text = [line for part in self.text.split("\n") for line in wrap_text(part, inner, False)]
        return wrap_text(self.title, inner, True), text


def wrap_text(text: str, width: float, bold: bool) -> list[str]:
    """Break ``text`` into lines of at most ``width`` inches: between words, within one only if it is too long."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if _text_width(joined, bold) <= width:
            lines[-1] = joined
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if _text_width(lines[-1] + letter, bold) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, bold: bool) -> float:
    """Return the width of a line in inches."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    path = TextPath((0, 0), text.replace("$", r"\$"), size=SIZE, prop=font)
    return float(path.get_extents().width) / 72


@styled
def flow_figure(flow: PatientFlow) -> Figure:
    """Draw what each step kept and left out, training on the left, test on the right."""
    columns = (_training_boxes(flow), _test_boxes(flow))
    top = _top_boxes(flow)
    head = sum(_height(box, WIDTH - 2 * EDGE) + GAP for box in top)
    height = head + max(sum(_height(box, COLUMN) + GAP for box in boxes) for boxes in columns)
    figure = new_figure(WIDTH, height, layout=None)
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    _draw_column(ax, top, (EDGE, GAP / 2), None, WIDTH - 2 * EDGE)
    for x, boxes in zip((EDGE, WIDTH - COLUMN - EDGE), columns, strict=True):
        start = head - GAP / 2 if top else None
        _draw_column(ax, boxes, (x, head + GAP / 2), start, COLUMN)
    return figure


# --- what the boxes say ----------------------------------------------------------------------------
def _top_boxes(flow: PatientFlow) -> list[Box]:
    boxes = []
    if flow["source_images"] is not None:
        boxes.append(Box("Imported source", count(flow["source_images"], "image")))
    if left_out := flow["left_out_at_import"]:
        text = "\n".join(f"{item['reason']}: {count(item['images'], 'image')}" for item in left_out)
        boxes.append(Box("Left out at the import", text, "aside"))
    if flow["labelled"]:
        boxes.append(Box("Labelled images of the data folder", group_words(flow["labelled"])))
    return boxes


def _training_boxes(flow: PatientFlow) -> list[Box]:
    boxes = [Box("Training side of the split", _two_lines(flow["training_side"]))] if flow["training_side"] else []
    boxes += _steps(flow, "training", "Trained on")
    for names, folds in folds_of_arms(flow):
        boxes.append(Box(f"Cross-validation: {names}", _folds_words(folds), "outside", follows=False))
    for what, joined in additions(flow).items():
        text = "\n".join(f"{names}: {n:,}" for names, n in joined)
        boxes += [Box(what.capitalize(), text, "outside", follows=False)] if joined else []
    return boxes


def _steps(flow: PatientFlow, side: Literal["training", "test"], verb: str) -> list[Box]:
    """Return what was left out and kept on one side; only the first arms' boxes are led to by a line."""
    boxes = []
    for i, (names, gone, kept) in enumerate(steps_of_arms(flow, side)):
        boxes += [Box(f"Left out: {item['reason']}", left_out_words(item), "aside", i == 0) for item in gone]
        boxes.append(Box(f"{verb}: {names}", _two_lines(kept), follows=i == 0))
    return boxes


def _two_lines(group: FlowGroup) -> str:
    return group_words(group).replace(", ", "\n")


def _folds_words(folds: Sequence[FlowFold]) -> str:
    sizes = sorted(fold["images"] for fold in folds)
    each = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{count(len(folds), 'fold')} that validate {each} images each, {sum(sizes):,} in all"


def _test_boxes(flow: PatientFlow) -> list[Box]:
    boxes = []
    if flow["hold_out"]:
        used = flow["test_set"] == "hold-out"
        title = "Test side of the split" + ("" if used else ": not used here")
        boxes.append(Box(title, _two_lines(flow["hold_out"]), "kept" if used else "aside"))
    official, scored = flow["official"], flow["test_set"] == "official"
    shown = []
    if official:
        kind: Kind = "kept" if scored else "outside"
        shown = [Box(official_words(official).capitalize(), _two_lines(official), kind, follows=False)]
    steps = _steps(flow, "test", "Scored")
    if flow["test_set"] == "other":
        steps = [replace(box, follows=False) for box in steps]
    return [*boxes, *shown, *steps] if scored else [*boxes, *steps, *shown]


# --- drawing ---------------------------------------------------------------------------------------
def _height(box: Box, width: float) -> float:
    """Return the height in inches of a box in a column that is ``width`` inches wide."""
    title, text = box.lines(width - _indent(box))
    return (len(title) + len(text)) * LINE + 2 * PADDING


def _indent(box: Box) -> float:
    return INDENT if box.kind == "aside" else 0.0


def _draw_column(ax: Axes, boxes: Sequence[Box], place: tuple[float, float], start: float | None, width: float) -> None:
    """Draw boxes from ``place`` (x, y) downwards; a line leads to each that follows the last one that stayed.

    ``start``: where the box above ends, None without one; ``width``: of the column, all in inches.
    """
    x, y = place
    for box in boxes:
        indent, height, middle = _indent(box), _height(box, width), x + 0.12
        if box.kind == "aside" and box.follows and start is not None:
            ax.plot([middle, middle, x + indent], [start, y + height / 2, y + height / 2], color=INK, linewidth=1)
        elif box.follows and start is not None:
            style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (middle, y), (middle, start), arrowprops=style)
        _draw_box(ax, box, (x + indent, y), width - indent)
        if box.kind == "kept":
            start = y + height
        y += height + GAP


def _draw_box(ax: Axes, box: Box, place: tuple[float, float], width: float) -> None:
    (x, y), (title, text) = place, box.lines(width)
    height = (len(title) + len(text)) * LINE + 2 * PADDING
    colour = {"kept": tint(PALETTE[0], 0.85), "aside": LEFT_OUT, "outside": "white"}[box.kind]
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=colour, edgecolor=INK, linewidth=0.8, linestyle="--" if box.kind == "aside" else "-",
        )
    )  # fmt: skip
    y += PADDING + LINE / 2
    for lines, weight in ((title, "bold"), (text, "normal")):
        for line in lines:
            ax.text(x + PADDING, y, line, size=SIZE, weight=weight, va="center", color="0.1", parse_math=False)
            y += LINE
