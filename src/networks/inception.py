"""The Inception network that published FID values are measured with.

It is not torchvision's ImageNet network. The weights were ported from TensorFlow's Inception of 2015, whose
average pools leave the padding out of the mean and whose last block pools by maximum. FID values from any
other network are not comparable with published ones (Heusel et al., NeurIPS 2017). The port and its weight
file come from github.com/mseitzer/pytorch-fid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from dataset.feature_cache import FeatureCache, sha256_weights
from networks.weights import hub_weights, weights_file
from utils import UserError, as_tensor

WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
CLASSES = 1008  # of TensorFlow's graph
INPUT_SIZE = 299
EXTRACTOR = "whole network in float32, version 1"
INPUT = "gray replicated, 299 px bilinear antialiased, [-1, 1], version 1"  # for caches
FEATURES = 2048
BATCH = 32  # images at once


class _PooledBranch(nn.Module):
    """Replaces the pooling of the last branch of torchvision's blocks, which it is mixed into."""

    branch_pool: nn.Module

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.branch_pool(self.pool(x))
        return torch.cat([super().forward(x)[:, : -pooled.shape[1]], pooled], dim=1)


class _BlockA(_PooledBranch, InceptionA): ...


class _BlockC(_PooledBranch, InceptionC): ...


class _BlockE(_PooledBranch, InceptionE): ...


class _LastBlock(_PooledBranch, InceptionE):
    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)


def build_network() -> nn.Module:
    """Build the network with random weights: [N, 3, 299, 299] in [-1, 1] -> logits [N, 1008]."""
    blocks = [BasicConv2d, _BlockA, InceptionB, _BlockC, InceptionD, _BlockE, InceptionAux]
    network = Inception3(CLASSES, aux_logits=False, inception_blocks=blocks, init_weights=False)
    network.Mixed_7c = _LastBlock(2048)
    return network


def load_inception(remedy: str) -> nn.Module:
    """Load the network with FID's weights, in eval mode; it returns pooled features [N, 2048].

    ``remedy``: what else the user can do, for errors. Raises ``WeightsUnavailableError`` if the weights are
    neither cached nor reachable; raises ``UserError`` if the cached file holds another network.
    """
    state = hub_weights(WEIGHTS_URL, "FID's Inception weights", remedy)
    network = build_network()
    expected = network.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}  # the file lacks them
    wrong = [key for key in expected if key not in counters and key not in state]
    wrong += [key for key in state if key not in expected or state[key].shape != expected[key].shape]
    if wrong:
        file = weights_file(WEIGHTS_URL).name
        raise UserError(
            f"{file} in torch's cache is not FID's Inception network ({wrong[0]} does not fit); delete it, or {remedy}"
        )
    network.load_state_dict(state, strict=False)
    network.fc = nn.Identity()
    return network.eval().requires_grad_(False)


def to_inception_range(pixels: torch.Tensor) -> torch.Tensor:
    """Resize uint8 [N, S, S] to float32 [N, 3, 299, 299] in [-1, 1], bilinear, antialiased to shrink."""
    gray = pixels.unsqueeze(1).float() / 127.5 - 1.0  # [N, 1, S, S]
    size = (INPUT_SIZE, INPUT_SIZE)
    resized = F.interpolate(gray, size, mode="bilinear", align_corners=False, antialias=True)
    return resized.expand(-1, 3, -1, -1)


def inception_cache(
    network: nn.Module, cache_dir: str | Path | None, *, device: torch.device, hint: str = "", remedy: str = ""
) -> FeatureCache:
    """Make the cache of the features [N, 2048] of ``load_inception``'s network.

    ``cache_dir``, ``hint``, ``remedy``: of ``FeatureCache``.
    """
    network = network.to(device)
    facts = {
        "network": "FID's Inception", "weights_sha256": sha256_weights(network), "input": INPUT,
        "extractor": EXTRACTOR, "precision": "fp32", "device": device.type,
    }  # fmt: skip

    @torch.inference_mode()
    def compute(pixels: np.ndarray, _: Sequence[str]) -> np.ndarray:
        batches = as_tensor(pixels).split(BATCH)
        return torch.cat([network(to_inception_range(batch.to(device))).cpu() for batch in batches]).numpy()

    return FeatureCache(cache_dir, facts, compute, FEATURES, hint=hint, remedy=remedy)
