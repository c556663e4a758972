"""Copies of every kind are planted among pictures of made-up people; nobody else is taken for a copy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from dataset.near_copies import find_copies
from dataset.records import load_dataset
from dataset.registration import match_scores, show_same_picture
from phantom.dataset import make_phantom_dataset

SIDE, N = 128, 16


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> np.ndarray:
    """Phantoms of different people."""
    folder = tmp_path_factory.mktemp("phantoms")
    make_phantom_dataset(folder, num_images=5 * N, num_test_images=0, image_size=SIDE, seed=3)
    people = load_dataset(folder).images.drop_duplicates("patient")
    return np.stack([np.asarray(Image.open(file)) for file in people["path"][:N]])


def as_jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def resized(image: np.ndarray, side: int, box: tuple[float, ...] | None = None) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box))


KINDS = {
    "identical": lambda image: image,
    "JPEG": as_jpeg,
    "blurred": lambda image: gaussian_filter(image, 1.0),
    "moved by 3 %": lambda image: shift(image, (4, -4), order=1, mode="nearest"),
    "reduced to 64": lambda image: resized(resized(image, 64), SIDE),
    "mirrored": lambda image: image[:, ::-1],
    "brighter": lambda image: (0.6 * image + 80).astype(np.uint8),
    "cropped": lambda image: resized(image, SIDE, (4, 2, SIDE - 2, SIDE - 5)),
}


def found_copies(a: np.ndarray, b: np.ndarray | None = None) -> set[tuple[int, int, bool]]:
    found = find_copies(a, b)
    one = np.stack([a[row][:, :: -1 if flip else 1] for (row, _), flip in zip(found.rows, found.mirrored, strict=True)])
    same = show_same_picture(one, (a if b is None else b)[found.rows[:, 1]])
    return set(zip(*found.rows[same].T.tolist(), found.mirrored[same].tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_planted_copies_are_found_and_nobody_else(pictures, kind):
    copies = np.stack([KINDS[kind](image) for image in pictures])
    found, expected = found_copies(copies, pictures), {(row, row, kind == "mirrored") for row in range(N)}
    assert found <= expected and len(found) >= (N - 1 if kind == "reduced to 64" else N)


def test_a_set_is_searched_in_itself(pictures):
    again = np.concatenate([pictures, pictures[5:6], pictures[7:8, :, ::-1]])
    assert found_copies(again) == {(5, N, False), (7, N + 1, True)}
    assert len(find_copies(pictures[:1]).rows) == 0


def test_scores_are_blind_to_labels_and_know_other_people(pictures):
    lettered = pictures.copy()
    lettered[:, :16, :32] = 255
    assert (match_scores(lettered, pictures) > 0.95).all()
    assert not show_same_picture(pictures[:-1], pictures[1:]).any()
    flat = np.full_like(pictures[:2], 90)
    assert match_scores(flat, flat).tolist() == [0, 0]
    assert match_scores(flat, pictures[:2]).tolist() == pytest.approx([0, 0], abs=0.01)
