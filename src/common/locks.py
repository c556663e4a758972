"""Locks: what one process is doing, no other begins.

A lock is a file that the system holds locked for one process. It is free again when that process ends,
killed or not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from utils import UserError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05  # between two looks at a lock


@contextlib.contextmanager
def hold_lock(lock: Path, message: str = "") -> Iterator[None]:
    """Hold the lock file ``lock`` during the block; wait for it first, and then log ``message`` once.

    The system releases it when the process ends, killed or not; the empty file stays. The folder is created.
    Raises ``OSError`` if the file cannot be written or its file system has no locks.
    """
    with _open_lock(lock) as file:
        waiting = False
        while not _locked_now(file):
            if message and not waiting:
                log.info(message)
            waiting = True
            time.sleep(POLL_SECONDS)
        yield


@contextlib.contextmanager
def try_lock(lock: Path) -> Iterator[bool]:
    """Hold the lock file ``lock`` during the block and yield True; False if another process holds it."""
    with _open_lock(lock) as file:
        yield _locked_now(file)


def _open_lock(lock: Path) -> BinaryIO:
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.open("a+b")


def _locked_now(file: BinaryIO) -> bool:
    """Lock the open ``file``; closing it unlocks. False if another process has locked it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows only
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


# --- one run in a folder at a time -----------------------------------------------------------------
@contextlib.contextmanager
def claim(folders: Iterable[str | Path], name: str, script: str) -> Iterator[None]:
    """Keep other runs that call themselves ``name`` out of ``folders`` during the block.

    Each folder holds a hidden file with the number of this process meanwhile. Raises ``UserError`` if another
    process works there; ``script`` is its name in the message. Folders that do not exist are made, and go
    again if they stay empty. Where a file system has no locks, nothing is kept out.
    """
    with contextlib.ExitStack() as claims:
        for folder in dict.fromkeys(map(Path, folders)):
            claims.enter_context(_claim(folder / f".{name}.lock", script))
        yield


@contextlib.contextmanager
def _claim(lock: Path, script: str) -> Iterator[None]:
    made = not lock.parent.exists()
    with contextlib.ExitStack() as opened:
        while True:
            file = opened.enter_context(_open_lock(lock))
            try:
                ours = _locked_now(file)
            except OSError:  # no locks here
                break
            if not ours:
                raise UserError(_in_use(lock, script))
            if _is_still_there(lock, file):
                break  # else its owner has removed it since it was opened
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
                if made:
                    lock.parent.rmdir()  # refused unless it is empty


def _is_still_there(lock: Path, file: BinaryIO) -> bool:
    """Tell whether the name ``lock`` still means the open ``file``."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _in_use(lock: Path, script: str) -> str:
    try:
        number = lock.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        number = ""
    process = f" (process {number})" if number.isdigit() else ""
    return f"another {script}{process} is writing to {lock.parent}; wait until it ends, or give other folders"
