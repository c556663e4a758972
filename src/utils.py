"""Basics of every script: errors, seeding, devices, and files that appear whole or not at all.

It knows no folder, class or model. torch, numpy and matplotlib are imported inside the functions that need
them, so that ``--help`` of every script is instant.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import logging
import math
import os
import platform
import random
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

TEMPORARY_PATTERN = ".*.tmp"  # of files being written, by ``atomic_path``
OWN_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?\.tmp")  # the same more exactly, with what mkstemp adds
# Folders from the root (or a drive) and a file name; not the inside of an URL or of a relative path.
ABSOLUTE_PATH = re.compile(r"""(?<![\w.:/\\~-])(?:[A-Za-z]:)?[\\/](?:[^\s;,()'"`]*[\\/])?([^\s;,()'"`\\/]+)""")

_NO_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory|[Cc]annot allocate memory")
_HIDDEN_BYTES = re.compile("[\udc80-\udcff]+")  # of a file name, in Python's "surrogateescape"


# --- errors, and text without folders of this machine ----------------------------------------------
class UserError(Exception):
    """A mistake that the user can correct: one line says what is wrong, where, and what to do."""


class WeightsUnavailableError(UserError):
    """Pretrained weights are neither in the cache nor reachable.

    ``short``: the message without any folder of this machine, fit for a result file.
    """

    def __init__(self, message: str, short: str | None = None) -> None:
        super().__init__(message)
        self.short = short or message


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory ran out, of the CPU or of a GPU."""
    # torch.OutOfMemoryError is a RuntimeError, as is its CPU allocator's; torch need not be imported to tell.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    said = isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None
    return named or said or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


def public_path(path: str | Path) -> str:
    """Return ``path`` relative to the working directory, or its last part if it lies elsewhere."""
    resolved = Path(path).resolve()
    with contextlib.suppress(ValueError):
        return resolved.relative_to(Path.cwd()).as_posix()
    return resolved.name


def without_folders(text: str) -> str:
    """Shorten every absolute path in ``text`` to its last part: results must not name this machine."""
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        # The home folder by itself first: a user's name can contain spaces.
        text = text.replace(str(Path.home()) + os.sep, os.sep)
    return ABSOLUTE_PATH.sub(r"\1", text)


def readable(text: str) -> str:
    """Return ``text`` with what UTF-8 cannot hold made readable.

    Where Python takes file names for ASCII (LC_ALL=POSIX), it hides their other bytes in surrogates: they
    become the letters that they are in UTF-8, else escapes like \\xfc.
    """

    def letters(hidden: re.Match[str]) -> str:
        return hidden[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    return _HIDDEN_BYTES.sub(letters, text).encode("utf-8", "backslashreplace").decode("utf-8")


# --- seeding, device, precision --------------------------------------------------------------------
def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries still draw from the global generator
    torch.manual_seed(seed)


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from ``parts``, so that streams are independent without shared state."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def select_device(cpu: bool = False) -> torch.device:
    """Choose CUDA, else Apple MPS, else the CPU; always the CPU if ``cpu`` is set."""
    import torch

    if not cpu and torch.cuda.is_available():
        return torch.device("cuda")
    if not cpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fast_bf16(device: torch.device) -> bool:
    """Return whether ``device`` multiplies bfloat16 matrices in hardware."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """Turn "auto" into "bf16" where the hardware does it, else "fp32"; return others unchanged."""
    if precision == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return bfloat16 autocast for ``precision`` "bf16", a context that does nothing for "fp32"."""
    import torch

    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def prepare_arithmetic(device: torch.device, precision: str, compiled: bool = False) -> None:
    """Set the precision of matrix products before networks are trained.

    With "bf16" an NVIDIA GPU multiplies the matrices that stay float32 in TensorFloat-32, which has more
    digits than bfloat16; "fp32" keeps them exact. Raises ``UserError`` if networks are to be ``compiled``
    and this machine cannot.
    """
    import torch

    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "bf16" else "highest")
    if not compiled:
        return
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds, by compiler and platform
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"this machine cannot compile networks ({reason}): leave --compile out") from None


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Return the versions and hardware that a result depends on; no host name, user name or path."""
    import numpy as np
    import torch
    import torchvision

    gpu = device is not None and device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if gpu else str(device or "cpu"),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


# --- arrays ----------------------------------------------------------------------------------------
def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Make a tensor over the same memory, which may be a read-only map: do not write to it."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


# --- files -----------------------------------------------------------------------------------------
@contextlib.contextmanager
def atomic_path(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it replaces ``path`` only if the block succeeds.

    Parent folders are created. On any failure, Ctrl-C included, the temporary file is removed and ``path``
    stays as it was; an ``OSError`` (a full disk) names ``path``. The next process that writes into the folder
    removes the temporary file of a killed one. ``durable`` False does not wait for the disk (some 10 ms): for
    thousands of files that can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    handle, temporary = _locked_temporary(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if durable:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Make a temporary sibling of ``path``, locked as long as its handle is open: (handle, file)."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix + ".tmp")
        if fcntl is None:  # Windows renames no open file
            os.close(handle)
            return os.open(os.devnull, os.O_RDONLY), Path(name)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process took it for abandoned before it was locked


@functools.cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder``: nobody holds their locks."""
    for file in folder.glob(TEMPORARY_PATTERN) if fcntl else ():
        if not OWN_TEMPORARY.fullmatch(file.name):
            continue
        with contextlib.suppress(OSError), file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


@functools.cache
def _umask() -> int:
    """Return the process's umask, read once: reading it means setting it, which other threads would see."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def save_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends."""
    with atomic_path(path) as temporary:
        temporary.write_text(readable(text), encoding="utf-8", newline="\n")


def save_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON; NumPy scalars and arrays become plain numbers and lists, NaN null."""
    save_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def _existing(path: str | Path, made_by: str) -> tuple[Path, str]:
    """Return (the file, what errors say about who writes it); ``UserError`` if it is missing."""
    hint = f"; {made_by} writes it" if made_by else ""
    if not Path(path).is_file():
        raise UserError(f"{path} is {'a folder, not a file' if Path(path).is_dir() else 'missing'}{hint}")
    return Path(path), hint


def load_json(path: str | Path, made_by: str = "") -> Any:
    """Read JSON; raises ``UserError`` if it is missing or broken. ``made_by``: the command that writes it."""
    path, hint = _existing(path, made_by)
    try:
        return json.loads(path.read_bytes())  # UTF-8, -16 or -32, with their marks or without
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and make it again{hint}") from None


def save_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write ``table`` with full-precision numbers and no index column."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", errors="backslashreplace")


def save_figure(path: str | Path, figure: Figure) -> None:
    """Write ``figure`` as PNG in its own resolution, without the name of the software."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=figure.get_dpi(), metadata={"Software": None})


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain types, so that ``torch.load(weights_only=True)`` takes it back."""
    import torch

    try:
        # Not by its path, whose name would stand in the file: the same content then has the same sha256.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch raises it for a write that failed, on a full disk for example
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path} could not be written ({error}); free some disk space or write elsewhere") from None


def load_checkpoint(path: str | Path, made_by: str = "") -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises ``UserError`` if it is missing, truncated, damaged (its stored checksums are verified: torch itself
    loads a flipped byte silently), not a checkpoint, or holds anything but tensors and plain types.
    """
    import pickle

    import torch

    path, hint = _existing(path, made_by)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise UserError(f"{path} is damaged (checksum mismatch); make it again{hint}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} was refused: it is damaged, or holds Python objects besides tensors and plain types; "
            f"make it again{hint}"
        ) from None
    except UserError:
        raise
    except Exception as error:  # damaged bytes make torch and zipfile raise nearly anything
        if is_out_of_memory(error) or isinstance(error, PermissionError):
            raise
        raise UserError(f"{path} is truncated or damaged; delete it and make it again{hint}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}, not a dict")
    return content


def sha256_file(path: str | Path) -> str:
    """Hash the content of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Hash the canonical JSON text of ``content``, which does not depend on order of keys and indentation."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """Turn NumPy and torch scalars, arrays, paths and non-finite floats in ``value`` into plain types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written into a result file")
