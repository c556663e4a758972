"""Copies of test images among synthetic ones: searched once per folder, refused where chance can be excluded.

Lists of training images say what a generator was shown, not what its images show. So every synthetic image is
compared with the images that it must not show: those of the test set, and of the fold that its generator left out.

The rule: a synthetic image counts as a copy if its score with a real one (``registration.match_scores``, 1 for the
same picture) reaches a threshold from training images of the data set at hand: halfway between the highest score of
two different patients and the score that all but 1 % of planted copies reach. Two rates are then measured on other
training images: planted copies that are found, and draws of real patients, posing as a synthetic set, that would be
refused. Only if at least 99 % are found and at most 1 of 1,000 draws is refused, a copy is refused, else flagged.
The draws share one set of real pairs, so they say little of sets much larger than it; only the margin between the
two scores speaks for those.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from data_loader import ImageSet
from dataset.near_copies import LIKELY, find_copies
from dataset.registration import SAME
from synthetic.leak_checks import OR_ALLOW
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)

SEARCH = 1  # version; results in the cache depend on it
SIDE = 64  # pixels of the images that are compared
PLANTED = 60  # training images that are copied, half to choose the threshold, half to measure it
REAL = 2000  # training images, at most, in which pairs of different patients are looked for
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


def copy_flags(
    made: Mapping[int, ImageSet], test: ImageSet, training: ImageSet, folds: np.ndarray,
    allow: bool, cache_dir: str | Path | None,
) -> dict[int, list[str]]:  # fmt: skip
    """Return red flags of the images ``made`` without each fold (0: all training images were used), by fold.

    They are compared with ``test``, those of a fold also with the ``training`` images of that fold. Raises
    ``UserError`` as ``check_copies`` does.
    """
    flags: dict[int, list[str]] = {}
    for fold, images in made.items():
        held_out = {"the test set": test}
        if fold:
            rows = np.flatnonzero(folds == fold)
            key = sha256_json([training.key, rows.tolist()])
            held_out[f"fold {fold}"] = ImageSet(training.records.iloc[rows], training.pixels[rows], [], key)
        for whose, real in held_out.items():
            flags.setdefault(fold, []).extend(
                check_copies(images, real, training, whose, allow=allow, cache_dir=cache_dir)
            )
        for flag in flags[fold]:
            log.warning(f"RED FLAG: {flag}")
    return flags


def check_copies(
    made: ImageSet, real: ImageSet, training: ImageSet, whose: str,
    *, allow: bool, cache_dir: str | Path | None,
) -> list[str]:  # fmt: skip
    """Return a red flag if images ``made`` are copies of ``real`` ones (``whose``: "the test set").

    ``training`` (records with patient) gives the threshold, where any image comes near one. Raises ``UserError``
    naming a copy, unless ``allow`` is set or the threshold is not reliable.
    """
    pairs = _pairs(made, real, cache_dir)
    if not pairs:
        log.info(f"{len(made.records):,} synthetic images: none comes near one of {len(real.records):,} of {whose}")
        return []
    threshold = choose_threshold(training.pixels, list(training.records["patient"]), len(made.records))
    log.info(f"copies of images of {whose}: {threshold}")
    copies = sorted((pair for pair in pairs if pair[2] >= threshold.score), key=lambda pair: -pair[2])
    if not copies:
        return []
    row, other, score = copies[0]
    count = len({copy[0] for copy in copies})
    who = "1 synthetic image shows" if count == 1 else f"{count} synthetic images show"
    what = (
        f"{who} the picture of an image of {whose} "
        f"({made.records['path'].iloc[row]} that of {real.records['image_id'].iloc[other]}, score {score:.2f})"
    )
    if threshold.reliable and not allow:
        raise UserError(f"{what}; make the images with a generator that never saw it, {OR_ALLOW}")
    doubt = "" if threshold.reliable else f"; it may be chance ({threshold})"
    return [what + doubt]


def _small(pixels: np.ndarray) -> np.ndarray:
    """Reduce uint8 [N, S, S] to uint8 [N, 64, 64]."""
    if pixels.shape[1] == SIDE:
        return np.asarray(pixels)
    small = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in pixels]
    return np.stack(small) if small else np.empty((0, SIDE, SIDE), dtype=np.uint8)


def _pairs(made: ImageSet, real: ImageSet, cache_dir: str | Path | None) -> list[tuple[int, int, float]]:
    """Return (row of ``made``, row of ``real``, score) of images that come near each other, perhaps from the cache."""
    file = None
    if cache_dir is not None and made.key and real.key:
        file = Path(cache_dir) / "test_copies" / f"{sha256_json([made.key, real.key, SEARCH])[:20]}.json"
        try:
            kept = [(int(row), int(other), float(score)) for row, other, score in load_json(file)["pairs"]]
            if all(row < len(made.records) and other < len(real.records) for row, other, _ in kept):
                return kept
        except (UserError, OSError, KeyError, TypeError, ValueError):
            pass  # not there, or damaged
    found = find_copies(_small(made.pixels), _small(real.pixels), "searching for copies")
    pairs = [
        (int(row), int(other), round(float(score), 4))
        for (row, other), score in zip(found.rows, found.scores, strict=True)
    ]
    if file is not None:
        with contextlib.suppress(OSError):  # the cache cannot be used, as its other users say
            save_json(file, {"pairs": pairs})
    return pairs


# --- threshold -------------------------------------------------------------------------------------
def choose_threshold(training: np.ndarray, patients: Sequence[str], n_synthetic: int, seed: int = 0) -> Threshold:
    """Choose the threshold on images uint8 [N, S, S] of ``patients``, one per patient, and measure its two rates."""
    rng = np.random.default_rng(seed)
    _, first = np.unique(np.asarray(patients, dtype=str), return_index=True)
    rows = np.sort(rng.permutation(first)[:REAL])
    images = _small(training[rows])
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
        found = find_copies(_small(copies), images, "planted copies")
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
    lambda image: np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)),
    lambda image: image[:, ::-1],
)
