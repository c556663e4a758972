"""Reference predictors that ignore the lungs; every classifier is reported beside them.

A network that does not beat a logistic regression on 16 x 16 thumbnails has learned nothing from the details
of the image. One that does not beat view, sex and age has learned less than the form that came with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arms.file_formats import ReferenceScores
from image_metrics.feature_spaces import thumbnail_features
from stats.bootstrap import bootstrap_difference
from stats.metrics import auroc

if TYPE_CHECKING:
    import pandas as pd

# Inverse L2 strengths. 0.01 gives the thumbnails their best out-of-fold AUROC on 899 RSNA training
# images (0.0003 to 1 tried): the reference should be as strong as it can be.
THUMBNAIL_C = 0.01
METADATA_C = 1.0
UNKNOWN_AGE = 50.0  # years, about the median


def metadata_features(
    view: Sequence[str] | pd.Series, sex: Sequence[str] | pd.Series, age: Sequence[float] | pd.Series
) -> np.ndarray:
    """Columns of numbers from metadata, float [N, 5]: AP, view unknown, male, sex unknown, age in decades."""
    views, sexes = np.asarray(view, dtype=str), np.asarray(sex, dtype=str)
    decades = np.nan_to_num(np.asarray(age, dtype=float), nan=UNKNOWN_AGE) / 10.0
    columns = [
        views == "AP", ~np.isin(views, ["AP", "PA"]), sexes == "M", ~np.isin(sexes, ["M", "F"]), decades
    ]  # fmt: skip
    return np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)


def logistic_probabilities(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, c: float
) -> np.ndarray:
    """Fit a standardised logistic regression (L2, C = c) and predict probabilities [M] for ``features``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    return model.fit(train_features, train_labels).predict_proba(features)[:, 1]


class ReferencePredictors:
    """The two reference predictors for one set of training images.

    ``records`` has view, sex, age and label; ``pixels`` uint8 [N, S, S].
    """

    def __init__(self, records: pd.DataFrame, pixels: np.ndarray) -> None:
        self.labels = records["label"].to_numpy()
        self.features = _both_features(records, pixels)

    def out_of_fold(self, folds: np.ndarray) -> dict[str, np.ndarray]:
        """Predict each training image [N] with models that did not see its fold (1..k)."""
        probabilities = {name: np.empty(len(self.labels)) for name in self.features}
        for fold in np.unique(folds):
            held_out = folds == fold
            for name, (features, c) in self.features.items():
                probabilities[name][held_out] = logistic_probabilities(
                    features[~held_out], self.labels[~held_out], features[held_out], c
                )
        return probabilities

    def predict(self, records: pd.DataFrame, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Predict other images with models fitted on all training images."""
        return {
            name: logistic_probabilities(self.features[name][0], self.labels, features, c)
            for name, (features, c) in _both_features(records, pixels).items()
        }


def _both_features(records: pd.DataFrame, pixels: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    return {
        "metadata": (metadata_features(records["view"], records["sex"], records["age"]), METADATA_C),
        "thumbnail": (thumbnail_features(pixels), THUMBNAIL_C),
    }


def reference_summary(
    labels: np.ndarray,
    patients: Sequence[str],
    probabilities: np.ndarray,
    references: dict[str, np.ndarray],
) -> ReferenceScores:
    """Summarise the references on some images, and the classifier's AUROC minus the thumbnails' AUROC.

    The difference has a 95 % interval by paired bootstrap over patients.
    """
    gap = bootstrap_difference(labels, references["thumbnail"], probabilities, patients, "auroc")
    return {
        "always_negative_accuracy": float(1.0 - np.mean(labels)),
        "metadata_auroc": auroc(labels, references["metadata"]),
        "thumbnail_auroc": auroc(labels, references["thumbnail"]),
        "auroc_minus_thumbnail": gap["difference"],
        "auroc_minus_thumbnail_ci95": gap["ci95"],
    }
