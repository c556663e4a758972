"""Studies: the answer against the number of real patients, or, cross-fitted, on all labelled images.

For each fraction of the training patients it trains the baseline, a GAN on that fraction alone, makes its
images, and trains the other arms, each step a command that could be typed by hand. Run again with the same
options it skips what is finished and takes up what was interrupted; other fractions and arms can be added.

    python src/run_study.py --fractions 0.05,0.25,1 --repeats 3 --arms baseline,augmented,control_duplicate

Every fraction takes the same number of optimiser steps: small ones are trained for more epochs. Nothing is
chosen on test.

    python src/run_study.py --cross-fit 5 --study-dir results/cross_fit

With --cross-fit every labelled image is tested once, by models and a GAN that never saw its patient.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from arms.options import TRAIN_OPTIONS
from arms.registry import BASELINE
from common import paths
from common.command_line import argument_parser, parser_of_words, run_script
from common.experiment_files import named_config
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders
from common.plan_files import NO_PLAN, UNPLANNED, PlanFile, open_plan
from common.progress import duration_in_words
from dataset.options import cache_folder
from gan.options import OPTIONS as GAN_OPTIONS
from gan.options import read_settings
from gan.settings import Settings
from networks.backbones import BACKBONES
from studies.commands import study_words, uses_images
from studies.options import STUDY_OPTIONS, arms_of_study, wrong_cross_fit, wrong_doses, wrong_few_labels
from studies.plan import (
    Part,
    arm_step_name,
    due_arms,
    folders_of_fraction,
    interrupted_arms,
    part_steps,
    plan_parts,
)
from studies.steps import Step, check_options, in_process_of_its_own, read_log, run_steps, steps_due
from studies.time_estimate import (
    IMAGES_TO_DECODE,
    ClassifierWork,
    GANWork,
    busy_words,
    study_seconds,
    study_speeds,
)
from utils import UserError, load_json, public_path, save_figure, save_json, save_text

if TYPE_CHECKING:
    from studies.cross_fit import OuterRun

log = logging.getLogger(__name__)


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    return argument_parser(
        "The low-data study: AUROC and accuracy against the number of real training patients, arm by arm. "
        "Every fraction takes the same number of optimiser steps, so small ones are trained for more epochs. "
        "With --cross-fit: the arms on all labelled images, each predicted by models that never saw its patient.",
        STUDY_OPTIONS,
    )


def parse_study_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    if args.estimate and args.draw_only:
        parser.error("--estimate and --draw-only exclude each other: give one of them")
    if args.cross_fit is None and args.plan not in (None, NO_PLAN):
        parser.error("--plan is for --cross-fit: a plan asks one question, a curve asks many")
    if args.cross_fit is None and args.gan_seeds != 1:
        parser.error("--gan-seeds is for --cross-fit, which is not given")
    if args.cross_fit is None and args.gans_from:
        parser.error("--gans-from is for --cross-fit, which is not given")
    if problem := wrong_cross_fit(vars(args)) or wrong_doses(vars(args)):
        parser.error(problem)
    args.arms = arms_of_study(args.arms, args.labelled_patients)
    if problem := wrong_few_labels(vars(args)):
        parser.error(problem)
    classifier_work(args), gan_settings(args)  # wrong numbers end here
    return args


# --- the plan --------------------------------------------------------------------------------------
def study_steps(args: argparse.Namespace, part: Part) -> list[Step]:
    """List the commands of one fraction."""
    words = study_words(vars(args) | {"plan": None}, ["--seed", str(args.seed)])
    folders = folders_of_fraction(args.study_dir, args.data_dir, part.fraction)
    return part_steps(part, folders, args.arms, words, args.kimg)


def log_file_of(args: argparse.Namespace, part: Part) -> Path:
    return paths.pipeline_log(paths.study_fraction(args.study_dir, part.fraction))


def all_due(args: argparse.Namespace, parts: Sequence[Part]) -> list[tuple[Part, Step]]:
    """List the steps of all fractions that are not finished."""
    return [
        (part, step) for part in parts for step in steps_due(study_steps(args, part), read_log(log_file_of(args, part)))
    ]


def describe_part(part: Part, with_synthetic: bool) -> str:
    """Say how much a fraction has to train on."""
    from studies.learning_curve import FEW_POSITIVES, few_positives_sentence

    text = (
        f"fraction {part.fraction:g}: {part.n_images:,} images of {part.n_patients:,} patients, "
        f"{part.n_positive:,} positive; {part.epochs:,} epochs = {part.steps:,} steps"
    )
    if with_synthetic:
        text += f"; {part.n_synthetic:,} synthetic images"
    if part.n_positive < FEW_POSITIVES:
        text += f"\n  FEW POSITIVES: {few_positives_sentence(part.fraction, part.n_positive)}"
    return text


# --- how long it takes -----------------------------------------------------------------------------
def classifier_work(args: argparse.Namespace) -> ClassifierWork:
    """Read how classifiers are trained from the options that are passed on; exit code 2 if one is wrong."""
    options, _ = parser_of_words(TRAIN_OPTIONS).parse_known_args(args.classifier_args)
    set_here = {name: getattr(args, name) for name in ("image_size", "repeats", "k_folds")}
    return ClassifierWork.from_options(vars(options) | set_here)


def gan_settings(args: argparse.Namespace) -> Settings:
    """Read how the GANs are trained from the options that are passed on; exit code 2 if one is wrong."""
    parser = parser_of_words(GAN_OPTIONS)
    options, _ = parser.parse_known_args(["--image-size", str(args.image_size), *args.gan_args])
    try:
        return read_settings(vars(options))
    except UserError as error:
        parser.error(str(error))


def log_estimate(
    args: argparse.Namespace, due: Sequence[tuple[Part, Step]], images: list[Path], n_scored: int, known: int = 0
) -> None:
    """Time a few seconds of each kind of work, and say how long all that is ``due`` takes.

    ``images``: image files of the dataset; ``n_scored``: how many images every arm predicts; ``known``: how many
    training images finished steps have decoded.
    """
    if not due:
        log.info("everything is trained already")
        return
    classifier, gan = classifier_work(args), gan_settings(args)
    log.info("measuring how fast this machine is ...")
    some, needed = images[:IMAGES_TO_DECODE], gan if any(map(uses_images, args.arms)) else None
    speeds = in_process_of_its_own(study_speeds, classifier, needed, some, args.cpu)
    gan_work = GANWork(gan, epoch_images=1000 * args.kimg)
    times = study_seconds(
        due, classifier, gan_work, speeds, n_scored=n_scored, cached=not args.no_cache,
        known=known,
    )  # fmt: skip
    seconds: dict[str, float] = {}
    for (_, step), value in zip(due, times, strict=True):
        seconds[step.script] = seconds.get(step.script, 0.0) + value
    shares = ", ".join(f"{script}.py {duration_in_words(value)}" for script, value in seconds.items())
    log.info(f"ABOUT {duration_in_words(sum(times))} for {len(due)} steps: {shares}{busy_words()}")
    n_models = args.repeats + 1 if args.repeats > 1 else 1  # one of each run, and the arm's own
    n_arms = sum(step.script == "train_classifier" for _, step in due)
    gigabytes = BACKBONES[classifier.backbone].megabytes * n_arms * n_models / 1000
    log.info(f"the classifiers still to be trained take about {gigabytes:.1f} GB below {args.study_dir}")


# --- the curve -------------------------------------------------------------------------------------
def draw(study_dir: str, seed: int, missing: Sequence[tuple[float, str]] = ()) -> None:
    """Write learning_curve.json and .png from what is there, and say what their readers must know.

    ``missing``: (fraction, arm) to leave out, beside those that were interrupted or outdated by an
    interrupted run.
    """
    from studies import figures
    from studies.learning_curve import build_learning_curve, check_points, find_points

    left_out = [*missing, *(arm for arm in interrupted_arms(study_dir) if arm not in missing)]
    points = find_points(study_dir, leave_out=left_out)
    if not points:
        raise UserError(f"{study_dir} holds no finished arm; run this without --draw-only first")
    check_points(points, study_dir)
    content = build_learning_curve(points, missing=left_out, seed=seed)
    content |= named_config()
    file, figure = paths.learning_curve_results(study_dir), paths.learning_curve_figure(study_dir)
    save_json(file, content)
    save_figure(figure, figures.draw_learning_curve(content))
    for flag in content["flags"]:
        log.warning(f"FLAG: {flag}")
    log.info(f"{len(points)} points: {figure}, {file}")


def keep_study_log(study_dir: str) -> None:
    """Keep this run's log below ``study_dir``, in the folder of its results."""
    keep_run_log(Path(study_dir) / Path(paths.METRICS_DIR).name)


def run_fractions(args: argparse.Namespace) -> None:
    """Run the low-data study."""
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import TEST, describe_splits, load_or_create_splits
    from studies.learning_curve import check_points, find_points

    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    splits = load_or_create_splits(dataset, args.splits, cache_folder(args.no_cache, args.cache_dir))
    log.info(describe_splits(splits))
    parts = plan_parts(
        splits,
        args.fractions,
        epochs=args.epochs,
        batch_size=classifier_work(args).batch_size,
        k_folds=args.k_folds,
        synthetic_per_real=args.synthetic_per_real,
    )
    check_options(study_steps(args, parts[0]), UNPLANNED)
    due = all_due(args, parts)
    earlier = find_points(args.study_dir, leave_out=due_arms(due))
    check_points(earlier, args.study_dir, splits.sha256)
    sentences = [describe_part(part, any(map(uses_images, args.arms))) for part in parts]
    for sentence in sentences:
        log.info(sentence)
    official = load_official_test(args.data_dir, args.patient_map, args.patient_column)
    n_scored = int((splits.images["role"] == TEST).sum()) + (len(official.images) if official else 0)
    untrained = {part.fraction for part, step in due if step.name == arm_step_name(BASELINE)}
    known = max((part.n_images for part in parts if part.fraction not in untrained), default=0)
    log_estimate(args, due, list(dataset.images["path"]), n_scored, known)
    if args.estimate:
        return
    with claim([args.study_dir], "run_study", "run_study.py"):
        keep_study_log(args.study_dir)
        for part, sentence in zip(parts, sentences, strict=True):
            log.info(f"\n==== {sentence}")
            run_steps(study_steps(args, part), log_file_of(args, part), UNPLANNED)
            draw(args.study_dir, args.seed, due_arms(all_due(args, parts)))


# --- cross-fitting ---------------------------------------------------------------------------------
def run_cross_fit(args: argparse.Namespace) -> None:
    """Train and test the arms in every outer fold, and compare them on all images."""
    from dataset.records import load_dataset
    from dataset.splits import TEST
    from studies import cross_fit
    from studies.few_labels import plan_study
    from studies.planned_options import check_numbers, check_study

    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    work, plan = classifier_work(args), open_plan(args.plan)
    if plan:
        check_numbers(plan, vars(args))
        if args.gans_from:
            raise UserError(f"--gans-from takes GANs that were not trained under {plan.name}: give --plan none")
    study = plan_study(dataset, vars(args), work.batch_size, cache_folder(args.no_cache, args.cache_dir))
    runs, parts, steps = study.runs, study.parts, study.steps
    if plan:
        check_study(plan, study, dataset.data_sha256)
        states = [state for of_runs in study.comparisons().values() for state in of_runs.items()]
        cross_fit.check_held_to(plan, [run for run, finished in states if finished])
    if not args.draw_only:
        check_options(steps[runs[0]])
        due = study.due()
        cross_fit.check_generators(step for _, step in due)
        n_scored = max(int((own.images["role"] == TEST).sum()) for own in study.splits.values())
        log_estimate(args, due, list(dataset.images["path"]), n_scored)
    if args.estimate:
        return
    with claim([args.study_dir], "run_study", "run_study.py"):
        keep_study_log(args.study_dir)
        for run in [] if args.draw_only else runs:
            log.info(f"\n==== {cross_fit.describe_outer_run(run, parts[run.fold], args.cross_fit, args.gan_seeds)}")
            if cross_fit.due_steps(run, steps[run]):
                run_steps(steps[run], run.log_file)
            else:
                log.info("already finished")
        for folder, finished in study.comparisons().items():
            write_cross_fit(args, finished, plan, folder)


def run_doses(args: argparse.Namespace) -> None:
    """Run a cross-fitted study for each dose of synthetic images, and draw all of them."""
    from studies.dose_response import dose_response, options_of_dose
    from studies.figures import draw_dose_response

    folders = {}
    for dose in args.doses:
        log.info(f"\n######## {dose:g} synthetic images per real training image")
        own = argparse.Namespace(**options_of_dose(vars(args), dose))
        folders[dose] = Path(own.study_dir)
        run_cross_fit(own)
    if args.estimate:
        return
    content = dose_response({dose: load_json(paths.cross_fit_results(folder)) for dose, folder in folders.items()})
    file, figure = paths.dose_response_results(args.study_dir), paths.dose_response_figure(args.study_dir)
    save_json(file, content)
    save_figure(figure, draw_dose_response(content))
    log.info(f"{len(folders)} doses: {figure}, {file}")


def write_cross_fit(
    args: argparse.Namespace, finished: Mapping[OuterRun, bool], plan: PlanFile | None, folder: Path
) -> None:
    """Compare the folds all of whose runs are ``finished``; write comparison.json, text, figure, page to ``folder``."""
    from comparison.cross_fitting import compare_folds
    from report.cross_fit import TITLE, cross_fit_sections
    from report.cross_fit_figure import CAPTION, draw_cross_fit
    from report.page import render_page
    from report.sections import Picture
    from report.text import compose_answer, write_sections
    from studies.cross_fit import read_finished_folds

    folds, missing = read_finished_folds(finished)
    if len(folds) < 2:
        raise UserError(f"{folder} holds {len(folds)} finished folds, and 2 are needed; run it on")
    settings: dict[str, Any] = {"folds": args.cross_fit, "gans": args.gan_seeds, "repeats": args.repeats}
    if args.gans_from:
        settings["gans_from"] = public_path(args.gans_from)
    content = compare_folds(folds, args.arms, settings, missing, plan, seed=args.seed)
    parts = cross_fit_sections(content)
    figure = paths.cross_fit_figure(folder)
    save_json(paths.cross_fit_results(folder), content)
    save_figure(figure, draw_cross_fit(content))
    save_text(paths.cross_fit_report(folder), write_sections(parts, "COMPARISON REPORT, CROSS-FITTED"))
    page = paths.cross_fit_page(folder)
    save_text(page, render_page(TITLE, parts, [Picture(figure.name, CAPTION, "differences")], folder))
    log.info(compose_answer(parts))
    log.info(f"the whole report with its figure: {page}")


def main(argv: list[str] | None = None) -> None:
    args = parse_study_args(argv)
    if not args.estimate:
        check_folders({"--study-dir": args.study_dir})
    if args.doses:
        run_doses(args)
    elif args.cross_fit is not None:
        run_cross_fit(args)
    elif args.draw_only:
        keep_study_log(args.study_dir)
        draw(args.study_dir, args.seed)
    else:
        run_fractions(args)


if __name__ == "__main__":
    run_script(main)
