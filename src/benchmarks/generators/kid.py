"""KID of generated images beside few reals, and what it is worth: intervals over the reals' patients.

Some 45 held-out X-rays of 37 patients are all there is to be compared with, and which they are matters more
than which images are generated: another draw of a generator costs nothing, another patient is not to be had.
Kernels are computed once; resampling whole patients then only weights them. The reals' part of KID is the
same for all contenders, so the difference of two needs no more than the mean kernel of each with every real
image, which a row of the result file keeps: contenders of different commands are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from image_metrics.distances import cubic_kernel

RESAMPLES = 500
SEED = 0  # of the resampling: the same for all contenders, which makes it paired
LEVEL = (2.5, 97.5)  # percentiles


def resampled_weights(patients: Sequence[Any]) -> np.ndarray:
    """How often each image occurs, float [RESAMPLES, M], when whole patients are drawn with replacement."""
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    n = int(codes.max()) + 1
    counts = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return counts[:, codes].astype(np.float64)


class KernelReference:
    """Real images to compare with: features [M, D] of ``patients`` [M]."""

    def __init__(self, features: np.ndarray, patients: Sequence[Any]) -> None:
        self.features, self.weights = features, resampled_weights(patients)
        groups = np.asarray(patients)
        kernel, apart = cubic_kernel(features, features), groups[:, None] != groups[None, :]
        self.once = float(kernel[apart].mean())
        # Pairs within a patient, whom a resample may hold many times, would make the reals look alike.
        weighted = ((self.weights @ (kernel * apart)) * self.weights).sum(axis=1)
        self.within = weighted / ((self.weights @ apart) * self.weights).sum(axis=1)

    def facts(self) -> dict[str, Any]:
        return {"once": _short(self.once), "resampled": [_short(value) for value in self.within]}

    def beside(self, images: np.ndarray, patients: Sequence[Any] | None = None) -> dict[str, Any]:
        """{"kid", "kid_ci95", "own", "to_reference"} of features [N, D]; see ``kid_of``. ``patients`` [N]: of
        real images; two of one patient are no pair."""
        groups = np.arange(len(images)) if patients is None else np.asarray(patients)
        kernel = cubic_kernel(images, images)
        own = float(kernel[groups[:, None] != groups[None, :]].mean())
        means = cubic_kernel(images, self.features).mean(axis=0)
        parts = {"own": _short(own), "to_reference": [_short(value) for value in means]}
        return kid_of([parts], self.facts(), self.weights) | parts


def kid_of(
    parts: Sequence[Mapping[str, Any]], within: Mapping[str, Any], weights: np.ndarray
) -> dict[str, Any]:
    """{"kid", "kid_ci95"}: the mean over ``parts`` (seeds of a contender) of the unbiased squared MMD with
    the kernel of Binkowski et al. (ICLR 2018), over pairs of different patients, with a 95 % percentile
    interval over resampled patients of the reference.

    ``parts``: {"own": mean kernel of two generated images, "to_reference": [M] of generated images with each
    real one}; ``within``: {"once", "resampled" [RESAMPLES]}, mean kernel of two real ones.
    """
    own, to_reference = _means(parts)
    point = own + within["once"] - 2 * to_reference.mean()
    values = own + np.array(within["resampled"]) - 2 * (weights @ to_reference) / weights.sum(axis=1)
    return {"kid": float(point), "kid_ci95": _interval(values)}


def difference(
    parts: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], weights: np.ndarray
) -> dict[str, Any]:
    """{"kid", "ci95"}: KID of ``parts`` less that of ``others``, on the same resampled patients."""
    (own, to_reference), (other_own, to_other) = _means(parts), _means(others)
    gap = to_reference - to_other
    values = own - other_own - 2 * (weights @ gap) / weights.sum(axis=1)
    return {"kid": float(own - other_own - 2 * gap.mean()), "ci95": _interval(values)}


def _means(parts: Sequence[Mapping[str, Any]]) -> tuple[float, np.ndarray]:
    return (
        float(np.mean([part["own"] for part in parts])),
        np.mean([part["to_reference"] for part in parts], axis=0),
    )


def _interval(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values, LEVEL)]


def _short(value: float) -> float:
    """Nine digits: kernels are of order 10, their differences of order 0.001."""
    return float(f"{value:.9g}")
