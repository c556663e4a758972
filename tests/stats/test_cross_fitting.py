"""Cross-fitted scores: averages of folds, draws within folds, the spread between folds; coverage by simulation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from simulations.cross_fitting import Cell, World, find_truth, simulate, summarise
from stats.cross_fitting import (
    FoldRuns,
    cross_fitted_difference,
    fold_weights,
    pool_folds,
    score_folds,
    variance_between,
)
from stats.metric_registry import METRICS

AUROC, ACCURACY = METRICS["auroc"], METRICS["accuracy"]


def make_folds(sizes=(60, 40, 50), gain=(0.0, 0.0, 0.0), gans=1, runs=2, seed=0) -> list[FoldRuns]:
    """Arm b is better than arm a by ``gain`` of each fold; every fold has its own scale of probabilities."""
    rng, folds = np.random.default_rng(seed), []
    for number, (n, better) in enumerate(zip(sizes, gain, strict=True)):
        labels = (np.arange(n) % 3 == 0).astype(int)
        common = rng.normal(size=n)
        arms = {
            arm: 0.5 + 0.04 / (number + 1) * (
                0.6 * (2 * labels - 1) + common + skill * (2 * labels - 1) + 0.2 * rng.normal(size=(gans, runs, n))
            )
            for arm, skill in (("a", 0.0), ("b", better))
        }  # fmt: skip
        folds.append(FoldRuns(labels, [f"p{each // 2}" for each in range(n)], arms))
    return folds


def compare(folds: list[FoldRuns], metric=AUROC):
    a, b = (score_folds(metric, folds, arm, 500) for arm in "ab")
    return cross_fitted_difference(a, b, fold_weights(metric, folds), 1)


def test_folds_count_by_pairs_for_auroc_and_by_images_for_accuracy():
    folds = make_folds()
    positives = [20, 14, 17]
    pairs = [p * (n - p) for p, n in zip(positives, (60, 40, 50), strict=True)]
    np.testing.assert_allclose(fold_weights(AUROC, folds), np.array(pairs) / sum(pairs))
    np.testing.assert_allclose(fold_weights(ACCURACY, folds), np.array([60, 40, 50]) / 150)


def test_accuracy_is_that_of_all_images_and_auroc_the_mean_within_folds():
    folds = make_folds()
    means = [fold.probabilities["a"].mean(axis=(0, 1)) for fold in folds]
    labels = [fold.labels for fold in folds]
    accuracy = pool_folds(score_folds(ACCURACY, folds, "a", 50), fold_weights(ACCURACY, folds)).score
    assert accuracy == pytest.approx(np.mean((np.concatenate(means) >= 0.5) == np.concatenate(labels)))
    auroc = pool_folds(score_folds(AUROC, folds, "a", 50), fold_weights(AUROC, folds)).score
    within = [roc_auc_score(*each) for each in zip(labels, means, strict=True)]
    assert auroc == pytest.approx(np.average(within, weights=fold_weights(AUROC, folds)))


def test_scales_of_folds_do_not_matter_to_auroc():
    """Perfect within each fold; pooled raw scores would mix the folds."""
    folds = []
    for shift in (0.0, 0.3, 0.6):
        labels = np.array([0, 1] * 10)
        folds.append(FoldRuns(labels, [str(n) for n in range(20)], {"a": (shift + 0.1 * labels)[None, None]}))
    scores = [fold.probabilities["a"][0, 0] for fold in folds]
    assert roc_auc_score(np.concatenate([fold.labels for fold in folds]), np.concatenate(scores)) < 0.8
    assert pool_folds(score_folds(AUROC, folds, "a", 50), fold_weights(AUROC, folds)).score == 1.0


def test_a_true_gain_is_found_and_equal_arms_differ_by_nothing():
    found = compare(make_folds(sizes=(300, 300, 300), gain=(0.5, 0.5, 0.5)))
    assert found.test.ci95[0] > 0 and found.test.p < 0.01 and not found.widened
    folds = make_folds(runs=1)
    same = [FoldRuns(fold.labels, fold.patients, {"a": fold.probabilities["a"], "b": fold.probabilities["a"]})
            for fold in folds]  # fmt: skip
    assert compare(same).test.ci95 == [0.0, 0.0] and compare(same).test.p == 1.0


def test_folds_that_disagree_widen_the_interval_to_their_own_spread():
    alike, apart = (make_folds(sizes=(300, 300, 300), gain=gain) for gain in ((0.3,) * 3, (-0.6, 0.3, 1.6)))
    calm, wide = compare(alike), compare(apart)
    assert not calm.widened and wide.widened
    weights = fold_weights(AUROC, apart)
    expected = 2 * 1.96 * np.sqrt(variance_between(wide.by_fold, weights))
    assert wide.test.ci95[1] - wide.test.ci95[0] == pytest.approx(expected, rel=0.15)
    assert wide.test.difference == pytest.approx(weights @ wide.by_fold)


def test_the_spread_of_equal_folds_is_that_of_a_mean():
    values = [0.01, 0.03, -0.02, 0.0]
    assert variance_between(values, np.full(4, 0.25)) == pytest.approx(np.var(values, ddof=1) / 4)


def test_runs_of_one_gan_count_as_one_where_there_are_several():
    """Two runs of the same GAN that agree say nothing of another GAN."""
    folds = make_folds(gans=2, runs=1)
    doubled = [FoldRuns(f.labels, f.patients, {k: np.repeat(p, 2, axis=1) for k, p in f.probabilities.items()})
               for f in folds]  # fmt: skip
    once, twice = (score_folds(AUROC, each, "a", 200) for each in (folds, doubled))
    assert [s.run_variance for s in once] == [s.run_variance for s in twice] and once[0].run_variance > 0
    assert [s.freedom for s in twice] == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["better"])
def test_intervals_hold_the_truth_of_the_procedures(pair):
    """One cell of ``make simulations``, 300 studies; docs/comparison.md has all of them with 1,000."""
    world, cell = World(), Cell(pair, 600)
    rng = np.random.default_rng(11)
    truth = find_truth(world, cell, 1000, rng)
    found = summarise([simulate(world, cell, rng) for _ in range(300)], truth)
    for row in found.values():
        assert row["coverage"] >= 0.91 and row["relative_width"] < 1.4


def test_scores_of_models_that_know_other_labels_are_averaged_not_their_probabilities():
    folds = make_folds(gans=3, runs=2)
    found = score_folds(AUROC, folds, "a", 50, apart=True)
    for fold, score in zip(folds, found, strict=True):
        of_gans = [roc_auc_score(fold.labels, runs.mean(axis=0)) for runs in fold.probabilities["a"]]
        assert score.score == pytest.approx(np.mean(of_gans)) and score.run_variance > 0
    one = make_folds(gans=1)
    for apart, together in zip(*(score_folds(AUROC, one, "a", 50, apart=each) for each in (True, False)), strict=True):
        assert apart.score == together.score and apart.run_variance == together.run_variance > 0
