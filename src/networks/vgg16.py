"""VGG16 up to relu3_3, whose features the GAN's perceptual loss compares: building and loading."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg

from data_loader import IMAGENET_MEAN, IMAGENET_STD
from networks.weights import hub_weights
from utils import WeightsUnavailableError

VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
MAPS = (3, 8, 15)  # places of relu1_2, relu2_2 and relu3_3 among the layers
GRID = 7  # features are averaged over a 7x7 grid of cells: coarse anatomy is kept, exact position is not
MAX_SIDE = 128  # larger images are halved first: VGG at 224 costs five times VGG at 112


def build_layers() -> nn.Sequential:
    """Build torchvision's layers up to relu3_3, with random weights."""
    layers: nn.Sequential = vgg.make_layers(vgg.cfgs["D"][:9])
    return layers


class VGG16Features(nn.Module):
    """torchvision's VGG16 up to relu3_3; images [N, 1 or 3, S, S] in [-1, 1] -> three maps [N, C, 7, 7].

    The maps are relu1_2 (64 channels), relu2_2 (128) and relu3_3 (256), frozen. ``state_dict`` is that of
    the published model; its classifier and deeper layers are not used. Raises ``ValueError`` if a layer is
    not in it.
    """

    mean: Tensor  # [3, 1, 1], of ImageNet
    std: Tensor

    def __init__(self, state_dict: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers = build_layers()
        weights = {}
        for name, random in self.layers.state_dict().items():
            value = state_dict.get(f"features.{name}")
            if value is None or value.shape != random.shape:
                raise ValueError(f"features.{name} is missing or of another shape")
            weights[name] = value
        self.layers.load_state_dict(weights)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images.float()
        while x.shape[-1] > MAX_SIDE:
            x = functional.avg_pool2d(x, 2)
        x = ((x + 1) / 2 - self.mean) / self.std  # one channel becomes three by broadcasting
        maps = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in MAPS:
                maps.append(functional.adaptive_avg_pool2d(x.float(), GRID))
        return maps


def load_vgg16(what: str, remedy: str) -> VGG16Features:
    """VGG16 with its ImageNet weights from torch's cache, or downloaded there.

    Raises ``WeightsUnavailableError`` if they are not available; its message says ``what`` needs them, and
    with ``remedy`` what else the user can do.
    """
    weights = hub_weights(VGG16_URL, what, remedy)
    try:
        return VGG16Features(weights)
    except ValueError as error:
        file = VGG16_URL.rsplit("/", 1)[1]
        raise WeightsUnavailableError(
            f"{what}: {file} in torch's cache is not VGG16 ({error}); delete it, or {remedy}"
        ) from None


def untrained_vgg16(seed: int) -> VGG16Features:
    """VGG16 with random weights, for timing only: as slow as the trained one, and nothing is downloaded."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        layers = build_layers()
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # keeps the scale from layer to layer
        return VGG16Features({f"features.{name}": value for name, value in layers.state_dict().items()})
