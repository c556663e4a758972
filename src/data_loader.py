"""The RSNA dataset on disk -> one record per image -> pixels, and a checker of all that.

The facts of the dataset stand in one table below. Rows of the metadata are bounding boxes, not images,
and ``patientId`` names an image, not a person: both are put right here, before anything else sees the data.

One documented preprocessing: gray, antialiased bilinear resize to a square of ``image_size`` pixels,
uint8 in [0, 255]; from there ``to_gan_range`` gives [-1, 1] and ``to_classifier_range`` ImageNet mean/std.

Run as a script, it checks a data folder:  python src/data_loader.py --data-dir ./data/processed
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paths
from image_cache import ImageList, count_missing, list_images, load_pixels
from utils import UserError, argument_parser, load_json, number, run_script, sha256_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

# --- facts of the dataset --------------------------------------------------------------------------
POSITIVE_CLASS = "Lung Opacity"
LABEL_OF_CLASS = {"Normal": 0, "No Lung Opacity / Not Normal": 0, POSITIVE_CLASS: 1}
PLACEHOLDER_PREDICTION = "0.5 0 0 100 100"  # RSNA's sample submission, the same for every test image
BOX_FRAME = 1024  # box coordinates are pixels of a 1024 x 1024 image, whatever the PNG's size
PLAUSIBLE_AGE = 110  # years; the source has typos up to 155
GROUPED_BY_PATIENT = "nih_patient"
GROUPED_BY_IMAGE = "image_id"
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)

CHECK_COMMAND = "python src/data_loader.py --data-dir"
DECODING = 1  # version of read_image: to be raised with every change of the pixels that it makes
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # no separator, so an id cannot leave its folder


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a data folder, one record each.

    ``images``: image_id, patient, label (0/1), class, view, sex, age (years, NaN if unknown or
    implausible), n_boxes, path; sorted by image_id. ``rows``: metadata rows (boxes) they came from.
    ``unmapped``: images that the patient mapping lacks, each a group of its own.
    """

    data_dir: Path
    images: pd.DataFrame
    grouped_by: str
    data_sha256: str
    rows: int
    unmapped: int


@dataclass(frozen=True)
class OfficialTest:
    """The images of the official test CSV; ``labelled`` is False when its labels are no labels.

    ``images``: image_id, patient, label (only if labelled), class, view, sex, age, path.
    """

    images: pd.DataFrame
    labelled: bool
    why: str


@dataclass(frozen=True)
class ImageSet:
    """Decoded images: ``pixels`` uint8 [N, S, S] in the order of ``records``; ``skipped``: bad image ids.

    ``pixels`` is a read-only memory map where it comes from the cache. ``key``: sha256 of the files' names,
    sizes and times of change, and of how they were decoded: the same for the same pixels. ``row_keys``: such
    a key of each image, so that what was computed of it is found whatever list it stands in.
    """

    records: pd.DataFrame
    pixels: np.ndarray
    skipped: list[str]
    key: str = ""
    row_keys: Sequence[str] = ()


# --- command line ----------------------------------------------------------------------------------
def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every script reading the dataset shares."""
    parser.add_argument("--data-dir", default=paths.DATA_DIR, metavar="PATH", help="processed dataset folder")
    parser.add_argument(
        "--splits",
        metavar="PATH",
        help="frozen train/test split, written by the first script that needs it "
        f"(default: <data-dir>/{paths.SPLITS})",
    )
    parser.add_argument(
        "--patient-map",
        metavar="PATH",
        help="official RSNA-to-NIH mapping, which tells the images of one person "
        f"(default: <data-dir>/{paths.PATIENT_MAP} if it is there)",
    )
    parser.add_argument(
        "--skip-bad-images",
        action="store_true",
        help="go on without missing or unreadable images and record them, instead of stopping",
    )


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every script that decodes the dataset; ``cache_folder`` reads them."""
    parser.add_argument(
        "--cache-dir",
        default=paths.CACHE_DIR,
        metavar="PATH",
        help="folder for what need not be computed twice, decoded images among it; may be deleted",
    )
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write --cache-dir")


def cache_folder(args: argparse.Namespace) -> str | None:
    return None if args.no_cache else args.cache_dir


# --- metadata --------------------------------------------------------------------------------------
def read_metadata(path: Path) -> pd.DataFrame:
    """Read a metadata CSV as it is, one row per box, every value a stripped string.

    Tolerates a byte-order mark and CRLF. ``UserError`` if it is missing, empty, not a CSV, lacks
    ``patientId``, or has an id that is not a plain file name.
    """
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path} is missing; `python src/download_dataset.py` fetches the dataset")
    try:
        rows = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}") from None
    rows.columns = rows.columns.str.strip()
    if "patientId" not in rows:
        raise UserError(f"{path} has no column patientId; its columns are {', '.join(rows.columns)}")
    rows = rows.apply(lambda column: column.str.strip())
    bad = rows.loc[~rows["patientId"].map(lambda name: bool(SAFE_ID.fullmatch(name))), "patientId"]
    if not bad.empty:
        raise UserError(
            f"{path.name}: patientId {bad.iloc[0]!r} is refused: it must be a plain file name without folders"
        )
    return rows


def reduce_to_images(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """One record per image: image_id, label, class, view, sex, age, n_boxes; sorted by image_id.

    ``UserError`` naming the image if its rows carry two labels or classes, or Target and class disagree.
    """
    import pandas as pd

    if "Target" not in rows and "class" not in rows:
        raise UserError(f"{source} has neither Target nor class: images without labels cannot be trained on")
    classes = _canonical_classes(rows, source) if "class" in rows else None
    labels = _labels(rows, classes, source)
    table = pd.DataFrame(
        {
            "image_id": rows["patientId"],
            "label": labels,
            "class": classes if classes is not None else labels.map({1: POSITIVE_CLASS, 0: ""}),
            "view": _column(rows, "position").str.upper(),
            "sex": _column(rows, "sex").str.upper(),
            "age": _ages(rows),
            "n_boxes": (_column(rows, "x") != "").astype(int),
        }
    )
    per_image = table.groupby("image_id", sort=True)
    for column in ("label", "class"):
        mixed = per_image[column].nunique()
        mixed = mixed[mixed > 1]
        if not mixed.empty:
            raise UserError(f"{source}: image {mixed.index[0]} has rows with different {column} values")
    images = per_image.first()
    images["n_boxes"] = per_image["n_boxes"].sum()
    return images.reset_index()


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    import pandas as pd

    return rows[name] if name in rows else pd.Series("", index=rows.index, dtype=str)


def _ages(rows: pd.DataFrame) -> pd.Series:
    import pandas as pd

    ages = pd.to_numeric(_column(rows, "age"), errors="coerce")
    return ages.where(ages.between(0, PLAUSIBLE_AGE))


def _canonical_classes(rows: pd.DataFrame, source: str) -> pd.Series:
    """Class names in the official spelling; spaces around the slash and case do not matter."""
    canonical = {re.sub(r"\s+", "", name).lower(): name for name in LABEL_OF_CLASS}
    classes = rows["class"].map(lambda name: canonical.get(re.sub(r"\s+", "", name).lower()))
    if classes.isna().any():
        row = rows.loc[classes.isna()].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has class {row['class']!r}; "
            f"allowed are {', '.join(LABEL_OF_CLASS)}"
        )
    return classes


def _labels(rows: pd.DataFrame, classes: pd.Series | None, source: str) -> pd.Series:
    """0/1 per row from Target, class, or both, which then must agree."""
    import pandas as pd

    from_class = classes.map(LABEL_OF_CLASS).astype(int) if classes is not None else None
    if "Target" not in rows:
        return from_class
    target = pd.to_numeric(rows["Target"], errors="coerce")
    if not target.isin([0, 1]).all():
        row = rows.loc[~target.isin([0, 1])].iloc[0]
        raise UserError(f"{source}: image {row['patientId']} has Target {row['Target']!r}; allowed: 0, 1")
    target = target.astype(int)
    if from_class is not None and (target != from_class).any():
        row = rows.loc[target != from_class].iloc[0]
        raise UserError(
            f"{source}: image {row['patientId']} has Target {row['Target']} but class {row['class']!r}; "
            f"only {POSITIVE_CLASS!r} is 1"
        )
    return target


# --- patients --------------------------------------------------------------------------------------
def read_patient_map(path: Path) -> dict[str, str]:
    """image id -> NIH patient, from the official mapping (NIH files are named ``<patient>_<number>.png``)."""
    entries = load_json(path)
    try:
        pairs = [(str(entry["subset_img_id"]), str(entry["img_id"]).split("_", 1)[0]) for entry in entries]
    except (TypeError, KeyError):
        raise UserError(
            f"{path} is not the official mapping: a list of objects with subset_img_id and img_id is expected"
        ) from None
    patient_of = dict(pairs)
    if not patient_of:
        raise UserError(f"{path} is empty: the official mapping names 26,684 images")
    for image_id, patient in pairs:
        if patient_of[image_id] != patient:
            raise UserError(f"{path}: image {image_id} is mapped to two patients")
    return patient_of


def find_patient_map(data_dir: Path, patient_map: str | Path | None) -> Path | None:
    """The mapping to use: the one given, else the one in the data folder, else none."""
    if patient_map is not None:
        return Path(patient_map)
    inside = data_dir / paths.PATIENT_MAP
    return inside if inside.is_file() else None


def _with_patients(images: pd.DataFrame, patient_of: dict[str, str]) -> pd.DataFrame:
    """Add ``patient``; an image that the mapping lacks is its own group."""
    return images.assign(patient=[patient_of.get(image_id, image_id) for image_id in images["image_id"]])


def grouping_sentence(grouped_by: str) -> str:
    """What ``grouped_by`` means, in words that go into every report."""
    if grouped_by == GROUPED_BY_PATIENT:
        return "images are grouped by NIH patient (official mapping)"
    return (
        f"images are grouped by image id: {paths.PATIENT_MAP} is not there, so one person's images may lie "
        "on both sides of a split"
    )


# --- the whole dataset -----------------------------------------------------------------------------
def load_dataset(data_dir: str | Path, patient_map: str | Path | None = None) -> Dataset:
    """Read the labelled metadata of ``data_dir``; images are not opened. ``UserError`` if it is unusable."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder; `python src/download_dataset.py` fetches the dataset")
    metadata = data_dir / paths.TRAIN_METADATA
    rows = read_metadata(metadata)
    if rows.empty:
        raise UserError(f"{metadata} holds no rows")
    images = reduce_to_images(rows, metadata.name)
    map_file = find_patient_map(data_dir, patient_map)
    patient_of = read_patient_map(map_file) if map_file else {}
    unmapped = int((~images["image_id"].isin(patient_of)).sum())
    if map_file and unmapped == len(images):
        raise UserError(f"{map_file} knows none of the images of {metadata}: it is another dataset's mapping")
    images = _with_patients(images, patient_of)
    folder = paths.training_images(data_dir)
    images["path"] = [folder / f"{image_id}.png" for image_id in images["image_id"]]
    if images["label"].nunique() < 2:
        raise UserError(f"{metadata} has images of one class only: nothing can be learned from it")
    return Dataset(
        data_dir=data_dir,
        images=images,
        grouped_by=GROUPED_BY_PATIENT if map_file else GROUPED_BY_IMAGE,
        data_sha256=sha256_file(metadata),
        rows=len(rows),
        unmapped=unmapped,
    )


def load_official_test(data_dir: str | Path, patient_map: str | Path | None = None) -> OfficialTest | None:
    """The official test images, or None where there is no test CSV or no row in it.

    Constant, empty or placeholder labels are no labels: then ``labelled`` is False and there is no column
    ``label``, so that no metric can be computed from them by accident.
    """
    data_dir = Path(data_dir)
    metadata = data_dir / paths.TEST_METADATA
    if not metadata.is_file():
        return None
    rows = read_metadata(metadata)
    if rows.empty:
        return None
    labels, why = _official_labels(rows)
    if labels is None or ("class" in rows and rows["class"].eq("").any()):
        rows = rows.drop(columns=["class"], errors="ignore")
    rows = rows.assign(Target="0" if labels is None else labels.map(str))
    images = reduce_to_images(rows, metadata.name)
    if labels is None:
        images = images.drop(columns=["label"])
    map_file = find_patient_map(data_dir, patient_map)
    images = _with_patients(images, read_patient_map(map_file) if map_file else {})
    folder = paths.test_images(data_dir)
    if (folder / "Images").is_dir():
        folder = folder / "Images"
    images["path"] = [folder / f"{image_id}.png" for image_id in images["image_id"]]
    return OfficialTest(images=images, labelled=labels is not None, why=why)


def _official_labels(rows: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """(0/1 per row, or None if the CSV holds no labels, the reason in words)."""
    import pandas as pd

    if "Target" in rows and rows["Target"].ne("").any():
        target = pd.to_numeric(rows["Target"], errors="coerce")
        if not target.isin([0, 1]).all():
            return None, "its Target column is not 0 or 1 throughout"
        labels, source = target.astype(int), "its Target column"
    elif "PredictionString" in rows:
        predictions = rows["PredictionString"]
        if predictions.eq("").all():
            return None, "its PredictionString column is empty"
        if predictions.eq(PLACEHOLDER_PREDICTION).any():
            return None, f"PredictionString is the sample-submission placeholder {PLACEHOLDER_PREDICTION!r}"
        labels, source = predictions.ne("").astype(int), "its PredictionString column (boxes or empty)"
    else:
        return None, "it has neither PredictionString nor Target"
    if labels.nunique() < 2:
        return None, f"{source} says the same for every image"
    return labels, source


# --- pixels ----------------------------------------------------------------------------------------
def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """Decode a PNG (8- or 16-bit gray, RGB, RGBA, palette; any size) to gray uint8 [image_size, image_size].

    16-bit samples are divided by 257, PNG's own scaling to 8 bits; transparency is ignored; antialiased
    bilinear resize. ``OSError`` if the file is missing or damaged.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):  # 16-bit gray: PIL would clip it to 255
                gray = Image.fromarray((np.asarray(image, dtype=np.float32) / 257.0).clip(0, 255))
            else:
                gray = image if image.mode == "L" else image.convert("RGB").convert("L")
            resized = gray.resize((image_size, image_size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"not a readable image: {error}") from None
    return np.asarray(resized).round().astype(np.uint8)


def load_images(
    records: pd.DataFrame,
    image_size: int,
    *,
    workers: int = 4,
    skip_bad: bool = False,
    desc: str = "decoding images",
    cache_dir: str | Path | None = None,
) -> ImageSet:
    """Decode ``records`` (columns image_id, path): image_size**2 bytes an image.

    With ``cache_dir`` they are decoded once and come from there (see ``image_cache``), else, or if that
    folder cannot be used, they lie in memory; the pixels are the same. ``UserError`` naming the missing or
    unreadable images, unless ``skip_bad``: then they are left out of ``records`` and ``pixels`` and named in
    ``skipped``. A bad image never becomes a black one.
    """
    images = list_images(list(records["path"]), image_size, _decoder())
    cached = None
    if cache_dir is not None and len(records):
        cached = _from_cache(images, cache_dir, workers, desc)
    pixels, good = cached or _into_memory(list(records["path"]), image_size, workers, desc)
    skipped = list(records.loc[~good, "image_id"]) if not good.all() else []
    if skipped and not skip_bad:
        raise UserError(
            f"{name_some(skipped)} missing or unreadable in {Path(records['path'].iloc[0]).parent}; "
            f"`{CHECK_COMMAND} ...` lists them, --skip-bad-images goes on without them"
        )
    if skipped:
        records = records.loc[good]
    kept = images.kept(good)
    return ImageSet(records.reset_index(drop=True), pixels, skipped, kept.key, kept.row_keys())


def count_undecoded(records: pd.DataFrame, image_size: int, cache_dir: str | Path | None) -> int:
    """How many of ``records`` would ``load_images`` have to decode?"""
    return count_missing(list_images(list(records["path"]), image_size, _decoder()), cache_dir)


def _decoder() -> str:
    """What pixels depend on besides the file and the size: this code and the library that it calls."""
    import PIL

    return f"gray, antialiased bilinear, version {DECODING}, Pillow {PIL.__version__}"


def _from_cache(
    images: ImageList, cache_dir: str | Path, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """(pixels of the good images, which are good); None, with a line why, if the cache cannot be used."""

    def decode(path: Path) -> np.ndarray:
        return read_image(path, images.image_size)

    try:
        return load_pixels(images, cache_dir, decode, workers=workers, desc=desc)
    except OSError as error:
        reason = error.strerror or error
        print(
            f"WARNING: {cache_dir} cannot be used ({reason}): images are decoded again in every run; "
            "--cache-dir names another folder, --no-cache needs none",
            flush=True,
        )
        return None


def _into_memory(
    files: Sequence[Path], image_size: int, workers: int, desc: str
) -> tuple[np.ndarray, np.ndarray]:
    """(pixels of the good images, bool [N]: which are good)."""
    import numpy as np
    from tqdm import tqdm

    pixels = np.empty((len(files), image_size, image_size), dtype=np.uint8)

    def decode(position: int) -> bool:
        try:
            pixels[position] = read_image(files[position], image_size)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(decode, range(len(files)))
        bar = tqdm(results, total=len(files), desc=desc, unit="img", disable=not files)
        good = np.fromiter(bar, dtype=bool, count=len(files))
    return (pixels if good.all() else pixels[good]), good


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """A tensor over the same memory, also of a read-only map, which nobody here writes to."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def let_go(pixels: np.ndarray) -> None:
    """Pages of a memory map that have been read count as this process's memory until they are let go; other
    arrays are left alone. They stay readable: the system keeps or fetches the file's pages as it can."""
    import mmap

    base = pixels
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def name_some(image_ids: list[str], limit: int = 10) -> str:
    """ "3 images (a, b, c)": the count and the first ``limit`` names."""
    count = f"{len(image_ids)} image{'s' if len(image_ids) != 1 else ''}"
    more = ", ..." if len(image_ids) > limit else ""
    return f"{count} ({', '.join(image_ids[:limit])}{more})"


def to_gan_range(pixels: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """uint8 [N, S, S] -> float32 [N, channels, S, S] in [-1, 1], the range of the generator's tanh."""
    images = pixels.unsqueeze(1).float() / 127.5 - 1.0
    return images.expand(-1, channels, -1, -1)


def from_gan_range(images: torch.Tensor) -> torch.Tensor:
    """float [N, C, S, S] in [-1, 1] -> uint8 [N, S, S]: mean over channels, rounded, clipped."""
    gray = images.float().mean(dim=1)  # [N, S, S]
    return ((gray + 1.0) * 127.5).round().clamp(0, 255).byte()


PREPARED = "gray replicated, ImageNet mean and SD, version 1"  # by the next function, for caches


def to_classifier_range(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, S, S] -> float32 [N, 3, S, S], gray replicated, ImageNet mean/std."""
    import torch

    gray = pixels.unsqueeze(1).float() / 255.0  # [N, 1, S, S]
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(1, 3, 1, 1)
    return (gray - mean) / std


def augment_light(
    pixels: torch.Tensor, generator: torch.Generator | Sequence[torch.Generator]
) -> torch.Tensor:
    """Training only: the same image a little moved, turned, scaled, brighter or flatter; uint8 in and out.

    Each image of [N, S, S] gets its own rotation (+-8 degrees), shift (+-6 % of the side), scale
    (0.9 to 1.1), contrast (0.8 to 1.2 about its mean) and brightness (+-10 % of the range). Never
    mirrored: the heart has a side. Borders are continued outwards. ``generator``: one for all images, or one
    for each, so that what becomes of an image does not depend on the others.
    """
    import torch

    n = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        if isinstance(generator, torch.Generator):
            drawn = torch.rand(n, generator=generator)
        else:
            drawn = torch.cat([torch.rand(1, generator=own) for own in generator])
        return (low + (high - low) * drawn).to(pixels.device)

    angle, scale = torch.deg2rad(uniform(-8.0, 8.0)), uniform(0.9, 1.1)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # affine_grid works in [-1, 1] coordinates: a shift of 6 % of the side is 0.12 there.
    rows = [cos, -sin, uniform(-0.12, 0.12), sin, cos, uniform(-0.12, 0.12)]
    theta = torch.stack(rows, dim=1).view(n, 2, 3)
    images = pixels.unsqueeze(1).float()  # [N, 1, S, S]
    grid = torch.nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    padding = "border"
    if pixels.device.type == "mps":  # whose grid_sample lacks border padding in torch before 2.13
        edge = 1 - 1 / images.shape[-1]  # centre of the outermost pixel
        grid, padding = grid.clamp(-edge, edge), "zeros"
    images = torch.nn.functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    contrast, brightness = uniform(0.8, 1.2).view(n, 1, 1, 1), uniform(-25.5, 25.5).view(n, 1, 1, 1)
    images = (images - mean) * contrast + mean + brightness
    return images.squeeze(1).round().clamp(0, 255).byte()


# --- checker ---------------------------------------------------------------------------------------
def check_images(records: pd.DataFrame, workers: int, desc: str) -> tuple[list[str], list[str]]:
    """(missing ids, unreadable ids): every file is decoded."""
    from tqdm import tqdm

    missing = [row.image_id for row in records.itertuples() if not row.path.is_file()]
    present = records[~records["image_id"].isin(missing)]

    def readable(path: Path) -> bool:
        try:
            read_image(path, 8)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(max(1, workers)) as pool:
        flags = list(tqdm(pool.map(readable, present["path"]), total=len(present), desc=desc, unit="img"))
    unreadable = [name for name, good in zip(present["image_id"], flags, strict=True) if not good]
    return missing, unreadable


def describe_people(images: pd.DataFrame) -> list[str]:
    """View, sex and age of each class, a line each."""
    lines = []
    for name, group in images.groupby("class"):
        view = ", ".join(f"{v or 'unknown'} {n}" for v, n in group["view"].value_counts().items())
        sex = ", ".join(f"{s or 'unknown'} {n}" for s, n in group["sex"].value_counts().items())
        known = group["age"].dropna()
        age = f"median {known.median():.0f} (quartiles {known.quantile(0.25):.0f}-{known.quantile(0.75):.0f})"
        age = age if len(known) else "unknown"
        lines.append(f"  {name or 'not Lung Opacity'}: view {view}; sex {sex}; age {age}")
    return lines


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Check a processed dataset folder, freeze its split, and report what it holds.")
    add_data_arguments(parser)
    parser.add_argument(
        "--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    import splits as split_files

    dataset = load_dataset(args.data_dir, args.patient_map)
    official = load_official_test(args.data_dir, args.patient_map)
    images = dataset.images
    counts = images["class"].value_counts()
    groups = images["patient"].nunique()
    print(f"{args.data_dir}: {dataset.rows:,} rows, {len(images):,} images, {groups:,} patients or groups")
    print(f"grouping: {grouping_sentence(dataset.grouped_by)}")
    if dataset.grouped_by == GROUPED_BY_PATIENT and dataset.unmapped:
        print(f"images that the mapping lacks, each its own group: {dataset.unmapped:,}")
    print("classes: " + ", ".join(f"{name or 'not Lung Opacity'} {n:,}" for name, n in counts.items()))
    prevalence = images["label"].mean()
    print(f"prevalence of {POSITIVE_CLASS}: {prevalence:.1%}")
    print(f'accuracy of always saying "negative": {1 - prevalence:.1%}')
    print("\n".join(describe_people(images)))
    if (unknown := int(images["age"].isna().sum())) > 0:
        print(f"ages missing or above {PLAUSIBLE_AGE} years, taken as unknown: {unknown:,}")

    splits = split_files.load_or_create_splits(dataset, args.splits)
    print(split_files.describe_splits(splits))

    bad = _report_images(images, args.workers, "checking training images")
    if official is None:
        print(f"official test set: {paths.TEST_METADATA} is not there")
    else:
        state = f"labelled by {official.why}" if official.labelled else f"unlabelled: {official.why}"
        print(f"official test set: {len(official.images):,} images, {state}")
        bad += _report_images(official.images, args.workers, "checking official test images")
    if bad and not args.skip_bad_images:
        raise UserError(f"{len(bad)} bad images would stop training; --skip-bad-images goes on without them")
    good = splits.images[~splits.images["image_id"].isin(bad)]
    if len(good.groupby(["role", "label"])) < 4:
        raise UserError("without the bad images, training or test images are of one class only")
    print("ready for training" + (f" without {len(bad)} bad images" if bad else ""))


def _report_images(records: pd.DataFrame, workers: int, desc: str) -> list[str]:
    """Print which images are missing or unreadable; returns their ids."""
    missing, unreadable = check_images(records, workers, desc)
    for word, names in (("missing", missing), ("unreadable", unreadable)):
        if names:
            print(f"{word}: {name_some(names)}")
    return missing + unreadable


if __name__ == "__main__":
    run_script(main)
