"""Whole cross-fitted comparisons with a known truth: people, trainings, GANs, folds, the product's interval.

Features are normal, people share a part of theirs, a ridge regression learns from them and a "GAN" is a normal
distribution fitted to a part of the training positives. Seeds weight the training images at random. All that costs
milliseconds, so that the truth can be had from thousands of independent trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stats.cross_fitting import FoldRuns, cross_fitted_difference, fold_weights, score_folds
from stats.metric_registry import METRICS

FEATURES = 30
RIDGE = 0.02
PREVALENCE = 0.25
TEST_IMAGES = 20_000  # on which a training is judged for the truth
RESAMPLES = 400
# b minus a. Equal: two runs of one procedure. Other: copies of real positives, and a GAN. Better: a GAN that knows
# something of the truth.
PAIRS = {"equal": ("gan", "gan"), "other": ("duplicates", "gan"), "better": ("duplicates", "gan")}


@dataclass(frozen=True)
class Cell:
    """One setting: ``pair`` of ``PAIRS``, images, runs R per GAN, GANs G per fold, folds K."""

    pair: str
    n: int
    runs: int = 2
    gans: int = 1
    folds: int = 5

    @property
    def name(self) -> str:
        return f"{self.pair}, n {self.n}, K {self.folds}, R {self.runs}, G {self.gans}"


class World:
    """Where people come from: classes ``distance`` apart along one direction, people alike by ``alike``."""

    def __init__(self, distance: float = 1.2, alike: float = 0.5) -> None:
        rng = np.random.default_rng(0)
        direction = rng.normal(size=FEATURES)
        self.mean = distance * direction / np.linalg.norm(direction)
        mixing = 0.3 * rng.normal(size=(FEATURES, FEATURES))
        self.mixing = np.linalg.cholesky(np.eye(FEATURES) + mixing @ mixing.T)
        self.alike = alike

    def people(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw features [n, F], labels [n] and patients [n]; one to three images each, mostly of one label."""
        patients = np.repeat(np.arange(n), rng.choice([1, 1, 1, 2, 3], size=n))[:n]
        n_patients = patients[-1] + 1
        labels = (rng.random(n_patients) < PREVALENCE)[patients]
        labels = np.where(rng.random(n) < 0.1, rng.random(n) < PREVALENCE, labels).astype(int)
        common, own = rng.normal(size=(n_patients, FEATURES))[patients], rng.normal(size=(n, FEATURES))
        noise = np.sqrt(self.alike) * common + np.sqrt(1 - self.alike) * own
        return noise @ self.mixing.T + labels[:, None] * self.mean, labels, patients


def with_constant(features: np.ndarray) -> np.ndarray:
    return np.column_stack([features, np.ones(len(features))])


def fit(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit a weighted ridge regression to -1 and 1; returns coefficients [F + 1]."""
    inputs, weights = with_constant(features), weights / weights.mean()
    penalty = RIDGE * len(inputs) * np.diag(np.append(np.ones(FEATURES), 0.0))
    weighted = inputs * weights[:, None]
    return np.linalg.solve(weighted.T @ inputs + penalty, weighted.T @ (2.0 * labels - 1))


def generate(world: World, positives: np.ndarray, knows: float, rng: np.random.Generator) -> np.ndarray:
    """Draw as many images as ``positives`` from a normal distribution fitted to half of them.

    ``knows``: share of the true mean in its own, from 0 to 1.
    """
    seen = positives[rng.choice(len(positives), max(8, len(positives) // 2), replace=False)]
    mean = (1 - knows) * seen.mean(axis=0) + knows * world.mean
    covariance = 0.7 * np.cov(seen.T) + 0.3 * np.diag(seen.var(axis=0))
    return rng.multivariate_normal(mean, covariance, len(positives), method="cholesky")


def train(arm: str, features: np.ndarray, labels: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Train one run of an arm; the seed weights the images, as an order of batches does."""
    weights = rng.gamma(4.0, 0.25, len(labels))
    if arm == "duplicates":
        return fit(features, labels, weights * (1 + labels))
    more = rng.gamma(4.0, 0.25, len(made))
    ones = np.ones(len(made), int)
    return fit(np.vstack([features, made]), np.append(labels, ones), np.append(weights, more))


def probabilities(features: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-3 * (with_constant(features) @ coefficients)))


def train_arms(
    world: World, cell: Cell, features: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> dict[str, list[list[np.ndarray]]]:
    """Train both arms of the pair, [G][R] coefficients each; every GAN has runs of its own in either arm."""
    knows, found = 0.8 if cell.pair == "better" else 0.0, {"a": [], "b": []}
    for _ in range(cell.gans):
        for key, arm in zip("ab", PAIRS[cell.pair], strict=True):
            made = generate(world, features[labels == 1], knows, rng)
            found[key].append([train(arm, features, labels, made, rng) for _ in range(cell.runs)])
    return found


def simulate(world: World, cell: Cell, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Run one cross-fitted comparison; returns metric -> estimate, interval and p as the product gives them."""
    features, labels, patients = world.people(cell.n, rng)
    fold_of = np.arange(patients[-1] + 1) % cell.folds
    rng.shuffle(fold_of)
    folds = []
    for number in range(cell.folds):
        tested = fold_of[patients] == number
        arms = train_arms(world, cell, features[~tested], labels[~tested], rng)
        predicted = {
            key: np.array([[probabilities(features[tested], one) for one in runs] for runs in gans])
            for key, gans in arms.items()
        }
        folds.append(FoldRuns(labels[tested], [str(each) for each in patients[tested]], predicted))
    seed, found = int(rng.integers(2**31)), {}
    for name in ("accuracy", "auroc"):
        metric, weights = METRICS[name], fold_weights(METRICS[name], folds)
        a, b = (score_folds(metric, folds, key, RESAMPLES, seed) for key in "ab")
        test = cross_fitted_difference(a, b, weights, seed).test
        found[name] = {"estimate": test.difference, "ci95": test.ci95, "p": test.p}
    return found


def find_truth(world: World, cell: Cell, trainings: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the expected difference of the procedures, over ``trainings`` training sets of their own people."""
    if cell.pair == "equal":
        return {"accuracy": 0.0, "auroc": 0.0}
    features, labels, _ = world.people(TEST_IMAGES, rng)
    once, n, sums = np.ones((1, TEST_IMAGES)), cell.n * (cell.folds - 1) // cell.folds, np.zeros(2)
    for _ in range(trainings):
        own, own_labels, _ = world.people(n, rng)
        arms = train_arms(world, cell, own, own_labels, rng)
        for key, sign in (("a", -1), ("b", 1)):
            mean = np.mean([probabilities(features, one) for runs in arms[key] for one in runs], axis=0)
            sums += [sign * METRICS[name].on_weights(labels, mean, once)[0] for name in ("accuracy", "auroc")]
    return dict(zip(("accuracy", "auroc"), sums / trainings, strict=True))


def summarise(results: list[dict[str, dict[str, Any]]], truth: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return, per metric, coverage and relative width of the intervals, and how often 0 lies outside."""
    found = {}
    for name, true in truth.items():
        estimates = np.array([result[name]["estimate"] for result in results])
        low, high = np.array([result[name]["ci95"] for result in results]).T
        found[name] = {
            "truth": true, "mean": float(estimates.mean()), "sd": float(estimates.std(ddof=1)),
            "coverage": float(((low <= true) & (true <= high)).mean()),
            "relative_width": float((high - low).mean() / (2 * 1.959964 * estimates.std(ddof=1))),
            "significant": float(np.mean([result[name]["p"] < 0.05 for result in results])),
        }  # fmt: skip
    return found
