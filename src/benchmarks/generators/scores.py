"""How good are a contender's images? Scored in spaces that no contender was trained on.

- ``resnet18``: pooled features of a ResNet-18 that ``gan_benchmark_scorer`` trains from scratch on the labels
  of the training images. It sees the positives that contenders learn from and the negatives beside them, but
  nothing of the held-out patients, so the held-out positives are as new to it as generated images are;
- ``hog``: histograms of oriented gradients, which nobody trained;
- ``pixels``: 16 x 16 area averages.

No single one of them suffices: the ResNet-18 hardly minds X-rays upside down, HOG hardly minds noise, area
averages hardly mind blur. So contenders are ranked in all three, and images known to be bad are scored beside
them (``Judge.controls``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.generators.data import BenchmarkData
from benchmarks.generators.kid import KernelReference
from gan.evaluation import mean_distance
from image_metrics.copies import closer_to_training, detail_distances, near_copies
from image_metrics.distances import kernel_distance
from image_metrics.equal_draws import EqualDraws, feature_distances, halve_by_group
from image_metrics.feature_spaces import THUMBNAIL_SIDE, grain, hog_features, thumbnail_features
from image_metrics.neighbourhoods import NEIGHBOURS, SCORES, neighbourhood_scores
from utils import derive_seed

VERSION = 2  # of the spaces and of what is computed in them: figures of two versions are not to be compared
DRAWS = 20
SEED = 0  # of draws: the same for all contenders
SPACES = {
    "resnet18": "ResNet-18 trained from scratch on the labels of the learned training images",
    "hog": "histograms of oriented gradients",
    "pixels": f"{THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} area averages",
}
FEW, NOISE = 12, 10.0  # of the control: images that are repeated, and SD in gray levels of the noise on them
RAW, AVERAGED = "raw", "averaged"

Features = Callable[[np.ndarray], np.ndarray]  # uint8 [N, S, S] -> float [N, D]


class Judge:
    """Scores images against the held-out positives; features of the reals are computed once.

    ``resnet18``: the scorer's features; ``digest``: of its weights. ``mark`` tells figures of one kind.
    """

    def __init__(self, data: BenchmarkData, resnet18: Features, digest: str | None = None) -> None:
        self.data, self.mark = data, {"version": VERSION, "scorer": digest}
        self.training, self.reference = data.training, data.reference
        self.features: dict[str, Features] = {
            "resnet18": resnet18, "hog": hog_features, "pixels": thumbnail_features
        }  # fmt: skip
        self.real = {
            space: (features(self.training), features(self.reference))
            for space, features in self.features.items()
        }
        self.kernels = {
            space: KernelReference(reference, data.reference_patients)
            for space, (_, reference) in self.real.items()
        }
        self.spread = {space: mean_distance(training) for space, (training, _) in self.real.items()}
        self.n = len(self.reference)
        self.yardstick = detail_distances(self.reference, self.training)
        self.grain = grain(self.training)

    def references(self) -> dict[str, Any]:
        """What intervals over the held-out patients are computed from, without their names: a number for the
        patient of each image, and the reals' part of KID in each space."""
        _, codes = np.unique(self.data.reference_patients, return_inverse=True)
        within = {space: kernel.facts() for space, kernel in self.kernels.items()}
        return {"patients": codes.tolist(), "within": within}

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
            found[space] = {
                "floor": floor,
                "training": self._in_space(space, training, self.data.training_patients),
            }
        return found

    def controls(self) -> dict[str, Any]:
        """Scores of images that are bad in a known way: what any figure is worth shows in them."""
        rng = np.random.default_rng(derive_seed(SEED, "controls"))
        few = self.training[rng.permutation(len(self.training))[:FEW]]
        few = few[rng.integers(0, len(few), max(len(self.training), self.n))]
        noisy = (few + rng.normal(0, NOISE, few.shape)).round().clip(0, 255).astype(np.uint8)
        negative = self.data.heldout.records["label"].to_numpy() == 0
        kinds = {
            "upside down": np.ascontiguousarray(self.training[:, ::-1]),
            "blurred": blurred(self.training),
            f"{FEW} training images + noise": noisy,
            "held-out negatives": np.ascontiguousarray(self.data.heldout.pixels[negative]),
        }
        return {name: self.score(images) for name, images in kinds.items() if len(images) > NEIGHBOURS}

    def score(self, images: np.ndarray) -> dict[str, Any]:
        """Of generated images uint8 [N, S, S]: {"spaces": {space: figures}, "grain": as a share of that of
        the reals learned from, "copies"}."""
        spaces = {space: self._in_space(space, features(images)) for space, features in self.features.items()}
        return {
            "spaces": spaces, "grain": grain(images) / max(self.grain, 1e-6), "copies": self._copies(images),
        }  # fmt: skip

    def _in_space(
        self, space: str, made: np.ndarray, patients: Sequence[Any] | None = None
    ) -> dict[str, Any]:
        """``compare`` with the held-out positives; KID is of all images instead, with its interval;
        "kid_learned": beside the positives learned from; "diversity": the mean distance of two images as a
        share of that of two reals learned from."""
        training, reference = self.real[space]
        figures = compare(draws(made, reference)) | self.kernels[space].beside(made, patients)
        del figures["kid_sd"]  # of draws of one sample: no measure of how sure KID is
        return figures | {
            "kid_learned": kernel_distance(made, training),
            "diversity": mean_distance(made) / max(self.spread[space], 1e-12),
        }

    def _copies(self, images: np.ndarray) -> dict[str, Any]:
        to_training = detail_distances(images, self.training)
        copies = near_copies(to_training, self.yardstick)
        to_heldout = detail_distances(images, self.reference)
        patients = (self.data.training_patients, self.data.reference_patients)
        return copies | {"closer": closer_to_training(to_training, to_heldout, *patients, seed=SEED)}


def blurred(images: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] under a Gaussian of SD 2 pixels at 64 pixels a side, and in proportion."""
    from scipy.ndimage import gaussian_filter

    width = images.shape[1] / 32
    return gaussian_filter(images.astype(np.float32), (0, width, width)).round().astype(np.uint8)


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
    distances = feature_distances(sets)["comparisons"]["pair"]
    scores = [neighbourhood_scores(*compared["pair"], NEIGHBOURS) for compared in sets]
    means = {name: float(np.mean([score[name] for score in scores])) for name in SCORES}
    return {"n": sets.n, **distances, **means}


def better_of(scored: Mapping[str, Mapping[str, Any]]) -> str:
    """Of {RAW, AVERAGED}: that of the lower KID in more spaces, beside the positives learned from. The
    reported figures, beside the held-out ones, choose nothing."""
    if AVERAGED not in scored or RAW not in scored:
        return next(iter(scored))
    kids = {
        name: [score["spaces"][space]["kid_learned"] for space in SPACES] for name, score in scored.items()
    }
    wins = sum(averaged <= raw for averaged, raw in zip(kids[AVERAGED], kids[RAW], strict=True))
    return AVERAGED if 2 * wins > len(SPACES) else RAW


def shipped(scored: Mapping[str, Mapping[str, Any]]) -> str:
    """The averaged generator, which this project's users get, where there is one."""
    return AVERAGED if AVERAGED in scored else next(iter(scored))
