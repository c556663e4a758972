"""A data set as it lies on disk elsewhere: its files, and what its layout says of each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset.dicom_files import is_dicom, is_pipe
from dataset.file_formats import PositiveMeaning
from dataset.image_folders import is_hidden, walk_folders
from dataset.people import LATERAL
from utils import UserError

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"))
SHOWN = 5  # rows, files or values that a message names


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    ``file``; ``name``: what the layout calls it, without folders and ending; ``label``: 1, 0, or None in a test
    set without labels; ``official``: of the official test set; ``patient``: as the source spells it, "" if unknown;
    ``age``: years, NaN if unknown; ``sex``: M, F or ""; ``view``: AP, PA, LATERAL or ""; ``label_class``: RSNA's
    class, "" in other sets; ``boxes``: x, y, width, height of each box, as text; ``modality``: CR, DX or "".
    """

    file: Path
    name: str
    label: int | None
    official: bool = False
    patient: str = ""
    age: float = float("nan")
    sex: str = ""
    view: str = ""
    label_class: str = ""
    boxes: tuple[tuple[str, ...], ...] = ()
    modality: str = ""


@dataclass(frozen=True)
class Source:
    """What a layout makes of a folder.

    ``root``: folder that all files are in; ``images``: in a fixed order; ``positive``: what label 1 means;
    ``tables``: role -> CSV file; ``patients``: where the patients come from, in words, "" if from nowhere;
    ``data_set``: name of the known data set that it is, or ""; ``public``: names and patients are public ids;
    ``nih_names``: the images are called as in NIH ChestX-ray14, which tells their patients as RSNA's mapping does;
    ``patient_map``: that mapping, where it lies with the source; ``left_out``: reason -> images; ``notes``: what
    was understood.
    """

    root: Path
    images: list[SourceImage]
    positive: PositiveMeaning
    patients: str = ""
    data_set: str = ""
    public: bool = False
    tables: Mapping[str, Path] = field(default_factory=dict)
    nih_names: bool = False
    patient_map: Path | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


# --- files -----------------------------------------------------------------------------------------
def require_folder(source: Path) -> None:
    """Raise ``UserError`` unless ``source`` is a folder."""
    if not source.is_dir():
        state = "is a file" if source.exists() else "does not exist"
        raise UserError(f"--source {source} {state}; give the folder of the data set")


def list_files(folder: Path) -> list[Path]:
    """List all files below ``folder``, in the order of ``walk_folders``; [] without the folder."""
    return [place / name for place, names in walk_folders(folder) for name in names] if folder.exists() else []


def is_image(file: Path) -> bool:
    """Tell whether ``file`` is one that can be imported: a picture by its ending, or DICOM."""
    return (file.suffix.lower() in PICTURE_SUFFIXES or is_dicom(file)) and not is_pipe(file)


def split_images(files: Sequence[Path], notes: list[str]) -> list[Path]:
    """Return the images among ``files``; a note counts the others."""
    images = [file for file in files if is_image(file)]
    others = Counter(file.suffix.lower() or "no ending" for file in set(files) - set(images))
    if others:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(SHOWN))
        notes.append(f"files that are no images, left out: {kinds}")
    return images


def subfolders(folder: Path) -> list[Path]:
    """List the folders in ``folder`` that hold at least one file below them, sorted."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    return [path for path in inner if any(names for _, names in walk_folders(path))]


def file_of_image(names: Mapping[str, Sequence[Path]], name: str) -> Path | None:
    """Return the only file called ``name``, with its ending or without; raises ``UserError`` if there are more."""
    files = names.get(name.casefold(), ())
    if len(files) > 1:
        raise UserError(f"two files are called {name}: {files[0]} and {files[1]}; keep the right one")
    return files[0] if files else None


def name_files(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each name, in small letters, with its ending and without."""
    found: dict[str, list[Path]] = {}
    for file in files:
        for name in dict.fromkeys((file.name.casefold(), file.stem.casefold())):
            found.setdefault(name, []).append(file)
    return found


# --- what images have in common --------------------------------------------------------------------
def without_laterals(images: list[SourceImage], left_out: dict[str, int]) -> list[SourceImage]:
    """Leave out lateral views and count them in ``left_out``."""
    frontal = [image for image in images if image.view != LATERAL]
    if len(frontal) < len(images):
        left_out["lateral views"] = left_out.get("lateral views", 0) + len(images) - len(frontal)
    return frontal


def name_values(values: Sequence[str]) -> str:
    """Write the first few of ``values``, then how many more there are."""
    more = f" and {len(values) - SHOWN:,} more" if len(values) > SHOWN else ""
    return ", ".join(values[:SHOWN]) + more


def refuse_missing(missing: Sequence[str], table: str, where: Path, skip: bool, left_out: dict[str, int]) -> None:
    """Raise ``UserError`` for images of ``table`` without a file in ``where``; with ``skip`` count them."""
    if missing and not skip:
        raise UserError(
            f"{len(missing):,} images of {table} are not in {where} ({name_values(missing)}); complete the data set, "
            "or leave them out with --skip-bad-images"
        )
    if missing:
        left_out["no file"] = left_out.get("no file", 0) + len(missing)
