"""Results as the other scripts write them, made up: for tests of what reads them, without any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import paths
from classifier import CHECKPOINT_FORMAT, PneumoniaClassifier
from data_loader import load_dataset
from metrics import classification_metrics, cluster_bootstrap_ci, mean_and_std, wilson_interval
from splits import TEST, TRAIN, load_or_create_splits, select
from utils import save_checkpoint, save_csv, save_json

SPLIT = "5" * 64


def fake_records(n_images: int = 120, seed: int = 0) -> pd.DataFrame:
    """Test images of people who do not exist: image_id, patient, class, view, sex, age, label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n_images) < 0.25).astype(int)
    return pd.DataFrame(
        {
            "image_id": [f"image{i:04d}" for i in range(n_images)],
            "patient": [f"{i // 2:08d}" for i in range(n_images)],
            "class": np.where(labels == 1, "Lung Opacity", "Normal"),
            "view": rng.choice(["AP", "PA"], n_images),
            "sex": rng.choice(["F", "M"], n_images),
            "age": rng.integers(1, 90, n_images),
            "label": labels,
        }
    )


def write_arm(
    metrics_dir: Path,
    name: str,
    records: pd.DataFrame,
    *,
    skill: float = 1.0,
    seed: int = 0,
    folds: int = 0,
    contaminated: bool = False,
    n_synthetic: int = 0,
    **overrides,
) -> dict:
    """All result files of an arm whose logit is ``skill`` * label + noise; returns its final metrics."""
    prefix = f"{name}_"
    labels, patients = records["label"].to_numpy(), list(records["patient"])
    logits = skill * (2 * labels - 1) - 0.8 + np.random.default_rng(seed).normal(size=len(labels))
    probabilities = 1 / (1 + np.exp(-logits))
    predictions = records.assign(probability=probabilities, predicted=(probabilities >= 0.5).astype(int))
    scores = classification_metrics(labels, probabilities)
    auroc_ci = cluster_bootstrap_ci(labels, probabilities, patients, "auroc", n_resamples=100)
    metrics = {
        "prefix": prefix, "config": {}, "environment": {}, "seed": 42, "data_sha256": "d" * 64,
        "split_sha256": SPLIT, "grouped_by": "nih_patient", "test_set": "split", "n_images": len(labels),
        "n_patients": len(set(patients)), "n_positive": int(labels.sum()), "prevalence": float(labels.mean()),
        "n_train_images": 360, "n_train_patients": 301, "n_synthetic": n_synthetic,
        "skipped_images": {"count": 0, "image_ids": []}, "optimizer_steps": 84, "epochs_final": 7, **scores,
        "accuracy_ci95": wilson_interval(round(scores["accuracy"] * len(labels)), len(labels)),
        "auroc_ci95": auroc_ci,
        "references": {
            "test": {
                "always_negative_accuracy": 1 - float(labels.mean()), "metadata_auroc": 0.62,
                "thumbnail_auroc": 0.7, "auroc_minus_thumbnail": scores["auroc"] - 0.7,
                "auroc_minus_thumbnail_ci95": [scores["auroc"] - 0.8, scores["auroc"] - 0.6],
            },
            "out_of_fold": None,
        },
        "synthetic": {"label": 1, "n_used": n_synthetic} if n_synthetic else None, "red_flags": [],
        **overrides,
    }  # fmt: skip
    save_json(paths.final_metrics(metrics_dir, prefix), metrics)
    save_csv(paths.test_predictions(metrics_dir, prefix), predictions)
    save_json(paths.training_history(metrics_dir, prefix), fake_history(folds, seed))
    if folds:
        save_json(paths.cv_summary(metrics_dir, prefix), fake_cv(folds, contaminated, seed))
    return metrics


def fake_history(folds: int, seed: int = 0, epochs: int = 8) -> dict:
    rng = np.random.default_rng(seed)
    curves = [_fake_curves(rng, epochs) for _ in range(folds + 1)]
    return {
        "folds": [
            {"fold": i, "best_epoch": int(np.argmin(curve["val_loss"])) + 1, **curve}
            for i, curve in enumerate(curves[1:], start=1)
        ],
        "final": {"epochs": epochs, **curves[0], "val_loss": None, "val_acc": None},
    }


def _fake_curves(rng: np.random.Generator, epochs: int) -> dict[str, list[float]]:
    t = np.arange(epochs)
    train_loss = 0.3 + 0.4 * np.exp(-t / 4) + rng.normal(0, 0.01, epochs)
    val_loss = 0.45 + 0.25 * np.exp(-t / 3) + 0.006 * t + rng.normal(0, 0.01, epochs)
    return {
        "train_loss": train_loss.tolist(), "train_acc": (1 - train_loss / 2.5).tolist(),
        "val_loss": val_loss.tolist(), "val_acc": (1 - val_loss / 2.4).tolist(),
    }  # fmt: skip


def fake_cv(folds: int, contaminated: bool = False, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    means = {"accuracy": 0.78, "weighted_precision": 0.77, "weighted_recall": 0.78, "weighted_f1": 0.76,
             "auroc": 0.81, "auprc": 0.6, "sensitivity": 0.55, "specificity": 0.86, "brier": 0.15,
             "val_loss": 0.46}  # fmt: skip
    rows = [
        {"fold": i, "n_images": 72, "n_patients": 60, "best_epoch": 5,
         **{key: value + rng.normal(0, 0.02) for key, value in means.items()}}
        for i in range(1, folds + 1)
    ]  # fmt: skip
    mean, std = mean_and_std(rows)
    return {"k": folds, "contaminated": contaminated, "note": "", "n_images": 360, "n_patients": 301,
            "grouped_by": "nih_patient", "split_sha256": SPLIT, "folds": rows, "mean": mean, "std": std,
            "out_of_fold": means}  # fmt: skip


def write_synthetic(folder: Path, data_dir: Path, count: int = 24, size: int = 32, **overrides) -> None:
    """Noisy copies of training positives of ``data_dir`` with the manifest of a generator that saw them."""
    dataset = load_dataset(data_dir)
    splits = load_or_create_splits(dataset)
    positives = select(dataset, splits, TRAIN, label=1)
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(1, count + 1):
        with Image.open(positives["path"][index % len(positives)]) as image:
            pixels = np.asarray(image.convert("L").resize((size, size)), dtype=float)
        noisy = (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(paths.synthetic_image(folder, index))
    manifest = {
        "format": "synthetic-manifest-1", "generator_sha256": "a" * 64, "generator": "generator_final.pth",
        "split_sha256": splits.sha256, "data_sha256": dataset.data_sha256, "grouped_by": splits.grouped_by,
        "classes": "positive", "label": 1, "image_size": size, "count": count, "seed": 42,
        "train_image_ids": list(positives["image_id"]),
        "train_patients": sorted(set(positives["patient"])), **overrides,
    }  # fmt: skip
    save_json(paths.synthetic_manifest(folder), manifest)


def write_classifier(model_dir: Path, split_sha256: str, image_size: int = 32) -> None:
    """A baseline classifier with random weights."""
    torch.manual_seed(0)
    state = PneumoniaClassifier(frozen=False).state_dict()
    content = {"format": CHECKPOINT_FORMAT, "state_dict": state, "frozen": False, "image_size": image_size,
               "prefix": paths.BASELINE_PREFIX, "split_sha256": split_sha256}  # fmt: skip
    save_checkpoint(paths.classifier_model(model_dir, paths.BASELINE_PREFIX), content)


def held_out_records(data_dir: Path) -> tuple[pd.DataFrame, str]:
    """The test images of a dataset, and the sha256 of its split."""
    dataset = load_dataset(data_dir)
    splits = load_or_create_splits(dataset)
    return select(dataset, splits, TEST).drop(columns=["path", "n_boxes"]), splits.sha256
