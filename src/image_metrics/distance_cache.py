"""Distances between sets of real images, kept from one analysis to the next.

Of the distances that an analysis computes, those of real images to real images (the floor, and training to
held-out images) are the same for every set of synthetic images, and take as long as the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import paths
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)


VERSION = 1  # of the formulas and the draws

# Of each name, (Fréchet, kernel) of every draw.
Distances = dict[str, list[list[float]]]


class RealDistances:
    """The distances in one file below ``cache_dir`` (None: not kept).

    ``space``: key of the features; ``images``: keys of the images of each set; ``drawing``: all else that
    determines which are compared. A file that is damaged or of something else counts for none.
    """

    def __init__(
        self,
        cache_dir: str | Path | None,
        space: str,
        images: Sequence[Sequence[str]],
        drawing: dict[str, Any],
    ) -> None:
        self.key = sha256_json([VERSION, space, [list(keys) for keys in images], drawing])
        keep = cache_dir is not None and space and all(images)
        self.file = paths.cached_distances(cache_dir, self.key[:20]) if keep else None

    def load(self, draws: int) -> Distances:
        """Those known, by name; empty if there are none."""
        if self.file is None or not self.file.is_file():
            return {}
        try:
            content = load_json(self.file)
            known = content["distances"]
            if content["key"] != self.key or content["sha256"] != sha256_json(known):
                return {}
        except (UserError, OSError, TypeError, KeyError):
            return {}
        return {name: values for name, values in known.items() if len(values) == draws}

    def save(self, distances: Distances) -> None:
        """Write them; where that cannot be done, they are computed again next time."""
        if self.file is None:
            return
        plain = {
            name: [[float(value) for value in pair] for pair in rows] for name, rows in distances.items()
        }
        try:
            save_json(self.file, {"key": self.key, "sha256": sha256_json(plain), "distances": plain})
        except OSError as error:
            log.warning(f"WARNING: {self.file.parent} cannot be used ({error.strerror or error})")
            self.file = None
