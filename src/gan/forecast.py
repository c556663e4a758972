"""What train_gan.py does instead of training: how much memory it would take, and what --diffaug makes of the
images.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import paths
from common.arrays import as_tensor
from common.command_line import public_config
from data_loader import from_gan_range, load_images, to_gan_range
from dcgan import count_parameters
from gan.augmentation import augment, draws
from gan.files import save_grid
from gan.options import DEFAULTS, as_typed, options_of, wants_perceptual
from gan.training import GAN, PERCEPTUAL_IMAGES, build_gan
from gan.training_set import fit_batch_size, records_to_learn_from, training_part_of
from image_metrics.copies import DETAIL_SHIFT, DETAIL_SIDE
from networks.vgg16 import untrained_vgg16

log = logging.getLogger(__name__)


PREVIEW_IMAGES, PREVIEW_ROWS = 8, 6  # training images, side by side, the first row as they are


def _gan_of(args: argparse.Namespace, device: torch.device) -> GAN:
    feature_maps = (args.feature_maps_g, args.feature_maps_d)
    sizes = (args.image_size, args.num_channels, args.latent_dim, feature_maps)
    return build_gan(*sizes, args.lr, args.beta1, args.seed, device, options_of(args))


# --- everything that can be told -------------------------------------------------------------------
def dry_run(args: argparse.Namespace, estimate: Callable[[argparse.Namespace], str]) -> None:
    """Print what a training would be and take; nothing is trained or written. ``estimate`` says how long."""
    log.info("options:")
    log.info(describe_options_in_full(args))
    with nothing_written(args) as args:
        records, _ = records_to_learn_from(args, *training_part_of(args))
        log.info(describe_memory(args, len(records), fit_batch_size(args.batch_size, len(records))))
        log.info(estimate(args))
    log.info("--dry-run: nothing was trained or written")


@contextlib.contextmanager
def nothing_written(args: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """Inside the block a split that is not there yet lies in a folder that goes again."""
    there = Path(args.splits) if args.splits else Path(args.data_dir) / paths.SPLITS
    if there.is_file():
        yield args
        return
    with tempfile.TemporaryDirectory() as folder:
        yield argparse.Namespace(**vars(args) | {"splits": str(Path(folder) / paths.SPLITS)})


def describe_options_in_full(args: argparse.Namespace) -> str:
    """Every option that has a value, as it is typed, a line each; switches that are on, or off where the
    default is on."""
    hidden = {"dry_run"} | ({"epochs"} if args.kimg is not None else set())
    shown = dict(
        as_typed(name, value) for name, value in public_config(vars(args)).items()
        if value is not None and name not in hidden and (value is not False or DEFAULTS.get(name))
    )  # fmt: skip
    width = max(map(len, shown))
    return "\n".join(f"  {flag:<{width}} {value}".rstrip() for flag, value in shown.items())


# --- memory ----------------------------------------------------------------------------------------
def describe_memory(args: argparse.Namespace, n_images: int, batch_size: int) -> str:
    """Sizes of the networks, and about how much memory training takes on top of the program itself."""
    gan = _gan_of(args, torch.device("cpu"))
    parts = {
        "weights and optimizers": weight_bytes(gan),
        f"a batch of {batch_size}": batch_size * step_bytes(gan),
        f"{n_images:,} images": n_images * args.image_size**2,
    }
    if wants_perceptual(args):
        parts["the perceptual loss"] = perceptual_bytes(gan.G.image_size, batch_size)
    if args.metrics_interval != 0:
        parts["the check for copies"] = copying_bytes(n_images)
    texts = [f"{part} ({size / 2**30:.2f})" for part, size in parts.items()]
    return (
        f"generator {count_parameters(gan.G):,} parameters, discriminator {count_parameters(gan.D):,}; "
        f"about {sum(parts.values()) / 2**30:.1f} GiB of memory for {', '.join(texts)}, besides some 0.5 GiB "
        "of the program itself"
    )


def weight_bytes(gan: GAN) -> int:
    """Weights, gradients and Adam's two moments of both networks, and the average of G: 4 bytes each; with
    spectral normalisation also the normalised weights of D that the passes of reals and fakes keep."""
    of_g, of_d = count_parameters(gan.G), count_parameters(gan.D)
    normalised = 2 * of_d if gan.options.d_norm == "spectral" else 0
    return 4 * (4 * (of_g + of_d) + of_g + normalised)


def step_bytes(gan: GAN) -> int:
    """What a step keeps for one image."""
    z = torch.zeros(1, gan.G.input_dim)
    label = [torch.zeros(1, dtype=torch.int64)] if gan.options.conditional else []
    images = torch.zeros(1, gan.G.num_channels, gan.G.image_size, gan.G.image_size)
    of_d = activation_bytes(gan.D, images, *label)
    # Reals and fakes; with a penalty the graph of the gradient is kept too.
    return activation_bytes(gan.G, z, *label) + (4 if gan.options.penalised else 2) * of_d


def activation_bytes(network: Any, *inputs: Any) -> int:
    """What a backward pass through ``network`` keeps for one image, in float32: the outputs of its layers.
    Those of parametrizations are weights, however many images there are."""
    total, normalised = 0, {"parametrizations"}  # the only child of a normalised layer

    def count(_: Any, __: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * 4 if isinstance(output, torch.Tensor) else 0

    leaves = [
        module for name, module in network.named_modules()
        if "parametrizations" not in name and {child for child, _ in module.named_children()} <= normalised
        and not isinstance(module, torch.nn.Identity)
    ]  # fmt: skip
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(*inputs)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total


def perceptual_bytes(image_size: int, batch_size: int) -> int:
    """VGG16's weights, and what it keeps of the images of a batch that it is shown."""
    network = untrained_vgg16(0)
    per_image = activation_bytes(network, torch.zeros(1, 1, image_size, image_size))
    return 4 * count_parameters(network) + min(batch_size, PERCEPTUAL_IMAGES) * per_image


def copying_bytes(n_images: int) -> int:
    """Of ``memorisation.detail_distances`` to so many training images: their thumbnails, in float64 before
    they are blurred, and a window of each for every shift."""
    inner, shifts = DETAIL_SIDE - 2 * DETAIL_SHIFT, (2 * DETAIL_SHIFT + 1) ** 2
    return n_images * 4 * (shifts * inner**2 + 2 * DETAIL_SIDE**2)


# --- images ----------------------------------------------------------------------------------------
def preview(args: argparse.Namespace) -> None:
    """Write a grid of a few training images as --diffaug changes them; no other is decoded."""
    records, _ = records_to_learn_from(args, *training_part_of(args))
    some = load_images(
        records.head(PREVIEW_IMAGES), args.image_size, workers=args.workers, skip_bad=args.skip_bad_images
    )
    log.info(f"augmented training images: {preview_augmentations(args, some.pixels)}")


def preview_augmentations(args: argparse.Namespace, pixels: np.ndarray) -> Path:
    """Write a grid: training images ``pixels`` uint8 [N, S, S] in the first row, and below each some of the
    ways D may see it."""
    real = to_gan_range(as_tensor(pixels), args.num_channels)
    rows = [as_tensor(pixels)]
    for step in range(PREVIEW_ROWS - 1):
        numbers = draws(args.seed, step, "D, reals", len(real))
        rows.append(from_gan_range(augment(real, numbers)))
    path = paths.gan_augmented_grid(args.output_dir, args.fold)
    title = "Real training images (first row), and as D sees them with --diffaug"
    save_grid(path, torch.cat(rows).numpy(), title)
    return path
