"""Synthetic images on disk and where they come from: reading, checking and refusing them.

A manifest beside the images names everything their generator was trained on. Images whose generator saw
a test patient are refused; patients are compared, not only image ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paths
from data_loader import name_some
from utils import UserError, load_json, sha256_file

if TYPE_CHECKING:
    import pandas as pd

MANIFEST_FORMAT = "synthetic-manifest-1"
REQUIRED_KEYS = ("label", "count", "train_image_ids", "train_patients", "generator_sha256", "split_sha256")


@dataclass(frozen=True)
class SyntheticSet:
    """Images of one folder: ``records`` (image_id, path), their ``label``, and what was found out about them.

    ``generator_patients`` is None when the images are unverified (no manifest).
    """

    records: pd.DataFrame
    label: int
    verified: bool
    generator_patients: set[str] | None
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_sha256: str | None = None
    red_flags: list[str] = field(default_factory=list)


def load_synthetic(
    folder: str | Path,
    patient_of: dict[str, str],
    test_images: dict[str, str],
    allow_unverified: bool = False,
) -> SyntheticSet:
    """The synthetic images of ``folder``, checked against a split.

    ``patient_of`` maps every labelled image id to its patient; ``test_images`` does so for the images that
    the classifier will be scored on. ``UserError`` if there are no images, their label is unknown (a
    generator of all classes), images are missing, or their origin is unknown or touches the test set;
    the last two become red flags with ``allow_unverified``.
    """
    folder = Path(folder)
    manifest_file = paths.synthetic_manifest(folder)
    if not folder.is_dir() or not any(folder.glob(paths.SYNTHETIC_PATTERN)):
        raise UserError(
            f"{folder} holds no synthetic images; make them with `python src/generate_synthetic.py`"
        )
    if not manifest_file.is_file():
        return _unverified(folder, allow_unverified)
    manifest = read_manifest(manifest_file)
    if manifest["label"] is None:
        raise UserError(
            f"{folder}: these images have no label, because their generator was trained on all classes; "
            "train one on positives: `python src/train_gan.py --classes positive`"
        )
    seen_ids = set(manifest["train_image_ids"])
    patients = set(manifest["train_patients"]) | {patient_of[name] for name in seen_ids if name in patient_of}
    leaked = [name for name, patient in test_images.items() if name in seen_ids or patient in patients]
    flags = []
    if leaked:
        flags = [_leak_flag(folder, sorted(leaked), allow_unverified)]
    return SyntheticSet(
        records=_records(folder, manifest),
        label=int(manifest["label"]),
        verified=not flags,
        generator_patients=patients,
        manifest=manifest,
        manifest_sha256=sha256_file(manifest_file),
        red_flags=flags,
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest with all the keys that checking needs. ``UserError`` if it is broken."""
    manifest = load_json(path, "`python src/generate_synthetic.py`")
    missing = [key for key in REQUIRED_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise UserError(f"{path} is not a manifest of synthetic images: it lacks {', '.join(missing)}")
    return manifest


def overlaps(generator_patients: set[str] | None, patients: set[str]) -> bool:
    """May the generator have seen one of ``patients``? Yes, if nobody knows what it saw."""
    return generator_patients is None or bool(generator_patients & patients)


def _leak_flag(folder: Path, leaked: list[str], allow: bool) -> str:
    message = f"the generator of {folder.name}/ saw patients of {len(leaked)} test images"
    if not allow:
        raise UserError(
            f"{folder}: its generator was trained on patients of the test set ({name_some(leaked, 3)}); "
            "train the GAN on this split (same --splits), or use --allow-unverified-synthetic and live with "
            "a red flag in every result file"
        )
    return f"{message}: no figure of this arm can be believed"


def _unverified(folder: Path, allow: bool) -> SyntheticSet:
    import pandas as pd

    if not allow:
        raise UserError(
            f"{paths.synthetic_manifest(folder)} is missing, so nobody knows what the generator was trained "
            "on; make the images with `python src/generate_synthetic.py`, or use "
            "--allow-unverified-synthetic and live with a red flag in every result file"
        )
    files = sorted(folder.glob(paths.SYNTHETIC_PATTERN))
    records = pd.DataFrame({"image_id": [file.stem for file in files], "path": files})
    flag = f"the images of {folder.name}/ have no manifest: their generator may have seen the test patients"
    return SyntheticSet(records, label=1, verified=False, generator_patients=None, red_flags=[flag])


def _records(folder: Path, manifest: dict[str, Any]) -> pd.DataFrame:
    """The files that the manifest counts, all of which must be there."""
    import pandas as pd

    files = [paths.synthetic_image(folder, index) for index in range(1, manifest["count"] + 1)]
    missing = [file.stem for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            f"{folder} is incomplete: {len(missing)} of {manifest['count']} images are missing; "
            "run the same `python src/generate_synthetic.py` command again, it goes on where it stopped"
        )
    return pd.DataFrame({"image_id": [file.stem for file in files], "path": files})
