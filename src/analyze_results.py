"""Compare the trained arms, and the synthetic images with real ones; write figures and reports.

Reads what the other scripts left on disk and says what is missing instead of failing for it; only a folder
without the results of any classifier is an error.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common import paths
from common.command_line import argument_parser, command_line, public_config, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders
from common.plan_files import NO_PLAN, named_files, open_plan
from comparison.options import ANALYSIS_OPTIONS, DEFAULT_MARGIN, EXTERNAL, INTERNAL
from dataset.options import cache_folder
from utils import load_json, save_text

if TYPE_CHECKING:
    from arms.result_files import Arm
    from comparison.external import ExternalResults
    from comparison.file_formats import Comparison, PlannedPair
    from comparison.final_models import Sources
    from report.file_formats import PatientFlow
    from report.image_steps import ImageResults
    from report.sections import Findings
    from report.steps import Outcome

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What is asked of the arms: differences beyond ``margin`` (a fraction), and the ``question`` of a plan."""

    margin: float
    question: PlannedPair | None


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the table of options."""
    return argument_parser(
        "Compare classifiers trained with and without synthetic images, and the images.", ANALYSIS_OPTIONS
    )


def changed_options_command(options: Mapping[str, Any]) -> str:
    """Write the command line of a run, with the options that are not the default."""
    usual = public_config({option.name: option.default for option in ANALYSIS_OPTIONS})
    given = {name: value for name, value in public_config(options).items() if value != usual[name]}
    return command_line("analyze_results", given)


def scoring_sources(args: argparse.Namespace) -> Sources:
    """Say where images and models lie, for what scores test images again."""
    from comparison.final_models import Sources
    from utils import select_device

    cache_dir, device = cache_folder(args.no_cache, args.cache_dir), select_device(args.cpu)
    return Sources(
        args.data_dir, args.patient_map, args.patient_column, args.model_dir, cache_dir, args.workers, args.seed,
        device, args.bits,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Compare the arms, then the images; write the numbers, the figures and the reports."""
    args = build_parser().parse_args(argv)
    folder = analysis_folder(args)
    check_folders({"--analysis-dir": folder})
    from arms.result_files import find_arms, select_arms
    from comparison.external import read_external
    from comparison.planned_pairs import agreed_margin, planned_question

    # A plan asks about the internal test.
    plan, external = open_plan(args.plan if args.test_set == INTERNAL else NO_PLAN), None
    margin = agreed_margin(args.margin, plan, DEFAULT_MARGIN)
    if args.test_set != INTERNAL:
        external = read_external(args.metrics_dir, args.test_set.removeprefix(EXTERNAL), args.model_dir)
    found = arms = external.arms if external else find_arms(args.metrics_dir)
    if args.arms:
        arms = select_arms(found, [name.strip() for name in args.arms.split(",") if name.strip()])
    asked = Asked(margin, planned_question(plan, list(arms.values())))
    # After the arms: a wrong folder is told at once.
    with claim([folder], "analysis", "analyze_results.py"):
        write_analysis(args, found, arms, external, asked)


def analysis_folder(args: argparse.Namespace) -> Path:
    """Return the folder of the report: an external test has its own."""
    if args.test_set == INTERNAL or args.analysis_dir != paths.ANALYSIS_DIR:
        return Path(args.analysis_dir)
    return paths.external_analysis(paths.external_folder(args.metrics_dir, args.test_set.removeprefix(EXTERNAL)))


def compare(
    args: argparse.Namespace, found: dict[str, Arm], arms: dict[str, Arm], external: ExternalResults | None,
    sources: Sources, asked: Asked,
) -> Comparison:  # fmt: skip
    """Compare the chosen ``arms``: the content of comparison.json."""
    from comparison.arms import compare_arms
    from comparison.external import add_external, describe_shift
    from comparison.reviewer_numbers import add_reviewer_numbers
    from comparison.shortcuts import find_shortcuts, shortcut_flags

    left_out = {name: arm for name, arm in found.items() if name not in arms}
    content = compare_arms(
        arms, margin=asked.margin, prevalence=args.prevalence, seed=args.seed, left_out=left_out,
        question=asked.question,
    )  # fmt: skip
    content.update(named_files())
    if external:
        add_external(content, describe_shift(external, arms, args.seed))
    else:
        tests = find_shortcuts(arms, sources)
        content["shortcut_tests"], content["flags"] = tests, [*shortcut_flags(tests), *content["flags"]]
    add_reviewer_numbers(arms, content)
    return content


def look_at_training(
    args: argparse.Namespace, arms: dict[str, Arm], outcome: Outcome
) -> tuple[ImageResults, PatientFlow]:
    """Draw what is of the training and not of a test: curves, folds, synthetic images, patient flow."""
    from report.image_steps import ImageOptions, look_at_images
    from report.reviewer_files import write_flow
    from report.steps import draw_training

    draw_training(arms, outcome)
    named = {field.name: getattr(args, field.name) for field in fields(ImageOptions)}
    options = ImageOptions(**named | {"cache_dir": cache_folder(args.no_cache, args.cache_dir)})
    compared = look_at_images(options, arms, outcome)
    return compared, write_flow(arms, compared.data, outcome)


def write_analysis(
    args: argparse.Namespace, found: dict[str, Arm], arms: dict[str, Arm], external: ExternalResults | None,
    asked: Asked,
) -> None:  # fmt: skip
    """Compare the chosen ``arms``, of all that were ``found``, then the images; write numbers, figures, reports.

    ``external``: the test that the arms were found in; None for that of their training.
    """
    from comparison.external import find_reports
    from report.image_steps import ImageResults
    from report.reviewer_files import add_cards
    from report.reviewer_steps import add_robustness, draw_real_images, draw_reviewer_figures
    from report.sections import Findings
    from report.steps import Outcome, commands, draw_comparison, note_missing, remove_reports, remove_stale

    keep_run_log(args.metrics_dir if external else args.analysis_dir)
    outcome = Outcome(analysis_folder(args))
    file = paths.comparison(outcome.folder)
    left_out = {name: arm for name, arm in found.items() if name not in arms}
    sources = scoring_sources(args)
    content = compare(args, found, arms, external, sources, asked)
    add_robustness(arms, content, args.robustness, None if external else sources, outcome)
    remove_reports(outcome.folder)
    outcome.numbers(file, content, "every arm and every pair in numbers, as fractions")
    comparison = load_json(file)  # what is written below holds for the file, not for what was in memory
    note_missing(arms, left_out, args.metrics_dir, outcome)
    draw_comparison(arms, comparison, outcome)
    draw_reviewer_figures(comparison, outcome)
    compared, flow = ImageResults(), None
    if not external:
        draw_real_images(arms, comparison, sources, outcome, args.no_real_images)
        compared, flow = look_at_training(args, arms, outcome)
    remove_stale(outcome)
    with_folds = {row["thresholds"]["source"] for row in comparison["arms"].values()}
    used = {name: arm for name, arm in found.items() if name in arms or name in with_folds}
    own_command = changed_options_command(vars(args))
    findings = Findings(
        comparison=comparison,
        cross_validated={name: arm.cv for name, arm in arms.items() if arm.cv and not external},
        quality=compared.quality,
        comparability=compared.comparability,
        flags=[*comparison["flags"], *outcome.warnings],
        missing=outcome.missing,
        pictures=outcome.pictures,
        commands=commands(used, comparison, args.metrics_dir, compared.manifest, own_command),
        files=outcome.files,
        no_real_images=args.no_real_images,
        flow=flow,
        external_reports=[] if external else find_reports(args.metrics_dir),
        folder=outcome.folder,
    )
    if flow:
        findings = add_cards(findings, arms, compared, args.metrics_dir, outcome.folder)
    write_reports(findings)


def write_reports(findings: Findings) -> None:
    """Write the report as text and as a page; print the answer."""
    from report.page import compose_page
    from report.sections import sections
    from report.text import compose_answer, compose_text

    text, page = paths.comparison_report(findings.folder), paths.report_page(findings.folder)
    save_text(text, compose_text(findings))
    save_text(page, compose_page(findings, findings.folder))
    log.info(compose_answer(sections(findings)))
    log.info(f"the whole report: {text}; with its figures, for a browser: {page}")


if __name__ == "__main__":
    run_script(main)
