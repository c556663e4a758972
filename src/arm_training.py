"""Fitting one arm: fresh networks or heads on subsets of its pool, folds, and predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from arm_data import ArmData
from classifier import (
    ClassifierHead,
    InputPipeline,
    PneumoniaClassifier,
    build_classifier,
    cpu_state_dict,
    extract_features,
    predict_batches,
)
from data_loader import as_tensor
from fitting import Fit, Pool, Recipe, fit, fit_from_dict, fit_to_dict
from treatments import CLASS_WEIGHT, DUPLICATE, Treatment, balance_weights
from utils import derive_seed, load_checkpoint, save_checkpoint, set_seed


@dataclass(frozen=True)
class FoldFit:
    """The fit that did not see ``val_rows``; ``fold`` counts from 1, and is 0 for the validation tenth."""

    fold: int
    val_rows: np.ndarray
    fit: Fit

    def probabilities(self) -> np.ndarray:
        """Of the held-out images, at the best epoch."""
        return sigmoid(self.fit.val_logits)


class ArmTrainer:
    """Fits classifiers on subsets of one pool of inputs.

    With a frozen backbone and no augmentation the backbone's features are computed once and only heads are
    fitted on them; else whole networks are fitted on pixels. ``treatment`` and ``ratio`` (synthetic images
    per real one; None: all) say what joins the real images. ``state_folder`` keeps finished and unfinished
    fits until the whole run is done; with ``resume`` they are taken up again.
    """

    def __init__(
        self,
        data: ArmData,
        recipe: Recipe,
        *,
        weights: str,
        frozen: bool,
        augment: str,
        treatment: Treatment,
        ratio: float | None,
        seed: int,
        device: torch.device,
        state_folder: Path,
        resume: bool,
    ) -> None:
        self.data, self.recipe, self.device, self.seed = data, recipe, device, seed
        self.treatment, self.ratio = treatment, ratio
        self.weights, self.frozen = weights, frozen
        self.state_folder, self.resume = state_folder, resume
        self.cached = frozen and augment == "none"
        self.backbone = self._new_classifier("backbone", seed) if self.cached else None
        pixels, labels = data.pool()
        self.inputs = self._pipeline(pixels, augment)
        self.labels = torch.from_numpy(labels).to(device)

    def train_folds(self, k: int) -> list[FoldFit]:
        """One fit per fold; with ``k`` 0 one fit that leaves out the validation tenth."""
        results = []
        for fold in range(1, (k or 1) + 1):
            val_rows = np.flatnonzero(self.data.folds == fold)
            train_rows = np.flatnonzero(self.data.folds != fold)
            name = f"fold_{fold}" if k else "validation"
            result = self._fit(name, self.seed, train_rows, fold if k else 0, val_rows=val_rows)
            print(_describe_fit(name, result, self.recipe.epochs))
            results.append(FoldFit(fold if k else 0, val_rows, result))
        return results

    def train_final(self, epochs: int, repeat: int = 1) -> Fit:
        """One fit on all training images, stopped after ``epochs`` of the recipe's schedule.

        Repeat r is what a single run with the r - 1st seed after the first would give.
        """
        seed = self.seed + repeat - 1
        state = f"final_r{repeat}"
        return self._fit("final", seed, np.arange(self.data.n_real), 0, stop_after=epochs, state_name=state)

    def extra_rows(self, name: str, seed: int, train_rows: np.ndarray, fold: int) -> np.ndarray:
        """Rows of the pool that join ``train_rows``: synthetic images, or real ones again."""
        if self.treatment.synthetic:
            return self.data.synthetic_rows(fold, len(train_rows), self.ratio)
        if self.treatment.control != DUPLICATE:
            return train_rows[:0]
        label = self.data.synthetic_of(fold).label
        candidates = train_rows[self.data.train.records["label"].to_numpy()[train_rows] == label]
        n = self.data.n_synthetic(fold, len(train_rows), self.ratio)
        return np.random.default_rng(derive_seed(seed, "duplicates", name)).choice(candidates, n)

    def class_weights(self, train_rows: np.ndarray, fold: int) -> tuple[float, float] | None:
        """Factors of the loss of negatives and positives, where the arm is the control that weights it."""
        if self.treatment.control != CLASS_WEIGHT:
            return None
        positive = int(self.data.train.records["label"].to_numpy()[train_rows].sum())
        n = self.data.n_synthetic(fold, len(train_rows), self.ratio)
        return balance_weights(positive, len(train_rows), n, self.data.synthetic_of(fold).label)

    def probabilities(self, result: Fit, pixels: np.ndarray) -> np.ndarray:
        """float64 [N] for uint8 [N, S, S], from the fitted weights."""
        module = self._new_module("prediction", self.seed)
        module.load_state_dict(result.state_dict)
        logits = predict_batches(
            module.eval(),
            self._pipeline(pixels),
            np.arange(len(pixels)),
            batch_size=2 * self.recipe.batch_size,
            precision=self.recipe.precision,
        )
        return sigmoid(logits)

    def full_state(self, result: Fit) -> dict[str, torch.Tensor]:
        """Weights of the whole classifier, shared frozen backbone included."""
        shared = cpu_state_dict(self.backbone) if self.cached else {}
        return {**shared, **result.state_dict}

    def _fit(
        self, name: str, seed: int, train_rows: np.ndarray, fold: int, state_name: str = "", **options: Any
    ) -> Fit:
        state_name = state_name or name
        finished = self.state_folder / f"{state_name}.pth"
        unfinished = self.state_folder / f"{state_name}_state.pth"
        if self.resume and finished.is_file():
            print(f"{state_name}: finished before the interruption")
            return fit_from_dict(load_checkpoint(finished))
        result = fit(
            self._new_module(name, seed),
            self.inputs,
            self.labels,
            pool=Pool(train_rows, self.extra_rows(name, seed, train_rows, fold), self.treatment.shares),
            recipe=self.recipe,
            seed=derive_seed(seed, "fit", name),
            class_weights=self.class_weights(train_rows, fold),
            state_file=unfinished,
            resume=self.resume,
            desc=state_name.replace("_", " "),
            **options,
        )
        save_checkpoint(finished, fit_to_dict(result))
        unfinished.unlink(missing_ok=True)
        return result

    def _new_module(self, name: str, seed: int) -> nn.Module:
        """A fresh network, or a fresh head on the shared frozen features."""
        if not self.cached:
            return self._new_classifier(name, seed)
        set_seed(derive_seed(seed, "weights", name))
        return ClassifierHead().to(self.device)

    def _new_classifier(self, name: str, seed: int) -> PneumoniaClassifier:
        set_seed(derive_seed(seed, "weights", name))
        model = build_classifier(self.weights, self.frozen)
        return model.to(self.device, memory_format=torch.channels_last)

    def _pipeline(self, pixels: np.ndarray, augment: str = "none") -> InputPipeline:
        if self.cached:
            pixels = extract_features(
                self.backbone, pixels, device=self.device, precision=self.recipe.precision, progress=tqdm
            )
        return InputPipeline(as_tensor(pixels).to(self.device), augment)


def sigmoid(logits: torch.Tensor) -> np.ndarray:
    return logits.double().sigmoid().numpy()


def median_epoch(best_epochs: Iterable[int]) -> int:
    """The median, rounded half up."""
    return int(np.median(list(best_epochs)) + 0.5)


def _describe_fit(name: str, result: Fit, epochs: int) -> str:
    best = result.best_epoch
    loss, acc = result.history["val_loss"][best - 1], result.history["val_acc"][best - 1]
    name = name.replace("_", " ")
    return f"{name}: best epoch {best} of {epochs}, validation loss {loss:.4f}, accuracy {acc:.3f}"
