"""What the networks of both architectures share: sizes, noise, groups of images, classes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from utils import UserError

IMAGE_SIZES = (32, 64, 112, 128, 224, 256)
SLOPE = 0.2  # of every LeakyReLU
GROUP = 4  # images that are compared with each other by MinibatchDeviation
EMBEDDING = 16  # numbers that tell G the class of an image


def root_size(image_size: int) -> int:
    """Return the side of the smallest feature map: 7 for 112 and 224, 4 for the powers of two."""
    if image_size not in IMAGE_SIZES:
        allowed = ", ".join(map(str, IMAGE_SIZES))
        raise UserError(f"image size {image_size} is not possible; allowed: {allowed}")
    return 7 if image_size % 7 == 0 else 4


def doublings(image_size: int) -> int:
    """Return how often the root is doubled."""
    return (image_size // root_size(image_size)).bit_length() - 1


class NoiseInjection(nn.Module):
    """Adds noise [N, 1, H, W] times a strength [C] to x [N, C, H, W]; strengths are learned and start at 0.

    Karras et al. 2019, arXiv 1812.04948.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + (self.strength[:, None, None] * noise).to(x.dtype)


def split_noise(z: Tensor, latent_dim: int, sides: Iterable[int]) -> tuple[Tensor, list[Tensor]]:
    """Split ``z`` into the latent [N, latent_dim] and noise maps [N, 1, side, side].

    As they are part of G's input, an image stays a function of that input alone.
    """
    sides = list(sides)
    latent, *maps = z.split([latent_dim, *(side * side for side in sides)], dim=1)
    return latent, [flat.unflatten(1, (1, side, side)) for flat, side in zip(maps, sides, strict=True)]


class MinibatchDeviation(nn.Module):
    """Appends a channel that says how much the images of a group differ: [N, C, H, W] -> [N, C + 1, H, W].

    The mean over features of the standard deviation over the group, in float32 (Karras et al. 2018, arXiv
    1710.10196). Groups are of ``group_size(N)`` images; all of a batch must be real or all fake.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        groups = x.float().unflatten(0, (group_size(n), -1))  # [G, N / G, C, H, W]
        deviation = (groups - groups.mean(dim=0)).square().mean(dim=0).add(1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = deviation.repeat(group_size(n))[:, None, None, None].expand(n, 1, height, width)
        return torch.cat([x, channel.to(x.dtype)], dim=1)


def group_size(n: int) -> int:
    """Return the largest divisor of ``n`` up to ``GROUP`` that is not 1; ``n`` where there is none."""
    return next((size for size in range(GROUP, 1, -1) if n % size == 0), n)


class ClassProjection(nn.Module):
    """Product of the embedded class and the mean of the features over positions, [N].

    D's logit gains it for an image of that class (Miyato & Koyama 2018, arXiv 1802.05637, there with sums).
    """

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_classes, channels)
        nn.init.normal_(self.embedding.weight, 0.0, channels**-0.5)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        return (self.embedding(label) * features.float().mean(dim=(2, 3))).sum(dim=1)


def with_class(latent: Tensor, embedding: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """Append the embedded class to the latent.

    As the root is linear, a class then has a bias of its own for every channel and cell, without the
    normalisation layer that conditional BatchNorm needs.
    """
    if embedding is None:
        return latent
    if label is None:
        raise ValueError("this generator was trained with --conditional: it needs the class of every image")
    return torch.cat([latent, embedding(label)], dim=1)
