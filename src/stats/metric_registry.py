"""The one table of metrics: an entry makes a metric appear in result files, reports and figures.

``METRICS`` is read when it is needed, never copied at import: result files of arms and of folds hold every
metric; comparison.json adds the intervals and the paired comparison that the entry asks for; the reports and
the figures show it where ``shown`` says.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Any

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from stats.metrics import (
    accuracy,
    count_calls,
    expected_calibration_error,
    negative_predictive_value,
    positive_predictive_value,
    sensitivity,
    specificity,
    weighted_accuracy,
    weighted_auroc,
    wilson_accuracy_interval,
)
from stats.paired_tests import delong_interval

Interval = list[float] | list[float | None] | None  # [low, high]


class Shown(enum.Flag):
    """Where a report shows a metric; what pairs of arms are compared on is shown everywhere."""

    NOWHERE = 0
    ARMS = enum.auto()  # the first table of the arms, beside the accuracy
    DETAILS = enum.auto()  # the second table of the arms
    FOLDS = enum.auto()  # the table of the cross-validation
    FOLDS_FIGURE = enum.auto()  # cv_comparison.png


@dataclass(frozen=True)
class Metric:
    """One metric of an arm's predictions.

    ``name``: its key in result files. ``meaning``: with its unit, for the description of the files.
    ``value``: (labels 0/1 [N], probabilities [N]) -> number, None where it is undefined. ``title``: its name
    in a sentence, ``heading``: in a table; both are ``name`` unless given. ``weighted``: (labels,
    probabilities, weights of the images [R, N]) -> values [R], NaN where undefined; with it the metric gets
    an interval from the bootstrap over patients. ``image_level``: a 95 % interval that takes every image for
    independent. ``compared``: pairs of arms are tested on it; needs ``weighted``. ``percent``: written as a
    percentage, its differences in percentage points. ``averaged``: summaries of folds hold its mean and SD.
    ``of_pairs``: it is a share of the pairs of a positive and a negative, not of the images.
    """

    name: str
    meaning: str
    value: Callable[[np.ndarray, np.ndarray], float | None]
    title: str = ""
    heading: str = ""
    weighted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    image_level: Callable[[np.ndarray, np.ndarray], Interval] | None = None
    compared: bool = False
    percent: bool = False
    averaged: bool = True
    of_pairs: bool = False
    shown: Shown = Shown.DETAILS

    def __post_init__(self) -> None:
        if self.compared and self.weighted is None:
            raise ValueError(f"metric {self.name}: pairs can only be compared on it with `weighted`")
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "heading", self.heading or self.title)

    def on_weights(self, labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the values [R] of images weighted by ``weights`` [R, N]."""
        if self.weighted is None:
            raise ValueError(f"metric {self.name} has no form for weighted images")
        return self.weighted(labels, probabilities, weights)

    def point_estimate(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """Return the value with every image weighted once, as the bootstrap computes it; NaN if undefined."""
        return float(self.on_weights(labels, probabilities, np.ones((1, len(labels))))[0])


def _unless_one_class(score: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray], float | None]:
    """``score`` (labels, probabilities), or None if all labels are the same."""

    def compute(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
        return float(score(labels, probabilities)) if len(np.unique(labels)) == 2 else None

    return compute


@lru_cache(maxsize=4096)
def _means_over_classes(tn: int, fp: int, fn: int, tp: int) -> Mapping[str, float]:
    """Precision, recall and F1 as scikit-learn computes them, means over the two classes weighted by their size."""
    *means, _ = precision_recall_fscore_support(
        [0, 0, 1, 1], [0, 1, 0, 1], sample_weight=[tn, fp, fn, tp], average="weighted", zero_division=0
    )
    return dict(zip(("precision", "recall", "f1"), map(float, means), strict=True))


def _mean_over_classes(score: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """One of ``_means_over_classes``. They are computed once for each confusion matrix: a call takes a millisecond."""

    def compute(labels: np.ndarray, probabilities: np.ndarray) -> float:
        negatives, positives = count_calls(labels, probabilities)
        return _means_over_classes(*negatives, *positives)[score]

    return compute


_EVERYWHERE = Shown.ARMS | Shown.FOLDS | Shown.FOLDS_FIGURE
_ENTRIES = (
    Metric(
        "accuracy",
        meaning="share of images called correctly at a probability of 0.5, 0 to 1",
        value=accuracy,
        weighted=weighted_accuracy,
        image_level=wilson_accuracy_interval,
        compared=True,
        percent=True,
        shown=_EVERYWHERE,
    ),
    Metric(
        "auroc",
        title="AUROC",
        meaning="area under the ROC curve, 0 to 1; null if one class is missing",
        value=_unless_one_class(roc_auc_score),
        weighted=weighted_auroc,
        image_level=delong_interval,
        compared=True,
        of_pairs=True,
        shown=_EVERYWHERE,
    ),
    Metric(
        "auprc",
        title="AUPRC",
        meaning="average precision, 0 to 1; null if one class is missing",
        value=_unless_one_class(average_precision_score),
        shown=Shown.DETAILS | Shown.FOLDS_FIGURE,
    ),
    Metric(
        "weighted_precision",
        title="weighted precision",
        heading="wPrec",
        meaning="precision at 0.5, the mean of both classes weighted by size, 0 to 1; 0 where none is called",
        value=_mean_over_classes("precision"),
        shown=Shown.DETAILS | Shown.FOLDS_FIGURE,
    ),
    Metric(
        "weighted_recall",
        title="weighted recall",
        heading="wRec",
        meaning="recall at 0.5, the mean of both classes weighted by size, 0 to 1; it equals the accuracy",
        value=_mean_over_classes("recall"),
    ),
    Metric(
        "weighted_f1",
        title="weighted F1",
        heading="wF1",
        meaning="F1 at 0.5, the mean of both classes weighted by size, 0 to 1",
        value=_mean_over_classes("f1"),
        shown=Shown.DETAILS | Shown.FOLDS | Shown.FOLDS_FIGURE,
    ),
    Metric(
        "sensitivity",
        meaning="share of positive images called positive at 0.5, 0 to 1; null without any",
        value=sensitivity,
        percent=True,
        shown=_EVERYWHERE,
    ),
    Metric(
        "specificity",
        meaning="share of negative images called negative at 0.5, 0 to 1; null without any",
        value=specificity,
        percent=True,
        shown=_EVERYWHERE,
    ),
    Metric(
        "ppv",
        title="PPV",
        meaning="share of images called positive at 0.5 that are positive, 0 to 1; null without any",
        value=positive_predictive_value,
        averaged=False,
    ),
    Metric(
        "npv",
        title="NPV",
        meaning="share of images called negative at 0.5 that are negative, 0 to 1; null without any",
        value=negative_predictive_value,
        averaged=False,
    ),
    Metric(
        "brier",
        title="Brier score",
        heading="Brier",
        meaning="mean squared distance of probability and label, 0 (best) to 1; null if one class is missing",
        value=_unless_one_class(partial(brier_score_loss, pos_label=1)),
    ),
    Metric(
        "ece",
        title="ECE",
        meaning="expected calibration error over ten bins of probability, 0 (best) to 1",
        value=expected_calibration_error,
        averaged=False,
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}


# --- reading the table -----------------------------------------------------------------------------
def compared_metrics() -> list[Metric]:
    """Return the metrics on which pairs of arms are compared."""
    return [metric for metric in METRICS.values() if metric.compared]


def metrics_shown(where: Shown) -> list[Metric]:
    """Return the metrics that a table or figure shows."""
    return [metric for metric in METRICS.values() if where in metric.shown]


def value_fields() -> dict[str, Any]:
    """Key -> annotated type of every metric's value, for the description of a result file."""
    return {metric.name: Annotated[float | None, metric.meaning] for metric in METRICS.values()}


# --- computing -------------------------------------------------------------------------------------
def classification_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Every metric of probabilities [N] for labels 0/1 [N], and the confusion matrix [[tn, fp], [fn, tp]].

    A metric that is undefined is None.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    values: dict[str, Any] = {name: metric.value(labels, probabilities) for name, metric in METRICS.items()}
    return values | {"confusion_matrix": count_calls(labels, probabilities)}


def mean_and_std(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Mean and sample standard deviation (n - 1) over folds of each metric and the loss, or None."""
    mean: dict[str, float | None] = {}
    std: dict[str, float | None] = {}
    for name in (*(metric.name for metric in METRICS.values() if metric.averaged), "val_loss"):
        values = [row[name] for row in rows if row.get(name) is not None]
        mean[name] = float(np.mean(values)) if values else None
        std[name] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return mean, std
