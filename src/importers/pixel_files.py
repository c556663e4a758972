"""One image of a source -> one file of a data folder that holds pixels and nothing else.

PNG and JPEG files that hold no metadata are linked (copied onto another disk); all others are written anew, DICOM
with 16 bits. What is not square gets black edges.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dataset.dicom_files import DicomError, is_dicom, read_dicom
from dataset.images import LOW_EFFORT, RUNS_ONLY, open_picture, save_png
from dataset.picture_facts import hash_jpeg_tables
from utils import UserError, atomic_path

if TYPE_CHECKING:
    import numpy as np

PADDING = 0  # gray value of added edges: black
PNG_MARK, JPEG_MARK = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Chunks that decoding or colours need (https://www.w3.org/TR/png-3/); texts, EXIF, profiles and times are not.
PIXEL_CHUNKS = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs")
)  # fmt: skip
# Markers of a JPEG file after which a length follows, and of those the ones that decoding needs: tables, frames,
# scans, restart interval (ITU-T T.81, table B.1).
SCAN, END, APP0, APP14 = 0xDA, 0xD9, 0xE0, 0xEE
DECODING_MARKERS = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xCA, 0xCC, 0xDB, 0xDC, 0xDD, SCAN))
NEXT_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # within a scan: zeros and restarts belong to it
# EXIF's orientation -> what turns the picture upright (CIPA DC-008, 4.6.4).
ORIENTATION = 0x0112
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
JFIF_LENGTH, ADOBE_LENGTH = 16, 14  # bytes of these segments, if they hold no thumbnail and nothing else


@dataclass(frozen=True)
class Written:
    """What became of an image: ``way``: linked, copied or rewritten; and what the source's file gives away.

    ``size``: (width, height); ``file_bytes``; ``mode``: Pillow's name of its pixels, or DICOM; ``jpeg``: hash of
    its JPEG tables, "" for other files, as in ``picture_facts``.
    """

    way: Literal["linked", "copied", "rewritten"]
    size: tuple[int, int]
    file_bytes: int
    mode: str
    jpeg: str

    @property
    def added(self) -> float:
        """Share of the written pixels that are added edges."""
        return 1 - min(self.size) / max(self.size)


def write_image(source: Path, content: bytes, target: Path) -> tuple[Path, Written]:
    """Write the image ``source`` as ``target`` (without ending); returns (file with its ending, what was done).

    ``content``: of the file. A file that is there already stays. Raises ``OSError`` or ``UserError`` if it
    cannot be read.
    """
    if (size := size_to_link(content)) is not None:
        file = target.with_name(target.name + _ending(source, content))
        return file, Written(_link(source, file), size, *_facts(content))
    file = target.with_name(f"{target.name}.png")
    pixels = read_pixels(source)
    height, width = pixels.shape
    if not _is_whole(file, max(height, width)):
        save_png(file, pad(pixels), _compression(pixels))
    return file, Written("rewritten", (width, height), *_facts(content))


def _ending(source: Path, content: bytes) -> str:
    """Return the ending of a file that is linked: its own, unless it does not say what the file holds."""
    own = source.suffix.lower()
    return own if own in (".png", ".jpg", ".jpeg") else ".png" if content.startswith(PNG_MARK) else ".jpg"


def _facts(content: bytes) -> tuple[int, str, str]:
    """Return (bytes, mode, hash of JPEG tables) of a readable file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return len(content), image.mode, hash_jpeg_tables(getattr(image, "quantization", {}))
    except UnidentifiedImageError:
        return len(content), "DICOM", ""


def bytes_needed(source: Path, content: bytes, same_disk: bool) -> int:
    """Return how many bytes ``write_image`` would add to the disk."""
    from PIL import Image

    if size_to_link(content) is not None:
        return 0 if same_disk else len(content)
    buffer = io.BytesIO()
    pixels = read_pixels(source)
    Image.fromarray(pad(pixels)).save(buffer, format="PNG", **_compression(pixels))
    return len(buffer.getvalue())


def _compression(pixels: np.ndarray) -> Mapping[str, int]:
    """Return how to compress: of 8 bits scaled to 16, every byte stands twice, which a search for repetitions finds."""
    return RUNS_ONLY if pixels.dtype.itemsize == 1 else LOW_EFFORT


def read_pixels(source: Path) -> np.ndarray:
    """Decode ``source`` as it is to be shown, turned upright as its EXIF says: uint8 or uint16 [H, W]."""
    import numpy as np
    from PIL import Image

    if is_dicom(source):
        return read_dicom(source).pixels
    picture = open_picture(source)
    with Image.open(source) as image:
        turned = TURNS.get(image.getexif().get(ORIENTATION, 1))
    gray = picture.gray if turned is None else picture.gray.transpose(Image.Transpose[turned])
    if picture.largest is None:
        return np.asarray(gray)
    return (np.asarray(gray) * 257).round().astype(np.uint16)  # ``open_picture`` has divided by 257


def pad(pixels: np.ndarray) -> np.ndarray:
    """Add black edges of equal width, so that [H, W] becomes [max(H, W), max(H, W)]."""
    import numpy as np

    height, width = pixels.shape
    if height == width:
        return pixels
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.full((side, side), PADDING, pixels.dtype)
    square[top : top + height, left : left + width] = pixels
    return square


def _is_whole(file: Path, side: int) -> bool:
    """Tell whether ``file`` is an undamaged PNG of that side, written by an earlier run."""
    if not file.is_file():
        return False
    try:
        return read_pixels(file).shape == (side, side)
    except OSError:
        return False


def _link(source: Path, file: Path) -> Literal["linked", "copied"]:
    source = source.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.samefile(source):
        return "linked"
    try:
        os.link(source, file)
        return "linked"
    except FileExistsError:
        pass  # a copy of an earlier run
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOSYS):
            raise
    if not file.exists() or file.stat().st_size != source.stat().st_size:
        with atomic_path(file, durable=False) as temporary:
            shutil.copyfile(source, temporary)
    return "copied"


# --- metadata --------------------------------------------------------------------------------------
def size_to_link(content: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a file that can be linked: square, PNG or JPEG, without metadata; else None."""
    from PIL import Image

    holds_nothing_else = png_holds_pixels_only(content) or jpeg_holds_pixels_only(content)
    if not holds_nothing_else:
        return None
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size if image.size[0] == image.size[1] else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def png_holds_pixels_only(content: bytes) -> bool:
    """Tell whether PNG ``content`` is pixels, with no text, EXIF, profile, time, and nothing after its end."""
    if not content.startswith(PNG_MARK):
        return False
    place = len(PNG_MARK)
    while place + 8 <= len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        place += 12 + length
        if kind not in PIXEL_CHUNKS:
            return False
        if kind == b"IEND":
            return place == len(content)
    return False


def jpeg_holds_pixels_only(content: bytes) -> bool:
    """Tell whether JPEG ``content`` is pixels, with no comment, EXIF, profile, thumbnail, and nothing after its end."""
    if not content.startswith(JPEG_MARK):
        return False
    place = len(JPEG_MARK)
    while found := NEXT_MARKER.match(content, place):
        marker, place = found[1][0], found.end()
        if marker == END:
            return place == len(content)
        length = int.from_bytes(content[place : place + 2], "big")
        segment = content[place + 2 : place + length]
        usual = (marker == APP0 and length == JFIF_LENGTH and segment.startswith(b"JFIF\0")) or (
            marker == APP14 and length == ADOBE_LENGTH and segment.startswith(b"Adobe")
        )
        if not usual and marker not in DECODING_MARKERS:
            return False
        place += length
        if marker == SCAN:
            following = NEXT_MARKER.search(content, place)
            if following is None:
                return False
            place = following.start()
    return False


def why_bad(error: Exception) -> str:
    """Say why an image cannot be read, without its path."""
    if isinstance(error, DicomError):
        return error.reason
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


BAD = (OSError, UserError)  # what reading an image raises
