"""Which pair a plan confirms, what is adjusted, and which pair leads."""

import pytest

from arms.result_files import Arm, find_arms
from common.plan_files import PlanFile
from comparison.arms import compare_arms
from comparison.planned_pairs import (
    CONFIRMATORY,
    EXPLORATORY,
    adjusted_p,
    agreed_margin,
    leading_pairs,
    planned_question,
    planning_sentence,
    roles_of,
)
from fake_results import a_plan, fake_records, write_arm
from report.verdict import headline_pairs, verdict_lines
from stats.paired_tests import holm
from utils import UserError

PLAN = PlanFile("plan.json", "a" * 64, a_plan())
NAMES = ("baseline", "augmented", "control_duplicate")


def arms_under(sha256: str | None, *names: str) -> list[Arm]:
    metrics = {"plan_sha256": sha256} if sha256 else {"seed": 42}
    return [Arm(name, f"{name}_", metrics=metrics) for name in names]  # type: ignore[arg-type]


def test_both_arms_must_have_been_trained_under_the_plan():
    question = planned_question(PLAN, arms_under(PLAN.sha256, *NAMES))
    pairs = [("control_duplicate", "augmented"), ("augmented", "control_duplicate"), ("baseline", "augmented")]
    assert roles_of(pairs, "auroc", question) == [CONFIRMATORY, CONFIRMATORY, EXPLORATORY]
    assert roles_of(pairs, "accuracy", question) == [EXPLORATORY] * 3


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        (arms_under(None, *NAMES), "augmented was trained without the plan; control_duplicate was trained without"),
        (arms_under(PLAN.sha256, "baseline", "augmented"), "there is no control_duplicate arm"),
    ],
)
def test_trained_before_the_plan_is_exploratory(arms, why):
    question = planned_question(PLAN, arms)
    assert roles_of([("augmented", "control_duplicate")], "auroc", question) == [EXPLORATORY]
    assert why in question["why_not"] and not question["confirmatory"]
    assert "every pair is exploratory" in planning_sentence(question)


def test_a_plan_that_was_changed_after_training_is_refused():
    with pytest.raises(UserError, match="the arm augmented was made under another plan, not under plan.json"):
        planned_question(PLAN, arms_under("b" * 64, *NAMES))


def test_a_third_arm_may_be_of_no_plan():
    arms = [*arms_under(PLAN.sha256, *NAMES[1:]), *arms_under(None, "mine")]
    assert planned_question(PLAN, arms)["why_not"] is None


def test_only_exploratory_p_values_are_adjusted():
    values = [0.01, 0.02, 0.03, None]
    adjusted, among = adjusted_p(values, [EXPLORATORY, CONFIRMATORY, EXPLORATORY, EXPLORATORY])
    assert adjusted[1] == 0.02
    assert [adjusted[0], adjusted[2], adjusted[3]] == holm([0.01, 0.03, None]) and among == [3, 1, 3, 3]


@pytest.mark.parametrize(("typed", "plan", "margin"), [(None, None, 0.01), (2.0, None, 0.02), (None, PLAN, 0.01),
                                                       (1.0, PLAN, 0.01)])  # fmt: skip
def test_margin(typed, plan, margin):
    assert agreed_margin(typed, plan, 1.0) == pytest.approx(margin)


def test_another_margin_than_planned_is_refused():
    with pytest.raises(UserError, match="--margin is 2, but plan.json planned 1: leave it out"):
        agreed_margin(2.0, PLAN, 1.0)


def test_the_planned_pair_leads_else_augmented_against_its_control():
    pairs = [("baseline", "augmented"), ("baseline", "control_duplicate"), ("augmented", "control_duplicate")]
    assert leading_pairs(pairs, None)[0] == ("augmented", "control_duplicate")
    other = PlanFile("p", "a" * 64, a_plan(primary={"arm": "control_duplicate", "against": "baseline",
                                                    "metric": "auroc", "margin": 1.0}))  # fmt: skip
    question = planned_question(other, arms_under(other.sha256, *NAMES))
    assert leading_pairs(pairs, question)[0] == ("baseline", "control_duplicate")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    for seed, name in enumerate(NAMES):
        write_arm(folder, name, fake_records(), seed=seed, plan_sha256=PLAN.sha256)
    return find_arms(folder)


def test_the_report_leads_with_the_planned_pair_unadjusted(found):
    question = planned_question(PLAN, list(found.values()))
    content = compare_arms(found, n_resamples=200, question=question)
    pair = headline_pairs(content)[0]
    assert (pair["a"], pair["b"]) == ("control_duplicate", "augmented")
    assert pair["auroc_role"] == CONFIRMATORY and pair["auroc_p_holm"] == pair["auroc_p"]
    assert pair["accuracy_role"] == EXPLORATORY
    others = [each for each in content["pairs"] if each["auroc_role"] == EXPLORATORY]
    assert [each["auroc_p_holm"] for each in others] == holm([each["auroc_p"] for each in others])
    first = str(verdict_lines(content)[0])
    assert first.index("AUROC") < first.index("accuracy")  # the planned metric leads
    assert any("was planned before training: this pair is confirmatory" in str(line) for line in verdict_lines(content))


def test_without_a_plan_augmented_against_its_control_leads_and_all_is_exploratory(found):
    content = compare_arms(found, n_resamples=200)
    assert "plan" not in content
    assert [(pair["a"], pair["b"]) for pair in headline_pairs(content)] == [
        ("control_duplicate", "augmented"), ("baseline", "augmented"),
    ]  # fmt: skip
    assert {pair[f"{metric}_role"] for pair in content["pairs"] for metric in ("auroc", "accuracy")} == {EXPLORATORY}
    assert any(str(line).startswith("No plan was fixed before training") for line in verdict_lines(content))


def test_one_difference_is_smaller_to_find_when_it_is_planned(found):
    """Adjusting for three pairs asks for a quantile of 2.39 in place of 1.96, beside 0.84 for the power."""
    planned = compare_arms(found, n_resamples=200, question=planned_question(PLAN, list(found.values())))
    free = compare_arms(found, n_resamples=200)

    def smallest(content):
        return headline_pairs(content)[0]["auroc_minimum_detectable_difference"]

    assert smallest(planned) / smallest(free) == pytest.approx((1.95996 + 0.84162) / (2.39398 + 0.84162), abs=1e-4)


def test_the_report_says_which_power_is_adjusted(found):
    question = planned_question(PLAN, list(found.values()))
    planned = compare_arms(found, n_resamples=200, question=question)
    free = compare_arms(found, n_resamples=200)
    said = "80 % power (AUROC as planned, the rest adjusted for 3 pairs)"
    assert any(said in str(line) for line in verdict_lines(planned))
    assert any("80 % power (adjusted for 3 pairs)" in str(line) for line in verdict_lines(free))
