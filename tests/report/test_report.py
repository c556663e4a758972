"""The words of the report, on made-up comparisons: what must be said, and what may never be."""

from __future__ import annotations

import re

import pytest

from fake_comparison import NONE, SAME, fake_comparison
from fake_results import fake_cv
from report.blocks import Bullets, Commands, Facts, Table, interval, p_value, signed, with_interval
from report.sections import Findings, sections
from report.text import WIDTH, compose_answer
from report.text import compose_text as compose
from report.verdict import headline_pairs, verdict_sentence

FOUR = ("baseline", "augmented", "control_duplicate", "control_weight")
CLAIMS = re.compile(
    r"improv|significan|better|worse|outperform|superior|inferior|succe|enhanc|boost|\bbeat|\bgain|\bwin(s|ner)?\b"
    r"|help(s|ed|ful)?\b|advantage|benefi|promising|ahead",
    re.IGNORECASE,
)

ABSENT_OF_AN_ARM = (
    "auroc", "auroc_ci95", "auroc_ci95_image_level", "auprc", "sensitivity", "ppv", "brier",
    "n_train_images", "n_train_patients", "seeds", "optimizer_steps", "command", "accuracy_ci95",
)  # fmt: skip
ABSENT_OF_A_PAIR = (
    "auroc_difference", "auroc_p", "auroc_p_holm", "delong_p", "accuracy_minimum_detectable_difference",
    "auroc_minimum_detectable_difference",
)  # fmt: skip


def one_line(text: str) -> str:
    return " ".join(text.split())


def full(comparison: dict, **changes) -> Findings:
    row = {
        "group": "Distance", "name": "KID", "value": -0.0123, "uncertainty": "SD 0.002", "yardstick": None,
        "yardstick_name": None, "n": "225 and 225 images", "extractor": None, "what": "0: alike.",
        "cannot_tell": "It sees no copies.",
    }  # fmt: skip
    values = {
        "cross_validated": {"baseline": fake_cv(5), "augmented": fake_cv(5, contaminated=True)},
        "quality": {"rows": [row]}, "comparability": "NOT COMPARABLE with others.",
        "flags": ["the steps were not equal"],
        "missing": [("subgroups.png: nothing", "`python src/x.py` makes it")],
        "commands": [("Train the arm baseline", "python src/train_classifier.py " + "--flag value " * 20)],
        "files": [("comparison.json", "every number")],
    }  # fmt: skip
    return Findings(comparison=comparison, **(values | changes))


def test_a_terminal_shows_the_answer_as_the_file_words_it():
    findings = full(fake_comparison(FOUR))
    answer, text = compose_answer(sections(findings)), compose(findings)
    headings = re.findall(r"^(.+)\n-+$", answer, re.MULTILINE)
    assert headings == [
        "Warnings: read these before any number", "Verdict", "Each arm on the test images", "What is missing"
    ]  # fmt: skip
    assert all(part in text for part in re.split(r"\n\n(?=[^\n]+\n-+\n)", answer.strip()))
    assert answer.count("\n") < text.count("\n") / 2


@pytest.mark.parametrize("moved", [True, False])
def test_the_verdict_says_where_the_threshold_moved(moved):
    comparison = fake_comparison(FOUR)
    for name, row in comparison["arms"].items():
        calls = 60 if moved and name == "control_duplicate" else 20
        row["confusion_matrix"] = [[226 - calls, calls], [30, 45]]
    text = one_line(compose(full(comparison)))
    said = (
        "At a probability of 0.5, control_duplicate calls 35 % of the images positive, augmented 22 %, baseline 22 %; "
        "25 % are. Accuracy moves with these shares, AUROC does not."
    )
    assert (said in text) == moved


# --- verdicts --------------------------------------------------------------------------------------
def test_the_verdicts_are_the_only_conclusions():
    """With the verdicts replaced by other words, no word of praise or blame is left, and each stands where
    it must: twice per pair, and twice per headline."""
    content = fake_comparison(FOUR, verdicts=("VERDICT-A", "VERDICT-B"))
    text = compose(full(content))
    assert not CLAIMS.search(text), CLAIMS.search(text)
    pairs, headlines = len(content["pairs"]), 2
    for token in ("VERDICT-A", "VERDICT-B"):
        assert text.count(token) == pairs + headlines
    assert len(re.findall(r"^  verdict, accuracy +VERDICT-A$", text, re.MULTILINE)) == pairs
    assert len(re.findall(r"^  verdict, AUROC +VERDICT-B$", text, re.MULTILINE)) == pairs


@pytest.mark.parametrize("seed_variance", [True, False])
def test_seed_variance_is_told(seed_variance):
    content = fake_comparison()
    content["pairs"][0]["seed_variance_included"] = seed_variance
    for arm in content["arms"].values():
        arm["repeats"] = 3 if seed_variance else 1
    text = one_line(compose(full(content)))
    for verb, runs, wanted in (
        ("include", "3 runs", seed_variance),
        ("leave out", "1 run", not seed_variance),
    ):
        said = f"{verb} the variance between training seeds (baseline: {runs}, augmented: {runs})"
        assert text.count(said) == (2 if wanted else 0)


def test_headline_is_augmented_against_the_duplicates_then_against_baseline():
    content = fake_comparison(FOUR)
    pair = next(p for p in content["pairs"] if (p["a"], p["b"]) == ("augmented", "control_duplicate"))
    pair |= {"accuracy_difference": 0.02, "accuracy_ci95": [0.005, 0.035], "accuracy_verdict": "better"}
    second, first = headline_pairs(content)
    assert (first["a"], first["b"]) == ("baseline", "augmented")
    assert (second["a"], second["b"]) == ("control_duplicate", "augmented")
    # The control is better than augmented: seen from augmented, worse, with all signs turned.
    sentence = verdict_sentence(second)
    assert (
        "Compared with control_duplicate, augmented is worse in accuracy (−2.0 points, 95 % CI −3.5 to −0.5)"
        in sentence
    )
    assert second["auroc_verdict"] == pair["auroc_verdict"] == SAME
    text = one_line(compose(full(content)))
    assert sentence in text and "verdict, accuracy better" in text  # the pair itself stays as it is


def test_with_few_labels_semi_takes_the_place_of_augmented():
    content = fake_comparison(("baseline", "control_duplicate", "semi", "control_pseudo"))
    pairs = [(pair["a"], pair["b"]) for pair in headline_pairs(content)]
    assert pairs == [("baseline", "semi"), ("control_pseudo", "semi"), ("control_duplicate", "semi")]
    assert "There is no augmented arm" not in compose(full(content, cross_validated={}))


def test_an_arm_that_was_left_out_need_not_be_trained():
    for left_out, others in (("baseline", ("augmented",)), ("augmented", ("baseline", "control_weight"))):
        content = fake_comparison(others, left_out=[left_out])
        text = one_line(compose(full(content, cross_validated={})))
        assert f"The {left_out} arm was left out (--arms), so this report cannot say what" in text
        assert "There is no " not in text


def test_without_the_question_nothing_is_answered():
    alone = one_line(compose(full(fake_comparison(("baseline",)), cross_validated={})))
    assert (
        "There is no augmented arm, so this report cannot say" in alone
        and "There is only one arm, so there is nothing to compare." in alone
    )
    controls = compose(full(fake_comparison(("baseline", "control_weight"))))
    assert "There is no augmented arm" in controls and "Compared with baseline, control_weight" in controls
    reason = {"a": "baseline", "b": "augmented", "reason": "they were tested on different splits"}
    apart = one_line(compose(full(fake_comparison(pairs=[], not_compared=[reason]))))
    assert "augmented and baseline cannot be compared: they were tested on different splits." in apart
    reason = {"a": "baseline", "b": "augmented", "reason": "baseline_test_predictions.csv is missing"}
    unscored = one_line(compose(full(fake_comparison(("augmented",), not_compared=[reason]), cross_validated={})))
    assert "cannot be compared: baseline_test_predictions.csv is missing." in unscored
    assert "There is no baseline arm" not in unscored


# --- order and content -----------------------------------------------------------------------------
def test_order_of_the_sections():
    keys = [section.key for section in sections(full(fake_comparison()))]
    assert keys == [
        "verdict", "warnings", "test-set", "arms", "differences", "thresholds", "calibration", "subgroups",
        "training", "images", "commands", "files", "missing",
    ]  # fmt: skip
    text = compose(full(fake_comparison()))
    assert text.index("* the steps were not equal") < text.index("Compared with baseline, augmented")
    assert "warnings" not in [section.key for section in sections(full(fake_comparison(), flags=[]))]


def test_the_shortcut_test_stands_in_a_section_of_its_own():
    needless = {"arm": "augmented", "state": "not needed", "why": "64 px beside 64 px", "difference": None}
    (section,) = (s for s in sections(full(fake_comparison(shortcut_tests=[needless]))) if s.key == "shortcut")
    assert len(section.blocks) == 1
    beside = {"source": "data/normal", "n_images": 5, "logit": 1.5, "logit_real": -1.0, "logit_real_reduced": -0.25}
    found = needless | {
        "state": "flagged", "why": "blur", "label": 1, "side": 64, "reference": "baseline", "change": 0.9,
        "change_in_reference": 0.1, "difference": 0.8, "ci95": [0.6, 1.0], "synthetic_negatives": beside,
    }  # fmt: skip
    text = one_line(compose(full(fake_comparison(shortcut_tests=[found]))))
    for words in ("augmented: flagged: blur.", "difference +0.80, 95 % CI +0.60 to +1.00", "real test negatives",
                  "mean logit +1.50 (5 images, data/normal); real ones −1.00, reduced −0.25"):  # fmt: skip
        assert words in text


def test_numbers_of_each_part_are_stated():
    content = fake_comparison()
    text = compose(full(content))
    flat, (pair,) = one_line(text), content["pairs"]
    arm = content["arms"]["augmented"]
    low, high = (100 * bound for bound in pair["accuracy_ci95"])
    points = f"{100 * pair['accuracy_difference']:+.1f} points, 95 % CI {low:+.1f} to {high:+.1f}"
    for sentence in (
        "The test set has 301 images of 258 patients; 75 of the images are positive (24.9 %). It is the test "
        "part of split 555555555555. Images are grouped by NIH patient",
        "view, sex and age alone AUROC 0.712",
        f"accuracy {points.replace('-', '−')}; p = 0.410, after Holm p = 0.820",
        f"(only baseline was right on {pair['mcnemar_b']} images, only augmented on {pair['mcnemar_c']}; ",
        "DeLong p = 0.520 (image-level)",
        "Nadeau-Bengio not computed: augmented has no folds",
        "found with 80 % power 6.1 points of accuracy and 0.042 of AUROC, or more",
        f"augmented {with_interval(arm['accuracy'], arm['accuracy_ci95_image_level'], 100, 1)}",
        "baseline 1.31 0.150 → 0.148 0.040 → 0.031",
        "Sensitivity of at least 0.90 on the out-of-fold predictions arm threshold",
        "No Lung Opacity / Not Normal: ",
        "KID −0.0123 –", "It sees no copies. (value: SD 0.002; n: 225 and 225 images.)",
        "Fréchet distance: NOT COMPARABLE with others.",
        "* subgroups.png: nothing; `python src/x.py` makes it",
    ):  # fmt: skip
        assert sentence in flat, sentence
    assert "paired bootstrap with 2,000 resamples of the patients (seed 42)" in flat
    assert "at a prevalence of" not in flat


def test_goal_is_met_or_not_and_by_how_much():
    content = fake_comparison()
    content["goal"]["arms"] = {
        "baseline": {"met": True, "difference": 0.0123}, "augmented": {"met": False, "difference": -0.05}
    }  # fmt: skip
    text = one_line(compose(full(content)))
    assert "85 % accuracy is met by baseline (by 1.2 points) and not met by augmented (5.0 points short)." in text


def test_moved_prior_is_said_of_the_arms_that_have_more_positives():
    content = fake_comparison(FOUR)
    content["arms"]["control_weight"]["class_weights"] = [1.0, 2.0]
    text = one_line(compose(full(content)))
    (sentence,) = re.findall(r"Mind the threshold: ([^.]*)\. Extra weight on positives tends to raise", text)
    assert sentence == (
        "augmented trained on 450 synthetic images, control_duplicate trained on 450 real positives drawn "
        "again, control_weight trained with a loss weighted by class"
    )
    assert "Mind the threshold" not in compose(full(fake_comparison(("baseline",)), cross_validated={}))


def test_negatives_among_the_extra_images_are_counted():
    content = fake_comparison(FOUR)
    content["arms"]["augmented"]["n_extra_positive"] = 150
    content["arms"]["control_duplicate"]["n_extra_positive"] = 150
    text = one_line(compose(full(content)))
    assert "augmented trained on 450 synthetic images (150 of them positive), control_duplicate" in text
    assert "on 150 real positives and 300 real negatives drawn again" in text
    assert "Extra weight on one class tends to raise" in text and "or lower them (negatives)" in text
    content["arms"]["control_duplicate"]["n_extra_positive"] = 0
    assert "and 450 real negatives drawn again" in one_line(compose(full(content)))
    for name in ("augmented", "control_duplicate"):  # few labels: soft ones, or those of any image
        content["arms"][name]["n_extra_positive"] = None
    text = one_line(compose(full(content)))
    assert "augmented trained on 450 synthetic images, control_duplicate trained on 450 real images drawn again" in text


def test_folds_repeats_and_prevalence():
    content = fake_comparison()
    (pair,), arm = content["pairs"], content["arms"]["baseline"]
    result = {"difference": 0.002, "ci95": [-0.017, 0.021], "p": 0.76}
    pair["nadeau_bengio"] = {"k": 5, "accuracy": result, "auroc": None}
    runs = [{"repeat": i, "seed": 41 + i, "accuracy": 0.7 + i / 100, "auroc": 0.8} for i in (1, 2)]
    arm |= {"repeats": 2, "seeds": [42, 43], "per_repeat": runs}
    arm["at_prevalence"] = {"prevalence": 0.05, "ppv": 0.2, "npv": 0.98}
    text = one_line(compose(full(content)))
    assert "over 5 clean folds: accuracy +0.2 points, 95 % CI −1.7 to +2.1, p = 0.760" in text
    assert "seeds 42, 43). Its 2 runs one by one (accuracy and AUROC): 71.0 %, 0.800; 72.0 %, 0.800." in text
    assert "at a prevalence of 5.0 % PPV NPV baseline 0.200 0.980" in text


def test_what_is_undefined_is_said_and_breaks_nothing():
    """As much as may be missing is: one class, predictions alone, no folds, no subgroups."""
    content = fake_comparison()
    for arm in content["arms"].values():
        arm |= dict.fromkeys(ABSENT_OF_AN_ARM)
        arm |= {"subgroups": [], "per_repeat": []}
        arm["thresholds"] |= {"source": None, "note": "none chosen: no folds"}
        arm["thresholds"]["rules"] |= {"youden": None, "sensitivity_90": None}
        nothing = dict.fromkeys(("temperature", "after", "bins_after"))
        arm["calibration"] |= nothing | {"note": "none chosen: no folds"}
    (pair,) = content["pairs"]
    pair |= dict.fromkeys(ABSENT_OF_A_PAIR)
    pair["auroc_ci95"] = [None, None]
    content["references"] |= {"metadata_auroc": None, "thumbnail_auroc": None}
    content["test_set"] |= {"split_sha256": None, "grouped_by": None}
    text = one_line(compose(full(content, cross_validated={}, quality=None)))
    for said in (
        "AUROC difference undefined; p undefined", "80 % power undefined", "16 x 16 pixels not known",
        "baseline, augmented: none chosen", "an unknown split", "DeLong p undefined",
        "augmented: its training is not known, because its file of metrics is missing",
    ):  # fmt: skip
        assert said in text, said
    assert "None" not in text and "nan" not in text


# --- layout ----------------------------------------------------------------------------------------
def test_lines_fit_and_commands_are_never_broken():
    findings = full(fake_comparison(FOUR))
    (_, command), lines = findings.commands[0], compose(findings).splitlines()
    assert f"  {command}" in lines
    assert max(len(line) for line in lines if command not in line) <= WIDTH
    assert not [line for line in lines if line.startswith("% ")]  # a number and its unit stay together


def test_every_table_has_as_many_cells_as_columns():
    content = fake_comparison(FOUR)
    content["arms"]["control_weight"]["subgroups"] = []
    for section in sections(full(content)):
        for block in section.blocks:
            assert isinstance(block, str | Bullets | Table | Facts | Commands)
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} == {len(block.columns)}, block


def test_a_table_too_wide_becomes_a_list():
    names = tuple(f"an_arm_with_a_rather_long_name_{i}" for i in range(4))
    text = compose(full(fake_comparison(names), cross_validated={}))
    assert max(map(len, text.splitlines())) <= max(WIDTH, len(full({}).commands[0][1]) + 2)
    assert re.search(r"^view AP: \d+ of \d+\n  an_arm_with_a_rather_long_name_0 +0\.", text, re.MULTILINE)


def test_numbers_in_words():
    assert signed(-0.04, 1) == "0.0" and signed(0.05, 2) == "+0.05" and signed(-1.25, 2) == "−1.25"
    assert interval([0.1, None]) == interval(None) == interval([float("nan"), 1.0]) == "undefined"
    assert interval([-0.02, 0.031], 100, 1, sign=True) == "−2.0 to +3.1"
    assert with_interval(0.5, [0.4, 0.6], 100, 0) == "50 (40–60)" and with_interval(None, None) == "–"
    assert p_value(0.0004) == "p < 0.001" and p_value(0.25) == "p = 0.250" and p_value(None) == "p undefined"
    assert NONE == "no evidence of a difference"
