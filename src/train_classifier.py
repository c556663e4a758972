"""Train and test one arm of the comparison: the baseline, or (--use-synthetic) the augmented classifier.

Folds choose the epoch, all training images then make the final model, and the test images are scored
once. Nothing is ever chosen on test. Synthetic images enter training only.

    python src/train_classifier.py                   # baseline_...
    python src/train_classifier.py --use-synthetic   # augmented_...
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import GROUPED_BY_IMAGE, add_data_arguments, grouping_sentence
from utils import (
    UserError,
    argument_parser,
    environment,
    load_json,
    number,
    public_config,
    public_path,
    resolve_precision,
    run_script,
    save_checkpoint,
    save_csv,
    save_figure,
    save_json,
    select_device,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from arm_data import ArmData
    from arm_training import ArmTrainer, FoldFit
    from fitting import Fit
    from splits import Splits

# What a resumed run may do differently without changing its numbers.
FREE_TO_CHANGE = {
    "workers", "resume", "model_dir", "results_dir", "figures_dir", "synthetic_dir", "data_dir", "splits",
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__.split("\n\n", 1)[0])
    add_data_arguments(parser)
    add = parser.add_argument
    add("--model-dir", default=paths.MODEL_DIR, metavar="PATH", help="folder for model checkpoints")
    add("--results-dir", default=paths.METRICS_DIR, metavar="PATH", help="folder for metrics and predictions")
    add("--figures-dir", default=paths.FIGURES_DIR, metavar="PATH", help="folder for plots")
    add("--test-set", choices=("split", "official"), default="split",
        help="score the frozen hold-out, or the official test CSV if that is truly labelled")  # fmt: skip

    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--epochs", type=number(int, 1), default=15, metavar="N", help="passes over the training images")
    add("--epochs-final", type=number(int, 1), metavar="N",
        help="epochs of the final model (default: median best epoch of the folds; "
        "with --use-synthetic the baseline's, so that both take the same number of steps)")  # fmt: skip
    add("--batch-size", type=number(int, 2), default=32, metavar="N", help="images per optimiser step")
    add("--lr", type=number(float, above=0), default=0.001, metavar="FLOAT", help="(peak) learning rate")
    add("--weight-decay", type=number(float, 0), default=0.0, metavar="FLOAT", help="AdamW's weight decay")
    add("--schedule", choices=("none", "onecycle"), default="none", help="learning rate over --epochs")
    add("--unfreeze", action="store_true", help="fine-tune all layers instead of the last one only")
    add("--weights", default="imagenet", metavar="{imagenet,none,PATH}",
        help="initial weights; none (from scratch) makes sense with --unfreeze only")  # fmt: skip
    add("--augment", choices=("none", "light"), default="none",
        help="light: small affine, brightness and contrast changes; never mirrored")  # fmt: skip
    add("--image-size", type=number(int, 32, 1024), default=224, metavar="N", help="pixels per side")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="of everything but the split")

    group = parser.add_argument_group("synthetic data")
    add = group.add_argument
    add("--use-synthetic", action="store_true",
        help="augment training with synthetic images; results get the prefix augmented_")  # fmt: skip
    add("--synthetic-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of synthetic images")
    add("--synthetic-ratio", type=number(float, above=0), metavar="FLOAT",
        help="synthetic images per real training image (default: all of the folder)")  # fmt: skip
    add("--allow-unverified-synthetic", action="store_true",
        help="use images of unknown or leaky origin, and flag every result")  # fmt: skip

    group = parser.add_argument_group("cross-validation")
    group.add_argument("--k-folds", type=number(int, 0), default=5, metavar="N",
                       help="patient-grouped folds; 0 uses one 10 %% validation split instead")  # fmt: skip

    group = parser.add_argument_group("hardware")
    add = group.add_argument
    add("--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="auto: bf16 where the hardware multiplies it")  # fmt: skip
    add("--cpu", action="store_true", help="use the CPU even if a GPU is available")
    add("--resume", action="store_true", help="go on with an interrupted run of the same options")
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    if args.synthetic_ratio is not None and not args.use_synthetic:
        parser.error("--synthetic-ratio needs --use-synthetic")
    if args.schedule != "none" and args.epochs_final is not None and args.epochs_final > args.epochs:
        parser.error("--epochs-final lies beyond --epochs, where --schedule ends")
    return args


# --- before training -------------------------------------------------------------------------------
def planned_epochs(args: argparse.Namespace, splits: Splits) -> tuple[int | None, str]:
    """(epochs of the final model if known before the folds are trained, where they come from)."""
    if args.epochs_final is not None:
        return args.epochs_final, "--epochs-final"
    if not args.use_synthetic:
        return None, "median best epoch of the folds" if args.k_folds else "best epoch on a validation tenth"
    file = paths.final_metrics(args.results_dir, paths.BASELINE_PREFIX)
    if not file.is_file():
        raise UserError(
            f"{file} is missing: the augmented arm takes the baseline's number of epochs; train the baseline "
            "first (the same command without --use-synthetic), or give --epochs-final N"
        )
    baseline = load_json(file)
    if baseline["split_sha256"] != splits.sha256:
        raise UserError(f"{file} was made on another split; train the baseline again on {splits.path}")
    epochs = baseline["epochs_final"]
    if args.schedule != "none" and epochs > args.epochs:
        raise UserError(
            f"--schedule {args.schedule} ends after --epochs {args.epochs}, but the baseline took "
            f"{epochs} for its final model; give its --epochs"
        )
    return epochs, "the baseline's"


def red_flags(args: argparse.Namespace, data: ArmData) -> list[str]:
    """Sentences that every reader of this result must see."""
    flags = list(data.synthetic.red_flags) if data.synthetic else []
    if data.splits.grouped_by == GROUPED_BY_IMAGE:
        flags.append(grouping_sentence(GROUPED_BY_IMAGE))
    if (count := data.skipped()["count"]) > 0:
        flags.append(f"{count} missing or unreadable images were left out (--skip-bad-images)")
    if args.weights == "none" and not args.unfreeze:
        flags.append("the backbone is random and frozen (--weights none without --unfreeze): a toy")
    return flags + (differences_from_baseline(args) if args.use_synthetic else [])


def differences_from_baseline(args: argparse.Namespace) -> list[str]:
    """Options in which this arm was not trained as the baseline was."""
    from arms import differing_options

    file = paths.final_metrics(args.results_dir, paths.BASELINE_PREFIX)
    return differing_options(public_config(args), load_json(file)["config"]) if file.is_file() else []


def check_initial_weights(args: argparse.Namespace, splits: Splits) -> list[str]:
    """Red flags of --weights. ``UserError`` if they are a classifier that may have seen test patients."""
    from classifier import split_of_weights

    split = split_of_weights(args.weights)
    if split is None:
        return []
    if split != splits.sha256:
        raise UserError(
            f"--weights {args.weights} was trained on another split ({split[:12]}, not {splits.sha256[:12]}) "
            "and may have seen the test patients; use imagenet, none, or a file of this split"
        )
    return [f"--weights {public_path(args.weights)} had learned from these training images before"]


def provenance(args: argparse.Namespace, data: ArmData, flags: list[str]) -> dict[str, Any]:
    """What every result file of the arm says about where it comes from."""
    return {
        "config": public_config(args),
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "grouped_by": data.splits.grouped_by,
        "unmapped_images": data.dataset.unmapped,
        "skipped_images": data.skipped(),
        "red_flags": flags,
    }


def prepare_state_folder(
    args: argparse.Namespace, prefix: str, data: ArmData, epochs_final: int | None, precision: str
) -> Path:
    """The folder of the unfinished run: emptied without --resume, checked against this run with it."""
    folder = paths.classifier_state(args.model_dir, prefix)
    run_file = folder / "run.json"
    run = {key: value for key, value in public_config(args).items() if key not in FREE_TO_CHANGE}
    run |= {
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "manifest_sha256": data.synthetic.manifest_sha256 if data.synthetic else None,
        "skipped_images": data.skipped()["image_ids"],
        "epochs_final": epochs_final,
        "precision": precision,
    }
    if args.resume and run_file.is_file():
        earlier = load_json(run_file)
        for key, value in run.items():
            if earlier.get(key) != value:
                raise UserError(
                    f"--resume: {key} was {earlier.get(key)} in the interrupted run and is {value} now; "
                    "give the same options, or leave --resume out to start from the beginning"
                )
        return folder
    if args.resume:
        print("--resume: nothing to resume, starting from the beginning")
    elif folder.is_dir():
        print(f"starting from the beginning, without --resume the interrupted run in {folder} is dropped")
    shutil.rmtree(folder, ignore_errors=True)
    save_json(run_file, run)
    return folder


def count_synthetic(args: argparse.Namespace, data: ArmData) -> int:
    """Synthetic images that join all the real training images."""
    return len(data.synthetic_rows(data.n_real, args.synthetic_ratio))


def training_images(args: argparse.Namespace, data: ArmData) -> str:
    """ "899 real + 450 synthetic training images"."""
    n_synthetic = count_synthetic(args, data)
    extra = f" + {n_synthetic:,} synthetic" if n_synthetic else ""
    return f"{data.n_real:,} real{extra} training images"


def describe_run(args: argparse.Namespace, data: ArmData, device: torch.device, precision: str) -> str:
    layers = "all layers" if args.unfreeze else "last layer only"
    return (
        f"ResNet-50 ({layers}, weights {public_path(args.weights)}) on {device}, {precision}, "
        f"{training_images(args, data)} of {args.image_size} px"
    )


# --- results ---------------------------------------------------------------------------------------
def describe_synthetic(args: argparse.Namespace, data: ArmData) -> dict[str, Any] | None:
    if data.synthetic is None:
        return None
    used = count_synthetic(args, data)
    return {
        "n_used": used,
        "n_available": len(data.synthetic.records),
        "ratio": used / data.n_real,
        "label": data.synthetic.label,
        "verified": data.synthetic.verified,
        "generator_sha256": data.synthetic.manifest.get("generator_sha256"),
        "manifest_sha256": data.synthetic.manifest_sha256,
        "dir": public_path(args.synthetic_dir),
    }


def save_models(
    args: argparse.Namespace,
    prefix: str,
    data: ArmData,
    trainer: ArmTrainer,
    folds: list[FoldFit],
    final: Fit,
) -> None:
    """The final model, and the fold of lowest validation loss where folds were trained."""
    from classifier import CHECKPOINT_FORMAT

    common = {
        "format": CHECKPOINT_FORMAT,
        "prefix": prefix,
        "frozen": not args.unfreeze,
        "image_size": args.image_size,
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "seed": args.seed,
        "config": public_config(args),
    }
    if args.k_folds:
        best = min(folds, key=lambda item: min(item.fit.history["val_loss"]))
        content = {**common, "fold": best.fold, "state_dict": trainer.full_state(best.fit)}
        save_checkpoint(paths.best_fold_model(args.model_dir, prefix), content)
    content = {**common, "state_dict": trainer.full_state(final)}
    save_checkpoint(paths.classifier_model(args.model_dir, prefix), content)


def save_figures(args: argparse.Namespace, prefix: str, data: ArmData, history: dict[str, Any]) -> None:
    """The arm's curves, and the folds of all arms found so far side by side."""
    import plots
    from arms import find_prefixes

    title = f"{prefix.removesuffix('_')}: n = {training_images(args, data)}"
    save_figure(paths.loss_figure(args.figures_dir, prefix), plots.training_curves(history, "loss", title))
    save_figure(paths.acc_figure(args.figures_dir, prefix), plots.training_curves(history, "acc", title))
    summaries = {
        other.removesuffix("_"): load_json(paths.cv_summary(args.results_dir, other))
        for other in find_prefixes(args.results_dir, paths.cv_summary)
    }
    if summaries:
        save_figure(paths.cv_comparison_figure(args.figures_dir), plots.cv_comparison(summaries))


def remove_stale_folds(args: argparse.Namespace, prefix: str) -> None:
    """A run without folds must not leave the folds of an earlier run beside its results."""
    for file in (
        paths.cv_summary(args.results_dir, prefix),
        paths.cv_predictions(args.results_dir, prefix),
        paths.best_fold_model(args.model_dir, prefix),
    ):
        if file.is_file():
            print(f"removing {file}: it belongs to an earlier run with folds")
            file.unlink()


def save_predictions(
    args: argparse.Namespace, prefix: str, data: ArmData, trainer: ArmTrainer, final: Fit
) -> np.ndarray:
    """Write the final model's probabilities; returns those of the test images, float64 [N]."""
    from arm_results import prediction_table

    probabilities = trainer.probabilities(final, data.test.pixels)
    table = prediction_table(data.test.records, probabilities)
    save_csv(paths.test_predictions(args.results_dir, prefix), table)
    if data.unlabelled is not None:
        unlabelled = data.unlabelled.records[["image_id"]].assign(
            probability=trainer.probabilities(final, data.unlabelled.pixels)
        )
        save_csv(paths.unlabelled_predictions(args.results_dir, prefix), unlabelled)
    return probabilities


def print_outcome(metrics: dict[str, Any], results_dir: str) -> None:
    reference = metrics["references"]["test"]
    (low, high), (auroc_low, auroc_high) = metrics["accuracy_ci95"], metrics["auroc_ci95"]
    print(
        f"test: {metrics['n_images']:,} images of {metrics['n_patients']:,} patients, accuracy "
        f"{metrics['accuracy']:.3f} (95 % CI {low:.3f} to {high:.3f}; always negative "
        f"{reference['always_negative_accuracy']:.3f}), AUROC {metrics['auroc']:.3f} "
        f"({auroc_low:.3f} to {auroc_high:.3f}; thumbnails {reference['thumbnail_auroc']:.3f}, "
        f"view+sex+age {reference['metadata_auroc']:.3f})"
    )
    for flag in metrics["red_flags"]:
        print(f"RED FLAG: {flag}")
    print(f"metrics and predictions: {Path(results_dir) / metrics['prefix']}*")


def read_data(args: argparse.Namespace) -> ArmData:
    from arm_data import load_arm_data

    return load_arm_data(
        args.data_dir,
        splits_file=args.splits,
        patient_map=args.patient_map,
        test_set=args.test_set,
        k_folds=args.k_folds,
        image_size=args.image_size,
        workers=args.workers,
        skip_bad=args.skip_bad_images,
        synthetic_dir=args.synthetic_dir if args.use_synthetic else None,
        allow_unverified=args.allow_unverified_synthetic,
    )


def save_folds(
    args: argparse.Namespace,
    prefix: str,
    data: ArmData,
    folds: list[FoldFit],
    weights_saw_folds: bool,
    origin: dict[str, Any],
) -> pd.DataFrame:
    """Write the out-of-fold predictions and their summary; returns the predictions."""
    from arm_results import out_of_fold_table, summarise_folds

    predictions = out_of_fold_table(data, folds)
    summary = summarise_folds(data, folds, predictions, weights_saw_folds)
    save_csv(paths.cv_predictions(args.results_dir, prefix), predictions)
    save_json(paths.cv_summary(args.results_dir, prefix), {**summary, **origin})
    return predictions


def save_history(
    args: argparse.Namespace,
    prefix: str,
    data: ArmData,
    folds: list[FoldFit],
    final: Fit,
    origin: dict[str, Any],
) -> None:
    """Write the losses and accuracies of every epoch, and their figures."""
    curves = [{"fold": item.fold, "best_epoch": item.fit.best_epoch, **item.fit.curves()} for item in folds]
    history = {"folds": curves, "final": {"epochs": final.best_epoch, **final.curves()}, **origin}
    save_json(paths.training_history(args.results_dir, prefix), history)
    save_figures(args, prefix, data, history)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from arm_results import reference_results, test_scores
    from arm_training import ArmTrainer, median_epoch
    from classifier import build_classifier
    from fitting import Recipe

    prefix = paths.AUGMENTED_PREFIX if args.use_synthetic else paths.BASELINE_PREFIX
    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    data = read_data(args)
    weight_flags = check_initial_weights(args, data.splits)
    origin = provenance(args, data, weight_flags + red_flags(args, data))
    epochs_final, epochs_from = planned_epochs(args, data.splits)
    build_classifier(args.weights, not args.unfreeze)  # unavailable weights end here, nothing changed yet
    print(describe_run(args, data, device, precision))
    trainer = ArmTrainer(
        data,
        Recipe(args.epochs, args.batch_size, args.lr, args.weight_decay, args.schedule, precision),
        weights=args.weights,
        frozen=not args.unfreeze,
        augment=args.augment,
        seed=args.seed,
        device=device,
        state_folder=prepare_state_folder(args, prefix, data, epochs_final, precision),
        resume=args.resume,
    )

    folds: list[FoldFit] = []
    if args.k_folds or epochs_final is None:
        folds = trainer.train_folds(args.k_folds, args.synthetic_ratio)
    if epochs_final is None:
        epochs_final = median_epoch(item.fit.best_epoch for item in folds)
    print(f"final model: {data.n_real:,} real training images, {epochs_final} epochs ({epochs_from})")
    final = trainer.train_final(epochs_final, args.synthetic_ratio)

    # Written last and removed first: its presence means that all files are there and belong together.
    final_file = paths.final_metrics(args.results_dir, prefix)
    final_file.unlink(missing_ok=True)
    cv_predictions = None
    if args.k_folds:
        cv_predictions = save_folds(args, prefix, data, folds, bool(weight_flags), origin)
    else:
        remove_stale_folds(args, prefix)
    save_history(args, prefix, data, folds, final, origin)
    save_models(args, prefix, data, trainer, folds, final)
    probabilities = save_predictions(args, prefix, data, trainer, final)
    metrics = {
        "prefix": prefix,
        "environment": environment(device),
        "precision": precision,
        "seed": args.seed,
        **origin,
        "test_set": args.test_set,
        "n_train_images": data.n_real,
        "n_train_patients": int(data.train.records["patient"].nunique()),
        "n_synthetic": count_synthetic(args, data),
        "synthetic": describe_synthetic(args, data),
        "optimizer_steps": final.steps,
        "epochs_final": epochs_final,
        "epochs_final_from": epochs_from,
        **test_scores(data, probabilities),
        "references": reference_results(data, probabilities, cv_predictions),
    }
    save_json(final_file, metrics)
    shutil.rmtree(trainer.state_folder, ignore_errors=True)
    print_outcome(metrics, args.results_dir)


if __name__ == "__main__":
    run_script(main)
