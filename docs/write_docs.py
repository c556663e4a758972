"""Write the pages of docs/ that are made from the code.

    python docs/write_docs.py           # write them
    python docs/write_docs.py --check   # write nothing; exit 1 and name the stale files

Each function in ``GENERATORS`` returns the pages it makes: path below docs/ -> text. To add a generated page,
add a function. A folder in ``GENERATED_FOLDERS`` holds generated pages only: any other file in it is stale
and is removed.
"""

from __future__ import annotations

import argparse
import importlib
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
    return subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", env=environment, check=True).stdout


def help_pages() -> dict[str, str]:
    """Return the help text of every script."""
    scripts = find_scripts()
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(read_help, scripts))
    return {f"help/{script.stem}.txt": text for script, text in zip(scripts, texts, strict=True)}


# Module of src/ -> the typed files in it, in the order of a run.
FORMATS = {
    "dataset.file_formats": ("DownloadMarker", "PhantomMarker", "Provenance", "SplitsFile"),
    "arms.file_formats": ("FinalMetrics", "CVSummary", "TrainingHistory", "ExternalTest"),
    "gan.file_formats": ("GanTrainingHistory", "StatsLine", "NetworkCheckpoint", "TrainingState"),
    "synthetic.file_formats": ("Manifest",),
    "comparison.file_formats": ("Comparison",),
    "comparison.image_file_formats": ("SsimAnalysis", "FidScore", "ImageQuality"),
    "image_metrics.file_formats": ("Judgement",),
    "report.file_formats": ("PatientFlow",),
    "studies.file_formats": ("StepEntry", "LearningCurve", "DoseResponse"),
    "comparison.cross_fit_file_formats": ("CrossFitComparison",),
    "benchmarks.file_formats": ("SpeedBenchmark", "GeneratorBenchmark"),
}
FORMATS_TITLE = """# File formats

Every result file, key by key. `make docs` writes this page from the types in `src/*/file_formats.py`; a
test holds the files that the scripts write, and the committed ones below `results/`, against the same types.

Rates are fractions from 0 to 1, never percent. One name is one statistic in all files: `accuracy_ci95` is the
95 % interval of the bootstrap over patients, `accuracy_ci95_image_level` takes every image for independent
(Wilson), and the same with `auroc_` (DeLong at the image level). Undefined numbers are `null`.
"""
PREDICTIONS_TITLE = """## Predictions

`<prefix>test_predictions.csv`, `<prefix>cv_predictions.csv` (with `fold`) and
`<prefix>unlabelled_predictions.csv` (`image_id` and `probability` only): one row per image.

| column | meaning |
|---|---|
"""


def format_page() -> dict[str, str]:
    """Return the page of result files, from their types."""
    sys.path.insert(0, str(SRC))
    describe_format = importlib.import_module("common.file_formats").describe_format
    kinds = [getattr(importlib.import_module(name), kind) for name, kinds in FORMATS.items() for kind in kinds]
    columns = importlib.import_module("arms.file_formats").CV_COLUMNS
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in columns.items())
    described: set[type] = set()
    formats = [describe_format(kind, described) for kind in kinds]
    return {"file-formats.md": "\n".join([FORMATS_TITLE, PREDICTIONS_TITLE + rows + "\n", *formats])}


GENERATORS = (help_pages, format_page)


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
