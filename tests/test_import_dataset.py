"""The whole import: what is written, what is refused, what an interruption leaves, and that no name leaks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import import_dataset
from common import paths
from common.file_formats import format_problems
from dataset.file_formats import Provenance
from dataset.images import open_picture, read_gray
from dataset.records import load_dataset, load_official_test
from dataset.splits import load_or_create_splits, make_splits
from dicom_data import EXPLICIT, JPEG_2000, as_stored, write_dicom
from fake_layouts import dicom, kermany, picture, text, two_classes
from importers.pixel_files import size_to_link
from phantom.dataset import make_phantom_dataset
from utils import UserError, load_json


def run(source: Path, target: Path, *options: str, layout: str = "folders") -> dict:
    """Import, and return what provenance.json holds."""
    import_dataset.main(["--from", layout, "--source", str(source), "--data-dir", str(target), *map(str, options)])
    return load_json(paths.provenance(target))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- what is written -------------------------------------------------------------------------------
def test_kermany_becomes_a_data_folder(tmp_path, capsys):
    provenance = run(kermany(tmp_path / "source"), tmp_path / "data")
    assert not format_problems(provenance, Provenance)
    assert provenance["data_set"] == "Kermany" and provenance["names"] == "hashed"
    counts = provenance["images"]
    keys = ("labelled", "positive", "official_test", "official_positive")
    assert [counts[key] for key in keys] == [14, 7, 4, 2]
    assert counts["linked"] + counts["rewritten"] == 18 and counts["padded"] == 11
    dataset, official = load_dataset(tmp_path / "data"), load_official_test(tmp_path / "data")
    assert len(dataset.images) == 14 and dataset.images["patient"].nunique() == 14
    assert official.labelled and official.images["label"].sum() == 2
    assert not set(official.images["patient"]) & set(dataset.images["patient"])
    for file in [*dataset.images["path"], *official.images["path"]]:
        with Image.open(file) as image:
            assert image.size[0] == image.size[1]
    assert any("class folder PNEUMONIA against NORMAL" in flag for flag in dataset.red_flags)
    assert any("key that was thrown away" in flag for flag in dataset.red_flags)
    printed = capsys.readouterr().out
    assert "positive means:" in printed and "the labelled official test set" in printed
    assert f"next: python src/data_loader.py --data-dir {tmp_path / 'data'}" in printed


def test_unknown_patients_are_a_red_flag(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    run(source, tmp_path / "data", "--group-pattern", "^(p.[01])")
    assert any("the patient is unknown for 6 of 8 images" in flag for flag in load_dataset(tmp_path / "data").red_flags)
    run(source, tmp_path / "none")  # then every result says that images are grouped by image id
    assert load_dataset(tmp_path / "none").grouped_by == "image_id"


def test_source_files_that_give_the_labels_away_are_a_red_flag(tmp_path):
    for name, side, quality in (("pneumonia", 44, 60), ("normal", 40, 90)):
        for number in range(22):
            picture(tmp_path / "source" / name / f"{number}.jpg", 40, side, quality=quality, comment="x")
    provenance = run(tmp_path / "source", tmp_path / "data")
    assert "files of the source alone give the labels away" in provenance["red_flags"][-1]
    with Image.open(load_dataset(tmp_path / "data").images["path"][0]) as image:
        assert image.format == "PNG"  # whose files say nothing any more
    assert provenance["images"]["padding_positive"] > provenance["images"]["padding_negative"] == 0


def test_a_kept_key_gives_the_same_patients_again(tmp_path, monkeypatch):
    source, key = kermany(tmp_path / "source"), tmp_path / "key"
    one, two = run(source, tmp_path / "a", "--patient-key", key), run(source, tmp_path / "b", "--patient-key", key)
    assert one["patients"]["key"] == two["patients"]["key"] is not None
    assert set(load_dataset(tmp_path / "a").images["patient"]) == set(load_dataset(tmp_path / "b").images["patient"])
    other = run(source, tmp_path / "c")
    assert other["patients"]["key"] is None
    assert not set(load_dataset(tmp_path / "a").images["patient"]) & set(load_dataset(tmp_path / "c").images["patient"])


def test_names_are_kept_on_request(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    picture(source / "normal" / "pn0.png")  # the name of a positive image
    assert run(source, tmp_path / "data", "--keep-names")["names"] == "kept"
    ids = set(load_dataset(tmp_path / "data").images["image_id"])
    assert {"pn1", "no1", "pneumonia_pn0", "normal_pn0"} <= ids


# --- names that must not leak ----------------------------------------------------------------------
def plant(folder: Path, secret: str) -> Path:
    """Write class folders whose file names, metadata and DICOM headers name a person."""
    for name, label in (("pneumonia", 1), ("normal", 0)):
        for number in range(3):
            stem = f"{secret}-{name[:2]}{number}"
            picture(folder / name / f"{stem}.jpg", 40, 40 + label, comment=secret.encode())
            picture(folder / name / secret / f"{stem}.png")
            picture(folder / name / f"{stem}_2.tif", description=secret)
            dicom(
                folder / name / f"{stem}.dcm", PatientID=f"{secret}{number}{label}", PatientName=secret,
                InstitutionName=secret, AccessionNumber=secret, StudyDescription=secret, SeriesDescription=secret,
                ImageComments=secret, OtherPatientIDs=secret, BodyPartExamined=secret, StationName=secret,
            )  # fmt: skip
    return folder


@pytest.mark.parametrize("layout", ["folders", "csv"])
def test_no_name_of_the_source_leaks(tmp_path, layout, monkeypatch, as_script):
    secret = "ZACHARIAS1234567"
    source = plant(tmp_path / secret / "source", secret)
    options = []
    if layout == "csv":
        files = sorted(file.relative_to(source).as_posix() for file in source.rglob("*.*"))
        rows = [f"{file},{int('pneumonia' in file)},{secret}{n}" for n, file in enumerate(files)]
        table = text(tmp_path / secret / f"{secret}.csv", "image,label,patient", *rows)
        options = ["--table", str(table)]
    monkeypatch.chdir(tmp_path)
    words = ["--from", layout, "--source", source, "--data-dir", "data", *options]
    code, out, err = as_script(import_dataset.main, *words)
    assert code == 0, err
    assert secret not in out + err
    written = [path for path in tmp_path.rglob("*") if path.is_file() and secret not in str(path)]
    assert len(written) >= 24 and {path.relative_to(tmp_path).parts[0] for path in written} == {"data"}  # no log
    for path in written:
        assert secret.lower().encode() not in path.read_bytes().lower(), path
    provenance = load_json(paths.provenance(tmp_path / "data"))
    assert provenance["patients"]["pseudonyms"] and provenance["patients"]["known"] >= 6


# --- interruptions ---------------------------------------------------------------------------------
def test_an_interrupted_import_goes_on(tmp_path, monkeypatch):
    source, key = kermany(tmp_path / "source"), tmp_path / "key"
    run(source, tmp_path / "whole", "--patient-key", key)
    from importers import writing

    original, written = writing.write_image, []

    def stop_after(limit):
        def write(file, content, target):
            if len(written) >= limit:
                raise KeyboardInterrupt
            written.append(file)
            return original(file, content, target)

        return write

    for limit in (5, 9):
        monkeypatch.setattr(writing, "write_image", stop_after(limit))
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "data", "--patient-key", key, "--workers", "1")
        with pytest.raises(UserError, match="import that has not ended"):
            load_dataset(tmp_path / "data")
    monkeypatch.setattr(writing, "write_image", stop_after(1000))
    run(source, tmp_path / "data", "--patient-key", key)
    assert len(written) == len(set(written)) == 18
    assert snapshot(tmp_path / "data") == snapshot(tmp_path / "whole")
    before = snapshot(tmp_path / "data")
    run(source, tmp_path / "data", "--patient-key", key)  # nothing to do
    assert len(written) == 18 and snapshot(tmp_path / "data") == before


def test_a_finished_import_without_a_key_is_not_touched(tmp_path, monkeypatch, capsys):
    source, folder = kermany(tmp_path / "source"), tmp_path / "my data"
    run(source, folder)
    before = snapshot(folder)
    monkeypatch.setattr("shutil.disk_usage", full_disk)  # nothing is written, so nothing is asked of the disk
    run(source, folder)
    assert snapshot(folder) == before
    assert f"next: python src/data_loader.py --data-dir '{folder}'" in capsys.readouterr().out


def full_disk(_: object) -> SimpleNamespace:
    return SimpleNamespace(free=1000)


# --- what is refused -------------------------------------------------------------------------------
def test_another_data_set_in_the_target_is_refused(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    text(tmp_path / "data" / paths.TRAIN_METADATA, "patientId,Target")
    with pytest.raises(UserError, match="already holds a data set"):
        run(source, tmp_path / "data")
    run(source, tmp_path / "mine")
    with pytest.raises(UserError, match="an import of other options; give another"):
        run(source, tmp_path / "mine", "--positive", "normal")
    with pytest.raises(UserError, match="an import of another source"):
        run(kermany(tmp_path / "other"), tmp_path / "mine")
    with pytest.raises(UserError, match="lie within each other"):
        run(source, source / "data")
    broken = load_json(paths.provenance(tmp_path / "mine")) | {"complete": "perhaps"}
    text(paths.provenance(tmp_path / "mine"), json.dumps(broken))
    with pytest.raises(UserError, match="is not what .*import_dataset.py. writes; give another"):
        run(source, tmp_path / "mine")
    with pytest.raises(UserError, match="is not what .*import_dataset.py. writes; delete it"):
        load_dataset(tmp_path / "mine")


def test_bad_images_are_named_or_left_out(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    (source / "normal" / "bad.png").write_bytes(b"<html>no image</html>")
    with pytest.raises(UserError, match="normal/bad.png: a web page .*--skip-bad-images; finished images are kept"):
        run(source, tmp_path / "data")
    provenance = run(source, tmp_path / "data", "--skip-bad-images")
    assert provenance["images"]["left_out"] == {"unreadable": 1} and len(load_dataset(tmp_path / "data").images) == 8
    for file in (source / "normal").iterdir():
        file.write_bytes(b"<html>no image</html>")
    with pytest.raises(UserError, match="without the unreadable images the training images are of one class only"):
        run(source, tmp_path / "other", "--skip-bad-images")


def test_labels_of_one_class_are_refused_before_anything_is_written(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    rows = [f"{file.name},1" for file in sorted(source.rglob("*.png"))]
    table = text(tmp_path / "table.csv", "image,label", *rows)
    with pytest.raises(UserError, match="all labels of the training images are positive; training needs both"):
        run(source, tmp_path / "data", "--table", table, layout="csv")
    assert not (tmp_path / "data").exists()


def test_a_small_disk_is_found_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", full_disk)
    with pytest.raises(UserError, match=r"18 images need about 0.0 GB, .* free; make room"):
        run(kermany(tmp_path / "source"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "nih", "--group-pattern", "^(a)"], "--group-pattern is for --from folders"),
        (["--from", "folders", "--image-column", "x"], "--image-column is for --from csv"),
        (["--from", "folders", "--uncertain", "drop"], "--uncertain is for --from chexpert"),
        (["--from", "folders", "--patient-map", "x"], "it needs --keep-names"),
        (["--from", "rsna-kaggle", "--positive", "x"], "--positive is for other layouts"),
        (["--from", "folders", "--group-pattern", "abc"], "needs brackets"),
        (["--from", "folders", "--group-pattern", "(a"], "no regular expression"),
        (["--from", "kermany"], "invalid choice"),
        (["--from", "folders", "--positive", ","], "must be one name"),
    ],
)
def test_options_that_do_not_go_together(options, message, capsys):
    with pytest.raises(SystemExit):
        import_dataset.main([*options, "--source", "x"])
    assert message in capsys.readouterr().err


# --- DICOM -----------------------------------------------------------------------------------------
def export_phantoms(phantoms: Path, folder: Path) -> Path:
    """Export phantoms as RSNA's competition has its images, with true patients in the headers."""
    mapping = {entry["subset_img_id"]: entry["img_id"] for entry in load_json(phantoms / paths.PATIENT_MAP)}
    rows = list(csv.DictReader((phantoms / paths.TRAIN_METADATA).open(encoding="utf-8")))
    for number, row in enumerate({row["patientId"]: row for row in rows}.values()):
        name, bits = row["patientId"], 8 + number % 9
        kind = "MONOCHROME2" if number % 2 else "MONOCHROME1"
        write_dicom(
            folder / "stage_2_train_images" / f"{name}.dcm",
            as_stored(read_gray(paths.training_images(phantoms) / f"{name}.png"), bits, kind),
            photometric=kind, bits=bits, syntax=JPEG_2000 if number % 3 == 0 else EXPLICIT, Modality="CR",
            PatientID=mapping[name].split("_")[0], PatientSex=row["sex"], PatientAge=f"{int(row['age']):03d}Y",
            ViewPosition=row["position"],
        )  # fmt: skip
    boxes = [",".join(row[key] for key in ("patientId", "x", "y", "width", "height", "Target")) for row in rows]
    text(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *boxes)
    classes = [f"{row['patientId']},{row['class']}" for row in rows]
    text(folder / "stage_2_detailed_class_info.csv", "patientId,class", *classes)
    return folder


def splits_of(folder: Path) -> dict:
    return load_json(load_or_create_splits(load_dataset(folder)).path)


@pytest.mark.slow
def test_dicom_of_phantoms_gives_the_splits_of_their_png(tmp_path):
    phantoms = make_phantom_dataset(tmp_path / "png", num_images=40, image_size=32, num_test_images=0)
    source, the_map = export_phantoms(phantoms, tmp_path / "source"), phantoms / paths.PATIENT_MAP
    wanted = splits_of(phantoms)
    provenance = run(source, tmp_path / "rsna", "--patient-map", the_map, layout="rsna-kaggle")
    assert provenance["images"]["rewritten"] == 40 and provenance["images"]["padded"] == 0
    assert splits_of(tmp_path / "rsna") == wanted
    pairs = zip(load_dataset(phantoms).images["path"], load_dataset(tmp_path / "rsna").images["path"], strict=True)
    for image, other in pairs:
        assert np.abs(read_gray(image).astype(int) - read_gray(other)).max() <= 1
        assert open_picture(other).mode == "I;16" and size_to_link(other.read_bytes()) == (32, 32)
    ages = load_dataset(phantoms).images["age"].clip(upper=90)
    assert list(load_dataset(tmp_path / "rsna").images["age"]) == list(ages)

    # The same from two class folders of DICOM files, with the mapping, and with the headers' patients alone.
    labels = {image["image_id"]: image["label"] for image in wanted["images"]}
    for file in (source / "stage_2_train_images").iterdir():
        place = tmp_path / "folders" / ("pneumonia" if labels[file.stem] else "normal") / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    same = ("image_id", "patient", "label", "role")
    run(tmp_path / "folders", tmp_path / "two", "--keep-names", "--patient-map", the_map)
    split = make_splits(load_dataset(tmp_path / "two"), [])["images"]
    rows, expected = ([[image[key] for key in same] for image in images] for images in (split, wanted["images"]))
    assert rows == expected
    run(tmp_path / "folders", tmp_path / "hashed")
    groups = load_dataset(tmp_path / "hashed").images.groupby("patient").size()
    assert sorted(groups) == sorted(load_dataset(phantoms).images.groupby("patient").size())


def test_dicom_that_is_no_frontal_chest_image(tmp_path):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    dicom(source / "normal" / "side.dcm", ViewPosition="LL", PatientID="7")
    provenance = run(source, tmp_path / "data")
    assert provenance["images"]["left_out"] == {"lateral views": 1} and provenance["images"]["labelled"] == 8
    dicom(source / "normal" / "hand.dcm", BodyPartExamined="HAND")
    with pytest.raises(UserError, match="normal/hand.dcm: an X-ray of another part of the body"):
        run(source, tmp_path / "other")
    provenance = run(source, tmp_path / "other", "--skip-bad-images")
    assert provenance["images"]["left_out"] == {"unreadable or no X-ray of a chest": 1, "lateral views": 1}


def test_burned_in_texts_and_shared_ids_are_told(tmp_path):
    source = tmp_path / "source"
    for number in range(30):
        name = "pneumonia" if number % 2 else "normal"
        shared = number < 24
        dicom(
            source / name / f"{number}.dcm", PatientID="ANON7" if shared else f"p{number}", PatientAge="095Y",
            BurnedInAnnotation="YES" if number == 0 else None,
        )  # fmt: skip
    provenance = run(source, tmp_path / "data")
    assert provenance["patients"]["known"] == 6 and provenance["patients"]["unknown_images"] == 24
    flags = " ".join(load_dataset(tmp_path / "data").red_flags)
    assert "1 images are said to show burned-in texts" in flags and "unknown for 24 of 30 images" in flags
    assert set(load_dataset(tmp_path / "data").images["age"]) == {90}


def test_without_pydicom_one_line_says_so(tmp_path, monkeypatch):
    source = two_classes(tmp_path / "source", "pneumonia", "normal")
    dicom(source / "normal" / "a.dcm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(UserError, match="DICOM files need pydicom .*pip install -r requirements-dicom.txt"):
        run(source, tmp_path / "data")
