"""An external test beside the internal one: its files, the arms as they did there, and what shifted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pandas as pd

from arms.file_formats import ExternalTest, FinalMetrics, TestScores
from arms.registry import BASELINE
from arms.result_files import Arm, find_arms, find_prefixes, read_result
from classifier import load_classifier
from common import paths
from comparison.arms import resample_arm
from comparison.file_formats import Comparison, ExternalComparison, ShiftOfArm, SideOfShift
from comparison.fold_rules import choose_folds
from dataset.feature_cache import sha256_weights
from stats.bootstrap import RESAMPLES
from stats.calibration import at_threshold, choose_thresholds
from stats.calibration_line import calibration_line
from stats.metrics import expected_calibration_error
from utils import UserError, derive_seed, sha256_file

log = logging.getLogger(__name__)

COMMAND = "python src/evaluate_external.py"
# Scores of the internal test, which must not pass for those of an external one.
SCORES = {*TestScores.__annotations__, "per_repeat"}


@dataclass(frozen=True)
class ExternalResults:
    """The files of an external test. ``internal``: the arms on the internal test; ``arms``: on the external one."""

    test: ExternalTest
    internal: dict[str, Arm]
    arms: dict[str, Arm]


# --- reading -----------------------------------------------------------------------------------------
def read_external(metrics_dir: str | Path, name: str, model_dir: str | Path) -> ExternalResults:
    """Read the external test ``name`` beside the training results.

    Raises ``UserError`` if it is missing, was changed, or was made with other models than those in ``model_dir``
    (or, where these are gone, than those of the results), and if a file of the training results is broken.
    """
    folder = paths.external_folder(metrics_dir, name)
    test, again = read_test(folder), f"run `{COMMAND} --name {name} ...` again"
    if test is None:
        raise UserError(f"{folder} holds no external test; `{COMMAND} --name {name} --data-dir PATH` makes it")
    for arm in test["arms"].values():
        for file, sha256 in arm["predictions"].items():
            if not (folder / file).is_file() or sha256_file(folder / file) != sha256:
                raise UserError(f"{folder / file} is missing or not the file that the test wrote; {again}")
    found = find_arms(folder)
    if others := [arm.name for arm in found.values() if arm.prefix not in test["arms"]]:
        raise UserError(f"{folder} holds predictions of {', '.join(others)}, which is not of this test; {again}")
    for prefix in test["arms"]:
        if reason := _other_models(test, prefix, metrics_dir, model_dir):
            raise UserError(f"{folder}: {reason}; {again}")
    # The models may have come without the results of their training.
    trained = any(find_prefixes(metrics_dir, name_of) for name_of in (paths.final_metrics, paths.test_predictions))
    internal = find_arms(metrics_dir) if trained else {}
    arms = {arm.name: _external_arm(arm, internal.get(arm.name), test) for arm in found.values()}
    order = [name for name in internal if name in arms] + [name for name in arms if name not in internal]
    return ExternalResults(test, internal, {name: arms[name] for name in order})


def read_test(folder: Path) -> ExternalTest | None:
    """Read what an external test says of itself; None if it is not there. Raises ``UserError`` if it is broken."""
    try:
        return read_result(paths.external_test(folder), ExternalTest)
    except UserError as error:
        reason = str(error).split("; ")[0]
        raise UserError(f"{reason}; run `{COMMAND} --name {folder.name} ...` again") from None


def _other_models(test: ExternalTest, prefix: str, metrics_dir: str | Path, model_dir: str | Path) -> str | None:
    """Say why the predictions of an arm are not of the models at hand; None if they are, or nobody can tell."""
    arm = test["arms"][prefix]
    there = {name: Path(model_dir) / name for name in arm["models"] if (Path(model_dir) / name).is_file()}
    for name, file in there.items():
        if sha256_weights(load_classifier(file)[0]) != arm["models"][name]:
            return f"its predictions are of another {name} than that in {model_dir} (other sha256)"
    metrics = paths.final_metrics(metrics_dir, prefix)
    if not there and metrics.is_file() and sha256_file(metrics) != arm["metrics_sha256"]:
        return f"its predictions are of another training than {metrics} (other sha256)"
    return None


def _external_arm(found: Arm, internal: Arm | None, test: ExternalTest) -> Arm:
    """Return an arm as it did on the external images: its training, its folds, but the external predictions."""

    def renamed(table: pd.DataFrame) -> pd.DataFrame:  # a patient 12 there is not the patient 12 of the training
        return table.assign(patient=f"{test['name']} " + table["patient"])

    assert found.predictions is not None
    runs = tuple(replace(run, predictions=renamed(run.predictions)) for run in found.repeats)
    arm = replace(found, predictions=renamed(found.predictions), repeats=runs)
    if internal is None or internal.metrics is None:
        return arm
    kept = {key: value for key, value in internal.recorded.items() if key not in SCORES}
    references = {"references": {"test": test["references"], "out_of_fold": None}}
    runs = tuple(replace(run, seed=seed) for run, seed in zip(runs, internal.metrics["seeds"], strict=False))
    return replace(
        arm, metrics=cast(FinalMetrics, kept | references), cv=internal.cv, cv_predictions=internal.cv_predictions,
        repeats=runs,
    )  # fmt: skip


# --- comparing ---------------------------------------------------------------------------------------
def describe_shift(
    results: ExternalResults, arms: Mapping[str, Arm], seed: int, n_resamples: int = RESAMPLES
) -> ExternalComparison:
    """Compute how each of ``arms``, some of the external ones, did on both tests, and how its calibration shifted."""
    baseline = results.internal.get(BASELINE)
    shifts: dict[str, ShiftOfArm] = {}
    for name, arm in arms.items():
        internal = results.internal.get(name)
        folds = choose_folds(internal, baseline).predictions if internal else None
        thresholds: dict[str, float] = {}
        if folds is not None:
            thresholds = choose_thresholds(folds["label"].to_numpy(), folds["probability"].to_numpy())
            del thresholds["fixed"]
        tested = internal if internal and internal.predictions is not None else None
        shifts[name] = {
            "internal": _side(tested, thresholds, seed, n_resamples) if tested else None,
            "external": _side(arm, thresholds, seed, n_resamples),
        }
    return {"test": results.test, "arms": shifts}


def _side(arm: Arm, thresholds: Mapping[str, float], seed: int, n_resamples: int) -> SideOfShift:
    table = arm.tested
    labels, probabilities = table["label"].to_numpy(), table["probability"].to_numpy()
    patients = list(table["patient"])
    scores, own = resample_arm(arm, n_resamples, seed), derive_seed(seed, "runs")
    return {
        "n_images": len(table), "n_patients": len(set(patients)),
        "accuracy": scores["accuracy"].score, "accuracy_ci95": scores["accuracy"].interval(own),
        "auroc": scores["auroc"].score, "auroc_ci95": scores["auroc"].interval(own),
        "ece": expected_calibration_error(labels, probabilities),
        "line": calibration_line(labels, probabilities, patients, seed),
        "thresholds": {rule: at_threshold(labels, probabilities, value) for rule, value in thresholds.items()},
    }  # fmt: skip


def add_external(content: Comparison, external: ExternalComparison) -> None:
    """Put an external test into ``content``, the comparison of the arms on its images."""
    test = external["test"]
    content["external"] = external
    content["test_set"]["grouped_by"] = test["grouped_by"]
    content["flags"] = [*test["red_flags"], *content["flags"]]


# --- links -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ExternalReport:
    """The report of an external test; ``current``: its models are those of the results beside it."""

    name: str
    n_images: int
    n_patients: int
    page: Path
    current: bool


def find_reports(metrics_dir: str | Path) -> list[ExternalReport]:
    """Find the reports of the external tests beside the training results, by name."""
    found = []
    for file in sorted(paths.external_folder(metrics_dir).glob(f"*/{paths.external_test('').name}")):
        page = paths.report_page(paths.external_analysis(file.parent))
        try:
            test = read_test(file.parent)
        except UserError as error:
            log.warning(f"WARNING: the report has no link to an external test: {error}")
            continue
        if test is None or not page.is_file():
            continue
        known = [(paths.final_metrics(metrics_dir, prefix), arm) for prefix, arm in test["arms"].items()]
        current = all(not metrics.is_file() or sha256_file(metrics) == arm["metrics_sha256"] for metrics, arm in known)
        found.append(ExternalReport(test["name"], test["n_images"], test["n_patients"], page, current))
    return found
