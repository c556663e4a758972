"""Procedural chest phantoms: made-up people, their metadata and images, in the layout of the RSNA set.

Nothing here comes from a patient. Proportions of classes, views, boxes and images per person are those of
the RSNA set (26,684 images of the training part). Person k and image i of a part ("train" or "test") are pure
functions of (seed, part, k) and (seed, part, i): asking for more images changes none of the first ones.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

import paths
from phantom_anatomy import as_imaged, chest_attenuation, draw_anatomy, draw_pose, smooth_noise
from phantom_findings import (
    COMPANIONS,
    FRAME,
    MIMICS,
    add_findings,
    add_opacities,
    bounding_boxes,
    draw_devices,
    draw_markers,
    draw_opacities,
)
from utils import UserError, atomic_path, derive_seed, load_json, save_csv, save_json

VERSION = 1  # of the drawing; raise it when the same seed gives other images
SMALLEST_SIZE, LARGEST_SIZE = 32, 2048  # pixels
NORMAL, NOT_NORMAL, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"

# People come in blocks, so that every block has the right share of each class.
BLOCK = 80  # images
BLOCK_OPACITY, BLOCK_NOT_NORMAL = 18, 35  # RSNA: 6,012 and 11,821 of 26,684
REPEATED = 4342 / 11439  # share of people with more than one image
EXTRA_IMAGES = 19518 / 4342 - 2  # mean number of images of those people beyond two
AP_SHARE = {NORMAL: 1637 / 8851, NOT_NORMAL: 5872 / 11821, OPACITY: 4664 / 6012}
BOXES = {1: 2614 / 6012, 2: 3266 / 6012, 3: 119 / 6012, 4: 13 / 6012}
FIRST_TEST_PATIENT = 50_000_000  # the test images are of other people
PLACEHOLDER = "0.5 0 0 100 100"


@dataclass(frozen=True)
class Record:
    """One image of one person: what the metadata say about it."""

    part: str  # "train" or "test"
    index: int
    image_id: str  # UUID
    patient: int
    visit: int  # counts the person's images from 0
    label_class: str
    age: int  # years
    sex: str  # "F" or "M"
    view: str  # "AP" or "PA"

    @property
    def target(self) -> int:
        return int(self.label_class == OPACITY)

    @property
    def nih_name(self) -> str:
        return f"{self.patient:08d}_{self.visit:03d}.png"


def generator(*key: int | str) -> np.random.Generator:
    return np.random.default_rng(derive_seed("phantom", *key))


# --- people ----------------------------------------------------------------------------------------
def phantom_records(num_images: int, seed: int = 42, part: str = "train") -> list[Record]:
    """The first ``num_images`` records of a part."""
    return list(islice(_all_records(seed, part), num_images))


def _all_records(seed: int, part: str) -> Iterator[Record]:
    patient = FIRST_TEST_PATIENT if part == "test" else 0
    block = 0
    while True:
        records = _block_records(seed, part, block, patient + 1)
        yield from records
        patient = max(record.patient for record in records)
        block += 1


def _block_records(seed: int, part: str, block: int, first_patient: int) -> list[Record]:
    """A block of images: draw people, rank the images by how ill they are, and cut at the class quotas."""
    rng = generator(seed, part, "block", block)
    people: list[tuple[int, int]] = []  # (person, visit) of each image
    illness: list[float] = []
    ages: list[int] = []
    sexes: list[str] = []
    person = first_patient
    while len(people) < BLOCK:
        images = 2 + rng.geometric(1 / (1 + EXTRA_IMAGES)) - 1 if rng.random() < REPEATED else 1
        images = min(images, BLOCK - len(people))
        age, frailty = float(np.clip(rng.normal(47, 16.5), 4, 92)), rng.normal()
        sex = "M" if rng.random() < 0.56 else "F"
        for visit in range(images):
            people.append((person, visit))
            illness.append(0.6 * frailty + 0.006 * (age - 47) + rng.normal())
            ages.append(min(int(age + 0.3 * visit), 95))
            sexes.append(sex)
        person += 1
    rank = np.argsort(np.argsort(illness)[::-1])
    records = []
    for k, (patient, visit) in enumerate(people):
        label_class = (
            OPACITY if rank[k] < BLOCK_OPACITY
            else NOT_NORMAL if rank[k] < BLOCK_OPACITY + BLOCK_NOT_NORMAL else NORMAL
        )
        view = "AP" if rng.random() < AP_SHARE[label_class] else "PA"
        index = block * BLOCK + k
        image_id = str(uuid.UUID(bytes=generator(seed, part, "id", index).bytes(16), version=4))
        records.append(Record(part, index, image_id, patient, visit, label_class, ages[k], sexes[k], view))
    return records


# --- images ----------------------------------------------------------------------------------------
def phantom_image(
    record: Record, image_size: int, seed: int = 42
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """The image, uint8 [image_size, image_size], and its boxes (x, y, width, height) in a 1024 frame."""
    rng = generator(seed, record.part, "image", record.index)
    anatomy = draw_anatomy(generator(seed, record.part, "person", record.patient), record.sex)
    anatomy, pose = as_imaged(anatomy, record.view, rng), draw_pose(rng, record.view)
    if record.label_class != NORMAL and rng.random() < 0.30:
        anatomy = replace(anatomy, heart=anatomy.heart * rng.uniform(1.10, 1.35))

    working_size = _working_size(image_size)
    total, lungs = chest_attenuation(anatomy, pose, record.view, working_size)
    boxes: list[tuple[int, int, int, int]] = []
    if record.label_class == OPACITY:
        count = int(rng.choice(list(BOXES), p=list(BOXES.values())))
        patches = draw_opacities(rng, anatomy, pose, count)
        boxes = bounding_boxes(patches, anatomy, pose)
        add_opacities(total, patches, lungs, rng)
    if record.label_class != NORMAL:
        add_findings(total, COMPANIONS if boxes else MIMICS, anatomy, lungs, rng)
    total += 0.25 * draw_devices(rng, anatomy, pose, working_size, 0.4 if record.view == "AP" else 0.04)
    return _expose(total, record, image_size, rng), boxes


def _working_size(image_size: int) -> int:
    """Small images are drawn at twice their size and averaged; big ones at half, as X-rays are that soft."""
    if image_size <= 128:
        return 2 * image_size
    return image_size if image_size <= 512 else (image_size + 1) // 2


def _expose(total: np.ndarray, record: Record, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Attenuation -> gray values: scatter, contrast, brightness, grain, markers, collimation."""
    total = total + 0.03 * smooth_noise(rng, 6, len(total)) * (total > 0.05)
    if len(total) != image_size:
        resampling = Image.Resampling.BOX if image_size < len(total) else Image.Resampling.BICUBIC
        total = np.asarray(Image.fromarray(total).resize((image_size, image_size), resampling))
    centre, contrast = rng.normal(0.55, 0.05), rng.uniform(3.2, 5.5)
    gray = 1 / (1 + np.exp(contrast * (centre - total)))
    floor = 1 / (1 + np.exp(contrast * centre))
    gray = (gray - floor) / (1 - floor)
    gray *= rng.uniform(0.80, 1.15)
    gray += rng.uniform(0.006, 0.022) * rng.standard_normal(gray.shape, dtype=np.float32)
    np.maximum(gray, draw_markers(rng, record.view, image_size), out=gray)
    return (np.clip(gray, 0, 1) * 255 + 0.5).astype(np.uint8)


def box_mask(boxes: list[tuple[int, int, int, int]], image_size: int) -> np.ndarray:
    """255 inside the boxes, 0 elsewhere: uint8 [image_size, image_size]."""
    mask = np.zeros((image_size, image_size), np.uint8)
    scale = image_size / FRAME
    for x, y, width, height in boxes:
        rows = slice(round(y * scale), round((y + height) * scale))
        mask[rows, round(x * scale) : round((x + width) * scale)] = 255
    return mask


# --- the dataset on disk ---------------------------------------------------------------------------
def make_phantom_dataset(
    output_dir: str | Path,
    num_images: int = 1000,
    image_size: int = 224,
    seed: int = 42,
    num_test_images: int | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Path:
    """Write a phantom dataset and return its folder.

    Images come first and the CSV files last, so an interrupted run leaves nothing that looks complete, and
    the same call goes on where it stopped. A phantom dataset made with other settings is replaced.

    Args:
        num_test_images: unlabelled ones, of other people; a quarter of ``num_images`` if None.
        workers: processes; if None, one for a small dataset, else one per core. Does not change a byte.

    Raises:
        UserError: nonsense numbers, or ``output_dir`` holds a dataset that is not a phantom one.
    """
    folder = Path(output_dir)
    num_test_images = num_images // 4 if num_test_images is None else num_test_images
    settings = {
        "what": "procedural chest phantoms, no patient's image",
        "version": VERSION,
        "num_images": num_images,
        "num_test_images": num_test_images,
        "image_size": image_size,
        "seed": seed,
    }
    _check(num_images, num_test_images, image_size)
    _claim(folder, settings)
    records = phantom_records(num_images, seed) + phantom_records(num_test_images, seed, "test")
    work = partial(_write_image, folder=folder, image_size=image_size, seed=seed)
    boxes = _map(work, records, _workers(workers, len(records), image_size), progress)
    _write_tables(folder, records, boxes)
    return folder


def _check(num_images: int, num_test_images: int, image_size: int) -> None:
    if num_images < 1 or num_test_images < 0:
        raise UserError(f"{num_images} images and {num_test_images} test images: at least 1 and 0 are needed")
    if not SMALLEST_SIZE <= image_size <= LARGEST_SIZE:
        raise UserError(f"image size {image_size}: {SMALLEST_SIZE} to {LARGEST_SIZE} pixels are allowed")


def _claim(folder: Path, settings: dict) -> None:
    """Mark ``folder`` as a phantom dataset; refuse one that holds another dataset, empty one of other settings."""
    marker = paths.phantom_marker(folder)
    tables = [folder / paths.TRAIN_METADATA, folder / paths.TEST_METADATA, folder / paths.PATIENT_MAP]
    image_folders = [paths.training_images(folder).parent, paths.test_images(folder)]
    if not marker.is_file():
        found = [path for path in tables + image_folders if path.exists()]
        if found:
            raise UserError(
                f"{folder} holds a dataset that is not a phantom one ({found[0].name}); "
                "nothing was written: give another --output-dir"
            )
    elif load_json(marker) != settings:
        for path in tables:
            path.unlink(missing_ok=True)
        for path in image_folders:
            shutil.rmtree(path, ignore_errors=True)
    save_json(marker, settings)


def _workers(workers: int | None, images: int, image_size: int) -> int:
    """Starting processes takes a second or two, which a small dataset does not repay."""
    if workers is not None:
        return max(1, workers)
    small = images * max(image_size, 128) ** 2 < 250 * 224**2
    return 1 if small else os.cpu_count() or 1


def _map(work: partial, records: list[Record], workers: int, progress: bool) -> list[list]:
    bar = partial(tqdm, total=len(records), desc="phantoms", unit="image", disable=not progress)
    if workers == 1:
        return list(bar(map(work, records)))
    # Fresh processes ("spawn"), since a fork of a process in which torch has threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts)
    try:
        return list(bar(pool.map(work, records, chunksize=8)))
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the main one alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_image(record: Record, folder: Path, image_size: int, seed: int) -> list[tuple[int, int, int, int]]:
    image, boxes = phantom_image(record, image_size, seed)
    if record.part == "test":
        _save_png(paths.test_images(folder) / f"{record.image_id}.png", image)
    else:
        _save_png(paths.training_images(folder) / f"{record.image_id}.png", image)
        _save_png(paths.training_masks(folder) / f"{record.image_id}.png", box_mask(boxes, image_size))
    return boxes


def _save_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        # Grain does not compress: more effort only takes longer.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)


def _write_tables(folder: Path, records: list[Record], boxes: list[list[tuple[int, int, int, int]]]) -> None:
    rows = []
    for record, image_boxes in sorted(zip(records, boxes, strict=True), key=lambda pair: pair[0].image_id):
        if record.part == "train":
            facts = (record.target, record.label_class, record.age, record.sex, "CR", record.view)
            rows += [(record.image_id, *box, *facts) for box in image_boxes or [(None,) * 4]]
    columns = "patientId,x,y,width,height,Target,class,age,sex,modality,position".split(",")
    train = pd.DataFrame(rows, columns=columns)
    train = train.astype(dict.fromkeys(["x", "y", "width", "height"], "Int64"))
    test_ids = sorted(record.image_id for record in records if record.part == "test")
    names = sorted(records, key=lambda record: record.image_id)
    save_json(
        folder / paths.PATIENT_MAP,
        [{"subset_img_id": record.image_id, "img_id": record.nih_name} for record in names],
    )
    save_csv(folder / paths.TEST_METADATA, pd.DataFrame({"patientId": test_ids, "PredictionString": PLACEHOLDER}))
    save_csv(folder / paths.TRAIN_METADATA, train)
