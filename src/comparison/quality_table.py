"""The report's table on synthetic images: each number with its yardstick, its n and its limits.

Numbers in, rows of image_quality.json out; the only number computed here is the ratio of FID to its floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from comparison.image_file_formats import (
    FeatureQuality,
    Memorisation,
    PixelMemorisation,
    QualityRow,
    Separability,
    SsimAnalysis,
    SubsetDistances,
)
from image_metrics.distances import EqualDistances
from image_metrics.fidelity import SCORES, EqualScores, SsimDiversity
from networks.backbones import LITE0

DISTANCE, FIDELITY, COPIES, PROBE = "Distance", "Fidelity and variety", "Memorisation", "Separability"
GROUPS = (DISTANCE, FIDELITY, COPIES, PROBE)
HELD_OUT = "held-out real images"
OTHER_PATIENTS = "training images of other patients"
PIXELS = "details of the pixels (32 x 32 averages)"
CLASSIFIER_COPIES = (
    "This classifier learned from the training images, so images may lie closer to them in its features for "
    "that reason alone."
)
LITE0_LEARNED = "A generator trained with --perceptual-network efficientnet_lite0 has learned to match these features."
# In a row's name.
SPACES = {"inception": "Inception", "classifier": "classifier", LITE0: "EfficientNet-Lite0", "pixels": "pixels"}


class SpaceWords(NamedTuple):
    """Words about a network's features: a few, a sentence, and what distances may be compared with."""

    short: str
    description: str
    comparability: str


SPACE_WORDS = {
    "inception": SpaceWords(
        "FID's Inception network",
        "the features of FID's Inception network (pt_inception-2015-12-05), which has seen photographs only",
        "Published FID values usually rest on 10,000 to 50,000 images. Compare only values from equally many "
        "images that were processed alike.",
    ),
    "classifier": SpaceWords(
        "this project's baseline classifier",
        "the features of this project's own baseline classifier",
        "NOT COMPARABLE with published FID, nor with distances in the features of another classifier: FID's "
        "Inception weights were not used. The classifier learned from these very training images, so "
        "held-out images can lie apart from them for that reason alone; the comparison of real with real "
        "images shows how far.",
    ),
    LITE0: SpaceWords(
        "EfficientNet-Lite0 of ImageNet",
        "the features of EfficientNet-Lite0 with its ImageNet weights, which has seen photographs only",
        "Fréchet distance in EfficientNet-Lite0 features, NOT COMPARABLE with published FID: FID's Inception weights "
        "were not used. Compare only values in these features, from equally many images that were processed alike. "
        + LITE0_LEARNED,
    ),
}


class Statistic(NamedTuple):
    """Words about one statistic: its group and name, how to read it, and what it cannot tell."""

    group: str
    name: str
    what: str
    cannot_tell: str


STATISTICS = {
    "fid": Statistic(
        DISTANCE, "Fréchet distance (FID) to training images",
        "How far the mean and the spread of the synthetic images' features lie from those of training "
        "images. The floor is the distance that chance alone gives between equally many real images.",
        "It falls as the number of images grows. It cannot tell a copy from a new image, and it cannot tell "
        "whether an image shows pneumonia.",
    ),
    "fid_relative": Statistic(
        DISTANCE, "FID divided by its floor",
        "1 means as close to the training images as real images of other patients are. No table of published "
        "values is needed to read it.",
        "It is no scale of quality: twice the floor is not twice as bad.",
    ),
    "kid_of_subsets": Statistic(
        DISTANCE, "Kernel distance (KID) to training images",
        "Like FID, but 0 on average for two sets of the same kind, however many images they have. A single "
        "value may be negative.",
        "Its size has no natural unit. It cannot see copies, and it cannot tell whether an image shows "
        "pneumonia.",
    ),
    "precision": Statistic(
        FIDELITY, "Precision",
        "Share of the synthetic images that lie among the training images: within the distance of the k-th "
        "neighbour of one of them. A low value means that many images look like no real image.",
        "Copies count as precise, and so do average, blurred chests.",
    ),
    "recall": Statistic(
        FIDELITY, "Recall",
        "Share of the training images that lie among the synthetic ones. A low value means that kinds of "
        "real images are missing, or that the synthetic images lie elsewhere altogether.",
        "A few outliers with wide neighbourhoods can raise it, and it does not show how often a kind occurs.",
    ),
    "density": Statistic(
        FIDELITY, "Density",
        "Number of training images whose neighbourhood holds a synthetic image, on average, divided by k; it "
        "may exceed 1. Unlike precision, it is not misled by a single outlying real image.",
        "Copies raise it, and so do images that all lie where real ones are most common.",
    ),
    "coverage": Statistic(
        FIDELITY, "Coverage",
        "Share of the training images that have a synthetic image in their neighbourhood. A low value means "
        "that variety is missing, or that the synthetic images lie elsewhere altogether.",
        "It depends on the number of images: compare it with its yardstick only.",
    ),
    "ssim_diversity": Statistic(
        FIDELITY, "Diversity by SSIM",
        "Mean of 1 - SSIM over pairs of synthetic images, divided by the same over pairs of real images. A "
        "value far below 1 means that synthetic images are much more alike than real ones (collapse).",
        "Noise raises it and blur lowers it without any change of variety. A generator that makes only a few "
        "quite different images can still reach 1: read recall and coverage too.",
    ),
    "near_copies": Statistic(
        COPIES, "Share flagged as near-copies",
        "Share of the synthetic images that are closer to a training image than 99 % of the held-out real "
        "images are. Look at the pairs before you call one a copy.",
        "With few held-out images the limit is rough. Blurred images may be flagged although they are no "
        "copies; a copy that is rotated far or cropped may be missed.",
    ),
    "nearest": Statistic(
        COPIES, "Median distance to the nearest training image",
        "Value and yardstick are distances to the same training images. A value far below the yardstick "
        "means that the synthetic images follow single training images.",
        "A median does not show a few copies among many new images.",
    ),
    "closer": Statistic(
        COPIES, "Share closer to a training image than to a held-out one",
        "Both sides have equally many candidates. A value above what chance gives means that the generator "
        "follows its training images more closely than the population that they come from.",
        "It describes all images together and cannot tell which one is a copy.",
    ),
    "separability": Statistic(
        PROBE, "AUROC of a linear probe, real or synthetic",
        "0.5 means that a linear probe cannot tell synthetic from real images, 1 that it always can. Near "
        "1, a classifier can learn “synthetic, so this label” instead of pneumonia, because all synthetic "
        "images have the same label.",
        "It cannot tell what gives the images away: blur, a border or a texture is enough, and need not be "
        "visible. It cannot tell whether a classifier takes this shortcut.",
    ),
}  # fmt: skip


# Where the usual name would promise a published number.
NAMES = {
    ("fid", LITE0): "Fréchet distance in EfficientNet-Lite0 features, not comparable with published FID",
    ("fid_relative", LITE0): "Fréchet distance divided by its floor (EfficientNet-Lite0)",
}


@dataclass(frozen=True)
class Source:
    """Where the numbers of rows come from: short name of the space, its words, and further limits."""

    space: str
    words: str
    limits: tuple[str, ...] = ()

    def row(
        self, kind: str, value: float | None, n: str, *, uncertainty: str | None = None,
        yardstick: float | None = None, yardstick_name: str = "",
    ) -> QualityRow:  # fmt: skip
        """Return a row of the statistic ``kind``; without a ``yardstick`` its name is left out."""
        statistic = STATISTICS[kind]
        space = f" ({SPACES[self.space]})" if self.space else ""
        return {
            "id": f"{kind}_{self.space}" if self.space else kind,
            "group": statistic.group,
            "name": NAMES.get((kind, self.space), statistic.name + space),
            "value": value,
            "uncertainty": uncertainty,
            "yardstick": yardstick,
            "yardstick_name": None if yardstick is None else yardstick_name,
            "n": n,
            "extractor": self.words,
            "what": statistic.what,
            "cannot_tell": " ".join([statistic.cannot_tell, *self.limits]),
        }


def quality_rows(
    spaces: Mapping[str, FeatureQuality], pixels: PixelMemorisation, diversity: SsimDiversity | None,
    ssim: SsimAnalysis | None, seen_of_other_kinds: int = 0,
) -> list[QualityRow]:  # fmt: skip
    """Make all rows, those of one group together.

    ``spaces``: numbers by extractor; ``seen_of_other_kinds``: training images of other kinds that the
    generator learned from, among which copies are not searched for.
    """
    others = (
        f"The generator also learned from {seen_of_other_kinds:,} training images of other classes: copies "
        "of those are not looked for."
    )
    limits = (others,) if seen_of_other_kinds else ()
    rows = []
    if diversity and ssim:
        rows.append(_diversity_row(diversity, ssim))
    if "copies" in pixels:
        found: Memorisation = {"copies": pixels["copies"], "closer": pixels["closer"]}
        rows += _memorisation_rows(Source("pixels", PIXELS, limits), found)
    for name, space in spaces.items():
        words = SPACE_WORDS[name].short
        own_limits = (LITE0_LEARNED,) if name == LITE0 else ()
        source = Source(name, words, own_limits)
        rows += _distance_rows(source, space["distances"])
        rows += _kid_rows(source, space["kid_of_subsets"])
        rows += _score_rows(source, space["neighbourhoods"])
        if space["memorisation"]:
            own_limits = (CLASSIFIER_COPIES,) if name == "classifier" else own_limits
            rows += _memorisation_rows(Source(name, words, own_limits + limits), space["memorisation"])
        rows.append(_probe_row(source, space["separability"]))
    return sorted(rows, key=lambda row: GROUPS.index(row["group"]))


def _spread(sd: float | None, over: str) -> str | None:
    return None if sd is None else f"SD {sd:.2g} over {over}"


def _interval(bounds: Sequence[float] | None) -> str | None:
    return None if bounds is None else f"95 % CI {bounds[0]:.3f} to {bounds[1]:.3f}"


# --- rows of each group ----------------------------------------------------------------------------
def _distance_rows(source: Source, found: EqualDistances) -> list[QualityRow]:
    """Return FID with its floor, and their ratio."""
    if "comparisons" not in found:
        return []
    n = f"{found['n']:,} and {found['n']:,} images"
    made, floor = found["comparisons"]["synthetic_vs_training"], found["comparisons"]["floor"]["fid"]
    unseen = found["comparisons"].get("heldout_vs_training")
    return [
        source.row("fid", made["fid"], n, uncertainty=_spread(made["fid_sd"], f"{found['draws']} draws"),
                   yardstick=floor, yardstick_name=f"floor: {OTHER_PATIENTS}"),
        source.row("fid_relative", made["fid"] / floor if floor > 0 else None, n,
                   yardstick=unseen["fid"] / floor if unseen and floor > 0 else None,
                   yardstick_name=HELD_OUT),
    ]  # fmt: skip


def _kid_rows(source: Source, found: SubsetDistances | None) -> list[QualityRow]:
    if not found:
        return []
    made, unseen, images = found["synthetic_vs_training"], found["heldout_vs_training"], found["n_images"]
    of = f"of {images['synthetic']:,} synthetic and {images['training']:,} training images"
    return [
        source.row("kid_of_subsets", made["kid_of_subsets"], f"subsets of {made['subset_size']:,} {of}",
                   uncertainty=_spread(made["kid_of_subsets_sd"], f"{made['n_subsets']} subsets"),
                   yardstick=unseen["kid_of_subsets"] if unseen else None, yardstick_name=HELD_OUT),
    ]  # fmt: skip


def _score_rows(source: Source, found: EqualScores) -> list[QualityRow]:
    """Return precision, recall, density and coverage."""
    if "comparisons" not in found:
        return []
    made: Mapping[str, Any] = found["comparisons"]["synthetic_vs_training"]
    yardstick_name = HELD_OUT if "heldout_vs_training" in found["comparisons"] else OTHER_PATIENTS
    unseen: Mapping[str, Any] = found["comparisons"].get("heldout_vs_training", found["comparisons"]["floor"])
    n, over = f"{found['n']:,} and {found['n']:,} images, k = {found['k']}", f"{found['draws']} draws"
    return [
        source.row(kind, made[kind], n, uncertainty=_spread(made[f"{kind}_sd"], over), yardstick=unseen[kind],
                   yardstick_name=yardstick_name)
        for kind in SCORES
    ]  # fmt: skip


def _diversity_row(diversity: SsimDiversity, ssim: SsimAnalysis) -> QualityRow:
    made, real = (ssim["comparisons"][f"{kind}_vs_{kind}"] for kind in ("synthetic", "training"))
    n = f"{made['n_pairs']:,} synthetic and {real['n_pairs']:,} real pairs"
    interval = _interval(diversity["ssim_diversity_ci95"])
    return Source("", "pixels").row(
        "ssim_diversity", diversity["ssim_diversity"], n, uncertainty=interval, yardstick=1.0,
        yardstick_name="training images of different patients",
    )  # fmt: skip


def _memorisation_rows(source: Source, found: Memorisation) -> list[QualityRow]:
    """Return near-copies, nearest distances, and training images against held-out ones."""
    copies, closer = found["copies"], found["closer"]
    made, known, unseen = copies["n_synthetic"], copies["n_training"], copies["n_heldout"]
    n = f"{made:,} synthetic, {known:,} training and {unseen:,} held-out images"
    low, high = closer["chance95"]
    return [
        source.row("near_copies", copies["share"], n, uncertainty=_interval(copies["share_ci95"]),
                   yardstick=copies["heldout_share"], yardstick_name=f"{HELD_OUT}, by construction"),
        source.row("nearest", copies["median_nearest"], n, yardstick=copies["heldout_median_nearest"],
                   yardstick_name=HELD_OUT),
        source.row("closer", closer["share"], f"{n}; {closer['candidates']:,} candidates on each side",
                   uncertainty=f"by chance {low:.2f} to {high:.2f} (central 95 %)",
                   yardstick=0.5, yardstick_name="a generator that saw neither"),
    ]  # fmt: skip


def _probe_row(source: Source, found: Separability) -> QualityRow:
    made, unseen = found["synthetic_vs_training"], found["heldout_vs_training"]
    return source.row(
        "separability", made["probe_auroc"],
        f"{made['n_images'][0]:,} training and {made['n_images'][1]:,} synthetic images",
        uncertainty=_spread(made["probe_auroc_sd"], f"{made['folds']} folds"),
        yardstick=unseen["probe_auroc"] if unseen else None,
        yardstick_name="held-out against training real images",
    )  # fmt: skip
