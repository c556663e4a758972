"""Ground under every script: errors, command lines, seeding, devices, files that appear whole or not at all.

Knows no folder, class or model. torch, numpy and matplotlib are imported inside the functions that need
them, so that ``--help`` of every script is instant.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import math
import os
import platform
import random
import shlex
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure


# --- errors ----------------------------------------------------------------------------------------
class UserError(Exception):
    """Something the user can put right: one line that says what was wrong, what is allowed, what fixes it."""


class WeightsUnavailableError(UserError):
    """Pretrained weights are neither in the cache nor reachable.

    ``short``: the message without any folder of this machine, fit for a result file.
    """

    def __init__(self, message: str, short: str | None = None) -> None:
        super().__init__(message)
        self.short = short or message


def run_script(main: Callable[[], None]) -> None:
    """Run ``main``; a ``UserError`` ends in one line and exit code 1, Ctrl-C in one line and 130.

    SIGTERM is treated like Ctrl-C, so that temporary files are removed when a scheduler stops a job.
    """
    code = _exit_code(main)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # Threads of gloo may still free tensors while the interpreter is torn down, which now and then
        # aborts a process that has done all its work (pytorch/pytorch#190489): end without tearing down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: finished files are kept, unfinished removed", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError; torch must not be imported here to name it.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        print("error: out of memory; a smaller --batch-size or --image-size needs less", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a folder that cannot be written: the user's to mend, and the message says which.
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to be removed
    return 0


# --- command lines ---------------------------------------------------------------------------------
class HelpFormatter(argparse.HelpFormatter):
    """Ends the help of every option with ``(default: X)`` unless the text already says it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction) or "(default:" in text:
            return text
        if isinstance(action, argparse._StoreTrueAction):
            return f"{text} (default: off)"
        return f"{text} (default: %(default)s)"


class ArgumentParser(argparse.ArgumentParser):
    """Ends wrong usage in one line and exit code 2, without the whole list of options before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the project's help style; flags must be written out in full."""
    return ArgumentParser(description=description, formatter_class=HelpFormatter, allow_abbrev=False)


def number(
    kind: type, low: float | None = None, high: float | None = None, *, above: float | None = None
) -> Callable[[str], Any]:
    """An argparse type: ``kind`` (int or float) with low <= value <= high and value > above, finite."""

    def parse(text: str) -> Any:
        allowed = " and ".join(
            part
            for part in (
                f"at least {low}" if low is not None else "",
                f"above {above}" if above is not None else "",
                f"at most {high}" if high is not None else "",
            )
            if part
        )
        name = "a whole number" if kind is int else "a number"
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}") from None
        bad = not math.isfinite(value)
        bad |= low is not None and value < low
        bad |= high is not None and value > high
        bad |= above is not None and value <= above
        if bad:
            raise argparse.ArgumentTypeError(f"{text} is not allowed: {name} {allowed} is".strip())
        return value

    return parse


def public_config(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a run as plain types for a result file; no path in them leads out of the working
    directory."""

    def public(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [public(item) for item in value]
        tells_more = isinstance(value, str | Path) and (
            Path(value).is_absolute() or ".." in Path(value).parts
        )
        return public_path(value) if tells_more else plain(value)

    return {key: public(value) for key, value in sorted(vars(args).items())}


def command_line(script: str, options: Mapping[str, Any], leave_out: Collection[str] = ()) -> str:
    """The command that runs ``src/<script>.py`` with recorded options (names as in ``public_config``).

    Options that are None or False are those that were not given; ``leave_out`` names others. Lists are
    written as the options take them: words one after the other, [[0, 0.0], [5, 0.25]] as 0:0,5:0.25.
    """
    words = ["python", f"src/{script}.py"]
    for name, value in options.items():
        if value is None or value is False or name in leave_out:
            continue
        texts = value if isinstance(value, list) and value and isinstance(value[0], str) else [_typed(value)]
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [shlex.quote(t) for t in texts])
    return " ".join(words)


def _typed(value: Any) -> str:
    """A recorded option as it is typed."""
    if isinstance(value, list | tuple):
        parts = (item if isinstance(item, list | tuple) else [item] for item in value)
        return ",".join(":".join(str(part).removesuffix(".0") for part in item) for item in parts)
    return str(value)


def public_path(path: str | Path) -> str:
    """``path`` relative to the working directory, or its last part if it lies elsewhere."""
    resolved = Path(path).resolve()
    with contextlib.suppress(ValueError):
        return resolved.relative_to(Path.cwd()).as_posix()
    return resolved.name


# --- seeding, device, precision --------------------------------------------------------------------
def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries still draw from the global generator
    torch.manual_seed(seed)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``parts``: independent streams without shared state."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def select_device(cpu: bool = False) -> torch.device:
    """CUDA, else Apple MPS, else CPU; the CPU whenever ``cpu`` is set."""
    import torch

    if not cpu and torch.cuda.is_available():
        return torch.device("cuda")
    if not cpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fast_bf16(device: torch.device) -> bool:
    """Does ``device`` multiply bfloat16 matrices in hardware? Detected, not assumed."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" -> "bf16" where the hardware does it, else "fp32"; the others unchanged."""
    if precision == "auto":
        return "bf16" if fast_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 autocast for ``precision`` "bf16", nothing for "fp32"."""
    import torch

    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def prepare_arithmetic(device: torch.device, precision: str, compiled: bool = False) -> None:
    """Before networks are trained. With "bf16" an NVIDIA GPU multiplies the matrices that stay float32 in
    TensorFloat-32, which has more digits than bfloat16; "fp32" keeps them exact. ``UserError`` if networks
    are to be ``compiled`` and this machine cannot."""
    import torch

    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "bf16" else "highest")
    if not compiled:
        return
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:  # by compiler and platform of many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"--compile: this machine cannot compile ({reason}): leave it out") from None


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions and hardware that a result depends on; no host name, user name or path."""
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


# --- how long it takes -----------------------------------------------------------------------------
WORTH_SAYING = 60.0  # seconds; of shorter work nothing is said


def in_words(seconds: float) -> str:
    """ "2 h 10 min", "35 min", "50 s"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class Announcement:
    """Says once, some seconds into a loop over ``to_go`` of ``unit``, about how long all of it takes and what
    (``hint``) would make it shorter, unless it is short."""

    AFTER = 5.0  # seconds

    def __init__(self, to_go: int, unit: str, hint: str, say: Callable[[str], object]) -> None:
        self.to_go, self.unit, self.hint, self.say = to_go, unit, hint, say
        self.done, self.started, self.pending = 0, time.monotonic(), True

    def after(self, count: int = 1) -> None:
        self.done += count
        elapsed = time.monotonic() - self.started
        if not self.pending or elapsed < self.AFTER:
            return
        self.pending = False
        seconds = elapsed / self.done * self.to_go
        if seconds > WORTH_SAYING:
            hint = f"; {self.hint}" if self.hint else ""
            self.say(f"about {in_words(seconds)} for {self.to_go:,} {self.unit}{hint}")


# --- files -----------------------------------------------------------------------------------------
@contextlib.contextmanager
def atomic_path(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to; it replaces ``path`` only if the block succeeds.

    Parent folders are created. On any failure, Ctrl-C included, the temporary file is removed and
    ``path`` is what it was before. ``durable`` False does not wait for the disk, which takes some 10 ms: for
    thousands of files that can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix + ".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        if durable:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@functools.cache
def _umask() -> int:
    """The process's umask, read once: it can only be read by setting it, which other threads would see."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def save_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def save_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as JSON; NumPy scalars and arrays become plain numbers and lists, NaN null."""
    save_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def load_json(path: str | Path, made_by: str = "") -> Any:
    """Read JSON. ``UserError`` if it is missing (naming the command that makes it) or broken."""
    path = Path(path)
    hint = f"; {made_by} writes it" if made_by else ""
    if not path.is_file():
        raise UserError(f"{path} is missing{hint}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and make it again{hint}") from None


def save_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write ``table`` with full-precision numbers and no index column."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def save_figure(path: str | Path, figure: Figure) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=figure.get_dpi(), metadata={"Software": None})


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a dict of tensors and plain types, so that ``torch.load(weights_only=True)`` takes it back."""
    import torch

    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:  # torch's own word for a write that failed, on a full disk for example
        raise UserError(f"{path} could not be written; is the disk full? ({error})") from None


def load_checkpoint(path: str | Path, made_by: str = "") -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    ``UserError`` if it is missing, truncated, damaged (its stored checksums are verified: torch itself
    loads a flipped byte silently), not a checkpoint, or holds anything but tensors and plain types.
    """
    import pickle

    import torch

    path = Path(path)
    hint = f"; {made_by} writes it" if made_by else ""
    if not path.is_file():
        raise UserError(f"{path} is missing{hint}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise UserError(f"{path} is damaged (checksum mismatch); make it again{hint}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} was refused: it is damaged, or holds Python objects besides tensors and plain types"
        ) from None
    except UserError:
        raise
    except Exception:  # damaged bytes make torch and zipfile raise nearly anything
        raise UserError(f"{path} is truncated or damaged; delete it and make it again{hint}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}, not a dict")
    return content


def hub_weights(url: str, what: str, remedy: str) -> dict[str, torch.Tensor]:
    """Pretrained weights from torch's own cache folder, or downloaded there from ``url`` (hash checked).

    ``what`` names the weights and ``remedy`` what else the user can do, for the error that is raised
    (``WeightsUnavailableError``) when they are neither cached nor reachable, or the cached file is no such
    file.
    """
    import urllib.error

    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rsplit("/", 1)[1]

    def unavailable(problem: str) -> WeightsUnavailableError:
        message = f"{what}: {file.name} {problem}; put the file from {url} there, or {remedy}"
        return WeightsUnavailableError(message, message.replace(str(folder), "torch's cache"))

    if not file.is_file():
        # torch.hub reads the first characters of the hash from the file name: resnet50-0676ba61.pth.
        prefix = file.stem.rsplit("-", 1)[1]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _network_timeout(10.0):
                torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            # Not all of an OSError, which would name the folder once more.
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise unavailable(f"is not in {folder} and could not be downloaded ({reason})") from None
    try:
        state = load_checkpoint(file)
    except Exception:  # damaged bytes in torch's older format make it raise nearly anything
        raise unavailable(f"in {folder} is damaged or another file") from None
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise unavailable(f"in {folder} is not a file of weights alone")
    return state


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """torch.hub sets no timeout of its own, and would wait for minutes behind a silent firewall."""
    import socket

    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def sha256_file(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(content: Any) -> str:
    """Hash of the canonical JSON text of ``content``: the same whoever wrote it, however indented."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """``value`` with NumPy and torch scalars, arrays, paths and non-finite floats made into plain types."""
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
    raise TypeError(f"{type(value).__name__} does not go into a result file")
