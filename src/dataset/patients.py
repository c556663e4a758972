"""Patients of the images, read from the official mapping to NIH file names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from utils import UserError, load_json

if TYPE_CHECKING:
    import pandas as pd

GROUPED_BY_PATIENT = "nih_patient"
GROUPED_BY_IMAGE = "image_id"


def read_patient_map(path: Path) -> dict[str, str]:
    """Read image id -> NIH patient from the official mapping (``file_formats.MappingEntry``)."""
    entries = load_json(path)
    try:
        pairs = [(str(entry["subset_img_id"]), str(entry["img_id"]).split("_", 1)[0]) for entry in entries]
    except (TypeError, KeyError):
        raise UserError(
            f"{path} is not the official mapping, a list of objects with subset_img_id and img_id; delete "
            "it, and `python src/download_dataset.py` fetches it"
        ) from None
    patient_of = dict(pairs)
    if not patient_of:
        raise UserError(f"{path} is empty (the official mapping names 26,684 images); delete or replace it")
    for image_id, patient in pairs:
        if patient_of[image_id] != patient:
            raise UserError(f"{path} maps image {image_id} to two patients; correct or replace it")
    return patient_of


def find_patient_map(data_dir: Path, patient_map: str | Path | None) -> Path | None:
    """Find the mapping to use: the one given, else the one in the data folder, else None."""
    if patient_map is not None:
        return Path(patient_map)
    inside = data_dir / paths.PATIENT_MAP
    return inside if inside.is_file() else None


def with_patients(images: pd.DataFrame, patient_of: dict[str, str]) -> pd.DataFrame:
    """Add ``patient``; an image that the mapping lacks is its own group."""
    return images.assign(patient=[patient_of.get(image_id, image_id) for image_id in images["image_id"]])


def grouping_sentence(grouped_by: str) -> str:
    """Say in a sentence what ``grouped_by`` means; it goes into every report."""
    if grouped_by == GROUPED_BY_PATIENT:
        return "images are grouped by NIH patient (official mapping)"
    return (
        f"images are grouped by image id: {paths.PATIENT_MAP} is not there, so images of one person may lie "
        "on both sides of a split"
    )
