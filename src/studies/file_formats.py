"""Formats of the files that run_pipeline.py and run_study.py write.

The keys of each compared metric come from ``stats.metric_registry``: an entry there is a key here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY
from common.file_formats import with_fields
from comparison.cross_fit_file_formats import CrossFitImages, CrossFitPair, CrossFitSettings
from comparison.file_formats import Ci95, RunScores, fields_of_pairs, metric_key
from stats.metric_registry import compared_metrics

LEARNING_CURVE_FORMAT = "learning-curve-1"
DOSE_RESPONSE_FORMAT = "dose-response-1"


# --- the log of a sequence -------------------------------------------------------------------------
class StepEntry(TypedDict):
    """One step in pipeline.json, which maps the names of steps to such entries."""

    command: Annotated[list[str], "script and options, as words"]
    state: Annotated[str, "started, finished, or outdated: a step before it has run again"]
    seconds: NotRequired[Annotated[float, "how long the finished step took"]]
    own_images: NotRequired[Annotated[bool, "all images in the step's folder are this sequence's"]]
    replaces: NotRequired[
        Annotated[int | None, "nanoseconds: last change of the manifest that the step began to replace"]
    ]


# --- learning_curve.json ---------------------------------------------------------------------------
class CurveSettings(TypedDict):
    """How the intervals and tests were computed."""

    margin: Annotated[float, "differences within it count as none; fraction"]
    n_resamples: Annotated[int, "resamples of the bootstrap"]
    seed: int
    confidence: Annotated[float, "of the intervals, 0 to 1"]
    alpha: Annotated[float, "level of the tests"]


class CurveTestSet(TypedDict):
    """The test images, the same for all points."""

    n_images: int
    n_patients: int
    n_positive: int
    prevalence: Annotated[float, "share of positive images, 0 to 1"]
    always_negative_accuracy: Annotated[float, "accuracy of calling every image negative, 0 to 1"]
    grouped_by: Annotated[str, "what tells patients apart"]
    split_sha256: str


def scores_with_intervals() -> dict[str, Any]:
    """List key -> type of the score of each compared metric and of its interval."""
    fields: dict[str, Any] = {}
    for metric in compared_metrics():
        fields[metric.name] = Annotated[float | None, metric.meaning]
        fields[metric_key(metric, "ci95")] = Annotated[Ci95 | None, "95 % interval by patient and run"]
    return fields


class CurvePoint(TypedDict):
    """One arm trained on one fraction: ``<metric>`` and ``<metric>_ci95`` of each compared metric."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    arm: str
    n_train_images: int
    n_train_patients: int
    n_train_positive: int
    few_positives: Annotated[bool, "fewer than 32 positive training images"]
    n_synthetic: Annotated[int, "synthetic images trained on"]
    n_duplicated: Annotated[int, "real images drawn again, by a control"]
    class_weights: Annotated[list[float] | None, "factors of the loss of negatives and positives"]
    epochs: Annotated[int, "of the final models"]
    optimizer_steps: int
    repeats: Annotated[int, "training runs, of which the mean probability is scored"]
    seeds: list[int]
    per_repeat: Annotated[list[RunScores], "empty with one run"]
    red_flags: list[str]
    command: Annotated[str | None, "that trained the arm"]


class CurveDifference(TypedDict):
    """Arm b minus arm a at one fraction: difference, interval, p and verdict of each compared metric."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    a: str
    b: str
    seed_variance_included: Annotated[bool, "both arms were trained more than once"]


class CurveGAN(TypedDict):
    """How long the GAN of a fraction was trained, and on what."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    n_images: int
    n_patients: int
    batch_size: int
    steps: int
    images_seen: Annotated[int, "images shown to the GAN, with repetitions"]


class MissingArm(TypedDict):
    """An arm that is asked for and not finished."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    arm: str


class LearningCurve(TypedDict):
    """learning_curve.json: scores of a low-data study against the number of real training patients.

    Rates are fractions. Intervals, 95 %, and p come from the bootstrap over patients and training runs.
    """

    format: str
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    settings: CurveSettings
    test_set: CurveTestSet
    points: Annotated[list[CurvePoint], "from few to many patients"]
    differences: list[CurveDifference]
    gans: list[CurveGAN]
    missing: list[MissingArm]
    notes: Annotated[list[str], "what a reader must know"]
    flags: Annotated[list[str], "what a reader must be wary of"]


# --- dose_response.json ----------------------------------------------------------------------------
class DosePoint(TypedDict):
    """One number of synthetic images: the pairs of its comparison.json."""

    synthetic_per_real: Annotated[float, "synthetic images per real training image"]
    n_synthetic: Annotated[list[int], "synthetic images trained on in each fold"]
    pairs: list[CrossFitPair]


class DoseResponse(TypedDict):
    """dose_response.json: differences between arms against the number of synthetic images, cross-fitted."""

    format: str
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    settings: CrossFitSettings
    images: CrossFitImages
    doses: Annotated[list[DosePoint], "from few to many images"]
    notes: Annotated[list[str], "what a reader must know"]


if not TYPE_CHECKING:  # type checkers know the fixed keys
    CurvePoint = with_fields(CurvePoint, scores_with_intervals())
    CurveDifference = with_fields(CurveDifference, fields_of_pairs())
