"""RSNA's competition: rows per box, classes, views and ages of headers, and tables that do not fit."""

import json

import numpy as np
import pytest

import import_dataset
from common import paths
from dataset.images import open_picture
from dataset.records import load_dataset, load_official_test
from fake_layouts import rsna_kaggle, text
from importers.rsna_kaggle import read_rsna_kaggle
from utils import UserError, load_json

LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"


def run(source, target, *options):
    import_dataset.main(["--from", "rsna-kaggle", "--source", str(source), "--data-dir", str(target), *options])
    return load_json(paths.provenance(target))


def test_the_competition_becomes_the_processed_set(tmp_path):
    provenance = run(rsna_kaggle(tmp_path / "source"), tmp_path / "data")
    assert provenance["names"] == "kept" and not provenance["patients"]["pseudonyms"]
    lines = (tmp_path / "data" / paths.TRAIN_METADATA).read_text().splitlines()
    assert lines[0] == "patientId,x,y,width,height,Target,class,age,sex,modality,position"
    assert lines[1:3] == [f"a1,{x},152,213,379,1,Lung Opacity,51,F,CR,AP" for x in (100, 101)]
    assert lines[4] == "a3,,,,,0,Normal,51,F,CR,PA"
    dataset, official = load_dataset(tmp_path / "data"), load_official_test(tmp_path / "data")
    assert list(dataset.images["class"]).count("Normal") == 3 and dataset.rows == 7
    assert not official.labelled and list(official.images["image_id"]) == ["t1", "t2"]
    assert official.images["age"].isna().all()  # 155 years: a typing error, not 90
    picture = open_picture(dataset.images["path"][0])
    assert picture.mode == "I;16" and np.asarray(picture.gray).max() > 250
    # The meaning is the product's own; without the mapping, patients are unknown, which every result says.
    assert not any("positive means" in flag for flag in dataset.red_flags)
    assert dataset.grouped_by == "image_id" and provenance["patients"]["known"] == 0


def test_the_mapping_is_found_or_given(tmp_path):
    source = rsna_kaggle(tmp_path / "source")
    entries = [{"subset_img_id": f"a{n}", "img_id": f"0000000{n // 2}_00{n}.png"} for n in range(1, 7)]
    elsewhere = text(tmp_path / "map.json", json.dumps([*entries, {"subset_img_id": "zz", "img_id": "9_0.png"}]))
    provenance = run(source, tmp_path / "given", "--patient-map", str(elsewhere))
    dataset = load_dataset(tmp_path / "given")
    assert dataset.grouped_by == "nih_patient" and dataset.images["patient"].nunique() == 4
    assert provenance["patients"]["known"] == 4 and provenance["patients"]["unknown_images"] == 2  # t1, t2
    assert load_json(tmp_path / "given" / paths.PATIENT_MAP) == entries
    text(source / paths.PATIENT_MAP, json.dumps(entries))
    run(source, tmp_path / "found")
    assert load_dataset(tmp_path / "found").grouped_by == "nih_patient"
    text(source / paths.PATIENT_MAP, json.dumps([{"subset_img_id": "x", "img_id": "1_0.png"}]))
    with pytest.raises(UserError, match="names none of the images"):
        run(source, tmp_path / "other")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (LABELS, "a3,,,,,0", "a3,,,,,2", "line 5: image a3 has Target '2'"),
        (LABELS, "a3,,,,,0", ",,,,,0", "line 5 names no image"),
        (LABELS, "a3,,,,,0", "a3,,,,,1", "line 5: image a3 has Target 1 and no box; images of Target 1 have"),
        (LABELS, "a2,100.0", "a2,", "line 4: image a2 has Target 1 and the box"),
        (LABELS, "a1,101.0,152.0,213.0,379.0,1", "a1,,,,,0", "line 3: image a1 has Target 0, but 1 in an earlier"),
        (LABELS, "a3,,,,,0\n", "", f"{LABELS} lacks 1 images .a3."),
        (LABELS, "width", "wide", "has no column width"),
        (CLASSES, "a3,Normal", "a3,Lung Opacity", "image a3 has Target 0 in .*but class 'Lung Opacity'"),
        (CLASSES, "a3,Normal", "a3,Pneumonia", "line 5: image a3 has class 'Pneumonia'; allowed are"),
        (CLASSES, "a1,Lung Opacity\na1", "a1,Normal\na1", "line 3: image a1 has class 'Lung Opacity', but 'Normal'"),
        (CLASSES, "a4,No Lung Opacity / Not Normal\n", "", f"{CLASSES} lacks 1 images .a4."),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, file, old, new, message):
    source = rsna_kaggle(tmp_path)
    whole = (source / file).read_text()
    assert old in whole
    (source / file).write_text(whole.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_rsna_kaggle(source)


def test_missing_and_superfluous_images(tmp_path):
    source = rsna_kaggle(tmp_path)
    (source / "stage_2_train_images" / "a6.dcm").rename(source / "stage_2_train_images" / "zz.dcm")
    with pytest.raises(UserError, match="1 images of stage_2_train_labels.csv are not in .*a6.*--skip-bad-images"):
        read_rsna_kaggle(source)
    found = read_rsna_kaggle(source, skip_bad=True)
    assert found.left_out == {"no file": 1, f"not in {LABELS}": 1}


def test_classes_may_lack(tmp_path):
    source = rsna_kaggle(tmp_path)
    (source / CLASSES).unlink()
    assert any("not told apart" in note for note in read_rsna_kaggle(source).notes)
