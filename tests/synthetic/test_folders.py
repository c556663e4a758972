import json
import re

import numpy as np
import pytest
from PIL import Image

from common import paths
from synthetic.folders import clear, existing_images, load_synthetic, resolution_flag
from utils import UserError

PATIENT_OF = {"train-1": "p1", "train-2": "p2", "test-1": "p9", "test-2": "p2x"}
TEST_IMAGES = {"test-1": "p9", "test-2": "p2x"}


@pytest.fixture
def folder(tmp_path):
    """Three synthetic images with an honest manifest."""
    for index in (1, 2, 3):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(paths.synthetic_image(tmp_path, index))
    write_manifest(tmp_path)
    return tmp_path


def write_manifest(folder, **changes) -> None:
    manifest = {
        "generator_sha256": "g", "split_sha256": "s", "label": 1, "count": 3,
        "train_image_ids": ["train-1", "train-2"], "train_patients": ["p1", "p2"], **changes,
    }  # fmt: skip
    paths.synthetic_manifest(folder).write_text(json.dumps(manifest))


def load(folder, allow=False):
    return load_synthetic(folder, PATIENT_OF, TEST_IMAGES, allow_unverified=allow)


def test_honest_images_are_taken(folder):
    synthetic = load(folder)
    assert list(synthetic.records["image_id"]) == ["synthetic_00001", "synthetic_00002", "synthetic_00003"]
    assert synthetic.label == 1 and synthetic.verified and not synthetic.red_flags
    assert synthetic.generator_patients == {"p1", "p2"}
    assert (synthetic.fold, synthetic.k_folds, synthetic.train_fraction) == (None, None, 1.0)


def test_fold_fraction_and_confessed_flags_are_read_from_the_manifest(folder):
    write_manifest(folder, fold=2, k_folds=5, train_fraction=0.25, red_flags=["few images"])
    synthetic = load(folder)
    assert (synthetic.fold, synthetic.k_folds, synthetic.train_fraction) == (2, 5, 0.25)
    assert synthetic.red_flags == ["few images"] and synthetic.verified


@pytest.mark.parametrize(
    ("made", "real", "size", "match", "expected"),
    [
        (16, 64, 32, None, "have 16 px, the classifier sees real ones at 32 px: they are blurry positives"),
        (32, 64, 32, None, None),
        (48, 64, 32, None, None),
        (16, 16, 32, None, None),  # real ones are as coarse
        (16, 24, 32, None, "real ones at 24 px"),
        (16, 64, 32, 16, None),
        (24, 64, 32, 16, None),  # reduced to 16, like the real ones
        (16, 64, 32, 24, "--match-resolution 16"),
    ],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_images_that_are_blurrier_than_real_ones_are_named(
    folder, tmp_path, made, real, size, match, expected, recorded
):  # fmt: skip
    for file in existing_images(folder):
        Image.fromarray(np.zeros((made, made + 8), np.uint8)).save(file)
    write_manifest(folder, **({"image_size": made} if recorded else {"image_size": None}))
    Image.fromarray(np.zeros((real, real), np.uint8)).save(tmp_path / "real.png")
    what = load(folder), [tmp_path / "real.png", tmp_path / "absent.png"], size, match
    if match and expected:
        with pytest.raises(UserError, match=f"{expected} in every arm"):
            resolution_flag(*what)
    elif expected is None:
        assert resolution_flag(*what) is None
    else:
        assert expected in (resolution_flag(*what) or "") and "--match-resolution 16" in (resolution_flag(*what) or "")


def test_images_of_fold_subfolders_belong_to_them_alone(folder):
    inner = paths.synthetic_fold(folder, 1)
    inner.mkdir()
    for index in (1, 2, 3, 4):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(paths.synthetic_image(inner, index))
    write_manifest(inner, count=4, fold=1, k_folds=2)
    assert len(load(folder).records) == 3 and len(load(inner).records) == 4
    clear(folder)
    assert not existing_images(folder) and len(load(inner).records) == 4
    with pytest.raises(UserError, match="holds no synthetic images"):
        load(folder)


@pytest.mark.parametrize(
    "leak",
    [
        {"train_image_ids": ["train-1", "test-1"]},  # a test image
        {"train_patients": ["p1", "p9"]},  # a test patient, by name
        {"train_image_ids": ["train-1", "test-2"], "train_patients": []},  # by image, patients not told
    ],
)
def test_a_planted_leak_is_refused_and_flagged_when_allowed(folder, leak):
    write_manifest(folder, **leak)
    with pytest.raises(UserError, match=r"trained on patients of the test set \(1 image.*--allow-unverified"):
        load(folder)
    synthetic = load(folder, allow=True)
    assert not synthetic.verified
    assert "no number of this arm can be believed" in synthetic.red_flags[0]


def test_another_image_of_a_test_patient_is_a_leak_too(folder):
    write_manifest(folder, train_image_ids=["train-1", "other-image-of-p9"], train_patients=["p1"])
    patient_of = {**PATIENT_OF, "other-image-of-p9": "p9"}
    with pytest.raises(UserError, match="patients of the test set"):
        load_synthetic(folder, patient_of, TEST_IMAGES)


def test_a_missing_manifest_is_refused_and_flagged_when_allowed(folder):
    paths.synthetic_manifest(folder).unlink()
    with pytest.raises(UserError, match=r"manifest.json is missing, so nobody knows"):
        load(folder)
    synthetic = load(folder, allow=True)
    assert len(synthetic.records) == 3 and synthetic.generator_patients is None
    assert "no manifest" in synthetic.red_flags[0]


@pytest.mark.parametrize("allow", [False, True])
def test_a_manifest_that_names_no_training_image_is_no_proof(folder, allow):
    write_manifest(folder, train_image_ids=[], train_patients=[])
    if not allow:
        with pytest.raises(UserError, match="names no training image, so nobody knows.*register_synthetic"):
            load(folder)
        return
    synthetic = load(folder, allow=True)
    assert synthetic.generator_patients is None and not synthetic.verified
    assert "a manifest that names no training image" in synthetic.red_flags[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_image_ids": ["other-1", "other-2"], "train_patients": []}, "training images (2), but none"),
        # Another dataset's patients may have the same names as ours: they prove nothing.
        ({"train_image_ids": ["other-1"], "train_patients": ["p1"]}, "training images (1), but none of this"),
        ({"train_image_ids": [], "train_patients": ["q1"]}, "training patients (1), but none of this"),
    ],
)
def test_a_generator_of_another_dataset_is_of_unknown_origin(folder, changes, said):
    write_manifest(folder, **changes)
    with pytest.raises(UserError, match=f"{re.escape(said)}.*nobody knows.*--allow-unverified-synthetic"):
        load(folder)
    synthetic = load(folder, allow=True)
    assert synthetic.generator_patients is None and not synthetic.verified
    assert len(synthetic.red_flags) == 1 and said in synthetic.red_flags[0]


def test_training_images_that_are_unknown_here_are_counted_and_nothing_is_verified(folder):
    write_manifest(folder, train_image_ids=["train-1", "x/Train-2.PNG", "other-1"], train_patients=["p1"])
    synthetic = load(folder)
    assert not synthetic.verified and synthetic.generator_patients == {"p1", "p2"}
    (flag,) = synthetic.red_flags
    assert flag.startswith("1 of 3 image ids listed")
    write_manifest(folder, train_image_ids=["train-1", "other-1"], red_flags=[flag.replace("3", "2")])
    assert len(load(folder).red_flags) == 1, "what the manifest says already is said once"


def test_a_leak_in_another_spelling_is_refused(folder):
    write_manifest(folder, train_image_ids=["train-1", "Test/TEST-1.png"], train_patients=["p1"])
    with pytest.raises(UserError, match=r"trained on patients of the test set \(1 image"):
        load(folder)


def test_training_elsewhere_is_taken_and_flagged_and_hides_no_leak(folder):
    write_manifest(folder, train_image_ids=[], train_patients=[], trained_elsewhere="CheXpert")
    synthetic = load(folder)
    assert synthetic.generator_patients == set() and not synthetic.verified
    assert len(synthetic.red_flags) == 1 and "trained elsewhere (CheXpert)" in synthetic.red_flags[0]
    write_manifest(folder, train_patients=["p9"], trained_elsewhere="CheXpert")
    with pytest.raises(UserError, match="patients of the test set"):
        load(folder)


@pytest.mark.parametrize("allow", [False, True])
def test_images_without_a_label_are_always_refused(folder, allow):
    write_manifest(folder, label=None)
    with pytest.raises(UserError, match="trained on all classes"):
        load(folder, allow)


def test_incomplete_empty_and_broken_folders_are_refused(folder, tmp_path):
    write_manifest(folder, count=5)
    with pytest.raises(UserError, match="2 of 5 images are missing"):
        load(folder)
    paths.synthetic_manifest(folder).write_text('{"count": 3}')
    with pytest.raises(UserError, match="it lacks label, train_image_ids"):
        load(folder)
    write_manifest(folder, train_image_ids=None)
    with pytest.raises(UserError, match="train_image_ids: None is not a list"):
        load(folder)
    write_manifest(folder, count=3.0)
    with pytest.raises(UserError, match="count: 3.0 is not integer"):
        load(folder)
    with pytest.raises(UserError, match="holds no synthetic images"):
        load(tmp_path / "nowhere")
