"""A light residual GAN without normalisation, made for the relativistic loss with R1 and R2.

The outline is that of R3GAN (Huang et al. 2024, arXiv 2501.05441): a learned root, per resolution one
bottleneck block that starts as the identity, and interpolation between resolutions. It is slimmer, so that
it can be trained on a CPU, too: the 3x3 convolution of a block has half the width of its input and is dense,
as grouped ones take several times as long in bfloat16 on a CPU; at the full resolution G has one narrow block
and D none: each position of its first stage sees 2x2 pixels. Images are in [-1, 1]; D returns logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.gan_layers import (
    EMBEDDING,
    SLOPE,
    ClassProjection,
    MinibatchDeviation,
    NoiseInjection,
    doublings,
    root_size,
    split_noise,
    with_class,
)

MAX_WIDENING = 12  # no stage is wider than 12 x feature_maps
GAIN = (2 / (1 + SLOPE**2)) ** 0.5  # He et al. 2015: keeps the scale through a convolution and LeakyReLU


def stage_widths(image_size: int, feature_maps: int) -> list[int]:
    """Return the channels of the stages, from the root (widest) to half the image's side (narrowest)."""
    levels = reversed(range(doublings(image_size)))
    return [feature_maps * min(2**level, MAX_WIDENING) for level in levels]


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(conv1x1(x))))) [N, C, H, W]; the last convolution starts at 0.

    The others start with He's variance times ``depth``^(-1/2), so that ``depth`` blocks together change as
    fast as one (Fixup, Zhang et al. 2019, arXiv 1901.09321: standard deviation times L^(-1/(2m - 2)), m = 3).
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.spatial = nn.Conv2d(inner, inner, 3, padding=1)
        self.expand = nn.Conv2d(inner, channels, 1)
        for layer in (self.squeeze, self.spatial):
            set_weight(layer, GAIN * depth**-0.25)
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.squeeze(x), SLOPE)
        y = functional.leaky_relu(self.spatial(y), SLOPE)
        return x + self.expand(y)


def set_weight(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    """Draw weights N(0, gain^2 / fan_in), set biases to 0; gain 1 keeps the scale through a linear layer."""
    nn.init.normal_(layer.weight, 0.0, gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def linear_convolution(before: int, after: int, side: int = 1) -> nn.Conv2d:
    """Build a convolution with kernels of ``side`` x ``side`` that no activation follows."""
    layer = nn.Conv2d(before, after, side, padding=side // 2)
    set_weight(layer, 1.0)
    return layer


class Generator(nn.Module):
    """Noise z [N, input_dim] -> images [N, num_channels, image_size, image_size] in [-1, 1].

    The root is a learned map [C, 4, 4] or [C, 7, 7] times a linear function of the latent, by channel.
    Between stages the narrower width is taken first, then twice the side by bilinear interpolation, which
    treats all pixels alike. Arguments as in ``dcgan.Generator``; the noise reaches the last stage, too.
    """

    def __init__(
        self, image_size: int, num_channels: int, latent_dim: int, feature_maps: int,
        noise_injection: bool = False, n_classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size, self.num_channels = image_size, num_channels
        self.latent_dim, self.feature_maps = latent_dim, feature_maps
        self.noise_injection, self.n_classes = noise_injection, n_classes
        widths, side = stage_widths(image_size, feature_maps), root_size(image_size)
        widths.append(max(1, feature_maps // 2))  # of the full resolution
        self.embedding = nn.Embedding(n_classes, EMBEDDING) if n_classes else None
        self.basis = nn.Parameter(torch.randn(widths[0], side, side))
        self.linear = nn.Linear(latent_dim + (EMBEDDING if n_classes else 0), widths[0], bias=False)
        set_weight(self.linear, 1.0)
        pairs = zip(widths, widths[1:], strict=False)
        self.narrowings = nn.ModuleList(linear_convolution(wide, narrow) for wide, narrow in pairs)
        self.noises = nn.ModuleList(NoiseInjection(width) for width in widths) if noise_injection else None
        self.blocks = nn.ModuleList(ResidualBlock(width, len(widths)) for width in widths)
        self.to_image = linear_convolution(widths[-1], num_channels)

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that build this network again, and which architecture it is ("arch")."""
        names = (
            "image_size", "num_channels", "latent_dim", "feature_maps", "noise_injection", "n_classes"
        )  # fmt: skip
        return {"arch": "resnet"} | {name: getattr(self, name) for name in names}

    @property
    def noise_sides(self) -> list[int]:
        """Sides of the noise maps, from the root on; none without ``noise_injection``."""
        sides = [root_size(self.image_size) << level for level in range(len(self.blocks))]
        return sides if self.noise_injection else []

    @property
    def input_dim(self) -> int:
        """Length of z."""
        return self.latent_dim + sum(side * side for side in self.noise_sides)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        latent, maps = split_noise(z, self.latent_dim, self.noise_sides)
        scales = self.linear(with_class(latent, self.embedding, label))  # [N, C]
        x = scales[:, :, None, None] * self.basis.to(scales.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for stage, block in enumerate(self.blocks):
            if stage:
                narrow = self.narrowings[stage - 1](x)
                x = functional.interpolate(narrow, scale_factor=2, mode="bilinear", align_corners=False)
            if self.noises is not None:
                x = self.noises[stage](x, maps[stage])
            x = block(x)
        return self.to_image(x).tanh()


class Discriminator(nn.Module):
    """Images [N, num_channels, image_size, image_size] in [-1, 1] -> logits [N], positive for "real".

    G mirrored: stages from half the image's side to the root, means of 2x2 positions between them, at last
    a weighted sum over the root's positions for every channel and a linear layer. Arguments as in
    ``dcgan.Discriminator``.
    """

    def __init__(
        self, image_size: int, num_channels: int, feature_maps: int, mbstd: bool = False, n_classes: int = 0
    ) -> None:
        super().__init__()
        self.image_size, self.num_channels, self.feature_maps = image_size, num_channels, feature_maps
        self.mbstd, self.n_classes = mbstd, n_classes
        widths, side = stage_widths(image_size, feature_maps)[::-1], root_size(image_size)
        self.from_image = linear_convolution(4 * num_channels, widths[0], 3)
        self.blocks = nn.ModuleList(ResidualBlock(width, len(widths)) for width in widths)
        pairs = zip(widths, widths[1:], strict=False)
        self.widenings = nn.ModuleList(linear_convolution(narrow, wide) for narrow, wide in pairs)
        self.deviation = MinibatchDeviation() if mbstd else nn.Identity()
        self.basis = nn.Parameter(torch.randn(widths[-1] + mbstd, side, side) / side)
        self.linear = nn.Linear(widths[-1] + mbstd, 1)
        set_weight(self.linear, 1.0)
        self.projection = ClassProjection(n_classes, widths[-1]) if n_classes else None

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that build this network again, and which architecture it is ("arch")."""
        names = ("image_size", "num_channels", "feature_maps", "mbstd", "n_classes")
        return {"arch": "resnet"} | {name: getattr(self, name) for name in names}

    def logits_and_features(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return logits [N] and the output [N, C_l, H_l, W_l] of every stage."""
        x = functional.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        x, features = self.from_image(x), []
        for stage, block in enumerate(self.blocks):
            if stage:
                x = self.widenings[stage - 1](functional.avg_pool2d(x, 2))
            x = block(x)
            features.append(x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has two to three digits
            sums = (self.deviation(x).float() * self.basis).sum(dim=(2, 3))  # [N, C]
            logits = self.linear(sums).flatten()
            if self.projection is not None:
                logits = logits + self.projection(x, label)
        return logits, features

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.logits_and_features(x, label)[0]
