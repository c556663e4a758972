"""The flags of train_gan.py about watching a training, and what two of them do instead of training.

Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import cache_folder
from gan_options import METRICS_IMAGES, options_of
from utils import UserError, number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from gan_monitor import MonitorOptions
    from gan_training import GAN

PREVIEW_IMAGES, PREVIEW_ROWS = 8, 6  # training images, side by side, the first row as they are


def add_monitoring_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--metrics-interval", type=number(int, 0), metavar="N",
        help="epochs from one evaluation to the next, more where that would take over 5 %% of the time; "
        "0: none (default: as often as that allows)",
    )  # fmt: skip
    add(
        "--metrics-images", type=number(int, 2), default=METRICS_IMAGES, metavar="N",
        help="generated for an evaluation, and at most so many of each half of the reals",
    )  # fmt: skip
    add(
        "--metrics-features", metavar="PATH",
        help="a classifier of train_classifier.py in whose features too images are compared, and by which "
        "generator_best.pth is then chosen (default: none; HOG, and Inception where its weights are)",
    )  # fmt: skip
    add(
        "--metrics-holdout", type=number(float, 0, 0.5), default=0.0, metavar="F",
        help="share of the images, by patient, that is not trained on, to see whether D over-fits",
    )  # fmt: skip
    add("--stop-on-collapse", action="store_true", help="end after a warning of mode collapse, exit code 1")
    add("--tensorboard", action="store_true", help="also write <output-dir>/tensorboard")
    add(
        "--max-minutes", type=number(float, above=0), metavar="M",
        help="end after the epoch in which this time is used up, that of resumed parts included "
        "(default: no limit)",
    )  # fmt: skip
    add(
        "--dry-run", action="store_true",
        help="only print the options, the sizes of the networks, and how much memory and time they need",
    )  # fmt: skip
    add(
        "--preview-augmentations", action="store_true",
        help="only write a grid of training images as --diffaug shows them to D",
    )  # fmt: skip


def check_monitoring_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit code 2 for flags that contradict each other."""
    if args.stop_on_collapse and args.metrics_interval == 0:
        parser.error("--stop-on-collapse needs metrics: leave --metrics-interval 0 out")
    for flag, given in (
        ("--metrics-features", args.metrics_features is not None),
        ("--metrics-holdout", args.metrics_holdout > 0),
    ):
        if given and args.metrics_interval == 0:
            parser.error(f"{flag} is for metrics, and --metrics-interval 0 takes none: leave one of them out")
    if args.metrics_features is not None and not Path(args.metrics_features).is_file():
        parser.error(
            f"--metrics-features {args.metrics_features} is not there: give the file of a classifier that "
            "python src/train_classifier.py wrote, or leave it out"
        )
    if args.preview_augmentations and not args.diffaug:
        parser.error("--preview-augmentations shows what --diffaug does: add --diffaug")
    if args.preview_augmentations and args.no_real_images:
        parser.error("--preview-augmentations shows real images, and --no-real-images leaves them out")


def check_features(args: argparse.Namespace) -> None:
    """``UserError`` at once if --metrics-features is no classifier, not after the images are decoded."""
    if args.metrics_features is not None:
        from classifier import load_classifier

        load_classifier(args.metrics_features)


def monitor_options(args: argparse.Namespace) -> MonitorOptions:
    from gan_monitor import MonitorOptions

    return MonitorOptions(
        args.metrics_interval, args.metrics_images, args.metrics_features, args.metrics_holdout,
        cache_folder(args), args.stop_on_collapse, args.tensorboard,
    )  # fmt: skip


def without_holdout(records: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(records to train on, records set aside): by patient, the same for every run on the same split.

    ``UserError`` if nobody is left on one side of a split that is asked for.
    """
    from gan_monitor import set_aside

    aside = set_aside(records["patient"], fraction, seed)
    if fraction > 0 and not aside.any():
        n = len(records)
        raise UserError(
            f"--metrics-holdout {fraction:g} of {n} images is no whole patient: give a larger share"
        )
    kept, held = records[~aside], records[aside]
    return kept.reset_index(drop=True), held.reset_index(drop=True)


# --- instead of training ---------------------------------------------------------------------------
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
    """Every option that has a value, as it is typed, a line each; switches that are on."""
    from utils import public_config

    hidden = {"dry_run"} | ({"epochs"} if args.kimg is not None else set())
    shown = {
        f"--{name.replace('_', '-')}": "" if value is True else value
        for name, value in public_config(args).items()
        if value is not None and value is not False and name not in hidden  # 0 is a value
    }
    width = max(map(len, shown))
    return "\n".join(f"  {flag:<{width}} {value}".rstrip() for flag, value in shown.items())


def describe_memory(args: argparse.Namespace, n_images: int, batch_size: int) -> str:
    """Sizes of the networks, and about how much memory training takes on top of the program itself."""
    import torch

    from dcgan import count_parameters
    from gan_training import build_gan

    feature_maps = (args.feature_maps_g, args.feature_maps_d)
    sizes = (args.image_size, args.num_channels, args.latent_dim, feature_maps)
    gan = build_gan(*sizes, args.lr, args.beta1, args.seed, torch.device("cpu"), options_of(args))
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


def wants_perceptual(args: argparse.Namespace) -> bool:
    return args.perceptual != "off" and args.lambda_perceptual > 0


def weight_bytes(gan: GAN) -> int:
    """Weights, gradients and Adam's two moments of both networks, and the average of G: 4 bytes each; with
    spectral normalisation also the normalised weights of D that the passes of reals and fakes keep."""
    from dcgan import count_parameters

    of_g, of_d = count_parameters(gan.G), count_parameters(gan.D)
    normalised = 2 * of_d if gan.options.d_norm == "spectral" else 0
    return 4 * (4 * (of_g + of_d) + of_g + normalised)


def step_bytes(gan: GAN) -> int:
    """What a step keeps for one image."""
    import torch

    z = torch.zeros(1, gan.G.input_dim)
    label = [torch.zeros(1, dtype=torch.int64)] if gan.options.conditional else []
    images = torch.zeros(1, gan.G.num_channels, gan.G.image_size, gan.G.image_size)
    of_d = activation_bytes(gan.D, images, *label)
    # Reals and fakes; with a penalty the graph of the gradient is kept too.
    return activation_bytes(gan.G, z, *label) + (4 if gan.options.penalised else 2) * of_d


def activation_bytes(network: Any, *inputs: Any) -> int:
    """What a backward pass through ``network`` keeps for one image, in float32: the outputs of its layers.
    Those of parametrizations are weights, however many images there are."""
    import torch

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
    import torch

    from dcgan import count_parameters
    from gan_losses import untrained_vgg16
    from gan_training import PERCEPTUAL_IMAGES

    network = untrained_vgg16(0)
    per_image = activation_bytes(network, torch.zeros(1, 1, image_size, image_size))
    return 4 * count_parameters(network) + min(batch_size, PERCEPTUAL_IMAGES) * per_image


def copying_bytes(n_images: int) -> int:
    """Of ``memorisation.detail_distances`` to so many training images: their thumbnails, in float64 before
    they are blurred, and a window of each for every shift."""
    from memorisation import DETAIL_SHIFT, DETAIL_SIDE

    inner, shifts = DETAIL_SIDE - 2 * DETAIL_SHIFT, (2 * DETAIL_SHIFT + 1) ** 2
    return n_images * 4 * (shifts * inner**2 + 2 * DETAIL_SIDE**2)


def preview_augmentations(args: argparse.Namespace, pixels: np.ndarray) -> Path:
    """Write a grid: training images ``pixels`` uint8 [N, S, S] in the first row, and below each some of the
    ways D may see it."""
    import torch

    from data_loader import as_tensor, from_gan_range, to_gan_range
    from gan_augment import augment, draws
    from gan_files import save_grid

    real = to_gan_range(as_tensor(pixels), args.num_channels)
    rows = [as_tensor(pixels)]
    for step in range(PREVIEW_ROWS - 1):
        numbers = draws(args.seed, step, "D, reals", len(real))
        rows.append(from_gan_range(augment(real, numbers)))
    path = paths.gan_augmented_grid(args.output_dir, args.fold)
    title = "Real training images (first row), and as D sees them with --diffaug"
    save_grid(path, torch.cat(rows).numpy(), title)
    return path
