"""KID of generated images beside few real ones, with intervals over the real images' patients.

The 45 held-out X-rays of 37 patients are all there is to compare with. Which patients they are matters more
than which images are generated: a generator can always make more images, but there are no more patients.
Kernels are computed once; resampling whole patients only weights them. The real images' part of KID is the
same for all contenders, so the difference of two needs only the mean kernel of each with every real image. A
row of the result file keeps these means, so contenders of different commands can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from benchmarks.file_formats import HeldoutKernel, KernelMeans
from image_metrics.distances import cubic_kernel
from stats.bootstrap import PairedDifference, PatientDraws, percentile_interval

RESAMPLES = 500
SEED = 0  # the same for all contenders, which pairs their resamples


class KernelDistance(TypedDict):
    """KID with its 95 % interval over the held-out patients."""

    kid: float
    kid_ci95: list[float]


class KernelScores(KernelDistance, KernelMeans):
    """KID with its interval, and the kernels from which it follows."""


def written_weights(weights: np.ndarray) -> list[str]:
    """Write weights [R, M] as a line of counts for each resample."""
    return [" ".join(f"{count:.0f}" for count in row) for row in weights]


def read_weights(lines: Sequence[str]) -> np.ndarray:
    """Read the weights [R, M] that ``written_weights`` wrote."""
    return np.array([line.split() for line in lines], dtype=float)


class KernelReference:
    """Real images to compare with: features [M, D], and the patient of each [M].

    ``weights`` [RESAMPLES, M]: how often each image is in each resample of the patients.
    """

    def __init__(self, features: np.ndarray, patients: np.ndarray) -> None:
        self.features, weights = features, PatientDraws(list(patients), RESAMPLES, SEED).weights()
        self.weights = weights
        # Pairs within a patient, whom a resample may hold many times, would make the reals look alike.
        apart = patients[:, None] != patients[None, :]
        kernel = cubic_kernel(features, features) * apart
        mean = kernel.sum() / apart.sum()
        pairs = ((weights @ apart) * weights).sum(axis=1)
        means = np.full(len(pairs), mean)  # also of a resample of one patient, which has no pair
        np.divide(((weights @ kernel) * weights).sum(axis=1), pairs, out=means, where=pairs > 0)
        self.kernel: HeldoutKernel = {
            "mean": _nine_digits(mean),
            "resampled": [_nine_digits(value) for value in means],
        }

    def compare(self, images: np.ndarray, patients: np.ndarray | None = None) -> KernelScores:
        """Compute KID of features [N, D] beside the reference.

        ``patients`` [N]: given for real images; two images of one patient are then no pair.
        """
        groups = np.arange(len(images)) if patients is None else np.asarray(patients)
        kernel = cubic_kernel(images, images)
        to_heldout = cubic_kernel(images, self.features).mean(axis=0)
        means: KernelMeans = {
            "kernel_within": _nine_digits(kernel[groups[:, None] != groups[None, :]].mean()),
            "kernel_to_heldout": [_nine_digits(value) for value in to_heldout],
        }
        return {**kid_of([means], self.kernel, self.weights), **means}


def kid_of(parts: Sequence[KernelMeans], heldout: HeldoutKernel, weights: np.ndarray) -> KernelDistance:
    """Compute KID with its interval, the mean over ``parts`` (seeds of a contender).

    KID is the unbiased squared MMD with the kernel of Binkowski et al. (ICLR 2018), here over pairs of
    different patients. ``weights`` [R, M]: how often each held-out image is in each resample.
    """
    within, to_heldout = _means_of(parts)
    kid = within + heldout["mean"] - 2 * to_heldout.mean()
    values = within + np.array(heldout["resampled"]) - 2 * (weights @ to_heldout) / weights.sum(axis=1)
    return {"kid": float(kid), "kid_ci95": percentile_interval(values)}


def kid_difference(
    parts: Sequence[KernelMeans], others: Sequence[KernelMeans], weights: np.ndarray
) -> PairedDifference:
    """Compute KID of ``parts`` minus that of ``others`` on the same resampled patients."""
    (within, to_heldout), (other_within, other_to_heldout) = _means_of(parts), _means_of(others)
    gap = to_heldout - other_to_heldout
    values = within - other_within - 2 * (weights @ gap) / weights.sum(axis=1)
    difference = within - other_within - 2 * gap.mean()
    return {"difference": float(difference), "ci95": percentile_interval(values)}


def _means_of(parts: Sequence[KernelMeans]) -> tuple[float, np.ndarray]:
    within = float(np.mean([part["kernel_within"] for part in parts]))
    return within, np.mean([part["kernel_to_heldout"] for part in parts], axis=0)


def _nine_digits(value: float) -> float:
    """Round to nine digits: kernels are of order 10, their differences of order 0.001."""
    return float(f"{value:.9g}")
