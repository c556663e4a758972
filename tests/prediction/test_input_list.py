"""Files, folders and tables of paths that become one list of images."""

import os
from pathlib import Path

import pytest

from prediction.input_list import list_inputs
from utils import UserError


def make(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found) -> list[str]:
    return [str(file) for file in found.files]


def test_folders_are_searched_and_sorted(in_tmp):
    make("x/b.png", "x/a/z.JPG", "x/a/y.tiff", "x/c.dcm", "x/.hidden.png", "x/.cache/d.png", "x/notes.txt")
    make("x/list.csv", "x/heat.patient.png", "x/page.patient.html", "x/DICOMDIR", "x/out.csv")
    Path("x/no_ending").write_bytes(b"\0" * 128 + b"DICM")
    found = list_inputs(["x"], own_files=[Path("x/out.csv")])
    assert names(found) == ["x/a/y.tiff", "x/a/z.JPG", "x/b.png", "x/c.dcm", "x/no_ending"]
    (note,) = found.notes
    assert note.startswith("2 files of other kinds") and "1 .txt" in note


def test_the_order_is_the_users_and_each_file_counts_once(in_tmp):
    make("b.png", "x/a.png", "x/c.png", "odd.name")
    assert names(list_inputs(["odd.name", "b.png", "x", "./x/a.png"])) == ["odd.name", "b.png", "x/a.png", "x/c.png"]


def test_a_circle_of_links_ends(in_tmp):
    make("x/a.png", "elsewhere/b.png")
    Path("x/up").symlink_to("..")
    Path("x/linked").symlink_to("../elsewhere")
    found = names(list_inputs(["x"]))
    assert {"x/a.png", "x/linked/b.png"} <= set(found) and len(found) < 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path\na.png\nsub/b.png\n", ["x/a.png", "x/sub/b.png"]),
        ("a.png\nsub/b.png\n", ["x/a.png", "x/sub/b.png"]),  # without a name of the column
        ("label;File name\n1;a.png\n0;absent.png\n", ["x/a.png", "x/absent.png"]),
        ("path,label\nx/a.png,1\n", ["x/a.png"]),  # as seen from the working directory
        ('path\n"b, and\nc.png"\n', ["x/b, and\nc.png"]),
        ("path\n./=d.png\n", ["x/=d.png"]),
        ("path\nq\\xff.png\n", [os.fsdecode(b"x/q\xff.png")]),  # as predictions.csv writes that byte
    ],
)
def test_tables_of_paths(text, expected, in_tmp):
    make("x/a.png", "x/sub/b.png", "x/b, and\nc.png", "x/=d.png", os.fsdecode(b"x/q\xff.png"))
    Path("x/list.csv").write_text(text, encoding="utf-8")
    assert names(list_inputs(["x/list.csv"])) == expected


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        (["absent"], "--images absent is not there"),
        (["x/empty"], "no PNG, JPEG, TIFF or DICOM file there"),
        (["x/others"], r"but 1 files of other kinds \(1 .txt\)"),
        (["x/two.csv"], "may both hold the paths"),
        (["x/none.csv"], "has no column path among id, label"),
        (["x/blank.csv"], "names no image"),
    ],
)
def test_wrong_places_end_in_one_line(places, problem, in_tmp):
    make("x/others/a.txt")
    Path("x/empty").mkdir()
    for name, text in {"two": "path,file\na,b\n", "none": "id,label\n1,2\n", "blank": "path\n"}.items():
        Path(f"x/{name}.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        list_inputs(places)
