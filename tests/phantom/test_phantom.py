"""The phantoms: layout and proportions of the RSNA set, determinism, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import make_phantom_dataset as script
from common import paths
from phantom import dataset as phantom
from phantom.anatomy import lung_fields
from phantom.dataset import box_mask, draw_scene, make_phantom_dataset, render
from phantom.findings import BOX_GRID, FRAME, Box, Patch, bounding_box
from phantom.people import BLOCK, NORMAL, NOT_NORMAL, OPACITY, Record, generator, phantom_records
from phantom.shapes import Pose, ellipse, soft_step
from utils import UserError

COLUMNS = "patientId,x,y,width,height,Target,class,age,sex,modality,position"
SIZE = 64


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def phantom_image(record: Record, image_size: int, seed: int = 42) -> tuple[np.ndarray, list[Box]]:
    """Draw an image and its boxes."""
    scene = draw_scene(record, seed)
    return render(scene, image_size, generator(seed, record.part, "render", record.index)), scene.boxes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 6 test images, made by the command that a user types."""
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    script.main(f"--output-dir {folder} --num-images 40 --num-test-images 6 --image-size {SIZE} --seed 3".split())
    return folder


# --- people ----------------------------------------------------------------------------------------
def test_every_block_has_rsna_class_proportions():
    classes = Counter(record.label_class for record in phantom_records(5 * BLOCK, seed=1))
    total = sum(classes.values())
    assert classes[OPACITY] / total == pytest.approx(6012 / 26684, abs=0.01)
    assert classes[NOT_NORMAL] / total == pytest.approx(11821 / 26684, abs=0.01)
    assert classes[NORMAL] / total == pytest.approx(8851 / 26684, abs=0.01)


def test_views_and_images_per_person_follow_rsna():
    records = phantom_records(100 * BLOCK, seed=1)
    for label_class, share in ((NORMAL, 1637 / 8851), (NOT_NORMAL, 5872 / 11821), (OPACITY, 4664 / 6012)):
        views = [record.view == "AP" for record in records if record.label_class == label_class]
        assert np.mean(views) == pytest.approx(share, abs=0.03)
    images = Counter(record.patient for record in records)
    repeated = sum(count for count in images.values() if count > 1) / len(records)
    assert repeated == pytest.approx(19518 / 26684, abs=0.03)
    assert len(images) / len(records) == pytest.approx(11439 / 26684, abs=0.03)


def test_one_person_keeps_sex_and_ages_slowly_and_may_have_both_labels():
    people: dict[int, list] = {}
    for record in phantom_records(5 * BLOCK, seed=2):
        people.setdefault(record.patient, []).append(record)
    assert all(len({record.sex for record in images}) == 1 for images in people.values())
    for images in people.values():
        ages = [record.age for record in images]
        assert ages == sorted(ages)
        assert ages[-1] - ages[0] <= 0.3 * len(ages) + 1
    assert any(len({record.target for record in images}) == 2 for images in people.values())


def test_more_images_leave_the_first_ones_as_they_were():
    assert phantom_records(200, seed=5)[:70] == phantom_records(70, seed=5)


def test_parts_and_seeds_share_no_id_and_parts_no_person():
    train, test, other = phantom_records(90), phantom_records(90, part="test"), phantom_records(90, seed=7)
    ids = {record.image_id for records in (train, test, other) for record in records}
    assert len(ids) == 270
    assert not {record.patient for record in train} & {record.patient for record in test}


# --- shapes ----------------------------------------------------------------------------------------
def test_soft_step_is_zero_half_and_one():
    assert soft_step(np.array([-1.0, 0.0, 1.0]), 0.5) == pytest.approx([0, 0.5, 1])


def test_ellipse_is_one_on_its_half_axes():
    x, y = np.array([2.0, 1.0, 0.0]), np.array([1.0, 4.0, 1.0])
    assert ellipse(x, y, (1, 1), (1, 3)) == pytest.approx([1, 1, 1])
    turned = ellipse(np.array([0.0]), np.array([2.0]), (0, 0), (2, 1), np.pi / 2)
    assert turned == pytest.approx([1])


def test_body_grid_and_to_pixels_are_inverse():
    pose = Pose(angle=0.1, scale=1.2, shift=(0.05, -0.03))
    x, y = pose.body_grid(16)
    points = np.array([[x[3, 11], y[3, 11]]])
    assert pose.to_pixels(points, 16)[0] == pytest.approx((11.5, 3.5), abs=1e-4)


# --- images ----------------------------------------------------------------------------------------
def test_image_is_a_function_of_seed_and_record():
    record = phantom_records(3)[2]
    image, boxes = phantom_image(record, SIZE)
    again, boxes_again = phantom_image(record, SIZE)
    assert image.shape == (SIZE, SIZE)
    assert image.dtype == np.uint8
    assert np.array_equal(image, again)
    assert boxes == boxes_again
    assert not np.array_equal(image, phantom_image(record, SIZE, seed=43)[0])


def test_sizes_show_the_same_anatomy():
    """A big image averaged down is nearly the small one, apart from grain and text."""
    record = next(record for record in phantom_records(40) if record.label_class == OPACITY)
    small, boxes = phantom_image(record, 64)
    big, big_boxes = phantom_image(record, 256)
    averaged = big.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.98
    assert boxes == big_boxes


def test_lungs_are_darker_than_heart_and_heart_lies_to_the_image_right():
    for record in phantom_records(60)[::6]:
        if record.label_class != NORMAL:
            continue
        scene = draw_scene(record, 42)
        image = phantom_image(record, 128)[0]
        lungs = lung_fields(scene.anatomy, *scene.pose.body_grid(128))
        assert image[lungs.mask > 0.9].mean() < 0.7 * image[lungs.heart > 0.9].mean()
        low = lungs.heart * (lungs.y > 0) * (lungs.y < 0.5)
        assert low[lungs.x > 0].sum() > low[lungs.x < 0].sum()


def test_opacities_lie_in_a_lung_and_boxes_in_the_frame():
    positives = [record for record in phantom_records(160) if record.label_class == OPACITY]
    for record in positives:
        scene = draw_scene(record, 42)
        lungs = lung_fields(scene.anatomy, *scene.pose.body_grid(BOX_GRID))
        assert 1 <= len(scene.boxes) == len(scene.patches) <= 4
        for x, y, width, height in scene.boxes:
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= FRAME
            assert min(width, height) >= 72
            cells = (slice(y // 8, (y + height) // 8), slice(x // 8, (x + width) // 8))
            assert lungs.mask[cells].mean() > 0.3


def test_bounding_box_of_a_disc_matches_its_definition():
    """With lungs everywhere, the box is where soft_step(0.9 - d, 0.75) > 0.25: d < about 1.03 half axes."""
    pose = Pose(0.0, 1.0, (0.0, 0.0))
    x, y = pose.body_grid(BOX_GRID)
    record = phantom_records(1)[0]
    lungs = lung_fields(draw_scene(record, 42).anatomy, x, y)
    lungs.mask[...] = 1
    left, top, width, height = bounding_box(Patch((0.5, 0.0), (0.2, 0.3), 0.0, 0.2), lungs)
    # soft_step(t) = 1/4 at t = 0.3264: d = 0.9 - 0.75 * (0.3264 - 0.5)
    reach = 0.9 + 0.75 * 0.1736
    assert left + width / 2 == pytest.approx(1.5 * 512, abs=8)
    assert width == pytest.approx(2 * 0.2 * reach * 512, abs=16)
    assert height == pytest.approx(2 * 0.3 * reach * 512, abs=16)
    assert top + height / 2 == pytest.approx(512, abs=8)


def test_opacity_brightens_its_boxes():
    """Compare with the same scene drawn without its opacities."""
    record = next(record for record in phantom_records(80) if record.label_class == OPACITY)
    scene = draw_scene(record, 42)
    bare = replace(scene, record=replace(record, label_class=NORMAL), patches=[], boxes=[])
    key = (42, record.part, "render", record.index)
    inside = box_mask(scene.boxes, 128) > 0
    ill = render(scene, 128, generator(*key)).astype(float)
    healthy = render(bare, 128, generator(*key)).astype(float)
    # Exposure differs between the two, so the lungs are compared with the rest of the same image.
    assert ill[inside].mean() / ill[~inside].mean() > 1.05 * healthy[inside].mean() / healthy[~inside].mean()


def test_box_mask_marks_exactly_the_boxes():
    mask = box_mask([(256, 512, 128, 64)], 64)
    assert mask.sum() == 255 * 8 * 4
    assert (mask[32:36, 16:24] == 255).all()


# --- the dataset -----------------------------------------------------------------------------------
def test_training_table_has_the_real_layout(dataset: Path):
    text = (dataset / paths.TRAIN_METADATA).read_text()
    lines = text.splitlines()
    assert lines[0] == COLUMNS
    negative = r"[0-9a-f-]{36},,,,,0,(Normal|No Lung Opacity / Not Normal),\d+,[FM],CR,(AP|PA)"
    positive = r"[0-9a-f-]{36},\d+,\d+,\d+,\d+,1,Lung Opacity,\d+,[FM],CR,(AP|PA)"
    assert all(re.fullmatch(f"{negative}|{positive}", line) for line in lines[1:])
    table = pd.read_csv(dataset / paths.TRAIN_METADATA)
    assert table["patientId"].nunique() == 40
    boxes = {record.image_id: draw_scene(record, 3).boxes for record in phantom_records(40, 3) if record.target}
    assert len(boxes) > 0
    positives = table[table["Target"] == 1].astype(dict.fromkeys(["x", "y", "width", "height"], int))
    for image_id, rows in positives.groupby("patientId"):
        assert list(rows[["x", "y", "width", "height"]].itertuples(index=False, name=None)) == boxes[image_id]


def test_images_masks_and_test_images_are_there(dataset: Path):
    table = pd.read_csv(dataset / paths.TRAIN_METADATA)
    names = {f"{image_id}.png" for image_id in table["patientId"]}
    assert {path.name for path in paths.training_images(dataset).iterdir()} == names
    assert {path.name for path in paths.training_masks(dataset).iterdir()} == names
    positive = set(table.loc[table["Target"] == 1, "patientId"])
    for path in paths.training_masks(dataset).iterdir():
        with Image.open(path) as mask, Image.open(paths.training_images(dataset) / path.name) as image:
            assert image.mode == "L"
            assert image.size == mask.size == (SIZE, SIZE)
            assert (np.asarray(mask).max() == 255) == (path.stem in positive)


def test_test_set_is_unlabelled(dataset: Path):
    table = pd.read_csv(dataset / paths.TEST_METADATA)
    assert list(table.columns) == ["patientId", "PredictionString"]
    assert set(table["PredictionString"]) == {"0.5 0 0 100 100"}
    assert {path.stem for path in paths.test_images(dataset).iterdir()} == set(table["patientId"])
    assert len(table) == 6


def test_mapping_names_every_image_once_and_people_as_drawn(dataset: Path):
    mapping = json.loads((dataset / paths.PATIENT_MAP).read_text())
    assert all(re.fullmatch(r"\d{8}_\d{3}\.png", entry["img_id"]) for entry in mapping)
    assert len({entry["img_id"] for entry in mapping}) == len(mapping) == 46
    people = {entry["subset_img_id"]: int(entry["img_id"].split("_")[0]) for entry in mapping}
    assert all(people[record.image_id] == record.patient for record in phantom_records(40, 3))


def test_every_run_writes_the_same_bytes_with_any_number_of_workers(dataset: Path, tmp_path: Path):
    settings = {"num_images": 40, "num_test_images": 6, "image_size": SIZE, "seed": 3}
    assert digests(make_phantom_dataset(tmp_path / "two", workers=2, **settings)) == digests(dataset)


def test_interrupted_run_leaves_no_tables_and_goes_on(dataset: Path, tmp_path: Path, monkeypatch):
    settings = {"num_images": 40, "num_test_images": 6, "image_size": SIZE, "seed": 3}
    folder = tmp_path / "data"
    real_save, saved = phantom.save_png, []

    def interrupted_save(path: Path, *arguments: object) -> None:
        if len(saved) == 21:
            raise KeyboardInterrupt
        saved.append(path)
        real_save(path, *arguments)

    monkeypatch.setattr(phantom, "save_png", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        make_phantom_dataset(folder, **settings)
    assert not list(folder.glob("*.csv"))
    assert not (folder / paths.PATIENT_MAP).exists()
    times = {path: path.stat().st_mtime_ns for path in saved}
    monkeypatch.setattr(phantom, "save_png", real_save)
    make_phantom_dataset(folder, **settings)
    assert digests(folder) == digests(dataset)
    assert {path: path.stat().st_mtime_ns for path in saved} == times


def test_other_settings_replace_a_phantom_dataset_and_its_split(tmp_path: Path):
    folder = make_phantom_dataset(tmp_path / "data", num_images=6, image_size=32, num_test_images=2)
    (folder / paths.SPLITS).write_text("{}")
    make_phantom_dataset(folder, num_images=4, image_size=48, num_test_images=0)
    assert not (folder / paths.SPLITS).exists()
    images = list(paths.training_images(folder).iterdir())
    assert len(images) == 4
    assert {Image.open(path).size for path in images} == {(48, 48)}
    assert not paths.test_images(folder).exists()
    assert len(pd.read_csv(folder / paths.TEST_METADATA)) == 0


# --- errors and the command line -------------------------------------------------------------------
@pytest.mark.parametrize("held", [paths.TRAIN_METADATA, "Training/Images/a.png", "Test/a.png"])
def test_real_data_are_never_touched(tmp_path: Path, held: str):
    file = tmp_path / held
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"somebody's data")
    with pytest.raises(UserError, match="not a phantom one"):
        make_phantom_dataset(tmp_path, num_images=2, image_size=32)
    assert file.read_bytes() == b"somebody's data"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize(
    "flags", ["--image-size 31", "--image-size 2049", "--num-images 0", "--num-test-images -1", "--seed x"]
)
def test_wrong_flags_end_in_2(flags: str):
    with pytest.raises(SystemExit) as stop:
        script.main(["--output-dir", "x", *flags.split()])
    assert stop.value.code == 2


def test_user_error_ends_in_one_line_and_1(in_tmp: Path, as_script):
    (in_tmp / paths.TRAIN_METADATA).write_text("patientId\n")
    code, _, err = as_script(script.main, "--output-dir", in_tmp, "--num-images", "2")
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
