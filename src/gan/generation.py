"""Generating images and writing them side by side: numbers in, 8-bit gray PNG files out.

Image i depends on (generator, seed, class, i) alone; its noise on (seed, i), so that classes share it. The
arithmetic is float32: one pixel in about a million is a gray level off beside float64, which takes several
times as long; so much machines may differ.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

import dcgan
from common import paths
from data_loader import from_gan_range
from dataset.images import save_png
from gan.networks import Generator
from gan.settings import CLASS_FLAGS
from gan.step import image_noise
from utils import UserError

NOISE_STREAM = "synthetic"
CPU_BATCH = 16  # images that pass the network at once on a CPU: more no longer fit into its caches


class ImageMaker:
    """A trained generator for inference: (seed, image numbers) -> uint8 images.

    Its BatchNorm layers, which no longer change, are folded into the convolutions before them. ``label``: the
    class of all images, a number (``class_to_make``), for a generator that was trained with --conditional.
    """

    def __init__(self, generator: Generator, seed: int, device: torch.device, label: int | None = None) -> None:
        self.input_dim, self.image_size = generator.input_dim, generator.image_size
        self.seed, self.device, self.label = seed, device, label
        self.network = for_inference(generator).to(device).to(memory_format=torch.channels_last)

    def __call__(self, indices: Sequence[int]) -> np.ndarray:
        """Make images uint8 [N, S, S] of the given numbers (from 1), each of seed, class and number alone."""
        rows = [image_noise(self.seed, NOISE_STREAM, index, 1, self.input_dim) for index in indices]
        z = torch.cat(rows).to(self.device)
        # On GPUs: no TensorFloat-32, whose 10 bits would move pixels by a level, and no search for kernels.
        with torch.inference_mode(), torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            parts = z.split(CPU_BATCH) if self.device.type == "cpu" else [z]
            return torch.cat([from_gan_range(self.network(part, self._labels(part))) for part in parts]).cpu().numpy()

    def _labels(self, z: Tensor) -> Tensor | None:
        """Return the class of every row of ``z``, int64 [N]; None for a generator without classes."""
        return None if self.label is None else z.new_full((len(z),), self.label, dtype=torch.int64)


def class_to_make(generator: Generator, checkpoint: dict[str, Any], path: str, label: str | None) -> int | None:
    """Return the number of the class that ``label`` names, for a generator that takes one; else None.

    Raises ``UserError`` if it takes one and none is given, or takes none and has not learned from that
    class alone.
    """
    if generator.n_classes:
        if label is None:
            raise UserError(
                f"{path} was trained with --conditional and makes images of {len(CLASS_FLAGS)} classes: say "
                f"which with --label {{{','.join(CLASS_FLAGS)}}}"
            )
        return CLASS_FLAGS.index(label)
    learned = CLASS_FLAGS[0] if checkpoint["label"] == 1 else None
    if label not in (None, learned):
        what = f"images of {learned} only" if learned else "all classes as if they were one"
        remedy = "train a generator of all classes with `python src/train_gan.py --conditional`"
        raise UserError(f"--label {label} contradicts {path}, which was trained on {what}; {remedy}")
    return None


def for_inference(generator: Generator) -> Generator:
    """Copy ``generator`` in float32 and eval mode, without BatchNorm (which a residual one has not)."""
    network = copy.deepcopy(generator).eval().requires_grad_(False).float()
    if isinstance(network, dcgan.Generator):
        network.layers = _fold_batchnorm(network.layers)
    return network


def _fold_batchnorm(layers: nn.Sequential) -> nn.Sequential:
    """Return the layers of a DCGAN's generator in eval mode, which are not to be used any more, without BatchNorm.

    It follows convolutions: y = (conv(x) - mean) / sd * scale + shift is one convolution of other weights.
    """
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = cast(nn.Conv2d, folded.pop().double())
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            folded.append(fuse_conv_bn_eval(convolution, layer.double(), transpose=transposed).float())
        elif isinstance(layer, nn.ReLU):
            folded.append(nn.ReLU(inplace=True))
        else:
            folded.append(layer)
    return nn.Sequential(*folded).eval()


def write_images(
    folder: Path,
    indices: Sequence[int],
    make: Callable[[Sequence[int]], np.ndarray],
    *,
    batch_size: int,
    workers: int,
    on_image: Callable[[], object] = lambda: None,
) -> None:
    """Make the images ``indices`` batch by batch while ``workers`` threads write those made before.

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
