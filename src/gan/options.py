"""Options of train_gan.py and generate_synthetic.py, the presets of the first, and how options become ``Settings``.

Parser, help text, resume check, what the low-data study sets itself, and the recorded configuration all
follow from ``OPTIONS``. An option that is given wins over the preset. Nothing here imports torch.

Sources: R1 and R2, Mescheder et al. 2018 (arXiv 1801.04406); the relativistic pairing loss with both,
Huang et al. 2024 (R3GAN, arXiv 2501.05441); spectral normalisation, Miyato et al. 2018 (1802.05957); WGAN-GP,
Gulrajani et al. 2017 (1704.00028); DiffAugment, Zhao et al. 2020 (2006.10738); minibatch standard deviation,
Karras et al. 2018 (1710.10196); noise injection, Karras et al. 2019 (1812.04948); projection discriminator,
Miyato & Koyama 2018 (1802.05637).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import paths
from common.command_line import number, public_config
from common.options import Affects, Option, values_affecting
from common.plan_files import PLAN_OPTION
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, PART_OPTIONS
from gan.combinations import check_settings
from gan.settings import (
    ALL,
    CLASS_FLAGS,
    PERCEPTUAL_NETWORKS,
    POSITIVE,
    SMOOTHING,
    Settings,
    group_values,
)

IMAGE_SIZES = (32, 64, 112, 128, 224, 256)
ARCHITECTURES = ("dcgan", "resnet")
D_NORMS = ("batch", "spectral", "none")
LOSSES = ("bce", "hinge", "rpgan", "wgan-gp")
UPSAMPLINGS = ("deconv", "resize")

# --- presets ---------------------------------------------------------------------------------------
_SMALL = {"image_size": 64, "num_channels": 1, "perceptual": "off"}
# R1 instead of BatchNorm in D, which makes a step cheaper and no seed fail.
_PENALISED = {
    "d_norm": "none", "label_smoothing": 0.0, "r1": 1.0, "beta1": 0.0, "beta2": 0.99, "lambda_fm": 0.0,
}  # fmt: skip
# Where a preset differs from the defaults of the table.
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
    # An impossible penalty is dropped if a preset brings it, and refused if the user gives it.
    ("adversarial_loss", "wgan-gp"): {"label_smoothing": 0.0, "reg_every": 1, "r1": 0.0, "r2": 0.0},
    ("d_norm", "batch"): {"r1": 0.0, "r2": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class PresetOption(Option):
    """An option whose default a preset may change: ``default`` is that of the preset "default".

    It parses to None, which ``read_settings`` replaces. Its help ends with its value in every preset that differs.
    ``none_means`` puts a default of None into words.
    """

    affects: Affects = Affects.RUN
    none_means: str = ""

    def default_text(self) -> str:
        """Write the defaults: "(default: 224; cpu: 64; best: 64)"."""
        texts = [f"default: {self._words(self.default)}"]
        for preset, values in PRESETS.items():
            if values.get(self.name, self.default) != self.default:
                texts.append(f"{preset}: {self._words(values[self.name])}")
        return f"({'; '.join(texts)})"

    def _words(self, value: Any) -> str:
        return self.none_means if value is None else _in_words(value)

    def _argparse_keywords(self) -> dict[str, Any]:
        usual = super()._argparse_keywords()
        return usual | {"default": None, "help": f"{self.help} {self.default_text()}"}


# --- the table -------------------------------------------------------------------------------------
_COUNT, _WEIGHT, _ABOVE_0 = number(int, 1), number(float, 0), number(float, above=0)
_DECAY = number(float, 0, 0.9999)
_RUN = Affects.RUN
_MODEL, _TRAINING, _GAN = "model", "training", "presets and options of the GAN"
_SAVING, _WATCHING = "logging and saving", "watching"
_WHERE = (
    # A continued run compares metadata, split and images themselves, not the options that led to them.
    *(
        option if option.flag == "--bits" else replace(option, affects=Affects.NOTHING)
        for option in (*DATA_OPTIONS, *CACHE_OPTIONS)
    ),
    PLAN_OPTION,
    Option("--model-dir", "checkpoints go to its subfolder gan/", default=paths.MODEL_DIR, metavar="PATH",
           set_by_study=True),
    Option("--output-dir", "base folder of the outputs", default=paths.OUTPUT_DIR, metavar="PATH",
           set_by_study=True),
    Option("--results-dir", "folder of the history (default: <output-dir>/metrics)", metavar="PATH",
           set_by_study=True),
    Option("--figures-dir", "folder of the loss curve (default: <output-dir>/figures)", metavar="PATH",
           set_by_study=True),
    *PART_OPTIONS,
)  # fmt: skip
_NETWORKS = (
    PresetOption("--image-size", "pixels a side", type=int, choices=IMAGE_SIZES, default=224, group=_MODEL,
                 set_by_study=True),
    PresetOption("--num-channels", "channels; X-rays are gray: 3 replicates", type=int, choices=(1, 3),
                 default=3, group=_MODEL),
    PresetOption("--latent-dim", "length of the noise vector z", type=_COUNT, default=100, metavar="N",
                 group=_MODEL),
    PresetOption("--feature-maps-g", "channels of the generator's layer next to the image", type=_COUNT,
                 default=32, metavar="N", group=_MODEL),
    PresetOption("--feature-maps-d", "channels of the discriminator's layer next to the image", type=_COUNT,
                 default=32, metavar="N", group=_MODEL),
)  # fmt: skip
_LEARNING = (
    Option("--epochs", "passes over the images", type=_COUNT, default=50, metavar="N", group=_TRAINING,
           excludes="length", set_by_study=True),
    Option("--kimg",
           "thousands of images to show, rounded up to whole epochs (default: as --epochs says)",
           type=_ABOVE_0, metavar="N", group=_TRAINING, excludes="length", set_by_study=True),
    PresetOption("--batch-size", "images per step", type=number(int, 2), default=32, metavar="N",
                 group=_TRAINING),
    PresetOption("--lr", "learning rate of both Adam optimizers", type=_ABOVE_0, default=0.0002, metavar="X",
                 group=_TRAINING),
    PresetOption("--beta1", "decay of Adam's first moment", type=_DECAY, default=0.5, metavar="X",
                 group=_TRAINING),
    Option("--classes", f"images to learn from (default: {POSITIVE}; with --conditional: {ALL})", _RUN,
           choices=(POSITIVE, ALL), group=_TRAINING),
    Option("--lambda-adv", "weight of the adversarial loss", _RUN, type=_WEIGHT, default=1.0, metavar="X",
           group=_TRAINING),
    PresetOption("--lambda-perceptual", "weight of the perceptual loss", type=_WEIGHT, default=0.1,
                 metavar="X", group=_TRAINING),
    PresetOption("--lambda-fm", "weight of feature matching", type=_WEIGHT, default=1.0, metavar="X",
                 group=_TRAINING),
    PresetOption("--perceptual",
                 "perceptual loss; auto: only if the ImageNet weights of its network are available",
                 choices=("auto", "on", "off"), default="auto", group=_TRAINING),
    Option("--perceptual-network",
           "network whose features the perceptual loss compares; efficientnet_lite0 stands in where VGG16's "
           "weights cannot be had (requirements-offline.txt)",
           _RUN, choices=PERCEPTUAL_NETWORKS, default=PERCEPTUAL_NETWORKS[0], group=_TRAINING),
    Option("--precision",
           "arithmetic of the networks; auto: bf16 where the hardware multiplies it, else fp32", _RUN,
           choices=("auto", "fp32", "bf16"), default="auto", group=_TRAINING),
    Option("--compile", "torch.compile the networks first, which takes a minute: for long runs on a GPU",
           _RUN, switch=True, group=_TRAINING),
    Option("--seed", "seed of weights, noise and order", _RUN, type=number(int, 0, 2**32 - 1), default=42,
           metavar="N", group=_TRAINING, set_by_study=True),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N",
           group=_TRAINING),
    Option("--cpu", "use the CPU even if a GPU is there", switch=True, group=_TRAINING, set_by_study=True),
)  # fmt: skip
_RECIPE = (
    Option("--preset",
           "values of the options below and of others, whose help says which; an option that is given wins",
           choices=tuple(PRESETS), default="default", group=_GAN),
    PresetOption("--arch",
                 "networks: DCGAN, or residual ones without normalisation, which bring the values they are "
                 "made for, first of all --adversarial-loss rpgan --r1 1 --r2 1",
                 choices=ARCHITECTURES, default="dcgan", group=_GAN),
    PresetOption("--d-norm", "normalisation in a DCGAN's discriminator", choices=D_NORMS, default="batch",
                 group=_GAN),
    PresetOption("--adversarial-loss",
                 "cross-entropy, hinge, relativistic pairing, or Wasserstein with gradient penalty",
                 choices=LOSSES, default="bce", group=_GAN),
    PresetOption("--label-smoothing", "D's target for reals is 1 minus this, with bce",
                 type=number(float, 0, 0.5), default=SMOOTHING, metavar="X", group=_GAN),
    PresetOption("--r1", "gamma of D's gradient penalty gamma/2 |grad D|^2 at real images", type=_WEIGHT,
                 default=0.0, metavar="X", group=_GAN),
    PresetOption("--r2", "the same at generated images", type=_WEIGHT, default=0.0, metavar="X", group=_GAN),
    PresetOption("--reg-every",
                 "steps from one gradient penalty to the next, each times this; with rpgan or wgan-gp: 1",
                 type=_COUNT, default=16, metavar="N", group=_GAN),
    PresetOption("--upsample",
                 "how a DCGAN's generator doubles: transposed convolution, or nearest pixel and 3x3 "
                 "convolution, which leaves no checkerboard",
                 choices=UPSAMPLINGS, default="deconv", group=_GAN),
    # Without it D learns a few hundred images by heart, and training longer makes every preset worse.
    PresetOption("--diffaug", "D sees reals and fakes shifted and with other brightness and contrast",
                 on_off=True, default=True, group=_GAN),
    PresetOption("--mbstd", "D sees how much the images of a group of four differ", on_off=True,
                 default=False, group=_GAN),
    PresetOption("--noise-injection", "noise of its own for every pixel of every layer of G", on_off=True,
                 default=False, group=_GAN),
    PresetOption("--ema-kimg", "half-life of G's average, in thousands of images", type=_ABOVE_0,
                 metavar="X", none_means="0.3125 x the batch size", group=_GAN),
    PresetOption("--beta2", "decay of Adam's second moment", type=_DECAY, default=0.999, metavar="X",
                 group=_GAN),
    PresetOption("--lr-d", "D's learning rate", type=_ABOVE_0, metavar="X", none_means="as --lr", group=_GAN),
    PresetOption("--conditional",
                 "G and D are told which of three classes an image is of; --classes all", on_off=True,
                 default=False, group=_GAN),
)  # fmt: skip
_KEEPING = (
    Option("--vis-batch-size", "images in a sample grid", type=_COUNT, default=32, metavar="N",
           group=_SAVING),
    Option("--save-interval", "steps between sample grids", type=_COUNT, default=1000, metavar="N",
           group=_SAVING),
    Option("--checkpoint-interval", "epochs between checkpoints", type=_COUNT, default=5, metavar="N",
           group=_SAVING),
    Option("--no-real-images", "leave out the grid of real training images", switch=True, group=_SAVING),
    Option("--resume",
           "go on from the last state in <model-dir>/gan (if none, start from the beginning), or from "
           "the state file PATH (default: start from the beginning)",
           nargs="?", const="auto", metavar="auto|PATH", group=_SAVING, set_by_study=True),
    Option("--estimate",
           "only say about how long it takes, and what is quicker; writes nothing but splits.json where "
           "there is none, and counts the perceptual loss as if its weights were there",
           switch=True, group=_SAVING),
)  # fmt: skip
_LOOKING = (
    Option("--metrics-interval",
           "epochs from one evaluation to the next, more where that would take over 5 %% of the time; "
           "0: none (default: as often as that allows)",
           _RUN, type=number(int, 0), metavar="N", group=_WATCHING),
    Option("--metrics-images", "generated for an evaluation, and at most so many of each half of the reals",
           _RUN, type=number(int, 2), default=256, metavar="N", group=_WATCHING),
    Option("--metrics-features",
           "a classifier of train_classifier.py in whose features too images are compared, and by which "
           "generator_best.pth is then chosen; or EfficientNet-Lite0's ImageNet features, which never choose "
           "(default: none; HOG, and Inception where its weights are)",
           _RUN, metavar="efficientnet_lite0|PATH", group=_WATCHING),
    Option("--metrics-holdout",
           "share of the images, by patient, that is not trained on, to see whether D over-fits",
           _RUN, type=number(float, 0, 0.5), default=0.0, metavar="F", group=_WATCHING),
    Option("--stop-on-collapse", "end after a warning of mode collapse, exit code 1", switch=True,
           group=_WATCHING),
    Option("--tensorboard", "also write <output-dir>/tensorboard", switch=True, group=_WATCHING),
    Option("--max-minutes",
           "end after the epoch in which this time is used up, that of resumed parts included "
           "(default: no limit)",
           type=_ABOVE_0, metavar="M", group=_WATCHING),
    Option("--dry-run",
           "only print the options, the sizes of the networks, and how much time they need", switch=True,
           group=_WATCHING),
    Option("--preview-augmentations",
           "only write a grid of training images as --diffaug shows them to D", switch=True,
           group=_WATCHING),
)  # fmt: skip
OPTIONS: tuple[Option, ...] = (
    *_WHERE, *_NETWORKS, *_LEARNING, *_RECIPE, *_KEEPING, *_LOOKING,
)  # fmt: skip

# Of generate_synthetic.py, which trains nothing: no option of it matters to resuming or to arms.
GENERATION_OPTIONS = (
    Option("--model-path", "generator checkpoint (default: none, required)", required=True, metavar="PATH"),
    Option("--output-dir",
           "folder of the images; those of a generator trained without fold I go to its subfolder fold_I",
           default=paths.SYNTHETIC_DIR, metavar="PATH"),
    Option("--label",
           "class of the images, for a generator that was trained with --conditional, which needs it "
           "(default: none, what the generator was trained on)",
           choices=CLASS_FLAGS),
    Option("--num-images", "images the folder shall hold", type=number(int, 1), default=5000, metavar="N"),
    Option("--latent-dim",
           "length of the noise vector; refused if the checkpoint's differs (default: the checkpoint's; 100 "
           "in a default training)",
           type=number(int, 1), metavar="N"),
    Option("--feature-maps-g",
           "the generator's base feature maps; refused if the checkpoint's differs (default: the "
           "checkpoint's; 32 in a default training)",
           type=number(int, 1), metavar="N"),
    Option("--batch-size", "images generated at a time", type=number(int, 1), default=64, metavar="N"),
    Option("--seed", "seed of the noise", type=number(int, 0, 2**32 - 1), default=42, metavar="N"),
    Option("--workers", "threads that write images", type=number(int, 1), default=4, metavar="N"),
    Option("--overwrite", "remove the folder's synthetic images and manifest first", switch=True),
    PLAN_OPTION,
    Option("--cpu", "use the CPU even if a GPU is there", switch=True),
    Option("--estimate", "only say about how long it takes, and what is quicker", switch=True),
)  # fmt: skip


# --- from options to settings ----------------------------------------------------------------------
def default_values() -> dict[str, Any]:
    """Return every option that a preset may set (name -> default)."""
    return {option.name: option.default for option in OPTIONS if isinstance(option, PresetOption)}


def preset_values(name: str) -> dict[str, Any]:
    """Return every option that a preset may set (name -> value in the preset ``name``)."""
    return default_values() | PRESETS[name]


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Make settings of parsed ``values`` (name -> value); what was not given comes from the preset.

    Raises ``UserError`` if they cannot be combined.
    """
    values = {option.name: values[option.name] for option in OPTIONS}
    usual = preset_values(values["preset"])
    given = {name: values[name] for name in usual if values[name] is not None}
    for name in ("arch", "adversarial_loss", "d_norm"):
        if given.get(name, usual[name]) != usual[name]:
            usual |= FOLLOWS.get((name, given[name]), {})
    resolved = values | usual | given
    resolved["classes"] = values["classes"] or (ALL if resolved["conditional"] else POSITIVE)
    resolved["results_dir"] = values["results_dir"] or str(Path(values["output_dir"]) / "metrics")
    resolved["figures_dir"] = values["figures_dir"] or str(Path(values["output_dir"]) / "figures")
    settings = group_values(resolved)
    check_settings(settings, {name for name, value in given.items() if value != usual[name]})
    return settings


def fixed_values(settings: Settings) -> dict[str, Any]:
    """Return what a continued run must be given again (flag -> value)."""
    flags = {option.name: option.flag for option in OPTIONS}
    fixed = values_affecting(OPTIONS, Affects.RUN, settings.values)
    return {flags[name]: value for name, value in fixed.items()}


def recorded_config(settings: Settings) -> dict[str, Any]:
    """Return the options for result files; --resume is left out, as a run ends the same without it."""
    config = public_config(settings.values)
    del config["resume"]
    return config


# --- in words --------------------------------------------------------------------------------------
def describe_options(settings: Settings) -> str:
    """Write the preset and every option that differs from the default in one line, as they are typed."""
    usual, values = default_values(), settings.values
    changed = [name for name in usual if values[name] != usual[name]]
    typed = (" ".join(_as_typed(name, values[name])).strip() for name in changed)
    return " ".join([f"preset {values['preset']}", *typed])


def describe_options_in_full(settings: Settings) -> str:
    """Write every option that has a value, as it is typed, a line each.

    Switches are listed if they are on, or if they are off where the default is on.
    """
    usual = default_values()
    hidden = {"dry_run"} | ({"epochs"} if settings.values["kimg"] is not None else set())
    shown = dict(
        _as_typed(name, value) for name, value in public_config(settings.values).items()
        if value is not None and name not in hidden and (value is not False or usual.get(name))
    )  # fmt: skip
    width = max(map(len, shown))
    return "\n".join(f"  {flag:<{width}} {value}".rstrip() for flag, value in shown.items())


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name each entry that differs, with both values: "--diffaug on (now off)"."""
    return [
        f"{flag} {_in_words(before.get(flag))} (now {_in_words(now.get(flag))})"
        for flag in dict.fromkeys([*now, *before])
        if before.get(flag) != now.get(flag)
    ]


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _as_typed(name: str, value: Any) -> tuple[str, str]:
    """Return ("--lr", "0.1"), ("--diffaug", "") or ("--no-diffaug", "")."""
    flag = name.replace("_", "-")
    return (f"--no-{flag}" if value is False else f"--{flag}", "" if isinstance(value, bool) else str(value))
