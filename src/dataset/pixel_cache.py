"""Image files -> one uint8 array on disk, decoded once and shared by every script.

A list of images in the state they are in (name, bytes, time of change), at one size and decoded in one way,
has a key, and its pixels lie in ``<key>.npy``, row by row, so that they can be mapped into memory as they
are. The index beside it names the image in each row, its state, and the CRC-32 of its pixels, which are
verified whenever a file is opened. A file of the right name appears when it is complete, by a rename.

All lists of one folder at one size share what any of them has decoded: an image that another file holds in
the same state is copied from there, be that file complete, unfinished, or damaged elsewhere. So a part of the
training images costs no decoding, and a changed image costs one. Parts of up to ``IN_MEMORY`` bytes are
gathered into memory and leave no file of their own; larger ones get one, to be mapped.

Threads decode, not processes: Pillow inflates and resizes without holding Python's lock, and pixels need
not be sent from one process to another.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from common import paths
from common.file_lock import hold_lock
from utils import sha256_json

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


BLOCK = 256  # images decoded before they are written: 13 MB at 224 pixels
IN_MEMORY = 256 * 2**20  # bytes
KEY_CHARACTERS = 20  # of a key, in file names

State = tuple[str, int | None, int | None]  # name below the folder, bytes, mtime in ns; None: no such file
Row = tuple[State, int | None]  # CRC-32 of its pixels; None: the image is bad and has no row


# --- which images ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class ImageList:
    """Images below ``folder`` in the state they are in, to be decoded to ``image_size`` pixels a side by
    ``decoder``, which names settings and version of the code."""

    folder: Path
    states: tuple[State, ...]
    image_size: int
    decoder: str

    @cached_property
    def key(self) -> str:
        """The same for the same pixels: sha256 of states, size and decoder, but not of the folder."""
        return sha256_json([self.states, self.image_size, self.decoder])

    @property
    def row_bytes(self) -> int:
        return self.image_size**2

    def row_keys(self) -> tuple[str, ...]:
        """Of each image alone: folder, state, size and decoder in 32 hexadecimal digits."""
        rest = f"{self.folder.resolve()}|{self.image_size}|{self.decoder}"
        return tuple(
            hashlib.blake2b(f"{state}|{rest}".encode(), digest_size=16).hexdigest() for state in self.states
        )

    def kept(self, good: Sequence[bool]) -> ImageList:
        """The same without the images that are not ``good``."""
        return replace(self, states=tuple(compress(self.states, good)))

    def cache_name(self) -> str:
        """Of the folder that all lists of the same images folder, size and decoder share."""
        identity = [str(self.folder.resolve()), self.image_size, self.decoder]
        return f"{self.folder.name}_{self.image_size}px_{sha256_json(identity)[:8]}"


def list_images(files: Sequence[Path], image_size: int, decoder: str) -> ImageList:
    """Look at the state of ``files`` without opening any."""
    parents = {file.parent for file in files}
    folder = Path(os.path.commonpath(parents)) if parents else Path()

    def state(file: Path) -> State:
        name = file.relative_to(folder).as_posix()
        try:
            status = file.stat()
        except OSError:
            return name, None, None
        return name, status.st_size, status.st_mtime_ns

    return ImageList(folder, tuple(state(file) for file in files), image_size, decoder)


# --- the front door --------------------------------------------------------------------------------
def load_pixels(
    images: ImageList, cache_dir: str | Path, decode: Callable[[Path], np.ndarray], *, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [K, S, S] of the good images, bool [N]: which are good), decoded only where necessary.

    ``decode`` returns the uint8 [S, S] of a file, or raises ``OSError`` if it is bad; bad images have no row,
    and are looked at again every time. The pixels are a read-only memory map, or gathered in memory from
    other lists' files. ``OSError`` if the cache cannot be read or written; what it would have left unfinished
    for want of space is removed.
    """
    folder = paths.image_cache(cache_dir, images.cache_name())
    name = images.key[:KEY_CHARACTERS]
    file = paths.cached_pixels(folder, name)
    if folder.is_dir():
        if (rows := _open(file, images, decode, workers)) is not None:
            return _map(file, rows)
        if (pixels := _gather(folder, images, workers)) is not None:
            return pixels, _good([(state, 0) for state in images.states])
    folder.mkdir(parents=True, exist_ok=True)
    lock = paths.image_cache_lock(folder)
    with hold_lock(lock, f"waiting for another process that decodes these images: it holds {lock}"):
        # Another process may have made it while this one waited.
        rows = _open(file, images, decode, workers)
        if rows is None:
            rows = _build(folder, name, images, decode, workers, desc)
            # Of this file alone: others come and go while other processes write below the folder.
            what = f"{_good(rows).sum():,} decoded images ({file.stat().st_size / 1e9:.2f} GB)"
            log.info(f"{what} are kept in {cache_dir}, which may be deleted")
    return _map(file, rows)


def _map(file: Path, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    good = _good(rows)
    if not good.any():  # nothing cannot be mapped
        return np.load(file, allow_pickle=False), good
    return np.load(file, mmap_mode="r", allow_pickle=False), good


def _good(rows: Sequence[Row]) -> np.ndarray:
    import numpy as np

    return np.array([crc is not None for _, crc in rows], dtype=bool)


def count_missing(images: ImageList, cache_dir: str | Path | None) -> int:
    """How many images would have to be decoded; pixels are not verified for this."""
    if cache_dir is None:
        return len(images.states)
    sources = _Sources(paths.image_cache(cache_dir, images.cache_name()), images.image_size)
    return sum(state not in sources.row_of for state in images.states)


# --- files -----------------------------------------------------------------------------------------
def _read_index(file: Path) -> list[Row]:
    """What the index says, up to a line that is cut off; nothing if there is none."""
    rows: list[Row] = []
    with contextlib.suppress(OSError, ValueError, TypeError), file.open(encoding="utf-8") as lines:
        for line in lines:
            rows += [((name, size, changed), crc) for name, size, changed, crc in json.loads(line)]
    return rows


def _write_header(file: BinaryIO, n_rows: int, image_size: int) -> None:
    """Of an .npy file; as long for any number of rows, so that it can be written again."""
    import numpy as np

    shape = (n_rows, image_size, image_size)
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _header_bytes(file: Path, image_size: int) -> int | None:
    """The length of the header, None if it is not that of such an array."""
    import numpy as np

    try:
        with file.open("rb") as opened:
            if np.lib.format.read_magic(opened) != (1, 0):
                return None
            shape, fortran, kind = np.lib.format.read_array_header_1_0(opened)
            fits = shape[1:] == (image_size, image_size) and not fortran and kind == np.uint8
            return opened.tell() if fits else None
    except (OSError, ValueError):
        return None


def _intact(file: Path, start: int, row_bytes: int, crcs: Sequence[int], workers: int) -> int:
    """How many rows, from the first, have the CRC-32 they ought to have.

    They are read, not mapped: pages of a map would count as this process's memory.
    """

    def check(first: int) -> int:
        expected = crcs[first : first + BLOCK]
        with file.open("rb") as opened:
            opened.seek(start + first * row_bytes)
            data = memoryview(opened.read(len(expected) * row_bytes))
        for row, crc in enumerate(expected):
            part = data[row * row_bytes : (row + 1) * row_bytes]
            if len(part) < row_bytes or zlib.crc32(part) != crc:
                return row
        return len(expected)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        intact = 0
        for first, count in zip(
            range(0, len(crcs), BLOCK), pool.map(check, range(0, len(crcs), BLOCK)), strict=True
        ):
            intact += count
            if count < len(crcs[first : first + BLOCK]):
                break
    return intact


def _open(
    file: Path, images: ImageList, decode: Callable[[Path], np.ndarray], workers: int
) -> list[Row] | None:
    """The index of a complete and intact ``file`` of these images; None if there is none, or if an image
    that was bad no longer is."""
    start = _header_bytes(file, images.image_size)
    rows = _read_index(paths.cached_index(file))
    if start is None or tuple(state for state, _ in rows) != images.states:
        return None
    crcs = [crc for _, crc in rows if crc is not None]
    if file.stat().st_size != start + len(crcs) * images.row_bytes:
        return None
    if any(crc is None and _decoded(images, state, decode) is not None for state, crc in rows):
        return None
    return rows if _intact(file, start, images.row_bytes, crcs, workers) == len(crcs) else None


def _decoded(images: ImageList, state: State, decode: Callable[[Path], np.ndarray]) -> np.ndarray | None:
    """uint8 [S, S], or None if the image is bad; one that was not there when it was looked for is bad."""
    if state[1] is None:
        return None
    try:
        return decode(images.folder / state[0])
    except OSError:
        return None


# --- other lists' rows -----------------------------------------------------------------------------
class _Sources:
    """Every image that a file in ``folder`` holds, complete or not; ``leave_out``: the one being written."""

    def __init__(self, folder: Path, image_size: int, leave_out: Path | None = None) -> None:
        import numpy as np

        self.row_of: dict[State, tuple[np.ndarray, int]] = {}  # pixels [S, S], CRC-32
        for index in sorted(folder.glob(paths.CACHED_INDEX_PATTERN)):
            file = index.with_suffix(".npy")
            if file == leave_out or (start := _header_bytes(file, image_size)) is None:
                continue
            held = (file.stat().st_size - start) // image_size**2
            if not held:
                continue
            shape = (held, image_size, image_size)
            pixels = np.memmap(file, np.uint8, "r", offset=start, shape=shape)
            good = [(state, crc) for state, crc in _read_index(index) if crc is not None]
            self.row_of |= {state: (pixels[row], crc) for row, (state, crc) in enumerate(good[:held])}

    def get(self, state: State) -> np.ndarray | None:
        """uint8 [S, S]; None if no file holds it, or only with a wrong CRC-32."""
        pixels, crc = self.row_of.get(state, (None, None))
        return pixels if pixels is not None and zlib.crc32(pixels) == crc else None


def _gather(folder: Path, images: ImageList, workers: int) -> np.ndarray | None:
    """The pixels from other lists' files in memory; None if these lack some, or there are too many."""
    import numpy as np

    if len(images.states) * images.row_bytes > IN_MEMORY:
        return None
    sources = _Sources(folder, images.image_size)
    if not all(state in sources.row_of for state in images.states):
        return None
    pixels = np.empty((len(images.states), images.image_size, images.image_size), dtype=np.uint8)

    def copy(row: int) -> bool:
        if (found := sources.get(images.states[row])) is not None:
            pixels[row] = found
        return found is not None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return pixels if all(pool.map(copy, range(len(pixels)))) else None


# --- building --------------------------------------------------------------------------------------
def _build(
    folder: Path, name: str, images: ImageList, decode: Callable[[Path], np.ndarray], workers: int, desc: str
) -> list[Row]:
    """Make ``<name>.npy`` and its index, going on from where a build that was killed had come to."""
    final, partial = paths.cached_pixels(folder, name), paths.cached_pixels(folder, f"{name}.partial")
    old = paths.cached_pixels(folder, f"{name}.old")
    index = paths.cached_index
    if final.exists() and not index(final).exists() and index(partial).exists():
        final.replace(partial)  # killed between the two renames below
    elif final.exists():
        # Damaged, or an image that was bad no longer is: a source of what is good in it.
        final.replace(old)
        if index(final).exists():
            index(final).replace(index(old))
    sources = _Sources(folder, images.image_size, leave_out=partial)
    try:
        rows = _write_rows(partial, images, sources, decode, workers, desc)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _remove(partial)
        raise
    partial.replace(final)
    index(partial).replace(index(final))
    _remove(old)
    return rows


def _remove(pixels: Path) -> None:
    for file in (pixels, paths.cached_index(pixels)):
        with contextlib.suppress(OSError):  # on Windows another process may have it open
            file.unlink(missing_ok=True)


def _write_rows(
    partial: Path,
    images: ImageList,
    sources: _Sources,
    decode: Callable[[Path], np.ndarray],
    workers: int,
    desc: str,
) -> list[Row]:
    """Fill ``partial`` block by block, noting each finished one in its index; returns all of the index."""
    from common.progress import progress_bar

    rows = _finished(partial, images, decode, workers)
    left = (len(images.states) - len(rows)) * images.row_bytes
    if shutil.disk_usage(partial.parent).free < left:
        raise OSError(errno.ENOSPC, f"{left / 1e9:.2f} GB more do not fit on the disk", str(partial.parent))

    def obtain(state: State) -> np.ndarray | None:
        found = sources.get(state)
        return found if found is not None else _decoded(images, state, decode)

    # Written, not mapped: a write to a full disk raises an error, a map ends the process.
    with (
        partial.open("r+b") as file,
        paths.cached_index(partial).open("a", encoding="utf-8") as index,
        ThreadPoolExecutor(max(1, workers)) as pool,
        progress_bar(total=len(images.states), initial=len(rows), desc=desc, unit="img") as bar,
    ):
        file.seek(0, os.SEEK_END)
        while len(rows) < len(images.states):
            states = images.states[len(rows) : len(rows) + BLOCK]
            block: list[Row] = []
            for state, pixels in zip(states, pool.map(obtain, states), strict=True):
                if pixels is not None:
                    file.write(pixels.data)
                block.append((state, None if pixels is None else zlib.crc32(pixels)))
                bar.update()
            file.flush()
            index.write(json.dumps([[*state, crc] for state, crc in block]) + "\n")
            index.flush()
            rows += block
        _write_header(file, sum(crc is not None for _, crc in rows), images.image_size)
        for written in (file, index):
            written.flush()
            os.fsync(written.fileno())
    return rows


def _finished(
    partial: Path, images: ImageList, decode: Callable[[Path], np.ndarray], workers: int
) -> list[Row]:
    """The intact rows of an unfinished build; ``partial`` then ends after them, as its index does."""
    start, index = _header_bytes(partial, images.image_size), paths.cached_index(partial)
    rows = _read_index(index) if start is not None else []
    if tuple(state for state, _ in rows) != images.states[: len(rows)]:
        rows = []
    crcs = [crc for _, crc in rows if crc is not None]
    intact = _intact(partial, start, images.row_bytes, crcs, workers) if crcs else 0
    places = [row for row, (_, crc) in enumerate(rows) if crc is not None]
    rows = rows[: places[intact]] if intact < len(places) else rows
    # If an image that was bad is good now, all that follows it has another place.
    mended = (row for row, (state, crc) in enumerate(rows)
              if crc is None and _decoded(images, state, decode) is not None)  # fmt: skip
    rows = rows[: next(mended, len(rows))]
    if rows:
        kept = sum(crc is not None for _, crc in rows)
        os.truncate(partial, start + kept * images.row_bytes)
    else:
        with partial.open("wb") as file:
            _write_header(file, len(images.states), images.image_size)
    text = json.dumps([[*state, crc] for state, crc in rows]) + "\n" if rows else ""
    index.write_text(text, encoding="utf-8", newline="\n")
    return rows
