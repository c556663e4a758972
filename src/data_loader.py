"""Records of the RSNA dataset -> pixels, in the ranges that networks take; and a checker of a data folder.

Tables of the dataset become records in ``dataset/records.py``. There is one preprocessing: gray, antialiased
bilinear resize to a square of ``image_size`` pixels, uint8 in [0, 255]; from there ``to_gan_range`` gives
[-1, 1] and ``to_classifier_range`` ImageNet mean/std.

Run as a script, it checks a data folder:  python src/data_loader.py --data-dir ./data/processed
"""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, number, run_script
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from common.progress import progress_bar
from dataset.checker_report import describe_bad, describe_dataset, describe_pictures
from dataset.image_files import describe_missing
from dataset.image_ids import name_some
from dataset.image_list import Decode, ImageList, decode_or_reason, list_images
from dataset.images import MISSING, decoder_version
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, cache_folder
from dataset.picture_checks import check_pictures
from dataset.picture_facts import PictureFacts, facts_from, facts_table, read_and_measure
from dataset.pixel_cache import count_missing, load_pixels
from dataset.records import CHECK_COMMAND, load_dataset, load_official_test
from dataset.splits import describe_splits, load_or_create_splits, twin_flags
from utils import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

log = logging.getLogger(__name__)

# What folders are called in messages about their pictures.
LABELLED, OFFICIAL, SYNTHETIC = "labelled images", "official test images", "synthetic images"
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageSet:
    """Decoded images: ``pixels`` uint8 [N, S, S] in the order of ``records``; ``skipped``: bad image ids.

    ``pixels`` is a read-only memory map where it comes from the cache. ``facts``: of each image.
    ``reasons``: bad image id -> why it cannot be read. ``key``: sha256 of the files' names,
    sizes and times of change, and of the way of decoding: the same for the same pixels. ``row_keys``: such a
    key for each image, under which results about it are cached, whatever list it is in.
    """

    records: pd.DataFrame
    pixels: np.ndarray
    skipped: list[str]
    key: str = ""
    row_keys: Sequence[str] = ()
    facts: Sequence[PictureFacts] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    def picture_table(self) -> pd.DataFrame:
        """Return ``records`` with a column for each of the ``PictureFacts``."""
        import pandas as pd

        return pd.concat([self.records.reset_index(drop=True), facts_table(self.facts)], axis=1)


# --- pixels ----------------------------------------------------------------------------------------
def load_images(
    records: pd.DataFrame,
    image_size: int,
    *,
    workers: int = 4,
    skip_bad: bool = False,
    desc: str = "decoding images",
    cache_dir: str | Path | None = None,
    through: int | None = None,
    bits: int | None = None,
) -> ImageSet:
    """Decode ``records`` (columns image_id, path). An image takes image_size**2 bytes.

    ``through``: side in pixels that images are reduced to before they are brought to ``image_size``; None:
    they are decoded directly. ``bits``: how many of 16 bits are in use; None: all.

    With ``cache_dir``, images are decoded once and kept there (see ``dataset/pixel_cache.py``). Without it,
    or if that folder cannot be used, they lie in memory. The pixels are the same. Raises
    ``UserError`` naming the missing or unreadable images and the reasons. With ``skip_bad`` these are instead
    left out of ``records`` and ``pixels`` and named in ``skipped``. A bad image never becomes a black one.
    Whether the pixels show anything is asked by ``judge_pictures``.
    """
    files = list(records["path"])
    images = list_images(files, image_size, decoder_version(through, bits, files))

    def decode(path: Path) -> tuple[np.ndarray, PictureFacts]:
        return read_and_measure(path, image_size, through, bits)

    loaded = None
    if cache_dir is not None and len(records):
        loaded = _from_cache(images, cache_dir, decode, workers, desc)
    pixels, good, notes = loaded or _into_memory(images, files, decode, workers, desc)
    ids = list(records["image_id"])
    reasons = {image_id: str(note) for image_id, fine, note in zip(ids, good, notes, strict=True) if not fine}
    if reasons and not skip_bad:
        raise UserError(_bad_images(records, reasons))
    # A cache that was tampered with may lack facts.
    facts = [facts_from(note) or decode(file)[1] for file, fine, note in zip(files, good, notes, strict=True) if fine]
    if reasons:
        records = records.loc[good]
    kept = images.kept(good.tolist())
    records = records.reset_index(drop=True)
    return ImageSet(records, pixels, list(reasons), kept.key, kept.row_keys(), facts, reasons)


def _bad_images(records: pd.DataFrame, reasons: Mapping[str, str]) -> str:
    """Say which images cannot be read and why, and where missing ones lie instead."""
    named = name_some([f"{image_id}: {reason}" for image_id, reason in reasons.items()], 5)
    bad = records.loc[records["image_id"].isin(reasons)]
    missing = list(bad.loc[bad["image_id"].map(reasons) == MISSING, "path"])
    where = f". {describe_missing(missing)}" if missing else ""
    return (
        f"{named} missing or unreadable in {bad['path'].iloc[0].parent}{where}; `{CHECK_COMMAND} ...` lists them "
        "all, --skip-bad-images goes on without them"
    )


def count_undecoded(
    records: pd.DataFrame, image_size: int, cache_dir: str | Path | None,
    through: int | None = None, bits: int | None = None,
) -> int:  # fmt: skip
    """Count those of ``records`` that ``load_images`` would have to decode."""
    files = list(records["path"])
    return count_missing(list_images(files, image_size, decoder_version(through, bits, files)), cache_dir)


Loaded = tuple["np.ndarray", "np.ndarray", Sequence[Any]]  # pixels of good images, bool [N]: good, facts or reasons


def _from_cache(images: ImageList, cache_dir: str | Path, decode: Decode, workers: int, desc: str) -> Loaded | None:
    """Load from the cache what is there, and decode the rest into it; None if the cache cannot be used."""
    try:
        return load_pixels(images, cache_dir, decode, workers=workers, desc=desc)
    except OSError as error:
        _warn_of_cache(cache_dir, str(error.strerror or error))
        return None


@functools.cache  # once, not for each part of the images
def _warn_of_cache(cache_dir: str | Path, reason: str) -> None:
    log.warning(
        f"WARNING: {cache_dir} cannot be used ({reason}), so images are decoded again in every run; "
        "name another folder with --cache-dir, or use none with --no-cache"
    )


def _into_memory(images: ImageList, files: Sequence[Path], decode: Decode, workers: int, desc: str) -> Loaded:
    """Decode all images."""
    import numpy as np

    pixels = np.empty((len(files), images.image_size, images.image_size), dtype=np.uint8)
    good = np.zeros(len(files), dtype=bool)

    def fill(position: int) -> Any:
        found, note = decode_or_reason(decode, files[position], images.states[position])
        if found is not None:
            pixels[position], good[position] = found, True
        return note

    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(fill, range(len(files)))
        notes = list(progress_bar(results, total=len(files), desc=desc, unit="img", disable=not files))
    return (pixels if good.all() else pixels[good]), good, notes


def judge_pictures(
    sets: Sequence[ImageSet], what: str, bits: int | None, *, like: ImageSet | None = None, strict: bool = True
) -> list[str]:
    """Look whether the images ``sets`` of one folder, called ``what``, can be learned from; return red flags.

    Logs what is odd. ``like``: images that they must resemble. Raises ``UserError`` for what would make training
    meaningless; not ``strict``, that is a red flag, too.
    """
    import pandas as pd

    sets = [images for images in sets if len(images.records)]
    if not sets:
        return []
    table = pd.concat([images.picture_table() for images in sets], ignore_index=True)
    reference = like.picture_table() if like is not None and len(like.records) else None
    # How small synthetic images are is said once, by ``synthetic.folders.resolution_flag``.
    image_size = 1 if what == SYNTHETIC else sets[0].pixels.shape[1]
    found = check_pictures(table, what, image_size, bits, reference)
    if found.problems and strict:
        raise UserError("; ".join(found.problems))
    for note in found.notes:
        log.info(f"note: {note}")
    flags = found.problems + found.red_flags
    for flag in flags:
        log.warning(f"RED FLAG: {flag}")
    return flags


def to_gan_range(pixels: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """Turn uint8 [N, S, S] into float32 [N, channels, S, S] in [-1, 1], the generator's range (tanh)."""
    images = pixels.unsqueeze(1).float() / 127.5 - 1.0
    return images.expand(-1, channels, -1, -1)


def from_gan_range(images: torch.Tensor) -> torch.Tensor:
    """Turn float [N, C, S, S] in [-1, 1] into uint8 [N, S, S]: mean over channels, rounded, clipped."""
    gray = images.float().mean(dim=1)  # [N, S, S]
    return ((gray + 1.0) * 127.5).round().clamp(0, 255).byte()


# Names what the next function does, in the keys of caches; changes with it.
PREPARED = "gray replicated, ImageNet mean and SD, version 1"


def to_classifier_range(pixels: torch.Tensor) -> torch.Tensor:
    """Turn uint8 [N, S, S] into float32 [N, 3, S, S]: gray replicated, ImageNet mean/std."""
    import torch

    gray = pixels.unsqueeze(1).float() / 255.0  # [N, 1, S, S]
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(1, 3, 1, 1)
    return (gray - mean) / std


def augment_light(pixels: torch.Tensor, generator: torch.Generator | Sequence[torch.Generator]) -> torch.Tensor:
    """Move, turn, scale, brighten and flatten training images a little; uint8 [N, S, S] in and out.

    Each image of [N, S, S] gets its own rotation (+-8 degrees), shift (+-6 % of the side), scale
    (0.9 to 1.1), contrast (0.8 to 1.2 about its mean) and brightness (+-10 % of the range). Never
    mirrored: the heart has a side. Borders are continued outwards. ``generator``: one for all images, or one
    for each, so that the result for an image does not depend on the others.
    """
    import torch

    n = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        if isinstance(generator, torch.Generator):
            drawn = torch.rand(n, generator=generator)
        else:
            drawn = torch.cat([torch.rand(1, generator=each) for each in generator])
        return (low + (high - low) * drawn).to(pixels.device)

    angle, scale = torch.deg2rad(uniform(-8.0, 8.0)), uniform(0.9, 1.1)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # affine_grid works in [-1, 1] coordinates: a shift of 6 % of the side is 0.12 there.
    rows = [cos, -sin, uniform(-0.12, 0.12), sin, cos, uniform(-0.12, 0.12)]
    theta = torch.stack(rows, dim=1).view(n, 2, 3)
    images = pixels.unsqueeze(1).float()  # [N, 1, S, S]
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    padding = "border"
    if pixels.device.type == "mps":  # its grid_sample lacks border padding in torch before 2.13
        edge = 1 - 1 / images.shape[-1]  # centre of the outermost pixel
        grid, padding = grid.clamp(-edge, edge), "zeros"
    images = torch.nn.functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = uniform(0.8, 1.2).view(n, 1, 1, 1), uniform(-25.5, 25.5).view(n, 1, 1, 1)
    images = (images - mean) * contrast + mean + brightness
    return images.squeeze(1).round().clamp(0, 255).byte()


# --- checker ---------------------------------------------------------------------------------------
OPTIONS = (
    *DATA_OPTIONS,
    Option(
        "--image-size", "side of the images that you are going to train with, in pixels; the cache keeps them",
        type=number(int, 1), default=224, metavar="N",
    ),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    *CACHE_OPTIONS,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Check a processed dataset folder, freeze its split, and report what it holds.", OPTIONS)


def report_pictures(labelled: ImageSet, official: ImageSet | None, bits: int | None) -> list[str]:
    """Report on decoded images, bad ones included; return what would make training meaningless."""
    tables = {"labelled": labelled.picture_table()}
    if official is not None:
        tables["official test"] = official.picture_table()
    for name, images in zip(tables, (labelled, official), strict=False):
        if images is not None and images.reasons:
            log.info("\n".join([f"bad {name} images:", *describe_bad(images.reasons)]))
    image_size = labelled.pixels.shape[1]
    log.info("\n".join(describe_pictures(tables, image_size)))
    found = check_pictures(tables["labelled"], LABELLED, image_size, bits)
    for note in found.notes:
        log.info(f"note: {note}")
    for flag in found.red_flags:
        log.warning(f"RED FLAG: {flag}")
    if official is not None:
        judge_pictures([official], OFFICIAL, bits, like=labelled, strict=False)
    return found.problems


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    check_folders({})  # it writes splits.json at most, beside the images
    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    official = load_official_test(args.data_dir, args.patient_map, args.patient_column)
    keep_run_log(paths.METRICS_DIR)
    log.info("\n".join(describe_dataset(dataset)))

    cache_dir = cache_folder(args.no_cache, args.cache_dir)
    splits = load_or_create_splits(dataset, args.splits, cache_dir)
    log.info(describe_splits(splits))
    if official is None:
        log.info(f"official test set: {paths.TEST_METADATA} is not there")
    else:
        state = f"labelled by {official.why}" if official.labelled else f"unlabelled: {official.why}"
        log.info(f"official test set: {len(official.images):,} images, {state}")
        for note in official.notes:
            log.info(f"note: {note}")
    dataset.red_flags.extend(twin_flags(dataset, splits, cache_dir=cache_dir))
    dataset.log_findings()

    def decode(records: pd.DataFrame, what: str) -> ImageSet:
        return load_images(
            records, args.image_size, workers=args.workers, skip_bad=True, desc=f"checking {what}",
            cache_dir=cache_dir, bits=args.bits,
        )  # fmt: skip

    images = decode(dataset.images, "labelled images")
    problems = report_pictures(images, decode(official.images, "official test images") if official else None, args.bits)
    bad = images.reasons
    if bad and not args.skip_bad_images:
        raise UserError(f"{_bad_images(dataset.images, bad)} (bad images would stop training)")
    good = splits.images[~splits.images["image_id"].isin(bad)]
    if len(good.groupby(["role", "label"])) < 4:
        raise UserError("without the bad images, training or test images are of one class only; restore some of them")
    if problems:
        raise UserError("; ".join(problems))
    log.info("ready for training" + (f" without {len(bad)} bad images" if bad else ""))


if __name__ == "__main__":
    run_script(main)
