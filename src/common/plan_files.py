"""The plan of a comparison: read plan.json, and hold every run to it. plan_comparison.py writes it.

A plan fixes the one question before anything is trained: which arm against which, in which metric, with which
options, on which images. Every result file carries the SHA-256 of the plan that it was made under.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

from common import paths
from common.experiment_files import NamedConfig, named_config
from common.file_formats import format_problems
from common.options import Option
from utils import UserError, load_json, plain, public_path, sha256_file

PLAN_KEY = "SHA-256 of the plan that the run was held to; absent without one"  # of plan_sha256 in result files
NO_PLAN = "none"  # value of --plan
DEFAULT_VARIABLE = "COMPARISON_PLAN"  # environment variable: value of --plan where it is not given
UNPLANNED = {DEFAULT_VARIABLE: NO_PLAN}  # environment of the steps of a sequence that no plan is about
WRITE_ANOTHER = "or --plan none, which makes the result exploratory"

PLAN_OPTION = Option(
    "--plan",
    f"plan of the comparison, to which the run is held; {NO_PLAN}: none, its results are exploratory "
    f"(default: {paths.PLAN} if it is there)",
    metavar="FILE", set_by_study=True,
)  # fmt: skip


class PrimaryQuestion(TypedDict):
    """What is asked: ``arm`` minus ``against``."""

    arm: Annotated[str, "the arm whose gain is asked for"]
    against: Annotated[str, "the arm that it is measured against"]
    metric: Annotated[str, "in which it is measured"]
    margin: Annotated[float, "differences below it count as none; points"]


class PlannedStudy(TypedDict):
    """How often everything is trained."""

    folds: Annotated[int | None, "outer folds of a cross-fitted study, K; null: one frozen split"]
    gans: Annotated[int, "GANs per fold, G"]
    repeats: Annotated[int, "training runs per arm and GAN, R"]
    seed: Annotated[int, "the first one"]


class PlannedImages(TypedDict):
    """The images that answer the question."""

    n_images: Annotated[int, "labelled images that are tested"]
    n_patients: int
    n_positive: Annotated[int, "images with pneumonia"]
    data_sha256: Annotated[str, "SHA-256 of the metadata file"]
    split_sha256: Annotated[list[str], "of the frozen split, or of that of each outer fold"]


class DetectableDifference(TypedDict):
    """What such a study is expected to show, from assumptions alone."""

    difference: Annotated[float, "true difference of the metric that is found with 80 % power; fraction"]
    assumed: Annotated[str, "the assumptions in words"]


class ComparisonPlan(TypedDict):
    """plan.json: what was fixed before anything was trained."""

    format: Literal["comparison-plan-1"]
    primary: PrimaryQuestion
    study: PlannedStudy
    images: PlannedImages
    detectable: DetectableDifference
    options: Annotated[
        dict[str, dict[str, list[Any]]], "script -> option that affects weights -> the values that a run may have"
    ]


@dataclass(frozen=True)
class PlanFile:
    """A plan that was read: ``name`` of its file for messages, its ``sha256`` and its ``content``."""

    name: str
    sha256: str
    content: ComparisonPlan

    def check_options(self, script: str, values: Mapping[str, Any]) -> None:
        """Raise ``UserError`` if one of a run's ``values`` (option -> value) is not as planned for ``script``."""
        for name, planned in self.content["options"].get(script, {}).items():
            if name in values and plain(values[name]) not in planned:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag} is {_typed(values[name])} in this run of {script}.py, but {self.name} planned "
                    f"{' or '.join(map(_typed, planned))}; give that, {WRITE_ANOTHER}"
                )

    def check_split(self, split_sha256: str) -> None:
        """Raise ``UserError`` unless a run's split is a planned one."""
        if split_sha256 not in self.content["images"]["split_sha256"]:
            raise UserError(
                f"the split of this run is not the one that {self.name} was made for: give the --data-dir and "
                f"--splits of the plan, {WRITE_ANOTHER}"
            )

    def check_origin(self, what: str, sha256: str | None) -> None:
        """Raise ``UserError`` unless ``what`` a run builds on was made under this plan, ``sha256`` of its own."""
        if sha256 != self.sha256:
            under = "under another plan" if sha256 else "without a plan"
            raise UserError(
                f"{what} was made {under}, not under {self.name} (SHA-256 {self.sha256[:12]}): a plan must be there "
                f"before anything is trained, and must not be changed; make it anew, {WRITE_ANOTHER}"
            )


def _typed(value: Any) -> str:
    """Write a planned value as a user would type it."""
    words = {True: "on", False: "off", None: "not given"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


class NamedFiles(NamedConfig, total=False):
    """What a result file says of the experiment file and the plan of its run."""

    plan_sha256: str


_sha256: str | None = None  # of the plan that this process is held to


def named_files() -> NamedFiles:
    """Return the SHA-256 of the experiment file and of the plan, each if there is one."""
    return {**named_config(), "plan_sha256": _sha256} if _sha256 else {**named_config()}


def open_plan(option: str | None) -> PlanFile | None:
    """Read the plan that --plan names, and make result files name it; None without one.

    Raises ``UserError`` if it is missing or no plan.
    """
    global _sha256
    _sha256 = None
    option = option or os.environ.get(DEFAULT_VARIABLE)
    path = Path(option or paths.PLAN)
    if option == NO_PLAN or (option is None and not path.is_file()):
        return None
    if not path.is_file():
        raise UserError(f"--plan {public_path(path)} is missing; plan_comparison.py writes a plan")
    content = load_json(path)
    if problems := format_problems(content, ComparisonPlan):
        raise UserError(f"{public_path(path)} is no plan ({problems[0]}); plan_comparison.py writes one")
    _sha256 = sha256_file(path)
    return PlanFile(public_path(path), _sha256, cast(ComparisonPlan, content))


def follow_plan(option: str | None, script: str, values: Mapping[str, Any]) -> PlanFile | None:
    """Open the plan of --plan and hold the options of a run to it. Raises ``UserError`` if they differ."""
    plan = open_plan(option)
    if plan:
        plan.check_options(script, values)
    return plan
