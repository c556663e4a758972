"""Run the whole comparison: check data, baseline, GAN, synthetic images, augmented and control, analysis.

Each step is a command that could be typed by hand; it is printed, then run. A finished step is skipped when
the pipeline is run again with the same options, an interrupted one is taken up where it stopped.

    python src/run_pipeline.py --demo        # on chest phantoms, below ./demo, two to six minutes
    python src/run_pipeline.py               # on ./data/processed, downloaded first if it is not there
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from arms.registry import ARMS, AUGMENTED, BASELINE
from common import paths
from common.command_line import argument_parser, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders
from common.plan_files import UNPLANNED
from studies.commands import (
    MAKE_IMAGES,
    TRAIN_GAN,
    Folders,
    Words,
    arm_step,
    cache_words,
    data_words,
    gan_steps,
    label_words,
    plan_words,
    read_dataset,
    sets_length,
    uses_images,
)
from studies.options import PIPELINE_OPTIONS
from studies.steps import Step, check_options, run_steps
from utils import usable_cores

log = logging.getLogger(__name__)


CHECK, ANALYSE = "check the data", "analyse"  # the first and the last step

# The arms that the augmented classifier must beat beside the baseline.
CONTROLS = [name for name in ARMS[AUGMENTED].measured_against if ARMS[name].is_control]

# Sized for six minutes on two cores without bfloat16, and for classifiers that clearly learn. No step needs the
# network: none asks for pretrained weights.
DEMO = {
    "phantoms": ["--num-images", "600", "--num-test-images", "24", "--image-size", "64"],
    "check": ["--image-size", "48"],
    "classifier": [
        "--backbone", "resnet18", "--weights", "none", "--unfreeze", "--image-size", "48", "--epochs", "6",
        "--augment", "light", "--weight-decay", "0.05", "--schedule", "onecycle",
    ],
    "gan": [
        "--preset", "best", "--feature-maps-g", "16", "--feature-maps-d", "16", "--kimg", "14", "--batch-size", "16",
        "--save-interval", "500", "--checkpoint-interval", "25",
    ],
    "generation": ["--num-images", "100"],
    "analysis": ["--extractor", "classifier", "--robustness", "60"],
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Run all steps of the comparison, as the commands a user would type.", PIPELINE_OPTIONS)


def parse_pipeline_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    return args


# --- the steps -------------------------------------------------------------------------------------
def step_of_arm(arm: str) -> str:
    """Name the step that trains ``arm``."""
    return f"train the {ARMS[arm].title}"


DRAW = "draw chest phantoms"
# Of the demo's time, as measured on two cores.
DEMO_SHARES = {
    DRAW: 0.045, CHECK: 0.05, step_of_arm(BASELINE): 0.275, TRAIN_GAN: 0.23, MAKE_IMAGES: 0.015,
    step_of_arm(AUGMENTED): 0.155, **dict.fromkeys(map(step_of_arm, CONTROLS), 0.15), ANALYSE: 0.08,
}  # fmt: skip


def comparison_steps(
    folders: Folders, words: Words, *, check: list[str], folds: Mapping[str, int], analysis: list[str],
    splits: Path, controls: bool,
) -> list[Step]:  # fmt: skip
    """List the commands from a data folder to a report.

    ``check``: options of data_loader.py; ``folds``: how many an arm is trained with, 0 where it is not named, whose
    epochs are the baseline's; ``analysis``: options of analyze_results.py; ``splits``: the file that the check of
    the data writes; ``controls``: train also what synthetic images must beat.
    """

    def arm(name: str) -> Step:
        own = [*words.classifier, "--k-folds", "0"]
        if name in folds:
            own = ["--k-folds", str(folds[name]), *words.classifier]
        needs = [CHECK, step_of_arm(BASELINE), MAKE_IMAGES] if uses_images(name) else [CHECK]
        return arm_step(step_of_arm(name), name, folders, replace(words, classifier=own), needs)

    data = read_dataset(folders, words)
    places = ["--metrics-dir", str(folders.metrics), "--analysis-dir", str(folders.analysis),
              "--synthetic-dir", str(folders.synthetic), "--model-dir", str(folders.models)]  # fmt: skip
    report = paths.report_page(folders.analysis)
    return [
        Step(CHECK, "data_loader", [*data, *check], splits, cache=words.cache),
        arm(BASELINE),
        *gan_steps(folders, words, needs=[CHECK]),
        arm(AUGMENTED),
        *([arm(name) for name in CONTROLS] if controls else []),
        Step(ANALYSE, "analyze_results", [*data, *places, *analysis], report, cache=words.cache),
    ]


def repeat_words(repeats: int) -> list[str]:
    """Write --repeats if it asks for more than one training run."""
    return ["--repeats", str(repeats)] if repeats > 1 else []


def demo_plan(repeats: int) -> tuple[Folders, list[Step]]:
    """Plan the demo: phantoms, and the comparison on them."""
    base = Path(paths.DEMO_DIR)
    data, synthetic = base / Path(paths.DATA_DIR), base / Path(paths.SYNTHETIC_DIR)
    folders = Folders(data, synthetic, base / Path(paths.MODEL_DIR), base / Path(paths.OUTPUT_DIR))
    phantoms = Step(
        DRAW,
        "make_phantom_dataset",
        ["--output-dir", str(folders.data), *DEMO["phantoms"]],
        folders.data / paths.TRAIN_METADATA,
    )
    words = Words(
        classifier=[*DEMO["classifier"], *repeat_words(repeats)],
        gan=DEMO["gan"],
        generation=DEMO["generation"],
        cache=["--cache-dir", str(base / Path(paths.CACHE_DIR))],
    )
    steps = comparison_steps(
        folders,
        words,
        check=DEMO["check"],
        folds={BASELINE: 2},
        analysis=DEMO["analysis"],
        splits=folders.data / paths.SPLITS,
        controls=True,
    )
    steps.insert(0, phantoms)
    return folders, [replace(step, share=DEMO_SHARES[step.name]) for step in steps] if repeats == 1 else steps


def demo_environment() -> dict[str, str]:
    """Return the environment of the demo's steps: no plan is about them, and a core is left to other programs.

    Threads wait for one another. If one of two shares its core with a busy program, training takes five times as long
    as with a single thread; on two cores with nothing beside it, a single thread takes two fifths longer.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, usable_cores() - 1)
    return {**UNPLANNED, "OMP_NUM_THREADS": str(threads)}


def plan(args: argparse.Namespace) -> tuple[Folders, list[Step]]:
    """Plan what the options ask for; the dataset is downloaded first if it is not there."""
    if args.demo:
        return demo_plan(args.repeats)
    folders = Folders(*(Path(p) for p in (args.data_dir, args.synthetic_dir, args.model_dir, args.output_dir)))
    cpu = ["--cpu"] if args.cpu else []
    seed, held_to = ["--seed", str(args.seed)], plan_words(args.plan)
    size = ["--image-size", str(args.image_size)]
    epochs = ["--epochs", str(args.epochs), *repeat_words(args.repeats)]
    gan_length = [] if sets_length(args.gan_args) else ["--epochs", str(args.gan_epochs)]
    pictures = ["--no-real-images"] if args.no_real_images else []
    label = label_words(args.gan_args)
    words = Words(
        data=data_words(args.splits, args.patient_map, args.patient_column, args.skip_bad_images, args.bits),
        classifier=[*epochs, *size, *seed, *cpu, *held_to, *args.classifier_args],
        gan=[*gan_length, *size, *seed, *cpu, *held_to, *pictures, *args.gan_args],
        generation=["--num-images", str(args.num_images), *seed, *cpu, *held_to, *label, *args.generation_args],
        cache=cache_words(args.cache_dir, args.no_cache),
    )
    steps = comparison_steps(
        folders,
        words,
        check=size,
        folds={BASELINE: args.k_folds, AUGMENTED: args.k_folds},
        analysis=[*cpu, *held_to, *pictures, *args.analysis_args],
        splits=Path(args.splits or folders.data / paths.SPLITS),
        controls=not args.no_controls,
    )
    metadata = folders.data / paths.TRAIN_METADATA
    if not metadata.is_file():
        download = ["--data-dir", str(folders.data)]
        steps.insert(0, Step("download the dataset", "download_dataset", download, metadata))
    return folders, steps


def log_where_results_are(folders: Folders, minutes: float) -> None:
    """Name the files to open first."""
    log.info(f"\nfinished in {minutes:.1f} min; open first:")
    log.info(f"{paths.report_page(folders.analysis)}: the answer, and all pictures")
    log.info(f"{paths.comparison_report(folders.analysis)}: the same as text")
    log.info(f"{paths.gan_final_grid(folders.output)}: what the GAN draws")


def main(argv: list[str] | None = None) -> None:
    args = parse_pipeline_args(argv)
    start = time.monotonic()
    folders, steps = plan(args)
    check_folders({"--output-dir": folders.output})
    variables = demo_environment() if args.demo else {}
    if not args.demo:  # whose options are known to be right
        check_options(steps, variables)
    with claim([folders.output], "run_pipeline", "run_pipeline.py"):
        keep_run_log(folders.metrics)
        run_steps(steps, paths.pipeline_log(folders.output), variables)
    log_where_results_are(folders, (time.monotonic() - start) / 60)


if __name__ == "__main__":
    run_script(main)
