"""What a reader must know before believing a comparison of arms or of images, as sentences.

An arm rests on a folder of synthetic images if it trains on them or, as a control, was made to match them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arms.registry import ARMS, AUGMENTED
from arms.result_files import Arm, warnings_of
from comparison.file_formats import ArmResult, PairResult, metric_entry
from comparison.image_file_formats import FeatureQuality, Memorisation, PixelMemorisation
from comparison.planned_pairs import EXPLORATORY
from dataset.patients import GROUPED_BY_IMAGE, grouping_sentence
from image_metrics.fidelity import SsimDiversity
from networks.backbones import LITE0
from stats.metric_registry import compared_metrics
from stats.paired_tests import ALPHA, points

MAIN = "0"  # key of metrics["manifest_sha256"] for the folder of the final model; others are single folds
COLLAPSE_RATIO = 0.75  # diversity by SSIM below which a collapse is reported
POOR_COVERAGE = 0.25  # of the yardstick's coverage
MANY_COPIES = 0.05  # share flagged, at the lower end of its interval; by chance it is some 1 to 2 %


def comparison_flags(
    arms: Sequence[Arm], rows: Mapping[str, ArmResult], pairs: Sequence[PairResult], margin: float, n_resamples: int
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
        metrics = arm.recorded
        stated = " ".join(metrics.get("red_flags", []))
        skipped = (metrics.get("skipped_images") or {}).get("count")
        if _synthetic(arm).get("verified") is False and "generator" not in stated:
            unknown = "nothing says which images their generator saw"
            flags.append(f"{arm.name}: its synthetic images are UNVERIFIED: {unknown}")
        if skipped and "--skip-bad-images" not in stated:
            flags.append(f"{arm.name}: {skipped} missing or unreadable images were left out")
        if metrics.get("grouped_by") == GROUPED_BY_IMAGE and grouping_sentence(GROUPED_BY_IMAGE) not in stated:
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
            f"difference in {metric.title} that is found with 80 % power{adjusted_for(n_exploratory(pairs))} "
            f"is {span}{' points' if metric.percent else ''}; the margin is {limit}"
        )
    return flags


def n_exploratory(pairs: Sequence[PairResult]) -> int:
    """Return among how many pairs an exploratory p is adjusted, at most."""
    roles = [[metric_entry(pair, metric, "role") for pair in pairs] for metric in compared_metrics()]
    return max(of_metric.count(EXPLORATORY) for of_metric in roles)


def adjusted_for(n_pairs: int) -> str:
    """Return what the power holds for, in words, where p is adjusted for several pairs."""
    return f" (adjusted for {n_pairs} pairs)" if n_pairs > 1 else ""


def _too_many_pairs(pairs: Sequence[PairResult], n_resamples: int) -> list[str]:
    """Warn if the smallest p of a bootstrap, 2 / (n + 1), adjusted for that many pairs cannot fall below .05."""
    n_pairs = n_exploratory(pairs)
    if 2 * n_pairs / (n_resamples + 1) < ALPHA:
        return []
    return [f"{n_pairs} pairs are too many for {n_resamples:,} resamples: no adjusted p can fall below {ALPHA:g}"]


def _numbers_of_runs(rows: Mapping[str, ArmResult]) -> list[str]:
    flags = []
    single = [name for name, row in rows.items() if not row["per_repeat"]]
    if single:
        flags.append(f"{', '.join(single)}: one training run, so the intervals leave out the variance between seeds")
    runs = {name: row["repeats"] for name, row in rows.items()}
    if len(set(runs.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in runs.items())
        flags.append(
            f"the arms are means over DIFFERENT NUMBERS OF TRAINING RUNS: {shown}; a mean over more runs "
            "tends to score higher by itself"
        )
    return flags


# --- the images behind the arms --------------------------------------------------------------------
def synthetic_flags(arms: Sequence[Arm]) -> list[str]:
    """List the differences between the synthetic images that arms rest on.

    Between the project's own arms a difference is an error of training. Arms named by a user may differ on
    purpose, so for them it is only stated.
    """
    users = [arm for arm in arms if arm.metrics and _manifests(arm)]
    if not users:
        return []
    reference = next((arm for arm in users if arm.name == AUGMENTED), users[0])
    unlike = {
        arm.name: f"{_arm_and_manifest(arm, folds[0])}, {_arm_and_manifest(reference, folds[0])}"
        for arm in users if (folds := _unlike_folds(arm, reference))
    }  # fmt: skip
    flags = []
    if ours := "; ".join(shown for name, shown in unlike.items() if name in ARMS):
        flags.append(f"the arms were trained with, or made to match, DIFFERENT SYNTHETIC IMAGES: {ours}")
    other_than = f"was trained with, or made to match, other synthetic images than {reference.name}"
    flags += [f"{name} {other_than}: {shown}" for name, shown in unlike.items() if name not in ARMS]
    return flags + _unlike_numbers(users)


def _manifests(arm: Arm) -> dict[str, str | None]:
    """Return fold -> sha256 of a manifest, None for a folder without one; empty for arms without a folder."""
    return arm.recorded.get("manifest_sha256") or {}


def _unlike_folds(arm: Arm, reference: Arm) -> list[str]:
    """Return the folds that both arms have and whose manifests differ, the main folder first."""
    own, other = _manifests(arm), _manifests(reference)
    return sorted((fold for fold in own.keys() & other.keys() if own[fold] != other[fold]), key=int)


def _arm_and_manifest(arm: Arm, fold: str) -> str:
    """Write "augmented manifest 38bca24d4ab0 of generator 83e24fb11735", or the manifest of a fold."""
    words = f"{arm.name} {_manifest_words(_manifests(arm)[fold])}"
    if fold != MAIN:
        return f"{words} in fold {fold}"
    generator = _synthetic(arm).get("generator_sha256")
    return words + (f" of generator {generator[:12]}" if generator else "")


def _manifest_words(sha256: str | None) -> str:
    return f"manifest {sha256[:12]}" if sha256 else "no manifest"


def _synthetic(arm: Arm) -> dict[str, Any]:
    return arm.recorded.get("synthetic") or {}


def _unlike_numbers(users: Sequence[Arm]) -> list[str]:
    """Warn if the arms added, or stood for, different numbers of images."""
    numbers = {arm.name: n for arm in users if (n := _n_extra(arm)) is not None}
    if len(set(numbers.values())) < 2:
        return []
    ratios = {arm.name: _ratio(arm) for arm in users}
    shown = ", ".join(f"{name} {number:,}{ratios[name]}" for name, number in numbers.items())
    if len({number for name, number in numbers.items() if name in ARMS}) > 1:
        return [f"the arms added, or stood for, DIFFERENT NUMBERS of synthetic images: {shown}"]
    return [f"synthetic images added, or stood for: {shown}"]


def _n_extra(arm: Arm) -> int | None:
    used = _synthetic(arm).get("n_used")
    return used if used is not None else arm.recorded.get("n_synthetic") or arm.recorded.get("n_duplicated")


def _ratio(arm: Arm) -> str:
    ratio = (arm.recorded.get("config") or {}).get("synthetic_ratio")
    return "" if ratio is None else f" (--synthetic-ratio {ratio:g})"


# --- the images that are analysed ------------------------------------------------------------------
def analysed_others(arms: Iterable[Arm], manifest_sha256: str | None) -> str | None:
    """Warn if the analysed images are not the ones, or not all, that the augmented arm was trained on.

    Without an augmented arm any other arm counts. None if they are the same or nobody can tell.
    """
    trained = [arm for arm in arms if MAIN in _manifests(arm) and arm.recorded.get("n_synthetic")]
    wanted = [arm for arm in trained if arm.name == AUGMENTED] or trained
    if not wanted or manifest_sha256 in [_manifests(arm)[MAIN] for arm in wanted]:
        return None
    if parts := [part for arm in wanted if (part := _one_of_several(arm, manifest_sha256))]:
        return parts[0]
    shown = ", ".join(f"{arm.name} {_manifest_words(_manifests(arm)[MAIN])}" for arm in wanted)
    return (
        f"the synthetic images analysed here ({_manifest_words(manifest_sha256)}) are NOT THOSE THAT THE "
        f"ARMS WERE TRAINED ON ({shown}); --synthetic-dir says which images to analyse"
    )


def _one_of_several(arm: Arm, manifest_sha256: str | None) -> str | None:
    """Warn if ``manifest_sha256`` belongs to only one of the arm's several folders of synthetic images."""
    folders = _synthetic(arm).get("folders") or []
    others = [folder["dir"] for folder in folders if folder["manifest_sha256"] != manifest_sha256]
    if manifest_sha256 is None or len(others) == len(folders):
        return None
    return (
        f"the synthetic images analysed here fill one of the {len(folders)} folders that {arm.name} was "
        f"trained on; another analysis can look at {', '.join(others)} (--synthetic-dir, --analysis-dir)"
    )


# --- collapse and copies ---------------------------------------------------------------------------
def quality_flags(
    diversity: SsimDiversity | None, pixels: PixelMemorisation, spaces: Mapping[str, FeatureQuality]
) -> list[str]:
    """List the signs of a collapse and of copies; ``spaces``: numbers by extractor."""
    flags = []
    ratio = diversity["ssim_diversity"] if diversity else None
    if ratio is not None and ratio < COLLAPSE_RATIO:
        flags.append(
            f"synthetic images are much more alike than real ones (diversity by SSIM: {ratio:.2f} of the "
            "real images' diversity); the generator may have collapsed"
        )
    for name, space in spaces.items():
        scores = space["neighbourhoods"].get("comparisons", {})
        if "heldout_vs_training" not in scores:
            continue
        made, unseen = (scores[f"{kind}_vs_training"]["coverage"] for kind in ("synthetic", "heldout"))
        if made < POOR_COVERAGE * unseen:
            flags.append(
                f"synthetic images cover {made:.0%} of the training images in features of {name}, unseen "
                f"real images cover {unseen:.0%}: they show too few kinds of images, or look like no real "
                "image"
            )
    if "copies" in pixels:
        flags += _copy_flags("pixels", {"copies": pixels["copies"], "closer": pixels["closer"]})
    # The classifier learned from the training images, so synthetic ones may lie nearer to them in its
    # features for that reason alone: its numbers stand in the table, but raise no alarm.
    for name, words in (("inception", "Inception's features"), (LITE0, "EfficientNet-Lite0's features")):
        if name in spaces and (found := spaces[name]["memorisation"]):
            flags += _copy_flags(words, found)
    return flags


def _copy_flags(space: str, found: Memorisation) -> list[str]:
    copies, closer = found["copies"], found["closer"]
    flags = []
    if count := copies["nearly_identical"]:
        flags.append(
            f"{count:,} of {copies['n_synthetic']:,} synthetic images are nearly identical to a training "
            f"image (by {space}); look at the closest pairs before you show or use them"
        )
    elif copies["share_ci95"][0] > MANY_COPIES:
        flags.append(
            f"{copies['share']:.0%} of the synthetic images are closer to a training image than 99 % of "
            f"unseen real images are (by {space}); look at the closest pairs"
        )
    by_chance = closer["chance95"][1]
    if closer["share"] > by_chance:
        flags.append(
            f"{closer['share']:.0%} of the synthetic images are closer to the training images than to "
            f"equally many unseen ones (by {space}; by chance up to {by_chance:.0%}); the generator seems "
            "to follow single training images"
        )
    return flags
