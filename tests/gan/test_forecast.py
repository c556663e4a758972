"""What --dry-run says about memory, against what can be counted."""

import re
import tracemalloc

import numpy as np
import pytest
import torch

import dcgan
import train_gan
from gan import forecast as gan_forecast
from image_metrics.copies import detail_distances


def told(*flags: str, n_images: int = 100) -> str:
    small = ["--image-size", "32", "--num-channels", "1", "--perceptual", "off"]
    args = train_gan.parse_arguments([*small, *flags])
    return gan_forecast.describe_memory(args, n_images, args.batch_size)


def gib(text: str, part: str) -> float:
    return float(re.search(re.escape(part) + r" \(([\d.]+)\)", text)[1])


def test_spectral_norm_keeps_no_weights_for_every_image():
    """They are larger than the activations of a small image, and were counted for each."""
    plain, spectral = (dcgan.Discriminator(32, 1, 32, d_norm=kind) for kind in ("none", "spectral"))
    images = torch.zeros(1, 1, 32, 32)
    assert gan_forecast.activation_bytes(spectral, images) == gan_forecast.activation_bytes(plain, images)
    batches = [gib(told("--d-norm", kind), "a batch of 32") for kind in ("none", "spectral")]
    assert batches[0] == batches[1]


def test_activations_in_closed_form():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.Identity())
    assert gan_forecast.activation_bytes(network, torch.zeros(1, 1, 8, 8)) == 2 * 3 * 64 * 4


def test_the_perceptual_loss_is_counted_where_it_is_taken():
    large = ("--image-size", "224")
    assert "perceptual" not in told(*large)
    assert "perceptual" not in told(*large, "--perceptual", "auto", "--lambda-perceptual", "0")
    # relu1_2 and its like at 112 px: 4 x 64 x 112^2 and less and less after it, of 32 images.
    assert gib(told(*large, "--perceptual", "auto"), "the perceptual loss") == pytest.approx(0.66, abs=0.15)


def test_the_check_for_copies_is_counted_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (1500, 32, 32)).astype(np.uint8)
    tracemalloc.start()
    try:
        detail_distances(images[:4], images)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert gan_forecast.copying_bytes(len(images)) == pytest.approx(peak, rel=0.2)
    assert gib(told(n_images=100_000), "the check for copies") > 3
    assert "copies" not in told("--metrics-interval", "0")
