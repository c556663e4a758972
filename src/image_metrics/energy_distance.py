"""Energy distance of two sides, real and synthetic, by whole groups (patients): value, chance, interval.

The excess is 2 E|X - Y| - E|X - X'| - E|Y - Y'| (Székely and Rizzo, J. Stat. Plan. Inference 143, 2013), with
Euclidean distances of features and means over pairs of different groups. It is 0 on average for two samples of one
kind at any number of images, and above 0 for any two kinds; unlike the Fréchet distance of few images, it rises when
variety is lost. The floor is what two disjoint halves of the real images show of it only because they are samples;
it falls as one over the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm
from sklearn.metrics.pairwise import euclidean_distances

from image_metrics.copies import mark_whole_groups
from image_metrics.distances import Groups, halve_by_group

PERMUTATIONS = 500
FLOOR_DRAWS = 20
BLOCK = 64  # permutations at once
REFERENCE = 100  # images a side whose floor an interval must be finer than; the verdict's resolution


@dataclass(frozen=True)
class EnergyDistance:
    """Distance of n images a side, in the units of the features: ``value`` is ``floor`` plus the excess.

    ``half_width``: of the interval of the value; the larger of ``chance``, the quantile of the excess when whole
    groups change sides at random, and of what the standard error gives. ``images``: images a side that would tell as
    much as those of both sides do. ``variety``: mean distance within the synthetic side over that within the real
    side, ``variety_error`` its standard error.
    """

    value: float
    floor: float
    n: int
    chance: float
    half_width: float
    images: float
    variety: float
    variety_error: float

    @property
    def farther(self) -> bool:
        """Whether the floor lies below the whole interval."""
        return self.value - self.half_width > self.floor

    @property
    def margin(self) -> float:
        """The floor of ``REFERENCE`` images a side."""
        return self.floor * self.n / REFERENCE

    @property
    def needed(self) -> int:
        """Images a side at which the half-width falls below ``margin``, if it shrinks as one over their number."""
        return math.ceil(self.images * self.half_width / self.margin) if self.margin > 0 else 0

    @property
    def ci95(self) -> list[float]:
        """The interval of the value."""
        return [max(0.0, self.value - self.half_width), self.value + self.half_width]


class _Sides:
    """Distances float32 [N, N] of images, and their sums over pairs of different groups on each side."""

    def __init__(self, features: np.ndarray, groups: Groups, synthetic: np.ndarray) -> None:
        self.distances = euclidean_distances(np.asarray(features, dtype=np.float32))
        np.fill_diagonal(self.distances, 0.0)  # rounding can leave a hair
        _, self.group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.synthetic = synthetic

    @cached_property
    def members(self) -> list[np.ndarray]:
        """Rows of each group of more than one image."""
        order = np.argsort(self.group, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(self.group))[:-1])
        return [rows for rows in parts if len(rows) > 1]

    def sums_to(self, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of distances of each image to those of other groups on ``side`` (bool [N]), and their count: [N]."""
        sums = self.distances @ side.astype(np.float32)
        own = np.bincount(self.group[side], minlength=self.group.max() + 1)  # images of each group on that side
        counts = side.sum() - own[self.group].astype(np.float64)
        for rows in self.members:
            sums[rows] -= self.distances[np.ix_(rows, rows[side[rows]])].sum(axis=1)
        return sums.astype(np.float64), counts


def measure_energy(
    real: np.ndarray, patients: Groups, synthetic: np.ndarray, groups: Groups, *, level: float, seed: int
) -> EnergyDistance:
    """Measure the distance of features [N, D] and [M, D]; ``level``: chance that equal kinds are called farther.

    ``patients`` and ``groups`` name whose images they are; the same name on both sides is the same group.
    """
    side = np.arange(len(real) + len(synthetic)) >= len(real)
    sides = _Sides(np.concatenate([real, synthetic]), [*patients, *groups], side)
    left_out = _LeftOut.of(sides)
    excess = float(_excess(left_out.whole))
    n = min(len(synthetic), len(real) // 2)
    permuted = _permuted(sides, seed)
    chance = float(np.quantile(permuted, 1.0 - level))
    # The jackknife counts the variance that chance alone gives twice (Efron and Stein 1981: never too little).
    by_chance = float(permuted.var())
    error = math.sqrt(max(left_out.variance(_excess) - by_chance, by_chance))
    variety = float(_variety(left_out.whole))
    floor = _floor(sides.distances[: len(real), : len(real)], patients, n, seed)
    return EnergyDistance(
        value=floor + excess, floor=floor, n=n, chance=chance,
        half_width=max(chance, float(norm.ppf(1.0 - level)) * error),
        images=2.0 / (1.0 / len(real) + 1.0 / len(synthetic)),
        variety=variety, variety_error=math.sqrt(left_out.variance(_variety)),
    )  # fmt: skip


Means = tuple[np.ndarray, np.ndarray, np.ndarray]  # within real, within synthetic, between


def _excess(means: Means) -> np.ndarray:
    within_real, within_synthetic, between = means
    return 2.0 * between - within_real - within_synthetic


def _variety(means: Means) -> np.ndarray:
    return means[1] / means[0]


@dataclass(frozen=True)
class _LeftOut:
    """Mean distances of all groups, and without each group of the real and of the synthetic side."""

    whole: Means
    parts: tuple[Means, Means]

    @classmethod
    def of(cls, sides: _Sides) -> _LeftOut:
        masks = (~sides.synthetic, sides.synthetic)
        to = [sides.sums_to(mask) for mask in masks]
        totals = {(a, b): [part[masks[a]].sum() for part in to[b]] for a in (0, 1) for b in (0, 1)}

        def means(lost: Mapping[tuple[int, int], Sequence[np.ndarray]]) -> Means:
            def mean(a: int, b: int) -> np.ndarray:
                sums, counts = (whole - gone for whole, gone in zip(totals[a, b], lost[a, b], strict=True))
                return sums / np.maximum(counts, 1.0)

            return mean(0, 0), mean(1, 1), mean(0, 1)

        nothing: list[np.ndarray] = [np.zeros(()), np.zeros(())]
        parts = []
        for own in (0, 1):
            _, place = np.unique(sides.group[masks[own]], return_inverse=True)
            lost: dict[tuple[int, int], list[np.ndarray]] = dict.fromkeys(totals, nothing)
            # A pair within the side is lost with either of its images; none is of one group.
            lost[own, own] = [2.0 * np.bincount(place, part[masks[own]]) for part in to[own]]
            lost[0, 1] = [np.bincount(place, part[masks[own]]) for part in to[1 - own]]
            parts.append(means(lost))
        return cls(means(dict.fromkeys(totals, nothing)), (parts[0], parts[1]))

    def variance(self, statistic: Callable[[Means], np.ndarray]) -> float:
        """Variance of a statistic of the means, by the jackknife over the groups of both sides."""
        found = (statistic(part) for part in self.parts)
        return sum((len(values) - 1) * float(values.var()) for values in found)


def _permuted(sides: _Sides, seed: int) -> np.ndarray:
    """Excess [PERMUTATIONS] when whole groups change sides at random."""
    rng = np.random.default_rng(seed)
    n_images, n_synthetic = len(sides.group), int(sides.synthetic.sum())
    everyone = np.ones(n_images, dtype=bool)
    to_others, _ = sides.sums_to(everyone)
    own = sides.distances.sum(axis=1, dtype=np.float64) - to_others  # distances within the image's group
    sizes = np.bincount(sides.group)[sides.group].astype(np.float64)
    values = []
    for start in range(0, PERMUTATIONS, BLOCK):
        count = min(BLOCK, PERMUTATIONS - start)
        drawn = np.stack([mark_whole_groups(sides.group, n_synthetic, rng) for _ in range(count)]).astype(np.float32)
        sums = drawn @ sides.distances  # [B, N]: to the images of the drawn side
        n = drawn.sum(axis=1, dtype=np.float64)
        within = (sums * drawn).sum(axis=1, dtype=np.float64) - drawn @ own
        across = (sums * (1 - drawn)).sum(axis=1, dtype=np.float64)
        total = to_others.sum()
        other = total - within - 2 * across
        pairs, others = n**2 - drawn @ sizes, (n_images - n) ** 2 - (1 - drawn) @ sizes
        values.append(2 * across / (n * (n_images - n)) - within / pairs - other / others)
    return np.concatenate(values)


def _floor(distances: np.ndarray, patients: Groups, n: int, seed: int) -> float:
    """Mean distance of n images of disjoint halves of the real patients, each image paired with itself too."""
    values = []
    for draw in range(FLOOR_DRAWS):
        first, second = (half[:n] for half in halve_by_group(patients, seed + draw))
        within = [float(distances[np.ix_(half, half)].mean(dtype=float)) for half in (first, second)]
        between = float(distances[np.ix_(first, second)].mean(dtype=float))
        values.append(2.0 * between - sum(within))
    return float(np.mean(values))
