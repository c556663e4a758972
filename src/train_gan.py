"""Train a DCGAN on the pneumonia images of the training split; its averaged generator makes new ones.

    python src/train_gan.py --data-dir ./data/processed

Writes generator_final.pth, discriminator_final.pth, checkpoints and the state for --resume to
<model-dir>/gan, grids of images to <output-dir>/gan_images, gan_training_history.json and
gan_loss_curve.png. Test images are never read. With --fold I --k-folds K the images of fold I are not read
either, and the files lie in subfolders fold_I, or have fold_I in their names.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import add_cache_arguments, add_data_arguments, cache_folder
from distributed import agree, check_batch_size, from_main, is_main, main_first, size, together
from gan_flags import (
    PREVIEW_IMAGES,
    add_monitoring_arguments,
    check_features,
    check_monitoring_arguments,
    describe_memory,
    describe_options_in_full,
    monitor_options,
    nothing_written,
    preview_augmentations,
    wants_perceptual,
    without_holdout,
)
from gan_options import (
    CLASS_NAMES,
    add_gan_options,
    add_option,
    describe_options,
    doubts,
    options_of,
    resolve,
    settings_of,
)
from splits import add_part_arguments, check_part_arguments
from utils import UserError, WeightsUnavailableError, argument_parser, number, run_script

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from data_loader import Dataset
    from gan_losses import PerceptualLoss, VGG16Features
    from gan_run import Run, TrainingSet
    from gan_training import Objective
    from splits import Splits

IMAGE_SIZES = (32, 64, 112, 128, 224, 256)
POSITIVE, ALL = "positive", "all"


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Train a DCGAN on the pneumonia images of the training split.")
    add_data_arguments(parser)
    add_cache_arguments(parser)
    add = parser.add_argument
    add("--model-dir", default=paths.MODEL_DIR, metavar="PATH", help="checkpoints go to its subfolder gan/")
    add("--output-dir", default=paths.OUTPUT_DIR, metavar="PATH", help="base folder of the outputs")
    add("--results-dir", metavar="PATH", help="folder of the history (default: <output-dir>/metrics)")
    add("--figures-dir", metavar="PATH", help="folder of the loss curve (default: <output-dir>/figures)")
    add_part_arguments(parser.add_argument_group("training images"))
    _add_model_arguments(parser.add_argument_group("model"))
    _add_training_arguments(parser.add_argument_group("training"))
    add_gan_options(parser)
    _add_saving_arguments(parser.add_argument_group("logging and saving"))
    add_monitoring_arguments(parser.add_argument_group("watching"))
    return parser


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    count = {"type": number(int, 1), "metavar": "N"}
    add_option(group, "--image-size", "pixels a side", type=int, choices=IMAGE_SIZES)
    add_option(group, "--num-channels", "channels; X-rays are gray: 3 replicates", type=int, choices=(1, 3))
    add_option(group, "--latent-dim", "length of the noise vector z", **count)
    for letter, name in (("g", "generator"), ("d", "discriminator")):
        text = f"channels of the {name}'s layer next to the image"
        add_option(group, f"--feature-maps-{letter}", text, **count)


def _add_training_arguments(group: argparse._ArgumentGroup) -> None:
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


def _add_saving_arguments(group: argparse._ArgumentGroup) -> None:
    add, count = group.add_argument, number(int, 1)
    add("--vis-batch-size", type=count, default=32, metavar="N", help="images in a sample grid")
    add("--save-interval", type=count, default=1000, metavar="N", help="steps between sample grids")
    add("--checkpoint-interval", type=count, default=5, metavar="N", help="epochs between checkpoints")
    add("--no-real-images", action="store_true", help="leave out the grid of real training images")
    add(
        "--resume", nargs="?", const="auto", metavar="auto|PATH",
        help="go on from the last state in <model-dir>/gan, or from the state file PATH; nothing there: "
        "start from the beginning (default: start from the beginning)",
    )  # fmt: skip
    add(
        "--estimate", action="store_true",
        help="only say about how long it takes, and what is quicker; writes nothing but splits.json where "
        "there is none, and counts the perceptual loss as if its weights were there",
    )  # fmt: skip


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    check_part_arguments(parser, args)
    try:
        options = resolve(args)
    except UserError as error:
        parser.error(str(error))
    if options.conditional and args.classes == POSITIVE:
        parser.error("--conditional learns from the images of all classes: leave --classes positive out")
    if args.compile and options.penalised:
        parser.error(
            "--compile cannot be combined with a gradient penalty (--r1, --r2, wgan-gp), whose second "
            "derivative torch.compile lacks: leave --compile out"
        )
    check_monitoring_arguments(parser, args)
    args.classes = args.classes or (ALL if options.conditional else POSITIVE)
    args.results_dir = args.results_dir or str(Path(args.output_dir) / "metrics")
    args.figures_dir = args.figures_dir or str(Path(args.output_dir) / "figures")
    return args


# --- data ------------------------------------------------------------------------------------------
def training_part_of(args: argparse.Namespace) -> tuple[Dataset, Splits]:
    """The dataset, and its split with the training images that --train-fraction and --fold leave."""
    from data_loader import load_dataset
    from splits import load_or_create_splits, training_part

    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    return dataset, training_part(splits, args.train_fraction, args.fold, args.k_folds)


def load_training_set(args: argparse.Namespace, device: torch.device) -> TrainingSet:
    """Decode the images of the training split, one per record; ``UserError`` if there are fewer than two."""
    from data_loader import as_tensor, grouping_sentence, load_images
    from gan_run import TrainingSet
    from splits import TRAIN, describe_splits, select
    from synthetic import few_images_flags

    dataset, splits = training_part_of(args)
    print(describe_splits(splits))
    label = label_of(args)
    if args.conditional:
        require_classes(dataset.images)
    records, held = without_holdout(select(dataset, splits, TRAIN, label), args.metrics_holdout, splits.seed)
    how = {"workers": args.workers, "skip_bad": args.skip_bad_images, "cache_dir": cache_folder(args)}
    images = load_images(records, args.image_size, **how)
    heldout: dict[str, Any] = {}
    if len(held):
        aside = load_images(held, args.image_size, **how)
        classes = class_numbers(aside.records).to(device) if args.conditional else None
        heldout = {"holdout": aside.pixels, "holdout_labels": classes}
    what = f"{len(images.records):,} {'pneumonia images' if label else 'images'}"
    if len(images.records) < 2:
        raise UserError(
            f"a GAN needs at least 2 images; there are {what} to learn from ({len(images.skipped)} skipped): "
            f"`python src/data_loader.py --data-dir {args.data_dir}` shows what is there"
        )
    origin = origin_of(images.records, args.classes, label) | {
        "data_sha256": dataset.data_sha256,
        "split_sha256": splits.sha256,
        "grouped_by": dataset.grouped_by,
        "train_fraction": args.train_fraction,
        "fold": args.fold,
        "k_folds": args.k_folds,
    }
    patients = f"{len(origin['train_patients']):,} patients or groups"
    print(f"training on {what} of {patients}; {grouping_sentence(dataset.grouped_by)}")
    flags = few_images_flags(len(images.records))
    for flag in flags:
        print(f"RED FLAG: {flag}")
    return TrainingSet(
        as_tensor(images.pixels).to(device), origin, images.skipped, flags,
        patients=[str(name) for name in images.records["patient"]], images=images,
        labels=class_numbers(images.records).to(device) if args.conditional else None,
        **heldout,
    )  # fmt: skip


def require_classes(records: pd.DataFrame) -> None:
    """``UserError`` unless the metadata tells the three classes of --conditional apart."""
    if missing := set(CLASS_NAMES) - set(records["class"]):
        raise UserError(
            f"--conditional: the metadata has no image of class {' or '.join(sorted(missing))}: add a column "
            "class with the classes of the dataset, or leave --conditional out"
        )


def class_numbers(records: pd.DataFrame) -> torch.Tensor:
    """int64 [N]: the number of each image's class in ``CLASS_NAMES``."""
    import torch

    return torch.tensor([CLASS_NAMES.index(name) for name in records["class"]])


def label_of(args: argparse.Namespace) -> int | None:
    """Of the images to learn from; None: all."""
    return 1 if args.classes == POSITIVE else None


def origin_of(records: pd.DataFrame, classes: str, label: int | None) -> dict[str, Any]:
    """Whose images a generator has seen: what later steps need to keep it away from test patients."""
    return {
        "classes": classes,
        "label": label,
        "train_image_ids": [str(name) for name in records["image_id"]],
        "train_patients": sorted({str(name) for name in records["patient"]}),
    }


def fit_batch_size(batch_size: int, n_images: int) -> int:
    """``batch_size``, or the number of images if that is smaller, with a notice; always a number that the
    processes can share evenly. ``UserError`` if there is none."""
    if batch_size > n_images:
        largest = n_images // size() * size()
        print(f"--batch-size {batch_size} is larger than the training set: reduced to {largest}")
        batch_size = largest
    check_batch_size(batch_size)
    return batch_size


def count_epochs(epochs: int, kimg: float | None, n_images: int, batch_size: int) -> int:
    """``epochs``, or as many as show ``kimg`` thousand images; an epoch leaves out an incomplete batch."""
    images_per_epoch = n_images // batch_size * batch_size
    return epochs if kimg is None else math.ceil(kimg * 1000 / images_per_epoch)


# --- objective -------------------------------------------------------------------------------------
def load_perceptual_loss(pixels: torch.Tensor, num_channels: int, precision: str) -> PerceptualLoss:
    """VGG16 with its ImageNet weights and its moments over all ``pixels``; ``WeightsUnavailableError``."""
    from gan_losses import VGG16_URL, VGG16Features
    from utils import hub_weights

    what, remedy = "the perceptual loss", "use --perceptual off"
    with main_first():
        weights = hub_weights(VGG16_URL, what, remedy)
    try:
        network = VGG16Features(weights).to(pixels.device)
    except ValueError as error:
        file = VGG16_URL.rsplit("/", 1)[1]
        raise WeightsUnavailableError(
            f"{what}: {file} in torch's cache is not VGG16 ({error}); delete it, or {remedy}"
        ) from None
    return perceptual_loss_of(network, pixels, num_channels, precision)


def perceptual_loss_of(
    network: VGG16Features, pixels: torch.Tensor, num_channels: int, precision: str
) -> PerceptualLoss:
    from tqdm import tqdm

    from data_loader import to_gan_range
    from gan_losses import PerceptualLoss
    from utils import autocast

    batches = tqdm(pixels.split(32), desc="VGG16 features of the reals", unit="batch")
    with autocast(pixels.device, precision):
        return PerceptualLoss(network, (to_gan_range(batch, num_channels) for batch in batches))


def build_objective(args: argparse.Namespace, pixels: torch.Tensor, precision: str) -> tuple[Objective, str]:
    """The terms of G's loss and what became of the perceptual one: "on", "off" or "unavailable"."""
    perceptual_loss, outcome = None, "off"
    if wants_perceptual(args):
        try:
            perceptual_loss = load_perceptual_loss(pixels, args.num_channels, precision)
            outcome = "on"
        except WeightsUnavailableError as error:
            if args.perceptual == "on":
                raise
            print(f"training without the perceptual loss: {error}")
            outcome = "unavailable"
    return objective_with(args, perceptual_loss, pixels.device), outcome


def objective_with(
    args: argparse.Namespace, perceptual_loss: PerceptualLoss | None, device: torch.device
) -> Objective:
    from gan_training import Objective, perceptual_every

    weights = args.lambda_adv, args.lambda_perceptual, args.lambda_fm
    return Objective(*weights, perceptual_loss, perceptual_every(device))


def objective_to_time(args: argparse.Namespace, pixels: torch.Tensor, precision: str) -> Objective:
    """As slow as ``build_objective``'s where VGG16's weights can be had, without having them."""
    from gan_losses import untrained_vgg16

    loss = None
    if wants_perceptual(args):
        network = untrained_vgg16(args.seed).to(pixels.device)
        loss = perceptual_loss_of(network, pixels, args.num_channels, precision)
    return objective_with(args, loss, pixels.device)


# --- how long it takes -----------------------------------------------------------------------------
def estimate(args: argparse.Namespace) -> str:
    """What --estimate prints; nothing is decoded but a few images, nothing downloaded, and nothing written
    but the dataset's splits.json where there is none."""
    from data_loader import count_undecoded
    from estimates import IMAGES_TO_DECODE, describe_gan, gan_seconds
    from gan_training import build_gan
    from splits import TRAIN, select
    from study_timing import SCRIPT_SECONDS, decoding_seconds
    from utils import resolve_precision, select_device

    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    dataset, splits = training_part_of(args)
    records = select(dataset, splits, TRAIN, label_of(args))
    records, _ = without_holdout(records, args.metrics_holdout, splits.seed)
    if len(records) < 2:
        raise UserError(f"a GAN needs at least 2 images; there are {len(records)} to learn from")
    batch_size = fit_batch_size(args.batch_size, len(records))
    steps = count_epochs(args.epochs, args.kimg, len(records), batch_size) * (len(records) // batch_size)
    feature_maps = (args.feature_maps_g, args.feature_maps_d)
    sizes = (args.image_size, args.num_channels, args.latent_dim, feature_maps)
    gan = build_gan(*sizes, args.lr, args.beta1, args.seed, device, options_of(args))
    per_image, step, plain_step = gan_seconds(
        gan, lambda pixels: objective_to_time(args, pixels, precision), batch_size, precision
    )
    decoding = decoding_seconds(list(records["path"][:IMAGES_TO_DECODE]), args.image_size)
    undecoded = count_undecoded(records, args.image_size, cache_folder(args))
    fixed = SCRIPT_SECONDS + undecoded * decoding + len(records) * per_image
    return describe_gan(
        fixed, steps, step, plain_step, batch_size=batch_size, image_size=args.image_size,
        epochs=steps // (len(records) // batch_size),
    )  # fmt: skip


def dry_run(args: argparse.Namespace) -> None:
    """Print what a training would be and take; nothing is trained or written."""
    from splits import TRAIN, select

    print("options:")
    print(describe_options_in_full(args))
    with nothing_written(args) as args:
        dataset, splits = training_part_of(args)
        records = select(dataset, splits, TRAIN, label_of(args))
        records, _ = without_holdout(records, args.metrics_holdout, splits.seed)
        print(describe_memory(args, len(records), fit_batch_size(args.batch_size, len(records))))
        print(estimate(args))
    print("--dry-run: nothing was trained or written")


def preview(args: argparse.Namespace) -> None:
    """Write a grid of a few training images as --diffaug changes them; no other is decoded."""
    from data_loader import load_images
    from splits import TRAIN, select

    dataset, splits = training_part_of(args)
    records = select(dataset, splits, TRAIN, label_of(args))
    records, _ = without_holdout(records, args.metrics_holdout, splits.seed)
    if not len(records):
        raise UserError("--preview-augmentations: there are no images to learn from")
    some = load_images(
        records.head(PREVIEW_IMAGES), args.image_size, workers=args.workers, skip_bad=args.skip_bad_images
    )
    print(f"augmented training images: {preview_augmentations(args, some.pixels)}")


# --- the run ---------------------------------------------------------------------------------------
def fixed_settings(
    args: argparse.Namespace, data: TrainingSet, batch_size: int, precision: str, perceptual: str
) -> dict[str, Any]:
    """What may not change between a state and its continuation, by the flag that sets it."""
    from utils import sha256_json

    flags = (
        "image_size", "num_channels", "latent_dim", "feature_maps_g", "feature_maps_d", "lr", "beta1",
        "classes", "train_fraction", "fold", "k_folds", "lambda_adv", "lambda_perceptual", "lambda_fm",
        "seed", "compile",
    )  # fmt: skip
    given = {f"--{name.replace('_', '-')}": getattr(args, name) for name in flags}
    return {
        **given,
        **settings_of(options_of(args)),
        **monitor_options(args).settings(),
        "--batch-size": batch_size,
        "--precision": precision,
        "--perceptual": perceptual,
        "processes": size(),
        "metadata sha256": data.origin["data_sha256"],
        "split sha256": data.origin["split_sha256"],
        "training images": f"{len(data.pixels)} ({sha256_json(data.origin['train_image_ids'])[:12]})",
    }


def describe(run: Run) -> str:
    from dcgan import count_parameters

    G, D, schedule = run.gan.G, run.gan.D, run.schedule
    millions = f"generator {count_parameters(G) / 1e6:.2f} M, discriminator {count_parameters(D) / 1e6:.2f} M"
    return (
        f"{run.gan.options.arch} {G.image_size} px, {millions} parameters; "
        f"perceptual loss {run.settings['--perceptual']}; "
        f"{run.data.pixels.device.type}, {run.precision}; {schedule.epochs:,} epochs of "
        f"{run.steps_per_epoch:,} steps, batch size {schedule.batch_size}"
        + (f" in all of {size()} processes" if size() > 1 else "")
    )


def build_run(args: argparse.Namespace) -> Run:
    """Data, networks, losses and schedule as the flags say, with nothing trained yet."""
    from gan_run import Folders, Run, Schedule
    from gan_training import build_gan
    from utils import environment, prepare_arithmetic, public_config, resolve_precision, select_device

    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    prepare_arithmetic(device, precision, args.compile)
    with main_first():
        data = load_training_set(args, device)
    batch_size = fit_batch_size(args.batch_size, len(data.pixels))
    epochs = count_epochs(args.epochs, args.kimg, len(data.pixels), batch_size)
    feature_maps = (args.feature_maps_g, args.feature_maps_d)
    sizes = (args.image_size, args.num_channels, args.latent_dim, feature_maps)
    gan = build_gan(*sizes, args.lr, args.beta1, args.seed, device, options_of(args))
    if args.compile:
        gan.compile()
    objective, perceptual = build_objective(args, data.pixels, precision)
    settings = fixed_settings(args, data, batch_size, precision, perceptual)
    agree("data, weights or settings", settings)
    # How a run was interrupted is not what it is.
    config = {name: value for name, value in public_config(args).items() if name != "resume"}
    return Run(
        gan, data, objective,
        Schedule(epochs, batch_size, args.save_interval, args.checkpoint_interval, args.max_minutes),
        Folders(args.model_dir, args.output_dir, args.results_dir, args.figures_dir, args.fold),
        settings=settings,
        facts={"config": config, "environment": environment(device), "seed": args.seed},
        vis_batch_size=args.vis_batch_size,
        show_reals=not args.no_real_images,
        monitoring=monitor_options(args),
    )  # fmt: skip


def train(args: argparse.Namespace) -> None:
    from gan_resume import resume
    from utils import public_path, set_seed

    set_seed(args.seed)
    print(describe_options(args))
    for doubt in doubts(options_of(args)):
        print(f"note: {doubt}")
    run = build_run(args)
    print(describe(run))
    if args.resume:
        resume(run, args.resume)
    elif paths.gan_state(args.model_dir, args.fold).exists():
        folder = public_path(paths.gan_dir(args.model_dir, args.fold))
        print(f"{folder} holds an earlier run: its files are overwritten as new ones are made")
    run.train()
    file = paths.generator_final(args.model_dir, args.fold)
    print(f"averaged generator after {run.gan.step:,} steps: {file}")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with together(args.cpu):
        from_main(check_features, args)
        if args.dry_run:
            if is_main():
                dry_run(args)
        elif args.preview_augmentations:
            if is_main():
                preview(args)
        elif not args.estimate:
            train(args)
        elif is_main():
            print(estimate(args))


if __name__ == "__main__":
    run_script(main)
