"""Judge synthetic X-rays beside real ones: two folders, or a folder and a generator, become a verdict.

    python src/judge_images.py --real ./real --synthetic ./synthetic

No labels, splits or arms are needed. Every number stands beside its floor: what disjoint halves of the real patients
score against each other. Writes judgement.json and judgement.html; with --show-images judgement.patient.html, which
shows real X-rays.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from common.command_line import argument_parser, command_line, number, public_config, run_script
from common.experiment_files import named_config
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders
from dataset.options import DATA_OPTIONS
from gan.settings import CLASS_FLAGS
from utils import UserError, save_json, save_text

if TYPE_CHECKING:
    import numpy as np

    from gan.generation import ImageMaker
    from image_metrics.folder_comparison import FolderComparison, Side
    from image_metrics.folder_reading import Reading
    from report.judgement import ShownImages

log = logging.getLogger(__name__)

MADE, BATCH = 1000, 64  # images of a generator, and those made at once
SMALLEST_SIDE = 32  # pixels at which images are compared
SHARED = {option.flag: option for option in DATA_OPTIONS}


# --- command line ----------------------------------------------------------------------------------
def regular_expression(text: str) -> str:
    """Argparse type of a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is not a regular expression ({error}): {text!r}") from None
    return text


OPTIONS = (
    Option("--real", "folder of real images (default: none, required)", required=True, metavar="PATH"),
    Option("--synthetic", "folder of synthetic images (default: none, then --generator)", metavar="PATH",
           excludes="images"),
    Option("--generator", "generator checkpoint that makes the synthetic images (default: none, then --synthetic)",
           metavar="PATH", excludes="images"),
    Option("--num-images", f"images that --generator makes (default: {MADE})", type=number(int, 1), metavar="N"),
    Option("--label", "class of the images, for a --generator that was trained with --conditional (default: none)",
           choices=CLASS_FLAGS),
    Option("--patients", "CSV file with the columns filename and patient_id, for both folders (default: none)",
           metavar="CSV", excludes="patients"),
    Option("--group-pattern",
           "regular expression over file names whose first group is the patient, such as '^(p[0-9]+)_' "
           "(default: none, each image counts as another patient)",
           type=regular_expression, metavar="REGEX", excludes="patients"),
    Option("--features",
           "also compare in the features of FID's Inception, of EfficientNet-Lite0 (requirements-offline.txt), or of "
           "the ResNet-50 in a file (default: none, HOG and 16x16 pixels only)",
           metavar="inception|efficientnet_lite0|PATH"),
    Option("--image-size",
           "side at which images are compared, in pixels (default: the smaller of the folders' typical sides, "
           f"{SMALLEST_SIDE} to 224)",
           type=number(int, SMALLEST_SIDE), metavar="N"),
    Option("--max-images", "most images read of each folder; if it holds more, they are drawn at random",
           type=number(int, 1), default=5000, metavar="N"),
    SHARED["--bits"],
    SHARED["--skip-bad-images"],
    Option("--show-images", "also show images, real ones too: the page then ends in .patient.html", switch=True),
    Option("--output-dir", "folder of page and JSON", default=paths.JUDGEMENT_DIR, metavar="PATH"),
    Option("--seed", "seed of all draws, and of the noise of --generator", type=number(int, 0, 2**32 - 1), default=42,
           metavar="N"),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    Option("--cpu", "use the CPU even if a GPU is there", switch=True),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Judge synthetic X-rays beside real ones, without labels or splits.", OPTIONS)


def parse_checked(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exit code 2 for options that do not go together."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.synthetic is None and args.generator is None:
        parser.error("give --synthetic PATH (a folder of images) or --generator PATH (a checkpoint)")
    for flag, value in (("--num-images", args.num_images), ("--label", args.label)):
        if value is not None and args.generator is None:
            parser.error(f"{flag} needs --generator PATH; a folder is judged as it is")
    return args


# --- the two sides ---------------------------------------------------------------------------------
def list_sides(real: Path, synthetic: Path | None) -> dict[str, list[Path]]:
    """List the files of --real and --synthetic (None: a generator makes them)."""
    from dataset.image_folders import check_apart, list_folder

    files = {"--real": list_folder(real, "--real")}
    if synthetic is not None:
        if synthetic.resolve() == real.resolve():
            raise UserError(f"--real and --synthetic are the same folder, {real}: give two folders of different images")
        files["--synthetic"] = list_folder(synthetic, "--synthetic")
        check_apart(*files.values())
    return files


def load_maker(path: str, label: str | None, seed: int, cpu: bool) -> ImageMaker:
    """Load the generator of --generator."""
    from gan.generation import ImageMaker, class_to_make
    from gan.networks import generator_from_checkpoint
    from utils import load_checkpoint, select_device

    checkpoint = load_checkpoint(path, "`python src/train_gan.py`")
    generator = generator_from_checkpoint(checkpoint, path)
    return ImageMaker(generator, seed, select_device(cpu), class_to_make(generator, checkpoint, path, label))


def make_pixels(make: ImageMaker, count: int) -> np.ndarray:
    """Make images 1 to ``count``, those that generate_synthetic.py writes with this seed: uint8 [N, S, S]."""
    import numpy as np

    from common.progress import progress_bar

    parts = np.array_split(np.arange(1, count + 1), max(1, count // BATCH))
    return np.concatenate([make(part.tolist()) for part in progress_bar(parts, desc="generating", unit="batch")])


def read_sides(args: argparse.Namespace) -> tuple[Reading, Reading, int, list[str]]:
    """Read everything that the options name: (real, synthetic, pixels a side, notes)."""
    from dataset.image_folders import read_patients
    from image_metrics.folder_reading import Grouping, made_by, notes_on_both, read_folder, side_to_compare

    folders = {"--real": Path(args.real)} | ({"--synthetic": Path(args.synthetic)} if args.synthetic else {})
    files = list_sides(folders["--real"], folders.get("--synthetic"))
    grouping = Grouping(
        read_patients(Path(args.patients)) if args.patients else None,
        re.compile(args.group_pattern) if args.group_pattern else None,
    )
    make = load_maker(args.generator, args.label, args.seed, args.cpu) if args.generator else None
    size = args.image_size or side_to_compare(list(files.values()), make.image_size if make else None)
    readings = [
        read_folder(
            flag, folders[flag], found, grouping, size, max_images=args.max_images, seed=args.seed, bits=args.bits,
            skip_bad=args.skip_bad_images, workers=args.workers,
        )
        for flag, found in files.items()
    ]  # fmt: skip
    if make:
        readings.append(made_by(Path(args.generator), make_pixels(make, args.num_images or MADE), size))
    real, made = readings
    notes = [*notes_on_both(real, made, grouping, size), *real.notes, *made.notes]
    return real, made, size, notes


# --- results ---------------------------------------------------------------------------------------
def shown_images(real: Side, synthetic: Side, found: FolderComparison, seed: int) -> ShownImages:
    """Choose what --show-images shows: the closest pairs, and images drawn at random."""
    from report.judgement import SHOWN, ShownImages

    rows, others = found.pairs.T
    drawn = [side.some(SHOWN, seed).pixels for side in (synthetic, real)]
    return ShownImages(synthetic.pixels[rows], real.pixels[others], *drawn)


def write_page(folder: Path, page: str, shows_patients: bool) -> Path:
    """Write the page, and remove the one of an earlier run with or without --show-images."""
    file = paths.judgement_page(folder, shows_patients)
    save_text(file, page)
    paths.judgement_page(folder, not shows_patients).unlink(missing_ok=True)
    return file


def main(argv: list[str] | None = None) -> None:
    args = parse_checked(argv)
    check_folders({"--output-dir": args.output_dir})
    keep_run_log(paths.METRICS_DIR)
    from image_metrics.feature_spaces import hog_space, named_space, pixel_space
    from image_metrics.file_formats import JUDGEMENT_FORMAT, Judgement
    from image_metrics.folder_comparison import compare_folders
    from report.judgement import compose_judgement, verdict_lines
    from utils import select_device

    spaces = [named_space(args.features, select_device(args.cpu))] if args.features else []
    real, synthetic, size, notes = read_sides(args)
    spaces += [hog_space(size), pixel_space()]
    found = compare_folders(real.side, synthetic.side, spaces, seed=args.seed)

    config = public_config(vars(args))
    judgement: Judgement = {
        "format": JUDGEMENT_FORMAT, "verdict": found.verdict, "axes": found.axes, "copies": found.copies,
        "real": real.facts, "synthetic": synthetic.facts, "notes": notes, "image_size": size,
        "features": [{"name": space.name, **space.facts} for space in spaces], "confidence": found.confidence,
        "config": config, **named_config(),
    }  # fmt: skip
    folder = Path(args.output_dir)
    save_json(paths.judgement(folder), judgement)
    shown = shown_images(real.side, synthetic.side, found, args.seed) if args.show_images else None
    page = compose_judgement(judgement, command_line("judge_images", config), shown)
    file = write_page(folder, page, args.show_images)
    for line in verdict_lines(judgement):
        log.info(line)
    log.info(f"{paths.judgement(folder)}, {file}")


if __name__ == "__main__":
    run_script(main)
