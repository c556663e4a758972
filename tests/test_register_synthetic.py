"""Registration of images made elsewhere, as a user runs it: what is copied, checked and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import register_synthetic
from common import paths
from common.file_formats import format_problems
from conftest import COLUMNS, metadata_row, write_csv
from dataset.records import load_dataset
from dataset.splits import assign_folds, load_or_create_splits, reduce_training
from synthetic import foreign_images as image_import
from synthetic.file_formats import Manifest
from synthetic.folders import load_synthetic
from utils import UserError, load_json

SRC = Path(register_synthetic.__file__).parent


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """120 images, two a patient, half positive; the images themselves need not be there."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"img-{index:03d}" for index in range(120)]
    kinds = ["Lung Opacity" if index // 2 % 2 else "Normal" for index in range(120)]
    rows = [metadata_row(name, kind) for name, kind in zip(names, kinds, strict=True)]
    write_csv(folder / paths.TRAIN_METADATA, rows, COLUMNS)
    mapping = [
        {"subset_img_id": name, "img_id": f"{index // 2:08d}_{index % 2:03d}.png"} for index, name in enumerate(names)
    ]
    (folder / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    load_or_create_splits(load_dataset(folder))
    return folder


def images_of(data_dir: Path, role: str) -> list[dict]:
    return [image for image in load_json(data_dir / paths.SPLITS)["images"] if image["role"] == role]


def training_ids(data_dir: Path) -> list[str]:
    return [image["image_id"] for image in images_of(data_dir, "train") if image["label"] == 1]


def write_list(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    """Images of every kind; c.png is 16-bit, the others say in their name what they are."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (20, 24)).astype(np.uint8)
    Image.fromarray(gray).save(folder / "a_gray.png")
    Image.fromarray(np.stack([gray] * 3, axis=2)).save(folder / "b_rgb.PNG")
    Image.fromarray(rng.integers(0, 2**16, (16, 16)).astype(np.uint16)).save(folder / "c_deep.png")
    Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / "d_colour.jpg")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._a_gray.png").write_text("litter of another system")
    return folder


def register(data_dir: Path, source: Path, output: Path, *flags: str) -> None:
    folders = ["--data-dir", str(data_dir), "--images", str(source), "--output-dir", str(output)]
    register_synthetic.main([*folders, "--workers", "1", *flags])


@pytest.fixture
def good_list(data_dir, tmp_path) -> Path:
    return write_list(tmp_path / "ids.csv", ["image_id", *training_ids(data_dir)])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def read(data_dir: Path, folder: Path, **options):
    dataset = load_dataset(data_dir)
    patient_of = dict(zip(dataset.images["image_id"], dataset.images["patient"], strict=True))
    test_images = {image["image_id"]: image["patient"] for image in images_of(data_dir, "test")}
    return load_synthetic(folder, patient_of, test_images, **options)


# --- what is made ----------------------------------------------------------------------------------
def test_registered_images_are_read_as_generated_ones_are(data_dir, source, good_list, tmp_path):
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    output = tmp_path / "out"
    register(data_dir, source, output, "--trained-on", str(good_list), "--generator", "diffusion/2")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    names = [f"synthetic_{number:05d}.png" for number in range(1, 5)]
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", *names]
    for name in names:
        with Image.open(output / name) as image:
            assert (image.mode, image.format) == ("L", "PNG")
    synthetic = read(data_dir, output)
    ids = training_ids(data_dir)
    assert len(synthetic.records) == 4 and synthetic.label == 1
    assert synthetic.verified and not synthetic.red_flags
    assert synthetic.generator_patients == {
        image["patient"] for image in images_of(data_dir, "train") if image["image_id"] in ids
    }
    manifest = load_json(paths.synthetic_manifest(output))
    expected = {
        "generator": "diffusion/2", "generator_sha256": None, "train_image_ids": sorted(ids),
        "complete": True, "count": 4, "created_by": "register_synthetic.py", "train_fraction": 1.0,
        "fold": None, "trained_elsewhere": None, "image_size": None, "grouped_by": "nih_patient",
        "split_sha256": load_json(data_dir / paths.SPLITS)["sha256"],
        "source_names": ["a_gray.png", "b_rgb.PNG", "c_deep.png", "d_colour.jpg"],
    }  # fmt: skip
    assert {key: manifest[key] for key in expected} == expected
    assert len(manifest["images_sha256"]) == 64
    assert not format_problems(manifest, Manifest)


def test_values_of_gray_stay_and_16_bits_are_scaled(data_dir, source, good_list, tmp_path):
    register(data_dir, source, tmp_path / "out", "--trained-on", str(good_list))
    made = [pixels(paths.synthetic_image(tmp_path / "out", index)) for index in range(1, 5)]
    gray = pixels(source / "a_gray.png")
    np.testing.assert_array_equal(made[0], gray)
    np.testing.assert_array_equal(made[1], gray)  # red = green = blue: luma is the same value
    deep = pixels(source / "c_deep.png").astype(float)
    np.testing.assert_allclose(made[2], deep / 65535 * 255, atol=0.5)
    colour = pixels(source / "d_colour.jpg") @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(made[3], colour, atol=1)


def test_interrupted_registration_goes_on_and_ends_the_same(data_dir, source, good_list, tmp_path, monkeypatch):
    flags = ["--trained-on", str(good_list)]
    register(data_dir, source, tmp_path / "whole", *flags)
    original, saved = image_import.save_png, []

    def interrupted(path, image):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path)
        original(path, image)

    monkeypatch.setattr(image_import, "save_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        register(data_dir, source, tmp_path / "out", *flags)
    with pytest.raises(UserError, match="2 of 4 images are missing.*register_synthetic.py"):
        read(data_dir, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in saved}
    monkeypatch.setattr(image_import, "save_png", original)
    register(data_dir, source, tmp_path / "out", *flags)
    assert {path: path.stat().st_mtime_ns for path in saved} == times
    whole, again = ({p.name: p.read_bytes() for p in (tmp_path / d).iterdir()} for d in ("whole", "out"))
    assert whole == again


def test_other_images_are_replaced_only_when_asked_and_folds_never(data_dir, source, good_list, tmp_path):
    output, flags = tmp_path / "out", ["--trained-on", str(good_list)]
    register(data_dir, source, output, *flags)
    others = [name for name in training_ids(data_dir) if name not in fold_ids(data_dir, 1, 3)]
    fold_list = write_list(tmp_path / "fold.csv", others)
    register(data_dir, source, output, "--trained-on", str(fold_list), "--fold", "1", "--k-folds", "3")
    before = {path: path.read_bytes() for path in output.rglob("*.png")}
    assert len(before) == 8
    (source / "a_gray.png").unlink()
    with pytest.raises(UserError, match="holds images of another origin .*--overwrite"):
        register(data_dir, source, output, *flags)
    assert {path: path.read_bytes() for path in output.rglob("*.png")} == before
    register(data_dir, source, output, *flags, "--overwrite")
    assert len(read(data_dir, output).records) == 3
    assert len(read(data_dir, output / "fold_1").records) == 4


def fold_ids(data_dir: Path, fold: int, k: int) -> set[str]:
    folds = assign_folds(load_or_create_splits(load_dataset(data_dir)), k)
    return set(folds.index[folds == fold])


def test_negatives_and_common_sizes_are_said(data_dir, good_list, tmp_path):
    folder = tmp_path / "square"
    folder.mkdir()
    for name in ("x.png", "yy.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (16, 16), np.uint8)).save(folder / name)
    register(data_dir, folder, tmp_path / "out", "--trained-on", str(good_list), "--label", "negative")
    manifest = load_json(paths.synthetic_manifest(tmp_path / "out"))
    assert (manifest["image_size"], manifest["label"], manifest["classes"]) == (16, 0, "negative")
    assert read(data_dir, tmp_path / "out").label == 0


# --- what is refused -------------------------------------------------------------------------------
def refused(data_dir, source, tmp_path, lines: list[str], match: str, *flags: str) -> None:
    file = write_list(tmp_path / "list.csv", lines)
    with pytest.raises(UserError, match=match) as error:
        register(data_dir, source, tmp_path / "refused", "--trained-on", str(file), *flags)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "refused").exists()


def test_a_test_image_in_the_list_is_refused(data_dir, source, tmp_path):
    planted = images_of(data_dir, "test")[0]["image_id"]
    lines = ["image_id", *training_ids(data_dir), planted]
    refused(data_dir, source, tmp_path, lines, "trained on patients of the test set .*" + planted)


@pytest.mark.parametrize("extra", [[], ["--trained-elsewhere", "CheXpert"]])
@pytest.mark.parametrize("spelled", ["Training/Images/{}.png", r"rsna\{}.dcm", "{}.JPG"])
def test_a_test_image_is_refused_however_it_is_spelled(data_dir, source, tmp_path, spelled, extra):
    planted = images_of(data_dir, "test")[0]["image_id"]
    lines = ["image_id", *training_ids(data_dir), spelled.format(planted.upper())]
    refused(data_dir, source, tmp_path, lines, "trained on patients of the test set .*" + planted, *extra)


@pytest.mark.parametrize("extra", [[], ["--trained-elsewhere", "CheXpert"]])
def test_another_image_of_a_test_patient_is_refused_too(data_dir, source, tmp_path, extra):
    # An image of NIH ChestX-ray14 that is not in this dataset, of a person who is in its test set.
    patient = images_of(data_dir, "test")[0]["patient"]
    lines = ["Image Index,Finding Labels", "99990000_000.png,Effusion", f"{patient}_017.png,No Finding"]
    refused(data_dir, source, tmp_path, lines, r"patients of the test set \(2 images", *extra)


def test_nih_names_are_compared_with_the_images_whose_patient_is_known(data_dir, source, tmp_path):
    folder = tmp_path / "unmapped"
    folder.mkdir()
    (folder / paths.TRAIN_METADATA).write_bytes((data_dir / paths.TRAIN_METADATA).read_bytes())
    refused(folder, source, tmp_path, ["00000000_017.png"], "give the official --patient-map")
    (folder / paths.SPLITS).unlink()  # made by what was refused, grouped by image
    mapping = load_json(data_dir / paths.PATIENT_MAP)
    missing = images_of(data_dir, "train")[0]["image_id"]
    mapping = [entry for entry in mapping if entry["subset_img_id"] != missing]
    (folder / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    load_or_create_splits(load_dataset(folder))
    tested = images_of(folder, "test")[-1]["patient"]
    refused(folder, source, tmp_path, [f"{tested}_017.png"], "patients of the test set")
    names = write_list(tmp_path / "nih.csv", [f"{90000000 + index}_000.png" for index in range(40)])
    register(folder, source, tmp_path / "out", "--trained-on", str(names))
    assert "the NIH patient of 1 of the dataset's images is unknown" in read(folder, tmp_path / "out").red_flags[0]


def test_unlabelled_official_images_are_known_with_their_patients(data_dir, source, tmp_path):
    folder, patient = tmp_path / "set", images_of(data_dir, "test")[0]["patient"]
    folder.mkdir()
    for name in (paths.TRAIN_METADATA, paths.SPLITS):
        (folder / name).write_bytes((data_dir / name).read_bytes())
    mapping = load_json(data_dir / paths.PATIENT_MAP)
    mapping.append({"subset_img_id": "official-1", "img_id": f"{patient}_009.png"})
    (folder / paths.PATIENT_MAP).write_text(json.dumps(mapping))
    rows = [{"patientId": "official-1", "PredictionString": "0.5 0 0 100 100"}]
    write_csv(folder / paths.TEST_METADATA, rows)
    refused(folder, source, tmp_path, ["patientId", "official-1"], "patients of the test set")


def test_a_false_fold_or_fraction_is_refused(data_dir, source, tmp_path):
    ids = training_ids(data_dir)
    in_fold = [name for name in ids if name in fold_ids(data_dir, 2, 3)]
    lines = [*(name for name in ids if name not in in_fold), in_fold[0]]
    refused(data_dir, source, tmp_path, lines, "of the --fold that", "--fold", "2", "--k-folds", "3")
    kept = reduce_training(load_or_create_splits(load_dataset(data_dir)), 0.5).images
    kept = list(kept.loc[(kept["role"] == "train") & (kept["label"] == 1), "image_id"])
    refused(data_dir, source, tmp_path, ids, "beyond the --train-fraction", "--train-fraction", "0.5")
    file = write_list(tmp_path / "half.csv", kept)
    register(data_dir, source, tmp_path / "half", "--trained-on", str(file), "--train-fraction", "0.5")
    assert read(data_dir, tmp_path / "half").train_fraction == 0.5


def test_other_spellings_are_written_down_as_the_dataset_spells_them(data_dir, source, tmp_path, capsys):
    ids = training_ids(data_dir)
    file = write_list(tmp_path / "list.csv", [f"Training/Images/{name.upper()}.png" for name in ids])
    register(data_dir, source, tmp_path / "out", "--trained-on", str(file))
    manifest = load_json(paths.synthetic_manifest(tmp_path / "out"))
    assert manifest["train_image_ids"] == sorted(ids) and manifest["red_flags"] == []
    assert f"the generator saw {len(ids)} images of" in capsys.readouterr().out


def test_unknown_ids_are_refused_or_flagged(data_dir, source, tmp_path, capsys):
    ids = training_ids(data_dir)
    lines = [*ids, "patient00042/study1/view1_frontal.jpg"]
    refused(data_dir, source, tmp_path, lines, r"1 image \(patient00042/study1/view1_frontal\) that .* not have")
    flags = ["--trained-on", str(write_list(tmp_path / "list.csv", lines)), "--trained-elsewhere", "CheXpert"]
    register(data_dir, source, tmp_path / "out", *flags)
    synthetic = read(data_dir, tmp_path / "out")
    unknown = f"1 of {len(ids) + 1} image ids listed as the generator's training images are unknown here"
    assert synthetic.manifest["red_flags"][0].startswith(unknown)
    assert sum(flag.startswith(unknown) for flag in synthetic.red_flags) == 1
    assert any("trained elsewhere (CheXpert)" in flag for flag in synthetic.red_flags)
    assert not synthetic.verified
    said = capsys.readouterr().out
    assert f"{len(ids)} of the {len(ids) + 1} images listed could be compared" in said
    assert "none of the test set" not in said
    assert synthetic.generator_patients == {
        image["patient"] for image in images_of(data_dir, "train") if image["image_id"] in ids
    }


def test_a_generator_of_other_data_alone_is_taken_and_flagged(data_dir, source, tmp_path, capsys):
    register(data_dir, source, tmp_path / "out", "--trained-elsewhere", "CheXpert")
    assert "RED FLAG: the generator of out/ was trained elsewhere (CheXpert)" in capsys.readouterr().out
    synthetic = read(data_dir, tmp_path / "out")
    assert synthetic.generator_patients == set() and len(synthetic.red_flags) == 1


@pytest.mark.parametrize(
    "name", ["NIH", "nih-cxr", "ChestX-ray14", "chest_xray8", "RSNA 2018", "CheXpert+NIH", "COVIDx v9"]
)
def test_data_that_may_hold_the_test_patients_is_no_elsewhere(data_dir, source, tmp_path, name):
    with pytest.raises(UserError, match="a part of NIH ChestX-ray14.*--trained-on"):
        register(data_dir, source, tmp_path / "out", "--trained-elsewhere", name)
    assert not (tmp_path / "out").exists()


def test_few_training_images_are_flagged(data_dir, source, tmp_path):
    file = write_list(tmp_path / "few.csv", training_ids(data_dir)[:3])
    register(data_dir, source, tmp_path / "out", "--trained-on", str(file))
    assert "learned from 3 images, fewer than 32" in read(data_dir, tmp_path / "out").red_flags[0]


# --- folders and files -----------------------------------------------------------------------------
def test_unusable_folders_are_refused(data_dir, source, good_list, tmp_path):
    flags = ["--trained-on", str(good_list)]
    for folder, match in (
        (tmp_path / "nowhere", "is not a folder"),
        (data_dir, "holds no PNG, JPEG or DICOM"),
    ):
        with pytest.raises(UserError, match=match):
            register(data_dir, folder, tmp_path / "out", *flags)
    with pytest.raises(UserError, match="--images and --output-dir are both"):
        register(data_dir, source, source, *flags, "--overwrite")
    assert (source / "a_gray.png").is_file()
    register(data_dir, source, tmp_path / "out", *flags)
    with pytest.raises(UserError, match="already says where these images come from"):
        register(data_dir, tmp_path / "out", tmp_path / "laundered", *flags)


def test_unreadable_images_stop_before_anything_is_written_or_are_left_out(data_dir, source, good_list, tmp_path):
    broken = source / "b_rgb.PNG"
    broken.write_bytes(broken.read_bytes()[:-300])
    flags = ["--trained-on", str(good_list)]
    with pytest.raises(UserError, match=r"1 image \(b_rgb\.PNG: cut short\) unreadable in .*--skip-bad-images"):
        register(data_dir, source, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()
    register(data_dir, source, tmp_path / "out", *flags, "--skip-bad-images")
    manifest = load_json(paths.synthetic_manifest(tmp_path / "out"))
    assert manifest["count"] == 3 and manifest["skipped_images"] == {"count": 1, "image_ids": ["b_rgb.PNG"]}


def test_12_bits_in_16_bit_files_are_not_taken_for_black_images(data_dir, good_list, tmp_path):
    folder = tmp_path / "dark"
    folder.mkdir()
    samples = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(samples).save(folder / "x.png")
    flags = ["--trained-on", str(good_list)]
    with pytest.raises(UserError, match="no 16-bit image of 1 uses more than 12 bits.*--bits 12"):
        register(data_dir, folder, tmp_path / "out", *flags)
    register(data_dir, folder, tmp_path / "out", *flags, "--bits", "12")
    copy = np.asarray(Image.open(paths.synthetic_image(tmp_path / "out", 1)))
    assert np.array_equal(copy, (samples / 4095 * 255).round())
    with pytest.raises(UserError, match=r"x\.png: holds the value 4,095, but --bits 11 ends at 2,047"):
        register(data_dir, folder, tmp_path / "out", *flags, "--bits", "11")


def test_what_is_odd_is_a_red_flag_only_where_it_is_frequent(data_dir, good_list, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(101):
        image = np.full((16, 16), 90, np.uint8) if number == 0 else rng.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    flags, said = ["--trained-on", str(good_list)], "1 image (000.png) of 101 use less than 32 of 256 gray values"
    register(data_dir, folder, tmp_path / "out", *flags)
    assert f"note: synthetic images: {said}" in capsys.readouterr().out
    assert not read(data_dir, tmp_path / "out").red_flags
    (folder / "100.png").unlink()  # now it is one in a hundred
    register(data_dir, folder, tmp_path / "out", *flags, "--overwrite")
    assert any(said.replace("101", "100") in flag for flag in read(data_dir, tmp_path / "out").red_flags)


@pytest.mark.parametrize("value", [0, 200])
def test_images_of_one_gray_value_are_refused(data_dir, good_list, tmp_path, value):
    folder = tmp_path / "blank"
    folder.mkdir()
    for name in ("x.png", "y.png"):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(folder / name)
    with pytest.raises(UserError, match=r"2 images \(x.png, y.png\) of 2 use less than 32 of 256 gray values"):
        register(data_dir, folder, tmp_path / "out", "--trained-on", str(good_list))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags",
    [[], ["--images", "x"], ["--images", "x", "--trained-on", "y", "--fold", "1"],
     ["--images", "x", "--trained-on", "y", "--label", "both"]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(flags):
    with pytest.raises(SystemExit) as stop:
        register_synthetic.main(flags)
    assert stop.value.code == 2


def test_a_refusal_is_one_line_and_exit_code_1(data_dir, source, tmp_path, as_script):
    planted = write_list(tmp_path / "list.csv", [images_of(data_dir, "test")[0]["image_id"]])
    words = ["--data-dir", data_dir, "--images", source, "--output-dir", tmp_path / "out", "--trained-on", planted]
    code, _, err = as_script(register_synthetic.main, *words)
    assert code == 1 and err.startswith("error: refused:") and len(err.splitlines()) == 1
