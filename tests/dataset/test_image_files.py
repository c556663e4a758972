"""The file of an image id, wherever it lies; and what is said of one that does not."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from common import paths
from data_loader import load_images
from dataset.image_files import describe_missing, find_images, is_image_name, list_image_names
from dataset.records import load_dataset
from utils import UserError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("files", "image_id", "taken"),
    [
        (["a.png"], "a", "a.png"),
        (["a.PNG"], "a", "a.PNG"),
        (["a.jpg"], "a", "a.jpg"),
        (["A.JPEG"], "a", "A.JPEG"),
        (["a.png", "a.jpg"], "a", "a.png"),  # the expected name wins
        (["a.jpg", "A.jpg"], "a", "a.jpg"),  # then the same case
        (["._a.png", ".a.png", "a.jpg"], "a", "a.jpg"),  # hidden files are none
        (["a.b.png"], "a.b", "a.b.png"),
        (["a.b.JPG"], "a.b", "a.b.JPG"),
        (["a.tif", "a.npy"], "a", None),
        (["a.tif", "a.dcm"], "a", "a.dcm"),
        (["1.2.840.7.dcm"], "1.2.840.7", "1.2.840.7.dcm"),
        (["._a.png"], "a", None),
        (["ab.png"], "a", None),
        (["a.png"], "a.png", "a.png"),  # ids with endings
        (["a.jpg"], "a.dcm", "a.jpg"),
        (["a.dcm.png", "a.png"], "a.dcm", "a.dcm.png"),
    ],
)
def test_the_one_file_that_fits_is_taken(tmp_path, files, image_id, taken):
    if {"a.jpg", "A.jpg"} <= set(files) and (touch(tmp_path / "x", "a") / "A").exists():
        pytest.skip("this file system does not tell A from a")
    folder = touch(tmp_path / "images", *files)
    assert find_images([image_id], folder) == [folder / (taken or f"{image_id}.png")]


def test_umlauts_written_in_two_ways_are_the_same(tmp_path):
    folder = touch(tmp_path / "Bilder für alle", unicodedata.normalize("NFD", "müller") + ".png")
    (found,) = find_images(["müller"], folder)
    assert found.exists()


def test_what_is_ambiguous_is_refused_naming_both(tmp_path):
    folder = touch(tmp_path, "a.jpg", "a.JPEG")
    with pytest.raises(UserError, match=r"two files for image a, a\.JPEG and a\.jpg; keep the right one"):
        find_images(["a"], folder)
    folder = touch(tmp_path / "other", "b.jpg")
    with pytest.raises(UserError, match=r"b\.jpg fits two images, B and b"):
        find_images(["B", "b"], folder)


def test_hidden_files_folders_and_others_are_no_images(tmp_path):
    touch(tmp_path, "a.png", "b.JPG", "._a.png", ".DS_Store", "Thumbs.db", "c.txt")
    touch(tmp_path / "d.png")
    assert list_image_names(tmp_path) == ["a.png", "b.JPG"] and list_image_names(tmp_path / "nowhere") == []
    assert not is_image_name("png") and is_image_name("a.b.jpeg")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot be listed .Permission denied.; change its permissions"):
        find_images(["a"], tmp_path)


# --- missing ---------------------------------------------------------------------------------------
def test_other_places_and_kinds_are_told(tmp_path):
    touch(tmp_path, paths.TRAIN_METADATA)
    folder = paths.training_images(tmp_path)
    missing = [folder / "a.png", folder / "b.png"]
    assert describe_missing(missing) == f"{folder} does not exist"
    touch(tmp_path / "Images", "a.png", "B.jpg", "c.png")
    said = describe_missing(missing)
    assert f"{folder} does not exist" in said
    assert f"{tmp_path / 'Images'} holds 2 images of these names: move them to {folder}" in said
    touch(folder, "other.png")
    touch(paths.training_masks(tmp_path), "a.png", "b.png")  # masks are no X-rays
    said = describe_missing(missing)
    assert f"{folder} holds 1 images, such as other.png" in said and "Masks" not in said
    touch(folder, "a.npy", "b.npy")
    assert "holds files of these names, but 2 with .npy: only PNG, JPEG and DICOM are read" in describe_missing(missing)


# --- a whole folder --------------------------------------------------------------------------------
def test_other_endings_links_and_odd_folders_give_the_same_pixels(make_dataset, tmp_path):
    data_dir = make_dataset(n=16)
    expected = load_images(load_dataset(data_dir).images, 16)
    folder = paths.training_images(data_dir)
    elsewhere = tmp_path / "ganz wo anders, für später"
    elsewhere.mkdir()
    for index, file in enumerate(sorted(folder.iterdir())):
        if index % 3 == 0:
            file.rename(folder / file.name.replace(".png", ".PNG").upper())
        elif index % 3 == 1:
            file.rename(elsewhere / file.name)
            file.symlink_to(elsewhere / file.name)
    touch(folder, "._img-0001.png", ".DS_Store", "Thumbs.db")
    moved = folder.rename(elsewhere / "Röntgen")
    folder.symlink_to(moved, target_is_directory=True)
    found = load_images(load_dataset(data_dir).images, 16)
    assert np.array_equal(found.pixels, expected.pixels)
    assert list(found.records["image_id"]) == list(expected.records["image_id"])


REASONS = {
    "empty": (b"", "empty (0 bytes)"),
    "text": (b"not a png", "not an image"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer instead"),
    "page": (b"\n<!DOCTYPE html><html>", "a web page instead"),
    "error": (b"<HTML><body>404", "a web page instead"),
    "dicom": (bytes(128) + b"DICM" + bytes(20), "a DICOM file; give it the ending .dcm"),
    "cut": (None, "cut short"),
    "folder": ("folder", "a folder"),
    "link": ("link", "a link to a file that is not there"),
    "float": ("float", "holds floating-point values; save it as 8- or 16-bit gray"),
    "wide": ("wide", "holds values of 0 to 70,000; 16 bits end at 65,535"),
}


@pytest.mark.parametrize("cached", [False, True])
def test_every_unreadable_image_has_its_reason(make_dataset, tmp_path, cached):
    data_dir = make_dataset(n=16)
    records, folder = load_dataset(data_dir).images, paths.training_images(data_dir)
    for image_id, (content, _) in zip(records["image_id"], REASONS.values(), strict=False):
        file = folder / f"{image_id}.png"
        whole = file.read_bytes()
        file.unlink()
        if content == "folder":
            file.mkdir()
        elif content == "link":
            file.symlink_to(tmp_path / "gone")
        elif content == "float":
            Image.fromarray(np.ones((8, 8), np.float32)).save(file, format="TIFF")
        elif content == "wide":
            Image.fromarray(np.array([[0, 70_000]], np.int32)).save(file, format="TIFF")
        else:
            file.write_bytes(content if content is not None else whole[: len(whole) // 2])
    images = load_images(records, 16, skip_bad=True, cache_dir=tmp_path / "cache" if cached else None)
    assert len(images.reasons) == len(REASONS) and len(images.facts) == len(images.pixels) == 16 - len(REASONS)
    for (_, expected), reason in zip(REASONS.values(), images.reasons.values(), strict=True):
        assert reason.startswith(expected)
    with pytest.raises(UserError, match=r"11 images \(img-0000: empty \(0 bytes\), img-0001: not an image, .*\.\.\."):
        load_images(records, 16)


def test_a_file_that_may_not_be_read_is_named(make_dataset):
    data_dir = make_dataset(n=16)
    file = paths.training_images(data_dir) / "img-0002.png"
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    images = load_images(load_dataset(data_dir).images, 16, skip_bad=True)
    assert images.reasons == {"img-0002": "permission denied"}
