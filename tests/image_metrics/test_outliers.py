"""Images unlike the training images, in a space that no label trained."""

import numpy as np
import pytest
import torch

from image_metrics.outliers import COMPONENTS, FEWEST, INVERTED, OutlierSpace, fit_outlier_space, outlier_features


def chests(n: int, seed: int = 0, size: int = 48) -> np.ndarray:
    """Two dark ellipses on a bright ground that fades to the border, moved a little, with grain; uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = []
    for dx, dy, width in rng.normal(0, [0.02, 0.02, 0.01], (n, 3)):
        lungs = sum(np.exp(-(((x - c - dx) / (0.13 + width)) ** 2 + ((y - 0.45 - dy) / 0.25) ** 2)) for c in (0.3, 0.7))
        body = 170 * np.exp(-(((x - 0.5) / 0.5) ** 4) - ((y - 0.5) / 0.6) ** 4)
        images.append(body - 110 * lungs + rng.normal(0, 4, (size, size)) + 40 * y)
    return np.stack(images).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def space() -> OutlierSpace:
    found = fit_outlier_space(chests(300), [f"p{i // 2}" for i in range(300)])
    assert found is not None
    return found


def test_what_is_odd_exceeds_the_limit(space):
    others = chests(200, seed=1)
    odd = {"upside down": others[:, ::-1].copy(), "inverted": 255 - others, "noise": None, "half": others.copy()}
    odd["noise"] = np.random.default_rng(0).integers(0, 256, others.shape, dtype=np.uint8)
    odd["half"][:, 24:] = 0
    for name, pixels in odd.items():
        assert (space.distances(outlier_features(pixels)) > space.limit).mean() > 0.95, name


def test_about_one_in_a_hundred_of_other_patients_exceeds_it(space):
    beyond = space.distances(outlier_features(chests(1000, seed=2))) > space.limit
    assert 0 < beyond.mean() < 0.03


def test_inverted_images_are_told_by_their_thumbnail(space):
    others = chests(50, seed=3)
    assert (space.likeness(outlier_features(others)) > 0.5).all()
    assert (space.likeness(outlier_features(255 - others)) < INVERTED).all()


def test_it_survives_a_checkpoint(space, tmp_path):
    torch.save(space.state(), tmp_path / "space.pth")
    again = OutlierSpace.from_state(torch.load(tmp_path / "space.pth", weights_only=True))
    features = outlier_features(chests(20, seed=4))
    np.testing.assert_allclose(again.distances(features), space.distances(features), rtol=1e-3)
    assert (again.n_images, again.n_patients, again.limit) == (300, 150, space.limit)
    assert again.components.shape == (COMPONENTS, features.shape[1])


def test_an_outlier_among_the_training_images_does_not_hide_itself():
    pixels = chests(100)
    pixels[:1] = 255 - pixels[:1]
    space = fit_outlier_space(pixels, range(100))
    # It had no part in the space that its own distance was measured in, so the limit is no lower than that.
    clean = fit_outlier_space(pixels[1:], range(99))
    assert space.limit > 2 * clean.limit


@pytest.mark.parametrize("n", [0, FEWEST - 1])
def test_too_few_images_make_no_space(n):
    assert fit_outlier_space(chests(40)[:n], range(n)) is None


def test_equal_images_do_not_divide_by_zero():
    pixels = np.repeat(chests(1), 40, axis=0)
    space = fit_outlier_space(pixels, range(40))
    distances = space.distances(outlier_features(np.concatenate([pixels[:2], chests(2, seed=9)])))
    assert np.isfinite(distances).all() and distances[:2].max() < distances[2:].min()
