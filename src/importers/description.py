"""What an import says on the console: what it understood of a source, and what it made of it; no name of a file."""

from __future__ import annotations

from pathlib import Path

from dataset.file_formats import ImportedPatients, Provenance
from importers.sources import Source
from importers.survey import Survey


def describe_import(source: Source, survey: Survey, patients: ImportedPatients) -> list[str]:
    """Say what was understood, in lines."""
    labelled = [image for image in survey.images if not image.official]
    official = [image for image in survey.images if image.official]
    positive = sum(image.label == 1 for image in labelled)
    lines = [
        f"found: {len(survey.images):,} images" + (f" of {source.data_set}" if source.data_set else ""),
        f"positive means: {source.positive['sentence']}",
        f"labelled: {len(labelled):,} images, {positive:,} positive, {len(labelled) - positive:,} negative",
    ]
    if official:
        known = [image.label for image in official if image.label is not None]
        held = f"{sum(known):,} positive: the labelled official test set" if known else "without labels"
        lines.append(f"official test: {len(official):,} images, {held}")
    if patients["known"]:
        unknown = f"unknown for {patients['unknown_images']:,} images"
        lines.append(f"patients: {patients['known']:,} by {patients['source']}; {unknown}")
    else:
        lines.append("patients: unknown, so every image counts as a patient of its own")
    if survey.left_out:
        lines.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in survey.left_out.items()))
    return lines + [f"note: {note}" for note in survey.notes]


def describe_result(folder: Path, provenance: Provenance) -> list[str]:
    """Say what was written, in lines."""
    counts = provenance["images"]
    ways = {
        "linked to the source's files": counts["linked"], "copied": counts["copied"],
        "written anew, pixels only": counts["rewritten"],
    }  # fmt: skip
    names = "names of files are kept" if provenance["names"] == "kept" else "names of files are hidden"
    lines = [f"{folder}: {', '.join(f'{count:,} {way}' for way, count in ways.items() if count)}; {names}"]
    if counts["padded"]:
        shares = f"{counts['padding_positive']:.0%} of the positive, {counts['padding_negative']:.0%} of the negative"
        lines.append(f"{counts['padded']:,} images were not square and got black edges ({shares} pixels on average)")
    return lines
