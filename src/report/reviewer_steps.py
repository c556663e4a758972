"""Steps of analyze_results.py that draw what reviewers ask for."""

from __future__ import annotations

from common import paths
from comparison.file_formats import Comparison
from report import reviewer_details, reviewer_figures
from report.steps import Outcome


def draw_reviewer_figures(comparison: Comparison, outcome: Outcome) -> None:
    """Draw decision_curve.png, and subgroup_differences.png where a pair has subgroups that are large enough."""
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
