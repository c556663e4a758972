"""The report of a cross-fitted study: sections for text and page, and the figure of its differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from arms.figures import arm_colours
from common.plot_style import INK, new_figure, panels, styled
from comparison.cross_fit_file_formats import CrossFitComparison, CrossFitPair
from comparison.file_formats import metric_entry
from dataset.patients import grouping_sentence
from report.blocks import (
    Block,
    Bullets,
    Commands,
    Facts,
    Section,
    Table,
    amount,
    change,
    column_of,
    count,
    p_value,
    percent,
    scale_of,
    signed,
    with_interval,
)
from stats.metric_registry import compared_metrics
from stats.paired_tests import NO_EVIDENCE, points

TITLE = "Does the synthetic data help? All labelled images, cross-fitted"
FIGURE_CAPTION = (
    "differences between arms, pooled (large, with their 95 % interval) and of each fold (small); the band is the "
    "margin"
)


def cross_fit_sections(content: CrossFitComparison) -> list[Section]:
    """Write the report; sections without content are left out."""
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("verdict", "Verdict", _verdict(content)),
        ("warnings", "Warnings: read these before any number", [Bullets(content["flags"])] if content["flags"] else []),
        ("differences", "Differences between arms", [_pair_facts(content, pair) for pair in content["pairs"]]),
        ("arms", "Each arm on all images", [_arm_table(content)]),
        ("folds", "Folds", [_fold_table(content)]),
        ("notes", "What the numbers mean", [Bullets(content["notes"])]),
        ("commands", "Commands that made these results", _commands(content)),
    ]
    return [Section(key, heading, blocks) for key, heading, blocks in parts if blocks]


def _verdict(content: CrossFitComparison) -> list[Block]:
    images, settings = content["images"], content["settings"]
    n = f"{count(images['n_images'], 'image')} of {count(images['n_patients'], 'patient')}"
    lines: list[Block] = []
    for pair in content["pairs"][:1]:
        said = []
        for metric in compared_metrics():
            verdict, *numbers = (metric_entry(pair, metric, what) for what in ("verdict", "difference", "ci95"))
            verb = "shows" if verdict == NO_EVIDENCE else "is"
            said.append(f"{verb} {verdict} in {metric.title} ({change(metric, *numbers)})")
        lines.append(f"Compared with {pair['a']}, {pair['b']} {' and '.join(said)}, on {n}.")
        smallest = _smallest(pair)
        power = f"A true difference of {smallest} is found with 80 % power. " if smallest else ""
        lines.append(
            f"{power}Two arms count as equivalent if the whole interval lies within ±{points(settings['margin'])}."
        )
    runs = settings["repeats"] * settings["gans"]
    lines.append(
        f"This is about the procedure, not about one model: in each of {settings['folds']} folds, "
        f"{count(settings['gans'], 'GAN')} and {count(runs, 'run')} of every arm learned from the other folds' "
        "patients and predicted this one's."
    )
    return lines


def _smallest(pair: CrossFitPair) -> str:
    found = ((m, metric_entry(pair, m, "minimum_detectable_difference")) for m in compared_metrics())
    return " or ".join(amount(metric, value) for metric, value in found if value is not None)


def _pair_facts(content: CrossFitComparison, pair: CrossFitPair) -> Facts:
    rows = []
    for metric in compared_metrics():
        difference, ci95, p, p_holm, verdict, by_fold, widened = (
            metric_entry(pair, metric, what)
            for what in ("difference", "ci95", "p", "p_holm", "verdict", "by_fold", "widened")
        )
        scale, digits = scale_of(metric)
        folds = ", ".join(signed(scale * value, digits) for value in by_fold)
        adjusted = f"; {p_value(p_holm)} adjusted for {count(len(content['pairs']), 'pair')} (Holm)"
        rows.append((metric.title, f"{change(metric, difference, ci95)}; {p_value(p)}{adjusted}"))
        rows.append((f"verdict, {metric.title}", verdict))
        rows.append((f"folds, {metric.title}", folds + ("; the interval follows their spread" if widened else "")))
    return Facts(f"{pair['b']} minus {pair['a']}", rows)


def _arm_table(content: CrossFitComparison) -> Table:
    metrics = compared_metrics()
    columns = ["arm", *(f"{column_of(metric)} (95 % CI)" for metric in metrics), "training images", "runs per fold"]
    rows = []
    for name, arm in content["arms"].items():
        cells = []
        for metric in metrics:
            scale, digits = scale_of(metric)
            cells.append(with_interval(metric_entry(arm, metric), metric_entry(arm, metric, "ci95"), scale, digits))
        images = f"{min(arm['n_train_images']):,} to {max(arm['n_train_images']):,}"
        made = f" + {max(arm['n_synthetic']):,} synthetic" if any(arm["n_synthetic"]) else ""
        rows.append([name, *cells, images + made, str(arm["runs"])])
    always = percent(content["images"]["always_negative_accuracy"])
    blanks = [always.removesuffix(" %") if metric.name == "accuracy" else "–" for metric in metrics]
    return Table(columns, [*rows, ["always negative", *blanks, "–", "–"]])


def _fold_table(content: CrossFitComparison) -> Table:
    rows = [
        [str(fold["fold"]), f"{fold['n_images']:,}", f"{fold['n_patients']:,}", f"{fold['n_positive']:,}",
         ", ".join(map(str, fold["gan_seeds"])), fold["split_sha256"][:12]]
        for fold in content["folds"]
    ]  # fmt: skip
    title = grouping_sentence(content["images"]["grouped_by"])
    return Table(["fold", "test images", "patients", "positive", "seeds of its GANs", "split"], rows, title)


def _commands(content: CrossFitComparison) -> list[Block]:
    rows = [(f"{name}, fold {content['folds'][0]['fold']}", arm["command"]) for name, arm in content["arms"].items()]
    return [Commands([(what, command) for what, command in rows if command])]


@styled
def draw_cross_fit(content: CrossFitComparison) -> Figure:
    """Draw each pair's differences, a column per compared metric: pooled with interval, and of each fold."""
    metrics, pairs = compared_metrics(), content["pairs"]
    colours = arm_colours(list(content["arms"]))
    figure = new_figure(4.8 * len(metrics), 1.3 + 0.8 * len(pairs))
    axes = panels(figure, 1, len(metrics), sharey=True)
    for ax, metric in zip(axes, metrics, strict=True):
        scale, _ = scale_of(metric)
        margin = scale * content["settings"]["margin"]
        ax.axvspan(-margin, margin, color=INK, alpha=0.08, lw=0)
        ax.axvline(0, color=INK, lw=0.8)
        for place, pair in enumerate(pairs):
            difference, ci95, by_fold = (metric_entry(pair, metric, w) for w in ("difference", "ci95", "by_fold"))
            colour = colours[pair["b"]]
            below = np.full(len(by_fold), place + 0.22)
            ax.plot(scale * np.array(by_fold), below, "o", ms=3.5, mfc="none", color=colour)
            if ci95 is not None:
                ax.plot(scale * np.array(ci95), [place, place], color=colour, lw=2)
            if difference is not None:
                ax.plot(scale * difference, place, "o", ms=7, color=colour)
        ax.set_xlabel(f"difference in {metric.title}" + (", points" if metric.percent else ""))
        ax.set_yticks(range(len(pairs)), [f"{pair['b']}\nminus {pair['a']}" for pair in pairs])
        ax.set_ylim(len(pairs) - 0.5, -0.5)
    return figure
