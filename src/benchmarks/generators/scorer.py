"""The ResNet-18 in whose features generators are compared: trained here, from scratch, on training labels.

No contender has ever met it, which cannot be said of ImageNet's networks, whose features some losses use. Its
training takes minutes, so it is kept, under a key of its images, its labels and how it is trained.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

from benchmarks.generators.data import BenchmarkData
from common import paths
from common.progress import progress_bar
from data_loader import ImageSet, augment_light, to_classifier_range
from stats.metrics import auroc
from utils import UserError, as_tensor, autocast, derive_seed, load_checkpoint, save_checkpoint, sha256_json

VERSION = 1  # of the network and its training
EPOCHS, BATCH, SEED = 15, 32, 0
LR, WEIGHT_DECAY = 1e-3, 0.05
SMALL = 128  # pixels a side below which the network's first pooling would leave too little


class Scorer:
    """``features``: uint8 [N, S, S] -> float32 [N, 512]; ``facts``: what the result file says of it;
    ``digest``: of its weights."""

    def __init__(self, network: nn.Module, device: torch.device, facts: dict[str, Any]) -> None:
        self.network, self.device, self.facts = network.to(device).eval(), device, facts
        self.digest = weights_digest(network)

    @torch.no_grad()
    def features(self, pixels: np.ndarray) -> np.ndarray:
        parts = as_tensor(np.ascontiguousarray(pixels)).split(64)
        return torch.cat(
            [pooled(self.network, to_classifier_range(part.to(self.device))).float().cpu() for part in parts]
        ).numpy()


def load_scorer(
    data: BenchmarkData, cache_dir: str | None, device: torch.device, precision: str, epochs: int = EPOCHS
) -> Scorer:
    """From the cache, or trained and kept there. What it says of the held-out images is measured once: its
    AUROC on them tells whether its features mean anything."""
    labels = data.learned.records["label"].tolist()
    recipe = [VERSION, epochs, BATCH, SEED, LR, WEIGHT_DECAY]
    key = sha256_json([data.key(), labels, recipe])
    file = None if cache_dir is None else paths.benchmark_scorer(cache_dir, key[:20])
    if file is not None and (kept := _read(file, key)) is not None:
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


def _read(file: Path, key: str) -> tuple[nn.Module, dict[str, Any]] | None:
    """(network, facts); None if the file is not there, damaged, or another's."""
    try:
        content = load_checkpoint(file)
        if content["key"] != key:
            return None
        network = build_scorer(content["image_size"])
        network.load_state_dict(content["state_dict"])
        return network, content["facts"]
    except (UserError, KeyError, RuntimeError):
        return None


def weights_digest(network: nn.Module) -> str:
    """The same for the same weights: two trainings on different hardware give different features."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def build_scorer(image_size: int) -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016) with one logit; its first pooling is left out for small images."""
    network = resnet18(weights=None, num_classes=1)
    if image_size < SMALL:
        network.maxpool = nn.Identity()
    return network


def pooled(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """[N, 3, S, S] -> features [N, 512] before the last layer."""
    head, network.fc = network.fc, nn.Identity()
    try:
        return network(images)
    finally:
        network.fc = head


def train_scorer(
    images: ImageSet, image_size: int, device: torch.device, precision: str, epochs: int
) -> nn.Module:
    """AdamW with one cycle of the learning rate, light augmentation, rare positives weighted up."""
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
    parts = as_tensor(np.ascontiguousarray(images.pixels)).split(64)
    logits = [network(to_classifier_range(part.to(device))).squeeze(1).float().cpu() for part in parts]
    return auroc(images.records["label"].to_numpy(), torch.cat(logits).numpy())
