"""VGG16's features against torchvision's own layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import vgg

from gan.losses import PerceptualLoss
from networks.vgg16 import VGG16Features


@pytest.fixture(scope="module")
def vgg_layers() -> nn.Sequential:
    """torchvision's own convolutional part of VGG16, randomly initialised."""
    torch.manual_seed(0)
    return vgg.make_layers(vgg.cfgs["D"]).eval()


@pytest.fixture(scope="module")
def vgg_features(vgg_layers) -> VGG16Features:
    return VGG16Features({f"features.{k}": v for k, v in vgg_layers.state_dict().items()})


@torch.no_grad()
def test_vgg_features_are_relu1_2_relu2_2_relu3_3_of_torchvision(vgg_layers, vgg_features):
    gray = torch.rand(2, 1, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((gray + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    for depth, maps in zip((4, 9, 16), vgg_features(gray), strict=True):
        assert isinstance(vgg_layers[depth - 1], nn.ReLU)
        expected = functional.adaptive_avg_pool2d(vgg_layers[:depth](normalised.clone()), 7)
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_gray_and_replicated_gray_are_the_same_to_vgg_and_large_images_are_halved(vgg_features):
    gray = torch.rand(1, 1, 224, 224) * 2 - 1
    for one, three in zip(vgg_features(gray), vgg_features(gray.expand(-1, 3, -1, -1)), strict=True):
        torch.testing.assert_close(one, three)
    halved = functional.avg_pool2d(gray, 2)
    torch.testing.assert_close(vgg_features(gray)[2], vgg_features(halved)[2])


def test_vgg_is_frozen_and_passes_gradients_to_the_images(vgg_features):
    images = (torch.rand(4, 1, 32, 32) * 2 - 1).requires_grad_()
    loss = PerceptualLoss(vgg_features, [torch.rand(4, 1, 32, 32)])
    loss(images).backward()
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_a_file_without_a_layer_or_with_another_shape_is_not_vgg(vgg_layers):
    weights = {f"features.{k}": v for k, v in vgg_layers.state_dict().items()}
    with pytest.raises(ValueError, match=r"features\.2\.bias is missing"):
        VGG16Features({k: v for k, v in weights.items() if k != "features.2.bias"})
    with pytest.raises(ValueError, match=r"features\.0\.weight .* another shape"):
        VGG16Features(weights | {"features.0.weight": torch.zeros(3)})
