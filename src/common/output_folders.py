"""Check of the folders that a script writes to, before any work is done.

A sequence of scripts first lets each of them check its options and folders and end there (``CHECK_ONLY``).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from utils import UserError

CHECK_ONLY = "CHECK_OPTIONS_ONLY"  # environment variable: the script ends once options and folders are checked


def only_checks() -> bool:
    """Tell whether this process ends in ``check_folders``: what it reads can be checked before, at some cost."""
    return bool(os.environ.get(CHECK_ONLY))


def check_folders(folders: Mapping[str, str | Path]) -> None:
    """Raise ``UserError`` unless files can be made in all ``folders`` (flag that names it -> folder).

    Call it right after the options are checked: with ``CHECK_ONLY`` set, the script ends well here. Folders
    that do not exist are not made; what counts then is whether they could be.
    """
    for flag, folder in folders.items():
        try:
            try_to_write(Path(folder))
        except OSError as error:
            raise UserError(
                f"{flag} {folder}: no file can be written there ({error.strerror or error}); give another folder, "
                "or mend this one"
            ) from None
    if only_checks():
        sys.exit(0)


def try_to_write(folder: Path) -> None:
    """Raise ``OSError`` unless a file can be made in ``folder``, or in the nearest folder above it that exists."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(0, f"{there} is a file")
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(b" ")
        file.flush()
