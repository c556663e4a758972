"""Small made-up copies of other data sets' layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def picture(file: Path, width: int = 40, height: int = 40, **options: Any) -> Path:
    """Write noise as an image of the kind that the ending says; ``options``: of Pillow's ``save``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (height, width), dtype=np.uint8)).save(file, **options)
    return file


def text(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def kermany(folder: Path) -> Path:
    """Kermany's X-rays as Kaggle packs them: 12 to train with, 2 in val, 4 in test; a second copy within."""
    for top in (folder / "chest_xray", folder / "chest_xray" / "chest_xray"):
        for number in (1, 2, 3):
            picture(top / f"train/PNEUMONIA/person{number}_bacteria_{number}.jpeg", 60, 40)
            picture(top / f"train/PNEUMONIA/person{number}_virus_{number + 6}.jpeg", 60, 40)
            picture(top / f"train/NORMAL/IM-011{number}-0001.jpeg", 60, 50)
            picture(top / f"train/NORMAL/NORMAL2-IM-011{number}-0001.jpeg")
        picture(top / "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
        picture(top / "val/NORMAL/NORMAL2-IM-1427-0001.jpeg")
        for number in (1, 4):
            picture(top / f"test/PNEUMONIA/person{number + 99}_bacteria_{number}.jpeg", 60, 40)
            picture(top / f"test/NORMAL/IM-000{number}-0001.jpeg")
    text(folder / "chest_xray/__MACOSX/._train", "junk")
    text(folder / "chest_xray/train/.DS_Store", "junk")
    return folder


def two_classes(folder: Path, positive: str, negative: str, n: int = 4) -> Path:
    for name in (positive, negative):
        for number in range(n):
            picture(folder / name / f"{name[:2]}{number}.png")
    return folder
