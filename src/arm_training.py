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
from fitting import Fit, Recipe, fit, fit_from_dict, fit_to_dict
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
    fitted on them; else whole networks are fitted on pixels. ``state_folder`` keeps finished and unfinished
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
        seed: int,
        device: torch.device,
        state_folder: Path,
        resume: bool,
    ) -> None:
        self.data, self.recipe, self.device, self.seed = data, recipe, device, seed
        self.weights, self.frozen = weights, frozen
        self.state_folder, self.resume = state_folder, resume
        self.cached = frozen and augment == "none"
        self.backbone = self._new_classifier("backbone") if self.cached else None
        pixels, labels = data.pool()
        self.inputs = self._pipeline(pixels, augment)
        self.labels = torch.from_numpy(labels).to(device)

    def train_folds(self, k: int, ratio: float | None) -> list[FoldFit]:
        """One fit per fold; with ``k`` 0 one fit that leaves out the validation tenth."""
        results = []
        for fold in range(1, (k or 1) + 1):
            val_rows = np.flatnonzero(self.data.folds == fold)
            train_rows = np.flatnonzero(self.data.folds != fold)
            name = f"fold_{fold}" if k else "validation"
            result = self._fit(name, train_rows, ratio, val_rows=val_rows)
            print(_describe_fit(name, result, self.recipe.epochs))
            results.append(FoldFit(fold if k else 0, val_rows, result))
        return results

    def train_final(self, epochs: int, ratio: float | None) -> Fit:
        """One fit on all training images, stopped after ``epochs`` of the recipe's schedule."""
        return self._fit("final", np.arange(self.data.n_real), ratio, stop_after=epochs)

    def probabilities(self, result: Fit, pixels: np.ndarray) -> np.ndarray:
        """float64 [N] for uint8 [N, S, S], from the fitted weights."""
        module = self._new_module("prediction")
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

    def _fit(self, name: str, train_rows: np.ndarray, ratio: float | None, **options: Any) -> Fit:
        finished = self.state_folder / f"{name}.pth"
        unfinished = self.state_folder / f"{name}_state.pth"
        if self.resume and finished.is_file():
            print(f"{name}: finished before the interruption")
            return fit_from_dict(load_checkpoint(finished))
        result = fit(
            self._new_module(name),
            self.inputs,
            self.labels,
            pool=np.concatenate([train_rows, self.data.synthetic_rows(len(train_rows), ratio)]),
            n_real=len(train_rows),
            recipe=self.recipe,
            seed=derive_seed(self.seed, "fit", name),
            state_file=unfinished,
            resume=self.resume,
            desc=name.replace("_", " "),
            **options,
        )
        save_checkpoint(finished, fit_to_dict(result))
        unfinished.unlink(missing_ok=True)
        return result

    def _new_module(self, name: str) -> nn.Module:
        """A fresh network, or a fresh head on the shared frozen features."""
        if not self.cached:
            return self._new_classifier(name)
        set_seed(derive_seed(self.seed, "weights", name))
        return ClassifierHead().to(self.device)

    def _new_classifier(self, name: str) -> PneumoniaClassifier:
        set_seed(derive_seed(self.seed, "weights", name))
        model = build_classifier(self.weights, self.frozen)
        return model.to(self.device, memory_format=torch.channels_last)

    def _pipeline(self, pixels: np.ndarray, augment: str = "none") -> InputPipeline:
        if self.cached:
            pixels = extract_features(
                self.backbone, pixels, device=self.device, precision=self.recipe.precision, progress=tqdm
            )
        return InputPipeline(torch.from_numpy(pixels).to(self.device), augment)


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
