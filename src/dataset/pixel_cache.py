"""Image files -> one uint8 array on disk, decoded once and shared by every script.

An ``ImageList`` has a key, and its pixels lie in ``<key>.npy``, row by row, so that they can be mapped into
memory as they are. The index beside it names the image in each row, its state, the CRC-32 of its pixels,
which is verified whenever a file is opened, and a note that came with them (``picture_facts``; of a bad image
the reason). A file gets its final name, by a rename, when it is complete.

All lists of one folder at one size share what any of them has decoded: an image that another file holds in
the same state is copied from there, whether that file is complete, unfinished, or damaged elsewhere. Lists
of up to ``IN_MEMORY`` bytes are gathered in memory; larger ones get a file of their own, to be mapped.

Threads decode, not processes: Pillow works without Python's lock, and pixels need not be sent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from common.locks import hold_lock
from common.progress import progress_bar
from dataset.image_list import Decode, Found, ImageList, State, decode_or_reason

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

BLOCK = 256  # images decoded before they are written: 13 MB at 224 pixels
IN_MEMORY = 256 * 2**20  # bytes
KEY_CHARACTERS = 20  # of a key, in file names

# CRC-32 of its pixels; None: the image is bad and has no row in the array. The note: plain JSON.
Row = tuple[State, int | None, Any]


@dataclass(frozen=True)
class _Job:
    """One call of ``load_pixels``: which images, how one is decoded, by how many threads."""

    images: ImageList
    decode: Decode
    workers: int

    def decoded(self, state: State) -> Found:
        """Decode one image; it is bad, too, if it was not there when the list was made."""
        return decode_or_reason(self.decode, self.images.folder / state[0], state)

    def is_mended(self, row: Row) -> bool:
        """Return whether the image of ``row`` was bad and no longer is."""
        return row[1] is None and self.decoded(row[0])[0] is not None


# --- the front door --------------------------------------------------------------------------------
def load_pixels(
    images: ImageList, cache_dir: str | Path, decode: Decode, *, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Return (pixels uint8 [K, S, S] of the good images, bool [N]: which are good, N notes).

    What is missing is decoded. The note of an image is what ``decode`` gave, of a bad one the reason.

    Bad images have no row, and are tried again in every call. The pixels are a read-only memory map, or
    gathered in memory. Raises ``OSError`` if the cache cannot be read or written; if the disk is full, an
    unfinished file is removed.
    """
    job = _Job(images, decode, max(1, workers))
    folder = images.cache_folder(cache_dir)
    file = _CacheFile(folder / f"{images.key[:KEY_CHARACTERS]}.npy", images.image_size)
    if folder.is_dir():
        if (rows := _verified_rows(file, job)) is not None:
            return _map(file, rows)
        if (gathered := _gather(folder, job)) is not None:
            return gathered
    lock = folder / "lock"
    with hold_lock(lock, f"waiting for another process that decodes these images: it holds {lock}"):
        rows = _verified_rows(file, job)  # another process may have made it in the meantime
        if rows is None:
            rows = _build(file, job, desc)
            size = f"{file.pixels.stat().st_size / 1e9:.2f} GB"
            log.info(f"{_good(rows).sum():,} decoded images ({size}) are kept in {cache_dir}, which may be deleted")
    return _map(file, rows)


def count_missing(images: ImageList, cache_dir: str | Path | None) -> int:
    """Return how many images would have to be decoded; cached pixels are not verified for this."""
    if cache_dir is None:
        return len(images.states)
    sources = _Sources(images.cache_folder(cache_dir), images.image_size)
    return sum(state not in sources.row_of for state in images.states)


def _map(file: _CacheFile, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    import numpy as np

    good = _good(rows)  # an empty array cannot be mapped
    pixels = np.load(file.pixels, mmap_mode="r" if good.any() else None, allow_pickle=False)
    return pixels, good, [note for _, _, note in rows]


def _good(rows: Sequence[Row]) -> np.ndarray:
    import numpy as np

    return np.array([crc is not None for _, crc, _ in rows], dtype=bool)


def _crcs(rows: Sequence[Row]) -> list[int]:
    """Return the CRC-32 of each row of the array."""
    return [crc for _, crc, _ in rows if crc is not None]


# --- files -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _CacheFile:
    """An array ``pixels`` (.npy) and the index beside it; either may be missing, cut short or damaged."""

    pixels: Path
    image_size: int

    @property
    def row_bytes(self) -> int:
        return self.image_size**2

    @property
    def index(self) -> Path:
        return self.pixels.with_suffix(".jsonl")

    def named(self, word: str) -> _CacheFile:
        """Return the file beside this one that has the state ``word``: "partial", "old"."""
        return _CacheFile(self.pixels.with_name(f"{self.pixels.stem}.{word}.npy"), self.image_size)

    def move_to(self, other: _CacheFile) -> None:
        """Rename both files, the array first; the index may be missing."""
        self.pixels.replace(other.pixels)
        if self.index.exists():
            self.index.replace(other.index)

    def remove(self) -> None:
        for file in (self.pixels, self.index):
            with contextlib.suppress(OSError):  # on Windows another process may have it open
                file.unlink(missing_ok=True)

    def read_rows(self) -> list[Row]:
        """Read the index up to a line that is cut off; [] if there is none."""
        rows: list[Row] = []
        with contextlib.suppress(OSError, ValueError, TypeError), self.index.open(encoding="utf-8") as lines:
            for line in lines:
                rows += [((name, size, changed), crc, note) for name, size, changed, crc, note in json.loads(line)]
        return rows

    @staticmethod
    def index_line(rows: Sequence[Row]) -> str:
        return json.dumps([[*state, crc, note] for state, crc, note in rows]) + "\n"

    def write_header(self, file: BinaryIO, n_rows: int) -> None:
        """Write the .npy header, which is as long for any number of rows, so that it can be rewritten."""
        import numpy as np

        shape = (n_rows, self.image_size, self.image_size)
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})

    def data_start(self) -> int | None:
        """Return the length of the .npy header in bytes, None if it is not that of such an array."""
        import numpy as np

        try:
            with self.pixels.open("rb") as opened:
                if np.lib.format.read_magic(opened) != (1, 0):
                    return None
                shape, fortran, kind = np.lib.format.read_array_header_1_0(opened)
                fits = shape[1:] == (self.image_size,) * 2 and not fortran and kind == np.uint8
                return opened.tell() if fits else None
        except (OSError, ValueError):
            return None

    def count_intact(self, start: int, crcs: Sequence[int], workers: int) -> int:
        """Return how many rows, from the first, have their CRC-32; read, as mapped pages count as memory."""
        row_bytes = self.row_bytes

        def check(first: int) -> int:
            expected = crcs[first : first + BLOCK]
            with self.pixels.open("rb") as opened:
                opened.seek(start + first * row_bytes)
                data = memoryview(opened.read(len(expected) * row_bytes))
            for row, crc in enumerate(expected):
                part = data[row * row_bytes : (row + 1) * row_bytes]
                if len(part) < row_bytes or zlib.crc32(part) != crc:
                    return row
            return len(expected)

        intact = 0
        with ThreadPoolExecutor(workers) as pool:
            for first, count in enumerate(pool.map(check, range(0, len(crcs), BLOCK))):
                intact += count
                if intact < min((first + 1) * BLOCK, len(crcs)):
                    break
        return intact


def _verified_rows(file: _CacheFile, job: _Job) -> list[Row] | None:
    """Return the index of a complete, intact file of these images; None to build it: bad ones may be good."""
    start, rows = file.data_start(), file.read_rows()
    if start is None or tuple(state for state, _, _ in rows) != job.images.states:
        return None
    crcs = _crcs(rows)
    if file.pixels.stat().st_size != start + len(crcs) * file.row_bytes or any(map(job.is_mended, rows)):
        return None
    return rows if file.count_intact(start, crcs, job.workers) == len(crcs) else None


# --- rows of other lists ---------------------------------------------------------------------------
class _Sources:
    """Every image that a file in ``folder`` holds, complete or not; ``leave_out``: the one being written."""

    def __init__(self, folder: Path, image_size: int, leave_out: _CacheFile | None = None) -> None:
        import numpy as np

        self.row_of: dict[State, tuple[np.ndarray, int, Any]] = {}  # pixels [S, S], CRC-32, note
        for pixels in sorted(folder.glob("*.npy")):
            file = _CacheFile(pixels, image_size)
            if file == leave_out or not file.index.exists() or (start := file.data_start()) is None:
                continue
            held = (pixels.stat().st_size - start) // image_size**2
            if not held:
                continue
            shape = (held, image_size, image_size)
            array = np.memmap(pixels, np.uint8, "r", offset=start, shape=shape)
            good = [(state, crc, note) for state, crc, note in file.read_rows() if crc is not None]
            self.row_of |= {state: (array[row], crc, note) for row, (state, crc, note) in enumerate(good[:held])}

    def get(self, state: State) -> Found | None:
        """Return the image and its note; None if no file holds it, or only with a wrong CRC-32."""
        if state not in self.row_of:
            return None
        pixels, crc, note = self.row_of[state]
        return (pixels, note) if zlib.crc32(pixels.data) == crc else None


def _gather(folder: Path, job: _Job) -> tuple[np.ndarray, np.ndarray, list[Any]] | None:
    """Take the images from other lists' files into memory; None if some are missing or they are too large."""
    import numpy as np

    images = job.images
    if len(images.states) * images.image_size**2 > IN_MEMORY:
        return None
    sources = _Sources(folder, images.image_size)
    if not all(state in sources.row_of for state in images.states):
        return None
    pixels = np.empty((len(images.states), images.image_size, images.image_size), dtype=np.uint8)

    def copy(row: int) -> bool:
        image, _ = sources.get(images.states[row]) or (None, None)
        if image is not None:
            pixels[row] = image
        return image is not None

    with ThreadPoolExecutor(job.workers) as pool:
        if not all(pool.map(copy, range(len(pixels)))):
            return None
    return pixels, np.ones(len(pixels), dtype=bool), [sources.row_of[state][2] for state in images.states]


# --- building --------------------------------------------------------------------------------------
def _build(file: _CacheFile, job: _Job, desc: str) -> list[Row]:
    """Make ``file``, going on from where a build that was killed had come to; returns its index."""
    partial, old = file.named("partial"), file.named("old")
    if file.pixels.exists() and not file.index.exists() and partial.index.exists():
        file.pixels.replace(partial.pixels)  # killed between the two renames of ``move_to``
    elif file.pixels.exists():
        file.move_to(old)  # damaged, or a bad image was mended: what is good in it is copied
    sources = _Sources(file.pixels.parent, file.image_size, leave_out=partial)
    try:
        rows = _write_rows(partial, job, sources, desc)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            partial.remove()
        raise
    partial.move_to(file)
    old.remove()
    return rows


def _write_rows(partial: _CacheFile, job: _Job, sources: _Sources, desc: str) -> list[Row]:
    """Fill ``partial`` block by block, noting each finished one in its index; returns all of the index."""
    images, rows = job.images, _resume(partial, job)
    folder, left = partial.pixels.parent, (len(images.states) - len(rows)) * partial.row_bytes
    if shutil.disk_usage(folder).free < left:
        raise OSError(errno.ENOSPC, f"{left / 1e9:.2f} GB more do not fit on the disk", str(folder))

    def obtain(state: State) -> Found:
        return sources.get(state) or job.decoded(state)

    # Written, not mapped: a write to a full disk raises an error, a map ends the process.
    with (
        partial.pixels.open("r+b") as file,
        partial.index.open("a", encoding="utf-8") as index,
        ThreadPoolExecutor(job.workers) as pool,
        progress_bar(total=len(images.states), initial=len(rows), desc=desc, unit="img") as bar,
    ):
        file.seek(0, os.SEEK_END)
        while len(rows) < len(images.states):
            states = images.states[len(rows) : len(rows) + BLOCK]
            block: list[Row] = []
            for state, (pixels, note) in zip(states, pool.map(obtain, states), strict=True):
                if pixels is not None:
                    file.write(pixels.data)
                block.append((state, None if pixels is None else zlib.crc32(pixels.data), note))
                bar.update()
            file.flush()
            index.write(_CacheFile.index_line(block))
            index.flush()
            rows += block
        partial.write_header(file, len(_crcs(rows)))
        file.flush()
        os.fsync(file.fileno())
        os.fsync(index.fileno())
    return rows


def _resume(partial: _CacheFile, job: _Job) -> list[Row]:
    """Return the intact rows of an unfinished build, and cut ``partial`` and its index off after them."""
    images, start, rows = job.images, partial.data_start(), partial.read_rows()
    if start is None or tuple(state for state, _, _ in rows) != images.states[: len(rows)]:
        rows = []
    places = [row for row, (_, crc, _) in enumerate(rows) if crc is not None]
    if start is not None and places:
        intact = partial.count_intact(start, _crcs(rows), job.workers)
        rows = rows[: places[intact]] if intact < len(places) else rows
    # If an image that was bad is good now, all that follows it has another place.
    rows = rows[: next((place for place, row in enumerate(rows) if job.is_mended(row)), len(rows))]
    if start is not None and rows:
        os.truncate(partial.pixels, start + len(_crcs(rows)) * partial.row_bytes)
    else:
        with partial.pixels.open("wb") as file:
            partial.write_header(file, len(images.states))
    partial.index.write_text(partial.index_line(rows) if rows else "", encoding="utf-8", newline="\n")
    return rows
