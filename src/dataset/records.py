"""Records of a data folder: labelled images and official test images, one row each, and their patients."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from dataset.file_formats import Provenance
from dataset.image_files import find_images
from dataset.image_ids import name_some
from dataset.labels import POSITIVE_CLASS, labels_of, official_labels
from dataset.metadata import PEOPLE, PERSON, Metadata, read_metadata, settle_people
from dataset.patients import Grouping, find_patient_map, group_images, read_patient_map, require_mapped
from dataset.people import LATERAL, PLAUSIBLE_AGE
from dataset.provenance import import_flags, import_notes, read_provenance
from utils import UserError, sha256_file

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

BOX_FRAME = 1024  # box coordinates are pixels of a 1024 x 1024 image, whatever the PNG's size
CHECK_COMMAND = "python src/data_loader.py --data-dir"


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a data folder, one record each.

    ``images``: image_id, patient, label (0/1), class, view, sex, age (years, NaN if unknown or
    implausible), n_boxes, path; sorted by image_id. ``rows``: metadata rows (boxes) they came from.
    ``unmapped``: see ``patients.Grouping``. ``notes``: what was understood from unusual tables or images;
    ``red_flags``: what every reader of a result must know of the data. Both are sentences. ``provenance``: of
    an imported folder.
    """

    data_dir: Path
    images: pd.DataFrame
    grouped_by: str
    data_sha256: str
    rows: int
    unmapped: int
    notes: list[str] = field(default_factory=list)
    red_flags: list[str] = field(default_factory=list)
    provenance: Provenance | None = None

    def log_findings(self) -> None:
        """Log the notes, and the red flags as warnings."""
        for note in self.notes:
            log.info(f"note: {note}")
        for flag in self.red_flags:
            log.warning(f"RED FLAG: {flag}")


@dataclass(frozen=True)
class OfficialTest:
    """The images of the official test CSV; ``labelled``: whether it holds real labels, ``why``: the reason.

    ``images``: image_id, patient, label (only if labelled), class, view, sex, age, path. ``notes``: as in
    ``Dataset``.
    """

    images: pd.DataFrame
    labelled: bool
    why: str
    notes: list[str] = field(default_factory=list)


def load_dataset(
    data_dir: str | Path, patient_map: str | Path | None = None, patient_column: str | None = None
) -> Dataset:
    """Read the labelled metadata of ``data_dir``; images are not opened.

    ``patient_map``: the mapping file, None for the one in the folder; ``patient_column``: the metadata column
    that names the person, None for the usual names. Raises ``UserError`` if it is unusable.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder; `python src/download_dataset.py` fetches the dataset")
    file = data_dir / paths.TRAIN_METADATA
    provenance = read_provenance(data_dir)
    metadata = read_metadata(file, patient_column)
    if metadata.rows.empty:
        raise UserError(f"{file} holds no rows; `python src/download_dataset.py --force` replaces it")
    images, notes = reduce_to_images(metadata.rows, file.name)
    map_file = find_patient_map(data_dir, patient_map)
    grouping = _group(images, metadata, map_file, file)
    require_mapped(grouping, list(images["image_id"]), map_file, file)
    images = _with_files(images.assign(patient=grouping.patients), paths.training_images(data_dir))
    if images["label"].nunique() < 2:
        raise UserError(f"{file} has images of one class only; both are needed, so add the other")
    return Dataset(
        data_dir=data_dir,
        images=images,
        grouped_by=grouping.grouped_by,
        data_sha256=sha256_file(file),
        rows=len(metadata.rows),
        unmapped=grouping.unmapped,
        notes=[*metadata.notes, *notes, *grouping.notes, *import_notes(provenance)],
        red_flags=[
            *_people_flags(images, metadata), *grouping.red_flags, *import_flags(provenance, grouping, len(images))
        ],
        provenance=provenance,
    )  # fmt: skip


def load_official_test(
    data_dir: str | Path, patient_map: str | Path | None = None, patient_column: str | None = None
) -> OfficialTest | None:
    """Read the official test images; None if there is no test CSV, or no row in it.

    Constant, empty, placeholder or predicted labels do not count: then ``labelled`` is False and there is no
    column ``label``, so that no metric can be computed from them by accident.
    """
    data_dir = Path(data_dir)
    file = data_dir / paths.TEST_METADATA
    if not file.is_file():
        return None
    metadata = read_metadata(file, patient_column, column_needed=False)
    rows = metadata.rows
    if rows.empty:
        return None
    labels, why = official_labels(rows)
    if labels is None or ("class" in rows and rows["class"].eq("").any()):
        rows = rows.drop(columns=["class"], errors="ignore")
    rows = rows.assign(Target="0" if labels is None else labels.map(str))
    images, notes = reduce_to_images(rows, file.name)
    if labels is None:
        images = images.drop(columns=["label"])
    images = images.assign(patient=_group(images, metadata, find_patient_map(data_dir, patient_map), file).patients)
    folder = paths.test_images(data_dir)
    if (folder / "Images").is_dir():
        folder = folder / "Images"
    return OfficialTest(_with_files(images, folder), labels is not None, why, [*metadata.notes, *notes])


def _group(images: pd.DataFrame, metadata: Metadata, map_file: Path | None, file: Path) -> Grouping:
    """Group the ``images`` by person."""
    patient_of = read_patient_map(map_file) if map_file else {}
    sources = (str(map_file), f"{file.name}, column {metadata.person_column}")
    return group_images(list(images["image_id"]), _person_of(metadata.rows, file.name), patient_of, sources)


def _person_of(rows: pd.DataFrame, source: str) -> dict[str, str]:
    """Return image id -> person by the metadata; raises ``UserError`` for an image of two persons."""
    if PERSON not in rows:
        return {}
    pairs = rows.loc[rows[PERSON] != "", ["patientId", PERSON]].drop_duplicates()
    if (twice := pairs["patientId"].duplicated()).any():
        raise UserError(f"{source}: image {pairs['patientId'][twice].iloc[0]} has rows of two patients; correct them")
    return dict(zip(pairs["patientId"], pairs[PERSON], strict=True))


def _with_files(images: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Add ``path``, the file of each image in ``folder``; see ``image_files.find_images``."""
    import pandas as pd

    files = find_images(list(images["image_id"]), folder)
    return images.assign(path=pd.Series(files, index=images.index, dtype=object))


def _people_flags(images: pd.DataFrame, metadata: Metadata) -> list[str]:
    """Flag view, sex and age that are there but mostly unknown, and lateral images."""
    flags = []
    for column in (name for name in PEOPLE if name in metadata.rows):
        what = "view" if column == "position" else column
        known = images[what].notna() & images[what].ne("")
        if (unknown := int((~known).sum())) > len(images) / 2:
            flags.append(
                f"{what} is unknown for {unknown:,} of {len(images):,} images, so the view+sex+age reference rests "
                "on little"
            )
    lateral = list(images.loc[images["view"] == LATERAL, "image_id"])
    return [*flags, f"{name_some(lateral, 3)} are lateral views"] if lateral else flags


# --- one record per image --------------------------------------------------------------------------
def reduce_to_images(rows: pd.DataFrame, source: str) -> tuple[pd.DataFrame, list[str]]:
    """Return (one record per image: image_id, label, class, view, sex, age, n_boxes; notes), sorted by image_id.

    Raises ``UserError`` naming the image if its rows carry two labels or classes, or Target and class
    disagree.
    """
    import pandas as pd

    labels = labels_of(rows, source)
    notes: list[str] = []
    table = pd.DataFrame(
        {
            "image_id": rows["patientId"],
            "label": labels,
            "class": rows["class"] if "class" in rows else labels.map({1: POSITIVE_CLASS, 0: ""}),
            "n_boxes": (rows["x"] != "").astype(int) if "x" in rows else 0,
        }
    )
    per_image = table.groupby("image_id", sort=True)
    for column in ("label", "class"):
        mixed = per_image[column].nunique().loc[lambda counts: counts > 1]
        if not mixed.empty:
            raise UserError(f"{source}: image {mixed.index[0]} has rows of different {column}; correct them")
    people = settle_people(rows, notes)
    images = per_image[["label", "class"]].first()
    images = images.assign(view=people["position"], sex=people["sex"], age=people["age"])
    images["age"] = images["age"].where(images["age"].between(0, PLAUSIBLE_AGE))
    images["n_boxes"] = per_image["n_boxes"].sum()
    return images.reset_index(), [f"{source}: {note}" for note in notes]
