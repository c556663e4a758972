"""Any images with a CSV file: columns found or given, labels in words, files by path or name, and what is refused."""

from pathlib import Path

import pytest

from fake_layouts import picture, text
from importers.csv_table import read_csv_table
from utils import UserError

ROWS = ("a/1.png,1,p1,30,F,PA", "a/2.png,0,p1,30,F,AP", "b/3.png,0,p2,40,M,lateral", "b/4.png,1,,50,M,PA")
HEAD = "path,label,patient,age,sex,view"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        picture(tmp_path / "images" / name)
    return tmp_path / "images"


def table(source: Path, *lines: str) -> Path:
    return text(source.parent / "table.csv", *lines)


def test_usual_columns_are_found(source):
    found = read_csv_table(source, table(source, HEAD, *ROWS))
    assert [(image.name, image.label, image.patient) for image in found.images] == [
        ("1", 1, "p1"), ("2", 0, "p1"), ("4", 1, ""),
    ]  # fmt: skip
    assert found.left_out == {"lateral views": 1} and found.patients == "column patient" and not found.public
    assert found.positive["names"] == ["1"] and "label 1" in found.positive["sentence"]


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("image;Target;x", ["1;yes;", "2;no;", "3;no;", "4;yes;"]),
        ("Image Index,class", ["1.png,Lung Opacity", "2.png,Normal", "3.png,No Lung Opacity / Not Normal",
                               "4.png,Lung Opacity"]),
        ("filename,pneumonia", ["C:\\data\\a\\1.png,1.0", "/mnt/a/2.png,0.0", "./b/3.png,0", "b/4.PNG,1"]),
        ("Patient ID,patientId,Target", ["x,1,1", "x,2,0", "y,3,0", "z,4,1"]),
    ],
)  # fmt: skip
def test_the_same_table_in_other_words(source, head, rows):
    found = read_csv_table(source, table(source, head, *rows))
    assert [(image.name, image.label) for image in found.images] == [("1", 1), ("2", 0), ("3", 0), ("4", 1)]
    if head.startswith("Patient"):
        assert [image.patient for image in found.images] == ["x", "x", "y", "z"]


def test_columns_and_values_are_given(source):
    file = table(source, "file no,what,who", "1,Flu,7", "2,Nothing,7", "3,nothing,8", "4,Covid,9")
    columns = {"image": "file no", "label": "what", "patient": "who"}
    with pytest.raises(UserError, match="'what' .column 2. holds 'Flu', 'Nothing', 'nothing', 'Covid'; say with"):
        read_csv_table(source, file, columns)
    found = read_csv_table(source, file, columns, ["flu", "COVID"])
    assert [image.label for image in found.images] == [1, 0, 0, 1]
    assert found.positive["names"] == ["Covid", "Flu"] and found.positive["negative"] == []
    with pytest.raises(UserError, match="--positive Cold: column .* has no such value, but Covid, Flu, Nothing"):
        read_csv_table(source, file, columns, ["Cold"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "a/1.png,1", "a/2.png,"], "says nothing in lines 3; complete or remove"),
        (["path,label", "a/1.png,1", "a/9.png,0"], "1 images of table.csv are not in .*a/9.png"),
        (["path,label", "a/1.png,1", "a/1.png,0"], "line 3: image a/1.png has another label than in line 2"),
        (["path,label,patient", "a/1.png,1,x", "a/1.png,1,y"], "line 3: image a/1.png has another patient"),
        (["path,label", "a/1.png,1", "1.png,1"], "lines 2 and 3 name one file, a/1.png"),
        (["path,label", "a/1.png,1", ",0"], "line 3 names no image"),
        (["path,label", "a/1.png,1,2", "a/2.png,0,2"], "line 2 has 3 cells for 2 names"),
        (["path,severity", "a/1.png,1"], "has no usual column for the label; name it with --label-column .path"),
        (["what,label", "a/1.png,1"], "has no usual column for the image"),
        (["path,label,pneumonia", "a/1.png,1,0"], "has columns label and pneumonia; name the one .* --label-column"),
    ],
)
def test_half_understood_tables_are_refused(source, lines, message):
    with pytest.raises(UserError, match=message):
        read_csv_table(source, table(source, *lines))


def test_columns_that_are_not_there(source):
    file = table(source, HEAD, *ROWS)
    with pytest.raises(UserError, match="--age-column years: .* no such column; its columns are path, label"):
        read_csv_table(source, file, {"age": "years"})
    with pytest.raises(UserError, match="one column was given for two things"):
        read_csv_table(source, file, {"image": "path", "patient": "path"})


def test_names_that_fit_two_files(source):
    picture(source / "b" / "1.png")
    file = table(source, "image,label", "1.png,1", "2,0")
    with pytest.raises(UserError, match="line 2: image 1.png fits two files, a/1.png and b/1.png; write its path"):
        read_csv_table(source, file)


def test_the_only_table_in_the_source_is_taken(source):
    with pytest.raises(UserError, match="holds no .*csv"):
        read_csv_table(source)
    text(source / "one.csv", HEAD, *ROWS)
    text(source / "._one.csv", "what macOS writes beside it")
    assert len(read_csv_table(source).images) == 3
    text(source / "two.csv", HEAD, *ROWS)
    with pytest.raises(UserError, match="2 files .*one.csv, two.csv"):
        read_csv_table(source)
