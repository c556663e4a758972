"""Folders of images without metadata: which files they hold."""

from pathlib import Path

import pytest
from PIL import Image

from dataset.image_folders import list_folder


@pytest.mark.parametrize("leads_to", [".", "a"])
def test_a_link_to_a_folder_that_is_read_lists_no_image_twice(tmp_path: Path, leads_to: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / f"{name}.png")
    (tmp_path / "b" / "link").symlink_to(tmp_path / leads_to)
    assert sorted(file.name for file in list_folder(tmp_path, "--real")) == ["a.png", "b.png"]


def test_a_folder_is_read_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "b" / "1.png")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert list_folder(tmp_path, "--real") == [tmp_path / "b" / "1.png"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.new("L", (8, 8)).save(elsewhere / "a.png")
    folder = tmp_path / "real"
    folder.mkdir()
    (folder / "link").symlink_to(elsewhere)
    assert [file.name for file in list_folder(folder, "--real")] == ["a.png"]


def test_what_archives_and_network_disks_add_is_left_out(tmp_path: Path) -> None:
    for name in ("sub/a.png", "sub/@eaDir/thumbnail.png", "__MACOSX/b.png", ".hidden/c.png", "sub/._a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert [file.name for file in list_folder(tmp_path, "--real")] == ["a.png"]
