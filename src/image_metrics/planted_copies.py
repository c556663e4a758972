"""Threshold from which two images count as the same picture, chosen and measured on real images by planting copies.

It lies halfway between the highest score of two different patients and the score that all but 1 % of planted copies
reach (``registration.match_scores``, 1 for the same picture). Two rates are then measured on other images: planted
copies that are found, and draws of real patients, posing as a synthetic set, in which a copy would be seen. The
draws share one set of real pairs, so they say little of sets much larger than it; only the margin between the two
scores speaks for those.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from dataset.near_copies import LIKELY, find_copies
from dataset.registration import SAME

SIDE = 64  # pixels of the images that are compared
PLANTED = 60  # images that are copied, half to choose the threshold, half to measure it
REAL = 2000  # images, at most, in which pairs of different patients are looked for
DRAWS, DRAWS_REFUSED, FOUND = 1000, 1, 0.99


@dataclass(frozen=True)
class Threshold:
    """Score from which an image counts as a copy, and the rates measured with it on training images.

    ``found``: share of planted copies, ``n_planted`` of them; ``refused``: of ``DRAWS`` draws of ``n_posing`` patients.
    """

    score: float
    found: float
    n_planted: int
    refused: int
    n_posing: int

    @property
    def reliable(self) -> bool:
        return self.found >= FOUND and self.refused <= DRAWS_REFUSED

    def __str__(self) -> str:
        return (
            f"threshold {self.score:.2f}: {self.found:.1%} of {self.n_planted} planted copies of training images are "
            f"found; of {DRAWS:,} draws of {self.n_posing:,} real patients posing as synthetic images {self.refused} "
            "would be refused"
        )


def at_search_size(pixels: np.ndarray) -> np.ndarray:
    """Reduce uint8 [N, S, S] to ``SIDE`` pixels: uint8 [N, 64, 64]."""
    if pixels.shape[1] == SIDE:
        return np.asarray(pixels)
    small = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in pixels]
    return np.stack(small) if small else np.empty((0, SIDE, SIDE), dtype=np.uint8)


def choose_threshold(training: np.ndarray, patients: Sequence[str], n_synthetic: int, seed: int = 0) -> Threshold:
    """Choose the threshold on images uint8 [N, S, S] of ``patients``, one per patient, and measure its two rates."""
    rng = np.random.default_rng(seed)
    _, first = np.unique(np.asarray(patients, dtype=str), return_index=True)
    rows = np.sort(rng.permutation(first)[:REAL])
    images = at_search_size(training[rows])
    chosen = rng.permutation(len(images))[:PLANTED]
    scores = _scores_of_planted(training[rows[chosen]], images, chosen)
    pairs = find_copies(images, desc="real patients that look alike")
    people = pairs.scores < SAME  # others are twins
    choosing, measuring = scores[:, ::2].ravel(), scores[:, 1::2].ravel()
    highest = float(pairs.scores[people].max(initial=LIKELY))
    score = (highest + max(float(np.quantile(choosing, 1 - FOUND)), highest)) / 2 + 1e-4  # above the highest pair
    posing = min(n_synthetic, len(images) // 2)
    alike = pairs.rows[people & (pairs.scores >= score)]
    refused = 0
    for _ in range(DRAWS if len(alike) else 0):
        poses = np.isin(np.arange(len(images)), rng.permutation(len(images))[:posing])
        refused += bool((poses[alike[:, 0]] != poses[alike[:, 1]]).any())
    found = float((measuring >= score).mean()) if len(measuring) else 0.0
    return Threshold(score, found, len(measuring), refused, posing)


def _scores_of_planted(originals: np.ndarray, images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the scores of each kind of copy of ``originals``, the ``chosen`` of ``images``, 0 if it is not found.

    Of shape [kinds, chosen].
    """
    scores = np.zeros((len(KINDS), len(chosen)), dtype=np.float32)
    for kind, change in enumerate(KINDS):
        copies = np.stack([change(original) for original in originals])
        found = find_copies(at_search_size(copies), images, "planted copies")
        for (copy, row), score in zip(found.rows, found.scores, strict=True):
            if row == chosen[copy]:
                scores[kind, copy] = max(scores[kind, copy], score)
    return scores


def _as_jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def _moved(image: np.ndarray) -> np.ndarray:
    step = max(1, round(0.03 * len(image)))
    return shift(image, (step, -step), order=1, mode="nearest")


KINDS = (
    lambda image: image,
    _as_jpeg,
    lambda image: gaussian_filter(image, len(image) / 100),
    _moved,
    lambda image: at_search_size(image[None])[0],
    lambda image: image[:, ::-1],
)
