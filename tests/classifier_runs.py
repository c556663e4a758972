"""Quick runs of the classifier's script, for the tests of its arms."""

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

import classifier
import train_classifier
from common import paths
from conftest import SMALL, blob_image
from networks.backbones import DEFAULT
from utils import load_json

METRICS = Path("results/metrics")
QUICK = [
    "--unfreeze", "--weights", "none", "--image-size", "32", "--batch-size", "24", "--epochs", "2",
    "--precision", "fp32", "--backbone", SMALL,
]  # fmt: skip


def run(*argv: str) -> None:
    train_classifier.main(list(argv))


@functools.cache
def random_network(build: Callable[[str], nn.Module], backbone: str) -> bytes:
    """The file of a randomly initialised network, made once."""
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(build(backbone).state_dict(), file)
    return file.getvalue()


def frozen(tmp_path: Path, backbone: str = SMALL) -> list[str]:
    """Options for the quick frozen path: a random network from a file stands in for ImageNet's."""
    (tmp_path / "weights.pth").write_bytes(random_network(classifier.build_backbone, backbone))
    weights = ["--weights", "weights.pth", "--weights-trained-on", "ImageNet"]
    named = [] if backbone == DEFAULT else ["--backbone", backbone]
    return [*weights, "--image-size", "32", "--batch-size", "8", "--epochs", "3", *named]


def make_synthetic(folder: Path, n: int, train_ids: list[str], patients: list[str], **changes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for index in range(1, n + 1):
        Image.fromarray(blob_image(rng, 32, positive=True)).save(paths.synthetic_image(folder, index))
    manifest = {"generator_sha256": "g", "split_sha256": "s", "label": 1, "count": n,
                "train_image_ids": train_ids, "train_patients": patients, **changes}  # fmt: skip
    paths.synthetic_manifest(folder).write_text(json.dumps(manifest))


def training_positives(data_dir: Path) -> pd.DataFrame:
    images = pd.DataFrame(load_json(data_dir / paths.SPLITS)["images"])
    return images[(images["role"] == "train") & (images["label"] == 1)]
