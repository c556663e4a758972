"""Losses of the GAN against closed forms and independent implementations."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gan import losses as gan_losses


# --- adversarial -----------------------------------------------------------------------------------
def test_undecided_discriminator_costs_ln_2_everywhere():
    zero = torch.zeros(4)
    for loss in (*gan_losses.discriminator_losses(zero, zero), gan_losses.generator_adversarial_loss(zero)):
        assert loss.item() == pytest.approx(math.log(2))


def test_adversarial_losses_match_cross_entropy_with_smoothing_for_reals_in_d_only():
    real, fake = np.array([2.0, -1.0, 0.5]), np.array([-3.0, 0.2, 1.0])
    p, q = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    on_real, on_fake = gan_losses.discriminator_losses(torch.tensor(real), torch.tensor(fake))
    assert on_real.item() == pytest.approx(-np.mean(0.9 * np.log(p) + 0.1 * np.log(1 - p)))
    assert on_fake.item() == pytest.approx(-np.mean(np.log(1 - q)))
    adversarial = gan_losses.generator_adversarial_loss(torch.tensor(fake))
    assert adversarial.item() == pytest.approx(-np.mean(np.log(q)))


def test_losses_stay_finite_when_the_sigmoid_would_be_exactly_0():
    loss = gan_losses.generator_adversarial_loss(torch.tensor([-500.0]))
    assert loss.item() == pytest.approx(500.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cost(logits):
    return np.mean(-np.log(sigmoid(logits)))


REAL, FAKE = np.array([2.0, -1.0, 0.5]), np.array([-3.0, 0.2, 1.5])


@pytest.mark.parametrize(
    ("kind", "of_d", "of_g"),
    [
        ("bce", cost(REAL) + cost(-FAKE), cost(FAKE)),
        ("hinge", np.mean([0, 2, 0.5]) + np.mean([0, 1.2, 2.5]), -np.mean(FAKE)),
        ("rpgan", cost(REAL - FAKE), cost(FAKE - REAL)),
        ("wgan-gp", np.mean(FAKE) - np.mean(REAL), -np.mean(FAKE)),
    ],
)  # fmt: skip
def test_losses_in_closed_form(kind, of_d, of_g):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    d_loss = sum(gan_losses.discriminator_losses(real, fake, kind, smoothing=0.0))
    assert d_loss.item() == pytest.approx(of_d)
    assert gan_losses.generator_adversarial_loss(fake, kind, real).item() == pytest.approx(of_g)


@pytest.mark.parametrize("kind", ["rpgan", "wgan-gp"])
def test_losses_without_a_zero_do_not_change_with_an_offset(kind):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)

    def d_loss(offset):
        return sum(gan_losses.discriminator_losses(real + offset, fake + offset, kind)).item()

    assert d_loss(7.0) == pytest.approx(d_loss(0.0), abs=1e-5)
    there, here = (gan_losses.mean_probabilities(real + k, fake + k, kind) for k in (7.0, 0.0))
    torch.testing.assert_close(there, here)
    assert (here[0] + here[1]).item() == pytest.approx(1)  # of either of a pair


def test_probabilities_are_those_of_the_logits_where_they_have_a_zero():
    real, fake = gan_losses.mean_probabilities(torch.tensor(REAL), torch.tensor(FAKE))
    assert real.item() == pytest.approx(sigmoid(REAL).mean())
    assert fake.item() == pytest.approx(sigmoid(FAKE).mean())


# --- gradient penalties ----------------------------------------------------------------------------
def test_penalties_are_sums_over_pixels_and_means_over_images():
    # D(x) = w * x has the gradient w; D(x) = sum(x^2) has 2 x.
    weights = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    images = torch.rand(5, 1, 2, 2, requires_grad=True)
    linear = (images * weights).sum(dim=(1, 2, 3))
    assert gan_losses.zero_gradient_penalty(images, linear).item() == pytest.approx(25)
    assert gan_losses.unit_gradient_penalty(images, linear).item() == pytest.approx((5 - 1) ** 2)
    quadratic = images.square().sum(dim=(1, 2, 3))
    each = gan_losses.squared_gradients(images, quadratic)
    torch.testing.assert_close(each, 4 * images.square().sum(dim=(1, 2, 3)))


def test_a_penalty_acts_on_the_weights_of_d():
    # D(x) = (a * sum x)^2 has the gradient 2 a^2 s at each of 4 pixels: R1 = 16 a^4 s^2, dR1/da = 64 a^3 s^2.
    a = torch.tensor(0.5, requires_grad=True)
    images = torch.full((3, 1, 2, 2), 0.3, requires_grad=True)
    logits = (a * images.sum(dim=(1, 2, 3))).square()
    penalty = gan_losses.zero_gradient_penalty(images, logits)
    assert penalty.item() == pytest.approx(16 * 0.5**4 * 1.2**2)
    penalty.backward()
    assert a.grad.item() == pytest.approx(64 * 0.5**3 * 1.2**2, rel=1e-5)


def test_images_between_reals_and_fakes_lie_on_lines():
    real, fake = torch.ones(3, 1, 2, 2), -torch.ones(3, 1, 2, 2)
    images = gan_losses.interpolate(real, fake, torch.tensor([0.0, 0.25, 1.0]))
    assert images[:, 0, 0, 0].tolist() == [-1.0, -0.5, 1.0]


# --- feature matching ------------------------------------------------------------------------------
def moments(*layers):
    return [gan_losses.batch_moments(layer) for layer in layers]


def test_batch_moments_are_mean_and_population_sd():
    features = np.random.default_rng(0).normal(size=(6, 3, 4, 4))
    mean, sd = gan_losses.batch_moments(torch.tensor(features))
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sd, features.std(axis=0), rtol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_moments_and_their_gradient_are_those_of_the_formula(layout, dtype, tolerance):
    torch.manual_seed(0)
    features = (3 + torch.randn(5, 4, 3, 2)).to(dtype).to(memory_format=layout).requires_grad_()
    wide = features.detach().double().requires_grad_()
    weights = torch.randn(2, 4, 3, 2)
    mean, sd = gan_losses.batch_moments(features)
    ((mean * weights[0]).sum() + (sd**3 * weights[1]).sum()).backward()
    wanted_mean, wanted_sd = wide.mean(0), (wide.var(0, correction=0) + gan_losses.VARIANCE_FLOOR).sqrt()
    ((wanted_mean * weights[0]).sum() + (wanted_sd**3 * weights[1]).sum()).backward()
    assert mean.dtype == sd.dtype == torch.float32 and features.grad.dtype == dtype
    torch.testing.assert_close(mean.double(), wanted_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sd.double(), wanted_sd, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features.grad.double(), wide.grad, rtol=tolerance, atol=tolerance)


def test_the_gradient_of_the_spread_of_equal_images_is_finite():
    features = torch.ones(4, 2, 3, 3, requires_grad=True)
    gan_losses.batch_moments(features)[1].sum().backward()
    assert features.grad.isfinite().all()


def test_feature_matching_is_0_for_the_same_images_in_any_order_and_1_for_none():
    torch.manual_seed(0)
    real = torch.randn(16, 4, 5, 5) + 2
    shuffled = real[torch.randperm(16)]
    assert gan_losses.feature_matching_loss(moments(real), moments(shuffled)).item() < 1e-10
    nothing = gan_losses.feature_matching_loss(moments(real), moments(torch.zeros_like(real)))
    assert nothing.item() == pytest.approx(1.0, abs=1e-3)


def test_feature_matching_closed_form_and_layers_count_alike():
    # mean 3 and sd 1 against mean 1 and sd 2: ((3-1)^2 + (1-2)^2) / (3^2 + 1^2) = 0.5, at any scale
    real = torch.tensor([2.0, 4.0]).reshape(2, 1, 1, 1)
    fake = torch.tensor([-1.0, 3.0]).reshape(2, 1, 1, 1)
    one = gan_losses.feature_matching_loss(moments(real), moments(fake))
    both = gan_losses.feature_matching_loss(moments(real, real * 1000), moments(fake, fake * 1000))
    assert one.item() == pytest.approx(0.5, rel=1e-5)
    assert both.item() == pytest.approx(0.5, rel=1e-5)


def test_feature_matching_prefers_variety_to_the_mean_image():
    torch.manual_seed(0)
    real, others = torch.randn(64, 2, 4, 4), torch.randn(64, 2, 4, 4)
    blurred = real.mean(dim=0, keepdim=True).expand(64, -1, -1, -1)
    assert functional.mse_loss(others, real) > functional.mse_loss(blurred, real)  # what pairing would say
    varied = gan_losses.feature_matching_loss(moments(real), moments(others))
    assert varied < 0.2 * gan_losses.feature_matching_loss(moments(real), moments(blurred))


def test_gradient_is_finite_when_all_fakes_are_the_same():
    fake = torch.zeros(4, 1, 2, 2, requires_grad=True)
    gan_losses.feature_matching_loss(moments(torch.randn(4, 1, 2, 2)), moments(fake)).backward()
    assert fake.grad.isfinite().all()


# --- perceptual ------------------------------------------------------------------------------------
class Identity(nn.Module):
    """A feature network with two layers, the image and its double."""

    def forward(self, images):
        return [images, 2 * images]


def test_perceptual_loss_compares_with_the_whole_training_set_and_not_with_pairs():
    torch.manual_seed(0)
    reals = torch.randn(10, 1, 3, 3)
    loss = gan_losses.PerceptualLoss(Identity(), reals.split(4))
    assert loss(reals[torch.randperm(10)]).item() < 1e-8


def test_perceptual_loss_closed_form():
    # reals 2 and 4: mean 3, sd 1; fakes -1 and 3: mean 1, sd 2; scale (sd + 0.1 sd)^2 = 1.21, in both layers
    reals = torch.tensor([2.0, 4.0]).reshape(2, 1, 1, 1)
    fakes = torch.tensor([-1.0, 3.0]).reshape(2, 1, 1, 1)
    loss = gan_losses.PerceptualLoss(Identity(), [reals])
    assert loss(fakes).item() == pytest.approx((2**2 + 1**2) / 1.21, rel=1e-4)


def test_a_feature_that_never_fires_does_not_blow_the_loss_up():
    reals = torch.cat([torch.randn(8, 1, 2, 2), torch.zeros(8, 1, 2, 2)], dim=1)
    loss = gan_losses.PerceptualLoss(Identity(), [reals])
    assert loss(reals + 0.01).item() < 1


def test_population_moments_of_unequal_batches_are_those_of_all_images():
    features = np.random.default_rng(0).normal(5, 0.1, size=(11, 2, 3, 3))
    batches = [[torch.tensor(part, dtype=torch.float32)] for part in np.split(features, [2, 7])]
    ((mean, sd),) = gan_losses.population_moments(batches)
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sd, features.std(axis=0), rtol=1e-3)


class WithoutFloat64(torch.Tensor):
    """A stand-in for a tensor on a device that has no float64, until it is taken to the CPU."""

    def double(self):
        raise TypeError("no float64 on this device")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_population_moments_need_no_float64_on_the_device_of_the_features():
    features = torch.randn(4, 2, 3, 3)
    ((mean, sd),) = gan_losses.population_moments([[features.as_subclass(WithoutFloat64)]])
    torch.testing.assert_close(mean, features.mean(dim=0))
    torch.testing.assert_close(sd, features.std(dim=0, correction=0))
    assert mean.dtype == sd.dtype == torch.float32
