"""The folded sections of the report: their numbers, what may never be claimed, and where they stand."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from arms.result_files import find_arms
from common.file_formats import format_problems
from comparison.arms import compare_arms
from comparison.file_formats import Comparison
from comparison.reviewer_numbers import add_reviewer_numbers
from fake_comparison import fake_comparison
from fake_results import fake_records, write_arm
from report import reviewer_details, reviewer_figures
from report.blocks import Facts, Table
from report.page import compose_page
from report.sections import Findings, sections
from report.text import WIDTH, compose_text
from utils import load_json, save_json

CLAIMS = re.compile(r"improv|significan|better|worse|outperform|superior|inferior|\bgain|promising", re.IGNORECASE)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    records = fake_records(200)
    records["age"] = records["age"].where(records["age"] > 30, 15)
    for seed, name in enumerate(("baseline", "augmented", "control_duplicate", "control_weight")):
        write_arm(folder, name, records, seed=seed, folds=3 if name == "baseline" else 0)
    arms = find_arms(folder)
    made = compare_arms(arms, n_resamples=60)
    add_reviewer_numbers(arms, made)
    save_json(folder / "comparison.json", made)
    return load_json(folder / "comparison.json")


def section(content, key):
    (found,) = [part for part in sections(Findings(comparison=content)) if part.key == key]
    return found


def tables(content, key):
    return [block for block in section(content, key).blocks if isinstance(block, Table)]


def texts(figure):
    return "\n".join(item.get_text() for item in figure.findobj(mpl.text.Text))


# --- words -----------------------------------------------------------------------------------------
def test_no_number_no_section():
    assert not {part.key for part in sections(Findings(comparison=fake_comparison()))} & set(reviewer_details.FOLDED)


def test_no_conclusion_is_drawn_and_lines_fit(content):
    for part in sections(Findings(comparison=content)):
        if part.key in reviewer_details.FOLDED:
            text = compose_text(Findings(comparison=content))
            text = text[text.index(part.heading) :]
            assert part.folded
    assert not CLAIMS.search(text), CLAIMS.search(text)
    assert max(map(len, text.splitlines())) <= WIDTH


def test_net_benefit_stands_beside_its_references(content):
    curves, differences = tables(content, reviewer_details.DECISION)
    assert curves.columns == ("arm", "0.05", "0.10", "0.20", "0.30", "0.40", "0.50")
    assert [row[0] for row in curves.rows[-2:]] == ["calling every image", "calling none"]
    value = content["decision_curves"]["arms"]["augmented"]["net_benefit"][-1]
    assert float(curves.rows[1][-1].replace("−", "-")) == pytest.approx(100 * value, abs=0.051)
    assert [row[0] for row in differences.rows] == ["augmented − baseline", "control_duplicate − augmented"]
    words = " ".join(block for block in section(content, reviewer_details.DECISION).blocks if isinstance(block, str))
    prevalence = f"{100 * content['test_set']['prevalence']:.1f} %"
    calibrated, more = "The probabilities are calibrated", "4 more pairs are in comparison.json"
    for said in ("19 at 0.05, 1 at 0.50", calibrated, "pointwise", "no verdict rests on them", more, prevalence):
        assert said in words
    plain = {**content, "decision_curves": {**content["decision_curves"], "probabilities": "as trained",
                                            "without_temperature": ["mine"]}}  # fmt: skip
    words = " ".join(map(str, section(plain, reviewer_details.DECISION).blocks))
    assert "as trained, because mine has no temperature" in words


def test_subgroups_name_their_interactions_and_what_is_too_small(content):
    found = tables(content, reviewer_details.SUBGROUPS)
    assert [table.title.split(":")[0] for table in found] == [
        "augmented − baseline (95 % CI)", "augmented − baseline",
        "control_duplicate − augmented (95 % CI)", "control_duplicate − augmented",
    ]  # fmt: skip
    (pair,) = [p for p in content["subgroup_differences"] if (p["a"], p["b"]) == ("baseline", "augmented")]
    assert len(found[0].rows) == len(pair["differences"]) and len(found[1].rows) == len(pair["interactions"]) > 1
    assert found[1].columns == ("difference of differences", "accuracy, points", "p", "AUROC", "p")
    words = " ".join(block for block in section(content, reviewer_details.SUBGROUPS).blocks if isinstance(block, str))
    small = [f"{row['group']} {row['value']} (" for row in pair["too_small"]]
    assert small and all(name in words for name in small)
    assert words.count("Exploratory") == 1 and "(Holm), not for pairs and metrics" in words


def test_worst_errors_are_listed_by_arm(content):
    found = tables(content, reviewer_details.ERRORS)
    assert len(found) == 4 and all(len(table.rows) == 10 for table in found)
    item = content["worst_errors"]["augmented"]
    assert found[1].title == (
        f"augmented: {item['n_wrong']} of 200 test images called wrongly at 0.5; the 10 farthest from 0.5"
    )
    first, row = found[1].rows[0], item["worst"][0]
    assert first[0] == "1" and first[-1] == row["image_id"] and first[2] == f"{row['probability']:.3f}"
    assert first[4] == f"{1 + len(row['others_wrong'])} of 4"
    without = {**content, "worst_errors": {"mine": {"n_wrong": 0, "n_runs": 1, "worst": []}}}
    assert section(without, reviewer_details.ERRORS).blocks == ["mine: no test image is called wrongly."]


def fake_robustness(names=("baseline", "augmented", "control_duplicate", "control_weight")) -> dict:
    def changes(k: int) -> dict:
        change = {"change": k / 1000, "ci95": [k / 1000 - 0.02, k / 1000 + 0.03]}
        return {"accuracy": change, "auroc": change, "probability": change}

    none = {"change": 0.0, "ci95": None}
    rows = [
        {"name": name, "meaning": f"what {name} does",
         "arms": {arm: changes(k + j) | {"absolute_probability": 0.05} for j, arm in enumerate(names)},
         "pairs": [{"a": a, "b": b, **changes(k + 50)} for a, b in combinations(names, 2)]}
        for k, name in enumerate(("brightness", "noise", "blur"))
    ]  # fmt: skip
    rows[2]["arms"]["baseline"] |= {"accuracy": none}
    return {
        "n_images": 100, "n_patients": 60, "n_positive": 25, "seed": 42, "perturbations": rows,
        "unperturbed": {name: {"accuracy": 0.8, "auroc": 0.85, "probability": 0.3} for name in names},
        "left_out": {"mine": "it needs models/mine_resnet50.pth"},
    }  # fmt: skip


def test_robustness_states_every_change_of_arms_and_of_the_headline_pairs(content):
    own = {**content, "robustness": fake_robustness()}
    assert format_problems(own, Comparison) == []
    found = tables(own, reviewer_details.ROBUSTNESS)
    assert [table.title.split(":")[0] for table in found[:4]] == list(content["arms"])
    assert found[0].title == "baseline: change (95 % CI) from accuracy 80.0 %, AUROC 0.850, mean p 0.300"
    assert found[0].columns == ("perturbation", "accuracy, points", "AUROC", "mean p")
    assert found[1].rows[1] == (
        "noise", "+0.2 (−1.8 to +3.2)", "+0.002 (−0.018 to +0.032)", "+0.002 (−0.018 to +0.032)"
    )  # fmt: skip
    assert found[0].rows[2][1] == "0.0 (none seen)"
    assert [table.title for table in found[4:]] == [
        "Change under augmented minus change under baseline (95 % CI)",
        "Change under control_duplicate minus change under augmented (95 % CI)",
    ]
    words = " ".join(block for block in section(own, reviewer_details.ROBUSTNESS).blocks if isinstance(block, str))
    for said in ("100 test images of 60 patients, drawn by patient (25 positive)",
                 "not adjusted for the number of perturbations; no verdict rests on them",
                 "up to 4.9 % of all patients", "Not scored: mine: it needs models/mine_resnet50.pth."):  # fmt: skip
        assert said in words
    assert not CLAIMS.search(words)
    (facts,) = [block for block in section(own, reviewer_details.ROBUSTNESS).blocks if isinstance(block, Facts)]
    assert facts.rows[1] == ("noise", "what noise does")
    for nothing in ({**content, "robustness": None}, content):
        assert reviewer_details.ROBUSTNESS not in [part.key for part in sections(Findings(comparison=nothing))]


# --- page ------------------------------------------------------------------------------------------
class Nesting(HTMLParser):
    """What stands inside <details>: ids of sections are outside, their tables inside."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tables_inside, self.tables_outside, self.attributes = 0, 0, 0, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "details":
            self.open += 1
            self.attributes.append(dict(attributes))
        elif tag == "table":
            self.tables_inside += self.open > 0
            self.tables_outside += self.open == 0

    def handle_endtag(self, tag):
        self.open -= tag == "details"


def test_the_page_folds_them_and_lists_them_in_one_line(content, tmp_path):
    page = compose_page(Findings(comparison=content), tmp_path)
    nesting = Nesting(page)
    assert nesting.open == 0 and nesting.attributes == [{}] * 3, "closed until a reader opens them"
    assert nesting.tables_inside == sum(len(tables(content, key)) for key in [*reviewer_details.FOLDED][:3])
    navigation = page[page.index("<nav") : page.index("</nav>")]
    (line,) = (line for line in navigation.split("<li>") if "#decision-curve" in line)
    assert re.findall(r'href="#([^"]+)"', line) == [*reviewer_details.FOLDED][:3]
    assert "&lt;" not in navigation


# --- figures ---------------------------------------------------------------------------------------
def test_decision_curves_and_differences_are_those_of_the_file(content):
    figure = reviewer_figures.decision_curve(content)
    main, *others = figure.axes
    assert len(others) == 6
    drawn = [line.get_ydata() for line in main.lines if len(line.get_xdata()) == 46]
    curves = content["decision_curves"]["arms"]
    wanted = [curves["baseline"]["treat_all"], *(curve["net_benefit"] for curve in curves.values())]
    np.testing.assert_allclose(drawn, 100 * np.array(wanted))
    for ax, pair in zip(others, content["decision_curves"]["pairs"], strict=True):
        (line,) = [line for line in ax.lines if len(line.get_xdata()) == 46]
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(pair["net_benefit_difference"]))
        low, high = ax.get_ylim()
        assert low <= 100 * np.min(pair["net_benefit_ci95_pointwise"])
        assert high >= 100 * np.max(pair["net_benefit_ci95_pointwise"])
    assert "calibrated probabilities" in texts(figure) and "pointwise 95 % CI" in texts(figure)


def test_of_too_many_pairs_those_that_answer_the_question_are_drawn(content, monkeypatch):
    monkeypatch.setattr(reviewer_figures, "MOST_PAIRS", 2)
    _, *others = reviewer_figures.decision_curve(content).axes
    assert [ax.get_title("left") for ax in others] == ["augmented −\nbaseline", "control_duplicate −\naugmented"]


def test_a_single_arm_has_a_curve_and_no_difference(content):
    curves = content["decision_curves"]
    alone = {**content, "decision_curves": {**curves, "pairs": []}}
    assert len(reviewer_figures.decision_curve(alone).axes) == 1


def test_subgroup_forest_draws_every_interval(content):
    pairs = reviewer_details.headline_subgroups(content)
    figure = reviewer_figures.subgroup_differences(content, pairs)
    assert len(figure.axes) == 4
    for number, ax in enumerate(figure.axes):
        pair, (metric, scale) = pairs[number // 2], (("accuracy", 100), ("auroc", 1))[number % 2]
        drawn = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 2.2]
        wanted = [[scale * bound for bound in row[f"{metric}_ci95"]] for row in pair["differences"]]
        np.testing.assert_allclose(drawn, wanted)
        low, high = ax.get_xlim()
        assert low <= np.min(drawn) and np.max(drawn) <= high
    assert "exploratory" in texts(figure)


def test_the_robustness_figure_draws_every_interval_and_marks_what_did_not_change(content):
    found = fake_robustness()
    figure = reviewer_figures.robustness(content, found)
    assert len(figure.axes) == 2
    accuracy = figure.axes[0]
    lines = [line for line in accuracy.lines if line.get_linewidth() == 2 and len(line.get_xdata()) == 2]
    drawn = [list(line.get_xdata()) for line in lines]
    wanted = [
        [100 * bound for bound in arm["accuracy"]["ci95"] or [0, 0]]
        for row in found["perturbations"] for arm in row["arms"].values()
    ]  # fmt: skip
    np.testing.assert_allclose(drawn, wanted)
    assert "n = 100 test images of 60 patients, 25 positive" in texts(figure)
