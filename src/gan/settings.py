"""Settings of a GAN's training in groups, one for each use; the fields are named like the options.

``gan.options`` reads them from a command line. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from common import paths
from common.plan_files import NamedFiles
from dataset.options import cache_folder
from networks.backbones import LITE0

# With --conditional: the index of a class among the labels, and the name of the class on command lines.
CLASS_NAMES = ("Lung Opacity", "Normal", "No Lung Opacity / Not Normal")
CLASS_FLAGS = ("lung_opacity", "normal", "not_normal")
POSITIVE, ALL = "positive", "all"  # values of --classes
SMOOTHING = 0.1  # of D's target for reals alone, one-sided (Salimans et al. 2016, arXiv 1606.03498)
PERCEPTUAL_NETWORKS = ("vgg16", LITE0)  # the first is the default
# What every preset and seed took on 180 real positives at 64 pixels, and the KID in HOG that it led to
# (results/gan_benchmark.json; docs/generator-benchmark.md, "No seed fails").
NEEDED_KIMG, NEEDED_KID = 64.0, "0.04 to 0.07"

Group = TypeVar("Group")


def in_kimg(images: float) -> str:
    """Write a number of images in thousands, as --kimg takes them: "11.2 kimg"."""
    return f"{images / 1000:.{1 if images >= 1000 else 3}f} kimg"


def describe_length(images_shown: int, n_images: int) -> str:
    """Say how many images a training shows, and what was needed where that was measured if it shows fewer."""
    times = images_shown / max(1, n_images)
    text = f"{images_shown:,} images will be shown ({in_kimg(images_shown)}), each of {n_images:,} {times:,.0f} times"
    if images_shown >= 1000 * NEEDED_KIMG:
        return text
    return (
        f"{text}. THAT IS LITTLE: on 180 real positives at 64 px the presets took {NEEDED_KIMG:g} kimg to a KID in HOG "
        f"of {NEEDED_KID} (docs/generator-benchmark.md). --kimg {NEEDED_KIMG:g} shows as many"
    )


def label_of_class(flag: str) -> int:
    """Return 1 for pneumonia, 0 for the two classes without it."""
    return int(flag == CLASS_FLAGS[0])


@dataclass(frozen=True)
class GANOptions:
    """How networks, losses and optimizers work.

    ``r1``, ``r2``: gamma of the penalties gamma/2 * E||grad D||^2 on reals and on fakes, taken every
    ``reg_every`` steps, times ``reg_every``. ``label_smoothing``: 1 minus D's target for reals, for bce.
    ``ema_kimg``: half-life of G's average in thousands of images, at most 5 % of those seen; None: 312.5
    batches. ``lr_d`` None: the learning rate of G. ``conditional``: G and D take a class.
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
        """Return plain types for checkpoints and result files; ``GANOptions(**d)`` brings them back."""
        return asdict(self)

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty on D's gradient at single images."""
        return self.r1 > 0 or self.r2 > 0 or self.adversarial_loss == "wgan-gp"

    def takes_penalty(self, step: int) -> bool:
        """Return whether ``step`` (from 0) takes the penalty."""
        return self.penalised and step % self.reg_every == 0

    @property
    def n_classes(self) -> int:
        return len(CLASS_NAMES) if self.conditional else 0


@dataclass(frozen=True)
class ImageChoice:
    """Which images a GAN learns from, and how they are decoded.

    ``classes``: "positive" or "all". ``metrics_holdout``: share of the images, by patient, that is set aside.
    """

    data_dir: str
    splits: str | None
    patient_map: str | None
    patient_column: str | None
    skip_bad_images: bool
    bits: int | None
    cache_dir: str
    no_cache: bool
    train_fraction: float
    fold: int | None
    k_folds: int | None
    classes: str
    conditional: bool
    metrics_features: str | None
    metrics_holdout: float
    image_size: int
    workers: int

    @property
    def cache(self) -> str | None:
        """Cache folder, None for no cache."""
        return cache_folder(self.no_cache, self.cache_dir)

    @property
    def label(self) -> int | None:
        """Label of the images to learn from; None for all."""
        return 1 if self.classes == POSITIVE else None


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of G's loss, whether the perceptual one is wanted ("auto", "on", "off"), and its network."""

    lambda_adv: float
    lambda_perceptual: float
    lambda_fm: float
    perceptual: str
    perceptual_network: str

    @property
    def want_perceptual(self) -> bool:
        return self.perceptual != "off" and self.lambda_perceptual > 0


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when to save: intervals in steps (grids) and epochs (checkpoints).

    ``batch_size`` counts the images of all processes. ``kimg``: thousands of images to show, instead of
    ``epochs``. ``max_minutes``: the epoch in which so much time is used up is the last for now.
    """

    epochs: int
    kimg: float | None
    batch_size: int
    save_interval: int
    checkpoint_interval: int
    max_minutes: float | None

    def fitted(self, n_images: int, batch_size: int) -> Schedule:
        """Return the schedule for ``n_images`` in batches of ``batch_size``, with ``kimg`` made epochs.

        An epoch leaves out an incomplete batch, and epochs are whole.
        """
        epochs = self.epochs
        if self.kimg is not None:
            epochs = math.ceil(self.kimg * 1000 / (n_images // batch_size * batch_size))
        return replace(self, epochs=epochs, kimg=None, batch_size=batch_size)

    def images_shown(self, n_images: int) -> int:
        """Return how many of ``n_images`` a ``fitted`` schedule shows, counted each time."""
        return self.epochs * (n_images // self.batch_size) * self.batch_size


@dataclass(frozen=True)
class Folders:
    """Where the files of a run go; a GAN that never saw fold ``fold`` has names of its own."""

    model_dir: str
    output_dir: str
    results_dir: str
    figures_dir: str
    fold: int | None

    @property
    def state(self) -> Path:
        return paths.gan_state(self.model_dir, self.fold)

    @property
    def generator_best(self) -> Path:
        return paths.generator_best(self.model_dir, self.fold)

    def networks(self, epoch: int | None = None) -> tuple[Path, Path]:
        """Return the files of G and D after ``epoch``; None: the final ones."""
        models, fold = self.model_dir, self.fold
        if epoch is None:
            return paths.generator_final(models, fold), paths.discriminator_final(models, fold)
        return paths.generator_epoch(models, epoch, fold), paths.discriminator_epoch(models, epoch, fold)

    @property
    def history(self) -> Path:
        return paths.gan_history(self.results_dir, self.fold)

    @property
    def stats(self) -> Path:
        return paths.gan_stats(self.results_dir, self.fold)

    @property
    def loss_figure(self) -> Path:
        return paths.gan_loss_figure(self.figures_dir, self.fold)

    @property
    def quality_figure(self) -> Path:
        return paths.gan_quality_figure(self.figures_dir, self.fold)


@dataclass(frozen=True)
class Watching:
    """How a run is watched.

    ``metrics_interval``: epochs between evaluations; None means as often as the time allows, 0 never.
    ``metrics_images``: number of images generated for an evaluation. ``metrics_features``: file of a
    classifier, or ``LITE0``. ``vis_batch_size``: number of images in a grid.
    """

    metrics_interval: int | None
    metrics_images: int
    metrics_features: str | None
    cache_dir: str
    no_cache: bool
    stop_on_collapse: bool
    tensorboard: bool
    vis_batch_size: int
    no_real_images: bool

    @property
    def cache(self) -> str | None:
        """Cache folder, None for no cache."""
        return cache_folder(self.no_cache, self.cache_dir)


@dataclass(frozen=True)
class Settings:
    """All that train_gan.py was told; ``values``: every option of its table by name, presets filled in."""

    values: Mapping[str, Any]
    gan: GANOptions
    images: ImageChoice
    losses: LossWeights
    schedule: Schedule
    folders: Folders
    watching: Watching
    num_channels: int
    latent_dim: int
    feature_maps_g: int
    feature_maps_d: int
    lr: float
    beta1: float
    seed: int
    precision: str
    compile: bool
    cpu: bool
    resume: str | None


GROUPS: dict[str, type] = {
    "gan": GANOptions, "images": ImageChoice, "losses": LossWeights, "schedule": Schedule,
    "folders": Folders, "watching": Watching,
}  # fmt: skip


def group_values(values: Mapping[str, Any]) -> Settings:
    """Group the ``values`` of all options (name -> value, presets filled in)."""
    groups: dict[str, Any] = {name: _pick(kind, values) for name, kind in GROUPS.items()}
    single = [field.name for field in fields(Settings) if field.name not in (*GROUPS, "values")]
    return Settings(values=dict(values), **groups, **{name: values[name] for name in single})


def _pick(kind: type[Group], values: Mapping[str, Any]) -> Group:
    """Build ``kind``, a dataclass, of the values that are named like its fields."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # it is a dataclass
    return kind(**{name: values[name] for name in names})


@dataclass(frozen=True)
class Plan:
    """One run as it was decided: settings, fitted to images and machine.

    ``fixed``: what must be the same when the run is continued, by flag. ``config``, ``environment``: as in
    result files. ``perceptual``: "on", "off" or "unavailable". ``named_files``: the experiment file and the
    plan of the comparison, as in result files.
    """

    schedule: Schedule
    folders: Folders
    watching: Watching
    gan: GANOptions
    seed: int
    precision: str
    perceptual: str
    fixed: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any]
    named_files: NamedFiles
