"""Formats of the JSON files in a data folder: split, patient mapping, markers of download, phantoms and import."""

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


class PositiveMeaning(TypedDict):
    """What label 1 means in an imported data set."""

    names: Annotated[list[str], "class folders, findings, classes or values of the label column that count as positive"]
    negative: Annotated[list[str], "those that count as negative; empty: all others"]
    uncertain: Annotated[str, "what uncertain labels count as: positive, negative or drop; empty: there are none"]
    labelled_by: Annotated[str, "who or what labelled the images, as far as the layout tells"]
    sentence: Annotated[str, "the meaning in words"]


class ImportedImages(TypedDict):
    """What became of the images of a source."""

    labelled: Annotated[int, "images in Training/Images"]
    positive: Annotated[int, "labelled images that are positive"]
    official_test: Annotated[int, "images in Test"]
    official_positive: Annotated[int | None, "official test images that are positive; null if they have no labels"]
    linked: Annotated[int, "files that are the source's own (hard links)"]
    copied: Annotated[int, "files copied as they are"]
    rewritten: Annotated[int, "files written anew, pixels only"]
    padded: Annotated[int, "images that were not square and got black edges"]
    padding_positive: Annotated[float, "mean share of added pixels of the labelled positive images"]
    padding_negative: Annotated[float, "mean share of added pixels of the labelled negative images"]
    left_out: Annotated[dict[str, int], "why images of the source were left out -> how many"]


class ImportedPatients(TypedDict):
    """How images are grouped by patient."""

    source: Annotated[str, "where the patients come from, in words"]
    known: Annotated[int, "patients"]
    unknown_images: Annotated[int, "images whose patient is unknown"]
    pseudonyms: Annotated[bool, "patient ids are pseudonyms (HMAC-SHA256), not the source's own"]
    key: Annotated[str | None, "fingerprint of the key of the pseudonyms; null if none was used, or it was thrown away"]


class Provenance(TypedDict):
    """``provenance.json``: which data set ``import_dataset.py`` brought into the folder; no path, no identifier."""

    version: Annotated[int, "version of this format"]
    product_version: Annotated[str, "version of this project"]
    complete: Annotated[bool, "false while the import has not ended"]
    date: Annotated[str, "day of the import, YYYY-MM-DD"]
    layout: Annotated[str, "layout of the source, the value of --from"]
    data_set: Annotated[str, "the known data set that the layout is of; empty if it is nobody's in particular"]
    positive: Annotated[PositiveMeaning, "what label 1 means"]
    images: Annotated[ImportedImages, "counts"]
    patients: Annotated[ImportedPatients, "grouping by patient"]
    names: Annotated[Literal["kept", "hashed"], "image ids are the source's file names, or say nothing of them"]
    source_sha256: Annotated[str, "sha256 of the names and sizes of the source's images and of its tables"]
    tables_sha256: Annotated[dict[str, str], "role of a table of the source -> sha256 of its content"]
    settings_sha256: Annotated[str, "sha256 of the options that change what is written"]
    red_flags: Annotated[list[str], "sentences that every result must carry"]


class SkippedImages(TypedDict):
    """Images that --skip-bad-images left out; part of several files."""

    count: Annotated[int, "number of images"]
    image_ids: Annotated[list[str], "their ids"]
