"""A cross-fitted study compared: the result files of all outer folds in, the content of comparison.json out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from arms.registry import ARMS, BASELINE
from arms.result_files import Arm, probabilities_of_runs, training_command, warnings_of, why_not_comparable
from common.plan_files import PlanFile, named_files
from comparison.cross_fit_file_formats import CROSS_FIT_FORMAT, CrossFitComparison, CrossFitImages, OuterFold
from comparison.few_labels import few_label_content, few_label_notes
from comparison.file_formats import PlannedPair, metric_key
from comparison.options import DEFAULT_MARGIN
from comparison.planned_pairs import add_tests, agreed_margin, leading_pairs, planned_question
from stats.bootstrap import RESAMPLES, ResampledScore
from stats.cross_fitting import (
    CrossFittedDifference,
    FoldRuns,
    cross_fitted_difference,
    fold_weights,
    pool_folds,
    score_folds,
)
from stats.metric_registry import compared_metrics
from stats.metrics import CONFIDENCE, THRESHOLD
from stats.paired_tests import ALPHA
from utils import UserError, derive_seed

# Options in which the arms of different folds differ by design.
OF_FOLDS = ("data_dir", "splits", "plan", "seed", "epochs", "epochs_final")


@dataclass(frozen=True)
class FinishedFold:
    """One outer fold all of whose runs are finished. ``gans``: of each GAN, its arms by name."""

    fold: int
    gans: list[dict[str, Arm]]

    @property
    def first(self) -> Arm:
        """The baseline of its first GAN, which stands for what all arms share."""
        return self.gans[0][BASELINE]


def check_folds(folds: Sequence[FinishedFold], arms: Sequence[str]) -> None:
    """Raise ``UserError`` unless the folds are of one study: same options, and no test image twice."""
    first, seen = folds[0].first.recorded, dict[str, int]()
    for fold in folds:
        for made in fold.gans:
            for name in arms:
                if reason := why_not_comparable(fold.first, made[name]):
                    raise UserError(f"fold {fold.fold}: {name} cannot be compared with the others: {reason}")
                _check_options(fold, made[name], folds[0].gans[0][name])
                if made[name].recorded.get("plan_sha256") != first.get("plan_sha256"):
                    raise UserError(
                        f"fold {fold.fold}: {name} was trained under another plan than the baseline of fold "
                        f"{folds[0].fold}, or one of them without a plan; give each study a --study-dir of its own"
                    )
        for image_id in fold.first.tested["image_id"]:
            if image_id in seen:
                where = f"folds {seen[image_id]} and {fold.fold}"
                raise UserError(f"{where} both tested {image_id}: they are of two studies")
            seen[image_id] = fold.fold
        for key in ("data_sha256", "grouped_by"):
            if fold.first.recorded[key] != first[key]:
                raise UserError(f"fold {fold.fold} was trained on other data than fold {folds[0].fold} ({key})")


def _check_options(fold: FinishedFold, arm: Arm, first: Arm) -> None:
    own, other = arm.recorded["config"], first.recorded["config"]
    differing = [
        name for name in own
        if name not in OF_FOLDS and not name.endswith("_dir") and own[name] != other.get(name, own[name])
    ]  # fmt: skip
    if differing:
        name = differing[0]
        raise UserError(
            f"fold {fold.fold}: {arm.name} was trained with --{name.replace('_', '-')} {own[name]}, in the first fold "
            f"with {other[name]}; give each study a --study-dir of its own"
        )


def compare_folds(
    folds: Sequence[FinishedFold], arms: Sequence[str], settings: Mapping[str, Any], missing: Sequence[str] = (),
    plan: PlanFile | None = None, n_resamples: int = RESAMPLES, seed: int = 42,
) -> CrossFitComparison:  # fmt: skip
    """Compute the content of comparison.json. ``settings``: folds, gans, repeats; ``missing``: what is unfinished.

    Raises ``UserError`` if the folds do not belong together, or were trained under another plan than ``plan``.
    """
    check_folds(folds, arms)
    question = planned_question(plan, [made[name] for fold in folds for made in fold.gans for name in arms])
    margin = agreed_margin(None, plan, DEFAULT_MARGIN)
    predictions = [_runs_of(fold, arms) for fold in folds]
    apart = "few_labels" in folds[0].first.recorded  # each GAN comes with labelled patients of its own
    scores = {
        arm: {m.name: score_folds(m, predictions, arm, n_resamples, seed, apart) for m in compared_metrics()}
        for arm in arms
    }
    weights = {metric.name: fold_weights(metric, predictions) for metric in compared_metrics()}
    images = _images(folds, predictions)
    pairs, found = leading_pairs(_pairs(arms), question), {}
    for a, b in pairs:
        for name, own in weights.items():
            own_seed = derive_seed(seed, a, b, name)
            found[a, b, name] = cross_fitted_difference(scores[a][name], scores[b][name], own, own_seed)
    few = few_label_content(folds, found)
    content: dict[str, Any] = {
        "format": CROSS_FIT_FORMAT,
        **named_files(),
        "settings": {
            **settings, "margin": margin, "n_resamples": n_resamples, "seed": seed, "confidence": CONFIDENCE,
            "alpha": ALPHA,
        },
        **({"plan": question} if question else {}),
        "images": images,
        "folds": [_fold_row(fold) for fold in folds],
        "arms": {
            arm: {"called_positive": called_positive(predictions, arm, apart)}
            | _arm_row(arm, folds, scores[arm], weights, seed)
            for arm in arms
        },
        "pairs": _pair_rows(pairs, found, images, question, margin),
        **({"few_labels": few} if few else {}),
        "missing": list(missing),
        "notes": _notes(folds, settings, found) + (few_label_notes(few, settings["gans"]) if few else []),
        "flags": _flags(folds, missing),
    }  # fmt: skip
    return cast(CrossFitComparison, content)


def _pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """List (a, b), b against what the registry measures it against."""
    return [(a, b) for b in arms if b in ARMS for a in ARMS[b].measured_against if a in arms]


# --- reading ---------------------------------------------------------------------------------------
def _runs_of(fold: FinishedFold, arms: Sequence[str]) -> FoldRuns:
    table = fold.first.tested
    runs = {arm: np.stack([probabilities_of_runs(made[arm]) for made in fold.gans]) for arm in arms}
    return FoldRuns(table["label"].to_numpy(), list(table["patient"]), runs)


def _images(folds: Sequence[FinishedFold], predictions: Sequence[FoldRuns]) -> CrossFitImages:
    labels = np.concatenate([fold.labels for fold in predictions])
    patients = {patient for fold in predictions for patient in fold.patients}
    return {
        "n_images": len(labels), "n_patients": len(patients), "n_positive": int(labels.sum()),
        "prevalence": float(labels.mean()), "always_negative_accuracy": float(1 - labels.mean()),
        "grouped_by": folds[0].first.recorded["grouped_by"],
    }  # fmt: skip


# --- rows ------------------------------------------------------------------------------------------
def _fold_row(fold: FinishedFold) -> OuterFold:
    table = fold.first.tested
    return {
        "fold": fold.fold, "n_images": len(table), "n_patients": int(table["patient"].nunique()),
        "n_positive": int(table["label"].sum()), "split_sha256": fold.first.recorded["split_sha256"],
        "gan_seeds": [made[BASELINE].recorded["seed"] for made in fold.gans],
    }  # fmt: skip


def called_positive(folds: Sequence[FoldRuns], arm: str, apart: bool = False) -> float:
    """Return the share of all images that ``arm`` calls positive at 0.5; ``apart``: as in ``score_folds``."""
    means = [fold.probabilities[arm].mean(axis=1 if apart else (0, 1)) for fold in folds]  # [GANs, N] or [N]
    return float(np.concatenate([np.atleast_2d(mean >= THRESHOLD).mean(axis=0) for mean in means]).mean())


def _arm_row(
    arm: str, folds: Sequence[FinishedFold], scores: Mapping[str, list[ResampledScore]],
    weights: Mapping[str, np.ndarray], seed: int,
) -> dict[str, Any]:  # fmt: skip
    of_folds = [fold.gans[0][arm].recorded for fold in folds]
    row: dict[str, Any] = {key: [own[key] for own in of_folds]
                           for key in ("n_train_images", "n_synthetic", "optimizer_steps")}  # fmt: skip
    if "few_labels" in of_folds[0]:
        row["n_unlabelled"] = [own["few_labels"]["n_unlabelled"] for own in of_folds]
    row["runs"] = sum(len(probabilities_of_runs(made[arm])) for made in folds[0].gans)
    row["command"] = training_command(of_folds[0]["config"])
    for metric in compared_metrics():
        pooled = pool_folds(scores[metric.name], weights[metric.name])
        row[metric.name] = pooled.score
        row[metric_key(metric, "ci95")] = pooled.interval(derive_seed(seed, "runs"))
        row[metric_key(metric, "by_fold")] = [score.score for score in scores[metric.name]]
    return row


def _pair_rows(
    pairs: Sequence[tuple[str, str]], found: Mapping[tuple[str, str, str], CrossFittedDifference],
    images: CrossFitImages, question: PlannedPair | None, margin: float,
) -> list[dict[str, Any]]:  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"a": a, "b": b, "n_images": images["n_images"], "n_patients": images["n_patients"]} for a, b in pairs
    ]
    for metric in compared_metrics():
        of_pairs = [found[a, b, metric.name] for a, b in pairs]
        add_tests(rows, metric, [difference.test for difference in of_pairs], question, margin)
        for row, difference in zip(rows, of_pairs, strict=True):
            row[metric_key(metric, "by_fold")] = difference.by_fold
            row[metric_key(metric, "widened")] = difference.widened
    return rows


# --- what to be wary of ----------------------------------------------------------------------------
def _notes(
    folds: Sequence[FinishedFold], settings: Mapping[str, Any], found: Mapping[Any, CrossFittedDifference]
) -> list[str]:
    """Say what the numbers mean."""
    trained = sorted(fold.first.recorded["n_train_images"] for fold in folds)
    kind = "labelled " if "few_labels" in folds[0].first.recorded else ""
    notes = [
        "the numbers are of the procedure, not of one model: every image was predicted by models and a GAN that never "
        f"saw its patient, and that learned from {trained[0]:,} to {trained[-1]:,} {kind}images",
        "AUROC is computed within folds and averaged, weighted by their pairs of a positive and a negative image: "
        "probabilities of different models are on different scales",
        "patients are drawn within folds; the training sets of the folds overlap, which no drawing shows: how often "
        "such intervals contain the truth was simulated (docs/comparison.md)",
        "no epoch and no option was chosen on an outer fold",
    ]
    if gans_from := settings.get("gans_from"):
        notes.append(f"the images are those of the GANs of {gans_from}, each of which saw the same training patients")
    if settings["gans"] == 1:
        notes.append(
            "one GAN per fold: the effect of its seed cannot be told from that of the fold; where the folds differ by "
            "more than patients and training runs explain, the interval follows the folds"
        )
    if settings["repeats"] == 1:
        notes.append("one training run per arm: the variance between training seeds shows only between the folds")
    if any(difference.widened for difference in found.values()):
        notes.append("some intervals follow the spread of the folds")
    return notes


def _flags(folds: Sequence[FinishedFold], missing: Sequence[str]) -> list[str]:
    """Repeat the red flags of the arms of all folds, once each, and name what is unfinished."""
    flags = [f"unfinished: {', '.join(missing)}; the numbers are of the finished folds"] if missing else []
    raised: dict[str, list[int]] = {}
    for fold in folds:
        for made in fold.gans:
            for flag in warnings_of(list(made.values())):
                raised.setdefault(flag, []).append(fold.fold)
    for flag, numbers in raised.items():
        where = sorted(set(numbers))
        flags.append(flag if len(where) == len(folds) else f"fold {', '.join(map(str, where))}: {flag}")
    return flags
