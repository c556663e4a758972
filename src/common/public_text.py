"""Text without folders of this machine, for result files, reports and logs."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Folders from the root (or a drive) and a file name; not the inside of an URL or of a relative path.
ABSOLUTE_PATH = re.compile(
    r"""(?<![\w.:/\\~-])(?:[A-Za-z]:)?[\\/](?:[^\s;,()'"`]*[\\/])?([^\s;,()'"`\\/]+)"""
)


def without_folders(text: str) -> str:
    """Shorten every absolute path in ``text`` to its last part: results must not name this machine."""
    # The home folder by itself first: a user's name can contain spaces.
    text = text.replace(str(Path.home()) + os.sep, os.sep)
    return ABSOLUTE_PATH.sub(r"\1", text)
