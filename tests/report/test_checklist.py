"""The checklist: every item of both guidelines, each with one status, and the author's column kept."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from common import paths
from comparison.external import ExternalReport
from fake_results import fake_records, write_arm
from fake_study import make_study, two_arms
from report.checklist import (
    AUTHOR,
    COLUMNS,
    FILLED,
    HERE,
    NOT_APPLICABLE,
    answer_item,
    authors_column,
    count_open_items,
    write_checklist,
)
from report.guideline_items import CLAIM, GUIDELINES, TRIPOD
from report.markdown import read_tables
from report.study import Study

# What no file of ours can ever know; and what is always answered where there is an arm with its files.
INVENTED = {
    "CLAIM 2024": ("2", "3", "5", "11", "15", "16", "17", "18", "34", "41", "44"),
    "TRIPOD+AI": ("2", "3a", "3b", "3c", "5b", "6a", "6c", "8b", "8c", "17", "18a", "18b", "18c", "18d", "19",
                  "27b", "27c"),
}  # fmt: skip
ANSWERED = {
    "CLAIM 2024": ("9", "12", "19", "20", "22", "24", "28", "29", "38"),
    "TRIPOD+AI": ("12c", "12e", "15", "21"),
}
# Words of the guidelines' own sentences, which must not be copied.
COPIED = re.compile(r"Describe|Specify|Identify the study|Provide details|Report the characteristics|Summary of study")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return two_arms(tmp_path_factory.mktemp("study"))


def rows(file) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in read_tables(file) if len(row) == len(COLUMNS) and re.search(r" \d", row[0])}


def test_every_item_of_both_guidelines_is_there_once():
    assert [item.number for item in CLAIM.items] == [str(number) for number in range(1, 45)]
    parts = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef", "20": "abc",
             "23": "ab", "27": "abc"}  # fmt: skip
    numbers = [f"{n}{part}" for n in map(str, range(1, 28)) for part in parts.get(n, [""])]
    assert [item.number for item in TRIPOD.items] == numbers and len(numbers) == 52
    for guideline in GUIDELINES:
        assert guideline.read_in.startswith("https://") and "https://doi.org/" in guideline.article
        assert all(item.topic and not COPIED.search(item.topic) for item in guideline.items)
        # An item without facts must say what the author has to answer, or why it does not apply.
        assert all(item.facts or item.ask or item.not_applicable for item in guideline.items)


def test_each_item_has_a_status_with_what_belongs_to_it(study, tmp_path):
    write_checklist(study, tmp_path)
    found = rows(paths.checklist(tmp_path))
    assert len(found) == 44 + 52
    for name, (_, status, text, own) in found.items():
        assert status in (HERE, AUTHOR, NOT_APPLICABLE) and text and own == "", name
        assert (status == HERE) == ("(from " in text and not text.startswith("to say: ")), name
        assert (status == AUTHOR) == text.startswith("to say: "), name
    for guideline, numbers in INVENTED.items():
        assert all(found[f"{guideline} {number}"][1] == AUTHOR for number in numbers)
        assert not any("Known here" in found[f"{guideline} {number}"][2] for number in numbers)
    for guideline, numbers in ANSWERED.items():
        assert all(found[f"{guideline} {number}"][1] == HERE for number in numbers)
    text = paths.checklist(tmp_path).read_text()
    assert all(guideline.read_in in text for guideline in GUIDELINES)
    assert count_open_items(paths.checklist(tmp_path)) == sum(row[1] == AUTHOR for row in found.values())


def test_the_values_are_those_of_the_files(study, tmp_path):
    write_checklist(study, tmp_path)
    found = rows(paths.checklist(tmp_path))
    baseline = study.comparison["arms"]["baseline"]
    assert f"AUROC {baseline['auroc']:.3f}" in found["CLAIM 2024 38"][2]
    assert "480 images of 361 patients" in found["CLAIM 2024 35"][2]
    assert "seed 42" in found["CLAIM 2024 19"][2] and "3 folds" in found["TRIPOD+AI 12a"][2]


def test_the_authors_column_stays(study, tmp_path):
    write_checklist(study, tmp_path)
    file = paths.checklist(tmp_path)
    before, lines = count_open_items(file), file.read_text().splitlines()
    for i, line in enumerate(lines):
        if line.startswith(("| CLAIM 2024 44 |", "| CLAIM 2024 9 |")):
            lines[i] = line.removesuffix("|  |") + "| p. 12 | none |"  # a bare |, which ends a cell
    file.write_text("\n".join(lines))
    for _ in range(2):
        write_checklist(study, tmp_path)
        assert authors_column(file) == dict.fromkeys(["CLAIM 2024 9", "CLAIM 2024 44"], "p. 12 \\| none")
        found = rows(file)
        assert found["CLAIM 2024 44"][1] == FILLED and found["CLAIM 2024 9"][1] == HERE
        assert count_open_items(file) == before - 1


def test_facts_that_are_missing_are_not_called_answered(tmp_path):
    write_arm(tmp_path, "baseline", fake_records().drop(columns=["view", "sex", "age", "class"]))
    (tmp_path / "baseline_final_metrics.json").unlink()
    study = make_study(tmp_path)
    by_number = {item.number: item for item in CLAIM.items}
    for number in ("9", "12", "19", "20", "24", "37"):
        assert answer_item(by_number[number], study).status == AUTHOR, number
    assert answer_item(by_number["27"], study).status == NOT_APPLICABLE
    assert answer_item(by_number["31"], study).status == NOT_APPLICABLE
    assert answer_item(by_number["31"], replace(study, pictures=["gradcam.png"])).status == AUTHOR
    write_checklist(study, tmp_path)
    assert len(rows(paths.checklist(tmp_path))) == 96


def test_an_external_test_is_answered_while_it_is_of_these_models(study):
    (item,) = (item for item in CLAIM.items if item.number == "33")
    assert answer_item(item, study).status == AUTHOR
    for current, status in ((True, HERE), (False, AUTHOR)):
        report = ExternalReport("hospital_b", 412, 300, Path("report.html"), current)
        answer = answer_item(item, replace(study, external_reports=[report]))
        assert answer.status == status and ("hospital_b: 412 images of 300 patients" in answer.text) == current


def test_robustness_is_answered_once_it_was_measured(study):
    (item,) = (item for item in CLAIM.items if item.number == "30")
    assert answer_item(item, study).status == AUTHOR
    measured = {"n_images": 100, "n_patients": 90, "perturbations": [{"name": "noise of 5 %"}, {"name": "blur"}]}
    answer = answer_item(item, replace(study, comparison={**study.comparison, "robustness": measured}))
    assert answer.status == HERE and "100 test images of 90 patients under noise of 5 %, blur" in answer.text
