"""Few labels in a cross-fitted study: the share of real images' gain that synthetic ones keep, and near-copies.

Both stand beside the differences of the arms in comparison.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from arms.registry import BASELINE, CONTROL_PSEUDO, SEMI
from arms.result_files import Arm
from comparison.cross_fit_file_formats import CopiesOfFold, FewLabelStudy, KeptShare
from stats.bootstrap import percentile_interval
from stats.cross_fitting import CrossFittedDifference
from stats.metric_registry import compared_metrics

if TYPE_CHECKING:
    from comparison.cross_fitting import FinishedFold

Found = Mapping[tuple[str, str, str], CrossFittedDifference]


def few_label_content(folds: Sequence[FinishedFold], found: Found) -> FewLabelStudy | None:
    """Make the content of "few_labels"; None if all labels were known. ``found``: (arm a, arm b, metric) -> b - a."""
    if not folds[0].first.recorded.get("few_labels"):
        return None
    firsts = [fold.first.recorded for fold in folds]
    arms = [(fold.fold, made) for fold in folds for made in fold.gans]
    return {
        "labelled_patients": firsts[0]["config"]["labelled_patients"],
        "n_labelled": [first["n_train_images"] for first in firsts],
        "n_hidden": [first["few_labels"]["n_hidden"] for first in firsts],
        "models": max(arm.recorded["few_labels"]["models"] for _, made in arms for arm in made.values()),
        "kept": {metric.name: _kept_share(found, metric.name) for metric in compared_metrics()},
        "near_copies": [copies for fold, made in arms if SEMI in made and (copies := _copies(fold, made[SEMI]))],
    }  # fmt: skip


def _copies(fold: int, semi: Arm) -> CopiesOfFold | None:
    copies = semi.recorded["few_labels"]["near_copies"]
    if copies is None:
        return None
    return {
        "fold": fold, "flagged": copies["flagged"], "n_synthetic": copies["n_synthetic"],
        "heldout_share": copies["heldout_share"], "nearly_identical": copies["nearly_identical"],
    }  # fmt: skip


def _kept_share(found: Found, metric: str) -> KeptShare | None:
    """Return (semi - baseline) / (control_pseudo - baseline); None unless the interval of the latter is above 0.

    The resamples of both differences draw the same patients, so their ratios are those of one draw each.
    """
    made, real = (found.get((BASELINE, arm, metric)) for arm in (SEMI, CONTROL_PSEUDO))
    if made is None or real is None or made.test.difference is None or not real.test.difference:
        return None
    low, _ = real.test.ci95 or (0.0, 0.0)
    if low <= 0 or len(made.values) != len(real.values):
        return None
    ratios = made.values / np.where(real.values == 0, np.nan, real.values)
    return {"share": made.test.difference / real.test.difference, "share_ci95": percentile_interval(ratios)}


def few_label_notes(study: FewLabelStudy, gans: int) -> list[str]:
    """Say what the numbers mean."""
    notes = [
        f"the labels of {study['labelled_patients']:,} patients were known in each training set "
        f"({range_in_words(study['n_labelled'])} images); those of the other "
        f"{range_in_words(study['n_hidden'])} images were hidden from everything that was trained, the GANs included",
        "the baselines that label images softly are those of the same fold and the same labelled patients "
        f"({study['models']} averaged); part of what semi and control_pseudo gain may be that of averaging them",
    ]
    if gans == 1:
        notes.append(
            "one draw of labelled patients per fold, the same in all arms and training runs: its effect cannot be told "
            "from that of the fold"
        )
    else:
        notes.append("each GAN comes with labelled patients of its own: scores are averaged over them")
    return notes


def range_in_words(values: Sequence[int]) -> str:
    """Write the smallest and the largest of the folds' numbers; one number if they are equal."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
