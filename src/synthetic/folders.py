"""Synthetic images on disk and where they come from: writing, reading, checking and refusing them.

A manifest beside the images names everything their generator was trained on. Images whose generator saw
a test patient are refused; patients are compared, not only image ids. A folder's own images and those of
its subfolders fold_1, fold_2, ... (of generators trained without one fold) never mix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from dataset.records import name_some
from synthetic.leak_checks import Seen, match_ids, unknown_ids_flag
from utils import UserError, load_json, sha256_file

if TYPE_CHECKING:
    import pandas as pd

OR_LIVE_WITH_IT = "or use --allow-unverified-synthetic and live with a red flag in every result file"
MANIFEST_FORMAT = "synthetic-manifest-1"
FILES = "synthetic_%05d.png"
FEW_IMAGES = 32  # of which a generator learns little more than the images themselves
ORIGIN = (
    "split_sha256", "data_sha256", "grouped_by", "classes", "label", "train_image_ids", "train_patients",
)  # fmt: skip
# What older checkpoints and manifests do not say: their generators learned from all training images.
ORIGIN_DEFAULTS = {"train_fraction": 1.0, "fold": None, "k_folds": None, "red_flags": []}
# What two sets of images must share for one to go on where the other stopped.
IDENTITY = {
    "format": "format", "generator_sha256": "generator", "images_sha256": "origin", "seed": "seed",
    "class": "class",
}  # fmt: skip
REQUIRED_KEYS = ("label", "count", "train_image_ids", "train_patients", "generator_sha256", "split_sha256")


@dataclass(frozen=True)
class SyntheticSet:
    """Images of one folder: ``records`` (image_id, path, label), the ``label`` of them all, and what was
    found out about them; or of several folders (``parts``), and ``label`` is None if theirs differ.

    ``generator_patients``: those of this dataset whose images the generator saw; None when nobody knows.
    ``verified``: could all of the origin be compared with the test set, and does it not touch it? Otherwise
    what it touches is at best somebody's word, so no fold counts as unseen by the generator.
    """

    records: pd.DataFrame
    label: int | None
    verified: bool
    generator_patients: set[str] | None
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_sha256: str | None = None
    red_flags: list[str] = field(default_factory=list)
    parts: tuple[SyntheticSet, ...] = ()

    @property
    def folders(self) -> tuple[SyntheticSet, ...]:
        """The sets of single folders that it consists of."""
        return self.parts or (self,)

    @property
    def class_flag(self) -> str | None:
        """The class that a conditional generator made, one of ``gan_options.CLASS_FLAGS``; else None."""
        return self.manifest.get("class")

    @property
    def fold(self) -> int | None:
        """The fold, counted from 1, that the generator never saw; None if none was left out."""
        return self.manifest.get("fold")

    @property
    def k_folds(self) -> int | None:
        return self.manifest.get("k_folds")

    @property
    def train_fraction(self) -> float:
        """Share of the training patients that the generator was to learn from."""
        return self.manifest.get("train_fraction", 1.0)


# --- reading ---------------------------------------------------------------------------------------
def load_synthetic(
    folder: str | Path,
    patient_of: dict[str, str],
    test_images: dict[str, str],
    allow_unverified: bool = False,
) -> SyntheticSet:
    """The synthetic images of ``folder``, checked against a split.

    ``patient_of`` maps every image id whose patient is known to it (``seen_images.known_patients``);
    ``test_images`` does so for the images that the classifier will be scored on. ``UserError`` if there are
    no images, their label is unknown (a generator of all classes), images are missing, or their origin is
    unknown (the manifest names no image of this dataset) or touches the test set; the last two become red
    flags with ``allow_unverified``. What the manifest itself confesses, training images that are unknown
    here, and training elsewhere, which nobody here can check, are red flags in any case.
    """
    folder = Path(folder)
    manifest_file = paths.synthetic_manifest(folder)
    if not existing_images(folder):
        raise UserError(
            f"{folder} holds no synthetic images; make them with `python src/generate_synthetic.py`"
        )
    if not manifest_file.is_file():
        return _unverified(folder, allow_unverified)
    manifest = read_manifest(manifest_file)
    if manifest["label"] is None:
        raise UserError(
            f"{folder}: these images have no label, because their generator was trained on all classes; "
            "train one on positives (`python src/train_gan.py --classes positive`), or with --conditional"
        )
    flags = list(manifest.get("red_flags", []))
    patient_of, elsewhere = {**patient_of, **test_images}, manifest.get("trained_elsewhere")
    seen = match_ids(manifest["train_image_ids"], patient_of)
    patients = set(manifest["train_patients"]) | set(seen.patients)
    lack = _what_lacks(seen, patients, set(patient_of.values()))
    known = bool(elsewhere or lack is None)
    if not known:
        flags.append(_unknown_flag(folder, lack, allow_unverified))
    if known and (flag := unknown_ids_flag(seen)) and flag not in flags:
        flags.append(flag)
    if elsewhere:
        flags.append(
            f"the generator of {folder.name}/ was trained elsewhere ({elsewhere}): that it saw no test "
            "patient there is its maker's word"
        )
    if leaked := images_seen(set(seen.ids), patients, test_images):
        flags.append(_leak_flag(folder, leaked, allow_unverified))
    return SyntheticSet(
        records=_records(folder, manifest),
        label=int(manifest["label"]),
        verified=known and not elsewhere and not leaked and not seen.unknown,
        generator_patients=patients if known else None,
        manifest=manifest,
        manifest_sha256=sha256_file(manifest_file),
        red_flags=flags,
    )


def _what_lacks(seen: Seen, patients: set[str], known_patients: set[str]) -> str | None:
    """Why what a manifest names cannot be compared with this dataset, or None. Patients of another dataset
    may have the same names as ours, so they count only where no images are listed."""
    if not seen.ids and not patients:
        return "names no training image"
    if seen.ids and len(seen.unknown) == len(seen.ids):
        return f"names training images ({len(seen.ids):,}), but none of this dataset"
    if not seen.ids and not patients & known_patients:
        return f"names training patients ({len(patients):,}), but none of this dataset"
    return None


def images_seen(seen_ids: set[str], seen_patients: set[str], images: dict[str, str]) -> list[str]:
    """Those of ``images`` (image id -> patient) that a generator saw, or whose patient it saw; sorted."""
    return sorted(name for name, patient in images.items() if name in seen_ids or patient in seen_patients)


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest with all the keys that checking needs. ``UserError`` if it is broken."""
    manifest = load_json(path, "`python src/generate_synthetic.py`")
    missing = [key for key in REQUIRED_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise UserError(f"{path} is not a manifest of synthetic images: it lacks {', '.join(missing)}")
    for key in ("train_image_ids", "train_patients"):
        if not isinstance(manifest[key], list):
            raise UserError(f"{path} is not a manifest of synthetic images: {key} is no list")
    return manifest


def overlaps(generator_patients: set[str] | None, patients: set[str]) -> bool:
    """May the generator have seen one of ``patients``? Yes, if nobody knows what it saw."""
    return generator_patients is None or bool(generator_patients & patients)


def _leak_flag(folder: Path, leaked: list[str], allow: bool) -> str:
    message = f"the generator of {folder.name}/ saw patients of {len(leaked)} test images"
    if not allow:
        raise UserError(
            f"{folder}: its generator was trained on patients of the test set ({name_some(leaked, 3)}); "
            f"train the GAN on this split (same --splits), {OR_LIVE_WITH_IT}"
        )
    return f"{message}: no figure of this arm can be believed"


def _unknown_flag(folder: Path, lack: str, allow: bool) -> str:
    """``lack``: what is wrong with the manifest, after its name."""
    manifest = paths.synthetic_manifest(folder)
    if not allow:
        raise UserError(
            f"{manifest} {lack}, so nobody knows whether the generator saw the test patients; make them with "
            "`python src/generate_synthetic.py`, name their origin with `python src/register_synthetic.py`, "
            f"{OR_LIVE_WITH_IT}"
        )
    state = f"a manifest that {lack}" if manifest.is_file() else "no manifest"
    return f"the images of {folder.name}/ have {state}: their generator may have seen the test patients"


def _unverified(folder: Path, allow: bool) -> SyntheticSet:
    import pandas as pd

    flag = _unknown_flag(folder, "is missing", allow)
    files = existing_images(folder)
    records = pd.DataFrame({"image_id": [file.stem for file in files], "path": files, "label": 1})
    return SyntheticSet(records, label=1, verified=False, generator_patients=None, red_flags=[flag])


def _records(folder: Path, manifest: dict[str, Any]) -> pd.DataFrame:
    """The files that the manifest counts, all of which must be there."""
    import pandas as pd

    files = [paths.synthetic_image(folder, index) for index in range(1, manifest["count"] + 1)]
    missing = [file.stem for file in files if not file.is_file()]
    made_by = f"python src/{manifest.get('created_by', 'generate_synthetic.py')}"
    if missing or not files:
        raise UserError(
            f"{folder} is incomplete: {len(missing)} of {manifest['count']} images are missing; "
            f"run the `{made_by}` command that made them again, it goes on where it stopped"
        )
    label = int(manifest["label"])
    return pd.DataFrame({"image_id": [file.stem for file in files], "path": files, "label": label})


# --- writing ---------------------------------------------------------------------------------------
def make_manifest(origin: dict[str, Any], count: int, created_by: str, **images: Any) -> dict[str, Any]:
    """What a folder holds and where it comes from; ``complete`` turns true with the last image.

    ``origin`` has the keys ORIGIN and may have those of ORIGIN_DEFAULTS, as a generator's checkpoint does.
    ``images``: the generator's name (generator) and, null for lack of one, its file's hash
    (generator_sha256); the side of the images in pixels (image_size); whatever else is known.
    """
    return {
        "format": MANIFEST_FORMAT,
        **images,
        **{key: origin[key] for key in ORIGIN},
        **{key: origin.get(key, default) for key, default in ORIGIN_DEFAULTS.items()},
        "files": FILES,
        "count": count,
        "complete": False,
        "created_by": created_by,
    }


def few_images_flags(n_images: int) -> list[str]:
    """A red flag if a generator learned from so few images that it can hardly do more than repeat them."""
    if n_images >= FEW_IMAGES:
        return []
    few = f"{n_images} images, fewer than {FEW_IMAGES}"
    return [f"the generator learned from {few}: such a one mostly memorises, so expect near-copies of them"]


def existing_images(folder: Path) -> list[Path]:
    """The images of the folder itself, not those of its fold subfolders; none if there is no folder."""
    return sorted(folder.glob(paths.SYNTHETIC_PATTERN))


def clear(folder: Path) -> None:
    """Remove the manifest and the synthetic images, and nothing else: fold subfolders stay."""
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
    found = load_json(path, f"python src/{manifest['created_by']} --overwrite")
    for key, what in IDENTITY.items():
        old, new = (found.get(key) if isinstance(found, dict) else None), manifest.get(key)
        if old != new:
            raise UserError(
                f"{folder} holds images of another {what} ({str(old)[:12]}, now {str(new)[:12]}): {remedy}"
            )
    old, asked = found.get("count", 0), manifest["count"]
    if old > asked:
        raise UserError(f"{folder} holds {old} images, --num-images {asked} asks for fewer: {remedy}")
    expected = {paths.synthetic_image(folder, index) for index in range(1, asked + 1)}
    if stray := [image.name for image in images if image not in expected]:
        raise UserError(f"{folder} holds {name_some(stray, 3)} of unknown origin: {remedy}")
