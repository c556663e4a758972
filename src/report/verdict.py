"""The answer in a few sentences: verdicts word for word from comparison.json, what they rest on, the goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arms.registry import ARMS, AUGMENTED, BASELINE
from arms.result_files import training_command_of
from comparison.warnings import of_pairs
from report.blocks import Block, count, interval, percent, signed
from stats.paired_tests import points


def headline_pairs(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pairs that answer the question: synthetic data against the baseline, then against the control
    with duplicated real images; without an augmented arm the arm against the baseline that comes first."""
    pairs = {(pair["a"], pair["b"]): pair for pair in comparison["pairs"]}
    found = []
    for other in ARMS[AUGMENTED].measured_against:
        if (other, AUGMENTED) in pairs:
            found.append(pairs[other, AUGMENTED])
        elif (AUGMENTED, other) in pairs:
            found.append(_turned(pairs[AUGMENTED, other]))
    return found or comparison["pairs"][:1]


def _turned(pair: Mapping[str, Any]) -> dict[str, Any]:
    """The same pair seen from its other arm: a minus b."""
    opposite = {"better": "worse", "worse": "better"}
    turned = {**pair, "a": pair["b"], "b": pair["a"]}
    for metric in ("accuracy", "auroc"):
        value, bounds = pair[f"{metric}_difference"], pair[f"{metric}_ci95"]
        turned[f"{metric}_difference"] = None if value is None else -value
        turned[f"{metric}_ci95"] = bounds and [None if bound is None else -bound for bound in bounds[::-1]]
        verdict = pair[f"verdict_{metric}"]
        turned[f"verdict_{metric}"] = opposite.get(verdict, verdict)
    return turned


def verdict_sentence(pair: Mapping[str, Any]) -> str:
    accuracy = accuracy_change(pair["accuracy_difference"], pair["accuracy_ci95"])
    auroc = auroc_change(pair["auroc_difference"], pair["auroc_ci95"])
    n = f"{count(pair['n_images'], 'test image')} of {count(pair['n_patients'], 'patient')}"
    return (
        f"{pair['b']} against {pair['a']}, on {n}: in accuracy, {pair['verdict_accuracy']} ({accuracy}); "
        f"in AUROC, {pair['verdict_auroc']} ({auroc})."
    )


def accuracy_change(difference: float | None, bounds: Sequence[float | None] | None) -> str:
    if difference is None:
        return "difference undefined"
    return f"{signed(100 * difference, 1)} points, 95 % CI {interval(bounds, 100, 1, sign=True)}"


def auroc_change(difference: float | None, bounds: Sequence[float | None] | None) -> str:
    if difference is None:
        return "difference undefined"
    return f"{signed(difference, 3)}, 95 % CI {interval(bounds, sign=True)}"


def verdict_lines(content: Mapping[str, Any]) -> list[Block]:
    """The section: a sentence per headline, what the test set can show, the goal."""
    pairs = headline_pairs(content)
    reason = _why_no_answer(content)
    lines: list[Block] = [*([reason] if reason else []), *(verdict_sentence(pair) for pair in pairs)]
    if pairs:
        lines.append(_resolution(content, pairs[0]))
    goal = content["goal"]
    met = "; ".join(f"{name} {goal_words(item)}" for name, item in goal["arms"].items())
    lines.append(f"Goal of {percent(goal['accuracy'], 0)} accuracy: {met}.")
    return lines


def _why_no_answer(content: Mapping[str, Any]) -> str | None:
    """Why augmented and baseline are not compared, or None if they are."""
    names = list(content["arms"])
    for name in (BASELINE, AUGMENTED):
        if name not in names:
            silent = "so this does not say what the synthetic images do to the classifier"
            if name in content["left_out"]:
                return f"The {name} arm was left out (--arms), {silent}."
            return f"There is no {name} arm, {silent}; `{training_command_of(name)}` trains it."
    for item in content["not_compared"]:
        if {item["a"], item["b"]} == {BASELINE, AUGMENTED}:
            return f"{AUGMENTED} and {BASELINE} cannot be compared: {item['reason']}."
    return None


def _resolution(content: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    smallest = smallest_differences(pair)
    adjusted = of_pairs(len(content["pairs"]))
    power = f"The smallest difference that this test set shows with 80 % power{adjusted}: {smallest}. "
    margin = points(content["settings"]["margin"])
    seeds = seeds_words(pair, content["arms"])
    return f"{power if smallest else ''}The margin of equivalence is ±{margin}. S{seeds[1:]}."


def smallest_differences(pair: Mapping[str, Any]) -> str:
    """What the test set can show with 80 % power, in words; empty where undefined."""
    accuracy, auroc = pair["minimum_detectable_difference"], pair["minimum_detectable_difference_auroc"]
    found = [f"{100 * accuracy:.1f} points of accuracy"] if accuracy is not None else []
    return " and ".join(found + ([f"{auroc:.3f} of AUROC"] if auroc is not None else []))


def goal_words(item: Mapping[str, Any]) -> str:
    gap = 100 * abs(item["difference"])
    return f"met, by {gap:.1f} points" if item["met"] else f"not met, {gap:.1f} points short"


def seeds_words(pair: Mapping[str, Any], arms: Mapping[str, Any]) -> str:
    runs = ", ".join(f"{name} {count(arms[name]['repeats'], 'run')}" for name in (pair["a"], pair["b"]))
    return f"seed variance {'' if pair['seed_variance_included'] else 'not '}included ({runs})"
