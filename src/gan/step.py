"""One training step of a GAN, and what is random in it.

Everything random is a pure function of the seed and a counter (the order of the images of the epoch, the
noise of the step), so that a run that is restored at a step goes on exactly as if it had never stopped.

With several processes (see ``common.distributed``) each takes its share of a batch. Gradients are means
over all processes, so the weights stay the same everywhere. As in DistributedDataParallel, BatchNorm and the
moments of features use the images of one share. BatchNorm's running statistics are means over the processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.distributed import average_training, my_share, process_count
from gan import augmentation, losses
from gan.losses import Moments, Objective
from gan.networks import GAN
from utils import autocast, derive_seed

# Losses; how real D finds reals and fakes (losses.mean_probabilities); the penalties R1, R2 and that of
# WGAN-GP; the norm of all gradients of the update. Losses are unweighted, and 0 where they are not taken.
D_TERMS = ("d_loss_real", "d_loss_fake", "d_real", "d_fake", "r1", "r2", "gradient_penalty", "d_grad_norm")
G_TERMS = ("g_adversarial", "g_perceptual", "g_feature_matching", "g_grad_norm")
TERMS = (*D_TERMS, *G_TERMS)
PERCEPTUAL_IMAGES = 32  # of a batch, enough for moments; VGG16 costs several times the GAN itself
PROBE_STREAM = "probe"  # of the noise of ``gradient_shares``


# --- randomness ------------------------------------------------------------------------------------
def epoch_batches(n_images: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield the indices [batch_size] of each batch of an epoch (from 1), shuffled.

    An incomplete last batch is dropped.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order = torch.randperm(n_images, generator=generator)
    for start in range(0, n_images - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def step_noise(seed: int, step: int, batch_size: int, latent_dim: int) -> Tensor:
    """Draw z ~ N(0, 1) [batch_size, latent_dim] of a step on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", step))
    return torch.randn(batch_size, latent_dim, generator=generator)


def image_noise(seed: int, stream: str, first: int, count: int, latent_dim: int) -> Tensor:
    """Draw z [count, latent_dim] of images first, first + 1, ...: each a function of its own number."""
    rows = []
    for index in range(first, first + count):
        generator = torch.Generator().manual_seed(derive_seed(seed, stream, index))
        rows.append(torch.randn(latent_dim, generator=generator))
    return torch.stack(rows)


# --- one step --------------------------------------------------------------------------------------
def train_step(
    gan: GAN, real: Tensor, z: Tensor, objective: Objective, precision: str, labels: Tensor | None = None
) -> Tensor:
    """Update D, then G, then G's average; returns the ``TERMS`` [12], left on the device.

    ``real`` [B, C, S, S] in [-1, 1], ``z`` [B, input_dim of G]. Both updates share one batch of fakes.
    ``labels`` [B]: the classes of the reals, with --conditional; the fakes are of the same, so that they are
    as frequent, that pairs of rpgan are of one class, and that they follow from seed and step.
    """
    real = real.contiguous(memory_format=torch.channels_last)
    with autocast(real.device, precision):
        fake = gan.G(z, labels)
    match = objective.feature_matching > 0
    d_terms, real_moments = discriminator_step(gan, real, fake.detach(), precision, labels, match)
    g_terms = generator_step(gan, fake, real, real_moments, objective, precision, labels)
    gan.finish_step(len(real) * process_count())
    return torch.stack([*d_terms, *g_terms])


def discriminator_step(
    gan: GAN, real: Tensor, fake: Tensor, precision: str, labels: Tensor | None = None, match: bool = True
) -> tuple[list[Tensor], list[Moments]]:
    """Update D; returns its ``D_TERMS`` and, if asked to ``match``, the moments of its features of the reals.

    Reals and fakes pass D separately: in one batch, BatchNorm would give away which is which.
    """
    options = gan.options
    real = shown_to_d(gan, real, "D, reals").detach()
    fake = shown_to_d(gan, fake, "D, fakes").detach()
    lazy = options.takes_penalty(gan.step)
    real.requires_grad_(lazy and options.r1 > 0)
    fake.requires_grad_(lazy and options.r2 > 0)
    with autocast(real.device, precision):
        real_logits, real_features = gan.D.logits_and_features(real, labels)
        fake_logits = gan.D(fake, labels)
    kind = options.adversarial_loss
    terms = [*losses.discriminator_losses(real_logits, fake_logits, kind, options.label_smoothing)]
    penalties, weighted = [real.new_zeros(()) for _ in range(3)], list[Tensor]()
    if lazy:
        penalties, weighted = take_penalties(gan, real, fake, real_logits, fake_logits, precision, labels)
    gan.optimizer_D.zero_grad(set_to_none=True)
    sum([*terms, *weighted], start=real.new_zeros(())).backward()
    average_training(gan.D)
    gan.optimizer_D.step()
    with torch.no_grad():
        moments = [losses.batch_moments(features) for features in real_features] if match else []
        outputs = losses.mean_probabilities(real_logits, fake_logits, kind)
        norm = gradient_norm(gan.D)
    return [term.detach() for term in (*terms, *outputs, *penalties, norm)], moments


def take_penalties(
    gan: GAN, real: Tensor, fake: Tensor, real_logits: Tensor, fake_logits: Tensor, precision: str,
    labels: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Return R1, R2 and WGAN-GP's penalty, 0 if not asked for; and those asked for, weighted for this step.

    They are taken at the very images that D was shown, through the pass that the losses have made anyway,
    which may be in bfloat16; squares are summed in float32. Each process takes the mean over its share, so
    that the mean of their gradients is that of all images.
    """
    options, none = gan.options, real.new_zeros(())
    r1 = losses.zero_gradient_penalty(real, real_logits) if options.r1 > 0 else none
    r2 = losses.zero_gradient_penalty(fake, fake_logits) if options.r2 > 0 else none
    unit = none
    if options.adversarial_loss == "wgan-gp":
        numbers = augmentation.draw_numbers(gan.seed, gan.step, "WGAN-GP", len(real) * process_count())
        images = losses.interpolate(real, fake, numbers[my_share(), 0]).requires_grad_()
        with autocast(real.device, precision):
            logits = gan.D(images, labels)
        unit = losses.unit_gradient_penalty(images, logits)
    weights = (options.r1 / 2, options.r2 / 2, losses.WGAN_GP_WEIGHT)
    pairs = zip(weights, (r1, r2, unit), strict=True)
    return [r1, r2, unit], [options.reg_every * weight * term for weight, term in pairs if term is not none]


def generator_step(
    gan: GAN, fake: Tensor, real: Tensor, real_moments: list[Moments], objective: Objective, precision: str,
    labels: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Update G through the updated D, whose weights are left alone; returns the ``G_TERMS``.

    ``real``: images that the fakes are paired with, for rpgan.
    """
    gan.D.requires_grad_(False)
    kind, real_logits = gan.options.adversarial_loss, None
    with autocast(fake.device, precision):
        logits, features = gan.D.logits_and_features(shown_to_d(gan, fake, "G, fakes"), labels)
        if kind == "rpgan":
            with torch.no_grad():
                real_logits = gan.D(shown_to_d(gan, real, "G, reals"), labels)
        perceptual = fake.new_zeros((), dtype=torch.float32)
        if objective.perceptual_loss is not None and objective.takes_perceptual(gan.step):
            perceptual = objective.perceptual_loss(fake[:PERCEPTUAL_IMAGES])
    adversarial = losses.generator_adversarial_loss(logits, kind, real_logits)
    matching = fake.new_zeros((), dtype=torch.float32)
    if objective.feature_matching > 0:
        fake_moments = [losses.batch_moments(maps) for maps in features]
        matching = losses.feature_matching_loss(real_moments, fake_moments)
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


def shown_to_d(gan: GAN, images: Tensor, stream: str) -> Tensor:
    """Return ``images`` as D is shown them: with DiffAugment changed as seed, step and ``stream`` say."""
    if not gan.options.diffaug:
        return images
    numbers = augmentation.draw_numbers(gan.seed, gan.step, stream, len(images) * process_count())[my_share()]
    return augmentation.augment(images, numbers)


def gradient_norm(network: nn.Module) -> Tensor:
    """Return the Euclidean norm of all gradients of an update, those of other processes averaged in."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm().float()


# --- what teaches G --------------------------------------------------------------------------------
def gradient_shares(
    gan: GAN, real: Tensor, objective: Objective, precision: str, seed: int, labels: Tensor | None = None
) -> dict[str, float]:
    """Return the share that each term of G's loss has of the gradient at G's output; {term: share}.

    A weight says little about how much a term counts, since losses have scales of their own. The share is the
    norm of the gradient of the weighted term with respect to the generated images, divided by the sum of
    these norms; all are 0 if nothing reaches G. ``real`` [B, C, S, S] in [-1, 1], with their classes
    ``labels`` [B] if G has some; as many images are generated, of noise that is always the same. The
    perceptual loss counts as on average over the steps, in one of which it is taken many times over. No
    weight, no gradient that an optimizer sees, no running statistic and no random number is changed.
    """
    z = image_noise(seed, PROBE_STREAM, 1, len(real), gan.G.input_dim).to(real.device)
    with untouched(gan.G, gan.D):
        with torch.no_grad(), autocast(real.device, precision):
            images = gan.G(z, labels)
        fake = images.detach().requires_grad_()
        terms = _weighted_terms(gan, fake, real, objective, precision, labels)
        norms = {
            name: float(torch.autograd.grad(term, fake, retain_graph=True)[0].float().norm())
            for name, term in terms.items()
        }
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


def _weighted_terms(
    gan: GAN, fake: Tensor, real: Tensor, objective: Objective, precision: str, labels: Tensor | None
) -> dict[str, Tensor]:
    """Return the terms that have a weight, as in a step of the generator."""
    with autocast(real.device, precision):
        with torch.no_grad():
            real_logits, real_features = gan.D.logits_and_features(shown_to_d(gan, real, "G, reals"), labels)
        logits, features = gan.D.logits_and_features(shown_to_d(gan, fake, "G, fakes"), labels)
        perceptual = None
        if objective.perceptual_loss is not None:
            perceptual = objective.perceptual_loss(fake[:PERCEPTUAL_IMAGES])
    terms = {}
    if objective.adversarial:
        loss = losses.generator_adversarial_loss(logits, gan.options.adversarial_loss, real_logits)
        terms["adversarial"] = objective.adversarial * loss
    if objective.feature_matching:
        moments = [[losses.batch_moments(maps) for maps in group] for group in (real_features, features)]
        terms["feature_matching"] = objective.feature_matching * losses.feature_matching_loss(*moments)
    if perceptual is not None and objective.perceptual:
        terms["perceptual"] = objective.perceptual * perceptual
    return terms


@contextlib.contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Restore the buffers of ``networks`` and the random state after the block."""
    buffers = [buffer for network in networks for buffer in network.buffers()]
    before = [buffer.clone() for buffer in buffers]
    devices = {parameter.device for network in networks for parameter in network.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
