"""Lists of training images in every spelling."""

from pathlib import Path

import pytest

from synthetic.leak_checks import (
    extra_patients_flag,
    match_ids,
    nih_patient,
    overlaps,
    refuse_overlapping,
    unknown_ids_flag,
)

PATIENT_OF = {"Img-a1": "00000007", "img-b2": "00000008", "1.2.840.7": "00000009"}


@pytest.mark.parametrize(
    "name",
    ["Img-a1", "img-A1", "Img-a1.PNG", "Training/Images/Img-a1.png", r"D:\rsna\IMG-A1.dcm", "./img-a1.jpeg",
     "Img-a1/image.png", "Img-a1.dcm.png", " Img-a1 ", "a/Img-a1/"],
)  # fmt: skip
def test_an_image_is_found_however_it_is_spelled(name):
    seen = match_ids([name], PATIENT_OF)
    assert (seen.ids, seen.patients, seen.nih, seen.unknown) == (["Img-a1"], ["00000007"], [], [])


def test_dots_of_an_id_are_no_ending_and_spellings_are_one_image():
    assert match_ids(["1.2.840.7", "x/1.2.840.7.dcm", "img-b2", "IMG-B2.png"], PATIENT_OF).ids == [
        "1.2.840.7", "img-b2",
    ]  # fmt: skip
    assert match_ids(["1.2.840"], PATIENT_OF).unknown == ["1.2.840"]


def test_ids_that_differ_in_case_only_all_count_as_seen():
    assert match_ids(["AB"], {"ab": "p1", "Ab": "p2"}).patients == ["p1", "p2"]


def test_nih_names_tell_a_patient_where_patients_are_nihs():
    listed = ["images_001/images/00000007_013.png", "00099999_000"]
    seen = match_ids(listed, PATIENT_OF)
    assert seen.patients == ["00000007", "00099999"] and seen.nih == sorted(listed) and not seen.unknown
    alone = match_ids(listed, {"img-a1": "img-a1"})
    assert alone.unknown == sorted(listed) and not alone.patients and not alone.nih
    assert nih_patient("a/00000007_013.png") == "00000007" and nih_patient("7_013.png") is None


def test_what_is_unknown_is_counted():
    seen = match_ids(["img-b2", "else/where", "img-b3"], PATIENT_OF)
    assert seen.unknown == ["else/where", "img-b3"]
    assert unknown_ids_flag(seen).startswith("2 of 3 image ids listed")
    assert unknown_ids_flag(match_ids(["img-b2"], PATIENT_OF)) is None


@pytest.mark.parametrize("name", ["CheXpert", "MIMIC-CXR", "PadChest", "VinDr-CXR", "LAION-5B"])
def test_data_of_other_hospitals_is(name):
    refuse_overlapping(name)


def test_overlap_with_validation_patients():
    assert overlaps({"p1", "p2"}, {"p2", "p3"})
    assert not overlaps({"p1"}, {"p2"})
    assert overlaps(None, {"p2"}), "unknown origin counts as seen"


def test_patients_beyond_the_classifiers_are_counted():
    assert extra_patients_flag(Path("a/b"), {"p1", "p2"}, {"p1", "p2", "p3"}) is None
    assert extra_patients_flag(Path("a/b"), None, {"p1"}) is None
    flag = extra_patients_flag(Path("a/b"), {"p1", "p8", "p9"}, {"p1"})
    assert flag is not None and flag.startswith("the generator of b/ learned from 2 patients")
