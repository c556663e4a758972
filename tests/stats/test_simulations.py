"""Does the product's own arithmetic keep its promises? Thousands of made-up studies with a known truth.

Latent scores are normal and the "probabilities" a straight line of them, so that accuracy and AUROC of a
mean over training runs have closed forms. Images of one patient share a part of their latent score, and
some patients are ill far more often than others. 600 resamples instead of 2,000, to save time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from stats import paired_tests as pt
from stats.bootstrap import PatientDraws, ResampledScore, bootstrap_test, percentile_interval, resample_score
from stats.metric_registry import METRICS

pytestmark = pytest.mark.slow

SIMULATIONS, RESAMPLES = 1000, 600
MARGIN = 0.01


@dataclass(frozen=True)
class Study:
    """A way of training and testing: ``skill`` is half the distance of the classes' means; the standard
    deviations are those of the parts of a latent score, of the runs' own shifts and skills too."""

    n_images: int = 300
    skill: float = 0.9
    shift: float = -0.6
    of_patient: float = 0.6
    of_image: float = 0.7
    of_run_on_image: float = 0.5
    of_run_shift: float = 0.0
    of_run_skill: float = 0.0
    n_runs: int = 1

    def people(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(patient of each image, labels, what all predictors see of each image)."""
        n_patients = round(0.7 * self.n_images)
        patients = np.concatenate([np.arange(n_patients), self._more(rng, n_patients)])
        often_ill = rng.random(n_patients) < 0.3
        labels = (rng.random(self.n_images) < np.where(often_ill, 0.6, 0.1)[patients]).astype(int)
        common = rng.normal(0, self.of_patient, n_patients)[patients]
        return patients, labels, common + rng.normal(0, self.of_image, self.n_images)

    def _more(self, rng: np.random.Generator, n_patients: int) -> np.ndarray:
        """Patients of the images beyond the first of each: a few people have many."""
        return np.minimum(rng.geometric(12 / n_patients, self.n_images - n_patients), n_patients) - 1

    def runs(self, rng: np.random.Generator, labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Probabilities [n_runs, N]; positive means a latent score above 0."""
        shift = self.shift + rng.normal(0, self.of_run_shift, (self.n_runs, 1))
        skill = self.skill + rng.normal(0, self.of_run_skill, (self.n_runs, 1))
        own = rng.normal(0, self.of_run_on_image, (self.n_runs, len(labels)))
        return np.clip(0.5 + 0.05 * (skill * (2 * labels - 1) + shift + seen + own), 0, 1)

    def truth(self) -> dict[str, float]:
        """Expected accuracy and AUROC of a mean over ``n_runs`` runs on unseen people."""
        variance = self.of_patient**2 + self.of_image**2 + self.of_run_on_image**2 / self.n_runs
        prevalence = 0.3 * 0.6 + 0.7 * 0.1
        spread = np.sqrt(variance + (self.of_run_shift**2 + self.of_run_skill**2) / self.n_runs)
        right = [norm.cdf((self.skill + side * self.shift) / spread) for side in (1, -1)]
        apart = np.sqrt(2 * variance + 4 * self.of_run_skill**2 / self.n_runs)
        return {
            "accuracy": prevalence * right[0] + (1 - prevalence) * right[1],
            "auroc": norm.cdf(2 * self.skill / apart),
        }


ONE_RUN = Study()
# Seeds move the accuracy of one run by some 1.5 points, and its AUROC by 1.
THREE_RUNS = Study(of_run_shift=0.15, of_run_skill=0.06, n_runs=3)


def one_test(study: Study, number: int, statistic: str) -> tuple[ResampledScore, ResampledScore, int]:
    """Two arms of equal expectation on one simulated test set, resampled."""
    rng = np.random.default_rng([number, study.n_runs, study.n_images])
    patients, labels, seen = study.people(rng)
    draws = PatientDraws(patients, RESAMPLES, seed=number)
    a, b = (resample_score(draws, METRICS[statistic], labels, study.runs(rng, labels, seen)) for _ in range(2))
    return a, b, draws.n_patients


@pytest.mark.parametrize("statistic", ["accuracy", "auroc"])
@pytest.mark.parametrize("study", [ONE_RUN, THREE_RUNS], ids=["one_run", "three_runs"])
def test_intervals_hold_the_truth_and_claims_are_rare(study, statistic):
    """The interval of one arm holds its expectation. Two arms have the same one: the interval of their
    difference holds 0, and better or worse would be wrong (an A/A test)."""
    truth = study.truth()[statistic]
    one = both = claims = 0
    for number in range(SIMULATIONS):
        a, b, n_patients = one_test(study, number, statistic)
        low, high = percentile_interval(a.distribution(seed=number))
        one += low <= truth <= high
        result = bootstrap_test(a, b, n_patients, same=False, seed=number)
        both += result.ci95[0] <= 0 <= result.ci95[1]
        claims += pt.decide_verdict(result.difference, result.ci95, result.p, MARGIN) in (pt.BETTER, pt.WORSE)
    assert 0.93 <= one / SIMULATIONS <= 0.97
    assert 0.93 <= both / SIMULATIONS <= 0.97
    assert claims / SIMULATIONS <= 0.065


def test_ignoring_patients_would_fail():
    """The same studies with every image taken for a patient of its own: the interval is too narrow, so the
    simulations above can tell."""
    study = Study(of_patient=2.0, of_image=0.3, of_run_on_image=0.3)
    truth, held = study.truth()["accuracy"], {"patients": 0, "images": 0}
    for number in range(300):
        rng = np.random.default_rng(number)
        patients, labels, seen = study.people(rng)
        runs = study.runs(rng, labels, seen)
        for unit, groups in (("patients", patients), ("images", np.arange(len(labels)))):
            arm = resample_score(PatientDraws(groups, RESAMPLES, seed=number), METRICS["accuracy"], labels, runs)
            low, high = percentile_interval(arm.patients)
            held[unit] += low <= truth <= high
    assert held["images"] < 0.92 * 300 < held["patients"]


def test_ignoring_seeds_would_fail():
    held = 0
    for number in range(300):
        a, b, _ = one_test(THREE_RUNS, number, "accuracy")
        low, high = percentile_interval(b.minus(a).patients)
        held += low <= 0 <= high
    assert held < 0.92 * 300


def discordant(n: int, only_a: float, only_b: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels and probabilities of two predictors, of which each alone is right in those shares of images."""
    labels = (rng.random(n) < 0.25).astype(int)
    kind = rng.random(n)
    right_a = (kind < only_a) | (kind > only_a + only_b + 0.15)
    right_b = ((kind >= only_a) & (kind < only_a + only_b)) | (kind > only_a + only_b + 0.15)
    return labels, *(np.where(right, labels, 1 - labels) * 0.6 + 0.2 for right in (right_a, right_b))


def share_found(n: int, only_a: float, only_b: float, simulations: int) -> tuple[float, float]:
    """(share of simulations in which b is called better, mean detectable difference)."""
    found, detectable = 0, []
    for number in range(simulations):
        rng = np.random.default_rng([n, number])
        labels, a, b = discordant(n, only_a, only_b, rng)
        draws = PatientDraws(np.arange(n) // 2, RESAMPLES, seed=number)
        arms = [resample_score(draws, METRICS["accuracy"], labels, runs[None]) for runs in (a, b)]
        result = bootstrap_test(*arms, draws.n_patients, same=False, seed=number)
        verdict = pt.decide_verdict(result.difference, result.ci95, result.p, MARGIN)
        found += verdict == pt.BETTER
        detectable.append(result.detectable(1))
    return found / simulations, float(np.mean(detectable))


def test_five_points_are_found_in_the_full_test_set():
    found, _ = share_found(6671, 0.025, 0.075, 200)
    assert found >= 0.9


def test_the_detectable_difference_is_found_in_four_of_five():
    _, detectable = share_found(300, 0.08, 0.08, 50)
    found, _ = share_found(300, 0.08 - detectable / 2, 0.08 + detectable / 2, SIMULATIONS)
    assert found == pytest.approx(0.80, abs=0.05)
