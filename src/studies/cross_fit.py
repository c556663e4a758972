"""The plan of a cross-fitted study: outer folds, GANs, seeds, and the commands of each.

Every labelled image is in the test set of one outer fold. Each fold has a frozen split of its own, so that all that
a split guards against is guarded against in every fold. A GAN, its images, and all arms are trained anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arms.result_files import find_arms
from common import paths
from common.plan_files import PlanFile
from comparison.cross_fitting import FinishedFold
from dataset.image_ids import name_some
from dataset.splits import TEST, Splits, load_or_create_splits
from studies.commands import MAKE_IMAGES, TRAIN_GAN, Folders, Words, study_words
from studies.plan import Part, part_steps, plan_part
from studies.steps import Step, is_finished, read_log, steps_due
from utils import UserError, load_json

if TYPE_CHECKING:
    from dataset.records import Dataset


@dataclass(frozen=True)
class OuterRun:
    """One GAN of one outer fold, and the arms that are trained with its images, in a folder of its own.

    ``fold``, ``gan``: numbers from 1. ``seed``: of its GAN and of the first training run of its arms.
    """

    fold: int
    gan: int
    seed: int
    folder: Path
    splits: Path

    @property
    def log_file(self) -> Path:
        return paths.pipeline_log(self.folder)

    def twin_in(self, study_dir: str | Path) -> Folders:
        """Name the folders of the run of the same fold and GAN in another study."""
        folder = paths.outer_run(study_dir, self.fold, self.gan)
        return replace(self, folder=folder).folders("")

    @property
    def metrics_dir(self) -> Path:
        return self.folder / Path(paths.METRICS_DIR).name

    def folders(self, data_dir: str | Path) -> Folders:
        """Name the folders that its commands read and write."""
        synthetic, models = (self.folder / Path(name).name for name in (paths.SYNTHETIC_DIR, paths.MODEL_DIR))
        return Folders(Path(data_dir), synthetic, models, self.folder)


def plan_outer_runs(study_dir: str | Path, k: int, gans: int, repeats: int, seed: int) -> list[OuterRun]:
    """List the runs of ``k`` folds with ``gans`` GANs each; no two GANs and no two training runs share a seed."""
    runs = []
    for fold in range(1, k + 1):
        for gan in range(1, gans + 1):
            own = seed + repeats * (gans * (fold - 1) + gan - 1)
            folder = paths.outer_run(study_dir, fold, gan)
            runs.append(OuterRun(fold, gan, own, folder, paths.outer_splits(study_dir, fold)))
    return runs


def freeze_outer_splits(
    dataset: Dataset, study_dir: str | Path, k: int, cache_dir: str | Path | None
) -> dict[int, Splits]:
    """Read or make the split of each fold. Raises ``UserError`` unless together they test every image once."""
    if (more := paths.outer_splits(study_dir, k + 1)).is_file():
        raise _mixed(study_dir, f"{more} is of another number of folds")
    found = {
        fold: load_or_create_splits(dataset, paths.outer_splits(study_dir, fold), cache_dir, (fold, k))
        for fold in range(1, k + 1)
    }
    tested: dict[str, int] = {}
    for fold, splits in found.items():
        for name in splits.images.loc[splits.images["role"] == TEST, "image_id"]:
            if name in tested:
                raise _mixed(study_dir, f"folds {tested[name]} and {fold} both test {name}")
            tested[name] = fold
    if missing := set(dataset.images["image_id"]) - set(tested):
        raise _mixed(study_dir, f"no fold tests {name_some(sorted(missing), 3)}")
    return found


def _mixed(study_dir: str | Path, problem: str) -> UserError:
    return UserError(f"{study_dir} holds folds that do not belong together: {problem}; give another --study-dir")


@dataclass(frozen=True)
class CrossFitPlan:
    """All that a cross-fitted study is going to do: the runs, each fold's split and part, each run's commands."""

    folder: Path
    runs: list[OuterRun]
    splits: dict[int, Splits]
    parts: dict[int, Part]
    steps: dict[OuterRun, list[Step]]

    def due(self) -> list[tuple[Part, Step]]:
        """List the steps that are still to be run, each with what it trains on."""
        return [(self.parts[run.fold], step) for run in self.runs for step in due_steps(run, self.steps[run])]

    def comparisons(self) -> dict[Path, dict[OuterRun, bool]]:
        """Return the folder of each comparison, and for each of its runs whether it is finished."""
        return {self.folder: {run: not due_steps(run, self.steps[run]) for run in self.runs}}


def plan_cross_fit(
    dataset: Dataset, options: Mapping[str, Any], batch_size: int, cache_dir: str | Path | None
) -> CrossFitPlan:
    """Plan a study from its ``options`` (``STUDY_OPTIONS``, name -> value) and freeze the splits of its folds."""
    folder, k = options["study_dir"], options["cross_fit"]
    runs = plan_outer_runs(folder, k, options["gan_seeds"], options["repeats"], options["seed"])
    splits = freeze_outer_splits(dataset, folder, k, cache_dir)
    length = (options["epochs"], batch_size, options["synthetic_per_real"])
    parts = {fold: part_of_fold(fold, own, *length) for fold, own in splits.items()}
    words, generators = study_words(options), generators_of(runs, splits, options["gans_from"])
    steps = {
        run: steps_of_run(
            run, parts[run.fold], options["data_dir"], options["arms"], words, options["kimg"], generators.get(run)
        )
        for run in runs
    }
    return CrossFitPlan(Path(folder), runs, splits, parts, steps)


def generators_of(
    runs: Sequence[OuterRun], splits: Mapping[int, Splits], study_dir: str | None
) -> dict[OuterRun, Path]:
    """Name the generator of each run in another study, --gans-from; empty without one.

    Raises ``UserError`` if its folds are others.
    """
    if study_dir is None:
        return {}
    for fold, own in splits.items():
        file = paths.outer_splits(study_dir, fold)
        if not file.is_file():
            raise UserError(f"--gans-from {study_dir} has no fold {fold}: {file} is missing")
        if load_json(file) != load_json(own.path):
            raise UserError(f"--gans-from {study_dir}: its fold {fold} tests other images than this study's")
    return {run: paths.generator_final(run.twin_in(study_dir).models) for run in runs}


def check_generators(due: Iterable[Step]) -> None:
    """Raise ``UserError`` if the generator of one of the steps that are ``due`` is missing and not trained by them."""
    steps = list(due)
    trained = {step.artifact for step in steps if step.name == TRAIN_GAN}
    for step in steps:
        if step.name == MAKE_IMAGES:
            generator = Path(step.options[step.options.index("--model-path") + 1])
            if not generator.is_file() and generator not in trained:
                raise UserError(f"{generator} is missing: its study has not finished that fold, or was tidied up")


def describe_outer_run(run: OuterRun, part: Part, k: int, gans: int) -> str:
    """Say what a run trains on."""
    which = f"fold {run.fold} of {k}" + (f", GAN {run.gan} of {gans}" if gans > 1 else "")
    return (
        f"{which}: {part.n_images:,} training images of {part.n_patients:,} patients, {part.n_positive:,} positive; "
        f"{part.epochs:,} epochs = {part.steps:,} steps; {part.n_synthetic:,} synthetic images"
    )


def part_of_fold(fold: int, splits: Splits, epochs: int, batch_size: int, synthetic_per_real: float) -> Part:
    """Return all training images of a fold, and how long they are trained on. Raises ``UserError`` if they are few."""
    try:
        return plan_part(splits, 1.0, epochs, batch_size, 0, synthetic_per_real)
    except UserError as error:
        raise UserError(f"--cross-fit: fold {fold} cannot be trained on: {error}") from None


def steps_of_run(
    run: OuterRun, part: Part, data_dir: str | Path, arms: Sequence[str], words: Words, kimg: float,
    generator: Path | None = None,
) -> list[Step]:  # fmt: skip
    """List the commands of one run; ``words``: what all runs are told, without seed and split.

    ``generator``: of another study, in place of a GAN of its own.
    """
    seed = ["--seed", str(run.seed)]
    own = Words(
        data=["--splits", str(run.splits), *words.data],
        classifier=[*words.classifier, *seed],
        gan=[*words.gan, *seed],
        generation=[*words.generation, *seed],
        cache=words.cache,
    )
    return part_steps(part, run.folders(data_dir), arms, own, kimg, generator)


def due_steps(run: OuterRun, steps: Sequence[Step]) -> list[Step]:
    """List the steps that are still to be run: none once every arm has its predictions.

    GAN, images and checkpoints of a finished run may be deleted: they take most of the space.
    """
    entries = read_log(run.log_file)
    finished = [
        step.name in entries and is_finished(entries[step.name], step)
        and (step.script != "train_classifier" or step.artifact.is_file())
        for step in steps
    ]  # fmt: skip
    return [] if all(finished) else steps_due(list(steps), entries)


def check_held_to(plan: PlanFile, runs: Iterable[OuterRun]) -> None:
    """Raise ``UserError`` unless the arms of finished ``runs`` were trained under the ``plan``."""
    for run in runs:
        for name, arm in find_arms(run.metrics_dir).items():
            plan.check_origin(f"fold {run.fold}: the arm {name}", arm.recorded.get("plan_sha256"))


def read_finished_folds(finished: Mapping[OuterRun, bool]) -> tuple[list[FinishedFold], list[str]]:
    """Read the arms of the folds all of whose runs are ``finished``; also returns names of the other folds."""
    folds, missing = [], []
    for fold in sorted({run.fold for run in finished}):
        runs = [run for run in finished if run.fold == fold]
        if all(finished[run] for run in runs):
            folds.append(FinishedFold(fold, [find_arms(run.metrics_dir) for run in runs]))
        else:
            missing.append(f"fold {fold}")
    return folds, missing
