"""Copies of test images among synthetic ones: searched once per folder, refused where chance can be excluded.

Lists of training images say what a generator was shown, not what its images show. So every synthetic image is
compared with the images that it must not show: those of the test set, and of the fold that its generator left out.

The rule: a synthetic image counts as a copy if its score with a real one reaches the threshold that training images
of the data set at hand give (``image_metrics.planted_copies``). Only if at least 99 % of planted copies are found and
at most 1 of 1,000 draws of real patients is refused, a copy is refused, else flagged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_loader import ImageSet
from dataset.near_copies import find_copies
from image_metrics.planted_copies import at_search_size, choose_threshold
from synthetic.leak_checks import OR_ALLOW
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)

SEARCH = 1  # version; results in the cache depend on it


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
    file = made.records["path"].iloc[row]  # its folders are not for result files
    count = len({copy[0] for copy in copies})
    who = "1 synthetic image shows" if count == 1 else f"{count} synthetic images show"
    what = (
        f"{who} the picture of an image of {whose} "
        f"({file.parent.name}/{file.name} that of {real.records['image_id'].iloc[other]}, score {score:.2f})"
    )
    if threshold.reliable and not allow:
        raise UserError(f"{what}; make the images with a generator that never saw it, {OR_ALLOW}")
    doubt = "" if threshold.reliable else f"; it may be chance ({threshold})"
    return [what + doubt]


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
    found = find_copies(at_search_size(made.pixels), at_search_size(real.pixels), "searching for copies")
    pairs = [
        (int(row), int(other), round(float(score), 4))
        for (row, other), score in zip(found.rows, found.scores, strict=True)
    ]
    if file is not None:
        with contextlib.suppress(OSError):  # the cache cannot be used, as its other users say
            save_json(file, {"pairs": pairs})
    return pairs
