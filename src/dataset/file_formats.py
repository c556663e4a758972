"""Formats of the JSON files in a data folder: split, patient mapping, download marker, phantom marker."""

from typing import Annotated, Literal, NotRequired, TypedDict

# "class" is a keyword of Python, hence this syntax.
SplitImage = TypedDict(
    "SplitImage",
    {
        "image_id": Annotated[str, "the metadata's patientId, which names an image"],
        "patient": Annotated[str, "NIH patient, or the name in the patient column; the image id where it is unknown"],
        "label": Annotated[int, "1: pneumonia, 0: none"],
        "class": Annotated[str, "Normal, No Lung Opacity / Not Normal, Lung Opacity; empty if unknown"],
        "role": Annotated[Literal["train", "test"], "side of the split"],
        "twin_group": NotRequired[
            Annotated[str, "first of the patients that are kept together because they share a picture; if any do"]
        ],
    },
)
SplitImage.__doc__ = "One labelled image in ``splits.json``."


class SplitsBody(TypedDict):
    """What the sha256 of ``splits.json`` covers."""

    version: Annotated[int, "version of this format"]
    seed: Annotated[int, "seed of the split and of its folds"]
    test_fraction: Annotated[float, "share of the labelled images in the test set"]
    grouped_by: Annotated[str, "what counts as one patient: nih_patient, patient_column or image_id"]
    images: Annotated[list[SplitImage], "all labelled images, sorted by image_id"]


class SplitsFile(SplitsBody):
    """``splits.json``: the frozen train/test split."""

    sha256: Annotated[str, "sha256 of the canonical JSON text of the other keys"]


class MappingEntry(TypedDict):
    """One image in RSNA's mapping, of whose keys these two are read."""

    subset_img_id: Annotated[str, "RSNA's image id"]
    img_id: Annotated[str, "NIH ChestX-ray14 file name: <patient>_<number>.png"]


class DownloadMarker(TypedDict):
    """``.download_complete.json``: which dataset was downloaded into the folder."""

    dataset: Annotated[str, "OWNER/NAME or OWNER/NAME/VERSION on Kaggle"]
    train_metadata_sha256: Annotated[str, "sha256 of the training metadata as downloaded"]


class PhantomMarker(TypedDict):
    """``phantoms.json``: the folder holds phantoms, drawn with these settings."""

    what: Annotated[str, "that no image is a patient's"]
    version: Annotated[int, "version of the drawing"]
    num_images: Annotated[int, "labelled training images"]
    num_test_images: Annotated[int, "unlabelled test images"]
    image_size: Annotated[int, "side in pixels"]
    seed: Annotated[int, "seed of the images"]


class SkippedImages(TypedDict):
    """Images that --skip-bad-images left out; part of several files."""

    count: Annotated[int, "number of images"]
    image_ids: Annotated[list[str], "their ids"]
