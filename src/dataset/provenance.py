"""Where an imported data folder comes from: what ``import_dataset.py`` wrote, and what results must say of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from common import paths
from common.file_formats import format_problems
from dataset.file_formats import Provenance
from dataset.labels import POSITIVE_CLASS
from dataset.patients import GROUPED_BY_IMAGE, Grouping
from utils import UserError, load_json

VERSION = 1
IMPORT_COMMAND = "python src/import_dataset.py"


def read_provenance(data_dir: Path) -> Provenance | None:
    """Read what was imported into ``data_dir``; None if nothing was. Raises ``UserError`` for half an import."""
    file = paths.provenance(data_dir)
    if not file.is_file():
        return None
    content = load_json(file)
    if format_problems(content, Provenance) or content["version"] != VERSION:
        raise UserError(f"{file} is not what `{IMPORT_COMMAND}` writes; delete it, or import the data set again")
    if not content["complete"]:
        raise UserError(f"{data_dir} holds an import that has not ended; give the same `{IMPORT_COMMAND} ...` again")
    return cast(Provenance, content)


def import_notes(provenance: Provenance | None) -> list[str]:
    """Say what was imported."""
    if provenance is None:
        return []
    what = provenance["data_set"] or "a data set"
    notes = [f"{what} was imported on {provenance['date']} from the layout {provenance['layout']}"]
    if _means_the_usual(provenance):
        notes.append(f"positive means: {provenance['positive']['sentence']}")
    return notes


def _means_the_usual(provenance: Provenance) -> bool:
    """Tell whether label 1 means what reports call it."""
    return provenance["positive"]["names"] == [POSITIVE_CLASS]


def import_flags(provenance: Provenance | None, grouping: Grouping, n_images: int) -> list[str]:
    """Return what every result of an imported folder must say; ``grouping``: how its images are grouped now."""
    if provenance is None:
        return []
    flags = list(provenance["red_flags"])
    if not _means_the_usual(provenance):
        flags.insert(0, f"positive means: {provenance['positive']['sentence']}")
    # Where all patients are unknown, every result says how it groups images.
    if grouping.grouped_by != GROUPED_BY_IMAGE and grouping.unmapped:
        flags.append(
            f"the patient is unknown for {grouping.unmapped:,} of {n_images:,} images, so images of one person may lie "
            "on both sides of a split"
        )
    return flags
