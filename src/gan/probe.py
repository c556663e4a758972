"""What G is taught by which term of its loss: each term's share of the gradient that reaches G's output.

A weight says little about how much a term counts, since losses have scales of their own; the gradient does.
Looking changes nothing: no weight, no gradient that an optimizer sees, no running statistic, no state of
random numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gan import losses as gan_losses
from gan.training import GAN, PERCEPTUAL_IMAGES, Objective, as_seen, image_noise
from utils import autocast

STREAM = "probe"  # of its noise


@contextlib.contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Whatever passes ``networks`` inside the block, their buffers and the random numbers of the process are
    afterwards what they were before."""
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


def gradient_shares(
    gan: GAN, real: Tensor, objective: Objective, precision: str, seed: int, labels: Tensor | None = None
) -> dict[str, float]:
    """{term: share} of the terms of G's loss: the norm of the gradient of the weighted term with respect to
    the generated images, as a share of the sum of these norms. All 0 if nothing reaches G.

    ``real`` [B, C, S, S] in [-1, 1], with their classes ``labels`` [B] if G has some; as many images are
    generated, of noise that is always the same. The perceptual loss counts as on average over the steps, in
    one of which it is taken many times over.
    """
    z = image_noise(seed, STREAM, 1, len(real), gan.G.input_dim).to(real.device)
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
    """Those that have a weight, as in a step of the generator."""
    with autocast(real.device, precision):
        with torch.no_grad():
            real_logits, real_features = gan.D.logits_and_features(as_seen(gan, real, "G, reals"), labels)
        logits, features = gan.D.logits_and_features(as_seen(gan, fake, "G, fakes"), labels)
        perceptual = None
        if objective.perceptual_loss is not None:
            perceptual = objective.perceptual_loss(fake[:PERCEPTUAL_IMAGES])
    terms = {}
    if objective.adversarial:
        kind = gan.options.adversarial_loss
        loss = gan_losses.generator_adversarial_loss(logits, kind, real_logits)
        terms["adversarial"] = objective.adversarial * loss
    if objective.feature_matching:
        moments = [[gan_losses.batch_moments(maps) for maps in group] for group in (real_features, features)]
        terms["feature_matching"] = objective.feature_matching * gan_losses.feature_matching_loss(*moments)
    if perceptual is not None and objective.perceptual:
        terms["perceptual"] = objective.perceptual * perceptual
    return terms
