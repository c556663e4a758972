"""Steps of analyze_results.py that make what reviewers ask for: robustness, its figures, and pictures of X-rays."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from arms.result_files import Arm
from common import paths
from comparison.file_formats import Comparison
from comparison.final_models import Sources, find_test_records
from comparison.perturbations import PERTURBATIONS, UNPERTURBED
from comparison.robustness import draw_by_patient, measure_robustness
from data_loader import load_images
from report import image_figures, reviewer_details, reviewer_figures
from report.image_figures import ImageSection
from report.steps import Outcome
from utils import UserError, without_folders

log = logging.getLogger(__name__)

TILE = 224  # pixels per side of an X-ray in a picture


def add_robustness(
    arms: Mapping[str, Arm], content: Comparison, n_images: int, sources: Sources | None, outcome: Outcome
) -> None:
    """Add to ``content`` how scores change under perturbations of ``n_images`` test images; 0: nothing.

    ``sources`` None: the arms were tested on another data set. What cannot be scored is noted in ``outcome``.
    """
    if not n_images:
        return
    try:
        if sources is None:
            raise UserError("only the internal test images are perturbed (--test-set internal)")
        found = content["robustness"] = measure_robustness(arms, content, n_images, sources)
    except UserError as error:
        content["robustness"] = None
        reason = without_folders(str(error))
        outcome.without(f"robustness (--robustness {n_images}): {reason}")
        log.info(f"robustness is not measured: {reason}")
        return
    for name, reason in found["left_out"].items():
        outcome.without(f"robustness of {name}: {reason}")


def draw_reviewer_figures(comparison: Comparison, outcome: Outcome) -> None:
    """Draw decision_curve.png, and the figures of subgroups and of robustness where their numbers are there."""
    path = paths.analysis_figure(outcome.folder, "decision_curve")
    what = "net benefit of each arm at thresholds of 0.05 to 0.50, and differences with pointwise 95 % CI"
    outcome.picture(path, reviewer_figures.decision_curve(comparison), what, reviewer_details.DECISION)
    pairs = [pair for pair in reviewer_details.headline_subgroups(comparison) if pair["differences"]]
    path = paths.analysis_figure(outcome.folder, "subgroup_differences")
    if pairs:
        what = "differences between arms within view, sex and age with 95 % CI, not adjusted; the margin is shaded"
        figure = reviewer_figures.subgroup_differences(comparison, pairs)
        outcome.picture(path, figure, what, reviewer_details.SUBGROUPS)
    elif comparison["pairs"]:
        outcome.without(f"{path.name}: no subgroup has ten patients with pneumonia and ten without")
    if found := comparison.get("robustness"):
        what = "change of each arm's scores under small changes of the images, with 95 % CI, not adjusted"
        path = paths.analysis_figure(outcome.folder, "robustness")
        outcome.picture(path, reviewer_figures.robustness(comparison, found), what, reviewer_details.ROBUSTNESS)


# --- pictures of real X-rays -----------------------------------------------------------------------
def draw_real_images(
    arms: Mapping[str, Arm], comparison: Comparison, sources: Sources, outcome: Outcome, no_real_images: bool
) -> None:
    """Draw the worst errors and, if robustness was measured, one image under every perturbation.

    Nothing with ``no_real_images``, or if no arm has images of this data folder.
    """
    if no_real_images or not (Path(sources.data_dir) / paths.TRAIN_METADATA).is_file():
        return  # that the data folder is missing is said once, by the step that looks at images
    try:
        _draw_worst_errors(arms, comparison, sources, outcome)
        if found := comparison.get("robustness"):
            _draw_perturbations(arms[next(iter(found["unperturbed"]))], found["n_images"], sources, outcome)
    except UserError as error:
        file = paths.real_figure(outcome.folder, "worst_errors")
        outcome.without(f"{file.name}: {without_folders(str(error))}")


def _load(arm: Arm, image_ids: list[str], sources: Sources) -> np.ndarray:
    """Return the test images with these ids, uint8 [N, TILE, TILE]."""
    records = find_test_records(arm, sources).set_index("image_id").loc[image_ids].reset_index()
    return np.asarray(load_images(records, TILE, workers=sources.workers, bits=sources.bits).pixels)


def _draw_worst_errors(arms: Mapping[str, Arm], comparison: Comparison, sources: Sources, outcome: Outcome) -> None:
    sections = []
    for name, item in comparison.get("worst_errors", {}).items():
        if rows := item["worst"]:
            pixels = _load(arms[name], [row["image_id"] for row in rows], sources)
            labels = [
                f"{place}. {'positive' if row['label'] else 'negative'}, p = {row['probability']:.3f}"
                for place, row in enumerate(rows, start=1)
            ]
            sections.append(ImageSection(name, pixels, labels))
    if sections:
        title = "The wrong calls of each arm that are farthest from 0.5, numbered as in the report"
        figure = image_figures.image_sections(sections, 5, title)
        what = "the most confident wrong calls of each arm: label and probability; shows real X-rays"
        outcome.picture(paths.real_figure(outcome.folder, "worst_errors"), figure, what, reviewer_details.ERRORS)


def _draw_perturbations(arm: Arm, n_images: int, sources: Sources, outcome: Outcome) -> None:
    drawn = draw_by_patient(arm.tested, n_images, sources.seed)
    image_id = str(drawn.loc[drawn["label"] == 1, "image_id"].iloc[0])
    (xray,) = _load(arm, [image_id], sources)
    shown = (UNPERTURBED, *PERTURBATIONS)
    images = np.stack([each.apply(xray, image_id, sources.seed) for each in shown])
    title = f"One test image (positive) as it is and under every perturbation, at {TILE} pixels"
    figure = image_figures.image_grid(images, 5, title, [each.name for each in shown])
    what = "one test image under every perturbation; shows a real X-ray"
    outcome.picture(paths.real_figure(outcome.folder, "perturbations"), figure, what, reviewer_details.ROBUSTNESS)
