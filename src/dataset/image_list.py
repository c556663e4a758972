"""Lists of image files: the state of each file, keys that change with what decides its pixels, and decoding."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.images import why_unreadable
from utils import sha256_json

if TYPE_CHECKING:
    import numpy as np

State = tuple[str, int | None, int | None]  # name below the folder, bytes, mtime in ns; None: no such file
Found = tuple["np.ndarray | None", Any]  # pixels uint8 [S, S] and their note; None and the reason if it is bad
Decode = Callable[[Path], "tuple[np.ndarray, Any]"]  # file -> the same; raises OSError(reason) if it is bad


@dataclass(frozen=True)
class ImageList:
    """Images below ``folder`` that are decoded to ``image_size`` pixels a side.

    ``decoder`` names the settings and the version of the decoding code. The keys change with all of it.
    """

    folder: Path
    states: tuple[State, ...]
    image_size: int
    decoder: str

    @cached_property
    def key(self) -> str:
        """The same for the same pixels: sha256 of states, size and decoder, but not of the folder."""
        return sha256_json([self.states, self.image_size, self.decoder])

    def row_keys(self) -> tuple[str, ...]:
        """Return a key of each image alone: hash of folder, state, size and decoder, 32 hexadecimal digits."""
        rest = f"{self.folder.resolve()}|{self.image_size}|{self.decoder}"
        names = (f"{state}|{rest}".encode(errors="surrogateescape") for state in self.states)
        return tuple(hashlib.blake2b(name, digest_size=16).hexdigest() for name in names)

    def kept(self, good: Sequence[bool]) -> ImageList:
        """Return the same list without the images that are not ``good``."""
        return replace(self, states=tuple(compress(self.states, good)))

    def cache_folder(self, cache_dir: str | Path) -> Path:
        """Return the folder that all lists of the same image folder, size and decoder share."""
        identity = sha256_json([str(self.folder.resolve()), self.image_size, self.decoder])
        return Path(cache_dir) / "images" / f"{self.folder.name}_{self.image_size}px_{identity[:8]}"


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


def decode_or_reason(decode: Decode, path: Path, state: State) -> Found:
    """Decode ``path``, or return None and the reason why it cannot be read."""
    if state[1] is None:  # not there when the list was made
        try:
            path.stat()
        except OSError as error:
            return None, why_unreadable(path, error)
        return None, "was not there at first"
    try:
        return decode(path)
    except OSError as error:
        return None, str(error)
