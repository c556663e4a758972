"""Which folds count as seen by the generator of the synthetic images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from arms.scores import (
    CLEAN_NOTE,
    ReferencePredictors,
    logistic_probabilities,
    metadata_features,
    out_of_fold_table,
    summarise_folds,
)
from fake_results import fake_records
from stats.metrics import auroc
from synthetic.folders import SyntheticSet


def summary_of(synthetic: SyntheticSet | None) -> dict:
    """Two folds of 20 images each; ``synthetic`` joins both."""
    records = fake_records(40)
    data = SimpleNamespace(
        train=SimpleNamespace(records=records),
        synthetic_images={0: np.zeros((3, 8, 8), np.uint8)} if synthetic else {},
        synthetic_of=lambda fold: synthetic,
    )
    fit = SimpleNamespace(best_epoch=1, history={"val_loss": [0.5]})
    folds = [
        SimpleNamespace(
            fold=number,
            val_rows=rows,
            fit=fit,
            probabilities=lambda rows=rows: np.linspace(0.1, 0.9, len(rows)),
        )
        for number, rows in ((1, np.arange(20)), (2, np.arange(20, 40)))
    ]
    return summarise_folds(data, folds, out_of_fold_table(data, folds), weights_saw_folds=False)


@pytest.mark.parametrize(
    ("verified", "seen", "contaminated"),
    [
        (True, {"of nobody here"}, []),
        (True, {"00000012"}, [2]),
        (True, None, [1, 2]),
        # Trained elsewhere, say, by its maker's word: nothing in this dataset, but nobody can check it.
        (False, set(), [1, 2]),
        (False, {"00000012"}, [1, 2]),
    ],
)
def test_folds_are_clean_only_if_the_origin_is_verified_and_does_not_touch_them(verified, seen, contaminated):
    summary = summary_of(SyntheticSet(None, 1, verified, seen))
    assert summary["contaminated_folds"] == contaminated
    assert summary["contaminated"] is bool(contaminated)
    assert (summary["note"] == CLEAN_NOTE) is not bool(contaminated)


def test_without_synthetic_images_folds_are_clean():
    assert summary_of(None)["note"] == CLEAN_NOTE


def test_metadata_features_know_the_unknown():
    features = metadata_features(["AP", "PA", ""], ["M", "F", ""], [30, float("nan"), 60])
    assert features.tolist() == [[1, 0, 1, 0, 3], [0, 0, 0, 0, 5], [0, 1, 0, 1, 6]]


def test_out_of_fold_means_not_having_seen_it():
    """Labels of pure noise: whoever saw an image could remember it, who did not scores about 0.5."""
    rng = np.random.default_rng(5)
    n = 400
    records = pd.DataFrame({"label": rng.integers(0, 2, n), "view": "AP", "sex": "M", "age": rng.integers(20, 80, n)})
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
