"""ChestX-ray14: findings, NIH's patients, the official list of test images, and tables that have slipped."""

import shutil

import pytest

import import_dataset
from common import paths
from dataset.records import load_dataset, load_official_test
from fake_layouts import nih
from importers.nih import read_nih
from synthetic.leak_checks import known_patients, match_ids
from utils import UserError, load_json


def test_nih_becomes_a_data_folder(tmp_path):
    import_dataset.main(
        ["--from", "nih", "--source", str(nih(tmp_path / "source")), "--data-dir", str(tmp_path / "data")]
    )
    dataset, official = load_dataset(tmp_path / "data"), load_official_test(tmp_path / "data")
    assert dict(zip(dataset.images["image_id"], dataset.images["label"], strict=True)) == {
        "00000001_000": 0, "00000001_001": 1, "00000002_000": 0, "00000003_000": 0,
    }  # fmt: skip
    assert list(official.images["label"]) == [1, 0] and official.labelled
    assert dataset.grouped_by == "nih_patient" and list(dataset.images["patient"][:2]) == ["00000001"] * 2
    assert dataset.images["age"].isna().sum() == 1  # 414 years
    assert list(official.images["age"]) == [95, 95]  # public already
    provenance = load_json(paths.provenance(tmp_path / "data"))
    assert provenance["names"] == "kept" and provenance["images"]["linked"] == 6
    assert provenance["patients"]["unknown_images"] == 0 and not provenance["patients"]["pseudonyms"]
    flags = " ".join(dataset.red_flags)
    assert "positive means: one of the findings Pneumonia by NIH" in flags and "key" not in flags
    # Lists of training images name people of NIH: the import must know them.
    seen = match_ids(["images_002/images/00000004_007.png"], known_patients(dataset, official))
    assert seen.patients == ["00000004"]


def test_findings_that_count_as_positive(tmp_path):
    source = read_nih(nih(tmp_path), ["pneumonia", "INFILTRATION"])
    assert [image.label for image in source.images] == [0, 1, 0, 1, 1, 0]
    assert source.positive["names"] == ["Pneumonia", "Infiltration"]
    with pytest.raises(UserError, match="--positive Flu: there is no such finding; there are No Finding, Atelectasis"):
        read_nih(tmp_path, ["Flu"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0,2,81,M,AP", "0,3,81,M,AP", "line 4: image 00000002_000 has Patient ID '3'; the name says 00000002"),
        ("No Finding,0,2", "Nothing|Mass,0,2", "holds 'Nothing', no finding of NIH"),
        ("Finding Labels", "Labels", "has no column Finding Labels"),
        ("00000003_000.png", "00000009_000.png", r"1 images of Data_Entry_2017.csv are not in .*00000009_000.png"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, old, new, message):
    table = nih(tmp_path) / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_nih(tmp_path)


def test_a_part_of_the_images_is_taken_on_request(tmp_path):
    nih(tmp_path)
    (tmp_path / "images_001/images/00000001_000.png").unlink()
    (tmp_path / "test_list.txt").unlink()
    found = read_nih(tmp_path, skip_bad=True)
    assert found.left_out == {"no file": 1} and not any(image.official for image in found.images)
    (tmp_path / "Data_Entry_2017.csv").unlink()
    with pytest.raises(UserError, match="holds no Data_Entry_2017"):
        read_nih(tmp_path)


def test_a_source_without_images_is_one_line(tmp_path):
    source = nih(tmp_path / "source")
    for folder in source.glob("images_*"):
        shutil.rmtree(folder)
    words = ["--from", "nih", "--source", str(source), "--data-dir", str(tmp_path / "data"), "--skip-bad-images"]
    with pytest.raises(UserError, match="no training image is left to import"):
        import_dataset.main(words)


def test_linked_folders_and_a_byte_order_mark_change_nothing(tmp_path):
    source, names = nih(tmp_path / "source"), tmp_path / "source" / "test_list.txt"
    (source / "images_001").rename(tmp_path / "other_disk")
    (source / "images_001").symlink_to(tmp_path / "other_disk")
    names.write_text(names.read_text(), encoding="utf-8-sig")
    assert [image.official for image in read_nih(source).images] == [False] * 4 + [True] * 2
