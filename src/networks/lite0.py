"""EfficientNet-Lite0 with the ImageNet weights of a package: maps for the perceptual loss, features for the metrics.

It needs no download (requirements-offline.txt), and so stands in where VGG16's and Inception's weights cannot be
had. Its inputs are (x - 127) / 128 of gray levels x, as in the TPU code that it was trained with
(github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dataset.feature_cache import FeatureCache, sha256_weights
from networks import backbone_builder
from networks.backbone_builder import EfficientNetLite0, imagenet_state
from networks.backbones import BACKBONES, LITE0
from networks.vgg16 import GRID, MAX_SIDE
from utils import WeightsUnavailableError, as_tensor

SIDE = 224  # pixels that it was trained with
INPUT = "gray replicated, 224 px bilinear antialiased, (x - 127) / 128, version 1"  # for caches
BATCH = 8  # images at once; more fall out of a CPU's caches
EXTRACTOR = "pooled features in float32, version 1"
STAGES = (0, 1, 2, 4)  # the last ones at 1/2, 1/4, 1/8 and 1/16 of the side: 16, 24, 40 and 112 channels


def check_lite0() -> None:
    """Raise ``WeightsUnavailableError`` if timm or the package of the weights is missing; neither is imported."""
    missing = [name for name in ("timm", backbone_builder.LITE_PACKAGE) if importlib.util.find_spec(name) is None]
    if missing:
        packages = " and ".join(missing)
        raise WeightsUnavailableError(f"EfficientNet-Lite0 needs {packages}: {backbone_builder.INSTALL_LITE}")


def load_lite0() -> EfficientNetLite0:
    """Load the network with its ImageNet weights, frozen and in eval mode.

    Raises ``WeightsUnavailableError`` if timm or the package of the weights is missing.
    """
    check_lite0()
    network = EfficientNetLite0()
    network.load_state_dict(imagenet_state(LITE0, network.state_dict()))
    return network.eval().requires_grad_(False)


# --- maps ------------------------------------------------------------------------------------------
class Lite0Maps(nn.Module):
    """Feature maps of ``network``: images [N, 1 or 3, S, S] in [-1, 1] -> four maps [N, C, 7, 7], frozen.

    They are the outputs of the last stages at a half, a quarter, an eighth and a sixteenth of the side, averaged
    over the cells of a grid. Projected GANs, too, look at four resolutions of an EfficientNet-Lite, in images of
    about the size that it was trained with (Sauer et al., NeurIPS 2021, arXiv 2111.01007). So smaller images are
    enlarged to ``MAX_SIDE``; larger ones are halved, to spare time. The arithmetic is float32 even under autocast,
    because in bfloat16 a CPU takes several times as long for its depthwise convolutions.
    """

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Lite0Maps:
        """Set the mode; the network stays in eval mode: its BatchNorm statistics must not move."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            return self._maps(images.float())

    def _maps(self, x: Tensor) -> list[Tensor]:
        while x.shape[-1] > MAX_SIDE:
            x = functional.avg_pool2d(x, 2)
        if x.shape[-1] < MAX_SIDE:
            x = functional.interpolate(x, (MAX_SIDE, MAX_SIDE), mode="bilinear", align_corners=False)
        x = (x * 127.5 + 0.5) / 128  # of gray levels (x + 1) * 127.5
        x = self.network.bn1(self.network.conv_stem(x.expand(-1, 3, -1, -1)))
        maps = []
        for index, stage in enumerate(self.network.blocks[: STAGES[-1] + 1]):
            x = stage(x)
            if index in STAGES:
                maps.append(functional.adaptive_avg_pool2d(x, GRID))
        return maps


def untrained_lite0_maps() -> Lite0Maps:
    """The maps of random weights, for timing only: as slow as the trained ones. Raises ``UserError`` without timm."""
    with torch.random.fork_rng(devices=()):
        return Lite0Maps(EfficientNetLite0())


# --- pooled features -------------------------------------------------------------------------------
def to_lite0_range(pixels: Tensor) -> Tensor:
    """Resize uint8 [N, S, S] to float32 [N, 3, 224, 224] of (x - 127) / 128, bilinear, antialiased to shrink."""
    gray = (pixels.unsqueeze(1).float() - 127) / 128  # [N, 1, S, S]
    resized = functional.interpolate(gray, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return resized.expand(-1, 3, -1, -1)


def lite0_cache(
    network: EfficientNetLite0, cache_dir: str | Path | None, *, device: torch.device, hint: str = "", remedy: str = ""
) -> FeatureCache:
    """Make the cache of the features [N, 1280] of ``load_lite0``'s network.

    ``cache_dir``, ``hint``, ``remedy``: of ``FeatureCache``.
    """
    network = network.to(device).to(memory_format=torch.channels_last)
    facts = {
        "network": BACKBONES[LITE0].title, "weights_sha256": sha256_weights(network), "input": INPUT,
        "extractor": EXTRACTOR, "precision": "fp32", "device": device.type,
    }  # fmt: skip

    @torch.inference_mode()
    def compute(pixels: np.ndarray, _: Sequence[str]) -> np.ndarray:
        ready = (to_lite0_range(batch.to(device)) for batch in as_tensor(pixels).split(BATCH))
        parts = [network.pooled(images.contiguous(memory_format=torch.channels_last)).cpu() for images in ready]
        return torch.cat(parts).numpy()

    return FeatureCache(cache_dir, facts, compute, BACKBONES[LITE0].features, hint=hint, remedy=remedy)
