"""Records of the RSNA dataset -> pixels, in the ranges that networks take; and a checker of a data folder.

Tables of the dataset become records in ``dataset/records.py``. There is one preprocessing: gray, antialiased
bilinear resize to a square of ``image_size`` pixels, uint8 in [0, 255]; from there ``to_gan_range`` gives
[-1, 1] and ``to_classifier_range`` ImageNet mean/std.

Run as a script, it checks a data folder:  python src/data_loader.py --data-dir ./data/processed
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from common.command_line import argument_parser, number, run_script
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from dataset.image_ids import name_some
from dataset.images import decoder_version, read_image, read_reduced
from dataset.labels import POSITIVE_CLASS
from dataset.options import DATA_OPTIONS
from dataset.patients import GROUPED_BY_IMAGE, GROUPED_BY_PATIENT, grouping_sentence
from dataset.pixel_cache import Decode, ImageList, count_missing, list_images, load_pixels
from dataset.records import CHECK_COMMAND, PLAUSIBLE_AGE, Dataset, load_dataset, load_official_test
from dataset.splits import describe_splits, load_or_create_splits
from utils import UserError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageSet:
    """Decoded images: ``pixels`` uint8 [N, S, S] in the order of ``records``; ``skipped``: bad image ids.

    ``pixels`` is a read-only memory map where it comes from the cache. ``key``: sha256 of the files' names,
    sizes and times of change, and of the way of decoding: the same for the same pixels. ``row_keys``: such a
    key for each image, under which results about it are cached, whatever list it is in.
    """

    records: pd.DataFrame
    pixels: np.ndarray
    skipped: list[str]
    key: str = ""
    row_keys: Sequence[str] = ()


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
) -> ImageSet:
    """Decode ``records`` (columns image_id, path). An image takes image_size**2 bytes.

    ``through``: side in pixels that images are reduced to before they are brought to ``image_size``; None:
    they are decoded directly (see ``dataset.images.read_reduced``).

    With ``cache_dir``, images are decoded once and kept there (see ``dataset/pixel_cache.py``). Without it,
    or if that folder cannot be used, they lie in memory. The pixels are the same. Raises ``UserError`` naming
    the missing or unreadable images. With ``skip_bad`` these are instead left out of ``records`` and
    ``pixels`` and named in ``skipped``. A bad image never becomes a black one.
    """
    images = list_images(list(records["path"]), image_size, decoder_version(through))

    def decode(path: Path) -> np.ndarray:
        return read_image(path, image_size) if through is None else read_reduced(path, image_size, through)

    cached = None
    if cache_dir is not None and len(records):
        cached = _from_cache(images, cache_dir, decode, workers, desc)
    pixels, good = cached or _into_memory(list(records["path"]), image_size, decode, workers, desc)
    skipped = list(records.loc[~good, "image_id"]) if not good.all() else []
    if skipped and not skip_bad:
        raise UserError(
            f"{name_some(skipped)} missing or unreadable in {Path(records['path'].iloc[0]).parent}; "
            f"`{CHECK_COMMAND} ...` lists them, --skip-bad-images goes on without them"
        )
    if skipped:
        records = records.loc[good]
    kept = images.kept(good.tolist())
    return ImageSet(records.reset_index(drop=True), pixels, skipped, kept.key, kept.row_keys())


def count_undecoded(
    records: pd.DataFrame, image_size: int, cache_dir: str | Path | None, through: int | None = None
) -> int:
    """Count those of ``records`` that ``load_images`` would have to decode."""
    return count_missing(list_images(list(records["path"]), image_size, decoder_version(through)), cache_dir)


def _from_cache(
    images: ImageList, cache_dir: str | Path, decode: Decode, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (pixels of the good images, bool [N]: which are good); None if the cache cannot be used."""
    try:
        return load_pixels(images, cache_dir, decode, workers=workers, desc=desc)
    except OSError as error:
        reason = error.strerror or error
        log.warning(
            f"WARNING: {cache_dir} cannot be used ({reason}), so images are decoded again in every run; "
            "name another folder with --cache-dir, or use none with --no-cache"
        )
        return None


def _into_memory(
    files: Sequence[Path], image_size: int, decode: Decode, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (pixels of the good images, bool [N]: which are good)."""
    import numpy as np

    from common.progress import progress_bar

    pixels = np.empty((len(files), image_size, image_size), dtype=np.uint8)

    def fill(position: int) -> bool:
        try:
            pixels[position] = decode(files[position])
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(fill, range(len(files)))
        bar = progress_bar(results, total=len(files), desc=desc, unit="img", disable=not files)
        good = np.fromiter(bar, dtype=bool, count=len(files))
    return (pixels if good.all() else pixels[good]), good


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
def report_images(records: pd.DataFrame, workers: int, desc: str) -> list[str]:
    """Decode every file and print which are missing or unreadable; returns their ids."""
    from common.progress import progress_bar

    def fault(path: Path) -> str | None:
        if not path.is_file():
            return "missing"
        try:
            read_image(path, 8)
        except OSError:
            return "unreadable"
        return None

    ids, files = list(records["image_id"]), list(records["path"])
    with ThreadPoolExecutor(max(1, workers)) as pool:
        faults = list(progress_bar(pool.map(fault, files), total=len(files), desc=desc, unit="img"))
    bad: list[str] = []
    for kind in ("missing", "unreadable"):
        if names := [name for name, found in zip(ids, faults, strict=True) if found == kind]:
            log.info(f"{kind}: {name_some(names)}")
            bad += names
    return bad


def describe_dataset(dataset: Dataset) -> list[str]:
    """Describe the labelled images in lines: sizes, grouping, classes, prevalence, people."""
    images = dataset.images
    groups, prevalence = images["patient"].nunique(), images["label"].mean()
    counts = images["class"].value_counts()
    lines = [
        f"{dataset.data_dir}: {dataset.rows:,} rows, {len(images):,} images, {groups:,} patients or groups",
        f"grouping: {grouping_sentence(dataset.grouped_by)}",
    ]
    if dataset.grouped_by != GROUPED_BY_IMAGE and dataset.unmapped:
        by = "mapping" if dataset.grouped_by == GROUPED_BY_PATIENT else "column"
        lines.append(f"images whose patient the {by} lacks: {dataset.unmapped:,}")
    lines += [
        "classes: " + ", ".join(f"{name or 'not Lung Opacity'} {n:,}" for name, n in counts.items()),
        f"prevalence of {POSITIVE_CLASS}: {prevalence:.1%}",
        f'accuracy of always saying "negative": {1 - prevalence:.1%}',
        *describe_people(images),
    ]
    if (unknown := int(images["age"].isna().sum())) > 0:
        lines.append(f"ages missing or above {PLAUSIBLE_AGE} years, taken as unknown: {unknown:,}")
    return lines


def describe_people(images: pd.DataFrame) -> list[str]:
    """Describe view, sex and age of each class, a line each."""

    def counts(values: pd.Series) -> str:
        return ", ".join(f"{value or 'unknown'} {n}" for value, n in values.value_counts().items())

    lines = []
    for name, group in images.groupby("class"):
        view, sex = counts(group["view"]), counts(group["sex"])
        known = group["age"].dropna()
        age = f"median {known.median():.0f} (quartiles {known.quantile(0.25):.0f}-{known.quantile(0.75):.0f})"
        age = age if len(known) else "unknown"
        lines.append(f"  {str(name) or 'not Lung Opacity'}: view {view}; sex {sex}; age {age}")
    return lines


OPTIONS = (
    *DATA_OPTIONS,
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
)


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Check a processed dataset folder, freeze its split, and report what it holds.", OPTIONS)


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    check_folders({})  # it writes splits.json at most, beside the images
    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    official = load_official_test(args.data_dir, args.patient_map, args.patient_column)
    keep_run_log(paths.METRICS_DIR)
    log.info("\n".join(describe_dataset(dataset)))

    splits = load_or_create_splits(dataset, args.splits)
    log.info(describe_splits(splits))

    dataset.log_findings()
    bad = report_images(dataset.images, args.workers, "checking training images")
    if official is None:
        log.info(f"official test set: {paths.TEST_METADATA} is not there")
    else:
        state = f"labelled by {official.why}" if official.labelled else f"unlabelled: {official.why}"
        log.info(f"official test set: {len(official.images):,} images, {state}")
        bad += report_images(official.images, args.workers, "checking official test images")

    if bad and not args.skip_bad_images:
        raise UserError(f"{len(bad)} bad images would stop training; --skip-bad-images goes on without them")
    good = splits.images[~splits.images["image_id"].isin(bad)]
    if len(good.groupby(["role", "label"])) < 4:
        raise UserError("without the bad images, training or test images are of one class only; restore some of them")
    log.info("ready for training" + (f" without {len(bad)} bad images" if bad else ""))


if __name__ == "__main__":
    run_script(main)
