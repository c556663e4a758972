"""Real and synthetic images side by side: decoding them, and the contents of the three JSON files.

Between the pure functions of ``image_quality`` and the script: knows which images are compared, at which
size, from which split, and in whose features, and puts into words what the numbers cannot tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.progress import progress_bar
from comparison import quality_table as quality_rows
from comparison.image_assessment import assess_features, assess_pixels, quality_flags
from data_loader import ImageSet, load_images
from dataset.records import Dataset
from dataset.splits import TEST, TRAIN, Splits, select
from gan.options import CLASS_FLAGS, CLASS_NAMES
from image_metrics.distance_cache import RealDistances
from image_metrics.distances import (
    REAL_TO_REAL,
    EqualDraws,
    draw_pairs,
    draw_pairs_within,
    equal_draws,
    feature_distances,
    relative_diversity,
    ssim_of_pairs,
    summarise,
)
from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from synthetic.folders import SyntheticSet

log = logging.getLogger(__name__)


SSIM_WHAT = "SSIM is similarity, not quality: 1 means the same image."
SSIM_CANNOT_TELL = (
    "It cannot tell whether an image could be a real X-ray or shows pneumonia: a blurred, average chest is "
    "similar to every other. Read each row beside the yardstick. Synthetic images that are more similar to "
    "one another than real ones are to each other point to a lack of variety."
)
FID_CANNOT_TELL = (
    "Every row has the same number of images, because the distance falls as that number grows; read each "
    "row beside the floor, which is what chance alone gives for real images. A distance cannot tell whether "
    "an image shows pneumonia, whether it is a copy of a training image, or whether it helps a classifier."
)

QUALITY_FORMAT = "image-quality-1"


# --- images ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ImageSets:
    """The images that are compared, all uint8 [N, image_size, image_size].

    ``seen`` bool [training images]: those that the generator learned from; all where nobody knows. ``kind``:
    their label or class in words; ``provenance``: where they come from, for every JSON file; ``seen_others``:
    how many training images of other kinds the generator learned from.
    """

    training: ImageSet
    heldout: ImageSet
    synthetic: ImageSet
    seen: np.ndarray
    image_size: int
    kind: str
    provenance: dict[str, Any]
    seen_others: int = 0


def real_images(dataset: Dataset, splits: Splits, role: str, synthetic: SyntheticSet) -> pd.DataFrame:
    """Records with that role and the label of the synthetic images or, where it is known, their class."""
    records = select(dataset, splits, role, synthetic.label)
    name = _class_name(dataset, synthetic)
    return records if name is None else records[records["class"] == name].reset_index(drop=True)


def _class_name(dataset: Dataset, synthetic: SyntheticSet) -> str | None:
    """The dataset's name of their class; None if no class is known, or this dataset does not have it."""
    names = dict(zip(CLASS_FLAGS, CLASS_NAMES, strict=True))
    name = names.get(synthetic.class_flag or "")
    return name if name in set(dataset.images["class"]) else None


def load_image_sets(
    dataset: Dataset,
    splits: Splits,
    synthetic: SyntheticSet,
    *,
    image_size: int,
    seed: int,
    workers: int,
    skip_bad: bool,
    cache_dir: str | Path | None = None,
) -> ImageSets:
    """Real images of the synthetic ones' label or class, and the synthetic ones, decoded to ``image_size``.

    All of them: a copy is found only if its original is looked at. ``seed`` is the run's, for the files;
    ``cache_dir``: where decoded images are kept, None: nowhere.
    ``UserError`` naming unreadable images, unless ``skip_bad``.
    """
    wanted = {
        "training": real_images(dataset, splits, TRAIN, synthetic),
        "heldout": real_images(dataset, splits, TEST, synthetic),
        "synthetic": synthetic.records,
    }
    sets = {}
    for name, records in wanted.items():
        sets[name] = load_images(
            records,
            image_size,
            workers=workers,
            skip_bad=skip_bad,
            desc=f"decoding {name} images",
            cache_dir=cache_dir,
        )
        if not len(sets[name].pixels) and name != "heldout":
            raise UserError(f"no readable {name} images are left to compare")
    named = set(synthetic.manifest.get("train_image_ids", []))
    seen = sets["training"].records["image_id"].isin(named).to_numpy()
    skipped = [image_id for images in sets.values() for image_id in images.skipped]
    seen_others = int(select(dataset, splits, TRAIN)["image_id"].isin(named).sum()) - int(
        wanted["training"]["image_id"].isin(named).sum()
    )
    name = _class_name(dataset, synthetic)
    kind = "positives" if synthetic.label else "negatives" + (f" of class {name}" if name else "")
    provenance = {
        "image_size": image_size,
        "kind": kind,
        "class": name,
        "seed": seed,
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": splits.grouped_by,
        "generator_sha256": synthetic.manifest.get("generator_sha256"),
        "manifest_sha256": synthetic.manifest_sha256,
        "synthetic_verified": synthetic.verified,
        "available": {name: len(records) for name, records in wanted.items()},
        "seen_by_generator": int(seen.sum()) if seen.any() else None,
        "seen_of_other_kinds": seen_others,
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }
    seen = seen if seen.any() else np.ones(len(seen), dtype=bool)
    return ImageSets(**sets, seen=seen, image_size=image_size, kind=kind, provenance=provenance,
                     seen_others=seen_others)  # fmt: skip


# --- SSIM ------------------------------------------------------------------------------------------
def compare_by_ssim(images: ImageSets, n_pairs: int, seed: int) -> dict[str, Any]:
    """The content of ``ssim_analysis.json``."""
    training, heldout, synthetic = images.training.pixels, images.heldout.pixels, images.synthetic.pixels
    patients = list(images.training.records["patient"])
    across = {"synthetic_vs_training": training, "synthetic_vs_heldout": heldout}
    drawn = {
        name: (synthetic, real, draw_pairs(len(synthetic), len(real), n_pairs, seed))
        for name, real in across.items()
    }
    drawn["training_vs_training"] = (training, training, draw_pairs_within(patients, n_pairs, seed))
    within = draw_pairs_within(range(len(synthetic)), n_pairs, seed)
    drawn["synthetic_vs_synthetic"] = (synthetic, synthetic, within)
    comparisons = {}
    for name, (a, b, pairs) in drawn.items():
        progress = partial(progress_bar, desc=f"SSIM {name.replace('_', ' ')}", unit="pair")
        values = ssim_of_pairs(a, b, pairs, progress)
        comparisons[name] = summarise(values, pairs, same_set=a is b)
    return {
        "what": SSIM_WHAT,
        "cannot_tell": SSIM_CANNOT_TELL,
        "settings": "scikit-image structural_similarity, data_range 255, Gaussian window of sigma 1.5",
        "pairs": "distinct random pairs; within the real images always of two different patients",
        **images.provenance,
        "comparisons": comparisons,
    }


# --- features --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Extractor:
    """Rows of a set of images -> features float [N, D], and how its distances have to be labelled: in a few
    words (``short``), in a sentence (``description``), and what they may be compared with. ``key``: the same
    for the same features; without it nothing that follows from them is kept. ``precision`` of the network's
    arithmetic and type of its ``device``, on which features depend a little."""

    name: str
    short: str
    description: str
    comparability: str
    features: Callable[[ImageSet, np.ndarray], np.ndarray]
    key: str = ""
    precision: str | None = None
    device: str | None = None


def inception_extractor(device: torch.device, cache_dir: str | Path | None = None) -> Extractor:
    """``WeightsUnavailableError`` where FID's own weights cannot be had."""
    from networks.inception import feature_cache, load_inception

    cache = feature_cache(load_inception(), cache_dir, device=device)
    return Extractor(
        "inception",
        "FID's Inception network",
        "the features of FID's Inception network (pt_inception-2015-12-05), which has seen photographs only",
        "Published FID values usually rest on 10,000 to 50,000 images: compare only values from equally "
        "many, processed alike.",
        partial(cache.of, desc="Inception features"),
        cache.key,
        "fp32",
        device.type,
    )


def classifier_extractor(
    model: torch.nn.Module, device: torch.device, precision: str, cache_dir: str | Path | None = None
) -> Extractor:
    """``precision``: that with which the classifier was trained, so that its features are found again, and a
    distance does not depend on the machine that measures it."""
    from classifier import feature_caches

    (cache,) = feature_caches(
        model,
        cache_dir,
        device=device,
        precision=precision,
        hint="a smaller --num-fid or --image-size is quicker",
        remedy="use --extractor inception, or train the baseline on other --weights",
    )
    return Extractor(
        "classifier",
        "this project's baseline classifier",
        "the features of this project's own baseline classifier",
        "NOT COMPARABLE with published FID, nor with the features of another classifier: FID's Inception "
        "weights were not used. The classifier learned from these very training images, so held-out ones can "
        "lie apart from them for that reason alone; the row with both real shows how far.",
        cache.of,
        cache.key,
        precision,
        device.type,
    )


def usable_extractors(
    choice: str,
    model: torch.nn.Module | None,
    device: torch.device,
    precision: str = "fp32",
    cache_dir: str | Path | None = None,
) -> list[Extractor]:
    """The extractors to measure with; the first is that of fid_score.json.

    ``choice`` is that of --extractor: with "auto" and "inception" Inception's come first and ``model``'s
    second, with "classifier" they stand alone. ``precision``: the classifier's; ``cache_dir``: where features
    are kept, None: nowhere. ``UserError`` if nothing can be had.
    """
    found = []
    if choice != "classifier":
        try:
            found.append(inception_extractor(device, cache_dir))
        except WeightsUnavailableError as error:
            if choice == "inception":
                raise
            log.info(f"Inception weights are unavailable for FID ({str(error).split('; ')[0]})")
    if model is not None:
        found.append(classifier_extractor(model, device, precision, cache_dir))
    if not found:
        raise UserError(
            "neither FID's Inception weights nor a baseline classifier are there; "
            "`python src/train_classifier.py` trains one, --model-dir says where it is"
        )
    return found


@dataclass(frozen=True)
class Measured:
    """Features of each image, computed once, and the distances between them.

    ``training``, ``heldout``, ``synthetic``: float32 [N, D] of the images in ``rows`` (of the same names);
    heldout may have no rows. ``sets``: what is compared at equal n; ``distances``: of ``feature_distances``.
    """

    extractor: Extractor
    rows: dict[str, np.ndarray]
    training: np.ndarray
    heldout: np.ndarray
    synthetic: np.ndarray
    sets: EqualDraws
    distances: dict[str, Any]


def measure(
    images: ImageSets, extractor: Extractor, num_fid: int, seed: int, cache_dir: str | Path | None = None
) -> Measured:
    """Features of at most ``num_fid`` images of each kind, drawn at random, and of twice as many training
    images, because the floor halves them. ``cache_dir``: where distances of real images are kept."""
    rng = np.random.default_rng(seed)
    rows, features = {}, {}
    for name, most in (("training", 2 * num_fid), ("heldout", num_fid), ("synthetic", num_fid)):
        part = getattr(images, name)
        rows[name] = np.sort(rng.permutation(len(part.pixels))[:most])
        made = extractor.features(part, rows[name]) if len(rows[name]) else np.empty((0, 0))
        features[name] = made.astype(np.float32)
    patients = list(images.training.records["patient"].iloc[rows["training"]])
    sets = equal_draws(
        features["training"], patients, features["synthetic"],
        features["heldout"] if len(features["heldout"]) else None, max_images=num_fid, seed=seed,
    )  # fmt: skip
    keys = [_row_keys(getattr(images, name), rows[name]) for name in ("training", "heldout")]
    # How many synthetic images there are matters: they are drawn before the held-out ones.
    drawing = {"n": sets.n, "draws": sets.draws, "seed": seed, "patients": patients,
               "synthetic": len(rows["synthetic"])}  # fmt: skip
    store = RealDistances(cache_dir, extractor.key, keys, drawing)
    distances = feature_distances(
        sets, partial(progress_bar, desc="Fréchet distances", unit="draw"), store.load(sets.draws),
        lambda values: store.save({name: rows for name, rows in values.items() if name in REAL_TO_REAL}),
    )  # fmt: skip
    return Measured(extractor, rows, **features, sets=sets, distances=distances)


def _row_keys(images: ImageSet, rows: np.ndarray) -> list[str]:
    return [images.row_keys[row] for row in rows] if len(images.row_keys) else []


def arithmetic(extractor: Extractor) -> dict[str, str | None]:
    """With what precision and on what type of device features were computed, for the JSON files."""
    return {"precision": extractor.precision, "device": extractor.device}


def compare_by_features(images: ImageSets, measured: Measured) -> dict[str, Any]:
    """The content of ``fid_score.json``; without "distances" if there are too few images for any."""
    result, extractor = measured.distances, measured.extractor
    headline = {}
    if "distances" in result:
        fid, floor = (result["distances"][name]["fid"] for name in ("synthetic_vs_training", "floor"))
        headline = {"fid": fid, "floor": floor, "relative": fid / floor if floor > 0 else None}
    return {
        **headline,
        "extractor": extractor.name,
        **arithmetic(extractor),
        "extractor_description": extractor.description,
        "comparability": extractor.comparability,
        "cannot_tell": FID_CANNOT_TELL,
        "method": "each draw halves the training images by patient; n images on either side of every "
        "distance; floor = half against half; mean and SD over the draws",
        **images.provenance,
        **result,
    }


# --- the whole of it -------------------------------------------------------------------------------
def assess_quality(
    images: ImageSets, measured: Sequence[Measured], *, seed: int, ssim: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of ``image_quality.json``: "rows" to be shown as they are, "flags" to be said loudly, and
    all numbers behind them.

    ``measured``: of each extractor, or none; ``ssim``: the content of ssim_analysis.json, or None. Rows whose
    numbers cannot be had, for want of images, are left out.
    """
    diversity = None
    if ssim is not None:
        pairs = ssim["comparisons"]
        diversity = relative_diversity(pairs["synthetic_vs_synthetic"], pairs["training_vs_training"])
    spaces = {
        part.extractor.name: arithmetic(part.extractor) | assess_features(images, part, seed)
        for part in measured
    }
    words = {part.extractor.name: part.extractor.short for part in measured}
    pixels = assess_pixels(images, seed)
    return {
        "format": QUALITY_FORMAT,
        "rows": quality_rows.compose(words, spaces, pixels, diversity, ssim, _not_looked_for(images)),
        "flags": quality_flags(diversity, pixels, spaces),
        **images.provenance,
        "extractors": spaces,
        "memorisation": pixels,
        "diversity": diversity,
    }


def _not_looked_for(images: ImageSets) -> list[str]:
    """What a search for copies among images of one kind misses."""
    if not images.seen_others:
        return []
    return [
        f"The generator also learned from {images.seen_others:,} training images of other classes: copies of "
        "those are not looked for."
    ]


def closest_neighbours(images: ImageSets, quality: dict[str, Any], n_pairs: int = 8) -> dict[str, Any]:
    """Arguments of ``plots_images.nearest_neighbours`` for the pairs that ``assess_quality`` found closest by
    pixels."""
    pairs, copies = quality["memorisation"]["closest"][:n_pairs], quality["memorisation"].get("copies")
    kinds = [kind for kind in ("synthetic", "training", "heldout") if kind in pairs[0]]
    captions = {kind: [f"r = {1 - pair[f'{kind}_distance']:.2f}" for pair in pairs] for kind in kinds[1:]}
    title = (
        f"Closest pairs among {len(images.synthetic.pixels):,} synthetic, {images.seen.sum():,} training and "
        f"{len(images.heldout.pixels):,} held-out {images.kind}. r: correlation of details, near 1 in a copy."
    )
    if copies:
        title += f" Flagged above {1 - copies['threshold']:.2f}, which 1 % of the held-out images reach."
        flagged = [", flagged" * (pair["training_distance"] < copies["threshold"]) for pair in pairs]
        captions["training"] = [r + word for r, word in zip(captions["training"], flagged, strict=True)]
    shown = {kind: _pixels_of(getattr(images, kind), [pair[kind] for pair in pairs]) for kind in kinds}
    return {"heldout": None, **shown, "captions": captions, "title": title}


def _pixels_of(images: ImageSet, image_ids: Sequence[str]) -> np.ndarray:
    row_of = {image_id: row for row, image_id in enumerate(images.records["image_id"])}
    return images.pixels[[row_of[image_id] for image_id in image_ids]]
