"""Records of a data folder: labelled images and official test images, one row each, and their patients.

In the metadata tables ``patientId`` names an image, not a person, and an image with two boxes has two rows.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from utils import UserError, load_json, sha256_file

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

POSITIVE_CLASS = "Lung Opacity"
LABEL_OF_CLASS = {"Normal": 0, "No Lung Opacity / Not Normal": 0, POSITIVE_CLASS: 1}
BOX_FRAME = 1024  # box coordinates are pixels of a 1024 x 1024 image, whatever the PNG's size
PLAUSIBLE_AGE = 110  # years; the source has typos up to 155
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # no separator, so an id cannot leave its folder
GROUPED_BY_PATIENT = "nih_patient"
GROUPED_BY_IMAGE = "image_id"
PLACEHOLDER_PREDICTION = "0.5 0 0 100 100"  # RSNA's sample submission, the same for every test image
CHECK_COMMAND = "python src/data_loader.py --data-dir"


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a data folder, one record each.

    ``images``: image_id, patient, label (0/1), class, view, sex, age (years, NaN if unknown or
    implausible), n_boxes, path; sorted by image_id. ``rows``: metadata rows (boxes) they came from.
    ``unmapped``: images that the patient mapping lacks, each a group of its own. ``notes``: what was
    understood from unusual tables or images; ``red_flags``: what every reader of a result must know of the
    data. Both are sentences.
    """

    data_dir: Path
    images: pd.DataFrame
    grouped_by: str
    data_sha256: str
    rows: int
    unmapped: int
    notes: list[str] = field(default_factory=list)
    red_flags: list[str] = field(default_factory=list)

    def log_findings(self) -> None:
        """Log the notes, and the red flags as warnings."""
        for note in self.notes:
            log.info(f"note: {note}")
        for flag in self.red_flags:
            log.warning(f"RED FLAG: {flag}")


@dataclass(frozen=True)
class OfficialTest:
    """The images of the official test CSV; ``labelled``: whether it holds real labels, ``why``: the reason.

    ``images``: image_id, patient, label (only if labelled), class, view, sex, age, path.
    """

    images: pd.DataFrame
    labelled: bool
    why: str


def load_dataset(data_dir: str | Path, patient_map: str | Path | None = None) -> Dataset:
    """Read the labelled metadata of ``data_dir``; images are not opened.

    Raises ``UserError`` if it is unusable.
    """
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
        raise UserError(f"{metadata} has images of one class only; training needs both, so add the other")
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


# --- metadata tables -------------------------------------------------------------------------------
def read_metadata(path: Path) -> pd.DataFrame:
    """Read a metadata CSV as it is, one row per box, every value a stripped string.

    Tolerates a byte-order mark and CRLF. Raises ``UserError`` if it is missing, empty, not a CSV, lacks
    ``patientId``, or has an id that is not a plain file name.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path} is missing; `python src/download_dataset.py` fetches the dataset")
    try:
        rows = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file ({error}); correct or replace it") from None
    rows.columns = rows.columns.str.strip()
    if "patientId" not in rows:
        raise UserError(f"{path} has no column patientId; its columns are {', '.join(rows.columns)}")
    rows = rows.apply(lambda column: column.str.strip())
    bad = rows.loc[~rows["patientId"].map(lambda name: bool(SAFE_ID.fullmatch(name))), "patientId"]
    if not bad.empty:
        raise UserError(f"{path.name}: patientId {bad.iloc[0]!r} is not a plain file name without folders; correct it")
    return rows


def reduce_to_images(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """Make one record per image: image_id, label, class, view, sex, age, n_boxes; sorted by image_id.

    Raises ``UserError`` naming the image if its rows carry two labels or classes, or Target and class
    disagree.
    """
    import pandas as pd

    if "Target" not in rows and "class" not in rows:
        raise UserError(f"{source} has no labels: it needs a column Target or class")
    classes = _canonical_classes(rows, source) if "class" in rows else None
    labels = _labels(rows, classes, source)
    ages = pd.to_numeric(_column(rows, "age"), errors="coerce")
    table = pd.DataFrame(
        {
            "image_id": rows["patientId"],
            "label": labels,
            "class": classes if classes is not None else labels.map({1: POSITIVE_CLASS, 0: ""}),
            "view": _column(rows, "position").str.upper(),
            "sex": _column(rows, "sex").str.upper(),
            "age": ages.where(ages.between(0, PLAUSIBLE_AGE)),
            "n_boxes": (_column(rows, "x") != "").astype(int),
        }
    )
    per_image = table.groupby("image_id", sort=True)
    for column in ("label", "class"):
        mixed = per_image[column].nunique().loc[lambda counts: counts > 1]
        if not mixed.empty:
            raise UserError(f"{source}: image {mixed.index[0]} has rows of different {column}; correct them")
    images = per_image.first()
    images["n_boxes"] = per_image["n_boxes"].sum()
    return images.reset_index()


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    import pandas as pd

    return rows[name] if name in rows else pd.Series("", index=rows.index, dtype=str)


def _canonical_classes(rows: pd.DataFrame, source: str) -> pd.Series:
    """Return the class names in the official spelling; spaces around the slash and case do not matter."""
    canonical = {re.sub(r"\s+", "", name).lower(): name for name in LABEL_OF_CLASS}
    classes = rows["class"].map(lambda name: canonical.get(re.sub(r"\s+", "", name).lower()))
    if classes.isna().any():
        row = rows.loc[classes.isna()].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has class {row['class']!r}; allowed are {', '.join(LABEL_OF_CLASS)}"
        )
    return classes


def _labels(rows: pd.DataFrame, classes: pd.Series | None, source: str) -> pd.Series:
    """Return 0/1 per row from Target, class, or both, which then must agree."""
    import pandas as pd

    from_class = classes.map(LABEL_OF_CLASS).astype(int) if classes is not None else None
    if from_class is not None and "Target" not in rows:
        return from_class
    target = pd.to_numeric(rows["Target"], errors="coerce")
    if not target.isin([0, 1]).all():
        row = rows.loc[~target.isin([0, 1])].iloc[0]
        raise UserError(f"{source}: image {row['patientId']} has Target {row['Target']!r}; allowed: 0, 1")
    target = target.astype(int)
    if from_class is not None and (target != from_class).any():
        row = rows.loc[target != from_class].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has Target {row['Target']} but class {row['class']!r}; "
            f"only {POSITIVE_CLASS!r} is 1"
        )
    return target
