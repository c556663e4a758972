"""Images -> features: area averages and gradients, which need no weights, and the spaces of networks.

A GAN in training is evaluated in spaces that it does not train, so that it cannot learn to fool them: HOG, a
trained classifier's features and those of FID's Inception, as far as their weights exist, or on request those of
EfficientNet-Lite0, which need no download.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from common.progress import progress_bar
from dataset.images import enlarged
from dataset.near_copies import THUMBNAIL_SIDE, thumbnail_features
from networks.backbones import BACKBONES, LITE0
from utils import UserError, public_path, sha256_file

if TYPE_CHECKING:
    from data_loader import ImageSet
    from dataset.feature_cache import FeatureCache

log = logging.getLogger(__name__)

# At 64 pixels a side gradients are mostly grain: noise of SD 4 on real X-rays costs them nearly all of their
# recall; at 32 hardly any, while images upside down still have none.
HOG_SIDE = 32  # at most
HOG_CELL, HOG_BLOCK, HOG_DIRECTIONS = 8, 2, 8  # pixels, cells, bins of 22.5 degrees
HOG_SECONDS = 1e-3  # per image, on one core
INCEPTION_OPERATIONS = 11.4e9  # per image at 299 pixels, whatever the image's size
LITE0_OPERATIONS = 2e9  # the same at 224 pixels: 0.8e9, but depthwise convolutions are slow on a CPU
OTHERS_SIDE = 224  # pixels at which other people's ResNet-50 sees images
BLOCK = 64  # images at once, where they are brought to a network's size


# --- without a network -----------------------------------------------------------------------------
def small_images(pixels: torch.Tensor, side: int, chunk: int = 512) -> np.ndarray:
    """Reduce images uint8 [N, S, S] on any device to rounded area averages uint8 [N, side, side]."""
    pool = torch.nn.functional.adaptive_avg_pool2d
    parts = [pool(part[:, None].float(), side)[:, 0].round().byte().cpu() for part in pixels.split(chunk)]
    return torch.cat(parts).numpy()


def hog_features(pixels: np.ndarray) -> np.ndarray:
    """Compute histograms of oriented gradients: uint8 [N, S, S] -> float32 [N, hog_dim(S)].

    The image is first reduced to at most ``HOG_SIDE`` pixels a side. A block of k numbers usually has length
    1; here it has length sqrt(k), so that the kernel distance, which divides by the number of features, works
    on numbers of order 1. Dalal and Triggs, "Histograms of oriented gradients", CVPR 2005.
    """
    from skimage.feature import hog

    side, cell, block = min(HOG_SIDE, pixels.shape[1]), (HOG_CELL, HOG_CELL), (HOG_BLOCK, HOG_BLOCK)
    small = thumbnail_features(pixels, side).reshape(-1, side, side)
    rows = [hog(image, HOG_DIRECTIONS, cell, block) for image in small]
    return (np.stack(rows) * np.sqrt(HOG_BLOCK**2 * HOG_DIRECTIONS)).astype(np.float32)


def hog_dim(image_size: int) -> int:
    """Number of HOG features of an image of that side."""
    blocks = min(HOG_SIDE, image_size) // HOG_CELL - HOG_BLOCK + 1
    return blocks**2 * HOG_BLOCK**2 * HOG_DIRECTIONS


def grain(pixels: np.ndarray) -> float:
    """Return the mean size of the Laplacian (four neighbours) of images uint8 [N, S, S], in gray levels.

    High in grainy images, low in blurred ones. HOG does not see this, so it is reported beside HOG's values.
    """
    from scipy.ndimage import convolve1d

    total = 0.0
    for start in range(0, len(pixels), 256):
        part = pixels[start : start + 256].astype(np.float32)
        total += float(np.abs(sum(convolve1d(part, [1, -2, 1], axis) for axis in (1, 2))).sum(dtype=float))
    return total / pixels.size


# --- spaces ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Space:
    """A way to turn images into features, what it costs, and what the result files say about it.

    ``of_rows``: rows of images on disk -> float [N, dim], perhaps from a cache; ``features``: the same for
    uint8 [N, S, S]. ``operations``: floating-point operations per image; ``seconds``: other time per image.
    ``key`` is the same for the same features; without one, nothing computed from them is kept.
    ``precision``: the network's arithmetic; ``device``: type of its device; features depend a little on both.
    """

    name: str
    of_rows: Callable[[ImageSet, np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray]
    dim: int
    facts: dict[str, Any] = field(default_factory=dict)
    operations: float = 0.0
    seconds: float = 0.0
    key: str = ""
    precision: str | None = None
    device: str | None = None


def build_spaces(
    features: str | None, cache_dir: str | Path | None, image_size: int, device: torch.device
) -> list[Space]:
    """List the available spaces; the first one chooses the best generator.

    That is the classifier in the file ``features`` if one is given (``UserError`` if it is none), else HOG.
    Inception and EfficientNet-Lite0 never choose, because the perceptual loss trains on features of the same
    ImageNet (Kynkäänniemi et al., arXiv 2203.06026). EfficientNet-Lite0 is there only if ``features`` is its name,
    because each space takes its part of the time from the others. Inception is left out, and nothing is
    downloaded, if torch's cache does not hold its weights or holds a damaged file.
    """
    from networks import inception
    from networks.weights import weights_file

    spaces = [hog_space(image_size)]
    hint, remedy = "a smaller --metrics-images is quicker", "leave --metrics-features out"
    if features not in (None, LITE0):
        from classifier import feature_caches, load_classifier

        model = load_classifier(features)[0]
        cache = feature_caches(model, cache_dir, device=device, precision="fp32", hint=hint, remedy=remedy)[0]
        facts = {"features": "classifier", "file": public_path(features), "sha256": sha256_file(features)}
        operations = 2e9 * BACKBONES[model.name].operations * (image_size / 224) ** 2
        spaces.insert(0, network_space("classifier", cache, facts, operations))
    if weights_file(inception.WEIGHTS_URL).is_file():
        try:
            network = inception.load_inception("do without these metrics")
            cache = inception.inception_cache(network, cache_dir, device=device, hint=hint)
            facts = {"features": "FID's Inception"}
            spaces.append(network_space("Inception", cache, facts, INCEPTION_OPERATIONS))
        except UserError as error:
            log.info(f"metrics without Inception's features: {error}")
    if features == LITE0:
        spaces.append(lite0_space(BACKBONES[LITE0].title, cache_dir, device, hint, remedy))
    return spaces


def lite0_space(
    name: str, cache_dir: str | Path | None, device: torch.device, hint: str = "", remedy: str = ""
) -> Space:
    """Return the features of EfficientNet-Lite0, trained on ImageNet's photographs, of images brought to 224 pixels.

    ``hint``, ``remedy``: of ``FeatureCache``. Raises ``WeightsUnavailableError`` if its packages are not installed.
    """
    from networks import lite0

    cache = lite0.lite0_cache(lite0.load_lite0(), cache_dir, device=device, hint=hint, remedy=remedy)
    facts = {"features": "EfficientNet-Lite0 of ImageNet; distances are not comparable with published FID"}
    return network_space(name, cache, facts, LITE0_OPERATIONS)


def hog_space(image_size: int) -> Space:
    """Return histograms of oriented gradients of images of that side."""

    def of_rows(images: ImageSet, rows: np.ndarray) -> np.ndarray:
        return hog_features(np.ascontiguousarray(images.pixels[rows]))

    facts = {"features": "histograms of oriented gradients, no weights", "side": min(HOG_SIDE, image_size)}
    return Space("HOG", of_rows, hog_features, hog_dim(image_size), facts, seconds=HOG_SECONDS)


def pixel_space() -> Space:
    """Return area averages of 16 x 16 pixels, in [0, 1]."""

    def of_rows(images: ImageSet, rows: np.ndarray) -> np.ndarray:
        return thumbnail_features(np.ascontiguousarray(images.pixels[rows]))

    facts = {"features": "area averages, no weights", "side": THUMBNAIL_SIDE}
    name = f"{THUMBNAIL_SIDE}x{THUMBNAIL_SIDE} pixels"
    return Space(name, of_rows, thumbnail_features, THUMBNAIL_SIDE**2, facts)


def named_space(features: str, device: torch.device) -> Space:
    """Return FID's Inception ("inception"), EfficientNet-Lite0 (by its name), or the ResNet-50 in a file.

    Nothing is cached. Images are brought to the side that one of our classifiers learned from, to 224 pixels for
    other people's weights. Raises ``UserError`` if weights are missing or do not fit.
    """
    from networks import inception

    if features == "inception":
        remedy = "leave --features out: HOG and 16x16 pixels need no weights"
        cache = inception.inception_cache(inception.load_inception(remedy), None, device=device)
        return _in_blocks(network_space("Inception", cache, {"features": "FID's Inception"}), None)
    if features == LITE0:
        return _in_blocks(lite0_space(BACKBONES[LITE0].title, None, device), None)
    from classifier import CHECKPOINT_FORMAT, build_classifier, feature_caches, load_classifier
    from networks.weight_files import read_weight_file

    content = read_weight_file(features)
    if content.get("format") == CHECKPOINT_FORMAT:
        name, side = "classifier", content.get("image_size")
        if not isinstance(side, int):
            raise UserError(f"{features} is damaged: image_size is {side!r}; `python src/train_classifier.py` makes it")
        model = load_classifier(features)[0]
    else:
        name, side = "ResNet-50", OTHERS_SIDE
        model = build_classifier(features, frozen=True)
    facts = {"features": name, "file": public_path(features), "sha256": sha256_file(features), "side": side}
    cache = feature_caches(model, None, device=device, precision="fp32")[0]
    return _in_blocks(network_space(name, cache, facts), side)


def _in_blocks(space: Space, side: int | None) -> Space:
    """Return ``space`` for images of any size, brought to ``side`` pixels a few at a time."""

    def features(pixels: np.ndarray) -> np.ndarray:
        blocks = np.array_split(pixels, max(1, len(pixels) // BLOCK))
        bar = progress_bar(blocks, desc=f"{space.name} features", unit="block")
        made = (block if side is None else np.stack([enlarged(image, side) for image in block]) for block in bar)
        return np.concatenate([space.features(block) for block in made])

    return replace(space, features=features)


def network_space(
    name: str, cache: FeatureCache, facts: dict[str, Any] | None = None, operations: float = 0.0
) -> Space:
    """Return the features of a network, which come from ``cache`` where it holds them."""

    def features(pixels: np.ndarray) -> np.ndarray:
        # float16, like the features that come from the cache
        return cache.compute(pixels, [""] * len(pixels)).astype(np.float16)

    of_rows = partial(cache.features, desc=f"{name} features")
    return Space(
        name, of_rows, features, cache.dim, facts or {}, operations,
        key=cache.key, precision=cache.facts["precision"], device=cache.facts["device"],
    )  # fmt: skip
