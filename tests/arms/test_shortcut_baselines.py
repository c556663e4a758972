"""Predictors on thumbnails and on metadata: they see what they should, and no image of their own fold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from arms.shortcut_baselines import ReferencePredictors, logistic_probabilities, metadata_features
from stats.metrics import auroc


def test_metadata_features_know_the_unknown():
    features = metadata_features(["AP", "PA", ""], ["M", "F", ""], [30, float("nan"), 60])
    assert features.tolist() == [[1, 0, 1, 0, 3], [0, 0, 0, 0, 5], [0, 1, 0, 1, 6]]


def test_out_of_fold_means_not_having_seen_it():
    """Labels of pure noise: whoever saw an image could remember it, who did not scores about 0.5."""
    rng = np.random.default_rng(5)
    n = 400
    records = pd.DataFrame(
        {"label": rng.integers(0, 2, n), "view": "AP", "sex": "M", "age": rng.integers(20, 80, n)}
    )
    pixels = rng.integers(0, 255, (n, 16, 16), dtype=np.uint8)
    references = ReferencePredictors(records, pixels)
    folds = rng.integers(1, 6, n)
    labels = records["label"].to_numpy()
    assert abs(auroc(labels, references.out_of_fold(folds)["thumbnail"]) - 0.5) < 0.12
    assert auroc(labels, references.predict(records, pixels)["thumbnail"]) > 0.7


def test_logistic_regression_learns():
    features = np.random.default_rng(6).normal(size=(200, 3))
    labels = (features[:, 0] > 0).astype(int)
    assert auroc(labels, logistic_probabilities(features, labels, features, 1.0)) > 0.99
