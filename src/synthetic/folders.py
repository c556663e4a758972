"""Folders of synthetic images and their manifests: reading one or several as one set, filling one.

A folder's own images and those of its subfolders fold_1, fold_2, ... (of generators trained without one
fold) never mix. Images whose generator saw a test patient are refused, see ``leak_checks``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.file_formats import format_problems
from common.plan_files import PlanFile, named_files
from dataset.image_ids import name_some
from dataset.images import read_side, typical_side
from synthetic.file_formats import Manifest, Origin
from synthetic.leak_checks import check_origin, unknown_origin_flag
from utils import UserError, load_json, public_path, save_json, sha256_file

if TYPE_CHECKING:
    import pandas as pd

MANIFEST_FORMAT = "synthetic-manifest-1"
CLAIM = ("synthetic", "generate_synthetic.py or register_synthetic.py")  # of who fills a folder, for ``locks.claim``
FEW_IMAGES = 32  # of fewer a generator learns little more than the images themselves
# What checking needs, whoever wrote the manifest.
REQUIRED_KEYS = ("label", "count", "train_image_ids", "train_patients", "generator_sha256", "split_sha256")
# Keys in which manifests of one making agree -> their names in messages.
IDENTITY = {
    "format": "format", "generator_sha256": "generator", "images_sha256": "origin", "seed": "seed",
    "class": "class",
}  # fmt: skip


@dataclass(frozen=True)
class SyntheticSet:
    """Images of one folder, or of several (``parts``), and what was found out about them.

    ``records``: image_id, path, label; ``label``: that of them all, None if folders differ. ``verified`` and
    ``generator_patients``: see ``leak_checks.OriginCheck``; no fold counts as unseen by the generator of a
    set that is not verified. ``manifest``: see ``file_formats.Manifest``; empty without one.
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

    def smallest_side(self) -> int | None:
        """Return the smallest side of the images in pixels, from manifests or else files; None: unreadable."""
        sides: list[int | None] = []
        for folder in self.folders:
            side = folder.manifest.get("image_size")
            sides += [side] if side else [read_side(path) for path in folder.records["path"]]
        return min((side for side in sides if side), default=None)

    @property
    def class_flag(self) -> str | None:
        """The class that a conditional generator made, one of ``gan.settings.CLASS_FLAGS``; else None."""
        return self.manifest.get("class")

    @property
    def fold(self) -> int | None:
        """The fold, counted from 1, that the generator never saw; None if none was left out."""
        return self.manifest.get("fold")

    @property
    def k_folds(self) -> int | None:
        """Number of folds that ``fold`` is one of."""
        return self.manifest.get("k_folds")

    @property
    def train_fraction(self) -> float:
        """Share of the training patients that the generator was to learn from."""
        return self.manifest.get("train_fraction", 1.0)


# --- reading one folder ----------------------------------------------------------------------------
def load_synthetic(
    folder: str | Path,
    patient_of: Mapping[str, str],
    test_images: Mapping[str, str],
    allow_unverified: bool = False,
    by_nih: bool = True,
    labelled: bool = True,
) -> SyntheticSet:
    """Read the synthetic images of ``folder`` and check their origin against a split.

    ``patient_of`` maps every image id whose patient is known (``leak_checks.known_patients``);
    ``test_images`` does so for the images that the classifier will be scored on; ``by_nih``: patients are NIH's,
    whom NIH's file names tell. Not ``labelled``: images without labels are wanted, of a generator that was told none.
    Raises ``UserError`` if there are no images, images are missing, they have no label (a generator of all classes) or
    one where none is wanted, or ``leak_checks.check_origin`` refuses them.
    """
    folder = Path(folder)
    manifest_file = paths.synthetic_manifest(folder)
    files = existing_images(folder)
    if not files:
        raise UserError(f"{folder} holds no synthetic images; make them with `python src/generate_synthetic.py`")
    if not manifest_file.is_file():
        flag = unknown_origin_flag(folder, "is missing", allow_unverified)
        usual = 1 if labelled else None
        return SyntheticSet(_records(files, usual), usual, False, None, red_flags=[flag])
    manifest = read_manifest(manifest_file)
    if not labelled and manifest["label"] is not None:
        raise UserError(
            f"{folder}: its generator was told which images are positive, and with --labelled-patients most labels are "
            "hidden; train one without labels (`python src/train_gan.py --classes all`)"
        )
    if labelled and manifest["label"] is None:
        raise UserError(
            f"{folder}: these images have no label, because their generator was trained on all classes; "
            "train one on positives (`python src/train_gan.py --classes positive`), or with --conditional"
        )
    origin = check_origin(folder, manifest, patient_of, test_images, allow_unverified, by_nih)
    label = int(manifest["label"]) if labelled else None
    return SyntheticSet(
        _records(_listed_files(folder, manifest), label), label, origin.verified, origin.patients,
        manifest, sha256_file(manifest_file), origin.red_flags,
    )  # fmt: skip


def _listed_files(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """Return the files that the manifest counts; raises ``UserError`` unless all are there."""
    files = [paths.synthetic_image(folder, index) for index in range(1, manifest["count"] + 1)]
    missing = [file.stem for file in files if not file.is_file()]
    made_by = f"python src/{manifest.get('created_by', 'generate_synthetic.py')}"
    if missing or not files:
        raise UserError(
            f"{folder} is incomplete: {len(missing)} of {manifest['count']} images are missing; "
            f"run the `{made_by}` command that made them again, it goes on where it stopped"
        )
    return files


def _records(files: Sequence[Path], label: int | None) -> pd.DataFrame:
    import pandas as pd

    known = float("nan") if label is None else label
    return pd.DataFrame({"image_id": [file.stem for file in files], "path": files, "label": known})


def existing_images(folder: Path) -> list[Path]:
    """Return the images of the folder itself, not those of its fold subfolders; [] if there is no folder."""
    return sorted(folder.glob(paths.SYNTHETIC_PATTERN))


# --- several folders as one ------------------------------------------------------------------------
def join_folders(found: Sequence[dict[int, SyntheticSet]]) -> dict[int, SyntheticSet]:
    """Unite several folders: fold -> images of all of them (``found`` holds the same for each folder).

    If a folder has no images for a fold, its images of key 0 are taken. Their generator saw the patients of
    that fold, and so the united set counts as made by one that saw them. Raises ``UserError`` if two folders
    hold the same images.
    """
    if len(found) == 1:
        return found[0]
    for one, other in combinations([sets[0] for sets in found], 2):
        if _same_images(one, other):
            raise UserError(
                f"--synthetic-dir: {_folder(one)} and {_folder(other)} hold the same images (generator, seed "
                "and class are the same): leave one of them out"
            )
    folds = sorted({fold for sets in found for fold in sets})
    return {fold: unite([sets.get(fold, sets[0]) for sets in found]) for fold in folds}


def unite(sets: Sequence[SyntheticSet]) -> SyntheticSet:
    """Make one set of several, the same whatever their order.

    Records are interleaved, so that the first n are of each folder in proportion to its images. ``label`` is
    None if the labels differ. What one of the generators saw counts as seen; what is unknown of one is
    unknown of all.
    """
    import numpy as np
    import pandas as pd

    parts = sorted(sets, key=lambda part: (-(part.label or 0), part.manifest_sha256 or ""))
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in (len(part.records) for part in parts)])
    named = [  # every folder has the same file names
        part.records.assign(image_id=f"{_folder(part).name}/" + part.records["image_id"]) for part in parts
    ]
    records = pd.concat(named).iloc[np.argsort(place, kind="stable")]
    labels = {part.label for part in parts}
    seen = [part.generator_patients for part in parts]
    known = [patients for patients in seen if patients is not None]
    hashes = "\n".join(part.manifest_sha256 or "none" for part in parts)
    return SyntheticSet(
        records=records.reset_index(drop=True),
        label=labels.pop() if len(labels) == 1 else None,
        verified=all(part.verified for part in parts),
        generator_patients=set().union(*known) if len(known) == len(seen) else None,
        manifest_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        red_flags=list({flag: None for part in parts for flag in part.red_flags}),
        parts=tuple(parts),
    )


def _folder(images: SyntheticSet) -> Path:
    return images.records["path"].iloc[0].parent


def _same_images(one: SyntheticSet, other: SyntheticSet) -> bool:
    """Return whether both are the same folder, or filled by the same generator from the same noise."""
    if _folder(one).resolve() == _folder(other).resolve():
        return True
    if not any(one.manifest.get(key) for key in ("generator_sha256", "images_sha256")):
        return False
    return difference_in_making(one.manifest, other.manifest) is None


# --- resolution ------------------------------------------------------------------------------------
def resolution_flag(
    synthetic: SyntheticSet, real_files: Sequence[Path], image_size: int, match_resolution: int | None
) -> str | None:
    """Return a red flag if synthetic images are enlarged more than real ones, so that blur tells them apart.

    Raises ``UserError`` if ``match_resolution`` leaves them the blurrier ones. A few of ``real_files`` say
    how many pixels real images have, which may be no more.
    """
    side, real = synthetic.smallest_side(), typical_side(real_files)
    seen = min(match_resolution or image_size, real or image_size)
    if side is None or side >= seen:
        return None
    where, remedy = public_path(_folder(synthetic)), f"--match-resolution {side}"
    if match_resolution:
        raise UserError(
            f"--match-resolution {match_resolution} leaves the synthetic images of {where} the blurrier ones, as "
            f"they have {side} pixels; give {remedy} in every arm, the baseline included"
        )
    kinds: dict[int | None, str] = {1: "positives", 0: "negatives"}
    return (
        f"synthetic images have {side} px, the classifier sees real ones at {seen} px: they are blurry "
        f"{kinds.get(synthetic.label, 'images')}, and blur may pass for the label; {remedy} in every arm, the baseline "
        "included, takes that away"
    )


# --- filling a folder ------------------------------------------------------------------------------
def clear(folder: Path) -> None:
    """Remove the manifest and the synthetic images, and nothing else: fold subfolders stay."""
    paths.synthetic_manifest(folder).unlink(missing_ok=True)
    for path in existing_images(folder):
        path.unlink()


def check_folder(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless what is in ``folder`` can be continued into what ``manifest`` describes."""
    remedy = "--overwrite replaces them, --output-dir puts the new ones elsewhere"
    path = paths.synthetic_manifest(folder)
    images = existing_images(folder)
    if not path.is_file():
        if images:
            raise UserError(f"{folder} holds {len(images)} images without a {path.name}: {remedy}")
        return
    found = load_json(path, f"python src/{manifest['created_by']} --overwrite")
    found = found if isinstance(found, dict) else {}
    if key := difference_in_making(found, manifest):
        old, new = (str(content.get(key))[:12] for content in (found, manifest))
        raise UserError(f"{folder} holds images of another {IDENTITY[key]} ({old}, now {new}): {remedy}")
    if wrong := _wrong_values(found):
        raise UserError(f"{path} is damaged: {wrong[0]}; {remedy}")
    old, asked = found.get("count", 0), manifest["count"]
    if old > asked:
        raise UserError(f"{folder} holds {old} images, but --num-images {asked} asks for fewer: {remedy}")
    expected = {paths.synthetic_image(folder, index) for index in range(1, asked + 1)}
    if stray := [image.name for image in images if image not in expected]:
        raise UserError(f"{folder} holds {name_some(stray, 3)} of unknown origin: {remedy}")


# --- the manifest ----------------------------------------------------------------------------------
def make_manifest(origin: Mapping[str, Any], count: int, created_by: str, **images: Any) -> dict[str, Any]:
    """Make a ``file_formats.Manifest``; its ``complete`` turns true with the last image.

    ``origin`` has the keys of ``Origin``, as a generator's checkpoint does; ``images``: the others.
    """
    from_origin = {key: origin[key] for key in Origin.__annotations__}
    how = {"files": paths.SYNTHETIC_NAME, "count": count, "complete": False, "created_by": created_by}
    return {"format": MANIFEST_FORMAT, **images, **from_origin, **how}


def begin_manifest(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``folder`` (``check_folder``), write the manifest of images under way to it, and return that.

    It names the experiment file and the plan of the run that began the folder: a run that finds all images there
    must not change the manifest, whose hash tells arms with the same images.
    """
    check_folder(folder, manifest)
    file = paths.synthetic_manifest(folder)
    earlier = load_json(file) if file.is_file() else named_files()
    content = {**manifest, **{key: earlier[key] for key in ("config_sha256", "plan_sha256") if key in earlier}}
    save_json(file, content)
    return content


def check_planned(plan: PlanFile, folders: Sequence[str]) -> None:
    """Raise ``UserError`` unless the images that generate_synthetic.py made in ``folders`` were made under ``plan``."""
    for folder in folders:
        file = paths.synthetic_manifest(Path(folder))
        manifest = read_manifest(file) if file.is_file() else {}
        if manifest.get("created_by") == "generate_synthetic.py":
            plan.check_origin(f"{folder}/", manifest.get("plan_sha256"))


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest that has ``REQUIRED_KEYS``. Raises ``UserError`` if it lacks one."""
    manifest = load_json(path, "`python src/generate_synthetic.py`")
    missing = [key for key in REQUIRED_KEYS if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise UserError(f"{path} is not a manifest of synthetic images: it lacks {', '.join(missing)}")
    if wrong := _wrong_values(manifest):
        raise UserError(f"{path} is not a manifest of synthetic images: {wrong[0]}")
    return manifest


def _wrong_values(manifest: Mapping[str, Any]) -> list[str]:
    """Say which values are of the wrong type; manifests of other programs may lack keys and have more."""
    problems = format_problems(manifest, Manifest)
    return [text for text in problems if not text.endswith(("is missing", "not described"))]


def difference_in_making(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return the first key of ``IDENTITY`` in which two manifests differ; None if they agree."""
    return next((key for key in IDENTITY if one.get(key) != other.get(key)), None)


def few_images_flags(n_images: int) -> list[str]:
    """Return a red flag if a generator learned from so few images that it mostly repeats them; else []."""
    few = f"the generator learned from {n_images} images, fewer than {FEW_IMAGES}"
    return [] if n_images >= FEW_IMAGES else [f"{few}: it mostly memorises, so expect near-copies of them"]
