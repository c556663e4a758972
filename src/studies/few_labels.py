"""Few labels in a cross-fitted study: for each number of labelled patients the arms, and one GAN of a fold for all.

The GAN learns from all training images of its fold without labels, so that it is the same whoever is labelled. For each
number of patients the results lie in a folder of their own, which is that of an ordinary cross-fitted study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arms.registry import ARMS, BASELINE, steps_per_epoch
from common import paths
from dataset.hidden_labels import FewLabels, draw_labelled
from dataset.splits import TRAIN, Splits
from studies.commands import MAKE_IMAGES, Words, arm_step, gan_steps, study_words, uses_images
from studies.cross_fit import CrossFitPlan, OuterRun, due_steps, generators_of, plan_cross_fit
from studies.plan import GAN_CHECKPOINTS, Part, arm_step_name, equal_epochs
from studies.steps import Step

if TYPE_CHECKING:
    from dataset.records import Dataset


def check_draws(runs: Sequence[OuterRun], splits: Mapping[int, Splits], numbers: Sequence[int]) -> None:
    """Raise ``UserError`` if one of the ``numbers`` of patients cannot be drawn in every fold."""
    for run in runs:
        images = splits[run.fold].images
        for n in numbers:
            draw_labelled(images[images["role"] == TRAIN], FewLabels(n, run.seed))


def part_of_few(part: Part, n: int, batch_size: int) -> Part:
    """Return the part of a fold in which ``n`` patients are labelled: about as many steps, in epochs of n images."""
    epochs = equal_epochs(n, batch_size, part.steps)
    steps = epochs * steps_per_epoch(n, batch_size)
    return replace(part, n_images=n, n_patients=n, n_unlabelled=part.n_images - n, epochs=epochs, steps=steps)


def run_of_few(run: OuterRun, study_dir: str | Path, n: int) -> OuterRun:
    """Return the run whose folder holds the arms of ``run`` that know the labels of ``n`` patients."""
    return replace(run, folder=paths.outer_run(paths.few_labels_study(study_dir, n), run.fold, run.gan))


def name_of(arm: str, n: int) -> str:
    """Name the step that trains ``arm`` on the labels of ``n`` patients."""
    return f"{arm_step_name(arm)}, {n} labelled"


def steps_of_few(
    run: OuterRun, n: int, parts: tuple[Part, Part], options: Mapping[str, Any], generator: Path | None = None
) -> list[Step]:
    """List the commands of ``run`` for ``n`` labelled patients: the baseline, the GAN and its images, other arms.

    ``parts``: of the whole fold, and with ``n`` labelled; ``options``: of the study, name -> value; ``generator``: of
    another study, in place of a GAN of its own.
    """
    whole, part = parts
    arms, kimg, words = options["arms"], options["kimg"], study_words(options)
    seed, length = ["--seed", str(run.seed)], ["--epochs", str(part.epochs), "--epochs-final", str(part.epochs)]
    interval = math.ceil(kimg * 1000 / whole.n_images / GAN_CHECKPOINTS)
    told = Words(
        data=["--splits", str(run.splits), *words.data],
        classifier=[*length, "--labelled-patients", str(n), *words.classifier, *seed],
        gan=["--classes", "all", "--kimg", f"{kimg:g}", "--checkpoint-interval", str(interval), *words.gan, *seed],
        generation=["--num-images", str(part.n_synthetic), *words.generation, *seed],
        cache=words.cache,
    )
    shared = run.folders(options["data_dir"])
    folders = replace(run_of_few(run, options["study_dir"], n).folders(options["data_dir"]), synthetic=shared.synthetic)

    def step_of(arm: str) -> Step:
        needs = [*([MAKE_IMAGES] if uses_images(arm) else []),
                 *([name_of(BASELINE, n)] if ARMS[arm].soft_labels else [])]  # fmt: skip
        return arm_step(name_of(arm, n), arm, folders, told, needs=needs)

    generated = gan_steps(shared, told, needs=[], generator=generator) if any(map(uses_images, arms)) else []
    return [step_of(BASELINE), *generated, *(step_of(arm) for arm in arms if arm != BASELINE)]


# --- the whole study -------------------------------------------------------------------------------
@dataclass(frozen=True)
class FewLabelPlan(CrossFitPlan):
    """A cross-fitted study with few labels; ``few_parts`` and ``few_steps``: by number of labelled patients too.

    ``steps`` of a run are those of all numbers, the shared ones once.
    """

    few_parts: dict[tuple[int, int], Part]
    few_steps: dict[tuple[OuterRun, int], list[Step]]

    def due(self) -> list[tuple[Part, Step]]:
        """List the steps that are still to be run, each with what it trains on."""
        found = []
        for run in self.runs:
            part_of = {
                step.name: self.few_parts[run.fold, n]
                for (other, n), steps in reversed(self.few_steps.items()) if other == run for step in steps
            }  # fmt: skip
            found += [(part_of[step.name], step) for step in due_steps(run, self.steps[run])]
        return found

    def comparisons(self) -> dict[Path, dict[OuterRun, bool]]:
        """Return the folder of each number's comparison, and for each of its runs whether it is finished."""
        found: dict[Path, dict[OuterRun, bool]] = {}
        for (run, n), steps in self.few_steps.items():
            own = found.setdefault(paths.few_labels_study(self.folder, n), {})
            own[run_of_few(run, self.folder, n)] = not due_steps(run, steps)
        return found


def plan_study(
    dataset: Dataset, options: Mapping[str, Any], batch_size: int, cache_dir: str | Path | None
) -> CrossFitPlan:
    """Plan a cross-fitted study, with few labels or not, as ``cross_fit.plan_cross_fit`` does.

    Raises ``UserError`` if so many labelled patients cannot be drawn.
    """
    study = plan_cross_fit(dataset, options, batch_size, cache_dir)
    if not (numbers := options["labelled_patients"]):
        return study
    check_draws(study.runs, study.splits, numbers)
    generators = generators_of(study.runs, study.splits, options["gans_from"])
    parts = {(fold, n): part_of_few(whole, n, batch_size) for fold, whole in study.parts.items() for n in numbers}
    few = {
        (run, n): steps_of_few(run, n, (study.parts[run.fold], parts[run.fold, n]), options, generators.get(run))
        for run in study.runs for n in numbers
    }  # fmt: skip
    steps = {
        run: list({step.name: step for n in numbers for step in few[run, n]}.values()) for run in study.runs
    }  # fmt: skip
    return FewLabelPlan(study.folder, study.runs, study.splits, study.parts, steps, parts, few)
