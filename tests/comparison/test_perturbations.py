"""Perturbations against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from comparison.perturbations import PERTURBATIONS, UNPERTURBED, PerturbedPixels

BY_NAME = {each.name: each for each in PERTURBATIONS}


def changed(name: str, pixels: np.ndarray, image_id: str = "a", seed: int = 0) -> np.ndarray:
    made = BY_NAME[name].apply(pixels, image_id, seed)
    assert made.dtype == np.uint8 and made.shape == pixels.shape
    return made


def test_brightness_and_contrast_by_hand():
    pixels = np.full((4, 4), 100, dtype=np.uint8)
    pixels[:2] = 200  # mean 150
    assert changed("brightness +15 %", pixels)[0, 0] == round(200 + 38.25)
    assert changed("brightness −15 %", pixels)[3, 3] == round(100 - 38.25)
    assert changed("contrast × 0.7", pixels)[[0, 3], 0].tolist() == [185, 115]
    assert changed("contrast × 1.3", pixels)[[0, 3], 0].tolist() == [215, 85]
    assert changed("brightness +15 %", np.full((4, 4), 250, np.uint8)).max() == 255, "clipped, never wrapped"
    assert changed("brightness −15 %", np.full((4, 4), 10, np.uint8)).min() == 0


@pytest.mark.parametrize(("name", "sd"), [("noise 2 %", 5.1), ("noise 5 %", 12.75)])
def test_noise_has_its_sd_and_belongs_to_the_image(name, sd):
    pixels = np.full((200, 200), 128, dtype=np.uint8)
    made = changed(name, pixels).astype(float)
    assert made.std() == pytest.approx(sd, rel=0.03) and made.mean() == pytest.approx(128, abs=0.2)
    assert np.array_equal(changed(name, pixels), changed(name, pixels))
    assert not np.array_equal(changed(name, pixels), changed(name, pixels, image_id="b"))
    assert not np.array_equal(changed(name, pixels), changed(name, pixels, seed=1))


def test_blur_spreads_a_dot_by_its_sigma_and_keeps_the_sum():
    pixels = np.zeros((200, 200), dtype=np.uint8)
    pixels[80:120, 80:120] = 200
    made = changed("blur 1 %", pixels).astype(float)  # sigma 2 pixels
    assert made.sum() == pytest.approx(pixels.sum(), rel=1e-3)
    edge = made[100, 70:90] / 200  # the integral of a Gaussian across the edge
    from scipy.stats import norm

    np.testing.assert_allclose(edge, norm.cdf((np.arange(70, 90) - 79.5) / 2), atol=0.02)


def test_rotation_turns_by_five_degrees_in_the_direction_that_is_said():
    pixels = np.zeros((201, 201), dtype=np.uint8)
    pixels[98:103, 178:183] = 255  # right of the centre, at a distance of 80
    for name, sign in (("rotation +5°", -1), ("rotation −5°", 1)):  # rows count downwards: anticlockwise goes up
        rows, columns = np.nonzero(changed(name, pixels) > 128)
        assert rows.mean() == pytest.approx(100 + sign * 80 * np.sin(np.deg2rad(5)), abs=0.5)
        assert columns.mean() == pytest.approx(100 + 80 * np.cos(np.deg2rad(5)), abs=0.5)
    assert changed("rotation +5°", np.full((50, 50), 77, np.uint8)).min() == 77, "borders are continued, not black"


def test_stronger_jpeg_is_farther_from_the_image():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    distance = [np.abs(changed(name, pixels).astype(int) - pixels).mean() for name in ("JPEG 50", "JPEG 20")]
    assert 0 < distance[0] < distance[1]


def test_pixels_are_made_when_asked_for_and_do_not_depend_on_the_others():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 16, 16)).astype(np.uint8)
    lazy = PerturbedPixels(pixels, list("abcde"), BY_NAME["noise 5 %"], 3)
    both = lazy[np.array([4, 1])]
    assert np.array_equal(both[1], lazy[np.array([1])][0])
    assert np.array_equal(both[0], changed("noise 5 %", pixels[4], "e", 3))
    same = PerturbedPixels(pixels, list("abcde"), UNPERTURBED, 3)
    assert np.array_equal(same[np.arange(5)], pixels)


def test_names_are_unique_and_every_kind_that_was_asked_for_is_there():
    assert len(BY_NAME) == len(PERTURBATIONS) and all(each.meaning for each in PERTURBATIONS)
    kinds = {each.name.split()[0] for each in PERTURBATIONS}
    assert kinds == {"brightness", "contrast", "noise", "blur", "JPEG", "rotation"}
