"""The final models of an arm, and the images that they were tested on: for what must be scored again.

Nothing here is trained. A model is used only if it is the one whose predictions are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arms.result_files import Arm, probabilities_of_runs
from classifier import InputPipeline, PneumoniaClassifier, feature_caches, load_classifier, predict_batches
from common import paths
from data_loader import ImageSet
from dataset.records import load_dataset, load_official_test
from utils import UserError, as_tensor, plain, public_path, resolve_precision


@dataclass(frozen=True)
class Sources:
    """Where images and models lie, and how they are scored. ``features``: computed so far, by their space.

    ``bits``: how many of 16 bits are in use, None for all.
    """

    data_dir: str
    patient_map: str | None
    patient_column: str | None
    model_dir: str
    cache_dir: str | None
    workers: int
    seed: int
    device: torch.device
    bits: int | None = None
    features: dict[str, np.ndarray] = field(default_factory=dict)


# --- the images ------------------------------------------------------------------------------------
def find_test_records(arm: Arm, sources: Sources) -> pd.DataFrame:
    """Return all test images of ``arm``: image_id, patient, label, path, in the order of its predictions.

    Raises ``UserError`` if the data folder is not there or lacks some of them.
    """
    if not (Path(sources.data_dir) / paths.TRAIN_METADATA).is_file():
        raise UserError(f"it needs the test images: {public_path(sources.data_dir)} holds no dataset")
    tables = [load_dataset(sources.data_dir, sources.patient_map, sources.patient_column).images]
    if arm.recorded.get("test_set") == "official":
        official = load_official_test(sources.data_dir, sources.patient_map, sources.patient_column)
        tables = [official.images] if official else tables
    known = pd.concat(tables).set_index("image_id")["path"]
    wanted = arm.tested[["image_id", "patient", "label"]]
    if unknown := sorted(set(wanted["image_id"]) - set(known.index)):
        raise UserError(f"{len(unknown)} of the test images are not in {public_path(sources.data_dir)}")
    return wanted.assign(path=list(known.loc[wanted["image_id"]]))


# --- the models ------------------------------------------------------------------------------------
class FinalModels:
    """The final models of an arm's training runs. Raises ``UserError`` if one is not there."""

    def __init__(self, arm: Arm, sources: Sources) -> None:
        self.arm, self.sources = arm, sources
        repeats = arm.recorded.get("repeats", 1)
        if len(probabilities_of_runs(arm)) != repeats:
            raise UserError(f"it needs the predictions of each of the {repeats} runs of {arm.name}")
        runs = [paths.repeat_prefix(arm.prefix, number) for number in range(1, repeats + 1)]
        prefixes = runs if repeats > 1 else [arm.prefix]
        self.files = [paths.classifier_model(sources.model_dir, prefix, arm.backbone) for prefix in prefixes]
        if missing := [file for file in self.files if not file.is_file()]:
            raise UserError(f"it needs {public_path(missing[0])}; --model-dir says where the models are")

    def recorded_logits(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the mean logits, float64 [N], of test images as their files record them."""
        rows = pd.Index(self.arm.tested["image_id"]).get_indexer(list(image_ids))
        kept = probabilities_of_runs(self.arm)[:, rows].clip(1e-15, 1 - 1e-15)
        return (np.log(kept) - np.log1p(-kept)).mean(axis=0)

    def mean_logits(self, images: ImageSet) -> np.ndarray:
        """Score ``images`` with every model: mean logits, float64 [N]."""
        return np.mean([self.load(file).logits(images) for file in self.files], axis=0)

    def precision(self) -> str:
        """Return the arithmetic to score in: bfloat16 takes ages where the hardware does not multiply it."""
        fast = resolve_precision("auto", self.sources.device) == self.arm.recorded.get("precision") == "bf16"
        return "bf16" if fast else "fp32"

    def load(self, file: Path) -> FinalModel:
        """Load one of ``files``. Raises ``UserError`` if its predictions are not those that are compared."""
        model, checkpoint = load_classifier(file)
        if plain(checkpoint.get("config")) != self.arm.recorded["config"]:
            name = self.arm.name
            raise UserError(f"{public_path(file)} is not the model whose predictions are compared; train {name} again")
        return FinalModel(model, checkpoint["frozen"], self.precision(), self.sources)


@dataclass(frozen=True)
class FinalModel:
    """A loaded model in eval mode; with ``frozen``, arms and runs share the features of its backbone."""

    model: PneumoniaClassifier
    frozen: bool
    precision: str
    sources: Sources

    def logits(self, images: ImageSet) -> np.ndarray:
        """Score ``images``: float64 [N]."""
        if self.frozen:
            features = torch.from_numpy(self._features(images)).float()
            with torch.inference_mode():
                return self.model.head(features).squeeze(1).double().numpy()
        device = self.sources.device
        inputs, rows = InputPipeline(as_tensor(images.pixels).to(device)), np.arange(len(images.pixels))
        logits = predict_batches(self.model.to(device), inputs, rows, batch_size=32, precision=self.precision)
        return logits.double().numpy()

    def _features(self, images: ImageSet) -> np.ndarray:
        sources = self.sources
        cache = feature_caches(self.model, sources.cache_dir, device=sources.device, precision=self.precision)[0]
        key = f"{cache.key} {images.key}"
        if key not in sources.features:
            sources.features[key] = cache.features(images, desc="features of test images")
        return sources.features[key]
