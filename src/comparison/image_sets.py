"""The images of an analysis, decoded to one size, and the networks in whose features they are compared."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arms.registry import BASELINE_PREFIX
from arms.result_files import Arm
from common import paths
from comparison.image_file_formats import ImageProvenance
from data_loader import ImageSet, load_images
from dataset.records import Dataset
from dataset.splits import TEST, TRAIN, Splits, select
from gan.settings import CLASS_FLAGS, CLASS_NAMES
from image_metrics.feature_spaces import Space, lite0_space, network_space
from networks.backbones import DEFAULT, LITE0
from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from classifier import PneumoniaClassifier
    from synthetic.folders import SyntheticSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSets:
    """The images that are compared, all uint8 [N, image_size, image_size].

    ``seen`` bool [training images]: those that the generator learned from; all if nobody knows. ``kind``:
    their label or class in words. ``provenance``: what every result file says about them.
    """

    training: ImageSet
    heldout: ImageSet
    synthetic: ImageSet
    seen: np.ndarray
    image_size: int
    kind: str
    provenance: ImageProvenance

    @property
    def parts(self) -> dict[str, ImageSet]:
        """The three sets by name."""
        return {"training": self.training, "heldout": self.heldout, "synthetic": self.synthetic}


def load_image_sets(
    dataset: Dataset, splits: Splits, synthetic: SyntheticSet,
    *, image_size: int, seed: int, workers: int, skip_bad: bool, cache_dir: str | Path | None = None,
    bits: int | None = None,
) -> ImageSets:  # fmt: skip
    """Decode the synthetic images and all real ones of their label or class to ``image_size``.

    All real images are needed: a copy is found only if its original is among them. ``seed`` is only
    recorded. ``cache_dir``: folder for decoded images; None keeps nothing. Raises ``UserError`` naming
    unreadable images, unless ``skip_bad``.
    """
    class_name = _class_name(dataset, synthetic)
    wanted = {
        "training": _real_images(dataset, splits, TRAIN, synthetic, class_name),
        "heldout": _real_images(dataset, splits, TEST, synthetic, class_name),
        "synthetic": synthetic.records,
    }
    sets = {}
    for name, records in wanted.items():
        desc = f"decoding {name} images"
        sets[name] = load_images(
            records, image_size, workers=workers, skip_bad=skip_bad, desc=desc, cache_dir=cache_dir, bits=bits
        )
        if not len(sets[name].pixels) and name != "heldout":
            raise UserError(f"no readable {name} images are left to compare; restore some of them")
    learned = set(synthetic.manifest.get("train_image_ids", []))
    seen = sets["training"].records["image_id"].isin(learned).to_numpy()
    n_learned = int(select(dataset, splits, TRAIN)["image_id"].isin(learned).sum())
    kind = "positives" if synthetic.label else "negatives"
    skipped = [image_id for images in sets.values() for image_id in images.skipped]
    available: Any = {name: len(records) for name, records in wanted.items()}
    provenance: ImageProvenance = {
        "image_size": image_size,
        "kind": kind + (f" of class {class_name}" if class_name and not synthetic.label else ""),
        "class_name": class_name,
        "seed": seed,
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": splits.grouped_by,
        "generator_sha256": synthetic.manifest.get("generator_sha256"),
        "manifest_sha256": synthetic.manifest_sha256,
        "synthetic_verified": synthetic.verified,
        "available": available,
        "seen_by_generator": int(seen.sum()) if seen.any() else None,
        "seen_of_other_kinds": n_learned - int(wanted["training"]["image_id"].isin(learned).sum()),
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }
    seen = seen if seen.any() else np.ones(len(seen), dtype=bool)
    return ImageSets(**sets, seen=seen, image_size=image_size, kind=provenance["kind"], provenance=provenance)


def _class_name(dataset: Dataset, synthetic: SyntheticSet) -> str | None:
    """Return the data set's name of the images' class; None if it is unknown or the data set does not have it."""
    names: Mapping[str, str] = dict(zip(CLASS_FLAGS, CLASS_NAMES, strict=True))
    name = names.get(synthetic.class_flag or "")
    return name if name in set(dataset.images["class"]) else None


def _real_images(
    dataset: Dataset, splits: Splits, role: str, synthetic: SyntheticSet, class_name: str | None
) -> pd.DataFrame:
    """Select the records of a role with the class of the synthetic images or, if it is unknown, their label."""
    records = select(dataset, splits, role, synthetic.label)
    return records if class_name is None else records[records["class"] == class_name].reset_index(drop=True)


# --- networks --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Baseline:
    """The baseline classifier, None if there is none that can be read, and how it was trained.

    ``name`` is that of its file, and ``problem`` says why it cannot be read.
    """

    name: str
    model: PneumoniaClassifier | None = None
    image_size: int | None = None
    precision: str = "fp32"
    split_sha256: str | None = None
    problem: str | None = None


def load_baseline(model_dir: str | Path, arms: Mapping[str, Arm]) -> Baseline:
    """Read the baseline classifier from ``model_dir``; ``arms`` tell the arithmetic of its training."""
    from classifier import load_classifier

    own = next((arm.backbone for arm in arms.values() if arm.prefix == BASELINE_PREFIX), DEFAULT)
    file = paths.classifier_model(model_dir, BASELINE_PREFIX, own)
    if not file.is_file():
        return Baseline(file.name)
    try:
        model, checkpoint = load_classifier(file)
    except UserError as error:
        return Baseline(file.name, problem=str(error))
    precision = training_precision(checkpoint, arms)
    return Baseline(file.name, model, checkpoint["image_size"], precision, checkpoint["split_sha256"])


def training_precision(checkpoint: Mapping[str, Any], arms: Mapping[str, Arm]) -> str:
    """Return the arithmetic that the baseline was trained with.

    That is the recorded one if the baseline's metrics belong to the checkpoint, else the value of
    --precision, of which "auto" may mean something else on this machine.
    """
    config = checkpoint.get("config", {})
    for arm in arms.values():
        if arm.prefix == BASELINE_PREFIX and arm.metrics and arm.metrics.get("config") == config:
            return arm.metrics.get("precision") or config.get("precision", "fp32")
    return config.get("precision", "fp32")


def usable_extractors(
    choice: str, model: PneumoniaClassifier | None, device: torch.device, precision: str = "fp32",
    cache_dir: str | Path | None = None,
) -> list[Space]:  # fmt: skip
    """List the extractors to measure with; the first is the one of fid_score.json.

    ``choice`` is the value of --extractor: with "auto" Inception comes first, then the classifier ``model``, then
    EfficientNet-Lite0, as far as they are there; "inception" and "efficientnet_lite0" come before the classifier,
    and "classifier" stands alone. ``precision``: the arithmetic of the classifier's training, so that features
    computed then are found again and a distance does not depend on the machine; ``cache_dir``: folder for features,
    None keeps nothing. ``UserError`` if there is no extractor, ``WeightsUnavailableError`` if the one that was
    named cannot be loaded.
    """
    from classifier import feature_caches
    from networks.inception import inception_cache, load_inception

    found, hint = [], "a smaller --num-fid is quicker"
    remedy = "use --extractor classifier (the baseline classifier's features)"
    if choice == LITE0:
        found.append(lite0_space(LITE0, cache_dir, device, hint, remedy))
    if choice in ("auto", "inception"):
        try:
            cache = inception_cache(load_inception(remedy), cache_dir, device=device, hint=hint, remedy=remedy)
            found.append(network_space("inception", cache))
        except WeightsUnavailableError as error:
            if choice == "inception":
                raise
            log.info(f"Inception weights are unavailable for FID ({str(error).split('; ')[0]})")
    if model is not None:
        cache = feature_caches(
            model, cache_dir, device=device, precision=precision,
            hint="a smaller --num-fid or --image-size is quicker",
            remedy="use --extractor inception, or train the baseline on other --weights",
        )[0]  # fmt: skip
        found.append(network_space("classifier", cache))
    if choice == "auto":  # last, so that its packages change no number of the others
        with contextlib.suppress(WeightsUnavailableError):
            found.append(lite0_space(LITE0, cache_dir, device, hint, remedy))
    if not found:
        raise UserError(
            "neither FID's Inception weights nor a baseline classifier nor EfficientNet-Lite0's packages are there; "
            "`python src/train_classifier.py` trains a baseline, --model-dir says where it is"
        )
    return found
