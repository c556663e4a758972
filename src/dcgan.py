"""DCGAN (Radford et al. 2016, arXiv 1511.06434) for chest X-rays: generator, discriminator, initialisation.

A 4x4 or 7x7 root and a doubling per layer reach 32, 64, 112, 128, 224 and 256 pixels. Images are in
[-1, 1] on both sides; the discriminator returns logits, because the sigmoid belongs into the loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

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

MAX_WIDENING = 16  # no layer is wider than 16 x feature_maps
POWER_ITERATIONS = 15  # of spectral normalisation, for weights that have just been set


def layer_widths(image_size: int, feature_maps: int) -> list[int]:
    """Return the channels from the root (widest) to the layer next to the image (``feature_maps``)."""
    levels = reversed(range(doublings(image_size)))
    return [feature_maps * min(2**level, MAX_WIDENING) for level in levels]


class Generator(nn.Module):
    """Noise z [N, input_dim] -> images [N, num_channels, image_size, image_size] in [-1, 1].

    ``upsample`` "deconv": 4x4 transposed convolutions; "resize": nearest pixel and 3x3 convolutions, which
    treat all pixels alike and so leave no checkerboard (Odena et al. 2016). ``noise_injection``: z is the
    latent [N, latent_dim] followed by noise for every pixel of every layer but the last. ``n_classes``: > 0
    if the images are of classes, whose numbers [N] are then the second argument.
    """

    def __init__(
        self, image_size: int, num_channels: int, latent_dim: int, feature_maps: int,
        upsample: str = "deconv", noise_injection: bool = False, n_classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size, self.num_channels = image_size, num_channels
        self.latent_dim, self.feature_maps = latent_dim, feature_maps
        self.upsample, self.noise_injection, self.n_classes = upsample, noise_injection, n_classes
        widths = layer_widths(image_size, feature_maps)
        self.embedding = nn.Embedding(n_classes, EMBEDDING) if n_classes else None
        inputs = latent_dim + (EMBEDDING if n_classes else 0)
        layers: list[nn.Module] = [nn.ConvTranspose2d(inputs, widths[0], root_size(image_size), bias=False)]
        for wide, narrow in zip(widths, widths[1:], strict=False):
            layers += [*self._norm_and_relu(wide), *self._doubling(wide, narrow, bias=False)]
        layers += [*self._norm_and_relu(widths[-1]), *self._doubling(widths[-1], num_channels, bias=True)]
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def _norm_and_relu(self, channels: int) -> list[nn.Module]:
        noise = [NoiseInjection(channels)] if self.noise_injection else []
        return [nn.BatchNorm2d(channels), *noise, nn.ReLU()]

    def _doubling(self, before: int, after: int, bias: bool) -> list[nn.Module]:
        if self.upsample == "deconv":
            return [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias)]
        return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(before, after, 3, 1, 1, bias=bias)]

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that build this network again, and which architecture it is ("arch")."""
        names = (
            "image_size", "num_channels", "latent_dim", "feature_maps", "upsample", "noise_injection",
            "n_classes",
        )  # fmt: skip
        return {"arch": "dcgan"} | {name: getattr(self, name) for name in names}

    @property
    def noise_sides(self) -> list[int]:
        """Sides of the noise maps, from the root on; none without ``noise_injection``."""
        if not self.noise_injection:
            return []
        return [root_size(self.image_size) << level for level in range(doublings(self.image_size))]

    @property
    def input_dim(self) -> int:
        """Length of z."""
        return self.latent_dim + sum(side * side for side in self.noise_sides)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        latent, noise = split_noise(z, self.latent_dim, self.noise_sides)
        x = with_class(latent, self.embedding, label)[:, :, None, None]
        maps = iter(noise)
        for layer in self.layers:
            x = layer(x, next(maps)) if isinstance(layer, NoiseInjection) else layer(x)
        return x  # [N, C, S, S]


class Discriminator(nn.Module):
    """Images [N, num_channels, image_size, image_size] in [-1, 1] -> logits [N], positive for "real".

    ``d_norm``: "batch", "spectral" (every layer has a largest singular value of 1, Miyato et al. 2018, arXiv
    1802.05957) or "none". ``mbstd``: the last layer sees how much the images of a group differ.
    ``n_classes``: > 0 if the classes of the images, numbers [N], are the second argument.
    """

    def __init__(
        self, image_size: int, num_channels: int, feature_maps: int,
        d_norm: str = "batch", mbstd: bool = False, n_classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size, self.num_channels, self.feature_maps = image_size, num_channels, feature_maps
        self.d_norm, self.mbstd, self.n_classes = d_norm, mbstd, n_classes
        widths = layer_widths(image_size, feature_maps)[::-1]
        inputs = [num_channels, *widths[:-1]]
        # BatchNorm on the first layer would hide the brightness of a batch, so that one has none.
        batchnorm = [False, *(d_norm == "batch" for _ in widths[1:])]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, 2, 1, bias=not has_norm)
            for narrow, wide, has_norm in zip(inputs, widths, batchnorm, strict=True)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if has_norm else nn.Identity()
            for width, has_norm in zip(widths, batchnorm, strict=True)
        )
        self.activation = nn.LeakyReLU(SLOPE)
        self.deviation = MinibatchDeviation() if mbstd else nn.Identity()
        self.head = nn.Conv2d(widths[-1] + mbstd, 1, root_size(image_size))
        self.projection = ClassProjection(n_classes, widths[-1]) if n_classes else None
        if d_norm == "spectral":
            for layer in self._weighted_layers():
                spectral_norm(layer)

    def _weighted_layers(self) -> list[nn.Module]:
        embedding = [self.projection.embedding] if self.projection is not None else []
        return [*self.convolutions, self.head, *embedding]

    @contextlib.contextmanager
    def _normalised(self, device: torch.device) -> Iterator[None]:
        """Compute spectral norms in float32, also under autocast, once for the pass inside the block."""
        if self.d_norm != "spectral":
            yield
            return
        with parametrize.cached():
            with torch.autocast(device.type, enabled=False):
                for layer in self._weighted_layers():
                    getattr(layer, "weight")  # noqa: B009  computed here, and kept
            yield

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that build this network again, and which architecture it is ("arch")."""
        names = ("image_size", "num_channels", "feature_maps", "d_norm", "mbstd", "n_classes")
        return {"arch": "dcgan"} | {name: getattr(self, name) for name in names}

    def logits_and_features(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return logits [N] and the output [N, C_l, H_l, W_l] of every convolution before its BatchNorm.

        After BatchNorm the mean of any batch is the same, real or fake, so the features to be matched are
        taken in front of it.
        """
        features = []
        with self._normalised(x.device):
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                x = convolution(x)
                features.append(x)
                x = self.activation(norm(x))
            with torch.autocast(x.device.type, enabled=False):  # bfloat16 has two to three digits
                logits = self.head(self.deviation(x).float()).flatten()
                if self.projection is not None:
                    logits = logits + self.projection(x, label)
        return logits, features

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.logits_and_features(x, label)[0]


@torch.no_grad()
def initialise(network: Generator | Discriminator) -> None:
    """Set the weights as DCGAN starts: convolutions N(0, 0.02), BatchNorm scales N(1, 0.02), biases 0.

    Convolutions of a discriminator without normalisation start with the variance 2 / ((1 + 0.2^2) fan_in)
    that keeps the scale of activations through layers with LeakyReLU 0.2 (He et al. 2015, arXiv 1502.01852,
    equation 15): from N(0, 0.02) nothing would arrive at its end.
    """
    he = getattr(network, "d_norm", "batch") == "none"
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            _set_weight(module, he)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _set_weight(layer: nn.Conv2d | nn.ConvTranspose2d, he: bool) -> None:
    normalised: Any = None
    if parametrize.is_parametrized(layer, "weight"):
        normalised = cast(nn.ModuleDict, layer.parametrizations)["weight"]
    weight = layer.weight if normalised is None else normalised.original
    if he:
        nn.init.kaiming_normal_(weight, a=SLOPE)
    else:
        nn.init.normal_(weight, 0.0, 0.02)
    if normalised is not None:  # the singular vectors are still those of the weight before
        for _ in range(POWER_ITERATIONS):
            normalised[0](weight)


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())
