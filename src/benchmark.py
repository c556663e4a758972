"""Measure the time and memory that this project needs on this machine, beside a plain implementation.

    python src/benchmark.py --quick     # under 5 minutes, on few images
    python src/benchmark.py --resume    # all rows, an hour or more; goes on after an interruption

The plain path uses PIL and a DataLoader, float32, and the whole backbone in every epoch. Both work on made-up
chest phantoms. Writes results/benchmark.json and benchmark.png.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Literal

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from benchmarks import benchmark_paths
from common import paths
from common.command_line import argument_parser, number, run_script
from common.logs import keep_run_log
from common.options import Affects, Option
from common.output_folders import check_folders
from utils import resolve_precision, save_figure, select_device

log = logging.getLogger(__name__)

ROW_IDS = (
    "baseline_default", "first_pass", "warm_full", "unfreeze_step", "gan_step", "gan_step_no_vgg", "generate",
    "quality", "peak_share", "memory", "growth",
)  # fmt: skip


def row_ids(text: str) -> tuple[str, ...]:
    """Parse "a,b" as names of rows."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in ROW_IDS:
            raise argparse.ArgumentTypeError(f"{name!r} is not a row; choose from {', '.join(ROW_IDS)}")
    return names


OPTIONS = (
    Option("--quick", "measure on few images: under 5 minutes, rough numbers", Affects.RUN, switch=True),
    Option(
        "--rows", f"rows to measure, of {', '.join(ROW_IDS)} (default: all)",
        type=row_ids, default=ROW_IDS, metavar="ID,...",
    ),
    Option("--resume", "keep rows measured on this machine with the same settings", switch=True),
    Option(
        "--output-dir", "folder of benchmark.json and benchmark.png", default=paths.OUTPUT_DIR,
        metavar="PATH",
    ),
    Option(
        "--work-dir", "folder of phantoms and caches, about 3 GB; may be deleted afterwards",
        default=benchmark_paths.BENCHMARK_DIR, metavar="PATH",
    ),
    Option(
        "--weights", "weights of ResNet-50; auto: imagenet, or none (for timing only) without them",
        Affects.RUN, choices=("auto", "imagenet", "none"), default="auto",
    ),
    Option(
        "--precision", "arithmetic of this project's path; auto: bf16 if the hardware multiplies it",
        Affects.RUN, choices=("auto", "fp32", "bf16"), default="auto",
    ),
    Option(
        "--workers", "threads or processes that decode or write images, on either path",
        Affects.RUN, type=number(int, 1), default=4, metavar="N",
    ),
    Option(
        "--seed", "seed of phantoms and weights", Affects.RUN, type=number(int, 0, 2**32 - 1), default=42,
        metavar="N",
    ),
    Option("--cpu", "use the CPU even if a GPU is there", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser(
        "Measure the time and memory that this project needs, beside a plain implementation.", OPTIONS
    )


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


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
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


if __name__ == "__main__":
    run_script(main)
