"""Lists of the images that a generator made elsewhere was trained on."""

import pytest

from synthetic.foreign_images import read_ids
from utils import UserError


@pytest.mark.parametrize(
    "text",
    ["a\nb\n", "image_id\na\nb\n", "patientId,Target\na,1\na,1\nb,0\n",
     "\ufeffx,Image_ID\r\n1,a\r\n\r\n2,b\r\n", "Image Index\na.png\nb.PNG\n", "b\na\na\n", '"a"\n"b"'],
)  # fmt: skip
def test_lists_are_read_with_and_without_a_header(tmp_path, text):
    (tmp_path / "ids.csv").write_text(text, encoding="utf-8")
    assert read_ids(tmp_path / "ids.csv") == ["a", "b"]


def test_dots_within_an_id_stay(tmp_path):
    (tmp_path / "ids.csv").write_text("1.2.840.7\n1.2.840.8.dcm\n")
    assert read_ids(tmp_path / "ids.csv") == ["1.2.840.7", "1.2.840.8"]


@pytest.mark.parametrize(
    ("text", "match"),
    [(b"", "names no image"), (b"image_id\n", "names no image"), (b"a,1\nb,0\n", "has no column image_id"),
     (b"image_id,x\na,1\n,2\n", "entry 2 has no image id"), (b"\xff\xfe\x00", "not a readable CSV")],
)  # fmt: skip
def test_broken_lists_are_named(tmp_path, text, match):
    (tmp_path / "ids.csv").write_bytes(text)
    with pytest.raises(UserError, match=match):
        read_ids(tmp_path / "ids.csv")
    with pytest.raises(UserError, match=r"none\.csv is missing"):
        read_ids(tmp_path / "none.csv")
