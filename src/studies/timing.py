"""How long a study will take: a few seconds' real work of each kind on this machine, multiplied.

The work is measured in a process of its own, so that its memory is free again before training begins.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arms.registry import ARMS, Synthetic
from common.command_line import ArgumentParser, number
from gan.flags import add_model_arguments, add_training_arguments
from gan.options import GANOptions, add_gan_options, options_of, resolve
from studies.plan import GAN, Part, arm_step_name
from studies.steps import GENERATION, Step
from utils import UserError

if TYPE_CHECKING:
    from argparse import Namespace

    import torch

    from gan.generation import ImageMaker

LEAST_SECONDS, MOST_SECONDS = 2.0, 8.0  # of each kind of work
WARM_UP, LEAST_CALLS = 2, 3  # calls that are not counted, and that are
SCRIPT_SECONDS = 12.0  # for imports, metadata and results of a script, by experience
GENERATED_BATCH, GENERATED_WORKERS = 64, 4  # the defaults of generate_synthetic.py
MOST_STEPS = 64  # of a GAN, timed in one call: what is rarer hardly counts
MODEL_BYTES = 94e6  # of a ResNet-50


@dataclass(frozen=True)
class Workload:
    """What the options of the scripts say about the size of their work."""

    image_size: int
    cpu: bool
    precision: str
    batch_size: int
    frozen: bool
    augment: str
    gan_precision: str
    gan_batch_size: int
    num_channels: int
    latent_dim: int
    feature_maps: tuple[int, int]
    perceptual: bool
    gan_options: GANOptions
    views: int = 1

    @property
    def cached(self) -> bool:
        """Are the frozen backbone's features computed once, so that steps cost next to nothing?"""
        return self.frozen and self.augment == "none"


@dataclass(frozen=True)
class Speeds:
    """Seconds: of an optimiser step of the classifier, of its prediction per image (of features, where these
    are computed once), of a step of the GAN per image, of generating and writing and of decoding an image."""

    step: float
    prediction: float
    gan: float
    generation: float
    decoding: float


def workload(image_size: int, cpu: bool, classifier_args: Sequence[str], gan_args: Sequence[str]) -> Workload:
    """From the options that are passed on, with the scripts' own defaults; exit code 2 if one of their
    numbers is not allowed there."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=number(int, 2), default=32)
    parser.add_argument("--unfreeze", action="store_true")
    parser.add_argument("--augment", default="none")
    parser.add_argument("--feature-views", type=number(int, 1), default=1)
    of_classifier, _ = parser.parse_known_args(list(classifier_args))
    of_gan = _of_gan(gan_args)
    return Workload(
        image_size,
        cpu,
        precision=of_classifier.precision,
        batch_size=of_classifier.batch_size,
        frozen=not of_classifier.unfreeze,
        augment=of_classifier.augment if of_classifier.feature_views == 1 else "none",
        gan_options=options_of(of_gan),
        gan_precision=of_gan.precision,
        gan_batch_size=of_gan.batch_size,
        num_channels=of_gan.num_channels,
        latent_dim=of_gan.latent_dim,
        feature_maps=(of_gan.feature_maps_g, of_gan.feature_maps_d),
        perceptual=of_gan.perceptual != "off",
        views=of_classifier.feature_views,
    )


def _of_gan(gan_args: Sequence[str]) -> Namespace:
    """What train_gan.py makes of these options, its preset's values included."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    add_model_arguments(parser)
    add_training_arguments(parser)
    add_gan_options(parser)
    args, _ = parser.parse_known_args(list(gan_args))
    try:
        resolve(args)
    except UserError as error:
        parser.error(str(error))
    return args


# --- measuring -------------------------------------------------------------------------------------
def measure(work: Workload, images: Sequence[Path]) -> Speeds:
    """Time each kind of work in a process of its own; ``images``: a few to decode."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure_here, work, images).result()


def measure_here(work: Workload, images: Sequence[Path]) -> Speeds:
    from utils import select_device

    device = select_device(work.cpu)
    step, prediction = classifier_seconds(work, device)
    gan, generation = _gan_seconds(work, device)
    return Speeds(step, prediction, gan, generation, decoding_seconds(images, work.image_size))


def decoding_seconds(images: Sequence[Path], image_size: int) -> float:
    """Of an image, by as many threads as the scripts take."""
    from dataset.image_reader import read_image

    start = time.perf_counter()
    for image in images:
        with contextlib.suppress(OSError):  # the run itself will say so
            read_image(image, image_size)
    return (time.perf_counter() - start) / max(1, len(images)) / min(4, os.cpu_count() or 1)


def seconds_of_call(call: Callable[[], object], device: torch.device, negligible: float = 0.0) -> float:
    """The fastest of the calls, least disturbed by what else the machine does, after those that warm up.

    There are ``LEAST_CALLS`` or more, which fill ``LEAST_SECONDS``; fewer if they fill ``MOST_SECONDS``; one
    if that takes no longer than is ``negligible``.
    """
    import torch

    times: list[float] = []
    while len(times) <= WARM_UP or (
        sum(times) < MOST_SECONDS and (len(times) < WARM_UP + LEAST_CALLS or sum(times) < LEAST_SECONDS)
    ):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if times[0] <= negligible:
            return times[0]
    return min(times[WARM_UP:])


def classifier_seconds(work: Workload, device: torch.device, negligible: float = 0.0) -> tuple[float, float]:
    """(of a step, of a prediction per image). With features computed once: (0, of those of an image); a step
    on them is not worth timing.

    What takes no longer than ``negligible`` is not timed closer.
    """
    import numpy as np
    import torch

    from arms.fitting import train_one_epoch
    from classifier import FeatureExtractor, InputPipeline, build_classifier, predict_batches
    from utils import resolve_precision

    precision, size = resolve_precision(work.precision, device), work.batch_size
    generator = torch.Generator().manual_seed(0)

    def noise(n: int) -> torch.Tensor:
        shape = (n, work.image_size, work.image_size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    model = build_classifier("none", work.frozen)
    if work.cached:
        extract = FeatureExtractor(model, device, precision)
        some = noise(extract.batch_size).numpy()
        return 0.0, seconds_of_call(lambda: extract(some), device, negligible) / len(some)
    model = model.to(device, memory_format=torch.channels_last)
    data, rows = InputPipeline(noise(size).to(device), work.augment), np.arange(size)
    labels = (torch.arange(size) % 2).float().to(device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)
    model.train()
    step = seconds_of_call(
        lambda: train_one_epoch(
            model, data, labels, rows[None], optimizer, None, precision=precision, seed=0
        ),
        device,
        negligible,
    )
    model.eval()
    predict = seconds_of_call(
        lambda: predict_batches(model, data, rows, batch_size=size, precision=precision), device, negligible
    )
    return step, predict / size


def steps_to_time(options: GANOptions, perceptual_every: int = 1) -> int:
    """How many steps of a GAN in turn show what a step takes on average: some are dearer by a penalty or by
    the perceptual loss, and come every so many steps."""
    penalty_every = options.reg_every if options.penalised else 1
    return min(math.lcm(penalty_every, perceptual_every), MOST_STEPS)


def _gan_seconds(work: Workload, device: torch.device) -> tuple[float, float]:
    """Per image: (of a step, without a perceptual loss; of generating and writing)."""
    import torch

    from gan.generation import ImageMaker
    from gan.training import Objective, build_gan, step_noise, train_step
    from utils import resolve_precision

    precision, size = resolve_precision(work.gan_precision, device), work.gan_batch_size
    sizes = (work.image_size, work.num_channels, work.latent_dim, work.feature_maps)
    gan = build_gan(*sizes, 2e-4, 0.5, 0, device, work.gan_options)
    real = torch.randn(size, work.num_channels, work.image_size, work.image_size, device=device).clamp(-1, 1)
    z = step_noise(0, 0, size, gan.G.input_dim).to(device)
    classes = work.gan_options.n_classes
    labels = torch.arange(size, device=device) % classes if classes else None
    objective = Objective(1.0, 0.0, 1.0, None, 1)
    steps = steps_to_time(work.gan_options)

    def call() -> None:
        for _ in range(steps):
            train_step(gan, real, z, objective, precision, labels)

    step = seconds_of_call(call, device) / steps
    make = ImageMaker(gan.G_ema, 0, device, label=0 if classes else None)
    return step / size, generation_seconds(make, GENERATED_BATCH, GENERATED_BATCH, GENERATED_WORKERS)


def generation_seconds(make: ImageMaker, n_images: int, batch_size: int, workers: int) -> float:
    """Of generating and writing an image, from ``n_images`` in a folder that goes again."""
    from gan.generation import write_images

    make([1])  # the first is slower
    some = range(1, n_images + 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_images(Path(folder), some, make, batch_size=batch_size, workers=workers)
        return (time.perf_counter() - start) / n_images


# --- multiplying -----------------------------------------------------------------------------------
def seconds_of_all(
    due: Sequence[tuple[Part, Step]], work: Workload, speeds: Speeds, *, n_scored: int, repeats: int,
    k_folds: int, kimg: float, cache: bool, known: int = 0,
) -> list[float]:  # fmt: skip
    """Of each step that is ``due``, in turn, from few to many patients; ``n_scored``: test images, unlabelled
    ones included.

    With ``cache`` real images are decoded, and their features computed, once: small fractions lie within
    larger ones. ``known``: training images of the largest fraction that an arm was trained on before.
    """
    seconds = []
    for part, step in due:
        new = (part.n_images - min(known, part.n_images), 0 if known else n_scored) if cache else None
        sizes = {"n_scored": n_scored, "repeats": repeats, "k_folds": k_folds, "kimg": kimg, "new": new}
        seconds.append(seconds_of(step, part, work, speeds, **sizes))
        if step.name not in (GAN, GENERATION):
            known = max(known, part.n_images)
    return seconds


def seconds_of(
    step: Step, part: Part, work: Workload, speeds: Speeds, *, n_scored: int, repeats: int, k_folds: int,
    kimg: float, new: tuple[int, int] | None = None,
) -> float:  # fmt: skip
    """About how long a step of the study takes; ``n_scored``: test images, unlabelled ones included; ``new``:
    how many real (training, scored) images no step before had decoded (default: all)."""
    new_real, new_scored = new or (part.n_images, n_scored)
    if step.name == GAN:
        # Its images are about as positive as all that are new.
        positive = part.n_positive * new_real / part.n_images
        return SCRIPT_SECONDS + positive * speeds.decoding + 1000 * kimg * speeds.gan
    if step.name == GENERATION:
        return SCRIPT_SECONDS + part.n_synthetic * speeds.generation
    # Controls only count the synthetic images.
    shown = {arm_step_name(arm) for arm, kind in ARMS.items() if kind.synthetic is Synthetic.TRAINED_ON}
    synthetic = part.n_synthetic if step.name in shown else 0
    decoded = new_real + synthetic + new_scored
    return SCRIPT_SECONDS + decoded * speeds.decoding + training_seconds(
        work, speeds, n_images=work.views * (new_real + synthetic) + new_scored, n_real=part.n_images,
        n_scored=n_scored, steps=part.steps, epochs=part.epochs, final_steps=part.steps, repeats=repeats,
        k_folds=k_folds,
    )  # fmt: skip


def training_seconds(
    work: Workload, speeds: Speeds, *, n_images: int, n_real: int, n_scored: int, steps: int, epochs: int,
    final_steps: int, repeats: int, k_folds: int,
) -> float:  # fmt: skip
    """Of an arm: folds of ``steps`` in ``epochs`` passes over ``n_real`` images, final models, predictions.

    ``n_images``: all whose features have to be computed, each as often as it has views.
    """
    if work.cached:
        return n_images * speeds.prediction
    seconds = repeats * (final_steps * speeds.step + n_scored * speeds.prediction)
    # Of k folds each trains on all parts but one, and predicts that after every epoch.
    of_folds = (k_folds - 1) * steps * speeds.step + epochs * n_real * speeds.prediction
    return seconds + (of_folds if k_folds else 0.0)


def describe_speeds(work: Workload, speeds: Speeds) -> str:
    """What an estimate rests on."""
    rates = [f"GAN {1 / speeds.gan:,.0f}"]
    if not work.cached:
        rates.insert(0, f"classifier {work.batch_size / speeds.step:,.0f}")
    text = f"(from training images a second, measured just now: {', '.join(rates)}"
    if work.perceptual:
        text += "; the GAN's perceptual loss is not counted"
    cores = os.cpu_count() or 1
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > cores / 2:
        text += f"; this machine is busy, load {load:.1f} on {cores} cores, and faster when it is not"
    return text + ")"


def disk_bytes(n_arms: int, n_parts: int, repeats: int) -> float:
    """Of the classifiers that stay: one per repeat, and the arm's own."""
    return MODEL_BYTES * n_arms * n_parts * (repeats + 1 if repeats > 1 else 1)
