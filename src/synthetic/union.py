"""Synthetic images of several folders, each of one label, as one set that joins training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synthetic.folders import IDENTITY, SyntheticSet
from utils import UserError

if TYPE_CHECKING:
    import pandas as pd


def join_folders(found: Sequence[dict[int, SyntheticSet]]) -> dict[int, SyntheticSet]:
    """By fold, as in ``found`` (a dictionary for each folder), the images of all folders.

    A fold that a folder has no images of its own for takes those of its key 0, whose generator saw the
    patients of that fold: so has, then, that of the union. ``UserError`` if two folders hold the same images.
    """
    if len(found) == 1:
        return found[0]
    for one, other in combinations([sets[0] for sets in found], 2):
        if _same_images(one, other):
            raise UserError(
                f"--synthetic-dir: {_folder(one)} and {_folder(other)} hold the same images (generator, seed "
                "and class are the same): leave one of them out"
            )
    folds = sorted({fold for sets in found for fold in sets})
    return {fold: union([sets.get(fold, sets[0]) for sets in found]) for fold in folds}


def union(sets: Sequence[SyntheticSet]) -> SyntheticSet:
    """One set of them all, the same whatever their order.

    Records are interleaved, so that the first n are of each folder in proportion to its images. ``label`` is
    None if the labels differ; what one of the generators saw counts as seen, and what is not known of one is
    not known of all.
    """
    import pandas as pd

    parts = sorted(sets, key=lambda part: (-part.label, part.manifest_sha256 or ""))
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in (len(part.records) for part in parts)])
    records = pd.concat([_named(part) for part in parts]).iloc[np.argsort(place, kind="stable")]
    labels = {part.label for part in parts}
    seen = [part.generator_patients for part in parts]
    hashes = "\n".join(part.manifest_sha256 or "none" for part in parts)
    return SyntheticSet(
        records=records.reset_index(drop=True),
        label=labels.pop() if len(labels) == 1 else None,
        verified=all(part.verified for part in parts),
        generator_patients=None if None in seen else set().union(*seen),
        manifest_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        red_flags=list({flag: None for part in parts for flag in part.red_flags}),
        parts=tuple(parts),
    )


def _named(part: SyntheticSet) -> pd.DataFrame:
    """Its records; image ids begin with the folder's name, because every folder has the same."""
    return part.records.assign(image_id=f"{_folder(part).name}/" + part.records["image_id"])


def _folder(images: SyntheticSet) -> Path:
    return images.records["path"].iloc[0].parent


def _same_images(one: SyntheticSet, other: SyntheticSet) -> bool:
    """The same folder, or two that the same generator filled from the same noise."""
    if _folder(one).resolve() == _folder(other).resolve():
        return True
    if not any(one.manifest.get(key) for key in ("generator_sha256", "images_sha256")):
        return False
    return all(one.manifest.get(key) == other.manifest.get(key) for key in IDENTITY)
