import numpy as np
import pytest
from scipy.stats import binomtest, norm

from stats import bootstrap as bs
from stats import metrics
from stats import paired_tests as pt
from stats.metric_registry import METRICS, compared_metrics


def made_up(n: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and the probabilities [2, n] of two correlated predictors."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    shared, own = rng.normal(size=n), rng.normal(size=(2, n))
    scores = 1 / (1 + np.exp(-(np.array([[0.8], [1.1]]) * (2 * labels - 1) + shared + 0.6 * own)))
    return labels, np.round(scores, 1) if ties else scores


# --- draws of patients -----------------------------------------------------------------------------
def interval_of(labels, probabilities, patients, metric: str, n_resamples: int = 2000) -> list[float]:
    draws = bs.PatientDraws(patients, n_resamples)
    return bs.percentile_interval(draws.scores(METRICS[metric], labels, probabilities))


class TestClusterBootstrap:
    def test_resamples_keep_patients_whole(self):
        patients = np.array(["a", "b", "a", "c", "b", "a"])
        draws = bs.PatientDraws(patients, 1000, seed=1)
        weights = draws.weights()
        assert (draws.counts.sum(axis=1) == 3).all()
        for patient in "abc":
            of_patient = weights[:, patients == patient]
            assert (of_patient == of_patient[:, :1]).all()
            # How often it is drawn is binomial, 3 draws of 1 in 3: mean 1, variance 2/3.
            assert of_patient[:, 0].mean() == pytest.approx(1, abs=0.1)
            assert of_patient[:, 0].var() == pytest.approx(2 / 3, abs=0.1)

    def test_scores_are_those_of_the_repeated_rows(self):
        rng = np.random.default_rng(10)
        labels, probabilities = rng.integers(0, 2, 60), np.round(rng.random(60), 1)
        patients = rng.integers(0, 25, 60)
        draws = bs.PatientDraws(patients, 40, seed=3)
        for metric in compared_metrics():
            values = draws.scores(metric, labels, probabilities)
            for value, weights in zip(values, draws.weights(), strict=True):
                rows = np.repeat(np.arange(60), weights.astype(int))
                assert value == pytest.approx(metric.value(labels[rows], probabilities[rows]))

    def test_blocks_make_no_difference(self, monkeypatch):
        rng = np.random.default_rng(11)
        labels, probabilities = rng.integers(0, 2, 50), rng.random(50)
        whole = interval_of(labels, probabilities, np.arange(50), "auroc", 101)
        monkeypatch.setattr(bs, "BLOCK_ELEMENTS", 170)
        assert interval_of(labels, probabilities, np.arange(50), "auroc", 101) == whole

    def test_with_one_image_each_it_is_the_ordinary_bootstrap(self):
        rng = np.random.default_rng(2)
        labels = rng.integers(0, 2, 400)
        probabilities = np.clip(labels * 0.3 + rng.random(400) * 0.7, 0, 1)
        low, high = interval_of(labels, probabilities, np.arange(400), "accuracy")
        p = metrics.accuracy(labels, probabilities)
        half = 1.96 * np.sqrt(p * (1 - p) / 400)
        assert low == pytest.approx(p - half, abs=0.012) and high == pytest.approx(p + half, abs=0.012)

    def test_images_of_one_patient_count_as_one(self):
        """Every image repeated nine times in its patient: the interval must not shrink."""
        rng = np.random.default_rng(3)
        labels = rng.integers(0, 2, 100)
        probabilities = np.clip(labels * 0.3 + rng.random(100) * 0.7, 0, 1)
        single = interval_of(labels, probabilities, np.arange(100), "accuracy")
        patients = np.repeat(np.arange(100), 9)
        repeated = interval_of(np.repeat(labels, 9), np.repeat(probabilities, 9), patients, "accuracy")
        assert repeated == pytest.approx(single, abs=1e-9)

    def test_paired_difference(self):
        rng = np.random.default_rng(4)
        labels = rng.integers(0, 2, 300)
        a = rng.random(300)
        better = np.where(labels == 1, 0.8, 0.2)
        result = bs.bootstrap_difference(labels, a, better, np.arange(300), "accuracy")
        assert result["difference"] == pytest.approx(1 - metrics.accuracy(labels, a))
        assert result["ci95"][0] > 0.3
        same = bs.bootstrap_difference(labels, a, a, np.arange(300), "auroc")
        assert same == {"difference": 0.0, "ci95": [0.0, 0.0]}


def test_percentile_interval_takes_whole_resamples():
    """Of 2,000 the 50th lowest and highest: (2000 + 1) * 0.025 = 50.025."""
    values = np.random.default_rng(12).permutation(2000).astype(float)
    assert bs.percentile_interval(values) == [49.0, 1950.0]
    values[values < 10] = np.nan
    assert bs.percentile_interval(values) == [58.0, 1951.0]
    assert np.isnan(bs.percentile_interval(np.array([np.nan]))).all()


# --- the bootstrap ---------------------------------------------------------------------------------
def outcome_of(labels, a, b, patients, statistic="accuracy", n_resamples=2000):
    draws = bs.PatientDraws(patients, n_resamples, seed=1)
    resampled = [bs.resample_score(draws, METRICS[statistic], labels, np.atleast_2d(runs)) for runs in (a, b)]
    same = np.array_equal(a, b)
    return bs.bootstrap_test(*resampled, n_patients=draws.n_patients, same=same, seed=2)


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
        low, high = bs.percentile_interval(values)
        excluded = low > 0 or high < 0
        assert (bs.two_sided_p(values) <= 0.05) == excluded
        seen.add(excluded)
    assert seen == {True, False}


def test_predictors_that_never_disagree_are_no_proof_of_equivalence():
    labels = np.repeat([0, 1], 30)
    a, b = labels * 0.8 + 0.1, labels * 0.6 + 0.2  # both all right, not the same
    result = outcome_of(labels, a, b, np.arange(60))
    reach = binomtest(0, 60).proportion_ci(0.95, method="exact").high
    assert result.ci95 == pytest.approx([-reach, reach]) and result.p == 1.0 and result.detectable(1) is None
    assert pt.decide_verdict(0.0, result.ci95, 1.0, 0.01) == "no evidence of a difference"
    copy = outcome_of(labels, a, a, np.arange(60))
    assert copy.ci95 == [0, 0] and pt.decide_verdict(0.0, copy.ci95, 1.0, 0.01) == "equivalent within 1 point"
    opposite = outcome_of(labels, a, 1 - a, np.arange(60))
    assert opposite.difference == -1 and opposite.ci95 == pytest.approx([-1, -1 + reach])
    assert opposite.p < 0.01


def test_one_class_gives_no_auroc():
    result = outcome_of(np.zeros(20), np.linspace(0, 1, 20), np.linspace(1, 0, 20), np.arange(20), "auroc")
    assert (result.difference, result.ci95, result.p, result.error) == (None, None, None, None)
    assert pt.decide_verdict(None, None, None, 0.01) == "no evidence of a difference"


class TestTrainingRuns:
    def test_one_run_adds_nothing(self):
        labels, (a, b) = made_up(300, 9)
        draws = bs.PatientDraws(np.arange(300), 200, seed=1)
        first, second = (bs.resample_score(draws, METRICS["auroc"], labels, p[None]) for p in (a, b))
        resampled = second.minus(first)
        expected = draws.scores(METRICS["auroc"], labels, b) - draws.scores(METRICS["auroc"], labels, a)
        assert resampled.freedom == 0
        assert resampled.distribution(seed=1) == pytest.approx(expected)

    @pytest.mark.parametrize("n_runs", [2, 3, 5, 9])
    def test_variance_of_a_mean_over_runs(self, n_runs):
        """Runs that differ by a shift alone, on so many images that chance is nothing: the variance found
        is on average that of the score under a mean of ``n_runs`` shifts."""
        rng = np.random.default_rng(10)
        n, spread = 20_000, 0.2
        labels = np.arange(n) % 2
        latent = 0.5 * (2 * labels - 1) + rng.normal(size=n)
        draws = bs.PatientDraws(np.arange(n), 2, seed=1)
        found, scores = [], []
        for _ in range(60):
            runs = 0.5 + 0.05 * (latent - 0.8 + rng.normal(0, spread, (n_runs, 1)))
            resampled = bs.resample_score(draws, METRICS["accuracy"], labels, runs)
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
        assert bs._subsets(3, 2) == [(0, 1), (0, 2), (1, 2)]
        many = bs._subsets(40, 20)
        assert len(many) == bs.MOST_SUBSETS and all(len(set(subset)) == 20 for subset in many)
        assert many == bs._subsets(40, 20)
