"""The one bootstrap of the project: patients drawn with replacement, each with all of its images.

``PatientDraws`` draws the patients once. A statistic is a function of the weights of the images, [R, N] ->
[R]; everything computed on the same draws is paired, so that what is common to two predictors cancels in
their difference. With several training runs per arm, the effect of other seeds is added (``ResampledScore``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, TypedDict

import numpy as np
from scipy.stats import norm, t

from stats.metric_registry import METRICS, Metric
from stats.metrics import CONFIDENCE
from stats.paired_tests import ALPHA, Z

RESAMPLES = 2000
POWER = 0.80
BLOCK_ELEMENTS = 500_000  # weights held at once while resampling: 4 MB
MOST_SUBSETS = 20  # of training runs, in the jackknife
LEAST_OF_RUNS = 0.5  # of the variance of training runs is added to that of the patients


# --- draws of patients -----------------------------------------------------------------------------
class PatientDraws:
    """Resamples that draw patients with replacement and keep each one's images together.

    Cluster bootstrap: Field and Welsh 2007. ``patients`` names the patient of each of N images. ``counts``
    [n_resamples, patients] says how often each patient was drawn.
    """

    def __init__(self, patients: Sequence[Any], n_resamples: int = RESAMPLES, seed: int = 42) -> None:
        _, self.group = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        self.n_patients = int(self.group.max()) + 1
        rng = np.random.default_rng(seed)
        self.counts = np.empty((n_resamples, self.n_patients), dtype=np.uint16)
        step = max(1, BLOCK_ELEMENTS // self.n_patients)
        for start in range(0, n_resamples, step):
            rows = self.counts[start : start + step]
            drawn = rng.integers(0, self.n_patients, rows.shape)
            drawn += np.arange(len(rows))[:, None] * self.n_patients  # a place for each patient of each resample
            rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)

    def weights(self, resamples: slice = slice(None)) -> np.ndarray:
        """Float [R, N]: how often each image is in each resample."""
        return self.counts[resamples][:, self.group].astype(float)

    def values(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """``statistic``, a function of weights [R, N] -> [R] or [R, K], in each resample; computed in blocks."""
        step = max(1, BLOCK_ELEMENTS // len(self.group))
        starts = range(0, len(self.counts), step)
        return np.concatenate([statistic(self.weights(slice(start, start + step))) for start in starts])

    def scores(self, metric: Metric, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """``metric`` of predictions of the N images in each resample, [n_resamples]."""
        return self.values(partial(metric.on_weights, labels, probabilities))


def percentile_interval(values: np.ndarray) -> list[float]:
    """Return the central 95 % of resampled ``values``, [low, high].

    The k-th lowest and highest, k the whole part of (n + 1)(1 - 0.95)/2, at least 1. Undefined
    resamples (NaN, without one of the classes) are left out.
    """
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return [float("nan"), float("nan")]
    k = max(1, math.floor((len(finite) + 1) * (1.0 - CONFIDENCE) / 2))
    return [float(finite[k - 1]), float(finite[-k])]


class PairedDifference(TypedDict):
    """A difference with its 95 % interval by patient, [low, high]."""

    difference: float
    ci95: list[float]


def bootstrap_difference(
    labels: np.ndarray,
    p_a: np.ndarray,
    p_b: np.ndarray,
    patients: Sequence[Any],
    metric: str,
    *,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
) -> PairedDifference:
    """``metric`` of probabilities ``p_b`` minus that of ``p_a`` on the same images, resampling patients."""
    draws, entry = PatientDraws(patients, n_resamples, seed), METRICS[metric]
    differences = draws.scores(entry, labels, p_b) - draws.scores(entry, labels, p_a)
    difference = entry.point_estimate(labels, p_b) - entry.point_estimate(labels, p_a)
    return {"difference": difference, "ci95": percentile_interval(differences)}


def bootstrap_mean(
    values: np.ndarray, patients: Sequence[Any], *, n_resamples: int = RESAMPLES, seed: int = 42
) -> PairedDifference:
    """Return the mean of ``values`` [N], differences of single images, with its interval by patient."""
    draws = PatientDraws(patients, n_resamples, seed)
    means = draws.values(lambda weights: weights @ values / weights.sum(axis=1))
    return {"difference": float(values.mean()), "ci95": percentile_interval(means)}


# --- patients and training runs --------------------------------------------------------------------
@dataclass(frozen=True)
class ResampledScore:
    """One arm's score of the mean probability over its training runs, or the difference of two arms'.

    ``patients``: the score in each resample of patients. With several runs, ``run_variance`` is the variance
    of the score under other seeds, on these images; ``chance`` the part of it that other images would
    change too, which the draws of patients therefore hold as well; ``freedom`` the degrees of freedom.
    """

    score: float
    patients: np.ndarray
    run_variance: float = 0.0
    chance: float = 0.0
    freedom: int = 0

    @property
    def defined(self) -> np.ndarray:
        """The resampled scores without those that lack one of the classes."""
        return self.patients[np.isfinite(self.patients)]

    @property
    def excess(self) -> float:
        """Variance under other seeds that the draws of patients do not hold already.

        Chance by which single runs hit or miss single images is in the draws of patients already, so what
        the runs vary beyond it is added (Owen 2007: a bootstrap of both counts it three times), and never
        less than ``LEAST_OF_RUNS``: that difference of two rough estimates is often below zero by luck, and
        intervals without the floor held a true AUROC difference in 92 instead of 95 of 100 simulated tests
        (tests/stats/test_simulations.py).
        """
        return max(LEAST_OF_RUNS * self.run_variance, self.run_variance - self.chance)

    @property
    def stretch(self) -> float:
        """Student's quantile over the normal one: few runs tell their variance only roughly.

        The degrees of freedom are those of the sum of both variances (Satterthwaite 1946).
        """
        if not self.excess:
            return 1.0
        freedom = self.freedom * (1 + float(self.defined.var()) / self.excess) ** 2
        return float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) / Z

    @property
    def standard_error(self) -> float:
        """Standard error of the score, from the draws of patients and from the runs."""
        return self.stretch * math.sqrt(float(self.defined.var()) + self.excess)

    def minus(self, other: ResampledScore) -> ResampledScore:
        """Return the difference, resample by resample; both must come from the same draws of patients."""
        return ResampledScore(
            score=self.score - other.score,
            patients=self.patients - other.patients,
            run_variance=other.run_variance + self.run_variance,
            chance=other.chance + self.chance,
            freedom=other.freedom + self.freedom,
        )

    def distribution(self, seed: int) -> np.ndarray:
        """Return the bootstrap distribution [n_resamples], without undefined resamples.

        Each value comes from a draw of patients and, with several runs, a draw of the effect of other seeds.
        """
        values = self.defined
        if not self.excess or not len(values):
            return values
        effects = math.sqrt(self.excess) * np.random.default_rng(seed).standard_normal(len(values))
        return self.score + self.stretch * (values - self.score + effects)

    def interval(self, seed: int) -> list[float] | None:
        """Return the 95 % interval by patient and training run, [low, high] within 0 and 1.

        None if all resamples give one score (all images right, say), because there is no interval then.
        """
        low, high = percentile_interval(self.distribution(seed))
        return [max(0.0, low), min(1.0, high)] if low < high else None


def resample_score(draws: PatientDraws, metric: Metric, labels: np.ndarray, runs: np.ndarray) -> ResampledScore:
    """Score an arm on every draw of patients; ``runs`` are the probabilities [R, N] of R training runs."""

    def statistic(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return metric.on_weights(labels, probabilities, weights)[:, None]

    return resample_scores(draws, statistic, runs)[0]


def resample_scores(
    draws: PatientDraws, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray], runs: np.ndarray
) -> list[ResampledScore]:
    """Compute K statistics of an arm on every draw of patients.

    ``statistic``: (the mean of some runs [...], weights [R, N]) -> values [R, K]; ``runs``: what each training
    run gives, [runs, ...], such as the probabilities [runs, N].

    The variance under other seeds is that of the delete-d jackknife over the runs with d = R // 2 (Shao and
    Wu 1989). A bootstrap of so few runs would draw some runs twice, and such means score lower by themselves;
    its variance would also be too small by 1/R. The subsets of the jackknife all have one size. Leaving out
    half of the runs changes the mean about as much as other seeds would. A score that jumps at a threshold,
    such as accuracy, needs that.
    """
    n_runs, once = len(runs), np.ones((1, len(draws.group)))

    def scored(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [K], [K, n_resamples]
        values = draws.values(partial(statistic, mean))
        return statistic(mean, once)[0], np.ascontiguousarray(values.T)

    scores, patients = scored(runs.mean(axis=0))
    if n_runs == 1:
        return [ResampledScore(float(score), values) for score, values in zip(scores, patients, strict=True)]
    kept = n_runs - n_runs // 2
    subsets = [scored(runs[list(subset)].mean(axis=0)) for subset in _subsets(n_runs, kept)]
    scale, found = kept / (n_runs - kept), []
    for k, score in enumerate(scores):
        on_all = np.array([values[k] for values, _ in subsets])
        on_drawn = np.stack([drawn[k] for _, drawn in subsets])
        effects = on_drawn - on_all[:, None]  # what other images change of each subset's score
        effects = effects[:, np.isfinite(effects).all(axis=0)]
        chance = float(np.mean((effects - effects.mean(axis=0)) ** 2)) if effects.size else 0.0
        run_variance = scale * float(on_all.var())
        found.append(ResampledScore(float(score), patients[k], run_variance, scale * chance, n_runs - 1))
    return found


def _subsets(n: int, size: int) -> list[tuple[int, ...]]:
    """All subsets of 0..n-1 of that size, or ``MOST_SUBSETS`` random ones (always the same) of more."""
    if math.comb(n, size) <= MOST_SUBSETS:
        return list(combinations(range(n), size))
    rng = np.random.default_rng(n)
    return [tuple(rng.choice(n, size, replace=False)) for _ in range(MOST_SUBSETS)]


# --- the test of a difference ----------------------------------------------------------------------
def two_sided_p(values: np.ndarray) -> float:
    """Bootstrap p of no difference, from the distribution of the difference.

    At most 1 - confidence exactly where ``percentile_interval`` of the same values excludes 0 (Davison and
    Hinkley 1997, equation 4.11, both tails).
    """
    n = len(values)
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (n + 1))


@dataclass(frozen=True)
class ScoreDifference:
    """Difference b minus a with its interval and p, None where a score is undefined.

    ``error``: the standard error of the difference, None where the resamples do not vary.
    """

    difference: float | None
    ci95: list[float] | None
    p: float | None
    error: float | None

    def detectable(self, n_pairs: int) -> float | None:
        """Return the smallest true difference that is called better or worse with 80 % power.

        For the first of ``n_pairs`` that Holm's adjustment takes up; a later one needs less.
        """
        if self.error is None:
            return None
        return float(norm.ppf(1 - ALPHA / (2 * n_pairs)) + norm.ppf(POWER)) * self.error


def bootstrap_test(a: ResampledScore, b: ResampledScore, n_patients: int, same: bool, seed: int) -> ScoreDifference:
    """Test b minus a by the paired bootstrap; ``same``: both gave the same probabilities throughout.

    Where no resample differs from another (no patient whose images tell a from b), the interval is that of a
    rate of 0 in ``n_patients`` (Clopper and Pearson 1934): some 3.7 in n_patients to either side.
    """
    both = b.minus(a)
    values = both.distribution(seed)
    if not len(values) or not math.isfinite(both.score):
        return ScoreDifference(None, None, None, None)
    if both.standard_error > 1e-12:
        return ScoreDifference(both.score, percentile_interval(values), two_sided_p(values), both.standard_error)
    reach = 0.0 if same else 1.0 - ((1 - CONFIDENCE) / 2) ** (1 / n_patients)
    low, high = max(-1.0, both.score - reach), min(1.0, both.score + reach)
    p = 1.0 if low <= 0 <= high else two_sided_p(values)
    return ScoreDifference(both.score, [low, high], p, None)
