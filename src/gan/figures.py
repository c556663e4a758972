"""Figures of a GAN in training: its losses, the quality of its images over time, grids, and a walk in motion.

Numbers or images in, a ``Figure`` or pixels out; no path is chosen here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image, ImageDraw, ImageFont

from common.plot_style import INK, PALETTE, legend_beside, new_figure, panels, set_title, styled
from gan.file_formats import BestGenerator, EpochLine, Evaluation, SetScores, SpaceMetrics, StatsLine

OUTPUT, GRADIENTS = "Discriminator output", "Size of all gradients of a step"
# Panels of the loss curve: heading, label of the axis, and terms of the history by name.
LOSS_PANELS = (
    ("Generator loss, unweighted terms and weighted sum", "Loss", {
        "g_loss": "sum", "g_adversarial": "adversarial", "g_perceptual": "perceptual",
        "g_feature_matching": "feature matching",
    }),
    ("Discriminator loss", "Loss", {
        "d_loss": "sum", "d_loss_real": "on real images", "d_loss_fake": "on generated images",
        "r1": "R1, unweighted", "r2": "R2, unweighted", "gradient_penalty": "gradient penalty",
    }),
    (OUTPUT, "Mean probability of “real”", {
        "d_real": "D(x), real images", "d_fake": "D(G(z)), generated",
    }),
    (GRADIENTS, "Norm (log scale)", {
        "g_grad_norm": "generator", "d_grad_norm": "discriminator",
    }),
)  # fmt: skip
SHARE_NAMES = {
    "adversarial": "adversarial", "perceptual": "perceptual", "feature_matching": "feature matching",
}  # fmt: skip


# --- losses ----------------------------------------------------------------------------------------
@styled
def gan_losses(epochs: Sequence[EpochLine], title: str, stats: Sequence[StatsLine] = ()) -> Figure:
    """Draw losses, discriminator outputs and gradients over the epochs of ``gan_training_history.json``.

    Terms that were switched off (null throughout) are left out, and panels without any. ``stats``: lines of
    ``gan_stats.jsonl``, for the share that each term has of the gradient at G's output.
    """
    values = {key: [epoch.get(key) for epoch in epochs] for _, _, terms in LOSS_PANELS for key in terms}
    parts = [part for part in LOSS_PANELS if any(value is not None for key in part[2] for value in values[key])]
    probed = [line for line in stats if len(line["shares"] or ()) > 1]  # one term has all of it
    rows = len(parts) + bool(probed)
    figure = new_figure(9.0, 2.2 * rows + 0.8)
    axes = panels(figure, rows, 1, sharex=True)
    x = [epoch["epoch"] for epoch in epochs]
    for ax, (heading, label, terms) in zip(axes, parts, strict=False):
        colours = ["black", *PALETTE] if len(terms) > 2 else PALETTE
        for (key, name), colour in zip(terms.items(), colours, strict=False):
            _term(ax, x, values[key], name, colour)
        ax.set_title(heading, fontsize="medium")
        ax.set_ylabel(label)
        if heading == OUTPUT:
            ax.set_ylim(0, 1)
            ax.axhline(0.5, color=INK, linewidth=1, linestyle=":", label="0.5: D cannot tell")
        if heading == GRADIENTS:
            _plain_log(ax)
        legend_beside(ax)
    if probed:
        _shares(axes[-1], probed)
    axes[-1].set_xlabel("Epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels(axes)
    set_title(figure, title)
    return figure


def _term(ax: Axes, x: Sequence[float], values: Sequence[Any], name: str, colour: Any) -> None:
    """Draw a term; one that some epochs lack is joined over the gaps, one that is 0 throughout is off."""
    points = [(place, value) for place, value in zip(x, values, strict=True) if value is not None]
    if any(value != 0 for _, value in points):
        marker = "o" if len(points) == 1 else None
        ax.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.6, marker=marker)


def _plain_log(ax: Axes) -> None:
    """Make the axis logarithmic, with numbers as people write them."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _shares(ax: Axes, probed: Sequence[StatsLine]) -> None:
    x, shares = [line["epoch_fraction"] for line in probed], [line["shares"] or {} for line in probed]
    for (key, name), colour in zip(SHARE_NAMES.items(), PALETTE, strict=False):
        if any(key in share for share in shares):
            values = [100 * share.get(key, 0.0) for share in shares]
            ax.plot(x, values, color=colour, label=name, linewidth=1.6, marker="o", markersize=3)
    ax.set(ylim=(0, 105), ylabel="Share (%)")
    ax.set_title("Each term's share of the gradient that reaches the generated images", fontsize="medium")
    legend_beside(ax)


# --- quality ---------------------------------------------------------------------------------------
@styled
def gan_quality(
    evaluations: Sequence[tuple[int, Evaluation]], floors: Mapping[str, SetScores],
    best: BestGenerator | None, title: str,
) -> Figure:  # fmt: skip
    """Draw the quality of the images against thousands of images seen, a row for each space of features.

    KID on the left; recall, precision and diversity on the right. ``evaluations``: (images seen, evaluation).
    ``floors``: one half of the reals against the other, by space, where they are known. ``best``: the
    generator that was kept.
    """
    spaces = list(dict.fromkeys(name for _, found in evaluations for name in found["spaces"]))
    figure = new_figure(9.5, 2.9 * len(spaces) + 0.5)
    axes = panels(figure, len(spaces), 2, sharex=True)
    for row, name in enumerate(spaces):
        points = [(seen / 1000, found["spaces"][name]) for seen, found in evaluations if name in found["spaces"]]
        left, right = axes[2 * row : 2 * row + 2]
        _kid(left, points, name, floors.get(name), best if best and best["space"] == name else None)
        _scores(right, points, name, floors.get(name))
    for ax in axes[-2:]:
        ax.set_xlabel("Images seen (thousands)")
    set_title(figure, title)
    return figure


Points = Sequence[tuple[float, SpaceMetrics]]  # thousands of images seen, metrics in one space


def _kid(ax: Axes, points: Points, name: str, floor: SetScores | None, best: BestGenerator | None) -> None:
    kids = [metrics["kid"] for _, metrics in points]
    ax.plot([x for x, _ in points], kids, color=PALETTE[0], marker="o", markersize=3.5)
    if floor is not None:
        kids.append(floor["kid"])
        ax.axhline(floor["kid"], color=INK, linestyle=":", linewidth=1.2, label="real X-rays (floor)")
    if best is not None:
        place = (best["images_seen"] / 1000, best["kid"])
        ax.plot(*place, marker="*", markersize=13, color=PALETTE[1], linestyle="none", label="best generator")
    ax.set_title(f"KID in {name} features, lower is better", fontsize="medium")
    if min(kids) > 0:  # an unbiased estimate can be negative, too
        ax.set_ylabel("KID (log scale)")
        _plain_log(ax)
    else:
        ax.set_ylabel("KID")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False)


def _scores(ax: Axes, points: Points, name: str, floor: SetScores | None) -> None:
    x = [seen for seen, _ in points]
    values: Sequence[float | None]
    for key, colour, values, usual in (
        ("recall", PALETTE[2], [m["recall"] for _, m in points], floor and floor["recall"]),
        ("precision", PALETTE[4], [m["precision"] for _, m in points], floor and floor["precision"]),
        ("diversity", PALETTE[5], [m["diversity"] for _, m in points], 1.0),
    ):
        if any(value is None for value in values):
            continue
        ax.plot(x, np.array(values), color=colour, marker="o", markersize=3.5, label=key)
        if usual is not None:
            ax.axhline(usual, color=colour, linestyle=":", linewidth=1.2)
    ax.plot([], [], color=INK, linestyle=":", linewidth=1.2, label="the same of\nreal X-rays")
    ax.set_title(f"Fidelity and variety in {name} features", fontsize="medium")
    ax.set_ylim(0, None)
    ax.set_ylabel("Fraction")
    legend_beside(ax)


# --- images ----------------------------------------------------------------------------------------
GAP, MARGIN, TITLE = 4, 12, 34  # pixels
PAPER, TEXT = 255, 64  # gray


def mosaic(images: np.ndarray, columns: int, title: str, least_side: int = 112) -> np.ndarray:
    """Arrange images uint8 [N, S, S] in a grid under ``title``: one gray image uint8 [H, W].

    Every pixel is drawn as a whole number of pixels. As matplotlib's grids, but made in milliseconds.
    """
    scale = max(1, math.ceil(least_side / images.shape[1]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    side, columns = images.shape[1], min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width = 2 * MARGIN + columns * (side + GAP) - GAP
    font = ImageFont.load_default(16)
    width = max(width, 2 * MARGIN + math.ceil(font.getlength(title)))
    sheet = np.full((MARGIN + TITLE + rows * (side + GAP) - GAP + MARGIN, width), PAPER, dtype=np.uint8)
    for index, image in enumerate(images):
        y, x = divmod(index, columns)
        top, left = MARGIN + TITLE + y * (side + GAP), MARGIN + x * (side + GAP)
        sheet[top : top + side, left : left + side] = image
    drawn = Image.fromarray(sheet)
    ImageDraw.Draw(drawn).text((MARGIN, MARGIN), title, fill=TEXT, font=font)
    return np.asarray(drawn)


GRAYS, FRAME_MILLISECONDS = 32, 90  # few levels keep the file small


def encode_gif(frames: np.ndarray) -> bytes:
    """Make a GIF of frames uint8 [T, H, W] that runs for ever, in ``GRAYS`` levels of gray."""
    levels = np.round(np.arange(GRAYS) * 255 / (GRAYS - 1)).astype(np.uint8)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[:GRAYS] = levels[:, None]
    pictures = []
    for frame in np.round(frames.astype(np.float32) * (GRAYS - 1) / 255).astype(np.uint8):
        picture = Image.fromarray(frame, mode="P")
        picture.putpalette(palette.tobytes())
        pictures.append(picture)
    file = io.BytesIO()
    pictures[0].save(
        file, "GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0,
        optimize=False,
    )  # fmt: skip
    return file.getvalue()
