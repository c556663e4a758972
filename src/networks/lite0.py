"""EfficientNet-Lite0 with the ImageNet weights of a package: maps for the perceptual loss, features for the metrics.

It needs no download (requirements-offline.txt), and so stands in where VGG16's and Inception's weights cannot be
had. Its inputs are (x - 127) / 128 of gray levels x, as in the TPU code that it was trained with
(github.com/tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.backbone_builder import EfficientNetLite0, imagenet_state
from networks.vgg16 import GRID, MAX_SIDE

NAME = "efficientnet_lite0"  # in flags, as in the table of backbones
STAGES = (0, 1, 2, 4)  # the last ones at 1/2, 1/4, 1/8 and 1/16 of the side: 16, 24, 40 and 112 channels


def load_lite0() -> EfficientNetLite0:
    """Load the network with its ImageNet weights, frozen and in eval mode.

    Raises ``UserError`` if timm or the package of the weights is missing.
    """
    network = EfficientNetLite0()
    network.load_state_dict(imagenet_state(NAME, network.state_dict()))
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


def untrained_lite0_maps(seed: int) -> Lite0Maps:
    """The maps of random weights, for timing only: as slow as the trained ones. Raises ``UserError`` without timm."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Lite0Maps(EfficientNetLite0())
