"""How good are a contender's images? Scored in spaces that no contender was trained on.

- ``resnet18``: pooled features of a ResNet-18 that ``gan_benchmark_scorer`` trains from scratch on the labels
  of the training images. It sees the positives that contenders learn from and the negatives beside them, but
  nothing of the held-out patients, so the held-out positives are as new to it as generated images are;
- ``hog``: histograms of oriented gradients, which nobody trained;
- ``pixels``: 16 x 16 area averages.

Everything is compared at one n, the number of held-out positives, over seeded draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fidelity import NEIGHBOURS, SCORES, neighbourhood_scores
from gan_benchmark_data import BenchmarkData
from gan_spaces import hog_features
from image_quality import (
    EqualDraws,
    draw_pairs_within,
    feature_distances,
    halve_by_group,
    relative_diversity,
    ssim_of_pairs,
    summarise,
)
from memorisation import closer_to_training, detail_distances, near_copies
from references import THUMBNAIL_SIDE, thumbnail_features

DRAWS = 20
PAIRS = 300  # of images, for diversity by SSIM
SEED = 0  # of draws: the same for all contenders
SPACES = {
    "resnet18": "ResNet-18 trained from scratch on the labels of the learned training images",
    "hog": "histograms of oriented gradients",
    "pixels": f"{THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} area averages",
}
MAIN = "resnet18"  # decides which of a contender's two generators is the better one

Features = Callable[[np.ndarray], np.ndarray]  # uint8 [N, S, S] -> float [N, D]


class Judge:
    """Scores images against the held-out positives; features of the reals are computed once.

    ``resnet18``: the scorer's features.
    """

    def __init__(self, data: BenchmarkData, resnet18: Features) -> None:
        self.data = data
        self.training, self.reference = data.training, data.reference
        self.features: dict[str, Features] = {
            "resnet18": resnet18, "hog": hog_features, "pixels": thumbnail_features
        }  # fmt: skip
        self.real = {
            space: (features(self.training), features(self.reference))
            for space, features in self.features.items()
        }
        self.n = len(self.reference)
        self.yardstick = detail_distances(self.reference, self.training)
        self.real_diversity = self._similarity(self.training, self.data.training_patients)

    def floors(self) -> dict[str, Any]:
        """The same figures of real images: {space: {"floor": one half of all reals against the other,
        "training": those learned from against the held-out ones}}, patients whole."""
        patients = np.concatenate([self.data.training_patients, self.data.reference_patients])
        halves = [halve_by_group(patients, SEED + draw) for draw in range(DRAWS)]
        found: dict[str, Any] = {}
        for space, (training, reference) in self.real.items():
            both = np.concatenate([training, reference])
            n = min(self.n, *(len(half) for pair in halves for half in pair))
            pairs = [(both[first[:n]], both[second[:n]]) for first, second in halves]
            floor = compare(EqualDraws(n, DRAWS, lambda pairs=pairs: _named(iter(pairs))))
            found[space] = {"floor": floor, "training": compare(draws(training, reference))}
        return found

    def score(self, images: np.ndarray) -> dict[str, Any]:
        """Of generated images uint8 [N, S, S]: {space: figures}, "copies", "diversity"."""
        spaces = {
            space: compare(draws(features(images), self.real[space][1]))
            for space, features in self.features.items()
        }
        own = np.arange(len(images))
        diversity = relative_diversity(self._similarity(images, own), self.real_diversity)
        return {"spaces": spaces, "diversity": diversity, "copies": self._copies(images)}

    def _similarity(self, images: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
        """SSIM of pairs of different ``groups`` within one set."""
        pairs = draw_pairs_within(groups, PAIRS, SEED)
        return summarise(ssim_of_pairs(images, images, pairs), pairs, same_set=True)

    def _copies(self, images: np.ndarray) -> dict[str, Any]:
        to_training = detail_distances(images, self.training)
        copies = near_copies(to_training, self.yardstick)
        to_heldout = detail_distances(images, self.reference)
        patients = (self.data.training_patients, self.data.reference_patients)
        return copies | {"closer": closer_to_training(to_training, to_heldout, *patients, seed=SEED)}


def draws(compared: np.ndarray, reference: np.ndarray) -> EqualDraws:
    """Features [N, D] beside [M, D], ``DRAWS`` times min(N, M) of each, drawn at random."""
    n = min(len(compared), len(reference))

    def make() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(SEED)
        for _ in range(DRAWS):
            yield (part[rng.permutation(len(part))[:n]] for part in (compared, reference))

    return EqualDraws(n, DRAWS, lambda: _named(make()))


def _named(pairs: Iterator) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    for pair in pairs:
        yield {"pair": tuple(pair)}


def compare(sets: EqualDraws) -> dict[str, float | int | None]:
    """Means over the draws: "kid", "fid", each with its SD over draws, "precision", "recall", "density",
    "coverage"; "n" images on either side."""
    distances = feature_distances(sets)["distances"]["pair"]
    scores = [neighbourhood_scores(*compared["pair"], NEIGHBOURS) for compared in sets]
    means = {name: float(np.mean([score[name] for score in scores])) for name in SCORES}
    return {"n": sets.n, **distances, **means}


def better_of(scored: Mapping[str, Mapping[str, Any]]) -> str:
    """Of {"raw", "averaged"}: that of the lower KID in ``MAIN``."""
    return min(scored, key=lambda name: scored[name]["spaces"][MAIN]["kid"])
