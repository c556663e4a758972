"""Differentiable augmentation of what D sees (DiffAugment, Zhao et al. 2020, arXiv 2006.10738), for X-rays.

Reals and fakes alike are shifted by up to an eighth of their side, with the background's value -1 where
nothing is shifted in, and changed in brightness and contrast. Nothing is mirrored or rotated: the heart is on
the left, patients stand upright, and what D cannot tell apart G would learn to make.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from data_loader import from_gan_range, to_gan_range
from utils import derive_seed

BACKGROUND = -1.0
SHIFT = 1 / 8  # of the side, at most
BRIGHTNESS = 0.25  # added, at most, either way; images are in [-1, 1]
CONTRAST = 0.25  # of the difference from the image's mean, at most, either way


def draw_numbers(seed: int, step: int, stream: str, count: int) -> Tensor:
    """Draw numbers [count, 4] in [0, 1), a function of the arguments: brightness, contrast, down, right."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "augmentation", stream, step))
    return torch.rand(count, 4, generator=generator)


def augment(images: Tensor, numbers: Tensor) -> Tensor:
    """Change each of the images [N, C, S, S] as its row of ``numbers`` [N, 4] says; gradients pass through.

    Values may leave [-1, 1]: clipping them would stop the gradient.
    """
    numbers = numbers.to(images.device)
    added, factor = ((numbers[:, :2] * 2 - 1) * numbers.new_tensor([BRIGHTNESS, CONTRAST])).unbind(dim=1)
    images = images.float() + added[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return shift_images((images - mean) * (1 + factor[:, None, None, None]) + mean, numbers[:, 2:])


def shift_images(images: Tensor, numbers: Tensor) -> Tensor:
    """Move images [N, C, S, S] by whole pixels, as ``numbers`` [N, 2] in [0, 1) say: down and right.

    0 is the largest shift up or left, 1 the largest one down or right.
    """
    n, _, side, _ = images.shape
    most = round(SHIFT * side)
    by = (numbers * (2 * most + 1)).long().clamp_max(2 * most)  # [N, 2] in 0 .. 2 * most
    padded = functional.pad(images, [most] * 4, value=BACKGROUND)
    pixels = torch.arange(side, device=images.device)
    rows, columns = (2 * most - by[:, axis, None] + pixels for axis in (0, 1))  # [N, S]: where from
    batch = torch.arange(n, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]  # [N, S, S, C]
    return moved.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def show_augmented(pixels: Tensor, num_channels: int, seed: int, rows: int) -> Tensor:
    """Return images uint8 [N, S, S], and below each some ways D may see it: [rows * N, S, S]."""
    real, shown = to_gan_range(pixels, num_channels), [pixels]
    for step in range(rows - 1):
        numbers = draw_numbers(seed, step, "D, reals", len(real))
        shown.append(from_gan_range(augment(real, numbers)))
    return torch.cat(shown)
