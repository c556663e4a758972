"""Train and test one arm of the comparison: the baseline, or (--use-synthetic) the augmented classifier.

Folds choose the epoch, all training images then make the final model, and the test images are scored
once. Nothing is ever chosen on test. Synthetic images enter training only.

    python src/train_classifier.py                   # baseline_...
    python src/train_classifier.py --use-synthetic   # augmented_...
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import add_data_arguments
from utils import (
    UserError,
    argument_parser,
    derive_seed,
    environment,
    load_checkpoint,
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
    set_seed,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from data_loader import Dataset, ImageSet
    from fitting import Fit, Recipe
    from splits import Splits
    from synthetic import SyntheticSet

VALIDATION_PARTS = 10  # with --k-folds 0, one tenth of the training images chooses the epoch
# What two arms must share for their difference to mean anything.
COMPARED_OPTIONS = (
    "epochs", "batch_size", "lr", "unfreeze", "weights", "image_size", "augment", "weight_decay", "schedule",
    "seed", "test_set",
)  # fmt: skip


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
    add("--seed", type=number(int, 0), default=42, metavar="N", help="of everything but the split")

    group = parser.add_argument_group("synthetic data")
    add = group.add_argument
    add("--use-synthetic", action="store_true",
        help="augment training with synthetic images; results get the prefix augmented_")  # fmt: skip
    add("--synthetic-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of synthetic images")
    add("--synthetic-ratio", type=number(float, above=0), metavar="FLOAT",
        help="synthetic images per real training image (default: all of the folder)")  # fmt: skip
    add("--allow-unverified-synthetic", action="store_true",
        help="use images of unknown origin, or whose generator saw test patients, and flag every result")  # fmt: skip

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
        parser.error("--k-folds 1 is not allowed: one fold validates on what it trains on; use 0 or at least 2")
    if args.synthetic_ratio is not None and not args.use_synthetic:
        parser.error("--synthetic-ratio needs --use-synthetic")
    return args


# --- what a run works on ---------------------------------------------------------------------------
@dataclass
class ArmData:
    """Everything that a run reads, checked before anything is trained."""

    dataset: Dataset
    splits: Splits
    train: ImageSet
    test: ImageSet
    unlabelled: ImageSet | None
    synthetic: SyntheticSet | None
    synthetic_pixels: np.ndarray | None
    folds: np.ndarray | None  # 1..k of each training image; with --k-folds 0, 1 is the validation tenth

    def skipped(self) -> dict[str, Any]:
        sets = [self.train, self.test, *([self.unlabelled] if self.unlabelled else [])]
        ids = sorted(name for images in sets for name in images.skipped)
        return {"count": len(ids), "image_ids": ids}


def load_arm_data(args: argparse.Namespace) -> ArmData:
    from data_loader import load_dataset, load_images, load_official_test
    from splits import TRAIN, assign_folds, describe_splits, load_or_create_splits, select

    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    print(describe_splits(splits))
    official = load_official_test(args.data_dir, args.patient_map)
    train_records = select(dataset, splits, TRAIN)
    test_records = choose_test_records(args.test_set, dataset, splits, official, train_records)
    synthetic = None
    if args.use_synthetic:
        synthetic = check_synthetic(args, dataset, test_records)
    folds = assign_folds(splits, args.k_folds or VALIDATION_PARTS)

    options = {"workers": args.workers, "skip_bad": args.skip_bad_images}
    train = load_images(train_records, args.image_size, desc="decoding training images", **options)
    test = load_images(test_records, args.image_size, desc="decoding test images", **options)
    unlabelled = None
    if official is not None and not official.labelled:
        print(f"official test images are unlabelled ({official.why}): predicted, never scored")
        unlabelled = load_images(official.images, args.image_size, desc="decoding unlabelled", **options)
    pixels = None
    if synthetic is not None:
        pixels = load_images(synthetic.records, args.image_size, workers=args.workers, desc="decoding synthetic").pixels
    return ArmData(
        dataset, splits, train, test, unlabelled, synthetic, pixels, folds.loc[train.records["image_id"]].to_numpy()
    )


def choose_test_records(
    test_set: str, dataset: Dataset, splits: Splits, official: Any, train_records: pd.DataFrame
) -> pd.DataFrame:
    """The images that are scored once: the frozen hold-out, or a labelled official test set."""
    from data_loader import name_some
    from splits import TEST, select

    if test_set == "split":
        return select(dataset, splits, TEST)
    if official is None or not official.labelled:
        why = official.why if official else f"{paths.TEST_METADATA} is not there"
        raise UserError(f"--test-set official: the official test set has no labels: {why}; use --test-set split")
    shared = official.images["patient"].isin(train_records["patient"])
    if shared.any():
        names = name_some(list(official.images.loc[shared, "image_id"]), 3)
        raise UserError(f"--test-set official: patients of {names} are training patients; use --test-set split")
    return official.images


def check_synthetic(args: argparse.Namespace, dataset: Dataset, test_records: pd.DataFrame) -> SyntheticSet:
    from synthetic import load_synthetic

    patient_of = dict(zip(dataset.images["image_id"], dataset.images["patient"], strict=True))
    test_images = dict(zip(test_records["image_id"], test_records["patient"], strict=True))
    synthetic = load_synthetic(args.synthetic_dir, patient_of, test_images, args.allow_unverified_synthetic)
    for flag in synthetic.red_flags:
        print(f"RED FLAG: {flag}")
    return synthetic


def planned_epochs(args: argparse.Namespace, splits: Splits) -> tuple[int | None, str]:
    """(epochs of the final model if known before the folds are trained, where they come from)."""
    if args.epochs_final is not None:
        return args.epochs_final, "--epochs-final"
    if not args.use_synthetic:
        return None, "median best epoch of the folds" if args.k_folds else "best epoch on the validation split"
    file = paths.final_metrics(args.results_dir, paths.BASELINE_PREFIX)
    if not file.is_file():
        raise UserError(
            f"{file} is missing: the augmented arm takes the baseline's number of epochs; train the baseline "
            "first (the same command without --use-synthetic), or give --epochs-final N"
        )
    baseline = load_json(file)
    if baseline["split_sha256"] != splits.sha256:
        raise UserError(f"{file} was made on another split; train the baseline again on {splits.path}")
    return baseline["epochs_final"], "the baseline's folds"


# --- training --------------------------------------------------------------------------------------
class Trainer:
    """Fits classifiers on subsets of one pool of inputs: rows 0..N-1 are real, N..N+M-1 synthetic.

    With a frozen backbone and no augmentation the backbone's features are computed once and only heads
    are fitted on them; else whole networks are fitted on pixels.
    """

    def __init__(self, args: argparse.Namespace, data: ArmData, device: torch.device, recipe: Recipe) -> None:
        import numpy as np
        import torch

        self.device, self.recipe, self.seed = device, recipe, args.seed
        self.weights, self.frozen, self.augment = args.weights, not args.unfreeze, args.augment
        self.n_real = len(data.train.records)
        self.backbone = self._new_classifier("features") if self.frozen else None
        self.cached = self.frozen and self.augment == "none"
        pixels, labels = data.train.pixels, data.train.records["label"].to_numpy(dtype=np.float32)
        if data.synthetic_pixels is not None:
            pixels = np.concatenate([pixels, data.synthetic_pixels])
            extra = np.full(len(data.synthetic_pixels), data.synthetic.label, dtype=np.float32)
            labels = np.concatenate([labels, extra])
        self.inputs = self.pipeline(pixels, self.augment)
        self.labels = torch.from_numpy(labels.copy()).to(device)

    def pipeline(self, pixels: np.ndarray, augment: str = "none") -> Any:
        """Inputs for fitting or predicting from uint8 [N, S, S]."""
        import torch
        from tqdm import tqdm

        from classifier import InputPipeline, extract_features

        if self.cached:
            pixels = extract_features(
                self.backbone, pixels, device=self.device, precision=self.recipe.precision, progress=tqdm
            )
        return InputPipeline(torch.from_numpy(pixels).to(self.device), augment)

    def _new_classifier(self, name: str) -> Any:
        import torch

        from classifier import build_classifier

        set_seed(derive_seed(self.seed, "weights", name))
        model = build_classifier(self.weights, self.frozen)
        return model.to(self.device, memory_format=torch.channels_last)

    def new_module(self, name: str) -> Any:
        """A fresh network, or a fresh head on the shared frozen features."""
        from classifier import ClassifierHead

        if not self.cached:
            return self._new_classifier(name)
        set_seed(derive_seed(self.seed, "weights", name))
        return ClassifierHead().to(self.device)

    def fit(self, name: str, pool: np.ndarray, n_real: int, folder: Path, resume: bool, **options: Any) -> Fit:
        """One fit; its result is kept in ``folder`` until the whole run is finished, for --resume."""
        from fitting import fit, fit_from_dict, fit_to_dict

        finished, unfinished = folder / f"{name}.pth", folder / f"{name}_state.pth"
        if resume and finished.is_file():
            print(f"{name}: already finished")
            return fit_from_dict(load_checkpoint(finished))
        result = fit(
            self.new_module(name), self.inputs, self.labels, pool=pool, n_real=n_real, recipe=self.recipe,
            seed=derive_seed(self.seed, "fit", name), state_file=unfinished, resume=resume,
            desc=name.replace("_", " "), **options,
        )  # fmt: skip
        save_checkpoint(finished, fit_to_dict(result))
        unfinished.unlink(missing_ok=True)
        return result

    def probabilities(self, result: Fit, pixels: np.ndarray) -> np.ndarray:
        """Probabilities [N] of uint8 [N, S, S] from the fitted weights."""
        import numpy as np

        from classifier import predict_logits

        module = self.new_module("prediction")
        module.load_state_dict(result.state_dict)
        logits = predict_logits(
            module.eval(), self.pipeline(pixels), np.arange(len(pixels)),
            batch_size=2 * self.recipe.batch_size, precision=self.recipe.precision,
        )  # fmt: skip
        return sigmoid(logits)

    def full_state(self, result: Fit) -> dict[str, torch.Tensor]:
        """Weights of the whole classifier, frozen backbone included."""
        from classifier import cpu_state_dict

        shared = cpu_state_dict(self.backbone) if self.cached else {}
        return {**shared, **result.state_dict}


def sigmoid(logits: torch.Tensor) -> np.ndarray:
    return logits.double().sigmoid().numpy()


def synthetic_rows(data: ArmData, n_real: int, ratio: float | None) -> np.ndarray:
    """Rows of the synthetic images that join ``n_real`` real ones: all, or ``ratio`` per real image."""
    import numpy as np

    available = 0 if data.synthetic_pixels is None else len(data.synthetic_pixels)
    n = available if ratio is None else min(available, round(ratio * n_real))
    return len(data.train.records) + np.arange(n)


def train_folds(
    trainer: Trainer, data: ArmData, args: argparse.Namespace, folder: Path
) -> list[tuple[int, np.ndarray, Fit]]:
    """(fold, rows held out, fit) for every fold; with --k-folds 0 the validation split alone, as fold 0."""
    import numpy as np

    held_out_folds = range(1, args.k_folds + 1) if args.k_folds else [1]
    results = []
    for fold in held_out_folds:
        val_rows = np.flatnonzero(data.folds == fold)
        train_rows = np.flatnonzero(data.folds != fold)
        pool = np.concatenate([train_rows, synthetic_rows(data, len(train_rows), args.synthetic_ratio)])
        name = f"fold_{fold}" if args.k_folds else "validation"
        result = trainer.fit(name, pool, len(train_rows), folder, args.resume, val_rows=val_rows)
        best = result.best_epoch
        print(
            f"{name.replace('_', ' ')}: best epoch {best} of {trainer.recipe.epochs}, validation loss "
            f"{result.history['val_loss'][best - 1]:.4f}, accuracy {result.history['val_acc'][best - 1]:.3f}"
        )
        results.append((fold if args.k_folds else 0, val_rows, result))
    return results


def median_epoch(best_epochs: list[int]) -> int:
    """The median, rounded half up."""
    import numpy as np

    return int(np.median(best_epochs) + 0.5)


# --- results ---------------------------------------------------------------------------------------
def prediction_table(records: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    columns = ["image_id", "patient", "class", "view", "sex", "age", "label"]
    table = records[columns].assign(age=records["age"].astype("Int64"), probability=probabilities)
    return table.assign(predicted=(probabilities >= 0.5).astype(int))


def summarise_folds(
    data: ArmData, results: list[tuple[int, np.ndarray, Fit]], k: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """(cv_summary, out-of-fold predictions)."""
    import pandas as pd

    from metrics import classification_metrics, mean_and_std
    from synthetic import overlaps

    records = data.train.records
    rows, tables, contaminated = [], [], []
    for fold, val_rows, result in results:
        held_out = records.iloc[val_rows]
        probabilities = sigmoid(result.val_logits)
        scores = classification_metrics(held_out["label"].to_numpy(), probabilities)
        patients = set(held_out["patient"])
        best = result.best_epoch
        rows.append({"fold": fold, "n_images": len(held_out), "n_patients": len(patients), "best_epoch": best,
                     "val_loss": result.history["val_loss"][best - 1], **scores})  # fmt: skip
        tables.append(prediction_table(held_out, probabilities).assign(fold=fold))
        if data.synthetic is not None and overlaps(data.synthetic.generator_patients, patients):
            contaminated.append(fold)
    predictions = pd.concat(tables).sort_values("image_id", ignore_index=True)
    mean, std = mean_and_std(rows)
    note = "folds are patient-grouped and their images were seen by nothing that was trained"
    if contaminated:
        note = (f"the generator of the synthetic images saw patients of validation folds {contaminated}: "
                "these figures are too good, enter no comparison, and chose no epoch")  # fmt: skip
    summary = {
        "k": k, "contaminated": bool(contaminated), "contaminated_folds": contaminated, "note": note,
        "n_images": len(predictions), "n_patients": int(predictions["patient"].nunique()),
        "grouped_by": data.splits.grouped_by, "split_sha256": data.splits.sha256, "folds": rows, "mean": mean,
        "std": std,
        "out_of_fold": classification_metrics(
            predictions["label"].to_numpy(), predictions["probability"].to_numpy()
        ),
    }  # fmt: skip
    return summary, predictions


def red_flags(args: argparse.Namespace, data: ArmData) -> list[str]:
    """Sentences that every reader of this result must see."""
    from data_loader import GROUPED_BY_IMAGE, grouping_sentence

    flags = list(data.synthetic.red_flags) if data.synthetic else []
    if data.splits.grouped_by == GROUPED_BY_IMAGE:
        flags.append(grouping_sentence(GROUPED_BY_IMAGE))
    if (count := data.skipped()["count"]) > 0:
        flags.append(f"{count} missing or unreadable images were left out (--skip-bad-images)")
    if args.weights == "none" and not args.unfreeze:
        flags.append("the backbone is random and frozen (--weights none without --unfreeze): a toy")
    baseline_file = paths.final_metrics(args.results_dir, paths.BASELINE_PREFIX)
    if args.use_synthetic and baseline_file.is_file():
        baseline = load_json(baseline_file)["config"]
        for key in COMPARED_OPTIONS:
            if baseline.get(key) != vars(args)[key]:
                name = key.replace("_", "-")
                flags.append(f"--{name} differs from the baseline's: {vars(args)[key]}, not {baseline.get(key)}")
    return flags


def describe_synthetic(args: argparse.Namespace, data: ArmData) -> dict[str, Any] | None:
    if data.synthetic is None:
        return None
    used = len(synthetic_rows(data, len(data.train.records), args.synthetic_ratio))
    return {
        "n_used": used,
        "n_available": len(data.synthetic.records),
        "ratio": used / len(data.train.records),
        "label": data.synthetic.label,
        "verified": data.synthetic.verified,
        "generator_sha256": data.synthetic.manifest.get("generator_sha256"),
        "manifest_sha256": data.synthetic.manifest_sha256,
        "dir": public_path(args.synthetic_dir),
    }


def test_metrics(data: ArmData, probabilities: np.ndarray) -> dict[str, Any]:
    """Scores on the test images, with intervals."""
    from metrics import classification_metrics, cluster_bootstrap_ci, wilson_interval

    records = data.test.records
    labels, patients = records["label"].to_numpy(), list(records["patient"])
    scores = classification_metrics(labels, probabilities)
    correct = scores["confusion_matrix"][0][0] + scores["confusion_matrix"][1][1]
    return {
        "n_images": len(labels),
        "n_patients": len(set(patients)),
        "n_positive": int(labels.sum()),
        "prevalence": float(labels.mean()),
        **scores,
        "accuracy_ci95": wilson_interval(correct, len(labels)),
        "auroc_ci95": cluster_bootstrap_ci(labels, probabilities, patients, "auroc"),
    }


def reference_results(
    data: ArmData, probabilities: np.ndarray, cv_predictions: pd.DataFrame | None
) -> dict[str, Any]:
    """The references on test, and out of fold where folds were trained."""
    from references import References, reference_summary

    train, test = data.train, data.test
    references = References(train.records, train.pixels)
    result: dict[str, Any] = {
        "test": reference_summary(
            test.records["label"].to_numpy(), list(test.records["patient"]), probabilities,
            references.predict(test.records, test.pixels),
        ),
        "out_of_fold": None,
    }  # fmt: skip
    if cv_predictions is not None:
        out_of_fold = cv_predictions.set_index("image_id").loc[train.records["image_id"], "probability"]
        result["out_of_fold"] = reference_summary(
            train.records["label"].to_numpy(), list(train.records["patient"]), out_of_fold.to_numpy(),
            references.out_of_fold(data.folds),
        )  # fmt: skip
    return result


def save_model(path: Path, state: dict[str, Any], args: argparse.Namespace, data: ArmData, **extra: Any) -> None:
    from classifier import CHECKPOINT_FORMAT

    save_checkpoint(path, {
        "format": CHECKPOINT_FORMAT, "state_dict": state, "frozen": not args.unfreeze,
        "image_size": args.image_size, "split_sha256": data.splits.sha256, "data_sha256": data.dataset.data_sha256,
        "seed": args.seed, "config": public_config(args), **extra,
    })  # fmt: skip


def save_figures(args: argparse.Namespace, prefix: str, history: dict[str, Any]) -> None:
    import plots

    name = prefix.rstrip("_")
    save_figure(paths.loss_figure(args.figures_dir, prefix), plots.training_curves(history, "loss", name))
    save_figure(paths.acc_figure(args.figures_dir, prefix), plots.training_curves(history, "acc", name))
    suffix = paths.cv_summary("", "").name
    files = sorted(Path(args.results_dir).glob(f"*_{suffix}"), key=lambda file: (not file.name.startswith("base"), file))
    summaries = {file.name.removesuffix(f"_{suffix}"): load_json(file) for file in files}
    if summaries:
        save_figure(paths.cv_comparison_figure(args.figures_dir), plots.cv_comparison(summaries))


# --- resuming --------------------------------------------------------------------------------------
def prepare_state_folder(args: argparse.Namespace, prefix: str, data: ArmData) -> Path:
    """The folder of the unfinished run: emptied without --resume, checked against this run with it."""
    folder = paths.classifier_state(args.model_dir, prefix)
    run_file = folder / "run.json"
    hardware = {"workers", "resume", "model_dir", "results_dir", "figures_dir", "synthetic_dir", "data_dir", "splits"}
    run = {key: value for key, value in public_config(args).items() if key not in hardware}
    run |= {"split_sha256": data.splits.sha256, "data_sha256": data.dataset.data_sha256,
            "manifest_sha256": data.synthetic.manifest_sha256 if data.synthetic else None,
            "skipped_images": data.skipped()["image_ids"]}  # fmt: skip
    if args.resume and run_file.is_file():
        earlier = load_json(run_file)
        for key in run:
            if earlier.get(key) != run[key]:
                raise UserError(
                    f"--resume: the interrupted run had {key} {earlier.get(key)}, this one has {run[key]}; give "
                    "the same options, or leave --resume out to start from the beginning"
                )
        return folder
    if args.resume:
        print("--resume: nothing to resume, starting from the beginning")
    elif folder.is_dir():
        print(f"{folder} holds an interrupted run, which --resume would have continued; starting from the beginning")
    shutil.rmtree(folder, ignore_errors=True)
    save_json(run_file, run)
    return folder


def remove_stale(args: argparse.Namespace, prefix: str) -> None:
    """A run without folds must not leave the folds of an earlier run beside its results."""
    for file in (
        paths.cv_summary(args.results_dir, prefix),
        paths.cv_predictions(args.results_dir, prefix),
        paths.best_fold_model(args.model_dir, prefix),
    ):
        if file.is_file():
            print(f"removing {file}: it belongs to an earlier run with folds")
            file.unlink()


# --- main ------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    import numpy as np

    from fitting import Recipe

    prefix = paths.AUGMENTED_PREFIX if args.use_synthetic else paths.BASELINE_PREFIX
    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    data = load_arm_data(args)
    epochs_final, epochs_from = planned_epochs(args, data.splits)
    recipe = Recipe(args.epochs, args.batch_size, args.lr, args.weight_decay, args.schedule, precision)
    if epochs_final and epochs_final > recipe.epochs and args.schedule != "none":
        raise UserError(f"--schedule {args.schedule} ends after --epochs {recipe.epochs}, before {epochs_final} epochs")
    state_folder = prepare_state_folder(args, prefix, data)
    print(describe_run(args, data, device, precision))
    trainer = Trainer(args, data, device, recipe)

    fold_results = []
    if args.k_folds or epochs_final is None:
        fold_results = train_folds(trainer, data, args, state_folder)
    if epochs_final is None:
        epochs_final = median_epoch([result.best_epoch for _, _, result in fold_results])
    n_real = len(data.train.records)
    pool = np.concatenate([np.arange(n_real), synthetic_rows(data, n_real, args.synthetic_ratio)])
    print(f"final model: {n_real:,} training images, {epochs_final} epochs ({epochs_from})")
    final = trainer.fit("final", pool, n_real, state_folder, args.resume, stop_after=epochs_final)

    write_results(args, prefix, data, trainer, fold_results, final, device, (epochs_final, epochs_from))
    shutil.rmtree(state_folder, ignore_errors=True)


def describe_run(args: argparse.Namespace, data: ArmData, device: torch.device, precision: str) -> str:
    n_synthetic = len(synthetic_rows(data, len(data.train.records), args.synthetic_ratio))
    layers = "all layers" if args.unfreeze else "last layer only"
    extra = f" + {n_synthetic:,} synthetic" if n_synthetic else ""
    return (
        f"ResNet-50 ({layers}, weights {public_path(args.weights)}) on {device}, {precision}, "
        f"{len(data.train.records):,} real{extra} training images of {args.image_size} px"
    )


def write_results(
    args: argparse.Namespace,
    prefix: str,
    data: ArmData,
    trainer: Trainer,
    fold_results: list[tuple[int, np.ndarray, Fit]],
    final: Fit,
    device: torch.device,
    epochs: tuple[int, str],
) -> None:
    """All files of the arm; ``final_metrics.json`` comes last, so that its presence means all are there."""
    results_dir = Path(args.results_dir)
    history = {
        "folds": [{"fold": fold, "best_epoch": result.best_epoch, **result.curves()}
                  for fold, _, result in fold_results],
        "final": {"epochs": epochs[0], **final.curves()},
    }  # fmt: skip
    cv_predictions = None
    if args.k_folds:
        summary, cv_predictions = summarise_folds(data, fold_results, args.k_folds)
        save_json(paths.cv_summary(results_dir, prefix), summary)
        save_csv(paths.cv_predictions(results_dir, prefix), cv_predictions)
        best = min(fold_results, key=lambda item: min(item[2].history["val_loss"]))
        state = trainer.full_state(best[2])
        save_model(paths.best_fold_model(args.model_dir, prefix), state, args, data, prefix=prefix, fold=best[0])
    else:
        remove_stale(args, prefix)
    save_model(paths.classifier_model(args.model_dir, prefix), trainer.full_state(final), args, data, prefix=prefix)

    probabilities = trainer.probabilities(final, data.test.pixels)
    save_csv(paths.test_predictions(results_dir, prefix), prediction_table(data.test.records, probabilities))
    if data.unlabelled is not None:
        table = data.unlabelled.records[["image_id"]].copy()
        table["probability"] = trainer.probabilities(final, data.unlabelled.pixels)
        save_csv(paths.unlabelled_predictions(results_dir, prefix), table)
    save_json(paths.training_history(results_dir, prefix), history)
    save_figures(args, prefix, history)
    metrics = {
        "prefix": prefix, "config": public_config(args), "environment": environment(device),
        "precision": trainer.recipe.precision, "seed": args.seed, "data_sha256": data.dataset.data_sha256,
        "split_sha256": data.splits.sha256, "grouped_by": data.splits.grouped_by, "test_set": args.test_set,
        "n_train_images": len(data.train.records),
        "n_train_patients": int(data.train.records["patient"].nunique()),
        "n_synthetic": len(synthetic_rows(data, len(data.train.records), args.synthetic_ratio)),
        "synthetic": describe_synthetic(args, data), "skipped_images": data.skipped(),
        "optimizer_steps": final.steps, "epochs_final": epochs[0], "epochs_final_from": epochs[1],
        **test_metrics(data, probabilities),
        "references": reference_results(data, probabilities, cv_predictions),
        "red_flags": red_flags(args, data),
    }  # fmt: skip
    save_json(paths.final_metrics(results_dir, prefix), metrics)
    print_outcome(metrics, results_dir)


def print_outcome(metrics: dict[str, Any], results_dir: Path) -> None:
    reference = metrics["references"]["test"]
    low, high = metrics["accuracy_ci95"]
    print(
        f"test: {metrics['n_images']:,} images of {metrics['n_patients']:,} patients, accuracy "
        f"{metrics['accuracy']:.3f} (95 % CI {low:.3f} to {high:.3f}; always negative "
        f"{reference['always_negative_accuracy']:.3f}), AUROC {metrics['auroc']:.3f} "
        f"({metrics['auroc_ci95'][0]:.3f} to {metrics['auroc_ci95'][1]:.3f}; thumbnails "
        f"{reference['thumbnail_auroc']:.3f}, view+sex+age {reference['metadata_auroc']:.3f})"
    )
    for flag in metrics["red_flags"]:
        print(f"RED FLAG: {flag}")
    print(f"metrics and predictions: {results_dir}/{metrics['prefix']}*")


if __name__ == "__main__":
    run_script(main)
