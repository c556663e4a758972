"""Lock files: what one process is doing, no other begins.

The system releases a lock when its process ends, killed or not, so no stale lock is ever left behind. The
lock file itself stays; it is empty. The ``filelock`` library would do the same; its versions 3 and 4 differ
by thousands of lines, of which these few are what is needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05


@contextlib.contextmanager
def hold_lock(lock: Path, message: str = "") -> Iterator[None]:
    """Hold the lock file ``lock`` during the block; wait for it first, and then log ``message`` once.

    The folder is created. ``OSError`` if the file cannot be written or its file system has no locks.
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
