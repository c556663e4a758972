"""Reading an image that nobody has looked at yet, and naming what is odd about it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dataset.images import Picture, open_picture
from dataset.picture_checks import FEW_LEVELS, NARROW
from dataset.picture_facts import measure
from image_metrics.outliers import INVERTED, WITHIN, OutlierSpace, outlier_features
from prediction.models import InputRecipe
from utils import is_out_of_memory

FAR_SMALLER = 0.5  # of the side that the network takes
SAME_SHAPE = 1.02  # by which the ratio of two sides may differ


@dataclass(frozen=True)
class ReadImage:
    """One image: ``pixels`` uint8 [S, S] and what is odd, or None and the ``error`` that says why it is unreadable."""

    pixels: np.ndarray | None
    warnings: tuple[str, ...] = ()
    error: str = ""


def read_images(
    files: Sequence[Path], inputs: InputRecipe, pool: ThreadPoolExecutor, largest_aspect: float | None
) -> list[ReadImage]:
    """Decode ``files`` as the classifier's training did; what cannot be read has an error."""
    return list(pool.map(partial(_read, inputs=inputs, largest_aspect=largest_aspect), files))


def _read(file: Path, inputs: InputRecipe, largest_aspect: float | None) -> ReadImage:
    try:
        picture = open_picture(file, inputs.bits)
        pixels = picture.resized(inputs.image_size, inputs.through)
    except OSError as error:
        return ReadImage(None, error=str(error))
    except Exception as error:  # damaged bytes make decoders raise nearly anything; other images still count
        if is_out_of_memory(error):
            raise
        return ReadImage(None, error=f"damaged ({type(error).__name__})")
    return ReadImage(pixels, tuple(_odd_about_file(picture, inputs, largest_aspect)))


def _odd_about_file(picture: Picture, inputs: InputRecipe, largest_aspect: float | None) -> list[str]:
    """Name what is odd about a decoded file by itself, its DICOM header included."""
    facts, wanted = measure(picture, 0), inputs.through or inputs.image_size
    short, long = sorted((facts.width, facts.height))
    size = f"{facts.width:,} x {facts.height:,} pixels"
    blank = facts.high - facts.low < NARROW
    said = {
        f"nearly constant: {facts.high - facts.low} of 256 gray values": blank,
        f"only {facts.levels} different gray values, as masks have": facts.levels <= FEW_LEVELS and not blank,
        f"small: {size}, and the network takes {wanted}": short < FAR_SMALLER * wanted,
        f"not square as the training images were ({size}): it is squeezed": (
            largest_aspect is not None and long / short > SAME_SHAPE * largest_aspect
        ),
        f"the first of {facts.frames} pictures in one file": facts.frames > 1,
    }
    return [*picture.warnings, *(text for text, holds in said.items() if holds)]


def add_outliers(images: Sequence[ReadImage], space: OutlierSpace | None) -> list[ReadImage]:
    """Add to the warnings which images are inverted or unlike the training images; None: nothing is known of these."""
    good = [image for image in images if image.pixels is not None]
    if space is None or not good:
        return list(images)
    features = outlier_features(np.stack([image.pixels for image in good if image.pixels is not None]))
    inverted = space.likeness(features) < INVERTED
    odd = iter(zip(space.distances(features), inverted, strict=True))
    return [image if image.pixels is None else _with_outlier(image, *next(odd), space.limit) for image in images]


def _with_outlier(image: ReadImage, distance: float, inverted: bool, limit: float) -> ReadImage:
    found = ["inverted: dark where the training images are bright"] if inverted else []
    if distance > limit:
        share = f"{100 * WITHIN:.0f} %"
        found.append(f"unlike the training images: distance {distance:.1f}, and {share} of them are within {limit:.1f}")
    return replace(image, warnings=(*image.warnings, *found))
