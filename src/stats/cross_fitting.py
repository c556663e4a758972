"""Scores of cross-fitted procedures: every image is predicted once by models that never saw its patient.

The estimand is the expected score of a procedure that learns from n (K - 1) / K images, over training sets, seeds
and GANs; a difference of two procedures likewise. AUROC is computed within folds and averaged by their numbers
of pairs: scores of models of different folds are on different scales, so that one AUROC over all of them would be
biased. Patients are drawn within folds; what other seeds and GANs change is added fold by fold.

The folds' training sets overlap, which no draw of test patients shows. How well the intervals hold all the same:
docs/comparison.md, "Cross-fitting"; ``make simulations`` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stats.bootstrap import (
    RESAMPLES,
    PatientDraws,
    ResampledScore,
    ScoreDifference,
    percentile_interval,
    resample_score,
    resample_scores,
    two_sided_p,
)
from stats.metric_registry import Metric
from utils import derive_seed


@dataclass(frozen=True)
class FoldRuns:
    """Predictions of one outer fold: ``labels`` 0/1 [N], ``patients`` [N] and, of each arm, probabilities [G, R, N].

    G GANs, R training runs with each one's images; an arm without a GAN has as many, so that arms are alike.
    """

    labels: np.ndarray
    patients: Sequence[str]
    probabilities: dict[str, np.ndarray]


@dataclass(frozen=True)
class CrossFittedDifference:
    """Difference b minus a of two procedures. ``test``: the pooled difference, its interval, p and standard error.

    ``by_fold``: differences [K]. ``widened``: the folds differ by more than patients and runs explain, so that the
    interval has the width that their spread asks for. ``values``: its bootstrap distribution [n_resamples]; [] where it
    does not vary.
    """

    test: ScoreDifference
    by_fold: list[float]
    widened: bool
    values: np.ndarray = field(default_factory=lambda: np.empty(0))


def fold_weights(metric: Metric, folds: Sequence[FoldRuns]) -> np.ndarray:
    """Return the weight of each fold's score, summing to 1: by pairs of a positive and a negative, or by images.

    The accuracy of all folds together is this mean of theirs; the AUROC is averaged, never pooled.
    """
    sizes = [len(fold.labels) for fold in folds]
    if metric.of_pairs:
        positives = [int(fold.labels.sum()) for fold in folds]
        sizes = [p * (n - p) for p, n in zip(positives, sizes, strict=True)]
    return np.array(sizes) / sum(sizes)


def score_folds(
    metric: Metric, folds: Sequence[FoldRuns], arm: str, n_resamples: int = RESAMPLES, seed: int = 42,
    apart: bool = False,
) -> list[ResampledScore]:  # fmt: skip
    """Score ``arm`` on draws of the patients of each fold; the draws are the same for all arms.

    With several GANs per fold the mean over each one's runs counts as one run: GANs vary, and runs within them.
    ``apart``: the scores of these means are averaged, not their probabilities; for models of different GANs that know
    the labels of different patients, which an average of probabilities would pool.
    """
    found = []
    for number, fold in enumerate(folds, start=1):
        runs = fold.probabilities[arm]
        units = runs.mean(axis=1) if len(runs) > 1 else runs[0]  # [GANs or runs, N]
        draws = PatientDraws(fold.patients, n_resamples, derive_seed(seed, "outer fold", number))
        score = _score_apart if apart and len(runs) > 1 else resample_score
        found.append(score(draws, metric, fold.labels, units))
    return found


def _score_apart(draws: PatientDraws, metric: Metric, labels: np.ndarray, units: np.ndarray) -> ResampledScore:
    """Average the scores of ``units``, probabilities [G, N]; what a unit gives, [G], says which one it is."""

    def statistic(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
        scores = [share * metric.on_weights(labels, own, weights) for share, own in zip(shares, units, strict=True)]
        return np.sum(scores, axis=0)[:, None]

    return resample_scores(draws, statistic, np.eye(len(units)))[0]


def pool_folds(scores: Sequence[ResampledScore], weights: np.ndarray) -> ResampledScore:
    """Average scores of folds, draw by draw; a draw in which a fold has one class only is undefined."""
    squared = weights**2
    return ResampledScore(
        score=float(weights @ [score.score for score in scores]),
        patients=weights @ np.stack([score.patients for score in scores]),
        run_variance=float(squared @ [score.run_variance for score in scores]),
        chance=float(squared @ [score.chance for score in scores]),
        freedom=sum(score.freedom for score in scores),
    )


def cross_fitted_difference(
    a: Sequence[ResampledScore], b: Sequence[ResampledScore], weights: np.ndarray, seed: int
) -> CrossFittedDifference:
    """Compare two arms of which ``score_folds`` returned ``a`` and ``b``; ``weights`` of the folds, summing to 1.

    The variance is that of patients and runs, or that between the folds if this is greater: with one GAN per
    fold, the effect of its seed shows nowhere else.
    """
    of_folds = [after.minus(before) for before, after in zip(a, b, strict=True)]
    both = pool_folds(of_folds, weights)
    by_fold = [score.score for score in of_folds]
    values = both.distribution(seed)
    if not len(values) or not math.isfinite(both.score):
        return CrossFittedDifference(ScoreDifference(None, None, None, None), by_fold, False)
    error, between = both.standard_error, math.sqrt(variance_between(by_fold, weights))
    if max(error, between) < 1e-12:  # the arms predict the same
        return CrossFittedDifference(ScoreDifference(both.score, [both.score] * 2, 1.0, None), by_fold, False)
    widened = between > error
    if widened and error > 1e-12:
        values = both.score + between / error * (values - both.score)
    elif widened:
        values = both.score + between * np.random.default_rng(seed).standard_normal(len(values))
    test = ScoreDifference(both.score, percentile_interval(values), two_sided_p(values), max(error, between))
    return CrossFittedDifference(test, by_fold, widened, values)


def variance_between(by_fold: Sequence[float], weights: np.ndarray) -> float:
    """Estimate the variance of the weighted mean of ``by_fold`` from the spread of the K folds."""
    k, values = len(by_fold), np.array(by_fold)
    return float((weights**2 * (values - weights @ values) ** 2).sum() * k / (k - 1))
