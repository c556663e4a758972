"""The files for authors and reviewers: the patient flow, the cards, the checklist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from arms.result_files import Arm
from common import paths
from report.blocks import count
from report.cards import count_open_fields, write_cards
from report.checklist import count_open_items, write_checklist
from report.file_formats import PatientFlow
from report.flow_figure import flow_figure
from report.image_steps import ImageResults
from report.patient_flow import DataFolder, count_flow
from report.sections import Findings
from report.steps import Outcome
from report.study import Study
from utils import load_json

SECTION = "reviewers"


def write_flow(arms: Mapping[str, Arm], data: DataFolder | None, outcome: Outcome) -> PatientFlow:
    """Write patient_flow.json and patient_flow.png; returns the content of the first."""
    flow = count_flow(arms, data)
    outcome.numbers(paths.patient_flow(outcome.folder), flow, "images and patients of each step, and who was left out")
    what = "images and patients that each step kept and left out"
    outcome.picture(paths.analysis_figure(outcome.folder, "patient_flow"), flow_figure(flow), what, SECTION)
    return flow


def add_cards(
    findings: Findings, arms: Mapping[str, Arm], images: ImageResults, metrics_dir: str, folder: Path
) -> Findings:
    """Write model_card.md, dataset_card.md and checklist.md; returns ``findings`` that name them.

    Without a flow (of a test on other data) nothing is written: the cards are of the training. ``arms``: those of
    the analysis.
    """
    if findings.flow is None:
        return findings
    history = paths.gan_history(metrics_dir)
    study = Study(
        comparison=findings.comparison,
        arms=arms,
        flow=findings.flow,
        data=images.data if findings.flow["labelled"] else None,
        manifest=images.manifest,
        gan=load_json(history) if history.is_file() else None,
        quality=findings.quality,
        flags=findings.flags,
        commands=findings.commands,
        pictures=[picture.file for picture in findings.pictures],
        external_reports=findings.external_reports,
    )
    write_cards(study, folder)
    write_checklist(study, folder)
    cards = []
    for file, what in (
        (paths.model_card(folder), "the models, their training, their results"),
        (paths.dataset_card(folder), "the data set, its people, its labels"),
    ):
        cards.append((file.name, f"{what}; {count(count_open_fields(file), 'field')} left to the author"))
    file = paths.checklist(folder)
    left = f"{count(count_open_items(file), 'item')} left to the author"
    cards.append((file.name, f"CLAIM 2024 and TRIPOD+AI, item by item; {left}"))
    return replace(findings, cards=cards)
