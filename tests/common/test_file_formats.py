from typing import Annotated, NotRequired, TypedDict

from common.file_formats import describe_format, format_problems


class Row(TypedDict):
    """One row."""

    name: Annotated[str, "what it is"]
    ci95: Annotated[tuple[float, float] | None, "95 % interval, fractions"]


class File(TypedDict):
    """``rows.json``: some rows."""

    n_images: Annotated[int, "images counted"]
    rows: list[Row]
    by_name: NotRequired[dict[str, Row]]


GOOD = {"n_images": 3, "rows": [{"name": "a", "ci95": [0, 0.5]}, {"name": "b", "ci95": None}]}


def test_a_file_as_described_has_no_problems():
    assert format_problems(GOOD, File) == []
    assert format_problems(GOOD | {"by_name": {"x": GOOD["rows"][0]}}, File) == []


def test_missing_unknown_and_mistyped_keys_are_named_with_their_place():
    bad = {"rows": [{"name": 1, "ci95": [0, "x"], "extra": 0}], "by_name": {"x": 3}}
    assert format_problems(bad, File) == [
        "n_images is missing",
        "rows[0].extra is not described",
        "rows[0].name: 1 is not string",
        "rows[0].ci95: [0, 'x'] is not [number, number] or null",
        "by_name.x: 3 is not an object",
    ]
    assert format_problems({"n_images": True, "rows": []}, File) == ["n_images: True is not integer"]


def test_the_description_names_every_key_with_type_and_meaning():
    text = describe_format(File)
    assert "## File" in text and "### Row" in text and "``rows.json``: some rows." in text
    assert "| `ci95` | [number, number] or null | 95 % interval, fractions |" in text
    assert "| `by_name` | object of Row |  (may be absent) |" in text
