"""Put right what a machine may lack or do before a script begins: streams, a home folder, ending signals.

Output goes on whatever happens to it: characters that it cannot show are written as escapes, a reader that
has gone (``| head``), a closed terminal and a full disk end no run.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from utils import UserError

# Sent by schedulers, and where the terminal is closed.
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


# --- standard streams ------------------------------------------------------------------------------
class _Lasting(io.RawIOBase):
    """``stream`` without its buffer; what cannot be written any more is dropped, and so is all that follows."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.whole = stream  # closes itself when nobody holds it
        self.stream: Any = getattr(stream.buffer, "raw", stream.buffer)  # ``python -u`` has no buffer

    @property
    def name(self) -> Any:
        return self.stream.name

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def isatty(self) -> bool:
        return bool(self.stream.isatty())

    def write(self, data: Any) -> int | None:
        try:
            written: int | None = self.stream.write(data)
            return written
        except OSError:
            with contextlib.suppress(OSError):  # libraries and child processes write there, too
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return len(data)


def settle_streams() -> None:
    """Make standard output and error fit for any text and any end of their readers.

    A closed standard error becomes standard output, so that errors are told. Other closed streams lead
    nowhere: else the next file that is opened would take their place. Streams that a test or a notebook has
    put in place stay.
    """
    told = None
    if not _is_open(2) and _is_open(1):
        os.dup2(1, 2)
        sys.stderr = told = open(2, "w", closefd=False, buffering=1, **_way_of_writing(sys.stdout))  # noqa: PTH123, SIM115
    nowhere = os.open(os.devnull, os.O_RDWR)
    while nowhere <= 2:
        nowhere = os.dup(nowhere)
    os.close(nowhere)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w", closefd=False, encoding="utf-8"))  # noqa: PTH123, SIM115
        elif stream in (getattr(sys, f"__{name}__"), told) and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            lasting = io.BufferedWriter(_Lasting(stream))
            lines, at_once = stream.line_buffering, stream.write_through
            text = io.TextIOWrapper(
                lasting, line_buffering=lines, write_through=at_once, **_way_of_writing(stream)
            )  # fmt: skip
            setattr(sys, name, text)


def _way_of_writing(stream: Any) -> dict[str, Any]:
    return {"encoding": stream.encoding, "errors": "backslashreplace"}


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# --- who and where ---------------------------------------------------------------------------------
def settle_home() -> None:
    """Name a home folder and a user where the system knows none, as in a container of another user's number.

    matplotlib, torch and Kaggle's client keep caches there. The folder belongs to this user alone.
    """
    try:
        Path.home()
    except RuntimeError:
        home = Path(tempfile.gettempdir()) / f"home_{os.getuid()}"
        home.mkdir(mode=0o700, exist_ok=True)
        if home.stat().st_uid != os.getuid():  # made by somebody else
            home = Path(tempfile.mkdtemp(prefix="home_"))
        os.environ["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = f"user_{os.getuid()}"


def check_current_folder() -> None:
    """Raise ``UserError`` if the current folder was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder was removed: change to another one and start again") from None


# --- signals ---------------------------------------------------------------------------------------
class EndingSignalError(KeyboardInterrupt):
    """A signal other than Ctrl-C asks this process to end; ``number``: which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise ``EndingSignalError`` in the block for SIGTERM and SIGHUP, once, as Ctrl-C is raised.

    So temporary files are removed and the log is written when a scheduler or a closed terminal ends a run.
    Signals that are ignored (``nohup``) stay so.
    """
    ours = [number for number in ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def end(number: int, _: FrameType | None) -> None:
        for each in ours:  # often both come, or one twice: cleaning up must not be disturbed
            signal.signal(each, signal.SIG_IGN)
        raise EndingSignalError(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)  # nothing is left to be removed


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and the like in a worker process: they reach the whole group, and its parent answers."""
    for number in (signal.SIGINT, *ENDING_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
