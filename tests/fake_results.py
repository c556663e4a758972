"""Results as the other scripts write them, made up: for tests of what reads them, without any training."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from classifier import CHECKPOINT_FORMAT, PneumoniaClassifier
from common import paths
from dataset.records import load_dataset
from dataset.splits import TEST, TRAIN, load_or_create_splits, select
from networks.backbones import DEFAULT
from stats.bootstrap import PatientDraws, percentile_interval
from stats.metric_registry import METRICS, classification_metrics, mean_and_std
from utils import save_checkpoint, save_csv, save_json

SPLIT = "5" * 64


def remembered(compute: Callable[..., Any]) -> Callable[..., Any]:
    """``compute`` that returns a copy of what it found for the same arguments and metrics before."""
    found: dict[bytes, Any] = {}

    @wraps(compute)
    def recall(*given: Any, **named: Any) -> Any:
        key = pickle.dumps((given, named, list(METRICS)))
        if key not in found:
            found[key] = compute(*given, **named)
        return copy.deepcopy(found[key])

    return recall


scores_of = remembered(classification_metrics)


def a_plan(**changes) -> dict:
    """The content of a plan.json; ``changes`` replace keys."""
    plan = {
        "format": "comparison-plan-1",
        "primary": {"arm": "augmented", "against": "control_duplicate", "metric": "auroc", "margin": 1.0},
        "study": {"folds": None, "gans": 1, "repeats": 3, "seed": 42},
        "images": {"n_images": 120, "n_patients": 60, "n_positive": 30, "data_sha256": "d" * 64,
                   "split_sha256": [SPLIT]},
        "detectable": {"difference": 0.08, "assumed": "much"},
        "options": {"train_classifier": {"lr": [0.001], "unfreeze": [False], "k_folds": [5, 0], "bits": [None]}},
    }  # fmt: skip
    return plan | changes


def fake_records(n_images: int = 120, seed: int = 0) -> pd.DataFrame:
    """Test images of people who do not exist: image_id, patient, class, view, sex, age, label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n_images) < 0.25).astype(int)
    records = pd.DataFrame(
        {
            "image_id": [f"image{i:04d}" for i in range(n_images)],
            "patient": [f"{i // 2:08d}" for i in range(n_images)],
            "class": "Lung Opacity",
            "view": rng.choice(["AP", "PA"], n_images),
            "sex": rng.choice(["F", "M"], n_images),
            "age": rng.integers(1, 90, n_images),
            "label": labels,
        }
    )
    negative = rng.choice(["Normal", "No Lung Opacity / Not Normal"], n_images)
    return records.assign(**{"class": np.where(labels == 1, "Lung Opacity", negative)})


def fake_probabilities(labels: np.ndarray, skill: float, seed: int, runs: int = 1) -> np.ndarray:
    """float [runs, N]: the logit is ``skill`` * (+-1) - 0.8 + noise; with several runs they share half of
    its variance."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(1, len(labels)))
    if runs > 1:
        noise = np.sqrt(0.5) * (noise + rng.normal(size=(runs, len(labels))))
    return 1 / (1 + np.exp(-(skill * (2 * labels - 1) - 0.8 + noise)))


def fake_few_labels(**changes) -> dict:
    """What final metrics say about few labels."""
    known = {"labelled_sha256": "a" * 64, "n_hidden": 300, "n_hidden_patients": 250, "n_unlabelled": 0, "models": 3}
    return known | {"mean_soft_label": 0.3, "near_copies": None} | changes


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
    repeats: int = 1,
    **overrides,
) -> dict:
    """All result files of an arm (``skill``, ``seed``: see ``fake_probabilities``), those of its ``repeats``
    too; ``overrides`` replace keys of its final metrics, which are returned."""
    prefix = f"{name}_"
    labels, patients = records["label"].to_numpy(), list(records["patient"])
    runs = fake_probabilities(labels, skill, seed, repeats)
    probabilities = runs.mean(axis=0)
    scores = scores_of(labels, probabilities)
    seeds = list(range(42, 42 + repeats))
    origin = {
        "config": {}, "split_sha256": SPLIT, "data_sha256": "d" * 64, "grouped_by": "nih_patient",
        "unmapped_images": 0, "manifest_sha256": {}, "skipped_images": {"count": 0, "image_ids": []},
        "red_flags": [],
    }  # fmt: skip
    if "synthetic" in overrides or n_synthetic:
        overrides["synthetic"] = fake_synthetic(n_synthetic) | overrides.get("synthetic", {})
    metrics = {
        "prefix": prefix, **origin, "environment": {}, "processes": 1, "precision": "fp32",
        "test_set": "split", "train_fraction": 1.0, "n_train_images": 360, "n_train_patients": 301,
        "n_train_positive": 90, "n_synthetic": n_synthetic, "n_duplicated": 0,
        "n_extra_positive": n_synthetic, "class_weights": None, "synthetic_shares": None, "synthetic": None,
        "optimizer_steps": 84, "epochs_final": 7, "epochs_final_from": "--epochs-final", "seed": 42,
        "repeats": repeats, "seeds": seeds, "per_repeat": [], "n_images": len(labels),
        "n_patients": len(set(patients)), "n_positive": int(labels.sum()),
        "prevalence": float(labels.mean()), **scores, **fake_intervals(labels, probabilities, patients),
        "references": {
            "test": {
                "always_negative_accuracy": 1 - float(labels.mean()), "metadata_auroc": 0.62,
                "thumbnail_auroc": 0.7, "auroc_minus_thumbnail": scores["auroc"] - 0.7,
                "auroc_minus_thumbnail_ci95": [scores["auroc"] - 0.8, scores["auroc"] - 0.6],
            },
            "out_of_fold": None,
        },
        **overrides,
    }  # fmt: skip
    save_json(paths.final_metrics(metrics_dir, prefix), metrics)
    save_csv(paths.test_predictions(metrics_dir, prefix), _predictions(records, probabilities))
    for number, of_run in enumerate(runs if repeats > 1 else [], start=1):
        own = paths.repeat_prefix(prefix, number)
        save_csv(paths.test_predictions(metrics_dir, own), _predictions(records, of_run))
        run_scores = scores_of(labels, of_run)
        save_json(paths.final_metrics(metrics_dir, own), metrics | run_scores | {"seed": seeds[number - 1]})
    origin = {key: metrics[key] for key in origin}
    save_json(paths.training_history(metrics_dir, prefix), fake_history(folds, seed) | origin)
    if folds:
        summary = fake_cv(folds, contaminated, seed, skill) | origin
        save_json(paths.cv_summary(metrics_dir, prefix), summary)
        save_csv(paths.cv_predictions(metrics_dir, prefix), fake_out_of_fold(folds, seed, skill))
    return metrics


@remembered
def fake_intervals(labels: np.ndarray, probabilities: np.ndarray, patients: list[str]) -> dict:
    """The intervals of final metrics, from few resamples."""
    found, draws = {}, PatientDraws(patients, 100)
    for name, metric in METRICS.items():
        if metric.weighted:
            found[f"{name}_ci95"] = percentile_interval(draws.scores(metric, labels, probabilities))
        if metric.image_level:
            found[f"{name}_ci95_image_level"] = metric.image_level(labels, probabilities)
    return found


def fake_synthetic(n: int) -> dict:
    """What final metrics say about ``n`` synthetic positives of one folder."""
    return {
        "n_used": n, "n_available": n, "ratio": n / 360, "label": 1, "verified": True,
        "generator_sha256": None, "manifest_sha256": None, "dir": "data/synthetic", "folders": [],
        "folds_of_their_own": [], "trained_on": True,
    }  # fmt: skip


def _predictions(records: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    return records.assign(probability=probabilities, predicted=(probabilities >= 0.5).astype(int))


def fake_history(folds: int, seed: int = 0, epochs: int = 8) -> dict:
    rng = np.random.default_rng(seed)
    curves = [_fake_curves(rng, epochs) for _ in range(folds + 1)]
    return {
        "folds": [
            {"fold": i, "best_epoch": int(np.argmin(curve["val_loss"])) + 1, **curve}
            for i, curve in enumerate(curves[1:], start=1)
        ],
        "final": {
            "repeat": 1, "seed": 42, "epochs": epochs, **curves[0], "val_loss": None, "val_acc": None,
        },
    }  # fmt: skip


def _fake_curves(rng: np.random.Generator, epochs: int) -> dict[str, list[float]]:
    t = np.arange(epochs)
    train_loss = 0.3 + 0.4 * np.exp(-t / 4) + rng.normal(0, 0.01, epochs)
    val_loss = 0.45 + 0.25 * np.exp(-t / 3) + 0.006 * t + rng.normal(0, 0.01, epochs)
    return {
        "train_loss": train_loss.tolist(), "train_acc": (1 - train_loss / 2.5).tolist(),
        "val_loss": val_loss.tolist(), "val_acc": (1 - val_loss / 2.4).tolist(),
    }  # fmt: skip


@remembered
def fake_out_of_fold(folds: int, seed: int = 0, skill: float = 1.0) -> pd.DataFrame:
    """Predictions of 360 training images of 301 other people, each by the fit that did not see it."""
    records = fake_records(360, seed=99)  # the same people for every arm
    person = np.arange(360) % 301
    patients = [f"train{number:04d}" for number in person]
    records = records.assign(image_id="train" + records["image_id"], patient=patients)
    number = person % folds + 1
    probabilities = fake_probabilities(records["label"].to_numpy(), skill, seed + 1000)[0]
    return _predictions(records, probabilities).assign(fold=number)


@remembered
def fake_cv(folds: int, contaminated: bool = False, seed: int = 0, skill: float = 1.0) -> dict:
    """The summary of ``fake_out_of_fold``."""
    table = fake_out_of_fold(folds, seed, skill)
    rng = np.random.default_rng(seed)
    rows = [
        {
            "fold": int(number), "n_images": len(part), "n_patients": part["patient"].nunique(),
            "best_epoch": 5, "val_loss": 0.46 + rng.normal(0, 0.02),
            **classification_metrics(part["label"].to_numpy(), part["probability"].to_numpy()),
        }
        for number, part in table.groupby("fold")
    ]  # fmt: skip
    mean, std = mean_and_std(rows)
    out_of_fold = classification_metrics(table["label"].to_numpy(), table["probability"].to_numpy())
    return {
        "k": folds, "contaminated": contaminated, "contaminated_folds": [1] if contaminated else [],
        "note": "", "n_images": len(table), "n_patients": table["patient"].nunique(),
        "grouped_by": "nih_patient", "split_sha256": SPLIT, "folds": rows, "mean": mean, "std": std,
        "out_of_fold": out_of_fold,
    }  # fmt: skip


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


def write_classifier(model_dir: Path, split_sha256: str, backbone: str = DEFAULT) -> None:
    """A baseline classifier with random weights."""
    torch.manual_seed(0)
    state = PneumoniaClassifier(frozen=False, name=backbone).state_dict()
    content = {"format": CHECKPOINT_FORMAT, "backbone": backbone, "state_dict": state, "frozen": False,
               "image_size": 32, "prefix": "baseline_", "split_sha256": split_sha256}  # fmt: skip
    save_checkpoint(paths.classifier_model(model_dir, "baseline_", backbone), content)


def held_out_records(data_dir: Path) -> tuple[pd.DataFrame, str]:
    """The test images of a dataset, and the sha256 of its split."""
    dataset = load_dataset(data_dir)
    splits = load_or_create_splits(dataset)
    return select(dataset, splits, TEST).drop(columns=["path", "n_boxes"]), splits.sha256
