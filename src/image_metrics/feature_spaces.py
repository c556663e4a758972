"""Spaces of features in which the images of a GAN in training are compared with real ones.

HOG needs no weights and is always there; the features of a trained classifier and of FID's Inception are
used where their weights are. None is trained by the GAN, so that none can be fooled by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stats.shortcut_baselines import thumbnail_features
from utils import public_path, sha256_file

if TYPE_CHECKING:
    from data_loader import ImageSet
    from dataset.feature_cache import FeatureCache

log = logging.getLogger(__name__)


# Pixels a side at most. At 64, with cells of 8 pixels, gradients are mostly grain: noise of SD 4 on real
# X-rays costs them nearly all of their recall; at 32 hardly any, while images upside down still have none.
HOG_SIDE = 32
HOG_CELL, HOG_BLOCK, HOG_DIRECTIONS = 8, 2, 8  # pixels, cells, bins of 22.5 degrees
HOG_SECONDS = 1e-3  # of one image, on one core
# Operations of one image at 224 pixels (ResNet-50) and at 299 pixels (Inception, whatever the image's size).
RESNET_OPERATIONS, INCEPTION_OPERATIONS = 8.2e9, 11.4e9


@dataclass(frozen=True)
class Space:
    """``features``: uint8 [N, S, S] -> float [N, D]; ``of_rows``: of images that are on disk, by rows, which
    may come from a cache. ``operations``: floating-point ones per image, ``seconds``: others, per image."""

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    of_rows: Callable[[ImageSet, np.ndarray], np.ndarray]
    dim: int
    operations: float
    seconds: float
    facts: dict[str, Any]


# --- without weights -------------------------------------------------------------------------------
def hog_features(pixels: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] -> float32 [N, D]: histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of
    the image reduced to at most ``HOG_SIDE`` pixels a side, in cells of 8 pixels and blocks of 2 x 2 cells.

    A block of k numbers has length 1; here it has length sqrt(k), so that the kernel distance, which divides
    by the number of features, has numbers of order 1 to work on.
    """
    from skimage.feature import hog

    side = min(HOG_SIDE, pixels.shape[1])
    small = thumbnail_features(pixels, side).reshape(-1, side, side)
    rows = [
        hog(image, HOG_DIRECTIONS, (HOG_CELL, HOG_CELL), (HOG_BLOCK, HOG_BLOCK)) for image in small
    ]  # fmt: skip
    return (np.stack(rows) * np.sqrt(HOG_BLOCK**2 * HOG_DIRECTIONS)).astype(np.float32)


def hog_space(image_size: int) -> Space:
    blocks = min(HOG_SIDE, image_size) // HOG_CELL - HOG_BLOCK + 1
    facts = {"features": "histograms of oriented gradients, no weights", "side": min(HOG_SIDE, image_size)}
    return Space(
        "HOG", hog_features, lambda images, rows: hog_features(np.ascontiguousarray(images.pixels[rows])),
        blocks**2 * HOG_BLOCK**2 * HOG_DIRECTIONS, 0.0, HOG_SECONDS, facts,
    )  # fmt: skip


# --- networks --------------------------------------------------------------------------------------
def classifier_space(path: str, cache_dir: str | Path | None, image_size: int, device: torch.device) -> Space:
    """The pooled features of a classifier that train_classifier.py wrote. ``UserError`` if it is not one."""
    from classifier import feature_caches, load_classifier

    model, _ = load_classifier(path)
    cache = feature_caches(model, cache_dir, device=device, precision="fp32")[0]
    facts = {"features": "classifier", "file": public_path(path), "sha256": sha256_file(path)}
    operations = RESNET_OPERATIONS * (image_size / 224) ** 2
    return _network_space("classifier", cache, operations, facts)


def inception_space(cache_dir: str | Path | None, device: torch.device) -> Space | None:
    """FID's network where its weights lie in torch's cache; None where they do not, or are damaged: nothing
    is downloaded for it."""
    from networks.inception import WEIGHTS_URL, feature_cache, load_inception
    from utils import UserError

    file = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_URL.rsplit("/", 1)[1]
    if not file.is_file():
        return None
    try:
        network = load_inception()
    except UserError as error:
        log.info(f"metrics without Inception's features: {error}")
        return None
    cache = feature_cache(network, cache_dir, device=device)
    return _network_space("Inception", cache, INCEPTION_OPERATIONS, {"features": "FID's Inception"})


def _network_space(name: str, cache: FeatureCache, operations: float, facts: dict[str, Any]) -> Space:
    def features(pixels: np.ndarray) -> np.ndarray:
        # float16, as what comes from the cache is
        return cache.compute(pixels, [""] * len(pixels)).astype(np.float16)

    def of_rows(images: ImageSet, rows: np.ndarray) -> np.ndarray:
        return cache.of(images, rows, desc=f"{name} features of the reals")

    return Space(name, features, of_rows, cache.dim, operations, 0.0, facts)


def build_spaces(
    features: str | None, cache_dir: str | Path | None, image_size: int, device: torch.device
) -> list[Space]:
    """Those to be had, the one that chooses the best generator first: the classifier in the file ``features``
    if one is given, else HOG. Inception never chooses: the perceptual loss trains on features of the same
    ImageNet (Kynkäänniemi et al., arXiv 2203.06026)."""
    spaces = [hog_space(image_size)]
    if features is not None:
        spaces.insert(0, classifier_space(features, cache_dir, image_size, device))
    if (inception := inception_space(cache_dir, device)) is not None:
        spaces.append(inception)
    return spaces


# --- images as they are ----------------------------------------------------------------------------
def grain(pixels: np.ndarray) -> float:
    """How grainy or how blurred images uint8 [N, S, S] are: the mean size of their Laplacian (four
    neighbours), in gray levels. It is a figure of its own beside those of HOG, which does not see it."""
    from scipy.ndimage import convolve1d

    total = 0.0
    for start in range(0, len(pixels), 256):
        part = pixels[start : start + 256].astype(np.float32)
        total += float(np.abs(sum(convolve1d(part, [1, -2, 1], axis) for axis in (1, 2))).sum(dtype=float))
    return total / pixels.size


def small_images(pixels: torch.Tensor, side: int, chunk: int = 512) -> np.ndarray:
    """uint8 [N, S, S] on any device -> uint8 [N, side, side] area averages, rounded."""
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(part[:, None].float(), side)[:, 0].round().byte().cpu()
        for part in pixels.split(chunk)
    ]
    return torch.cat(parts).numpy()
