"""The file of each image id, and what to say if it is not where it is expected."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from common import paths
from dataset.image_ids import without_ending
from dataset.images import IMAGE_SUFFIXES
from utils import UserError

NO_IMAGES = ("masks",)  # folders whose files have the images' names but hold something else
MOST_FOLDERS = 50  # that are searched for missing images


def find_images(image_ids: Sequence[str], folder: Path) -> list[Path]:
    """Return the file of each image: ``<id>.png``, else the one of another ending or case that alone fits.

    The folder is listed once. An image that is not there gets the path ``<id>.png`` all the same: whoever
    opens it reports it. Raises ``UserError`` naming both if two files fit one id, or one file two ids, or the
    folder cannot be listed.
    """
    there = set(list_image_names(folder))
    expected = {f"{image_id}.png" for image_id in image_ids}
    others: dict[str, list[str]] = defaultdict(list)  # files that no id expects, by the names they may stand for
    for name in there - expected:
        others[_key(Path(name).stem)].append(name)
    taken: dict[str, str] = {}
    found: list[Path] = []
    for image_id in image_ids:
        name = f"{image_id}.png"
        if name not in there:
            fitting = others.get(_key(image_id)) or others.get(_key(without_ending(image_id)), [])
            name = _fitting(image_id, fitting, folder)
            if (other_id := taken.setdefault(name, image_id)) != image_id:
                raise UserError(f"{folder / name} fits two images, {other_id} and {image_id}; rename the ids or files")
        found.append(folder / name)
    return found


def _fitting(image_id: str, names: list[str], folder: Path) -> str:
    """Return the one of ``names`` that fits; the expected name if there is none."""
    same_case = [name for name in names if image_id in (name, Path(name).stem)]
    fitting = same_case or names
    if len(fitting) > 1:
        both = " and ".join(sorted(fitting)[:2])
        raise UserError(f"{folder} holds two files for image {image_id}, {both}; keep the right one")
    return fitting[0] if fitting else f"{image_id}.png"


def _key(name: str) -> str:
    """Return the same text for names that differ in case or in how umlauts are written (macOS: in two parts)."""
    return unicodedata.normalize("NFC", name).casefold()


def list_image_names(folder: Path) -> list[str]:
    """List the PNG, JPEG and DICOM files of ``folder``, sorted; hidden files are none. [] if there is no folder.

    Raises ``UserError`` if the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if is_image_name(entry.name) and not entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}); change its permissions") from None


def is_image_name(name: str) -> bool:
    """Return whether ``name`` is that of a PNG, JPEG or DICOM file; those that begin with a dot (._a.png) are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


# --- where else missing images lie -----------------------------------------------------------------
def describe_missing(files: Sequence[Path]) -> str:
    """Say what the folder of the missing ``files`` holds, and where files of their names lie instead."""
    folder, stems = files[0].parent, {_key(file.stem) for file in files}
    parts = [_describe_folder(folder, stems)]
    for place in _places_near(folder):
        held = _listed(place)
        count = sum(_key(Path(name).stem) in stems for name in held if is_image_name(name))
        if count and place != folder:
            parts.append(f"{place} holds {count:,} images of these names: move them to {folder}, or link that folder")
    return "; ".join(parts)


def _describe_folder(folder: Path, stems: set[str]) -> str:
    if not folder.is_dir():
        return f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist"
    names = _listed(folder)
    images = [name for name in names if is_image_name(name)]
    others = [name for name in names if not is_image_name(name) and _key(Path(name).stem) in stems]
    if others:
        endings = Counter(Path(name).suffix or "no ending" for name in others)
        held = ", ".join(f"{count:,} with {ending}" for ending, count in endings.most_common(3))
        return f"{folder} holds files of these names, but {held}: only PNG, JPEG and DICOM are read, so convert them"
    example = f", such as {images[0]}" if images else ""
    return f"{folder} holds {len(images):,} images{example}"


def _places_near(folder: Path) -> Iterable[Path]:
    """Return the folders up to the data folder, and their subfolders, where images may lie by mistake."""
    tops = [folder]
    for parent in list(folder.parents)[:2]:
        if (tops[-1] / paths.TRAIN_METADATA).exists():
            break
        tops.append(parent)
    seen: dict[Path, None] = {}
    for top in tops:
        below = [top / name for name in _listed(top)[: 100 * MOST_FOLDERS] if not name.startswith(".")]
        below = below if top != folder or len(below) < MOST_FOLDERS else []
        inner = [place for place in below if place.name.lower() not in NO_IMAGES and place.is_dir()]
        seen |= dict.fromkeys([top, *inner[:MOST_FOLDERS]])
    return seen


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []
