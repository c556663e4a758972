"""Who is compared with whom: this project's presets and options, and others, with seeds and budgets."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from gan.options import preset_values
from utils import UserError, sha256_json


@dataclass(frozen=True)
class Contender:
    """``flags``: of ``train_gan.py``, for one of ours, else of the driver; ``driver``: file name in
    ``peer_drivers/`` or a path, for others; ``package``: whether it needs the peers' environment, and which
    package of it; ``version``: of what the driver does: rows of an earlier one are measured anew."""

    name: str
    flags: tuple[str, ...] = ()
    driver: str | None = None
    package: str | None = None
    version: int = 1

    @property
    def ours(self) -> bool:
        return self.driver is None


OURS = ("default", "cpu", "best")
SMALL = ("--variant", "small")
PEERS = (
    Contender("lightweight-gan", (), "drive_lightweight_gan.py", "lightweight-gan", 2),
    Contender("lightweight-gan small", SMALL, "drive_lightweight_gan.py", "lightweight-gan", 2),
    Contender("stylegan2_pytorch", (), "drive_stylegan2_pytorch.py", "stylegan2_pytorch", 2),
    Contender("stylegan2_pytorch small", SMALL, "drive_stylegan2_pytorch.py", "stylegan2_pytorch", 2),
    Contender("diffusers-ddpm", (), "drive_ddpm.py", "diffusers"),
    Contender("diffusers-ddpm small", SMALL, "drive_ddpm.py", "diffusers"),
    Contender("plain-dcgan", driver="drive_plain_dcgan.py"),
)
# Ours with single options changed, for the table of what each does. Penalties need D without BatchNorm.
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
}


def contenders() -> dict[str, Contender]:
    """All that are compared at equal time, by name."""
    ours = [Contender(f"ours-{preset}", ("--preset", preset)) for preset in OURS]
    return {contender.name: contender for contender in (*ours, *PEERS)}


def option_contender(text: str) -> Contender:
    """A name in ``OPTION_SETS``, or "NAME=FLAGS" with flags of train_gan.py. ``UserError`` for another."""
    name, given, flags = text.partition("=")
    if not given and name not in OPTION_SETS:
        raise UserError(f"{name!r} is no set of options; NAME=FLAGS, or one of {', '.join(OPTION_SETS)}")
    return Contender(name.strip(), tuple(shlex.split(flags if given else OPTION_SETS[name])))


@dataclass(frozen=True)
class Budget:
    """Wall-clock ``minutes`` of training, or ``kimg`` thousand images, which only ours know to count."""

    minutes: float | None = None
    kimg: float | None = None

    @property
    def words(self) -> str:
        return f"{self.minutes:g} min" if self.minutes is not None else f"{self.kimg:g} kimg"


@dataclass(frozen=True)
class Unit:
    """One contender with one seed and one budget: the smallest thing that is measured."""

    contender: Contender
    seed: int
    budget: Budget

    @property
    def id(self) -> str:
        """Of its row: what would be measured anew if it changed, what a preset sets included."""
        flags = self.contender.flags
        parts = [self.contender.name, shlex.join(flags), self.budget.words, str(self.seed)]
        if self.contender.ours:
            preset = flags[flags.index("--preset") + 1] if "--preset" in flags else "default"
            parts.append(sha256_json(preset_values(preset))[:8])
        elif self.contender.version > 1:
            parts.append(f"driver {self.contender.version}")
        return " | ".join(parts)

    def folder_name(self, key: str) -> str:
        """``key``: of the data and of how many images are generated."""
        return folder_name(self.contender.name, self.budget.words, self.seed, self.id, key)


def folder_name(contender: str, budget: str, seed: int, unit_id: str, key: str) -> str:
    """Of a unit, or of what a row of the result file says of one whose settings are no longer known."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in contender).strip("_")
    return f"{plain}_{budget.replace(' ', '')}_seed{seed}_{sha256_json([unit_id, key])[:8]}"
