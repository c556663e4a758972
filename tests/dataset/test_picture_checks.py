"""What the pictures of a folder are blamed for: nonsense stops training, oddities are flagged, X-rays pass."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataset.checker_report import describe_pictures
from dataset.images import open_picture
from dataset.picture_checks import check_pictures, exact_copies, file_facts_auroc, look_inverted
from dataset.picture_facts import PictureFacts, facts_from, facts_table, measure
from fake_pictures import pictures

N, SIDE = 20, 32


@pytest.fixture(scope="module")
def chests() -> np.ndarray:
    """Twenty pictures that are alike as chests are, uint8 [20, 32, 32]."""
    return pictures(np.random.default_rng(0), N, SIDE)


def table_of(folder, arrays, ending=".png", bits=None, **save) -> pd.DataFrame:
    """Facts of ``arrays``, saved as files and read again; PIL images are saved as they are."""
    facts, names = [], [f"i{index:02d}" for index in range(len(arrays))]
    for name, array in zip(names, arrays, strict=True):
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(folder / f"{name}{ending}", **save)
        facts.append(measure(open_picture(folder / f"{name}{ending}", bits), 100))
    table = facts_table(facts)
    table.insert(0, "image_id", names)
    return table


def check(table: pd.DataFrame, bits=None, **options):
    return check_pictures(table, "images", SIDE, bits, **options)


def with_some(arrays, changed, count: int) -> list:
    return [*map(changed, arrays[:count]), *arrays[count:]]


def test_facts_are_those_of_the_file(tmp_path, chests):
    table = table_of(tmp_path, [chests[0], chests[0].astype(np.uint16) * 257])
    assert list(table["width"]) == list(table["height"]) == [SIDE] * 2
    assert list(table["mode"]) == ["L", "I;16"]
    assert np.isnan(table["largest"][0]) and table["largest"][1] == 257 * int(chests[0].max())
    for fact in ("low", "high", "levels", "thumbnail", "pixels"):
        assert table[fact][0] == table[fact][1], "16 bits show the same"
    assert table["levels"][0] == len(np.unique(chests[0]))
    below = (chests[0] < table["low"][0]).mean(), (chests[0] > table["high"][0]).mean()
    assert max(below) <= 0.01
    assert facts_from(list(PictureFacts(*table.drop(columns="image_id").iloc[0])))
    assert facts_from(None) is facts_from([1, 2]) is facts_from("damaged") is None


def test_chests_of_any_usual_kind_pass(tmp_path, chests):
    for arrays in (chests, [image.astype(np.uint16) * 257 for image in chests], [np.stack([c] * 3, 2) for c in chests]):
        found = check(table_of(tmp_path, arrays))
        assert not found.problems and not found.red_flags and not found.notes
    assert not check(table_of(tmp_path, chests).iloc[:0]).problems


# --- nonsense --------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_than_16_are_refused_and_scaled_on_request(tmp_path, chests, bits):
    white = 2**bits - 1
    deep = [np.round(image / chests.max() * white).astype(np.uint16) for image in chests]
    (problem,) = check(table_of(tmp_path, deep)).problems
    for words in (f"uses more than {bits} bits", f"{white:,} of 65,535", f"--bits {bits} "):
        assert words in problem
    found = check(table_of(tmp_path, deep, bits=bits), bits)
    assert not found.problems and not found.red_flags


def test_a_dark_image_of_16_bits_among_others_is_no_reason(tmp_path, chests):
    deep = [image.astype(np.uint16) * 257 for image in chests]
    deep[3] //= 4
    assert not check(table_of(tmp_path, deep)).problems
    few_deep = [*deep[3:4], *chests[4:]]
    assert not check(table_of(tmp_path, few_deep)).problems


def test_truly_16_bit_images_that_are_dark_pass_on_request(tmp_path, chests):
    deep = [image.astype(np.uint16) * 80 for image in chests]
    assert "uses more than 15 bits" in check(table_of(tmp_path, deep)).problems[0]
    assert not check(table_of(tmp_path, deep, bits=16), 16).problems


RNG = np.random.default_rng(1)
NONSENSE = {
    "black": (lambda image: np.zeros_like(image), "use less than 32 of 256 gray values"),
    "white": (lambda image: np.full_like(image, 255), "use less than 32 of 256 gray values"),
    "a gray of its own each": (lambda image: np.full_like(image, RNG.integers(256)), "use less than 32"),
    "12 bits in 16 with one bright corner": (
        lambda image: np.where(np.eye(SIDE, k=SIDE - 1, dtype=bool), 65535, image.astype(int) * 16).astype(np.uint16),
        "use less than 32 of 256 gray values",
    ),
    "four bits in eight": (lambda image: image // 16, "use less than 32 of 256 gray values"),
    "0 and 1": (lambda image: (image > 100).astype(np.uint8), "use less than 32 of 256 gray values"),
    "one bit": (lambda image: Image.fromarray(image).convert("1"), "have a few gray values only, as masks do"),
    "mask": (lambda image: np.where(image > 100, 255, 0).astype(np.uint8), "have a few gray values only"),
    "shifted by 32768": (lambda image: (32768 + image.astype(int) * 16).astype(np.uint16), "use less than 32"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_stops_if_it_is_most_of_a_folder_and_names_files(tmp_path, chests, kind):
    change, says = NONSENSE[kind]
    (problem,) = check(table_of(tmp_path, with_some(chests, change, 12))).problems
    assert says in problem and problem.startswith("images: 12 images (i00, i01, i02, i03, i04, ...) of 20 ")


def test_the_same_picture_again_and_again(tmp_path, chests):
    (problem,) = check(table_of(tmp_path, with_some(chests, lambda _: chests[0], 12))).problems
    assert "12 images (i00, i01, i02, i03, i04, ...) of 20 are the same picture" in problem


# --- oddities --------------------------------------------------------------------------------------
ODD = {
    "blank": (lambda image: np.full_like(image, 99), "use less than 32 of 256 gray values (almost blank)"),
    "inverted": (lambda image: 255 - image, "look inverted (bright where the others are dark)"),
    "small": (lambda image: image[:20, :20], "are smaller than --image-size 32 and are enlarged"),
    "two values": (lambda image: Image.fromarray(image).convert("1"), "have an unusual kind of pixels (1)"),
}  # fmt: skip


def test_what_holds_for_all_images_names_none(tmp_path, chests):
    change, says = ODD["small"]
    (flag,) = check(table_of(tmp_path, with_some(chests, change, len(chests)))).red_flags
    assert flag.startswith(f"images: all {len(chests)} images {says}")


@pytest.mark.parametrize("kind", ODD)
def test_oddities_are_flagged_if_they_are_many_and_noted_if_they_are_few(tmp_path, chests, kind):
    change, says = ODD[kind]
    table = table_of(tmp_path, with_some(chests, change, 2))
    found = check(table)
    assert [flag for flag in found.red_flags if says in flag and "2 images (i00, i01) of 20" in flag]
    assert not found.problems and not found.notes
    many = pd.concat([table, *[table.iloc[2:].assign(pixels=str(n)) for n in range(20)]], ignore_index=True)
    found = check(many)
    assert [note for note in found.notes if says in note] and not found.red_flags and not found.problems


def test_all_inverted_alike_is_no_oddity_but_differs_from_other_images(tmp_path, chests):
    usual, turned = table_of(tmp_path, chests), table_of(tmp_path, 255 - chests)
    assert not look_inverted(turned).any() and look_inverted(turned, usual).all()
    assert not look_inverted(table_of(tmp_path, RNG.integers(0, 256, (N, SIDE, SIDE), np.uint8))).any()


def test_a_folder_that_uses_a_fraction_of_the_range(tmp_path, chests):
    (flag,) = check(table_of(tmp_path, [image // 2 for image in chests])).red_flags
    assert "all images together use gray values" in flag


def test_animations_and_cmyk_are_flagged(tmp_path, chests):
    frames = [Image.fromarray(image) for image in chests]
    moving = table_of(tmp_path, frames[:8], save_all=True, append_images=frames[8:10])
    assert any("are animations or stacks" in flag for flag in check(moving).red_flags)
    inks = table_of(tmp_path, [image.convert("CMYK") for image in frames], ending=".jpg")
    assert any("unusual kind of pixels (CMYK)" in flag for flag in check(inks).red_flags)


def test_exact_copies_and_lateral_views_are_counted(tmp_path, chests):
    table = table_of(tmp_path, with_some(chests, lambda _: chests[19], 2))
    assert list(np.flatnonzero(exact_copies(table))) == [1, 19]
    table = table.assign(view=["LATERAL", "LATERAL", *["PA"] * 9, *["AP"] * 9])
    lines = "\n".join(describe_pictures({"labelled": table, "official test": table.iloc[:5]}, SIDE))
    assert re.search(r"lateral views.* 2 \(10.0%\) +2 \(40.0%\)", lines)
    assert re.search(r"exact copies.* 2 \(10.0%\) +1 \(20.0%\)", lines)


# --- labels by file facts --------------------------------------------------------------------------
def facts_of_files(n: int, labels: np.ndarray, **columns) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    usual = {
        "width": 100, "height": 100, "file_bytes": rng.integers(4000, 6000, n), "mode": "L", "jpeg": "",
        "label": labels, "patient": [f"p{index // 2}" for index in range(n)],
    }  # fmt: skip
    return pd.DataFrame(usual | columns, index=range(n))


@pytest.mark.parametrize("fact", ["jpeg", "file_bytes", "width", "capped"])
def test_files_that_give_the_labels_away(fact):
    n, rng = 400, np.random.default_rng(4)
    labels = np.arange(n) // 2 % 2
    values = {
        "jpeg": {"jpeg": np.where(labels == 1, "aa", "bb")},
        "file_bytes": {"file_bytes": 5000 + 1500 * labels + rng.normal(0, 800, n)},
        "width": {"width": 100 + 20 * labels},
        # Neither more nor less in the mean: the negatives lie between two limits.
        "capped": {"file_bytes": np.where(labels == 1, rng.uniform(3000, 7000, n), rng.uniform(4500, 5500, n))},
    }[fact]
    auroc, low = file_facts_auroc(facts_of_files(n, labels, **values))
    assert auroc > 0.8 and low > 0.7


def test_files_that_do_not():
    labels = np.arange(400) // 2 % 2
    auroc, low = file_facts_auroc(facts_of_files(400, labels))
    assert 0.4 < auroc < 0.6 and low < auroc
    assert file_facts_auroc(facts_of_files(400, labels, file_bytes=5000)) is None, "all files are alike"
    assert file_facts_auroc(facts_of_files(60, labels[:60])) is None, "15 patients a class are too few"
    assert file_facts_auroc(facts_of_files(400, labels).drop(columns="label")) is None


def test_that_files_give_labels_away_is_a_red_flag(tmp_path, chests):
    arrays = np.concatenate([pictures(np.random.default_rng(seed), 50, SIDE) for seed in (5, 6)])
    labels = np.arange(100) % 2
    table = table_of(tmp_path, arrays).assign(label=labels, patient=[f"p{n}" for n in range(100)])
    assert not check(table).red_flags
    (flag,) = check(table.assign(jpeg=np.where(labels == 1, "aa", "bb"))).red_flags
    assert "the files alone give the labels away" in flag and "AUROC 1.00" in flag
