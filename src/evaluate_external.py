"""Test the final models of all arms on a data set that nothing was trained on.

    python src/evaluate_external.py --data-dir ./data/external --name hospital_b
    python src/analyze_results.py --test-set external:hospital_b                   # the report

Images that training has seen, by id, patient or picture, are refused. Nothing is chosen on the external images.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from common import paths
from common.command_line import argument_parser, number, public_config, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from comparison.options import external_name
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS, cache_folder

log = logging.getLogger(__name__)

READING = tuple(option for option in DATA_OPTIONS if option.name not in ("data_dir", "splits"))
OPTIONS = (
    Option(
        "--data-dir", f"folder of the external images, labelled, in the layout of {paths.DATA_DIR}",
        default=paths.EXTERNAL_DATA_DIR, metavar="PATH",
    ),
    Option(
        "--name", "name of the test, of letters, digits, - and _; its results go to <results-dir>/external/NAME "
        "(default: none, required)",
        type=external_name, required=True, metavar="NAME",
    ),
    Option("--model-dir", "folder of the final models", default=paths.MODEL_DIR, metavar="PATH"),
    Option(
        "--results-dir", "folder of the results; those of the training are in its folder metrics",
        default=paths.OUTPUT_DIR, metavar="PATH",
    ),
    Option(
        "--train-data-dir",
        "data that the models were trained on, with which the external images are compared; none if they are not here: "
        "copies of training images are then not looked for, and a red flag says so (default: the folder that the "
        "models name)",
        metavar="PATH",
    ),
    Option(
        "--drop-overlap", "leave out images that training has, or may have, seen, and count them, instead of stopping",
        switch=True,
    ),
    *READING,
    *CACHE_OPTIONS,
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    Option("--cpu", "use the CPU even if a GPU is available", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser((__doc__ or "").split("\n\n", 1)[0], OPTIONS)


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    metrics_dir = Path(args.results_dir) / Path(paths.METRICS_DIR).name
    folder = paths.external_folder(metrics_dir, args.name)
    check_folders({"--results-dir": folder})
    from prediction.external import evaluate
    from prediction.external_data import ExternalOptions
    from utils import select_device

    options = ExternalOptions(
        name=args.name,
        data_dir=args.data_dir,
        model_dir=args.model_dir,
        metrics_dir=metrics_dir,
        train_data_dir=args.train_data_dir,
        drop_overlap=args.drop_overlap,
        patient_map=args.patient_map,
        patient_column=args.patient_column,
        skip_bad_images=args.skip_bad_images,
        bits=args.bits,
        cache_dir=cache_folder(args.no_cache, args.cache_dir),
        workers=args.workers,
    )
    with claim([folder], "external", "evaluate_external.py"):
        keep_run_log(metrics_dir)
        result = evaluate(options, public_config(vars(args)), select_device(args.cpu))
    for flag in result["red_flags"]:
        log.warning(f"RED FLAG: {flag}")
    arms = f"{len(result['arms'])} arm" + ("" if len(result["arms"]) == 1 else "s")
    log.info(
        f"{args.name}: {result['n_images']:,} images of {result['n_patients']:,} patients predicted by "
        f"{arms}: {folder}\nthe report: `python src/analyze_results.py --test-set "
        f"external:{args.name}`"
    )


if __name__ == "__main__":
    run_script(main)
