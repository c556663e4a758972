"""The networks whose features images are compared in: FID's Inception and the baseline classifier."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arms.registry import BASELINE_PREFIX
from arms.result_files import Arm
from common import paths
from data_loader import ImageSet
from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import torch

    from classifier import PneumoniaClassifier

log = logging.getLogger(__name__)

# A few words, a sentence, and what the distances may be compared with.
INCEPTION_WORDS = (
    "FID's Inception network",
    "the features of FID's Inception network (pt_inception-2015-12-05), which has seen photographs only",
    "Published FID values usually rest on 10,000 to 50,000 images. Compare only values from equally many "
    "images that were processed alike.",
)
CLASSIFIER_WORDS = (
    "this project's baseline classifier",
    "the features of this project's own baseline classifier",
    "NOT COMPARABLE with published FID, nor with distances in the features of another classifier: FID's "
    "Inception weights were not used. The classifier learned from these very training images, so held-out "
    "images can lie apart from them for that reason alone; the comparison of real with real images shows how "
    "far.",
)


@dataclass(frozen=True)
class Extractor:
    """A network that turns rows of a set of images into features float [N, D], and words about it.

    ``short``: a few words; ``description``: a sentence; ``comparability``: what its distances may be compared
    with. ``key`` is the same for the same features; without one, nothing computed from them is kept.
    ``precision``: the network's arithmetic; ``device``: type of its device; features depend a little on both.
    """

    name: str
    short: str
    description: str
    comparability: str
    features: Callable[[ImageSet, np.ndarray], np.ndarray]
    key: str = ""
    precision: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Baseline:
    """The baseline classifier, None if there is none that can be read, and how it was trained.

    ``problem`` says why its file cannot be read.
    """

    model: PneumoniaClassifier | None = None
    image_size: int | None = None
    precision: str = "fp32"
    split_sha256: str | None = None
    problem: str | None = None


def load_baseline(model_dir: str | Path, arms: Mapping[str, Arm]) -> Baseline:
    """Read the baseline classifier from ``model_dir``; ``arms`` tell the arithmetic of its training."""
    from classifier import load_classifier

    file = paths.classifier_model(model_dir, BASELINE_PREFIX)
    if not file.is_file():
        return Baseline()
    try:
        model, checkpoint = load_classifier(file)
    except UserError as error:
        return Baseline(problem=str(error))
    precision = training_precision(checkpoint, arms)
    return Baseline(model, checkpoint["image_size"], precision, checkpoint["split_sha256"])


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
    choice: str,
    model: PneumoniaClassifier | None,
    device: torch.device,
    precision: str = "fp32",
    cache_dir: str | Path | None = None,
) -> list[Extractor]:
    """List the extractors to measure with; the first is the one of fid_score.json.

    ``choice`` is the value of --extractor: with "auto" and "inception" Inception comes first and the
    classifier ``model`` second, with "classifier" the classifier stands alone. ``precision``: the
    classifier's arithmetic; ``cache_dir``: folder for features, None keeps nothing. Raises ``UserError`` if
    there is no extractor.
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


def inception_extractor(device: torch.device, cache_dir: str | Path | None = None) -> Extractor:
    """Load FID's Inception network. Raises ``WeightsUnavailableError`` if its weights cannot be loaded."""
    from networks.inception import inception_cache, load_inception

    cache = inception_cache(load_inception(), cache_dir, device=device)
    features = partial(cache.features, desc="Inception features")
    return Extractor("inception", *INCEPTION_WORDS, features, cache.key, "fp32", device.type)


def classifier_extractor(
    model: PneumoniaClassifier, device: torch.device, precision: str, cache_dir: str | Path | None = None
) -> Extractor:
    """Return the baseline classifier, in the arithmetic of its training.

    So features that were computed in training are found again, and a distance does not depend on the machine.
    """
    from classifier import feature_caches

    (cache,) = feature_caches(
        model,
        cache_dir,
        device=device,
        precision=precision,
        hint="a smaller --num-fid or --image-size is quicker",
        remedy="use --extractor inception, or train the baseline on other --weights",
    )
    return Extractor("classifier", *CLASSIFIER_WORDS, cache.features, cache.key, precision, device.type)
