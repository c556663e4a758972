"""Train/test split and folds, made once, frozen in ``splits.json``, and read by everything else.

Stratified by label and grouped by patient, so that no person is on two sides. Where images of different patients
show one picture (``twins``), a new split keeps these patients together, by a column of its own. It is a function of
the metadata and of the twins, not of a script's --seed; the folds are a pure function of (splits, k).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common import paths
from common.output_folders import try_to_write
from dataset.file_formats import SplitsBody, SplitsFile
from dataset.image_ids import name_some
from dataset.records import CHECK_COMMAND, Dataset
from dataset.twins import TwinPair, conflict_flags, describe_twins, find_twins, name_pairs, unite_patients
from utils import UserError, load_json, save_json, sha256_json

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

VERSION = 1
SPLIT_SEED = 42
Part = tuple[int, int]
USUAL: Part = (1, 4)  # a quarter of the labelled images is tested: about 6,671 of the full set's 26,684
TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
VALIDATION_PARTS = 10  # without folds, one tenth of the training images chooses the epoch
COLUMNS = ["image_id", "patient", "label", "class", "role"]
TWIN_GROUP = "twin_group"  # column of a split whose data have twins: patients, united if they share a picture


@dataclass(frozen=True)
class Splits:
    """The frozen split of a dataset.

    ``images``: image_id, patient, label, class, role, sorted by image_id; roles are "train" and "test", and
    "unused" where the training images were reduced, "validation" where a fold was left out. ``twin_group`` is there
    if the split was made for data with twins: twins are on one side, and in one fold.
    """

    images: pd.DataFrame
    grouped_by: str
    seed: int
    sha256: str
    path: Path
    created: bool


# --- the split -------------------------------------------------------------------------------------
def load_or_create_splits(
    dataset: Dataset, path: str | Path | None = None, cache_dir: str | Path | None = None, tested: Part = USUAL
) -> Splits:
    """Read the frozen split of ``dataset`` from ``path`` (default ``<data-dir>/splits.json``), or make it.

    ``tested``: which part of the images a new split tests, see ``make_splits``. A new split looks for twins in the
    images, see ``twins.find_twins`` for time and ``cache_dir``. Raises ``UserError`` if the file there was edited, or
    does not fit the dataset: it is never rebuilt silently.
    """
    import pandas as pd

    path = Path(path) if path is not None else dataset.data_dir / paths.SPLITS
    created = not path.exists()
    if created:
        with _named_if_unwritable(path):  # before the search for twins, which can take minutes
            try_to_write(path.parent)
        if twins := find_twins(dataset.images, cache_dir):
            log.info(f"{describe_twins(twins)}; the split keeps them together")
        content = make_splits(dataset, twins, tested=tested)
        with _named_if_unwritable(path):
            save_json(path, content)
    else:
        content = _read_splits(path)
    columns = [*COLUMNS, TWIN_GROUP] if TWIN_GROUP in content["images"][0] else COLUMNS
    images = pd.DataFrame(content["images"], columns=columns)
    if not created:
        _check_fit(images, content["grouped_by"], dataset, path)
    return Splits(images, content["grouped_by"], content["seed"], content["sha256"], path, created)


@contextmanager
def _named_if_unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file with --splits") from None


def make_splits(dataset: Dataset, twins: Sequence[TwinPair] = (), tested: Part = USUAL) -> SplitsFile:
    """Make the content of ``splits.json``: of stratified, grouped parts of equal size, one is the test set.

    ``tested``: (its number, from 1; number of parts). Splits of one number of parts test every image once.
    """
    part, n_parts = tested
    images = dataset.images[["image_id", "patient", "label", "class"]].sort_values("image_id")
    if twins:
        images[TWIN_GROUP] = unite_patients(images, twins)
    fold = _stratified_group_folds(images, n_parts, SPLIT_SEED, "a test set")
    images.insert(4, "role", [TEST if number == part else TRAIN for number in fold])
    content: SplitsBody = {
        "version": VERSION, "seed": SPLIT_SEED, "test_fraction": 1 / n_parts, "grouped_by": dataset.grouped_by,
        "images": cast("list[Any]", images.to_dict("records")),
    }  # fmt: skip
    return {"sha256": sha256_json(content), **content}


def assign_folds(splits: Splits, k: int) -> pd.Series:
    """Assign each training image (index image_id) to fold 1..k: a pure function of (splits, k)."""
    import pandas as pd

    train = splits.images[splits.images["role"] == TRAIN]
    fold = _stratified_group_folds(train, k, splits.seed, f"{k} folds")
    return pd.Series(fold, index=pd.Index(train["image_id"], name="image_id"), name="fold")


def assign_validation_part(splits: Splits) -> pd.Series:
    """Return 1 for the stratified, patient-grouped tenth of the training images that validates, else more.

    If fewer than ten patients have (or do not have) pneumonia, the part is larger than a tenth.
    """
    train = splits.images[splits.images["role"] == TRAIN]
    patients = min(_groups(group).nunique() for _, group in train.groupby("label"))
    return assign_folds(splits, max(2, min(VALIDATION_PARTS, patients)))


def reduce_training(splits: Splits, fraction: float) -> Splits:
    """Keep ``fraction`` of the training patients; the role of the others' images becomes "unused".

    Patients with and without a positive image are each put in one random order (fixed by the split's seed)
    and the first ``fraction`` of them kept, so that a smaller subset always lies within a larger one. The
    test images and the sha256 stay. Raises ``UserError`` if no patient of one kind would be left.
    """
    import numpy as np

    train = splits.images[splits.images["role"] == TRAIN]
    has_positive = train.groupby("patient")["label"].max()
    kept: list[str] = []
    for label, kind in ((1, "with"), (0, "without")):
        patients = np.sort(has_positive.index[has_positive == label].to_numpy(dtype=str))
        n = round(fraction * len(patients))
        if n == 0:
            enough = math.ceil(100 / max(len(patients), 1)) / 100
            raise UserError(
                f"--train-fraction {fraction:g} leaves no patient {kind} pneumonia ({len(patients)} in "
                f"training); use at least {enough:g}"
            )
        kept += list(np.random.default_rng(splits.seed).permutation(patients)[:n])
    role = splits.images["role"].where((splits.images["role"] != TRAIN) | splits.images["patient"].isin(kept), UNUSED)
    return replace(splits, images=splits.images.assign(role=role))


def leave_out_fold(splits: Splits, fold: int, k: int) -> Splits:
    """Leave out fold ``fold`` of ``k``: the role of its images becomes "validation"."""
    folds = assign_folds(splits, k)
    left_out = splits.images["image_id"].isin(folds.index[folds == fold])
    return replace(splits, images=splits.images.assign(role=splits.images["role"].mask(left_out, VALIDATION)))


def training_part(splits: Splits, fraction: float, fold: int | None, k: int | None) -> Splits:
    """Reduce ``splits`` to what a generator may learn from: a fraction, without a fold if one is given."""
    reduced = reduce_training(splits, fraction)
    return reduced if fold is None or k is None else leave_out_fold(reduced, fold, k)


def select(dataset: Dataset, splits: Splits, role: str, label: int | None = None) -> pd.DataFrame:
    """Select the records of ``dataset.images`` with that role, and label if given, sorted by image_id."""
    ids = splits.images.loc[splits.images["role"] == role, "image_id"]
    records = dataset.images[dataset.images["image_id"].isin(ids)]
    if label is not None:
        records = records[records["label"] == label]
    return records.reset_index(drop=True)


def describe_splits(splits: Splits) -> str:
    """Describe the split in a line: its file, and how many images and patients each side has."""
    sides = []
    for role in (TRAIN, VALIDATION, TEST, UNUSED):
        group = splits.images[splits.images["role"] == role]
        if len(group):
            sides.append(
                f"{role} {len(group):,} images of {group['patient'].nunique():,} groups, "
                f"{group['label'].mean():.1%} positive"
            )
    verb = "written" if splits.created else "read"
    return f"split {splits.sha256[:12]} ({verb}: {splits.path}): " + "; ".join(sides)


def twin_flags(dataset: Dataset, splits: Splits, k_folds: int = 0, cache_dir: str | Path | None = None) -> list[str]:
    """Return red flags of twins: on two sides of the split, in different folds of ``k_folds``, of different labels."""
    twins = find_twins(dataset.images, cache_dir)
    flags = conflict_flags(twins)
    role_of = dict(zip(splits.images["image_id"], splits.images["role"], strict=True))
    roles_of = {pair: {role_of[name] for name in pair.ids} - {UNUSED} for pair in twins}
    if apart := [pair for pair, roles in roles_of.items() if TEST in roles and len(roles) > 1]:
        flags.append(
            f"{name_pairs(apart)} show one picture on both sides of the split, so test images have been seen in "
            f"training; delete {splits.path.name} for a split that keeps them together"
        )
    folds = assign_folds(splits, k_folds).to_dict() if k_folds else {}
    places = {pair: {folds[name] for name in pair.ids if name in folds} for pair in twins}
    if apart := [pair for pair in twins if len(places[pair]) > 1 or roles_of[pair] == {TRAIN, VALIDATION}]:
        flags.append(
            f"{name_pairs(apart)} show one picture in different folds, so validation images have been seen in training"
        )
    return flags


def _groups(images: pd.DataFrame) -> pd.Series:
    """Return what must stay together: the patient, or the group that united patients form."""
    return images[TWIN_GROUP if TWIN_GROUP in images else "patient"]


def _stratified_group_folds(images: pd.DataFrame, k: int, seed: int, what: str) -> list[int]:
    """Assign each row to fold 1..k, with equal label shares and whole patients (StratifiedGroupKFold)."""
    from sklearn.model_selection import StratifiedGroupKFold

    for label, group in images.groupby("label"):
        if (patients := _groups(group).nunique()) < k:
            kind = "positive" if label else "negative"
            raise UserError(f"{patients} patients with {kind} images are too few for {what}: at least {k} are needed")
    folds = [0] * len(images)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    parts = splitter.split(images["image_id"], images["label"], _groups(images))
    for fold, (_, held_out) in enumerate(parts, start=1):
        for row in held_out:
            folds[row] = fold
    return folds


def _read_splits(path: Path) -> SplitsFile:
    """Read a splits file; raises ``UserError`` if it is something else or was edited."""
    content = load_json(path)
    remedy = f"restore it, or delete it and run `{CHECK_COMMAND} ...` for a new split"
    held = content if isinstance(content, dict) else {}
    if missing := [key for key in (*SplitsBody.__annotations__, "sha256") if key not in held]:
        raise UserError(f"{path} is not a splits file ({missing[0]} is missing); {remedy}")
    if content["version"] != VERSION:
        raise UserError(f"{path} has version {content['version']}, this code reads {VERSION}; {remedy}")
    if sha256_json({key: content[key] for key in SplitsBody.__annotations__}) != content["sha256"]:
        raise UserError(f"{path} was edited: its sha256 does not match its content; {remedy}")
    return content


def _check_fit(images: pd.DataFrame, grouped_by: str, dataset: Dataset, path: Path) -> None:
    """Raise ``UserError`` if the frozen split and the dataset differ, and say in what."""
    remedy = (
        "give the --splits, --patient-map and --patient-column that belong together, or delete the file for a new split"
    )
    expected = dataset.images.set_index("image_id")
    frozen = images.set_index("image_id")
    differences = []
    if not_in_data := sorted(set(frozen.index) - set(expected.index)):
        differences.append(f"the dataset lacks {name_some(not_in_data, 3)}")
    if not_in_split := sorted(set(expected.index) - set(frozen.index)):
        differences.append(f"the split lacks {name_some(not_in_split, 3)}")
    if grouped_by != dataset.grouped_by:
        differences.append(f"the split is grouped by {grouped_by}, the dataset by {dataset.grouped_by}")
    common = frozen.index.intersection(expected.index)
    for column in ("label", "class", "patient"):
        differ = frozen.loc[common, column] != expected.loc[common, column]
        if differ.any() and not (column == "patient" and grouped_by != dataset.grouped_by):
            differences.append(f"{column} differs for {name_some(list(common[differ]), 3)}")
    if differences:
        raise UserError(f"{path} does not fit {dataset.data_dir}: {'; '.join(differences)}; {remedy}")
