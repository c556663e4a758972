"""Give X-rays that someone made elsewhere, with a diffusion model say, the manifest that training asks for.

    python src/register_synthetic.py --images ./from_elsewhere --trained-on ids.csv

Copies the images to <output-dir> as 8-bit gray PNG (synthetic_00001.png, ... in the order of their names)
and writes down what their generator was trained on, so that train_classifier.py --use-synthetic takes them
as it takes those of generate_synthetic.py. A generator that saw a test patient is refused. The list of what
it saw is its maker's word; only what follows from the list can be checked. Folds trained with images of a
generator --trained-elsewhere count as contaminated.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, number, run_script
from common.options import add_options
from dataset.options import DATA_OPTIONS, PART_OPTIONS, fold_problem
from dataset.patients import GROUPED_BY_PATIENT, grouping_sentence
from dataset.records import name_some
from dataset.splits import TEST, UNUSED, VALIDATION
from synthetic.folders import (
    check_folder,
    clear,
    few_images_flags,
    images_seen,
    load_synthetic,
    make_manifest,
)
from synthetic.leak_checks import (
    Seen,
    known_patients,
    match_ids,
    nih_patient,
    unknown_ids_flag,
    without_ending,
)
from utils import UserError

if TYPE_CHECKING:
    from dataset.records import Dataset, OfficialTest
    from dataset.splits import Splits
    from synthetic.folders import SyntheticSet
    from synthetic.foreign_images import Source

log = logging.getLogger(__name__)


LABELS = {"positive": 1, "negative": 0}
ID_COLUMNS = ("image_id", "patientid", "image index")  # ours, RSNA's (which names an image), NIH's
# Data sets that are NIH ChestX-ray14, are drawn from it as RSNA's challenge is, or contain RSNA's images.
OVERLAPPING = re.compile(
    r"(?<![a-z])nih(?![a-z])|rsna|chest.?x.?ray.?(8|14)|cxr.?(8|14)|siim.?acr|chest.?x.?det|covidx"
    r"|covid.?19.?radiography",
    re.IGNORECASE,
)


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Register images that another generator made, so that training accepts them.")
    add = parser.add_argument
    add(
        "--images", required=True, metavar="PATH",
        help="folder of the images, PNG or JPEG of any size; never changed (default: none, required)",
    )  # fmt: skip
    add(
        "--trained-on", metavar="CSV",
        help="the images that the generator was trained on: a column image_id, patientId or Image Index, or "
        "one id a line (default: none, then --trained-elsewhere is required)",
    )  # fmt: skip
    add(
        "--trained-elsewhere", metavar="NAME",
        help="another data set that the generator was trained on (too); a red flag in every result "
        "(default: none)",
    )  # fmt: skip
    add("--label", choices=tuple(LABELS), default="positive", help="what the images show")
    add("--generator", metavar="NAME", help="name and version of the generator (default: not recorded)")
    add(
        "--output-dir", default=paths.SYNTHETIC_DIR, metavar="PATH",
        help="folder of the copies; with --fold I its subfolder fold_I",
    )  # fmt: skip
    add("--overwrite", action="store_true", help="remove the folder's synthetic images and manifest first")
    add("--workers", type=number(int, 0), default=4, metavar="N", help="threads that decode images")
    add_options(parser, PART_OPTIONS)
    add_options(parser.add_argument_group("dataset"), DATA_OPTIONS)
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    if problem := fold_problem(args.fold, args.k_folds):
        parser.error(problem)
    if args.trained_on is None and not args.trained_elsewhere:
        parser.error("--trained-on CSV or --trained-elsewhere NAME must say what the generator has seen")
    return args


# --- what the generator has seen -------------------------------------------------------------------
def read_ids(path: str | Path) -> list[str]:
    """The image ids of a CSV file, sorted, each once; endings of image files are taken off.

    ``UserError`` if there are none, a row has none, or no column can be told to hold them.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: --trained-on takes a CSV file of image ids") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV file: {error}") from None
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((names.index(name) for name in ID_COLUMNS if name in names), None)
    if column is not None:
        rows = rows[1:]
    elif len(names) > 1:
        raise UserError(
            f"{path} has no column image_id, patientId or Image Index; its first line is "
            f"{', '.join(names[:5])}"
        )
    cells = [row[column or 0].strip() if len(row) > (column or 0) else "" for row in rows]
    if "" in cells:
        raise UserError(f"{path}: entry {cells.index('') + 1} has no image id")
    if not cells:
        raise UserError(f"{path} names no image; a generator of other data needs --trained-elsewhere NAME")
    return sorted({without_ending(cell) for cell in cells})


def find_seen(
    ids: list[str], dataset: Dataset, official: OfficialTest | None, elsewhere: str | None
) -> tuple[Seen, list[str]]:
    """(what ``ids`` name, red flags). ``UserError`` if nobody knows where an id is from.

    NIH ChestX-ray14 file names, of which RSNA's images are a part, name their patient themselves; that can
    be compared with those images of the dataset whose NIH patient is known.
    """
    seen = match_ids(ids, known_patients(dataset, official))
    nih = [name for name in seen.unknown if nih_patient(name)]
    if nih and dataset.grouped_by != GROUPED_BY_PATIENT:
        raise UserError(
            f"--trained-on names {name_some(nih, 3)} of NIH ChestX-ray14, which can be compared only "
            "with images whose NIH patient is known: give the official --patient-map"
        )
    if seen.unknown and not elsewhere:
        raise UserError(
            f"--trained-on names {name_some(seen.unknown, 3)} that {dataset.data_dir} does not have; correct "
            "the list (a header must be image_id, patientId or Image Index), or say where they are from with "
            "--trained-elsewhere NAME and live with a red flag in every result"
        )
    flags = []
    if seen.nih and dataset.unmapped:
        flags.append(
            "the generator's training images have NIH file names, and the NIH patient of "
            f"{dataset.unmapped:,} of the dataset's images is unknown: whether it saw them cannot be told"
        )
    if flag := unknown_ids_flag(seen):
        flags.append(flag)
    return seen, flags


def describe_seen(seen: Seen, all_told: bool) -> str:
    """What the list comes to once ``refuse_leaks`` has found nothing; ``all_told``: does it name everything
    that the generator saw, and could all of it be compared?"""
    people = f"{len(seen.patients):,} patients or groups"
    if all_told:
        return f"the generator saw {len(seen.ids):,} images of {people}, none of the test set"
    compared = len(seen.ids) - len(seen.unknown)
    return (
        f"{compared:,} of the {len(seen.ids):,} images listed could be compared with the test set ({people}; "
        "no overlap was found); what else the generator saw cannot be told"
    )


def refuse_overlapping(name: str | None) -> None:
    """``UserError`` if another data set is known to share patients with RSNA's."""
    if name and OVERLAPPING.search(name):
        raise UserError(
            f"--trained-elsewhere {name!r}: RSNA's images are a part of NIH ChestX-ray14, so such data may "
            "hold the test patients; list what the generator has seen with --trained-on, by RSNA's image ids "
            "or NIH's file names"
        )


def refuse_leaks(ids: list[str], patients: list[str], splits: Splits) -> None:
    """``UserError`` if the generator saw patients of the test set, of the fold or beyond its fraction."""
    for role, whose in (
        (TEST, "of the test set"),
        (VALIDATION, "of the --fold that it is said not to know"),
        (UNUSED, "beyond the --train-fraction that it is said to have kept to"),
    ):
        images = splits.images[splits.images["role"] == role]
        held_out = dict(zip(images["image_id"], images["patient"], strict=True))
        if seen := images_seen(set(ids), set(patients), held_out):
            raise UserError(
                f"refused: the generator was trained on patients {whose} ({name_some(seen, 3)}); use one "
                f"that was trained without them ({splits.path} says who they are)"
            )


# --- the manifest ----------------------------------------------------------------------------------
def origin_of(
    args: argparse.Namespace, dataset: Dataset, official: OfficialTest | None, splits: Splits
) -> dict[str, Any]:
    """What the manifest says about the generator; ``UserError`` if its images must not be used."""
    refuse_overlapping(args.trained_elsewhere)
    ids = read_ids(args.trained_on) if args.trained_on else []
    seen, flags = find_seen(ids, dataset, official, args.trained_elsewhere)
    refuse_leaks(seen.ids, seen.patients, splits)
    if ids:
        all_told = not flags and not args.trained_elsewhere
        log.info(f"{describe_seen(seen, all_told)}; {grouping_sentence(dataset.grouped_by)}")
    return {
        "split_sha256": splits.sha256,
        "data_sha256": dataset.data_sha256,
        "grouped_by": dataset.grouped_by,
        "classes": args.label,
        "label": LABELS[args.label],
        "train_image_ids": seen.ids,
        "train_patients": seen.patients,
        "train_fraction": args.train_fraction,
        "fold": args.fold,
        "k_folds": args.k_folds,
        "red_flags": flags + ([] if args.trained_elsewhere else few_images_flags(len(seen.ids))),
    }


def describe_images(args: argparse.Namespace, sources: list[Source], skipped: list[str]) -> dict[str, Any]:
    """What the manifest says about the images; image_size is null if they are not all squares of one size."""
    sizes = {source.size for source in sources}
    width, height = sources[0].size
    hashes = "".join(source.sha256 for source in sources)
    return {
        "generator": args.generator,
        "generator_sha256": None,  # the generator is not here; its images are
        "images_sha256": hashlib.sha256(hashes.encode()).hexdigest(),
        "image_size": width if len(sizes) == 1 and width == height else None,
        "trained_elsewhere": args.trained_elsewhere,
        "source_names": [source.path.name for source in sources],
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
    }


def read_back(folder: Path, dataset: Dataset, official: OfficialTest | None, splits: Splits) -> SyntheticSet:
    """The folder as training will find it."""
    from dataset.splits import select

    test = select(dataset, splits, TEST)
    patient_of = known_patients(dataset, official)
    return load_synthetic(folder, patient_of, dict(zip(test["image_id"], test["patient"], strict=True)))


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    from dataset.records import load_dataset, load_official_test
    from dataset.splits import describe_splits, load_or_create_splits, training_part
    from synthetic.foreign_images import copy_images, find_images, survey
    from utils import save_json

    folder = paths.synthetic_fold(args.output_dir, args.fold)
    files = find_images(Path(args.images), folder)
    dataset = load_dataset(args.data_dir, args.patient_map)
    splits = load_or_create_splits(dataset, args.splits)
    splits = training_part(splits, args.train_fraction, args.fold, args.k_folds)
    log.info(describe_splits(splits))
    official = load_official_test(args.data_dir, args.patient_map)
    origin = origin_of(args, dataset, official, splits)
    sources, skipped = survey(files, args.workers, args.skip_bad_images)
    images = describe_images(args, sources, skipped)
    manifest = make_manifest(origin, len(sources), "register_synthetic.py", **images)
    if args.overwrite:
        clear(folder)
    check_folder(folder, manifest)
    save_json(paths.synthetic_manifest(folder), manifest)
    copy_images(sources, folder)
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
