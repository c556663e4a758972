"""A GAN in training: networks, optimizers, one step, the average of the generator, saving and restoring.

Everything random is a pure function of the seed and a counter (the order of the images of the epoch, the
noise of the step), so that a run that is restored at a step goes on exactly as if it had never stopped.

Of several processes (see ``distributed``) each takes its share of a batch. Gradients are means over all, so
weights stay the same everywhere; BatchNorm normalises, and moments of features are taken, within a share,
as they are in DistributedDataParallel, and BatchNorm's running statistics are means over the processes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gan_losses
from dcgan import Discriminator, Generator, initialise
from distributed import average, average_training
from gan_losses import Moments, PerceptualLoss
from utils import autocast, derive_seed

EMA_HALF_LIFE_BATCHES = 10_000 / 32  # StyleGAN2-ADA: batch size * 10 / 32 thousand images ...
EMA_RAMP = 0.05  # ... but never longer than this fraction of the images seen so far
D_TERMS = ("d_loss_real", "d_loss_fake", "d_real", "d_fake")  # losses in nats; mean sigmoid(D(x)), D(G(z))
G_TERMS = ("g_adversarial", "g_perceptual", "g_feature_matching")  # unweighted
PERCEPTUAL_IMAGES = 32  # of a batch, enough for moments; VGG16 costs several times the GAN itself
PERCEPTUAL_EVERY = {"cpu": 8, "gpu": 4}  # steps
TERMS = (*D_TERMS, *G_TERMS)


@dataclass(frozen=True)
class Objective:
    """Weights of the terms of G's loss; the perceptual one is taken every ``perceptual_every``-th step.

    On those steps it is multiplied by ``perceptual_every``, so that its weight over time is the one asked.
    """

    adversarial: float
    perceptual: float
    feature_matching: float
    perceptual_loss: PerceptualLoss | None
    perceptual_every: int

    def takes_perceptual(self, step: int) -> bool:
        return self.perceptual_loss is not None and step % self.perceptual_every == 0


def perceptual_every(device: torch.device) -> int:
    """Every how many steps VGG16, which makes a step several times as dear, is asked on ``device``."""
    return PERCEPTUAL_EVERY["cpu" if device.type == "cpu" else "gpu"]


class GAN:
    """G, D, the moving average G_ema, their optimizers, and the number of steps taken."""

    def __init__(self, G: Generator, D: Discriminator, lr: float, beta1: float, device: torch.device) -> None:
        self.G, self.D = (network.to(device, memory_format=torch.channels_last) for network in (G, D))
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        betas = (beta1, 0.999)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), lr, betas=betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), lr, betas=betas, fused=True)
        self.step = 0

    PARTS = ("G", "D", "G_ema", "optimizer_G", "optimizer_D")

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, **{name: getattr(self, name).state_dict() for name in self.PARTS}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]

    def compile(self) -> None:
        """Both networks by torch.compile, each alone: the first steps take a minute or more, the others less
        time; results change by rounding only. Weights keep their names."""
        self.G.compile()
        self.D.logits_and_features = torch.compile(self.D.logits_and_features)

    def is_finite(self) -> bool:
        """Are all weights of G, D and the average finite? A loss can still be when a weight no longer is."""
        tensors = [
            tensor for name in ("G", "D", "G_ema") for tensor in getattr(self, name).state_dict().values()
        ]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def build_gan(
    image_size: int, num_channels: int, latent_dim: int, feature_maps: tuple[int, int],
    lr: float, beta1: float, seed: int, device: torch.device,
) -> GAN:  # fmt: skip
    """A freshly initialised GAN, a pure function of its arguments; ``feature_maps`` are those of (G, D)."""
    torch.manual_seed(derive_seed(seed, "initialisation"))
    G = Generator(image_size, num_channels, latent_dim, feature_maps[0])
    D = Discriminator(image_size, num_channels, feature_maps[1])
    initialise(G)
    initialise(D)
    return GAN(G, D, lr, beta1, device)


# --- randomness ------------------------------------------------------------------------------------
def epoch_batches(n_images: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Indices [batch_size] of each batch of an epoch (from 1), shuffled; an incomplete one is dropped."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(n_images, generator=generator)
    for start in range(0, n_images - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def step_noise(seed: int, step: int, batch_size: int, latent_dim: int) -> Tensor:
    """z ~ N(0, 1) [batch_size, latent_dim] of a step, made on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", step))
    return torch.randn(batch_size, latent_dim, generator=generator)


def image_noise(seed: int, stream: str, first: int, count: int, latent_dim: int) -> Tensor:
    """z [count, latent_dim] of images first, first + 1, ...: each a function of its own number."""
    rows = []
    for index in range(first, first + count):
        generator = torch.Generator().manual_seed(derive_seed(seed, stream, index))
        rows.append(torch.randn(latent_dim, generator=generator))
    return torch.stack(rows)


# --- one step --------------------------------------------------------------------------------------
def train_step(gan: GAN, real: Tensor, z: Tensor, objective: Objective, precision: str) -> Tensor:
    """One update of D, then of G, then of G's average; returns the ``TERMS`` [7], left on the device.

    ``real`` [B, C, S, S] in [-1, 1], ``z`` [B, latent_dim]. Both updates share one batch of fakes.
    """
    real = real.contiguous(memory_format=torch.channels_last)
    with autocast(real.device, precision):
        fake = gan.G(z)
    d_terms, real_moments = discriminator_step(gan, real, fake.detach(), precision)
    g_terms = generator_step(gan, fake, real_moments, objective, precision)
    gan.step += 1
    update_average(gan.G_ema, gan.G, ema_decay(gan.step))
    return torch.stack([*d_terms, *g_terms])


def discriminator_step(
    gan: GAN, real: Tensor, fake: Tensor, precision: str
) -> tuple[list[Tensor], list[Moments]]:
    """Update D; returns its ``D_TERMS`` and the moments of its features of the reals.

    Reals and fakes pass D separately: in one batch, BatchNorm would give away which is which.
    """
    with autocast(real.device, precision):
        real_logits, real_features = gan.D.logits_and_features(real)
        fake_logits = gan.D(fake)
    losses = gan_losses.discriminator_losses(real_logits, fake_logits)
    gan.optimizer_D.zero_grad(set_to_none=True)
    sum(losses).backward()
    average_training(gan.D)
    gan.optimizer_D.step()
    with torch.no_grad():
        moments = [gan_losses.batch_moments(features) for features in real_features]
        outputs = [logits.float().sigmoid().mean() for logits in (real_logits, fake_logits)]
    return [loss.detach() for loss in losses] + outputs, moments


def generator_step(
    gan: GAN, fake: Tensor, real_moments: list[Moments], objective: Objective, precision: str
) -> list[Tensor]:
    """Update G through the updated D, whose weights are left alone; returns the ``G_TERMS``."""
    gan.D.requires_grad_(False)
    with autocast(fake.device, precision):
        logits, features = gan.D.logits_and_features(fake)
        perceptual = fake.new_zeros((), dtype=torch.float32)
        if objective.takes_perceptual(gan.step):
            perceptual = objective.perceptual_loss(fake[:PERCEPTUAL_IMAGES])
    adversarial = gan_losses.generator_adversarial_loss(logits)
    fake_moments = [gan_losses.batch_moments(maps) for maps in features]
    matching = gan_losses.feature_matching_loss(real_moments, fake_moments)
    loss = (
        objective.adversarial * adversarial
        + objective.perceptual * objective.perceptual_every * perceptual
        + objective.feature_matching * matching
    )
    gan.optimizer_G.zero_grad(set_to_none=True)
    loss.backward()
    average_training(gan.G, gan.D)
    gan.optimizer_G.step()
    gan.D.requires_grad_(True)
    return [adversarial.detach(), perceptual.detach(), matching.detach()]


# --- moving average --------------------------------------------------------------------------------
def ema_decay(step: int) -> float:
    """Weight of the old average at ``step`` (from 1): half-life min(312.5 batches, 5 % of all so far)."""
    half_life = min(EMA_HALF_LIFE_BATCHES, EMA_RAMP * step)  # in batches
    return 0.5 ** (1.0 / half_life)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * network for the weights; BatchNorm's buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


# --- losses of an epoch ----------------------------------------------------------------------------
def sum_dtype(device: torch.device) -> torch.dtype:
    """float64 for long sums, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


class LossMeter:
    """Sums of the ``TERMS`` over an epoch, on the device, and the first step with one that is not finite."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.sums = torch.zeros(len(TERMS), dtype=sum_dtype(device), device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.steps = self.perceptual_steps = 0

    def add(self, terms: Tensor, step: int) -> None:
        """Count the terms of ``step`` (from 0); nothing is read back from the device."""
        self.sums += terms
        bad_now = (self.first_bad < 0) & ~terms.isfinite().all()
        self.first_bad = torch.where(bad_now, step + 1, self.first_bad)
        self.steps += 1
        self.perceptual_steps += self.objective.takes_perceptual(step)

    def first_bad_step(self) -> int | None:
        """The first step (from 1) with a loss that is not finite; waits for the device."""
        step = int(self.first_bad)
        return step if step >= 0 else None

    def means(self) -> dict[str, float | None]:
        """Mean of every term (the perceptual one over its own steps), and of the two losses minimised; over
        all processes, which must call this together."""
        average([self.sums])
        means: dict[str, float | None] = {
            name: total / self.steps for name, total in zip(TERMS, self.sums.tolist(), strict=True)
        }
        if self.perceptual_steps:
            means["g_perceptual"] *= self.steps / self.perceptual_steps
        weights = self.objective
        g_loss = weights.adversarial * means["g_adversarial"]
        g_loss += weights.perceptual * means["g_perceptual"]
        g_loss += weights.feature_matching * means["g_feature_matching"]
        if not self.perceptual_steps:
            means["g_perceptual"] = None
        d_loss = means["d_loss_real"] + means["d_loss_fake"]
        return {"d_loss": d_loss, "g_loss": g_loss, **means}
