"""The numbers of one arm: predictions as tables, scores of folds and test images, reference predictors."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from arms.data import ArmData
from arms.file_formats import PERSON_COLUMNS, Interval, References, TestScores
from arms.shortcut_baselines import ReferencePredictors, reference_summary
from arms.training import FoldFit
from stats.bootstrap import PatientDraws, percentile_interval
from stats.metric_registry import METRICS, classification_metrics, mean_and_std
from stats.metrics import THRESHOLD
from synthetic.leak_checks import overlaps

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
        by_generator = source is not None and (
            not source.verified or overlaps(source.generator_patients, patients)
        )
        if by_generator or weights_saw_folds:
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
        "out_of_fold": classification_metrics(
            out_of_fold["label"].to_numpy(), out_of_fold["probability"].to_numpy()
        ),
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


def score_intervals(
    labels: np.ndarray, probabilities: np.ndarray, patients: list[str]
) -> dict[str, Interval]:
    """Return the metrics' 95 % intervals, from a bootstrap over patients and per image."""
    draws = PatientDraws(patients)
    intervals: dict[str, Interval] = {}
    for name, metric in METRICS.items():
        if metric.weighted:
            resampled = draws.scores(metric, labels, probabilities)
            intervals[f"{name}_ci95"] = percentile_interval(resampled)
        if metric.image_level:
            intervals[f"{name}_ci95_image_level"] = metric.image_level(labels, probabilities)
    return intervals


def reference_results(
    data: ArmData, probabilities: np.ndarray, out_of_fold: pd.DataFrame | None
) -> References:
    """Score the reference predictors on the test images, and out of fold where folds were trained.

    ``probabilities`` [N]: the arm's probabilities of the test images.
    """
    train, test = data.train, data.test
    references = ReferencePredictors(train.records, train.pixels)
    result: References = {
        "test": reference_summary(
            test.records["label"].to_numpy(),
            list(test.records["patient"]),
            probabilities,
            references.predict(test.records, test.pixels),
        ),
        "out_of_fold": None,
    }
    if out_of_fold is not None:
        own = out_of_fold.set_index("image_id").loc[train.records["image_id"]]
        result["out_of_fold"] = reference_summary(
            train.records["label"].to_numpy(),
            list(train.records["patient"]),
            own["probability"].to_numpy(),
            references.out_of_fold(own["fold"].to_numpy()),
        )
    return result
