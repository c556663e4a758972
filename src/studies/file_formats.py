"""Formats of the files that run_pipeline.py and run_study.py write.

The keys of each compared metric come from ``stats.metric_registry``: an entry there is a key here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict, get_type_hints

from stats.metric_registry import compared_metrics

LEARNING_CURVE_FORMAT = "learning-curve-1"
Interval = list[float | None] | None  # [low, high]


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


class CurveRun(TypedDict):
    """One training run of a point: number, seed, and the score of each compared metric."""

    repeat: Annotated[int, "from 1"]
    seed: int | None


class CurvePoint(TypedDict):
    """One arm trained on one fraction: ``<metric>`` and ``<metric>_ci95`` of each compared metric."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    arm: str
    n_train_images: int | None
    n_train_patients: int | None
    n_train_positive: int | None
    few_positives: Annotated[bool | None, "fewer than 32 positive training images"]
    n_synthetic: Annotated[int | None, "synthetic images trained on"]
    n_duplicated: Annotated[int | None, "real images drawn again, by a control"]
    class_weights: Annotated[list[float] | None, "factors of the loss of negatives and positives"]
    epochs: Annotated[int | None, "of the final models"]
    optimizer_steps: int
    repeats: Annotated[int, "training runs, of which the mean probability is scored"]
    seeds: list[int]
    per_repeat: list[CurveRun]
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
    n_images: int | None
    n_patients: int | None
    batch_size: int | None
    steps: int | None
    images_seen: Annotated[int | None, "images shown to the GAN, with repetitions"]


class MissingArm(TypedDict):
    """An arm that is asked for and not finished."""

    fraction: Annotated[float, "of the training patients, 0 to 1"]
    arm: str


class LearningCurve(TypedDict):
    """learning_curve.json: scores of a low-data study against the number of real training patients.

    Rates are fractions. Intervals, 95 %, and p come from the bootstrap over patients and training runs.
    """

    format: str
    settings: CurveSettings
    test_set: CurveTestSet
    points: Annotated[list[CurvePoint], "from few to many patients"]
    differences: list[CurveDifference]
    gans: list[CurveGAN]
    missing: list[MissingArm]
    notes: Annotated[list[str], "what a reader must know"]
    flags: Annotated[list[str], "what a reader must be wary of"]


# --- keys of the metrics ---------------------------------------------------------------------------
def _keys_of_points() -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for metric in compared_metrics():
        keys[metric.name] = Annotated[float | None, metric.meaning]
        keys[f"{metric.name}_ci95"] = Annotated[Interval, "by patients and training runs"]
    return keys


def _keys_of_differences() -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name in (metric.name for metric in compared_metrics()):
        keys |= {
            f"{name}_difference": Annotated[float | None, "of b minus a"],
            f"{name}_ci95": Annotated[Interval, "of the difference, by patients and training runs"],
            f"{name}_p": Annotated[float | None, "two-sided, not adjusted"],
            f"{name}_minimum_detectable_difference": Annotated[float | None, "found with a power of 80 %"],
            f"{name}_p_holm": Annotated[float | None, "adjusted for all differences of the study"],
            f"{name}_verdict": Annotated[str, "in words"],
        }
    return keys


if not TYPE_CHECKING:  # type checkers know the fixed keys

    def _extended(kind: Any, keys: Mapping[str, Any]) -> Any:
        """Make a copy of ``kind``, a TypedDict, with more ``keys``."""
        made = TypedDict(kind.__name__, get_type_hints(kind, include_extras=True) | keys)
        made.__doc__ = kind.__doc__
        return made

    CurveRun = _extended(CurveRun, {metric.name: float | None for metric in compared_metrics()})
    CurvePoint = _extended(CurvePoint, _keys_of_points())
    CurveDifference = _extended(CurveDifference, _keys_of_differences())
