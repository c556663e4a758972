"""The flags of train_gan.py, but for those in ``gan_options``, and what can be told from them alone.

Nothing here imports torch before it is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.command_line import number
from dataset.options import cache_folder
from gan.options import METRICS_IMAGES, add_option

if TYPE_CHECKING:
    from gan.monitor import MonitorOptions

IMAGE_SIZES = (32, 64, 112, 128, 224, 256)
POSITIVE, ALL = "positive", "all"


# --- training --------------------------------------------------------------------------------------
def add_model_arguments(group: argparse._ActionsContainer) -> None:
    count = {"type": number(int, 1), "metavar": "N"}
    add_option(group, "--image-size", "pixels a side", type=int, choices=IMAGE_SIZES)
    add_option(group, "--num-channels", "channels; X-rays are gray: 3 replicates", type=int, choices=(1, 3))
    add_option(group, "--latent-dim", "length of the noise vector z", **count)
    for letter, name in (("g", "generator"), ("d", "discriminator")):
        text = f"channels of the {name}'s layer next to the image"
        add_option(group, f"--feature-maps-{letter}", text, **count)


def add_training_arguments(group: argparse._ActionsContainer) -> None:
    add = group.add_argument
    length = group.add_mutually_exclusive_group().add_argument
    length("--epochs", type=number(int, 1), default=50, metavar="N", help="passes over the images")
    length(
        "--kimg", type=number(float, above=0), metavar="N",
        help="thousands of images to show, rounded up to whole epochs (default: as --epochs says)",
    )  # fmt: skip
    weight, x = number(float, 0), {"metavar": "X"}
    add_option(group, "--batch-size", "images per step", type=number(int, 2), metavar="N")
    add_option(group, "--lr", "learning rate of both Adam optimizers", type=number(float, above=0), **x)
    add_option(group, "--beta1", "decay of Adam's first moment", type=number(float, 0, 0.9999), **x)
    add(
        "--classes", choices=(POSITIVE, ALL),
        help=f"images to learn from (default: {POSITIVE}; with --conditional: {ALL})",
    )  # fmt: skip
    add("--lambda-adv", type=weight, default=1.0, metavar="X", help="weight of the adversarial loss")
    add_option(group, "--lambda-perceptual", "weight of the perceptual loss", type=weight, **x)
    add_option(group, "--lambda-fm", "weight of feature matching", type=weight, **x)
    add_option(
        group, "--perceptual",
        "perceptual loss on VGG16 features; auto: only if its ImageNet weights can be had",
        choices=("auto", "on", "off"),
    )  # fmt: skip
    add(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="arithmetic of the networks; auto: bf16 where the hardware multiplies it, else fp32",
    )  # fmt: skip
    add(
        "--compile", action="store_true",
        help="torch.compile the networks first, which takes a minute: for long runs on a GPU",
    )  # fmt: skip
    seed = number(int, 0, 2**32 - 1)
    add("--seed", type=seed, default=42, metavar="N", help="seed of weights, noise and order")
    add("--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is there")


def add_saving_arguments(group: argparse._ActionsContainer) -> None:
    add, count = group.add_argument, number(int, 1)
    add("--vis-batch-size", type=count, default=32, metavar="N", help="images in a sample grid")
    add("--save-interval", type=count, default=1000, metavar="N", help="steps between sample grids")
    add("--checkpoint-interval", type=count, default=5, metavar="N", help="epochs between checkpoints")
    add("--no-real-images", action="store_true", help="leave out the grid of real training images")
    add(
        "--resume", nargs="?", const="auto", metavar="auto|PATH",
        help="go on from the last state in <model-dir>/gan (none there: start from the beginning), or from "
        "the state file PATH (default: start from the beginning)",
    )  # fmt: skip
    add(
        "--estimate", action="store_true",
        help="only say about how long it takes, and what is quicker; writes nothing but splits.json where "
        "there is none, and counts the perceptual loss as if its weights were there",
    )  # fmt: skip


# --- watching --------------------------------------------------------------------------------------
def add_monitoring_arguments(group: argparse._ActionsContainer) -> None:
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
    from gan.monitor import MonitorOptions

    return MonitorOptions(
        args.metrics_interval, args.metrics_images, args.metrics_features, args.metrics_holdout,
        cache_folder(args.no_cache, args.cache_dir), args.stop_on_collapse, args.tensorboard,
    )  # fmt: skip
