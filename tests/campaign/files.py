"""Are the files of a folder whole, and do two folders hold the same results?"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from utils import TEMPORARY_PATTERN, UserError, load_checkpoint

# Keys of what an interrupted run does not share with another: times, and that it was resumed.
CLOCK = {"seconds", "time", "clock", "memory", "resume"}
NOT_COMPARED = {"logs", "cache", "tensorboard"}  # folders: times and states of files stand in them
UNDER_WAY = {".download"}  # folders of work that is not done: nothing in them has its final name
# Words of the clock in texts: "in 1.2 min", "12:34:56".
TIMES = re.compile(r"\b\d+(\.\d+)? (s|min|h|ms|seconds|minutes|hours)\b|\b\d\d:\d\d(:\d\d)?\b")


# --- whole files -----------------------------------------------------------------------------------
def is_temporary(file: Path) -> bool:
    """Tell whether its name says that it is being written."""
    return file.match(TEMPORARY_PATTERN) or is_unfinished_cache(file)


def is_unfinished_cache(file: Path) -> bool:
    """Tell whether it is an unfinished file of the cache of images, from which other lists take what is there."""
    return ".partial." in file.name and "cache" in file.parts


def files_of(folder: Path) -> list[Path]:
    """List the files below ``folder``, relative to it."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def broken_files(folder: Path, killed: bool) -> list[str]:
    """Say which files under a final name cannot be read to their end. ``killed``: right after a kill."""
    found = []
    for name in files_of(folder):
        if is_temporary(name) or (killed and UNDER_WAY & set(name.parts)):
            continue
        try:
            if problem := problem_of(folder / name, killed):
                found.append(f"{name}: {problem}")
        except (OSError, ValueError, SyntaxError, EOFError, UserError, csv.Error) as error:
            found.append(f"{name}: {type(error).__name__} {error}")
    return found


def problem_of(file: Path, killed: bool = False) -> str | None:
    """Say what is wrong with a file, as far as its ending tells; raises what its reader raises."""
    ending, content = file.suffix, file.read_bytes()
    if not content:
        return None if file.name == "lock" or ending in (".lock", ".jsonl") else "empty"
    if ending == ".json":
        json.loads(content, parse_constant=_no_constants)
    elif ending == ".jsonl":
        lines = content.decode().splitlines(keepends=True)
        for line in lines[:-1] if killed else lines:  # the last one may be half written when it is killed
            if not line.endswith("\n"):
                return "a line without end"
            json.loads(line, parse_constant=_no_constants)
    elif ending == ".csv":
        return _problem_of_table(content.decode("utf-8-sig"))
    elif ending in (".png", ".gif"):
        with Image.open(io.BytesIO(content)) as image:
            for frame in range(getattr(image, "n_frames", 1)):
                image.seek(frame)
                image.load()
        if ending == ".png" and not content.endswith(b"IEND\xaeB`\x82"):
            return "does not end as a PNG does"
    elif ending == ".pth":
        load_checkpoint(file)
    elif ending == ".npy":
        np.load(file, mmap_mode="r", allow_pickle=False)
    elif ending == ".html":
        return None if content.rstrip().endswith(b"</html>") else "does not end as a page does"
    elif ending == ".txt":
        return None if content.endswith(b"\n") else "the last line has no end"
    return None


def _problem_of_table(text: str) -> str | None:
    if not text.endswith("\n"):
        return "the last line has no end"
    widths = {len(row) for row in csv.reader(io.StringIO(text))}
    return None if len(widths) == 1 else "lines of different length"


def _no_constants(name: str) -> None:
    raise ValueError(f"{name} in JSON")


def leftovers(folder: Path) -> list[str]:
    """List what should not be there once a script has ended well: temporary files, states of unfinished runs."""
    names = [name for name in files_of(folder) if not is_unfinished_cache(name)]
    found = [str(name) for name in names if is_temporary(name) or UNDER_WAY & set(name.parts) or name.suffix == ".part"]
    return found + [str(path.relative_to(folder)) for path in folder.rglob("*unfinished") if path.is_dir()]


# --- the same results ------------------------------------------------------------------------------
def differences(reference: Path, folder: Path) -> list[str]:
    """Say in which files ``folder`` differs from the ``reference``, clocks apart."""
    ours, theirs = _compared(folder), _compared(reference)
    found = [f"{name} is missing" for name in sorted(theirs - ours)]
    found += [f"{name} is not in the uninterrupted run" for name in sorted(ours - theirs)]
    for name in sorted(ours & theirs):
        one, other = folder / name, reference / name
        if _digest(one) != _digest(other) and (what := _difference(one, other)):
            found.append(f"{name} differs{what}")
    return found


def _compared(folder: Path) -> set[Path]:
    return {name for name in files_of(folder) if not NOT_COMPARED & set(name.parts) and name.name != "lock"}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _difference(one: Path, other: Path) -> str | None:
    """Say where two files differ; None if only in their clocks."""
    if one.suffix == ".pth":
        a, b = without_clock(load_checkpoint(one)), without_clock(load_checkpoint(other))
    elif one.suffix == ".json":
        a, b = (without_clock(json.loads(file.read_text())) for file in (one, other))
    elif one.suffix == ".jsonl":
        a, b = ([without_clock(json.loads(line)) for line in file.read_text().splitlines()] for file in (one, other))
    elif one.suffix in (".txt", ".html"):
        a, b = (TIMES.sub("", file.read_text()) for file in (one, other))
        return None if a == b else ""
    else:
        return ""
    places = [place for place, _, _ in leaves_that_differ(a, b)]
    return f" at {', '.join(places[:4])}" if places else None


def without_clock(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: without_clock(value) for key, value in content.items() if key not in CLOCK}
    if isinstance(content, list | tuple):
        return [without_clock(value) for value in content]
    return content


def leaves_that_differ(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, value here, value there) of all that differs in two nested structures."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            where = f"{place}.{key}" if place else str(key)
            if key not in one or key not in other:
                yield where, one.get(key, "(missing)"), other.get(key, "(missing)")
            else:
                yield from leaves_that_differ(one[key], other[key], where)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from leaves_that_differ(a, b, f"{place}[{number}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype
        if not same or not torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)):
            yield place, "tensor", "another tensor"
    elif one != other or type(one) is not type(other):
        yield place, one, other
