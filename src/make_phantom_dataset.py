"""Make a dataset of procedural chest phantoms, in the layout of the RSNA pneumonia set.

For trying the pipeline without a download: the images are drawn, not taken of anyone.
"""

from __future__ import annotations

import argparse
import logging

from common.command_line import argument_parser, number, run_script

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Make a dataset of procedural chest phantoms, in the layout of the RSNA set.")
    parser.add_argument(
        "--output-dir", required=True, metavar="PATH", help="folder of the dataset (default: none, required)"
    )
    parser.add_argument(
        "--num-images",
        type=number(int, 1, 1_000_000),
        default=1000,
        metavar="N",
        help="labelled training images",
    )
    parser.add_argument(
        "--num-test-images",
        type=number(int, 0, 1_000_000),
        metavar="N",
        help="unlabelled test images, of other people (default: a quarter of --num-images)",
    )
    parser.add_argument(
        "--image-size", type=number(int, 32, 2048), default=224, metavar="N", help="width and height, pixels"
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=42, metavar="N", help="the images are a function of it"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 1, 256),
        metavar="N",
        help="processes; the images do not depend on it (default: one per core, 1 for a small dataset)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from phantom.dataset import make_phantom_dataset

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
