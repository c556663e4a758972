"""Contenders of the comparison of generators: this project's presets and options, and other projects."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from common.command_line import parser_of_words
from gan.options import OPTIONS, preset_values
from utils import UserError, sha256_json


@dataclass(frozen=True)
class Contender:
    """One generator with its settings.

    ``flags``: options of ``train_gan.py`` for a generator of this project, of the driver for others.
    ``driver``: file name in ``peer_drivers/`` or a path; None for a generator of this project. ``package``:
    the package that the driver needs from the peers' environment; None if it needs none.
    """

    name: str
    flags: tuple[str, ...] = ()
    driver: str | None = None
    package: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is a generator of this project."""
        return self.driver is None


OURS = ("default", "cpu", "best")
SMALL = ("--variant", "small")
PEERS = (
    Contender("lightweight-gan", (), "drive_lightweight_gan.py", "lightweight-gan"),
    Contender("lightweight-gan small", SMALL, "drive_lightweight_gan.py", "lightweight-gan"),
    Contender("stylegan2_pytorch", (), "drive_stylegan2_pytorch.py", "stylegan2_pytorch"),
    Contender("stylegan2_pytorch small", SMALL, "drive_stylegan2_pytorch.py", "stylegan2_pytorch"),
    Contender("diffusers-ddpm", (), "drive_ddpm.py", "diffusers"),
    Contender("diffusers-ddpm small", SMALL, "drive_ddpm.py", "diffusers"),
    Contender("plain-dcgan", driver="drive_plain_dcgan.py"),
)
# This project's generator with single options changed. Penalties need D without BatchNorm.
OPTION_SETS = {
    "default": "--preset default",
    "cpu": "--preset cpu",
    "best": "--preset best",
    "batch norm in D": "--d-norm batch",
    "spectral norm in D": "--d-norm spectral",
    "R1 without norm in D": "--d-norm none --r1 1",
    "hinge loss": "--d-norm spectral --adversarial-loss hinge",
    "RpGAN with R1 and R2": "--d-norm none --adversarial-loss rpgan --r1 1 --r2 1",
    "WGAN-GP": "--d-norm none --adversarial-loss wgan-gp",
    "resize convolutions": "--upsample resize",
    "no DiffAugment": "--no-diffaug",
    "minibatch SD": "--mbstd",
    "noise injection": "--noise-injection",
    "average over 5 kimg": "--ema-kimg 5",
    "residual networks": "--arch resnet",
    "Lite0 perceptual loss": "--perceptual on --perceptual-network efficientnet_lite0",
}


def contenders() -> dict[str, Contender]:
    """Return the contenders that are compared at equal time, by name."""
    ours = [Contender(f"ours-{preset}", ("--preset", preset)) for preset in OURS]
    return {contender.name: contender for contender in (*ours, *PEERS)}


def option_contender(text: str) -> Contender:
    """Return the contender of a name in ``OPTION_SETS``, or of "NAME=FLAGS" with flags of train_gan.py.

    Raises ``UserError`` for an unknown name; exit code 2 if train_gan.py has no such flags.
    """
    name, given, flags = text.partition("=")
    if not given and name not in OPTION_SETS:
        raise UserError(f"--set {name}: no such set of options; use NAME=FLAGS or one of {', '.join(OPTION_SETS)}")
    try:
        words = shlex.split(flags if given else OPTION_SETS[name])
    except ValueError as error:
        raise UserError(f"--set {text}: cannot be split into flags: {error}") from None
    parser = parser_of_words(OPTIONS, "train_gan.py")
    if unknown := parser.parse_known_args(words)[1]:
        parser.error(f"no such option: {unknown[0]}")
    return Contender(name.strip(), tuple(words))


@dataclass(frozen=True)
class Budget:
    """Length of a training: wall-clock ``minutes``, or ``kimg`` thousand images shown.

    Only this project's generators can count images.
    """

    minutes: float | None = None
    kimg: float | None = None

    @property
    def words(self) -> str:
        """The budget as tables show it."""
        return f"{self.minutes:g} min" if self.minutes is not None else f"{self.kimg:g} kimg"


@dataclass(frozen=True)
class Unit:
    """One contender with one seed and one budget: what one row measures."""

    contender: Contender
    seed: int
    budget: Budget

    @property
    def id(self) -> str:
        """Name of its row: everything that makes it another measurement, the preset's values included."""
        flags = self.contender.flags
        parts = [self.contender.name, shlex.join(flags), self.budget.words, str(self.seed)]
        if self.contender.ours:
            preset = parser_of_words(OPTIONS).parse_known_args(flags)[0].preset
            parts.append(sha256_json(preset_values(preset))[:8])
        return " | ".join(parts)

    def folder_name(self, key: str) -> str:
        """Name its folder; ``key`` stands for the data and the number of images generated."""
        plain = "".join(letter if letter.isalnum() else "_" for letter in self.contender.name).strip("_")
        budget = self.budget.words.replace(" ", "")
        return f"{plain}_{budget}_seed{self.seed}_{sha256_json([self.id, key])[:8]}"
