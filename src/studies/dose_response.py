"""Doses of a cross-fitted study: differences between arms against the number of synthetic images.

Each dose is an ordinary cross-fitted study in a folder of its own. All take the GANs of one earlier study, so that
nothing but the number of images differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import paths
from common.experiment_files import named_config
from comparison.cross_fit_file_formats import CrossFitComparison
from studies.file_formats import DOSE_RESPONSE_FORMAT, DosePoint, DoseResponse
from utils import UserError


def options_of_dose(options: Mapping[str, Any], dose: float) -> dict[str, Any]:
    """Return the options of the study that makes ``dose`` synthetic images per real one."""
    folder = str(paths.dose_study(options["study_dir"], dose))
    return {**options, "study_dir": folder, "synthetic_per_real": dose, "doses": None}


def dose_response(comparisons: Mapping[float, CrossFitComparison]) -> DoseResponse:
    """Put the comparisons of all doses together.

    Raises ``UserError`` unless they are of the same images, folds and settings.
    """
    first_dose, first = next(iter(comparisons.items()))
    for dose, content in comparisons.items():
        for key in ("images", "settings", "folds"):
            if content[key] != first[key]:
                raise UserError(
                    f"the doses {first_dose:g} and {dose:g} cannot be drawn together: their {key} differ; run this "
                    "without --draw-only first"
                )
    points: list[DosePoint] = [
        {
            "synthetic_per_real": dose,
            "n_synthetic": max((arm["n_synthetic"] for arm in content["arms"].values()), key=sum),
            "pairs": content["pairs"],
        }
        for dose, content in comparisons.items()
    ]
    notes = [
        f"each interval stands alone: {len(points)} doses are {len(points)} looks at the same images, so that one of "
        "several may exclude 0 by luck",
        "all doses take the same number of optimiser steps and the images of the same GANs",
    ]
    return {
        "format": DOSE_RESPONSE_FORMAT, **named_config(), "settings": first["settings"], "images": first["images"],
        "doses": points, "notes": notes,
    }  # fmt: skip
