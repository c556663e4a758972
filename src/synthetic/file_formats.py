"""The format of ``manifest.json``, which lies beside synthetic images and says where they come from."""

# No "from __future__ import annotations": as strings, NotRequired keys would count as required.
from typing import Annotated, Literal, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY
from common.plan_files import PLAN_KEY
from dataset.file_formats import SkippedImages


class Origin(TypedDict):
    """What a generator was trained on; stands in its checkpoint and in the manifest of its images."""

    split_sha256: Annotated[str, "sha256 of the train/test split"]
    data_sha256: Annotated[str, "sha256 of the metadata CSV"]
    grouped_by: Annotated[str, "what counts as one patient: nih_patient, patient_column or image_id"]
    classes: Annotated[str, "--classes or --label that the generator was trained for"]
    label: Annotated[int | None, "1: pneumonia, 0: none; null: trained on all classes as if they were one"]
    train_image_ids: Annotated[list[str], "images that the generator saw"]
    train_patients: Annotated[list[str], "patients of these images"]
    train_fraction: Annotated[float, "share of the training patients, above 0 and up to 1"]
    fold: Annotated[int | None, "fold that was left out, from 1; null: none"]
    k_folds: Annotated[int | None, "number of folds; null: no folds"]
    red_flags: Annotated[list[str], "reasons not to trust the generator"]


# In this syntax because "class" is a keyword of Python.
OfOneClass = TypedDict(
    "OfOneClass",
    {"class": NotRequired[Annotated[str, "class that a conditional generator made, as --label names it"]]},
)


class Manifest(Origin, OfOneClass):
    """``manifest.json`` in a folder of synthetic images."""

    format: Annotated[Literal["synthetic-manifest-1"], "name and version of this format"]
    generator: Annotated[str | None, "file or name of the generator; null: not recorded"]
    generator_sha256: Annotated[str | None, "sha256 of the generator's file; null: made elsewhere"]
    image_size: Annotated[int | None, "side in pixels; null: not all are squares of one size"]
    files: Annotated[Literal["synthetic_%05d.png"], "pattern of the file names, counted from 1"]
    count: Annotated[int, "number of images"]
    complete: Annotated[bool, "false until the last image is written"]
    created_by: Annotated[str, "script that wrote it"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    generator_step: NotRequired[Annotated[int, "training step of the generator"]]
    seed: NotRequired[Annotated[int, "seed of the noise"]]
    output_dir: NotRequired[Annotated[str, "--output-dir of the command"]]
    images_sha256: NotRequired[Annotated[str, "sha256 of sizes and pixels of registered images"]]
    trained_elsewhere: NotRequired[Annotated[str | None, "other data set that the generator was trained on"]]
    source_names: NotRequired[Annotated[list[str], "file names of registered images before they were copied"]]
    skipped_images: NotRequired[Annotated[SkippedImages, "unreadable files that were left out"]]
