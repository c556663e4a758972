"""The files that are mutated, and the script that reads each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import binary_mutators, mutators
from campaign import judges as j
from campaign.jobs import CLASSIFIER, JOBS, TRAIN
from campaign.judges import DATA, METRICS, Case
from campaign.mutators import Mutator
from common import paths

Judge = Callable[[Case], str | None]
Look = Callable[[], Any]


@dataclass(frozen=True)
class Reader:
    """A ``file`` of the folder that the job ``base`` leaves, and the command that reads it.

    ``files``: what else the command is given, as patterns; ``look`` and ``judge``: see ``judges``; ``prepare``: of
    ``Run``; ``weight``: its share of the mutations.
    """

    kind: str
    file: str
    base: str
    script: str
    words: list[str]
    ways: list[Mutator]
    judge: Judge
    look: Look
    prepare: Callable[[], object] = lambda: None
    files: tuple[str, ...] = ("**/*",)
    weight: int = 1


READ = [*CLASSIFIER, *TRAIN, "--epochs", "1", "--k-folds", "0", "--prefix", "tried"]
GENERATE = ["--model-path", "models/gan/generator_final.pth", "--num-images", "3", "--workers", "1", "--cpu"]


def readers(references: Path) -> list[Reader]:
    """All readers; ``references``: folder of the jobs' results."""
    table, images, values, weights = mutators.TABLE, binary_mutators.PNG, mutators.JSON, binary_mutators.PTH
    image = sorted(paths.training_images(references / "check" / DATA).glob("*.png"))[5].name
    return [
        checked("metadata CSV", paths.TRAIN_METADATA, table, j.judge_metadata, 5),
        checked("test CSV", paths.TEST_METADATA, table, j.judge_official, 2),
        checked("patient map", paths.PATIENT_MAP, values, j.same, 2),
        checked("splits.json", paths.SPLITS, values, j.same, 4),
        checked("training PNG", f"Training/Images/{image}", images, j.judge_pixels, 4, j.look_at_images),
        trained("synthetic PNG", "synthetic_00003.png", images, j.judge_pixels, 2),
        trained("manifest.json", "manifest.json", values, j.judge_manifest, 4),
        analysed("final metrics", "baseline_final_metrics.json", values, j.judge_metrics, 3),
        analysed("CV summary", "baseline_cv_summary.json", values, j.judge_metrics, 1),
        analysed("training history", "baseline_training_history.json", values, j.judge_metrics, 1),
        analysed("test predictions", "baseline_test_predictions.csv", table, j.judge_predictions, 3),
        analysed("CV predictions", "baseline_cv_predictions.csv", table, j.judge_metrics, 2),
        Reader(
            "generator PTH", "models/gan/generator_final.pth", "gan", "generate_synthetic", GENERATE, weights,
            j.judge_generator, j.look_at_generated, weight=4,
        ),
        Reader(
            "GAN state PTH", "models/gan/training_state.pth", "gan", "train_gan", [*JOBS["gan"].words, "--resume"],
            weights, j.judge_state, j.look_at_gan,
        ),
        Reader(
            "classifier PTH", "given.pth", "augmented", "train_classifier", [*READ, "--weights", "given.pth"],
            weights, j.judge_weights, j.look_at_weights, j.stop_before_training,
        ),
        Reader(
            "ids of a generator", "ids.csv", "register", "register_synthetic", JOBS["register"].words,
            mutators.TABLE_OF_ONE, j.judge_ids, j.look_at_registered,
            files=("ids.csv", "elsewhere/*", "data/processed/**/*"), weight=2,
        ),
        Reader(
            "pipeline.json", "results/pipeline.json", "pipeline", "run_pipeline", JOBS["pipeline"].words, values,
            j.judge_steps, j.look_at_steps, j.record_steps, weight=2,
        ),
        Reader(
            "phantoms.json", f"{DATA}/phantoms.json", "phantoms", "make_phantom_dataset", JOBS["phantoms"].words,
            values, j.same, j.look_at_phantoms,
        ),
    ]  # fmt: skip


def checked(
    kind: str, file: str, ways: list[Mutator], judge: Judge, weight: int, look: Look = j.look_at_dataset
) -> Reader:
    """A file of the dataset, read by its check."""
    return Reader(kind, f"{DATA}/{file}", "check", "data_loader", ["--workers", "1"], ways, judge, look, weight=weight)


def trained(kind: str, file: str, ways: list[Mutator], judge: Judge, weight: int) -> Reader:
    """A file of synthetic images, read by the classifier's script, which ends where training would begin."""
    words = [*READ, "--use-synthetic", "--no-cache"]
    return Reader(
        kind, f"data/synthetic/{file}", "augmented", "train_classifier", words, ways, judge, j.look_at_training,
        j.stop_before_training, weight=weight,
    )  # fmt: skip


def analysed(kind: str, file: str, ways: list[Mutator], judge: Judge, weight: int) -> Reader:
    """A result of training, read by the analysis."""
    return Reader(
        kind, f"{METRICS}/{file}", "augmented", "analyze_results", ["--cpu", "--no-cache"], ways, judge,
        j.look_at_comparison, j.only_numbers, ("results/metrics/*.json", "results/metrics/*.csv"), weight,
    )  # fmt: skip
