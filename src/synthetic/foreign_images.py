"""Images made elsewhere, PNG, JPEG or DICOM -> a folder of synthetic images, 8-bit gray PNG; and their maker's list.

Everything is read before anything is written; the folder that the images come from is never changed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from common import paths
from dataset.image_files import list_image_names
from dataset.image_ids import name_some, without_ending
from dataset.images import is_whole, open_picture, read_gray, save_png
from dataset.picture_checks import Findings, check_pictures
from dataset.picture_facts import PictureFacts, facts_table, measure
from dataset.tables import read_table, squeeze
from utils import UserError

ID_COLUMNS = ("imageid", "imageindex", "patientid")  # ours, NIH's, RSNA's (which names an image), squeezed


@dataclass(frozen=True)
class Source:
    """One image to be copied: ``size`` (width, height); ``sha256`` of size and gray pixels."""

    path: Path
    size: tuple[int, int]
    sha256: str
    facts: PictureFacts


def find_images(folder: Path, output: Path) -> list[Path]:
    """Return the PNG, JPEG and DICOM files of ``folder``, by name; raises ``UserError`` if they cannot be copied."""
    if not folder.is_dir():
        raise UserError(f"--images {folder} is not a folder; give the folder that holds the images")
    if folder.resolve() == output.resolve():
        raise UserError(
            f"--images and --output-dir are both {folder}: give another --output-dir, the images are copied"
        )
    if paths.synthetic_manifest(folder).is_file():
        raise UserError(
            f"{paths.synthetic_manifest(folder)} already says where these images come from: use the folder "
            "as it is, with train_classifier.py --use-synthetic --synthetic-dir"
        )
    files = [folder / name for name in list_image_names(folder)]
    if not files:
        raise UserError(f"--images {folder} holds no PNG, JPEG or DICOM files (subfolders are not searched)")
    return files


def survey(
    files: list[Path], workers: int, skip_bad: bool, bits: int | None
) -> tuple[list[Source], list[str], Findings]:
    """Decode every file and write none: (the readable images, the names of the others, what is odd about the readable).

    Raises ``UserError`` naming the unreadable ones unless ``skip_bad``, or if the images show nothing
    (``dataset.picture_checks``, the same rules as for the images of a dataset).
    """
    from common.progress import progress_bar

    def look(path: Path) -> Source | str:
        try:
            picture = open_picture(path, bits)
        except OSError as error:
            return str(error)
        pixels, facts = picture.pixels(), measure(picture, path.stat().st_size)
        height, width = pixels.shape
        digest = hashlib.sha256(f"{width}x{height}".encode() + pixels.tobytes()).hexdigest()
        return Source(path, (width, height), digest, facts)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        looks = list(progress_bar(pool.map(look, files), total=len(files), desc="reading images", unit="img"))
    bad = {file.name: source for file, source in zip(files, looks, strict=True) if isinstance(source, str)}
    if bad and (not skip_bad or len(bad) == len(files)):
        named = name_some([f"{name}: {reason}" for name, reason in bad.items()])
        raise UserError(f"{named} unreadable in {files[0].parent}; --skip-bad-images leaves them out")
    sources = [source for source in looks if isinstance(source, Source)]
    table = facts_table([source.facts for source in sources])
    table.insert(0, "image_id", [source.path.name for source in sources])
    found = check_pictures(table, "synthetic images", image_size=1, bits=bits)
    if found.problems:
        raise UserError("; ".join(found.problems))
    return sources, list(bad), found


def copy_images(sources: list[Source], folder: Path, bits: int | None) -> None:
    """Write synthetic_00001.png, ... in the order of ``sources``; undamaged ones of an earlier run stay."""
    from common.progress import progress_bar

    for index, source in enumerate(progress_bar(sources, desc="copying images", unit="img"), start=1):
        target = paths.synthetic_image(folder, index)
        if not is_whole(target, source.size):
            save_png(target, read_gray(source.path, bits))


def read_ids(path: str | Path) -> list[str]:
    """Read the image ids of a CSV file, sorted, each once; endings of image files are removed.

    Raises ``UserError`` if there are none, a row has none, or it is unclear which column holds them.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing: --trained-on takes a CSV file of image ids")
    table = read_table(path, ID_COLUMNS)
    names = [squeeze(name) for name in table.names]
    column = next((names.index(name) for name in ID_COLUMNS if name in names), None)
    if column is None and len(names) > 1:
        raise UserError(
            f"{path} has no column image_id, patientId or Image Index; its first line is {', '.join(table.names[:5])}"
        )
    cells = table.column(column or 0) if names else []
    if column is None:
        cells = [*table.names, *cells]  # a list without a header
    if "" in cells:
        raise UserError(f"{path}: entry {cells.index('') + 1} has no image id; add it or remove the line")
    if not cells:
        raise UserError(f"{path} names no image; a generator of other data needs --trained-elsewhere NAME")
    return sorted({without_ending(cell) for cell in cells})
