"""The plain path gives the same answers as ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed import plain_path
from classifier import FeatureExtractor, build_classifier
from dataset.images import read_image
from image_metrics.distances import frechet_distance_of_features, kernel_distance_of_subsets
from networks.vgg16 import untrained_vgg16
from utils import set_seed


@pytest.fixture
def png(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def test_plain_pixels_and_features_are_ours(png):
    set_seed(0)
    model = build_classifier("none", frozen=True)
    loader = plain_path.plain_loader(plain_path.PlainImages([png], [1], 32), 1, 0, shuffle=False)
    (images, _) = next(iter(loader))
    ours = read_image(png, 32)
    assert np.abs(plain_path.gray_levels(images)[0] - ours).max() <= 1.001
    theirs = plain_path.plain_features(model, loader, torch.device("cpu"))
    features = FeatureExtractor(model, torch.device("cpu"))(ours[None])
    assert np.linalg.norm(features - theirs) < 0.01 * np.linalg.norm(theirs)


def test_plain_distances_are_ours():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((60, 8)), rng.standard_normal((50, 8)) * 1.3 + 0.2
    assert plain_path.plain_frechet_distance(a, b) == pytest.approx(frechet_distance_of_features(a, b))
    ours = kernel_distance_of_subsets(a, b, size=20, seed=3, n_subsets=5)
    theirs = plain_path.plain_kernel_distances(a, b, 20, 5, 3)
    assert theirs.mean() == pytest.approx(ours["kid_of_subsets"])
    assert theirs.std(ddof=1) == pytest.approx(ours["kid_of_subsets_sd"])


def test_untrained_vgg16_fits_and_the_plain_one_uses_its_layers():
    vgg = untrained_vgg16(0)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    maps = plain_path.PlainVGG16(vgg)(images)
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, 7) for x in maps]
    torch.testing.assert_close(pooled, vgg(images), atol=1e-4, rtol=1e-4)
    assert all(0.1 < float(x.std()) < 10 for x in maps)  # neither dying out nor exploding
