"""Train a GAN on the pneumonia images of the training split; its averaged generator makes new ones.

    python src/train_gan.py --data-dir ./data/processed

Writes generator_final.pth, discriminator_final.pth, checkpoints and the state for --resume to
<model-dir>/gan, grids of images to <output-dir>/gan_images, gan_training_history.json and
gan_loss_curve.png. Test images are never read. With --fold I --k-folds K the images of fold I are not read
either, and the files lie in subfolders fold_I, or have fold_I in their names.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, run_script
from common.distributed import from_main, is_main, main_first, process_count, process_group, require_same
from common.options import add_options
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, PART_OPTIONS, cache_folder, fold_problem
from gan.flags import (
    ALL,
    POSITIVE,
    add_model_arguments,
    add_monitoring_arguments,
    add_saving_arguments,
    add_training_arguments,
    check_features,
    check_monitoring_arguments,
    monitor_options,
)
from gan.options import (
    add_gan_options,
    describe_options,
    doubts,
    options_of,
    resolve,
    settings_of,
    wants_perceptual,
)
from utils import UserError

if TYPE_CHECKING:
    from gan.run import Run
    from gan.setup import TrainingSet

log = logging.getLogger(__name__)


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Train a GAN on the pneumonia images of the training split.")
    add_options(parser, DATA_OPTIONS)
    add_options(parser, CACHE_OPTIONS)
    add = parser.add_argument
    add("--model-dir", default=paths.MODEL_DIR, metavar="PATH", help="checkpoints go to its subfolder gan/")
    add("--output-dir", default=paths.OUTPUT_DIR, metavar="PATH", help="base folder of the outputs")
    add("--results-dir", metavar="PATH", help="folder of the history (default: <output-dir>/metrics)")
    add("--figures-dir", metavar="PATH", help="folder of the loss curve (default: <output-dir>/figures)")
    add_options(parser, PART_OPTIONS)
    add_model_arguments(parser.add_argument_group("model"))
    add_training_arguments(parser.add_argument_group("training"))
    add_gan_options(parser)
    add_saving_arguments(parser.add_argument_group("logging and saving"))
    add_monitoring_arguments(parser.add_argument_group("watching"))
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if problem := fold_problem(args.fold, args.k_folds):
        parser.error(problem)
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
        "processes": process_count(),
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
        + (f" in all of {process_count()} processes" if process_count() > 1 else "")
    )


def build_run(args: argparse.Namespace) -> Run:
    """Data, networks, losses and schedule as the flags say, with nothing trained yet."""
    from common.command_line import public_config
    from gan.objective import build_objective
    from gan.run import Run
    from gan.setup import Folders, Schedule
    from gan.training import build_gan
    from gan.training_set import count_epochs, fit_batch_size, load_training_set
    from utils import environment, prepare_arithmetic, resolve_precision, select_device

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
    require_same("data, weights or settings", settings)
    # How a run was interrupted is not what it is.
    config = {name: value for name, value in public_config(vars(args)).items() if name != "resume"}
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
    from gan.resume import resume
    from utils import public_path, set_seed

    set_seed(args.seed)
    log.info(describe_options(args))
    for doubt in doubts(options_of(args)):
        log.info(f"note: {doubt}")
    run = build_run(args)
    log.info(describe(run))
    if args.resume:
        resume(run, args.resume)
    elif paths.gan_state(args.model_dir, args.fold).exists():
        folder = public_path(paths.gan_dir(args.model_dir, args.fold))
        log.info(f"{folder} holds an earlier run: its files are overwritten as new ones are made")
    run.train()
    file = paths.generator_final(args.model_dir, args.fold)
    log.info(f"averaged generator after {run.gan.step:,} steps: {file}")


def estimate(args: argparse.Namespace) -> str:
    """Say how long a training takes; nothing is downloaded, and nothing written but splits.json."""
    from data_loader import count_undecoded
    from gan.training_set import count_epochs, fit_batch_size, records_to_learn_from, training_part_of
    from studies.time_estimate import GANWork, estimate_gan
    from utils import select_device

    records, _ = records_to_learn_from(args, *training_part_of(args))
    batch_size = fit_batch_size(args.batch_size, len(records))
    work = replace(
        GANWork.from_options(vars(args), wants_perceptual(args)),
        batch_size=batch_size,
        epochs=count_epochs(args.epochs, args.kimg, len(records), batch_size),
        epoch_images=len(records) // batch_size * batch_size,
        n_undecoded=count_undecoded(records, args.image_size, cache_folder(args.no_cache, args.cache_dir)),
    )
    return estimate_gan(work, list(records["path"]), select_device(args.cpu))


def instead_of_training(args: argparse.Namespace) -> None:
    from gan.forecast import dry_run, preview

    if args.dry_run:
        dry_run(args, estimate)
    elif args.preview_augmentations:
        preview(args)
    else:
        log.info(estimate(args))


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    with process_group(args.cpu):
        from_main(check_features, args)
        if not (args.dry_run or args.preview_augmentations or args.estimate):
            train(args)
        elif is_main():
            instead_of_training(args)


if __name__ == "__main__":
    run_script(main)
