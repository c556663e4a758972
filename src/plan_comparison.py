"""Fix the one question of a comparison before anything is trained: plan.json, to which every run is then held.

    python src/plan_comparison.py --primary augmented:control_duplicate --metric auroc --margin 1

It says how large a difference such a comparison can be expected to show. The analysis calls the planned pair
confirmatory and everything else exploratory. A plan is never changed: another one goes to another file.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from common.command_line import argument_parser, parser_of_words, run_script
from common.plan_files import ComparisonPlan, PlannedImages, PlannedStudy
from dataset.options import cache_folder
from studies.commands import data_words
from studies.options import PLANNING_OPTIONS, STUDY_OPTIONS, arms_of_study, wrong_cross_fit, wrong_few_labels
from studies.planned_options import commands_of_study, planned_options, study_numbers, values_of
from utils import UserError, load_json, plain, public_path, save_json, sha256_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from dataset.records import Dataset
    from dataset.splits import Splits

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    return argument_parser((__doc__ or "").split("\n\n", 1)[0], PLANNING_OPTIONS)


def study_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of run_study.py, as the sections of --config and --study-args give them."""
    parsed, unknown = parser_of_words(STUDY_OPTIONS, "run_study.py").parse_known_args(args.study_args)
    if unknown:
        raise UserError(f"--study-args: run_study.py has no option {unknown[0]}")
    if parsed.cross_fit and args.generation_args:
        raise UserError("--generation-args and --cross-fit exclude each other: run_study.py gives it itself")
    if args.study_args and not parsed.cross_fit:
        raise UserError("run_study.py without --cross-fit cannot be planned: a curve asks many questions, not one")
    if parsed.gans_from:
        raise UserError("--gans-from is not for a plan: its GANs must be trained under it")
    if parsed.doses:
        raise UserError("--doses is not for a plan: several doses ask several questions")
    given = {name: value for name, value in vars(args).items() if name in vars(parsed) and name != "plan"}
    options = {**vars(parsed), **given, "plan": None}
    options["arms"] = arms_of_study(options["arms"], options["labelled_patients"])
    if problem := wrong_cross_fit(options) or wrong_few_labels(options):
        raise UserError(problem)
    return options


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from dataset.records import load_dataset
    from stats.metric_registry import compared_metrics

    metrics = [metric.name for metric in compared_metrics()]
    if args.metric not in metrics:
        raise UserError(f"--metric {args.metric} is not compared; choose from {', '.join(metrics)}")

    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    options = study_options(args)
    plan = plan_for_study(args, options, dataset) if options["cross_fit"] else plan_for_split(args, dataset)
    write(plan, Path(args.plan))
    describe(plan)
    log.info(f"plan: {public_path(args.plan)}, SHA-256 {sha256_file(args.plan)[:12]}")


def describe(plan: ComparisonPlan) -> None:
    """Say what is planned, and how large a difference it can be expected to show."""
    from stats.paired_tests import points

    asked, seen = plan["primary"], plan["images"]
    margin = points(asked["margin"] / 100)
    log.info(
        f"planned: {asked['arm']} against {asked['against']}, in {asked['metric']}, margin {margin}, on "
        f"{seen['n_images']:,} images of {seen['n_patients']:,} patients, {seen['n_positive']:,} positive"
    )
    scale, unit = (100, " points") if asked["metric"] == "accuracy" else (1, "")
    detectable = plan["detectable"]
    log.info(
        f"a true difference of {scale * detectable['difference']:.{1 if unit else 3}f}{unit} is found with 80 % power, "
        f"if {detectable['assumed']}"
    )


def plan_for_study(args: argparse.Namespace, options: dict[str, Any], dataset: Dataset) -> ComparisonPlan:
    """Plan a cross-fitted study; freezes the splits of its folds."""
    from studies.few_labels import plan_study

    batch_size = values_of("train_classifier", options["classifier_args"])["batch_size"]
    for name in args.primary:
        if name not in options["arms"]:
            raise UserError(f"--primary {name} is no arm of this study; its --arms are {', '.join(options['arms'])}")
    study = plan_study(dataset, options, batch_size, cache_folder(args.no_cache, args.cache_dir))
    return make_plan(
        args, study_numbers(options), commands_of_study(study), dataset, dataset.images, list(study.splits.values())
    )


def plan_for_split(args: argparse.Namespace, dataset: Dataset) -> ComparisonPlan:
    """Plan a comparison on one frozen split, which it freezes."""
    from dataset.splits import TEST, load_or_create_splits, select

    splits = load_or_create_splits(dataset, args.splits, cache_folder(args.no_cache, args.cache_dir))
    data = data_words(None, None, args.patient_column, args.skip_bad_images, args.bits)
    told = [*data, *args.classifier_args]
    commands = [
        ("train_classifier", told),
        ("train_classifier", [*told, "--k-folds", "0"]),  # controls need no folds of their own
        ("train_gan", [*data, *args.gan_args]),
        ("generate_synthetic", args.generation_args),
    ]
    own = values_of("train_classifier", told)
    if own["test_set"] != "split":
        raise UserError(f"--test-set {own['test_set']} cannot be planned: a plan is for the frozen split")
    study: PlannedStudy = {"folds": None, "gans": 1, "repeats": own["repeats"], "seed": own["seed"]}
    return make_plan(args, study, commands, dataset, select(dataset, splits, TEST), [splits])


def make_plan(
    args: argparse.Namespace, study: PlannedStudy, commands: Sequence[tuple[str, Sequence[str]]],
    dataset: Dataset, tested: pd.DataFrame, splits: Sequence[Splits],
) -> ComparisonPlan:  # fmt: skip
    """Put a plan together; ``tested``: the images that answer the question."""
    from stats.planned_power import assumptions, planned_difference

    of_images: PlannedImages = {
        "n_images": len(tested),
        "n_patients": int(tested["patient"].nunique()),
        "n_positive": int(tested["label"].sum()),
        "data_sha256": dataset.data_sha256,
        "split_sha256": [each.sha256 for each in splits],
    }
    positive, negative = of_images["n_positive"], of_images["n_images"] - of_images["n_positive"]
    runs = (study["folds"] or 1) * study["gans"] * study["repeats"]
    arm, against = args.primary
    return {
        "format": "comparison-plan-1",
        "primary": {"arm": arm, "against": against, "metric": args.metric, "margin": args.margin},
        "study": study,
        "images": of_images,
        "detectable": {
            "difference": planned_difference(args.metric, positive, negative, of_images["n_patients"], runs),
            "assumed": assumptions(args.metric),
        },
        "options": planned_options(commands),
    }


def write(plan: ComparisonPlan, file: Path) -> None:
    """Write the plan. Raises ``UserError`` if another one is there: a plan that is changed later is none."""
    if file.is_file() and load_json(file) != plain(plan):
        raise UserError(
            f"{public_path(file)} holds another plan, and results may be held to it: give --plan another name, or "
            "delete it, after which its results are exploratory"
        )
    if not file.is_file():
        save_json(file, plan)


if __name__ == "__main__":
    run_script(main)
