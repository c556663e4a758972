"""The report of an external test, as users run it: made-up predictions, then the files are read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analyze_results import main
from arms.result_files import find_arms
from common import paths
from common.file_formats import format_problems
from comparison.arms import compare_arms
from comparison.external import find_reports
from comparison.file_formats import Comparison
from conftest import SMALL
from fake_results import fake_probabilities, fake_records, write_arm
from report.external import report_links
from stats.metrics import auroc
from utils import UserError, load_json, save_csv, save_json, sha256_file

METRICS = Path("results/metrics")
FOLDER = paths.external_folder(METRICS, "hospital_b")
FLAG = "the patients of 3 of 90 images are unknown"
pytestmark = pytest.mark.usefixtures("unrendered")


def write_external(skills: dict[str, float], runs: int = 1, **changes) -> None:
    """Write what evaluate_external.py writes for arms of these skills; ``changes``: of external_test.json."""
    records = fake_records(90, seed=5).assign(image_id=lambda table: "ext" + table["image_id"])
    labels = records["label"].to_numpy()
    arms = {}
    for seed, (name, skill) in enumerate(skills.items()):
        prefix = f"{name}_"
        probabilities = fake_probabilities(labels, skill, 50 + seed, runs)
        tables = {prefix: probabilities.mean(axis=0)}
        tables |= {paths.repeat_prefix(prefix, i + 1): run for i, run in enumerate(probabilities) if runs > 1}
        files = {}
        for own, values in tables.items():
            file = paths.test_predictions(FOLDER, own)
            save_csv(file, records.assign(probability=values, predicted=(values >= 0.5).astype(int)))
            files[file.name] = sha256_file(file)
        metrics = paths.final_metrics(METRICS, prefix)
        arms[prefix] = {
            "models": {f"{prefix}{SMALL}.pth": "0" * 64}, "predictions": files,
            "metrics_sha256": sha256_file(metrics) if metrics.is_file() else None,
        }  # fmt: skip
    meaning = {"families": [], "positive": None}
    test = {
        "format": "external-test-1", "name": "hospital_b", "config": {"name": "hospital_b", "data_dir": "b"},
        "split_sha256": "5" * 64, "data_sha256": "e" * 64, "n_images": 90, "n_patients": 45,
        "n_positive": int(labels.sum()), "grouped_by": "patient_column", "unmapped_images": 3,
        "skipped_images": {"count": 0, "image_ids": []},
        "dropped": {"by_image_id": 2, "by_patient": 0, "by_picture": 1, "by_unknown_patient": 0, "image_ids": []},
        "shared_with_test": 0, "data": meaning, "training_data": meaning, "positive_differs": None,
        "patients_compared": False, "pictures_compared": True,
        "references": {"metadata_auroc": 0.61, "thumbnail_auroc": 0.66}, "arms": arms, "environment": {},
        "red_flags": [FLAG], **changes,
    }  # fmt: skip
    save_json(paths.external_test(FOLDER), test)


@pytest.fixture
def results(in_tmp):
    """Results of two arms on the internal test."""
    write_arm(METRICS, "baseline", fake_records(), folds=3)
    write_arm(METRICS, "augmented", fake_records(), folds=3, seed=1, contaminated=True, n_synthetic=24)
    return in_tmp


def analyse(*argv):
    main(["--test-set", "external:hospital_b", "--cpu", *argv])
    folder = paths.external_analysis(FOLDER)
    return load_json(paths.comparison(folder)), one_line(paths.comparison_report(folder).read_text("utf-8"))


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_report_of_an_external_test(results):
    write_external({"baseline": 1.0, "augmented": 0.4})
    content, text = analyse()
    assert format_problems(content, Comparison) == []
    (pair,) = content["pairs"]
    (expected,) = compare_arms(find_arms(FOLDER))["pairs"]  # of the files alone, patients drawn
    assert pair["auroc_ci95"] == expected["auroc_ci95"] and pair["n_patients"] == 45
    sentence = r"Compared with baseline, augmented .*, on hospital_b \(90 images of 45 patients\), on which nothing was"
    verdict = text[text.index("Verdict -") :]
    assert re.match(rf"Verdict -+ {sentence} trained\. ", verdict)
    assert "goal" not in text and FLAG in text[: text.index("Verdict -")]
    assert "Left out: 2 by their ids, 1 by their pictures." in text
    assert "Their ids and pictures were compared" in text
    assert "thumbnails of 16 x 16 pixels AUROC 0.660" in text
    for heading in ("cross-validation", "Shortcut test", "Synthetic images beside", "Heat maps"):
        assert heading not in text
    assert "python src/evaluate_external.py --name hospital_b --data-dir b" in text
    files = {file.name for file in paths.external_analysis(FOLDER).iterdir()}
    assert {"report.html", "differences.png", "roc_pr.png", "calibration.png", "subgroups.png"} <= files
    assert not {"comparison_acc.png", "comparison_loss.png", "cv_comparison.png", "gradcam.png"} & files
    page = paths.report_page(paths.external_analysis(FOLDER)).read_text("utf-8")
    assert "<h1>Does the synthetic data help on hospital_b?</h1>" in page


def test_thresholds_and_calibration_are_carried_over(results, quick):
    write_external({"baseline": 1.0, "augmented": 0.4}, runs=1)
    content, text = analyse()
    both = content["external"]["arms"]["augmented"]
    baseline = load_json(paths.cv_summary(METRICS, "baseline_"))
    assert baseline["k"] == 3 and content["arms"]["augmented"]["thresholds"]["source"] == "baseline"
    for side, table in (("internal", METRICS), ("external", FOLDER)):
        arm = find_arms(table)["augmented"]
        labels, values = (arm.predictions[key].to_numpy() for key in ("label", "probability"))
        found = both[side]
        threshold = found["thresholds"]["youden"]["threshold"]
        assert threshold == both["internal"]["thresholds"]["youden"]["threshold"]
        assert found["thresholds"]["youden"]["sensitivity"] == np.mean(values[labels == 1] >= threshold)
        assert found["auroc"] == pytest.approx(auroc(labels, values))
        assert found["line"]["mean_probability"] == pytest.approx(values.mean())
    assert both["external"]["line"]["slope"] < both["internal"]["line"]["slope"]  # its skill is smaller there
    assert "Thresholds carried over" in text and "augmented, hospital_b" in text
    assert content["arms"]["augmented"]["calibration"]["temperature"] is not None


@pytest.mark.parametrize(("differs", "said"), [(True, True), (False, False), (None, False)])
def test_another_meaning_of_positive_stands_in_the_first_sentence(differs, said, results, quick):
    meanings = {
        "data": {"families": [], "positive": "pneumonia, by a report"},
        "training_data": {"families": ["NIH"], "positive": "a lung opacity"},
    }
    write_external({"baseline": 1.0}, positive_differs=differs, **meanings)
    _, text = analyse()
    verdict = text[text.index("Verdict -") :]
    first = verdict[: verdict.index("trained") + 120]
    assert first.startswith(f"Verdict {'-' * 7} The models were tested on hospital_b (90 images")
    assert ("means something else: pneumonia, by a report (in training: a lung opacity)" in verdict) is said


def test_repeats_and_an_arm_without_results(results, quick):
    write_arm(METRICS, "baseline", fake_records(), folds=3, repeats=2)
    write_external({"baseline": 1.0, "mine": 0.8}, runs=2)
    content, text = analyse()
    assert [row["seed"] for row in content["arms"]["baseline"]["per_repeat"]] == [42, 43]
    assert content["external"]["arms"]["mine"]["internal"] is None
    assert "mine: provenance unknown" in text


def test_models_without_the_results_of_their_training(in_tmp, quick):
    write_external({"baseline": 1.0, "augmented": 0.4})
    content, text = analyse()
    assert len(content["pairs"]) == 1 and "provenance unknown" in text
    assert content["arms"]["baseline"]["thresholds"]["source"] is None


# --- files that do not belong together -------------------------------------------------------------
def change_predictions():
    file = paths.test_predictions(FOLDER, "baseline_")
    file.write_text(file.read_text().replace("0.", "0.0", 1))


def write_other_model():
    from fake_results import write_classifier

    write_classifier(Path("models"), "5" * 64, SMALL)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (change_predictions, "not the file that the test wrote; run `python src/evaluate_external.py --name hosp"),
        (write_other_model, r"of another baseline_resnet18.pth than that in ./models \(other sha256\)"),
        (
            lambda: write_arm(METRICS, "baseline", fake_records(), seed=9),
            r"of another training than results/metrics/baseline_final_metrics.json \(other sha256\)",
        ),
        (lambda: paths.external_test(FOLDER).unlink(), "holds no external test; `python src/evaluate_external.py"),
        (
            lambda: paths.test_predictions(FOLDER, "x_").write_text(
                paths.test_predictions(FOLDER, "baseline_").read_text()
            ),
            "holds predictions of x, which is not of this test",
        ),
        (lambda: paths.external_test(FOLDER).write_text("{}"), "is missing; run `python src/evaluate_external.py"),
        (
            lambda: paths.test_predictions(FOLDER, "baseline_").unlink(),
            "baseline_test_predictions.csv is missing or not the file that the test wrote; run `python src/evaluate_ex",
        ),
        (lambda: paths.cv_summary(METRICS, "baseline_").write_text("{"), "baseline_cv_summary.json is not valid JSON"),
    ],
)
def test_files_of_other_models_are_refused(spoil, problem, results):
    write_external({"baseline": 1.0})
    spoil()
    with pytest.raises(UserError, match=problem):
        main(["--test-set", "external:hospital_b"])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("external:", "'' is not a name of letters"),
        ("external:../x", "'../x' is not a name of letters"),
        ("hospital_b", "must be internal or external:NAME, got 'hospital_b'"),
    ],
)
def test_values_of_test_set(value, problem, capsys):
    with pytest.raises(SystemExit):
        main(["--test-set", value])
    assert problem in capsys.readouterr().err


# --- links -----------------------------------------------------------------------------------------
def test_the_internal_report_links_to_external_ones(results, quick):
    write_external({"baseline": 1.0, "augmented": 0.4})
    assert find_reports(METRICS) == []  # it has no report yet
    analyse()
    main(["--data-dir", "absent"])
    files = (name_of("results/analysis") for name_of in (paths.report_page, paths.comparison_report))
    page, text = (file.read_text("utf-8") for file in files)
    link = "../external/hospital_b/analysis/report.html"
    assert f'<a href="{link}">' in page and f"{link} hospital_b, 90 images of 45 patients" in one_line(text)
    assert page.index('id="verdict"') < page.index('id="external"')
    (report,) = find_reports(METRICS)
    assert report.current
    write_arm(METRICS, "baseline", fake_records(), seed=9)
    (report,) = find_reports(METRICS)
    assert not report.current
    (block,) = report_links([report], Path("results/analysis"))
    assert "models of an earlier training" in block.rows[0][1]
    paths.external_test(FOLDER).write_text("{")  # the internal analysis goes on without it
    assert find_reports(METRICS) == []
