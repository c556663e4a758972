"""Figures that show X-rays, real and synthetic: grids, pairs and heat maps.

As in ``plots``, whose style these share: numbers in, matplotlib ``Figure`` out, no metric computed, no path
chosen. Pixels are drawn as whole numbers of screen pixels, so that nothing is smoothed or invented.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plots import DPI, INK, PALETTE, new_figure, styled


# --- images ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ImageSection:
    """A block of images under one heading.

    images: uint8 [N, S, S]; labels: a short text under each; boxes: per image float [K, 4] with
    x, y, width, height in pixels of that image.
    """

    heading: str
    images: np.ndarray
    labels: Sequence[str] | None = None
    boxes: Sequence[np.ndarray] | None = None


def image_grid(
    images: np.ndarray,
    columns: int | None = None,
    title: str | None = None,
    labels: list[str] | None = None,
    boxes: Sequence[np.ndarray] | None = None,
) -> Figure:
    """Gray images uint8 [N, S, S] in a grid at their own resolution, or a whole multiple of it."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    return image_sections([ImageSection("", images, labels, boxes)], min(columns, len(images)), title or "")


def real_vs_synthetic(
    real: np.ndarray | None,
    synthetic: np.ndarray,
    title: str,
    pairs: tuple[np.ndarray, np.ndarray, Sequence[str]] | None = None,
    columns: int = 8,
) -> Figure:
    """Real training positives above synthetic images, both uint8 [N, S, S].

    ``real`` None leaves every real X-ray out. ``pairs`` = (synthetic, most similar real, captions) adds
    rows in which each synthetic image stands above its closest training positive.
    """
    sections = []
    if real is not None:
        sections.append(ImageSection("Real: training positives, drawn at random", real))
    sections.append(ImageSection("Synthetic: drawn at random", synthetic))
    if pairs is not None:
        generated, closest, captions = pairs
        sections.append(ImageSection("The synthetic images closest to a training image …", generated))
        below = "… and that training image, below each (r: correlation of their 32 x 32 averages)"
        sections.append(ImageSection(below, closest, captions))
    return image_sections(sections, columns, title)


@styled
def image_sections(sections: Sequence[ImageSection], columns: int, title: str) -> Figure:
    """Blocks of images under one another, every pixel drawn as a whole number of screen pixels."""
    size = sections[0].images.shape[1]
    tile = size * max(1, math.ceil(144 / size))  # screen pixels
    gap, margin = 6, 14
    width = max(2 * margin + columns * (tile + gap) - gap, 520)
    title_lines = textwrap.wrap(title, int((width - 2 * margin) / 12.5))
    height = 2 * margin + 30 * len(title_lines)
    height += sum(_section_height(section, columns, tile, gap) for section in sections)
    figure = new_figure(width / DPI, height / DPI, layout=None)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    y = margin
    for line in title_lines:
        ax.text(margin, y + 12, line, fontsize=9.5, fontweight="bold", va="center")
        y += 30
    for section in sections:
        _draw_section(ax, section, (margin, y), columns, tile, gap)
        y += _section_height(section, columns, tile, gap)
    return figure


LABEL_HEIGHT = 24  # screen pixels


def _section_height(section: ImageSection, columns: int, tile: int, gap: int) -> int:
    rows = math.ceil(len(section.images) / columns)
    return (30 if section.heading else 0) + rows * (tile + gap + (LABEL_HEIGHT if section.labels else 0))


def _draw_section(
    ax: Axes, section: ImageSection, corner: tuple[int, int], columns: int, tile: int, gap: int
) -> None:
    left, top = corner
    if section.heading:
        ax.text(left, top + 14, section.heading, fontsize=8.5, va="center", color=INK)
        top += 30
    row_height = tile + gap + (LABEL_HEIGHT if section.labels else 0)
    for index, image in enumerate(section.images):
        x = left + (index % columns) * (tile + gap)
        y = top + (index // columns) * row_height
        extent = (x, x + tile, y + tile, y)
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="none")
        if section.labels:
            text = section.labels[index]
            ax.text(x + tile / 2, y + tile + 12, text, fontsize=6.5, ha="center", va="center", color=INK)
        if section.boxes is not None:
            _draw_boxes(ax, section.boxes[index], (x, y), tile / image.shape[0])
    # imshow narrows the view to the image just drawn
    figure_width, figure_height = ax.figure.get_size_inches() * ax.figure.dpi
    ax.set(xlim=(0, figure_width), ylim=(figure_height, 0), aspect="auto")


def _draw_boxes(ax: Axes, boxes: np.ndarray, corner: tuple[int, int], scale: float) -> None:
    for x, y, width, height in np.asarray(boxes, dtype=float).reshape(-1, 4) * scale:
        place = (corner[0] + x, corner[1] + y)
        ax.add_patch(Rectangle(place, width, height, fill=False, edgecolor=PALETTE[1], linewidth=1.6))
