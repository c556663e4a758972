"""Figures that show X-rays, real and synthetic: grids, pairs and heat maps.

Pixels in, matplotlib ``Figure`` out; no metric is computed and no file written. Every pixel of an image is
drawn as a whole number of screen pixels, so that nothing is smoothed or invented.
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

from common.plot_style import DPI, INK, PALETTE, new_figure, styled

COLUMNS = 8  # of real and synthetic images


# --- images ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ImageSection:
    """A block of images uint8 [N, S, S] under one heading.

    ``labels``: a short text under each image; ``boxes``: for each image float [K, 4] with x, y, width and
    height in pixels of that image.
    """

    heading: str
    images: np.ndarray
    labels: Sequence[str] | None = None
    boxes: Sequence[np.ndarray] | None = None


def image_grid(
    images: np.ndarray, columns: int | None = None, title: str = "", labels: Sequence[str] | None = None,
    boxes: Sequence[np.ndarray] | None = None,
) -> Figure:  # fmt: skip
    """Draw gray images uint8 [N, S, S] in a grid, at their own resolution or a whole multiple of it."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    return image_sections([ImageSection("", images, labels, boxes)], min(columns, len(images)), title)


def real_vs_synthetic(
    real: np.ndarray | None, synthetic: np.ndarray, title: str,
    pairs: tuple[np.ndarray, np.ndarray, Sequence[str]] | None = None, kind: str = "positives",
) -> Figure:  # fmt: skip
    """Draw real training images above synthetic ones, both uint8 [N, S, S] and of the ``kind`` named.

    ``real`` None leaves every real X-ray out. ``pairs`` = (synthetic, most similar real, captions) adds
    rows in which each synthetic image stands above its closest training image.
    """
    sections = []
    if real is not None:
        sections.append(ImageSection(f"Real: training {kind}, drawn at random", real))
    sections.append(ImageSection("Synthetic: drawn at random", synthetic))
    if pairs is not None:
        generated, closest, captions = pairs
        sections.append(ImageSection("The synthetic images closest to a training image …", generated))
        below = "… and that training image, below each (r: correlation of their 32 x 32 averages)"
        sections.append(ImageSection(below, closest, captions))
    return image_sections(sections, COLUMNS, title)


@styled
def image_sections(sections: Sequence[ImageSection], columns: int, title: str) -> Figure:
    """Draw blocks of images under one another."""
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


def _draw_section(ax: Axes, section: ImageSection, corner: tuple[int, int], columns: int, tile: int, gap: int) -> None:
    left, top = corner
    view = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
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
        boxes = np.empty(0) if section.boxes is None else np.asarray(section.boxes[index], dtype=float)
        for dx, dy, width, height in boxes.reshape(-1, 4) * tile / image.shape[0]:
            box = Rectangle((x + dx, y + dy), width, height, fill=False, edgecolor=PALETTE[1], linewidth=1.6)
            ax.add_patch(box)
    ax.set(**view, aspect="auto")  # imshow narrows the view to the image just drawn


# --- copies ----------------------------------------------------------------------------------------
def nearest_neighbours(
    synthetic: np.ndarray, training: np.ndarray, heldout: np.ndarray | None,
    captions: dict[str, Sequence[str]], title: str, no_real_images: bool = False,
) -> Figure:  # fmt: skip
    """Draw synthetic images uint8 [N, S, S], a column each, above their nearest training and held-out images.

    ``captions``: texts under the "training" and the "heldout" images. With ``no_real_images`` the synthetic
    images stand alone, with the training images' texts; ``heldout`` None leaves that row out.
    """
    above = "Synthetic: the images closest to a training image, closest first"
    if no_real_images:
        above += " (the real ones are left out: --no-real-images)"
        return image_sections([ImageSection(above, synthetic, captions["training"])], len(synthetic), title)
    below = "The nearest training image of each; the generator learned from it"
    sections = [ImageSection(above, synthetic), ImageSection(below, training, captions["training"])]
    if heldout is not None:
        unseen = "The nearest held-out image of each, which the generator never saw: likeness by chance"
        sections.append(ImageSection(unseen, heldout, captions["heldout"]))
    return image_sections(sections, len(synthetic), title)


# --- heat maps -------------------------------------------------------------------------------------
HEAT_COLOURS = "inferno"  # perceptually uniform, readable with every kind of colour vision
HEAT_OPACITY = 0.55  # at the maximum; nothing is laid over where the heat is 0


@styled
def gradcam(
    xrays: np.ndarray, heats: dict[str, np.ndarray], probabilities: dict[str, np.ndarray],
    row_titles: Sequence[str], title: str, caption: str,
) -> Figure:  # fmt: skip
    """Draw a row per X-ray uint8 [N, S, S]: the image itself, then each arm's heat map laid over it.

    ``heats``: float [N, S', S'] in [0, 1] for each arm; ``probabilities``: float [N], written under each
    map. Shows real X-rays.
    """
    columns = 1 + len(heats)
    tile, left, margin = 1.55, 1.5, 0.15  # inches
    width = max(left + columns * tile, 6.0)
    heading = textwrap.wrap(title, int(width * 10))
    small_print = textwrap.wrap(caption, int(width * 16.5))
    top, bottom = 0.75 + 0.22 * len(heading), 0.2 + 0.15 * len(small_print)
    row_height = tile + 0.24
    height = top + len(xrays) * row_height + bottom
    figure = new_figure(width, height, layout=None)
    figure.text(margin / width, 1 - 0.12 / height, "\n".join(heading), va="top", weight="bold", fontsize=10.5)
    figure.text(margin / width, 0.1 / height, "\n".join(small_print), va="bottom", color=INK, fontsize=7.5)
    for row, xray in enumerate(xrays):
        y = height - top - row * row_height - tile
        figure.text(margin / width, (y + tile / 2) / height, row_titles[row], va="center", fontsize=8)
        for column, arm in enumerate([None, *heats]):
            x = left + column * tile
            ax = figure.add_axes((x / width, y / height, (tile - 0.08) / width, (tile - 0.08) / height))
            _draw_heat(ax, xray, None if arm is None else heats[arm][row])
            if row == 0:
                ax.set_title(arm or "X-ray", loc="center", fontsize=8.5)
            if arm is not None:
                ax.set_xlabel(f"p = {probabilities[arm][row]:.2f}", fontsize=7.5, color=INK, labelpad=2)
    key = figure.add_axes((margin / width, (height - top - 0.1) / height, 1.1 / width, 0.12 / height))
    _draw_heat(key, np.full((1, 64), 128), np.linspace(0, 1, 64)[None])
    key.set_aspect("auto")
    key.set_title("heat: 0 to maximum", fontsize=7, color=INK, pad=3)
    return figure


def _draw_heat(ax: Axes, xray: np.ndarray, heat: np.ndarray | None) -> None:
    extent = (0, 1, 1, 0)
    ax.imshow(xray, cmap="gray", vmin=0, vmax=255, extent=extent)
    if heat is not None:
        ax.imshow(heat, cmap=HEAT_COLOURS, vmin=0, vmax=1, alpha=HEAT_OPACITY * heat, extent=extent)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
