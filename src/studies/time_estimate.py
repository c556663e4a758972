"""Estimates of time: a few steps of the work are timed on this machine, and multiplied.

A script describes its work (``ClassifierWork``, ``GANWork``) and prints ``estimate_...``; the low-data study
adds up ``study_seconds``. Of several processes (torchrun) one alone measures, with its share of a batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arms.options import features_computed_once
from arms.registry import steps_per_epoch
from common import distributed
from common.progress import duration_in_words
from gan.settings import NEEDED_KIMG, in_kimg
from networks.backbones import DEFAULT
from utils import usable_cores

if TYPE_CHECKING:
    import torch

    from gan.generation import ImageMaker
    from gan.settings import Settings
    from studies.plan import Part
    from studies.steps import Step

PROBE_SECONDS = 2.0  # at least, of each kind of work; one call if that takes longer
ASKING_SECONDS = 0.5  # for which all cores are asked for, to see how many are free
BUSY = 0.85  # with less than this share of the cores, the machine is called busy
SCRIPT_SECONDS = 12.0  # of a script for imports, metadata and results, by experience
HEAD_SECONDS = 2e-5  # of a step on computed features, per image, by experience with 26,684 images
IMAGES_TO_DECODE = 8
GENERATED_BATCH, GENERATED_WORKERS = 64, 4  # the defaults of generate_synthetic.py
LONGEST_CYCLE = 64  # steps of a GAN that are timed together: what is rarer hardly counts
WORTH_OFFERING = 0.9  # an option is offered if at most this share of the time remains with it
MOST_OFFERS = 3


# --- how much work ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Speeds:
    """Seconds of each kind of work, per image but for ``step``."""

    step: float = 0.0  # of the classifier's optimiser
    prediction: float = 0.0  # or features, where they are computed once
    gan: float = 0.0  # a training step, per image
    generation: float = 0.0  # and writing
    decoding: float = 0.0


@dataclass(frozen=True)
class ClassifierWork:
    """What a run of train_classifier.py has to do.

    ``epochs_final`` None: found while training, at most ``epochs``. ``n_scored``: images that are predicted
    only; ``n_undecoded``: images that are not in the cache; ``n_features``: features to compute where that
    happens once, one for each view of an image.
    """

    image_size: int
    batch_size: int
    precision: str
    frozen: bool
    augment: str
    views: int
    backbone: str = DEFAULT
    epochs: int = 1
    epochs_final: int | None = None
    repeats: int = 1
    k_folds: int = 0
    n_real: int = 0
    n_scored: int = 0
    n_undecoded: int = 0
    n_features: int = 0

    @classmethod
    def from_options(cls, options: Mapping[str, Any], **counts: int) -> ClassifierWork:
        """Take the options of train_classifier.py (name -> value); ``counts``: the fields n_..."""
        values: dict[str, Any] = {f.name: options[f.name] for f in fields(cls) if f.name in options}
        values |= {"frozen": not options["unfreeze"], "views": options["feature_views"], **counts}
        return cls(**values)

    @property
    def features_once(self) -> bool:
        """Whether steps cost next to nothing, because features are computed once."""
        return features_computed_once(self.frozen, self.augment, self.views)

    @property
    def search(self) -> tuple[float, float]:
        """Shares of the images that the folds, or the search for the epochs, train on and validate."""
        if self.k_folds:
            return self.k_folds - 1.0, 1.0
        return (0.9, 0.1) if self.epochs_final is None else (0.0, 0.0)

    @property
    def n_steps(self) -> int:
        """Optimiser steps of the whole run."""
        epochs = self.search[0] * self.epochs + self.repeats * (self.epochs_final or self.epochs)
        return round(epochs * steps_per_epoch(self.n_real, self.batch_size))

    def seconds(self, speeds: Speeds) -> float:
        """Return the seconds that the run takes at these ``speeds``."""
        start = SCRIPT_SECONDS + self.n_undecoded * speeds.decoding
        if self.features_once:
            return start + self.n_features * speeds.prediction + self.n_steps * self.batch_size * HEAD_SECONDS
        predicted = self.search[1] * self.epochs * self.n_real + self.repeats * self.n_scored
        return start + self.n_steps * speeds.step + predicted * speeds.prediction


@dataclass(frozen=True)
class GANWork:
    """What a run of train_gan.py has to do.

    ``epoch_images``: images shown in an epoch; ``n_undecoded``: images that are not in the cache.
    """

    settings: Settings
    epochs: int = 1
    epoch_images: float = 0
    n_undecoded: int = 0

    def seconds(self, speeds: Speeds) -> float:
        """Return the seconds that the run takes at these ``speeds``."""
        start = SCRIPT_SECONDS + self.n_undecoded * speeds.decoding
        return start + self.epochs * self.epoch_images * speeds.gan


# --- timing ----------------------------------------------------------------------------------------
def seconds_per_call(call: Callable[[], object], device: torch.device) -> float:
    """Time ``call`` again and again for ``PROBE_SECONDS``; the first, slower one is not counted."""
    import torch

    start, calls = 0.0, -1
    while calls < 1 or time.perf_counter() - start < PROBE_SECONDS:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        calls += 1
        start = start or time.perf_counter()
    return (time.perf_counter() - start) / calls


def share_of_cores() -> float:
    """Return the share of the usable cores that this process gets while it asks for all of them, in (0, 1]."""

    def ask(_: int) -> float:
        start, end = time.thread_time(), time.perf_counter() + ASKING_SECONDS
        while time.perf_counter() < end:
            hashlib.sha256(bytes(2**20))  # leaves the interpreter to the other threads
        return time.thread_time() - start

    cores, start = usable_cores(), time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        used = sum(pool.map(ask, range(cores)))
    return min(1.0, used / (cores * (time.perf_counter() - start)))


def busy_words() -> str:
    """Say that other programs slow this machine, and so what is timed now; "" if they do not."""
    share = share_of_cores()
    if share >= BUSY:
        return ""
    return f"; other programs take {100 * (1 - share):.0f} % of the cores now, without them it takes less"


def decoding_seconds(images: Sequence[Path], image_size: int) -> float:
    """Seconds per image if as many threads decode as the scripts take; a few of ``images`` are decoded."""
    from dataset.picture_facts import read_and_measure

    some = images[:IMAGES_TO_DECODE]
    start = time.perf_counter()
    for image in some:
        with contextlib.suppress(OSError):  # the run itself will say so
            read_and_measure(image, image_size)
    return (time.perf_counter() - start) / max(1, len(some)) / min(4, usable_cores())


def classifier_speeds(work: ClassifierWork, device: torch.device) -> Speeds:
    """Time a step and a prediction of all processes together; only features if they are computed once."""
    import numpy as np
    import torch

    from arms.fitting import train_one_epoch
    from classifier import FeatureExtractor, InputPipeline, build_classifier, predict_batches
    from utils import resolve_precision

    processes, precision = distributed.process_count(), resolve_precision(work.precision, device)
    size = max(1, work.batch_size // processes)
    model = build_classifier("none", work.frozen, work.backbone)
    if work.features_once:
        extract = FeatureExtractor(model, device, precision)
        some = _noise(extract.batch_size, work.image_size).numpy()
        return Speeds(prediction=seconds_per_call(lambda: extract(some), device) / len(some) / processes)
    model = model.to(device).to(memory_format=torch.channels_last)
    data = InputPipeline(_noise(size, work.image_size).to(device), work.augment)
    rows = np.arange(size)
    labels = (torch.arange(size) % 2).float().to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)

    def take_step() -> None:
        train_one_epoch(model, data, labels, rows[None], optimizer, precision=precision, seed=0)

    def predict() -> None:
        predict_batches(model, data, rows, batch_size=size, precision=precision)

    with distributed.single_process():
        model.train()
        step = seconds_per_call(take_step, device)
        model.eval()
        return Speeds(step=step, prediction=seconds_per_call(predict, device) / size / processes)


def gan_speeds(settings: Settings, device: torch.device) -> Speeds:
    """Time steps of all processes together, over a cycle: some take a penalty or the perceptual loss too."""
    import torch

    from data_loader import to_gan_range
    from gan.losses import Objective, fit_perceptual_loss, perceptual_every, untrained_perceptual_network
    from gan.networks import gan_as_set
    from gan.step import step_noise, train_step
    from utils import resolve_precision

    precision = resolve_precision(settings.precision, device)
    size = settings.schedule.batch_size // distributed.process_count()
    pixels = _noise(size, settings.images.image_size).to(device)
    weights, loss, every = settings.losses, None, 1
    if weights.want_perceptual:
        every = perceptual_every(device)
        network = untrained_perceptual_network(weights.perceptual_network).to(device)
        loss = fit_perceptual_loss(network, pixels, settings.num_channels, precision)
    objective = Objective(weights.lambda_adv, weights.lambda_perceptual, weights.lambda_fm, loss, every)
    gan = gan_as_set(settings, device)
    real = to_gan_range(pixels, settings.num_channels)
    z = step_noise(0, 0, size, gan.G.input_dim).to(device)
    classes = settings.gan.n_classes
    labels = torch.arange(size, device=device) % classes if classes else None
    penalty_every = settings.gan.reg_every if settings.gan.penalised else 1
    steps = min(math.lcm(penalty_every, every), LONGEST_CYCLE)

    def take_steps() -> None:
        for _ in range(steps):
            train_step(gan, real, z, objective, precision, labels)

    with distributed.single_process():
        return Speeds(gan=seconds_per_call(take_steps, device) / steps / settings.schedule.batch_size)


def _noise(n: int, side: int) -> torch.Tensor:
    import torch

    return torch.randint(0, 256, (n, side, side), dtype=torch.uint8)


def generation_seconds(make: ImageMaker, n_images: int, batch_size: int, workers: int) -> float:
    """Return the seconds per generated and written image; ``n_images`` are written to a temporary folder."""
    from gan.generation import write_images

    make([1])  # the first is slower
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_images(Path(folder), range(1, n_images + 1), make, batch_size=batch_size, workers=workers)
        return (time.perf_counter() - start) / n_images


# --- what a script prints --------------------------------------------------------------------------
def estimate_classifier(work: ClassifierWork, images: Sequence[Path], device: torch.device) -> str:
    """Say how long the run takes and what is quicker; ``images``: training images, a few are decoded."""
    speeds = replace(classifier_speeds(work, device), decoding=decoding_seconds(images, work.image_size))
    # Convolutions take as many operations as there are pixels.
    quarter = replace(speeds, step=speeds.step / 4, prediction=speeds.prediction / 4)
    half = max(1, work.epochs // 2)
    shorter = {
        "--k-folds 0": replace(work, k_folds=0).seconds(speeds),
        "--repeats 1": replace(work, repeats=1).seconds(speeds),
        f"--epochs {half}": replace(work, epochs=half).seconds(speeds),
    }
    if work.image_size >= 64:  # half of less is not allowed
        shorter[f"--image-size {work.image_size // 2}"] = work.seconds(quarter)
    if work.features_once:
        basis = f"features of {1 / speeds.prediction:,.0f} images/s; those in the cache cost nothing"
    else:
        trained, predicted = work.batch_size / speeds.step, 1 / speeds.prediction
        basis = f"{trained:,.0f} images/s trained on, {predicted:,.0f} predicted"
    return describe_estimate(work.seconds(speeds), basis, shorter)


def estimate_gan(work: GANWork, images: Sequence[Path], device: torch.device) -> str:
    """Say how long the run takes and what is quicker; ``images``: training images, a few are decoded."""
    settings, side = work.settings, work.settings.images.image_size
    batch_size, losses = settings.schedule.batch_size, settings.losses
    speeds = replace(gan_speeds(settings, device), decoding=decoding_seconds(images, side))
    half = max(1, work.epochs // 2)
    shorter = {f"--epochs {half}": replace(work, epochs=half).seconds(speeds)}
    if side in (64, 128, 224, 256):  # half of others is no size of a GAN
        shorter[f"--image-size {side // 2}"] = work.seconds(replace(speeds, gan=speeds.gan / 4))
    if losses.want_perceptual:
        without = replace(settings, losses=replace(losses, perceptual="off"))
        plain = replace(speeds, gan=gan_speeds(without, device).gan)
        shorter["--perceptual off"] = work.seconds(plain)
    shown, step = work.epochs * work.epoch_images, batch_size * speeds.gan
    basis = f"{shown / batch_size:,.0f} steps of {step:.2g} s, {1 / speeds.gan:,.0f} images/s"
    text = describe_estimate(work.seconds(speeds), basis, shorter)
    if shown >= 1000 * NEEDED_KIMG:
        return text
    longer = work.seconds(speeds) + (1000 * NEEDED_KIMG - shown) * speeds.gan
    return f"{text}; {in_kimg(shown)} are little: --kimg {NEEDED_KIMG:g} {duration_in_words(longer)}"


def estimate_generation(make: ImageMaker, n_images: int, batch_size: int, workers: int) -> str:
    """Say how long generating and writing ``n_images``, those that are missing, takes; two batches are thrown away."""
    if not n_images:
        return "all images are there already"
    seconds = generation_seconds(make, min(n_images, 2 * batch_size), batch_size, workers)
    return describe_estimate(SCRIPT_SECONDS + n_images * seconds, f"{1 / seconds:,.0f} images/s", {})


def describe_estimate(seconds: float, basis: str, shorter: Mapping[str, float]) -> str:
    """Write an estimate in a line; ``shorter``: option -> seconds of the run with it."""
    offers = sorted((less, flag) for flag, less in shorter.items() if less <= WORTH_OFFERING * seconds)
    text = f"ABOUT {duration_in_words(seconds)} ({basis}, measured just now{busy_words()})"
    if offers:
        words = (f"{flag} {duration_in_words(less)}" for less, flag in offers[:MOST_OFFERS])
        text += f"; shorter: {', '.join(words)}"
    return text


# --- the low-data study ----------------------------------------------------------------------------
def study_speeds(classifier: ClassifierWork, gan: Settings | None, images: Sequence[Path], cpu: bool) -> Speeds:
    """Time each kind of work of a study; ``gan`` None: it trains none."""
    from gan.generation import ImageMaker
    from gan.networks import gan_as_set
    from utils import select_device

    device = select_device(cpu)
    decoding = decoding_seconds(images, classifier.image_size)
    speeds = replace(classifier_speeds(classifier, device), decoding=decoding)
    if gan is None:
        return speeds
    label = 0 if gan.gan.n_classes else None
    make = ImageMaker(gan_as_set(gan, device).G_ema, 0, device, label)
    generation = generation_seconds(make, GENERATED_BATCH, GENERATED_BATCH, GENERATED_WORKERS)
    return replace(speeds, gan=gan_speeds(gan, device).gan, generation=generation)


def study_seconds(
    due: Sequence[tuple[Part, Step]], classifier: ClassifierWork, gan: GANWork, speeds: Speeds, *,
    n_scored: int, cached: bool, known: int = 0,
) -> list[float]:  # fmt: skip
    """Return the seconds of each step that is ``due``, from few to many patients.

    ``n_scored``: images that every arm predicts. With a cache (``cached``) real images are decoded, and their
    features computed, once: small fractions lie within larger ones. ``known``: training images of the largest
    fraction that a classifier was trained on before.
    """
    seconds = []
    for part, step in due:
        if step.script == "train_gan":
            seconds.append(replace(gan, n_undecoded=0 if cached else part.n_positive).seconds(speeds))
        elif step.script == "generate_synthetic":
            seconds.append(SCRIPT_SECONDS + part.n_synthetic * speeds.generation)
        else:
            # Controls only count the synthetic images.
            real, made = part.n_images + part.n_unlabelled, part.n_synthetic
            shown = real + (made if "--use-synthetic" in step.options else 0)
            # As many baselines label what has no label as there are training runs.
            soft = min(made, part.n_unlabelled) if {"--soft-labels", "pseudo-labels"} & {*step.options} else 0
            new, scored = shown, n_scored
            if cached and known:
                new, scored = shown - min(known, real), 0
            arm = replace(
                classifier, epochs=part.epochs, epochs_final=part.epochs, n_real=part.n_images,
                n_scored=n_scored + soft, n_undecoded=new + scored, n_features=classifier.views * new + scored,
            )  # fmt: skip
            seconds.append(arm.seconds(speeds))
            known = max(known, real)
    return seconds
