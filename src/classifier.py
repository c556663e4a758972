"""A backbone (ResNet-50 by default) with one logit: building, loading, predicting, explaining.

Frozen (the default), only the head learns, and BatchNorm statistics never move; unfrozen, everything learns.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict, cast

import numpy as np
import torch
from torch import nn

from common.experiment_files import CONFIG_KEY
from common.plan_files import PLAN_KEY
from data_loader import PREPARED, augment_light, to_classifier_range
from dataset.feature_cache import FeatureCache, sha256_weights
from networks.backbone_builder import build_backbone, folded_for_inference, imagenet_state
from networks.backbones import BACKBONES, DEFAULT
from networks.weight_files import find_network, read_weight_file
from stats.calibration import OperatingPoints
from utils import UserError, as_tensor, autocast, derive_seed, load_checkpoint

CHECKPOINT_FORMAT: Final = "pneumonia-classifier-1"
# How features are computed; part of the key of their caches.
EXTRACTOR = "BatchNorm folded into convolutions, pooled in float32, weights in the precision, version 1"
VIEWS = "augment_light, version 1"  # how augmented views are made; part of the key, too


class ClassifierCheckpoint(TypedDict):
    """``<prefix>resnet50.pth`` and ``best_overall_<prefix>resnet50.pth``: a classifier and its origin.

    Those of another --backbone have its name in place of ``resnet50``.
    """

    format: Annotated[Literal["pneumonia-classifier-1"], "name of this format"]
    backbone: Annotated[str, "name of the network, as in --backbone"]
    prefix: Annotated[str, "first letters of the arm's files"]
    frozen: Annotated[bool, "the backbone did not learn"]
    image_size: Annotated[int, "pixels per side"]
    split_sha256: Annotated[str, "SHA-256 of the train/test split"]
    data_sha256: Annotated[str, "SHA-256 of the metadata file"]
    recipe_sha256: Annotated[str, "the same for all training runs of one arm, whatever their seeds and folds"]
    config: Annotated[dict[str, Any], "options of the run, name -> value"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    labelled_sha256: NotRequired[Annotated[str, "of --labelled-patients: SHA-256 of whose labels it learned from"]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    seed: Annotated[int, "seed of the fit"]
    fold: NotRequired[Annotated[int, "the fold that it did not see, in best_overall_..."]]
    repeat: NotRequired[Annotated[int, "number of the training run, from 1, in the others"]]
    operating_points: Annotated[OperatingPoints | None, "temperature and thresholds for this model alone"]
    operating_points_note: Annotated[str, "what they were chosen on, or why there are none"]
    outliers: Annotated[dict[str, Any] | None, "what tells images unlike those of training: ``image_metrics.outliers``"]
    largest_aspect: Annotated[float, "longer through shorter side of the training images, the largest"]
    weights_flags: NotRequired[Annotated[list[str], "red flags of the initial weights, if there are any"]]
    state_dict: Annotated[dict[str, Any], "weights, named as in ``PneumoniaClassifier``"]


class PneumoniaClassifier(nn.Module):
    """A backbone whose last layer is one logit: [N, 3, S, S] (ImageNet mean/std) -> logits [N].

    ``name``: of the backbone. Raises ``UserError`` if a package for it is missing.
    """

    def __init__(self, frozen: bool, name: str = DEFAULT) -> None:
        super().__init__()
        self.name = name
        self.backbone = build_backbone(name)
        self.head = nn.Linear(BACKBONES[name].features, 1)
        self.frozen = frozen
        self.backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> PneumoniaClassifier:
        """Set the mode; a frozen backbone stays in eval mode: its BatchNorm statistics must not move."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the globally pooled features [N, F] of images [N, 3, S, S]."""
        return self.backbone(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits [N] of images [N, 3, S, S]."""
        return logits_in_full_precision(self.head, self.features(images))


class ClassifierHead(nn.Module):
    """The last layer alone: frozen features [N, F] of a backbone -> logits [N]; weights named as in the classifier."""

    def __init__(self, name: str = DEFAULT) -> None:
        super().__init__()
        self.head = nn.Linear(BACKBONES[name].features, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits [N] of features [N, F]."""
        return logits_in_full_precision(self.head, features)


def logits_in_full_precision(head: nn.Linear, features: torch.Tensor) -> torch.Tensor:
    """Return the logits, float32 [N], of features [N, F]: ones of eight bits would make ties."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float()).squeeze(1)


# --- building, saving, loading ---------------------------------------------------------------------
def build_classifier(weights: str, frozen: bool, name: str = DEFAULT) -> PneumoniaClassifier:
    """Build a fresh classifier; ``weights``: "imagenet", "none" or a file that holds the backbone ``name``.

    Raises ``UserError`` if weights are not available or do not fit.
    """
    model = PneumoniaClassifier(frozen, name)
    if weights == "imagenet":
        load_backbone(model, imagenet_state(name, model.backbone.state_dict()), weights)
    elif weights != "none":
        load_backbone(model, read_weight_file(weights), weights)
    return model


def load_backbone(model: PneumoniaClassifier, content: dict[Any, Any], source: str) -> str:
    """Load the backbone that the ``content`` of a file holds in any usual wrapping; returns where it was.

    Any last layer is left out. Raises ``UserError`` if there is none or it does not fit.
    """
    state, place = find_network(content, model.backbone.state_dict(), BACKBONES[model.name], source)
    model.backbone.load_state_dict(state, strict=False)  # BatchNorm's counters may be missing
    return place


def load_classifier(path: str | Path) -> tuple[PneumoniaClassifier, ClassifierCheckpoint]:
    """Load a checkpoint: (classifier in eval mode, content). Raises ``UserError`` if it is another file."""
    checkpoint = cast(ClassifierCheckpoint, load_checkpoint(path, "`python src/train_classifier.py`"))
    if checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} is not a classifier that `python src/train_classifier.py` wrote")
    name = str(checkpoint.get("backbone"))
    try:
        model = PneumoniaClassifier(checkpoint["frozen"], name)
        model.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, AttributeError, RuntimeError):
        raise UserError(
            f"{path} is damaged: its weights do not fit {BACKBONES[name].title if name in BACKBONES else name}; "
            "`python src/train_classifier.py` makes it again"
        ) from None
    return model.eval(), checkpoint


def cpu_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights to the CPU; ``state_dict()`` alone would go on changing with training."""
    return {key: value.detach().to("cpu", copy=True) for key, value in module.state_dict().items()}


# --- inputs and predictions --------------------------------------------------------------------------
class InputPipeline:
    """Turns stored inputs into what the trained module takes: pixels are normalised (and varied).

    ``inputs``, on the training device: float [V * N, F] features of N images in V views, one view after
    the other, the first of the images as they are; or uint8 [N, S, S] pixels. Rows are numbers of images.
    """

    def __init__(self, inputs: torch.Tensor, augment: str = "none", views: int = 1) -> None:
        self.inputs, self.augment, self.views = inputs, augment, views
        self.is_pixels = inputs.dtype == torch.uint8

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.inputs) // self.views

    def drawn(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """Return the places in ``inputs`` of ``rows`` in the epoch of ``seed``; each image has one view."""
        if self.views == 1:
            return rows
        view = np.random.default_rng(derive_seed(seed, "views")).integers(0, self.views, len(self))
        return rows + len(self) * view[rows]

    def train_batch(self, places: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the inputs at ``places`` (from ``drawn``), augmented as asked for."""
        batch, vary = self.inputs[places], self.is_pixels and self.augment == "light"
        return self._finish(augment_light(batch, generator) if vary else batch)

    def eval_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the inputs of ``rows``, never augmented."""
        return self._finish(self.inputs[rows])

    def _finish(self, batch: torch.Tensor) -> torch.Tensor:
        if not self.is_pixels:
            return batch
        return to_classifier_range(batch).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict_batches(
    model: Callable[[torch.Tensor], torch.Tensor],
    data: InputPipeline,
    rows: np.ndarray,
    *,
    batch_size: int,
    precision: str,
    progress: Callable[[list[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> torch.Tensor:
    """Apply ``model`` to ``rows`` in batches, never augmented; returns float32 [len(rows), ...] on the CPU.

    ``model``, in eval mode, gives logits [B] or anything else per image. ``progress`` wraps the batches.
    """
    device = data.inputs.device
    parts = []
    for chunk in progress(np.array_split(rows, max(1, math.ceil(len(rows) / batch_size)))):
        with autocast(device, precision):
            parts.append(model(data.eval_batch(torch.from_numpy(chunk).to(device))).float().cpu())
    return torch.cat(parts)


def gradcam_maps(
    model: PneumoniaClassifier, pixels: np.ndarray, *, device: torch.device | None = None,
    precision: str = "fp32", batch_size: int = 16,
) -> np.ndarray:  # fmt: skip
    """Map where the last convolutional block raises the logit: uint8 [N, S, S] -> float32 [N, S, S].

    Each map is scaled to its own maximum, so it lies in [0, 1]; it is 0 everywhere if no region raises the
    logit. ``device`` None is where the model lies. The model is left in eval mode. Selvaraju et al., "Grad-CAM",
    ICCV 2017, by Captum.
    """
    from captum.attr import LayerGradCam

    device = device or next(model.parameters()).device
    model = model.eval().to(device)
    explainer = LayerGradCam(model, model.backbone.get_submodule(BACKBONES[model.name].maps))
    maps = []
    for batch in torch.from_numpy(pixels).split(batch_size):
        # A frozen backbone records no gradients unless its input asks for them.
        images = to_classifier_range(batch.to(device)).requires_grad_()
        with autocast(device, precision):
            coarse = explainer.attribute(images, relu_attributions=True)  # [B, 1, S / 32, S / 32]
        fine = nn.functional.interpolate(coarse.detach().float(), batch.shape[1:], mode="bilinear", align_corners=False)
        maps.append(fine[:, 0].cpu().numpy())
    heat = np.concatenate(maps)
    peak = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, peak, out=np.zeros_like(heat), where=peak > 0)


class FeatureExtractor:
    """The backbone of a classifier for inference: uint8 [B, S, S] -> float32 [B, F] on the CPU.

    With "bf16" its weights and activations are bfloat16.
    """

    def __init__(self, model: PneumoniaClassifier, device: torch.device, precision: str = "fp32") -> None:
        self.device, self.n_features = device, BACKBONES[model.name].features
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = folded_for_inference(model.backbone)
        self.network = network.to(device, self.dtype).to(memory_format=torch.channels_last)
        # Larger batches fall out of a CPU's caches; smaller ones leave its threads, or a GPU, waiting.
        on_cpu = 8 * max(1, torch.get_num_threads() // 4)
        self.batch_size = on_cpu if device.type == "cpu" else 256

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the features [B, F] of ``pixels``, uint8 [B, S, S]."""
        parts = [torch.empty(0, self.n_features)]
        for start in range(0, len(pixels), self.batch_size):
            chunk = as_tensor(pixels[start : start + self.batch_size])
            # Batches of one size are computed in one way: an image's features do not depend on the others.
            fill = chunk.new_zeros(self.batch_size - len(chunk), *chunk.shape[1:])
            images = to_classifier_range(torch.cat([chunk, fill]).to(self.device)).to(self.dtype)
            features = self.network(images.contiguous(memory_format=torch.channels_last))
            parts.append(features[: len(chunk)].float().cpu())
        return torch.cat(parts).numpy()


def feature_caches(
    model: PneumoniaClassifier,
    cache_dir: str | Path | None,
    *,
    device: torch.device,
    precision: str,
    views: int = 1,
    hint: str = "",
    remedy: str = "",
) -> list[FeatureCache]:
    """Make the caches of the features of ``model``'s backbone, one for each of ``views`` views.

    The first view is the images as they are. In the others the augmentation of an image depends on the view
    and its id alone. ``hint``, ``remedy``: of ``FeatureCache``.
    """
    extract = FeatureExtractor(model, device, precision)

    def compute(view: int, pixels: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
        if view:
            seeds = [derive_seed("feature view", view, image_id) for image_id in image_ids]
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            pixels = augment_light(as_tensor(pixels), generators).numpy()
        return extract(pixels)

    weights = sha256_weights(model.backbone)
    facts: dict[str, Any] = {"network": BACKBONES[model.name].title, "weights_sha256": weights, "input": PREPARED}
    facts |= {"extractor": EXTRACTOR, "precision": precision, "device": device.type}
    keys = [facts | {"view": view, "views": VIEWS if view else None} for view in range(views)]
    return [
        FeatureCache(cache_dir, key, partial(compute, view), BACKBONES[model.name].features, hint=hint, remedy=remedy)
        for view, key in enumerate(keys)
    ]
