"""How good are this project's generators beside others', at equal time, and what does each option do?

    python src/benchmark_gan.py --what install --peers-dir ../peers   # the others' packages, once
    python src/benchmark_gan.py --what peers --peers-dir ../peers --minutes 10 --seeds 0,1
    python src/benchmark_gan.py --what options --kimg 64 --seeds 0,1,2,3,4
    python src/benchmark_gan.py --what report --merge other/gan_benchmark.json

Contenders learn from four fifths of the training positives and are scored against the last fifth, other
patients all, in spaces that none of them was trained on; test images are never read. Rows are added to
<output-dir>/gan_benchmark.json one by one, and finished ones are kept, so any command may be interrupted,
given again, or split into many. Rows of an older version of the scoring are scored anew from the images in
--work-dir. Beside it lie figures and a grid of generated images.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, number, run_script
from common.options import add_options
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, cache_folder
from utils import UserError, resolve_precision, save_figure, select_device

if TYPE_CHECKING:
    from benchmarks.generators.contender_runs import Field
    from benchmarks.generators.contenders import Unit
    from benchmarks.generators.data import BenchmarkData
    from benchmarks.generators.rows import GANResults
    from benchmarks.generators.scores import Judge

log = logging.getLogger(__name__)


WHAT = ("peers", "options", "report", "install")


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Compare generators at equal time, or options of this project's at equal images."
    )
    add_options(parser, DATA_OPTIONS)
    add_options(parser, CACHE_OPTIONS)
    add = parser.add_argument
    add("--what", choices=WHAT, default="peers",
        help="peers: ours and others; options: sets of our options; report: tables and figures of what was "
        "measured; install: the environment of the others' packages")  # fmt: skip
    add("--contenders", type=names, metavar="NAME,...", help="for peers (default: all)")
    add("--set", action="append", metavar="NAME[=FLAGS]",
        help="for options: a set known by name, or one with flags of train_gan.py; may be repeated "
        "(default: default, cpu and best)")  # fmt: skip
    add("--seeds", type=seeds, default=(0, 1), metavar="N,...", help="a row for each")
    add("--minutes", type=number(float, above=0), default=10.0, metavar="X",
        help="for peers: wall time of training, without imports and sampling")  # fmt: skip
    add("--kimg", type=number(float, above=0), default=64.0, metavar="X",
        help="for options: thousands of images to show")  # fmt: skip
    add("--image-size", type=int, choices=(32, 64, 112, 128, 224, 256), default=64, help="pixels a side")
    add("--fold", type=int, choices=range(1, 6), default=1, metavar="N",
        help="fifth of the training positives that is held out, 1 to 5; options chosen on one are to be "
        "compared with others on another")  # fmt: skip
    add("--images", type=number(int, 16), default=200, metavar="N", help="images that each generates")
    add("--peers-dir", default=paths.PEERS_DIR, metavar="PATH", help="environment of the others' packages")
    add("--output-dir", default=paths.OUTPUT_DIR, metavar="PATH", help="folder of the results and figures")
    add("--work-dir", default=paths.GAN_BENCHMARK_DIR, metavar="PATH",
        help="folder of generated images, checkpoints and logs, which may be deleted afterwards")  # fmt: skip
    add("--grace", type=number(float, 0), default=30.0, metavar="X",
        help="minutes beyond --minutes after which a contender is ended")  # fmt: skip
    add("--again", action="store_true", help="measure anew what is finished; it stays until there are images")
    add("--merge", action="append", default=[], metavar="PATH",
        help="for report: another gan_benchmark.json whose rows are added; may be repeated")  # fmt: skip
    add("--workers", type=number(int, 1), default=4, metavar="N", help="threads that decode images")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is there")
    return parser


def names(text: str) -> tuple[str, ...]:
    """An argparse type: "a,b" -> ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def seeds(text: str) -> tuple[int, ...]:
    """An argparse type: "0,1" -> (0, 1)."""
    parse = number(int, 0, 2**31 - 1)
    return tuple(dict.fromkeys(parse(part) for part in names(text)))


# --- what is measured ------------------------------------------------------------------------------
def units_of(args: argparse.Namespace) -> list[Unit]:
    """Every contender with every seed, seeds outermost: an interrupted run has compared all with the first.

    ``UserError`` for a contender or a set of options that does not exist.
    """
    from benchmarks.generators.contenders import OURS, Budget, Unit, contenders, option_contender

    if args.what == "options":
        chosen = [option_contender(text) for text in args.set or OURS]
        budget = Budget(kimg=args.kimg)
    else:
        known = contenders()
        if unknown := [name for name in args.contenders or () if name not in known]:
            raise UserError(f"{unknown[0]!r} is no contender; they are {', '.join(known)}")
        chosen = [known[name] for name in args.contenders or known]
        budget = Budget(minutes=args.minutes)
    return [Unit(contender, seed, budget) for seed in args.seeds for contender in chosen]


def field_of(args: argparse.Namespace, data: BenchmarkData, device: str) -> Field:
    """Absolute paths: contenders are commands of their own."""
    from benchmarks.generators.contender_runs import Field

    flags = ["--data-dir", str(Path(args.data_dir).resolve()), "--splits", str(data.splits_file.resolve())]
    flags += [] if args.patient_map is None else ["--patient-map", str(Path(args.patient_map).resolve())]
    flags += ["--skip-bad-images"] if args.skip_bad_images else []
    flags += ["--no-cache"] if args.no_cache else ["--cache-dir", str(Path(args.cache_dir).resolve())]
    work, python = Path(args.work_dir).resolve(), paths.peers_python(Path(args.peers_dir).absolute())
    return Field(data, tuple(flags), work, python, device, args.images, 60 * args.grace)


def prepare(
    args: argparse.Namespace, header: Mapping[str, Any] | None = None
) -> tuple[Field, Judge, GANResults]:
    """Decode the images, train or fetch the scorer, open the result file and score anew what is scored
    otherwise. ``header``: of the file, where nothing is to be measured on this machine."""
    from benchmarks.generators.data import load_benchmark_data
    from benchmarks.generators.rows import GANResults, read_fitting
    from benchmarks.generators.scorer import load_scorer
    from benchmarks.generators.scores import Judge
    from benchmarks.machine import machine_facts

    device, cache = select_device(args.cpu), cache_folder(args.no_cache, args.cache_dir)
    data = load_benchmark_data(
        args.data_dir, args.splits, args.patient_map, args.image_size,
        workers=args.workers, skip_bad=args.skip_bad_images, cache_dir=cache, fold=args.fold,
    )  # fmt: skip
    if args.images < len(data.reference):
        raise UserError(f"--images {args.images} is less than the {len(data.reference)} held-out positives")
    of_machine = machine_facts(device) if header is None else header["machine"]
    here = {"machine": of_machine, "data": data.summary(), "images": args.images}
    read_fitting(paths.gan_benchmark_results(args.output_dir), here)  # refused before minutes of training
    scorer = load_scorer(data, cache, device, resolve_precision("auto", device))
    judge = Judge(data, scorer.features, scorer.digest)
    results = GANResults(paths.gan_benchmark_results(args.output_dir), here, judge.mark)
    results.describe_reals(scorer.facts, judge)
    field = field_of(args, data, device.type)
    results.rescore(field, judge)
    return field, judge, results


def compare(args: argparse.Namespace) -> None:
    from benchmarks.generators.rows import measure_units

    units = units_of(args)
    field, judge, results = prepare(args)
    measure_units(units, field, judge, results, args.what, args.again)
    save_grid(args, units, field, results.content)
    report(args, results.content, args.what)


def save_grid(args: argparse.Namespace, units: list[Unit], field: Field, content: Mapping[str, Any]) -> None:
    """The better generator's images of each contender with the first seed, as far as they are kept."""
    from benchmarks.generators.contender_runs import read_made
    from benchmarks.generators.figure import contender_grid

    better = {row["id"]: row["better"] for row in content["rows"] if row["status"] == "done"}
    made = {}
    for unit in units:
        if unit.seed == args.seeds[0] and unit.id in better:
            kept = read_made(paths.made_images(field.folder(unit)))
            if kept is not None:
                made[f"{unit.contender.name} ({better[unit.id]})"] = kept.images[better[unit.id]]
    if made:
        title = f"Generated images, drawn at random: {units[0].budget.words}, seed {args.seeds[0]}"
        save_figure(paths.gan_benchmark_grid(args.output_dir, args.what), contender_grid(made, title))


# --- reporting -------------------------------------------------------------------------------------
def report(args: argparse.Namespace, content: Mapping[str, Any], what: str) -> None:
    """The tables of ``what`` on the terminal, and its figure."""
    from benchmarks.generators.figure import gan_benchmark
    from benchmarks.generators.table import cost_table, summaries, table

    log.info(f"\n{what}: {describe_reals(content)}")
    log.info("\n".join([*table(content, what), "", *cost_table(content, what)]))
    found = summaries(content, what)
    if any(one["rows"] for one in found.values()):
        figure = paths.gan_benchmark_figure(args.output_dir, what)
        save_figure(figure, gan_benchmark(content, found))
        log.info(f"{paths.gan_benchmark_results(args.output_dir)} and {figure.name}")


def report_kept(args: argparse.Namespace) -> None:
    """``--what report``: of the result file, after the rows of those to be merged have joined it."""
    from benchmarks.generators.rows import merge_into, needs_scoring, read_results

    file = paths.gan_benchmark_results(args.output_dir)
    content = read_results(file)
    if needs_scoring(content):
        log.info(f"{file} was scored by an older version: scored anew from the images in --work-dir")
        args.image_size, args.images = content["data"]["image_size"], content["images"]
        content = prepare(args, content)[2].content
    for path in args.merge:
        if needs_scoring(read_results(Path(path))):
            raise UserError(
                f"{path} was scored by an older version: --what report --output-dir {Path(path).parent} with "
                "its --work-dir scores it anew"
            )
    if args.merge:
        content = merge_into(file, [Path(path) for path in args.merge])
    for what in dict.fromkeys(row["what"] for row in content["rows"]):
        report(args, content, what)


def describe_reals(content: Mapping[str, Any]) -> str:
    facts, scorer = content["data"], content["scorer"]
    return (
        f"{facts['learned_positives']:,} positives of {facts['learned_patients']:,} patients to learn from, "
        f"{facts['heldout_positives']:,} of {facts['heldout_patients']:,} to be scored against; the scoring "
        f"ResNet-18 has an AUROC of {scorer['heldout_auroc']:.2f} on held-out patients"
    )


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    if args.what == "install":
        from benchmarks.generators.contender_runs import install_peers

        install_peers(Path(args.peers_dir))
    elif args.what == "report":
        report_kept(args)
    else:
        compare(args)


if __name__ == "__main__":
    run_script(main)
