"""Numbers in, matplotlib ``Figure`` out: the only file that imports matplotlib.

No function computes a metric, chooses a path or touches pyplot's global state: each draws into a
``Figure`` of its own, in seaborn's style held in a context, with its colour-blind-safe palette.
``utils.save_figure`` writes what is returned here.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

DPI = 150
PALETTE = sns.color_palette("colorblind")
INK = "0.25"
STYLE = {
    "font.family": "DejaVu Sans",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid.axis": "y",
    "axes.linewidth": 1.0,
    "grid.color": "0.88",
    "grid.linewidth": 0.8,
    "figure.titleweight": "bold",
    "figure.titlesize": "large",
}

LOSS_LABEL = "Binary cross-entropy (nats)"
ACCURACY_LABEL = "Accuracy (% of images)"

# Weighted recall is left out: it equals accuracy by definition.
CV_METRICS = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "weighted_precision": "weighted\nprecision",
    "weighted_f1": "weighted\nF1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run ``draw`` under the project's style, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        seaborn_style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.85)
        with mpl.rc_context(seaborn_style | STYLE):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks are made at the first draw: make them in this style
        return figure

    return wrapper


def _new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure of ``width`` x ``height`` inches that belongs to nobody else."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _panels(figure: Figure, rows: int, columns: int, **kwargs) -> list[Axes]:
    axes = list(figure.subplots(rows, columns, squeeze=False, **kwargs).flat)
    for ax in axes:
        sns.despine(ax=ax)
    return axes


def _finish_epoch_axis(ax: Axes, quantity: str) -> None:
    ax.set_xlabel("Epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(labelleft=True)
    if quantity == "acc":
        ax.yaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:g}")


def _y_label(quantity: str) -> str:
    if quantity not in ("loss", "acc"):
        raise ValueError(f"quantity is 'loss' or 'acc', not {quantity!r}")
    return LOSS_LABEL if quantity == "loss" else ACCURACY_LABEL


def _line(ax: Axes, values: Sequence[float | None], **style) -> None:
    """Plot ``values`` over epochs 1, 2, ...; a single epoch is a dot; undefined values leave gaps."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    if numbers.size == 1:
        style["marker"] = "o"
    ax.plot(np.arange(1, numbers.size + 1), numbers, **style)


def _set_title(figure: Figure, title: str) -> None:
    characters = int(figure.get_figwidth() * 10)
    figure.suptitle(textwrap.fill(title, characters), x=0.01, ha="left")


def _legend_beside(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, borderaxespad=0.0)


# --- training of a classifier ----------------------------------------------------------------------
@_styled
def training_curves(history: dict, quantity: str, title: str) -> Figure:
    """Curves of one arm: a thin line per fold, a bold one for the final fit on all training images.

    ``history`` is the content of ``<prefix>training_history.json``; ``quantity`` is "loss" (nats) or
    "acc" (fractions). Training stands left, validation right on the same scale; an arm that validated
    nothing gets the left panel alone.
    """
    label = _y_label(quantity)
    folds, final = history["folds"], history["final"]
    figure = _new_figure(9.5 if folds else 6.5, 4.4)
    axes = _panels(figure, 1, 2 if folds else 1, sharey=True)
    for fold in folds:
        name = f"fold {fold['fold']}" if fold["fold"] else "10 % held out"
        colour = PALETTE[(fold["fold"] - 1) % len(PALETTE)]
        _line(axes[0], fold[f"train_{quantity}"], color=colour, linewidth=1.1)
        _line(axes[1], fold[f"val_{quantity}"], color=colour, linewidth=1.1, label=name)
        best = fold["best_epoch"]
        axes[1].plot(best, fold[f"val_{quantity}"][best - 1], "o", color=colour, markersize=6)
    _line(axes[0], final[f"train_{quantity}"], color="black", linewidth=2.6, label="final fit")
    axes[0].set(title="Training", ylabel=label)
    if folds:
        axes[1].set_title("Validation")
        axes[1].plot([], [], "o", color=INK, label="best epoch\n(lowest loss)")
        axes[1].plot([], [], color="black", linewidth=2.6, label="final fit, all\ntraining images")
    _legend_beside(axes[-1])
    for ax in axes:
        _finish_epoch_axis(ax, quantity)
    _set_title(figure, title)
    return figure


@_styled
def comparison_curves(
    histories: dict[str, dict], quantity: str, title: str = "", contaminated: Collection[str] = ()
) -> Figure:
    """Arms side by side: the final fit on training images, and the mean over the validation folds.

    ``histories`` maps an arm's name to its ``training_history.json``. The band spans the folds' lowest
    and highest value. The folds of arms in ``contaminated`` are drawn dashed and marked.
    """
    figure = _new_figure(10.5, 4.6)
    training, validation = _panels(figure, 1, 2, sharey=True)
    colours = _arm_colours(histories)
    handles = []
    for arm, history in histories.items():
        _line(training, history["final"][f"train_{quantity}"], color=colours[arm], linewidth=2.2)
        style = {"color": colours[arm], "linewidth": 2.2, "linestyle": "--" if arm in contaminated else "-"}
        folds = [fold[f"val_{quantity}"] for fold in history["folds"]]
        if folds:
            _fold_band(validation, folds, style)
        handles.append(Line2D([], [], label=_curve_label(arm, len(folds), arm in contaminated), **style))
    training.set(title="Training, final fit (each arm on its own images)", ylabel=_y_label(quantity))
    validation.set_title("Validation, mean and range of the folds")
    if not validation.lines:
        validation.text(0.5, 0.5, "no arm was validated", ha="center", transform=validation.transAxes)
    for ax in (training, validation):
        _finish_epoch_axis(ax, quantity)
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    _set_title(figure, title)
    return figure


def _curve_label(arm: str, folds: int, contaminated: bool) -> str:
    validated = {0: "not validated", 1: "one validation split"}.get(folds, f"{folds} folds")
    warning = "\ncontaminated: its generator saw the validation images" if contaminated and folds else ""
    return f"{arm} ({validated}){warning}"


def _fold_band(ax: Axes, folds: list[list[float]], style: dict) -> None:
    """Mean over the folds of each epoch that all of them ran, with their range."""
    epochs = min(map(len, folds))
    values = np.array([fold[:epochs] for fold in folds], dtype=float)  # [folds, epochs]
    _line(ax, values.mean(axis=0), **style)
    if len(folds) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        ax.fill_between(np.arange(1, epochs + 1), low, high, color=style["color"], alpha=0.15, linewidth=0)


def _arm_colours(arms: Collection[str]) -> dict[str, tuple]:
    """Blue for the baseline and orange for the augmented arm in every figure, the rest in order."""
    fixed = {"baseline": PALETTE[0], "augmented": PALETTE[1]}
    others = [arm for arm in arms if arm not in fixed]
    return fixed | {arm: PALETTE[(2 + i) % len(PALETTE)] for i, arm in enumerate(others)}


@_styled
def cv_comparison(summaries: dict[str, dict]) -> Figure:
    """Cross-validation of the arms: bar = mean over folds, whisker = one SD, dot = a fold.

    ``summaries`` maps an arm's name to its ``cv_summary.json``. Arms whose folds are contaminated are
    hatched and say so: their validation images had been seen by the generator.
    """
    figure = _new_figure(max(9.5, 3.0 + 2.6 * len(summaries)), 5.2)
    ax = _panels(figure, 1, 1)[0]
    colours = _arm_colours(summaries)
    width = 0.8 / len(summaries)
    handles = []
    for position, (arm, summary) in enumerate(summaries.items()):
        offset = (position - (len(summaries) - 1) / 2) * width
        for x, metric in enumerate(CV_METRICS):
            _cv_bar(ax, x + offset, width, summary, metric, colours[arm])
        handles.append(_cv_handle(arm, summary, colours[arm]))
    ax.set_xticks(range(len(CV_METRICS)), list(CV_METRICS.values()))
    ax.set(ylim=(0, 1.08), ylabel="Value on the fold's validation images", yticks=np.linspace(0, 1, 6))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=min(2, len(handles)))
    _set_title(figure, "Cross-validation on the training images")
    ax.set_title("bar: mean over folds; line: ± one SD over folds (not a confidence interval); dot: one fold")
    return figure


def _cv_bar(ax: Axes, x: float, width: float, summary: dict, metric: str, colour: tuple) -> None:
    folds = [fold[metric] for fold in summary["folds"] if fold.get(metric) is not None]
    mean, std = summary["mean"].get(metric), summary["std"].get(metric) or 0.0
    if mean is None:
        ax.text(x, 0.02, "n/a", ha="center", fontsize="x-small", color=INK)
        return
    ax.bar(x, mean, 0.92 * width, **_bar_style(summary, colour))
    ax.errorbar(x, mean, std, color=INK, linewidth=1.3, capsize=3)
    spread = np.linspace(-0.22, 0.22, len(folds)) * width
    ax.scatter(x + spread, folds, s=11, color="black", zorder=3, linewidth=0)
    ax.text(x, max([mean + std, *folds]) + 0.012, f"{mean:.2f}", ha="center", fontsize="x-small", color=INK)


def _bar_style(summary: dict, colour: tuple) -> dict:
    if summary.get("contaminated"):
        return {"facecolor": _tint(colour, 0.65), "edgecolor": "white", "hatch": "///", "linewidth": 0}
    return {"facecolor": _tint(colour, 0.25), "linewidth": 0}


def _tint(colour: tuple, share: float) -> tuple:
    """``colour`` mixed with ``share`` of white."""
    return tuple(channel + (1 - channel) * share for channel in colour)


def _cv_handle(arm: str, summary: dict, colour: tuple) -> Patch:
    n = f"n = {summary['n_images']:,} images of {summary['n_patients']:,} patients"
    warning = "\ncontaminated: its generator saw the validation images" if summary.get("contaminated") else ""
    return Patch(label=f"{arm}: {summary['k']} folds, {n}{warning}", **_bar_style(summary, colour))


# --- training of the GAN ---------------------------------------------------------------------------
@_styled
def gan_losses(epochs: list[dict], title: str) -> Figure:
    """Losses and discriminator outputs over the epochs of ``gan_training_history.json``.

    Terms that were switched off (null throughout) are left out. Top: terms of G's loss; middle: of
    D's, in nats; bottom: mean of sigmoid(D) on real and generated images, where 0.5 is a D that
    cannot tell them apart.
    """
    panels = [
        ("Generator loss, unweighted terms and weighted sum", "Loss", {
            "g_loss": "sum", "g_adversarial": "adversarial", "g_perceptual": "perceptual",
            "g_feature_matching": "feature matching",
        }),
        ("Discriminator loss", "Loss (nats)", {
            "d_loss": "sum", "d_loss_real": "on real images", "d_loss_fake": "on generated images",
        }),
        ("Discriminator output", "Mean probability of “real”", {
            "d_real": "D(x), real images", "d_fake": "D(G(z)), generated",
        }),
    ]  # fmt: skip
    figure = _new_figure(9.0, 8.2)
    axes = _panels(figure, 3, 1, sharex=True)
    x = [epoch["epoch"] for epoch in epochs]
    for ax, (heading, label, terms) in zip(axes, panels, strict=True):
        colours = ["black", *PALETTE] if len(terms) > 2 else PALETTE
        for (key, name), colour in zip(terms.items(), colours, strict=False):
            _gan_term(ax, x, [epoch.get(key) for epoch in epochs], name, colour)
        ax.set_title(heading, fontsize="medium")
        ax.set_ylabel(label)
        _legend_beside(ax)
    axes[2].set_ylim(0, 1)
    axes[2].axhline(0.5, color=INK, linewidth=1, linestyle=":", label="0.5: D cannot tell")
    _legend_beside(axes[2])
    axes[2].set_xlabel("Epoch")
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels(axes)
    _set_title(figure, title)
    return figure


def _gan_term(ax: Axes, x: list[int], values: list[float | None], name: str, colour: tuple | str) -> None:
    if all(value is None for value in values):
        return
    numbers = [np.nan if value is None else value for value in values]
    ax.plot(x, numbers, color=colour, label=name, linewidth=1.6, marker="o" if len(x) == 1 else None)


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


@_styled
def image_sections(sections: Sequence[ImageSection], columns: int, title: str) -> Figure:
    """Blocks of images under one another, every pixel drawn as a whole number of screen pixels."""
    size = sections[0].images.shape[1]
    tile = size * max(1, math.ceil(144 / size))  # screen pixels
    gap, margin = 6, 14
    width = max(2 * margin + columns * (tile + gap) - gap, 520)
    title_lines = textwrap.wrap(title, int((width - 2 * margin) / 12.5))
    height = 2 * margin + 30 * len(title_lines)
    height += sum(_section_height(section, columns, tile, gap) for section in sections)
    figure = _new_figure(width / DPI, height / DPI, layout=None)
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


# --- the dataset -----------------------------------------------------------------------------------
@_styled
def stacked_counts(counts: pd.DataFrame, title: str, x_label: str) -> Figure:
    """Horizontal stacked bars: a bar per row of ``counts``, a colour per column, the numbers inside."""
    figure = _new_figure(9.0, 1.5 + 0.55 * len(counts))
    ax = _panels(figure, 1, 1)[0]
    y, left = np.arange(len(counts)), np.zeros(len(counts))
    readable = 0.04 * counts.sum(axis=1).max()  # a narrower piece has no room for its number
    for column, colour in zip(counts.columns, PALETTE, strict=False):
        values = counts[column].to_numpy(dtype=float)
        bars = ax.barh(y, values, 0.7, left=left, color=_tint(colour, 0.25), label=str(column), linewidth=0)
        numbers = [f"{value:,.0f}" if value > readable else "" for value in values]
        ax.bar_label(bars, numbers, label_type="center", fontsize="small", color="black")
        left += values
    ax.set_yticks(y, [str(name) for name in counts.index])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlabel=x_label, title=title)
    figure.legend(loc="outside lower left", frameon=False, ncols=min(4, len(counts.columns)))
    return figure


@_styled
def count_histogram(values: Sequence[int], title: str, x_label: str, y_label: str) -> Figure:
    """How often each whole number occurs in ``values``: one bar per number, logarithmic count axis."""
    figure = _new_figure(8.0, 3.8)
    ax = _panels(figure, 1, 1)[0]
    numbers, counts = np.unique(np.asarray(values, dtype=int), return_counts=True)
    ax.bar(numbers, counts, 0.8, color=_tint(PALETTE[0], 0.25), linewidth=0)
    ax.set(title=title, xlabel=x_label, ylabel=f"{y_label} (log scale)", yscale="log", ylim=(0.7, None))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
