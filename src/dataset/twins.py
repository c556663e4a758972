"""Twins: images of different patients or groups that show one picture, found once and kept in the cache.

Candidates come from thumbnails (``near_copies``). A pair counts when both files, decoded anew at a larger size,
fit onto each other (``registration``). Pairs are never chained on likeness alone: groups are connected confirmed pairs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.locks import hold_lock
from common.progress import duration_in_words, progress_bar
from dataset.image_list import list_images
from dataset.images import decoder_version, read_image, read_side
from dataset.pixel_cache import KEY_CHARACTERS
from utils import UserError, load_json, save_json, sha256_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

SEARCH = 3  # version of the search; results in the cache depend on it
THUMBNAIL, CONFIRMED_AT = 64, 256  # pixels
SMALLEST = 32  # pixels; smaller images are too alike to be told apart
LARGEST_GROUP = 20  # images; more that show one picture are a placeholder or a fault
WORTH_OPENING = 0.7  # score of thumbnails; of 17 kinds of planted copies none that counts as a twin is below it
PAIRS_AT_ONCE = 512
MOST_OPENED = 2**15  # images of likely pairs that are kept, 2 GB; X-rays that are so alike are few, phantoms are many
WORKERS = 4  # threads that decode
WORTH_SAYING = 5.0  # seconds
NAMED = 3  # pairs that a message names

_found: dict[str, list[list[int]]] = {}  # of this process, for --no-cache


class TwinPair(NamedTuple):
    """Two images that show one picture, and their labels."""

    first: str
    second: str
    labels: tuple[int, int]

    @property
    def ids(self) -> tuple[str, str]:
        return self.first, self.second

    def __str__(self) -> str:
        return f"{self.first} and {self.second}"


# --- search ----------------------------------------------------------------------------------------
def find_twins(images: pd.DataFrame, cache_dir: str | Path | None) -> list[TwinPair]:
    """Find pairs of ``images`` (image_id, patient, label, path) of different patients that show one picture.

    Unreadable and missing images, and those smaller than 32 pixels, do not take part. The search takes minutes
    for thousands of images; its result is kept below ``cache_dir`` (None: only while the process runs) under
    the key of the files' states.
    """
    table = images.sort_values("image_id")
    files = list(table["path"])
    images_key = list_images(files, THUMBNAIL, decoder_version(files=files)).key
    key = sha256_json([images_key, CONFIRMED_AT, SEARCH])[:KEY_CHARACTERS]
    if key not in _found:
        _found[key] = _from_cache(files, cache_dir, key)
    ids, patients, labels = (table[column].tolist() for column in ("image_id", "patient", "label"))
    return [
        TwinPair(ids[one], ids[other], (int(labels[one]), int(labels[other])))
        for one, other in _found[key]
        if patients[one] != patients[other]
    ]


def _from_cache(files: Sequence[Path], cache_dir: str | Path | None, key: str) -> list[list[int]]:
    """Return pairs of rows of ``files``, from the cache or searched."""
    if cache_dir is None:
        return _search(files)
    file = Path(cache_dir) / "twins" / f"{key}.json"
    pairs = None
    # Whatever is wrong with the cache, the search is made.
    with suppress(OSError), hold_lock(file.with_name("lock"), "waiting for another search for twins"):
        pairs = _read(file, len(files))
        if pairs is None:
            pairs = _search(files)
            save_json(file, {"n_images": len(files), "pairs": pairs})
    return _search(files) if pairs is None else pairs


def _read(file: Path, n_images: int) -> list[list[int]] | None:
    """Read pairs; None if the file is not there or damaged."""
    try:
        content: Any = load_json(file)
        pairs = [[int(one), int(other)] for one, other in content["pairs"]]
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return pairs if all(0 <= row < n_images for pair in pairs for row in pair) else None


def _search(files: Sequence[Path]) -> list[list[int]]:
    import numpy as np

    started = time.monotonic()
    decoded = _decode(files, THUMBNAIL, WORKERS, "thumbnails, to find twins")
    rows = np.array([row for row, pixels in enumerate(decoded) if pixels is not None], dtype=int)
    if len(rows) < 2:
        return []
    from dataset.near_copies import find_copies

    found = find_copies(np.stack([decoded[row] for row in rows]), desc="searching for twins")
    likely = found.scores >= WORTH_OPENING
    pairs = confirm_pairs(files, rows[found.rows[likely]], found.mirrored[likely], WORKERS)
    if (seconds := time.monotonic() - started) > WORTH_SAYING:
        log.info(f"{len(rows):,} images searched for twins in {duration_in_words(seconds)}")
    return pairs


def _decode(files: Sequence[Path], side: int, workers: int, desc: str = "") -> list[np.ndarray | None]:
    """Decode to uint8 [side, side]; None where a file cannot be read or is too small. Without ``desc`` no bar."""

    def read(file: Path) -> np.ndarray | None:
        try:
            return read_image(file, side) if (read_side(file) or 0) >= SMALLEST else None
        except (OSError, ValueError):  # said by those who need the image
            return None

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(progress_bar(pool.map(read, files), total=len(files), desc=desc, unit="img", disable=not desc))


def confirm_pairs(files: Sequence[Path], pairs: np.ndarray, mirrored: np.ndarray, workers: int) -> list[list[int]]:
    """Return those of ``pairs``, rows of ``files`` int [P, 2], whose files, decoded anew, show one picture.

    ``mirrored`` bool [P]: whether the first one must be mirrored for that.
    """
    import numpy as np

    from dataset.registration import show_same_picture

    confirmed = set()
    opened: dict[int, Any] = {}  # row -> its pixels, None if it cannot be read
    with progress_bar(total=len(pairs), desc="likely twins", unit="pair", disable=len(pairs) <= PAIRS_AT_ONCE) as bar:
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            part, flipped = pairs[start : start + PAIRS_AT_ONCE], mirrored[start : start + PAIRS_AT_ONCE]
            if len(opened) > MOST_OPENED:
                opened.clear()
            new = [row for row in np.unique(part).tolist() if row not in opened]
            opened.update(zip(new, _decode([files[row] for row in new], CONFIRMED_AT, workers), strict=True))
            kept = [place for place, pair in enumerate(part) if all(opened[row] is not None for row in pair)]
            if kept:
                one = np.stack([opened[part[place, 0]][:, :: -1 if flipped[place] else 1] for place in kept])
                other = np.stack([opened[part[place, 1]] for place in kept])
                same = show_same_picture(one, other)
                confirmed |= {tuple(part[place].tolist()) for place, is_same in zip(kept, same, strict=True) if is_same}
            bar.update(len(part))
    return [list(pair) for pair in sorted(confirmed)]


# --- groups ----------------------------------------------------------------------------------------
def unite_patients(images: pd.DataFrame, pairs: Sequence[TwinPair]) -> pd.Series:
    """Return the group of each of ``images`` (image_id, patient): its patient, twins' patients united.

    A united group has the name of its first patient. Raises ``UserError`` if more than ``LARGEST_GROUP`` images
    show one picture.
    """
    if len(largest := largest_group(pairs)) > LARGEST_GROUP:
        raise UserError(
            f"{len(largest)} images of different patients show one picture ({', '.join(largest[:3])}, ...): they are "
            f"no X-rays of {len(largest)} people; remove all but one of them from the metadata"
        )
    patient_of = dict(zip(images["image_id"], images["patient"], strict=True))
    members = _connected([(patient_of[pair.first], patient_of[pair.second]) for pair in pairs])
    first_of = {patient: group[0] for group in members for patient in group}
    return images["patient"].map(lambda patient: first_of.get(patient, patient))


def largest_group(pairs: Sequence[TwinPair]) -> list[str]:
    """Return the ids of the largest group of images that show one picture, sorted; [] without twins."""
    return max(_connected([pair.ids for pair in pairs]), key=len, default=[])


def _connected(pairs: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Return the connected components of a graph, each sorted."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    names, places = np.unique(np.array(pairs), return_inverse=True)
    one, other = places.reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(names),) * 2)
    count, member = connected_components(graph, directed=False)
    return [sorted(names[member == group].tolist()) for group in range(count)]


def describe_twins(pairs: Sequence[TwinPair]) -> str:
    """Say how many twins there are: "2 pairs of images of different patients show one picture (a and b, ...)"."""
    largest = len(largest_group(pairs))
    return f"{name_pairs(pairs)} of different patients show one picture; the largest group has {largest} images"


def name_pairs(pairs: Sequence[TwinPair]) -> str:
    """Write "2 pairs of images (a and b, c and d)"."""
    more = ", ..." if len(pairs) > NAMED else ""
    count = f"{len(pairs):,} pair{'s' if len(pairs) != 1 else ''} of images"
    return f"{count} ({', '.join(map(str, pairs[:NAMED]))}{more})"


def conflict_flags(pairs: Sequence[TwinPair]) -> list[str]:
    """Return a red flag if twins have different labels."""
    odd = [pair for pair in pairs if pair.labels[0] != pair.labels[1]]
    return [f"{name_pairs(odd)} show one picture but have different labels; correct the labels"] if odd else []
