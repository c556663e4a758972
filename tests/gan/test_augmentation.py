"""Augmentation of what D sees: nothing but shifts, brightness and contrast, and gradients pass."""

import numpy as np
import pytest
import torch

from gan import augmentation as gan_augment

NOTHING = torch.tensor([0.5, 0.5, 0.5, 0.5])


def images(n: int = 3, channels: int = 1, side: int = 16) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_middle_of_all_numbers_changes_nothing():
    given = images()
    torch.testing.assert_close(gan_augment.augment(given, NOTHING.expand(3, 4)), given)


@pytest.mark.parametrize("channels", [1, 3])
def test_shifts_are_by_whole_pixels_up_to_an_eighth_and_filled_with_the_background(channels):
    given = images(4, channels)  # 16 px: at most 2
    numbers = torch.tensor([[0.0, 0.0], [0.9999, 0.9999], [0.5, 0.9999], [0.25, 0.65]])
    moved = gan_augment.shift_images(given, numbers).numpy()
    for image, before, (down, right) in zip(moved, given.numpy(), [(-2, -2), (2, 2), (0, 2), (-1, 1)], strict=True):
        expected = np.full_like(before, -1.0)
        for y in range(16):
            for x in range(16):
                if 0 <= y - down < 16 and 0 <= x - right < 16:
                    expected[:, y, x] = before[:, y - down, x - right]
        np.testing.assert_array_equal(image, expected)


def test_brightness_is_added_and_contrast_scales_the_difference_from_the_mean():
    given = images(2)
    numbers = torch.tensor([[1.0, 0.5, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5]])
    brighter, paler = gan_augment.augment(given, numbers)
    torch.testing.assert_close(brighter, given[0] + 0.25)
    torch.testing.assert_close(paler, given[1].mean() + 0.75 * (given[1] - given[1].mean()))


def test_what_is_shifted_in_is_black_whatever_the_brightness():
    numbers = torch.tensor([[1.0, 1.0, 0.9999, 0.5]])
    moved = gan_augment.augment(images(1), numbers)
    assert (moved[:, :, :2] == -1).all()
    assert (moved[:, :, 2:] != -1).all()


def test_gradients_pass_to_the_pixels_that_are_left():
    given = images(1).double().requires_grad_()
    numbers = torch.tensor([[0.9, 0.2, 0.9999, 0.5]])
    weights = torch.rand(1, 1, 16, 16)
    assert torch.autograd.gradcheck(lambda x: gan_augment.shift_images(x, numbers[:, 2:]).sum(dim=(2, 3)), given)
    (gan_augment.augment(given, numbers) * weights).sum().backward()
    assert (given.grad[:, :, :14] != 0).all()
    # Rows that are shifted out only count through the mean.
    assert given.grad[:, :, 14:].unique().numel() == 1


def test_nothing_is_mirrored_or_turned():
    ramp = torch.linspace(-0.5, 0.5, 16).expand(200, 1, 16, 16)  # darker on the left, all rows alike
    changed = gan_augment.augment(ramp, gan_augment.draw_numbers(0, 3, "D, reals", 200))[:, :, 4:12, 4:12]
    assert (changed.diff(dim=3) > 0).all()
    assert changed.diff(dim=2).abs().max() < 1e-6


def test_numbers_follow_from_seed_step_and_stream_and_reach_both_ends():
    def draw(*what):
        return gan_augment.draw_numbers(*what, 4000)

    assert torch.equal(draw(1, 2, "D, reals"), draw(1, 2, "D, reals"))
    for other in ((2, 2, "D, reals"), (1, 3, "D, reals"), (1, 2, "D, fakes")):
        assert not torch.equal(draw(1, 2, "D, reals"), draw(*other))
    numbers = draw(1, 2, "D, reals")
    assert 0 <= numbers.min() < 0.01
    assert 0.99 < numbers.max() < 1
