"""Say how long your experiment takes on this machine, and what would make it shorter.

    python src/benchmark.py --data-dir ./data/mine --image-size 112    # or --real-images 1200, without data
    python src/benchmark.py --config experiment.yaml
    python src/benchmark.py --compare --quick    # this project beside a plain implementation, under 5 minutes
    python src/benchmark.py --compare --resume   # all rows, an hour or more; goes on after an interruption

A few steps of each kind of work are timed, which takes about a minute, and multiplied; nothing is written. With
--compare, chest phantoms are made, and results/benchmark.json and benchmark.png are written. The plain way uses PIL
and a DataLoader, float32, and the whole backbone in every epoch.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Literal

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from arms.options import TRAIN_OPTIONS
from benchmarks import benchmark_paths
from common import paths
from common.command_line import argument_parser, number, run_script
from common.logs import keep_run_log
from common.options import Affects, HandedOn, Option
from common.output_folders import check_folders
from gan.options import GENERATION_OPTIONS
from gan.options import OPTIONS as GAN_OPTIONS
from studies.options import PIPELINE_OPTIONS, STUDY_OPTIONS, chosen_arms
from studies.steps import passed_on_words
from utils import resolve_precision, save_figure, select_device

log = logging.getLogger(__name__)

ROW_IDS = (
    "baseline_default", "first_pass", "warm_full", "unfreeze_step", "gan_step", "gan_step_no_vgg", "generate",
    "quality", "peak_share", "memory", "growth", "lite0", "lite0_warm",
)  # fmt: skip


def row_ids(text: str) -> tuple[str, ...]:
    """Parse "a,b" as names of rows."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in ROW_IDS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a row; choose from {', '.join(ROW_IDS)}")
    return names


def _words_for(script: str, flag: str, options: tuple[Option, ...], example: str) -> Option:
    """Make the option ``flag``: words that ``script`` would be given, in an experiment file its section."""
    return Option(
        flag, f"options of {script}.py, e.g. '{example}' (default: none)", type=passed_on_words, default=[],
        metavar="'ARGS'", group=EXPERIMENT, hands_on=HandedOn(script, options, {}),
    )  # fmt: skip


EXPERIMENT, PLAIN_WAY = "your experiment", "beside the plain way"
COUNT = number(int, 1)
OPTIONS = (
    Option(
        "--data-dir", "data folder that says how many images there are (default: --real-images says it)",
        metavar="PATH", group=EXPERIMENT,
    ),
    Option(
        "--real-images", "labelled images, without --data-dir", type=number(int, 16), default=26_684, metavar="N",
        group=EXPERIMENT,
    ),
    Option(
        "--positive-share", "share of them with pneumonia", type=number(float, above=0, high=1), default=0.225,
        metavar="F", group=EXPERIMENT,
    ),
    Option("--image-size", "pixels a side (default: 224)", type=number(int, 32, 1024), metavar="N", group=EXPERIMENT),
    Option("--epochs", "epochs of the classifiers (default: 15)", type=COUNT, metavar="N", group=EXPERIMENT),
    Option(
        "--k-folds", "folds of the classifiers (default: 5; none if cross-fitted)", type=number(int, 0), metavar="N",
        group=EXPERIMENT,
    ),
    Option(
        "--repeats", "final models of each arm (default: 1; 3 if cross-fitted)", type=COUNT, metavar="R",
        group=EXPERIMENT,
    ),
    Option(
        "--arms", "arms (default: those of run_pipeline.py or run_study.py)", type=chosen_arms, metavar="A,...",
        group=EXPERIMENT,
    ),
    Option(
        "--cross-fit", "outer folds of run_study.py (default: not)", type=number(int, 2, 20), metavar="K",
        group=EXPERIMENT,
    ),
    _words_for("train_classifier", "--classifier-args", TRAIN_OPTIONS, "--backbone resnet18 --unfreeze"),
    _words_for("train_gan", "--gan-args", GAN_OPTIONS, "--preset best --kimg 64"),
    _words_for("generate_synthetic", "--generation-args", GENERATION_OPTIONS, "--num-images 450"),
    _words_for("run_pipeline", "--pipeline-args", PIPELINE_OPTIONS, "--no-controls"),
    _words_for("run_study", "--study-args", STUDY_OPTIONS, "--gan-seeds 2"),
    Option(
        "--compare", "measure this project beside a plain implementation, instead of your experiment", switch=True,
        group=PLAIN_WAY,
    ),
    Option("--quick", "measure on few images: under 5 minutes, rough numbers", Affects.RUN, switch=True,
           group=PLAIN_WAY),
    Option(
        "--rows", f"rows to measure, of {', '.join(ROW_IDS)} (default: all)",
        type=row_ids, default=ROW_IDS, metavar="ID,...", group=PLAIN_WAY,
    ),
    Option("--resume", "keep rows measured on this machine with the same settings", switch=True, group=PLAIN_WAY),
    Option(
        "--output-dir", "folder of benchmark.json and benchmark.png", default=paths.OUTPUT_DIR,
        metavar="PATH", group=PLAIN_WAY,
    ),
    Option(
        "--work-dir", "folder of phantoms and caches, about 3 GB; may be deleted afterwards",
        default=benchmark_paths.BENCHMARK_DIR, metavar="PATH", group=PLAIN_WAY,
    ),
    Option(
        "--weights", "weights of ResNet-50; auto: imagenet, or none (for timing only) without them",
        Affects.RUN, choices=("auto", "imagenet", "none"), default="auto", group=PLAIN_WAY,
    ),
    Option(
        "--precision", "arithmetic of this project's path; auto: bf16 if the hardware multiplies it",
        Affects.RUN, choices=("auto", "fp32", "bf16"), default="auto", group=PLAIN_WAY,
    ),
    Option(
        "--workers", "threads or processes that decode or write images, on either path",
        Affects.RUN, type=COUNT, default=4, metavar="N", group=PLAIN_WAY,
    ),
    Option(
        "--seed", "seed of phantoms and weights", Affects.RUN, type=number(int, 0, 2**32 - 1), default=42,
        metavar="N", group=PLAIN_WAY,
    ),
    Option("--cpu", "use the CPU even if a GPU is there", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser(
        "Say how long your experiment takes on this machine, and what would make it shorter; or, with --compare, "
        "measure the time and memory that this project needs beside a plain implementation.",
        OPTIONS,
    )


def parse_benchmark_args(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    usual = {"rows": ROW_IDS, "quick": False, "resume": False}
    if wrong := [name for name, value in usual.items() if getattr(args, name) != value and not args.compare]:
        parser.error(f"--{wrong[0]} needs --compare")
    if args.k_folds == 1:
        parser.error("--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2")
    return args


# --- your experiment -------------------------------------------------------------------------------
def estimate_experiment(args: argparse.Namespace) -> None:
    """Print how long each stage of the experiment takes, and what would make it shorter."""
    from benchmarks.machine import machine_facts
    from benchmarks.speed import experiment as experiments
    from studies.time_estimate import busy_words

    folder = args.data_dir
    if folder is None:
        n, n_positive, images = args.real_images, max(2, round(args.real_images * args.positive_share)), []
    else:
        from dataset.records import load_dataset

        table = load_dataset(folder).images
        n, n_positive, images = len(table), int(table["label"].sum()), list(table["path"])
    experiment = experiments.plan_experiment(vars(args), n, n_positive)
    facts = machine_facts(select_device(args.cpu))
    log.info(f"{experiment}\nmeasuring how fast this machine is ...")
    with tempfile.TemporaryDirectory() as place:
        speeds = experiments.measured_speeds(experiment, images or phantom_files(Path(place)), args.cpu)
    first = experiments.stage_seconds(experiment, speeds)
    again = experiments.stage_seconds(experiment, speeds, warm=True)
    log.info("\n".join(experiments.stage_table(first, again)))
    where = f"{facts['gpu']}, " if facts["gpu"] else ""
    log.info(f"on {where}{facts['cpu']}, {facts['cores']} cores{busy_words()}")
    ways = experiments.shorter_ways(experiment, speeds, args.cpu)
    log.info(experiments.describe_shorter(sum(first.values()), ways))


def phantom_files(folder: Path) -> list[Path]:
    """Draw a few phantoms of the size of real X-rays into ``folder``; they take as long to decode."""
    from phantom.dataset import make_phantom_dataset

    return sorted(make_phantom_dataset(folder / "phantoms", 4, 1024, num_test_images=0).rglob("*.png"))


# --- beside the plain way --------------------------------------------------------------------------


def usable_weights(asked: str) -> Literal["imagenet", "none"]:
    """Return "imagenet" or "none"; raises ``UserError`` if "imagenet" was asked for and is not available."""
    if asked == "none":
        return "none"
    from classifier import build_classifier
    from utils import WeightsUnavailableError

    try:
        build_classifier("imagenet", frozen=True)
    except WeightsUnavailableError as error:
        if asked == "imagenet":
            raise
        log.info(f"untrained networks, for timing only: {error.short}")
        return "none"
    return "imagenet"


def compare_with_plain(args: argparse.Namespace) -> None:
    """Measure the rows that are asked for, and write benchmark.json and benchmark.png."""
    check_folders({"--output-dir": args.output_dir, "--work-dir": args.work_dir})
    import torch

    from benchmarks.file_formats import SpeedSettings, TimedMachine
    from benchmarks.machine import machine_facts
    from benchmarks.speed.figure import speed_figure
    from benchmarks.speed.plan import FULL, QUICK, Bench
    from benchmarks.speed.results import SpeedResults, machine_in_words, speed_table

    device = select_device(args.cpu)
    settings: SpeedSettings = {
        "quick": args.quick, "precision": resolve_precision(args.precision, device),
        "weights": usable_weights(args.weights), "workers": args.workers, "seed": args.seed,
    }  # fmt: skip
    machine: TimedMachine = {**machine_facts(device), "threads": torch.get_num_threads()}
    results = SpeedResults(benchmark_paths.benchmark_results(args.output_dir), machine, settings, must_fit=args.resume)
    keep_run_log(results.file)
    bench = Bench(
        QUICK if args.quick else FULL, device, settings["precision"], settings["weights"], args.workers,
        Path(args.work_dir), args.seed,
    )  # fmt: skip
    results.measure(bench, args.rows, keep=args.resume)
    content, figure = results.content(), benchmark_paths.benchmark_figure(args.output_dir)
    save_figure(figure, speed_figure(content))
    log.info(machine_in_words(content))
    log.info("\n".join(speed_table(content["rows"])))
    log.info(f"wrote {results.file} and {figure.name}; each row's note says how it was measured")


def main(argv: list[str] | None = None) -> None:
    args = parse_benchmark_args(argv)
    (compare_with_plain if args.compare else estimate_experiment)(args)


if __name__ == "__main__":
    run_script(main)
