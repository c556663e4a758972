"""Figures are checked by what they draw: lines, texts, pixels; and by leaving matplotlib as it was."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from arms import figures as arm_figures
from fake_results import fake_cv, fake_history
from gan import figures as plots_gan
from report import image_figures


def texts(figure: Figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join(item.get_text() for item in figure.findobj(mpl.text.Text))


def render(figure: Figure) -> np.ndarray:
    """uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.get_dpi())
    return np.asarray(Image.open(buffer).convert("RGB"))


def drawn_values(ax) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) > 1]


def test_plotting_leaves_matplotlib_alone():
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    arm_figures.training_curves(fake_history(3), "loss", "baseline")
    arm_figures.cv_comparison({"baseline": fake_cv(3)})
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


def test_gan_losses_leave_out_terms_that_were_off():
    epochs = [
        {"epoch": i, "g_loss": 2.0, "g_adversarial": 1.5, "g_perceptual": None, "g_feature_matching": 0.5,
         "d_loss": 1.0, "d_loss_real": 0.6, "d_loss_fake": 0.4, "d_real": 0.7, "d_fake": 0.2}
        for i in range(1, 6)
    ]  # fmt: skip
    written = texts(plots_gan.gan_losses(epochs, "GAN: n = 90"))
    assert "feature matching" in written and "perceptual" not in written
    assert "D(G(z))" in written and "GAN: n = 90" in written


def test_images_are_drawn_pixel_by_pixel():
    image = np.zeros((48, 48), dtype=np.uint8)
    image[::2, ::2] = 255  # the finest pattern: any resampling would turn it gray
    shown = render(image_figures.image_grid(np.stack([image] * 6), columns=3, title="six"))
    scale = 3  # 48 pixels become 144
    expected = np.kron(image, np.ones((scale, scale), dtype=np.uint8))
    top, left = 14 + 30, 14  # margin and title
    tile = shown[top : top + expected.shape[0], left : left + expected.shape[1]]
    assert (tile == expected[:, :, None]).all()
    assert shown.shape[1] == 520


def test_grid_with_labels_boxes_and_a_long_title():
    images = np.full((3, 64, 64), 100, dtype=np.uint8)
    boxes = [np.array([[8.0, 8.0, 20.0, 30.0]]), np.empty((0, 4)), np.array([[0, 0, 9, 9], [30, 30, 9, 9]])]
    figure = image_figures.image_grid(images, 2, "a title " * 20, labels=["AP", "PA", "AP"], boxes=boxes)
    rectangles = figure.axes[0].patches
    assert len(rectangles) == 3
    assert rectangles[0].get_width() == 20 * 3 and rectangles[0].get_height() == 30 * 3
    assert texts(figure).count("AP") == 2
    edges = render(figure)[:, -4:]
    assert (edges == 255).all()  # the title is wrapped, nothing runs out of the figure


def test_real_images_are_left_out_when_told():
    rng = np.random.default_rng(0)
    real, synthetic = (rng.integers(0, 256, (8, 32, 32), dtype=np.uint8) for _ in range(2))
    both = image_figures.real_vs_synthetic(real, synthetic, "t", (synthetic[:2], real[:2], ["r = 0.9", "r = 0.8"]))
    assert len(both.axes[0].images) == 8 + 8 + 2 + 2
    alone = image_figures.real_vs_synthetic(None, synthetic, "t")
    shown = [image.get_array() for image in alone.axes[0].images]
    assert len(shown) == 8
    assert all((array == synthetic[i]).all() for i, array in enumerate(shown))
    assert "training" not in texts(alone)
