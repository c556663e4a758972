"""Generating images and writing them side by side: numbers in, 8-bit gray PNG files out.

Image i depends on (generator, seed, i) alone. The arithmetic is float32: one pixel in about a million
is a gray level off beside float64, which takes several times as long; so much machines may differ.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

import paths
from data_loader import from_gan_range
from dcgan import Generator
from gan_training import image_noise
from synthetic import save_png

NOISE_STREAM = "synthetic"


class ImageMaker:
    """A trained generator for inference: (seed, image numbers) -> uint8 images.

    Its BatchNorm layers, which no longer change, are folded into the convolutions before them.
    """

    def __init__(self, generator: Generator, seed: int, device: torch.device) -> None:
        self.latent_dim, self.image_size = generator.latent_dim, generator.image_size
        self.seed, self.device = seed, device
        self.layers = fold_batchnorm(generator.layers).to(device, memory_format=torch.channels_last)

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        """Images uint8 [N, S, S] with the given numbers (from 1), each a function of (seed, number) alone."""
        rows = [image_noise(self.seed, NOISE_STREAM, index, 1, self.latent_dim) for index in indices]
        z = torch.cat(rows).to(self.device)[:, :, None, None]
        z = z.contiguous(memory_format=torch.channels_last)
        # On GPUs: no TensorFloat-32, whose 10 bits would move pixels by a level, and no search for kernels.
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            images: Tensor = self.layers(z)  # [N, C, S, S] in [-1, 1]
            return from_gan_range(images).cpu().numpy()


def fold_batchnorm(layers: nn.Sequential) -> nn.Sequential:
    """A float32 copy of transposed convolutions, each followed by BatchNorm, ReLU or Tanh, in eval mode,
    without the BatchNorm: y = (conv(x) - mean) / sd * scale + shift is one convolution of other weights."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution, norm = folded.pop().double(), _double(layer)
            folded.append(fuse_conv_bn_eval(convolution, norm, transpose=True).float())
        elif isinstance(layer, nn.ReLU):
            folded.append(nn.ReLU(inplace=True))
        else:
            folded.append(_double(layer).float())
    return nn.Sequential(*folded).eval().requires_grad_(False)


def _double(layer: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode, so that ``layer`` stays as it is."""
    return copy.deepcopy(layer).eval().double()


def write_images(
    folder: Path,
    indices: Sequence[int],
    make: Callable[[Sequence[int]], np.ndarray],
    *,
    batch_size: int,
    workers: int,
    on_image: Callable[[], object] = lambda: None,
) -> None:
    """``make`` the images ``indices`` batch by batch while ``workers`` threads write those made before.

    At most two batches wait. Each file appears whole or not at all; what fails or interrupts a thread is
    raised here once all of them have stopped. ``on_image`` is called here after every file.
    """
    waiting: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            for index, pixels in zip(batch, make(batch), strict=True):
                waiting.append(pool.submit(save_png, paths.synthetic_image(folder, index), pixels))
            while len(waiting) > batch_size or (waiting and waiting[0].done()):
                waiting.popleft().result()
                on_image()
        while waiting:
            waiting.popleft().result()
            on_image()
    finally:
        pool.shutdown(cancel_futures=True)
