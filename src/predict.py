"""Predict pneumonia on X-rays of your own with trained classifiers. No medical device.

    python src/predict.py --model-path models/baseline_resnet50.pth --images ./xrays
    python src/predict.py --model-path models/baseline_r*_resnet50.pth --images list.csv --report page.html

One row per image: probability, decisions by thresholds that were chosen on fold models, and what is odd about the
image. An image that cannot be read is a row with its error. A run that was interrupted goes on where it stopped if
the same command is given again.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import common  # noqa: F401  first of all: refuses a Python that cannot run the rest
from common import paths
from common.command_line import argument_parser, number, run_script
from common.locks import claim
from common.options import Option
from common.output_folders import check_folders
from utils import UserError, readable, save_text, select_device

if TYPE_CHECKING:
    from prediction.ensembles import Ensemble
    from prediction.input_list import InputList
    from prediction.runs import Summary

log = logging.getLogger(__name__)

OPTIONS = (
    Option(
        "--model-path",
        "classifier of train_classifier.py; several training runs of one arm (--repeats) are averaged "
        "(default: none, required)",
        required=True, nargs="+", metavar="FILE",
    ),
    Option(
        "--images",
        "PNG, JPEG, TIFF and DICOM files, folders with all folders in them, or CSV files with a column path "
        "(default: none, required)",
        required=True, nargs="+", metavar="PATH",
    ),
    Option("--output", "table of the predictions; it repeats the names of your files", default=paths.PREDICTIONS,
           metavar="FILE"),
    Option("--results-dir", "folder where thresholds are looked for if the classifier's file holds none",
           default=paths.METRICS_DIR, metavar="PATH"),
    Option("--heatmaps", "folder for a heat map (Grad-CAM) of every image (default: none)", metavar="DIR"),
    Option(
        "--report",
        f"page of the most suspicious images; its name ends in {paths.REAL_PAGE_SUFFIX} (default: none)",
        metavar="FILE",
    ),
    Option("--report-images", "most images in --report", type=number(int, 1), default=200, metavar="N"),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    Option("--cpu", "use the CPU even if a GPU is available", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser((__doc__ or "").split("\n\n", 1)[0], OPTIONS)


def check_outputs(args: argparse.Namespace) -> None:
    """Raise ``UserError`` if what the options name cannot be written, or would take the place of what is read."""
    read = [Path(file).absolute() for file in (*args.model_path, *args.images)]
    if Path(args.output).absolute() in read:
        raise UserError(f"--output {args.output} is read, too; name another file")
    folders = {"--output": Path(args.output).parent}
    if args.heatmaps is not None:
        folders["--heatmaps"] = Path(args.heatmaps)
    if args.report is not None:
        folders["--report"] = Path(args.report).parent
    for flag, file in (("--output", args.output), ("--report", args.report)):
        if file is not None and Path(file).is_dir():
            raise UserError(f"{flag} {file} is a folder; name a file in it")
    check_folders(folders)


def find_images(args: argparse.Namespace) -> InputList:
    """List the images; raises ``UserError`` if there are none, or DICOM files that cannot be decoded here."""
    from dataset.dicom_files import is_dicom, require_dicom_packages
    from prediction.input_list import list_inputs

    images = list_inputs(args.images, own_files=[Path(args.output)])
    if any(is_dicom(file) for file in images.files):
        require_dicom_packages()
    for note in images.notes:
        log.info(f"note: {note}")
    return images


def predict(args: argparse.Namespace, ensemble: Ensemble, files: list[Path]) -> Summary:
    """Predict ``files`` and write the table, the heat maps and the page."""
    from prediction.output_table import OutputTable
    from prediction.runs import Summary, predict_files
    from report.prediction_page import compose_prediction_page

    heat_map_dir = None if args.heatmaps is None else Path(args.heatmaps)
    table = OutputTable(Path(args.output), files, [ensemble.identity, str(heat_map_dir)])
    try:
        predict_files(table, ensemble, args.workers, heat_map_dir)
    except KeyboardInterrupt as stop:
        stop.add_note(f"the same command goes on with what is in {table.part}")
        raise
    summary = Summary(0 if args.report is None else args.report_images)
    table.finish(summary.add)
    if args.report is not None:
        page = paths.prediction_page(args.report)
        save_text(page, compose_prediction_page(summary, ensemble, heat_map_dir))
        log.info(f"page (shows patients' images): {page}")
    return summary


def log_outcome(summary: Summary, ensemble: Ensemble, output: str) -> None:
    """Say what came out, in a few lines; raises ``UserError`` if nothing could be predicted."""
    from report.prediction_page import decision_rules

    for row in summary.unreadable[:5]:
        log.warning(f"WARNING: {readable(str(row.file))}: {readable(row.error)}")
    if summary.n_predicted == 0:
        raise UserError(f"none of {summary.n_images:,} images could be read; {output} says why for each")
    called = ", ".join(f"{summary.positive[rule.field]:,} at {rule.name}" for rule in decision_rules(ensemble))
    unreadable = summary.n_images - summary.n_predicted
    log.info(
        f"{summary.n_predicted:,} images predicted, {unreadable:,} unreadable, {summary.n_odd:,} with warnings; "
        f"positive: {called}"
    )
    log.info(f"predictions: {output}")


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    check_outputs(args)
    from prediction.ensembles import load_ensemble

    ensemble = load_ensemble(args.model_path, args.results_dir, select_device(args.cpu))
    images = find_images(args)
    for flag in ensemble.red_flags:
        log.warning(f"RED FLAG: {flag}")
    log.info(f"thresholds: {ensemble.points_note}")
    output = Path(args.output)
    with claim([output.parent], output.name, "predict.py"):
        summary = predict(args, ensemble, images.files)
    log_outcome(summary, ensemble, args.output)


if __name__ == "__main__":
    run_script(main)
