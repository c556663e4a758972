"""Plans: reading them, and holding a run to one."""

import json

import pytest

from common import plan_files
from common.plan_files import DEFAULT_VARIABLE, follow_plan, named_files, open_plan
from fake_results import SPLIT, a_plan
from utils import UserError, sha256_file


@pytest.fixture
def plan(in_tmp):
    (in_tmp / "results").mkdir()
    (in_tmp / "results/plan.json").write_text(json.dumps(a_plan()))
    return open_plan(None)


@pytest.fixture(autouse=True)
def forget():
    yield
    plan_files._sha256 = None


def test_the_usual_file_is_taken_where_it_is_and_results_name_it(plan):
    assert plan.name == "results/plan.json" and plan.content["primary"]["arm"] == "augmented"
    assert named_files()["plan_sha256"] == plan.sha256 == sha256_file("results/plan.json")


@pytest.mark.parametrize("given", [{"option": "none"}, {"variable": "none"}])
def test_none_means_none(plan, monkeypatch, given):
    if "variable" in given:
        monkeypatch.setenv(DEFAULT_VARIABLE, "none")
    assert open_plan(given.get("option")) is None and "plan_sha256" not in named_files()


def test_without_a_file_there_is_no_plan_unless_it_is_named(in_tmp):
    assert open_plan(None) is None
    with pytest.raises(UserError, match="--plan mine.json is missing; plan_comparison.py writes a plan"):
        open_plan("mine.json")


@pytest.mark.parametrize(
    "content", ["{}", "[]", json.dumps(a_plan(format="plan-2")), json.dumps(a_plan(study={"folds": "five"}))]
)
def test_another_file_is_no_plan(in_tmp, content):
    (in_tmp / "x.json").write_text(content)
    with pytest.raises(UserError, match="x.json is no plan"):
        open_plan("x.json")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lr": 0.01}, "--lr is 0.01 in this run of train_classifier.py, but results/plan.json planned 0.001; give"),
        ({"unfreeze": True}, "--unfreeze is on in this run .* planned off"),
        ({"k_folds": 2}, "--k-folds is 2 .* planned 5 or 0"),
        ({"bits": 12}, "--bits is 12 .* planned not given"),
    ],
)
def test_other_options_are_refused(plan, values, said):
    with pytest.raises(UserError, match=said):
        follow_plan(None, "train_classifier", values)


def test_planned_and_unplanned_options_pass(plan):
    assert follow_plan(None, "train_classifier", {"lr": 0.001, "k_folds": 0, "workers": 3}) == plan
    assert follow_plan(None, "train_gan", {"lr": 7}) == plan


def test_another_split_or_origin_is_refused(plan):
    plan.check_split(SPLIT)
    with pytest.raises(UserError, match="the split of this run is not the one that results/plan.json was made for"):
        plan.check_split("6" * 64)
    plan.check_origin("synthetic/", plan.sha256)
    with pytest.raises(UserError, match="synthetic/ was made without a plan, not under results/plan.json"):
        plan.check_origin("synthetic/", None)
    with pytest.raises(UserError, match="synthetic/ was made under another plan"):
        plan.check_origin("synthetic/", "7" * 64)
