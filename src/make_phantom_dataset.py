"""Make a dataset of procedural chest phantoms, in the layout of the RSNA pneumonia set.

For trying the pipeline without a download: the images are drawn, and show nobody.
"""

from __future__ import annotations

import argparse
import logging

from common import paths
from common.command_line import argument_parser, number, run_script
from common.locks import claim
from common.logs import keep_run_log
from common.options import Option
from common.output_folders import check_folders

log = logging.getLogger(__name__)

OPTIONS = (
    Option("--output-dir", "folder of the dataset (default: none, required)", required=True, metavar="PATH"),
    Option(
        "--num-images", "labelled training images", type=number(int, 1, 1_000_000), default=1000, metavar="N"
    ),
    Option(
        "--num-test-images", "unlabelled test images, of other people (default: a quarter of --num-images)",
        type=number(int, 0, 1_000_000), metavar="N",
    ),
    Option("--image-size", "width and height, pixels", type=number(int, 32, 2048), default=224, metavar="N"),
    Option("--seed", "the images are a function of it", type=number(int, 0), default=42, metavar="N"),
    Option(
        "--workers",
        "processes; the images do not depend on it (default: one per core, 1 for a small dataset)",
        type=number(int, 1, 256), metavar="N",
    ),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    return argument_parser("Make a dataset of procedural chest phantoms, in the layout of the RSNA set.", OPTIONS)


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    check_folders({"--output-dir": args.output_dir})
    from phantom.dataset import make_phantom_dataset

    keep_run_log(paths.METRICS_DIR)
    with claim([args.output_dir], "dataset", "make_phantom_dataset.py or download_dataset.py"):
        folder = make_phantom_dataset(
            args.output_dir,
            num_images=args.num_images,
            image_size=args.image_size,
            seed=args.seed,
            num_test_images=args.num_test_images,
            workers=args.workers,
            progress=True,
        )
    log.info(f"phantoms are in {folder}; look at them with: python src/data_loader.py --data-dir {folder}")


if __name__ == "__main__":
    run_script(main)
