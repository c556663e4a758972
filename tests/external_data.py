"""Made-up images of another hospital, for tests of external tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import paths
from conftest import blob_image, metadata_row, write_csv

CLASSES = ("Lung Opacity", "Normal", "Normal")


def make_external(
    data_dir: Path, n: int = 24, *, patients: str = "column", first: int = 5000, ids: dict[int, str] | None = None,
    pictures: dict[int, np.ndarray] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """Write ``n`` images, two per patient, a third positive.

    ``patients``: by a "column", by the "map" of NIH's patients from number ``first`` on, or "unknown". ``ids``,
    ``pictures`` (uint8 [S, S]): of single images; ``changes``: of every row.
    """
    rng = np.random.default_rng(first)
    folder = paths.training_images(data_dir)
    folder.mkdir(parents=True)
    rows, mapping = [], []
    for index in range(n):
        name, kind = (ids or {}).get(index, f"scan-{index:03d}"), CLASSES[index // 2 % 3]
        person = {"patient_id": f"p{index // 2}"} if patients == "column" else {}
        rows.append(metadata_row(name, kind, **{**person, **changes}))
        mapping.append({"subset_img_id": name, "img_id": f"{first + index // 2:08d}_{index % 2:03d}.png"})
        pixels = (pictures or {}).get(index)
        drawn = blob_image(rng, 40, kind == CLASSES[0]) if pixels is None else pixels
        Image.fromarray(drawn).save(folder / f"{name}.png")
    write_csv(data_dir / paths.TRAIN_METADATA, rows)
    if patients == "map":
        (data_dir / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    return data_dir
