"""Figures of the arms' training: learning curves and cross-validation, one colour per arm everywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from arms.file_formats import CVSummary, TrainingHistory
from arms.registry import ARMS
from common.plot_style import INK, PALETTE, legend_beside, new_figure, panels, set_title, styled, tint
from stats.metric_registry import Shown, metrics_shown

LOSS_LABEL = "Binary cross-entropy (nats)"
ACCURACY_LABEL = "Accuracy (% of images)"
CONTAMINATED = "\ncontaminated: its generator may have seen the validation images"


@styled
def training_curves(history: TrainingHistory, quantity: str, title: str) -> Figure:
    """Draw the curves of one arm: a thin line per fold, a bold one for the final fit on all training images.

    ``history`` is the content of ``<prefix>training_history.json``; ``quantity`` is "loss" (nats) or
    "acc" (fractions). Training stands left, validation right on the same scale; an arm that validated
    nothing gets the left panel alone.
    """
    label = _y_label(quantity)
    folds, final = history["folds"], history["final"]
    figure = new_figure(9.5 if folds else 6.5, 4.4)
    axes = panels(figure, 1, 2 if folds else 1, sharey=True)
    for fold in folds:
        name = f"fold {fold['fold']}" if fold["fold"] else "10 % held out"
        colour = PALETTE[(fold["fold"] - 1) % len(PALETTE)]
        _line(axes[0], _curve(fold, f"train_{quantity}"), color=colour, linewidth=1.1)
        _line(axes[1], _curve(fold, f"val_{quantity}"), color=colour, linewidth=1.1, label=name)
        best = fold["best_epoch"]
        axes[1].plot(best, _curve(fold, f"val_{quantity}")[best - 1], "o", color=colour, markersize=6)
    _line(axes[0], _curve(final, f"train_{quantity}"), color="black", linewidth=2.6, label="final fit")
    axes[0].set(title="Training", ylabel=label)
    if folds:
        axes[1].set_title("Validation")
        axes[1].plot([], [], "o", color=INK, label="best epoch\n(lowest loss)")
        axes[1].plot([], [], color="black", linewidth=2.6, label="final fit, all\ntraining images")
    legend_beside(axes[-1])
    for ax in axes:
        _finish_epoch_axis(ax, quantity)
    set_title(figure, title)
    return figure


@styled
def comparison_curves(
    histories: Mapping[str, TrainingHistory], quantity: str, title: str, contaminated: Collection[str] = ()
) -> Figure:
    """Draw arms side by side: the final fit on training images, and the mean over the validation folds.

    ``histories`` maps an arm's name to its ``training_history.json``. The band spans the folds' lowest
    and highest value. The folds of arms in ``contaminated`` are drawn dashed and marked.
    """
    figure = new_figure(10.5, 4.6)
    training, validation = panels(figure, 1, 2, sharey=True)
    colours = arm_colours(histories)
    handles = []
    for arm, history in histories.items():
        _line(training, _curve(history["final"], f"train_{quantity}"), color=colours[arm], linewidth=2.2)
        dashes = "--" if arm in contaminated else "-"
        style: dict[str, Any] = {"color": colours[arm], "linewidth": 2.2, "linestyle": dashes}
        if folds := [_curve(fold, f"val_{quantity}") for fold in history["folds"]]:
            _fold_band(validation, folds, style)
        handles.append(Line2D([], [], label=_curve_label(arm, len(folds), arm in contaminated), **style))
    training.set(title="Training, final fit (each arm on its own images)", ylabel=_y_label(quantity))
    validation.set_title("Validation, mean and range of the folds")
    if not validation.lines:
        validation.text(0.5, 0.5, "no arm was validated", ha="center", transform=validation.transAxes)
    for ax in (training, validation):
        _finish_epoch_axis(ax, quantity)
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    set_title(figure, title)
    return figure


@styled
def cv_comparison(summaries: Mapping[str, CVSummary]) -> Figure:
    """Draw the cross-validation of the arms: bar = mean over folds, whisker = one SD, dot = a fold.

    ``summaries`` maps an arm's name to its ``cv_summary.json``. Arms whose folds are contaminated are
    hatched and say so: their validation images had been seen by the generator.
    """
    figure = new_figure(max(9.5, 3.0 + 2.6 * len(summaries)), 5.2)
    ax = panels(figure, 1, 1)[0]
    colours, shown = arm_colours(summaries), metrics_shown(Shown.FOLDS_FIGURE)
    width = 0.8 / len(summaries)
    handles = []
    for position, (arm, summary) in enumerate(summaries.items()):
        offset = (position - (len(summaries) - 1) / 2) * width
        for x, metric in enumerate(shown):
            _cv_bar(ax, x + offset, width, summary, metric.name, colours[arm])
        handles.append(_cv_handle(arm, summary, colours[arm]))
    ax.set_xticks(range(len(shown)), [metric.title.replace(" ", "\n") for metric in shown])
    ax.set(ylim=(0, 1.08), ylabel="Value on the fold's validation images", yticks=np.linspace(0, 1, 6))
    figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=min(2, len(handles)))
    set_title(figure, "Cross-validation on the training images")
    ax.set_title("bar: mean over folds; line: ± one SD over folds (not a confidence interval); dot: one fold")
    return figure


def arm_colours(arms: Collection[str]) -> dict[str, tuple]:
    """Return the colour of every known arm and of ``arms``: each has the same one in every figure.

    Arms that the registry does not know take the spare colours in their order.
    """
    fixed = {name: PALETTE[kind.colour] for name, kind in ARMS.items()}
    spare = [colour for colour in PALETTE if colour not in fixed.values()]
    others = [arm for arm in arms if arm not in fixed]
    return fixed | {arm: spare[i % len(spare)] for i, arm in enumerate(others)}


def _curve_label(arm: str, folds: int, contaminated: bool) -> str:
    validated = {0: "not validated", 1: "one validation split"}.get(folds, f"{folds} folds")
    warning = CONTAMINATED if contaminated and folds else ""
    return f"{arm} ({validated}){warning}"


def _fold_band(ax: Axes, folds: list[list[float]], style: dict[str, Any]) -> None:
    """Draw the mean over the folds, with their range, of each epoch that all of them ran."""
    epochs = min(map(len, folds))
    values = np.array([fold[:epochs] for fold in folds], dtype=float)  # [folds, epochs]
    _line(ax, values.mean(axis=0), **style)
    if len(folds) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        ax.fill_between(np.arange(1, epochs + 1), low, high, color=style["color"], alpha=0.15, linewidth=0)


def _cv_bar(ax: Axes, x: float, width: float, summary: CVSummary, metric: str, colour: tuple) -> None:
    rows: list[Mapping[str, Any]] = [*summary["folds"]]
    folds = [row[metric] for row in rows if row.get(metric) is not None]
    mean, std = summary["mean"].get(metric), summary["std"].get(metric) or 0.0
    if mean is None:
        ax.text(x, 0.02, "n/a", ha="center", fontsize="x-small", color=INK)
        return
    ax.bar(x, mean, 0.92 * width, **_bar_style(summary, colour))
    ax.errorbar(x, mean, std, color=INK, linewidth=1.3, capsize=3)
    spread = np.linspace(-0.22, 0.22, len(folds)) * width
    ax.scatter(x + spread, folds, s=11, color="black", zorder=3, linewidth=0)
    ax.text(x, max([mean + std, *folds]) + 0.012, f"{mean:.2f}", ha="center", fontsize="x-small", color=INK)


def _bar_style(summary: CVSummary, colour: tuple) -> dict[str, Any]:
    if summary.get("contaminated"):
        return {"facecolor": tint(colour, 0.65), "edgecolor": "white", "hatch": "///", "linewidth": 0}
    return {"facecolor": tint(colour, 0.25), "linewidth": 0}


def _cv_handle(arm: str, summary: CVSummary, colour: tuple) -> Patch:
    n = f"n = {summary['n_images']:,} images of {summary['n_patients']:,} patients"
    warning = CONTAMINATED if summary.get("contaminated") else ""
    return Patch(label=f"{arm}: {summary['k']} folds, {n}{warning}", **_bar_style(summary, colour))


def _curve(curves: Mapping[str, Any], name: str) -> list[float]:
    return curves[name]


def _line(ax: Axes, values: Sequence[float | None], **style: Any) -> None:
    """Plot ``values`` over epochs 1, 2, ...; a single epoch is a dot; undefined values leave gaps."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    if numbers.size == 1:
        style["marker"] = "o"
    ax.plot(np.arange(1, numbers.size + 1), numbers, **style)


def _y_label(quantity: str) -> str:
    if quantity not in ("loss", "acc"):
        raise ValueError(f"quantity is 'loss' or 'acc', not {quantity!r}")
    return LOSS_LABEL if quantity == "loss" else ACCURACY_LABEL


def _finish_epoch_axis(ax: Axes, quantity: str) -> None:
    ax.set_xlabel("Epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(labelleft=True)
    if quantity == "acc":
        ax.yaxis.set_major_formatter(lambda fraction, _: f"{100 * fraction:g}")
