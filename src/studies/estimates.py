"""How long one run of a script will take, from a little of its work on this machine, and what shortens it.

The classifier's and the GAN's steps are timed by ``study_timing``, which estimates a whole study. Of several
processes (see ``distributed``) only one measures, what its share of each step takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from common import distributed
from common.progress import WORTH_SAYING, duration_in_words
from studies.timing import (
    SCRIPT_SECONDS,
    Speeds,
    Workload,
    classifier_seconds,
    decoding_seconds,
    generation_seconds,
    seconds_of_call,
    steps_to_time,
    training_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from gan.generation import ImageMaker
    from gan.training import GAN, Objective

WORTH_OFFERING = 0.9  # of the run's time, at most, must remain if a flag is to be named
MOST_OFFERS = 3
IMAGES_TO_DECODE = 8


def describe(seconds: float, basis: str, shorter: Mapping[str, float]) -> str:
    """The line that a script prints; ``shorter``: seconds with a flag added or changed, by that flag."""
    offers = sorted((time, flag) for flag, time in shorter.items() if time <= WORTH_OFFERING * seconds)
    text = f"ABOUT {duration_in_words(seconds)} ({basis}, measured just now)"
    if offers:
        text += "; shorter: " + ", ".join(
            f"{flag} {duration_in_words(time)}" for time, flag in offers[:MOST_OFFERS]
        )
    return text


# --- classifier ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ArmSize:
    """How much a run of train_classifier.py has to do.

    ``n_scored``: images that are predicted only; ``n_undecoded``: of all, not in the cache; ``epochs_final``:
    None if it is found while training, which then takes at most ``epochs``.
    """

    n_real: int
    n_synthetic: int
    n_scored: int
    n_undecoded: int
    epochs: int
    epochs_final: int | None
    repeats: int
    k_folds: int

    def training(self, work: Workload, speeds: Speeds) -> float:
        """Seconds of training and prediction, decoding and imports left out."""
        per_epoch = math.ceil(self.n_real / work.batch_size)
        steps = self.epochs * per_epoch
        seconds = training_seconds(
            work, speeds,
            n_images=self.n_real + self.n_synthetic + self.n_scored, n_real=self.n_real,
            n_scored=self.n_scored, steps=steps, epochs=self.epochs,
            final_steps=(self.epochs_final or self.epochs) * per_epoch,
            repeats=self.repeats, k_folds=self.k_folds,
        )  # fmt: skip
        if not self.k_folds and self.epochs_final is None and not work.cached:
            # The epochs are found on a tenth of the images, after training on the others.
            seconds += 0.9 * steps * speeds.step + 0.1 * self.epochs * self.n_real * speeds.prediction
        return seconds

    def whole(self, work: Workload, speeds: Speeds) -> float:
        return SCRIPT_SECONDS + self.n_undecoded * speeds.decoding + self.training(work, speeds)


def describe_arm(
    size: ArmSize, work: Workload, speeds: Speeds, seconds_of: Callable[[ArmSize, Workload, Speeds], float]
) -> str:
    """The line about a run of train_classifier.py; ``seconds_of``: ``ArmSize.whole`` or ``.training``."""
    seconds = seconds_of(size, work, speeds)
    # Convolutions cost as many operations as there are pixels.
    quarter = replace(speeds, step=speeds.step / 4, prediction=speeds.prediction / 4)
    shorter = {f"--image-size {work.image_size // 2}": seconds_of(size, work, quarter)}
    if size.k_folds:
        shorter["--k-folds 0"] = seconds_of(replace(size, k_folds=0), work, speeds)
    if size.repeats > 1:
        shorter["--repeats 1"] = seconds_of(replace(size, repeats=1), work, speeds)
    if size.epochs > 1:
        half = replace(size, epochs=size.epochs // 2)
        shorter[f"--epochs {half.epochs}"] = seconds_of(half, work, speeds)
    if work.cached:
        basis = f"features of {1 / speeds.prediction:,.0f} images/s; those in the cache cost nothing"
    else:
        trained, predicted = work.batch_size / speeds.step, 1 / speeds.prediction
        basis = f"{trained:,.0f} images/s trained on, {predicted:,.0f} predicted"
    return describe(seconds, basis, shorter)


def shared_seconds(work: Workload, device: torch.device, negligible: float = 0.0) -> tuple[float, float]:
    """``classifier_seconds`` of all processes together, from this one's share of the work."""
    processes = distributed.process_count()
    share = replace(work, batch_size=max(1, work.batch_size // processes))
    with distributed.single_process():
        step, prediction = classifier_seconds(share, device, negligible)
    return step, prediction / processes


def estimate_arm(size: ArmSize, work: Workload, device: torch.device, images: Sequence[Path]) -> str:
    """For --estimate: the whole run, decoding of images that the cache lacks included."""
    step, prediction = shared_seconds(work, device)
    decoding = decoding_seconds(images[:IMAGES_TO_DECODE], work.image_size)
    return describe_arm(size, work, Speeds(step, prediction, 0.0, 0.0, decoding), ArmSize.whole)


def foresee_arm(size: ArmSize, work: Workload, device: torch.device) -> str | None:
    """What a run says before it trains, its images being decoded; None if it is short."""
    # One call of each kind is enough to know that a run is short.
    most_calls = size.training(work, Speeds(1.0, 1 / work.batch_size, 0.0, 0.0, 0.0))
    step, prediction = shared_seconds(work, device, negligible=WORTH_SAYING / max(1.0, most_calls))
    speeds = Speeds(step, prediction, 0.0, 0.0, 0.0)
    if size.training(work, speeds) < WORTH_SAYING:
        return None
    return describe_arm(size, work, speeds, ArmSize.training)


# --- GAN -------------------------------------------------------------------------------------------
def gan_hint(image_size: int, perceptual: bool) -> str:
    """Which flags make a training of the GAN shorter."""
    flags = ["--epochs or --kimg", *(["--perceptual off"] if perceptual else [])]
    if image_size >= 64:
        flags.append("a smaller --image-size")
    return f"shorter with {', '.join(flags)}"


def gan_seconds(
    gan: GAN, build_objective: Callable[[torch.Tensor], Objective], batch_size: int, precision: str
) -> tuple[float, float, float | None]:
    """Seconds: (per image before the first step, of a step, of one without perceptual loss, None if it is).

    ``build_objective`` makes the losses for training images uint8 [N, S, S]; here they are noise. A step is
    one of all processes, each with its share of ``batch_size``.
    """
    share = batch_size // distributed.process_count()
    with distributed.single_process():
        return _gan_seconds(gan, build_objective, share, precision)


def _gan_seconds(
    gan: GAN, build_objective: Callable[[torch.Tensor], Objective], batch_size: int, precision: str
) -> tuple[float, float, float | None]:
    import torch

    from data_loader import to_gan_range
    from gan.training import step_noise, train_step

    device, size = next(gan.G.parameters()).device, gan.G.image_size
    pixels = torch.randint(0, 256, (batch_size, size, size), dtype=torch.uint8).to(device)
    start = time.perf_counter()
    objective = build_objective(pixels)
    per_image = (time.perf_counter() - start) / batch_size
    real = to_gan_range(pixels, gan.G.num_channels)
    z = step_noise(0, 0, batch_size, gan.G.input_dim).to(device)
    classes = gan.options.n_classes
    labels = torch.arange(batch_size, device=device) % classes if classes else None

    def seconds(objective: Objective) -> float:
        every = objective.perceptual_every if objective.perceptual_loss is not None else 1
        steps = steps_to_time(gan.options, every)

        def call() -> None:
            for _ in range(steps):
                train_step(gan, real, z, objective, precision, labels)

        return seconds_of_call(call, device) / steps

    if objective.perceptual_loss is None:
        return 0.0, seconds(objective), None
    return per_image, seconds(objective), seconds(replace(objective, perceptual_loss=None))


def describe_gan(
    fixed: float, steps: int, step: float, plain_step: float | None, *, batch_size: int, image_size: int,
    epochs: int,
) -> str:  # fmt: skip
    """``fixed``: seconds before the first step; ``step``: of one, ``plain_step`` without the perceptual loss
    (None: it has none)."""
    shorter = {}
    if epochs > 1:
        shorter[f"--epochs {epochs // 2}"] = fixed + steps * step * (epochs // 2) / epochs
    if plain_step is not None:
        shorter["--perceptual off"] = fixed + steps * plain_step
    if image_size in (64, 128, 224, 256):
        shorter[f"--image-size {image_size // 2}"] = fixed + steps * step / 4
    basis = f"{steps:,} steps of {step:.2g} s, {batch_size / step:,.0f} images/s"
    return describe(fixed + steps * step, basis, shorter)


# --- generated images ------------------------------------------------------------------------------
def estimate_generation(make: ImageMaker, n_images: int, batch_size: int, workers: int) -> str:
    """For --estimate: generating and writing ``n_images``, from two batches in a folder that goes again."""
    if not n_images:
        return "all images are there already"
    seconds = generation_seconds(make, min(n_images, 2 * batch_size), batch_size, workers)
    shorter = {f"--num-images {n_images // 2}": SCRIPT_SECONDS + n_images // 2 * seconds}
    return describe(SCRIPT_SECONDS + n_images * seconds, f"{1 / seconds:,.0f} images/s", shorter)
