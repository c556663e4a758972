"""The folded sections of the report that reviewers ask for: decision curves, subgroup differences, errors.

All of it is exploratory: no verdict rests on it, and the words say what is adjusted for what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from comparison.decision_curves import CALIBRATED
from comparison.file_formats import Comparison, metric_key
from comparison.reviewer_file_formats import DecisionDifference, ErrorsOfArm, Robustness, SubgroupsOfPair, WorstError
from report.blocks import (
    Block,
    Facts,
    Table,
    count,
    decimal,
    interval,
    p_value,
    percent,
    scale_of,
    score,
    signed,
    title_in_points,
)
from report.verdict import headline_pairs
from stats.metric_registry import Metric, compared_metrics
from stats.metrics import CONFIDENCE

Pair = TypeVar("Pair", DecisionDifference, SubgroupsOfPair)
Part = tuple[str, str, list[Block]]  # key of the section, heading, blocks

DECISION, SUBGROUPS, ERRORS, ROBUSTNESS = "decision-curve", "subgroup-differences", "worst-errors", "robustness"
FOLDED = {
    DECISION: "Show the net benefit of each arm and the differences",
    SUBGROUPS: "Show the differences and their interactions",
    ERRORS: "Show the images",
    ROBUSTNESS: "Show the changes of each arm",
}
SHOWN_THRESHOLDS = (0.05, 0.10, 0.20, 0.30, 0.40, 0.50)


def parts(content: Comparison) -> list[Part]:
    """Write these sections; those whose numbers ``content`` lacks are empty."""
    return [
        (DECISION, "Decision curve", decision_curve(content)),
        (SUBGROUPS, "Differences within subgroups", subgroup_differences(content)),
        (ERRORS, "Worst errors of each arm", worst_errors(content)),
        (ROBUSTNESS, "Robustness to small changes of the images", robustness(content)),
    ]


def _headline(pairs: Sequence[Pair], content: Comparison) -> list[Pair]:
    """Return those of ``pairs`` that answer the question."""
    asked = [{pair["a"], pair["b"]} for pair in headline_pairs(content)]
    return [pair for pair in pairs if {pair["a"], pair["b"]} in asked]


def _more(n: int) -> str:
    return f" {count(n, 'more pair')} {'is' if n == 1 else 'are'} in comparison.json." if n else ""


# --- decision curve --------------------------------------------------------------------------------
def decision_curve(content: Comparison) -> list[Block]:
    """Write the net benefit of every arm, and the difference of every pair, at some of the thresholds."""
    curves = content.get("decision_curves")
    if curves is None:
        return []
    thresholds = curves["thresholds"]
    places = [place for place, threshold in enumerate(thresholds) if threshold in SHOWN_THRESHOLDS]
    shown = [f"{thresholds[place]:.2f}" for place in places]

    def per_hundred(values: Sequence[float]) -> list[str]:
        return [signed(100 * values[place], 1).removeprefix("+") for place in places]

    first = next(iter(curves["arms"].values()))
    rows = [(name, *per_hundred(curve["net_benefit"])) for name, curve in curves["arms"].items()]
    rows.append(("calling every image", *per_hundred(first["treat_all"])))
    rows.append(("calling none", *per_hundred([0.0] * len(thresholds))))
    pairs = [
        (f"{pair['b']} − {pair['a']}", *(
            _difference(pair["net_benefit_difference"][place], pair["net_benefit_ci95_pointwise"][place], 100, 1)
            for place in places
        ))
        for pair in _headline(curves["pairs"], content)
    ]  # fmt: skip
    lowest, highest, prevalence = thresholds[0], thresholds[-1], percent(content["test_set"]["prevalence"])
    blocks: list[Block] = [
        "Net benefit at a threshold t is the share of true positives minus t / (1 − t) times the share of false "
        "positives (Vickers and Elkin 2006). Whoever acts from t takes one missed pneumonia for as bad as "
        f"(1 − t) / t false alarms: {(1 - lowest) / lowest:.0f} at {lowest:.2f}, 1 at 0.50. An arm below "
        "the curve of calling every image, or below 0, is of no use at that threshold. All of it holds for "
        f"{prevalence} positives, as in this test set; a clinic may have more or fewer.",
        Table(("arm", *shown), rows, "Net benefit per 100 images, from a threshold of"),
        _used_probabilities(curves),
    ]
    if pairs:
        blocks += [
            Table(("pair", *shown), pairs, "Difference per 100 images (95 % CI), from a threshold of"),
            f"The intervals come from the paired bootstrap over patients ({content['settings']['n_resamples']:,} "
            "resamples). They are pointwise: each threshold has its own, and none is adjusted for the number of "
            "thresholds or pairs. Where a few of many exclude 0, that alone shows nothing; no verdict rests on "
            f"them. The range of thresholds, {lowest:.2f} to {highest:.2f}, is fixed."
            f"{_more(len(curves['pairs']) - len(pairs))}",
        ]
    return blocks


def _used_probabilities(curves: Mapping[str, Any]) -> str:
    if curves["probabilities"] == CALIBRATED:
        return (
            "The probabilities are calibrated: each arm's logits are divided by its temperature, from out-of-fold "
            "predictions of its own or of the baseline (see Calibration), after the mean over its training runs."
        )
    without = curves["without_temperature"]
    return (
        f"The probabilities are as trained, because {', '.join(without)} {'has' if len(without) == 1 else 'have'} no "
        "temperature (see Calibration). So the curves also judge how well an arm is calibrated."
    )


def _difference(value: float | None, bounds: Sequence[float] | None, scale: float, digits: int) -> str:
    if value is None:
        return "–"
    return f"{signed(scale * value, digits)} ({interval(bounds, scale, digits, sign=True)})"


# --- differences within subgroups --------------------------------------------------------------------
def subgroup_differences(content: Comparison) -> list[Block]:
    """Write the differences of the pairs that answer the question, and whether they depend on the subgroup."""
    found, shown = content.get("subgroup_differences", []), headline_subgroups(content)
    blocks: list[Block] = [table for pair in shown for table in _tables_of_pair(pair)]
    small = {(row["group"], row["value"]): row for pair in found for row in pair["too_small"]}
    if not blocks and not small:
        return []
    if small:
        words = (
            f"{row['group']} {row['value']} ({row['n_patients_positive']:,} and {row['n_patients_negative']:,})"
            for row in small.values()
        )
        blocks.append(
            "Not computed, because fewer than ten patients have an image with pneumonia, or without (their numbers "
            f"in brackets): {', '.join(words)}."
        )
    return [
        *blocks,
        "Exploratory. An interaction is a difference of differences: what the arms differ by in one part, minus what "
        "they differ by in the largest part of its kind. Intervals come from the paired bootstrap over patients, "
        "whose images may lie in two parts, and are not adjusted. p is adjusted for the interactions of one pair and "
        "one metric (Holm), not for pairs and metrics. A difference found in one part and not in another is no "
        f"interaction: only the second kind of table can show one.{_more(len(found) - len(shown))}",
    ]


def headline_subgroups(content: Comparison) -> list[SubgroupsOfPair]:
    """Return the pairs that answer the question, as they stand in ``content``."""
    return _headline(content.get("subgroup_differences", []), content)


def _tables_of_pair(pair: SubgroupsOfPair) -> list[Block]:
    metrics, name = compared_metrics(), f"{pair['b']} − {pair['a']}"
    differences: Sequence[Mapping[str, Any]] = pair["differences"]
    interactions: Sequence[Mapping[str, Any]] = pair["interactions"]
    rows = [
        (f"{row['group']} {row['value']}: {row['n_positive']:,} of {row['n_images']:,}",
         *(_change(row, metric, "difference", "ci95") for metric in metrics))
        for row in differences
    ]  # fmt: skip
    tables: list[Block] = []
    if rows:
        columns = ("subgroup (positives of images)", *map(title_in_points, metrics))
        tables.append(Table(columns, rows, f"{name} (95 % CI)"))
    contrasts = [
        (f"{row['group']} {row['value']} minus {row['reference']}", *_cells(row, metrics)) for row in interactions
    ]
    if contrasts:
        headings = [heading for metric in metrics for heading in (title_in_points(metric), "p")]
        title = f"{name}: interactions (95 % CI), p after Holm"
        tables.append(Table(("difference of differences", *headings), contrasts, title))
    return tables


def _change(row: Mapping[str, Any], metric: Metric, *what: str) -> str:
    value, bounds = (row[metric_key(metric, each)] for each in what)
    return _difference(value, bounds, *scale_of(metric))


def _cells(row: Mapping[str, Any], metrics: Sequence[Metric]) -> list[str]:
    """Write an interaction: for each metric its size and its adjusted p."""
    cells = []
    for metric in metrics:
        p = p_value(row[metric_key(metric, "interaction_p_holm")]).removeprefix("p ").removeprefix("= ")
        cells += [_change(row, metric, "interaction", "interaction_ci95"), p]
    return cells


# --- worst errors ----------------------------------------------------------------------------------
def worst_errors(content: Comparison) -> list[Block]:
    """Write a table per arm: the images that it calls wrongly and is most confident about."""
    found = content.get("worst_errors", {})
    blocks: list[Block] = [_table_of_errors(name, item, content) for name, item in found.items() if item["worst"]]
    if flawless := [name for name, item in found.items() if not item["worst"]]:
        blocks.append(f"{', '.join(flawless)}: no test image is called wrongly.")
    if len(blocks) > len(flawless):
        blocks.append(
            "p: probability of pneumonia, as trained, the mean over the arm's training runs. arms wrong: how many "
            "of all arms call the image wrongly; where all do, look at its label first. Some of these labels may be "
            "wrong, and ten images say nothing about which arm to prefer."
        )
    return blocks


def _table_of_errors(name: str, item: ErrorsOfArm, content: Comparison) -> Table:
    n_arms, n_images = len(content["arms"]), content["arms"][name]["n_images"]
    rows = [
        (str(place), _truth(row), decimal(row["probability"]), _person(row),
         f"{1 + len(row['others_wrong'])} of {n_arms}", row["image_id"])
        for place, row in enumerate(item["worst"], start=1)
    ]  # fmt: skip
    shown = "all of them" if len(rows) == item["n_wrong"] else f"the {len(rows)} farthest from 0.5"
    title = f"{name}: {item['n_wrong']:,} of {n_images:,} test images called wrongly at 0.5; {shown}"
    return Table(("no.", "truth", "p", "view, sex, age", "arms wrong", "image"), rows, title)


def _truth(row: WorstError) -> str:
    return row["class_name"] or ("positive" if row["label"] else "negative")


def _person(row: WorstError) -> str:
    age = None if row["age"] is None else f"{row['age']:.0f}"
    return ", ".join(value or "?" for value in (row["view"], row["sex"], age))


# --- robustness ------------------------------------------------------------------------------------
def robustness(content: Comparison) -> list[Block]:
    """Write a table per arm, and one per pair that answers the question: what each perturbation changes."""
    found = content.get("robustness")
    if not found:
        return []
    names = [name for name in content["arms"] if name in found["unperturbed"]]
    meanings = [(row["name"], row["meaning"]) for row in found["perturbations"]]
    blocks: list[Block] = [_what_was_perturbed(found, content), Facts("The changes", meanings)]
    blocks += [_table_of_changes(_title(name, found), found, "arms", name) for name in names]
    pairs = found["perturbations"][0]["pairs"]
    asked = [{pair["a"], pair["b"]} for pair in headline_pairs(content)]
    for place, pair in enumerate(pairs):
        if {pair["a"], pair["b"]} in asked:
            title = f"Change under {pair['b']} minus change under {pair['a']} (95 % CI)"
            blocks.append(_table_of_changes(title, found, "pairs", place))
    if left_out := found["left_out"]:
        blocks.append("Not scored: " + "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) + ".")
    return blocks


def _what_was_perturbed(found: Robustness, content: Comparison) -> str:
    unseen = 1 - (1 - CONFIDENCE) ** (1 / found["n_patients"])  # a rate of 0, one-sided (Clopper and Pearson 1934)
    return (
        f"{count(found['n_images'], 'test image')} of {count(found['n_patients'], 'patient')}, drawn by patient "
        f"({found['n_positive']:,} positive), were changed at the size that the network sees and scored again by the "
        "final models. A change is the score of the changed images minus that of the same images as they "
        f"are. Intervals come from the paired bootstrap over patients ({content['settings']['n_resamples']:,} "
        "resamples) and are not adjusted for the number of perturbations; no verdict rests on them. “None seen”: no "
        f"image moves the score; changes in up to {percent(unseen)} of all patients can go unseen in so few. All this "
        "is simpler than what another hospital's machines do."
    )


def _title(name: str, found: Robustness) -> str:
    scores = found["unperturbed"][name]
    words = ", ".join(f"{m.title} {score(m, scores[m.name])}" for m in compared_metrics())
    return f"{name}: change (95 % CI) from {words}, mean p {decimal(scores['probability'])}"


def _change_of(found: Mapping[str, Any], scale: float, digits: int) -> str:
    if found["change"] is not None and found["ci95"] is None:
        return f"{signed(scale * found['change'], digits)} (none seen)"
    return _difference(found["change"], found["ci95"], scale, digits)


def _table_of_changes(title: str, found: Robustness, part: str, key: str | int) -> Table:
    """Write the changes of one arm (``part`` "arms", ``key`` its name) or pair ("pairs", its place)."""
    metrics, rows = compared_metrics(), []
    for perturbation in cast("list[dict[str, Any]]", found["perturbations"]):
        own = perturbation[part][key]
        cells = [_change_of(own[m.name], *scale_of(m)) for m in metrics]
        rows.append((perturbation["name"], *cells, _change_of(own["probability"], 1.0, 3)))
    return Table(("perturbation", *map(title_in_points, metrics), "mean p"), rows, title)
