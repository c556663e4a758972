"""The networks of a GAN: building, training together, and generators from their checkpoints."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

import dcgan
from common.file_formats import format_problems
from gan import resnet
from gan.combinations import check_gan_options
from gan.file_formats import GENERATOR_FORMAT, NetworkCheckpoint
from gan.settings import GANOptions, Settings
from utils import UserError, derive_seed

EMA_HALF_LIFE_BATCHES = 10_000 / 32  # StyleGAN2-ADA: batch size * 10 / 32 thousand images ...
EMA_RAMP = 0.05  # ... but never longer than this fraction of the images seen so far
ARCHITECTURES = {"dcgan": dcgan.Generator, "resnet": resnet.Generator}

Generator = dcgan.Generator | resnet.Generator
Discriminator = dcgan.Discriminator | resnet.Discriminator


class GAN:
    """G, D, the moving average G_ema, their optimizers, and the number of steps taken.

    ``seed``: seed of all that is random in a step besides its noise.
    """

    PARTS = ("G", "D", "G_ema", "optimizer_G", "optimizer_D")

    def __init__(
        self, G: Generator, D: Discriminator, lr: float, beta1: float, device: torch.device,
        options: GANOptions, seed: int,
    ) -> None:  # fmt: skip
        self.options, self.seed = options, seed
        self.G = G.to(device).to(memory_format=torch.channels_last)
        self.D = D.to(device).to(memory_format=torch.channels_last)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        # StyleGAN2 corrects lr and betas for lazy penalties because it takes them as steps of their own;
        # here they are added to the loss of a step that is taken in any case.
        betas = (beta1, options.beta2)
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), lr, betas=betas, fused=True)
        self.optimizer_D = torch.optim.Adam(self.D.parameters(), options.lr_d or lr, betas=betas, fused=True)
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, **{name: getattr(self, name).state_dict() for name in self.PARTS}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]

    def compile(self) -> None:
        """Compile both networks with torch.compile.

        The first steps take a minute or more, the others less time; results change by rounding only. Weights
        keep their names.
        """
        self.G.compile()
        self.D.logits_and_features = torch.compile(self.D.logits_and_features)  # type: ignore[method-assign]  # all passes use it

    def finish_step(self, n_images: int) -> None:
        """Count a step on ``n_images``, which moves the average of G towards G."""
        self.step += 1
        half_life = ema_half_life(self.options.ema_kimg, n_images)
        update_average(self.G_ema, self.G, ema_decay(self.step, half_life))

    def is_finite(self) -> bool:
        """Return whether all weights of G, D and the average are finite; losses may be when they are not."""
        networks = (self.G, self.D, self.G_ema)
        tensors = [tensor for network in networks for tensor in network.state_dict().values()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


# --- moving average --------------------------------------------------------------------------------
def ema_half_life(kimg: float | None, batch_size: int) -> float:
    """Return the half-life in batches; ``kimg``: in thousands of images, None for 312.5 batches."""
    return EMA_HALF_LIFE_BATCHES if kimg is None else kimg * 1000 / batch_size


def ema_decay(step: int, half_life: float = EMA_HALF_LIFE_BATCHES) -> float:
    """Return the weight of the old average at ``step`` (from 1).

    The half-life, in batches, is at most 5 % of all batches so far.
    """
    return 0.5 ** (1.0 / min(half_life, EMA_RAMP * step))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Set ``average`` to decay * average + (1 - decay) * network; BatchNorm's buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


# --- building --------------------------------------------------------------------------------------
def build_gan(
    image_size: int, num_channels: int, latent_dim: int, feature_maps: tuple[int, int],
    lr: float, beta1: float, seed: int, device: torch.device, options: GANOptions | None = None,
) -> GAN:  # fmt: skip
    """Build a freshly initialised GAN, a pure function of the arguments; ``feature_maps``: of (G, D).

    Raises ``UserError`` if the ``options`` (None: the defaults) cannot work together.
    """
    options = options or GANOptions()
    check_gan_options(options)
    torch.manual_seed(derive_seed(seed, "initialisation"))
    G, D = build_networks(options, image_size, num_channels, latent_dim, feature_maps)
    return GAN(G, D, lr, beta1, device, options, seed)


def gan_as_set(settings: Settings, device: torch.device) -> GAN:
    """Build the freshly initialised GAN that ``settings`` describe."""
    return build_gan(
        settings.images.image_size, settings.num_channels, settings.latent_dim,
        (settings.feature_maps_g, settings.feature_maps_d),
        settings.lr, settings.beta1, settings.seed, device, settings.gan,
    )  # fmt: skip


def build_networks(
    options: GANOptions, image_size: int, num_channels: int, latent_dim: int, feature_maps: tuple[int, int]
) -> tuple[Generator, Discriminator]:
    """Build (G, D), initialised with torch's global random numbers; ``feature_maps``: of (G, D)."""
    for_g: dict[str, Any] = {"noise_injection": options.noise_injection, "n_classes": options.n_classes}
    for_d: dict[str, Any] = {"mbstd": options.mbstd, "n_classes": options.n_classes}
    if options.arch == "resnet":
        return (
            resnet.Generator(image_size, num_channels, latent_dim, feature_maps[0], **for_g),
            resnet.Discriminator(image_size, num_channels, feature_maps[1], **for_d),
        )
    G = dcgan.Generator(image_size, num_channels, latent_dim, feature_maps[0], upsample=options.upsample, **for_g)
    D = dcgan.Discriminator(image_size, num_channels, feature_maps[1], d_norm=options.d_norm, **for_d)
    dcgan.initialise(G)
    dcgan.initialise(D)
    return G, D


def generator_from_checkpoint(checkpoint: dict[str, Any], name: str) -> Generator:
    """Build the generator of a ``generator_*.pth``, in eval mode.

    Raises ``UserError``, naming the file ``name``, if the content is not a generator or does not fit itself.
    """
    if checkpoint.get("format") != GENERATOR_FORMAT:
        raise UserError(
            f"{name} is not a generator (format {checkpoint.get('format')!r}, not {GENERATOR_FORMAT!r}): "
            "python src/train_gan.py writes generator_final.pth"
        )
    if problems := format_problems(checkpoint, NetworkCheckpoint):
        raise UserError(f"{name} is damaged: {problems[0]}; python src/train_gan.py makes it again")
    architecture = dict(checkpoint["architecture"])
    try:
        generator = ARCHITECTURES[architecture.pop("arch")](**architecture)
        generator.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(
            f"{name} is damaged: its weights do not fit its architecture; python src/train_gan.py makes it again"
        ) from None
    if unfit := [key for key, value in generator.state_dict().items() if not torch.isfinite(value).all()]:
        raise UserError(
            f"{name} is damaged: its weights {unfit[0]} are not all finite; python src/train_gan.py makes it again"
        )
    return generator.eval()


@contextlib.contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Inside the block ``network`` is in eval mode and without gradients.

    A copy would do, but a compiled network cannot be copied.
    """
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            yield
    finally:
        network.train(training)
