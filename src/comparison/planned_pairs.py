"""The planned pair of arms among all: what a plan confirms, and how the p values of the others are adjusted.

The pair and the metric of the plan are confirmatory and not adjusted, provided that both arms were trained under it;
everything else is exploratory and adjusted by Holm among its like. Without a plan all is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arms.registry import AUGMENTED, BASELINE, CONTROL_DUPLICATE, SEMI
from arms.result_files import Arm
from common.plan_files import PlanFile
from comparison.file_formats import PlannedPair, metric_entry, metric_key
from stats.bootstrap import ScoreDifference
from stats.metric_registry import METRICS, Metric, compared_metrics
from stats.paired_tests import decide_verdict, holm
from utils import UserError

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
POINT = 0.01  # a margin's unit


def planned_question(plan: PlanFile | None, arms: Sequence[Arm]) -> PlannedPair | None:
    """Return the question of the ``plan`` as comparison.json says it, None without one.

    Raises ``UserError`` if one of its two arms was trained under another plan: it was changed after training.
    """
    if plan is None:
        return None
    primary = plan.content["primary"]
    names, why_not = (primary["arm"], primary["against"]), []
    found = {arm.name for arm in arms}
    for arm in arms:
        if arm.name not in names:
            continue
        if (own := arm.recorded.get("plan_sha256")) is None:
            why_not.append(f"{arm.name} was trained without the plan")
        else:
            plan.check_origin(f"the arm {arm.name}", own)
    why_not += [f"there is no {name} arm" for name in names if name not in found]
    reason = "; ".join(dict.fromkeys(why_not)) or None
    return {
        "plan_sha256": plan.sha256, "arm": primary["arm"], "against": primary["against"], "metric": primary["metric"],
        "margin": POINT * primary["margin"], "confirmatory": reason is None, "why_not": reason,
    }  # fmt: skip


def agreed_margin(points: float | None, plan: PlanFile | None, usual: float) -> float:
    """Return the margin of a comparison as a fraction: that of the plan, else ``points``, else ``usual`` points.

    Raises ``UserError`` if --margin asks for other ``points`` than the plan.
    """
    if plan is None:
        return POINT * (points or usual)
    planned = plan.content["primary"]["margin"]
    if points is not None and points != planned:
        raise UserError(f"--margin is {points:g}, but {plan.name} planned {planned:g}: leave it out")
    return POINT * planned


def leading_pairs(pairs: Sequence[tuple[str, str]], planned: PlannedPair | None) -> list[tuple[str, str]]:
    """Sort pairs (a, b) for a report: the planned one first, else the augmented arm against its control.

    Where few labels are known, the arm semi against the baseline takes that place.
    """

    def place(pair: tuple[str, str]) -> tuple[bool, ...]:
        usual = set(pair) != {SEMI, BASELINE}, AUGMENTED not in pair, CONTROL_DUPLICATE not in pair
        return not _is_planned(pair, planned), *usual

    return sorted(pairs, key=place)


def add_tests(
    rows: Sequence[dict[str, Any]], metric: Metric, tests: Sequence[ScoreDifference], planned: PlannedPair | None,
    margin: float,
) -> None:  # fmt: skip
    """Add to each of ``rows``, of "pairs" of comparison.json, its role, its test and its verdict in ``metric``."""
    roles = roles_of([(row["a"], row["b"]) for row in rows], metric.name, planned)
    adjusted, among = adjusted_p([test.p for test in tests], roles)
    for row, role, test, p_holm, n_pairs in zip(rows, roles, tests, adjusted, among, strict=True):
        statistics = {
            "role": role, "difference": test.difference, "ci95": test.ci95, "p": test.p, "p_holm": p_holm,
            "minimum_detectable_difference": test.detectable(n_pairs),
            "verdict": decide_verdict(test.difference, test.ci95, p_holm, margin),
        }  # fmt: skip
        row |= {metric_key(metric, what): value for what, value in statistics.items()}


def adjusted_p(p_values: Sequence[float | None], roles: Sequence[str]) -> tuple[list[float | None], list[int]]:
    """Adjust p values of one metric by Holm among the exploratory ones; returns them, and among how many each is."""
    exploratory = [index for index, role in enumerate(roles) if role == EXPLORATORY]
    adjusted, among = list(p_values), [1] * len(p_values)
    for index, p in zip(exploratory, holm([p_values[index] for index in exploratory]), strict=True):
        adjusted[index], among[index] = p, len(exploratory)
    return adjusted, among


def roles_of(pairs: Sequence[tuple[str, str]], metric: str, planned: PlannedPair | None) -> list[str]:
    """Return the role of each pair, in any order, in ``metric``."""
    confirms = planned is not None and planned["confirmatory"] and planned["metric"] == metric
    return [CONFIRMATORY if confirms and _is_planned(pair, planned) else EXPLORATORY for pair in pairs]


def _is_planned(pair: tuple[str, str], planned: PlannedPair | None) -> bool:
    return planned is not None and set(pair) == {planned["arm"], planned["against"]}


def planned_first(pair: Mapping[str, Any]) -> list[Metric]:
    """Return the compared metrics, that in which a ``pair`` (row of "pairs") was planned before the others."""
    return sorted(compared_metrics(), key=lambda metric: metric_entry(pair, metric, "role") == EXPLORATORY)


def planning_sentence(planned: PlannedPair | None) -> str:
    """Say what was planned before training, and what follows for the pairs."""
    if planned is None:
        return "no plan was fixed before training (plan_comparison.py): every pair is exploratory"
    asked = f"{planned['arm']} against {planned['against']} in {METRICS[planned['metric']].title}"
    if planned["why_not"]:
        return f"the plan asked about {asked}, but {planned['why_not']}: every pair is exploratory"
    return (
        f"{asked} was planned before training: this pair is confirmatory, and its p is not adjusted; every other "
        "comparison is exploratory, adjusted among its like"
    )
