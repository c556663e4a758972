"""Records of a data folder: labelled images and official test images, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from dataset.patients import (
    GROUPED_BY_IMAGE,
    GROUPED_BY_PATIENT,
    find_patient_map,
    read_patient_map,
    with_patients,
)
from dataset.tables import read_metadata, reduce_to_images
from utils import UserError, sha256_file

if TYPE_CHECKING:
    import pandas as pd

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
