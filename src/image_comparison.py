"""Real and synthetic images side by side: decoding them, and the contents of the two JSON files.

Between the pure functions of ``image_quality`` and the script: knows which images are compared, at which
size, from which split, and in whose features, and puts into words what the numbers cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from data_loader import Dataset, ImageSet, load_images
from image_quality import draw_pairs, draw_pairs_within, feature_distances, ssim_of_pairs, summarise
from splits import TEST, TRAIN, Splits, select
from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from synthetic import SyntheticSet

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


# --- images ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ImageSets:
    """The images that are compared, all uint8 [N, image_size, image_size].

    ``kind``: their label in words; ``provenance``: where they come from, for both JSON files.
    """

    training: ImageSet
    heldout: ImageSet
    synthetic: ImageSet
    image_size: int
    kind: str
    provenance: dict[str, Any]


def load_image_sets(
    dataset: Dataset,
    splits: Splits,
    synthetic: SyntheticSet,
    *,
    image_size: int,
    limit: int,
    seed: int,
    workers: int,
    skip_bad: bool,
) -> ImageSets:
    """Real images with the synthetic ones' label, and the synthetic ones, decoded to ``image_size``.

    At most ``limit`` of each kind are drawn, of the training images twice as many, because the Fréchet
    floor halves them. ``UserError`` naming unreadable images, unless ``skip_bad``.
    """
    wanted = {
        "training": (select(dataset, splits, TRAIN, synthetic.label), 2 * limit),
        "heldout": (select(dataset, splits, TEST, synthetic.label), limit),
        "synthetic": (synthetic.records, limit),
    }
    sets = {}
    for name, (records, most) in wanted.items():
        drawn = records.sample(min(most, len(records)), random_state=seed).sort_values("image_id")
        desc = f"decoding {name} images"
        sets[name] = load_images(drawn, image_size, workers=workers, skip_bad=skip_bad, desc=desc)
        if not len(sets[name].pixels) and name != "heldout":
            raise UserError(f"no readable {name} images are left to compare")
    skipped = [image_id for images in sets.values() for image_id in images.skipped]
    kind = "positives" if synthetic.label else "negatives"
    provenance = {
        "image_size": image_size,
        "kind": kind,
        "seed": seed,
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": splits.grouped_by,
        "generator_sha256": synthetic.manifest.get("generator_sha256"),
        "synthetic_verified": synthetic.verified,
        "available": {name: len(records) for name, (records, _) in wanted.items()},
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }
    return ImageSets(**sets, image_size=image_size, kind=kind, provenance=provenance)


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
        progress = partial(tqdm, desc=f"SSIM {name.replace('_', ' ')}", unit="pair")
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
    """Images uint8 [N, S, S] -> features float32 [N, D], and how its distances have to be labelled."""

    name: str
    description: str
    comparability: str
    features: Callable[[np.ndarray], np.ndarray]


def inception_extractor(device: torch.device) -> Extractor:
    """``WeightsUnavailableError`` where FID's own weights cannot be had."""
    from inception import inception_features, load_inception

    return Extractor(
        "inception",
        "the features of FID's Inception network (pt_inception-2015-12-05), which has seen photographs only",
        "Published FID values usually rest on 10,000 to 50,000 images: compare only values from equally "
        "many, processed alike.",
        partial(inception_features, load_inception(), device=device, progress=tqdm),
    )


def classifier_extractor(model: torch.nn.Module, device: torch.device) -> Extractor:
    from classifier import extract_features

    return Extractor(
        "classifier",
        "the features of this project's own baseline classifier",
        "NOT COMPARABLE with published FID, nor with the features of another classifier: FID's Inception "
        "weights were not used. The classifier learned from these very training images, so held-out ones can "
        "lie apart from them for that reason alone; the row with both real shows how far.",
        partial(extract_features, model, device=device, progress=tqdm),
    )


def choose_extractor(choice: str, model: torch.nn.Module | None, device: torch.device) -> Extractor:
    """``choice`` is that of --extractor. ``UserError`` if nothing can be had."""
    if choice != "classifier":
        try:
            return inception_extractor(device)
        except WeightsUnavailableError as error:
            if choice == "inception":
                raise
            print(f"Inception weights are unavailable for FID ({str(error).split('; ')[0]})")
    if model is None:
        raise UserError(
            "neither FID's Inception weights nor a baseline classifier are there; "
            "`python src/train_classifier.py` trains one, --model-dir says where it is"
        )
    return classifier_extractor(model, device)


def compare_by_features(
    images: ImageSets, extractor: Extractor, num_fid: int, seed: int
) -> dict[str, Any]:
    """The content of ``fid_score.json``; without "distances" if there are too few images for any."""
    training, heldout, synthetic = (
        extractor.features(part.pixels) if len(part.pixels) else None
        for part in (images.training, images.heldout, images.synthetic)
    )
    result = feature_distances(
        training, list(images.training.records["patient"]), synthetic, heldout,
        max_images=num_fid, seed=seed, progress=partial(tqdm, desc="Fréchet distances", unit="draw"),
    )  # fmt: skip
    headline = {}
    if "distances" in result:
        distances = result["distances"]
        headline = {"fid": distances["synthetic_vs_training"]["fid"], "floor": distances["floor"]["fid"]}
    return {
        **headline,
        "extractor": extractor.name,
        "extractor_description": extractor.description,
        "comparability": extractor.comparability,
        "cannot_tell": FID_CANNOT_TELL,
        "method": "each draw halves the training images by patient; n images on either side of every "
        "distance; floor = half against half; mean and SD over the draws",
        **images.provenance,
        **result,
    }
