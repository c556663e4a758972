"""Area averages against plain means; small images against area averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataset.near_copies import thumbnail_features
from image_metrics.feature_spaces import hog_dim, hog_features, small_images


def test_thumbnails_are_area_means():
    pixels = np.arange(2 * 64 * 64, dtype=np.int64).reshape(2, 64, 64) % 251
    features = thumbnail_features(pixels.astype(np.uint8))
    blocks = pixels.reshape(2, 16, 4, 16, 4).mean(axis=(2, 4)) / 255
    assert features == pytest.approx(blocks.reshape(2, 256), abs=1e-6)


def test_small_images_are_rounded_area_means():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    expected = np.round(thumbnail_features(pixels, 16) * 255).reshape(5, 16, 16)
    assert (small_images(torch.from_numpy(pixels), 16, chunk=2) == expected).all()


@pytest.mark.parametrize("side", [16, 32, 64])
def test_hog_has_the_announced_number_of_features(side):
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side), dtype=np.uint8)
    assert hog_features(pixels).shape == (2, hog_dim(side))
