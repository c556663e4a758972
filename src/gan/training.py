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

from common.distributed import average, average_training, my_share, process_count
from gan import augmentation as gan_augment
from gan import losses as gan_losses
from gan.losses import Moments, PerceptualLoss
from gan.networks import Discriminator, Generator, build_networks
from gan.options import GANOptions, check
from utils import autocast, derive_seed

EMA_HALF_LIFE_BATCHES = 10_000 / 32  # StyleGAN2-ADA: batch size * 10 / 32 thousand images ...
EMA_RAMP = 0.05  # ... but never longer than this fraction of the images seen so far
# Losses; how real D finds reals and fakes (gan_losses.mean_probabilities); the penalties R1, R2 and that of
# WGAN-GP; the norm of all gradients of the update. Losses are unweighted, and 0 where they are not taken.
D_TERMS = ("d_loss_real", "d_loss_fake", "d_real", "d_fake", "r1", "r2", "gradient_penalty", "d_grad_norm")
G_TERMS = ("g_adversarial", "g_perceptual", "g_feature_matching", "g_grad_norm")
PENALTIES = ("r1", "r2", "gradient_penalty")
NORMS = ("g_grad_norm", "d_grad_norm")
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
    """G, D, the moving average G_ema, their optimizers, and the number of steps taken.

    ``seed``: of all that is random in a step besides its noise.
    """

    def __init__(
        self, G: Generator, D: Discriminator, lr: float, beta1: float, device: torch.device,
        options: GANOptions, seed: int,
    ) -> None:  # fmt: skip
        self.options, self.seed = options, seed
        self.G, self.D = (network.to(device, memory_format=torch.channels_last) for network in (G, D))
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        # StyleGAN2 corrects lr and betas for lazy penalties because it takes them as steps of their own;
        # here they are added to the loss of a step that is taken in any case.
        betas = (beta1, options.beta2)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), lr, betas=betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), options.lr_d or lr, betas=betas, fused=True)
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
    lr: float, beta1: float, seed: int, device: torch.device, options: GANOptions | None = None,
) -> GAN:  # fmt: skip
    """A freshly initialised GAN, a pure function of its arguments; ``feature_maps`` are those of (G, D).

    ``options`` None: the defaults. ``UserError`` if they cannot work together.
    """
    options = options or GANOptions()
    check(options)
    torch.manual_seed(derive_seed(seed, "initialisation"))
    G, D = build_networks(options, image_size, num_channels, latent_dim, feature_maps)
    return GAN(G, D, lr, beta1, device, options, seed)


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
def train_step(
    gan: GAN, real: Tensor, z: Tensor, objective: Objective, precision: str, labels: Tensor | None = None
) -> Tensor:
    """One update of D, then of G, then of G's average; returns the ``TERMS`` [12], left on the device.

    ``real`` [B, C, S, S] in [-1, 1], ``z`` [B, input_dim of G]. Both updates share one batch of fakes.
    ``labels`` [B]: the classes of the reals, with --conditional; the fakes are of the same, so that they are
    as frequent, that pairs of rpgan are of one class, and that they follow from seed and step.
    """
    real = real.contiguous(memory_format=torch.channels_last)
    with autocast(real.device, precision):
        fake = gan.G(z, labels)
    match = objective.feature_matching > 0
    d_terms, real_moments = discriminator_step(gan, real, fake.detach(), precision, labels, match)
    g_terms = generator_step(gan, fake, real_moments, objective, precision, labels, real)
    gan.step += 1
    half_life = ema_half_life(gan.options.ema_kimg, len(real) * process_count())
    update_average(gan.G_ema, gan.G, ema_decay(gan.step, half_life))
    return torch.stack([*d_terms, *g_terms])


def discriminator_step(
    gan: GAN, real: Tensor, fake: Tensor, precision: str, labels: Tensor | None = None, match: bool = True
) -> tuple[list[Tensor], list[Moments]]:
    """Update D; returns its ``D_TERMS`` and, if asked to ``match``, the moments of its features of the reals.

    Reals and fakes pass D separately: in one batch, BatchNorm would give away which is which.
    """
    options = gan.options
    real, fake = as_seen(gan, real, "D, reals").detach(), as_seen(gan, fake, "D, fakes").detach()
    lazy = options.takes_penalty(gan.step)
    real.requires_grad_(lazy and options.r1 > 0)
    fake.requires_grad_(lazy and options.r2 > 0)
    with autocast(real.device, precision):
        real_logits, real_features = gan.D.logits_and_features(real, labels)
        fake_logits = gan.D(fake, labels)
    kind = options.adversarial_loss
    losses = gan_losses.discriminator_losses(real_logits, fake_logits, kind, options.label_smoothing)
    penalties, weighted = [real.new_zeros(()) for _ in range(3)], []
    if lazy:
        penalties, weighted = penalties_of(gan, real, fake, real_logits, fake_logits, precision, labels)
    gan.optimizer_D.zero_grad(set_to_none=True)
    sum([*losses, *weighted]).backward()
    average_training(gan.D)
    gan.optimizer_D.step()
    with torch.no_grad():
        moments = [gan_losses.batch_moments(features) for features in real_features] if match else []
        outputs = gan_losses.mean_probabilities(real_logits, fake_logits, kind)
        norm = gradient_norm(gan.D)
    terms = [*losses, *outputs, *penalties, norm]
    return [term.detach() for term in terms], moments


def penalties_of(
    gan: GAN, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor, precision: str,
    labels: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """R1, R2 and WGAN-GP's penalty, 0 if not asked for; and those asked for, weighted for this step.

    They are taken at the very images that D was shown, through the pass that the losses have made anyway,
    which may be in bfloat16; squares are summed in float32. Each process takes the mean over its share, so
    that the mean of their gradients is that of all images.
    """
    options, none = gan.options, real.new_zeros(())
    r1 = gan_losses.zero_gradient_penalty(real, real_logits) if options.r1 > 0 else none
    r2 = gan_losses.zero_gradient_penalty(fake, fake_logits) if options.r2 > 0 else none
    unit = none
    if options.adversarial_loss == "wgan-gp":
        numbers = gan_augment.draws(gan.seed, gan.step, "WGAN-GP", len(real) * process_count())[my_share(), 0]
        images = gan_losses.between(real, fake, numbers).requires_grad_()
        with autocast(real.device, precision):
            logits = gan.D(images, labels)
        unit = gan_losses.unit_gradient_penalty(images, logits)
    weights = (options.r1 / 2, options.r2 / 2, gan_losses.WGAN_GP_WEIGHT)
    pairs = zip(weights, (r1, r2, unit), strict=True)
    return [r1, r2, unit], [options.reg_every * weight * term for weight, term in pairs if term is not none]


def generator_step(
    gan: GAN, fake: Tensor, real_moments: list[Moments], objective: Objective, precision: str,
    labels: Tensor | None = None, real: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Update G through the updated D, whose weights are left alone; returns the ``G_TERMS``.

    ``real``: what the fakes are paired with, for rpgan.
    """
    gan.D.requires_grad_(False)
    kind, real_logits = gan.options.adversarial_loss, None
    with autocast(fake.device, precision):
        logits, features = gan.D.logits_and_features(as_seen(gan, fake, "G, fakes"), labels)
        if kind == "rpgan":
            with torch.no_grad():
                real_logits = gan.D(as_seen(gan, real, "G, reals"), labels)
        perceptual = fake.new_zeros((), dtype=torch.float32)
        if objective.takes_perceptual(gan.step):
            perceptual = objective.perceptual_loss(fake[:PERCEPTUAL_IMAGES])
    adversarial = gan_losses.generator_adversarial_loss(logits, kind, real_logits)
    matching = fake.new_zeros((), dtype=torch.float32)
    if objective.feature_matching > 0:
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
    return [adversarial.detach(), perceptual.detach(), matching.detach(), gradient_norm(gan.G)]


def as_seen(gan: GAN, images: Tensor, stream: str) -> Tensor:
    """What D is shown of ``images``; with DiffAugment it is changed as seed, step and ``stream`` say."""
    if not gan.options.diffaug:
        return images
    numbers = gan_augment.draws(gan.seed, gan.step, stream, len(images) * process_count())[my_share()]
    return gan_augment.augment(images, numbers)


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of all gradients of an update, those of other processes averaged in."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm().float()


# --- moving average --------------------------------------------------------------------------------
def ema_half_life(kimg: float | None, batch_size: int) -> float:
    """In batches; ``kimg``: in thousands of images, None for 312.5 batches."""
    return EMA_HALF_LIFE_BATCHES if kimg is None else kimg * 1000 / batch_size


def ema_decay(step: int, half_life: float = EMA_HALF_LIFE_BATCHES) -> float:
    """Weight of the old average at ``step`` (from 1): the half-life, in batches, is at most 5 % of all so
    far."""
    return 0.5 ** (1.0 / min(half_life, EMA_RAMP * step))


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
    """Sums and maxima of the ``TERMS`` over an epoch, on the device, and the first step with one that is not
    finite."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective = objective
        self.sums = torch.zeros(len(TERMS), dtype=sum_dtype(device), device=device)
        self.taken = torch.zeros_like(self.sums)  # on how many steps a term was not 0
        self.largest = torch.full_like(self.sums, -torch.inf)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.bad_terms = torch.zeros(len(TERMS), dtype=torch.bool, device=device)  # of that step
        self.steps = self.perceptual_steps = 0

    def add(self, terms: Tensor, step: int) -> None:
        """Count the terms of ``step`` (from 0); nothing is read back from the device."""
        self.sums += terms
        self.taken += terms != 0
        self.largest = torch.maximum(self.largest, terms)
        bad = ~terms.isfinite()
        bad_now = (self.first_bad < 0) & bad.any()
        self.first_bad = torch.where(bad_now, step + 1, self.first_bad)
        self.bad_terms = torch.where(bad_now, bad, self.bad_terms)
        self.steps += 1
        self.perceptual_steps += self.objective.takes_perceptual(step)

    def include(self, other: LossMeter) -> None:
        """Count what ``other``, of the steps after those counted here, has counted."""
        self.sums += other.sums
        self.taken += other.taken
        self.largest = torch.maximum(self.largest, other.largest)
        self.bad_terms = torch.where(self.first_bad < 0, other.bad_terms, self.bad_terms)
        self.first_bad = torch.where(self.first_bad < 0, other.first_bad, self.first_bad)
        self.steps += other.steps
        self.perceptual_steps += other.perceptual_steps

    def first_bad_step(self) -> int | None:
        """The first step (from 1) with a loss that is not finite; waits for the device."""
        step = int(self.first_bad)
        return step if step >= 0 else None

    def first_bad_term(self) -> str | None:
        """The first of the ``TERMS``, in the order of a step, that was not finite then."""
        names = [name for name, bad in zip(TERMS, self.bad_terms.tolist(), strict=True) if bad]
        return names[0] if names else None

    def means(self) -> dict[str, float | None]:
        """Mean of every term (lazy ones over the steps on which they were taken, None if never), of G's loss,
        and of D's without penalties; over all processes, which must call this together. "..._max" of the
        ``NORMS``, which are the same in all of them: one large step in hundreds hardly shows in a mean."""
        average([self.sums])
        means: dict[str, float | None] = {
            name: total / self.steps for name, total in zip(TERMS, self.sums.tolist(), strict=True)
        }
        for name in PENALTIES:
            taken = int(self.taken[TERMS.index(name)])
            means[name] = means[name] * self.steps / taken if taken else None
        if self.perceptual_steps:
            means["g_perceptual"] *= self.steps / self.perceptual_steps
        weights = self.objective
        g_loss = weights.adversarial * means["g_adversarial"]
        g_loss += weights.perceptual * means["g_perceptual"]
        g_loss += weights.feature_matching * means["g_feature_matching"]
        if not self.perceptual_steps:
            means["g_perceptual"] = None
        d_loss = means["d_loss_real"] + means["d_loss_fake"]
        largest = dict(zip(TERMS, self.largest.tolist(), strict=True))
        maxima = {f"{name}_max": largest[name] for name in NORMS}
        return {"d_loss": d_loss, "g_loss": g_loss, **means, **maxima}
