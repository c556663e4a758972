import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from fake_results import fake_probabilities, fake_records
from stats import calibration, metrics
from stats.metric_registry import classification_metrics
from stats.paired_tests import delong_interval
from stats.subgroups import subgroup_rows


def too_bold(n: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities, and those probabilities with logits times ``factor``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(int)
    return labels, 1 / (1 + np.exp(-factor * logits))


# --- temperature -----------------------------------------------------------------------------------
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_temperature_undoes_a_factor_of_the_logits(factor):
    labels, probabilities = too_bold(20_000, factor)
    assert calibration.fit_temperature(labels, probabilities) == pytest.approx(factor, rel=0.05)


def test_temperature_is_that_of_a_logistic_regression():
    """1 / T is the slope of an unpenalised logistic regression on the logits without an intercept."""
    labels, probabilities = too_bold(500, 2.0, seed=1)
    logits = np.log(probabilities / (1 - probabilities))[:, None]
    model = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10).fit(logits, labels)
    temperature = calibration.fit_temperature(labels, probabilities)
    assert 1 / temperature == pytest.approx(model.coef_[0, 0], rel=1e-4)


def test_temperature_mends_calibration_and_leaves_the_order():
    labels, probabilities = too_bold(4000, 3.0)
    unseen_labels, unseen = too_bold(4000, 3.0, seed=9)
    scaled = calibration.apply_temperature(unseen, calibration.fit_temperature(labels, probabilities))
    before = calibration.calibration_scores(unseen_labels, unseen)
    after = calibration.calibration_scores(unseen_labels, scaled)
    assert all(after[name] < before[name] for name in ("brier", "ece", "log_loss"))
    assert metrics.auroc(unseen_labels, scaled) == pytest.approx(metrics.auroc(unseen_labels, unseen))
    assert metrics.accuracy(unseen_labels, scaled) == metrics.accuracy(unseen_labels, unseen)


def test_certain_probabilities_stay_finite():
    labels, probabilities = np.array([0, 0, 1, 1, 1]), np.array([0.0, 0.2, 1.0, 0.7, 0.0])
    scaled = calibration.apply_temperature(probabilities, calibration.fit_temperature(labels, probabilities))
    scores = calibration.calibration_scores(labels, scaled)
    assert np.isfinite(scaled).all() and all(np.isfinite(value) for value in scores.values())


# --- thresholds ------------------------------------------------------------------------------------
def test_thresholds_by_trying_all_of_them():
    rng = np.random.default_rng(2)
    for _ in range(20):
        labels = np.concatenate([[0, 1], rng.integers(0, 2, 60)])
        probabilities = np.round(np.clip(0.3 * labels + 0.6 * rng.random(62), 0, 1), 2)
        chosen = calibration.choose_thresholds(labels, probabilities)
        rows = {t: calibration.at_threshold(labels, probabilities, t) for t in np.unique(probabilities)}
        best = max(row["sensitivity"] + row["specificity"] for row in rows.values())
        youden = rows[chosen["youden"]]
        assert youden["sensitivity"] + youden["specificity"] == pytest.approx(best)
        enough = [t for t, row in rows.items() if row["sensitivity"] >= 0.9]
        assert chosen["sensitivity_90"] == max(enough) and chosen["fixed"] == 0.5


def test_a_sensitivity_of_exactly_ninety_percent_is_enough():
    labels, probabilities = np.repeat([1, 0], 10), np.linspace(0.95, 0.0, 20)
    assert calibration.choose_thresholds(labels, probabilities)["sensitivity_90"] == probabilities[8]


def test_row_at_a_threshold_by_hand():
    labels, probabilities = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.6, 0.2, 0.6, 0.1])
    row = calibration.at_threshold(labels, probabilities, 0.6)
    assert (row["accuracy"], row["sensitivity"], row["specificity"]) == (3 / 5, 2 / 3, 1 / 2)
    assert (row["ppv"], row["npv"]) == (2 / 3, 1 / 2)
    wilson = binomtest(2, 3).proportion_ci(method="wilson")
    assert row["sensitivity_ci95_image_level"] == pytest.approx([wilson.low, wilson.high])
    nobody = calibration.at_threshold(np.zeros(3), np.zeros(3), 0.5)
    assert nobody["sensitivity"] is nobody["ppv"] is nobody["sensitivity_ci95_image_level"] is None
    assert nobody["npv"] == 1.0


# --- subgroups -------------------------------------------------------------------------------------
@pytest.fixture
def predictions() -> pd.DataFrame:
    records = fake_records(400)
    return records.assign(probability=fake_probabilities(records["label"].to_numpy(), 1.0, 0)[0])


def by_name(rows: list[dict]) -> dict[tuple[str, str], dict]:
    return {(row["group"], row["value"]): row for row in rows}


def test_parts_of_the_test_images_and_their_scores(predictions):
    rows = by_name(subgroup_rows(predictions))
    assert list(rows) == [
        ("view", "AP"), ("view", "PA"), ("sex", "F"), ("sex", "M"), ("age", "under 20"),
        ("age", "20 to 39"), ("age", "40 to 59"), ("age", "60 and over"), ("class", "Lung Opacity"),
        ("class", "No Lung Opacity / Not Normal"), ("class", "Normal"),
    ]  # fmt: skip
    for group in ("view", "sex", "age", "class"):
        assert sum(row["n_images"] for (kind, _), row in rows.items() if kind == group) == 400
    row, part = rows["view", "AP"], predictions[predictions["view"] == "AP"]
    labels, probabilities = part["label"].to_numpy(), part["probability"].to_numpy()
    scores = classification_metrics(labels, probabilities)
    for name in ("accuracy", "auroc", "sensitivity", "specificity"):
        assert row[name] == pytest.approx(scores[name])
        assert row[f"{name}_ci95_image_level"][0] < row[name] < row[f"{name}_ci95_image_level"][1]
    assert row["auroc_ci95_image_level"] == delong_interval(labels, probabilities)
    assert row["n_patients"] == part["patient"].nunique() and row["n_positive"] == labels.sum()


def test_ages_fall_into_one_band_each(predictions):
    ages = np.array([0, 19, 19.9, 20, 39, 40, 59, 60, 101, np.nan])
    rows = by_name(subgroup_rows(predictions.iloc[:10].assign(age=ages)))
    counts = {value: row["n_images"] for (group, value), row in rows.items() if group == "age"}
    assert counts == {"under 20": 3, "20 to 39": 2, "40 to 59": 2, "60 and over": 2}


def test_original_classes_have_the_rate_that_applies(predictions):
    rows = by_name(subgroup_rows(predictions))
    opacity, normal = rows["class", "Lung Opacity"], rows["class", "Normal"]
    assert opacity["sensitivity"] is not None and normal["specificity"] is not None
    for row, other in ((opacity, "specificity"), (normal, "sensitivity")):
        assert row["accuracy"] is row["auroc"] is row[other] is row[f"{other}_ci95_image_level"] is None
    part = predictions[predictions["class"] == "Normal"]
    assert normal["specificity"] == pytest.approx((part["probability"] < 0.5).mean())


def test_small_parts_give_none_and_unknown_ones_no_row(predictions):
    few = predictions.assign(view="PA", sex="")
    few.loc[:8, "view"] = "AP"
    rows = by_name(subgroup_rows(few))
    row = rows["view", "AP"]
    assert row["n_images"] == 9
    for name in ("accuracy", "auroc"):
        assert row[name] is None and row[f"{name}_ci95_image_level"] is None
    assert not any(group == "sex" for group, _ in rows)
    assert subgroup_rows(predictions[["image_id", "patient", "label", "probability"]]) == []


# --- resamples -------------------------------------------------------------------------------------
def test_weighted_choices_are_those_of_repeated_images():
    rng = np.random.default_rng(5)
    labels = (rng.random(60) < 0.4).astype(int)
    probabilities = np.round(1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(0, 1, 60)))), 2)  # with ties
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=20).astype(float)
    chosen = calibration.choose_thresholds_weighted(labels, probabilities, weights)
    temperatures = calibration.fit_temperatures(labels, probabilities, weights)
    for row, counts in enumerate(weights.astype(int)):
        again = np.repeat(labels, counts), np.repeat(probabilities, counts)
        expected = calibration.choose_thresholds(*again)
        assert {rule: chosen[rule][row] for rule in chosen} == {rule: expected[rule] for rule in chosen}
        assert temperatures[row] == pytest.approx(calibration.fit_temperature(*again), rel=2e-3)


def test_resamples_of_one_class_choose_nothing():
    labels, probabilities = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9])
    weights = np.array([[2.0, 2, 0, 0], [0, 0, 2, 2], [1, 1, 1, 1]])
    for values in calibration.choose_thresholds_weighted(labels, probabilities, weights).values():
        assert np.isnan(values).tolist() == [True, True, False]
