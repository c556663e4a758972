"""Format of the comparison.json of a cross-fitted study (``run_study.py --cross-fit``).

The keys of each compared metric come from ``stats.metric_registry``: an entry there is a key here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from common.file_formats import with_fields
from common.plan_files import PLAN_KEY
from comparison.file_formats import Ci95, PlannedPair, fields_of_pairs, fields_of_roles, metric_key
from stats.metric_registry import compared_metrics

CROSS_FIT_FORMAT = "cross-fit-1"


class CrossFitSettings(TypedDict):
    """How the study was made and computed."""

    folds: Annotated[int, "outer folds, K"]
    gans: Annotated[int, "GANs per fold, G"]
    repeats: Annotated[int, "training runs per arm and GAN, R"]
    gans_from: NotRequired[Annotated[str, "study whose GANs made the images; absent if each fold trained its own"]]
    margin: Annotated[float, "differences below it count as none; fraction, of accuracy and of AUROC"]
    n_resamples: Annotated[int, "resamples of the patients of each fold"]
    seed: Annotated[int, "seed of the bootstrap"]
    confidence: Annotated[float, "of every interval, 0.95"]
    alpha: Annotated[float, "adjusted p below it is a difference, 0.05"]


class CrossFitImages(TypedDict):
    """The labelled images, each predicted once per arm."""

    n_images: int
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]
    prevalence: Annotated[float, "share of positive images, 0 to 1"]
    always_negative_accuracy: Annotated[float, "accuracy of calling every image negative, 0 to 1"]
    grouped_by: Annotated[str, "what tells patients apart: nih_patient, patient_column or image_id"]


class OuterFold(TypedDict):
    """One finished fold."""

    fold: Annotated[int, "its number, from 1"]
    n_images: Annotated[int, "that it tests"]
    n_patients: int
    n_positive: int
    split_sha256: Annotated[str, "of its frozen split"]
    gan_seeds: Annotated[list[int], "of the first run with each GAN, and of the GAN unless gans_from names others"]


class CrossFitArm(TypedDict):
    """One arm: ``<metric>``, ``<metric>_ci95`` and ``<metric>_by_fold`` of each compared metric."""

    called_positive: Annotated[float, "share of all images called positive at a probability of 0.5, 0 to 1"]
    n_train_images: Annotated[list[int], "of each fold"]
    n_synthetic: Annotated[list[int], "synthetic images trained on in each fold, with the first GAN"]
    n_unlabelled: NotRequired[Annotated[list[int], "of few labels: real images that joined without theirs, per fold"]]
    optimizer_steps: Annotated[list[int], "of each fold"]
    runs: Annotated[int, "training runs per fold, whose mean probability is scored"]
    command: Annotated[str | None, "that trained it in the first fold"]


class CrossFitPair(TypedDict):
    """Arm b minus arm a: difference, interval, p and verdict of each compared metric, and its folds' differences."""

    a: str
    b: str
    n_images: int
    n_patients: int


class KeptShare(TypedDict):
    """Share of the gain of unlabelled real images that synthetic images keep."""

    share: Annotated[float, "(semi - baseline) / (control_pseudo - baseline)"]
    share_ci95: Annotated[list[float], "95 % interval, from the same draws of patients in both differences"]


class CopiesOfFold(TypedDict):
    """Synthetic images of one fold's GAN that are closer to a training image than 99 % of the test images are."""

    fold: Annotated[int, "number of the fold"]
    flagged: Annotated[int, "such images"]
    n_synthetic: Annotated[int, "synthetic images that were searched"]
    heldout_share: Annotated[float, "share of the test images below the same distance, 0 to 1"]
    nearly_identical: Annotated[int, "synthetic images below half of that distance"]


class FewLabelStudy(TypedDict):
    """What belongs to --labelled-patients."""

    labelled_patients: Annotated[int, "patients of each training set whose labels are known"]
    n_labelled: Annotated[list[int], "their images, of each fold"]
    n_hidden: Annotated[list[int], "training images whose labels are hidden, of each fold"]
    models: Annotated[int, "baselines whose mean labels images softly"]
    kept: Annotated[
        dict[str, KeptShare | None], "by metric; null unless the interval of control_pseudo - baseline is above 0"
    ]
    near_copies: Annotated[list[CopiesOfFold], "of each fold and GAN"]


class CrossFitComparison(TypedDict):
    """comparison.json of a cross-fitted study: the procedures compared, on all labelled images.

    Rates are fractions. AUROC is a mean within folds, weighted by pairs of a positive and a negative image. Intervals
    hold for the expected score of a procedure that learns from as many images as a fold's models.
    """

    format: str
    config_sha256: NotRequired[Annotated[str, "SHA-256 of the experiment file of the run that wrote this"]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    settings: CrossFitSettings
    plan: NotRequired[Annotated[PlannedPair, "absent without a plan: all pairs are exploratory"]]
    images: CrossFitImages
    folds: list[OuterFold]
    arms: Annotated[dict[str, CrossFitArm], "by name"]
    pairs: list[CrossFitPair]
    few_labels: NotRequired[Annotated[FewLabelStudy, "of a study with --labelled-patients"]]
    missing: Annotated[list[str], "what is unfinished"]
    notes: Annotated[list[str], "what a reader must know"]
    flags: Annotated[list[str], "what a reader must be wary of"]


def _fields_of_arms() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for metric in compared_metrics():
        fields[metric.name] = Annotated[float | None, metric.meaning]
        fields[metric_key(metric, "ci95")] = Annotated[Ci95 | None, "95 % interval by patient and run"]
        fields[metric_key(metric, "by_fold")] = Annotated[list[float], f"{metric.title} of each fold"]
    return fields


def _fields_of_cross_fit_pairs() -> dict[str, Any]:
    fields = fields_of_pairs() | fields_of_roles()
    for metric in compared_metrics():
        fields[metric_key(metric, "by_fold")] = Annotated[list[float], f"difference of {metric.title} in each fold"]
        fields[metric_key(metric, "widened")] = Annotated[
            bool, "the interval follows the spread of the folds, which is more than patients and runs explain"
        ]
    return fields


if not TYPE_CHECKING:  # type checkers know the fixed keys
    CrossFitArm = with_fields(CrossFitArm, _fields_of_arms())
    CrossFitPair = with_fields(CrossFitPair, _fields_of_cross_fit_pairs())
