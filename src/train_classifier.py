"""Train and test one arm of the comparison: the baseline, the augmented classifier, or a control.

Folds choose the epoch, all training images then make the final model, and the test images are scored
once. Nothing is ever chosen on test. Synthetic images enter training only.

    python src/train_classifier.py                                  # baseline_...
    python src/train_classifier.py --use-synthetic                  # augmented_...
    python src/train_classifier.py --control duplicate-positives    # control_duplicate_...
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from arms import options as arm_options
from arms.options import features_computed_once, wrong_combination
from arms.registry import BASELINE, BASELINE_PREFIX, Synthetic, Treatment, treatment_of
from common import paths
from common.command_line import argument_parser, public_config, run_script
from common.distributed import (
    check_batch_size,
    from_main,
    is_main,
    main_first,
    process_count,
    process_group,
    require_same,
)
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders, only_checks
from common.plan_files import PlanFile, follow_plan
from common.progress import Announcement
from dataset.options import cache_folder
from networks.backbones import BACKBONES
from utils import environment, prepare_arithmetic, public_path, resolve_precision, select_device

if TYPE_CHECKING:
    from arms.data import ArmData
    from arms.file_formats import FinalMetrics
    from arms.fitting import Recipe
    from arms.initial_weights import InitialWeights
    from arms.output import ArmOutput
    from arms.soft_labels import LabelEnsemble
    from arms.training import ArmTrainer
    from stats.metric_registry import Interval

log = logging.getLogger(__name__)


# --- options ---------------------------------------------------------------------------------------
def parse_train_options(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if problem := wrong_combination(vars(args)):
        parser.error(problem)
    return args


def build_parser() -> argparse.ArgumentParser:
    return argument_parser((__doc__ or "").split("\n\n", 1)[0], arm_options.TRAIN_OPTIONS)


def recorded_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as result files record them; one folder of synthetic images is a word."""
    config = public_config(vars(args))
    if isinstance(config["synthetic_dir"], list) and len(config["synthetic_dir"]) == 1:
        (config["synthetic_dir"],) = config["synthetic_dir"]
    return config


def synthetic_folders(args: argparse.Namespace) -> list[str]:
    """Return the folders that --synthetic-dir names."""
    return [args.synthetic_dir] if isinstance(args.synthetic_dir, str) else args.synthetic_dir


# --- training --------------------------------------------------------------------------------------
def initial_weights(args: argparse.Namespace) -> InitialWeights:
    """Return what is known of --weights; raises ``UserError`` if they are unavailable, unfit or leaky."""
    from arms.initial_weights import check_weights

    return check_weights(
        args.weights, args.weights_trained_on, args.allow_unverified_weights, not args.unfreeze, args.backbone
    )


def train_arm(args: argparse.Namespace, treatment: Treatment, plan: PlanFile | None) -> None:
    """Train the arm, score it and write its files."""
    from arms.final_epochs import median_epoch, planned_epochs
    from arms.fitting import Recipe
    from arms.output import TrainedArm, save_results
    from arms.soft_labels import load_label_ensemble

    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    recipe = Recipe(args.epochs, args.batch_size, args.lr, args.weight_decay, args.schedule, precision, args.compile)
    prepare_arithmetic(device, precision, args.compile)
    with main_first():  # unavailable or leaky weights end here, before images are decoded
        weights = initial_weights(args)
    with main_first():
        data = read_data(args, treatment, weights, plan)
    weights = weights.for_split(data.splits.sha256)
    ensemble = load_label_ensemble(args.model_dir, args.results_dir, data, recorded_options(args))
    out = prepare_output(args, data, weights, ensemble)
    epochs_final, epochs_from = planned_epochs(treatment, out)
    require_same("data or options", [out.origin, epochs_final, recipe.precision])
    trainer = prepare_trainer(args, data, recipe, out, epochs_final)
    if ensemble:
        trainer.label_softly(ensemble.states)

    folds = trainer.train_folds(args.k_folds) if args.k_folds or epochs_final is None else []
    if epochs_final is None:
        epochs_final = median_epoch(item.fit.best_epoch for item in folds)
    shown = f"{len(data.labelled_rows()):,} {'labelled ' if data.few else ''}real training images"
    log.info(f"final model: {shown}, {epochs_final} epochs ({epochs_from})")
    repeats = trainer.train_final(epochs_final, args.repeats)

    training = {
        **training_facts(args, trainer, len(ensemble.states) if ensemble else 0),
        "optimizer_steps": repeats[0].fit.steps,
        "epochs_final": epochs_final,
        "epochs_final_from": epochs_from,
    }
    if is_main():
        metrics = save_results(out, TrainedArm(trainer, folds, repeats, training, weights))
        shutil.rmtree(trainer.state_folder, ignore_errors=True)
        log_outcome(metrics, args.results_dir)


def read_data(
    args: argparse.Namespace, treatment: Treatment, weights: InitialWeights, plan: PlanFile | None
) -> ArmData:
    """Read the images of the arm: those of the ``plan``; the ``weights`` must not have seen its test patients."""
    from arms.data import DataOptions, SyntheticUse, load_arm_data
    from dataset.hidden_labels import FewLabels
    from synthetic.folders import check_planned

    options = DataOptions(
        args.data_dir,
        splits=args.splits,
        patient_map=args.patient_map,
        patient_column=args.patient_column,
        test_set=args.test_set,
        train_fraction=args.train_fraction,
        k_folds=args.k_folds,
        image_size=args.image_size,
        match_resolution=args.match_resolution,
        workers=args.workers,
        skip_bad_images=args.skip_bad_images,
        bits=args.bits,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
        few=FewLabels(args.labelled_patients, args.seed) if args.labelled_patients else None,
    )
    folders = [] if treatment.kind.synthetic is Synthetic.UNUSED else synthetic_folders(args)
    use = SyntheticUse(treatment, tuple(folders), args.synthetic_ratio, args.allow_unverified_synthetic)
    if plan:
        check_planned(plan, folders)

    def check_split(sha256: str) -> None:
        weights.for_split(sha256)
        if plan:
            plan.check_split(sha256)

    return load_arm_data(options, use, check_split)


def prepare_output(
    args: argparse.Namespace, data: ArmData, weights: InitialWeights, ensemble: LabelEnsemble | None
) -> ArmOutput:
    """Return where the arm's files go, and what they say about their origin."""
    from arms.file_formats import FinalMetrics
    from arms.output import ArmOutput, warn_of_folds
    from arms.result_files import read_result
    from arms.training_images import data_flags, origin_of_results

    config = recorded_options(args)
    file, kind = paths.final_metrics(args.results_dir, BASELINE_PREFIX), data.use.treatment.kind
    baseline = None if kind.name == BASELINE else read_result(file, FinalMetrics)
    flags = [*weights.red_flags, *data_flags(data, config, baseline)]
    labels = ensemble.sha256 if ensemble else None
    origin = origin_of_results(config, data, flags, weights_sha256=weights.sha256, ensemble_sha256=labels)
    out = ArmOutput(args.prefix or kind.prefix, args.model_dir, args.results_dir, args.figures_dir, origin)
    if not args.k_folds:
        warn_of_folds(out)
    return out


def prepare_trainer(
    args: argparse.Namespace, data: ArmData, recipe: Recipe, out: ArmOutput, epochs_final: int | None
) -> ArmTrainer:
    """Make the trainer, say what it is going to do, and empty or check the folder of an interrupted run."""
    from arms.training import ArmTrainer, Network, identity_of_run, prepare_state_folder
    from arms.training_images import training_images_in_words

    network = Network(args.backbone, args.weights, not args.unfreeze, args.augment, args.feature_views, args.image_size)
    device = select_device(args.cpu)
    layers = "last layer only" if network.frozen else "all layers"
    images, title = training_images_in_words(data, data.final_addition(args.seed)), BACKBONES[args.backbone].title
    log.info(
        f"{out.prefix.removesuffix('_')}: {title} ({layers}, weights {public_path(args.weights)}) on "
        f"{device}, {recipe.precision}, {images} of {args.image_size} px"
    )
    # The number of processes changes no features.
    processes = 1 if network.features_once else process_count()
    run = identity_of_run(out.origin, epochs_final, recipe.precision, processes)
    folder = paths.classifier_state(args.model_dir, out.prefix)
    return ArmTrainer(
        data,
        recipe,
        network,
        seed=args.seed,
        device=device,
        state_folder=from_main(prepare_state_folder, folder, run, args.resume),
        resume=args.resume,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
        on_step=(lambda: None) if args.resume else announce_steps(args, data.epoch_images, epochs_final).after,
    )


def training_facts(args: argparse.Namespace, trainer: ArmTrainer, models: int) -> dict[str, Any]:
    """Return what the metrics say about the training (``arms.file_formats.Training``).

    ``models``: baselines that gave soft labels.
    """
    from arms.training_images import describe_few_labels, describe_training_images

    data, addition = trainer.data, trainer.data.final_addition(args.seed)
    few = {"few_labels": describe_few_labels(data, addition, trainer.labels.cpu().numpy(), models)} if data.few else {}
    return {
        "environment": environment(trainer.device),
        "processes": process_count(),
        "precision": trainer.recipe.precision,
        "test_set": args.test_set,
        "train_fraction": args.train_fraction,
        **describe_training_images(data, addition),
        **few,
    }


def log_outcome(metrics: FinalMetrics, results_dir: str) -> None:
    """Say how the arm did on the test images, its red flags, and where its files are."""

    def interval(bounds: Interval) -> str:
        low, high = bounds or (None, None)
        return "undefined" if low is None or high is None else f"{low:.3f} to {high:.3f}"

    reference = metrics["references"]["test"]
    log.info(
        f"test: {metrics['n_images']:,} images of {metrics['n_patients']:,} patients, accuracy "
        f"{metrics['accuracy']:.3f} (95 % CI {interval(metrics['accuracy_ci95'])}; always negative "
        f"{reference['always_negative_accuracy']:.3f}), AUROC {metrics['auroc']:.3f} "
        f"({interval(metrics['auroc_ci95'])}; thumbnails {reference['thumbnail_auroc']:.3f}, "
        f"view+sex+age {reference['metadata_auroc']:.3f})"
    )
    for flag in metrics["red_flags"]:
        log.warning(f"RED FLAG: {flag}")
    log.info(f"metrics and predictions: {Path(results_dir) / metrics['prefix']}*")


# --- how long it takes -----------------------------------------------------------------------------
def estimate_time(args: argparse.Namespace, treatment: Treatment) -> str:
    """Say how long the run takes; writes nothing but the dataset's splits.json where there is none."""
    import pandas as pd

    from data_loader import count_undecoded
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import TEST, TRAIN, load_or_create_splits, reduce_training, select
    from studies.time_estimate import ClassifierWork, estimate_classifier
    from synthetic.folders import existing_images

    cache_dir = cache_folder(args.no_cache, args.cache_dir)
    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    splits = load_or_create_splits(dataset, args.splits, cache_dir)
    if args.train_fraction < 1:
        splits = reduce_training(splits, args.train_fraction)
    train, scored = select(dataset, splits, TRAIN), [select(dataset, splits, TEST)]
    if (official := load_official_test(args.data_dir, args.patient_map, args.patient_column)) is not None:
        scored.append(official.images)
    parts = [train, *scored]
    if treatment.kind.synthetic is Synthetic.TRAINED_ON:
        places = {
            paths.synthetic_fold(folder, fold)
            for folder in synthetic_folders(args)
            for fold in (None, *range(1, args.k_folds + 1))
        }
        files = [file for place in sorted(places) for file in existing_images(place)]
        parts.append(pd.DataFrame({"path": files}))
    n_scored = sum(map(len, scored))
    # Other arms take the baseline's epochs, which are at most --epochs.
    epochs_final = args.epochs_final or (args.epochs if treatment.kind.name != BASELINE else None)
    work = ClassifierWork.from_options(
        vars(args) | {"epochs_final": epochs_final},
        n_real=args.labelled_patients or len(train),
        n_scored=n_scored,
        n_undecoded=sum(
            count_undecoded(part, args.image_size, cache_dir, args.match_resolution, args.bits) for part in parts
        ),
        n_features=args.feature_views * (sum(map(len, parts)) - n_scored) + n_scored,
    )
    return estimate_classifier(work, list(train["path"]), select_device(args.cpu))


def announce_steps(args: argparse.Namespace, n_real: int, epochs_final: int | None) -> Announcement:
    """Make the announcement, during the first steps, of how long all optimiser steps take."""
    from studies.time_estimate import ClassifierWork

    work = ClassifierWork.from_options(vars(args) | {"epochs_final": epochs_final}, n_real=n_real)
    hint = "fewer --k-folds, --repeats or --epochs, or a smaller --image-size, take less"
    return Announcement(work.n_steps, "optimiser steps", hint, log.info, warm_up=3)


def main(argv: list[str] | None = None) -> None:
    args = parse_train_options(argv)
    treatment, plan = treatment_of(vars(args)), follow_plan(args.plan, "train_classifier", vars(args))
    if not args.estimate:
        if only_checks() and args.weights not in ("imagenet", "none"):
            initial_weights(args)
        check_folders(
            {"--model-dir": args.model_dir, "--results-dir": args.results_dir, "--figures-dir": args.figures_dir}
        )
    with process_group(args.cpu):
        if not features_computed_once(not args.unfreeze, args.augment, args.feature_views):
            check_batch_size(args.batch_size)
        if args.estimate:
            if is_main():
                log.info(estimate_time(args, treatment))
            return
        prefix = args.prefix or treatment.kind.prefix
        with claim([args.model_dir, args.results_dir] if is_main() else [], prefix, "train_classifier.py"):
            if is_main():
                keep_run_log(args.results_dir)
            train_arm(args, treatment, plan)


if __name__ == "__main__":
    run_script(main)
