"""Losses of the GAN: tensors in, scalars out; nothing here steps an optimizer.

Real and generated images are not pairs. The mean squared distance of each fake to an arbitrary real is
E||f(G) - f(x)||^2 = ||mu_G - mu_x||^2 + tr(S_G) + tr(S_x): its middle term punishes the generator's variety,
so that one blurred mean X-ray would be optimal. The perceptual and the feature-matching loss therefore
compare the *moments* of the features (mean and standard deviation over the images), as in generative
feature matching networks (dos Santos et al. 2019, arXiv 1904.02762).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from data_loader import IMAGENET_MEAN, IMAGENET_STD
from utils import derive_seed

REAL_LABEL = 0.9  # one-sided label smoothing (Salimans et al. 2016, arXiv 1606.03498), in D only

VARIANCE_FLOOR = 1e-8  # the gradient of a bare square root is infinite at 0
Moments = tuple[Tensor, Tensor]  # mean and standard deviation over a batch, each [C, H, W]


# --- adversarial -----------------------------------------------------------------------------------
def discriminator_losses(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (nats) of D on reals (target 0.9) and on fakes (target 0); D's loss is the sum."""
    return _cross_entropy(real_logits, REAL_LABEL), _cross_entropy(fake_logits, 0.0)


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of G (nats): -log D(G(z)), target 1 without smoothing."""
    return _cross_entropy(fake_logits, 1.0)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# --- feature matching ------------------------------------------------------------------------------
def batch_moments(features: Tensor) -> Moments:
    """Mean and standard deviation [C, H, W] over the images of features [N, C, H, W], in float32."""
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
        """d mean / d x = 1 / N and d sd / d x = (x - mean) / (N sd); the mean's part in sd cancels out."""
        rows, mean, deviation = ctx.saved_tensors
        slope = of_deviation / (len(rows) * deviation)
        offset = of_mean / len(rows) - slope * mean
        gradient, row_gradient = torch.empty_like(rows), torch.empty_like(mean)
        for row, place in zip(rows, gradient, strict=True):
            torch.mul(slope, row, out=row_gradient)
            place.copy_(row_gradient.add_(offset))
        return gradient


def feature_matching_loss(real: list[Moments], fake: list[Moments]) -> Tensor:
    """Squared difference of D's feature maps in mean and spread, averaged over layers (Salimans et al. 2016).

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
VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
VGG16_BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256))  # channels up to relu3_3
GRID = 7  # features are averaged over a 7x7 grid of cells: coarse anatomy is kept, exact position is not
MAX_SIDE = 128  # larger images are halved first: VGG at 224 costs five times VGG at 112


class VGG16Features(nn.Module):
    """torchvision's VGG16 up to relu3_3; images [N, 1 or 3, S, S] in [-1, 1] -> three maps [N, C, 7, 7].

    The maps are relu1_2 (64 channels), relu2_2 (128) and relu3_3 (256), frozen. ``state_dict`` is that of the
    published model; its classifier and deeper layers are not used. ``ValueError`` if a layer is not in it.
    """

    def __init__(self, state_dict: dict[str, Tensor]) -> None:
        super().__init__()
        self.layers, self.outputs = nn.Sequential(), []
        for channels in VGG16_BLOCKS:
            if len(self.layers):
                self.layers.append(nn.MaxPool2d(2))
            for before, after in zip(channels, channels[1:], strict=False):
                self.layers.extend([nn.Conv2d(before, after, 3, padding=1), nn.ReLU()])
            self.outputs.append(len(self.layers) - 1)
        own = self.layers.state_dict()
        given = {name: state_dict.get(f"features.{name}") for name in own}
        for name, value in given.items():
            if value is None or value.shape != own[name].shape:
                raise ValueError(f"features.{name} is missing or of another shape")
        self.layers.load_state_dict(given)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images.float()
        while x.shape[-1] > MAX_SIDE:
            x = functional.avg_pool2d(x, 2)
        x = ((x + 1) / 2 - self.mean) / self.std  # one channel becomes three by broadcasting
        maps = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.outputs:
                maps.append(functional.adaptive_avg_pool2d(x.float(), GRID))
        return maps


def untrained_vgg16(seed: int) -> VGG16Features:
    """VGG16 with random weights, for timing only: as slow as the trained one, and nothing is downloaded."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "vgg16"))
    weights, index = {}, 0
    for channels in VGG16_BLOCKS:
        index += 1 if index else 0  # the pooling layer before every block but the first
        for before, after in zip(channels, channels[1:], strict=False):
            noise = torch.randn(after, before, 3, 3, generator=generator)
            weights[f"features.{index}.weight"] = noise * (2 / (9 * before)) ** 0.5
            weights[f"features.{index}.bias"] = torch.zeros(after)
            index += 2  # the convolution and its ReLU
    return VGG16Features(weights)


class PerceptualLoss(nn.Module):
    """Distance of a batch of fakes from the *whole training set* in the moments of VGG16's features.

    L = 1/3 sum over layers of mean over channels and cells of
    [(mu_G - mu_R)^2 + (sd_G - sd_R)^2] / (sd_R + eps)^2, with eps a tenth of the layer's mean sd_R: a channel
    that never fires would otherwise divide by zero. The real moments are computed once, here.
    """

    def __init__(self, network: nn.Module, real_batches: Iterable[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.real = population_moments(network(batch) for batch in real_batches)

    def forward(self, fake: Tensor) -> Tensor:
        """Scalar loss of generated images [N, C, S, S] in [-1, 1]; 0 if all moments agree."""
        losses = []
        for (real_mean, real_sd), features in zip(self.real, self.network(fake), strict=True):
            fake_mean, fake_sd = batch_moments(features)
            scale = real_sd + 0.1 * real_sd.mean() + 1e-8
            difference = (fake_mean - real_mean).square() + (fake_sd - real_sd).square()
            losses.append((difference / scale.square()).mean())
        return torch.stack(losses).mean()


@torch.no_grad()
def population_moments(batches: Iterable[list[Tensor]]) -> list[Moments]:
    """Moments over all images of several batches of feature maps; one batch after another is in memory.

    Sums are kept in float64, as the variance is a small difference of large numbers, and on the CPU, as not
    every device has float64. The moments are float32, on the device of the features.
    """
    count, totals, squares, devices = 0, [], [], []
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
