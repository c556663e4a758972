"""Make synthetic X-rays with a trained generator: 8-bit gray PNG files and a manifest of their origin.

    python src/generate_synthetic.py --model-path ./models/gan/generator_final.pth

Image i depends on (generator, seed, i) alone: not on the batch size, nor on where an earlier run stopped.
The networks' arithmetic is float64 here, so that differences between machines, thread counts and batch
shapes stay far below the rounding to 8 bits. The images of a generator that was trained without fold I
(train_gan.py --fold I) go to the subfolder fold_I, where train_classifier.py looks for them.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import paths
from synthetic import check_folder, clear, is_whole, make_manifest, save_png
from utils import UserError, argument_parser, number, run_script, save_json

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dcgan import Generator

NOISE_STREAM = "synthetic"


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Make synthetic X-rays with a trained generator.")
    add = parser.add_argument
    add("--model-path", required=True, metavar="PATH", help="generator checkpoint (default: none, required)")
    add(
        "--output-dir", default=paths.SYNTHETIC_DIR, metavar="PATH",
        help="folder of the images; those of a generator trained without fold I go to its subfolder fold_I",
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
    add("--overwrite", action="store_true", help="remove the folder's synthetic images and manifest first")
    add("--cpu", action="store_true", help="use the CPU even if a GPU is there")
    return parser


# --- the generator ---------------------------------------------------------------------------------
def load_generator(
    path: str, latent_dim: int | None, feature_maps: int | None, device: torch.device
) -> tuple[Generator, dict[str, Any]]:
    """(generator in float64, its checkpoint); ``UserError`` if a flag contradicts the checkpoint."""
    from dcgan import generator_from_checkpoint
    from utils import load_checkpoint

    checkpoint = load_checkpoint(path, "python src/train_gan.py")
    generator = generator_from_checkpoint(checkpoint, path)
    for flag, given, trained in (
        ("--latent-dim", latent_dim, generator.latent_dim),
        ("--feature-maps-g", feature_maps, generator.feature_maps),
    ):
        if given is not None and given != trained:
            raise UserError(f"{flag} {given} contradicts {path}, which has {trained}; leave the flag out")
    return generator.double().to(device), checkpoint


def generate(generator: Generator, seed: int, indices: list[int], device: torch.device) -> np.ndarray:
    """Images uint8 [N, S, S] with the given numbers (from 1), each a function of (seed, number) alone."""
    import torch

    from data_loader import from_gan_range
    from gan_training import image_noise

    z = torch.cat([image_noise(seed, NOISE_STREAM, i, 1, generator.latent_dim) for i in indices])
    with torch.no_grad():
        images = generator(z.double().to(device))  # [N, C, S, S] in [-1, 1]
    return from_gan_range(images).cpu().numpy()


# --- the folder ------------------------------------------------------------------------------------
def manifest_of(checkpoint: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    from utils import public_path, sha256_file

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
    )


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from tqdm import tqdm

    from utils import select_device

    device = select_device(args.cpu)
    if device.type == "mps":  # it has no float64
        device = select_device(cpu=True)
    generator, checkpoint = load_generator(args.model_path, args.latent_dim, args.feature_maps_g, device)
    manifest = manifest_of(checkpoint, args)
    folder = paths.synthetic_fold(args.output_dir, manifest["fold"])
    if manifest["fold"] is not None:
        print(f"a generator trained without fold {manifest['fold']} of {manifest['k_folds']}: into {folder}")
    if args.overwrite:
        clear(folder)
    check_folder(folder, manifest)
    save_json(paths.synthetic_manifest(folder), manifest)

    numbers, size = range(1, args.num_images + 1), (generator.image_size, generator.image_size)
    todo = [i for i in numbers if not is_whole(paths.synthetic_image(folder, i), size)]
    kept = args.num_images - len(todo)
    if kept:
        print(f"{folder}: {kept:,} images of this generator and seed are there already")
    with tqdm(total=args.num_images, initial=kept, desc="generating", unit="img") as bar:
        for start in range(0, len(todo), args.batch_size):
            batch = todo[start : start + args.batch_size]
            for index, pixels in zip(batch, generate(generator, args.seed, batch, device), strict=True):
                save_png(paths.synthetic_image(folder, index), pixels)
                bar.update()
    save_json(paths.synthetic_manifest(folder), manifest | {"complete": True})
    label = manifest["label"]
    meaning = f"label {label}" if label is not None else "no label: the GAN was trained on all classes"
    print(f"{folder}: {args.num_images:,} images of {generator.image_size} px, {meaning}")


if __name__ == "__main__":
    run_script(main)
