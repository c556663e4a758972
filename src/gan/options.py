"""How a GAN is built and trained: the options, the presets that set them, and what cannot be combined.

Every flag of ``train_gan.py`` that a preset may set is in ``DEFAULTS``; a flag that is given wins over the
preset. Nothing here needs torch.

Sources: R1 and R2, Mescheder et al. 2018 (arXiv 1801.04406); the relativistic pairing loss with both,
Huang et al. 2024 (R3GAN, arXiv 2501.05441); spectral normalisation, Miyato et al. 2018 (1802.05957); WGAN-GP,
Gulrajani et al. 2017 (1704.00028); DiffAugment, Zhao et al. 2020 (2006.10738); minibatch standard deviation,
Karras et al. 2018 (1710.10196); noise injection, Karras et al. 2019 (1812.04948); projection discriminator,
Miyato & Koyama 2018 (1802.05637).
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from common.command_line import number
from utils import UserError

ARCHITECTURES = ("dcgan", "resnet")
D_NORMS = ("batch", "spectral", "none")
LOSSES = ("bce", "hinge", "rpgan", "wgan-gp")
UPSAMPLINGS = ("deconv", "resize")
# With --conditional: the index of a class among the labels, and the name of the class on command lines.
CLASS_NAMES = ("Lung Opacity", "Normal", "No Lung Opacity / Not Normal")
CLASS_FLAGS = ("lung_opacity", "normal", "not_normal")
SMOOTHING = 0.1  # of D's target for reals alone, one-sided (Salimans et al. 2016, arXiv 1606.03498)
METRICS_IMAGES = 256  # generated for an evaluation


def label_of_class(flag: str) -> int:
    """1 for pneumonia, 0 for the two classes without it."""
    return int(flag == CLASS_FLAGS[0])


@dataclass(frozen=True)
class GANOptions:
    """What networks, losses and optimizers are; the fields are the flags of ``train_gan.py``.

    ``r1``, ``r2``: gamma of the penalties gamma/2 * E||grad D||^2 on reals and on fakes. ``reg_every``: they
    are taken every so many steps, times ``reg_every``. ``label_smoothing``: 1 minus D's target for reals,
    for bce. ``ema_kimg``: half-life of G's average in thousands of images, at most 5 % of those seen; None:
    10,000 / 32 batches. ``lr_d``: None: that of G. ``conditional``: G and D take a class.
    """

    preset: str = "default"
    arch: str = "dcgan"
    d_norm: str = "batch"
    adversarial_loss: str = "bce"
    label_smoothing: float = SMOOTHING
    r1: float = 0.0
    r2: float = 0.0
    reg_every: int = 16
    upsample: str = "deconv"
    diffaug: bool = False
    mbstd: bool = False
    noise_injection: bool = False
    ema_kimg: float | None = None
    beta2: float = 0.999
    lr_d: float | None = None
    conditional: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain types for checkpoints and result files; ``GANOptions(**d)`` brings them back."""
        return asdict(self)

    @property
    def penalised(self) -> bool:
        """Is there a penalty on D's gradient at single images?"""
        return self.r1 > 0 or self.r2 > 0 or self.adversarial_loss == "wgan-gp"

    def takes_penalty(self, step: int) -> bool:
        """At ``step`` (from 0)?"""
        return self.penalised and step % self.reg_every == 0

    @property
    def n_classes(self) -> int:
        return len(CLASS_NAMES) if self.conditional else 0


# --- presets ---------------------------------------------------------------------------------------
# What a preset may set, and what is used where it does not.
DEFAULTS: dict[str, Any] = {
    "image_size": 224, "num_channels": 3, "latent_dim": 100, "feature_maps_g": 32, "feature_maps_d": 32,
    "batch_size": 32, "lr": 0.0002, "beta1": 0.5, "lambda_perceptual": 0.1, "lambda_fm": 1.0,
    "perceptual": "auto",
} | {field.name: field.default for field in fields(GANOptions) if field.name != "preset"}  # fmt: skip
# Without it D learns a few hundred images by heart, and every preset gets worse when trained on (README).
DEFAULTS["diffaug"] = True
_SMALL = {"image_size": 64, "num_channels": 1, "perceptual": "off"}
# R1 instead of BatchNorm in D, which makes a step cheaper and no seed fail.
_PENALISED = {
    "d_norm": "none", "label_smoothing": 0.0, "r1": 1.0, "beta1": 0.0, "beta2": 0.99, "lambda_fm": 0.0,
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # For two CPU cores, at a size they can do.
    "cpu": _SMALL | _PENALISED | {"ema_kimg": 2.0},
    # The same without a checkerboard, for 1.1 to 1.4 times the time.
    "best": _SMALL | _PENALISED | {"ema_kimg": 2.0, "upsample": "resize"},
}  # fmt: skip
# What else changes, unless it is given, with a value that differs from the preset's own.
FOLLOWS: dict[tuple[str, Any], dict[str, Any]] = {
    # The recipe that these networks are made for.
    ("arch", "resnet"): _PENALISED | {
        "adversarial_loss": "rpgan", "r2": 1.0, "reg_every": 1, "upsample": "resize", "ema_kimg": 5.0,
        "latent_dim": 64,
    },
    ("adversarial_loss", "hinge"): {"label_smoothing": 0.0},
    ("adversarial_loss", "rpgan"): {"label_smoothing": 0.0, "reg_every": 1},
    # A penalty that a preset brings goes where it cannot be had; one that is given is refused.
    ("adversarial_loss", "wgan-gp"): {"label_smoothing": 0.0, "reg_every": 1, "r1": 0.0, "r2": 0.0},
    ("d_norm", "batch"): {"r1": 0.0, "r2": 0.0},
}  # fmt: skip


def preset_values(name: str) -> dict[str, Any]:
    """Every flag in ``DEFAULTS`` as the preset ``name`` sets it."""
    return DEFAULTS | PRESETS[name]


def resolve(args: argparse.Namespace) -> GANOptions:
    """Fill in, in place, what was not given (None) as the preset says; returns the options.

    ``UserError`` if they cannot be combined.
    """
    usual = preset_values(args.preset)
    given = {name: value for name in usual if (value := getattr(args, name)) is not None}
    for name in ("arch", "adversarial_loss", "d_norm"):
        if given.get(name, usual[name]) != usual[name]:
            usual |= FOLLOWS.get((name, given[name]), {})
    vars(args).update(usual | given)
    options = options_of(args)
    check(options)
    check_changed(args, {name for name, value in given.items() if value != usual[name]}, options)
    return options


def options_of(args: argparse.Namespace) -> GANOptions:
    """The options of arguments that have been resolved."""
    return GANOptions(**{field.name: getattr(args, field.name) for field in fields(GANOptions)})


def settings_of(options: GANOptions) -> dict[str, Any]:
    """By the flag that sets it, what may not change between a state and its continuation."""
    values = options.as_dict()
    del values["preset"]  # a name for values that are all there
    return {f"--{name.replace('_', '-')}": value for name, value in values.items()}


def describe_options(args: argparse.Namespace) -> str:
    """One line: the preset and every flag that differs from the default, as it is typed."""
    changed = {name: getattr(args, name) for name, value in DEFAULTS.items() if getattr(args, name) != value}
    typed = (" ".join(as_typed(name, value)).strip() for name, value in changed.items())
    return " ".join([f"preset {args.preset}", *typed])


def as_typed(name: str, value: Any) -> tuple[str, str]:
    """("--lr", "0.1"), ("--diffaug", "") or ("--no-diffaug", "")."""
    flag = name.replace("_", "-")
    return (f"--no-{flag}" if value is False else f"--{flag}", "" if isinstance(value, bool) else str(value))


# --- what cannot be combined -----------------------------------------------------------------------
def check(options: GANOptions) -> None:
    """``UserError`` with the reason and what to do if ``options`` cannot work together."""
    for wrong, problem in (
        (
            options.arch == "resnet" and options.d_norm != "none",
            f"--d-norm {options.d_norm} is not for --arch resnet, whose networks have no normalisation: "
            "leave --d-norm out, or use --arch dcgan",
        ),
        (
            options.arch == "resnet" and options.upsample != "resize",
            f"--upsample {options.upsample} is not for --arch resnet, which interpolates: leave --upsample "
            "out, or use --arch dcgan",
        ),
        (
            options.penalised and options.d_norm == "batch",
            f"{_penalty_flag(options)} penalises D's gradient at each image, and BatchNorm in D makes the "
            "output for an image depend on the others of its batch: add --d-norm none or --d-norm spectral",
        ),
        (
            options.adversarial_loss == "wgan-gp" and (options.r1 > 0 or options.r2 > 0),
            "--adversarial-loss wgan-gp has a gradient penalty of its own, which wants a norm of 1 where "
            "--r1 and --r2 want 0: leave them out, or use another loss",
        ),
        (
            options.adversarial_loss != "bce" and options.label_smoothing > 0,
            "--label-smoothing is about the target of bce, and --adversarial-loss "
            f"{options.adversarial_loss} has no targets: leave it out",
        ),
    ):
        if wrong:
            raise UserError(problem)


def wants_perceptual(args: argparse.Namespace) -> bool:
    return args.perceptual != "off" and args.lambda_perceptual > 0


def check_changed(args: argparse.Namespace, changed: Collection[str], options: GANOptions) -> None:
    """``UserError`` if a flag that was ``changed`` from its usual value would do nothing, or if nothing would
    teach G. One that is given as it is anyway is fine: a report tells commands in full."""
    for wrong, problem in (
        (
            "lambda_perceptual" in changed and args.lambda_perceptual > 0 and args.perceptual == "off",
            f"--lambda-perceptual {args.lambda_perceptual:g} weighs the perceptual loss, which is off: add "
            "--perceptual auto, or leave it out",
        ),
        (
            args.perceptual == "on" and not wants_perceptual(args),
            "--perceptual on needs a weight, and --lambda-perceptual is 0: leave one of them out",
        ),
        (
            "reg_every" in changed and not options.penalised,
            f"--reg-every {options.reg_every} is about a gradient penalty, and there is none: add --r1 1 "
            "--d-norm none, or leave it out",
        ),
        (
            not (args.lambda_adv or args.lambda_fm or wants_perceptual(args)),
            "G has nothing to learn from: --lambda-adv and --lambda-fm are 0 and the perceptual loss is off: "
            "leave --lambda-adv out",
        ),
    ):
        if wrong:
            raise UserError(problem)


def _penalty_flag(options: GANOptions) -> str:
    if options.adversarial_loss == "wgan-gp":
        return "--adversarial-loss wgan-gp"
    return "--r1" if options.r1 > 0 else "--r2"


def doubts(options: GANOptions) -> list[str]:
    """What can be trained but has been seen to go wrong, a line each."""
    lines = []
    if options.adversarial_loss == "rpgan" and not (options.r1 > 0 and options.r2 > 0):
        lines.append("--adversarial-loss rpgan without both --r1 and --r2 often diverges (R3GAN, section 2)")
    elif options.r2 > 0 and options.r1 == 0:
        lines.append("--r2 without --r1 leaves D free to be steep at real images: --r1 is the usual choice")
    return lines


# --- command line ----------------------------------------------------------------------------------
def default_text(name: str) -> str:
    """ "(default: 224; cpu: 64; best: 64)"."""
    texts = [f"default: {_text(name, DEFAULTS[name])}"]
    for preset, values in PRESETS.items():
        if values.get(name, DEFAULTS[name]) != DEFAULTS[name]:
            texts.append(f"{preset}: {_text(name, values[name])}")
    return f"({'; '.join(texts)})"


def _text(name: str, value: Any) -> str:
    if value is None:
        return {"ema_kimg": "0.3125 x the batch size", "lr_d": "as --lr"}[name]
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def add_option(group: argparse._ActionsContainer, flag: str, text: str, **how: Any) -> None:
    """A flag of ``DEFAULTS``, None until it is resolved; its help ends with what each preset makes of it."""
    name = flag.lstrip("-").replace("-", "_")
    group.add_argument(flag, default=None, help=f"{text} {default_text(name)}", **how)


def add_gan_options(parser: argparse.ArgumentParser) -> None:
    """--preset and the fields of ``GANOptions``."""
    group = parser.add_argument_group("presets and options of the GAN")
    group.add_argument(
        "--preset", choices=PRESETS, default="default",
        help="values of the flags below and of others, whose help says which; a flag that is given wins",
    )  # fmt: skip
    weight, decay = number(float, 0), number(float, 0, 0.9999)
    switch = {"action": argparse.BooleanOptionalAction}
    for flag, text, how in (
        (
            "--arch",
            "networks: DCGAN, or residual ones without normalisation, which bring the values they are "
            "made for, first of all --adversarial-loss rpgan --r1 1 --r2 1",
            {"choices": ARCHITECTURES},
        ),
        ("--d-norm", "normalisation in a DCGAN's discriminator", {"choices": D_NORMS}),
        (
            "--adversarial-loss",
            "cross-entropy, hinge, relativistic pairing, or Wasserstein with gradient penalty",
            {"choices": LOSSES},
        ),
        (
            "--label-smoothing", "D's target for reals is 1 minus this, with bce",
            {"type": number(float, 0, 0.5), "metavar": "X"},
        ),
        (
            "--r1", "gamma of D's gradient penalty gamma/2 |grad D|^2 at real images",
            {"type": weight, "metavar": "X"},
        ),
        ("--r2", "the same at generated images", {"type": weight, "metavar": "X"}),
        (
            "--reg-every",
            "steps from one gradient penalty to the next, each times this; with rpgan or wgan-gp: 1",
            {"type": number(int, 1), "metavar": "N"},
        ),
        (
            "--upsample", "how a DCGAN's generator doubles: transposed convolution, or nearest pixel and 3x3 "
            "convolution, which leaves no checkerboard", {"choices": UPSAMPLINGS},
        ),
        ("--diffaug", "D sees reals and fakes shifted and with other brightness and contrast", switch),
        ("--mbstd", "D sees how much the images of a group of four differ", switch),
        ("--noise-injection", "noise of its own for every pixel of every layer of G", switch),
        (
            "--ema-kimg", "half-life of G's average, in thousands of images",
            {"type": number(float, above=0), "metavar": "X"},
        ),
        ("--beta2", "decay of Adam's second moment", {"type": decay, "metavar": "X"}),
        ("--lr-d", "D's learning rate", {"type": number(float, above=0), "metavar": "X"}),
        ("--conditional", "G and D are told which of three classes an image is of; --classes all", switch),
    ):  # fmt: skip
        add_option(group, flag, text, **how)
