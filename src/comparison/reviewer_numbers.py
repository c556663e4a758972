"""What reviewers ask for, added to a comparison: decision curves, subgroups with interactions, worst errors."""

from __future__ import annotations

from collections.abc import Mapping

from arms.result_files import Arm
from comparison.decision_curves import decision_curves
from comparison.file_formats import Comparison
from comparison.subgroup_differences import subgroup_differences
from comparison.worst_errors import worst_errors


def add_reviewer_numbers(arms: Mapping[str, Arm], content: Comparison) -> None:
    """Add to ``content`` what follows from the predictions of ``arms`` alone."""
    content["decision_curves"] = decision_curves(arms, content)
    content["subgroup_differences"] = subgroup_differences(arms, content)
    content["worst_errors"] = worst_errors(arms, content)
