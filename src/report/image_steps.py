"""The steps of analyze_results.py that look at images: synthetic beside real ones, and heat maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arms.result_files import TRAIN_COMMAND, Arm
from common import paths
from comparison import heat_maps
from comparison.image_quality import (
    Measured,
    assess_quality,
    compare_by_features,
    compare_by_ssim,
    measure_features,
)
from comparison.image_sets import (
    Baseline,
    ImageSets,
    load_baseline,
    load_image_sets,
    usable_extractors,
)
from comparison.quality_table import SPACE_WORDS
from comparison.warnings import analysed_others
from dataset.feature_cache import FeaturesOverflowError
from dataset.patients import GROUPED_BY_PATIENT
from dataset.records import load_dataset, load_official_test
from dataset.splits import TEST, Splits, load_or_create_splits, select
from image_metrics.copies import closest_pairs
from image_metrics.feature_spaces import Space
from report import image_figures
from report.patient_flow import DataFolder
from report.steps import Outcome
from synthetic.folders import SyntheticSet, load_synthetic
from synthetic.leak_checks import known_patients
from utils import UserError, public_path, resolve_precision, select_device

if TYPE_CHECKING:
    from comparison.image_file_formats import ImageQuality

log = logging.getLogger(__name__)

PICTURE_IMAGES = 16  # of each kind in real_vs_synthetic_comparison.png
PICTURE_PAIRS = 8  # closest pairs in that picture and in nearest_neighbours.png
DEFAULT_IMAGE_SIZE = 224
EXPLAINED = 2  # images of each outcome in gradcam.png
SECTION = "images"


@dataclass(frozen=True)
class ImageOptions:
    """Options of analyze_results.py that concern images, by their names there."""

    data_dir: str
    patient_map: str | None
    patient_column: str | None
    splits: str | None
    skip_bad_images: bool
    bits: int | None
    synthetic_dir: str
    model_dir: str
    num_compare: int
    num_fid: int
    skip_ssim: bool
    extractor: str
    no_real_images: bool
    image_size: int | None
    seed: int
    workers: int
    cpu: bool
    cache_dir: str | None


@dataclass(frozen=True)
class ImageResults:
    """What the report needs to know about images.

    ``quality``: content of image_quality.json, None if it was not made; ``comparability``: what its first
    distances may be compared with; ``manifest``: manifest of the synthetic images, None without them; ``data``:
    the data folder, None if there is none.
    """

    quality: ImageQuality | None = None
    comparability: str = ""
    manifest: dict[str, Any] | None = None
    data: DataFolder | None = None


def look_at_images(options: ImageOptions, arms: Mapping[str, Arm], outcome: Outcome) -> ImageResults:
    """Make all figures and numbers that need the data set; note in ``outcome`` what cannot be made.

    Raises ``UserError`` if the data set is there but unusable.
    """
    if not (Path(options.data_dir) / paths.TRAIN_METADATA).is_file():
        remedy = "`python src/download_dataset.py` fetches it, --data-dir says where it is"
        what = "SSIM, FID, copies, heat maps and the pictures of X-rays"
        outcome.without(f"{what}: {public_path(options.data_dir)} holds no dataset", remedy)
        return ImageResults()
    dataset = load_dataset(options.data_dir, options.patient_map, options.patient_column)
    splits = load_or_create_splits(dataset, options.splits, options.cache_dir)
    stated = {flag for arm in arms.values() if arm.metrics for flag in arm.metrics["red_flags"]}
    outcome.warnings += [f"data: {flag}" for flag in dataset.red_flags if flag not in stated]
    official = load_official_test(options.data_dir, options.patient_map, options.patient_column)
    data = DataFolder(dataset, splits, official)
    draw_heat_maps(options, arms, data, outcome)
    synthetic = _load_synthetic(options, data, {*stated, *dataset.red_flags}, outcome)
    if synthetic is None:
        return ImageResults(data=data)
    return compare_images(options, arms, data, synthetic, outcome)


# --- loading ---------------------------------------------------------------------------------------
def _load_synthetic(
    options: ImageOptions, data: DataFolder, stated: set[str], outcome: Outcome
) -> SyntheticSet | None:  # fmt: skip
    """Load the synthetic images; None, with the reason in ``outcome``, if there are none to compare.

    ``stated``: flags of arms and data, which the manifest repeats and the report need not.
    """
    dataset, splits = data.dataset, data.splits
    patient_of = known_patients(dataset, data.official)
    test_images = {image_id: patient_of[image_id] for image_id in select(dataset, splits, TEST)["image_id"]}
    try:
        synthetic = load_synthetic(
            options.synthetic_dir, patient_of, test_images, True, dataset.grouped_by == GROUPED_BY_PATIENT
        )
    except UserError as error:
        # The report must not say where on this machine the folder lies.
        reason = str(error).replace(str(Path(options.synthetic_dir)), public_path(options.synthetic_dir))
        outcome.without(f"comparison of synthetic with real images: {reason}")
        return None
    outcome.warnings += [f"comparison of images: {flag}" for flag in synthetic.red_flags if flag not in stated]
    return synthetic


def _load_baseline(options: ImageOptions, arms: Mapping[str, Arm], splits: Splits, outcome: Outcome) -> Baseline:
    """Load the baseline classifier; note why it cannot be read, and results that rest on another split."""
    baseline = load_baseline(options.model_dir, arms)
    if baseline.problem:
        outcome.without(f"the baseline classifier's features: {baseline.problem}")
    used: dict[str, str | None] = {name: arm.metrics["split_sha256"] for name, arm in arms.items() if arm.metrics}
    if baseline.model is not None:
        used[baseline.name] = baseline.split_sha256
    if others := [name for name, sha256 in used.items() if sha256 != splits.sha256]:
        outcome.warnings.append(
            f"comparison of images: it uses split {splits.sha256[:12]}, which is NOT the split of {', '.join(others)}"
        )
    return baseline


# --- synthetic beside real -------------------------------------------------------------------------
def compare_images(
    options: ImageOptions, arms: Mapping[str, Arm], data: DataFolder, synthetic: SyntheticSet, outcome: Outcome
) -> ImageResults:
    """Write ssim_analysis.json, fid_score.json, image_quality.json and the pictures that belong to them."""
    baseline = _load_baseline(options, arms, data.splits, outcome)
    made_size = synthetic.manifest.get("image_size")
    images = load_image_sets(
        data.dataset, data.splits, synthetic, seed=options.seed, workers=options.workers, cache_dir=options.cache_dir,
        image_size=options.image_size or baseline.image_size or made_size or DEFAULT_IMAGE_SIZE,
        skip_bad=options.skip_bad_images, bits=options.bits,
    )  # fmt: skip
    if (count := images.provenance["skipped_images"]["count"]) > 0:
        left_out = f"{count} missing or unreadable ones were left out (--skip-bad-images)"
        outcome.warnings.append(f"comparison of images: {left_out}")
    draw_real_vs_synthetic(images, outcome, options.seed, options.no_real_images)
    ssim = None
    if options.skip_ssim:
        outcome.without("SSIM: left out (--skip-ssim)")
    else:
        ssim = compare_by_ssim(images, options.num_compare, options.seed)
        outcome.numbers(paths.ssim_analysis(outcome.folder), ssim, "SSIM of pairs of images, row by row")
    measured = _measure_all(options, images, _extractors(options, baseline, outcome), outcome)
    if measured:
        _write_fid_score(images, measured[0], outcome)
    quality = assess_quality(images, measured, seed=options.seed, ssim=ssim)
    if others := analysed_others(arms.values(), synthetic.manifest_sha256):
        quality["flags"].insert(0, others)
    what = "synthetic beside real images: distance, variety, copies, separability"
    outcome.numbers(paths.image_quality(outcome.folder), quality, what)
    outcome.warnings += quality["flags"]
    draw_neighbours(images, quality, outcome, options.no_real_images)
    comparability = SPACE_WORDS[measured[0].extractor.name].comparability if measured else ""
    return ImageResults(quality, comparability, synthetic.manifest, data)


def _extractors(options: ImageOptions, baseline: Baseline, outcome: Outcome) -> list[Space]:
    """Return the networks to measure with; none, with the reason in ``outcome``, if none was asked for by name."""
    file = paths.fid_score(outcome.folder)
    try:
        device = select_device(options.cpu)
        precision = resolve_precision(baseline.precision, device)
        return usable_extractors(options.extractor, baseline.model, device, precision, options.cache_dir)
    except UserError as error:
        if options.extractor != "auto":
            raise
        log.info(f"{file.name} is not made: {error}")
        outcome.without(f"{file.name}: {error}")
        return []


def _measure_all(
    options: ImageOptions, images: ImageSets, extractors: Sequence[Space], outcome: Outcome
) -> list[Measured]:
    """Measure with each extractor; leave out one whose features overflow, unless it was asked for."""
    measured = []
    for extractor in extractors:
        try:
            part = measure_features(images, extractor, options.num_fid, options.seed, options.cache_dir)
        except FeaturesOverflowError as error:
            if extractor.name == options.extractor:
                raise
            words = SPACE_WORDS[extractor.name].short
            outcome.without(f"distances in {words}: {error}")
            log.info(f"distances in {words} are not made: {error}")
            continue
        measured.append(part)
    return measured


def _write_fid_score(images: ImageSets, measured: Measured, outcome: Outcome) -> None:
    """Write the distances in the features of one extractor."""
    file, fid = paths.fid_score(outcome.folder), compare_by_features(images, measured)
    if fid is None:
        n = measured.distances["n"]
        outcome.without(f"{file.name}: {n} images on a side are too few for a distance")
    else:
        outcome.numbers(file, fid, "Fréchet and kernel distances, row by row")


# --- pictures --------------------------------------------------------------------------------------
def draw_real_vs_synthetic(images: ImageSets, outcome: Outcome, seed: int, no_real_images: bool) -> None:
    """Draw real_vs_synthetic_comparison.png."""
    rng = np.random.default_rng(seed)
    real, synthetic = images.training.pixels, images.synthetic.pixels
    some_real = real[rng.permutation(len(real))[:PICTURE_IMAGES]]
    some_synthetic = synthetic[rng.permutation(len(synthetic))[:PICTURE_IMAGES]]
    path = paths.real_vs_synthetic_figure(outcome.folder)
    size = f"{images.image_size} x {images.image_size} pixels"
    if no_real_images:
        title = f"Synthetic {images.kind}, {size}; real X-rays left out (--no-real-images)"
        figure = image_figures.real_vs_synthetic(None, some_synthetic, title)
        outcome.picture(path, figure, f"synthetic {images.kind} only; no real X-ray is shown", SECTION)
        return
    pairs, r = closest_pairs(synthetic, real, PICTURE_PAIRS)
    captions = [f"r = {value:.2f}" for value in r]
    counts = f"{len(real):,} real training and {len(synthetic):,} synthetic images"
    figure = image_figures.real_vs_synthetic(
        some_real, some_synthetic, f"Real and synthetic {images.kind}, {size}, from {counts}",
        (synthetic[pairs[:, 0]], real[pairs[:, 1]], captions), kind=images.kind,
    )  # fmt: skip
    what = f"real and synthetic {images.kind}, and the closest pairs; shows real X-rays"
    outcome.picture(path, figure, what, SECTION)


def draw_neighbours(images: ImageSets, quality: ImageQuality, outcome: Outcome, no_real_images: bool) -> None:
    """Draw nearest_neighbours.png: the pairs that image_quality.json lists as closest by pixels."""
    pairs = closest_neighbours(images, quality)
    figure = image_figures.nearest_neighbours(**pairs, no_real_images=no_real_images)
    what = "synthetic images above their nearest training and held-out images; shows real X-rays"
    if no_real_images:
        what = "the synthetic images closest to a training image; no real X-ray is shown"
    outcome.picture(paths.analysis_figure(outcome.folder, "nearest_neighbours"), figure, what, SECTION)


def closest_neighbours(images: ImageSets, quality: ImageQuality, n_pairs: int = PICTURE_PAIRS) -> dict[str, Any]:
    """Return arguments of ``image_figures.nearest_neighbours``: the closest pairs with captions and a title."""
    found = quality["memorisation"]
    pairs: Sequence[Mapping[str, Any]] = found["closest"][:n_pairs]
    shown: dict[str, np.ndarray | None] = {"heldout": None}
    captions: dict[str, list[str]] = {}
    for name, part in images.parts.items():
        if len(part.pixels):
            row_of = {image_id: row for row, image_id in enumerate(part.records["image_id"])}
            shown[name] = part.pixels[[row_of[pair[name]] for pair in pairs]]
            if name != "synthetic":
                captions[name] = [f"r = {1 - pair[f'{name}_distance']:.2f}" for pair in pairs]
    title = (
        f"Closest pairs among {len(images.synthetic.pixels):,} synthetic, {images.seen.sum():,} training and "
        f"{len(images.heldout.pixels):,} held-out {images.kind}. r: correlation of details, near 1 in a copy."
    )
    if "copies" in found:
        threshold = found["copies"]["threshold"]
        title += f" Flagged above {1 - threshold:.2f}, which 1 % of the held-out images reach."
        for place, pair in enumerate(pairs):
            if pair["training_distance"] < threshold:
                captions["training"][place] += ", flagged"
    return {**shown, "captions": captions, "title": title}


# --- heat maps -------------------------------------------------------------------------------------
def draw_heat_maps(options: ImageOptions, arms: Mapping[str, Arm], data: DataFolder, outcome: Outcome) -> None:
    """Draw gradcam.png: the same right and wrong test images under the model of each arm."""
    path = paths.analysis_figure(outcome.folder, "gradcam")
    if options.no_real_images:
        return
    files = {name: paths.classifier_model(options.model_dir, arm.prefix, arm.backbone) for name, arm in arms.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    scored = [(arm.name, arm.predictions) for arm in arms.values() if arm.predictions is not None]
    if not files or not scored:
        remedy = f"`{TRAIN_COMMAND}` trains one; give its folder with --model-dir"
        outcome.without(f"{path.name}: {public_path(options.model_dir)} holds no model of these arms", remedy)
        return
    name, predictions = scored[0]
    chosen = heat_maps.choose_images(predictions, n_each=EXPLAINED, seed=options.seed)
    official = data.official if arms[name].recorded.get("test_set") == "official" else None
    known = (official or data.dataset).images.set_index("image_id", drop=False)
    if unknown := set(chosen["image_id"]) - set(known.index):
        reason = f"{len(unknown)} of the test images are not in {public_path(options.data_dir)}"
        outcome.without(f"{path.name}: {reason}", "--data-dir says which dataset the arms were trained on")
        return
    records = known.loc[chosen["image_id"]].reset_index(drop=True)
    device = select_device(options.cpu)
    try:
        shown = heat_maps.explain_arms(files, records, device=device, workers=options.workers, bits=options.bits)
    except UserError as error:
        outcome.without(f"{path.name}: {error}")
        return
    title = f"Where the score for pneumonia is sensitive: {len(chosen)} test images"
    figure = image_figures.gradcam(
        shown.xrays, shown.heats, shown.probabilities, heat_maps.row_titles(chosen, name), title,
        heat_maps.CAPTION,
    )  # fmt: skip
    what = f"heat maps of {len(chosen)} test images, right and wrong ones, under each arm; shows real X-rays"
    outcome.picture(path, figure, what, "heat-maps")
