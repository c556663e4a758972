"""The plan of a low-data study: fractions of the training patients, equal steps at each, and the commands.

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

from arms.registry import ARMS, BASELINE, steps_per_epoch, study_arms
from common import paths
from studies.commands import MAKE_IMAGES, Folders, Words, arm_step, gan_steps, uses_images
from studies.steps import FINISHED, Step, read_log
from utils import UserError

if TYPE_CHECKING:
    from dataset.splits import Splits

GAN_CHECKPOINTS = 5  # of a training, for --resume; few images make many short epochs


@dataclass(frozen=True)
class Part:
    """The training images of one fraction of the training patients, and how long they are trained on.

    ``epochs`` passes over them are ``steps`` optimiser steps. ``n_unlabelled``: images beside them whose labels are
    hidden.
    """

    fraction: float
    n_images: int
    n_patients: int
    n_positive: int
    n_synthetic: int
    epochs: int
    steps: int
    n_unlabelled: int = 0


def equal_epochs(n_images: int, batch_size: int, steps: int) -> int:
    """Return the number of epochs, at least 1, whose steps come closest to ``steps``."""
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
    """Plan the parts, from few to many patients; ``epochs`` are those of all training images.

    Raises ``UserError`` that names a fraction with too few patients to train on.
    """
    parts = []
    for fraction in sorted(fractions):
        try:
            parts.append(plan_part(splits, fraction, epochs, batch_size, k_folds, synthetic_per_real))
        except UserError as error:
            raise UserError(f"--fractions {fraction:g} is too small: {error}") from None
    return parts


def plan_part(
    splits: Splits, fraction: float, epochs: int, batch_size: int, k_folds: int, synthetic_per_real: float
) -> Part:
    """Plan one part as ``plan_parts`` does. Raises ``UserError`` if too few patients are left."""
    from dataset.splits import TRAIN, assign_folds, assign_validation_part, reduce_training

    n_all = int((splits.images["role"] == TRAIN).sum())
    reduced = reduce_training(splits, fraction)
    # What the classifier will need, so that it does not fail hours later.
    if k_folds:
        assign_folds(reduced, k_folds)
    else:
        assign_validation_part(reduced)
    images = reduced.images[reduced.images["role"] == TRAIN]
    own_epochs = equal_epochs(len(images), batch_size, epochs * steps_per_epoch(n_all, batch_size))
    return Part(
        fraction,
        n_images=len(images),
        n_patients=int(images["patient"].nunique()),
        n_positive=int(images["label"].sum()),
        n_synthetic=max(1, round(synthetic_per_real * len(images))),
        epochs=own_epochs,
        steps=own_epochs * steps_per_epoch(len(images), batch_size),
    )


def folders_of_fraction(study_dir: str | Path, data_dir: str | Path, fraction: float) -> Folders:
    """Name the folders of a fraction, its own below ``study_dir`` for models and synthetic images too."""
    base = paths.study_fraction(study_dir, fraction)
    return Folders(Path(data_dir), base / Path(paths.SYNTHETIC_DIR).name, base / Path(paths.MODEL_DIR).name, base)


def arm_step_name(arm: str) -> str:
    """Name the step that trains ``arm``."""
    return f"train {arm}"


def part_steps(
    part: Part, folders: Folders, arms: Sequence[str], words: Words, kimg: float, generator: Path | None = None
) -> list[Step]:
    """List the commands of one fraction: the baseline, the GAN and its images, the other ``arms``.

    GAN and images are left out if no arm needs them; controls take their number from the images. ``words``:
    what all fractions are told. ``kimg``: thousands of images shown to the GAN. ``generator``: makes the images in
    place of a GAN that is trained for them.
    """
    length = ["--epochs", str(part.epochs), "--epochs-final", str(part.epochs)]
    interval = math.ceil(kimg * 1000 / part.n_positive / GAN_CHECKPOINTS)
    told = Words(
        data=[*words.data, "--train-fraction", f"{part.fraction:g}"],
        classifier=[*length, *words.classifier],
        gan=["--kimg", f"{kimg:g}", "--checkpoint-interval", str(interval), *words.gan],
        generation=["--num-images", str(part.n_synthetic), *words.generation],
        cache=words.cache,
    )
    steps = {
        arm: arm_step(arm_step_name(arm), arm, folders, told, needs=[MAKE_IMAGES] if uses_images(arm) else [])
        for arm in ARMS
        if arm in arms
    }
    first = steps.pop(BASELINE)
    generated = gan_steps(folders, told, needs=[], generator=generator) if any(map(uses_images, arms)) else []
    return [first, *generated, *steps.values()]


def due_arms(due: Sequence[tuple[Part, Step]]) -> list[tuple[float, str]]:
    """Name the arms, (fraction, arm), whose steps are ``due``."""
    names = {arm_step_name(arm): arm for arm in ARMS}
    return [(part.fraction, names[step.name]) for part, step in due if step.name in names]


def interrupted_arms(study_dir: str | Path) -> list[tuple[float, str]]:
    """Name the arms, (fraction, arm), that the logs below ``study_dir`` know and do not call finished.

    What no log knows stays usable: results are often kept without theirs.
    """
    found = []
    for folder in Path(study_dir).glob(paths.STUDY_PATTERN):
        entries = read_log(paths.pipeline_log(folder))
        for arm in study_arms():
            entry = entries.get(arm_step_name(arm))
            if entry is not None and entry["state"] != FINISHED:
                fraction = entry["command"][entry["command"].index("--train-fraction") + 1]
                found.append((float(fraction), arm))
    return sorted(found, key=lambda item: item[0])  # the arms of a fraction keep their order
