"""What is measured of synthetic images in one space, features or pixels, and what has to be said loudly.

Between the pure functions of ``image_quality``, ``fidelity`` and ``memorisation`` and the file that
``image_comparison`` writes: knows which images are the yardstick of which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from image_metrics.copies import closer_to_training, detail_distances, near_copies
from image_metrics.distances import KID_SUBSET_SIZE, kernel_distance_of_subsets
from image_metrics.neighbourhoods import scores_over_draws, separability

if TYPE_CHECKING:
    from comparison.image_quality import ImageSets, Measured

MIN_HELDOUT = 5  # held-out images; fewer are no yardstick for copies
LISTED_PAIRS = 16  # the closest ones, by name
MOST_RANKED = 2000  # synthetic images whose distances are ranked: a share needs no more
COLLAPSE_RATIO = 0.75  # diversity by SSIM below which a collapse is said loudly
POOR_COVERAGE = 0.25  # of the yardstick's coverage
MANY_COPIES = 0.05  # share flagged, at the lower end of its interval; by chance some 1 to 2 %


# --- one space -------------------------------------------------------------------------------------
def assess_features(images: ImageSets, measured: Measured, seed: int) -> dict[str, Any]:
    """FID, KID, precision to coverage, memorisation and separability in the features of one extractor.

    Memorisation and KID are None where there are too few images.
    """
    patients = {
        name: getattr(images, name).records["patient"].to_numpy()[measured.rows[name]]
        for name in ("training", "heldout")
    }
    return {
        "fid": measured.distances,
        "kid": _kid(measured, seed),
        "scores": scores_over_draws(measured.sets),
        "memorisation": _feature_memorisation(images, measured, patients, seed),
        **_separability(measured, patients, seed),
    }


def _kid(measured: Measured, seed: int) -> dict[str, Any] | None:
    training, heldout, synthetic = measured.training, measured.heldout, measured.synthetic
    # Half of the smallest set, so that subsets differ from one another.
    sizes = [len(part) for part in (training, synthetic, heldout) if len(part) >= 2 * MIN_HELDOUT]
    size = min(KID_SUBSET_SIZE, min(sizes, default=0) // 2)
    if size < 2 or min(len(training), len(synthetic)) < 2 * size:
        return None
    unseen = len(heldout) >= 2 * size
    return {
        "n": [len(synthetic), len(training), len(heldout)],
        "synthetic_vs_training": kernel_distance_of_subsets(synthetic, training, size=size, seed=seed),
        "heldout_vs_training": kernel_distance_of_subsets(heldout, training, size=size, seed=seed)
        if unseen
        else None,
    }


def _separability(measured: Measured, patients: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Training against synthetic images at equal n, and held-out against training ones for comparison."""
    training, synthetic, heldout = measured.training, measured.synthetic, measured.heldout
    own = [f"synthetic {index}" for index in range(len(synthetic))]  # each is a group of its own
    n = min(len(training), len(synthetic))
    probe = separability(training, patients["training"], synthetic, own, n=n, seed=seed)
    if not len(heldout):
        return {"separability": probe, "separability_heldout": None}
    n = min(len(training), len(heldout))
    unseen = separability(training, patients["training"], heldout, patients["heldout"], n=n, seed=seed)
    return {"separability": probe, "separability_heldout": unseen if unseen["auroc"] is not None else None}


def _feature_memorisation(
    images: ImageSets, measured: Measured, patients: dict[str, np.ndarray], seed: int
) -> dict[str, Any] | None:
    seen = images.seen[measured.rows["training"]]
    training = measured.training[seen]
    if not _enough(len(training), len(measured.heldout)):
        return None
    return _memorisation(
        euclidean_distances(measured.synthetic, training),
        euclidean_distances(measured.synthetic, measured.heldout),
        euclidean_distances(measured.heldout, training),
        patients["training"][seen], patients["heldout"], seed,
    )  # fmt: skip


def assess_pixels(images: ImageSets, seed: int) -> dict[str, Any]:
    """Memorisation by the details of the pixels, all images against all that the generator saw, with the
    names of the closest pairs; with too few held-out images the pairs alone."""
    training, heldout = images.training.pixels[images.seen], images.heldout.pixels
    to_training = detail_distances(images.synthetic.pixels, training)
    to_heldout = detail_distances(images.synthetic.pixels, heldout)
    records = {
        "synthetic": images.synthetic.records,
        "training": images.training.records[images.seen],
        "heldout": images.heldout.records,
    }
    names = {name: part["image_id"].to_numpy() for name, part in records.items()}
    closest = {"closest": _closest_pairs(to_training, to_heldout, names)}
    if not _enough(len(training), len(heldout)):
        return closest
    patients = [records[name]["patient"].to_numpy() for name in ("training", "heldout")]
    yardstick = detail_distances(heldout, training)
    return _memorisation(to_training, to_heldout, yardstick, *patients, seed) | closest


def _enough(n_seen: int, n_heldout: int) -> bool:
    return n_seen > 1 and n_heldout >= MIN_HELDOUT


def _memorisation(
    to_training: np.ndarray, to_heldout: np.ndarray, yardstick: np.ndarray,
    training_patients: np.ndarray, heldout_patients: np.ndarray, seed: int,
) -> dict[str, Any]:  # fmt: skip
    ranked = np.random.default_rng(seed).permutation(len(to_training))[:MOST_RANKED]
    return {
        "copies": near_copies(to_training, yardstick),
        "closer": closer_to_training(
            to_training[ranked], to_heldout[ranked], training_patients, heldout_patients, seed=seed
        ),
    }


def _closest_pairs(
    to_training: np.ndarray, to_heldout: np.ndarray, names: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """The synthetic images closest to a training image, closest first, by image id, with distances; without
    held-out images, without theirs."""
    pairs = []
    for row in np.argsort(to_training.min(axis=1), kind="stable")[:LISTED_PAIRS]:
        pair = {"synthetic": names["synthetic"][row]}
        for kind, distances in (("training", to_training[row]), ("heldout", to_heldout[row])):
            if len(distances):
                nearest = int(distances.argmin())
                pair |= {kind: names[kind][nearest], f"{kind}_distance": float(distances[nearest])}
        pairs.append(pair)
    return pairs


# --- what has to be said loudly --------------------------------------------------------------------
def quality_flags(
    diversity: dict[str, Any] | None, pixels: dict[str, Any], spaces: dict[str, dict[str, Any]]
) -> list[str]:
    """Sentences on collapse and copies; empty where nothing is conspicuous. ``spaces``: by extractor."""
    flags = []
    ratio = diversity["ratio"] if diversity else None
    if ratio is not None and ratio < COLLAPSE_RATIO:
        flags.append(
            f"synthetic images are much more alike than real ones (diversity by SSIM {ratio:.2f} of the real "
            "images'): the generator may have collapsed"
        )
    flags += [flag for name, space in spaces.items() for flag in _coverage_flag(name, space["scores"])]
    if "copies" in pixels:
        flags += _copy_flags("pixels", pixels)
    # The classifier learned from the training images, so synthetic ones may lie nearer to them in its
    # features for that reason alone: its figures stand in the table, but raise no alarm.
    inception = spaces.get("inception", {}).get("memorisation")
    return flags + (_copy_flags("Inception's features", inception) if inception else [])


def _coverage_flag(name: str, result: dict[str, Any]) -> list[str]:
    scores = result.get("scores", {})
    if "training_vs_heldout" not in scores:
        return []
    made = scores["synthetic_vs_training"]["coverage"]["mean"]
    unseen = scores["training_vs_heldout"]["coverage"]["mean"]
    if made >= POOR_COVERAGE * unseen:
        return []
    return [
        f"synthetic images cover {made:.0%} of the training images in features of {name}, unseen real "
        f"ones {unseen:.0%}: they are too few kinds of images, or unlike any real one"
    ]


def _copy_flags(space: str, result: dict[str, Any]) -> list[str]:
    copies, closer = result["copies"], result["closer"]
    flags = []
    if count := copies["nearly_identical"]:
        flags.append(
            f"{count:,} of {copies['n_synthetic']:,} synthetic images are nearly identical to a training "
            f"image (by {space}): look at the closest pairs before showing or using them"
        )
    elif copies["share_ci95"][0] > MANY_COPIES:
        flags.append(
            f"{copies['share']:.0%} of the synthetic images are closer to a training image than all but 1 % "
            f"of unseen real ones are (by {space}): look at the closest pairs"
        )
    by_chance = closer["chance95"][1]
    if closer["share"] > by_chance:
        flags.append(
            f"synthetic images are closer to the training images than to as many unseen ones (by {space}: "
            f"{closer['share']:.0%}, by chance up to {by_chance:.0%}): they follow single training images"
        )
    return flags
