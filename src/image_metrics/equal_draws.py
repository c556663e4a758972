"""Sets of features compared at an equal number of images, and their distances averaged over seeded draws.

Distances between sets of features are biased by how many images enter. So every comparison of an analysis
uses the same number, and real images against real images (the "floor") show what chance alone gives.
Distances of real images are the same for every set of synthetic images and take as long as the others, so
they are kept on disk from one analysis to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

from common import paths
from image_metrics.distances import frechet_distance_of_features, kernel_distance
from utils import UserError, load_json, save_json, sha256_json

log = logging.getLogger(__name__)

DRAWS = 5  # seeded draws of images that every distance is averaged over
REAL_COMPARISONS = ("floor", "heldout_vs_training")  # those without synthetic images
CACHE_VERSION = 2  # of the formulas, the draws and the names

# Of each comparison, the (Fréchet, kernel) distance of every draw.
Distances = dict[str, list[tuple[float, float]]]


class MeanDistances(TypedDict):
    """Distances of two sets of features over the draws."""

    fid: Annotated[float, "mean Fréchet distance, in squared units of the features"]
    fid_sd: Annotated[float | None, "sample standard deviation of fid over the draws; null for one draw"]
    kid: Annotated[float, "mean kernel distance; 0 on average for two samples of one kind"]
    kid_sd: Annotated[float | None, "sample standard deviation of kid over the draws; null for one draw"]


class EqualDistances(TypedDict):
    """Distances at an equal number of images; the number alone if it is below 2, where none exists."""

    n: Annotated[int, "images on either side of every comparison"]
    draws: NotRequired[Annotated[int, "seeded draws"]]
    comparisons: NotRequired[Annotated[dict[str, MeanDistances], "by what is compared with what"]]


# --- draws -----------------------------------------------------------------------------------------
def halve_by_group(groups: Sequence[Any] | np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into two random halves, as equal in size as whole groups (patients) allow; shuffled."""
    groups = np.asarray(groups)
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(groups, return_counts=True)
    halves: tuple[list, list] = ([], [])
    counts = [0, 0]
    for position in rng.permutation(len(names)):
        smaller = int(counts[1] < counts[0])
        halves[smaller].append(names[position])
        counts[smaller] += sizes[position]
    first, second = (np.flatnonzero(np.isin(groups, half)) for half in halves)
    return rng.permutation(first), rng.permutation(second)


@dataclass(frozen=True)
class EqualDraws:
    """Draws of features to be compared, as often as wanted.

    ``n``: images on either side of every comparison; ``draws``: how many. Iterating gives, for each draw,
    {comparison: (features [n, D], reference [n, D])}.
    """

    n: int
    draws: int
    make: Callable[[], Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]]

    def __iter__(self) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        return self.make()

    def __len__(self) -> int:
        return self.draws


def equal_draws(
    training: np.ndarray,
    patients: Sequence[Any] | np.ndarray,
    synthetic: np.ndarray,
    heldout: np.ndarray | None,
    *,
    max_images: int,
    seed: int,
    draws: int = DRAWS,
) -> EqualDraws:
    """Draw sets of features [N, D], all of the same n, and name what is compared with what.

    Every draw splits the training images into halves that share no patient. "floor" is the second half
    against the first. "synthetic_vs_training", "heldout_vs_training" and "synthetic_vs_heldout" use n images
    of the first half, of ``synthetic`` and of ``heldout``. Held-out images are left out if there are so few
    that n would fall below half of what the others allow.
    """
    halves = [halve_by_group(patients, seed + draw) for draw in range(draws)]
    sizes = [len(half) for pair in halves for half in pair] + [len(synthetic), max_images]
    if heldout is not None and len(heldout) < min(sizes) / 2:
        heldout = None
    n = min(sizes if heldout is None else [*sizes, len(heldout)])

    def make() -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
        rng = np.random.default_rng(seed)
        for first, second in halves:
            real, other_real = training[first[:n]], training[second[:n]]
            made = synthetic[rng.permutation(len(synthetic))[:n]]
            compared = {"synthetic_vs_training": (made, real), "floor": (other_real, real)}
            if heldout is not None:
                unseen = heldout[rng.permutation(len(heldout))[:n]]
                compared |= {"synthetic_vs_heldout": (made, unseen), "heldout_vs_training": (unseen, real)}
            yield compared

    return EqualDraws(n, draws, make)


# --- distances -------------------------------------------------------------------------------------
def distances_of_draws(
    sets: EqualDraws,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    known: Mapping[str, list[tuple[float, float]]] | None = None,
) -> Distances:
    """Compute the (Fréchet, kernel) distance of each draw, except those in ``known``, which are taken over.

    Empty if n is below 2, where no distance exists.
    """
    values = {name: list(rows) for name, rows in (known or {}).items()}
    if sets.n < 2:
        return {}
    compared: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for compared in progress(sets):
        for name, (a, b) in compared.items():
            if name not in (known or {}):
                distances = (frechet_distance_of_features(a, b), kernel_distance(a, b))
                values.setdefault(name, []).append(distances)
    return {name: values[name] for name in compared}


def feature_distances(sets: EqualDraws) -> EqualDistances:
    """Return the Fréchet and kernel distances between sets of features, averaged over the draws."""
    return mean_distances(sets.n, distances_of_draws(sets))


def mean_distances(n: int, distances: Distances) -> EqualDistances:
    """Average the distances of draws of ``n`` images."""
    if not distances:
        return {"n": n}
    draws = len(next(iter(distances.values())))
    return {"n": n, "draws": draws, "comparisons": {name: _mean(rows) for name, rows in distances.items()}}


def _mean(rows: list[tuple[float, float]]) -> MeanDistances:
    fid, kid = np.array(rows).T
    fid_sd, kid_sd = (float(part.std(ddof=1)) if len(rows) > 1 else None for part in (fid, kid))
    return {"fid": float(fid.mean()), "fid_sd": fid_sd, "kid": float(kid.mean()), "kid_sd": kid_sd}


# --- distances of real images, on disk -------------------------------------------------------------
class RealDistances:
    """File below ``cache_dir`` with the distances of real images of one analysis; None keeps nothing.

    ``space``: key of the features; ``images``: keys of the images of each set; ``drawing``: everything else
    that determines which images are compared. A file that is damaged or belongs to something else is ignored.
    """

    def __init__(
        self,
        cache_dir: str | Path | None,
        space: str,
        images: Sequence[Sequence[str]],
        drawing: dict[str, Any],
    ) -> None:
        self.key = sha256_json([CACHE_VERSION, space, [list(keys) for keys in images], drawing])
        self.file: Path | None = None
        if cache_dir is not None and space and all(images):
            self.file = paths.cached_distances(cache_dir, self.key[:20])

    def load(self, draws: int) -> Distances:
        """Read the known distances of so many draws; empty if there are none."""
        if self.file is None or not self.file.is_file():
            return {}
        try:
            content = load_json(self.file)
            known = content["distances"]
            if content["key"] != self.key or content["sha256"] != sha256_json(known):
                return {}
        except (UserError, OSError, TypeError, KeyError):
            return {}
        return {name: [(fid, kid) for fid, kid in rows] for name, rows in known.items() if len(rows) == draws}

    def save(self, distances: Distances) -> None:
        """Write the distances of real images; if that fails, they are computed again next time."""
        if self.file is None:
            return
        kept = {name: distances[name] for name in REAL_COMPARISONS if name in distances}
        plain = {name: [[float(fid), float(kid)] for fid, kid in rows] for name, rows in kept.items()}
        try:
            save_json(self.file, {"key": self.key, "sha256": sha256_json(plain), "distances": plain})
        except OSError as error:
            log.warning(
                f"WARNING: {self.file.parent} cannot be used ({error.strerror or error}), so distances "
                "of real images are computed again in every run"
            )
            self.file = None
