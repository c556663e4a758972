"""Two sets of images become axes and one of four verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fake_pictures import pictures
from image_metrics import energy_distance, folder_comparison, planted_copies
from image_metrics.energy_distance import EnergyDistance
from image_metrics.feature_spaces import hog_space, pixel_space
from image_metrics.folder_comparison import CLOSE, COPIES, FAR, FolderComparison, Side, compare_folders, decide
from image_metrics.planted_copies import at_search_size

N_REAL, N_MADE, SIZE = 160, 90, 64


def side(pixels: np.ndarray, name: str) -> Side:
    names = [f"{name}{row:03d}.png" for row in range(len(pixels))]
    return Side(pixels, names, names)


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    made = pictures(np.random.default_rng(1), N_REAL + N_MADE, SIZE)
    return {"real": made[:N_REAL], "others": made[N_REAL:]}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(energy_distance, "PERMUTATIONS", 100)
    monkeypatch.setattr(planted_copies, "PLANTED", 8)


def judged(world: dict[str, np.ndarray], made: np.ndarray) -> FolderComparison:
    spaces = [hog_space(SIZE), pixel_space()]
    return compare_folders(side(world["real"], "real"), side(made, "made"), spaces, seed=0)


def axis(found: FolderComparison, kind: str):
    return next(axis for axis in found.axes if axis["id"] == kind)


def test_images_of_other_patients_are_as_near(world):
    found = judged(world, world["others"])
    assert found.verdict["verdict"] == CLOSE
    assert found.copies["copies"] == 0 and found.copies["reliable"]
    assert [axis["id"] for axis in found.axes] == [
        "distance_hog", "distance_16x16_pixels", "frechet", "kid", "precision", "recall", "density", "coverage",
        "variety", "copies", "separability", "grain",
    ]  # fmt: skip
    assert axis(found, "distance_hog")["floor"] == pytest.approx(axis(found, "distance_hog")["value"], rel=0.5)
    assert axis(found, "variety")["value"] == pytest.approx(1, abs=0.1)
    assert axis(found, "separability")["value"] < 0.75


def test_blurred_images_are_farther_and_the_axes_say_why(world):
    found = judged(world, gaussian_filter(world["others"], (0, 2, 2)))
    assert found.verdict["verdict"] == FAR
    assert {"grain", "separability"} <= set(found.verdict["also"])
    assert axis(found, "grain")["value"] < 0.5 * axis(found, "grain")["floor"]


def test_few_pictures_again_and_again_lack_variety_and_recall(world):
    again = np.stack([np.roll(world["others"][row % 8], row % 3, axis=1) for row in range(N_MADE)])
    found = judged(world, again)
    assert found.verdict["verdict"] == FAR
    assert axis(found, "variety")["outside"] and axis(found, "variety")["value"] < 1
    assert axis(found, "recall")["outside"] and axis(found, "coverage")["outside"]


def test_copies_are_named_first(world):
    made = world["others"].copy()
    made[3], made[40] = world["real"][17][:, ::-1], (0.8 * world["real"][5] + 20).astype(np.uint8)
    found = judged(world, made)
    assert found.verdict["verdict"] == COPIES and found.copies["copies"] == 2
    named = {(pair["synthetic"], pair["real"]) for pair in found.copies["closest"] if pair["copy"]}
    assert named == {("made003.png", "real017.png"), ("made040.png", "real005.png")}
    rows = {tuple(pair) for pair in found.pairs[:2].tolist()}
    assert rows == {(3, 17), (40, 5)}
    assert at_search_size(made).shape[1:] == (64, 64)


def test_a_dozen_images_are_too_few(world, monkeypatch):
    monkeypatch.setattr(energy_distance, "REFERENCE", 300)  # made-up pictures vary little: ask for a finer resolution
    found = judged(world, world["others"][:12])
    text, needed = found.verdict["verdict"], found.verdict["needed"]
    assert text == f"too few images: at least {needed}" and 12 < needed < 200
    assert "12 synthetic and 160 real images" in found.verdict["sentence"]


# --- the rule --------------------------------------------------------------------------------------
def energy(excess: float, half_width: float, n: int = 50, floor: float = 1.0) -> EnergyDistance:
    return EnergyDistance(floor + excess, floor, n, half_width, half_width, float(n), 1.0, 0.1)


@pytest.mark.parametrize(
    ("edges", "gray", "copies", "reliable", "expected"),
    [
        (energy(0.1, 0.3), energy(0.1, 0.3), 0, True, CLOSE),
        (energy(0.4, 0.3), energy(0.1, 0.3), 0, True, FAR),
        (energy(0.1, 0.3), energy(0.4, 0.3), 0, True, FAR),
        (energy(0.1, 0.3), energy(0.1, 0.6), 0, True, "too few images: at least 60"),  # 50 x 0.6 / 0.5
        (energy(0.9, 0.6), energy(0.1, 0.6), 0, True, FAR),  # a difference that is found needs no more images
        (energy(0.4, 0.3), energy(0.1, 0.3), 1, True, COPIES),
        (energy(0.1, 0.3), energy(0.1, 0.3), 1, False, CLOSE),
    ],
)
def test_the_first_rule_that_applies_gives_the_verdict(edges, gray, copies, reliable, expected):
    search = {"threshold": 0.8, "found_of_planted": 1.0, "reliable": reliable, "copies": copies, "real_twins": 0}
    found = decide({"HOG": edges, "16x16 pixels": gray}, search | {"closest": []}, [], (50, 50))
    assert found["verdict"] == expected


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("Inception", "Fréchet distance"),
        ("EfficientNet-Lite0", "Fréchet distance in EfficientNet-Lite0 features, not comparable with published FID"),
    ],
)
def test_only_inceptions_distance_may_pass_for_the_published_one(space, name):
    real, made = np.random.default_rng(0).normal(size=(2, 30, 4))
    axes = folder_comparison._draw_axes(space, real, [str(row) for row in range(30)], made, 0)
    assert [axis["name"] for axis in axes if axis["id"] == "frechet"] == [name]
