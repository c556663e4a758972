"""What a reader must know before believing a comparison, as sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arms.result_files import Arm, warnings_of
from comparison.file_formats import ArmResult, PairResult, metric_entry
from comparison.image_warnings import synthetic_flags
from dataset.records import GROUPED_BY_IMAGE, grouping_sentence
from stats.metric_registry import compared_metrics
from stats.paired_tests import ALPHA, points


def comparison_flags(
    arms: Sequence[Arm],
    rows: Mapping[str, ArmResult],
    pairs: Sequence[PairResult],
    margin: float,
    n_resamples: int,
) -> list[str]:
    """Collect the warnings, the gravest first; ``rows`` and ``pairs`` are those of comparison.json."""
    return [
        *warnings_of(arms),
        *synthetic_flags(arms),
        *_unstated(arms),
        *_contaminated(arms),
        *_too_small(pairs, margin),
        *_too_many_pairs(pairs, n_resamples),
        *_numbers_of_runs(rows),
    ]


def _unstated(arms: Sequence[Arm]) -> list[str]:
    """Return the flags that an arm's metrics call for and its own red flags lack."""
    flags = []
    for arm in arms:
        metrics = arm.metrics or {}
        stated = " ".join(metrics.get("red_flags", []))
        synthetic = metrics.get("synthetic") or {}
        skipped = (metrics.get("skipped_images") or {}).get("count")
        if synthetic.get("verified") is False and not stated:
            unknown = "nothing says which images their generator saw"
            flags.append(f"{arm.name}: its synthetic images are UNVERIFIED: {unknown}")
        if skipped and "--skip-bad-images" not in stated:
            flags.append(f"{arm.name}: {skipped} missing or unreadable images were left out")
        if (
            metrics.get("grouped_by") == GROUPED_BY_IMAGE
            and grouping_sentence(GROUPED_BY_IMAGE) not in stated
        ):
            flags.append(f"{arm.name}: {grouping_sentence(GROUPED_BY_IMAGE)}")
    return flags


def _contaminated(arms: Sequence[Arm]) -> list[str]:
    names = [arm.name for arm in arms if arm.cv and arm.cv["contaminated"]]
    if not names:
        return []
    return [
        f"{', '.join(names)}: CONTAMINATED FOLDS: the generator of the synthetic images, or the initial "
        "weights, may have seen the validation images; these folds are used in no comparison"
    ]


def _too_small(pairs: Sequence[PairResult], margin: float) -> list[str]:
    flags = []
    for metric in compared_metrics():
        detectable = [metric_entry(pair, metric, "minimum_detectable_difference") for pair in pairs]
        large = sorted(value for value in detectable if value is not None and value > margin)
        if not large:
            continue
        scale, digits = (100, 1) if metric.percent else (1, 3)
        low, high = (f"{scale * value:.{digits}f}" for value in (large[0], large[-1]))
        span = low if low == high else f"{low} to {high}"
        limit = points(margin) if metric.percent else f"{margin:g}"
        images = max(pair["n_images"] for pair in pairs)
        flags.append(
            f"TOO FEW TEST IMAGES FOR THE MARGIN: with {images:,} images, the smallest "
            f"difference in {metric.title} that is found with 80 % power{adjusted_for(len(pairs))} "
            f"is {span}{' points' if metric.percent else ''}; the margin is {limit}"
        )
    return flags


def adjusted_for(n_pairs: int) -> str:
    """Return what the power holds for, in words, where p is adjusted for several pairs."""
    return f" (adjusted for {n_pairs} pairs)" if n_pairs > 1 else ""


def _too_many_pairs(pairs: Sequence[PairResult], n_resamples: int) -> list[str]:
    """The smallest p of a bootstrap is 2 / (n + 1); adjusted for many pairs it cannot fall below .05."""
    if 2 * len(pairs) / (n_resamples + 1) < ALPHA:
        return []
    return [
        f"{len(pairs)} pairs are too many for {n_resamples:,} resamples: "
        f"no adjusted p can fall below {ALPHA:g}"
    ]


def _numbers_of_runs(rows: Mapping[str, ArmResult]) -> list[str]:
    flags = []
    single = [name for name, row in rows.items() if not row["per_repeat"]]
    if single:
        flags.append(
            f"{', '.join(single)}: one training run, so the intervals leave out the variance between seeds"
        )
    runs = {name: row["repeats"] for name, row in rows.items()}
    if len(set(runs.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in runs.items())
        flags.append(
            f"the arms are means over DIFFERENT NUMBERS OF TRAINING RUNS: {shown}; a mean over more runs "
            "tends to score higher by itself"
        )
    return flags
