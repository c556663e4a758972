"""Folders of images without any metadata: which files they hold, and whose images these are.

Patients are named by a CSV file, or by a part of the file names; an image that neither names stands for itself.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dataset.dicom_files import is_dicom
from dataset.image_files import is_image_name
from dataset.image_ids import without_ending
from dataset.metadata import IMAGE_NAMES, PERSON_NAMES, PERSON_OR_IMAGE
from dataset.tables import read_table
from utils import UserError

NAMED = "patient "  # how groups of a named patient begin
# Files and folders that archives, desktops, network disks and file systems add, in small letters.
ADDED_NAMES = (
    "__macosx", "@eadir", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information"
)  # fmt: skip
FILE_NAMES = (*IMAGE_NAMES, "path", "filepath", "imagepath", "name")


def list_folder(folder: Path, flag: str) -> list[Path]:
    """Return the image files of ``folder``, or if it holds none, those of all folders below it; sorted.

    Raises ``UserError``, naming the ``flag``, if there are none.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{flag} {folder} {problem}; give the folder that holds the images")

    found: list[Path] = []
    for place, names in walk_folders(folder):
        found += [place / name for name in names if is_image_name(name) or _nameless_dicom(place / name)]
        if found and place == folder:
            break
    if not found:
        raise UserError(f"{flag} {folder} holds no image, nor does any folder below it; give the folder of the images")
    return sorted(found)


def walk_folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield ``folder`` and the folders below it, each with the sorted names of its files; not what ``is_hidden``.

    Links are followed, but no folder is entered twice: a link may lead to one that was read, or to one above it.
    Raises ``UserError`` if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}); change its permissions")

    entered: set[Path] = set()
    for place, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := Path(place).resolve()) in entered:
            below.clear()
            continue
        entered.add(real)
        kept = sorted(name for name in below if not is_hidden(name))
        below[:] = sorted(kept, key=lambda name: Path(place, name).is_symlink())  # a folder before a link to it
        yield Path(place), sorted(name for name in names if not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder counts for nothing: it is hidden, or nobody put it there."""
    return name.startswith(".") or name.casefold() in ADDED_NAMES


def _nameless_dicom(file: Path) -> bool:
    """Tell whether a file without an ending is DICOM, as archives often write them."""
    return not file.suffix and is_dicom(file)


def check_apart(real: Sequence[Path], synthetic: Sequence[Path]) -> None:
    """Raise ``UserError`` if a file is on both sides."""
    if both := sorted({file.resolve() for file in real} & {file.resolve() for file in synthetic}):
        raise UserError(
            f"--real and --synthetic share {len(both):,} files, {both[0].name} among them: give two folders of "
            "different images"
        )


def read_patients(path: Path) -> dict[str, str]:
    """Read a CSV file that names the patient of each image: file name without ending -> patient.

    Raises ``UserError`` if a column is missing or an image has two patients.
    """
    table = read_table(path, (*FILE_NAMES, *PERSON_NAMES, PERSON_OR_IMAGE))
    names = table.squeezed
    files = next((names.index(name) for name in FILE_NAMES if name in names), None)
    persons = next((names.index(name) for name in (*PERSON_NAMES, PERSON_OR_IMAGE) if name in names), None)
    if files is None or persons is None:
        lacking = "names the image (filename, image_id)" if files is None else "names the patient (patient_id, patient)"
        raise UserError(f"--patients {path}: no column {lacking}; its columns are {table.listed_names}")
    patients: dict[str, str] = {}
    for image, person, line in zip(table.column(files), table.column(persons), table.lines, strict=True):
        key = _key(image)
        if person and patients.setdefault(key, person) != person:
            raise UserError(f"--patients {path}: line {line} gives image {image} a second patient; keep the right one")
    return patients


def _key(name: str) -> str:
    return without_ending(name.replace("\\", "/").rsplit("/", 1)[-1])


def groups_of(
    files: Sequence[Path], side: str, patients: Mapping[str, str] | None = None, pattern: re.Pattern[str] | None = None
) -> tuple[list[str], int]:
    """Return the group of each image, and how many images stand for themselves because nothing names their patient.

    ``pattern``: the first group of its first match in a file name (the whole match without groups) is the
    patient. ``side`` keeps images that stand for themselves apart from those of the other side.
    """
    groups, ungrouped = [], 0
    for number, file in enumerate(files):
        name = None
        if patients is not None:
            name = patients.get(_key(file.name))
        elif pattern is not None and (match := pattern.search(file.name)):
            name = match[1] if pattern.groups else match[0]
        ungrouped += not name
        groups.append(f"{NAMED}{name}" if name else f"{side} image {number}")
    return groups, ungrouped


def check_groups(groups: Sequence[str], side: str, least: int, by: str | None) -> None:
    """Raise ``UserError`` if ``side`` has fewer than ``least`` groups; ``by``: the flag that names them."""
    counts = Counter(groups)
    if by is not None and side.startswith("--real") and not any(group.startswith(NAMED) for group in counts):
        raise UserError(f"{by} names the patient of none of the {len(groups):,} images of {side}; check the file names")
    if len(counts) >= least:
        return
    if len(groups) < least or by is None:
        raise UserError(
            f"{side} holds {len(groups):,} image{'' if len(groups) == 1 else 's'}: too few images to measure anything; "
            f"at least {least} are needed on each side, and some 100 for a verdict"
        )
    found = f"{len(counts):,} group{'' if len(counts) == 1 else 's'} ({next(iter(counts))}, ...)"
    raise UserError(
        f"{by} puts the {len(groups):,} images of {side} into {found}; at least {least} patients are needed on each "
        f"side: name them one by one, or leave {by} out"
    )
