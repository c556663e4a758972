"""Small changes of an X-ray that leave its finding as it is: what a robust classifier does not mind.

They act on what the network is given: gray uint8 at its input size. Strengths are shares of the gray range or of
the side, so that they mean the same at every size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import PIL
import scipy
from PIL import Image
from scipy.ndimage import gaussian_filter, rotate

from utils import derive_seed

# Of this code and of the libraries that it calls; part of the keys of caches.
VERSION = f"perturbations, version 1, Pillow {PIL.__version__}, SciPy {scipy.__version__}"
RANGE = 255.0  # from black to white

# uint8 [S, S] and a generator -> uint8 [S, S]; only noise draws anything.
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Perturbation:
    """One change of one strength. ``meaning``: what it does, with its unit."""

    name: str
    meaning: str
    change: Change

    def apply(self, pixels: np.ndarray, image_id: str, seed: int) -> np.ndarray:
        """Change uint8 [S, S]; noise depends on ``seed`` and the image alone, not on what else is changed."""
        return self.change(pixels, np.random.default_rng(derive_seed(seed, "perturbation", image_id)))


class PerturbedPixels:
    """The changed pixels of images uint8 [N, S, S], made when they are asked for: memory holds a few at a time."""

    def __init__(self, pixels: np.ndarray, image_ids: Sequence[str], perturbation: Perturbation, seed: int) -> None:
        self.pixels, self.image_ids, self.perturbation, self.seed = pixels, image_ids, perturbation, seed

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return uint8 [R, S, S] of the images with numbers ``rows``."""
        made = [self.perturbation.apply(self.pixels[row], self.image_ids[row], self.seed) for row in rows]
        return np.stack(made)


# --- changes ---------------------------------------------------------------------------------------
def _brighten(pixels: np.ndarray, _: np.random.Generator, share: float) -> np.ndarray:
    return _to_gray(pixels + share * RANGE)


def _stretch(pixels: np.ndarray, _: np.random.Generator, factor: float) -> np.ndarray:
    mean = pixels.mean()
    return _to_gray((pixels - mean) * factor + mean)


def _add_noise(pixels: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    return _to_gray(pixels + rng.normal(0, share * RANGE, pixels.shape))


def _blur(pixels: np.ndarray, _: np.random.Generator, share: float) -> np.ndarray:
    return _to_gray(gaussian_filter(pixels.astype(float), share * len(pixels), mode="nearest"))


def _compress(pixels: np.ndarray, _: np.random.Generator, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _rotate(pixels: np.ndarray, _: np.random.Generator, degrees: float) -> np.ndarray:
    return _to_gray(rotate(pixels.astype(float), degrees, reshape=False, order=1, mode="nearest"))


def _to_gray(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, RANGE).astype(np.uint8)


PERTURBATIONS = (
    Perturbation("brightness −15 %", "15 % of the gray range darker", partial(_brighten, share=-0.15)),
    Perturbation("brightness +15 %", "15 % of the gray range brighter", partial(_brighten, share=0.15)),
    Perturbation("contrast × 0.7", "distances from the image's mean times 0.7", partial(_stretch, factor=0.7)),
    Perturbation("contrast × 1.3", "distances from the image's mean times 1.3", partial(_stretch, factor=1.3)),
    Perturbation("noise 2 %", "Gaussian noise, SD 2 % of the gray range", partial(_add_noise, share=0.02)),
    Perturbation("noise 5 %", "Gaussian noise, SD 5 % of the gray range", partial(_add_noise, share=0.05)),
    Perturbation("blur 0.5 %", "Gaussian blur, sigma 0.5 % of the side", partial(_blur, share=0.005)),
    Perturbation("blur 1 %", "Gaussian blur, sigma 1 % of the side", partial(_blur, share=0.01)),
    Perturbation("JPEG 50", "JPEG of quality 50", partial(_compress, quality=50)),
    Perturbation("JPEG 20", "JPEG of quality 20", partial(_compress, quality=20)),
    Perturbation("rotation −5°", "5 degrees clockwise, borders continued", partial(_rotate, degrees=-5)),
    Perturbation("rotation +5°", "5 degrees anticlockwise, borders continued", partial(_rotate, degrees=5)),
)
UNPERTURBED = Perturbation("unperturbed", "as the network sees it", lambda pixels, _: pixels)
