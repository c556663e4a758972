"""The report of a cross-fitted study, section by section, for text and page alike."""

from __future__ import annotations

from collections.abc import Sequence

from comparison.cross_fit_file_formats import CrossFitComparison, CrossFitPair
from comparison.few_labels import range_in_words
from comparison.file_formats import metric_entry
from comparison.planned_pairs import EXPLORATORY, planning_sentence
from dataset.patients import grouping_sentence
from report.blocks import (
    Block,
    Bullets,
    Commands,
    Facts,
    Section,
    Table,
    capital,
    change,
    column_of,
    count,
    p_value,
    percent,
    scale_of,
    signed,
    with_interval,
)
from report.few_labels import few_label_blocks
from report.verdict import smallest_differences, threshold_lines, verdict_sentence
from stats.metric_registry import compared_metrics
from stats.paired_tests import points

TITLE = "Does the synthetic data help? All labelled images, cross-fitted"


def cross_fit_sections(content: CrossFitComparison) -> list[Section]:
    """Write the report; sections without content are left out."""
    parts: list[tuple[str, str, Sequence[Block]]] = [
        ("verdict", "Verdict", _verdict(content)),
        ("warnings", "Warnings: read these before any number", [Bullets(content["flags"])] if content["flags"] else []),
        ("differences", "Differences between arms", [_pair_facts(content, pair) for pair in content["pairs"]]),
        ("few_labels", "Few labels", few_label_blocks(content)),
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
    if content["pairs"]:
        pair = content["pairs"][0]
        smallest = smallest_differences(pair, " or ")
        power = f"A true difference of {smallest} is found with 80 % power. " if smallest else ""
        called = {name: content["arms"][name]["called_positive"] for name in (pair["a"], pair["b"])}
        lines += [
            verdict_sentence(pair, n),
            *threshold_lines(called, images["prevalence"]),
            f"{power}Two arms count as equivalent if the whole interval lies within ±{points(settings['margin'])}.",
        ]
    lines.append(f"{capital(planning_sentence(content.get('plan')))}.")
    runs = settings["repeats"] * settings["gans"]
    lines.append(
        f"This is about the procedure, not about one model: in each of {settings['folds']} folds, "
        f"{count(settings['gans'], 'GAN')} and {count(runs, 'run')} of every arm learned from the other folds' "
        "patients and predicted this one's."
    )
    return lines


def _pair_facts(content: CrossFitComparison, pair: CrossFitPair) -> Facts:
    rows = []
    for metric in compared_metrics():
        difference, ci95, p, p_holm, role, verdict, by_fold, widened = (
            metric_entry(pair, metric, what)
            for what in ("difference", "ci95", "p", "p_holm", "role", "verdict", "by_fold", "widened")
        )
        scale, digits = scale_of(metric)
        folds = ", ".join(signed(scale * value, digits) for value in by_fold)
        roles = [metric_entry(each, metric, "role") for each in content["pairs"]]
        adjusted = f"; {role}, not adjusted"
        if role == EXPLORATORY:
            adjusted = f"; {p_value(p_holm)} adjusted for {count(roles.count(EXPLORATORY), 'exploratory pair')} (Holm)"
        rows.append((metric.title, f"{change(metric, difference, ci95)}; {p_value(p)}{adjusted}"))
        rows.append((f"verdict, {metric.title}", verdict))
        rows.append((f"folds, {metric.title}", folds + ("; the interval follows their spread" if widened else "")))
    return Facts(f"{pair['b']} minus {pair['a']}", rows)


def _arm_table(content: CrossFitComparison) -> Table:
    metrics = compared_metrics()
    columns = ["arm", *(f"{column_of(metric)} (95 % CI)" for metric in metrics), "called positive, %",
               "training images", "runs per fold"]  # fmt: skip
    rows = []
    for name, arm in content["arms"].items():
        cells = []
        for metric in metrics:
            scale, digits = scale_of(metric)
            cells.append(with_interval(metric_entry(arm, metric), metric_entry(arm, metric, "ci95"), scale, digits))
        images = range_in_words(arm["n_train_images"])
        made = f" + {range_in_words(arm['n_synthetic'])} synthetic" if any(arm["n_synthetic"]) else ""
        if any(hidden := arm.get("n_unlabelled", [0])):
            made += f" + {range_in_words(hidden)} without their labels"
        called = f"{100 * arm['called_positive']:.1f}"
        rows.append([name, *cells, called, images + made, str(arm["runs"])])
    always = percent(content["images"]["always_negative_accuracy"])
    blanks = [always.removesuffix(" %") if metric.name == "accuracy" else "–" for metric in metrics]
    return Table(columns, [*rows, ["always negative", *blanks, "0.0", "–", "–"]])


def _fold_table(content: CrossFitComparison) -> Table:
    rows = [
        [str(fold["fold"]), f"{fold['n_images']:,}", f"{fold['n_patients']:,}", f"{fold['n_positive']:,}",
         ", ".join(map(str, fold["gan_seeds"])), fold["split_sha256"][:12]]
        for fold in content["folds"]
    ]  # fmt: skip
    title = grouping_sentence(content["images"]["grouped_by"])
    return Table(["fold", "test images", "patients", "positive", "seeds", "split"], rows, title)


def _commands(content: CrossFitComparison) -> list[Block]:
    rows = [(f"{name}, fold {content['folds'][0]['fold']}", arm["command"]) for name, arm in content["arms"].items()]
    return [Commands([(what, command) for what, command in rows if command])]
