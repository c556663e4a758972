"""Compare the arms that were trained, and the synthetic images with real ones; write figures and reports.

Reads what the other scripts left on disk and says what is missing instead of failing for it; only a
folder without the results of any classifier is an error.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields
from pathlib import Path

from common import paths
from common.command_line import argument_parser, command_line, number, public_config, run_script
from common.options import add_options
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, cache_folder
from utils import load_json, save_text

log = logging.getLogger(__name__)


DEFAULT_MARGIN = 1.0  # percentage points


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Compare classifiers trained with and without synthetic images, and the images.")
    add = parser.add_argument
    add("--metrics-dir", default=paths.METRICS_DIR, metavar="PATH", help="folder of the training metrics")
    add("--analysis-dir", default=paths.ANALYSIS_DIR, metavar="PATH", help="folder for reports and figures")
    add(
        "--arms",
        metavar="NAMES",
        help="arms to compare, separated by commas: file prefixes without the last _ (default: all found)",
    )
    add(
        "--margin",
        type=number(float, above=0),
        default=DEFAULT_MARGIN,
        metavar="POINTS",
        help="two arms whose whole 95 %% interval lies within it are called equivalent; percentage points of "
        "accuracy, hundredths of AUROC",
    )
    add(
        "--prevalence",
        type=number(float, above=0, high=1),
        metavar="FRACTION",
        help="share of ill people for which PPV and NPV are given as well (default: none)",
    )
    add_options(parser, DATA_OPTIONS)
    add_options(parser, CACHE_OPTIONS)
    add("--synthetic-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of synthetic images")
    add(
        "--model-dir",
        default=paths.MODEL_DIR,
        metavar="PATH",
        help="folder of the classifiers, for heat maps; the baseline's features stand in for Inception's",
    )
    add("--num-compare", type=number(int, 1), default=100, metavar="N", help="image pairs of each SSIM row")
    add(
        "--num-fid",
        type=number(int, 2),
        default=2000,
        metavar="N",
        help="most images on each side of a Fréchet distance; fewer where fewer exist",
    )
    add("--skip-ssim", action="store_true", help="leave the SSIM comparison out")
    add(
        "--extractor",
        choices=("auto", "inception", "classifier"),
        default="auto",
        help="features for the Fréchet distance: Inception's, the baseline classifier's, or (auto) the first "
        "if its weights are cached or can be downloaded",
    )
    add("--no-real-images", action="store_true", help="leave out every picture that shows a real X-ray")
    add(
        "--image-size",
        type=number(int, 32),
        metavar="N",
        help="side in pixels at which images are compared (default: the baseline classifier's, else that of "
        "the synthetic images, else 224)",
    )
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="seed of every random draw")
    add("--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images")
    add("--cpu", action="store_true", help="force CPU usage even if a GPU is available")
    return parser


def own_command(args: argparse.Namespace) -> str:
    """The command line of this run: the options that are not the default."""
    usual = public_config(vars(build_parser().parse_args([])))
    return command_line(
        "analyze_results", {k: v for k, v in public_config(vars(args)).items() if v != usual[k]}
    )


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from arms.result_files import find_arms, select_arms

    found = arms = find_arms(args.metrics_dir)
    if args.arms:
        arms = select_arms(found, [name.strip() for name in args.arms.split(",") if name.strip()])
    # After the arms: a wrong folder is told at once.
    from comparison.arms import compare
    from report.image_steps import ImageOptions, look_at_images
    from report.page import compose_page
    from report.sections import Findings
    from report.steps import (
        Outcome,
        commands,
        draw_comparison,
        draw_training,
        note_missing,
        remove_reports,
        remove_stale,
    )
    from report.text import compose_text

    outcome = Outcome(Path(args.analysis_dir))
    file = paths.comparison(outcome.folder)
    left_out = {name: arm for name, arm in found.items() if name not in arms}
    content = compare(
        arms, margin=args.margin / 100, prevalence=args.prevalence, seed=args.seed, left_out=left_out
    )
    remove_reports(outcome.folder)
    outcome.numbers(file, content, "every arm and every pair in numbers, as fractions")
    comparison = load_json(file)  # what is written below holds for the file, not for what was in memory
    note_missing(arms, left_out, args.metrics_dir, outcome)
    draw_comparison(arms, comparison, outcome)
    draw_training(arms, outcome)
    named = {field.name: getattr(args, field.name) for field in fields(ImageOptions)}
    options = ImageOptions(**named | {"cache_dir": cache_folder(args.no_cache, args.cache_dir)})
    compared = look_at_images(options, arms, outcome)
    remove_stale(outcome)
    sources = {row["thresholds"]["source"] for row in comparison["arms"].values()}
    used = {name: arm for name, arm in found.items() if name in arms or name in sources}
    findings = Findings(
        comparison=comparison,
        cross_validated={name: arm.cv for name, arm in arms.items() if arm.cv},
        quality=compared.quality,
        comparability=compared.comparability,
        flags=[*comparison["flags"], *outcome.warnings],
        missing=outcome.missing,
        pictures=outcome.pictures,
        commands=commands(used, comparison, args.metrics_dir, compared.manifest, own_command(args)),
        files=outcome.files,
        no_real_images=args.no_real_images,
    )
    text, page = compose_text(findings), paths.report_page(outcome.folder)
    save_text(paths.comparison_report(outcome.folder), text)
    save_text(page, compose_page(findings, outcome.folder))
    log.info(f"\n{text}\nthe same with its figures, for a browser: {page}")


if __name__ == "__main__":
    run_script(main)
