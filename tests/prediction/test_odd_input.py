"""What is odd about an image that nobody has looked at yet."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dataset.images import open_picture
from image_metrics.outliers import fit_outlier_space
from prediction.models import InputRecipe
from prediction.odd_input import add_outliers, read_images

GRADIENT = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))
INPUTS = InputRecipe(64, None, None)


def read(file, inputs=INPUTS, largest_aspect=1.0):
    with ThreadPoolExecutor(1) as pool:
        (image,) = read_images([file], inputs, pool, largest_aspect)
    return image


@pytest.mark.parametrize(
    ("pixels", "warning"),
    [
        (GRADIENT, None),
        (100 + GRADIENT // 16, "nearly constant: 15 of 256 gray values"),
        (GRADIENT // 128 * 200, "only 2 different gray values, as masks have"),
        (GRADIENT[:31, ::4], "small: 32 x 31 pixels, and the network takes 64"),
        (GRADIENT[:64], "not square as the training images were (128 x 64 pixels): it is squeezed"),
    ],
)
def test_odd_files(pixels, warning, tmp_path):
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").warnings[:1] == (() if warning is None else (warning,))


def test_shapes_of_training_are_not_odd(tmp_path):
    Image.fromarray(GRADIENT[:64]).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", largest_aspect=2.0).warnings == ()


def test_unreadable_files_have_a_reason(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    assert read(tmp_path / "a.png").error == "empty (0 bytes)"
    assert read(tmp_path / "absent.png").error == "missing"
    assert read(tmp_path).error == "a folder"
    assert read(tmp_path / "a.png").pixels is None


def test_recipes_are_applied(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(GRADIENT.astype(np.uint16) * 16).save(file)  # 12 of 16 bits
    blurred = read(file, InputRecipe(64, 8, 12)).pixels
    np.testing.assert_array_equal(blurred, open_picture(file, 12).resized(64, 8))
    assert (blurred != read(file, InputRecipe(64, None, 12)).pixels).any() and blurred.max() > 200
    assert "but --bits 10 ends at 1,023" in read(file, InputRecipe(64, None, 10)).error


@pytest.mark.parametrize("kind", ["gray", "16 bits", "white is zero", "colour", "two pages", "float"])
def test_tiff_files(kind, tmp_path):
    file, deep = tmp_path / "a.tif", GRADIENT.astype(np.uint16) * 257
    if kind == "gray":
        Image.fromarray(GRADIENT).save(file, compression="tiff_lzw")
    elif kind == "16 bits":
        Image.fromarray(deep).save(file)
    elif kind == "white is zero":
        Image.fromarray(65535 - deep).save(file, tiffinfo={262: 0})
    elif kind == "colour":
        Image.fromarray(GRADIENT).convert("RGB").save(file)
    elif kind == "two pages":
        Image.fromarray(GRADIENT).save(file, save_all=True, append_images=[Image.fromarray(255 - GRADIENT)])
    else:
        Image.fromarray(GRADIENT.astype(np.float32)).save(file)
    image = read(file)
    if kind == "float":
        assert "floating-point" in image.error
        return
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, read(tmp_path / "a.png").pixels)
    assert image.warnings == (("the first of 2 pictures in one file",) if kind == "two pages" else ())


def test_outliers_and_inverted_images_are_named(tmp_path):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    chest = 200 * np.exp(-(((x - 0.5) / 0.3) ** 2) - ((y - 0.5) / 0.4) ** 2)
    train = np.stack([chest + rng.normal(0, 6, (64, 64)) for _ in range(80)]).clip(0, 255).astype(np.uint8)
    space = fit_outlier_space(train, range(80))
    noise = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    (tmp_path / "bad.png").write_bytes(b"")
    for name, pixels in {"same": train[0], "inverted": 255 - train[0], "noise": noise}.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    with ThreadPoolExecutor(2) as pool:
        files = [tmp_path / f"{name}.png" for name in ("same", "bad", "inverted", "noise")]
        images = add_outliers(read_images(files, INPUTS, pool, None), space)
    starts = [[warning.split(":")[0] for warning in image.warnings] for image in images]
    assert starts == [[], [], ["inverted", "unlike the training images"], ["unlike the training images"]]
    assert f"99 % of them are within {space.limit:.1f}" in images[3].warnings[0]
    assert add_outliers(images[:2], None) == images[:2]
