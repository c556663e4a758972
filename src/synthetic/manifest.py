"""The manifest beside synthetic images: making it, reading it, and telling whether two are of one making."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthetic.file_formats import Origin
from utils import UserError, load_json

MANIFEST_FORMAT = "synthetic-manifest-1"
FILES = "synthetic_%05d.png"
FEW_IMAGES = 32  # of fewer a generator learns little more than the images themselves
# What checking needs, whoever wrote the manifest.
REQUIRED_KEYS = ("label", "count", "train_image_ids", "train_patients", "generator_sha256", "split_sha256")
# Keys in which manifests of one making agree -> their names in messages.
IDENTITY = {
    "format": "format", "generator_sha256": "generator", "images_sha256": "origin", "seed": "seed",
    "class": "class",
}  # fmt: skip


def make_manifest(origin: Mapping[str, Any], count: int, created_by: str, **images: Any) -> dict[str, Any]:
    """Make a ``file_formats.Manifest``; its ``complete`` turns true with the last image.

    ``origin`` has the keys of ``file_formats.Origin``, as a generator's checkpoint does. ``images``: the
    other keys of the manifest.
    """
    return {
        "format": MANIFEST_FORMAT,
        **images,
        **{key: origin[key] for key in Origin.__annotations__},
        "files": FILES,
        "count": count,
        "complete": False,
        "created_by": created_by,
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest that has ``REQUIRED_KEYS``. ``UserError`` if it lacks one."""
    manifest = load_json(path, "`python src/generate_synthetic.py`")
    missing = [key for key in REQUIRED_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise UserError(f"{path} is not a manifest of synthetic images: it lacks {', '.join(missing)}")
    for key in ("train_image_ids", "train_patients"):
        if not isinstance(manifest[key], list):
            raise UserError(f"{path} is not a manifest of synthetic images: {key} is not a list")
    return manifest


def difference_in_making(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first key of ``IDENTITY`` in which two manifests differ; None if they agree."""
    return next((key for key in IDENTITY if one.get(key) != other.get(key)), None)


def few_images_flags(n_images: int) -> list[str]:
    """Return a red flag if a generator learned from so few images that it mostly repeats them; else []."""
    if n_images >= FEW_IMAGES:
        return []
    return [
        f"the generator learned from {n_images} images, fewer than {FEW_IMAGES}: it mostly memorises, so "
        "expect near-copies of them"
    ]
