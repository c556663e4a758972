"""Several folders of synthetic images as one set: proportions, what is known of all, what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from synthetic.folders import SyntheticSet, join_folders, unite
from utils import UserError


def images(folder: str, n: int, label: int, *, seen=frozenset(), **changes) -> SyntheticSet:
    files = [Path(folder) / f"synthetic_{index:05d}.png" for index in range(1, n + 1)]
    records = pd.DataFrame({"image_id": [file.stem for file in files], "path": files, "label": label})
    manifest = {"generator_sha256": "g", "seed": 1, "class": folder}
    known = {"verified": True, "generator_patients": set(seen), "manifest": manifest,
             "manifest_sha256": f"hash of {folder}"}  # fmt: skip
    return SyntheticSet(records, label, **known | changes)


def test_every_number_of_images_is_of_both_folders_in_proportion():
    records = unite([images("ill", 30, 1), images("normal", 60, 0)]).records
    assert len(records) == 90 and list(records.columns) == ["image_id", "path", "label"]
    shares = records["label"].to_numpy().cumsum()
    assert np.abs(shares - np.arange(1, 91) / 3).max() <= 1
    ill = records[records["label"] == 1]
    assert list(ill["path"].map(lambda path: path.name)) == [f"synthetic_{i:05d}.png" for i in range(1, 31)]
    assert records["image_id"].is_unique and records["image_id"].iloc[0].endswith("/synthetic_00001")


def test_the_order_of_the_folders_makes_no_difference_and_their_content_does():
    parts = images("ill", 4, 1), images("normal", 8, 0), images("not_normal", 5, 0)
    one, other = unite(parts), unite(parts[::-1])
    pd.testing.assert_frame_equal(one.records, other.records)
    assert one.manifest_sha256 == other.manifest_sha256
    changed = unite([*parts[:2], images("not_normal", 5, 0, manifest_sha256="of others")])
    assert changed.manifest_sha256 != one.manifest_sha256
    assert {part.manifest_sha256 for part in one.folders} == {part.manifest_sha256 for part in parts}


def test_what_one_generator_saw_counts_as_seen_and_what_is_not_known_of_one_is_not_known():
    a = images("a", 2, 1, seen={"p1"}, red_flags=["few"])
    b = images("b", 2, 0, seen={"p2"}, red_flags=["few", "many"])
    both = unite([a, b])
    assert (both.label, both.verified, both.generator_patients) == (None, True, {"p1", "p2"})
    assert both.red_flags == ["few", "many"]
    unknown = unite([a, images("c", 2, 1, verified=False, generator_patients=None)])
    assert (unknown.label, unknown.verified, unknown.generator_patients) == (1, False, None)


def test_a_fold_takes_the_main_images_of_a_folder_that_has_none_for_it():
    ill = {0: images("ill", 2, 1, seen={"p1", "p2"}), 1: images("ill/fold_1", 3, 1, seen={"p2"})}
    normal = {0: images("normal", 4, 0, seen={"p1", "p3"})}
    joined = join_folders([ill, normal])
    assert {fold: len(sets.records) for fold, sets in joined.items()} == {0: 6, 1: 7}
    assert joined[1].generator_patients == {"p1", "p2", "p3"}
    assert join_folders([ill]) is ill


def test_the_same_images_twice_are_refused():
    ill = {0: images("ill", 2, 1)}
    for same in (images("./x/../ill", 2, 1), images("copy", 9, 1, manifest=ill[0].manifest)):
        with pytest.raises(UserError, match=r"--synthetic-dir: ill and .* hold the same images"):
            join_folders([ill, {0: same}])
    nothing_known = images("a", 2, 1, manifest={}), images("b", 2, 1, manifest={})
    assert len(join_folders([{0: sets} for sets in nothing_known])[0].records) == 4
