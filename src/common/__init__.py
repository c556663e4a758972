"""Refuse a Python without what the scripts need, in one line, before anything newer or installed is read.

Every script imports this package first. It must stay readable for old Pythons.
"""

from __future__ import annotations

import importlib.util
import sys

PYTHON = (3, 11)  # the oldest that runs this project
# As imported.
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "PIL", "scipy", "sklearn", "matplotlib", "tqdm", "yaml")
REMEDY = "`make setup` makes .venv with Python {}.{} or later and all packages; then start scripts with {}".format(
    *PYTHON, r".venv\Scripts\python" if sys.platform == "win32" else ".venv/bin/python"
)


def installation_problem() -> str:
    """Say why this Python cannot run the scripts, and what to do; "" if it can."""
    if sys.version_info < PYTHON:
        version = ".".join(str(number) for number in sys.version_info[:3])
        return f"Python {version} is too old: {REMEDY}"
    missing = [name for name in PACKAGES if name not in sys.modules and importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed for {sys.executable}: {REMEDY}" if missing else ""


if problem := installation_problem():
    sys.exit(f"error: {problem}")
