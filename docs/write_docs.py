"""Write the pages of docs/ that are made from the code.

    python docs/write_docs.py           # write them
    python docs/write_docs.py --check   # write nothing; exit 1 and name the stale files

Each function in ``GENERATORS`` returns the pages it makes: path below docs/ -> text. To add a generated page,
add a function. A folder in ``GENERATED_FOLDERS`` holds generated pages only: any other file in it is stale
and is removed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DOCS = Path(__file__).resolve().parent
SRC = DOCS.parent / "src"
GENERATED_FOLDERS = ("help",)


def find_scripts() -> list[Path]:
    """Return the scripts of src/: the files at its top that can be run."""
    return sorted(file for file in SRC.glob("*.py") if '__name__ == "__main__"' in file.read_text("utf-8"))


def read_help(script: Path) -> str:
    """Return what ``script --help`` prints, 100 columns wide. Raises CalledProcessError if it fails."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    command = [sys.executable, str(script), "--help"]
    return subprocess.run(
        command, stdout=subprocess.PIPE, encoding="utf-8", env=environment, check=True
    ).stdout


def help_pages() -> dict[str, str]:
    """Return the help text of every script."""
    scripts = find_scripts()
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(read_help, scripts))
    return {f"help/{script.stem}.txt": text for script, text in zip(scripts, texts, strict=True)}


GENERATORS = (help_pages,)


def make_pages() -> dict[str, str]:
    """Return all generated pages: path below docs/ -> text."""
    return {path: text for generate in GENERATORS for path, text in generate().items()}


def find_stale(pages: dict[str, str]) -> list[str]:
    """Return the paths below docs/ that are missing, differ from ``pages``, or should not be there."""
    differing = [path for path, text in pages.items() if _read(DOCS / path) != text]
    present = [file for folder in GENERATED_FOLDERS for file in (DOCS / folder).glob("*")]
    extra = [path for path in (file.relative_to(DOCS).as_posix() for file in present) if path not in pages]
    return sorted(differing + extra)


def _read(file: Path) -> str | None:
    return file.read_text("utf-8") if file.is_file() else None


def main(argv: list[str] | None = None) -> int:
    """Write the generated pages, or check them; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the pages of docs/ that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the stale files")
    args = parser.parse_args(argv)
    pages = make_pages()
    stale = find_stale(pages)
    if args.check:
        if stale:
            print("stale, run `make docs`: " + ", ".join(f"docs/{path}" for path in stale))
        return 1 if stale else 0
    for path in stale:
        file = DOCS / path
        if path in pages:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(pages[path], "utf-8", newline="\n")
        else:
            file.unlink()
        print(f"docs/{path}: {'written' if path in pages else 'removed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
