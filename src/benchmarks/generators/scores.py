"""Scores of generated images, in spaces that no contender was trained on.

- ``resnet18``: pooled features of the ResNet-18 of ``scorer.py``, which is trained from scratch on the labels
  of the training images. It sees the positives that contenders learn from and the negatives beside them, but
  no held-out patient, so the held-out positives are as new to it as generated images are;
- ``hog``: histograms of oriented gradients, which need no training;
- ``pixels``: 16 x 16 area averages.

No single space suffices: the ResNet-18 hardly notices X-rays upside down, HOG hardly notices noise, area
averages hardly notice blur. So contenders are ranked in all three, and images known to be bad are scored
beside them (``Judge.control_scores``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from benchmarks.file_formats import (
    CopyScores,
    FloorScores,
    HeldoutReference,
    ImageScores,
    RealScores,
    SpaceScores,
)
from benchmarks.generators.data import BenchmarkData
from benchmarks.generators.kid import KernelReference, written_weights
from dataset.near_copies import THUMBNAIL_SIDE, detail_distances, thumbnail_features
from gan.evaluation import mean_distance
from image_metrics.copies import closer_to_training, near_copies
from image_metrics.distances import frechet_distance_of_features, halve_by_group, kernel_distance
from image_metrics.feature_spaces import grain, hog_features
from image_metrics.fidelity import NEIGHBOURS, SCORES, neighbourhood_scores
from utils import derive_seed

DRAWS = 20
SEED = 0  # of draws: the same for all contenders
SPACES = {
    "resnet18": "ResNet-18 of the benchmark", "hog": "HOG", "pixels": f"{THUMBNAIL_SIDE} x {THUMBNAIL_SIDE} pixels"
}  # fmt: skip
FEW, NOISE = 12, 10.0  # of a control: images that are repeated, and SD of the noise on them in gray levels
# Limits of a trained generator in every space, diversity beside the reals'. Noise surrounds everything, so
# its recall may be 1, but it lies near no real image: its precision is 0.
LIMITS: dict[Literal["recall", "precision", "diversity"], float] = {
    "recall": 0.1, "precision": 0.1, "diversity": 0.5
}  # fmt: skip
RAW: Literal["raw"] = "raw"
AVERAGED: Literal["averaged"] = "averaged"

Features = Callable[[np.ndarray], np.ndarray]  # uint8 [N, S, S] -> float [N, D]
Pairs = Sequence[tuple[np.ndarray, np.ndarray]]  # features [n, D] beside features [n, D]


class Judge:
    """Scores images against the held-out positives; features of the real images are computed once.

    ``resnet18``: features of the scoring network.
    """

    def __init__(self, data: BenchmarkData, resnet18: Features) -> None:
        self.data, self.training, self.reference = data, data.training, data.reference
        self.n = len(self.reference)
        self.features: dict[str, Features] = {
            "resnet18": resnet18, "hog": hog_features, "pixels": thumbnail_features
        }  # fmt: skip
        self.real = {
            space: (features(self.training), features(self.reference)) for space, features in self.features.items()
        }
        self.kernels = {
            space: KernelReference(reference, data.reference_patients) for space, (_, reference) in self.real.items()
        }
        self.spread = {space: mean_distance(training) for space, (training, _) in self.real.items()}
        self.yardstick = detail_distances(self.reference, self.training)
        self.grain = grain(self.training)

    def heldout_reference(self) -> HeldoutReference:
        """Return what intervals over the held-out patients are computed from, without their names."""
        kernels = {space: reference.kernel for space, reference in self.kernels.items()}
        return {"resamples": written_weights(self.kernels["pixels"].weights), "kernels": kernels}

    def real_scores(self) -> dict[str, RealScores]:
        """Score real images in each space.

        "floor" compares two halves of all real positives, split by patient. "training" compares the training
        positives with the held-out ones.
        """
        patients = np.concatenate([self.data.training_patients, self.data.reference_patients])
        halves = [halve_by_group(patients, SEED + draw) for draw in range(DRAWS)]
        n = min(self.n, *(len(half) for pair in halves for half in pair))
        found: dict[str, RealScores] = {}
        for space, real in self.real.items():
            both = np.concatenate(real)
            found[space] = {
                "floor": mean_scores([(both[first[:n]], both[second[:n]]) for first, second in halves]),
                "training": self._in_space(space, real[0], self.data.training_patients),
            }
        return found

    def control_scores(self) -> dict[str, ImageScores]:
        """Score images that are bad in a known way, which shows what each score can detect."""
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

    def score(self, images: np.ndarray) -> ImageScores:
        """Score generated images, uint8 [N, S, S]."""
        spaces = {space: self._in_space(space, features(images)) for space, features in self.features.items()}
        return {
            "spaces": spaces, "grain": grain(images) / max(self.grain, 1e-6), "copies": self._copies(images),
        }  # fmt: skip

    def _in_space(self, space: str, images: np.ndarray, patients: np.ndarray | None = None) -> SpaceScores:
        """Score features [N, D]; ``patients`` [N] are given for real images."""
        training, reference = self.real[space]
        draws, kernel = mean_scores(equal_pairs(images, reference)), self.kernels[space]
        return {
            "n": draws["n"],
            "fid": draws["fid"],
            "fid_sd": draws["fid_sd"],
            "precision": draws["precision"],
            "recall": draws["recall"],
            "density": draws["density"],
            "coverage": draws["coverage"],
            **kernel.compare(images, patients),
            "kid_learned": kernel_distance(images, training),
            "diversity": mean_distance(images) / max(self.spread[space], 1e-12),
        }

    def _copies(self, images: np.ndarray) -> CopyScores:
        to_training = detail_distances(images, self.training)
        to_heldout = detail_distances(images, self.reference)
        patients = (self.data.training_patients, self.data.reference_patients)
        closer = closer_to_training(to_training, to_heldout, *patients, seed=SEED)
        return {**near_copies(to_training, self.yardstick), "closer": closer}


def blurred(images: np.ndarray) -> np.ndarray:
    """Blur uint8 [N, S, S] by a Gaussian with an SD of 2 pixels at 64 pixels a side, and in proportion."""
    from scipy.ndimage import gaussian_filter

    width = images.shape[1] / 32
    return gaussian_filter(images.astype(np.float32), (0, width, width)).round().astype(np.uint8)


def equal_pairs(images: np.ndarray, reference: np.ndarray) -> Pairs:
    """Draw features [N, D] and [M, D] at random ``DRAWS`` times, min(N, M) of each."""
    n, rng = min(len(images), len(reference)), np.random.default_rng(SEED)

    def drawn(part: np.ndarray) -> np.ndarray:
        return part[rng.permutation(len(part))[:n]]

    return [(drawn(images), drawn(reference)) for _ in range(DRAWS)]


def mean_scores(pairs: Pairs) -> FloorScores:
    """Score the first features of each pair beside the second; means over the pairs."""
    fid = np.array([frechet_distance_of_features(*pair) for pair in pairs])
    kid = np.array([kernel_distance(*pair) for pair in pairs])
    neighbours = [neighbourhood_scores(*pair, NEIGHBOURS) for pair in pairs]
    means = {name: float(np.mean([score[name] for score in neighbours])) for name in SCORES}
    return {
        "n": len(pairs[0][0]),
        "fid": float(fid.mean()),
        "fid_sd": float(fid.std(ddof=1)),
        "kid": float(kid.mean()),
        "kid_sd": float(kid.std(ddof=1)),
        "precision": means["precision"],
        "recall": means["recall"],
        "density": means["density"],
        "coverage": means["coverage"],
    }


# --- verdicts --------------------------------------------------------------------------------------
def is_trained(score: ImageScores) -> bool:
    """Return whether recall, precision and diversity exceed their limits in every space.

    One chest over and over, noise, or images without a chest do not.
    """
    return all(score["spaces"][space][name] > limit for space in SPACES for name, limit in LIMITS.items())


def nearest_generator(scored: Mapping[str, ImageScores]) -> Literal["raw", "averaged"]:
    """Choose the generator with the lower KID beside the positives learned from, in more of the spaces.

    The reported scores, beside the held-out positives, take no part in the choice.
    """
    if AVERAGED not in scored or RAW not in scored:
        return shipped_generator(scored)
    kids = {name: [score["spaces"][space]["kid_learned"] for space in SPACES] for name, score in scored.items()}
    wins = sum(averaged <= raw for averaged, raw in zip(kids[AVERAGED], kids[RAW], strict=True))
    return AVERAGED if 2 * wins > len(SPACES) else RAW


def shipped_generator(scored: Iterable[str]) -> Literal["raw", "averaged"]:
    """Choose the averaged generator if there is one, because users of this project get that one."""
    return AVERAGED if AVERAGED in scored else RAW
