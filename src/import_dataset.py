"""Import a labelled set of chest X-rays that lies on your disk in another layout.

    python src/import_dataset.py --from folders --source ./chest_xray --data-dir ./data/kermany

Says what it understood, and writes the folder that the other scripts read: images that hold pixels and nothing
else, one table, and provenance.json, which says what "positive" means there. The source is never changed. The
same command goes on after an interruption. No log file is written, as it would repeat names of files.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.command_line import argument_parser, run_script
from common.locks import claim
from common.output_folders import check_folders
from importers.options import DEFAULT_UNCERTAIN, LAYOUT_OF_GROUP, OPTIONS

if TYPE_CHECKING:
    from importers.sources import Source

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Import a labelled set of chest X-rays from another layout.", OPTIONS)


def parse_checked(argv: list[str] | None) -> tuple[str, argparse.Namespace]:
    """Parse the command line: (the layout, all options); exit code 2 for options that do not go together."""
    parser = build_parser()
    args = parser.parse_args(argv)
    layout: str = vars(args)["from"]
    for option in OPTIONS:
        only = LAYOUT_OF_GROUP.get(option.group or "", layout)
        if only != layout and getattr(args, option.name) is not None:
            parser.error(f"{option.flag} is for --from {only}")
    if layout == "rsna-kaggle" and args.positive:
        parser.error("--positive is for other layouts: RSNA's table says which images are positive")
    if args.patient_map and layout in ("folders", "csv") and not args.keep_names:
        parser.error("--patient-map names images by their files: it needs --keep-names")
    return layout, args


def read_source(layout: str, args: argparse.Namespace) -> Source:
    """Read the tables and the file names of the source."""
    root, positive, skip_bad = Path(args.source), args.positive or (), args.skip_bad_images
    if layout == "folders":
        from importers.folders import read_folders

        return read_folders(root, positive, args.group_pattern)
    if layout == "rsna-kaggle":
        from importers.rsna_kaggle import read_rsna_kaggle

        return read_rsna_kaggle(root, skip_bad)
    if layout == "nih":
        from importers.nih import read_nih

        return read_nih(root, positive, skip_bad)
    if layout == "chexpert":
        from importers.chexpert import read_chexpert

        return read_chexpert(root, positive, args.uncertain or DEFAULT_UNCERTAIN, skip_bad)
    from importers.csv_table import USUAL_NAMES, read_csv_table

    given = {key: getattr(args, f"{key}_column") for key in USUAL_NAMES}
    return read_csv_table(root, Path(args.table) if args.table else None, given, positive, skip_bad)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that change what is written."""
    ours = ("positive", "uncertain", "image_column", "label_column", "patient_column", "age_column", "sex_column",
            "view_column")  # fmt: skip
    pattern = args.group_pattern and args.group_pattern.pattern
    return {**{name: getattr(args, name) for name in ours}, "group_pattern": pattern}


def main(argv: list[str] | None = None) -> None:
    layout, args = parse_checked(argv)
    folder, root = Path(args.data_dir), Path(args.source)
    check_folders({"--data-dir": folder})
    from dataset.patient_keys import key_fingerprint, load_key
    from dataset.records import CHECK_COMMAND, load_dataset
    from importers.description import describe_import, describe_result
    from importers.survey import survey as survey_images
    from importers.target import check_places
    from importers.writing import plan_import, run_import

    check_places(folder, root)
    key = load_key(args.patient_key, [folder, root])
    fingerprint = key_fingerprint(key) if args.patient_key else None
    source = read_source(layout, args)
    survey = survey_images(source, key, args.workers, args.skip_bad_images)
    mapping = Path(args.patient_map) if args.patient_map else source.patient_map
    plan = plan_import(
        folder, source, survey, layout, keep_names=args.keep_names, patient_map=mapping,
        key_fingerprint=fingerprint, settings={**settings_of(args), "key": fingerprint},
    )  # fmt: skip
    for line in describe_import(source, survey, plan.provenance["patients"]):
        log.info(line)
    with claim([folder], "import_dataset", "import_dataset.py"):
        provenance = run_import(plan, args.workers, args.skip_bad_images)
    dataset = load_dataset(folder)
    for line in describe_result(folder, provenance):
        log.info(line)
    dataset.log_findings()
    log.info(f"next: {CHECK_COMMAND} {shlex.quote(str(folder))}")


if __name__ == "__main__":
    run_script(main)
