"""Facts of one image file, measured while it is decoded: what tells whether pixels look like X-rays.

They do not depend on --image-size and are cached beside the pixels (``pixel_cache``), so that checker and
trainers share them. ``picture_checks`` judges those of a folder.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dataset.images import Picture, open_picture

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SIDE = 8  # of the thumbnail, pixels
BETWEEN = "; "  # of the warnings in ``header``
TAIL = 0.01  # share of the pixels below ``low``, and above ``high``: letters and frames are left out


class PictureFacts(NamedTuple):
    """Facts of one file; plain values, as they are cached.

    ``low``, ``high``: gray values (0 to 255) between which all but the darkest and the brightest 1 % of the
    pixels lie. ``levels``: number of different gray values, of 256. ``largest``: largest 16-bit sample, None
    in files of 8 bits. ``thumbnail``: 8 x 8 pixels, two hexadecimal digits each. ``pixels``: hash of size and
    gray pixels. ``jpeg``: hash of the quantisation tables, "" if it is no JPEG. ``mode``: PIL's name.
    ``header``: what is odd by the header of a DICOM file, "; " between.
    """

    width: int
    height: int
    file_bytes: int
    mode: str
    frames: int
    low: int
    high: int
    levels: int
    largest: int | None
    thumbnail: str
    pixels: str
    jpeg: str
    header: str = ""


def read_and_measure(
    path: Path, image_size: int, through: int | None = None, bits: int | None = None
) -> tuple[np.ndarray, PictureFacts]:
    """Decode an image to gray uint8 [image_size, image_size], and measure its facts.

    ``through``: see ``images.Picture.resized``; ``bits``: see ``images.open_picture``. Raises ``OSError``, whose
    text is the reason, if it cannot be read.
    """
    picture = open_picture(path, bits)
    return picture.resized(image_size, through), measure(picture, path.stat().st_size)


def measure(picture: Picture, file_bytes: int) -> PictureFacts:
    """Measure the facts of a decoded file of ``file_bytes`` bytes."""
    import numpy as np
    from PIL import Image

    gray = picture.gray if picture.gray.mode == "L" else Image.fromarray(picture.pixels())
    width, height = gray.size
    counts = np.asarray(gray.histogram())
    below = counts.cumsum() / (width * height)
    return PictureFacts(
        width, height, file_bytes, picture.mode, picture.frames,
        low=int(np.searchsorted(below, TAIL)),
        high=int(np.searchsorted(below, 1 - TAIL)),
        levels=int(np.count_nonzero(counts)),
        largest=picture.largest,
        thumbnail=gray.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes().hex(),
        pixels=hashlib.sha256(f"{width}x{height}".encode() + gray.tobytes()).hexdigest()[:32],
        jpeg=hash_jpeg_tables(picture.jpeg_tables),
        header=BETWEEN.join(picture.warnings),
    )  # fmt: skip


def hash_jpeg_tables(tables: Mapping[int, list[int]]) -> str:
    """Return a hash of the quantisation tables of a JPEG file; "" if there are none."""
    return f"{zlib.crc32(repr(sorted(tables.items())).encode()):08x}" if tables else ""


def facts_from(cached: Any) -> PictureFacts | None:
    """Return the facts that a cache holds; None if it holds something else."""
    try:
        facts = PictureFacts(*cached)
    except TypeError:
        return None
    return facts if len(str(facts.thumbnail)) == 2 * SIDE**2 else None


def facts_table(facts: Sequence[PictureFacts]) -> pd.DataFrame:
    """Return a row for each image, a column for each fact."""
    import pandas as pd

    return pd.DataFrame(list(facts), columns=list(PictureFacts._fields))


def thumbnails(table: pd.DataFrame) -> np.ndarray:
    """Return the thumbnails of a table of facts, float [N, 64], each with mean 0 and SD 1 (0 if constant)."""
    import numpy as np

    values = np.frombuffer(bytes.fromhex("".join(table["thumbnail"])), dtype=np.uint8)
    values = values.reshape(len(table), SIDE**2).astype(float)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(values.std(axis=1, keepdims=True), 1e-9)
