"""The numbers of one arm: predictions as tables, scores of folds and test images, reference predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arms.data import ArmData
from arms.file_formats import PERSON_COLUMNS, References, ReferenceScores, TestScores
from dataset.near_copies import thumbnail_features
from stats.bootstrap import PatientDraws, bootstrap_difference, percentile_interval
from stats.metric_registry import METRICS, Interval, classification_metrics, mean_and_std
from stats.metrics import THRESHOLD, auroc
from synthetic.leak_checks import overlaps

if TYPE_CHECKING:
    from arms.training import FoldFit

CLEAN_NOTE = "folds are patient-grouped; nothing that was trained saw the images of its validation fold"


def prediction_table(records: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Make a table of one row per image, probability in full precision, predicted = probability >= 0.5."""
    table = records[list(PERSON_COLUMNS)].assign(
        age=records["age"].round().astype("Int64"),  # whole years, blank if unknown
        probability=probabilities,
        predicted=(probabilities >= THRESHOLD).astype(int),
    )
    return table.reset_index(drop=True)


def out_of_fold_table(data: ArmData, folds: list[FoldFit]) -> pd.DataFrame:
    """Make the table of every training image's prediction by the fit that did not see it, by image_id."""
    tables = [
        prediction_table(data.train.records.iloc[item.val_rows], item.probabilities()).assign(fold=item.fold)
        for item in folds
    ]
    return pd.concat(tables).sort_values("image_id", ignore_index=True)


def summarise_folds(
    data: ArmData, folds: list[FoldFit], out_of_fold: pd.DataFrame, weights_saw_folds: bool
) -> dict[str, Any]:
    """Return the content of ``<prefix>cv_summary.json`` but its origin.

    Folds are contaminated if the synthetic images' generator, or the initial weights, saw or may have seen
    their validation patients.
    """
    contaminated, rows = [], []
    for item in folds:
        held_out = data.train.records.iloc[item.val_rows]
        patients = set(held_out["patient"])
        rows.append(
            {
                "fold": item.fold,
                "n_images": len(held_out),
                "n_patients": len(patients),
                "best_epoch": item.fit.best_epoch,
                "val_loss": item.fit.history["val_loss"][item.fit.best_epoch - 1],
                **classification_metrics(held_out["label"].to_numpy(), item.probabilities()),
            }
        )
        source = data.synthetic_of(item.fold) if data.synthetic_images else None
        # Without a verified origin it is at best its maker's word that the generator saw none of them.
        seen = source and (not source.verified or overlaps(source.generator_patients, patients))
        if seen or weights_saw_folds:
            contaminated.append(item.fold)
    mean, std = mean_and_std(rows)
    return {
        "k": len(folds),
        "contaminated": bool(contaminated),
        "contaminated_folds": contaminated,
        "note": _contamination_note(contaminated) if contaminated else CLEAN_NOTE,
        "n_images": len(out_of_fold),
        "n_patients": int(out_of_fold["patient"].nunique()),
        "folds": rows,
        "mean": mean,
        "std": std,
        "out_of_fold": classification_metrics(out_of_fold["label"].to_numpy(), out_of_fold["probability"].to_numpy()),
    }


def _contamination_note(folds: list[int]) -> str:
    names = ", ".join(map(str, folds))
    return (
        "the generator of the synthetic images, or the classifier behind the initial weights, saw or may "
        f"have seen patients of validation folds {names}: they may be too good and enter no comparison; the "
        "number of epochs, thresholds and temperature come from the baseline's folds"
    )


def test_scores(data: ArmData, probabilities: np.ndarray) -> TestScores:
    """Score ``probabilities`` [N] of the test images: every metric, and the intervals that it has."""
    records = data.test.records
    labels, patients = records["label"].to_numpy(), list(records["patient"])
    scores: dict[str, Any] = {
        "n_images": len(labels),
        "n_patients": len(set(patients)),
        "n_positive": int(labels.sum()),
        "prevalence": float(labels.mean()),
        **classification_metrics(labels, probabilities),
        **score_intervals(labels, probabilities, patients),
    }
    return cast(TestScores, scores)


def score_intervals(labels: np.ndarray, probs: np.ndarray, patients: list[str]) -> dict[str, Interval]:
    """Return the metrics' 95 % intervals, from a bootstrap over patients and per image."""
    draws = PatientDraws(patients)
    intervals: dict[str, Interval] = {}
    for name, metric in METRICS.items():
        if metric.weighted:
            intervals[f"{name}_ci95"] = percentile_interval(draws.scores(metric, labels, probs))
        if metric.image_level:
            intervals[f"{name}_ci95_image_level"] = metric.image_level(labels, probs)
    return intervals


# --- reference predictors --------------------------------------------------------------------------
# They ignore the lungs. A network that does not beat a logistic regression on 16 x 16 thumbnails has learned
# nothing from the details of the image; one that does not beat view, sex and age has learned less than the
# form that came with it.
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
    unknown = ~np.isin(views, ["AP", "PA"]), ~np.isin(sexes, ["M", "F"])
    return np.column_stack([views == "AP", unknown[0], sexes == "M", unknown[1], decades]).astype(float)


def logistic_probabilities(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, c: float
) -> np.ndarray:
    """Fit a standardised logistic regression (L2, C = c) and predict probabilities [M] for ``features``."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    return model.fit(train_features, train_labels).predict_proba(features)[:, 1]


class ReferencePredictors:
    """The reference predictors for training ``records`` with view, sex, age and label; uint8 [N, S, S]."""

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
    records: pd.DataFrame, probabilities: np.ndarray, references: dict[str, np.ndarray]
) -> ReferenceScores:
    """Summarise the references, and the classifier's AUROC minus the thumbnails', paired over patients."""
    labels, patients = records["label"].to_numpy(), list(records["patient"])
    gap = bootstrap_difference(labels, references["thumbnail"], probabilities, patients, "auroc")
    return {
        "always_negative_accuracy": float(1.0 - np.mean(labels)),
        "metadata_auroc": auroc(labels, references["metadata"]),
        "thumbnail_auroc": auroc(labels, references["thumbnail"]),
        "auroc_minus_thumbnail": gap["difference"],
        "auroc_minus_thumbnail_ci95": gap["ci95"],
    }


def reference_results(data: ArmData, probabilities: np.ndarray, out_of_fold: pd.DataFrame | None) -> References:
    """Score the reference predictors on the test images, and out of fold where folds were trained.

    ``probabilities`` [N]: the arm's probabilities of the test images.
    """
    train, test = data.labelled_images(), data.test
    references = ReferencePredictors(train.records, train.pixels)
    predicted = references.predict(test.records, test.pixels)
    result: References = {
        "test": reference_summary(test.records, probabilities, predicted),
        "out_of_fold": None,
    }
    if out_of_fold is not None:
        own = out_of_fold.set_index("image_id").loc[train.records["image_id"]]
        predicted = references.out_of_fold(own["fold"].to_numpy())
        result["out_of_fold"] = reference_summary(train.records, own["probability"].to_numpy(), predicted)
    return result
