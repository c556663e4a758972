"""Training runs of one arm that predict together: the mean of their probabilities, and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arms.operating_points import find_operating_points
from classifier import gradcam_maps
from common import paths
from image_metrics.outliers import OutlierSpace
from prediction.models import InputRecipe, LoadedModel, Predictor, load_models, require_one_recipe
from stats.calibration import OperatingPoints, apply_temperature
from stats.metrics import THRESHOLD
from utils import public_path


@dataclass(frozen=True)
class Decision:
    """One image: ``probability`` and, with operating points, the calibrated one and decisions by three thresholds.

    None is what cannot be told without operating points.
    """

    probability: float
    calibrated: float | None
    at_050: bool
    at_youden: bool | None
    at_sensitivity_90: bool | None


class Ensemble:
    """Models of one recipe on a device.

    ``points``: temperature and thresholds for their mean, None if there are none; ``points_note`` says what they
    were chosen on, or why there are none. ``space`` tells what is unlike the training images; ``largest_aspect`` is
    the ratio of longer and shorter side that training images have at most.
    """

    def __init__(self, models: Sequence[LoadedModel], results_dir: str | Path, device: torch.device) -> None:
        require_one_recipe(models)
        self.models, self.device = list(models), device
        self.predictor = Predictor(models, device)
        first = models[0].checkpoint
        self.points: OperatingPoints | None = first["operating_points"] if len(models) == 1 else None
        self.points_note = first["operating_points_note"]
        if self.points is None:
            seeds = [model.checkpoint["seed"] for model in models]
            self.points, self.points_note = find_operating_points(results_dir, first["recipe_sha256"], seeds)
        outliers = first["outliers"]
        self.space = OutlierSpace.from_state(outliers) if outliers else None
        self.largest_aspect: float | None = first["largest_aspect"]
        flags = [flag for model in models for flag in model.checkpoint.get("weights_flags", [])]
        flags += [
            f"{public_path(model.file)} was trained without fold {model.checkpoint['fold']}; the final model is "
            f"{paths.classifier_model('', model.checkpoint['prefix'], model.checkpoint['backbone'])}"
            for model in models
            if not model.is_final
        ]
        self.red_flags = list(dict.fromkeys(flags))

    @property
    def inputs(self) -> InputRecipe:
        """How its images are read."""
        return self.predictor.inputs

    @property
    def identity(self) -> list[Any]:
        """What decides its answers: the weights and the operating points."""
        return [sorted(model.sha256 for model in self.models), self.points, self.device.type]

    def decide(self, pixels: np.ndarray) -> list[Decision]:
        """Predict ``pixels`` uint8 [N, S, S]."""
        probabilities = self.predictor.probabilities(pixels).mean(axis=0)
        if self.points is None:
            return [Decision(float(p), None, bool(p >= THRESHOLD), None, None) for p in probabilities]
        calibrated = apply_temperature(probabilities, self.points["temperature"])
        youden, sensitive = (self.points[rule]["threshold"] for rule in ("youden", "sensitivity_90"))
        return [
            Decision(float(p), float(c), bool(c >= THRESHOLD), bool(c >= youden), bool(c >= sensitive))
            for p, c in zip(probabilities, calibrated, strict=True)
        ]

    def heat_maps(self, pixels: np.ndarray) -> np.ndarray:
        """Return the mean of the models' heat maps, float32 [N, S, S], each scaled to its own maximum."""
        maps = np.mean([gradcam_maps(model.network, pixels, device=self.device) for model in self.models], axis=0)
        peak = maps.max(axis=(1, 2), keepdims=True)
        return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)


def load_ensemble(files: Sequence[str | Path], results_dir: str | Path, device: torch.device) -> Ensemble:
    """Load the models in ``files``; raises ``UserError`` if one is none or they do not belong together."""
    return Ensemble(load_models(files), results_dir, device)
