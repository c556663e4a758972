"""Two predictors on the same images: paired tests, intervals of their difference, and the verdict.

Arrays in, plain numbers out. The tests marked image-level (McNemar, DeLong) take every image for
independent of every other, which images of one patient are not; the bootstrap draws whole patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, t

from stats.metrics import CONFIDENCE, STATISTICS, THRESHOLD, PatientDraws, percentile_interval

ALPHA = 0.05
POWER = 0.80
MOST_SUBSETS = 20  # of training runs, in the jackknife
LEAST_OF_RUNS = 0.5  # of the variance of training runs is added to that of the patients
BETTER, WORSE, NO_EVIDENCE = "better", "worse", "no evidence of a difference"
Z = float(norm.ppf(0.5 + CONFIDENCE / 2))


# --- image-level tests -----------------------------------------------------------------------------
def delong(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs [M] of predictors ``scores`` [M, N] on the same images, and their covariance [M, M].

    DeLong, DeLong and Clarke-Pearson 1988, from mid-ranks (Sun and Xu 2014). Needs two images of each class.
    """
    labels, scores = np.asarray(labels, dtype=bool), np.atleast_2d(np.asarray(scores, dtype=float))
    positives, negatives = scores[:, labels], scores[:, ~labels]
    m, n = positives.shape[1], negatives.shape[1]
    ranks = rankdata(scores, axis=1)
    # Share of the negatives below each positive, of the positives above each negative; ties count half.
    of_positives = (ranks[:, labels] - rankdata(positives, axis=1)) / n
    of_negatives = 1.0 - (ranks[:, ~labels] - rankdata(negatives, axis=1)) / m
    covariance = np.atleast_2d(np.cov(of_positives)) / m + np.atleast_2d(np.cov(of_negatives)) / n
    return of_positives.mean(axis=1), covariance


def delong_interval(labels: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """95 % interval of the AUROC, [low, high], image-level.

    DeLong's variance on the logit scale, so that it stays within 0 and 1 (Pepe 2003, section 5.2). A perfect
    separation has no variance to go by: there it is Newcombe's (2006) score interval, his method 5. None
    with fewer than two images of a class.
    """
    labels = np.asarray(labels, dtype=bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if min(positives, negatives) < 2:
        return [None, None]
    (area,), ((variance,),) = delong(labels, probabilities)
    if variance <= 0 or not 0 < area < 1:
        return _newcombe_interval(float(area), positives, negatives)
    half = Z * math.sqrt(variance) / (area * (1 - area))
    centre = math.log(area / (1 - area))
    return [1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre))]


def _newcombe_interval(area: float, positives: int, negatives: int) -> list[float | None]:
    """The areas whose own standard error (Hanley and McNeil 1982) puts ``area`` at most Z of it away."""
    pseudo = (positives + negatives) / 2 - 1

    def excess(value: float) -> float:
        spread = 1 + pseudo * ((1 - value) / (2 - value) + value / (1 + value))
        return (value - area) ** 2 - Z**2 * value * (1 - value) * spread / (positives * negatives)

    edge = 1e-12
    low = brentq(excess, edge, area - edge) if area > 2 * edge else 0.0
    high = brentq(excess, area + edge, 1 - edge) if area < 1 - 2 * edge else 1.0
    return [float(low), float(high)]


def delong_p(labels: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> float | None:
    """Two-sided p of equal AUROCs on the same images (DeLong 1988); None with too few of a class."""
    labels = np.asarray(labels, dtype=bool)
    if min(labels.sum(), (~labels).sum()) < 2:
        return None
    areas, covariance = delong(labels, np.stack([p_a, p_b]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = areas[1] - areas[0]
    if variance <= 1e-15:  # rounding: every image counts the same in both
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * norm.sf(abs(difference) / math.sqrt(variance)))


def mcnemar(labels: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> tuple[float, int, int]:
    """(exact two-sided p of equal accuracy, images that only a has right, that only b has right)."""
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    labels = np.asarray(labels)
    right_a, right_b = ((np.asarray(p) >= THRESHOLD) == labels for p in (p_a, p_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    table = [[0, only_a], [only_b, 0]]  # the images on which both agree do not enter
    return float(min(1.0, exact_mcnemar(table, exact=True).pvalue)), only_a, only_b


# --- folds -----------------------------------------------------------------------------------------
def nadeau_bengio(differences: Sequence[float], test_sizes: Sequence[int]) -> dict[str, Any]:
    """Corrected resampled t-test of the mean of ``differences`` over k folds of ``test_sizes`` images.

    The folds share training images, which the factor 1/k + n_test/n_train of the variance makes up for
    (Nadeau and Bengio 2003, equation 13, with the mean fold). {"difference", "ci95", "p"}; interval and p
    are None if every fold gives the same difference, which leaves no variance to go by.
    """
    values, k = np.asarray(differences, dtype=float), len(differences)
    test_size = float(np.mean(test_sizes))
    factor = 1 / k + test_size / (float(np.sum(test_sizes)) - test_size)
    mean, error = float(values.mean()), math.sqrt(factor * values.var(ddof=1))
    if np.ptp(values) < 1e-12:
        return {"difference": mean, "ci95": None, "p": None}
    half = float(t.ppf(0.5 + CONFIDENCE / 2, k - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, k - 1))
    return {"difference": mean, "ci95": [mean - half, mean + half], "p": p}


# --- the bootstrap over patients and training runs -------------------------------------------------
@dataclass(frozen=True)
class Resampled:
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


def resample(draws: PatientDraws, statistic: str, labels: np.ndarray, runs: np.ndarray) -> Resampled:
    """Score an arm on every draw of patients: ``runs`` are the probabilities [R, N] of R training runs.

    The variance under other seeds is the delete-d jackknife's over the runs with d = R // 2 (Shao and Wu
    1989). Means over subsets of one size are alike; a bootstrap of so few runs would draw some twice, which
    by itself scores lower, and has 1/R of the variance too little. Leaving out half disturbs the mean about
    as much as other seeds would, which a score that jumps with a threshold, such as accuracy, needs.
    """
    compute, n_runs = STATISTICS[statistic], len(runs)
    score, patients = compute(labels, runs.mean(axis=0)), draws.scores(statistic, labels, runs.mean(axis=0))
    if n_runs == 1:
        return Resampled(score, patients)
    kept = n_runs - n_runs // 2
    means = [runs[list(subset)].mean(axis=0) for subset in _subsets(n_runs, kept)]
    on_all = np.array([compute(labels, mean) for mean in means])
    on_drawn = np.stack([draws.scores(statistic, labels, mean) for mean in means])
    effects = on_drawn - on_all[:, None]  # what other images change of each subset's score
    effects = effects[:, np.isfinite(effects).all(axis=0)]
    chance = float(np.mean((effects - effects.mean(axis=0)) ** 2)) if effects.size else 0.0
    scale = kept / (n_runs - kept)
    return Resampled(score, patients, scale * float(on_all.var()), scale * chance, n_runs - 1)


def _subsets(n: int, size: int) -> list[tuple[int, ...]]:
    """All subsets of 0..n-1 of that size, or ``MOST_SUBSETS`` random ones (always the same) of more."""
    if math.comb(n, size) <= MOST_SUBSETS:
        return list(combinations(range(n), size))
    rng = np.random.default_rng(n)
    return [tuple(rng.choice(n, size, replace=False)) for _ in range(MOST_SUBSETS)]


def difference_of(a: Resampled, b: Resampled) -> Resampled:
    """b minus a, resample by resample: both must come from the same draws of patients."""
    return Resampled(
        score=b.score - a.score,
        patients=b.patients - a.patients,
        run_variance=a.run_variance + b.run_variance,
        chance=a.chance + b.chance,
        freedom=a.freedom + b.freedom,
    )


def resampled_values(resampled: Resampled, seed: int) -> np.ndarray:
    """The bootstrap distribution [n_resamples]: each value from a draw of patients and, with several runs, a
    draw of the effect of other seeds.

    Chance by which single runs hit or miss single images is in the draws of patients already, so what the
    runs vary beyond it is added (Owen 2007: a bootstrap of both counts it three times), and never less than
    ``LEAST_OF_RUNS``: that difference of two rough estimates is often below zero by luck, and intervals
    without the floor held a true AUROC difference in 92 instead of 95 of 100 simulated tests
    (tests/test_statistics_simulations.py). Few runs tell their variance only roughly, so all is stretched
    by the quantile of Student's t over the normal one, with the degrees of freedom of the sum (Satterthwaite
    1946). Resamples without one of the classes are left out.
    """
    values = resampled.patients[np.isfinite(resampled.patients)]
    excess = _variance_beyond_patients(resampled)
    if not excess or not len(values):
        return values
    effects = math.sqrt(excess) * np.random.default_rng(seed).standard_normal(len(values))
    stretch = _stretch(resampled, float(values.var()), excess)
    return resampled.score + stretch * (values - resampled.score + effects)


def standard_error(resampled: Resampled) -> float:
    """Of the score: from the draws of patients and from the runs, stretched as the interval is."""
    values = resampled.patients[np.isfinite(resampled.patients)]
    variance, excess = float(values.var()), _variance_beyond_patients(resampled)
    return _stretch(resampled, variance, excess) * math.sqrt(variance + excess)


def _stretch(resampled: Resampled, variance: float, excess: float) -> float:
    """Student's quantile over the normal one, for the variance of the patients' draws plus ``excess``."""
    if not excess:
        return 1.0
    freedom = resampled.freedom * (1 + variance / excess) ** 2
    return float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) / Z


def _variance_beyond_patients(resampled: Resampled) -> float:
    """Of other seeds, without what the draws of patients hold as well; with a floor, see above."""
    return max(LEAST_OF_RUNS * resampled.run_variance, resampled.run_variance - resampled.chance)


def two_sided_p(values: np.ndarray) -> float:
    """Bootstrap p of no difference: at most 1 - confidence exactly where ``percentile_interval`` of the same
    values excludes 0 (Davison and Hinkley 1997, equation 4.11, both tails)."""
    n = len(values)
    tail = min(int((values <= 0).sum()), int((values >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (n + 1))


@dataclass(frozen=True)
class Outcome:
    """Difference b minus a with its interval and p, None where a score is undefined; ``error``: the standard
    error of the difference, None where the resamples do not vary."""

    difference: float | None
    ci95: list[float] | None
    p: float | None
    error: float | None

    def detectable(self, n_pairs: int) -> float | None:
        """The smallest true difference that is called better or worse with 80 % power where it is the first
        of ``n_pairs`` that Holm's adjustment takes up; a later one needs less."""
        if self.error is None:
            return None
        return float(norm.ppf(1 - ALPHA / (2 * n_pairs)) + norm.ppf(POWER)) * self.error


def bootstrap_test(a: Resampled, b: Resampled, n_patients: int, same: bool, seed: int) -> Outcome:
    """The paired clustered bootstrap of b minus a; ``same``: both gave the same probabilities throughout.

    Where no resample differs from another (no patient whose images tell a from b), the interval is that of a
    rate of 0 in ``n_patients`` (Clopper and Pearson 1934): some 3.7 in n_patients to either side.
    """
    both = difference_of(a, b)
    values = resampled_values(both, seed)
    if not len(values) or not math.isfinite(both.score):
        return Outcome(None, None, None, None)
    error = standard_error(both)
    if error > 1e-12:
        return Outcome(both.score, percentile_interval(values), two_sided_p(values), error)
    reach = 0.0 if same else 1.0 - ((1 - CONFIDENCE) / 2) ** (1 / n_patients)
    low, high = max(-1.0, both.score - reach), min(1.0, both.score + reach)
    return Outcome(both.score, [low, high], 1.0 if low <= 0 <= high else two_sided_p(values), None)


# --- several pairs, and the verdict ----------------------------------------------------------------
def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p adjusted for their number (Holm 1979); None stays None and does not count."""
    from statsmodels.stats.multitest import multipletests

    defined = [index for index, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    if defined:
        corrected = multipletests([p_values[index] for index in defined], method="holm")[1]
        for index, p in zip(defined, corrected, strict=True):
            adjusted[index] = float(p)
    return adjusted


def verdict(
    difference: float | None, ci95: Sequence[float] | None, p_holm: float | None, margin: float
) -> str:
    """One of four wordings for b against a, by a rule that was fixed before any result was seen.

    In this order: the interval lies inside +-``margin`` (a fraction) -> equivalent; adjusted p below .05 ->
    better or worse; else no evidence of a difference.
    """
    if difference is None or ci95 is None or p_holm is None:
        return NO_EVIDENCE
    low, high = ci95
    if -margin < low and high < margin:
        return equivalent(margin)
    if p_holm < ALPHA:
        return BETTER if difference > 0 else WORSE
    return NO_EVIDENCE


def equivalent(margin: float) -> str:
    """ "equivalent within 1 point" for 0.01."""
    return f"equivalent within {points(margin)}"


def points(fraction: float) -> str:
    """ "1 point" for 0.01, in percentage points."""
    number = f"{100 * fraction:g}"
    return f"{number} point" + ("" if number == "1" else "s")
