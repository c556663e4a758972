"""A tiny dataset in the real layout, and an untrained generator's checkpoint, for the tests of the GAN."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dcgan
from common import paths
from conftest import MADE
from gan.file_formats import GENERATOR_FORMAT
from utils import save_checkpoint

CLASSES = ("Lung Opacity", "Normal", "No Lung Opacity / Not Normal")


def make_dataset(folder: Path, n_images: int = 48, side: int = 32) -> Path:
    """A third of the images positive, two per patient (mapping included), brightness depends on the class."""
    rng = np.random.default_rng(0)
    images = paths.training_images(folder)
    images.mkdir(parents=True)
    lines, mapping = ["patientId,x,y,width,height,Target,class,age,sex,modality,position"], []
    for index in range(n_images):
        name, kind = f"image{index:03d}", (index // 2) % 3
        lines.append(f"{name},,,,,{int(kind == 0)},{CLASSES[kind]},50,F,CR,PA")
        mapping.append({"subset_img_id": name, "img_id": f"{index // 2:08d}_{index:03d}.png"})
        pixels = rng.normal(95 + 30 * kind, 35, (side, side)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
        os.utime(images / f"{name}.png", ns=(MADE, MADE))
    (folder / paths.TRAIN_METADATA).write_text("\n".join(lines) + "\n")
    (folder / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    return folder


def save_generator(path: Path, seed: int = 0, n_classes: int = 0, **changes) -> Path:
    """The checkpoint of a small random generator of 32 px, conditional with ``n_classes``; ``changes``
    replace entries of it."""
    torch.manual_seed(seed)
    generator = dcgan.Generator(image_size=32, num_channels=3, latent_dim=5, feature_maps=4, n_classes=n_classes)
    for parameter in generator.parameters():  # livelier than an untrained start: images differ clearly
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    content = {
        "train_image_ids": ["a", "b"],
        "train_patients": ["p"],
        "step": 7,
    }
    save_checkpoint(path, generator_content(generator, **content | changes))
    return path


def generator_content(generator, **changes) -> dict:
    """The content of a generator's file."""
    return {
        "format": GENERATOR_FORMAT,
        "state_dict": generator.state_dict(),
        "architecture": generator.architecture,
        "pixel_range": [-1, 1],
        "classes": "positive",
        "label": 1,
        "split_sha256": "split",
        "data_sha256": "data",
        "grouped_by": "nih_patient",
        "train_image_ids": [],
        "train_patients": [],
        "train_fraction": 1.0,
        "fold": None,
        "k_folds": None,
        "red_flags": [],
        "step": 0,
        "epoch": 0,
        "images_seen": 0,
        "seed": 42,
        "options": {},
        "config": {},
    } | changes
