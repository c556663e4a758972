"""comparison.json of a cross-fitted study, from made-up arms of three folds."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from arms.result_files import find_arms
from common.file_formats import format_problems
from comparison.cross_fit_file_formats import CrossFitComparison
from comparison.cross_fitting import FinishedFold, called_positive, compare_folds
from fake_results import fake_records, write_arm
from report.cross_fit import cross_fit_sections
from report.cross_fit_figure import draw_cross_fit
from report.text import write_sections
from stats.cross_fitting import FoldRuns
from stats.paired_tests import holm
from utils import UserError

ARMS = ("baseline", "augmented", "control_duplicate")
SETTINGS = {"folds": 3, "gans": 1, "repeats": 2}


def write_fold(folder, fold: int, gans: int = 1, better: float = 0.0, **overrides) -> FinishedFold:
    records = fake_records(90, seed=fold)
    records = records.assign(image_id=f"{fold}-" + records["image_id"], patient=f"{fold}-" + records["patient"])
    made = []
    for gan in range(gans):
        metrics = folder / f"{fold}-{gan}"
        for place, arm in enumerate(ARMS):
            config = {"image_size": 64, "seed": 42 + fold, "splits": f"fold_{fold}/splits.json", "lr": 0.001}
            facts = {"config": config, "split_sha256": str(fold) * 64, "n_train_images": 180 + fold} | overrides
            write_arm(
                metrics, arm, records, skill=1 + better * (arm == "augmented"), seed=10 * fold + place + 100 * gan,
                repeats=2, **facts,
            )  # fmt: skip
        made.append(find_arms(metrics))
    return FinishedFold(fold, made)


@pytest.fixture
def folds(tmp_path):
    return [write_fold(tmp_path, fold, better=1.5) for fold in (1, 2, 3)]


def compare(folds, **options):
    return compare_folds(folds, ARMS, SETTINGS, n_resamples=200, **options)


def test_all_images_count_once_and_auroc_is_a_mean_of_folds(folds):
    content = compare(folds)
    assert format_problems(content, CrossFitComparison) == []
    assert content["images"]["n_images"] == 270 and content["images"]["n_patients"] == 135
    tables = [fold.first.tested for fold in folds]
    own = [roc_auc_score(table["label"], table["probability"]) for table in tables]
    pairs = [table["label"].sum() * (1 - table["label"]).sum() for table in tables]
    baseline = content["arms"]["baseline"]
    assert baseline["auroc_by_fold"] == pytest.approx(own)
    assert baseline["auroc"] == pytest.approx(np.average(own, weights=pairs))
    right = np.concatenate([(table["probability"] >= 0.5) == table["label"] for table in tables])
    assert baseline["accuracy"] == pytest.approx(right.mean())
    called = np.concatenate([table["probability"] >= 0.5 for table in tables])
    assert baseline["called_positive"] == pytest.approx(called.mean())


def test_models_of_different_labelled_patients_call_apart():
    runs = {"semi": np.array([[[0.9, 0.1], [0.7, 0.1]], [[0.1, 0.1], [0.3, 0.7]]])}  # [GANs, runs, images]
    fold = FoldRuns(np.array([1, 0]), ["p1", "p2"], runs)
    assert called_positive([fold], "semi") == 0.5, "means of all: 0.5 and 0.25"
    assert called_positive([fold], "semi", apart=True) == 0.25, "one call of four, two by each GAN's models"


def test_augmented_against_its_control_leads_and_p_is_adjusted_over_pairs(folds):
    content = compare(folds)
    assert [(pair["b"], pair["a"]) for pair in content["pairs"]] == [
        ("augmented", "control_duplicate"), ("augmented", "baseline"), ("control_duplicate", "baseline"),
    ]  # fmt: skip
    for name in ("accuracy", "auroc"):
        assert [p[f"{name}_p_holm"] for p in content["pairs"]] == holm([p[f"{name}_p"] for p in content["pairs"]])
    lead = content["pairs"][0]
    assert lead["auroc_verdict"] == "better" and lead["auroc_ci95"][0] > 0
    arms = content["arms"]
    assert lead["auroc_difference"] == pytest.approx(arms["augmented"]["auroc"] - arms["control_duplicate"]["auroc"])


def test_the_report_says_procedure_and_has_every_pair(folds):
    content = compare(folds, missing=["fold 4"])
    text = write_sections(cross_fit_sections(content), "REPORT")
    assert "about the procedure, not about one model" in text and "unfinished: fold 4" in text
    assert text.index("augmented minus control_duplicate") < text.index("augmented minus baseline")
    assert any("one GAN per fold" in note for note in content["notes"])
    assert len(draw_cross_fit(content).axes) == 2


def test_several_gans_of_a_fold_are_told_apart(tmp_path):
    folds = [write_fold(tmp_path, fold, gans=2) for fold in (1, 2)]
    content = compare_folds(folds, ARMS, {"folds": 2, "gans": 2, "repeats": 2}, n_resamples=100)
    assert content["arms"]["augmented"]["runs"] == 4
    assert not any("one GAN per fold" in note for note in content["notes"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"config": {"image_size": 64, "seed": 1, "lr": 0.1}}, r"fold 2: baseline was trained with --lr 0.1"),
        ({"data_sha256": "e" * 64}, "fold 2 was trained on other data"),
    ],
)
def test_folds_of_other_options_or_data_are_refused(tmp_path, overrides, message):
    folds = [write_fold(tmp_path, 1), write_fold(tmp_path, 2, **overrides)]
    with pytest.raises(UserError, match=message):
        compare(folds)


def test_an_image_that_two_folds_tested_is_refused(tmp_path):
    fold = write_fold(tmp_path, 1)
    with pytest.raises(UserError, match="folds 1 and 2 both tested 1-image0000"):
        compare([fold, FinishedFold(2, fold.gans)])


def test_red_flags_name_the_folds_that_raise_them(tmp_path):
    folds = [write_fold(tmp_path, 1), write_fold(tmp_path, 2, red_flags=["the GAN collapsed"])]
    assert "fold 2: baseline, augmented, control_duplicate: the GAN collapsed" in compare(folds)["flags"]
