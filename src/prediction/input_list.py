"""The list of images that a user names: files, folders, and CSV files of paths."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import paths
from dataset.dicom_files import is_dicom
from dataset.image_folders import walk_folders
from dataset.images import IMAGE_SUFFIXES
from dataset.tables import find_columns, read_table
from utils import UserError, readable

TIFF_SUFFIXES = {".tif", ".tiff"}
SUFFIXES = IMAGE_SUFFIXES | TIFF_SUFFIXES
KINDS = "PNG, JPEG, TIFF or DICOM"
OWN_SUFFIXES = (paths.REAL_PICTURE_SUFFIX, paths.REAL_PAGE_SUFFIX)
DICOM_INDEX = "DICOMDIR"  # table of contents of a DICOM medium, itself a DICOM file
PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "imagepath", "imagefile")
HIDDEN_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")  # how ``utils.readable`` writes a byte that is no UTF-8


@dataclass(frozen=True)
class InputList:
    """``files`` to predict, each once, and a sentence for each thing that was left out."""

    files: list[Path]
    notes: list[str]


def list_inputs(places: Sequence[str], own_files: Collection[Path] = ()) -> InputList:
    """List the images of ``places``: in their order, those of a folder and all folders in it sorted by path.

    Left out are hidden files and folders, files of other kinds, and what this program writes (``own_files``, heat
    maps, pages). A file that is named itself is always taken. Raises ``UserError`` if a place is not there, or if
    there is no image at all.
    """
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    own = {_identity(file) for file in own_files}
    for place in map(Path, places):
        if not os.path.lexists(place):
            raise UserError(f"--images {readable(str(place))} is not there; give files, folders or a CSV file of paths")
        if place.is_dir():
            found = _files_below(place, own, left_out)
        else:
            found = _listed_in(place) if place.suffix.lower() == ".csv" else [place]
        for file in found:
            files.setdefault(_identity(file), file)
    others = ", ".join(f"{count:,} {suffix}" for suffix, count in left_out.most_common(4))
    if not files:
        where = ", ".join(readable(place) for place in places)
        raise UserError(
            f"--images {where}: no {KINDS} file there"
            + (f", but {sum(left_out.values()):,} files of other kinds ({others})" if left_out else "")
        )
    n = sum(left_out.values())
    return InputList(list(files.values()), [f"{n:,} files of other kinds were left out ({others})"] if n else [])


def _identity(file: Path) -> str:
    """Return the same text for the same path, however it is written; links are not followed."""
    return os.path.abspath(file)  # noqa: PTH100  Path.absolute() keeps ".."


# --- folders ---------------------------------------------------------------------------------------
def _files_below(folder: Path, own: Collection[str], left_out: Counter[str]) -> list[Path]:
    """Return the images in a folder and those below it, sorted; files of other kinds are counted by their ending."""
    found = []
    for file in (place / name for place, names in walk_folders(folder) for name in names):
        if file.name.endswith(OWN_SUFFIXES) or file.name == DICOM_INDEX or _identity(file) in own:
            continue
        if file.suffix.lower() in SUFFIXES or is_dicom(file):
            found.append(file)
        else:
            left_out[file.suffix.lower() or "without ending"] += 1
    return sorted(found)


# --- tables of paths -------------------------------------------------------------------------------
def _listed_in(table_file: Path) -> list[Path]:
    """Return the paths in a CSV file: its column of paths, or its only column, with or without a name."""
    table = read_table(table_file, known=PATH_COLUMNS)
    places = find_columns(table, {"path": PATH_COLUMNS}).get("path", [])
    if len(places) > 1:
        named = " and ".join(table.describe_column(place) for place in places[:2])
        raise UserError(f"{table_file}: columns {named} may both hold the paths; rename one of them")
    if places:
        cells = table.column(places[0])
    elif len(table.names) == 1:
        cells = table.column(0)
        if _looks_like_a_path(table.names[0]):
            cells = [table.names[0], *cells]
    else:
        raise UserError(
            f"{table_file} has no column path among {', '.join(table.names[:8]) or 'its columns'}; rename the column "
            "of the images' paths to path"
        )
    if not any(cells):
        raise UserError(f"{table_file} names no image")
    return [_existing(cell, table_file.parent) for cell in cells if cell]


def _looks_like_a_path(text: str) -> bool:
    return Path(text).suffix.lower() in SUFFIXES or os.sep in text


def _existing(text: str, folder: Path) -> Path:
    """Return the file that a cell means: seen from the table's folder, else from the working directory."""
    tries = [folder / text, Path(text)]
    raw = HIDDEN_BYTE.sub(lambda match: os.fsdecode(bytes.fromhex(match[1])), text)
    tries += [folder / raw, Path(raw)] if raw != text else []
    return next((file for file in tries if os.path.lexists(file)), tries[0])
