"""Trained classifiers for new images: loaded, checked to belong together, and pixels -> probabilities of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from arms.options import features_computed_once
from classifier import (
    ClassifierCheckpoint,
    FeatureExtractor,
    InputPipeline,
    PneumoniaClassifier,
    load_classifier,
    logits_in_full_precision,
    predict_batches,
)
from common.file_formats import format_problems
from dataset.feature_cache import sha256_weights
from utils import UserError, as_tensor, public_path, resolve_precision

Apply = Callable[[torch.Tensor], torch.Tensor]

BATCH, BATCH_OF_GPU = 8, 64  # images at a time

log = logging.getLogger(__name__)

# What models that are averaged must share, and what is wrong otherwise, the plainest reason first.
SAME = {
    "split_sha256": "they were trained on different splits",
    "data_sha256": "they were trained with different metadata files",
    "backbone": "they are different networks",
    "image_size": "they take images of different sizes",
    "prefix": "they are of different arms",
    "recipe_sha256": "they were trained with different options or synthetic images",
}


@dataclass(frozen=True)
class InputRecipe:
    """How files become the pixels that a classifier takes; see ``dataset.images``.

    ``image_size``: side, pixels; ``through``: side that images are reduced to first, None for none; ``bits``: in
    use in 16-bit PNG files, None for all.
    """

    image_size: int
    through: int | None
    bits: int | None


@dataclass(frozen=True)
class LoadedModel:
    """A classifier in eval mode, its ``file``, what its checkpoint says, and hashes of its weights."""

    file: Path
    network: PneumoniaClassifier
    checkpoint: ClassifierCheckpoint
    sha256: str
    backbone_sha256: str

    @property
    def inputs(self) -> InputRecipe:
        """How its images are read."""
        config = self.checkpoint["config"]
        return InputRecipe(self.checkpoint["image_size"], config["match_resolution"], config["bits"])

    @property
    def is_final(self) -> bool:
        """Tell whether it was trained on all training images, not without a fold."""
        return "fold" not in self.checkpoint

    @property
    def features_once(self) -> bool:
        """Tell whether it was trained on features rounded to float16, so that it must be given such."""
        config = self.checkpoint["config"]
        return features_computed_once(self.checkpoint["frozen"], config["augment"], config["feature_views"])


# --- loading ---------------------------------------------------------------------------------------
def load_models(files: Sequence[str | Path]) -> list[LoadedModel]:
    """Load classifiers; one that is there twice, as the first repeat is beside the arm's own, counts once.

    Raises ``UserError`` if a file is no whole classifier of ``train_classifier.py``.
    """
    found: dict[str, LoadedModel] = {}
    for file in map(Path, files):
        network, checkpoint = load_classifier(file)
        if problems := format_problems(checkpoint, ClassifierCheckpoint):
            raise UserError(f"{file}: {problems[0]}; train it again with `python src/train_classifier.py`")
        sha256 = sha256_weights(network)
        if sha256 in found:
            log.info(f"{public_path(file)} is the same classifier as {public_path(found[sha256].file)}: counted once")
            continue
        checkpoint["state_dict"] = {}  # the weights lie in the network
        found[sha256] = LoadedModel(file, network, checkpoint, sha256, sha256_weights(network.backbone))
    return list(found.values())


def require_one_recipe(models: Sequence[LoadedModel]) -> None:
    """Raise ``UserError`` unless all are training runs of one arm, whose probabilities may be averaged."""
    first = models[0]
    for other in models[1:]:
        for key, why in SAME.items():
            if first.checkpoint.get(key) != other.checkpoint.get(key):
                raise UserError(
                    f"{first.file} and {other.file} cannot be averaged: {why}; give the training runs (--repeats) of "
                    "one arm"
                )
        if first.is_final != other.is_final:
            raise UserError(
                f"{first.file} and {other.file} cannot be averaged: one of them was trained without a fold; give "
                "final models"
            )


# --- predicting ------------------------------------------------------------------------------------
class Predictor:
    """Applies ``models`` that read images in one way to pixels, as their training applied them to test images.

    Backbones that several models share, as frozen ones do, see every image once. ``device``: where networks run.
    """

    def __init__(self, models: Sequence[LoadedModel], device: torch.device) -> None:
        if len({model.inputs for model in models}) != 1:
            raise ValueError("the models read images in different ways")
        self.models, self.device, self.inputs = list(models), device, models[0].inputs
        self._extractors: dict[tuple[str, str], FeatureExtractor] = {}
        for model in self.models:
            model.network.to(device).to(memory_format=torch.channels_last)
            if model.features_once and (key := self._backbone(model)) not in self._extractors:
                self._extractors[key] = FeatureExtractor(model.network, device, key[1])

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probabilities of pneumonia by each model, float64 [M, N], of ``pixels`` uint8 [N, S, S]."""
        if not len(pixels):
            return np.empty((len(self.models), 0))
        features = {key: extract(pixels) for key, extract in self._extractors.items()}
        logits = []
        for model in self.models:
            if model.features_once:
                apply: Apply = partial(logits_in_full_precision, model.network.head)
                known = torch.from_numpy(features[self._backbone(model)].astype(np.float16).astype(np.float32))
            else:
                apply, known = model.network, as_tensor(pixels)
            logits.append(self._apply(apply, known, self._precision(model)))
        return torch.stack(logits).double().sigmoid().numpy()

    def _apply(self, apply: Apply, inputs: torch.Tensor, precision: str) -> torch.Tensor:
        """Return the logits, float32 [N] on the CPU, of ``inputs`` [N, ...]: pixels or features.

        Batches of one size are computed in one way: what an image gets does not depend on the others.
        """
        size, parts = BATCH if self.device.type == "cpu" else BATCH_OF_GPU, []
        for chunk in inputs.split(size):
            filled = torch.cat([chunk, chunk.new_zeros(size - len(chunk), *chunk.shape[1:])])
            data, rows = InputPipeline(filled.to(self.device)), np.arange(size)
            parts.append(predict_batches(apply, data, rows, batch_size=size, precision=precision)[: len(chunk)])
        return torch.cat(parts)

    def _precision(self, model: LoadedModel) -> str:
        return resolve_precision(model.checkpoint["config"]["precision"], self.device)

    def _backbone(self, model: LoadedModel) -> tuple[str, str]:
        return model.backbone_sha256, self._precision(model)
