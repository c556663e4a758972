"""The steps of analyze_results.py that look at images: synthetic beside real ones, and heat maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arms.registry import BASELINE_PREFIX
from arms.result_files import TRAIN_COMMAND, Arm
from classifier import load_classifier
from common import paths
from comparison import heat_maps as gradcam
from comparison.image_quality import (
    Extractor,
    ImageSets,
    Measured,
    assess_quality,
    closest_neighbours,
    compare_by_features,
    compare_by_ssim,
    load_image_sets,
    measure,
    usable_extractors,
)
from comparison.synthetic_sets import analysed_others
from dataset.feature_cache import FeaturesOverflowError
from dataset.records import Dataset, load_dataset, load_official_test
from dataset.splits import TEST, Splits, load_or_create_splits, select
from image_metrics.distances import closest_pairs
from report import image_figures as plots_images
from report.steps import Outcome
from synthetic.folders import SyntheticSet, load_synthetic
from synthetic.leak_checks import known_patients
from utils import UserError, public_path, resolve_precision, select_device

if TYPE_CHECKING:
    from classifier import PneumoniaClassifier

log = logging.getLogger(__name__)


PICTURE_IMAGES = 16  # of each kind in real_vs_synthetic_comparison.png
PICTURE_PAIRS = 8
DEFAULT_IMAGE_SIZE = 224
EXPLAINED = 2  # images of each outcome in gradcam.png
SECTION = "images"


@dataclass(frozen=True)
class ImageOptions:
    """Options of analyze_results.py that concern images, by their names there."""

    data_dir: str
    patient_map: str | None
    splits: str | None
    skip_bad_images: bool
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
class Compared:
    """``quality``: content of image_quality.json, None if not made; ``comparability``: of its first
    distances; ``manifest``: of the synthetic images, None without them."""

    quality: dict[str, Any] | None = None
    comparability: str = ""
    manifest: dict[str, Any] | None = None


def look_at_images(options: ImageOptions, arms: Mapping[str, Arm], outcome: Outcome) -> Compared:
    """All figures and numbers that need the dataset; what cannot be made is noted in ``outcome``.

    ``UserError`` if the dataset is there but unusable.
    """
    if not (Path(options.data_dir) / paths.TRAIN_METADATA).is_file():
        remedy = "`python src/download_dataset.py` fetches it, --data-dir says where it is"
        what = "SSIM, FID, copies, heat maps and the pictures of X-rays"
        outcome.without(f"{what}: {public_path(options.data_dir)} holds no dataset", remedy)
        return Compared()
    dataset = load_dataset(options.data_dir, options.patient_map)
    splits = load_or_create_splits(dataset, options.splits)
    draw_heat_maps(options, arms, dataset, outcome)
    return compare_images(options, arms, dataset, splits, outcome)


# --- synthetic beside real -------------------------------------------------------------------------
def compare_images(
    options: ImageOptions, arms: Mapping[str, Arm], dataset: Dataset, splits: Splits, outcome: Outcome
) -> Compared:
    """Write ssim_analysis.json, fid_score.json, image_quality.json and the pictures of them."""
    synthetic = _synthetic(options, dataset, splits, outcome)
    if synthetic is None:
        return Compared()
    model, size, precision = _baseline(options, arms, splits, outcome)
    images = load_image_sets(
        dataset,
        splits,
        synthetic,
        image_size=options.image_size or size or synthetic.manifest.get("image_size") or DEFAULT_IMAGE_SIZE,
        seed=options.seed,
        workers=options.workers,
        skip_bad=options.skip_bad_images,
        cache_dir=options.cache_dir,
    )
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
    others = analysed_others(arms.values(), synthetic.manifest_sha256)
    quality, comparability = _quality(
        options, images, model, precision, ssim, outcome, [others] if others else []
    )
    # Older manifests do not say where generate_synthetic.py was told to put the images.
    place = {} if synthetic.fold else {"output_dir": public_path(options.synthetic_dir)}
    return Compared(quality, comparability, place | synthetic.manifest)


def _synthetic(
    options: ImageOptions, dataset: Dataset, splits: Splits, outcome: Outcome
) -> SyntheticSet | None:
    """The synthetic images, or None (and why, in ``outcome``) where there are none to compare."""
    patient_of = known_patients(dataset, load_official_test(options.data_dir, options.patient_map))
    test_images = {image_id: patient_of[image_id] for image_id in select(dataset, splits, TEST)["image_id"]}
    try:
        synthetic = load_synthetic(options.synthetic_dir, patient_of, test_images, allow_unverified=True)
    except UserError as error:
        # The report must not say where on this machine the folder lies.
        reason = str(error).replace(str(Path(options.synthetic_dir)), public_path(options.synthetic_dir))
        outcome.without(f"comparison of synthetic with real images: {reason}")
        return None
    outcome.warnings += [f"comparison of images: {flag}" for flag in synthetic.red_flags]
    return synthetic


def _baseline(
    options: ImageOptions, arms: Mapping[str, Arm], splits: Splits, outcome: Outcome
) -> tuple[PneumoniaClassifier | None, int | None, str]:
    """(the baseline classifier, its image size, the precision of its training), None where there is none that
    can be read; other splits are flagged."""
    file = paths.classifier_model(options.model_dir, BASELINE_PREFIX)
    model, checkpoint = None, {}
    if file.is_file():
        try:
            model, checkpoint = load_classifier(file)
        except UserError as error:
            outcome.without(f"the baseline classifier's features: {error}")
    used = {name: arm.metrics["split_sha256"] for name, arm in arms.items() if arm.metrics}
    if model is not None:
        used[file.name] = checkpoint["split_sha256"]
    if others := [name for name, sha256 in used.items() if sha256 != splits.sha256]:
        outcome.warnings.append(
            f"comparison of images: it uses split {splits.sha256[:12]}, which is NOT the split of "
            f"{', '.join(others)}"
        )
    return model, checkpoint.get("image_size"), _precision_of(checkpoint, arms)


def _precision_of(checkpoint: Mapping[str, Any], arms: Mapping[str, Arm]) -> str:
    """What --precision came to where the baseline was trained, if its metrics are those of the checkpoint;
    else --precision itself, of which "auto" may be another one here."""
    config = checkpoint.get("config", {})
    for arm in arms.values():
        if arm.prefix == BASELINE_PREFIX and arm.metrics and arm.metrics.get("config") == config:
            return arm.metrics.get("precision") or config.get("precision", "fp32")
    return config.get("precision", "fp32")


def _quality(
    options: ImageOptions,
    images: ImageSets,
    model: PneumoniaClassifier | None,
    precision: str,
    ssim: dict[str, Any] | None,
    outcome: Outcome,
    flags: list[str],
) -> tuple[dict[str, Any], str]:
    """Write fid_score.json, image_quality.json (``flags`` before its own) and nearest_neighbours.png.

    Returns (content of the second, what the distances of the first may be compared with).
    """
    path = paths.fid_score(outcome.folder)
    try:
        device, cache_dir = select_device(options.cpu), options.cache_dir
        precision = resolve_precision(precision, device)
        extractors = usable_extractors(options.extractor, model, device, precision, cache_dir)
    except UserError as error:
        if options.extractor != "auto":
            raise
        log.info(f"{path.name} is not made: {error}")
        outcome.without(f"{path.name}: {getattr(error, 'short', None) or error}")
        extractors = []
    measured = _measure_all(options, images, extractors, outcome)
    if measured:
        fid = compare_by_features(images, measured[0])
        if "distances" in fid:
            outcome.numbers(path, fid, "Fréchet and kernel distances, row by row")
        else:
            outcome.without(f"{path.name}: {fid['n']} images on a side are too few for a distance")
    quality = assess_quality(images, measured, seed=options.seed, ssim=ssim)
    quality["flags"] = [*flags, *quality["flags"]]
    what = "synthetic beside real images: distance, variety, copies, separability"
    outcome.numbers(paths.image_quality(outcome.folder), quality, what)
    outcome.warnings += quality["flags"]
    _draw_neighbours(options, images, quality, outcome)
    return quality, measured[0].extractor.comparability if measured else ""


def _measure_all(
    options: ImageOptions, images: ImageSets, extractors: list[Extractor], outcome: Outcome
) -> list[Measured]:
    """In the features of each extractor; one whose features overflow is left out unless it was asked for."""
    measured = []
    for extractor in extractors:
        try:
            part = measure(images, extractor, options.num_fid, options.seed, options.cache_dir)
        except FeaturesOverflowError as error:
            if extractor.name == options.extractor:
                raise
            outcome.without(f"distances in {extractor.short}: {error}")
            log.info(f"distances in {extractor.short} are not made: {error}")
            continue
        measured.append(part)
    return measured


def _draw_neighbours(
    options: ImageOptions, images: ImageSets, quality: dict[str, Any], outcome: Outcome
) -> None:
    """nearest_neighbours.png."""
    path = paths.analysis_figure(outcome.folder, "nearest_neighbours")
    neighbours = closest_neighbours(images, quality)
    if neighbours is None:
        outcome.without(f"{path.name}: there are too few images to look for copies")
        return
    figure = plots_images.nearest_neighbours(**neighbours, no_real_images=options.no_real_images)
    if options.no_real_images:
        what = "the synthetic images closest to a training image; no real X-ray is shown"
    else:
        what = "synthetic images above their nearest training and held-out images; shows real X-rays"
    outcome.picture(path, figure, what, SECTION)


def draw_real_vs_synthetic(images: ImageSets, outcome: Outcome, seed: int, no_real_images: bool) -> None:
    """real_vs_synthetic_comparison.png."""
    rng = np.random.default_rng(seed)
    real, synthetic = images.training.pixels, images.synthetic.pixels
    some_real = real[rng.permutation(len(real))[:PICTURE_IMAGES]]
    some_synthetic = synthetic[rng.permutation(len(synthetic))[:PICTURE_IMAGES]]
    path = paths.real_vs_synthetic_figure(outcome.folder)
    size = f"{images.image_size} x {images.image_size} pixels"
    if no_real_images:
        title = f"Synthetic {images.kind}, {size}; real X-rays left out (--no-real-images)"
        figure = plots_images.real_vs_synthetic(None, some_synthetic, title)
        outcome.picture(path, figure, f"synthetic {images.kind} only; no real X-ray is shown", SECTION)
        return
    pairs, r = closest_pairs(synthetic, real, PICTURE_PAIRS)
    captions = [f"r = {value:.2f}" for value in r]
    counts = f"{len(real):,} real training and {len(synthetic):,} synthetic images"
    figure = plots_images.real_vs_synthetic(
        some_real, some_synthetic, f"Real and synthetic {images.kind}, {size}, from {counts}",
        (synthetic[pairs[:, 0]], real[pairs[:, 1]], captions), kind=images.kind,
    )  # fmt: skip
    what = f"real and synthetic {images.kind}, and the closest pairs; shows real X-rays"
    outcome.picture(path, figure, what, SECTION)


# --- heat maps -------------------------------------------------------------------------------------
def draw_heat_maps(
    options: ImageOptions, arms: Mapping[str, Arm], dataset: Dataset, outcome: Outcome
) -> None:
    """gradcam.png: the same right and wrong test images under the model of each arm."""
    path = paths.analysis_figure(outcome.folder, "gradcam")
    if options.no_real_images:
        return
    files = {name: paths.classifier_model(options.model_dir, arm.prefix) for name, arm in arms.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    scored = next((arm for arm in arms.values() if arm.predictions is not None), None)
    if not files or scored is None:
        remedy = f"`{TRAIN_COMMAND}` trains one, --model-dir says where it is"
        outcome.without(f"{path.name}: {public_path(options.model_dir)} holds no model of these arms", remedy)
        return
    chosen = gradcam.choose_images(scored.predictions, n_each=EXPLAINED, seed=options.seed)
    known = dataset.images.set_index("image_id", drop=False)
    if unknown := set(chosen["image_id"]) - set(known.index):
        reason = f"{len(unknown)} of the test images are not in {public_path(options.data_dir)}"
        outcome.without(f"{path.name}: {reason}", "--data-dir says which dataset the arms were trained on")
        return
    records = known.loc[chosen["image_id"]].reset_index(drop=True)
    device = select_device(options.cpu)
    try:
        shown = gradcam.explain_arms(files, records, device=device, workers=options.workers)
    except UserError as error:
        outcome.without(f"{path.name}: {error}")
        return
    title = f"Where the score for pneumonia is sensitive: {len(chosen)} test images"
    figure = plots_images.gradcam(
        shown.xrays, shown.heats, shown.probabilities, gradcam.row_titles(chosen, scored.name), title,
        gradcam.CAPTION,
    )  # fmt: skip
    what = f"heat maps of {len(chosen)} test images, right and wrong ones, under each arm; shows real X-rays"
    outcome.picture(path, figure, what, "heat-maps")
