"""What will it take on this machine, and how much faster is it than the plain way?

    python src/benchmark.py --quick     # under 5 minutes, on few images
    python src/benchmark.py --resume    # all of it, an hour or more; goes on after an interruption

Times this project's path beside a plain one (PIL and a DataLoader, float32, the whole backbone in every
epoch) on made-up chest phantoms, and writes results/benchmark.json and benchmark.png.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from common import paths
from common.command_line import argument_parser, number, run_script
from utils import resolve_precision, save_figure, select_device

log = logging.getLogger(__name__)


ROW_IDS = (
    "baseline_default", "first_pass", "warm_full", "unfreeze_step", "gan_step", "gan_step_no_vgg", "generate",
    "quality", "peak_share", "memory", "growth",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__.split("\n\n", 1)[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="few images: under 5 minutes, rough figures")
    add("--rows", type=row_ids, default=ROW_IDS, metavar="ID,...",
        help=f"rows to measure, of {', '.join(ROW_IDS)} (default: all)")  # fmt: skip
    add("--resume", action="store_true",
        help="keep the rows that were measured on this machine with the same settings")  # fmt: skip
    add("--output-dir", default=paths.OUTPUT_DIR, metavar="PATH", help="folder of benchmark.json and .png")
    add("--work-dir", default=paths.BENCHMARK_DIR, metavar="PATH",
        help="folder of the phantoms and caches, about 3 GB, which may be deleted afterwards")  # fmt: skip
    add("--weights", choices=("auto", "imagenet", "none"), default="auto",
        help="of ResNet-50; auto: untrained, for timing only, where ImageNet's cannot be had")  # fmt: skip
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto",
        help="of our path; auto: bf16 where the hardware multiplies it")  # fmt: skip
    add("--workers", type=number(int, 1), default=4, metavar="N",
        help="threads or processes that decode or write images, on either path")  # fmt: skip
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="of phantoms and weights")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is there")
    return parser


def row_ids(text: str) -> tuple[str, ...]:
    """An argparse type: "a,b" -> ("a", "b"), all of them rows."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in ROW_IDS:
            raise argparse.ArgumentTypeError(f"{name!r} is no row; they are {', '.join(ROW_IDS)}")
    return names


def usable_weights(asked: str) -> str:
    """ "imagenet" or "none"; ``UserError`` if the former was asked for and cannot be had."""
    if asked == "none":
        return asked
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
    from benchmarks.speed.figure import benchmark
    from benchmarks.speed.plan import FULL, QUICK, Bench, machine
    from benchmarks.speed.rows import Results, describe_machine, measure_all, table

    device = select_device(args.cpu)
    precision = resolve_precision(args.precision, device)
    weights = usable_weights(args.weights)
    sizes, work = QUICK if args.quick else FULL, Path(args.work_dir)
    bench = Bench(sizes, device, precision, weights, args.workers, work, args.seed)
    settings: dict[str, Any] = {"quick": args.quick, "precision": precision, "weights": weights}
    settings |= {"workers": args.workers, "seed": args.seed}
    results = Results(paths.benchmark(args.output_dir), machine(device), settings, must_fit=args.resume)
    measure_all(bench, results, args.rows, keep=args.resume)
    figure = paths.benchmark_figure(args.output_dir)
    save_figure(figure, benchmark(results.content))
    log.info(describe_machine(results.content))
    log.info("\n".join(table(results.content["rows"])))
    log.info(f"{results.file} and {figure.name}; what was measured and how stands in the rows' notes")


if __name__ == "__main__":
    run_script(main)
