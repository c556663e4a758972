"""Layout ``folders``: a folder for each class, perhaps below train, val and test, as Kermany's X-rays of children."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dataset.file_formats import PositiveMeaning
from dataset.image_folders import is_hidden
from dataset.tables import squeeze
from importers.sources import (
    Source,
    SourceImage,
    is_image,
    list_files,
    require_folder,
    split_images,
    subfolders,
)
from utils import UserError

TRAIN, TEST = "train", "test"
PART_OF_NAME = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "valset", "validationset"), TRAIN),
    **dict.fromkeys(("test", "testing", "testset"), TEST),
}
# Squeezed names of class folders whose meaning nobody can doubt.
POSITIVE_NAMES = frozenset(
    ("pneumonia", "pneumonias", "pneumonie", "pneumonic", "pneumoniacases", "lungopacity", "opacity", "opacities",
     "positive", "positives", "pos", "1", "class1", "label1", "target1", "pneumoniapositive", "withpneumonia")
)  # fmt: skip
NEGATIVE_NAMES = frozenset(
    ("normal", "normals", "healthy", "negative", "negatives", "neg", "nofinding", "nofindings", "0", "class0", "label0",
     "target0", "nopneumonia", "nonpneumonia", "notpneumonia", "withoutpneumonia", "pneumonianegative", "noopacity",
     "nolungopacity", "control", "controls")
)  # fmt: skip
KERMANY = "Kermany"
# Names of Kermany's files as Kaggle has them, and as Mendeley has them; the group names the patient. Bacteria and
# viruses are counted apart: person101_bacteria is another child than person101_virus.
KERMANY_NAMES = (
    re.compile(r"(person\d+_(?:bacteria|virus))_\d+.*", re.IGNORECASE),
    re.compile(r"((?:NORMAL2-)?IM-\d+)-\d+.*", re.IGNORECASE),
    re.compile(r"((?:BACTERIA|VIRUS|NORMAL)-\d+)-\d+.*", re.IGNORECASE),
)
KERMANY_SICK = re.compile(r"person\d+_(bacteria|virus)_\d+.*|(BACTERIA|VIRUS)-\d+-\d+.*", re.IGNORECASE)
MOST_WRAPPERS = 4  # folders in folders, each with nothing else in it


def read_folders(source: Path, positive: Sequence[str] = (), group_pattern: re.Pattern[str] | None = None) -> Source:
    """Read class folders below ``source``.

    ``positive``: class folders that count as positive, where their names do not say so; ``group_pattern``: its
    first group in a file's place within its class folder names the patient. Raises ``UserError`` if it is unclear
    what the folders mean, or images lie outside of them.
    """
    require_folder(source)
    notes: list[str] = []
    root, parts = _find_parts(source, notes)
    found = [(part, folder, files) for part, top in parts for folder, files in _class_folders(top, notes)]
    classes = list(dict.fromkeys(folder.name for _, folder, _ in found))
    sick = _positive_classes(classes, positive, root)
    images = []
    for part, folder, files in found:
        label = int(squeeze(folder.name) in sick)
        images += [SourceImage(file, file.stem, label, official=part == TEST) for file in files]
    data_set, images, patients = _with_patients(images, found, group_pattern)
    names = [name for name in classes if squeeze(name) in sick]
    others = [name for name in classes if squeeze(name) not in sick]
    return Source(root, images, _meaning(names, others, data_set), patients, data_set, notes=notes)


# --- finding the folders ---------------------------------------------------------------------------
def _find_parts(source: Path, notes: list[str]) -> tuple[Path, list[tuple[str, Path]]]:
    """Return (the folder to begin with, its parts: ("train" or "test", folder))."""
    folder = source
    for _ in range(MOST_WRAPPERS):
        inner = subfolders(folder)
        parts = [(PART_OF_NAME[squeeze(path.name)], path) for path in inner if squeeze(path.name) in PART_OF_NAME]
        others = [path for path in inner if squeeze(path.name) not in PART_OF_NAME]
        if parts:
            _refuse_beside_parts(folder, others, [path for _, path in parts], notes)
            if TRAIN not in {part for part, _ in parts}:
                raise UserError(f"{folder} holds {parts[0][1].name} but no train; give the folder that holds both")
            return folder, parts
        if len(others) != 1 or _images_in(folder):
            break
        folder = others[0]
    return folder, [(TRAIN, folder)]


def _refuse_beside_parts(folder: Path, others: Sequence[Path], parts: Sequence[Path], notes: list[str]) -> None:
    """Refuse images that lie beside train and test, but for a second copy of these."""
    for other in others:
        inner = {squeeze(path.name) for path in subfolders(other)}
        if inner and inner <= {squeeze(path.name) for path in parts}:
            notes.append(f"a folder beside these is left out: it holds {', '.join(sorted(inner))} once more")
        elif any(map(is_image, list_files(other))):
            raise UserError(
                f"{folder} holds images in {other.name} beside {' and '.join(path.name for path in parts)}; "
                "move that folder away, or give the folder to import"
            )
    if files := _images_in(folder):
        raise UserError(f"{folder} holds images beside its folders ({files[0].name}); move them into a class folder")


def _images_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if not is_hidden(path.name) and path.is_file() and is_image(path)]


def _class_folders(top: Path, notes: list[str]) -> list[tuple[Path, list[Path]]]:
    """Return (class folder, its images) in ``top``."""
    if files := _images_in(top):
        raise UserError(
            f"{top} holds {len(files):,} images outside of class folders ({files[0].name}); move them into a folder "
            "for each class, such as NORMAL and PNEUMONIA"
        )
    found = [(folder, split_images(list_files(folder), notes)) for folder in subfolders(top)]
    found = [(folder, files) for folder, files in found if files]
    if not found:
        raise UserError(f"{top} holds no folder with images; give the folder that holds a folder for each class")
    return found


# --- what they mean --------------------------------------------------------------------------------
def _positive_classes(classes: Sequence[str], positive: Sequence[str], root: Path) -> set[str]:
    """Return the squeezed names of the positive class folders; raises ``UserError`` if that is unclear."""
    squeezed = {squeeze(name): name for name in classes}
    asked = {squeeze(name): name for name in positive}
    if unknown := [name for key, name in asked.items() if key not in squeezed]:
        raise UserError(f"--positive {unknown[0]}: {root} has no such class folder; it has {', '.join(classes)}")
    if len(squeezed) < 2:
        raise UserError(f"{root} has one class folder only, {classes[0]}; training needs both, so add the other")
    sick = set(asked) or {key for key in squeezed if key in POSITIVE_NAMES}
    healthy = set(squeezed) - sick
    if asked and not healthy:
        raise UserError(f"--positive names all class folders of {root}; leave one out, which is then negative")
    if not asked and not (sick and healthy and healthy <= NEGATIVE_NAMES):
        example = next((name for name in classes if squeeze(name) not in NEGATIVE_NAMES), classes[0])
        raise UserError(
            f"it is unclear which class folders of {root} are positive: {', '.join(classes)}; name them with "
            f"--positive, such as --positive {example}; the others are then negative"
        )
    return sick


def _meaning(names: list[str], others: list[str], data_set: str) -> PositiveMeaning:
    by = "two physicians, checked by a third in the test set" if data_set else "unknown: whoever sorted the folders"
    whose = "children with pneumonia of bacteria or viruses (Kermany et al.)" if data_set else "as somebody sorted them"
    return {
        "names": names, "negative": others, "uncertain": "", "labelled_by": by,
        "sentence": f"class folder {', '.join(names)} against {', '.join(others)}, {whose}",
    }  # fmt: skip


# --- patients --------------------------------------------------------------------------------------
def _with_patients(
    images: list[SourceImage], found: Sequence[tuple[str, Path, Sequence[Path]]], pattern: re.Pattern[str] | None
) -> tuple[str, list[SourceImage], str]:
    """Return (known data set or "", images with their patients, where these come from)."""
    if pattern is not None:
        folder_of = {file: folder for _, folder, files in found for file in files}
        places = [image.file.relative_to(folder_of[image.file]).as_posix() for image in images]
        matches = [pattern.search(place) for place in places]
        if not any(matches):
            raise UserError(f"--group-pattern {pattern.pattern} fits no file, such as {places[0]}; correct it")
        images = [
            replace(image, patient=(match[1] or "") if match else "")
            for image, match in zip(images, matches, strict=True)
        ]
        return _data_set(images), images, "file names, by --group-pattern"
    if not (data_set := _data_set(images)):
        return "", images, ""
    return data_set, [replace(image, patient=kermany_patient(image.name)) for image in images], "file names"


def _data_set(images: Sequence[SourceImage]) -> str:
    """Tell Kermany's set by the names of its files."""
    sick = [image for image in images if image.label]
    named = sum(bool(KERMANY_SICK.fullmatch(image.name)) for image in sick)
    all_named = sum(bool(kermany_patient(image.name)) for image in images)
    return KERMANY if sick and named > 0.9 * len(sick) and all_named > 0.9 * len(images) else ""


def kermany_patient(name: str) -> str:
    """Return the patient in a file name of Kermany's set, "" in other names.

    >>> kermany_patient("person12_bacteria_3"), kermany_patient("NORMAL2-IM-0115-0001")
    ('person12_bacteria', 'NORMAL2-IM-0115')
    """
    return next((match[1] for names in KERMANY_NAMES if (match := names.fullmatch(name))), "")
