"""Train a GAN on the pneumonia images of the training split; its averaged generator makes new ones.

    python src/train_gan.py --data-dir ./data/processed

Writes generator_final.pth, generator_best.pth, discriminator_final.pth, checkpoints and the state for --resume to
<model-dir>/gan, grids of images to <output-dir>/gan_images, gan_training_history.json and gan_stats.jsonl to
<results-dir>, and the curves of losses and quality to <figures-dir>. Nothing is learned from test images: they are
looked at only to find those that show the picture of another image. With --fold I --k-folds K nothing is learned from
fold I either, and the files lie in subfolders fold_I, or have fold_I in their names.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from common.command_line import argument_parser, run_script
from common.distributed import from_main, is_main, main_first, process_count, process_group, require_same
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders, only_checks
from common.plan_files import PlanFile, follow_plan, named_files
from gan import options
from gan.combinations import list_doubts
from gan.settings import Plan, Settings, describe_length
from networks.backbones import LITE0
from utils import UserError

if TYPE_CHECKING:
    import torch

    from gan.networks import GAN

log = logging.getLogger(__name__)

PREVIEW_IMAGES, PREVIEW_ROWS = 8, 6  # training images, side by side, the first row as they are


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Train a GAN on the pneumonia images of the training split.", options.OPTIONS)


def parse_arguments(argv: list[str] | None) -> Settings:
    """Parse and check; wrong usage ends with exit code 2."""
    parser = build_parser()
    try:
        return options.read_settings(vars(parser.parse_args(argv)))
    except UserError as error:
        parser.error(str(error))


# --- the run ---------------------------------------------------------------------------------------
def run_training(settings: Settings, comparison: PlanFile | None) -> None:
    """Build everything, take up an earlier run if asked, train, and say where the generator is."""
    from gan import checkpoints
    from gan.losses import build_objective
    from gan.networks import gan_as_set
    from gan.trainer import Trainer
    from gan.training_set import fit_schedule, load_training_set
    from utils import environment, prepare_arithmetic, public_path, resolve_precision, select_device, set_seed

    set_seed(settings.seed)
    log.info(options.describe_options(settings))
    for doubt in list_doubts(settings.gan):
        log.info(f"note: {doubt}")
    device = select_device(settings.cpu)
    precision = resolve_precision(settings.precision, device)
    prepare_arithmetic(device, precision, settings.compile)
    with main_first():
        data = load_training_set(settings.images, device)
    if comparison:
        comparison.check_split(data.origin["split_sha256"])
    schedule = fit_schedule(settings.schedule, len(data.pixels))
    gan = gan_as_set(settings, device)
    if settings.compile:
        gan.compile()
    objective, perceptual = build_objective(settings.losses, data.pixels, settings.num_channels, precision)
    plan = Plan(
        schedule, settings.folders, settings.watching, settings.gan, settings.seed, precision, perceptual,
        fixed=checkpoints.fixed_facts(settings, data, schedule.batch_size, precision, perceptual),
        config=options.recorded_config(settings), environment=environment(device), named_files=named_files(),
    )  # fmt: skip
    require_same("data, weights or settings", plan.fixed)
    log.info(describe_training(plan, gan, len(data.pixels), device))
    log.info(describe_length(schedule.images_shown(len(data.pixels)), len(data.pixels)))
    earlier = None
    if settings.resume:
        earlier = checkpoints.resume(plan, gan, settings.resume)
    elif plan.folders.state.exists():
        folder = public_path(plan.folders.state.parent)
        log.info(f"{folder} holds an earlier run: its files are overwritten as new ones are made")
    Trainer(plan, gan, data, objective, earlier).train()
    log.info(f"averaged generator after {gan.step:,} steps: {plan.folders.networks()[0]}")


def describe_training(plan: Plan, gan: GAN, n_images: int, device: torch.device) -> str:
    """Write networks, perceptual loss, device and length of a run in one line."""
    from dcgan import count_parameters

    network = f" ({plan.config['perceptual_network']})" if plan.perceptual == "on" else ""
    schedule, of_g, of_d = plan.schedule, count_parameters(gan.G) / 1e6, count_parameters(gan.D) / 1e6
    return (
        f"{plan.gan.arch} {gan.G.image_size} px, generator {of_g:.2f} M, discriminator {of_d:.2f} M "
        f"parameters; perceptual loss {plan.perceptual}{network}; {device.type}, {plan.precision}; "
        f"{schedule.epochs:,} epochs of {n_images // schedule.batch_size:,} steps, "
        f"batch size {schedule.batch_size}" + (f" in all of {process_count()} processes" if process_count() > 1 else "")
    )


# --- instead of training ---------------------------------------------------------------------------
def dry_run(settings: Settings) -> None:
    """Print the options, the sizes of the networks and the time; nothing is trained or written."""
    import torch

    from dcgan import count_parameters
    from gan.networks import gan_as_set

    log.info("options:")
    log.info(options.describe_options_in_full(settings))
    images = settings.images
    there = Path(images.splits) if images.splits else Path(images.data_dir) / paths.SPLITS
    with tempfile.TemporaryDirectory() as folder:
        if not there.is_file():  # it is made, and goes again
            images = replace(images, splits=str(Path(folder) / paths.SPLITS))
        estimated = estimate_training(replace(settings, images=images))
    gan = gan_as_set(settings, torch.device("cpu"))
    sizes = f"{count_parameters(gan.G):,} parameters, discriminator {count_parameters(gan.D):,}"
    log.info(f"generator {sizes}")
    log.info(estimated)
    log.info("--dry-run: nothing was trained or written")


def preview(settings: Settings) -> None:
    """Write a grid of a few training images as --diffaug changes them; no other image is decoded."""
    from data_loader import load_images
    from dataset.images import save_png
    from gan.augmentation import show_augmented
    from gan.figures import mosaic
    from gan.training_set import records_to_learn_from, training_part_of
    from utils import as_tensor

    choice = settings.images
    records, _ = records_to_learn_from(choice, *training_part_of(choice))
    some = load_images(
        records.head(PREVIEW_IMAGES), choice.image_size, workers=choice.workers,
        skip_bad=choice.skip_bad_images, bits=choice.bits,
    )  # fmt: skip
    shown = show_augmented(as_tensor(some.pixels), settings.num_channels, settings.seed, PREVIEW_ROWS)
    file = paths.gan_augmented_grid(settings.folders.output_dir, settings.folders.fold)
    title = "Real training images (first row), and as D sees them with --diffaug"
    save_png(file, mosaic(shown.numpy(), len(some.pixels), title))
    log.info(f"augmented training images: {file}")


def estimate_training(settings: Settings) -> str:
    """Say how long a training takes; nothing is downloaded, and nothing written but splits.json."""
    from data_loader import count_undecoded
    from gan.training_set import fit_schedule, records_to_learn_from, training_part_of
    from studies.time_estimate import GANWork, estimate_gan
    from utils import select_device

    choice = settings.images
    records, _ = records_to_learn_from(choice, *training_part_of(choice))
    schedule = fit_schedule(settings.schedule, len(records))
    work = GANWork(
        replace(settings, schedule=schedule),
        epochs=schedule.epochs,
        epoch_images=len(records) // schedule.batch_size * schedule.batch_size,
        n_undecoded=count_undecoded(records, choice.image_size, choice.cache, bits=choice.bits),
    )
    return estimate_gan(work, list(records["path"]), select_device(settings.cpu))


def print_estimate(settings: Settings) -> None:
    log.info(estimate_training(settings))


INSTEAD = {"dry_run": dry_run, "preview_augmentations": preview, "estimate": print_estimate}  # of training, by option


# --- main ------------------------------------------------------------------------------------------
def check_networks(settings: Settings) -> None:
    """Raise ``UserError`` if --metrics-features or --perceptual-network cannot be had, before images are decoded."""
    file = settings.images.metrics_features
    if LITE0 in (file, settings.losses.perceptual_network):
        from networks.lite0 import check_lite0

        check_lite0()
    if file not in (None, LITE0):
        from classifier import ClassifierCheckpoint, load_classifier
        from common.file_formats import format_problems

        _, checkpoint = load_classifier(file)
        if problems := format_problems(checkpoint, ClassifierCheckpoint):
            raise UserError(f"--metrics-features {file} is damaged: {problems[0]}; leave it out")


def main(argv: list[str] | None = None) -> None:
    settings = parse_arguments(argv)
    comparison = follow_plan(settings.values["plan"], "train_gan", settings.values)
    asked = [action for name, action in INSTEAD.items() if settings.values[name]]
    folders = settings.folders
    if only_checks():
        check_networks(settings)
    if not asked:
        check_folders({
            "--model-dir": folders.model_dir, "--output-dir": folders.output_dir,
            "--results-dir": folders.results_dir, "--figures-dir": folders.figures_dir,
        })  # fmt: skip
        keep_run_log(folders.results_dir)
    with process_group(settings.cpu):
        from_main(check_networks, settings)
        if not asked:
            name = "gan" if folders.fold is None else f"gan_fold_{folders.fold}"
            ours = [folders.model_dir, folders.output_dir, folders.results_dir] if is_main() else []
            with claim(ours, name, "train_gan.py"):
                run_training(settings, comparison)
        elif is_main():
            asked[0](settings)


if __name__ == "__main__":
    run_script(main)
