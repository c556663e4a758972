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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from common import paths
from common.command_line import argument_parser, run_script
from common.distributed import barrier, from_main, is_main, my_share, process_count, process_group
from common.locks import claim
from common.logs import keep_run_log
from common.output_folders import check_folders
from common.plan_files import PlanFile, follow_plan
from common.progress import progress_bar
from dataset.images import is_whole
from gan.options import GENERATION_OPTIONS
from gan.settings import CLASS_FLAGS, label_of_class
from synthetic.folders import CLAIM, begin_manifest, clear, make_manifest
from utils import UserError, save_json

if TYPE_CHECKING:
    from pathlib import Path

    from gan.generation import ImageMaker
    from gan.networks import Generator

log = logging.getLogger(__name__)


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Make synthetic X-rays with a trained generator.", GENERATION_OPTIONS)


# --- the generator ---------------------------------------------------------------------------------
def load_generator(path: str, latent_dim: int | None, feature_maps: int | None) -> tuple[Generator, dict[str, Any]]:
    """Load (generator, its checkpoint); raises ``UserError`` if a flag contradicts the checkpoint."""
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


# --- the folder ------------------------------------------------------------------------------------
def describe_images(checkpoint: dict[str, Any], class_number: int | None, args: argparse.Namespace) -> dict[str, Any]:
    """Make the manifest; ``class_number``: for a conditional generator, whose images have its label."""
    from utils import public_path, sha256_file

    of_class: dict[str, Any] = {}
    if class_number is not None:
        name = CLASS_FLAGS[class_number]
        checkpoint, of_class = checkpoint | {"label": label_of_class(name)}, {"class": name}
    return make_manifest(
        checkpoint,
        args.num_images,
        "generate_synthetic.py",
        generator=public_path(args.model_path),
        generator_sha256=sha256_file(args.model_path),
        generator_step=checkpoint["step"],
        image_size=checkpoint["architecture"]["image_size"],
        seed=args.seed,
        output_dir=public_path(args.output_dir),
        **of_class,
    )


def missing_numbers(folder: Path, count: int, side: int) -> list[int]:
    """Return the numbers, of 1 to ``count``, of the images that are not there or not whole."""
    return [i for i in range(1, count + 1) if not is_whole(paths.synthetic_image(folder, i), (side, side))]


def prepare_folder(folder: Path, manifest: dict[str, Any], overwrite: bool) -> tuple[dict[str, Any], list[int]]:
    """Check, and with ``overwrite`` empty, the folder; returns its manifest and the numbers of images to make."""
    if overwrite:
        clear(folder)
    manifest = begin_manifest(folder, manifest)
    return manifest, missing_numbers(folder, manifest["count"], manifest["image_size"])


def make_images(args: argparse.Namespace, plan: PlanFile | None) -> None:
    """Make the images that the folder lacks, or with --estimate say how long that takes."""
    from gan.generation import ImageMaker, class_to_make
    from studies.time_estimate import estimate_generation
    from utils import select_device

    generator, checkpoint = load_generator(args.model_path, args.latent_dim, args.feature_maps_g)
    if plan:
        plan.check_origin(args.model_path, checkpoint.get("plan_sha256"))
    class_number = class_to_make(generator, checkpoint, args.model_path, args.label)
    make = ImageMaker(generator, args.seed, select_device(args.cpu), class_number)
    manifest = describe_images(checkpoint, class_number, args)
    folder = paths.synthetic_fold(args.output_dir, manifest["fold"])
    if manifest["fold"] is not None:
        log.info(f"a generator trained without fold {manifest['fold']} of {manifest['k_folds']}: into {folder}")
    if args.estimate:
        if is_main():
            n = args.num_images
            if not args.overwrite:
                n = len(missing_numbers(folder, n, make.image_size))
            mine = math.ceil(n / process_count())
            log.info(estimate_generation(make, mine, args.batch_size, args.workers))
        return
    with claim([folder] if is_main() else [], *CLAIM):
        manifest, lacking = from_main(prepare_folder, folder, manifest, args.overwrite)
        if kept := args.num_images - len(lacking):
            log.info(f"{folder}: {kept:,} images of this generator and seed are there already")
        write_with_progress(folder, lacking[my_share()], kept, make, args.batch_size, args.workers)
        barrier()
        from_main(save_json, paths.synthetic_manifest(folder), manifest | {"complete": True})
    log.info(f"{folder}: {args.num_images:,} images of {generator.image_size} px, {describe_label(manifest)}")


def write_with_progress(
    folder: Path, numbers: Sequence[int], kept: int, make: ImageMaker, batch_size: int, workers: int
) -> None:
    """Make and write the images ``numbers`` behind a bar, in which ``kept`` images are done already."""
    from common.progress import Announcement
    from gan.generation import write_images

    desc = "generating" if process_count() == 1 else f"generating, 1 of {process_count()} processes"
    with progress_bar(total=kept + len(numbers), initial=kept, desc=desc, unit="img") as bar:
        announcement = Announcement(len(numbers), "images", "--num-images makes fewer", log.info)

        def on_image() -> None:
            bar.update()
            announcement.after()

        write_images(folder, numbers, make, batch_size=batch_size, workers=workers, on_image=on_image)


def describe_label(manifest: dict[str, Any]) -> str:
    """Say what the images mean: "label 0 (normal)"."""
    label, name = manifest["label"], manifest.get("class")
    if label is None:
        return "no label: the GAN was trained on all classes"
    return f"label {label}" + (f" ({name})" if name else "")


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    plan = follow_plan(args.plan, "generate_synthetic", vars(args))
    if not args.estimate:
        check_folders({"--output-dir": args.output_dir})
        keep_run_log(paths.METRICS_DIR)
    with process_group(args.cpu):
        make_images(args, plan)


if __name__ == "__main__":
    run_script(main)
