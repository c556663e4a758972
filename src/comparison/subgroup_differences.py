"""Differences between two arms within subgroups of the test images, and whether they depend on the subgroup.

A part of the images is computed only if enough patients of either label are in it. The interaction is a
difference of differences: what b gains over a in one part, minus what it gains in the largest part of the
same kind. All of it is exploratory: intervals are not adjusted, p values by Holm within a pair and a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd

from arms.result_files import Arm, probabilities_of_runs
from comparison.file_formats import Comparison, metric_key
from comparison.reviewer_file_formats import (
    SmallSubgroup,
    SubgroupDifference,
    SubgroupInteraction,
    SubgroupsOfPair,
)
from stats.bootstrap import PatientDraws, ResampledScore, ScoreDifference, bootstrap_test, resample_scores
from stats.metric_registry import Metric, compared_metrics
from stats.paired_tests import holm
from stats.subgroups import FEWEST, parts_of
from utils import derive_seed

KINDS = ("view", "sex", "age")  # not the original class, whose images have one label


Key = tuple[str, ...]  # ("view", "AP") of a part, ("view", "PA", "AP") of a contrast: PA minus AP


@dataclass(frozen=True)
class _Part:
    """A part of the test images: ``chosen`` bool [N]; ``patients`` with a positive, and with a negative image."""

    group: str
    value: str
    chosen: np.ndarray
    patients: tuple[int, int]


@dataclass(frozen=True)
class _ArmInParts:
    """One arm: its large enough parts, the too small ones, and its scores: metric -> part or contrast -> score."""

    table: pd.DataFrame
    parts: dict[Key, _Part]
    too_small: list[SmallSubgroup]
    scores: dict[str, dict[Key, ResampledScore]]


def subgroup_differences(arms: Mapping[str, Arm], content: Comparison) -> list[SubgroupsOfPair]:
    """Compute the differences of every pair in ``content`` within view, sex and age."""
    pairs, settings = [(pair["a"], pair["b"]) for pair in content["pairs"]], content["settings"]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    scored = {name: _score(arms[name], settings["n_resamples"], settings["seed"]) for name in names}
    return [_compare_pair(a, b, scored[a], scored[b], settings["seed"]) for a, b in pairs]


# --- one arm ---------------------------------------------------------------------------------------
def _score(arm: Arm, n_resamples: int, seed: int) -> _ArmInParts:
    """Resample every metric in every part and contrast, on the draws of patients that all comparisons use."""
    table = arm.tested
    large, small = _split_by_size(_parts(table))
    contrasts = _contrasts(large)
    draws, labels = PatientDraws(list(table["patient"]), n_resamples, seed), table["label"].to_numpy()

    def statistic(metric: Metric, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
        columns = {
            key: metric.on_weights(labels[part.chosen], probabilities[part.chosen], weights[:, part.chosen])
            for key, part in large.items()
        }
        columns |= {(*key, other[1]): columns[key] - columns[other] for key, other in contrasts}
        return np.stack(list(columns.values()), axis=1)

    keys = [*large, *((*key, other[1]) for key, other in contrasts)]
    scores = {}
    for metric in compared_metrics() if large else ():
        found = resample_scores(draws, partial(statistic, metric), probabilities_of_runs(arm))
        scores[metric.name] = dict(zip(keys, found, strict=True))
    return _ArmInParts(table, large, small, scores)


def _parts(predictions: pd.DataFrame) -> list[_Part]:
    parts = []
    for group, value, chosen in parts_of(predictions):
        if group in KINDS and chosen.any():
            by_label = predictions[chosen].groupby("label")["patient"].nunique()
            parts.append(_Part(group, value, chosen, (int(by_label.get(1, 0)), int(by_label.get(0, 0)))))
    return parts


def _split_by_size(parts: Sequence[_Part]) -> tuple[dict[Key, _Part], list[SmallSubgroup]]:
    large: dict[Key, _Part] = {(part.group, part.value): part for part in parts if min(part.patients) >= FEWEST}
    small: list[SmallSubgroup] = [
        {"group": part.group, "value": part.value, "n_patients_positive": part.patients[0],
         "n_patients_negative": part.patients[1]}
        for part in parts if min(part.patients) < FEWEST
    ]  # fmt: skip
    return large, small


def _contrasts(parts: Mapping[Key, _Part]) -> list[tuple[Key, Key]]:
    """List (part, reference): every part beside the one of its kind that holds the most images."""
    pairs = []
    for group in dict.fromkeys(group for group, _ in parts):
        keys = [key for key in parts if key[0] == group]
        reference = max(keys, key=lambda key: int(parts[key].chosen.sum()))
        pairs += [(key, reference) for key in keys if key != reference]
    return pairs


# --- one pair --------------------------------------------------------------------------------------
def _compare_pair(a: str, b: str, one: _ArmInParts, other: _ArmInParts, seed: int) -> SubgroupsOfPair:
    shared = {
        key: part for key, part in one.parts.items()
        if key in other.parts and np.array_equal(part.chosen, other.parts[key].chosen)
    }  # fmt: skip
    contrasts = _contrasts(shared)
    differences: list[dict[str, Any]] = [_sizes(part, one.table) for part in shared.values()]
    interactions: list[dict[str, Any]] = [
        {"group": key[0], "value": key[1], "reference": reference[1]} for key, reference in contrasts
    ]

    def test(metric: Metric, key: Key, parts: Sequence[_Part]) -> ScoreDifference:
        first, second = (arm.scores[metric.name][key] for arm in (one, other))
        rows = np.logical_or.reduce([part.chosen for part in parts])
        same = np.array_equal(one.table["probability"][rows], other.table["probability"][rows])
        # Where no resample differs, a contrast may be off by as much in either of its parts.
        n_patients = min(one.table["patient"][part.chosen].nunique() for part in parts) // len(parts)
        return bootstrap_test(first, second, n_patients, bool(same), derive_seed(seed, a, b, metric.name, *key))

    for metric in compared_metrics():
        for row, (key, part) in zip(differences, shared.items(), strict=True):
            found = test(metric, key, [part])
            row |= {metric_key(metric, "difference"): found.difference, metric_key(metric, "ci95"): found.ci95}
        tests = [test(metric, (*key, ref[1]), [shared[key], shared[ref]]) for key, ref in contrasts]
        adjusted = holm([found.p for found in tests])
        for row, found, p_holm in zip(interactions, tests, adjusted, strict=True):
            values = {"": found.difference, "_ci95": found.ci95, "_p": found.p, "_p_holm": p_holm}
            row |= {metric_key(metric, f"interaction{what}"): value for what, value in values.items()}
    return {
        "a": a,
        "b": b,
        "differences": cast(list[SubgroupDifference], differences),
        "interactions": cast(list[SubgroupInteraction], interactions),
        "too_small": one.too_small,
    }


def _sizes(part: _Part, table: pd.DataFrame) -> dict[str, Any]:
    rows = table[part.chosen]
    return {
        "group": part.group, "value": part.value, "n_images": len(rows),
        "n_patients": int(rows["patient"].nunique()), "n_positive": int(rows["label"].sum()),
    }  # fmt: skip
