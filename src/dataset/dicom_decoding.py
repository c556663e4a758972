"""Compressed pixels of DICOM files, decoded in processes of their own.

GDCM ends its whole process on some damaged files, and writes to the console. Here it ends a child, which is
replaced, and its messages tell which pixels are damaged. As children do not share Python's lock, threads decode
side by side.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from common import paths

if TYPE_CHECKING:
    import numpy as np
    from pydicom.dataset import FileDataset

LONGEST = 120  # seconds for one file
MEMORY = 8 * 2**30  # bytes of address space of a child: a damaged size must not fill the machine
# Decoder by transfer syntax where it is not GDCM. One each, so that the same file always gives the same pixels.
DECODERS = {"1.2.840.10008.1.2.4.51": "pillow", "1.2.840.10008.1.2.5": "pydicom"}
ITEM = b"\xfe\xff\x00\xe0"  # the tag (FFFE,E000)
TAGS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "PlanarConfiguration", "PhotometricInterpretation", "NumberOfFrames", "PixelData",
)  # fmt: skip
DAMAGED = (b"premature end", b"bad Huffman", b"Unsupported marker", b"Corrupt JPEG data: found")  # libjpeg's words
START = f"import sys; sys.path.insert(0, {str(paths.SRC)!r}); from dataset.dicom_decoding import serve; serve()"


class UnsuitablePixelsError(ValueError):
    """Whole pixels that cannot be turned into gray; the text says why, without a word of the header."""


class DamagedPixelsError(ValueError):
    """Pixels that cannot be decoded."""


def stored_pixels(dataset: FileDataset, path: str | Path) -> np.ndarray:
    """Return the stored values of a file that was read as ``dataset``, [H, W] or RGB [H, W, 3].

    Raises ``UnsuitablePixelsError``, ``DamagedPixelsError``, or nearly anything if uncompressed pixels are damaged.
    """
    from pydicom.uid import UID_dictionary

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    known = UID_dictionary.get(str(syntax))
    if known is None or known[1] != "Transfer Syntax":
        raise UnsuitablePixelsError("has no transfer syntax of the standard; export it again")
    compressed = syntax.is_compressed and not syntax.is_deflated
    if compressed and not _is_framed(dataset.PixelData):
        raise DamagedPixelsError("cut short")
    pixels = _decode_apart(Path(path)) if compressed else _decode(dataset)
    if pixels.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise DamagedPixelsError("of another size than the header says")
    return pixels


def _is_framed(content: bytes) -> bool:
    """Return whether compressed pixels are items of the lengths that they state (PS3.5 A.4)."""
    place = 0
    while place + 8 <= len(content) and content[place : place + 4] == ITEM:
        place += 8 + int.from_bytes(content[place + 4 : place + 8], "little")
    return place == len(content) > 0


def _decode(dataset: FileDataset) -> np.ndarray:
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import UID_dictionary

    syntax = dataset.file_meta.TransferSyntaxUID
    decoder = DECODERS.get(str(syntax), "gdcm") if syntax.is_compressed and not syntax.is_deflated else ""
    try:
        readable = decoder in ("", *get_decoder(syntax).available_plugins)
    except NotImplementedError:  # pydicom knows none
        readable = False
    if not readable or (decoder == "pillow" and int(dataset.BitsStored) > 8):  # JPEG of 12 bits
        name = UID_dictionary[str(syntax)][0]
        raise UnsuitablePixelsError(f"is compressed in a way that is not read ({name}); export it again")
    return pixel_array(dataset, decoding_plugin=decoder)


# --- this process ----------------------------------------------------------------------------------
class _Child:
    """A process that decodes one file after the other; it ends when this process does."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def decode(self, path: Path) -> np.ndarray:
        import numpy as np

        requests, answers = self.process.stdin, self.process.stdout
        assert requests is not None and answers is not None
        timer = threading.Timer(LONGEST, self.process.kill)
        timer.start()
        try:
            requests.write(json.dumps(str(path.resolve())).encode() + b"\n")
            requests.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            content = answers.read(answer["bytes"])
        finally:
            timer.cancel()
        if answer["unsuitable"]:
            raise UnsuitablePixelsError(answer["unsuitable"])
        if not answer["bytes"]:
            raise DamagedPixelsError("damaged")
        return np.frombuffer(content, answer["type"]).reshape(answer["shape"])

    def end(self) -> None:
        self.process.kill()
        with self.process:  # closes its pipes and waits for it
            pass


_idle: queue.LifoQueue[_Child] = queue.LifoQueue()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.queue.clear)  # two processes must not talk with one child


@atexit.register
def _end_children() -> None:
    while not _idle.empty():
        _idle.get().end()


def _decode_apart(path: Path) -> np.ndarray:
    """Let a child decode the file ``path``."""
    try:
        child = _idle.get_nowait()
    except queue.Empty:
        child = _Child()
    try:
        pixels = child.decode(path)
    except (UnsuitablePixelsError, DamagedPixelsError):
        _idle.put(child)
        raise
    except (OSError, ValueError, KeyError):  # it has ended
        child.end()
        raise DamagedPixelsError("ended the decoder") from None
    except BaseException:  # Ctrl-C between question and answer
        child.end()
        raise
    _idle.put(child)
    return pixels


# --- the child -------------------------------------------------------------------------------------
def serve() -> None:
    """Decode files whose names come in, one a line, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryFile() as complaints:
        for stream in (1, 2):  # of libraries that print
            os.dup2(complaints.fileno(), stream)
        for line in sys.stdin.buffer:
            answer, content = _answer(json.loads(line), complaints)
            answers.write(json.dumps(answer).encode() + b"\n" + content)
            answers.flush()


def _answer(path: str, complaints: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Return (what there is to say of a file, its pixels); no bytes if they are damaged."""
    from pydicom import dcmread

    answer: dict[str, Any] = {"unsuitable": "", "bytes": 0}
    content = b""
    try:
        pixels = _decode(dcmread(path, specific_tags=list(TAGS)))
        content = pixels.tobytes()
        answer |= {"bytes": len(content), "type": str(pixels.dtype), "shape": pixels.shape}
    except UnsuitablePixelsError as error:
        answer["unsuitable"] = str(error)
    except Exception:  # damaged bytes make pydicom and its decoders raise nearly anything
        pass
    complaints.seek(0)
    said = complaints.read()
    complaints.seek(0)
    complaints.truncate()
    return (answer | {"bytes": 0}, b"") if any(word in said for word in DAMAGED) else (answer, content)
