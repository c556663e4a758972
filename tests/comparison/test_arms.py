import json

import pandas as pd
import pytest

from arms.result_files import find_arms, find_prefixes, probabilities_of_runs, select_arms
from common import paths
from comparison.arms import compare_arms
from comparison.fold_rules import why_folds_are_unfit, why_no_fold_test
from fake_results import fake_few_labels, fake_records, write_arm
from stats.bootstrap import PatientDraws, bootstrap_difference, percentile_interval
from stats.metric_registry import METRICS
from stats.metrics import THRESHOLD, wilson_interval
from stats.paired_tests import delong_interval, delong_p, mcnemar, nadeau_bengio
from utils import UserError, load_json, save_json

FOUR = {"equivalent within 1 point", "better", "worse", "no evidence of a difference"}
ARM_KEYS = {
    "prefix", "n_images", "n_patients", "n_positive", "repeats", "seeds", "per_repeat", "n_train_images",
    "n_train_patients", "n_synthetic", "n_duplicated", "optimizer_steps", "contaminated", "command",
    "accuracy", "accuracy_ci95", "accuracy_ci95_image_level", "auroc", "auroc_ci95", "auroc_ci95_image_level",
    "auprc", "weighted_precision", "weighted_recall", "weighted_f1", "sensitivity", "specificity", "ppv",
    "npv", "at_prevalence", "brier", "ece", "confusion_matrix", "thresholds", "calibration", "subgroups",
}  # fmt: skip
PAIR_KEYS = {
    "a", "b", "n_images", "n_patients", "accuracy_difference", "accuracy_ci95", "accuracy_p",
    "accuracy_p_holm", "accuracy_verdict", "auroc_difference", "auroc_ci95", "auroc_p", "auroc_p_holm",
    "auroc_verdict", "accuracy_role", "auroc_role",
    "mcnemar_p", "mcnemar_b", "mcnemar_c", "delong_p", "image_level", "nadeau_bengio",
    "nadeau_bengio_why_not", "accuracy_minimum_detectable_difference",
    "auroc_minimum_detectable_difference",
    "seed_variance_included",
}  # fmt: skip


def compared(folder, **options):
    return compare_arms(find_arms(folder), **{"n_resamples": 200, **options})


def edit(path, **changes):
    save_json(path, load_json(path) | changes)


@pytest.fixture
def two(tmp_path):
    """A baseline and an augmented arm with clean folds."""
    records = fake_records()
    write_arm(tmp_path, "baseline", records, folds=5)
    write_arm(tmp_path, "augmented", records, folds=5, seed=1, skill=1.3)
    return tmp_path


# --- finding and choosing arms ---------------------------------------------------------------------
def test_arms_come_in_the_fixed_order(tmp_path):
    names = ["zeta", "pretrain", "mine", "control_weight", "augmented", "curriculum", "baseline"]
    for seed, name in enumerate([*names, "control_duplicate"]):
        write_arm(tmp_path, name, fake_records(), seed=seed)
    ordered = [
        "baseline", "augmented", "control_duplicate", "control_weight", "curriculum", "pretrain", "mine",
        "zeta",
    ]  # fmt: skip
    arms = find_arms(tmp_path)
    assert list(arms) == ordered
    assert list(select_arms(arms, ["mine", "baseline"])) == ["baseline", "mine"]
    with pytest.raises(UserError, match="there is no other; choose from baseline, augmented, control_dupl"):
        select_arms(arms, ["baseline", "other"])
    result = compare_arms(select_arms(arms, ["zeta", "augmented", "baseline"]), n_resamples=50)
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [
        ("baseline", "augmented"), ("baseline", "zeta"), ("augmented", "zeta"),
    ]  # fmt: skip


def test_repeats_belong_to_their_arm(tmp_path):
    write_arm(tmp_path, "baseline", fake_records(), repeats=3)
    write_arm(tmp_path, "mine_r2", fake_records(), seed=4)  # there is no arm "mine" that it could belong to
    arms = find_arms(tmp_path)
    assert list(arms) == ["baseline", "mine_r2"]
    assert [(run.number, run.seed) for run in arms["baseline"].repeats] == [(1, 42), (2, 43), (3, 44)]
    assert "baseline_r1_" in find_prefixes(tmp_path, paths.final_metrics)
    runs = probabilities_of_runs(arms["baseline"])
    assert runs.shape == (3, 120)
    assert runs.mean(axis=0) == pytest.approx(arms["baseline"].predictions["probability"].to_numpy())


def test_runs_that_do_not_belong_are_not_used(tmp_path):
    write_arm(tmp_path, "baseline", fake_records(), repeats=2)
    run = paths.test_predictions(tmp_path, "baseline_r2_")
    good = pd.read_csv(run)
    good.assign(probability=0.5).to_csv(run, index=False)
    result = compared(tmp_path)
    assert any("2 training runs DO NOT BELONG TO THE SAME RUN" in flag for flag in result["flags"])
    assert result["arms"]["baseline"]["per_repeat"] == []
    run.unlink()
    assert find_arms(tmp_path)["baseline"].repeats == ()
    good.to_csv(run, index=False)
    edit(paths.final_metrics(tmp_path, "baseline_"), repeats=1)  # trained again, the old runs left behind
    assert find_arms(tmp_path)["baseline"].repeats == ()
    assert compared(tmp_path)["arms"]["baseline"]["repeats"] == 1


def test_four_columns_without_metrics_are_enough(tmp_path):
    records = fake_records()
    for seed, name in enumerate(("baseline", "foreign")):
        write_arm(tmp_path, name, records, seed=seed, repeats=2)
    for file in tmp_path.glob("foreign_*"):
        if "test_predictions" not in file.name:
            file.unlink()
        else:
            table = pd.read_csv(file, dtype={"patient": str})
            table[["image_id", "patient", "label", "probability"]].to_csv(file, index=False)
    result = compared(tmp_path, prevalence=0.1)
    (pair,), foreign = result["pairs"], result["arms"]["foreign"]
    assert pair["b"] == "foreign" and pair["seed_variance_included"]
    assert foreign["repeats"] == 2 and foreign["seeds"] is None and len(foreign["per_repeat"]) == 2
    assert foreign["subgroups"] == [] and foreign["command"] is foreign["n_train_images"] is None
    assert any(flag.startswith("foreign: provenance unknown") for flag in result["flags"])
    for file in tmp_path.glob("baseline_*"):
        file.unlink()
    alone = compared(tmp_path)
    assert alone["pairs"] == [] and alone["test_set"]["split_sha256"] is None
    assert alone["references"]["always_negative_accuracy"] == 1 - records["label"].mean()


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("label", 2, "labels other than 0 and 1"), ("probability", 1.2, "outside 0 to 1"),
     ("image_id", "image0001", "images twice"), ("probability", None, "empty cells"),
     ("probability", "high", "outside 0 to 1"), ("age", "045Y", "words in its column age"),
     ("fold", "second", "words in its column fold")],
)  # fmt: skip
def test_predictions_that_make_no_sense_are_refused(tmp_path, column, value, said):
    write_arm(tmp_path, "baseline", fake_records())
    file = paths.test_predictions(tmp_path, "baseline_")
    table = pd.read_csv(file, dtype={"patient": str}).assign(fold=1).astype({column: object})
    table.loc[5, column] = value
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=said):
        find_arms(tmp_path)


# --- the content -----------------------------------------------------------------------------------
def test_every_promised_key_is_there_and_nothing_but_plain_numbers(two):
    result = compared(two, prevalence=0.02)
    assert result["format"] == "comparison-1"
    assert set(result["arms"]) == {"baseline", "augmented"}
    for row in result["arms"].values():
        assert set(row) >= ARM_KEYS
    for row in result["pairs"]:
        assert set(row) == PAIR_KEYS
        assert row["accuracy_verdict"] in FOUR and row["auroc_verdict"] in FOUR
    json.dumps(result, allow_nan=False)
    assert compared(two, prevalence=0.02) == result
    assert compared(two, prevalence=0.02, seed=1) != result


def test_numbers_are_those_of_the_tests(two):
    result = compared(two, n_resamples=300, seed=7)
    arms = find_arms(two)
    a, b = arms["baseline"].predictions, arms["augmented"].predictions
    labels, p_a, p_b, patients = a["label"], a["probability"], b["probability"], list(a["patient"])
    row, (pair,) = result["arms"]["baseline"], result["pairs"]
    right = int(((p_a >= THRESHOLD) == labels).sum())
    assert row["accuracy"] == right / 120 and row["accuracy_ci95_image_level"] == wilson_interval(right, 120)
    assert row["auroc_ci95_image_level"] == delong_interval(labels, p_a)
    for name in ("accuracy", "auroc"):
        expected = percentile_interval(PatientDraws(patients, 300, 7).scores(METRICS[name], labels, p_a))
        assert row[f"{name}_ci95"] == pytest.approx(expected)
        paired = bootstrap_difference(labels, p_a, p_b, patients, name, n_resamples=300, seed=7)
        assert pair[f"{name}_difference"] == pytest.approx(paired["difference"])
        assert pair[f"{name}_ci95"] == pytest.approx(paired["ci95"])
    assert (pair["mcnemar_p"], pair["mcnemar_b"], pair["mcnemar_c"]) == mcnemar(labels, p_a, p_b)
    assert pair["delong_p"] == delong_p(labels, p_a, p_b)
    assert pair["image_level"] == ["mcnemar_p", "delong_p"]
    folds = [arms[name].cv["folds"] for name in ("baseline", "augmented")]
    differences = [y["auroc"] - x["auroc"] for x, y in zip(*folds, strict=True)]
    expected = nadeau_bengio(differences, [fold["n_images"] for fold in folds[0]])
    assert pair["nadeau_bengio"]["k"] == 5 and pair["nadeau_bengio"]["auroc"] == expected
    assert pair["nadeau_bengio_why_not"] is None and not pair["seed_variance_included"]
    assert result["goal"]["arms"]["baseline"]["difference"] == pytest.approx(right / 120 - 0.85)
    assert result["goal"]["arms"]["baseline"]["met"] == (right / 120 > 0.85)
    assert result["references"]["thumbnail_auroc"] == 0.7


def test_soft_labels_count_no_positives(tmp_path):
    write_arm(tmp_path, "semi", fake_records(), n_synthetic=24, few_labels=fake_few_labels())
    assert compared(tmp_path)["arms"]["semi"]["n_extra_positive"] is None


def test_predictive_values_at_a_prevalence(two):
    row = compared(two, prevalence=0.02)["arms"]["baseline"]
    sensitivity, specificity = row["sensitivity"], row["specificity"]
    ppv = 0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity))
    assert row["at_prevalence"]["ppv"] == pytest.approx(ppv) and row["at_prevalence"]["prevalence"] == 0.02
    assert compared(two)["arms"]["baseline"]["at_prevalence"] is None


def test_runs_are_drawn_and_named(tmp_path):
    records = fake_records()
    for seed, name in enumerate(("baseline", "augmented")):
        write_arm(tmp_path, name, records, seed=seed, repeats=3)
    result = compared(tmp_path)
    (pair,), row = result["pairs"], result["arms"]["baseline"]
    assert pair["seed_variance_included"] and row["repeats"] == 3 and row["seeds"] == [42, 43, 44]
    metrics = load_json(paths.final_metrics(tmp_path, "baseline_r2_"))
    assert row["per_repeat"][1] == {
        "repeat": 2, "seed": 43, "accuracy": metrics["accuracy"], "auroc": pytest.approx(metrics["auroc"])
    }  # fmt: skip
    assert not any("between seeds" in flag or "DIFFERENT NUMBERS" in flag for flag in result["flags"])


@pytest.mark.parametrize(("skill", "verdict"), [(3.0, "better"), (0.0, "worse")])
def test_large_differences_get_their_verdict(tmp_path, skill, verdict):
    records = fake_records(400)
    write_arm(tmp_path, "baseline", records)
    write_arm(tmp_path, "other", records, seed=1, skill=skill)
    (pair,) = compared(tmp_path)["pairs"]
    assert pair["accuracy_verdict"] == pair["auroc_verdict"] == verdict


def test_adjusting_for_the_number_of_pairs(tmp_path):
    records = fake_records(200)
    for seed in range(4):
        write_arm(tmp_path, f"arm{seed}", records, seed=seed, skill=1 + 0.2 * seed)
    pairs = compared(tmp_path)["pairs"]
    assert len(pairs) == 6
    smallest = min(pairs, key=lambda pair: pair["auroc_p"])
    assert smallest["auroc_p_holm"] == pytest.approx(min(1, 6 * smallest["auroc_p"]))
    assert all(pair["accuracy_p_holm"] >= pair["accuracy_p"] for pair in pairs)


def test_a_copy_is_equivalent_and_a_wider_margin_is_named(tmp_path):
    records = fake_records(400)
    for name in ("baseline", "copy"):
        write_arm(tmp_path, name, records)
    (pair,) = compared(tmp_path, margin=0.02)["pairs"]
    assert pair["accuracy_verdict"] == pair["auroc_verdict"] == "equivalent within 2 points"
    assert pair["accuracy_ci95"] == [0, 0] and pair["accuracy_minimum_detectable_difference"] is None


def test_test_images_of_one_class_leave_auroc_undefined(tmp_path):
    records = fake_records().assign(label=0)
    write_arm(tmp_path, "baseline", fake_records())
    table = pd.read_csv(paths.test_predictions(tmp_path, "baseline_"), dtype={"patient": str})
    (tmp_path / "baseline_final_metrics.json").unlink()
    for name in ("baseline", "other"):
        table.assign(label=records["label"]).to_csv(paths.test_predictions(tmp_path, f"{name}_"), index=False)
        table = table.assign(probability=1 - table["probability"])
    result = compared(tmp_path, prevalence=0.1)
    (pair,) = result["pairs"]
    json.dumps(result, allow_nan=False)
    assert pair["auroc_difference"] is pair["auroc_ci95"] is pair["auroc_p_holm"] is None
    assert pair["auroc_verdict"] == "no evidence of a difference" and pair["accuracy_p_holm"] is not None


# --- what may not be compared ----------------------------------------------------------------------
def test_other_images_are_not_compared(two):
    write_arm(two, "fewer", fake_records().iloc[:-3], seed=2)
    result = compared(two)
    assert [(pair["a"], pair["b"]) for pair in result["pairs"]] == [("baseline", "augmented")]
    assert [(row["a"], row["b"]) for row in result["not_compared"]] == [
        ("baseline", "fewer"), ("augmented", "fewer")
    ]  # fmt: skip
    assert "3 images are in one set" in result["not_compared"][0]["reason"]
    paths.test_predictions(two, "augmented_").unlink()
    result = compared(two)
    assert "augmented_test_predictions.csv is missing" in result["not_compared"][0]["reason"]
    assert set(result["arms"]) == {"baseline", "fewer"}


def test_no_predictions_at_all_is_an_error(two):
    for name in ("baseline_", "augmented_"):
        paths.test_predictions(two, name).unlink()
    with pytest.raises(UserError, match="no arm has predictions"):
        compared(two)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"contaminated": True}, "folds of augmented are contaminated"),
        ({"k": 4}, "baseline has 5 folds and augmented 4"),
        ({"data_sha256": "e" * 64}, "come from different metadata files"),
        ({"split_sha256": "e" * 64}, "come from different splits"),
    ],
)
def test_folds_that_cannot_be_paired(two, changes, why):
    edit(paths.cv_summary(two, "augmented_"), **changes)
    (pair,) = compared(two)["pairs"]
    assert pair["nadeau_bengio"] is None and why in pair["nadeau_bengio_why_not"]


def test_folds_trained_otherwise_cannot_be_paired(two):
    same = {"epochs": 9, "lr": 0.1}
    edit(paths.cv_summary(two, "baseline_"), config=same | {"use_synthetic": False, "workers": 4})
    edit(paths.cv_summary(two, "augmented_"), config=same | {"use_synthetic": True, "workers": 1})
    arms = find_arms(two)
    assert why_no_fold_test(*arms.values()) is None, "what differs by design does not count"
    edit(paths.cv_summary(two, "augmented_"), config=same | {"epochs": 3})
    reason = why_no_fold_test(*find_arms(two).values())
    said = "the folds of augmented were trained with other options (--epochs was 3 here and 9 in baseline)"
    assert reason == said


def test_folds_of_other_images_cannot_be_paired(two):
    file = paths.cv_predictions(two, "augmented_")
    table = pd.read_csv(file, dtype={"patient": str})
    table.assign(fold=table["fold"] % 5 + 1).to_csv(file, index=False)
    (pair,) = compared(two)["pairs"]
    assert "hold different images" in pair["nadeau_bengio_why_not"]
    paths.cv_summary(two, "baseline_").unlink()
    (pair,) = compared(two)["pairs"]
    assert pair["nadeau_bengio_why_not"] == "baseline has no folds (--k-folds)"


# --- thresholds and temperature --------------------------------------------------------------------
def test_thresholds_come_from_an_arms_own_clean_folds(two):
    row = compared(two)["arms"]["augmented"]
    assert row["thresholds"]["source"] == row["calibration"]["source"] == "augmented"
    folds = find_arms(two)["augmented"].cv_predictions
    threshold = row["thresholds"]["rules"]["sensitivity_90"]["threshold"]
    positives = folds.loc[folds["label"] == 1, "probability"]
    assert (positives >= threshold).mean() >= 0.9 > (positives > threshold).mean()
    assert row["calibration"]["temperature"] > 0 and row["calibration"]["after"] is not None


def test_no_test_label_enters_thresholds_or_temperature(two):
    before = compared(two)["arms"]["baseline"]
    for file in two.glob("*_test_predictions.csv"):
        table = pd.read_csv(file, dtype={"patient": str})
        table.assign(label=1 - table["label"]).to_csv(file, index=False)
    after = compared(two)["arms"]["baseline"]
    assert after["calibration"]["temperature"] == before["calibration"]["temperature"]
    for rule, row in before["thresholds"]["rules"].items():
        assert after["thresholds"]["rules"][rule]["threshold"] == row["threshold"]


def test_contaminated_folds_give_way_to_the_baselines(two):
    edit(paths.cv_summary(two, "augmented_"), contaminated=True)
    result = compared(two)
    rows = result["arms"]
    own, borrowed = rows["baseline"]["thresholds"], rows["augmented"]["thresholds"]
    assert borrowed["source"] == "baseline" and "the arm's folds are contaminated" in borrowed["note"]
    for rule in ("youden", "sensitivity_90"):
        assert borrowed["rules"][rule]["threshold"] == own["rules"][rule]["threshold"]
    temperatures = {row["calibration"]["temperature"] for row in rows.values()}
    assert len(temperatures) == 1 and rows["augmented"]["contaminated"] is True
    assert any("augmented: CONTAMINATED FOLDS" in flag for flag in result["flags"])


def test_a_baseline_that_is_left_out_still_lends_its_folds(two):
    edit(paths.cv_summary(two, "augmented_"), contaminated=True)
    arms = find_arms(two)
    both = compare_arms(arms, n_resamples=50)["arms"]["augmented"]
    baseline = {"baseline": arms.pop("baseline")}
    result = compare_arms(arms, n_resamples=50, left_out=baseline)
    alone = result["arms"]["augmented"]
    assert alone["thresholds"] == both["thresholds"] and alone["calibration"] == both["calibration"]
    assert alone["thresholds"]["source"] == "baseline"
    assert list(result["arms"]) == ["augmented"] and result["pairs"] == []
    assert result["left_out"] == ["baseline"] and both["thresholds"]["rules"]["youden"] is not None
    assert compare_arms(arms, n_resamples=50)["arms"]["augmented"]["thresholds"]["source"] is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"split_sha256": "e" * 64}, "from another split"),
        ({"data_sha256": "e" * 64}, "from another metadata file"),
        (
            {"config": {"epochs": 3}},
            "trained with other options (--epochs was 15 here and 3 in its folds)",
        ),
        ({"n_images": 200}, "from different runs"),
        ({"contaminated": True}, "contaminated"),
    ],
)
def test_folds_of_another_run_are_not_used(tmp_path, changes, why):
    write_arm(tmp_path, "baseline", fake_records(), folds=5, config={"epochs": 15})
    edit(paths.cv_summary(tmp_path, "baseline_"), **changes)
    row = compared(tmp_path)["arms"]["baseline"]
    assert row["thresholds"]["source"] is None and why in row["thresholds"]["note"]
    rules = row["thresholds"]["rules"]
    assert rules["fixed"]["accuracy"] == pytest.approx(row["accuracy"])
    assert rules["youden"] is rules["sensitivity_90"] is None
    assert row["calibration"]["temperature"] is row["calibration"]["after"] is None
    assert row["calibration"]["before"]["brier"] == pytest.approx(row["brier"])


def test_test_patients_among_the_folds_are_noticed(two):
    file = paths.cv_predictions(two, "baseline_")
    table = pd.read_csv(file, dtype={"patient": str})
    table.loc[3, "patient"] = "00000002"
    table.to_csv(file, index=False)
    arm = find_arms(two)["baseline"]
    assert "hold patients of the test images" in why_folds_are_unfit(arm, arm)


# --- flags -----------------------------------------------------------------------------------------
def flags_of(tmp_path, *arms: dict) -> str:
    for seed, changes in enumerate(arms):
        write_arm(tmp_path, ("baseline", "augmented")[seed], fake_records(), seed=seed, **changes)
    return "\n".join(compared(tmp_path)["flags"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_sha256": "f" * 64}, "DIFFERENT FILES OF WEIGHTS: baseline None, augmented ffffffffffff"),
        ({"optimizer_steps": 99}, "DIFFERENT NUMBERS OF STEPS: baseline 84, augmented 99"),
        ({"synthetic": {"verified": False}}, "augmented: its synthetic images are UNVERIFIED"),
        ({"synthetic": {"verified": False}, "red_flags": ["a flag of the data"]}, "synthetic images are UNVERIFIED"),
        ({"skipped_images": {"count": 2, "image_ids": []}}, "augmented: 2 missing or unreadable images"),
        ({"grouped_by": "image_id"}, "augmented: images are grouped by image id"),
        ({"red_flags": ["the images have no manifest"]}, "augmented: the images have no manifest"),
        ({"config": {"lr": 0.1}}, "augmented: --lr was 0.1 here and 0.001 in the baseline"),
        ({"repeats": 3}, "DIFFERENT NUMBERS OF TRAINING RUNS: baseline 1, augmented 3"),
        ({"folds": 2, "contaminated": True}, "augmented: CONTAMINATED FOLDS"),
    ],
)
def test_red_flags(tmp_path, changes, said):
    assert said in flags_of(tmp_path, {"config": {"lr": 0.001}}, changes)
    clean = flags_of(tmp_path / "clean", {"config": {"lr": 0.001}}, {"config": {"lr": 0.001}})
    assert said not in clean


def test_a_flag_of_several_arms_is_said_once(tmp_path):
    flag = {"red_flags": ["3 missing or unreadable images were left out (--skip-bad-images)"],
            "skipped_images": {"count": 3, "image_ids": []}}  # fmt: skip
    said = flags_of(tmp_path, flag, flag)
    assert said.count("missing or unreadable") == 1 and "baseline, augmented: 3 missing" in said


def test_too_few_images_for_the_margin(two):
    result = compared(two)
    (flag,) = [flag for flag in result["flags"] if "in accuracy that is found" in flag]
    points = 100 * result["pairs"][0]["accuracy_minimum_detectable_difference"]
    assert "with 120 images" in flag and f"is {points:.1f} points; the margin is 1 point" in flag
    assert not any("TOO FEW" in flag for flag in compared(two, margin=0.5)["flags"])
    assert any(
        "one training run, so the intervals leave out the variance between seeds" in flag for flag in result["flags"]
    )


def test_too_many_pairs_for_the_resamples(tmp_path):
    for seed in range(4):
        write_arm(tmp_path, f"arm{seed}", fake_records(), seed=seed)
    assert any("6 pairs are too many for 200" in flag for flag in compared(tmp_path)["flags"])
    assert not any("too many" in flag for flag in compared(tmp_path, n_resamples=300)["flags"])


def test_flags_make_no_claim(tmp_path):
    said = flags_of(tmp_path, {"repeats": 2}, {"folds": 2, "contaminated": True, "optimizer_steps": 9})
    assert not any(word in said.lower() for word in ("better", "worse", "improv", "significan"))


def test_the_full_test_set_takes_seconds(tmp_path):
    import time

    records = fake_records(6671)
    for seed, name in enumerate(("baseline", "augmented")):
        write_arm(tmp_path, name, records, seed=seed)
    arms = find_arms(tmp_path)
    start = time.process_time()
    compare_arms(arms, n_resamples=2000)
    assert time.process_time() - start < 20
