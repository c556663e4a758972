"""What a low-data study trains: fractions of the training patients, equal steps at each, and the commands.

If every fraction were trained for the same number of epochs, a small one would take few optimiser steps, and
the curve would show the length of training as much as the number of patients. So each fraction takes as many
epochs as come closest to the steps of all training images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arms.registry import ARMS, BASELINE, Synthetic
from arms.treatments import steps_per_epoch
from common import paths
from studies.steps import GENERATION, Folders, Step, positives_of
from utils import UserError

if TYPE_CHECKING:
    from dataset.splits import Splits

GAN = "train the GAN"
GAN_CHECKPOINTS = 5  # of a training, for --resume; few images make many short epochs


@dataclass(frozen=True)
class Part:
    """The training images of one fraction of the training patients, and how long they are trained on.

    ``epochs`` passes over them are ``steps`` optimiser steps.
    """

    fraction: float
    n_images: int
    n_patients: int
    n_positive: int
    n_synthetic: int
    epochs: int
    steps: int


def equal_epochs(n_images: int, batch_size: int, steps: int) -> int:
    """The number of epochs, at least 1, whose steps come closest to ``steps``."""
    return max(1, math.floor(steps / steps_per_epoch(n_images, batch_size) + 0.5))


def plan_parts(
    splits: Splits,
    fractions: Sequence[float],
    *,
    epochs: int,
    batch_size: int,
    k_folds: int,
    synthetic_per_real: float,
) -> list[Part]:
    """The parts, from few to many patients; ``epochs`` are those of all training images.

    ``UserError`` naming a fraction that leaves too few patients to train on.
    """
    from dataset.splits import TRAIN, assign_folds, assign_validation_part, reduce_training

    n_all = int((splits.images["role"] == TRAIN).sum())
    wanted = epochs * steps_per_epoch(n_all, batch_size)
    parts = []
    for fraction in sorted(fractions):
        try:
            reduced = reduce_training(splits, fraction)
            # What the classifier will need, so that it does not fail hours later.
            if k_folds:
                assign_folds(reduced, k_folds)
            else:
                assign_validation_part(reduced)
        except UserError as error:
            raise UserError(f"--fractions {fraction:g} is too small: {error}") from None
        images = reduced.images[reduced.images["role"] == TRAIN]
        own_epochs = equal_epochs(len(images), batch_size, wanted)
        parts.append(
            Part(
                fraction,
                n_images=len(images),
                n_patients=int(images["patient"].nunique()),
                n_positive=int(images["label"].sum()),
                n_synthetic=max(1, round(synthetic_per_real * len(images))),
                epochs=own_epochs,
                steps=own_epochs * steps_per_epoch(len(images), batch_size),
            )
        )
    return parts


def folders_of(study_dir: str | Path, data_dir: str | Path, fraction: float) -> Folders:
    """Each fraction has folders of its own below ``study_dir``, for models and synthetic images too."""
    base = paths.study_fraction(study_dir, fraction)
    return Folders(
        Path(data_dir), base / Path(paths.SYNTHETIC_DIR).name, base / Path(paths.MODEL_DIR).name, base
    )


def arm_step_name(arm: str) -> str:
    return f"train {arm}"


def part_steps(
    part: Part,
    folders: Folders,
    arms: Sequence[str],
    *,
    data_options: list[str],
    common: list[str],
    repeats: int,
    k_folds: int,
    kimg: float,
    classifier_args: list[str],
    gan_args: list[str],
    cache: list[str],
    cpu: bool,
    seed: int,
) -> list[Step]:
    """The commands of one fraction: the baseline, then the GAN and its images if an arm needs them (the
    controls take their number from these), then the other arms.

    ``common``: options of classifier and GAN alike; ``kimg``: thousands of images shown to the GAN;
    ``cache``: what both are told about their cache.
    """
    data = ["--data-dir", str(folders.data), *data_options, "--train-fraction", f"{part.fraction:g}"]
    epochs = ["--epochs", str(part.epochs), "--epochs-final", str(part.epochs)]
    own = [*data, "--model-dir", str(folders.models), "--results-dir", str(folders.metrics),
           "--figures-dir", str(folders.figures), *epochs, "--repeats", str(repeats),
           "--k-folds", str(k_folds), *common, *classifier_args]  # fmt: skip

    def train(arm: str) -> Step:
        kind = ARMS[arm]
        uses_images = kind.synthetic is not Synthetic.UNUSED
        images = ["--synthetic-dir", str(folders.synthetic)] if uses_images else []
        return Step(
            arm_step_name(arm), "train_classifier", [*own, *kind.words_of_command(), *images],
            paths.final_metrics(folders.metrics, kind.prefix),
            resumable=True, needs=(GENERATION,) if uses_images else (), cache=cache,
        )  # fmt: skip

    steps = [train(BASELINE)]
    if any(ARMS[arm].synthetic is not Synthetic.UNUSED for arm in arms):
        generator = paths.generator_final(folders.models)
        interval = math.ceil(kimg * 1000 / part.n_positive / GAN_CHECKPOINTS)
        length = ["--kimg", f"{kimg:g}", "--checkpoint-interval", str(interval)]
        models = ["--model-dir", str(folders.models), "--output-dir", str(folders.output)]
        steps += [
            Step(
                GAN, "train_gan", [*data, *models, *length, *common, "--no-real-images", *gan_args],
                generator, resumable=True, needs=(), cache=cache,
            ),
            Step(
                GENERATION, "generate_synthetic",
                ["--model-path", str(generator), "--output-dir", str(folders.synthetic),
                 "--num-images", str(part.n_synthetic), "--seed", str(seed), *(["--cpu"] if cpu else []),
                 *positives_of(gan_args)],
                paths.synthetic_manifest(folders.synthetic), needs=(GAN,), images=folders.synthetic,
            ),
        ]  # fmt: skip
    return steps + [train(arm) for arm in ARMS if arm in arms and arm != BASELINE]
