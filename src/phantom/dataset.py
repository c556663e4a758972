"""Procedural chest phantoms: drawn images with made-up metadata, in the layout of the RSNA set.

Nothing here comes from a patient. Person k and image i of a part ("train" or "test") are pure functions of
(seed, part, k) and (seed, part, i), so no number of images, workers or interruptions changes a byte.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from common import paths
from common.progress import progress_bar
from common.startup import leave_signals_to_parent
from dataset.file_formats import PhantomMarker
from dataset.images import LOW_EFFORT, save_png
from dataset.labels import PLACEHOLDER_PREDICTION
from phantom import findings
from phantom.anatomy import Anatomy, draw_anatomy, draw_chest, draw_pose, vary_by_view
from phantom.findings import FRAME, Box, Patch
from phantom.people import NORMAL, OPACITY, Record, generator, phantom_records
from phantom.shapes import Pose, smooth_noise
from utils import UserError, load_json, save_csv, save_json, usable_cores

VERSION = 1  # of the drawing; raise it when the same seed gives other images
BOX_COLUMNS = ("x", "y", "width", "height")
BOX_COUNTS = {1: 2614 / 6012, 2: 3266 / 6012, 3: 119 / 6012, 4: 13 / 6012}  # share of the positives
SMALL_JOB = 250 * 224**2  # pixels; starting worker processes takes longer than drawing as many


@dataclass(frozen=True)
class Scene:
    """Content of one image, at any resolution."""

    record: Record
    anatomy: Anatomy
    pose: Pose
    patches: list[Patch]
    boxes: list[Box]


# --- images ----------------------------------------------------------------------------------------
def draw_scene(record: Record, seed: int) -> Scene:
    """Draw the person as this image shows him or her, with opacities if the record says so."""
    rng = generator(seed, record.part, "scene", record.index)
    person = draw_anatomy(generator(seed, record.part, "person", record.patient), record.sex)
    anatomy, pose = vary_by_view(person, record.view, rng), draw_pose(rng, record.view)
    if record.label_class != NORMAL and rng.random() < 0.30:
        anatomy = replace(anatomy, heart=anatomy.heart * rng.uniform(1.10, 1.30))
    if record.label_class != OPACITY:
        return Scene(record, anatomy, pose, [], [])
    count = int(rng.choice(list(BOX_COUNTS), p=list(BOX_COUNTS.values())))
    return Scene(record, anatomy, pose, *findings.draw_opacities(rng, anatomy, pose, count))


def render(scene: Scene, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene: uint8 [image_size, image_size]."""
    record = scene.record
    # Small images are drawn at twice their size and averaged; big ones at half, as X-rays are that soft.
    size = 2 * image_size if image_size <= 128 else image_size if image_size <= 512 else (image_size + 1) // 2
    chest = draw_chest(scene.anatomy, scene.pose, record.view, size, rng)
    total = chest.attenuation
    if scene.patches:
        total += findings.consolidation(chest, scene.patches, rng) * chest.lungs.mask
        findings.add_findings(chest, findings.COMPANIONS, rng)
    elif record.label_class != NORMAL:
        findings.add_findings(chest, findings.MIMICS, rng)
    total += 0.25 * findings.draw_devices(rng, scene.anatomy, scene.pose, size, 0.4 if record.view == "AP" else 0.04)
    total += 0.03 * smooth_noise(rng, 6, size) * (total > 0.05)  # uneven exposure
    if size != image_size:
        resampling = Image.Resampling.BOX if image_size < size else Image.Resampling.BICUBIC
        total = np.asarray(Image.fromarray(total).resize((image_size, image_size), resampling))
    return _expose(total, record.view, rng)


def _expose(total: np.ndarray, view: str, rng: np.random.Generator) -> np.ndarray:
    """Turn attenuation [S, S] into gray uint8 [S, S]: film curve, brightness, grain, shutters, markers."""
    size = len(total)
    grain_rng = rng.spawn(1)[0]  # of its own, as the numbers that it takes depend on the size
    centre, contrast = rng.normal(0.52, 0.04), rng.uniform(4.0, 6.0)
    gray = 1 / (1 + np.exp(np.float32(contrast) * (np.float32(centre) - total)))
    floor = np.float32(1 / (1 + np.exp(contrast * centre)))
    gray = (gray - floor) * np.float32(rng.uniform(0.85, 1.12))
    gray += np.float32(rng.uniform(0.006, 0.018)) * _grain(grain_rng, size)
    if rng.random() < (0.25 if view == "AP" else 0.10):
        gray *= findings.collimation(rng, size)
    np.maximum(gray, findings.draw_markers(rng, view, size), out=gray)
    return (np.clip(gray, 0, 1) * 255 + 0.5).astype(np.uint8)


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """Quantum noise of unit variance; neighbours are alike, as the screen spreads light: [size, size]."""
    noise = rng.standard_normal((size + 1, size + 1), dtype=np.float32)
    noise = noise[1:] + np.float32(0.6) * noise[:-1]
    return (noise[:, 1:] + np.float32(0.6) * noise[:, :-1]) / np.float32(1 + 0.6**2)


def box_mask(boxes: list[Box], image_size: int) -> np.ndarray:
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

    The CSV files come last, so an interrupted run leaves nothing that looks complete, and the same call goes
    on where it stopped. Phantoms of other settings are replaced. ``num_test_images`` None: a quarter of
    ``num_images``; ``workers`` None: one process for a small dataset, else one per core. Raises ``UserError``
    if ``output_dir`` holds a dataset that is not a phantom one.
    """
    folder = Path(output_dir)
    num_test_images = num_images // 4 if num_test_images is None else num_test_images
    settings: PhantomMarker = {
        "what": "procedural chest phantoms, no patient's image",
        "version": VERSION,
        "num_images": num_images, "num_test_images": num_test_images,
        "image_size": image_size, "seed": seed,
    }  # fmt: skip
    _claim(folder, settings)
    records = phantom_records(num_images, seed) + phantom_records(num_test_images, seed, "test")
    if workers is None:
        workers = 1 if len(records) * max(image_size, 128) ** 2 < SMALL_JOB else usable_cores()
    work = partial(_write_image, folder=folder, image_size=image_size, seed=seed)
    _write_tables(folder, records, _map(work, records, workers, progress))
    return folder


def _claim(folder: Path, settings: PhantomMarker) -> None:
    """Mark ``folder`` as phantoms; refuse one that holds another dataset, empty one of other settings.

    The frozen split is removed with the images that it names.
    """
    marker = paths.phantom_marker(folder)
    tables = [folder / paths.TRAIN_METADATA, folder / paths.TEST_METADATA, folder / paths.PATIENT_MAP]
    image_folders = [paths.training_images(folder).parent, paths.test_images(folder)]
    if not marker.is_file():
        if found := [path.name for path in [*tables, *image_folders, paths.provenance(folder)] if path.exists()]:
            raise UserError(
                f"{folder} holds a dataset that is not a phantom one ({found[0]}), so nothing was written; "
                "give another --output-dir"
            )
    elif load_json(marker) != settings:
        for path in [*tables, folder / paths.SPLITS]:
            path.unlink(missing_ok=True)
        for path in image_folders:
            shutil.rmtree(path, ignore_errors=True)
    save_json(marker, settings)


def _map(work: partial, records: list[Record], workers: int, progress: bool) -> list[list[Box]]:
    """Apply ``work`` to every record, in order, in ``workers`` processes."""
    bar = partial(progress_bar, total=len(records), desc="phantoms", unit="image", disable=not progress)
    if workers == 1:
        return list(bar(map(work, records)))
    # Fresh processes ("spawn"), since a fork of a process in which torch has threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), leave_signals_to_parent)
    try:
        return list(bar(pool.map(work, records, chunksize=8)))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps because memory ran out; the same command with --workers 1 "
            "goes on where it stopped"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _write_image(record: Record, folder: Path, image_size: int, seed: int) -> list[Box]:
    """Write what is missing of one image and its mask; return its boxes."""
    scene = draw_scene(record, seed)
    name = f"{record.image_id}.png"
    train = record.part == "train"
    image = (paths.training_images(folder) if train else paths.test_images(folder)) / name
    if not image.exists():
        rng = generator(seed, record.part, "render", record.index)
        save_png(image, render(scene, image_size, rng), LOW_EFFORT)
    mask = paths.training_masks(folder) / name
    if train and not mask.exists():
        save_png(mask, box_mask(scene.boxes, image_size), LOW_EFFORT)
    return scene.boxes


def _write_tables(folder: Path, records: list[Record], boxes: list[list[Box]]) -> None:
    """Write the mapping to people, the placeholder test table and, last, the training table."""
    by_id = sorted(zip(records, boxes, strict=True), key=lambda pair: pair[0].image_id)
    mapping = [{"subset_img_id": record.image_id, "img_id": record.nih_name} for record, _ in by_id]
    save_json(folder / paths.PATIENT_MAP, mapping)
    test_ids = [record.image_id for record, _ in by_id if record.part == "test"]
    placeholders = {"patientId": test_ids, "PredictionString": PLACEHOLDER_PREDICTION}
    save_csv(folder / paths.TEST_METADATA, pd.DataFrame(placeholders))
    rows = [row for record, its_boxes in by_id if record.part == "train" for row in _rows(record, its_boxes)]
    columns = dict.fromkeys(BOX_COLUMNS, "Int64")  # integers, or empty
    save_csv(folder / paths.TRAIN_METADATA, pd.DataFrame(rows).astype(columns))


def _rows(record: Record, boxes: list[Box]) -> list[dict[str, Any]]:
    """Make one row per box, or a single one without a box, in RSNA's columns."""
    facts = {
        "Target": record.target, "class": record.label_class, "age": record.age, "sex": record.sex,
        "modality": "CR", "position": record.view,
    }  # fmt: skip
    places: list[tuple[int | None, ...]] = [*boxes] or [(None,) * 4]
    named = (dict(zip(BOX_COLUMNS, box, strict=True)) for box in places)
    return [{"patientId": record.image_id, **place, **facts} for place in named]
