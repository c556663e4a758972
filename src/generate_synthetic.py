"""Make synthetic X-rays with a trained generator: 8-bit gray PNG files and a manifest of their origin.

    python src/generate_synthetic.py --model-path ./models/gan/generator_final.pth

Image i depends on (generator, seed, i) alone: not on the batch size, nor on where an earlier run stopped,
nor on which of several processes (torchrun) makes it. A generator that was trained with --conditional makes
images of the class that --label says, each class from the same noise: the images i of two classes show what
the class changes. A folder holds images of one class.
Between kinds of machines one pixel in about a million may differ by one gray level. The images of a
generator that was trained without fold I (train_gan.py --fold I) go to the subfolder fold_I, where
train_classifier.py looks for them.
"""

from __future__ import annotations

import argparse
import logging
import math
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, number, run_script
from common.distributed import barrier, from_main, is_main, my_share, process_count, process_group
from common.progress import progress_bar
from dataset.image_writer import is_whole
from gan.settings import CLASS_FLAGS, label_of_class
from synthetic.folders import check_folder, clear
from synthetic.manifest import make_manifest
from utils import UserError, save_json

if TYPE_CHECKING:
    from pathlib import Path

    from gan.generation import ImageMaker
    from gan.networks import Generator

log = logging.getLogger(__name__)


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Make synthetic X-rays with a trained generator.")
    add = parser.add_argument
    add("--model-path", required=True, metavar="PATH", help="generator checkpoint (default: none, required)")
    add(
        "--output-dir", default=paths.SYNTHETIC_DIR, metavar="PATH",
        help="folder of the images; those of a generator trained without fold I go to its subfolder fold_I",
    )  # fmt: skip
    add(
        "--label", choices=CLASS_FLAGS,
        help="class of the images, for a generator that was trained with --conditional, which needs it "
        "(default: none, what the generator was trained on)",
    )  # fmt: skip
    add("--num-images", type=number(int, 1), default=5000, metavar="N", help="images the folder shall hold")
    for flag, meaning, usual in (
        ("--latent-dim", "length of the noise vector", 100),
        ("--feature-maps-g", "the generator's base feature maps", 32),
    ):
        add(
            flag, type=number(int, 1), metavar="N",
            help=f"{meaning}; refused if the checkpoint's differs (default: the checkpoint's; {usual} in a "
            "default training)",
        )  # fmt: skip
    add("--batch-size", type=number(int, 1), default=64, metavar="N", help="images generated at a time")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, metavar="N", help="seed of the noise")
    add("--workers", type=number(int, 1), default=4, metavar="N", help="threads that write images")
    add("--overwrite", action="store_true", help="remove the folder's synthetic images and manifest first")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is there")
    add("--estimate", action="store_true", help="only say about how long it takes, and what is quicker")
    return parser


# --- the generator ---------------------------------------------------------------------------------
def load_generator(
    path: str, latent_dim: int | None, feature_maps: int | None
) -> tuple[Generator, dict[str, Any]]:
    """(generator, its checkpoint); ``UserError`` if a flag contradicts the checkpoint."""
    from gan.networks import generator_from_checkpoint
    from utils import load_checkpoint

    checkpoint = load_checkpoint(path, "python src/train_gan.py")
    generator = generator_from_checkpoint(checkpoint, path)
    for flag, given, trained in (
        ("--latent-dim", latent_dim, generator.latent_dim),
        ("--feature-maps-g", feature_maps, generator.feature_maps),
    ):
        if given is not None and given != trained:
            raise UserError(f"{flag} {given} contradicts {path}, which has {trained}; leave the flag out")
    return generator, checkpoint


def class_to_make(
    generator: Generator, checkpoint: dict[str, Any], path: str, label: str | None
) -> int | None:
    """The number of the class that ``label`` names, for a generator that takes one; else None.

    ``UserError`` if it takes one and none is given, or takes none and has not learned from that class alone.
    """
    if generator.n_classes:
        if label is None:
            raise UserError(
                f"{path} was trained with --conditional and makes images of {len(CLASS_FLAGS)} classes: say "
                f"which with --label {{{','.join(CLASS_FLAGS)}}}"
            )
        return CLASS_FLAGS.index(label)
    learned = CLASS_FLAGS[0] if checkpoint["label"] == 1 else None
    if label not in (None, learned):
        what = f"images of {learned} only" if learned else "all classes as if they were one"
        remedy = "train a generator of all classes with `python src/train_gan.py --conditional`"
        raise UserError(f"--label {label} contradicts {path}, which was trained on {what}; {remedy}")
    return None


# --- the folder ------------------------------------------------------------------------------------
def manifest_of(checkpoint: dict[str, Any], number: int | None, args: argparse.Namespace) -> dict[str, Any]:
    """``number``: of the class, for a conditional generator: the images have its label."""
    from utils import public_path, sha256_file

    class_name = {} if number is None else {"class": CLASS_FLAGS[number]}
    label = {} if number is None else {"label": label_of_class(CLASS_FLAGS[number])}
    return make_manifest(
        checkpoint | label,
        args.num_images,
        "generate_synthetic.py",
        generator=public_path(args.model_path),
        generator_sha256=sha256_file(args.model_path),
        generator_step=checkpoint["step"],
        image_size=checkpoint["architecture"]["image_size"],
        seed=args.seed,
        output_dir=public_path(args.output_dir),
        **class_name,
    )


def unfinished(folder: Path, count: int, make: ImageMaker) -> list[int]:
    """The numbers, of 1 to ``count``, of the images that are not there or not whole."""
    size = (make.image_size, make.image_size)
    return [i for i in range(1, count + 1) if not is_whole(paths.synthetic_image(folder, i), size)]


def prepare_folder(folder: Path, manifest: dict[str, Any], make: ImageMaker, overwrite: bool) -> list[int]:
    """Check, and with ``overwrite`` empty, the folder; the numbers of the images that are to be made."""
    if overwrite:
        clear(folder)
    check_folder(folder, manifest)
    save_json(paths.synthetic_manifest(folder), manifest)
    return unfinished(folder, manifest["count"], make)


def generate(args: argparse.Namespace) -> None:
    from common.progress import Announcement
    from gan.generation import ImageMaker, write_images
    from studies.time_estimate import estimate_generation
    from utils import select_device

    generator, checkpoint = load_generator(args.model_path, args.latent_dim, args.feature_maps_g)
    number = class_to_make(generator, checkpoint, args.model_path, args.label)
    make = ImageMaker(generator, args.seed, select_device(args.cpu), number)
    manifest = manifest_of(checkpoint, number, args)
    folder = paths.synthetic_fold(args.output_dir, manifest["fold"])
    if manifest["fold"] is not None:
        log.info(
            f"a generator trained without fold {manifest['fold']} of {manifest['k_folds']}: into {folder}"
        )
    if args.estimate:
        if is_main():
            left = args.num_images if args.overwrite else len(unfinished(folder, args.num_images, make))
            log.info(
                estimate_generation(make, math.ceil(left / process_count()), args.batch_size, args.workers)
            )
        return

    todo = from_main(prepare_folder, folder, manifest, make, args.overwrite)
    kept = args.num_images - len(todo)
    if kept:
        log.info(f"{folder}: {kept:,} images of this generator and seed are there already")
    mine = todo[my_share()]
    desc = "generating" if process_count() == 1 else f"generating, 1 of {process_count()} processes"
    with progress_bar(total=kept + len(mine), initial=kept, desc=desc, unit="img") as bar:
        announcement = Announcement(len(mine), "images", "--num-images makes fewer", log.info)

        def on_image() -> None:
            bar.update()
            announcement.after()

        write_images(folder, mine, make, batch_size=args.batch_size, workers=args.workers, on_image=on_image)
    barrier()
    from_main(save_json, paths.synthetic_manifest(folder), manifest | {"complete": True})
    log.info(f"{folder}: {args.num_images:,} images of {generator.image_size} px, {describe_label(manifest)}")


def describe_label(manifest: dict[str, Any]) -> str:
    """What the images mean: "label 0 (normal)"."""
    label, name = manifest["label"], manifest.get("class")
    if label is None:
        return "no label: the GAN was trained on all classes"
    return f"label {label}" + (f" ({name})" if name else "")


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    with process_group(args.cpu):
        generate(args)


if __name__ == "__main__":
    run_script(main)
