"""The result of a low-data study: score against number of real training patients, arm by arm.

All is computed from the prediction tables of the arms below the study's folder, whichever are there, so that
an unfinished study can be looked at, too. Rates are fractions; a difference is b minus a.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from arms.file_formats import FinalMetrics
from arms.options import differing_options
from arms.registry import ARMS, BASELINE
from arms.result_files import (
    Arm,
    are_scores_of,
    find_arms,
    find_prefixes,
    training_command,
    why_not_comparable,
)
from arms.result_files import probabilities_of_runs as runs_of
from common import paths
from comparison.arms import MARGIN, scores_of_runs
from stats.bootstrap import (
    RESAMPLES,
    PatientDraws,
    ResampledScore,
    bootstrap_test,
    resample_score,
)
from stats.metric_registry import compared_metrics
from stats.metrics import CONFIDENCE
from stats.paired_tests import ALPHA, decide_verdict, holm
from studies.file_formats import (
    LEARNING_CURVE_FORMAT,
    CurveDifference,
    CurveGAN,
    CurvePoint,
    LearningCurve,
)
from utils import UserError, derive_seed, load_json

FEW_POSITIVES = 32
UNEQUAL_STEPS = 0.05  # of the mean: more than rounding to whole epochs explains at any useful length
# Options in which fractions differ because all take the same number of steps.
DIFFERENT_BY_DESIGN = ("epochs", "train_fraction")


@dataclass(frozen=True)
class Point:
    """One finished arm, trained on one fraction of the patients; its files are in ``metrics_dir``."""

    fraction: float
    arm: Arm
    metrics_dir: Path

    @property
    def name(self) -> str:
        return f"{self.arm.name} at {self.fraction:g}"

    @property
    def metrics(self) -> FinalMetrics:
        assert self.arm.metrics is not None  # the arm is finished
        return self.arm.metrics

    @property
    def predictions(self) -> pd.DataFrame:
        return self.arm.tested


# --- finding ---------------------------------------------------------------------------------------
def find_points(study_dir: str | Path, leave_out: Collection[tuple[float, str]] = ()) -> list[Point]:
    """Find every finished arm of every fraction, from few to many patients.

    ``leave_out``: (fraction, arm) of those that are not wanted.
    """
    points = []
    for folder in Path(study_dir).glob(paths.STUDY_PATTERN):
        metrics = folder / Path(paths.METRICS_DIR).name
        if not find_prefixes(metrics, paths.final_metrics):
            continue
        for arm in find_arms(metrics).values():
            if arm.metrics is None or arm.predictions is None:
                continue
            fraction = float(arm.metrics["train_fraction"])
            if (fraction, arm.name) not in leave_out:
                points.append(Point(fraction, arm, metrics))
    return sorted(points, key=lambda point: point.fraction)  # the arms of a fraction keep their order


def check_points(points: Sequence[Point], study_dir: str | Path, split_sha256: str | None = None) -> None:
    """Raise ``UserError`` if two points were scored on different test images, or one is of another split."""
    for point in points:
        reason = why_not_comparable(points[0].arm, point.arm)
        if reason is None and split_sha256 not in (None, point.metrics["split_sha256"]):
            reason = "that one is of another split"
        if reason:
            raise UserError(
                f"{study_dir} holds {point.name}, which cannot stand in one curve with the others: {reason}; "
                "give each study a --study-dir of its own"
            )


# --- the content -----------------------------------------------------------------------------------
def build_learning_curve(
    points: Sequence[Point],
    *,
    missing: Sequence[tuple[float, str]] = (),
    margin: float = MARGIN,
    n_resamples: int = RESAMPLES,
    seed: int = 42,
) -> LearningCurve:
    """Compute learning_curve.json; ``missing``: (fraction, arm) that are asked for and not finished."""
    first = points[0]
    labels, patients = first.predictions["label"].to_numpy(), list(first.predictions["patient"])
    draws = PatientDraws(patients, n_resamples, seed)
    resampled = [
        {metric.name: resample_score(draws, metric, labels, runs_of(point.arm)) for metric in compared_metrics()}
        for point in points
    ]
    rows = [_point_row(point, scores, seed) for point, scores in zip(points, resampled, strict=True)]
    return {
        "format": LEARNING_CURVE_FORMAT,
        "settings": {
            "margin": margin, "n_resamples": n_resamples, "seed": seed, "confidence": CONFIDENCE,
            "alpha": ALPHA,
        },
        "test_set": {
            "n_images": len(labels),
            "n_patients": draws.n_patients,
            "n_positive": int(labels.sum()),
            "prevalence": float(labels.mean()),
            "always_negative_accuracy": float(1 - labels.mean()),
            "grouped_by": first.metrics["grouped_by"],
            "split_sha256": first.metrics["split_sha256"],
        },
        "points": rows,
        "differences": _differences(points, resampled, draws.n_patients, margin, seed),
        "gans": _gans(points),
        "missing": [{"fraction": fraction, "arm": arm} for fraction, arm in missing],
        "notes": _notes(rows, len(labels), draws.n_patients),
        "flags": _flags(points, rows, missing),
    }  # fmt: skip


def _point_row(point: Point, resampled: dict[str, ResampledScore], seed: int) -> CurvePoint:
    metrics, runs = point.metrics, runs_of(point.arm)
    row: dict[str, Any] = {
        "fraction": point.fraction,
        "arm": point.arm.name,
        "n_train_images": metrics["n_train_images"],
        "n_train_patients": metrics["n_train_patients"],
        "n_train_positive": metrics["n_train_positive"],
        "few_positives": metrics["n_train_positive"] < FEW_POSITIVES,
        "n_synthetic": metrics["n_synthetic"],
        "n_duplicated": metrics["n_duplicated"],
        "class_weights": metrics["class_weights"],
        "epochs": metrics["epochs_final"],
        "optimizer_steps": metrics["optimizer_steps"],
        "repeats": len(runs),
        "seeds": metrics["seeds"],
    }
    for name, scores in resampled.items():
        row[name] = scores.score
        row[f"{name}_ci95"] = scores.interval(derive_seed(seed, "runs"))
    row |= {
        "per_repeat": scores_of_runs(point.arm, point.predictions["label"].to_numpy(), runs),
        "red_flags": metrics["red_flags"],
        "command": training_command(metrics["config"]),
    }
    return cast(CurvePoint, row)


def _differences(
    points: Sequence[Point],
    resampled: Sequence[dict[str, ResampledScore]],
    n_patients: int,
    margin: float,
    seed: int,
) -> list[CurveDifference]:
    """Compare, at each fraction, every arm with the arms that the registry measures it against.

    p is adjusted for the number of all comparisons together.
    """
    place = {(point.fraction, point.arm.name): i for i, point in enumerate(points)}
    pairs = [
        (place[point.fraction, reference], i)
        for i, point in enumerate(points)
        for reference in _references(point.arm.name)
        if (point.fraction, reference) in place
    ]
    names = [metric.name for metric in compared_metrics()]
    rows: list[dict[str, Any]] = []
    for a, b in pairs:
        p_a, p_b = (points[i].predictions["probability"] for i in (a, b))
        row: dict[str, Any] = {
            "fraction": points[b].fraction,
            "a": points[a].arm.name,
            "b": points[b].arm.name,
            "seed_variance_included": all(len(runs_of(points[i].arm)) > 1 for i in (a, b)),
        }
        for name in names:
            own_seed = derive_seed(seed, points[a].name, points[b].name, name)
            both = (resampled[a][name], resampled[b][name])
            found = bootstrap_test(*both, n_patients, p_a.equals(p_b), own_seed)
            row[f"{name}_difference"], row[f"{name}_ci95"] = found.difference, found.ci95
            row[f"{name}_p"] = found.p
            row[f"{name}_minimum_detectable_difference"] = found.detectable(len(pairs))
        rows.append(row)
    for name in names:
        adjusted = holm([row[f"{name}_p"] for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row[f"{name}_p_holm"] = p
            row[f"{name}_verdict"] = decide_verdict(row[f"{name}_difference"], row[f"{name}_ci95"], p, margin)
    return cast(list[CurveDifference], rows)


def _gans(points: Sequence[Point]) -> list[CurveGAN]:
    """Read how long the GAN of each fraction was trained, and on how many images."""
    rows = []
    for fraction, folder in {point.fraction: point.metrics_dir for point in points}.items():
        file = paths.gan_history(folder)
        if file.is_file():
            history = load_json(file)
            facts = ("n_images", "n_patients", "batch_size", "steps", "images_seen")
            rows.append({"fraction": fraction, **{key: history[key] for key in facts}})
    return cast(list[CurveGAN], rows)


def _references(arm: str) -> tuple[str, ...]:
    return ARMS[arm].measured_against if arm in ARMS else (BASELINE,)


# --- what to be wary of ----------------------------------------------------------------------------
def _notes(rows: Sequence[CurvePoint], n_images: int, n_patients: int) -> list[str]:
    """Say what holds for the whole curve."""
    steps = sorted({row["optimizer_steps"] for row in rows})
    length = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    runs = sorted({row["repeats"] for row in rows})
    seeds = "seed variance not included: one training run per point"
    if runs[0] > 1:
        number = " to ".join(map(str, dict.fromkeys((runs[0], runs[-1]))))
        seeds = f"scores are of the mean probability over {number} training runs, whose seeds vary"
    return [
        f"every point took about as many optimiser steps ({length}), so that the fractions differ by their "
        "patients and not by the length of training: the fewer the images, the more often each was seen",
        f"all points were scored on the same {n_images:,} test images of {n_patients:,} patients: their "
        "errors go together, so arms are compared by paired differences, not by whether intervals overlap",
        "intervals: 95 %, from a bootstrap of test patients and training runs; " + seeds,
        "the fractions are nested and each is one draw of patients: other draws would give other points",
        "the GAN of a fraction saw that fraction only and was trained once",
        "accuracy is at a probability of 0.5, which extra positives shift; AUROC does not depend on it",
    ]


def _flags(points: Sequence[Point], rows: Sequence[CurvePoint], missing: Sequence[tuple[float, str]]) -> list[str]:
    """Warn of few positives, unequal training and missing arms, and repeat the arms' own red flags."""
    few = {row["fraction"]: row["n_train_positive"] for row in rows if row["few_positives"]}
    flags = [few_positives_sentence(fraction, n) for fraction, n in few.items()]
    steps = [row["optimizer_steps"] for row in rows]
    if max(steps) - min(steps) > UNEQUAL_STEPS * sum(steps) / len(steps):
        flags.append(f"the points took UNEQUAL NUMBERS OF STEPS: {min(steps):,} to {max(steps):,}")
    if missing:
        names = ", ".join(f"{arm} at {fraction:g}" for fraction, arm in missing)
        flags.append(f"unfinished: the study lacks {names}")
    if not all(row["repeats"] > 1 for row in rows):
        flags.append("seed variance not included: some points are of one training run")
    for point in points:
        flags += _unlike(points[0], point)
        if not are_scores_of(point.predictions, point.metrics):
            flags.append(f"{point.name}: predictions and metrics DO NOT BELONG TO THE SAME RUN")
    raised: dict[str, list[str]] = {}
    for point in points:
        for flag in point.metrics["red_flags"]:
            raised.setdefault(flag, []).append(point.name)
    return list(dict.fromkeys(flags)) + [f"{', '.join(names)}: {flag}" for flag, names in raised.items()]


def few_positives_sentence(fraction: float, n: int) -> str:
    return f"{fraction:g} of the training patients have {n} positive images, fewer than {FEW_POSITIVES}"


def _unlike(first: Point, other: Point) -> list[str]:
    """Name the options that all points should share and these two do not."""
    config = other.metrics["config"]
    own = {name: value for name, value in config.items() if name not in DIFFERENT_BY_DESIGN}
    sentences = differing_options(own, first.metrics["config"])
    return [f"{other.name}: {sentence.replace('the baseline', first.name)}" for sentence in sentences]
