"""Run the whole comparison: check data, baseline, GAN, synthetic images, augmented and control, analysis.

Each step is a command that could be typed by hand; it is printed, then run. A finished step is skipped when
the pipeline is run again with the same options, an interrupted one is taken up where it stopped.

    python src/run_pipeline.py --demo        # on chest phantoms, below ./demo, less than ten minutes
    python src/run_pipeline.py               # on ./data/processed, downloaded first if it is not there
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from arms.registry import ARMS, AUGMENTED, BASELINE, Synthetic
from common import paths
from common.command_line import argument_parser, number, run_script
from common.options import add_options
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from studies.steps import (
    GENERATION,
    Folders,
    Step,
    add_passed_on_arguments,
    cache_options,
    check_options,
    data_options,
    positives_of,
    run_steps,
)

log = logging.getLogger(__name__)


CHECK, GAN = "check the data", "train the GAN"

# The arms that the augmented classifier must beat beside the baseline.
CONTROLS = [name for name in ARMS[AUGMENTED].measured_against if ARMS[name].is_control]

# Sized for ten minutes on two cores and for classifiers that clearly learn. No step needs the network: none
# asks for pretrained weights.
DEMO = {
    "phantoms": ["--num-images", "700", "--num-test-images", "40", "--image-size", "64"],
    "classifier": [
        "--weights", "none", "--unfreeze", "--image-size", "64", "--epochs", "12",
        "--augment", "light", "--weight-decay", "0.05", "--schedule", "onecycle",
    ],
    "folds": ["--k-folds", "2"],
    "gan": [
        "--image-size", "64", "--num-channels", "1", "--kimg", "30", "--batch-size", "16",
        "--save-interval", "500", "--checkpoint-interval", "50", "--perceptual", "off",
    ],
    "generation": ["--num-images", "100"],
    "analysis": ["--extractor", "classifier"],
}  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Run all steps of the comparison, as the commands a user would type.")
    add = parser.add_argument
    add(
        "--demo",
        action="store_true",
        help=f"run on procedural chest phantoms, everything below {paths.DEMO_DIR}; ignores other flags",
    )
    add_options(parser, DATA_OPTIONS)
    add_options(parser, CACHE_OPTIONS)
    add("--synthetic-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of synthetic images")
    add("--model-dir", default=paths.MODEL_DIR, metavar="PATH", help="folder for model checkpoints")
    add("--output-dir", default=paths.OUTPUT_DIR, metavar="PATH", help="folder for all results")
    add("--image-size", type=number(int, 32, 1024), default=224, metavar="N", help="pixels per side")
    add("--epochs", type=number(int, 1), default=15, metavar="N", help="epochs of the classifiers")
    add("--gan-epochs", type=number(int, 1), default=50, metavar="N", help="epochs of the GAN")
    add("--num-images", type=number(int, 1), default=5000, metavar="N", help="synthetic images to make")
    add("--k-folds", type=number(int, 0), default=5, metavar="N", help="folds; 0 disables cross-validation")
    add(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        default=42,
        metavar="N",
        help="of training and generation",
    )
    add_passed_on_arguments(parser)
    add("--no-controls", action="store_true", help="leave out the control that synthetic images must beat")
    add("--no-real-images", action="store_true", help="leave out every picture that shows a real X-ray")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is available")
    return parser


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    return args


# --- the steps -------------------------------------------------------------------------------------
def train_step(arm: str) -> str:
    """Return the name of the step that trains ``arm``."""
    return f"train the {ARMS[arm].title}"


def comparison_steps(
    folders: Folders,
    *,
    data_options: list[str],
    split: Path,
    classifier: list[str],
    folds: list[str],
    gan: list[str],
    generation: list[str],
    analysis: list[str],
    cache: list[str],
    controls: bool = True,
) -> list[Step]:
    """The commands from a data folder to a report, with ``controls`` those of what synthetic images must
    beat too. ``cache``: what the steps that decode images are told about their cache."""
    data = ["--data-dir", str(folders.data), *data_options]
    results = ["--model-dir", str(folders.models), "--results-dir", str(folders.metrics),
               "--figures-dir", str(folders.figures)]  # fmt: skip
    images = ["--synthetic-dir", str(folders.synthetic)]
    generator = paths.generator_final(folders.models)

    def arm(name: str) -> Step:
        kind = ARMS[name]
        # A control's folds would say nothing that the comparison asks for: its epochs are the baseline's.
        options = [*classifier, "--k-folds", "0"] if kind.is_control else [*folds, *classifier]
        uses_images = kind.synthetic is not Synthetic.UNUSED
        return Step(
            train_step(name), "train_classifier",
            [*data, *results, *options, *kind.words_of_command(), *(images if uses_images else [])],
            paths.final_metrics(folders.metrics, kind.prefix), resumable=True, cache=cache,
            needs=(CHECK, train_step(BASELINE), GENERATION) if uses_images else (CHECK,),
        )  # fmt: skip

    return [
        Step(CHECK, "data_loader", data, split),
        arm(BASELINE),
        Step(
            GAN,
            "train_gan",
            [*data, "--model-dir", str(folders.models), "--output-dir", str(folders.output), *gan],
            generator,
            resumable=True,
            needs=(CHECK,),
            cache=cache,
        ),
        Step(
            GENERATION,
            "generate_synthetic",
            ["--model-path", str(generator), "--output-dir", str(folders.synthetic), *generation],
            paths.synthetic_manifest(folders.synthetic),
            needs=(GAN,),
            images=folders.synthetic,
        ),
        arm(AUGMENTED),
        *([arm(name) for name in CONTROLS] if controls else []),
        Step(
            "analyse",
            "analyze_results",
            [*data, "--metrics-dir", str(folders.metrics), "--analysis-dir", str(folders.analysis),
             *images, "--model-dir", str(folders.models), *analysis],
            paths.report_page(folders.analysis), cache=cache,
        ),
    ]  # fmt: skip


def demo_plan() -> tuple[Folders, list[Step]]:
    base = Path(paths.DEMO_DIR)
    data, synthetic = base / Path(paths.DATA_DIR), base / Path(paths.SYNTHETIC_DIR)
    folders = Folders(data, synthetic, base / Path(paths.MODEL_DIR), base / Path(paths.OUTPUT_DIR))
    phantoms = Step(
        "draw chest phantoms",
        "make_phantom_dataset",
        ["--output-dir", str(folders.data), *DEMO["phantoms"]],
        folders.data / paths.TRAIN_METADATA,
    )
    steps = comparison_steps(
        folders,
        data_options=[],
        split=folders.data / paths.SPLITS,
        classifier=DEMO["classifier"],
        folds=DEMO["folds"],
        gan=DEMO["gan"],
        generation=DEMO["generation"],
        analysis=DEMO["analysis"],
        cache=["--cache-dir", str(base / Path(paths.CACHE_DIR))],
    )
    return folders, [phantoms, *steps]


def plan(args: argparse.Namespace) -> tuple[Folders, list[Step]]:
    if args.demo:
        return demo_plan()
    folders = Folders(
        *(Path(p) for p in (args.data_dir, args.synthetic_dir, args.model_dir, args.output_dir))
    )
    cpu = ["--cpu"] if args.cpu else []
    seed = ["--seed", str(args.seed)]
    size = ["--image-size", str(args.image_size)]
    classifier = ["--epochs", str(args.epochs), *size, *seed, *cpu]
    gan_length = [] if "--kimg" in args.gan_args else ["--epochs", str(args.gan_epochs)]
    pictures = ["--no-real-images"] if args.no_real_images else []
    steps = comparison_steps(
        folders,
        data_options=data_options(args),
        split=Path(args.splits or folders.data / paths.SPLITS),
        classifier=[*classifier, *args.classifier_args],
        folds=["--k-folds", str(args.k_folds)],
        gan=[*gan_length, *size, *seed, *cpu, *pictures, *args.gan_args],
        generation=["--num-images", str(args.num_images), *seed, *cpu, *positives_of(args.gan_args)],
        analysis=[*cpu, *pictures],
        cache=cache_options(args),
        controls=not args.no_controls,
    )
    metadata = folders.data / paths.TRAIN_METADATA
    if not metadata.is_file():
        download = ["--data-dir", str(folders.data)]
        steps.insert(0, Step("download the dataset", "download_dataset", download, metadata))
    return folders, steps


def print_outcome(folders: Folders, minutes: float) -> None:
    """Where the report and the pictures are."""
    pictures = [*sorted(folders.analysis.glob("*.png")), *sorted(folders.figures.glob("*.png"))]
    log.info(f"\nfinished in {minutes:.1f} min")
    log.info(f"report:   {paths.report_page(folders.analysis)}, {paths.comparison_report(folders.analysis)}")
    log.info("pictures: " + "\n          ".join(map(str, pictures)))
    log.info(f"          {paths.gan_images(folders.output)}/ (samples of the GAN while it learned)")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    start = time.monotonic()
    folders, steps = plan(args)
    check_options(steps)
    run_steps(steps, paths.pipeline_log(folders.output))
    print_outcome(folders, (time.monotonic() - start) / 60)


if __name__ == "__main__":
    run_script(main)
