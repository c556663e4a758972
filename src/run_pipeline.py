"""Run the whole comparison: check data, baseline, GAN, synthetic images, augmented classifier, analysis.

Each step is a command that could be typed by hand; it is printed, then run. A finished step is skipped when
the pipeline is run again with the same options, an interrupted one is taken up where it stopped.

    python src/run_pipeline.py --demo        # on chest phantoms, below ./demo, less than ten minutes
    python src/run_pipeline.py               # on ./data/processed, downloaded first if it is not there
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paths
from utils import UserError, argument_parser, load_json, number, run_script, save_json

SRC = Path(__file__).resolve().parent
FINISHED, STARTED = "finished", "started"
GENERATION = "generate synthetic images"

# Sized for ten minutes on two cores and for classifiers that clearly learn. No step needs the network: none
# asks for pretrained weights.
DEMO = {
    "phantoms": ["--num-images", "700", "--num-test-images", "40", "--image-size", "64"],
    "classifier": [
        "--weights", "none", "--unfreeze", "--image-size", "64", "--epochs", "12", "--k-folds", "3",
        "--augment", "light", "--weight-decay", "0.05", "--schedule", "onecycle",
    ],
    "gan": [
        "--image-size", "64", "--num-channels", "1", "--kimg", "30", "--batch-size", "16",
        "--save-interval", "500", "--checkpoint-interval", "50", "--perceptual", "off",
    ],
    "generation": ["--num-images", "100"],
    "analysis": ["--extractor", "classifier"],
}  # fmt: skip


@dataclass(frozen=True)
class Folders:
    """Where a run reads and writes, in the layout of README."""

    data: Path
    synthetic: Path
    models: Path
    output: Path

    @property
    def metrics(self) -> Path:
        return self.output / Path(paths.METRICS_DIR).name

    @property
    def figures(self) -> Path:
        return self.output / Path(paths.FIGURES_DIR).name

    @property
    def analysis(self) -> Path:
        return self.output / Path(paths.ANALYSIS_DIR).name


@dataclass(frozen=True)
class Step:
    """One command: ``script`` with ``options``; done when ``artifact`` is there.

    ``images``: the folder whose synthetic images it replaces if they are this pipeline's and outdated.
    ``resumable_unless``: it has --resume, which refuses after this other step has run again.
    """

    name: str
    script: str
    options: list[str]
    artifact: Path
    resumable: bool = False
    resumable_unless: str = ""
    images: Path | None = None

    def command(self) -> list[str]:
        return [f"src/{self.script}.py", *self.options]


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Run all steps of the comparison, as the commands a user would type.")
    add = parser.add_argument
    add(
        "--demo",
        action="store_true",
        help=f"run on procedural chest phantoms, everything below {paths.DEMO_DIR}; ignores other flags",
    )
    add("--data-dir", default=paths.DATA_DIR, metavar="PATH", help="processed dataset folder")
    add("--splits", metavar="PATH", help=f"frozen split (default: <data-dir>/{paths.SPLITS})")
    add(
        "--patient-map",
        metavar="PATH",
        help=f"official RSNA-to-NIH mapping (default: <data-dir>/{paths.PATIENT_MAP} if it is there)",
    )
    add("--skip-bad-images", action="store_true", help="go on without missing or unreadable images")
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
    add(
        "--classifier-args",
        type=words,
        default=[],
        metavar="'ARGS'",
        help="more options of train_classifier.py, e.g. '--weights none --unfreeze' (default: none)",
    )
    add(
        "--gan-args",
        type=words,
        default=[],
        metavar="'ARGS'",
        help="more options of train_gan.py, e.g. '--num-channels 1' (default: none)",
    )
    add("--no-real-images", action="store_true", help="leave out every picture that shows a real X-ray")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is available")
    return parser


def words(text: str) -> list[str]:
    """An argparse type: options in one string, split as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split into options: {error}") from None


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    return args


# --- the steps -------------------------------------------------------------------------------------
def comparison_steps(
    folders: Folders,
    *,
    data_options: list[str],
    split: Path,
    classifier: list[str],
    gan: list[str],
    generation: list[str],
    analysis: list[str],
) -> list[Step]:
    """The six commands from a data folder to a report."""
    data = ["--data-dir", str(folders.data), *data_options]
    results = ["--model-dir", str(folders.models), "--results-dir", str(folders.metrics),
               "--figures-dir", str(folders.figures)]  # fmt: skip
    generator = paths.generator_final(folders.models)
    return [
        Step("check the data", "data_loader", data, split),
        Step(
            "train the baseline classifier",
            "train_classifier",
            [*data, *results, *classifier],
            paths.final_metrics(folders.metrics, paths.BASELINE_PREFIX),
            resumable=True,
        ),
        Step(
            "train the GAN",
            "train_gan",
            [*data, "--model-dir", str(folders.models), "--output-dir", str(folders.output), *gan],
            generator,
            resumable=True,
        ),
        Step(
            GENERATION,
            "generate_synthetic",
            ["--model-path", str(generator), "--output-dir", str(folders.synthetic), *generation],
            paths.synthetic_manifest(folders.synthetic),
            images=folders.synthetic,
        ),
        Step(
            "train the augmented classifier",
            "train_classifier",
            [*data, *results, *classifier, "--use-synthetic", "--synthetic-dir", str(folders.synthetic)],
            paths.final_metrics(folders.metrics, paths.AUGMENTED_PREFIX),
            resumable=True,
            resumable_unless=GENERATION,
        ),
        Step(
            "analyse",
            "analyze_results",
            [*data, "--metrics-dir", str(folders.metrics), "--analysis-dir", str(folders.analysis),
             "--synthetic-dir", str(folders.synthetic), "--model-dir", str(folders.models), *analysis],
            paths.comparison_report(folders.analysis),
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
        gan=DEMO["gan"],
        generation=DEMO["generation"],
        analysis=DEMO["analysis"],
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
    classifier = ["--epochs", str(args.epochs), "--k-folds", str(args.k_folds), *size, *seed, *cpu]
    gan_length = [] if "--kimg" in args.gan_args else ["--epochs", str(args.gan_epochs)]
    pictures = ["--no-real-images"] if args.no_real_images else []
    steps = comparison_steps(
        folders,
        data_options=data_options(args),
        split=Path(args.splits or folders.data / paths.SPLITS),
        classifier=[*classifier, *args.classifier_args],
        gan=[*gan_length, *size, *seed, *cpu, *pictures, *args.gan_args],
        generation=["--num-images", str(args.num_images), *seed, *cpu],
        analysis=[*cpu, *pictures],
    )
    metadata = folders.data / paths.TRAIN_METADATA
    if not metadata.is_file():
        download = ["--data-dir", str(folders.data)]
        steps.insert(0, Step("download the dataset", "download_dataset", download, metadata))
    return folders, steps


def data_options(args: argparse.Namespace) -> list[str]:
    """What every step that reads the dataset is told besides its folder."""
    return [
        *(["--splits", args.splits] if args.splits else []),
        *(["--patient-map", args.patient_map] if args.patient_map else []),
        *(["--skip-bad-images"] if args.skip_bad_images else []),
    ]


def check_options(steps: list[Step]) -> None:
    """Let every script read its options before hours are spent; wrong usage ends here, with exit code 2.

    With ``--help`` last, a script checks the options before it and then does nothing.
    """
    for step in steps:
        command = [sys.executable, str(SRC / f"{step.script}.py"), *step.options, "--help"]
        checked = subprocess.run(command, capture_output=True, text=True)
        if checked.returncode != 0:
            print(checked.stderr.strip().splitlines()[-1], file=sys.stderr)
            sys.exit(2)


# --- running them ----------------------------------------------------------------------------------
def run_steps(steps: list[Step], log_file: Path) -> None:
    """Run what is not finished; the log says which command each step was started and finished with."""
    log: dict[str, Any] = load_json(log_file) if log_file.is_file() else {}
    ran: list[str] = []  # once a step has run, all that build on it run again
    for number_, step in enumerate(steps, start=1):
        entry = log.get(step.name, {})
        same = entry.get("command") == step.command()
        title = f"step {number_}/{len(steps)}: {step.name}"
        if not ran and same and entry.get("state") == FINISHED and step.artifact.exists():
            print(f"\n== {title}: already finished", flush=True)
            continue
        extra = []
        if step.resumable and same and entry.get("state") == STARTED and step.resumable_unless not in ran:
            extra.append("--resume")
        started = {"command": step.command(), "state": STARTED}
        if step.images:
            started["own_images"] = owns_images(step, entry)
            if started["own_images"] and are_outdated(step, entry, bool(ran)):
                extra.append("--overwrite")
                started["replaces"] = modified(step.artifact)
        ran.append(step.name)
        print(f"\n== {title}\n$ python {shlex.join([*step.command(), *extra])}", flush=True)
        log[step.name] = started
        save_json(log_file, log)
        seconds = run_command(step, extra)
        log[step.name] = {"command": step.command(), "state": FINISHED, "seconds": round(seconds, 1)}
        save_json(log_file, log)
        print(f"== {step.name}: done in {seconds / 60:.1f} min", flush=True)


def owns_images(step: Step, entry: dict[str, Any]) -> bool:
    """Are all images in the step's folder this pipeline's? Then they may be replaced; others never are.

    They are if an earlier run, whose log ``entry`` is given, made them there, or if there are none yet.
    """
    if str(step.images) in entry.get("command", []) and (
        entry.get("state") == FINISHED or entry.get("own_images")
    ):
        return True
    return not step.artifact.exists() and not any(step.images.glob(paths.SYNTHETIC_PATTERN))


def are_outdated(step: Step, entry: dict[str, Any], rerun: bool) -> bool:
    """Must the images be made anew? Not if an interrupted run of the same command can be taken up."""
    if not entry:
        return False
    if rerun or entry["state"] == FINISHED or entry["command"] != step.command():
        return True
    # Interrupted while it replaced others: before or after it had removed them?
    return "replaces" in entry and modified(step.artifact) in (None, entry["replaces"])


def modified(path: Path) -> int | None:
    """Time of the last change in nanoseconds; None if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else None


def run_command(step: Step, extra: list[str]) -> float:
    """Run one step to its end and return its seconds. ``UserError`` if it fails."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, str(SRC / f"{step.script}.py"), *step.options, *extra])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        # At a terminal Ctrl-C has reached the step too; it cleans up after itself.
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise UserError(
            f"step {step.name!r} ended with exit code {code}; its message stands above. "
            "Run the same command again to go on from this step"
        )
    return time.monotonic() - start


def print_outcome(folders: Folders, minutes: float) -> None:
    """Where the report and the pictures are."""
    pictures = [*sorted(folders.analysis.glob("*.png")), *sorted(folders.figures.glob("*.png"))]
    print(f"\nfinished in {minutes:.1f} min")
    print(f"report:   {paths.comparison_report(folders.analysis)}")
    print("pictures: " + "\n          ".join(map(str, pictures)))
    print(f"          {paths.gan_images(folders.output)}/ (samples of the GAN while it learned)")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    start = time.monotonic()
    folders, steps = plan(args)
    check_options(steps)
    run_steps(steps, paths.pipeline_log(folders.output))
    print_outcome(folders, (time.monotonic() - start) / 60)


if __name__ == "__main__":
    run_script(main)
