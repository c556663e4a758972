"""Formats of the three files of analyze_results.py about images: SSIM, distances, and all of it together.

A comparison is named "what_vs_reference": "synthetic_vs_training", "synthetic_vs_heldout",
"heldout_vs_training", "training_vs_training", "synthetic_vs_synthetic". "floor" is one half of the training
images against the other half, with no patient in both.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

from dataset.file_formats import SkippedImages
from image_metrics.copies import CloserToTraining, NearCopies
from image_metrics.distances import EqualDistances, MeanDistances, SubsetDistance
from image_metrics.fidelity import EqualScores, Probe, SsimDiversity, SsimSummary


# --- what all files about images say ---------------------------------------------------------------
class ImageCounts(TypedDict):
    """Images that exist, before any are drawn."""

    training: Annotated[int, "real training images of the same kind"]
    heldout: Annotated[int, "real test images of the same kind"]
    synthetic: Annotated[int, "synthetic images"]


class ImageProvenance(TypedDict):
    """Which images were compared and where they come from."""

    image_size: Annotated[int, "side in pixels at which the images were compared"]
    kind: Annotated[str, "label or class of the images in words"]
    class_name: Annotated[str | None, "class of the images in the data set; null if only the label is known"]
    seed: Annotated[int, "seed of every random draw"]
    split_sha256: Annotated[str, "sha256 of the split"]
    data_sha256: Annotated[str, "sha256 of the data set's list of images"]
    grouped_by: Annotated[str, "what counts as one patient"]
    generator_sha256: Annotated[str | None, "sha256 of the generator's file; null if unknown"]
    manifest_sha256: Annotated[str | None, "sha256 of the synthetic images' manifest; null without one"]
    synthetic_verified: Annotated[bool, "whether the origin was checked against the test images"]
    available: ImageCounts
    seen_by_generator: Annotated[int | None, "training images that the generator saw; null if unknown"]
    seen_of_other_kinds: Annotated[int, "training images of other kinds that the generator saw"]
    skipped_images: SkippedImages


# --- files about images ----------------------------------------------------------------------------
class SsimAnalysis(ImageProvenance):
    """``analysis/ssim_analysis.json``: structural similarity of pairs of images."""

    what: Annotated[str, "how to read the values"]
    cannot_tell: Annotated[str, "what the values cannot tell"]
    settings: Annotated[str, "how SSIM was computed"]
    pairs: Annotated[str, "how pairs were drawn"]
    comparisons: Annotated[dict[str, SsimSummary], "by what is compared with what"]


class FidScore(ImageProvenance):
    """``analysis/fid_score.json``: Fréchet and kernel distances at an equal number of images."""

    fid: Annotated[float, "Fréchet distance of synthetic to training images"]
    fid_floor: Annotated[float, "Fréchet distance of the floor"]
    fid_relative: Annotated[float | None, "fid / fid_floor; null if the floor is 0"]
    extractor: Annotated[str, "network that computed the features: inception, classifier or efficientnet_lite0"]
    precision: Annotated[str | None, "arithmetic of that network: fp32 or bf16"]
    device: Annotated[str | None, "type of device that it ran on"]
    extractor_description: Annotated[str, "the network in words"]
    comparability: Annotated[str, "which other values the distances may be compared with"]
    cannot_tell: Annotated[str, "what the values cannot tell"]
    method: Annotated[str, "how images were drawn"]
    n: Annotated[int, "images on either side of every comparison"]
    draws: Annotated[int, "seeded draws"]
    comparisons: Annotated[dict[str, MeanDistances], "by what is compared with what"]


class QualityRow(TypedDict):
    """A row of the report's table on synthetic images."""

    id: Annotated[str, "name of the statistic and of the features, joined by _"]
    group: Annotated[str, "heading that the row stands under"]
    name: Annotated[str, "the statistic in words"]
    value: Annotated[float | None, "value for the synthetic images; null if undefined"]
    uncertainty: Annotated[str | None, "interval or standard deviation in words"]
    yardstick: Annotated[float | None, "the same statistic for real images, or its ideal value"]
    yardstick_name: Annotated[str | None, "what the yardstick is"]
    n: Annotated[str, "numbers of images in words"]
    extractor: Annotated[str, "what the features are, in words"]
    what: Annotated[str, "how to read the value"]
    cannot_tell: Annotated[str, "what the value cannot tell"]


class Memorisation(TypedDict):
    """How closely the synthetic images follow single training images."""

    copies: NearCopies
    closer: CloserToTraining


class ClosestPair(TypedDict):
    """A synthetic image and the real images nearest to it, by details of the pixels."""

    synthetic: Annotated[str, "name of the synthetic image"]
    training: Annotated[str, "id of the nearest training image"]
    training_distance: Annotated[float, "1 - correlation of details; 0 for the same image"]
    heldout: NotRequired[Annotated[str, "id of the nearest held-out image"]]
    heldout_distance: NotRequired[Annotated[float, "1 - correlation of details; 0 for the same image"]]


class PixelMemorisation(TypedDict):
    """Memorisation by details of the pixels; the pairs alone if held-out images are too few."""

    copies: NotRequired[NearCopies]
    closer: NotRequired[CloserToTraining]
    closest: Annotated[list[ClosestPair], "the closest pairs, closest first"]


class SubsetDistances(TypedDict):
    """KID as it is published."""

    n_images: ImageCounts
    synthetic_vs_training: SubsetDistance
    heldout_vs_training: Annotated[SubsetDistance | None, "null if held-out images are too few"]


class Separability(TypedDict):
    """How well a linear probe tells images from training images."""

    synthetic_vs_training: Probe
    heldout_vs_training: Annotated[Probe | None, "null if held-out images are too few"]


class FeatureQuality(TypedDict):
    """Everything computed from the features of one network."""

    precision: Annotated[str | None, "arithmetic of the network: fp32 or bf16"]
    device: Annotated[str | None, "type of device that it ran on"]
    distances: EqualDistances
    kid_of_subsets: Annotated[SubsetDistances | None, "null if images are too few"]
    neighbourhoods: EqualScores
    memorisation: Annotated[Memorisation | None, "null if held-out images are too few"]
    separability: Separability


class ImageQuality(ImageProvenance):
    """``analysis/image_quality.json``: synthetic images compared with real ones."""

    format: Annotated[str, "version of this file"]
    rows: Annotated[list[QualityRow], "the report's table"]
    flags: Annotated[list[str], "warnings that the report states first"]
    extractors: Annotated[dict[str, FeatureQuality], "by network: inception, classifier, efficientnet_lite0"]
    memorisation: PixelMemorisation
    diversity: Annotated[SsimDiversity | None, "null with --skip-ssim"]
