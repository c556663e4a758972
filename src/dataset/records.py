"""Records of a data folder: labelled images and official test images, one row each, and their patients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from dataset.tables import read_metadata, reduce_to_images
from utils import UserError, load_json, sha256_file

if TYPE_CHECKING:
    import pandas as pd

GROUPED_BY_PATIENT = "nih_patient"
GROUPED_BY_IMAGE = "image_id"
PLACEHOLDER_PREDICTION = "0.5 0 0 100 100"  # RSNA's sample submission, the same for every test image
CHECK_COMMAND = "python src/data_loader.py --data-dir"


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a data folder, one record each.

    ``images``: image_id, patient, label (0/1), class, view, sex, age (years, NaN if unknown or
    implausible), n_boxes, path; sorted by image_id. ``rows``: metadata rows (boxes) they came from.
    ``unmapped``: images that the patient mapping lacks, each a group of its own.
    """

    data_dir: Path
    images: pd.DataFrame
    grouped_by: str
    data_sha256: str
    rows: int
    unmapped: int


@dataclass(frozen=True)
class OfficialTest:
    """The images of the official test CSV; ``labelled``: whether it holds real labels, ``why``: the reason.

    ``images``: image_id, patient, label (only if labelled), class, view, sex, age, path.
    """

    images: pd.DataFrame
    labelled: bool
    why: str


def load_dataset(data_dir: str | Path, patient_map: str | Path | None = None) -> Dataset:
    """Read the labelled metadata of ``data_dir``; images are not opened. ``UserError`` if it is unusable."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder; `python src/download_dataset.py` fetches the dataset")
    metadata = data_dir / paths.TRAIN_METADATA
    rows = read_metadata(metadata)
    if rows.empty:
        raise UserError(f"{metadata} holds no rows; `python src/download_dataset.py --force` replaces it")
    images = reduce_to_images(rows, metadata.name)
    map_file = find_patient_map(data_dir, patient_map)
    patient_of = read_patient_map(map_file) if map_file else {}
    unmapped = int((~images["image_id"].isin(patient_of)).sum())
    if map_file and unmapped == len(images):
        raise UserError(
            f"{map_file} names none of the images of {metadata}, so it is another dataset's mapping; give "
            "the right one with --patient-map"
        )
    images = _with_files(with_patients(images, patient_of), paths.training_images(data_dir))
    if images["label"].nunique() < 2:
        raise UserError(f"{metadata} has images of one class only; training needs both")
    return Dataset(
        data_dir=data_dir,
        images=images,
        grouped_by=GROUPED_BY_PATIENT if map_file else GROUPED_BY_IMAGE,
        data_sha256=sha256_file(metadata),
        rows=len(rows),
        unmapped=unmapped,
    )


def load_official_test(data_dir: str | Path, patient_map: str | Path | None = None) -> OfficialTest | None:
    """Read the official test images; None if there is no test CSV, or no row in it.

    Constant, empty or placeholder labels do not count: then ``labelled`` is False and there is no column
    ``label``, so that no metric can be computed from them by accident.
    """
    data_dir = Path(data_dir)
    metadata = data_dir / paths.TEST_METADATA
    if not metadata.is_file():
        return None
    rows = read_metadata(metadata)
    if rows.empty:
        return None
    labels, why = _official_labels(rows)
    if labels is None or ("class" in rows and rows["class"].eq("").any()):
        rows = rows.drop(columns=["class"], errors="ignore")
    rows = rows.assign(Target="0" if labels is None else labels.map(str))
    images = reduce_to_images(rows, metadata.name)
    if labels is None:
        images = images.drop(columns=["label"])
    map_file = find_patient_map(data_dir, patient_map)
    images = with_patients(images, read_patient_map(map_file) if map_file else {})
    folder = paths.test_images(data_dir)
    if (folder / "Images").is_dir():
        folder = folder / "Images"
    return OfficialTest(images=_with_files(images, folder), labelled=labels is not None, why=why)


def _with_files(images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Add ``path``, the file of each image in ``folder``."""
    import pandas as pd

    files = [folder / f"{image_id}.png" for image_id in images["image_id"]]
    return images.assign(path=pd.Series(files, index=images.index, dtype=object))


def _official_labels(rows: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """Return (0/1 per row, or None if the CSV holds no labels; the reason in words)."""
    import pandas as pd

    if "Target" in rows and rows["Target"].ne("").any():
        target = pd.to_numeric(rows["Target"], errors="coerce")
        if not target.isin([0, 1]).all():
            return None, "its Target column is not 0 or 1 throughout"
        labels, source = target.astype(int), "its Target column"
    elif "PredictionString" in rows:
        predictions = rows["PredictionString"]
        if predictions.eq("").all():
            return None, "its PredictionString column is empty"
        if predictions.eq(PLACEHOLDER_PREDICTION).any():
            return None, f"PredictionString is the sample-submission placeholder {PLACEHOLDER_PREDICTION!r}"
        labels, source = predictions.ne("").astype(int), "its PredictionString column (boxes or empty)"
    else:
        return None, "it has neither PredictionString nor Target"
    if labels.nunique() < 2:
        return None, f"{source} says the same for every image"
    return labels, source


def name_some(image_ids: list[str], limit: int = 10) -> str:
    """Write "3 images (a, b, c)": the count and the first ``limit`` names."""
    count = f"{len(image_ids)} image{'s' if len(image_ids) != 1 else ''}"
    more = ", ..." if len(image_ids) > limit else ""
    return f"{count} ({', '.join(image_ids[:limit])}{more})"


# --- patients --------------------------------------------------------------------------------------
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
