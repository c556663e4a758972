import csv
import json
import random

import pandas as pd
import pytest

from common import paths
from conftest import COLUMNS, metadata_row, write_csv
from dataset import twins
from dataset.records import load_dataset
from dataset.splits import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    assign_folds,
    assign_validation_part,
    leave_out_fold,
    load_or_create_splits,
    make_splits,
    reduce_training,
    select,
    training_part,
    twin_flags,
)
from dataset.twins import find_twins
from utils import UserError


@pytest.fixture
def dataset(tmp_path):
    """400 images of 150 patients, 1 to 65 images each, a quarter positive; images need not exist."""
    rng = random.Random(3)
    rows, mapping = [], []
    patients = [0] * 30 + [rng.randrange(1, 150) for _ in range(370)]  # one patient with thirty images
    for index, patient in enumerate(patients):
        kind = rng.choices(["Lung Opacity", "Normal", "No Lung Opacity / Not Normal"], [25, 35, 40])[0]
        rows += [metadata_row(f"i{index:03d}", kind)] * (2 if kind == "Lung Opacity" else 1)
        mapping.append({"subset_img_id": f"i{index:03d}", "img_id": f"{patient:08d}_000.png"})
    write_csv(tmp_path / paths.TRAIN_METADATA, rows, COLUMNS)
    (tmp_path / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    return load_dataset(tmp_path)


def test_split_is_grouped_stratified_and_of_the_stated_size(dataset):
    splits = load_or_create_splits(dataset)
    sides = dict(list(splits.images.groupby("role")))
    assert set(sides) == {TRAIN, TEST}
    assert not set(sides[TRAIN]["patient"]) & set(sides[TEST]["patient"])
    assert abs(len(sides[TEST]) / 400 - 0.25) < 0.03
    assert abs(sides[TEST]["label"].mean() - sides[TRAIN]["label"].mean()) < 0.05


def test_file_says_everything_and_is_read_back(dataset):
    first = load_or_create_splits(dataset)
    content = json.loads((dataset.data_dir / paths.SPLITS).read_text())
    assert content["version"] == 1 and content["seed"] == 42 and content["test_fraction"] == 0.25
    assert content["grouped_by"] == "nih_patient" and content["sha256"] == first.sha256
    assert list(content["images"][0]) == ["image_id", "patient", "label", "class", "role"]
    again = load_or_create_splits(dataset)
    assert first.created and not again.created
    pd.testing.assert_frame_equal(first.images, again.images)


def test_the_same_data_gives_the_same_split(dataset, tmp_path):
    here = load_or_create_splits(dataset)
    elsewhere = load_or_create_splits(dataset, tmp_path / "other" / "mine.json")
    assert elsewhere.path == tmp_path / "other" / "mine.json"
    assert here.sha256 == elsewhere.sha256


@pytest.mark.parametrize("k", [2, 5, 10])
def test_folds_are_grouped_stratified_and_pure(dataset, k):
    splits = load_or_create_splits(dataset)
    folds = assign_folds(splits, k)
    train = splits.images[splits.images["role"] == TRAIN].set_index("image_id")
    assert list(folds.index) == list(train.index)
    assert set(folds) == set(range(1, k + 1))
    assert (folds.groupby(train["patient"]).nunique() == 1).all(), "a patient in two folds"
    assert (train["label"].groupby(folds).sum() >= 1).all()
    pd.testing.assert_series_equal(folds, assign_folds(splits, k))


def test_the_validation_part_is_a_tenth_or_what_few_patients_allow(dataset, tmp_path):
    part = assign_validation_part(load_or_create_splits(dataset))
    assert abs((part == 1).mean() - 0.1) < 0.05
    rows = [metadata_row(f"n{i}", "Normal") for i in range(30)] + [
        metadata_row(f"p{i}", "Lung Opacity") for i in range(6)
    ]
    write_csv(tmp_path / "few" / paths.TRAIN_METADATA, rows, COLUMNS)
    part = assign_validation_part(load_or_create_splits(load_dataset(tmp_path / "few")))
    assert set(part) == {1, 2, 3, 4}


def test_select_gives_the_records_of_a_role(dataset):
    splits = load_or_create_splits(dataset)
    positives = select(dataset, splits, TRAIN, label=1)
    assert set(positives["label"]) == {1}
    assert set(positives["image_id"]).isdisjoint(select(dataset, splits, TEST)["image_id"])


def edit(dataset, change) -> None:
    file = dataset.data_dir / paths.SPLITS
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_an_edited_file_is_refused(dataset):
    load_or_create_splits(dataset)
    before = (dataset.data_dir / paths.SPLITS).read_text()
    other = {"train": "test", "test": "train"}
    edit(dataset, lambda content: content["images"][0].update(role=other[content["images"][0]["role"]]))
    edited = (dataset.data_dir / paths.SPLITS).read_text()
    with pytest.raises(UserError, match="was edited"):
        load_or_create_splits(dataset)
    assert (dataset.data_dir / paths.SPLITS).read_text() == edited != before, "never rebuilt silently"
    edit(dataset, lambda content: content.pop("images"))
    with pytest.raises(UserError, match="not a splits file"):
        load_or_create_splits(dataset)
    (dataset.data_dir / paths.SPLITS).write_text("[]")
    with pytest.raises(UserError, match=r"not a splits file \(version is missing\)"):
        load_or_create_splits(dataset)
    (dataset.data_dir / paths.SPLITS).write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_or_create_splits(dataset)


def test_a_split_of_other_data_is_refused_with_what_differs(dataset, tmp_path):
    load_or_create_splits(dataset)
    (tmp_path / paths.PATIENT_MAP).rename(tmp_path / "map.json")
    with pytest.raises(UserError, match="grouped by nih_patient, the dataset by image_id"):
        load_or_create_splits(load_dataset(tmp_path))
    rows = [metadata_row("i000", "Normal"), metadata_row("new", "Lung Opacity")]
    write_csv(tmp_path / paths.TRAIN_METADATA, rows, COLUMNS)
    with pytest.raises(UserError, match=r"the dataset lacks 399 images.*the split lacks 1 image \(new\)"):
        load_or_create_splits(load_dataset(tmp_path, tmp_path / "map.json"))


def test_too_few_patients_are_refused(tmp_path):
    write_csv(tmp_path / paths.TRAIN_METADATA, [metadata_row(f"n{i}", "Normal") for i in range(9)] +
              [metadata_row("p", "Lung Opacity")], COLUMNS)  # fmt: skip
    with pytest.raises(UserError, match="1 patients with positive images are too few for a test set"):
        load_or_create_splits(load_dataset(tmp_path))


def test_smaller_training_subsets_lie_within_larger_ones(dataset):
    splits = load_or_create_splits(dataset)
    whole = splits.images[splits.images["role"] == TRAIN]
    inner: set[str] = set()
    for fraction in (0.05, 0.25, 0.6, 1.0):
        reduced = reduce_training(splits, fraction)
        images = reduced.images[reduced.images["role"] == TRAIN]
        assert inner <= set(images["image_id"])
        inner = set(images["image_id"])
        left_out = reduced.images[reduced.images["role"] == UNUSED]
        assert not set(images["patient"]) & set(left_out["patient"])
        assert abs(images["patient"].nunique() / whole["patient"].nunique() - fraction) < 0.02
        assert set(images["label"]) == {0, 1}
        same_test = reduced.images["role"].eq(TEST).equals(splits.images["role"].eq(TEST))
        assert same_test and reduced.sha256 == splits.sha256
        assert set(assign_folds(reduced, 2).index) == inner
    assert inner == set(whole["image_id"])


def test_a_training_subset_of_nobody_is_refused(dataset):
    with pytest.raises(UserError, match="--train-fraction 0.001 leaves no patient with pneumonia"):
        reduce_training(load_or_create_splits(dataset), 0.001)


def test_each_fold_is_left_out_once_with_all_its_patients(dataset):
    splits = reduce_training(load_or_create_splits(dataset), 0.6)
    folds, left_out = assign_folds(splits, 3), []
    for fold in (1, 2, 3):
        part = leave_out_fold(splits, fold, 3)
        roles = part.images.groupby("role")["image_id"].apply(set)
        assert roles[VALIDATION] == set(folds.index[folds == fold])
        assert roles[TRAIN] == set(folds.index[folds != fold])
        patients = part.images.groupby("role")["patient"].apply(set)
        assert not patients[TRAIN] & patients[VALIDATION]
        for role in (TEST, UNUSED):
            assert roles[role] == set(splits.images.loc[splits.images["role"] == role, "image_id"])
        pd.testing.assert_frame_equal(part.images, training_part(splits, 1.0, fold, 3).images)
        left_out += sorted(roles[VALIDATION])
    assert sorted(left_out) == sorted(folds.index)


def test_the_whole_training_part_is_the_split_itself(dataset):
    splits = load_or_create_splits(dataset)
    pd.testing.assert_frame_equal(training_part(splits, 1.0, None, None).images, splits.images)


# --- twins -----------------------------------------------------------------------------------------
@pytest.fixture
def with_twins(make_dataset):
    """A data folder without a patient map where images 0 to 9 come again under other ids, two of them changed."""
    import numpy as np
    from PIL import Image

    def make(copies=10, times=1, other_label=False):
        data_dir = make_dataset(n=64, with_map=False)
        rows = list(csv.DictReader((data_dir / paths.TRAIN_METADATA).open()))
        folder = paths.training_images(data_dir)
        for copy in range(copies):
            original = np.asarray(Image.open(folder / f"img-{copy:04d}.png"))
            row = next(row for row in rows if row["patientId"] == f"img-{copy:04d}")
            for time in range(times):
                name = f"copy-{copy}-{time}"
                changed = {8: original[:, ::-1], 9: (original * 0.8).astype(np.uint8)}.get(copy, original)
                Image.fromarray(changed).save(folder / f"{name}.png")
                rows.append(row | {"patientId": name})
                if other_label:
                    rows[-1] |= metadata_row(name, "Normal" if row["Target"] == "1" else "Lung Opacity")
        write_csv(data_dir / paths.TRAIN_METADATA, rows, COLUMNS)
        return load_dataset(data_dir)

    return make


def pairs_of(splits):
    role = splits.images.set_index("image_id")["role"]
    return [(role[f"img-{copy:04d}"], role[f"copy-{copy}-0"]) for copy in range(10)]


def test_twins_fall_on_one_side_of_a_new_split_and_in_one_fold(with_twins, tmp_path):
    dataset = with_twins()
    splits = load_or_create_splits(dataset, cache_dir=tmp_path / "cache")
    assert all(one == other for one, other in pairs_of(splits))
    again = load_or_create_splits(dataset)
    pd.testing.assert_frame_equal(splits.images, again.images)
    assert list(again.images)[-1] == "twin_group" and (again.images["patient"] == again.images["image_id"]).all()
    folds = assign_folds(again, 3)
    for copy in range(10):
        assert folds.get(f"img-{copy:04d}") == folds.get(f"copy-{copy}-0")
    assert twin_flags(dataset, again, 3) == []


def test_an_existing_split_stays_and_its_separated_twins_are_flagged(with_twins, tmp_path):
    dataset = with_twins(other_label=True)
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(make_splits(dataset)))
    before = path.read_bytes()
    splits = load_or_create_splits(dataset, path)
    assert path.read_bytes() == before and not splits.created
    assert any(one != other for one, other in pairs_of(splits))
    labels, sides, folds = twin_flags(dataset, splits, 3)
    assert labels.startswith("10 pairs of images (") and "different labels" in labels
    assert "both sides of the split" in sides and "different folds" in folds


def test_without_twins_the_split_has_no_column_for_them(make_dataset, tmp_path):
    dataset = load_dataset(make_dataset(n=64, with_map=False))
    splits = load_or_create_splits(dataset, tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text()) == make_splits(dataset)
    assert "twin_group" not in splits.images and twin_flags(dataset, splits, 3) == []


def test_found_twins_are_kept_in_the_cache(with_twins, tmp_path, monkeypatch):
    dataset = with_twins(copies=2)
    found = find_twins(dataset.images, tmp_path)
    assert [pair.ids for pair in found] == [("copy-0-0", "img-0000"), ("copy-1-0", "img-0001")]
    twins._found.clear()
    monkeypatch.setattr(twins, "_search", None)  # would fail
    assert find_twins(dataset.images, tmp_path) == found


def test_twins_are_the_same_however_few_files_are_open(with_twins, monkeypatch):
    images = with_twins(copies=3).images
    found = find_twins(images, None)
    twins._found.clear()
    monkeypatch.setattr(twins, "PAIRS_AT_ONCE", 1)
    monkeypatch.setattr(twins, "MOST_OPENED", 1)
    assert len(found) == 3 and find_twins(images, None) == found


def test_too_many_images_of_one_picture_are_refused(with_twins):
    dataset = with_twins(copies=1, times=20)
    with pytest.raises(UserError, match="21 images of different patients show one picture"):
        load_or_create_splits(dataset)


def test_images_of_one_patient_are_no_twins(with_twins):
    dataset = with_twins(copies=3)
    images = dataset.images.assign(patient="somebody")
    assert find_twins(images, None) == [] and len(find_twins(dataset.images, None)) == 3


def test_a_folder_that_cannot_be_written_is_told_before_the_search_for_twins(make_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.splits.find_twins", lambda *_: pytest.fail("it takes minutes"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"splits.json cannot be written .*; name another file with --splits"):
        load_or_create_splits(load_dataset(make_dataset()), tmp_path / "file" / "splits.json")
