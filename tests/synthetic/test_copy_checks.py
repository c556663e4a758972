"""Copies of held-out images among synthetic ones are refused or flagged; images of other people pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_loader import ImageSet
from fake_pictures import pictures
from image_metrics.planted_copies import Threshold
from synthetic import copy_checks
from synthetic.copy_checks import check_copies, copy_flags
from utils import UserError


def image_set(pixels: np.ndarray, name: str) -> ImageSet:
    ids = [f"{name}-{row}" for row in range(len(pixels))]
    records = pd.DataFrame({"image_id": ids, "patient": ids, "path": [Path(f"{name}/{one}.png") for one in ids]})
    return ImageSet(records, pixels, [], key=name)


@pytest.fixture(scope="module")
def world() -> dict[str, ImageSet]:
    rng = np.random.default_rng(7)
    test, training, fresh = pictures(rng, 20), pictures(rng, 60), pictures(rng, 20)
    copies = fresh.copy()
    copies[4], copies[9] = test[11][:, ::-1], (0.7 * test[3] + 30).astype(np.uint8)
    sets = {"test": test, "training": training, "fresh": fresh, "copies": copies}
    return {name: image_set(pixels, name) for name, pixels in sets.items()}


def check(world: dict[str, ImageSet], made: str, allow: bool = False, cache_dir: Path | None = None) -> list[str]:
    return check_copies(
        world[made], world["test"], world["training"], "the test set", allow=allow, cache_dir=cache_dir
    )  # fmt: skip


@pytest.fixture
def reliable(monkeypatch):
    """A threshold that need not be measured."""
    found = Threshold(0.75, found=1.0, n_planted=10, refused=0, n_posing=10)
    monkeypatch.setattr(copy_checks, "choose_threshold", lambda *_: found)


def test_a_copy_is_refused_by_name_and_may_be_allowed(world, reliable):
    with pytest.raises(UserError, match=r"2 synthetic images show .* image of the test set \(copies/copies-\d+.png"):
        check(world, "copies")
    (flag,) = check(world, "copies", allow=True)
    assert "2 synthetic images" in flag and "chance" not in flag


def test_a_flag_names_no_folder_of_this_machine(world, reliable):
    records = world["copies"].records
    moved = records.assign(path=[Path("/home/me") / path for path in records["path"]])
    (flag,) = check(world | {"moved": replace(world["copies"], records=moved)}, "moved", allow=True)
    assert "(copies/copies-" in flag and "/home/me" not in flag


def test_images_of_others_pass(world):
    assert check(world, "fresh") == []


def test_without_a_reliable_threshold_copies_are_flagged(world, monkeypatch):
    doubtful = Threshold(0.7, found=0.9, n_planted=10, refused=0, n_posing=10)
    monkeypatch.setattr(copy_checks, "choose_threshold", lambda *_: doubtful)
    (flag,) = check(world, "copies")
    assert "it may be chance" in flag and "90.0% of 10 planted copies" in flag


def test_the_search_is_kept_in_the_cache(world, reliable, tmp_path, monkeypatch):
    first = check(world, "copies", True, tmp_path)
    monkeypatch.setattr(copy_checks, "find_copies", None)  # would fail
    assert check(world, "copies", True, tmp_path) == first


def test_images_of_a_fold_are_compared_with_that_fold_too(world, reliable):
    folds = np.arange(60) % 3 + 1
    made = image_set(world["training"].pixels[:3], "made")  # of folds 1, 2, 3
    flags = copy_flags({0: made, 2: made}, world["test"], world["training"], folds, True, None)
    assert flags[0] == []
    (flag,) = flags[2]
    assert "1 synthetic image shows" in flag and "of fold 2" in flag and "training-1" in flag
