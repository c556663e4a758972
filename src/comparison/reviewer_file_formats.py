"""What reviewers ask for, as keys of comparison.json: decision curves, subgroups, errors, robustness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from common.file_formats import with_fields
from stats.metric_registry import compared_metrics

Ci95 = list[float]  # [low, high]


# --- decision curves -------------------------------------------------------------------------------
class DecisionCurve(TypedDict):
    """Net benefit of one arm at each threshold: true positives minus t / (1 - t) times false positives."""

    net_benefit: Annotated[list[float], "per image, at each of the thresholds"]
    treat_all: Annotated[list[float], "the same of calling every image positive; calling none has 0"]
    temperature: Annotated[float | None, "the logits were divided by it; null: probabilities as trained"]


class DecisionDifference(TypedDict):
    """Net benefit of arm b minus that of arm a at each threshold; null where undefined."""

    a: str
    b: str
    net_benefit_difference: Annotated[list[float | None], "per image"]
    net_benefit_ci95_pointwise: Annotated[
        list[Ci95 | None], "95 % interval by patient and run of each threshold alone, not adjusted for their number"
    ]


class DecisionCurves(TypedDict):
    """Decision curve analysis (Vickers and Elkin 2006) at the prevalence of the test set."""

    thresholds: Annotated[list[float], "probability from which an image is called positive"]
    probabilities: Annotated[str, "calibrated: after each arm's temperature; or as trained; the same for all arms"]
    without_temperature: Annotated[list[str], "arms without a temperature, for which all stay as trained"]
    arms: Annotated[dict[str, DecisionCurve], "by name"]
    pairs: list[DecisionDifference]


# --- subgroups -------------------------------------------------------------------------------------
class SmallSubgroup(TypedDict):
    """A part of the test images in which too few patients have, or lack, pneumonia to compare arms."""

    group: Annotated[str, "view, sex or age"]
    value: str
    n_patients_positive: Annotated[int, "patients with a positive image in it; at least ten are needed"]
    n_patients_negative: Annotated[int, "patients with a negative image in it; at least ten are needed"]


class SubgroupDifference(TypedDict):
    """Arm b minus arm a within a part of the test images, for each compared metric; not adjusted."""

    group: Annotated[str, "view, sex or age"]
    value: str
    n_images: int
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]


class SubgroupInteraction(TypedDict):
    """The difference of two arms in one part minus that in another, for each compared metric."""

    group: Annotated[str, "view, sex or age"]
    value: str
    reference: Annotated[str, "the part that it is measured against: the largest of its kind"]


class SubgroupsOfPair(TypedDict):
    """Two arms within subgroups. Exploratory: p is adjusted for the interactions of this pair and metric only."""

    a: str
    b: str
    differences: list[SubgroupDifference]
    interactions: list[SubgroupInteraction]
    too_small: Annotated[list[SmallSubgroup], "parts that were not computed"]


# --- errors ----------------------------------------------------------------------------------------
class WorstError(TypedDict):
    """A test image that an arm calls wrongly at 0.5, by the mean probability over its runs."""

    image_id: str
    label: Annotated[int, "1 for pneumonia, 0 without"]
    probability: Annotated[float, "of pneumonia, mean over the runs"]
    runs_wrong: Annotated[int, "training runs that call it wrongly, too"]
    others_wrong: Annotated[list[str], "other arms that call it wrongly, too"]
    class_name: Annotated[str | None, "class in the metadata; null if unknown"]
    view: str | None
    sex: str | None
    age: Annotated[float | None, "years"]


class ErrorsOfArm(TypedDict):
    """The wrong calls of one arm, the most confident first."""

    n_wrong: Annotated[int, "test images called wrongly at 0.5"]
    n_runs: Annotated[int, "training runs"]
    worst: Annotated[list[WorstError], "at most ten"]


# --- robustness ------------------------------------------------------------------------------------
class ScoreChange(TypedDict):
    """A score under a perturbation minus the same score of the same images as they are."""

    change: Annotated[float | None, "null where undefined"]
    ci95: Annotated[Ci95 | None, "95 % interval by patient and run, not adjusted; null where no resample differs"]


class ChangesOfArm(TypedDict):
    """What one perturbation does to one arm; each change is that of the mean probability over its runs."""

    probability: Annotated[ScoreChange, "mean probability of pneumonia"]
    absolute_probability: Annotated[float, "mean of the absolute changes of single images"]


class ChangesOfPair(TypedDict):
    """What a perturbation changes under arm b minus what it changes under arm a."""

    a: str
    b: str
    probability: Annotated[ScoreChange, "difference of the changes of the mean probability"]


class PerturbationResult(TypedDict):
    """One perturbation of the test images."""

    name: Annotated[str, "kind and strength"]
    meaning: Annotated[str, "what is done to an image, with its unit"]
    arms: Annotated[dict[str, ChangesOfArm], "by name"]
    pairs: list[ChangesOfPair]


class Robustness(TypedDict):
    """How scores change where the test images are perturbed at the size that the network sees."""

    n_images: Annotated[int, "test images, drawn by patient; the first --robustness"]
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]
    seed: Annotated[int, "of the draw of patients and of the noise"]
    unperturbed: Annotated[dict[str, dict[str, float | None]], "arm -> metric -> score of the same images"]
    perturbations: list[PerturbationResult]
    left_out: Annotated[dict[str, str], "arm -> why its models were not scored"]


# --- keys of the metrics ---------------------------------------------------------------------------
def _fields_of_subgroups() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return key -> type of each compared metric: of a difference within a part, and of an interaction."""
    parts: dict[str, Any] = {}
    contrasts: dict[str, Any] = {}
    for metric in compared_metrics():
        what = f"{metric.title} of b minus that of a"
        parts[f"{metric.name}_difference"] = Annotated[float | None, what]
        parts[f"{metric.name}_ci95"] = Annotated[Ci95 | None, "95 % interval by patient and run"]
        contrasts[f"{metric.name}_interaction"] = Annotated[float | None, f"{what}, here minus in the reference"]
        contrasts[f"{metric.name}_interaction_ci95"] = Annotated[Ci95 | None, "95 % interval by patient and run"]
        contrasts[f"{metric.name}_interaction_p"] = Annotated[float | None, "two-sided p of no interaction"]
        words = "p adjusted for the interactions of this pair and metric (Holm)"
        contrasts[f"{metric.name}_interaction_p_holm"] = Annotated[float | None, words]
    return parts, contrasts


def _fields_of_changes() -> dict[str, Any]:
    """Return key -> type of the change of each compared metric."""
    return {metric.name: Annotated[ScoreChange, metric.title] for metric in compared_metrics()}


if not TYPE_CHECKING:  # type checkers know the fixed keys
    parts, contrasts = _fields_of_subgroups()
    SubgroupDifference = with_fields(SubgroupDifference, parts)
    SubgroupInteraction = with_fields(SubgroupInteraction, contrasts)
    ChangesOfArm = with_fields(ChangesOfArm, _fields_of_changes())
    ChangesOfPair = with_fields(ChangesOfPair, _fields_of_changes())
