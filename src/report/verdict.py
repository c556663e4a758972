"""The answer in a few sentences: verdicts word for word from comparison.json, what they rest on, the goal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from arms.registry import ARMS, AUGMENTED, BASELINE, SEMI
from arms.result_files import training_command_of
from comparison.file_formats import ArmResult, Comparison, PairResult, metric_entry, metric_key
from comparison.planned_pairs import EXPLORATORY, planned_first, planning_sentence
from comparison.warnings import adjusted_for, n_exploratory
from report.blocks import Block, amount, capital, change, count, percent
from report.external import scores_of_both, tested_on
from stats.metric_registry import compared_metrics
from stats.paired_tests import BETTER, NO_EVIDENCE, WORSE, points

MOVED = 0.05  # shares of images called positive that differ by as much move accuracy by up to 5 points


def verdict_lines(content: Comparison) -> list[Block]:
    """Write the section: a sentence per headline, what the test set can show, the goal."""
    pairs, external = headline_pairs(content), content.get("external")
    where = tested_on(external["test"]) if external else None
    sentences = [verdict_sentence(pair, where) for pair in pairs]
    reasons = [reason] if (reason := _why_no_answer(content)) else []
    lines: list[Block] = [*reasons, *sentences]
    if where:
        lines = [*(sentences or [f"The models were tested on {where}."]), *reasons]
    if pairs:
        arms = {name: content["arms"][name] for pair in pairs for name in (pair["a"], pair["b"])}
        called = {name: sum(row[1] for row in arm["confusion_matrix"]) / arm["n_images"] for name, arm in arms.items()}
        lines += threshold_lines(called, content["test_set"]["prevalence"])
        lines.append(_resolution(content, pairs[0]))
        lines.append(f"{capital(planning_sentence(content.get('plan')))}.")
    # The goal was set for the internal test.
    return [*lines, *scores_of_both(external)] if external else [*lines, _goal_sentence(content)]


def threshold_lines(called: Mapping[str, float], prevalence: float) -> list[Block]:
    """Write the share of images that each arm calls positive at 0.5, if the arms differ by ``MOVED`` or more."""
    if max(called.values()) - min(called.values()) < MOVED:
        return []
    (first, share), *others = called.items()
    rest = "".join(f", {name} {percent(other, 0)}" for name, other in others)
    return [
        f"At a probability of 0.5, {first} calls {percent(share, 0)} of the images positive{rest}; "
        f"{percent(prevalence, 0)} are. Accuracy moves with these shares, AUROC does not."
    ]


def asked_arm(names: Collection[str]) -> str:
    """Return the arm that the question is about: the augmented one, or semi in its place where few labels are known."""
    return SEMI if SEMI in names and AUGMENTED not in names else AUGMENTED


def headline_pairs(content: Comparison) -> Sequence[PairResult]:
    """Choose the pairs that answer the question.

    The planned pair first; then the augmented arm against what the registry measures it against: the control
    with duplicated real images, which tells what more images do by themselves, before the baseline. The arm semi, in
    its place, against the baseline first. Without any of them, the pair that comes first.
    """
    asking = asked_arm(content["arms"])
    pairs = {(pair["a"], pair["b"]): pair for pair in content["pairs"]}
    planned = content.get("plan")
    asked = [(planned["against"], planned["arm"])] if planned else []
    others = sorted(ARMS[asking].measured_against, key=lambda name: asking == AUGMENTED and name == BASELINE)
    asked += [(other, asking) for other in others]
    found = []
    for before, after in dict.fromkeys(asked):
        if (before, after) in pairs:
            found.append(pairs[before, after])
        elif (after, before) in pairs:
            found.append(_turned(pairs[after, before]))
    return found or content["pairs"][:1]


def _turned(pair: PairResult) -> PairResult:
    """Return the same pair seen from its other arm: a minus b."""
    opposite = {BETTER: WORSE, WORSE: BETTER}
    turned: dict[str, Any] = {**pair, "a": pair["b"], "b": pair["a"]}
    for metric in compared_metrics():
        value, bounds, verdict = (metric_entry(pair, metric, what) for what in ("difference", "ci95", "verdict"))
        turned |= {
            metric_key(metric, "difference"): None if value is None else -value,
            metric_key(metric, "ci95"): bounds and [None if bound is None else -bound for bound in bounds[::-1]],
            metric_key(metric, "verdict"): opposite.get(verdict, verdict),
        }
    return cast(PairResult, turned)


def verdict_sentence(pair: Mapping[str, Any], where: str | None = None) -> str:
    """Write the verdicts of a pair, each with its difference; ``where``: on which images, None for the test images."""
    n = where or f"{count(pair['n_images'], 'test image')} of {count(pair['n_patients'], 'patient')}"
    verdicts, said = [], ""
    for metric in planned_first(pair):
        verdict, *numbers = (metric_entry(pair, metric, what) for what in ("verdict", "difference", "ci95"))
        verb = "shows " if verdict == NO_EVIDENCE else "is "
        verdicts.append(f"{'' if verb == said else verb}{verdict} in {metric.title} ({change(metric, *numbers)})")
        said = verb
    return f"Compared with {pair['a']}, {pair['b']} {' and '.join(verdicts)}, on {n}."


def _why_no_answer(content: Comparison) -> str | None:
    """Say why the arm with synthetic images and the baseline are not compared, or None if they are."""
    asking = asked_arm(content["arms"])
    for item in content["not_compared"]:
        if {item["a"], item["b"]} == {BASELINE, asking}:
            return f"{asking} and {BASELINE} cannot be compared: {item['reason']}."
    unsaid = "so this report cannot say what the synthetic images do to the classifier"
    for name in (BASELINE, asking):
        if name in content["left_out"]:
            return f"The {name} arm was left out (--arms), {unsaid}."
        if name not in content["arms"] and content.get("external"):
            return f"The {name} arm was not tested, {unsaid}."
        if name not in content["arms"]:
            return f"There is no {name} arm, {unsaid}; `{training_command_of(name)}` trains it."
    return None


def _resolution(content: Comparison, pair: PairResult) -> str:
    """Say what the test set can show, what counts as equivalent, and what the intervals hold."""
    power = ""
    if smallest := smallest_differences(pair, " or "):
        adjusted = _adjusted(content, pair)
        power = f"On this test set, a true difference of {smallest} is found with 80 % power{adjusted}. "
    return (
        f"{power}Two arms count as equivalent if the whole interval lies within "
        f"±{points(content['settings']['margin'])}. The intervals {seeds_words(pair, content['arms'])}."
    )


def _adjusted(content: Comparison, pair: PairResult) -> str:
    """Say for how many pairs the power is adjusted; in which metric it is not, as the pair was planned."""
    planned = [m.title for m in compared_metrics() if metric_entry(pair, m, "role") != EXPLORATORY]
    adjusted = adjusted_for(n_exploratory(content["pairs"]))
    return adjusted.replace("(", f"({' and '.join(planned)} as planned, the rest ") if planned else adjusted


def smallest_differences(pair: Mapping[str, Any], joined_by: str = " and ") -> str:
    """Write what the test set can show with 80 % power; empty where undefined."""
    found = ((m, metric_entry(pair, m, "minimum_detectable_difference")) for m in compared_metrics())
    return joined_by.join(amount(metric, value) for metric, value in found if value is not None)


def _goal_sentence(content: Comparison) -> str:
    """Write which arms met the goal, and by how much."""
    gaps = {name: (item["met"], abs(100 * item["difference"])) for name, item in content["goal"]["arms"].items()}
    met = [f"{name} (by {gap:.1f} points)" for name, (reached, gap) in gaps.items() if reached]
    missed = [f"{name} ({gap:.1f} points short)" for name, (reached, gap) in gaps.items() if not reached]
    parts = [f"{verb} {', '.join(names)}" for verb, names in (("met by", met), ("not met by", missed)) if names]
    return f"The goal of {percent(content['goal']['accuracy'], 0)} accuracy is {' and '.join(parts)}."


def seeds_words(pair: PairResult, arms: Mapping[str, ArmResult]) -> str:
    """Write whether the intervals hold the variance between training seeds."""
    runs = ", ".join(f"{name}: {count(arms[name]['repeats'], 'run')}" for name in (pair["a"], pair["b"]))
    verb = "include" if pair["seed_variance_included"] else "leave out"
    return f"{verb} the variance between training seeds ({runs})"
