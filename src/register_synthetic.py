"""Register X-rays that were made elsewhere, for example by a diffusion model, so that training accepts them.

    python src/register_synthetic.py --images ./from_elsewhere --trained-on ids.csv

Copies the images to <output-dir> as 8-bit gray PNG (synthetic_00001.png, ... in the order of their names)
and writes a manifest of what their generator was trained on, so that train_classifier.py --use-synthetic
takes them like those of generate_synthetic.py. A generator that saw a test patient is refused. Only the
generator's maker knows whether the list of what it saw is complete. Folds trained with images of a generator
--trained-elsewhere count as contaminated.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, number, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from dataset.options import DATA_OPTIONS, PART_OPTIONS, fold_problem
from utils import save_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataset.records import Dataset, OfficialTest
    from dataset.splits import Splits
    from synthetic.file_formats import Origin
    from synthetic.folders import SyntheticSet
    from synthetic.foreign_images import Source

log = logging.getLogger(__name__)

LABELS = {"positive": 1, "negative": 0}
OPTIONS = (
    Option(
        "--images", "folder of the images, PNG, JPEG or DICOM of any size; never changed (default: none, required)",
        required=True, metavar="PATH",
    ),
    Option(
        "--trained-on",
        "list of the images that the generator was trained on: a CSV file with a column image_id, "
        "patientId or Image Index, or one id a line (default: none, then --trained-elsewhere is required)",
        metavar="CSV",
    ),
    Option(
        "--trained-elsewhere",
        "another data set that the generator was trained on (too); a red flag in every result "
        "(default: none)",
        metavar="NAME",
    ),
    Option("--label", "what the images show", choices=tuple(LABELS), default="positive"),
    Option("--generator", "name and version of the generator (default: not recorded)", metavar="NAME"),
    Option(
        "--output-dir", "folder of the copies; with --fold I its subfolder fold_I",
        default=paths.SYNTHETIC_DIR, metavar="PATH",
    ),
    Option("--overwrite", "remove the folder's synthetic images and manifest first", switch=True),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    *PART_OPTIONS,
    *DATA_OPTIONS,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Register images that another generator made, so that training accepts them.", OPTIONS)


def parse_checked(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exit code 2 for options that do not go together."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if problem := fold_problem(args.fold, args.k_folds):
        parser.error(problem)
    if args.trained_on is None and not args.trained_elsewhere:
        parser.error("give --trained-on CSV or --trained-elsewhere NAME: what the generator has seen")
    return args


def check_listed(
    listed: list[str], elsewhere: str | None, dataset: Dataset, official: OfficialTest | None, splits: Splits
) -> tuple[list[str], list[str], list[str]]:
    """Check the training images ``listed`` for leaks; returns (image ids, patients, red flags)."""
    from dataset.patients import grouping_sentence
    from synthetic.folders import few_images_flags
    from synthetic.leak_checks import find_seen, refuse_leaks, refuse_overlapping

    refuse_overlapping(elsewhere)
    seen, flags = find_seen(listed, dataset, official, elsewhere)
    refuse_leaks(seen, splits)
    if listed:
        people = f"{len(seen.patients):,} patients or groups"
        outcome = f"the generator saw {len(seen.ids):,} images of {people}, none of the test set"
        if flags or elsewhere:
            outcome = (
                f"{len(seen.ids) - len(seen.unknown):,} of the {len(seen.ids):,} images listed could be compared with "
                f"the test set ({people}; no overlap was found); what else the generator saw is unknown"
            )
        log.info(f"{outcome}; {grouping_sentence(dataset.grouped_by)}")
    return seen.ids, seen.patients, flags + ([] if elsewhere else few_images_flags(len(seen.ids)))


def describe_sources(sources: Sequence[Source], skipped: list[str]) -> dict[str, Any]:
    """Say in the manifest's words what the images are; image_size is None unless all are equal squares."""
    sizes = {source.size for source in sources}
    width, height = sources[0].size
    hashes = "".join(source.sha256 for source in sources)
    return {
        "generator_sha256": None,  # the generator is not here; its images are
        "images_sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "image_size": width if len(sizes) == 1 and width == height else None,
        "source_names": [source.path.name for source in sources],
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }


def read_back(folder: Path, dataset: Dataset, official: OfficialTest | None, splits: Splits) -> SyntheticSet:
    """Read the folder as training will."""
    from dataset.patients import GROUPED_BY_PATIENT
    from dataset.splits import TEST, select
    from synthetic.folders import load_synthetic
    from synthetic.leak_checks import known_patients

    test = select(dataset, splits, TEST)
    patient_of = known_patients(dataset, official)
    test_images = dict(zip(test["image_id"], test["patient"], strict=True))
    return load_synthetic(folder, patient_of, test_images, by_nih=dataset.grouped_by == GROUPED_BY_PATIENT)


def main(argv: list[str] | None = None) -> None:
    args = parse_checked(argv)
    check_folders({"--output-dir": args.output_dir})
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import describe_splits, load_or_create_splits, training_part
    from synthetic.folders import CLAIM, begin_manifest, clear, make_manifest
    from synthetic.foreign_images import copy_images, find_images, read_ids, survey

    folder = paths.synthetic_fold(args.output_dir, args.fold)
    files = find_images(Path(args.images), folder)
    keep_run_log(paths.METRICS_DIR)

    dataset = load_dataset(args.data_dir, args.patient_map, args.patient_column)
    official = load_official_test(args.data_dir, args.patient_map, args.patient_column)
    splits = load_or_create_splits(dataset, args.splits)
    splits = training_part(splits, args.train_fraction, args.fold, args.k_folds)
    log.info(describe_splits(splits))

    listed = read_ids(args.trained_on) if args.trained_on else []
    ids, patients, flags = check_listed(listed, args.trained_elsewhere, dataset, official, splits)
    sources, skipped, odd = survey(files, args.workers, args.skip_bad_images, args.bits)
    for note in odd.notes:
        log.info(f"note: {note}")
    origin: Origin = {
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": dataset.grouped_by,
        "classes": args.label,
        "label": LABELS[args.label],
        "train_image_ids": ids,
        "train_patients": patients,
        "train_fraction": args.train_fraction,
        "fold": args.fold,
        "k_folds": args.k_folds,
        "red_flags": flags + odd.red_flags,
    }
    manifest = make_manifest(
        origin, len(sources), "register_synthetic.py",
        generator=args.generator, trained_elsewhere=args.trained_elsewhere,
        **describe_sources(sources, skipped),
    )  # fmt: skip

    with claim([folder], *CLAIM):
        if args.overwrite:
            clear(folder)
        manifest = begin_manifest(folder, manifest)
        copy_images(sources, folder, args.bits)
        save_json(paths.synthetic_manifest(folder), manifest | {"complete": True})

    synthetic = read_back(folder, dataset, official, splits)
    for flag in synthetic.red_flags:
        log.warning(f"RED FLAG: {flag}")
    if any(width != height for width, height in (source.size for source in sources)):
        log.info("some images are not square: training squeezes them to a square, as it does with real ones")
    left_out = f", {len(skipped):,} unreadable ones left out" if skipped else ""
    log.info(f"{folder}: {len(synthetic.records):,} images, label {synthetic.label}{left_out}")


if __name__ == "__main__":
    run_script(main)
