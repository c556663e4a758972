"""The folder that a data set is imported into: whose it is, and how far an import has come."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from common import paths
from common.file_formats import format_problems
from dataset.file_formats import Provenance
from dataset.provenance import IMPORT_COMMAND
from importers.pixel_files import Written
from utils import UserError, load_json

JOURNAL = ".import_progress.jsonl"  # a line for each finished image; gone at the end


@dataclass(frozen=True)
class Finished:
    """A finished image: its id, the file's name, and what was done."""

    image_id: str
    file: str
    written: Written


# --- whose folder it is ----------------------------------------------------------------------------
def check_places(folder: Path, source: Path) -> None:
    """Raise ``UserError`` if one of the folders lies within the other."""
    inner, outer = folder.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(f"--data-dir {folder} and --source {source} lie within each other; give another --data-dir")


def find_earlier(folder: Path, wanted: Provenance) -> Provenance | None:
    """Return what an import of the same data set with the same options wrote into ``folder``; None if it is empty.

    Raises ``UserError`` if ``folder`` holds something else.
    """
    file = paths.provenance(folder)
    if not file.is_file():
        held = [folder / paths.TRAIN_METADATA, folder / paths.TEST_METADATA, folder / paths.PATIENT_MAP,
                paths.training_images(folder).parent, paths.test_images(folder), paths.phantom_marker(folder),
                paths.download_marker(folder)]  # fmt: skip
        if found := [path.name for path in held if path.exists()]:
            raise UserError(f"{folder} already holds a data set ({found[0]}); give another --data-dir")
        return None
    earlier = load_json(file)
    if format_problems(earlier, Provenance):
        raise UserError(f"{file} is not what `{IMPORT_COMMAND}` writes; give another --data-dir")
    same = ("version", "layout", "source_sha256", "settings_sha256", "names")
    differing = [key for key in same if earlier.get(key) != wanted.get(key)]
    if differing:
        what = "another source" if "source_sha256" in differing else "other options"
        state = "an import" if earlier["complete"] else "an unfinished import"
        raise UserError(f"{folder} holds {state} of {what}; give another --data-dir, or delete that folder")
    return cast(Provenance, earlier)


# --- how far it has come ---------------------------------------------------------------------------
class Journal:
    """Finished images of an import, by their place in its list; survives an interruption."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / JOURNAL
        self.finished = _read_journal(folder)

    def add(self, place: int, finished: Finished) -> None:
        """Note that image number ``place`` is finished."""
        self.finished[place] = finished
        line = json.dumps([place, finished.image_id, finished.file, asdict(finished.written)])
        with self.file.open("a", encoding="utf-8", newline="\n") as stream:
            stream.write(line + "\n")

    def remove(self) -> None:
        """Delete the file: the import is finished."""
        self.file.unlink(missing_ok=True)


def _read_journal(folder: Path) -> dict[int, Finished]:
    """Return the finished images whose files are there; a line that was cut short counts for nothing."""
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found: dict[int, Finished] = {}
    for line in lines:
        try:
            place, image_id, file, written = json.loads(line)
            finished = Finished(image_id, file, Written(**{**written, "size": tuple(written["size"])}))
        except (ValueError, TypeError, KeyError):
            continue
        if any((images / file).is_file() for images in (paths.training_images(folder), paths.test_images(folder))):
            found[place] = finished
    return found
