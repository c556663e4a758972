"""What a reader must know before believing a comparison, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arms.result_files import Arm, warnings_of
from comparison.image_warnings import synthetic_flags
from dataset.patients import GROUPED_BY_IMAGE, grouping_sentence
from stats.paired_tests import ALPHA


def comparison_flags(
    arms: Sequence[Arm],
    rows: dict[str, dict[str, Any]],
    pairs: Sequence[dict[str, Any]],
    margin: float,
    n_resamples: int,
) -> list[str]:
    """Sentences, the gravest first; ``rows`` and ``pairs`` are those of comparison.json."""
    return [
        *warnings_of(arms),
        *synthetic_flags(arms),
        *_unsaid(arms),
        *_contaminated(arms),
        *_too_small(pairs, margin),
        *_too_many_pairs(pairs, n_resamples),
        *_runs(rows),
    ]


def _unsaid(arms: Sequence[Arm]) -> list[str]:
    """What the metrics of an arm tell although its own red flags do not."""
    flags = []
    for arm in arms:
        metrics = arm.metrics or {}
        said = " ".join(metrics.get("red_flags", []))
        synthetic = metrics.get("synthetic") or {}
        skipped = (metrics.get("skipped_images") or {}).get("count")
        if synthetic.get("verified") is False and not said:
            flags.append(f"{arm.name}: its synthetic images are UNVERIFIED: nobody knows what they came from")
        if skipped and "--skip-bad-images" not in said:
            flags.append(f"{arm.name}: {skipped} missing or unreadable images were left out")
        if metrics.get("grouped_by") == GROUPED_BY_IMAGE and grouping_sentence(GROUPED_BY_IMAGE) not in said:
            flags.append(f"{arm.name}: {grouping_sentence(GROUPED_BY_IMAGE)}")
    return flags


def _contaminated(arms: Sequence[Arm]) -> list[str]:
    names = [arm.name for arm in arms if arm.cv and arm.cv["contaminated"]]
    if not names:
        return []
    return [
        f"{', '.join(names)}: CONTAMINATED FOLDS: the generator of the synthetic images, or the initial "
        "weights, may have seen their validation images; they enter no comparison"
    ]


def _too_small(pairs: Sequence[dict[str, Any]], margin: float) -> list[str]:
    flags = []
    for key, what in (("", "accuracy"), ("_auroc", "AUROC")):
        detectable = [pair[f"minimum_detectable_difference{key}"] for pair in pairs]
        large = sorted(value for value in detectable if value is not None and value > margin)
        if large:
            low, high = (f"{100 * value:.1f}" for value in (large[0], large[-1]))
            span = low if low == high else f"{low} to {high}"
            images = max(pair["n_images"] for pair in pairs)
            flags.append(
                f"n TOO SMALL FOR THE MARGIN: with {images:,} test images the smallest difference in {what} "
                f"found with 80 % power{of_pairs(len(pairs))} is {span} points, more than the margin of "
                f"{100 * margin:g}"
            )
    return flags


def of_pairs(n: int) -> str:
    """What the power is for, in words, where p is adjusted for ``n`` pairs."""
    return f" after the adjustment for {n} pairs" if n > 1 else ""


def _too_many_pairs(pairs: Sequence[dict[str, Any]], n_resamples: int) -> list[str]:
    """The smallest p of a bootstrap is 2 / (n + 1); adjusted for many pairs it cannot fall below .05."""
    if 2 * len(pairs) / (n_resamples + 1) < ALPHA:
        return []
    return [
        f"{len(pairs)} pairs are too many for {n_resamples:,} resamples: "
        f"no adjusted p can fall below {ALPHA:g}"
    ]


def _runs(rows: dict[str, dict[str, Any]]) -> list[str]:
    flags = []
    single = [name for name, row in rows.items() if not row["per_repeat"]]
    if single:
        flags.append(f"{', '.join(single)}: one training run, so seed variance is not included")
    runs = {name: row["repeats"] for name, row in rows.items()}
    if len(set(runs.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in runs.items())
        flags.append(
            f"the arms are means over DIFFERENT NUMBERS OF TRAINING RUNS: {shown}; a mean over more runs "
            "tends to score higher by itself"
        )
    return flags
