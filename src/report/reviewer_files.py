"""The files for authors and reviewers: the patient flow, the cards, the checklist."""

from __future__ import annotations

from collections.abc import Mapping

from arms.result_files import Arm
from common import paths
from report.file_formats import PatientFlow
from report.flow_figure import flow_figure
from report.patient_flow import DataFolder, count_flow
from report.steps import Outcome

SECTION = "reviewers"


def write_flow(arms: Mapping[str, Arm], data: DataFolder | None, outcome: Outcome) -> PatientFlow:
    """Write patient_flow.json and patient_flow.png; returns the content of the first."""
    flow = count_flow(arms, data)
    outcome.numbers(paths.patient_flow(outcome.folder), flow, "images and patients of each step, and who was left out")
    what = "images and patients that each step kept and left out"
    outcome.picture(paths.analysis_figure(outcome.folder, "patient_flow"), flow_figure(flow), what, SECTION)
    return flow
