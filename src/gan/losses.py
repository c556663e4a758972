"""Losses of the GAN: tensors in, scalars out; nothing here steps an optimizer.

What G is taught by is an ``Objective``: the weighted sum of these losses.

Real and generated images are not pairs. The mean squared distance of each fake to an arbitrary real is
E||f(G) - f(x)||^2 = ||mu_G - mu_x||^2 + tr(S_G) + tr(S_x): its middle term punishes the generator's variety,
so that one blurred mean X-ray would be optimal. The perceptual and the feature-matching loss therefore
compare the *moments* of the features (mean and standard deviation over the images), as in generative
feature matching networks (dos Santos et al. 2019, arXiv 1904.02762).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from common.distributed import main_first
from common.progress import progress_bar
from data_loader import to_gan_range
from gan.settings import PERCEPTUAL_NETWORKS, SMOOTHING, LossWeights
from networks import lite0
from networks.backbones import LITE0
from networks.vgg16 import load_vgg16, untrained_vgg16
from utils import WeightsUnavailableError, autocast

log = logging.getLogger(__name__)

WGAN_GP_WEIGHT = 10.0  # Gulrajani et al. 2017, for all of their networks and data

PERCEPTUAL_EVERY = {"cpu": 8, "gpu": 4}  # steps, as VGG16 makes a step several times as slow
VARIANCE_FLOOR = 1e-8  # the gradient of a bare square root is infinite at 0
Moments = tuple[Tensor, Tensor]  # mean and standard deviation over a batch, each [C, H, W]


# --- adversarial -----------------------------------------------------------------------------------
def discriminator_losses(
    real_logits: Tensor, fake_logits: Tensor, kind: str = "bce", smoothing: float = SMOOTHING
) -> tuple[Tensor, Tensor]:
    """Return D's loss on reals and on fakes, whose sum it minimises; r, f: D's outputs [N] for them.

    "bce": cross-entropy (nats) with target 1 - smoothing and 0. "hinge": E max(0, 1 - r) and E max(0, 1 + f)
    (Lim & Ye 2017, arXiv 1705.02894). "rpgan": E softplus(f - r), r and f in pairs, half of it for either
    (Jolicoeur-Martineau 2018, 1807.00734; R3GAN, Huang et al. 2024, 2501.05441). "wgan-gp": -E r and E f, of
    which the penalty is ``unit_gradient_penalty`` (Gulrajani et al. 2017, 1704.00028, who update D five times
    for each update of G; here both take turns, whatever the loss).
    """
    real, fake = real_logits.float(), fake_logits.float()
    if kind == "hinge":
        return functional.relu(1 - real).mean(), functional.relu(1 + fake).mean()
    if kind == "rpgan":
        half = functional.softplus(fake - real).mean() / 2
        return half, half
    if kind == "wgan-gp":
        return -real.mean(), fake.mean()
    if kind != "bce":
        raise ValueError(f"adversarial loss {kind!r} has no formula here")
    return _cross_entropy(real, 1 - smoothing), _cross_entropy(fake, 0.0)


def generator_adversarial_loss(fake_logits: Tensor, kind: str = "bce", real_logits: Tensor | None = None) -> Tensor:
    """Return G's adversarial loss for D's outputs f [N] for fakes.

    "bce": -log sigmoid(f) (nats), which does not saturate, without smoothing; "hinge" and "wgan-gp": -E f;
    "rpgan": E softplus(r - f) in pairs, for which ``real_logits`` are needed.
    """
    fake = fake_logits.float()
    if kind == "rpgan":
        if real_logits is None:
            raise ValueError("rpgan compares fakes with reals: real_logits are missing")
        return functional.softplus(real_logits.float() - fake).mean()
    return _cross_entropy(fake, 1.0) if kind == "bce" else -fake.mean()


def mean_probabilities(real_logits: Tensor, fake_logits: Tensor, kind: str = "bce") -> tuple[Tensor, Tensor]:
    """Return how real D finds reals and fakes: mean sigmoid(r) and sigmoid(f), 0.5 each if it cannot tell.

    The outputs of "rpgan" and "wgan-gp" have no zero; of them, sigmoid(r - f) and sigmoid(f - r) in pairs.
    """
    real, fake = real_logits.float(), fake_logits.float()
    if kind in ("rpgan", "wgan-gp"):
        real, fake = real - fake, fake - real
    return real.sigmoid().mean(), fake.sigmoid().mean()


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# --- gradient penalties ----------------------------------------------------------------------------
def squared_gradients(images: Tensor, logits: Tensor) -> Tensor:
    """Return |grad D(x)|^2 [N], summed over the pixels of each of ``images`` [N, C, S, S].

    It can be differentiated again. ``logits`` [N] are D's for the images.
    """
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))


def zero_gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Return E|grad D(x)|^2: R1 of real images, R2 of generated ones, whose weight is gamma / 2.

    Mescheder et al. 2018, arXiv 1801.04406, equation 9.
    """
    return squared_gradients(images, logits).mean()


def unit_gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Return E(|grad D(x)| - 1)^2 of images between reals and fakes, whose weight is ``WGAN_GP_WEIGHT``."""
    return ((squared_gradients(images, logits) + 1e-12).sqrt() - 1).square().mean()


def interpolate(real: Tensor, fake: Tensor, numbers: Tensor) -> Tensor:
    """Return images [N, C, S, S] on the lines from fakes (numbers [N] of 0) to reals (of 1)."""
    return torch.lerp(fake.float(), real.float(), numbers.to(real.device)[:, None, None, None])


# --- feature matching ------------------------------------------------------------------------------
def batch_moments(features: Tensor) -> Moments:
    """Return mean and standard deviation [C, H, W] over the images of features [N, C, H, W], in float32."""
    if features.device.type == "cpu":
        mean, deviation = _RowMoments.apply(features.permute(0, 2, 3, 1).flatten(1))
        shape = (*features.shape[2:], features.shape[1])
        return mean.view(shape).permute(2, 0, 1), deviation.view(shape).permute(2, 0, 1)
    features = features.float()
    mean = features.mean(dim=0)
    variance = (features - mean).square().mean(dim=0)
    return mean, (variance + VARIANCE_FLOOR).sqrt()


class _RowMoments(torch.autograd.Function):
    """Rows [N, D] -> mean and standard deviation [D] in float32, image by image.

    What is summed then stays in a CPU's cache: for D's first layer at 224 pixels this takes a twentieth of
    the time that operations on the whole of [N, D] take, which is half of a GAN step.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Moments:
        mean = torch.zeros(rows.shape[1])
        for row in rows:
            mean += row
        mean /= len(rows)
        variance = torch.zeros_like(mean)
        for row in rows:
            deviation = row - mean
            variance.addcmul_(deviation, deviation, value=1 / len(rows))
        deviation = (variance + VARIANCE_FLOOR).sqrt()
        ctx.save_for_backward(rows, mean, deviation)
        return mean, deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_deviation: Tensor) -> Tensor:
        """Return the gradient: d mean / d x = 1 / N, d sd / d x = (x - mean) / (N sd).

        The mean's part in sd cancels out.
        """
        rows, mean, deviation = ctx.saved_tensors
        slope = of_deviation / (len(rows) * deviation)
        offset = of_mean / len(rows) - slope * mean
        gradient, row_gradient = torch.empty_like(rows), torch.empty_like(mean)
        for row, place in zip(rows, gradient, strict=True):
            torch.mul(slope, row, out=row_gradient)
            place.copy_(row_gradient.add_(offset))
        return gradient


def feature_matching_loss(real: list[Moments], fake: list[Moments]) -> Tensor:
    """Return how D's feature maps differ in mean and spread, averaged over layers (Salimans et al. 2016).

    Per layer mean((mu_G - mu_R)^2) + mean((sd_G - sd_R)^2), divided by the real features' mean square
    mean(mu_R^2 + sd_R^2), so that layers count alike whatever their scale. 0 if all moments agree, 1 if G's
    features are all zero. D's features drift with training, so ``real`` must be recent: the trainer takes it
    from D one update ago, on purpose, as that saves a pass of the reals and was measured to do no harm.
    """
    losses = []
    for (real_mean, real_sd), (fake_mean, fake_sd) in zip(real, fake, strict=True):
        difference = (fake_mean - real_mean).square().mean() + (fake_sd - real_sd).square().mean()
        losses.append(difference / (real_mean.square() + real_sd.square()).mean().clamp_min(1e-12))
    return torch.stack(losses).mean()


# --- perceptual ------------------------------------------------------------------------------------
class PerceptualLoss(nn.Module):
    """Distance of a batch of fakes from the *whole training set* in the moments of a network's features.

    L = mean over the network's maps of mean over channels and cells of
    [(mu_G - mu_R)^2 + (sd_G - sd_R)^2] / (sd_R + eps)^2, with eps a tenth of the layer's mean sd_R: a channel
    that never fires would otherwise divide by zero. The real moments are computed once, here.
    """

    def __init__(self, network: nn.Module, real_batches: Iterable[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.real = population_moments(network(batch) for batch in real_batches)

    def forward(self, fake: Tensor) -> Tensor:
        """Return the loss of generated images [N, C, S, S] in [-1, 1]; 0 if all moments agree."""
        losses = []
        for (real_mean, real_sd), features in zip(self.real, self.network(fake), strict=True):
            fake_mean, fake_sd = batch_moments(features)
            scale = real_sd + 0.1 * real_sd.mean() + 1e-8
            difference = (fake_mean - real_mean).square() + (fake_sd - real_sd).square()
            losses.append((difference / scale.square()).mean())
        return torch.stack(losses).mean()


@torch.no_grad()
def population_moments(batches: Iterable[list[Tensor]]) -> list[Moments]:
    """Return the moments over all images of several batches of feature maps; one is in memory at a time.

    Sums are kept in float64, as the variance is a small difference of large numbers, and on the CPU, as not
    every device has float64. The moments are float32, on the device of the features.
    """
    count, devices = 0, list[torch.device]()
    totals, squares = list[Tensor](), list[Tensor]()
    for features in batches:
        devices = [maps.device for maps in features]
        wide = [maps.cpu().double() for maps in features]
        sums = [maps.sum(dim=0) for maps in wide]
        square_sums = [maps.square().sum(dim=0) for maps in wide]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if count else sums
        squares = [a + b for a, b in zip(squares, square_sums, strict=True)] if count else square_sums
        count += len(features[0])
    means = [total / count for total in totals]
    variances = [square / count - mean.square() for square, mean in zip(squares, means, strict=True)]
    return [
        (mean.float().to(device), variance.clamp_min(0).sqrt().float().to(device))
        for mean, variance, device in zip(means, variances, devices, strict=True)
    ]


# --- what G is taught by ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Objective:
    """Weights of the terms of G's loss; the perceptual one is taken every ``perceptual_every``-th step.

    On those steps it is multiplied by ``perceptual_every``, so that its weight over time is the one asked.
    """

    adversarial: float
    perceptual: float
    feature_matching: float
    perceptual_loss: nn.Module | None
    perceptual_every: int

    def takes_perceptual(self, step: int) -> bool:
        """Return whether ``step`` (from 0) takes the perceptual loss."""
        return self.perceptual_loss is not None and step % self.perceptual_every == 0


def perceptual_every(device: torch.device) -> int:
    """Return the steps from one perceptual loss to the next on ``device``."""
    return PERCEPTUAL_EVERY["cpu" if device.type == "cpu" else "gpu"]


def load_perceptual_network(name: str) -> nn.Module:
    """Load the network ``name`` of ``PERCEPTUAL_NETWORKS``; ``UserError`` if its weights are not available."""
    if name == LITE0:
        return lite0.Lite0Maps(lite0.load_lite0())
    return load_vgg16("the perceptual loss", "use --perceptual off")


def untrained_perceptual_network(name: str) -> nn.Module:
    """Build the network ``name`` with random weights, for timing only: nothing is downloaded."""
    return lite0.untrained_lite0_maps() if name == LITE0 else untrained_vgg16(0)


def fit_perceptual_loss(network: nn.Module, pixels: Tensor, num_channels: int, precision: str) -> PerceptualLoss:
    """Compute the moments of the features of all training images ``pixels`` uint8 [N, S, S]."""
    batches = progress_bar(pixels.split(32), desc="perceptual features of the reals", unit="batch")
    with autocast(pixels.device, precision):
        return PerceptualLoss(network, (to_gan_range(batch, num_channels) for batch in batches))


def build_objective(weights: LossWeights, pixels: Tensor, num_channels: int, precision: str) -> tuple[Objective, str]:
    """Build G's loss; returns it and whether it has a perceptual term: "on", "off" or "unavailable".

    Raises ``UserError`` if the network's weights are not available and G needs them, or the network was asked for.
    """
    loss, outcome = None, "off"
    if weights.want_perceptual:
        try:
            with main_first():
                network = load_perceptual_network(weights.perceptual_network).to(pixels.device)
            loss, outcome = fit_perceptual_loss(network, pixels, num_channels, precision), "on"
        except WeightsUnavailableError as error:
            alone = not (weights.lambda_adv or weights.lambda_fm)  # it alone teaches G
            if weights.perceptual == "on" or weights.perceptual_network != PERCEPTUAL_NETWORKS[0] or alone:
                raise
            log.info(f"training without the perceptual loss: {error}")
            outcome = "unavailable"
    terms = weights.lambda_adv, weights.lambda_perceptual, weights.lambda_fm
    return Objective(*terms, loss, perceptual_every(pixels.device)), outcome
