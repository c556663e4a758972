"""The low-data study: does synthetic data help where real patients are few? Score against their number.

For each fraction of the training patients it trains the baseline, a GAN on that fraction alone, makes its
images, and trains the other arms, each step a command that could be typed by hand. Run again with the same
options it skips what is finished and takes up what was interrupted; other fractions and arms can be added.

    python src/run_study.py --fractions 0.05,0.25,1 --repeats 3 --arms baseline,augmented,control_duplicate

Every fraction takes the same number of optimiser steps: small ones are trained for more epochs. Nothing is
chosen on test.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arms.options import TRAIN_OPTIONS
from arms.registry import BASELINE, study_arms
from common import paths
from common.command_line import ArgumentParser, argument_parser, number, run_script
from common.options import add_options, flags_set_by_study
from common.progress import duration_in_words
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from gan.options import OPTIONS as GAN_OPTIONS
from gan.options import read_settings
from studies.plan import Part, arm_step_name, folders_of, part_steps, plan_parts
from studies.steps import (
    FINISHED,
    Step,
    add_passed_on_arguments,
    cache_options,
    check_options,
    data_options,
    in_process_of_its_own,
    read_log,
    run_steps,
    unfinished,
)
from studies.time_estimate import (
    IMAGES_TO_DECODE,
    ClassifierWork,
    GANWork,
    study_seconds,
    study_speeds,
)
from utils import UserError, save_figure, save_json

if TYPE_CHECKING:
    from dataset.records import Dataset
    from dataset.splits import Splits

log = logging.getLogger(__name__)


MODEL_BYTES = 94e6  # of a ResNet-50
# What the study says itself, of every script and of each alone; or what would make an arm another one.
OWN_OPTIONS_OF = {
    "classifier_args": flags_set_by_study(TRAIN_OPTIONS),
    "gan_args": flags_set_by_study(GAN_OPTIONS),
}  # fmt: skip


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "The low-data study: AUROC and accuracy against the number of real training patients, arm by arm. "
        "Every fraction takes the same number of optimiser steps, so small ones are trained for more epochs."
    )
    add_options(parser, DATA_OPTIONS)
    add_options(parser, CACHE_OPTIONS)
    add = parser.add_argument
    add("--study-dir", default=paths.STUDY_DIR, metavar="PATH",
        help="where the curve goes, and below it a folder per fraction, models included")  # fmt: skip
    add("--fractions", type=fractions, default=[0.05, 0.25, 1.0], metavar="F,...",
        help="shares of the training patients; smaller ones lie within larger ones "
        "(default: 0.05,0.25,1)")  # fmt: skip
    add("--arms", type=arms, default=study_arms()[:3], metavar="A,...",
        help=f"of {', '.join(study_arms())}; the baseline is needed "
        f"(default: {','.join(study_arms()[:3])})")  # fmt: skip
    add("--repeats", type=number(int, 1), default=3, metavar="R",
        help="training runs of each arm, of seeds SEED to SEED + R - 1")  # fmt: skip
    add("--k-folds", type=number(int, 0), default=0, metavar="N",
        help="folds of each arm beside its final models; they choose nothing here")  # fmt: skip
    add("--epochs", type=number(int, 1), default=15, metavar="N",
        help="passes of the classifiers over all training images; a fraction takes as many more as give "
        "the same number of optimiser steps")  # fmt: skip
    add("--kimg", type=number(float, above=0), default=200.0, metavar="N",
        help="thousands of images shown to the GAN of each fraction")  # fmt: skip
    add("--synthetic-per-real", type=number(float, above=0), default=0.5, metavar="X",
        help="synthetic images per real training image; 0.5 makes the classes about equal where a quarter "
        "is positive")  # fmt: skip
    add("--image-size", type=number(int, 32, 1024), default=224, metavar="N", help="pixels per side")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="of training and generation")
    add_passed_on_arguments(parser)
    add("--estimate", action="store_true", help="only say what would be done and about how long it takes")
    add("--draw-only", action="store_true", help="only draw the curve of what is finished in --study-dir")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is available")
    return parser


def fractions(text: str) -> list[float]:
    """An argparse type: "1,0.05" -> [0.05, 1.0], each above 0 and at most 1."""
    one = number(float, above=0, high=1)
    # As they stand in folder names and commands.
    values = sorted(float(f"{one(part):g}") for part in text.split(","))
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} names a fraction twice")
    return values


def arms(text: str) -> list[str]:
    """Read an argparse value: names of ``study_arms`` with the baseline -> the same in training order."""
    names, known = text.split(","), study_arms()
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is no arm; there is {', '.join(known)}")
    if BASELINE not in names:
        raise argparse.ArgumentTypeError(f"{text!r} lacks the baseline, against which arms are measured")
    return [name for name in known if name in names]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    for name, own in OWN_OPTIONS_OF.items():
        if clash := [word for word in getattr(args, name) if word.split("=")[0] in own]:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag}: {clash[0]} cannot be passed on: the study gives it itself")
    if args.estimate and args.draw_only:
        parser.error("--estimate and --draw-only exclude each other: give one of them")
    classifier_work(args), gan_work(args)  # wrong numbers end here
    return args


# --- the plan --------------------------------------------------------------------------------------
def study_steps(args: argparse.Namespace, part: Part) -> list[Step]:
    cpu = ["--cpu"] if args.cpu else []
    return part_steps(
        part,
        folders_of(args.study_dir, args.data_dir, part.fraction),
        args.arms,
        data_options=data_options(args),
        common=["--image-size", str(args.image_size), "--seed", str(args.seed), *cpu],
        repeats=args.repeats,
        k_folds=args.k_folds,
        kimg=args.kimg,
        classifier_args=args.classifier_args,
        gan_args=args.gan_args,
        cache=cache_options(args),
        cpu=args.cpu,
        seed=args.seed,
    )


def log_of(args: argparse.Namespace, part: Part) -> Path:
    return paths.pipeline_log(paths.study_fraction(args.study_dir, part.fraction))


def due_steps(args: argparse.Namespace, part: Part) -> list[Step]:
    return unfinished(study_steps(args, part), read_log(log_of(args, part)))


def describe_part(part: Part, with_synthetic: bool) -> str:
    from studies.learning_curve import FEW_POSITIVES, few_positives

    text = (
        f"fraction {part.fraction:g}: {part.n_images:,} images of {part.n_patients:,} patients, "
        f"{part.n_positive:,} positive; {part.epochs:,} epochs = {part.steps:,} steps"
    )
    if with_synthetic:
        text += f"; {part.n_synthetic:,} synthetic images"
    if part.n_positive < FEW_POSITIVES:
        text += f"\n  FEW POSITIVES: {few_positives(part.fraction, part.n_positive)}"
    return text


# --- how long it takes -----------------------------------------------------------------------------
def classifier_work(args: argparse.Namespace) -> ClassifierWork:
    """How the classifiers are trained, from the options that are passed on; exit code 2 if one is wrong."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=number(int, 2), default=32)
    parser.add_argument("--unfreeze", action="store_true")
    parser.add_argument("--augment", default="none")
    parser.add_argument("--feature-views", type=number(int, 1), default=1)
    options, _ = parser.parse_known_args(args.classifier_args)
    own = {"image_size": args.image_size, "repeats": args.repeats, "k_folds": args.k_folds}
    return ClassifierWork.from_options(vars(options) | own)


def gan_work(args: argparse.Namespace) -> GANWork:
    """How the GANs are trained, from the options that are passed on; exit code 2 if one is wrong."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    add_options(parser, GAN_OPTIONS)
    options, _ = parser.parse_known_args(["--image-size", str(args.image_size), *args.gan_args])
    try:
        settings = read_settings(vars(options))
    except UserError as error:
        parser.error(str(error))
    work = GANWork.from_options(settings.values, settings.losses.want_perceptual)
    return replace(work, epochs=1, epoch_images=1000 * args.kimg)


def print_estimate(args: argparse.Namespace, parts: list[Part], dataset: Dataset, splits: Splits) -> None:
    """Measure a few seconds of each kind of work and say about how long what is unfinished will take."""
    from dataset.records import load_official_test
    from dataset.splits import TEST

    due = [(part, step) for part in parts for step in due_steps(args, part)]
    if not due:
        log.info("everything is trained already")
        return
    official = load_official_test(args.data_dir, args.patient_map)
    classifier, gan = classifier_work(args), gan_work(args)
    log.info("measuring how fast this machine is ...")
    needed = gan if len(args.arms) > 1 else None
    images = list(dataset.images["path"][:IMAGES_TO_DECODE])
    speeds = in_process_of_its_own(study_speeds, classifier, needed, images, args.cpu)
    untrained = {part.fraction for part, step in due if step.name == arm_step_name(BASELINE)}
    times = study_seconds(
        due, classifier, gan, speeds,
        n_scored=int((splits.images["role"] == TEST).sum()) + (len(official.images) if official else 0),
        cached=not args.no_cache,
        known=max((part.n_images for part in parts if part.fraction not in untrained), default=0),
    )  # fmt: skip
    seconds = dict.fromkeys(("train_classifier", "train_gan", "generate_synthetic"), 0.0)
    for (_, step), value in zip(due, times, strict=True):
        seconds[step.script] += value
    shares = ", ".join(
        f"{script}.py {duration_in_words(value)}" for script, value in seconds.items() if value
    )
    log.info(f"ABOUT {duration_in_words(sum(times))} for {len(due)} steps: {shares}")
    n_models = args.repeats + 1 if args.repeats > 1 else 1  # one of each run, and the arm's own
    gigabytes = MODEL_BYTES * len(args.arms) * len(parts) * n_models / 1e9
    log.info(f"the classifiers take about {gigabytes:.1f} GB below {args.study_dir}")


# --- the curve -------------------------------------------------------------------------------------
def draw(args: argparse.Namespace, missing: Sequence[tuple[float, str]] = ()) -> None:
    """Write learning_curve.json and .png from what is there but ``missing``, (fraction, arm), and what was
    interrupted or outdated by an interrupted run, and say what its readers must know."""
    from studies import figures as plots_study
    from studies.learning_curve import check_points, find_points, summarise

    missing = [*missing, *(arm for arm in interrupted_arms(args.study_dir) if arm not in missing)]
    points = find_points(args.study_dir, leave_out=missing)
    if not points:
        raise UserError(f"{args.study_dir} holds no finished arm; run this without --draw-only first")
    check_points(points, args.study_dir)
    content = summarise(points, missing=missing, seed=args.seed)
    figure = paths.learning_curve_figure(args.study_dir)
    save_json(paths.learning_curve_results(args.study_dir), content)
    save_figure(figure, plots_study.learning_curve(content))
    for flag in content["flags"]:
        log.warning(f"FLAG: {flag}")
    log.info(f"{len(points)} points: {figure}, {paths.learning_curve_results(args.study_dir)}")


def interrupted_arms(study_dir: str) -> list[tuple[float, str]]:
    """(fraction, arm) that the logs below the study's folder know and do not call finished.

    What no log knows stays usable: results are often kept without theirs.
    """
    found = []
    for folder in Path(study_dir).glob(paths.STUDY_PATTERN):
        log = read_log(paths.pipeline_log(folder))
        entries = {arm: log[arm_step_name(arm)] for arm in study_arms() if arm_step_name(arm) in log}
        for arm, entry in entries.items():
            if entry["state"] != FINISHED:
                fraction = entry["command"][entry["command"].index("--train-fraction") + 1]
                found.append((float(fraction), arm))
    return sorted(found, key=lambda item: item[0])  # the arms of a fraction keep their order


def unfinished_arms(args: argparse.Namespace, parts: list[Part]) -> list[tuple[float, str]]:
    """(fraction, arm) that this run has not finished; files of them may lie there from other options."""
    due = {(part.fraction, step.name) for part in parts for step in due_steps(args, part)}
    return [
        (part.fraction, arm)
        for part in parts
        for arm in args.arms
        if (part.fraction, arm_step_name(arm)) in due
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.draw_only:
        draw(args)
        return
    from dataset.records import load_dataset
    from dataset.splits import describe_splits, load_or_create_splits
    from studies.learning_curve import check_points, find_points

    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    log.info(describe_splits(splits))
    parts = plan_parts(
        splits,
        args.fractions,
        epochs=args.epochs,
        batch_size=classifier_work(args).batch_size,
        k_folds=args.k_folds,
        synthetic_per_real=args.synthetic_per_real,
    )
    check_options(study_steps(args, parts[0]))
    earlier = find_points(args.study_dir, leave_out=unfinished_arms(args, parts))
    check_points(earlier, args.study_dir, splits.sha256)
    for part in parts:
        log.info(describe_part(part, len(args.arms) > 1))
    print_estimate(args, parts, dataset, splits)
    if args.estimate:
        return
    for part in parts:
        log.info(f"\n==== {describe_part(part, len(args.arms) > 1)}")
        run_steps(study_steps(args, part), log_of(args, part))
        draw(args, unfinished_arms(args, parts))


if __name__ == "__main__":
    run_script(main)
