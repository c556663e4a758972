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

from arms import options as arm_options
from arms.options import differing_options, flag_of, wrong_combination
from arms.registry import BASELINE, BASELINE_PREFIX, CHOSEN_BY_USER, Synthetic, Treatment, treatment_of
from arms.treatments import features_computed_once
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
from common.options import Affects, values_affecting
from common.progress import Announcement
from dataset.options import cache_folder
from dataset.records import GROUPED_BY_IMAGE, grouping_sentence
from utils import (
    UserError,
    environment,
    load_json,
    prepare_arithmetic,
    public_path,
    resolve_precision,
    save_json,
    select_device,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from arms.data import ArmData
    from arms.output import ArmOutput, Repeat
    from arms.training import ArmTrainer, FoldFit
    from arms.treatments import Addition
    from synthetic.folders import SyntheticSet

log = logging.getLogger(__name__)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if problem := wrong_combination(vars(args)):
        parser.error(problem)
    return args


def features_once(args: argparse.Namespace) -> bool:
    return features_computed_once(not args.unfreeze, args.augment, args.feature_views)


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


# --- before training -------------------------------------------------------------------------------
def planned_epochs(args: argparse.Namespace, treatment: Treatment, out: ArmOutput) -> tuple[int | None, str]:
    """(epochs of the final model if known before the folds are trained, where they come from)."""
    from arms.output import earlier_folds
    from arms.training import median_epoch

    if args.epochs_final is not None:
        return args.epochs_final, "--epochs-final"
    if treatment.kind.name != BASELINE:
        return baseline_epochs(args, out.origin), "the baseline's"
    if args.k_folds:
        return None, "median best epoch of the folds"
    if (summary := earlier_folds(out)) is not None:
        best = (row["best_epoch"] for row in summary["folds"])
        return median_epoch(best), f"median best epoch of the {summary['k']} folds of an earlier run"
    return None, "best epoch on a validation tenth"


def baseline_epochs(args: argparse.Namespace, origin: dict[str, Any]) -> int:
    """The epochs that the baseline's final model took. ``UserError`` if it is missing or does not fit."""
    file = paths.final_metrics(args.results_dir, BASELINE_PREFIX)
    if not file.is_file():
        raise UserError(
            f"{file} is missing: every arm takes the baseline's number of epochs; train the baseline first "
            "(the same command without --use-synthetic or --control), or give --epochs-final N"
        )
    baseline = load_json(file)
    if baseline["split_sha256"] != origin["split_sha256"]:
        raise UserError(f"{file} was made on another split; train the baseline again on this one")
    if baseline.get("train_fraction", 1.0) != args.train_fraction:
        raise UserError(
            f"{file} is of --train-fraction {baseline.get('train_fraction', 1.0):g}, not "
            f"{args.train_fraction:g}; train the baseline with the same, in a --results-dir of its own"
        )
    epochs = baseline["epochs_final"]
    if args.schedule != "none" and epochs > args.epochs:
        raise UserError(
            f"--schedule {args.schedule} ends after --epochs {args.epochs}, but the baseline took "
            f"{epochs} for its final model; give its --epochs"
        )
    return epochs


def check_shares(treatment: Treatment, epochs_final: int | None) -> None:
    """``UserError`` if training ends before the share of synthetic images has changed for the last time."""
    if epochs_final is not None and treatment.last_change >= epochs_final:
        (name,) = (name for name, value in treatment.kind.options.items() if value is CHOSEN_BY_USER)
        flag = flag_of(name)
        raise UserError(
            f"{flag} still changes after epoch {treatment.last_change}, but the final model is trained for "
            f"{epochs_final} epochs; give smaller epochs"
        )


def red_flags(args: argparse.Namespace, data: ArmData) -> list[str]:
    """Sentences that every reader of this result must see."""
    flags = list({flag: None for images in data.synthetic.values() for flag in images.red_flags})
    if data.splits.grouped_by == GROUPED_BY_IMAGE:
        flags.append(grouping_sentence(GROUPED_BY_IMAGE))
    if (count := data.skipped()["count"]) > 0:
        flags.append(f"{count} missing or unreadable images were left out (--skip-bad-images)")
    if args.weights == "none" and not args.unfreeze:
        flags.append("the backbone is random and frozen (--weights none without --unfreeze): a toy")
    return flags + (differences_from_baseline(args) if treatment_of(vars(args)).kind.name != BASELINE else [])


def differences_from_baseline(args: argparse.Namespace) -> list[str]:
    """Options in which this arm was not trained as the baseline was."""
    file = paths.final_metrics(args.results_dir, BASELINE_PREFIX)
    return differing_options(recorded_options(args), load_json(file)["config"]) if file.is_file() else []


def check_initial_weights(args: argparse.Namespace, split_sha256: str) -> list[str]:
    """Red flags of --weights. ``UserError`` if they are a classifier that may have seen test patients."""
    from classifier import split_of_weights

    split = split_of_weights(args.weights)
    if split is None:
        return []
    if split != split_sha256:
        raise UserError(
            f"--weights {args.weights} was trained on another split ({split[:12]}, not {split_sha256[:12]}) "
            "and may have seen the test patients; use imagenet, none, or a file of this split"
        )
    return [f"--weights {public_path(args.weights)} had learned from these training images before"]


def provenance(args: argparse.Namespace, data: ArmData, flags: list[str]) -> dict[str, Any]:
    """What every result file of the arm says about where it comes from."""
    return {
        "config": recorded_options(args),
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "grouped_by": data.splits.grouped_by,
        "unmapped_images": data.dataset.unmapped,
        "manifest_sha256": manifests(data),
        "skipped_images": data.skipped(),
        "red_flags": flags,
    }


def manifests(data: ArmData) -> dict[str, str | None]:
    """sha256 of the manifest of each folder of synthetic images, by fold; 0 is the main folder."""
    return {str(fold): images.manifest_sha256 for fold, images in data.synthetic.items()}


def prepare_state_folder(
    args: argparse.Namespace, out: ArmOutput, epochs_final: int | None, precision: str
) -> Path:
    """The folder of the unfinished run: emptied without --resume, checked against this run with it."""
    folder = paths.classifier_state(args.model_dir, out.prefix)
    run_file = folder / "run.json"
    run = values_affecting(arm_options.TRAIN_OPTIONS, Affects.RUN, recorded_options(args))
    run |= {
        key: out.origin[key] for key in ("split_sha256", "data_sha256", "manifest_sha256", "skipped_images")
    } | {
        "epochs_final": epochs_final,
        "precision": precision,
        "processes": 1 if features_once(args) else process_count(),  # which change no features
    }
    if args.resume and run_file.is_file():
        earlier = {"processes": 1, "compile": False} | load_json(run_file)
        for key, value in run.items():
            if earlier.get(key) != value:
                raise UserError(
                    f"--resume: {key} was {earlier.get(key)} in the interrupted run and is {value} now; "
                    "give the same options, or leave --resume out to start from the beginning"
                )
        return folder
    if args.resume:
        log.info("--resume: nothing to resume, starting from the beginning")
    elif folder.is_dir():
        log.info(f"starting from the beginning, without --resume the interrupted run in {folder} is dropped")
    shutil.rmtree(folder, ignore_errors=True)
    save_json(run_file, run)
    return folder


def count_extra(args: argparse.Namespace, data: ArmData) -> int:
    """Synthetic images that join all the real training images, or that a control stands for."""
    return data.n_synthetic(0, data.n_real, args.synthetic_ratio)


def extra_labels(args: argparse.Namespace, data: ArmData) -> np.ndarray:
    """Their labels, int [n]."""
    return data.synthetic_labels(0, data.n_real, args.synthetic_ratio)


def training_images(args: argparse.Namespace, data: ArmData) -> str:
    """ "899 real + 450 synthetic training images"."""
    n_synthetic, n_repeated = added_images(args, data)
    extra = f" + {n_synthetic:,} synthetic" if n_synthetic else ""
    extra += f" + {n_repeated:,} real again" if n_repeated else ""
    if extra and not (labels := extra_labels(args, data)).all():
        extra += f" ({int(labels.sum()):,} of them positive)"
    return f"{data.n_real:,} real{extra} training images"


def addition_of(args: argparse.Namespace, data: ArmData) -> Addition:
    """What the arm adds to all training images."""
    import numpy as np

    everything = np.arange(data.n_real)
    return data.addition(
        treatment_of(vars(args)), args.synthetic_ratio, everything, fold=0, name="final", seed=args.seed
    )


def added_images(args: argparse.Namespace, data: ArmData) -> tuple[int, int]:
    """(synthetic images, real ones again) that join all training images."""
    rows = addition_of(args, data).rows
    n_synthetic = int((rows >= data.n_real).sum())
    return n_synthetic, len(rows) - n_synthetic


def describe_run(args: argparse.Namespace, data: ArmData, device: torch.device, precision: str) -> str:
    layers = "all layers" if args.unfreeze else "last layer only"
    return (
        f"ResNet-50 ({layers}, weights {public_path(args.weights)}) on {device}, {precision}, "
        f"{training_images(args, data)} of {args.image_size} px"
    )


# --- how long it takes -----------------------------------------------------------------------------
def estimate(args: argparse.Namespace, treatment: Treatment) -> str:
    """Say how long the run takes; writes nothing but the dataset's splits.json where there is none."""
    import pandas as pd

    from data_loader import count_undecoded
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import TEST, TRAIN, load_or_create_splits, reduce_training, select
    from studies.time_estimate import ClassifierWork, estimate_classifier
    from synthetic.folders import existing_images

    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    if args.train_fraction < 1:
        splits = reduce_training(splits, args.train_fraction)
    train, scored = select(dataset, splits, TRAIN), [select(dataset, splits, TEST)]
    if (official := load_official_test(args.data_dir, args.patient_map)) is not None:
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
    cache_dir = cache_folder(args.no_cache, args.cache_dir)
    n_scored = sum(map(len, scored))
    # Other arms take the baseline's epochs, which are at most --epochs.
    epochs_final = args.epochs_final or (args.epochs if treatment.kind.name != BASELINE else None)
    work = ClassifierWork.from_options(
        vars(args) | {"epochs_final": epochs_final},
        n_real=len(train),
        n_scored=n_scored,
        n_undecoded=sum(count_undecoded(part, args.image_size, cache_dir) for part in parts),
        n_features=args.feature_views * (sum(map(len, parts)) - n_scored) + n_scored,
    )
    return estimate_classifier(work, list(train["path"]), select_device(args.cpu))


def announce_steps(args: argparse.Namespace, n_real: int, epochs_final: int | None) -> Announcement:
    """Make the announcement, during the first steps, of how long all optimiser steps take."""
    from studies.time_estimate import ClassifierWork

    work = ClassifierWork.from_options(vars(args) | {"epochs_final": epochs_final}, n_real=n_real)
    hint = "fewer --k-folds, --repeats or --epochs, or a smaller --image-size, take less"
    return Announcement(work.n_steps, "optimiser steps", hint, log.info, warm_up=3)


# --- results ---------------------------------------------------------------------------------------
def describe_extra(args: argparse.Namespace, data: ArmData) -> dict[str, Any]:
    """What the arm trained on, or weighted by, beside the real images."""
    treatment, n = treatment_of(vars(args)), count_extra(args, data)
    n_synthetic, n_duplicated = added_images(args, data)
    trained_on = treatment.kind.synthetic is Synthetic.TRAINED_ON
    result: dict[str, Any] = {
        "n_synthetic": n_synthetic,
        "n_duplicated": n_duplicated,
        "n_extra_positive": int(extra_labels(args, data).sum()),
        "class_weights": addition_of(args, data).class_weights,
        "synthetic_shares": treatment.shares if trained_on else None,
        "synthetic": None,
    }
    if (images := data.synthetic.get(0)) is not None:
        places = [public_path(folder) for folder in synthetic_folders(args)]
        folders = [describe_folder(folder) for folder in images.folders]
        generators = {folder["generator_sha256"] for folder in folders}
        result["synthetic"] = {
            "n_used": n,
            "n_available": len(images.records),
            "ratio": n / data.n_real,
            "label": images.label,
            "verified": images.verified,
            "generator_sha256": generators.pop() if len(generators) == 1 else None,
            "manifest_sha256": images.manifest_sha256,
            "dir": places[0] if len(places) == 1 else places,
            "folders": folders,
            "folds_of_their_own": sorted(fold for fold in data.synthetic if fold),
            "trained_on": trained_on,
        }
    return result


def describe_folder(images: SyntheticSet) -> dict[str, Any]:
    """What results say about one folder of synthetic images; its label and class are those of all of them."""
    return {
        "dir": public_path(images.records["path"].iloc[0].parent),
        "n_available": len(images.records),
        "label": images.label,
        "class": images.class_flag,
        "verified": images.verified,
        "generator_sha256": images.manifest.get("generator_sha256"),
        "manifest_sha256": images.manifest_sha256,
    }


def train_repeats(
    args: argparse.Namespace, data: ArmData, trainer: ArmTrainer, epochs_final: int
) -> list[Repeat]:
    """The final models, and what they say of the test images and of the unlabelled ones."""
    from arms.output import Repeat

    repeats = []
    for number_, final in enumerate(trainer.train_final(epochs_final, args.repeats), start=1):
        test = trainer.probabilities(final, data.test)
        rest = trainer.probabilities(final, data.unlabelled) if data.unlabelled else None
        repeats.append(Repeat(number_, args.seed + number_ - 1, final, test, rest))
    return repeats


def print_outcome(metrics: dict[str, Any], results_dir: str) -> None:
    reference = metrics["references"]["test"]
    (low, high), (auroc_low, auroc_high) = metrics["accuracy_ci95"], metrics["auroc_ci95"]
    log.info(
        f"test: {metrics['n_images']:,} images of {metrics['n_patients']:,} patients, accuracy "
        f"{metrics['accuracy']:.3f} (95 % CI {low:.3f} to {high:.3f}; always negative "
        f"{reference['always_negative_accuracy']:.3f}), AUROC {metrics['auroc']:.3f} "
        f"({auroc_low:.3f} to {auroc_high:.3f}; thumbnails {reference['thumbnail_auroc']:.3f}, "
        f"view+sex+age {reference['metadata_auroc']:.3f})"
    )
    for flag in metrics["red_flags"]:
        log.warning(f"RED FLAG: {flag}")
    log.info(f"metrics and predictions: {Path(results_dir) / metrics['prefix']}*")


def read_data(args: argparse.Namespace, treatment: Treatment) -> ArmData:
    from arms.data import load_arm_data

    return load_arm_data(
        args.data_dir,
        splits_file=args.splits,
        patient_map=args.patient_map,
        test_set=args.test_set,
        train_fraction=args.train_fraction,
        k_folds=args.k_folds,
        image_size=args.image_size,
        workers=args.workers,
        skip_bad=args.skip_bad_images,
        synthetic_dirs=[] if treatment.kind.synthetic is Synthetic.UNUSED else synthetic_folders(args),
        count_only=treatment.kind.synthetic is not Synthetic.TRAINED_ON,
        allow_unverified=args.allow_unverified_synthetic,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
    )


def save_results(
    args: argparse.Namespace,
    out: ArmOutput,
    data: ArmData,
    trainer: ArmTrainer,
    folds: list[FoldFit],
    repeats: list[Repeat],
    facts: dict[str, Any],
    weights_saw_folds: bool,
) -> dict[str, Any]:
    """Write everything; returns the content of ``<prefix>final_metrics.json``. ``facts`` joins each one."""
    from arms import output as arm_output
    from arms.scores import reference_results, test_scores

    # Written last and removed first: its presence means that all files are there and belong together.
    final_file = paths.final_metrics(args.results_dir, out.prefix)
    final_file.unlink(missing_ok=True)
    arm_output.remove_repeats(out)
    cv_predictions = None
    if args.k_folds:
        cv_predictions = arm_output.save_folds(out, data, folds, weights_saw_folds)
    elif arm_output.earlier_folds(out) is not None:
        cv_predictions = arm_output.load_folds(out)
    else:
        arm_output.remove_folds(out)
    arm_output.save_history(out, folds, repeats, training_images(args, data))
    arm_output.save_models(out, trainer, folds, repeats, image_size=args.image_size, k_folds=args.k_folds)
    mean = arm_output.save_predictions(out, data, repeats)
    rows = []
    for item in repeats:
        scores = test_scores(data, item.test)
        rows.append({"repeat": item.number, "seed": item.seed, **scores})
        if len(repeats) > 1:
            prefix = out.of_repeat(item.number)
            content = {"prefix": prefix, "arm": out.prefix, **out.origin, **facts, **rows[-1]}
            save_json(paths.final_metrics(args.results_dir, prefix), content)
    metrics = {
        "prefix": out.prefix,
        **out.origin,
        **facts,
        "seed": args.seed,
        "repeats": args.repeats,
        "seeds": [item.seed for item in repeats],
        "per_repeat": rows if len(repeats) > 1 else [],
        **test_scores(data, mean),
        "references": reference_results(data, mean, cv_predictions),
    }
    save_json(final_file, metrics)
    return metrics


def train(args: argparse.Namespace, treatment: Treatment) -> None:
    from arms.fitting import Recipe
    from arms.output import ArmOutput, warn_of_folds
    from arms.training import ArmTrainer, median_epoch
    from classifier import build_classifier

    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    prepare_arithmetic(device, precision, args.compile)
    with main_first():
        data = read_data(args, treatment)
    weight_flags = check_initial_weights(args, data.splits.sha256)
    origin = provenance(args, data, weight_flags + red_flags(args, data))
    out = ArmOutput(
        args.prefix or treatment.kind.prefix, args.model_dir, args.results_dir, args.figures_dir, origin
    )
    epochs_final, epochs_from = planned_epochs(args, treatment, out)
    if not args.k_folds:
        warn_of_folds(out)
    check_shares(treatment, epochs_final)
    with main_first():
        build_classifier(args.weights, not args.unfreeze)  # unavailable weights end here, nothing changed yet
    require_same("data or options", [origin, epochs_final, precision])
    log.info(f"{out.prefix.removesuffix('_')}: {describe_run(args, data, device, precision)}")
    announcement = announce_steps(args, data.n_real, epochs_final)
    trainer = ArmTrainer(
        data,
        Recipe(
            args.epochs, args.batch_size, args.lr, args.weight_decay, args.schedule, precision, args.compile
        ),
        weights=args.weights,
        frozen=not args.unfreeze,
        augment=args.augment,
        treatment=treatment,
        ratio=args.synthetic_ratio,
        seed=args.seed,
        device=device,
        state_folder=from_main(prepare_state_folder, args, out, epochs_final, precision),
        resume=args.resume,
        views=args.feature_views,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
        on_step=(lambda: None) if args.resume else announcement.after,
    )

    folds: list[FoldFit] = []
    if args.k_folds or epochs_final is None:
        folds = trainer.train_folds(args.k_folds)
    if epochs_final is None:
        epochs_final = median_epoch(item.fit.best_epoch for item in folds)
    log.info(f"final model: {data.n_real:,} real training images, {epochs_final} epochs ({epochs_from})")
    repeats = train_repeats(args, data, trainer, epochs_final)

    facts = {
        "environment": environment(device),
        "processes": process_count(),
        "precision": precision,
        "test_set": args.test_set,
        "train_fraction": args.train_fraction,
        "n_train_images": data.n_real,
        "n_train_patients": int(data.train.records["patient"].nunique()),
        "n_train_positive": int(data.train.records["label"].sum()),
        **describe_extra(args, data),
        "optimizer_steps": repeats[0].fit.steps,
        "epochs_final": epochs_final,
        "epochs_final_from": epochs_from,
    }
    if not is_main():
        return
    metrics = save_results(args, out, data, trainer, folds, repeats, facts, bool(weight_flags))
    shutil.rmtree(trainer.state_folder, ignore_errors=True)
    print_outcome(metrics, args.results_dir)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    treatment = treatment_of(vars(args))
    with process_group(args.cpu):
        if not features_once(args):
            check_batch_size(args.batch_size)
        if not args.estimate:
            train(args, treatment)
        elif is_main():
            log.info(estimate(args, treatment))


if __name__ == "__main__":
    run_script(main)
