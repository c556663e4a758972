"""Reading the two sides of a comparison: folders of image files, or images that a generator made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_loader import load_images
from dataset.image_folders import check_groups, groups_of
from dataset.image_ids import name_some
from dataset.images import enlarged, typical_side
from dataset.picture_checks import check_pictures
from image_metrics.file_formats import FolderFacts
from image_metrics.folder_comparison import LEAST, Side, draw_rows
from utils import UserError, public_path

LARGEST_SIDE, SMALLEST_SIDE = 224, 32  # pixels at which images are compared


@dataclass(frozen=True)
class Grouping:
    """How images find their patients: ``patients`` (file name without ending -> patient), ``pattern``, or neither."""

    patients: Mapping[str, str] | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def flag(self) -> str | None:
        """The flag that names patients."""
        return "--patients" if self.patients is not None else "--group-pattern" if self.pattern is not None else None


@dataclass(frozen=True)
class Reading:
    """One side, what the result file says of it, and notes on what limits the numbers."""

    side: Side
    facts: FolderFacts
    notes: list[str]
    formats: frozenset[str]  # kinds of files, "JPEG" or "lossless"


def side_to_compare(folders: Sequence[Sequence[Path]], made: int | None) -> int:
    """Return the smaller of the typical sides, in pixels; ``made``: the side of a generator's images."""
    sides = [side for files in folders if (side := typical_side(files))] + ([made] if made else [])
    return max(SMALLEST_SIDE, min([*sides, LARGEST_SIDE]))


def read_folder(
    flag: str, folder: Path, files: Sequence[Path], grouping: Grouping, image_size: int,
    *, max_images: int, seed: int, bits: int | None, skip_bad: bool, workers: int,
) -> Reading:  # fmt: skip
    """Decode ``files`` of the ``folder`` that ``flag`` names; nothing is cached.

    Raises ``UserError`` if images cannot be read (unless ``skip_bad``), show nothing, or are of too few groups.
    """
    chosen = [files[row] for row in draw_rows(len(files), max_images, seed)]
    where = f"{flag} {folder}"
    check_groups(groups_of(chosen, flag, grouping.patients, grouping.pattern)[0], where, LEAST, grouping.flag)
    records = pd.DataFrame({"image_id": [file.relative_to(folder).as_posix() for file in chosen], "path": chosen})
    images = load_images(records, image_size, workers=workers, skip_bad=True, desc=f"reading {flag}", bits=bits)
    if images.reasons and (not skip_bad or len(images.reasons) == len(chosen)):
        named = name_some([f"{name}: {reason}" for name, reason in images.reasons.items()], 5)
        raise UserError(f"{where}: {named} cannot be read; --skip-bad-images leaves them out, and counts them")
    used = list(images.records["path"])
    groups, ungrouped = groups_of(used, flag, grouping.patients, grouping.pattern)
    check_groups(groups, where, LEAST, grouping.flag)
    table = images.picture_table()
    found = check_pictures(table, f"{flag.lstrip('-')} images", image_size=1, bits=bits)
    if found.problems and flag == "--real":
        raise UserError(f"{where}: {'; '.join(found.problems)}")
    notes = found.problems + found.red_flags
    if len(chosen) < len(files):
        drawn = f"{len(chosen):,} of the {len(files):,} images of {flag} were drawn at random (--max-images)"
        notes.append(f"{drawn}; copies of the others are not looked for")
    if images.reasons:
        notes.append(f"{_images(len(images.reasons))} of {flag} unreadable and left out")
    if odd := int((table["width"] != table["height"]).sum()):
        notes.append(f"{_images(odd)} of {flag} not square: squeezed to a square, as everywhere in this product")
    if grouping.flag and ungrouped and flag == "--real":
        notes.append(f"{grouping.flag} names no patient for {_images(ungrouped)} of {flag}: another patient each")
    facts: FolderFacts = {
        "source": public_path(folder), "found": len(files), "used": len(used),
        "unreadable": [{"file": name, "reason": reason} for name, reason in images.reasons.items()],
        "side": int(table[["width", "height"]].min(axis=1).median()),
        "groups": len(set(groups)), "ungrouped": ungrouped,
    }  # fmt: skip
    formats = frozenset("JPEG" if jpeg else "lossless" for jpeg in table["jpeg"])
    return Reading(Side(images.pixels, list(images.records["image_id"]), groups), facts, notes, formats)


def _images(n: int) -> str:
    return f"{n:,} image{'' if n == 1 else 's'}"


def made_by(source: Path, pixels: np.ndarray, image_size: int) -> Reading:
    """Return the images uint8 [N, S, S] of the generator ``source`` as a side of a comparison."""
    side = pixels.shape[1]
    if side != image_size:
        pixels = np.stack([enlarged(image, image_size) for image in pixels])
    names = [f"image {number}" for number in range(1, len(pixels) + 1)]
    groups = [f"made {name}" for name in names]
    facts: FolderFacts = {
        "source": public_path(source), "found": len(pixels), "used": len(pixels), "unreadable": [], "side": side,
        "groups": len(pixels), "ungrouped": len(pixels),
    }  # fmt: skip
    return Reading(Side(pixels, names, groups), facts, [], frozenset({"lossless"}))


def notes_on_both(real: Reading, made: Reading, grouping: Grouping, image_size: int) -> list[str]:
    """Return notes on what the two sides have in common, or not."""
    notes = []
    if grouping.flag is None:
        notes.append(
            "no patients are named (--patients, --group-pattern), so every image counts as another patient's: "
            "intervals are too narrow if patients have several"
        )
    sides = (real.facts["side"], made.facts["side"])
    if len(set(sides)) > 1:
        notes.append(
            f"real images have {sides[0]} pixels a side, synthetic ones {sides[1]}: compared at {image_size}, where "
            "finer detail does not show"
        )
    if real.formats != made.formats:
        notes.append("one side holds JPEG files and the other does not: compression alone can tell them apart")
    named = Counter(group for side in (real.side, made.side) for group in set(side.groups))
    if shared := sum(count > 1 for count in named.values()):
        notes.append(f"{shared:,} patients have images on both sides; their pairs do not count in the distances")
    return notes
