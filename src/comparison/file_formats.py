"""Format of comparison.json, which analyze_results.py writes; files about images: ``image_file_formats``.

The keys of each metric come from ``stats.metric_registry``: an entry there is a key here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from arms.file_formats import ExternalTest
from common.experiment_files import CONFIG_KEY
from common.file_formats import with_fields
from common.plan_files import PLAN_KEY
from comparison.reviewer_file_formats import DecisionCurves, ErrorsOfArm, Robustness, SubgroupsOfPair
from stats.calibration import AtThreshold, CalibrationScores
from stats.calibration_line import CalibrationLine
from stats.metric_registry import METRICS, Metric, compared_metrics, value_fields
from stats.metrics import ReliabilityBin
from stats.paired_tests import FoldTest
from stats.subgroups import SubgroupRow

FORMAT = "comparison-1"

Ci95 = list[float]  # [low, high]


# --- comparison.json -------------------------------------------------------------------------------
class ComparisonSettings(TypedDict):
    """How the comparison was computed."""

    margin: Annotated[float, "differences below it count as none; fraction, of accuracy and of AUROC"]
    n_resamples: Annotated[int, "resamples of the patients in the bootstrap"]
    seed: Annotated[int, "seed of the bootstrap"]
    confidence: Annotated[float, "of every interval, 0.95"]
    alpha: Annotated[float, "adjusted p below it is a difference, 0.05"]
    prevalence: Annotated[float | None, "--prevalence: share of ill people for at_prevalence"]


class ComparedTestSet(TypedDict):
    """The test images, the same for every pair."""

    n_images: int
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]
    prevalence: Annotated[float, "share of positive images, 0 to 1"]
    grouped_by: Annotated[str | None, "what tells patients apart: nih_patient, patient_column or image_id"]
    split_sha256: Annotated[str | None, "of the frozen split"]


class GoalOfArm(TypedDict):
    """How far an arm is from the goal."""

    met: Annotated[bool, "its accuracy is above the goal"]
    difference: Annotated[float, "accuracy minus the goal, fraction"]


class Goal(TypedDict):
    """The accuracy that the specification asks for."""

    accuracy: Annotated[float, "0.85"]
    arms: Annotated[dict[str, GoalOfArm], "by name"]


class RunScores(TypedDict):
    """One training run of an arm."""

    repeat: Annotated[int, "number of the run, from 1"]
    seed: int | None


class AtPrevalence(TypedDict):
    """Predictive values at another prevalence, by Bayes' theorem."""

    prevalence: Annotated[float, "share of ill people, 0 to 1"]
    ppv: Annotated[float | None, "positive predictive value, 0 to 1"]
    npv: Annotated[float | None, "negative predictive value, 0 to 1"]


class Thresholds(TypedDict):
    """Thresholds chosen on out-of-fold predictions, applied to the test images."""

    source: Annotated[str | None, "the arm whose folds they were chosen on; null if none was chosen"]
    note: Annotated[str, "the same in words"]
    rules: Annotated[dict[str, AtThreshold | None], "fixed (0.5), youden, sensitivity_90"]


class Calibration(TypedDict):
    """Probabilities as trained and after a temperature fitted on out-of-fold predictions."""

    source: Annotated[str | None, "the arm whose folds it was fitted on; null if none was fitted"]
    note: Annotated[str, "the same in words"]
    temperature: Annotated[float | None, "the logits are divided by it"]
    before: CalibrationScores
    after: CalibrationScores | None
    bins_before: list[ReliabilityBin]
    bins_after: list[ReliabilityBin] | None


class ArmResult(TypedDict):
    """One arm on the test images. ``ci95``: by patient and training run; ``ci95_image_level``: takes every
    image for independent (Wilson, DeLong). Metrics are those of stats/metric_registry.py."""

    prefix: Annotated[str, "its files begin with it"]
    n_images: int
    n_patients: int
    n_positive: int
    repeats: Annotated[int, "training runs whose mean probability is scored"]
    seeds: list[int] | None
    per_repeat: Annotated[list[RunScores], "empty with one run"]
    n_train_images: Annotated[int | None, "real training images"]
    n_train_patients: int | None
    n_synthetic: Annotated[int | None, "synthetic images trained on"]
    n_duplicated: Annotated[int | None, "real images drawn again by a control"]
    n_extra_positive: Annotated[int | None, "positives among the synthetic or repeated images; null with few labels"]
    class_weights: Annotated[list[float] | None, "weights of the loss, negative and positive"]
    optimizer_steps: int | None
    contaminated: Annotated[bool | None, "its validation patients may have been seen; null without folds"]
    command: Annotated[str | None, "the command line that trained it"]
    confusion_matrix: Annotated[list[list[int]], "[[tn, fp], [fn, tp]] at a probability of 0.5"]
    at_prevalence: AtPrevalence | None
    thresholds: Thresholds
    calibration: Calibration
    subgroups: list[SubgroupRow]


class FoldComparison(TypedDict):
    """Nadeau-Bengio test over the clean folds of both arms, by metric; null where a fold lacks one."""

    k: Annotated[int, "number of folds"]


class PairResult(TypedDict):
    """Arm b minus arm a on the same test images, fractions. Per compared metric: difference, its interval and
    p by the paired bootstrap over patients, p adjusted by Holm, the smallest difference that is found with
    80 % power, and the verdict."""

    a: str
    b: str
    n_images: int
    n_patients: int
    mcnemar_p: Annotated[float, "exact two-sided p of equal accuracy, image-level"]
    mcnemar_b: Annotated[int, "images that only a calls correctly"]
    mcnemar_c: Annotated[int, "images that only b calls correctly"]
    delong_p: Annotated[float | None, "two-sided p of equal AUROC, image-level"]
    image_level: Annotated[list[str], "the p values that take every image for independent"]
    nadeau_bengio: FoldComparison | None
    nadeau_bengio_why_not: str | None
    seed_variance_included: Annotated[bool, "both arms are means over several training runs"]


class PlannedPair(TypedDict):
    """The question of the plan that the arms were held to (plan.json)."""

    plan_sha256: Annotated[str, "SHA-256 of the plan"]
    arm: str
    against: Annotated[str, "the arm that it is measured against"]
    metric: Annotated[str, "in which it was planned to be measured"]
    margin: Annotated[float, "differences below it count as none; fraction"]
    confirmatory: Annotated[bool, "both arms were trained under the plan"]
    why_not: Annotated[str | None, "why the answer is exploratory all the same"]


class NotCompared(TypedDict):
    """A pair of arms that cannot be compared."""

    a: str
    b: str
    reason: str


class SyntheticNegatives(TypedDict):
    """Synthetic negatives under an arm trained on synthetic positives, beside its real test negatives."""

    source: Annotated[str, "folder that they lie in, or generator that made them for this"]
    n_images: int
    logit: Annotated[float, "mean logit of pneumonia"]
    logit_real: Annotated[float, "mean logit of the real test negatives"]
    logit_real_reduced: Annotated[float, "the same, reduced to the pixels of the synthetic images"]


class ShortcutTest(TypedDict):
    """Whether an arm takes the blur of its synthetic images for their label. Real test images of the other
    label are reduced to the pixels of the synthetic ones and enlarged again; changes are towards the label of
    the synthetic images, on the logit scale, means over images and training runs."""

    arm: str
    reference: Annotated[str | None, "arm without synthetic images that it is compared with"]
    state: Annotated[str, "flagged, not flagged, cannot say, not needed, not tested"]
    why: Annotated[str, "the same in words"]
    side: Annotated[int | None, "smallest side of the synthetic images in pixels"]
    image_size: Annotated[int | None, "pixels per side that the classifier sees"]
    label: Annotated[int | None, "label of the synthetic images; null where nothing was scored"]
    n_images: Annotated[int | None, "real test images of the other label"]
    n_patients: int | None
    change: Annotated[float | None, "logit(reduced) - logit(original) under the arm"]
    change_in_reference: Annotated[float | None, "the same under the reference"]
    difference: Annotated[float | None, "change - change_in_reference"]
    ci95: Annotated[Ci95 | None, "95 % interval of the difference by patient; flagged if all above 0"]
    synthetic_negatives: SyntheticNegatives | None


class ReferenceScores(TypedDict):
    """Predictors that ignore the lungs, on the test images."""

    always_negative_accuracy: Annotated[float, "accuracy of calling every image negative, 0 to 1"]
    metadata_auroc: Annotated[float | None, "logistic regression on view, sex and age"]
    thumbnail_auroc: Annotated[float | None, "logistic regression on 16 x 16 thumbnails"]


# --- an external test ------------------------------------------------------------------------------
class SideOfShift(TypedDict):
    """One arm on one of the two tests, by the same computations."""

    n_images: int
    n_patients: int
    accuracy: Annotated[float, "share of images called correctly at a probability of 0.5, 0 to 1"]
    accuracy_ci95: Annotated[Ci95 | None, "95 % interval, by patient and training run"]
    auroc: Annotated[float | None, "area under the ROC curve, 0 to 1; null if one class is missing"]
    auroc_ci95: Annotated[Ci95 | None, "95 % interval, by patient and training run"]
    ece: Annotated[float, "expected calibration error over ten bins, 0 to 1"]
    line: CalibrationLine
    thresholds: Annotated[
        dict[str, AtThreshold], "youden and sensitivity_90, chosen on the training's out-of-fold predictions; or none"
    ]


class ShiftOfArm(TypedDict):
    """An arm on the internal and on the external test."""

    internal: Annotated[SideOfShift | None, "null without predictions of the internal test"]
    external: SideOfShift


class ExternalComparison(TypedDict):
    """What comparison.json says of an external test beside the comparison itself."""

    test: ExternalTest
    arms: Annotated[dict[str, ShiftOfArm], "by name"]


class Comparison(TypedDict):
    """comparison.json: every arm and every pair of arms. Rates and differences are fractions."""

    format: Annotated[str, FORMAT]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    settings: ComparisonSettings
    plan: NotRequired[Annotated[PlannedPair, "absent without a plan: all pairs are exploratory"]]
    test_set: ComparedTestSet
    goal: Goal
    arms: Annotated[dict[str, ArmResult], "by name"]
    pairs: list[PairResult]
    not_compared: list[NotCompared]
    left_out: Annotated[list[str], "arms that are there but were not asked for (--arms)"]
    references: ReferenceScores
    flags: Annotated[list[str], "warnings, the gravest first"]
    shortcut_tests: NotRequired[Annotated[list[ShortcutTest], "of each arm trained on synthetic images"]]
    decision_curves: NotRequired[DecisionCurves]
    subgroup_differences: NotRequired[Annotated[list[SubgroupsOfPair], "of each pair"]]
    worst_errors: NotRequired[Annotated[dict[str, ErrorsOfArm], "by arm"]]
    robustness: NotRequired[Annotated[Robustness | None, "null without --robustness, or without models"]]
    external: NotRequired[ExternalComparison]


# --- keys of the metrics ---------------------------------------------------------------------------
def metric_key(metric: Metric, what: str) -> str:
    """Name a statistic of a metric: "accuracy_ci95" for "ci95"."""
    return f"{metric.name}_{what}"


def metric_entry(row: Mapping[str, Any], metric: Metric, what: str = "") -> Any:
    """Read a metric's value from a typed row, or its statistic ``what`` ("ci95", "p", "verdict", ...)."""
    return row[metric_key(metric, what) if what else metric.name]


def _fields_of_arms() -> dict[str, Any]:
    fields = value_fields()
    for metric in METRICS.values():
        if metric.weighted:
            fields[metric_key(metric, "ci95")] = Annotated[Ci95 | None, "95 % interval by patient and run"]
        if metric.image_level:
            words = "95 % interval, image-level"
            fields[metric_key(metric, "ci95_image_level")] = Annotated[list[float | None] | None, words]
    return fields


def fields_of_pairs() -> dict[str, Any]:
    """List key -> type of what is said about each compared metric of a pair of arms."""
    fields: dict[str, Any] = {}
    for metric in compared_metrics():
        for what, kind in {
            "difference": Annotated[float | None, f"{metric.title} of b minus that of a"],
            "ci95": Annotated[Ci95 | None, "95 % interval of the difference by patient and run"],
            "p": Annotated[float | None, "two-sided p of no difference, by the bootstrap over patients"],
            "p_holm": Annotated[float | None, "p adjusted for the number of exploratory pairs (Holm)"],
            "minimum_detectable_difference": Annotated[float | None, "found with 80 % power"],
            "verdict": Annotated[str, "better, worse, no evidence of a difference, or equivalent"],
        }.items():
            fields[metric_key(metric, what)] = kind
    return fields


def fields_of_roles() -> dict[str, Any]:
    """List key -> type of the role of a pair of arms in each compared metric."""
    words = "confirmatory: planned, and its p is not adjusted; or exploratory"
    return {metric_key(metric, "role"): Annotated[str, words] for metric in compared_metrics()}


if not TYPE_CHECKING:  # type checkers know the fixed keys; ``metric_entry`` reads the others
    RunScores = with_fields(RunScores, {metric.name: float for metric in compared_metrics()})
    FoldComparison = with_fields(FoldComparison, {m.name: FoldTest | None for m in compared_metrics()})
    ArmResult = with_fields(ArmResult, _fields_of_arms())
    PairResult = with_fields(PairResult, fields_of_pairs() | fields_of_roles())
