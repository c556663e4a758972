"""Our distances and scores give what torch-fidelity and prdc give on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric

from image_metrics.distances import frechet_distance_of_features, kernel_distance, kernel_distance_of_subsets
from image_metrics.fidelity import NEIGHBOURS, neighbourhood_scores


def features(n: int, dim: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng([n, int(100 * shift)]).normal(shift, 1 + shift, size=(n, dim))


@pytest.mark.parametrize(("n", "m", "dim"), [(200, 150, 12), (60, 60, 40), (30, 25, 64)])
def test_the_frechet_distance_is_torch_fidelitys(n, m, dim):
    a, b = features(n, dim), features(m, dim, 0.3)
    stats = [fid_features_to_statistics(torch.from_numpy(part)) for part in (a, b)]
    expected = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    # Of fewer images than features, torch-fidelity takes roots of eigenvalues that rounding leaves off zero.
    assert frechet_distance_of_features(a, b) == pytest.approx(expected, rel=1e-6 if n > dim else 1e-4)


def test_the_kernel_distance_is_torch_fidelitys():
    a, b = features(80, 10), features(80, 10, 0.2)
    assert kernel_distance(a, b) == pytest.approx(kernel_mmd(a, b), rel=1e-9)
    ours = kernel_distance_of_subsets(a, b, size=40, seed=0, n_subsets=400)
    settings = {"kid_subsets": 400, "kid_subset_size": 40, "verbose": False}
    theirs = kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **settings)
    spread = theirs["kernel_inception_distance_std"]
    assert ours["kid_of_subsets"] == pytest.approx(theirs["kernel_inception_distance_mean"], abs=0.2 * spread)
    assert ours["kid_of_subsets_sd"] == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(("n", "m", "shift"), [(100, 100, 0.05), (80, 50, 0.3), (40, 90, 1.0)])
def test_precision_recall_density_and_coverage_are_prdcs(n, m, shift, capsys):
    real, made = features(n, 6), features(m, 6, shift)
    expected = compute_prdc(real, made, NEIGHBOURS)
    assert neighbourhood_scores(made, real) == pytest.approx(expected)
