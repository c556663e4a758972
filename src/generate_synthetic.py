"""Make synthetic X-rays with a trained generator: 8-bit gray PNG files and a manifest of their origin.

    python src/generate_synthetic.py --model-path ./models/gan/generator_final.pth

Image i depends on (generator, seed, i) alone: not on the batch size, nor on where an earlier run stopped.
The networks' arithmetic is float64 here, so that differences between machines, thread counts and batch
shapes stay far below the rounding to 8 bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import name_some
from synthetic import MANIFEST_FORMAT
from utils import UserError, argument_parser, load_json, number, run_script, save_json

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dcgan import Generator

FILES = "synthetic_%05d.png"
NOISE_STREAM = "synthetic"
ORIGIN = (
    "split_sha256", "data_sha256", "grouped_by", "classes", "label", "train_image_ids", "train_patients",
)  # fmt: skip


# --- command line ----------------------------------------------------------------------------------
def build_parser() -> argparse.ArgumentParser:
    parser = argument_parser("Make synthetic X-rays with a trained generator.")
    add = parser.add_argument
    add("--model-path", required=True, metavar="PATH", help="generator checkpoint (default: none, required)")
    add("--output-dir", default=paths.SYNTHETIC_DIR, metavar="PATH", help="folder of the images")
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
def manifest_of(checkpoint: dict[str, Any], model_path: str, count: int, seed: int) -> dict[str, Any]:
    """What the folder holds and where it comes from; ``complete`` turns true with the last image."""
    from utils import public_path, sha256_file

    return {
        "format": MANIFEST_FORMAT,
        "generator": public_path(model_path),
        "generator_sha256": sha256_file(model_path),
        "generator_step": checkpoint["step"],
        "image_size": checkpoint["architecture"]["image_size"],
        **{key: checkpoint[key] for key in ORIGIN},
        "files": FILES,
        "seed": seed,
        "count": count,
        "complete": False,
        "created_by": "generate_synthetic.py",
    }


def existing_images(folder: Path) -> list[Path]:
    return sorted(folder.glob(paths.SYNTHETIC_PATTERN))


def clear(folder: Path) -> None:
    """Remove the manifest and the synthetic images, and nothing else."""
    paths.synthetic_manifest(folder).unlink(missing_ok=True)
    for path in existing_images(folder):
        path.unlink()


def check_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """``UserError`` unless what is in ``folder`` can be continued into what ``manifest`` describes."""
    remedy = "--overwrite replaces them, --output-dir puts the new ones elsewhere"
    path = paths.synthetic_manifest(folder)
    images = existing_images(folder)
    if not path.is_file():
        if images:
            raise UserError(f"{folder} holds {len(images)} images without a {path.name}: {remedy}")
        return
    found = load_json(path, "python src/generate_synthetic.py --overwrite")
    for key, what in (("format", "format"), ("generator_sha256", "generator"), ("seed", "seed")):
        old = found.get(key) if isinstance(found, dict) else None
        if old != manifest[key]:
            raise UserError(
                f"{folder} holds images of another {what} ({str(old)[:12]}, now {str(manifest[key])[:12]}): "
                f"{remedy}"
            )
    old, asked = found.get("count", 0), manifest["count"]
    if old > asked:
        raise UserError(f"{folder} holds {old} images, --num-images {asked} asks for fewer: {remedy}")
    expected = {paths.synthetic_image(folder, index) for index in range(1, asked + 1)}
    if stray := [image.name for image in images if image not in expected]:
        raise UserError(f"{folder} holds {name_some(stray, 3)} of unknown origin: {remedy}")


def is_whole(path: Path, image_size: int) -> bool:
    """Is ``path`` there, an 8-bit gray PNG of the right size?"""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.mode == "L" and image.size == (image_size, image_size)
    except (OSError, SyntaxError, ValueError):  # PIL's, for all the ways a file can be damaged
        return False


def save_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    from utils import atomic_path

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from tqdm import tqdm

    from utils import select_device

    device = select_device(args.cpu)
    if device.type == "mps":  # it has no float64
        device = select_device(cpu=True)
    generator, checkpoint = load_generator(args.model_path, args.latent_dim, args.feature_maps_g, device)
    folder = Path(args.output_dir)
    manifest = manifest_of(checkpoint, args.model_path, args.num_images, args.seed)
    if args.overwrite:
        clear(folder)
    check_folder(folder, manifest)
    save_json(paths.synthetic_manifest(folder), manifest)

    numbers = range(1, args.num_images + 1)
    todo = [i for i in numbers if not is_whole(paths.synthetic_image(folder, i), generator.image_size)]
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
