import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_rel
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from stats import paired_tests as pt


def made_up(n: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and the probabilities [2, n] of two correlated predictors."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    shared, own = rng.normal(size=n), rng.normal(size=(2, n))
    scores = 1 / (1 + np.exp(-(np.array([[0.8], [1.1]]) * (2 * labels - 1) + shared + 0.6 * own)))
    return labels, np.round(scores, 1) if ties else scores


# --- DeLong ----------------------------------------------------------------------------------------
def brute_force_delong(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs and covariance from every pair of a positive and a negative (DeLong 1988, equations 3 to 6)."""
    of_positives, of_negatives = [], []
    for row in scores:
        positives, negatives = row[labels == 1], row[labels == 0]
        wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
        of_positives.append(wins.mean(axis=1))
        of_negatives.append(wins.mean(axis=0))
    x, y = np.array(of_positives), np.array(of_negatives)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    m, n = x.shape[1], y.shape[1]
    return np.array(of_positives).mean(axis=1), x @ x.T / (m - 1) / m + y @ y.T / (n - 1) / n


@pytest.mark.parametrize("ties", [False, True])
def test_delong_agrees_with_all_pairs(ties):
    for seed in range(5):
        labels, scores = made_up(90, seed, ties)
        areas, covariance = pt.delong(labels, scores)
        expected_areas, expected = brute_force_delong(labels, scores)
        assert areas == pytest.approx(expected_areas)
        assert areas == pytest.approx([roc_auc_score(labels, row) for row in scores])
        assert covariance == pytest.approx(expected)
        z = (expected_areas[1] - expected_areas[0]) / np.sqrt(expected[0, 0] + expected[1, 1] - 2 * expected[0, 1])
        assert pt.delong_p(labels, *scores) == pytest.approx(2 * norm.cdf(-abs(z)))


def test_delong_interval_is_symmetric_in_logits():
    labels, scores = made_up(200, 1)
    (area, _), covariance = pt.delong(labels, scores)
    low, high = pt.delong_interval(labels, scores[0])
    error = np.sqrt(covariance[0, 0]) / (area * (1 - area))
    expected = np.log(area / (1 - area)) + np.array([-1.959964, 1.959964]) * error
    assert np.log([low / (1 - low), high / (1 - high)]) == pytest.approx(expected, abs=1e-5)


def test_perfect_separation_still_has_an_interval():
    for n in (10, 100):
        labels = np.repeat([0, 1], n)
        low, high = pt.delong_interval(labels, labels / 2)
        assert high == 1.0 and 0.5 < low < 1
        # The lower end is the area whose own Hanley-McNeil error puts 1 at 1.96 of it (by a grid).
        grid = np.linspace(0.5, 0.99999, 200_000)
        spread = 1 + (n - 1) * ((1 - grid) / (2 - grid) + grid / (1 + grid))
        distance = (1 - grid) / np.sqrt(grid * (1 - grid) * spread) * n
        assert low == pytest.approx(grid[np.argmin(np.abs(distance - 1.959964))], abs=1e-4)
        assert pt.delong_interval(labels, 1 - labels) == pytest.approx([0, 1 - low], abs=1e-6)
    assert pt.delong_p(labels, labels / 2, labels / 3) == 1.0
    assert pt.delong_p(labels, labels / 2, 1 - labels) == 0.0


def test_one_image_of_a_class_is_too_few():
    labels = np.array([0, 0, 0, 1])
    assert pt.delong_interval(labels, np.arange(4) / 4) == [None, None]
    assert pt.delong_p(labels, np.arange(4) / 4, np.ones(4)) is None


# --- McNemar, folds, Holm --------------------------------------------------------------------------
def test_mcnemar_is_the_binomial_test_of_the_discordant():
    labels, (a, b) = made_up(300, 3)
    p, only_a, only_b = pt.mcnemar(labels, a, b)
    right_a, right_b = ((score >= 0.5) == labels for score in (a, b))
    assert (only_a, only_b) == ((right_a & ~right_b).sum(), (~right_a & right_b).sum())
    assert p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert pt.mcnemar(labels, a, a) == (1.0, 0, 0)


def test_nadeau_bengio_by_hand():
    """Five folds of 180 of 900 images: the variance's factor is 1/5 + 180/720 = 0.45, 1.5 times the naive
    standard error; t = 0.02 / sqrt(0.45 * 0.00005) = 4.2164 with 4 degrees of freedom."""
    result = pt.nadeau_bengio([0.01, 0.02, 0.03, 0.02, 0.02], [180] * 5)
    assert result["difference"] == pytest.approx(0.02)
    assert result["p"] == pytest.approx(0.013517, abs=1e-6)
    assert result["ci95"] == pytest.approx([0.02 - 2.776445 * 0.00474342, 0.02 + 2.776445 * 0.00474342], abs=1e-7)
    rng = np.random.default_rng(1)
    a, b = rng.random(5), rng.random(5)
    naive = ttest_rel(b, a)
    corrected = pt.nadeau_bengio(b - a, [180] * 5)
    width = naive.confidence_interval().high - naive.confidence_interval().low
    assert corrected["ci95"][1] - corrected["ci95"][0] == pytest.approx(1.5 * width)
    assert pt.nadeau_bengio([0.01] * 5, [180] * 5) == {"difference": 0.01, "ci95": None, "p": None}


def test_holm_by_hand():
    assert pt.holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert pt.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert pt.holm([]) == [] and pt.holm([None]) == [None]


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for n in range(1, 12):
        p_values = [*rng.random(n) ** 3, 0.04, 0.04]
        assert pt.holm(p_values) == multipletests(p_values, method="holm")[1].tolist()


# --- the verdict -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("difference", "ci95", "p", "margin", "expected"),
    [
        (0.002, [-0.005, 0.009], 0.4, 0.01, "equivalent within 1 point"),
        (0.006, [0.003, 0.009], 0.001, 0.01, "equivalent within 1 point"),  # equivalence comes first
        (0.006, [0.003, 0.01], 0.001, 0.01, "better"),
        (-0.05, [-0.08, -0.02], 0.03, 0.01, "worse"),
        (0.05, [0.001, 0.1], 0.06, 0.01, "no evidence of a difference"),  # adjusted p decides
        (0.05, [-0.01, 0.1], 0.2, 0.01, "no evidence of a difference"),
        (0.0, [-0.015, 0.015], 1.0, 0.02, "equivalent within 2 points"),
        (0.0, [-0.004, 0.004], 1.0, 0.005, "equivalent within 0.5 points"),
        (0.0, [-0.02, 0.02], 1.0, 0.0, "no evidence of a difference"),
    ],
)
def test_verdict_is_one_of_four_by_the_rule(difference, ci95, p, margin, expected):
    assert pt.decide_verdict(difference, ci95, p, margin) == expected
