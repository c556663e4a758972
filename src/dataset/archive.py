"""The downloaded archive: checking it, unpacking it, and moving the dataset into place, whole or not at all.

``extract`` unpacks into a temporary folder that appears under its final name only when every file is in it;
``install`` then moves the entries into the data folder by renames, and goes on where it was stopped. Files
that a user keeps in the data folder (splits.json, the patient mapping, ...) are left alone throughout.
"""

from __future__ import annotations

import errno
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PureWindowsPath

from tqdm import tqdm

from common import paths
from common.progress import progress_bar
from utils import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
BLOCK_SIZE = 4096  # bytes; what a small file takes up on most file systems
COPY_SIZE = 1 << 20  # bytes
DISK_REMEDY = "make room there and run the same command again; what was downloaded is kept"
EXTRACTING = "extracting"  # folder that is being filled


class BrokenArchiveError(Exception):
    """The file is not a complete zip archive; downloading it again may help."""


class UnsuitableArchiveError(Exception):
    """The archive is whole but must not be unpacked here; downloading it again would not help."""


# --- what a data folder holds ----------------------------------------------------------------------
def dataset_entries() -> tuple[str, ...]:
    """Return the names at the top of a data folder that belong to the dataset, not to the user."""
    training, test = paths.training_images("").parent.name, paths.test_images("").name
    return (paths.TRAIN_METADATA, paths.TEST_METADATA, training, test)


def entries_present(data_dir: Path) -> list[str]:
    """Return those of ``dataset_entries`` that are files, or folders with at least one file in them."""
    return [name for name in dataset_entries() if _holds_a_file(data_dir / name)]


def is_complete(data_dir: Path) -> bool:
    """Whether the labels and at least one labelled image are there."""
    images = paths.training_images(data_dir).glob("*.png")
    return (data_dir / paths.TRAIN_METADATA).is_file() and next(images, None) is not None


def _holds_a_file(path: Path) -> bool:
    return path.is_file() or any(child.is_file() and child.name != ".gitkeep" for child in path.rglob("*"))


# --- disk ------------------------------------------------------------------------------------------
def readable_size(size: int) -> str:
    """Write a number of bytes as text, e.g. "3.71GB" (decimal units)."""
    return tqdm.format_sizeof(size, "B", 1000)


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raise ``UserError`` if fewer than ``needed`` bytes are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"disk full: {purpose} takes {readable_size(needed)}, and {readable_size(free)} are free "
            f"for {folder}; {DISK_REMEDY}"
        )


# --- archive -> folder -----------------------------------------------------------------------------
def extract(archive_path: Path, target: Path) -> None:
    """Unpack the dataset in ``archive_path`` into the new folder ``target``, whole or not at all.

    A folder that wraps everything in the archive is dropped. The checksum (CRC-32) of every file is
    verified while it is unpacked. Raises ``BrokenArchiveError`` if the file is no zip archive, truncated or
    damaged, ``UnsuitableArchiveError`` if it holds something else than the dataset or a member that would be
    written outside ``target``, ``UserError`` if the disk is full.
    """
    temporary = target.with_name(EXTRACTING)
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = dataset_members(archive)
            blocks = sum(-(-info.file_size // BLOCK_SIZE) for info in members.values())
            require_space(target.parent, blocks * BLOCK_SIZE, "the unpacked dataset")
            _write_members(archive, members, temporary)
        temporary.rename(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise BrokenArchiveError(str(error)) from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"disk full while unpacking into {target.parent}; {DISK_REMEDY}") from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def dataset_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files to unpack, by their path inside the data folder.

    ``UnsuitableArchiveError`` if any member could be written outside of it, or the layout is another.
    """
    for info in archive.infolist():
        _refuse_unsafe(info)
    files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    root = layout_root(list(files))
    return {name.removeprefix(root): info for name, info in files.items() if name.startswith(root)}


def _refuse_unsafe(info: zipfile.ZipInfo) -> None:
    # The Windows rules are the stricter ones: both slashes separate, and drives and UNC names are absolute.
    path = PureWindowsPath(info.filename)
    if path.anchor or ".." in path.parts:
        raise UnsuitableArchiveError(
            f"the archive holds {info.filename!r}, which would be written outside the data folder"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UnsuitableArchiveError(f"the archive holds a link, {info.filename!r}; the dataset has none")


def layout_root(names: list[str]) -> str:
    """Return what precedes the dataset's own paths in ``names``: "", or one wrapping folder and "/"."""
    metadata = [name for name in names if name.split("/", 1)[-1] == paths.TRAIN_METADATA]
    root = min(metadata, key=len, default="").removesuffix(paths.TRAIN_METADATA)
    images = root + paths.training_images("").as_posix() + "/"
    missing = [] if metadata else [paths.TRAIN_METADATA]
    if not any(name.startswith(images) and name.lower().endswith(".png") for name in names):
        missing.append("PNG files in " + paths.training_images("").as_posix())
    if missing:
        raise UnsuitableArchiveError(
            f"the archive lacks {' and '.join(missing)}, so it is not laid out like the RSNA dataset"
        )
    return root


def _write_members(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path) -> None:
    total = sum(info.file_size for info in members.values())
    folder.mkdir(parents=True)
    with progress_bar(total=total, unit="B", unit_scale=True, desc="unpacking") as progress:
        for name, info in members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, COPY_SIZE)
            progress.update(info.file_size)


# --- folder -> place -------------------------------------------------------------------------------
def install(extracted: Path, data_dir: Path) -> None:
    """Move every entry of ``extracted`` into ``data_dir``; another call goes on after an interruption.

    A folder that exists is kept and filled. A file that exists is replaced only if its name is the dataset's
    own (``dataset_entries``): the caller has checked those before. ``UserError`` if a file stands where a
    folder must go, or the other way round.
    """
    for entry in sorted(extracted.iterdir()):
        _move(entry, data_dir / entry.name, replace=entry.name in dataset_entries())


def _move(source: Path, target: Path, replace: bool) -> None:
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name, replace)
    elif source.is_dir() != target.is_dir():
        raise UserError(
            f"{target} stands where the dataset's {source.name} must go; move it elsewhere and run the same "
            "command again"
        )
    elif replace:
        source.replace(target)
