"""The feature spaces in which images of a GAN in training are compared with real ones.

HOG needs no weights and is always available. Features of a trained classifier and of FID's Inception are used
where their weights exist. The GAN trains none of these networks, so it cannot learn to fool them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from image_metrics.pixel_features import HOG_SIDE, hog_dim, hog_features
from utils import UserError, public_path, sha256_file

if TYPE_CHECKING:
    import torch

    from data_loader import ImageSet
    from dataset.feature_cache import FeatureCache

log = logging.getLogger(__name__)

HOG_SECONDS = 1e-3  # per image, on one core
# Operations per image at 224 pixels (ResNet-50) and at 299 pixels (Inception, whatever the image's size).
RESNET_OPERATIONS, INCEPTION_OPERATIONS = 8.2e9, 11.4e9


@dataclass(frozen=True)
class Space:
    """A way to turn images into features, and what it costs.

    ``features``: uint8 [N, S, S] -> float [N, dim]. ``of_rows``: the same for rows of images on disk, which
    may come from a cache. ``operations``: floating-point operations per image; ``seconds``: other time per
    image. ``facts``: what the result files say about the features.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    of_rows: Callable[[ImageSet, np.ndarray], np.ndarray]
    dim: int
    operations: float
    seconds: float
    facts: dict[str, Any]


def build_spaces(
    features: str | None, cache_dir: str | Path | None, image_size: int, device: torch.device
) -> list[Space]:
    """List the available spaces; the first one chooses the best generator.

    That is the classifier in the file ``features`` if one is given, else HOG. Inception never chooses,
    because the perceptual loss trains on features of the same ImageNet (Kynkäänniemi et al., arXiv
    2203.06026).
    """
    spaces = [hog_space(image_size)]
    if features is not None:
        spaces.insert(0, classifier_space(features, cache_dir, image_size, device))
    if (inception := inception_space(cache_dir, device)) is not None:
        spaces.append(inception)
    return spaces


def hog_space(image_size: int) -> Space:
    """Histograms of oriented gradients of images of that side."""

    def of_rows(images: ImageSet, rows: np.ndarray) -> np.ndarray:
        return hog_features(np.ascontiguousarray(images.pixels[rows]))

    facts = {"features": "histograms of oriented gradients, no weights", "side": min(HOG_SIDE, image_size)}
    return Space("HOG", hog_features, of_rows, hog_dim(image_size), 0.0, HOG_SECONDS, facts)


def classifier_space(path: str, cache_dir: str | Path | None, image_size: int, device: torch.device) -> Space:
    """The pooled features of a classifier that train_classifier.py wrote. ``UserError`` if it is not one."""
    from classifier import feature_caches, load_classifier

    model, _ = load_classifier(path)
    cache = feature_caches(model, cache_dir, device=device, precision="fp32")[0]
    facts = {"features": "classifier", "file": public_path(path), "sha256": sha256_file(path)}
    operations = RESNET_OPERATIONS * (image_size / 224) ** 2
    return _network_space("classifier", cache, operations, facts)


def inception_space(cache_dir: str | Path | None, device: torch.device) -> Space | None:
    """FID's network; None if torch's cache does not hold its weights, or holds a damaged file.

    Nothing is downloaded.
    """
    from networks.inception import WEIGHTS_URL, inception_cache, load_inception
    from networks.weights import weights_file

    if not weights_file(WEIGHTS_URL).is_file():
        return None
    try:
        network = load_inception()
    except UserError as error:
        log.info(f"metrics without Inception's features: {error}")
        return None
    cache = inception_cache(network, cache_dir, device=device)
    return _network_space("Inception", cache, INCEPTION_OPERATIONS, {"features": "FID's Inception"})


def _network_space(name: str, cache: FeatureCache, operations: float, facts: dict[str, Any]) -> Space:
    def features(pixels: np.ndarray) -> np.ndarray:
        # float16, like the features that come from the cache
        return cache.compute(pixels, [""] * len(pixels)).astype(np.float16)

    def of_rows(images: ImageSet, rows: np.ndarray) -> np.ndarray:
        return cache.features(images, rows, desc=f"{name} features of the reals")

    return Space(name, features, of_rows, cache.dim, operations, 0.0, facts)
