"""Images -> features of a frozen network: computed once, kept as float16 on disk, shared by every script.

Features lie in blocks of some hundred images, a file each, in a folder per space: one network (by its
weights), one way of preparing its input, one precision. A block names its images by keys that change with
the file and with its decoding, so a list of images finds what was computed for any other list, and a run
that was killed goes on after its last block.

Every block begins with its sha256; a damaged one is never used. Without a folder, or if it cannot be
written, features stay in memory, rounded to float16 all the same. Several processes (see ``distributed``)
compute a block each in turn; the main one reads and writes the files.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.distributed import from_main, interleave, is_main, my_share
from common.progress import Announcement, progress_bar
from dataset.images import release_memory_map
from utils import UserError, atomic_path, save_json, sha256_json

if TYPE_CHECKING:
    from torch import nn

    from data_loader import ImageSet

log = logging.getLogger(__name__)

BLOCK = 256  # images: 13 MB of pixels at 224 pixels a side, 1 MB of 2048 features
DIGEST = 32  # bytes of a sha256
KEY = 16  # bytes of an image's key
BLOCK_PATTERN = "*.features"

# Pixels uint8 [B, S, S] and their image ids -> features float [B, D].
Compute = Callable[[np.ndarray, Sequence[str]], np.ndarray]


def sha256_weights(network: nn.Module) -> str:
    """Hash names, kinds, shapes and values of a network's weights and BatchNorm statistics."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # no output depends on it
            continue
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


class FeaturesOverflowError(UserError):
    """Features of a network are not finite, or beyond the range of float16."""


class FeatureCache:
    """Features of one space: looked up below ``cache_dir``, computed where they are missing.

    ``facts``: everything that features depend on besides the image (plain types); ``compute`` makes ``dim``
    features of each image. ``cache_dir`` None: nothing is kept. ``hint``: option that shortens a long
    computation; ``remedy``: what to do about a network whose features overflow.
    """

    def __init__(
        self, cache_dir: str | Path | None, facts: dict[str, Any], compute: Compute, dim: int,
        *, hint: str = "", remedy: str = "",
    ) -> None:  # fmt: skip
        self.key = sha256_json(facts)
        self.facts, self.compute, self.dim = facts, compute, dim
        self.folder = Path(cache_dir) / "features" / self.key[:20] if cache_dir is not None else None
        self.hint, self.remedy = hint, remedy

    def features(self, images: ImageSet, rows: np.ndarray | None = None, desc: str = "features") -> np.ndarray:
        """Return float16 [N, dim] for ``rows`` of ``images`` (default: all rows).

        Raises ``FeaturesOverflowError`` if they do not fit into float16.
        """
        rows = np.arange(len(images.records)) if rows is None else np.asarray(rows)
        keys = [images.row_keys[int(row)] for row in rows] if len(images.row_keys) else []
        features, missing = from_main(self._known, keys, len(rows))
        to_do = np.flatnonzero(missing)
        blocks = [to_do[start : start + BLOCK] for start in range(0, len(to_do), BLOCK)]
        names = images.records["image_id"].to_numpy()

        def computed() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            mine = blocks[my_share()]
            pixels = _ahead(mine, lambda block: np.ascontiguousarray(images.pixels[rows[block]]))
            for block, part in zip(mine, pixels, strict=True):
                yield block, self._half(self.compute(part, list(names[rows[block]])))

        done = len(rows) - int(missing.sum())
        with progress_bar(total=len(rows), initial=done, desc=desc, unit="img", disable=not blocks) as bar:
            announcement = Announcement(len(rows) - done, "features", self.hint, log.info)
            for block, made in interleave(computed()):
                features[block] = made
                if keys and is_main():
                    self._keep([keys[position] for position in block], features[block])
                release_memory_map(images.pixels)
                bar.update(len(block))
                announcement.after(len(block))
        return features

    # --- files ---
    def _known(self, keys: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (features float16 [n, dim], bool [n]: which are still missing in them)."""
        features = np.empty((n, self.dim), dtype=np.float16)
        if not keys or self.folder is None:
            return features, np.ones(n, dtype=bool)
        return features, self._look_up(self.folder, keys, features)

    def _look_up(self, folder: Path, keys: Sequence[str], features: np.ndarray) -> np.ndarray:
        """Fill ``features`` from intact blocks in ``folder``; returns bool [N]: which are missing."""
        missing = np.ones(len(keys), dtype=bool)
        position_of = {key: position for position, key in enumerate(keys)}
        for file in sorted(folder.glob(BLOCK_PATTERN)):
            if not missing.any():
                break
            try:
                with file.open("rb") as opened:
                    held = [position_of.get(key, -1) for key in _read_keys(opened)]
                    if not any(position >= 0 and missing[position] for position in held):
                        continue
                    opened.seek(0)
                    block = _read_block(opened.read(), len(held), self.dim)
            except (OSError, ValueError, EOFError):
                block = None
            if block is None:
                continue
            taken = [row for row, position in enumerate(held) if position >= 0]
            places = [held[row] for row in taken]
            features[places] = block[taken]
            missing[places] = False
        return missing

    def _keep(self, keys: Sequence[str], features: np.ndarray) -> None:
        """Write a block; once one cannot be written, nothing is kept any more."""
        if self.folder is None:
            return
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:20]
        try:
            if not (about := self.folder / "about.json").is_file():
                save_json(about, self.facts)
            with atomic_path(self.folder / f"{name}.features", durable=False) as temporary:
                temporary.write_bytes(_block_bytes(keys, features))
        except OSError as error:
            reason = error.strerror or error
            log.warning(
                f"WARNING: {self.folder.parent} cannot be used ({reason}), so features are computed again in "
                "every run; name another folder with --cache-dir, or use none with --no-cache"
            )
            self.folder = None

    def _half(self, features: np.ndarray) -> np.ndarray:
        """Round to float16; raises ``FeaturesOverflowError`` if that is impossible."""
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if not np.isfinite(half).all():
            name = self.facts.get("network", "the network")
            raise FeaturesOverflowError(
                f"features of {name} are not finite, or beyond the range of float16 (65,504), so they cannot "
                + f"be used; {self.remedy}".removesuffix("; ")
            )
        return half


# --- blocks ----------------------------------------------------------------------------------------
def _ahead(items: Sequence[Any], make: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield ``make`` of each item, made one ahead in another thread while the network computes."""
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for item in items:
            ready, waiting = waiting, thread.submit(make, item)
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()


def _block_bytes(keys: Sequence[str], features: np.ndarray) -> bytes:
    """Join the sha256 of what follows, keys uint8 [B, 16] and features float16 [B, D], both as .npy."""
    content = io.BytesIO()
    np.save(content, np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, KEY))
    np.save(content, features)
    return hashlib.sha256(content.getvalue()).digest() + content.getvalue()


def _read_keys(file: io.BufferedReader) -> list[str]:
    """Read the keys of a block without verifying them; raises ``ValueError`` or ``EOFError`` if damaged."""
    file.seek(DIGEST)
    keys = np.load(file, allow_pickle=False)
    if keys.dtype != np.uint8 or keys.shape[1:] != (KEY,):
        raise ValueError("not an array of keys")
    return [key.tobytes().hex() for key in keys]


def _read_block(content: bytes, n: int, dim: int) -> np.ndarray | None:
    """Return float16 [n, dim] of a block, None if it is not what was written."""
    if hashlib.sha256(memoryview(content)[DIGEST:]).digest() != content[:DIGEST]:
        return None
    stream = io.BytesIO(content)
    stream.seek(DIGEST)
    np.load(stream, allow_pickle=False)
    features = np.load(stream, allow_pickle=False)
    return features if features.shape == (n, dim) and features.dtype == np.float16 else None
