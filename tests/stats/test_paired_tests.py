import numpy as np
import pytest
from scipy.stats import binomtest, norm, ttest_rel
from sklearn.metrics import roc_auc_score

from stats import metrics
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
        z = (expected_areas[1] - expected_areas[0]) / np.sqrt(
            expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
        )
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
    assert result["ci95"] == pytest.approx(
        [0.02 - 2.776445 * 0.00474342, 0.02 + 2.776445 * 0.00474342], abs=1e-7
    )
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


# --- the bootstrap ---------------------------------------------------------------------------------
def outcome_of(labels, a, b, patients, statistic="accuracy", n_resamples=2000):
    draws = metrics.PatientDraws(patients, n_resamples, seed=1)
    resampled = [pt.resample(draws, statistic, labels, np.atleast_2d(runs)) for runs in (a, b)]
    same = np.array_equal(a, b)
    return pt.bootstrap_test(*resampled, n_patients=draws.n_patients, same=same, seed=2)


def test_accuracy_difference_has_its_closed_form():
    labels, (a, b) = made_up(2000, 5)
    _, only_a, only_b = pt.mcnemar(labels, a, b)
    result = outcome_of(labels, a, b, np.arange(2000))
    expected = (only_b - only_a) / 2000
    error = np.sqrt((only_a + only_b) / 2000 - expected**2) / np.sqrt(2000)
    assert result.difference == pytest.approx(expected)
    assert result.ci95 == pytest.approx([expected - 1.96 * error, expected + 1.96 * error], abs=0.15 * error)
    assert result.detectable(1) == pytest.approx(2.8016 * error, rel=0.05)
    # Six pairs: a normal quantile at 1 - .05 / 12, 2.6383, instead of 1.96.
    assert result.detectable(6) / result.detectable(1) == pytest.approx((2.6383 + 0.8416) / 2.8016, rel=1e-4)
    assert result.p == pytest.approx(2 * norm.sf(expected / error), abs=0.02)


def test_auroc_difference_agrees_with_delong():
    labels, (a, b) = made_up(2000, 6)
    (area_a, area_b), covariance = pt.delong(labels, np.stack([a, b]))
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = outcome_of(labels, a, b, np.arange(2000), "auroc")
    assert result.difference == pytest.approx(area_b - area_a)
    assert result.detectable(1) == pytest.approx(2.8016 * error, rel=0.06)


def test_patients_of_many_images_widen_the_interval():
    labels, (a, b) = made_up(200, 7)
    single = outcome_of(labels, a, b, np.arange(200))
    repeated = outcome_of(*(np.repeat(x, 9) for x in (labels, a, b)), np.repeat(np.arange(200), 9))
    assert repeated.ci95 == pytest.approx(single.ci95, abs=1e-9)


def test_p_is_at_most_five_percent_where_the_interval_excludes_zero():
    rng = np.random.default_rng(8)
    seen = set()
    for _ in range(300):
        values = np.round(rng.normal(rng.normal(0, 2), 1, 199), rng.integers(1, 4))
        low, high = metrics.percentile_interval(values)
        excluded = low > 0 or high < 0
        assert (pt.two_sided_p(values) <= 0.05) == excluded
        seen.add(excluded)
    assert seen == {True, False}


def test_predictors_that_never_disagree_are_no_proof_of_equivalence():
    labels = np.repeat([0, 1], 30)
    a, b = labels * 0.8 + 0.1, labels * 0.6 + 0.2  # both all right, not the same
    result = outcome_of(labels, a, b, np.arange(60))
    reach = binomtest(0, 60).proportion_ci(0.95, method="exact").high
    assert result.ci95 == pytest.approx([-reach, reach]) and result.p == 1.0 and result.detectable(1) is None
    assert pt.verdict(0.0, result.ci95, 1.0, 0.01) == "no evidence of a difference"
    copy = outcome_of(labels, a, a, np.arange(60))
    assert copy.ci95 == [0, 0] and pt.verdict(0.0, copy.ci95, 1.0, 0.01) == "equivalent within 1 point"
    opposite = outcome_of(labels, a, 1 - a, np.arange(60))
    assert opposite.difference == -1 and opposite.ci95 == pytest.approx([-1, -1 + reach])
    assert opposite.p < 0.01


def test_one_class_gives_no_auroc():
    result = outcome_of(np.zeros(20), np.linspace(0, 1, 20), np.linspace(1, 0, 20), np.arange(20), "auroc")
    assert (result.difference, result.ci95, result.p, result.error) == (None, None, None, None)
    assert pt.verdict(None, None, None, 0.01) == "no evidence of a difference"


class TestTrainingRuns:
    def test_one_run_adds_nothing(self):
        labels, (a, b) = made_up(300, 9)
        draws = metrics.PatientDraws(np.arange(300), 200, seed=1)
        resampled = pt.difference_of(*(pt.resample(draws, "auroc", labels, p[None]) for p in (a, b)))
        expected = draws.scores("auroc", labels, b) - draws.scores("auroc", labels, a)
        assert resampled.freedom == 0
        assert pt.resampled_values(resampled, seed=1) == pytest.approx(expected)

    @pytest.mark.parametrize("n_runs", [2, 3, 5, 9])
    def test_variance_of_a_mean_over_runs(self, n_runs):
        """Runs that differ by a shift alone, on so many images that chance is nothing: the variance found
        is on average that of the score under a mean of ``n_runs`` shifts."""
        rng = np.random.default_rng(10)
        n, spread = 20_000, 0.2
        labels = np.arange(n) % 2
        latent = 0.5 * (2 * labels - 1) + rng.normal(size=n)
        draws = metrics.PatientDraws(np.arange(n), 2, seed=1)
        found, scores = [], []
        for _ in range(60):
            runs = 0.5 + 0.05 * (latent - 0.8 + rng.normal(0, spread, (n_runs, 1)))
            resampled = pt.resample(draws, "accuracy", labels, runs)
            assert resampled.freedom == n_runs - 1
            found.append(resampled.run_variance)
            scores.append(resampled.score)
        assert np.mean(found) == pytest.approx(np.var(scores), rel=0.5)

    def test_runs_widen_the_interval(self):
        rng = np.random.default_rng(11)
        labels, (a, b) = made_up(400, 12)
        shifts = np.array([[-0.15], [0.0], [0.15]])
        runs_a, runs_b = (np.clip(p + shifts + rng.normal(0, 0.02, (3, 400)), 0, 1) for p in (a, b))
        with_runs = outcome_of(labels, runs_a, runs_b, np.arange(400))
        means = outcome_of(labels, runs_a.mean(axis=0), runs_b.mean(axis=0), np.arange(400))
        assert with_runs.difference == pytest.approx(means.difference)
        assert np.ptp(with_runs.ci95) > 1.2 * np.ptp(means.ci95)
        assert with_runs.detectable(1) > means.detectable(1)

    def test_many_runs_are_left_out_by_halves_at_random(self):
        assert pt._subsets(3, 2) == [(0, 1), (0, 2), (1, 2)]
        many = pt._subsets(40, 20)
        assert len(many) == pt.MOST_SUBSETS and all(len(set(subset)) == 20 for subset in many)
        assert many == pt._subsets(40, 20)


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
    assert pt.verdict(difference, ci95, p, margin) == expected
