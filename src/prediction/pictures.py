"""Pictures of predicted images: heat maps as files, and small pictures for a page. They show patients."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common import paths
from dataset.images import open_picture
from utils import atomic_path, readable

COLOUR = (255, 96, 0)  # orange, which no X-ray has
STRONGEST = 0.6  # share of the colour where the map is 1
SMALL = 320  # pixels, longer side of a picture in a page
QUALITY = 80  # of its JPEG
LONGEST_NAME = 80  # characters of a file's name that its heat map keeps


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Colour X-rays uint8 [N, S, S] where ``heat`` float [N, S, S], 0 to 1, is high: uint8 [N, S, S, 3]."""
    share = STRONGEST * heat[..., None]
    return ((1 - share) * pixels[..., None] + share * np.array(COLOUR)).round().astype(np.uint8)


def heat_map_file(folder: Path, file: Path) -> Path:
    """Return where the heat map of ``file`` goes: its name, and what tells files of one name in several folders."""
    digest = hashlib.sha256(str(file).encode(errors="surrogateescape")).hexdigest()[:8]
    return paths.heat_map_picture(folder, f"{readable(file.stem)[:LONGEST_NAME]}_{digest}")


def save_heat_maps(folder: Path, files: Sequence[Path], pixels: np.ndarray, heat: np.ndarray) -> None:
    """Write the heat maps of ``files``: PNG of the pixels that the network saw, coloured."""
    for file, picture in zip(files, overlay(pixels, heat), strict=True):
        with atomic_path(heat_map_file(folder, file), durable=False) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")


def small_jpeg(file: Path, bits: int | None) -> tuple[bytes, int, int]:
    """Return (JPEG, width, height) of an X-ray or of a heat map, at most ``SMALL`` pixels a side.

    Raises ``OSError`` if the file cannot be read.
    """
    image = Image.open(file) if file.name.endswith(paths.REAL_PICTURE_SUFFIX) else open_picture(file, bits).gray
    image = image.convert("RGB" if image.mode == "RGB" else "L")
    image.thumbnail((SMALL, SMALL), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue(), image.width, image.height
