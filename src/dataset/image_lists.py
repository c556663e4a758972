"""Lists of image files in the state they are in, and the keys under which their pixels are cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

from utils import sha256_json

State = tuple[str, int | None, int | None]  # name below the folder, bytes, mtime in ns; None: no such file


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

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.image_size**2

    def row_keys(self) -> tuple[str, ...]:
        """A key of each image alone: hash of folder, state, size and decoder, 32 hexadecimal digits."""
        rest = f"{self.folder.resolve()}|{self.image_size}|{self.decoder}"
        return tuple(
            hashlib.blake2b(f"{state}|{rest}".encode(), digest_size=16).hexdigest() for state in self.states
        )

    def kept(self, good: Sequence[bool]) -> ImageList:
        """The same list without the images that are not ``good``."""
        return replace(self, states=tuple(compress(self.states, good)))

    def cache_name(self) -> str:
        """Name of the folder that all lists of the same image folder, size and decoder share."""
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
