"""Class folders: which are positive, whose images they hold, and what is refused."""

import re

import pytest

from fake_layouts import kermany, picture, two_classes
from importers.folders import kermany_patient, read_folders
from utils import UserError


def test_kermany_as_kaggle_packs_it(tmp_path):
    source = read_folders(kermany(tmp_path))
    assert source.data_set == "Kermany" and source.root == tmp_path / "chest_xray"
    labelled = [image for image in source.images if not image.official]
    assert len(labelled) == 14 and sum(image.label for image in labelled) == 7
    official = [image for image in source.images if image.official]
    assert len(official) == 4 and sum(image.label for image in official) == 2
    patients = {image.name: image.patient for image in source.images}
    assert patients["person1_bacteria_1"] != patients["person1_virus_7"]
    assert not {image.patient for image in official} & {image.patient for image in labelled}
    assert source.positive["names"] == ["PNEUMONIA"] and source.positive["negative"] == ["NORMAL"]
    assert any("once more" in note for note in source.notes)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person12_bacteria_3", "person12_bacteria"),
        ("person1_virus_6_1", "person1_virus"),
        ("NORMAL2-IM-0115-0001", "NORMAL2-IM-0115"),
        ("IM-0115-0001-0002", "IM-0115"),
        ("BACTERIA-7422-0001", "BACTERIA-7422"),
        ("scan_042", ""),
    ],
)
def test_patients_of_kermany(name, patient):
    assert kermany_patient(name) == patient


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("PNEUMONIA", "NORMAL"), ("Pneumonia", "no pneumonia"), ("lung-opacity", "No_Finding"), ("1", "0"),
     ("positive", "Negative"), ("pneumonia", "Healthy")],
)  # fmt: skip
def test_names_that_are_clear(tmp_path, positive, negative):
    source = read_folders(two_classes(tmp_path, positive, negative))
    assert source.positive["names"] == [positive] and source.positive["negative"] == [negative]
    assert {image.file.parent.name for image in source.images if image.label} == {positive}
    assert source.patients == "" and not any(image.patient for image in source.images)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("COVID", "NORMAL"), ("abnormal", "normal"), ("sick", "well"), ("BACTERIA", "PNEUMONIA"), ("opacity", "positive")],
)
def test_names_that_are_not_clear_are_refused_and_can_be_told(tmp_path, positive, negative):
    two_classes(tmp_path, positive, negative)
    with pytest.raises(UserError, match=f"unclear.*{positive}.*, such as --positive {positive};"):
        read_folders(tmp_path)
    source = read_folders(tmp_path, [positive.lower()])
    assert {image.file.parent.name for image in source.images if image.label} == {positive}


def test_several_folders_may_be_positive(tmp_path):
    two_classes(tmp_path, "bacteria", "normal")
    two_classes(tmp_path, "virus", "normal")
    with pytest.raises(UserError, match="unclear"):
        read_folders(tmp_path)
    assert sum(image.label for image in read_folders(tmp_path, ["bacteria", "virus"]).images) == 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: picture(root / "train" / "loose.png"), "outside of class folders"),
        (lambda root: picture(root / "loose.png"), "beside its folders"),
        (lambda root: two_classes(root / "more", "PNEUMONIA", "NORMAL"), "images in more beside"),
        (lambda root: (root / "train").rename(root / "test"), "test but no train"),
        (lambda root: (root / "train" / "NORMAL").rename(root / "elsewhere"), "images in elsewhere beside"),
    ],
)
def test_half_understood_folders_are_refused(tmp_path, spoil, message):
    two_classes(tmp_path / "train", "PNEUMONIA", "NORMAL")
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        read_folders(tmp_path)


def test_one_class_or_none_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no folder with images"):
        read_folders(tmp_path)
    picture(tmp_path / "train" / "NORMAL" / "a.png")
    with pytest.raises(UserError, match="one class folder only, NORMAL"):
        read_folders(tmp_path)
    with pytest.raises(UserError, match="does not exist; give the folder"):
        read_folders(tmp_path / "typo")


def test_a_pattern_names_patients(tmp_path):
    picture(tmp_path / "pneumonia" / "mueller" / "1.png")
    picture(tmp_path / "normal" / "schmidt_2.png")
    source = read_folders(tmp_path, (), re.compile(r"^([a-z]+)[_/]"))
    assert [image.patient for image in source.images] == ["schmidt", "mueller"]
    with pytest.raises(UserError, match="--group-pattern .* fits no file"):
        read_folders(tmp_path, (), re.compile(r"^(\d{9})"))
