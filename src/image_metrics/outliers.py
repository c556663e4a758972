"""How unlike the training images an image is, in a space that no label trained: thumbnails and gradients.

16 x 16 thumbnails and histograms of oriented gradients are reduced to ``COMPONENTS`` principal components and
what these leave over. The distance is Mahalanobis' from the centre of the training images. The limit is what 99 %
of the training images stay below when the space is made without their patients. On 1,200 RSNA images, 97 % of images
upside down exceed it, and 99 % of inverted ones and of those turned by a right angle; 1.6 % of mirrored ones do.
A space of half of the patients calls 0.5 to 1.7 % of the others' images outliers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dataset.near_copies import THUMBNAIL_SIDE, thumbnail_features
from image_metrics.feature_spaces import hog_features

COMPONENTS = 64
IMAGES_PER_COMPONENT = 4  # at least
FEWEST = 20  # images, below which no space is made
MOST = 5000  # images that a space is made from: 10 s of HOG
# Patients are left out a tenth at a time: on 1,200 RSNA images (1,029 patients) distances are 0.3 % below those
# when each is left out alone (r = 0.996), for a hundredth of the time.
PARTS = 10
SEED = 42  # of the order of the patients
CHUNK = 256  # images whose features are computed together
WITHIN = 0.99  # share of images of other patients of the training set that stay below the limit
INVERTED = -0.1  # correlation with the mean thumbnail; RSNA: 2 of 1,200 are below it, 1,198 once they are inverted


@dataclass(frozen=True)
class OutlierSpace:
    """A space made from ``n_images`` training images of ``n_patients``, of D features and K components.

    ``mean`` [D] and ``scale`` [D] of features; ``components`` [K, D]; ``centre`` [K + 1] and ``precision``
    [K + 1, K + 1] (inverse covariance) of components and the logarithm of what they leave over; ``limit``: of
    distances.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    centre: np.ndarray
    precision: np.ndarray
    limit: float
    n_images: int
    n_patients: int

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return the distances [N] of ``features`` [N, D] (``outlier_features``) from the training images."""
        gaps = _coordinates(features, self.mean, self.scale, self.components) - self.centre
        return np.sqrt(np.einsum("nk,kl,nl->n", gaps, self.precision, gaps).clip(min=0))

    def likeness(self, features: np.ndarray) -> np.ndarray:
        """Return the correlation [N] of each thumbnail with the mean one; below ``INVERTED`` it is inverted."""
        n = THUMBNAIL_SIDE**2
        mean, own = self.mean[:n] - self.mean[:n].mean(), features[:, :n]
        own = own - own.mean(axis=1, keepdims=True)
        return own @ mean / np.maximum(np.linalg.norm(own, axis=1) * np.linalg.norm(mean), 1e-9)

    def state(self) -> dict[str, Any]:
        """Return its content as tensors and plain numbers, for a checkpoint."""
        return {
            name: torch.from_numpy(value.astype(np.float32)) if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OutlierSpace:
        """Make it again from ``state``."""
        arrays: dict[str, Any] = {k: v.double().numpy() if torch.is_tensor(v) else v for k, v in state.items()}
        return cls(**arrays)


def outlier_features(pixels: np.ndarray) -> np.ndarray:
    """Compute thumbnails and gradients of ``pixels`` uint8 [N, S, S]: float32 [N, D]."""
    return np.hstack([thumbnail_features(pixels), hog_features(pixels)])


def fit_outlier_space(pixels: np.ndarray, patients: Sequence[Any]) -> OutlierSpace | None:
    """Make the space of training images uint8 [N, S, S] of ``patients`` [N]; None for fewer than ``FEWEST``.

    At most ``MOST`` images are used, of patients drawn at random.
    """
    _, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    n_patients = int(codes.max()) + 1 if len(codes) else 0
    place = np.random.default_rng(SEED).permutation(n_patients)[codes]  # of each image's patient in a random order
    rows = np.sort(np.argsort(place, kind="stable")[:MOST])
    if len(rows) < FEWEST or len(np.unique(codes[rows])) < 2:
        return None
    chunks = np.array_split(rows, -(-len(rows) // CHUNK))
    features = np.concatenate([outlier_features(pixels[chunk]) for chunk in chunks]).astype(float)
    part = place[rows] % PARTS
    left_out = np.full(len(rows), np.nan)
    for each in np.unique(part):
        inside = part != each
        if inside.sum() >= FEWEST // 2:
            left_out[~inside] = _fit(features[inside]).distances(features[~inside])
    limit = float(np.nanquantile(left_out, WITHIN, method="higher"))
    return replace(_fit(features), limit=limit, n_patients=len(np.unique(codes[rows])))


def _fit(features: np.ndarray) -> OutlierSpace:
    """Make a space of ``features`` [N, D], without a limit and a number of patients."""
    mean, n = features.mean(axis=0), THUMBNAIL_SIDE**2
    # Both kinds of features count alike, whatever their number and units.
    scale = np.ones(features.shape[1])
    for kind in (slice(0, n), slice(n, None)):
        scale[kind] = max(float(np.linalg.norm(features[:, kind] - mean[kind])) / np.sqrt(len(features)), 1e-9)
    scaled = (features - mean) / scale
    k = max(1, min(COMPONENTS, len(features) // IMAGES_PER_COMPONENT))
    components = _principal_components(scaled)[:k]
    found = _coordinates(features, mean, scale, components)
    # A little of the mean variance keeps constant components, of drawn or equal images, from dividing by zero.
    covariance = np.cov(found.T)
    covariance += 1e-6 * (np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    return OutlierSpace(
        mean, scale, components, found.mean(axis=0), np.linalg.inv(covariance), np.inf, len(features), 0
    )


def _principal_components(centred: np.ndarray) -> np.ndarray:
    """Return the directions of largest variance of [N, D], the largest first: [min(N, D), D]."""
    if len(centred) < centred.shape[1]:
        return np.linalg.svd(centred, full_matrices=False)[2]
    return np.linalg.eigh(centred.T @ centred)[1].T[::-1]  # of many images quicker, and as exact as needed


def _coordinates(features: np.ndarray, mean: np.ndarray, scale: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return components and the logarithm of the length of what they leave over, [N, K + 1]."""
    scaled = (features - mean) / scale
    inside = scaled @ components.T
    rest = np.linalg.norm(scaled - inside @ components, axis=1)
    return np.column_stack([inside, np.log(rest + 1e-6)])
