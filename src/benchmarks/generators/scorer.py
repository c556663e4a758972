"""The ResNet-18 in whose features generators are compared, trained here from scratch on training labels.

No contender has used it, while some losses use the features of ImageNet's networks. Its training takes
minutes, so the result is cached under a key of its images, their labels and its recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torchvision.models import ResNet, resnet18

from benchmarks import benchmark_paths
from benchmarks.file_formats import ScorerFacts
from benchmarks.generators.data import BenchmarkData
from common.progress import progress_bar
from data_loader import ImageSet, augment_light, to_classifier_range
from stats.metrics import auroc
from utils import UserError, as_tensor, autocast, derive_seed, load_checkpoint, save_checkpoint, sha256_json

EPOCHS, BATCH, SEED = 15, 32, 0
LR, WEIGHT_DECAY = 1e-3, 0.05
SMALL = 128  # pixels a side; below it the network's first pooling would leave too little


class Scorer:
    """The trained network; ``facts`` describe it in the result file."""

    def __init__(self, network: ResNet, device: torch.device, facts: dict[str, Any]) -> None:
        self.network, self.device = network.to(device).eval(), device
        self.facts = cast(ScorerFacts, facts | {"weights_digest": digest_of_weights(network)})

    @torch.no_grad()
    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Compute features, float32 [N, 512], of images uint8 [N, S, S]."""
        parts = as_tensor(np.ascontiguousarray(pixels)).split(64)
        return torch.cat(
            [pooled_features(self.network, to_classifier_range(part.to(self.device))).float().cpu() for part in parts]
        ).numpy()


def load_scorer(
    data: BenchmarkData, cache_dir: str | None, device: torch.device, precision: str, epochs: int = EPOCHS
) -> Scorer:
    """Load the scorer from the cache, or train it and keep it there.

    Its AUROC on the held-out images, measured once, tells whether its features mean anything.
    """
    labels = data.learned.records["label"].tolist()
    recipe = [epochs, BATCH, SEED, LR, WEIGHT_DECAY]
    key = sha256_json([data.key(), labels, recipe])
    file = None if cache_dir is None else benchmark_paths.benchmark_scorer(cache_dir, key[:20])
    if file is not None and (kept := _read_scorer(file, key)) is not None:
        return Scorer(kept[0], device, kept[1])
    network = train_scorer(data.learned, data.image_size, device, precision, epochs)
    facts = {
        "network": "ResNet-18 from scratch",
        "trained_on": f"{len(labels):,} training images of both labels, none of a held-out patient",
        "epochs": epochs,
        "heldout_auroc": heldout_auroc(network, data.heldout, device),
    }
    if file is not None:
        weights = {name: value.cpu() for name, value in network.state_dict().items()}
        size = data.image_size
        save_checkpoint(file, {"key": key, "image_size": size, "state_dict": weights, "facts": facts})
    return Scorer(network, device, facts)


def _read_scorer(file: Path, key: str) -> tuple[ResNet, dict[str, Any]] | None:
    """Return (network, facts); None if the file is missing, damaged, or of another key."""
    try:
        content = load_checkpoint(file)
        if content["key"] != key:
            return None
        network = build_scorer(content["image_size"])
        network.load_state_dict(content["state_dict"])
        return network, content["facts"]
    except (UserError, KeyError, RuntimeError):
        return None


def digest_of_weights(network: nn.Module) -> str:
    """Identify the weights: two trainings on different hardware give different features."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def build_scorer(image_size: int) -> ResNet:
    """Build ResNet-18 (He et al., CVPR 2016) with one logit; small images skip its first pooling."""
    network = resnet18(weights=None, num_classes=1)
    if image_size < SMALL:
        network.maxpool = nn.Identity()
    return network


def pooled_features(network: ResNet, images: torch.Tensor) -> torch.Tensor:
    """Compute the features [N, 512] before the last layer of images [N, 3, S, S]."""
    trunk = nn.Sequential(*list(network.children())[:-1])
    return trunk(images).flatten(1)


def train_scorer(images: ImageSet, image_size: int, device: torch.device, precision: str, epochs: int) -> ResNet:
    """Train with AdamW, one cycle of the learning rate, light augmentation, and positives weighted up."""
    torch.manual_seed(derive_seed(SEED, "scorer"))
    network = build_scorer(image_size).to(device).train()
    pixels = as_tensor(np.ascontiguousarray(images.pixels))
    labels = torch.tensor(images.records["label"].to_numpy(), dtype=torch.float32)
    loss = nn.BCEWithLogitsLoss(pos_weight=((1 - labels).sum() / labels.sum()).to(device))
    steps = max(1, len(pixels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(derive_seed(SEED, "scorer", "order"))
    for _ in progress_bar(range(epochs), desc="training the ResNet-18 that scores", unit="epoch"):
        order = torch.randperm(len(pixels), generator=generator)
        for rows in order[: steps * BATCH].chunk(steps):
            batch = to_classifier_range(augment_light(pixels[rows], generator).to(device))
            with autocast(device, precision):
                logits = network(batch).squeeze(1)
            optimizer.zero_grad()
            loss(logits.float(), labels[rows].to(device)).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def heldout_auroc(network: nn.Module, images: ImageSet, device: torch.device) -> float:
    """Score the held-out images; returns the AUROC."""
    parts = as_tensor(np.ascontiguousarray(images.pixels)).split(64)
    logits = [network(to_classifier_range(part.to(device))).squeeze(1).float().cpu() for part in parts]
    return auroc(images.records["label"].to_numpy(), torch.cat(logits).numpy())
