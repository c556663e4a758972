"""Compare generators at equal training time, or options of this project's generator at equal images shown.

    python src/benchmark_gan.py --what install --peers-dir ../peers   # the other projects' packages, once
    python src/benchmark_gan.py --what peers --peers-dir ../peers --minutes 10 --seeds 0,1
    python src/benchmark_gan.py --what options --kimg 64 --seeds 0,1,2,3,4
    python src/benchmark_gan.py --what report

Contenders learn from four fifths of the training positives and are scored against the last fifth, which holds
other patients, in spaces that none of them was trained on. Test images are never read. Rows are added to
<output-dir>/gan_benchmark.json one by one. Finished rows are kept, so any command may be interrupted, given
again, or split into many. Beside the file lie figures and a grid of generated images.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from benchmarks import benchmark_paths
from common import paths
from common.command_line import argument_parser, number, run_script
from common.logs import keep_run_log
from common.options import Affects, Option
from common.output_folders import check_folders
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, cache_folder
from utils import UserError, resolve_precision, save_figure, select_device

if TYPE_CHECKING:
    from benchmarks.file_formats import GeneratorBenchmark
    from benchmarks.generators.contender_runs import RunSetup
    from benchmarks.generators.contenders import Unit
    from benchmarks.generators.data import BenchmarkData
    from benchmarks.generators.results import GeneratorResults
    from benchmarks.generators.scores import Judge

log = logging.getLogger(__name__)

WHAT = ("peers", "options", "report", "install")


# --- command line ----------------------------------------------------------------------------------
def names(text: str) -> tuple[str, ...]:
    """Parse "a,b" as ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def seeds(text: str) -> tuple[int, ...]:
    """Parse "0,1" as (0, 1)."""
    parse = number(int, 0, 2**31 - 1)
    return tuple(dict.fromkeys(parse(part) for part in names(text)))


OPTIONS = (
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    Option(
        "--what", "peers: compare this project's generators with others; options: compare sets of options of "
        "this project's; report: show tables and figures of the rows measured so far; install: make the "
        "environment of the other projects' packages",
        choices=WHAT, default="peers",
    ),
    Option("--contenders", "contenders for peers (default: all)", type=names, metavar="NAME,..."),
    Option(
        "--set", "set of options for options: a known name, or a new one with flags of train_gan.py; may be "
        "repeated (default: default, cpu and best)",
        append=True, metavar="NAME[=FLAGS]",
    ),
    Option("--seeds", "seeds; each gives a row", type=seeds, default=(0, 1), metavar="N,..."),
    Option(
        "--minutes", "minutes of training for peers, without imports and sampling", Affects.RUN,
        type=number(float, above=0), default=10.0, metavar="X",
    ),
    Option(
        "--kimg", "images to show for options, thousands", Affects.RUN, type=number(float, above=0),
        default=64.0, metavar="X",
    ),
    Option(
        "--image-size", "pixels a side", Affects.RUN, type=int, choices=(32, 64, 112, 128, 224, 256),
        default=64,
    ),
    Option(
        "--fold", "fifth of the training positives to hold out, 1 to 5; choose options on one fold and "
        "compare them with others on another",
        Affects.RUN, type=int, choices=range(1, 6), default=1, metavar="N",
    ),
    Option(
        "--images", "images that each generator makes", Affects.RUN, type=number(int, 16), default=200,
        metavar="N",
    ),
    Option(
        "--peers-dir", "environment of the other projects' packages",
        default=benchmark_paths.PEERS_DIR, metavar="PATH",
    ),
    Option("--output-dir", "folder of the results and figures", default=paths.OUTPUT_DIR, metavar="PATH"),
    Option(
        "--work-dir", "folder of generated images, checkpoints and logs; may be deleted afterwards",
        default=benchmark_paths.GAN_BENCHMARK_DIR, metavar="PATH",
    ),
    Option(
        "--grace", "minutes beyond --minutes after which a contender is stopped", type=number(float, 0),
        default=30.0, metavar="X",
    ),
    Option("--again", "measure finished rows again; an old row stays until the new one is done", switch=True),
    Option(
        "--workers", "threads that decode images", type=number(int, 1), default=4, metavar="N"
    ),
    Option("--cpu", "use the CPU even if a GPU is there", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser(
        "Compare generators at equal training time, or options of this project's at equal images shown.",
        OPTIONS,
    )


# --- measuring -------------------------------------------------------------------------------------
def chosen_units(args: argparse.Namespace) -> list[Unit]:
    """List every contender with every seed, seeds outermost: an interrupted run has compared all by one.

    Raises ``UserError`` for an unknown contender or set of options, and for one that --what does not measure.
    """
    from benchmarks.generators.contenders import OURS, Budget, Unit, contenders, option_contender

    for flag, given, what in (("--contenders", args.contenders, "peers"), ("--set", args.set, "options")):
        if given and args.what != what:
            raise UserError(f"{flag} is for --what {what}, not for --what {args.what}")
    if args.what == "options":
        chosen = [option_contender(text) for text in args.set or OURS]
        budget = Budget(kimg=args.kimg)
    else:
        known = contenders()
        if unknown := [name for name in args.contenders or () if name not in known]:
            raise UserError(f"--contenders {unknown[0]}: no such contender; they are {', '.join(known)}")
        chosen = [known[name] for name in args.contenders or known]
        budget = Budget(minutes=args.minutes)
    return [Unit(contender, seed, budget) for seed in args.seeds for contender in chosen]


def run_setup(args: argparse.Namespace, data: BenchmarkData, device: str) -> RunSetup:
    """Gather what all contenders share; paths are absolute, because contenders are commands of their own."""
    from benchmarks.generators.contender_runs import RunSetup

    flags = ["--data-dir", str(Path(args.data_dir).resolve()), "--splits", str(data.splits_file.resolve())]
    flags += [] if args.patient_map is None else ["--patient-map", str(Path(args.patient_map).resolve())]
    flags += [] if args.patient_column is None else ["--patient-column", args.patient_column]
    flags += ["--skip-bad-images"] if args.skip_bad_images else []
    flags += ["--bits", str(args.bits)] if args.bits else []
    flags += ["--no-cache"] if args.no_cache else ["--cache-dir", str(Path(args.cache_dir).resolve())]
    python = benchmark_paths.peers_python(Path(args.peers_dir).absolute())
    return RunSetup(data, tuple(flags), Path(args.work_dir).resolve(), python, device, args.images, 60 * args.grace)


def prepare(args: argparse.Namespace) -> tuple[RunSetup, Judge, GeneratorResults]:
    """Decode the images, train or fetch the scorer, and open the result file."""
    from benchmarks.generators.data import load_benchmark_data
    from benchmarks.generators.results import GeneratorResults, read_matching
    from benchmarks.generators.scorer import load_scorer
    from benchmarks.generators.scores import Judge
    from benchmarks.machine import machine_facts

    device, cache = select_device(args.cpu), cache_folder(args.no_cache, args.cache_dir)
    data = load_benchmark_data(
        args.data_dir, args.splits, args.patient_map, args.image_size, patient_column=args.patient_column,
        workers=args.workers, skip_bad=args.skip_bad_images, bits=args.bits, cache_dir=cache, fold=args.fold,
    )  # fmt: skip
    if args.images < len(data.reference):
        raise UserError(
            f"--images {args.images} is less than the {len(data.reference)} held-out positives; give at least as many"
        )
    header = {"machine": machine_facts(device), "data": data.summary(), "images": args.images}
    file = benchmark_paths.gan_benchmark_results(args.output_dir)
    read_matching(file, header)  # refuses another file before minutes of training
    scorer = load_scorer(data, cache, device, resolve_precision("auto", device))
    judge = Judge(data, scorer.features)
    results = GeneratorResults(file, header | {"scorer": scorer.facts}, judge)
    return run_setup(args, data, device.type), judge, results


def save_contender_grid(
    units: list[Unit], setup: RunSetup, content: GeneratorBenchmark, output_dir: str, what: str
) -> None:
    """Save a grid of each contender's images with the first seed, from the generator that counts."""
    from benchmarks.generators.contender_runs import read_made
    from benchmarks.generators.figure import contender_grid

    first, made = units[0], {}
    counted = {row["id"]: row["generator"] for row in content["rows"] if row["status"] == "done"}
    for unit in units:
        if unit.seed == first.seed and unit.id in counted:
            kept = read_made(benchmark_paths.made_images(setup.folder(unit)))
            if kept is not None:
                made[f"{unit.contender.name} ({counted[unit.id]})"] = kept.images[counted[unit.id]]
    if made:
        title = f"Generated images, drawn at random: {first.budget.words}, seed {first.seed}"
        save_figure(benchmark_paths.gan_benchmark_grid(output_dir, what), contender_grid(made, title))


# --- reporting -------------------------------------------------------------------------------------
def report_contenders(content: GeneratorBenchmark, output_dir: str, what: str) -> None:
    """Print the tables of ``what`` and save its figure."""
    from benchmarks.generators.figure import contenders_figure
    from benchmarks.generators.table import cost_table, quality_table, summarise_contenders

    summaries = summarise_contenders(content, what)
    log.info(f"\n{what}: {reals_in_words(content)}")
    log.info("\n".join([*quality_table(content, summaries), "", *cost_table(content["machine"], summaries)]))
    if any(one.finished for one in summaries.values()):
        figure = benchmark_paths.gan_benchmark_figure(output_dir, what)
        save_figure(figure, contenders_figure(content, summaries))
        log.info(f"{benchmark_paths.gan_benchmark_results(output_dir)} and {figure.name}")


def reals_in_words(content: GeneratorBenchmark) -> str:
    """Describe the real images and the scorer in words."""
    facts, scorer = content["data"], content["scorer"]
    return (
        f"{facts['learned_positives']:,} positives of {facts['learned_patients']:,} patients to learn from, "
        f"{facts['heldout_positives']:,} of {facts['heldout_patients']:,} to score against; the scoring "
        f"ResNet-18 has an AUROC of {scorer['heldout_auroc']:.2f} on held-out patients"
    )


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.what == "install":
        from benchmarks.generators.contender_runs import install_peers

        install_peers(Path(args.peers_dir))
        return
    check_folders({"--output-dir": args.output_dir, "--work-dir": args.work_dir})
    from benchmarks.generators.results import measure_units, read_results

    file = benchmark_paths.gan_benchmark_results(args.output_dir)
    if args.what == "report":
        content = read_results(file)
        keep_run_log(file)
        for what in dict.fromkeys(row["what"] for row in content["rows"]):
            report_contenders(content, args.output_dir, what)
        return
    units = chosen_units(args)
    setup, judge, results = prepare(args)
    keep_run_log(file)
    measure_units(units, setup, judge, results, args.what, args.again)
    save_contender_grid(units, setup, results.content, args.output_dir, args.what)
    report_contenders(results.content, args.output_dir, args.what)


if __name__ == "__main__":
    run_script(main)
