"""Synthetic images compared with real ones: the contents of the three JSON files about images.

Decides which images are the yardstick of which, and calls the pure functions of image_metrics/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from common.progress import progress_bar
from comparison.image_file_formats import (
    ClosestPair,
    FeatureQuality,
    FidScore,
    ImageQuality,
    Memorisation,
    PixelMemorisation,
    Separability,
    SsimAnalysis,
    SubsetDistances,
)
from comparison.image_sets import ImageSets
from comparison.quality_table import SPACE_WORDS, quality_rows
from comparison.warnings import quality_flags
from dataset.near_copies import detail_distances
from image_metrics.copies import closer_to_training, near_copies
from image_metrics.distances import (
    KID_SUBSET_SIZE,
    EqualDistances,
    EqualDraws,
    Groups,
    RealDistances,
    distances_of_draws,
    equal_draws,
    kernel_distance_of_subsets,
    mean_distances,
)
from image_metrics.feature_spaces import Space
from image_metrics.fidelity import (
    Probe,
    draw_pairs,
    draw_pairs_within,
    relative_diversity,
    scores_over_draws,
    separability,
    ssim_of_pairs,
    summarise_pairs,
)

QUALITY_FORMAT = "image-quality-1"
REAL = ("training", "heldout")
MIN_HELDOUT = 5  # held-out images; fewer are no yardstick for copies
LISTED_PAIRS = 16  # the closest ones, by name
MOST_RANKED = 2000  # synthetic images whose distances are ranked; a share needs no more
SSIM_WHAT = "SSIM measures similarity, not quality: 1 means the same image."
SSIM_CANNOT_TELL = (
    "It cannot tell whether an image could be a real X-ray or shows pneumonia: a blurred, average chest is "
    "similar to every other chest. Read each row beside training_vs_training. Synthetic images that are more "
    "similar to one another than real ones are to each other lack variety."
)
FID_CANNOT_TELL = (
    "Every row uses the same number of images, because the distance falls as that number grows. Read each "
    "row beside the floor, which is what chance alone gives for real images. A distance cannot tell whether "
    "an image shows pneumonia, whether it is a copy of a training image, or whether it helps a classifier."
)


# --- SSIM ------------------------------------------------------------------------------------------
def compare_by_ssim(images: ImageSets, n_pairs: int, seed: int) -> SsimAnalysis:
    """Make the content of ssim_analysis.json from ``n_pairs`` random pairs of each comparison."""
    training, heldout, synthetic = images.training.pixels, images.heldout.pixels, images.synthetic.pixels
    patients = images.training.records["patient"].to_numpy()
    pairs_of = {
        "synthetic_vs_training": (synthetic, training),
        "synthetic_vs_heldout": (synthetic, heldout),
        "training_vs_training": (training, training),
        "synthetic_vs_synthetic": (synthetic, synthetic),
    }
    comparisons = {}
    for name, (a, b) in pairs_of.items():
        if a is not b:
            pairs = draw_pairs(len(a), len(b), n_pairs, seed)
        else:
            pairs = draw_pairs_within(patients if a is training else np.arange(len(a)), n_pairs, seed)
        progress = partial(progress_bar, desc=f"SSIM {name.replace('_', ' ')}", unit="pair")
        comparisons[name] = summarise_pairs(ssim_of_pairs(a, b, pairs, progress), pairs, same_set=a is b)
    return {
        "what": SSIM_WHAT,
        "cannot_tell": SSIM_CANNOT_TELL,
        "settings": "scikit-image structural_similarity, data_range 255, Gaussian window of sigma 1.5",
        "pairs": "distinct random pairs; pairs of real images are always of two different patients",
        **images.provenance,
        "comparisons": comparisons,
    }


# --- distances between features --------------------------------------------------------------------
@dataclass(frozen=True)
class Measured:
    """Features of the images, computed once, and the distances between them.

    ``rows``: the images drawn from each set; ``training``, ``heldout``, ``synthetic``: their features
    float32 [N, D] (heldout may have no rows); ``sets``: what is compared at an equal number of images.
    """

    extractor: Space
    rows: dict[str, np.ndarray]
    training: np.ndarray
    heldout: np.ndarray
    synthetic: np.ndarray
    sets: EqualDraws
    distances: EqualDistances


def measure_features(
    images: ImageSets, extractor: Space, num_fid: int, seed: int, cache_dir: str | Path | None = None
) -> Measured:
    """Compute features of at most ``num_fid`` random images of each set, and their distances.

    Twice as many training images are used, because the floor halves them. ``cache_dir``: folder for
    the distances of real images; None keeps nothing.
    """
    rng = np.random.default_rng(seed)
    rows, features = {}, {}
    for name, most in (("training", 2 * num_fid), ("heldout", num_fid), ("synthetic", num_fid)):
        part = images.parts[name]
        rows[name] = np.sort(rng.permutation(len(part.pixels))[:most])
        made = extractor.of_rows(part, rows[name]) if len(rows[name]) else np.empty((0, 0))
        features[name] = made.astype(np.float32)
    patients = list(images.training.records["patient"].iloc[rows["training"]])
    heldout = features["heldout"] if len(features["heldout"]) else None
    sets = equal_draws(features["training"], patients, features["synthetic"], heldout, max_images=num_fid, seed=seed)
    reals = [(images.parts[name].row_keys, rows[name]) for name in REAL]
    keys = [[keys[row] for row in chosen] if len(keys) else [] for keys, chosen in reals]
    # The number of synthetic images matters: they are drawn before the held-out ones.
    drawing = {
        "n": sets.n, "draws": sets.draws, "seed": seed, "patients": patients,
        "synthetic": len(rows["synthetic"]),
    }  # fmt: skip
    kept = RealDistances(cache_dir, extractor.key, keys, drawing)
    progress = partial(progress_bar, desc="Fréchet distances", unit="draw")
    distances = distances_of_draws(sets, progress, kept.load(sets.draws))
    kept.save(distances)
    return Measured(extractor, rows, **features, sets=sets, distances=mean_distances(sets.n, distances))


def compare_by_features(images: ImageSets, measured: Measured) -> FidScore | None:
    """Make the content of fid_score.json; None if there are too few images for any distance."""
    result, extractor = measured.distances, measured.extractor
    if "comparisons" not in result:
        return None
    fid, floor = (result["comparisons"][name]["fid"] for name in ("synthetic_vs_training", "floor"))
    words = SPACE_WORDS[extractor.name]
    return {
        "fid": fid,
        "fid_floor": floor,
        "fid_relative": fid / floor if floor > 0 else None,
        "extractor": extractor.name,
        "precision": extractor.precision,
        "device": extractor.device,
        "extractor_description": words.description,
        "comparability": words.comparability,
        "cannot_tell": FID_CANNOT_TELL,
        "method": "each draw halves the training images by patient; n images on either side of every "
        "distance; floor = half against half; mean and SD over the draws",
        **images.provenance,
        "n": result["n"],
        "draws": result["draws"],
        "comparisons": result["comparisons"],
    }


# --- everything together ---------------------------------------------------------------------------
def assess_quality(
    images: ImageSets, measured: Sequence[Measured], *, seed: int, ssim: SsimAnalysis | None = None
) -> ImageQuality:
    """Make the content of image_quality.json.

    ``measured``: one for each extractor, or none; ``ssim``: the content of ssim_analysis.json, or None. Rows
    without numbers, for want of images, are left out.
    """
    diversity = None
    if ssim is not None:
        pairs = ssim["comparisons"]
        diversity = relative_diversity(pairs["synthetic_vs_synthetic"], pairs["training_vs_training"])
    spaces = {part.extractor.name: assess_features(images, part, seed) for part in measured}
    pixels, other_kinds = assess_pixels(images, seed), images.provenance["seen_of_other_kinds"]
    return {
        "format": QUALITY_FORMAT,
        "rows": quality_rows(spaces, pixels, diversity, ssim, other_kinds),
        "flags": quality_flags(diversity, pixels, spaces),
        **images.provenance,
        "extractors": spaces,
        "memorisation": pixels,
        "diversity": diversity,
    }


def assess_features(images: ImageSets, measured: Measured, seed: int) -> FeatureQuality:
    """Compute every statistic of the features of one extractor."""
    parts, rows = images.parts, measured.rows
    training, heldout = (parts[name].records["patient"].to_numpy()[rows[name]] for name in REAL)
    seen, memorisation = images.seen[rows["training"]], None
    if _enough(int(seen.sum()), len(measured.heldout)):
        distances = (
            euclidean_distances(measured.synthetic, measured.training[seen]),
            euclidean_distances(measured.synthetic, measured.heldout),
            euclidean_distances(measured.heldout, measured.training[seen]),
        )
        memorisation = _memorisation(*distances, training[seen], heldout, seed)
    return {
        "precision": measured.extractor.precision,
        "device": measured.extractor.device,
        "distances": measured.distances,
        "kid_of_subsets": _subset_distances(measured, seed),
        "neighbourhoods": scores_over_draws(measured.sets),
        "memorisation": memorisation,
        "separability": _separability(measured, training, heldout, seed),
    }


def _subset_distances(measured: Measured, seed: int) -> SubsetDistances | None:
    training, heldout, synthetic = measured.training, measured.heldout, measured.synthetic
    # Half of the smallest set, so that subsets differ from one another.
    sizes = [len(part) for part in (training, synthetic, heldout) if len(part) >= 2 * MIN_HELDOUT]
    size = min(KID_SUBSET_SIZE, min(sizes, default=0) // 2)
    if size < 2 or min(len(training), len(synthetic)) < 2 * size:
        return None
    distance = partial(kernel_distance_of_subsets, b=training, size=size, seed=seed)
    return {
        "n_images": {"training": len(training), "heldout": len(heldout), "synthetic": len(synthetic)},
        "synthetic_vs_training": distance(synthetic),
        "heldout_vs_training": distance(heldout) if len(heldout) >= 2 * size else None,
    }


def _separability(measured: Measured, training: np.ndarray, heldout: np.ndarray, seed: int) -> Separability:
    """Probe synthetic and held-out images, each against as many training images; arrays: patients of the reals."""

    def against_training(features: np.ndarray, groups: Groups) -> Probe:
        n = min(len(measured.training), len(features))
        return separability(measured.training, training, features, groups, n=n, seed=seed)

    each_alone = [f"synthetic {index}" for index in range(len(measured.synthetic))]  # its own group
    made = against_training(measured.synthetic, each_alone)
    unseen = against_training(measured.heldout, heldout) if len(measured.heldout) else None
    known = unseen is not None and unseen["probe_auroc"] is not None
    return {"synthetic_vs_training": made, "heldout_vs_training": unseen if known else None}


# --- memorisation ----------------------------------------------------------------------------------
def assess_pixels(images: ImageSets, seed: int) -> PixelMemorisation:
    """Search for copies by the details of the pixels, among all images that the generator saw.

    Lists the closest pairs; with too few held-out images there is nothing else.
    """
    training, heldout = images.training.pixels[images.seen], images.heldout.pixels
    to_training = detail_distances(images.synthetic.pixels, training)
    to_heldout = detail_distances(images.synthetic.pixels, heldout)
    records = {name: part.records for name, part in images.parts.items()}
    records["training"] = records["training"][images.seen]
    names = {name: part["image_id"].to_numpy() for name, part in records.items()}
    closest = _closest_pairs(to_training, to_heldout, names)
    if not _enough(len(training), len(heldout)):
        return {"closest": closest}
    patients, unseen = (records[name]["patient"].to_numpy() for name in REAL)
    yardstick = detail_distances(heldout, training)
    found = _memorisation(to_training, to_heldout, yardstick, patients, unseen, seed)
    return {"copies": found["copies"], "closer": found["closer"], "closest": closest}


def _enough(n_seen: int, n_heldout: int) -> bool:
    return n_seen > 1 and n_heldout >= MIN_HELDOUT


def _memorisation(
    to_training: np.ndarray, to_heldout: np.ndarray, yardstick: np.ndarray,
    training_patients: np.ndarray, heldout_patients: np.ndarray, seed: int,
) -> Memorisation:  # fmt: skip
    ranked = np.random.default_rng(seed).permutation(len(to_training))[:MOST_RANKED]
    closer = closer_to_training(to_training[ranked], to_heldout[ranked], training_patients, heldout_patients, seed=seed)
    return {"copies": near_copies(to_training, yardstick), "closer": closer}


def _closest_pairs(to_training: np.ndarray, to_heldout: np.ndarray, names: dict[str, np.ndarray]) -> list[ClosestPair]:
    """List the synthetic images closest to a training image, closest first, with the nearest real ones."""
    pairs: list[ClosestPair] = []
    for row in np.argsort(to_training.min(axis=1), kind="stable")[:LISTED_PAIRS]:
        nearest = int(to_training[row].argmin())
        pair: ClosestPair = {
            "synthetic": names["synthetic"][row],
            "training": names["training"][nearest],
            "training_distance": float(to_training[row, nearest]),
        }
        if to_heldout.shape[1]:
            nearest = int(to_heldout[row].argmin())
            pair["heldout"] = names["heldout"][nearest]
            pair["heldout_distance"] = float(to_heldout[row, nearest])
        pairs.append(pair)
    return pairs
