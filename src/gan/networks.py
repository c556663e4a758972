"""The networks that options ask for, freshly initialised, and generators from their checkpoints."""

from __future__ import annotations

from typing import Any

import dcgan
from gan import resnet as gan_resnet
from gan.options import GANOptions
from utils import UserError

GENERATOR_FORMAT = "dcgan-generator-1"  # of either architecture, which the checkpoint names
DISCRIMINATOR_FORMAT = "dcgan-discriminator-1"

Generator = dcgan.Generator | gan_resnet.Generator
Discriminator = dcgan.Discriminator | gan_resnet.Discriminator


def build_networks(
    options: GANOptions, image_size: int, num_channels: int, latent_dim: int, feature_maps: tuple[int, int]
) -> tuple[Generator, Discriminator]:
    """(G, D), initialised with torch's global random numbers; ``feature_maps`` are those of (G, D)."""
    of_g: dict[str, Any] = {"noise_injection": options.noise_injection, "n_classes": options.n_classes}
    of_d: dict[str, Any] = {"mbstd": options.mbstd, "n_classes": options.n_classes}
    if options.arch == "resnet":
        return (
            gan_resnet.Generator(image_size, num_channels, latent_dim, feature_maps[0], **of_g),
            gan_resnet.Discriminator(image_size, num_channels, feature_maps[1], **of_d),
        )
    G = dcgan.Generator(
        image_size, num_channels, latent_dim, feature_maps[0], upsample=options.upsample, **of_g
    )
    D = dcgan.Discriminator(image_size, num_channels, feature_maps[1], d_norm=options.d_norm, **of_d)
    dcgan.initialise(G)
    dcgan.initialise(D)
    return G, D


def generator_from_checkpoint(checkpoint: dict[str, Any], name: str) -> Generator:
    """The generator of a ``generator_*.pth``, in eval mode.

    Raises ``UserError``, naming the file ``name``, if the content is not a generator or does not fit itself.
    """
    if checkpoint.get("format") != GENERATOR_FORMAT:
        raise UserError(
            f"{name} is not a generator (format {checkpoint.get('format')!r}, not {GENERATOR_FORMAT!r}): "
            "python src/train_gan.py writes generator_final.pth"
        )
    try:
        architecture = dict(checkpoint["architecture"])
        module = {"dcgan": dcgan, "resnet": gan_resnet}[architecture.pop("arch", "dcgan")]
        generator = module.Generator(**architecture)
        generator.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"{name} is damaged: its weights do not fit its architecture") from None
    return generator.eval()
