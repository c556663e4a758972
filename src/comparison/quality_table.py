"""What the figures about synthetic images mean: each number with its yardstick, its n and its limits.

Numbers in, rows for ``image_quality.json`` out. Nothing is computed here but the share of one in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

DISTANCE, FIDELITY, COPIES, PROBE = "Distance", "Fidelity and variety", "Memorisation", "Separability"
GROUPS = (DISTANCE, FIDELITY, COPIES, PROBE)
HELD_OUT = "held-out real images"

PIXELS = "details of the pixels (32 x 32 averages)"
CLASSIFIER_COPIES = (
    "This classifier learned from the training images, so images may lie nearer to them in its features for "
    "that reason alone."
)
SPACES = {"inception": "Inception", "classifier": "classifier", "pixels": "pixels"}  # in a row's name
# kind: group, name, how to read it, what it cannot tell
TEXTS = {
    "fid": (
        DISTANCE,
        "Fréchet distance (FID) to training images",
        "How far mean and spread of the synthetic images' features lie from those of training images; the "
        "floor is what chance alone gives at this n.",
        "It falls with n, and cannot tell a copy from a new image, nor whether an image shows pneumonia.",
    ),
    "fid_relative": (
        DISTANCE,
        "FID divided by its floor",
        "1: as close to training images as those of other patients are. Readable without a table of other "
        "people's values.",
        "It is no scale of quality: twice the floor is not twice as bad.",
    ),
    "kid": (
        DISTANCE,
        "Kernel distance (KID) to training images",
        "Like FID, but 0 on average at any n for two samples of one kind; a single value may be negative.",
        "Its size has no natural unit; it sees neither copies nor pneumonia.",
    ),
    "precision": (
        FIDELITY,
        "Precision",
        "Share of synthetic images that lie among the training images, within the distance of the k-th "
        "neighbour of one of them. Low: many look like no real image.",
        "A copy and an average, blurred chest both count as precise.",
    ),
    "recall": (
        FIDELITY,
        "Recall",
        "Share of training images that lie among the synthetic ones. Low: kinds of real images are missing, "
        "or the synthetic ones lie elsewhere altogether.",
        "A few outliers with wide neighbourhoods can raise it; it says nothing of how often a kind occurs.",
    ),
    "density": (
        FIDELITY,
        "Density",
        "In how many neighbourhoods of training images a synthetic one lies, divided by k; may exceed 1. "
        "A single outlying real image does not mislead it, as it does precision.",
        "High values come from copies too, and from images that all sit where real ones are most common.",
    ),
    "coverage": (
        FIDELITY,
        "Coverage",
        "Share of training images that have a synthetic one in their neighbourhood. Low: variety is missing, "
        "or the synthetic ones lie elsewhere altogether.",
        "It depends on n; compare it with its yardstick only.",
    ),
    "ssim_diversity": (
        FIDELITY,
        "Diversity by SSIM",
        "Mean of 1 - SSIM over pairs of synthetic images, divided by that over pairs of real ones. Far below "
        "1: the synthetic images are much more alike than real ones (collapse).",
        "Noise raises it and blur lowers it without any change of variety, and a generator with a few quite "
        "different images can pass: read recall and coverage too.",
    ),
    "near_copies": (
        COPIES,
        "Share flagged as near-copies",
        "Share of synthetic images that are closer to a training image than all but 1 % of the held-out real "
        "images are. Look at the pairs before calling one a copy.",
        "With few held-out images the 1 % is rough. Blurred images may be flagged without being copies; a "
        "copy that is turned far or cropped may not be.",
    ),
    "nearest": (
        COPIES,
        "Median distance to the nearest training image",
        "Value and yardstick are distances to the same training images. Far below the yardstick: the "
        "synthetic images follow single training images.",
        "A median says nothing about a few copies among many new images.",
    ),
    "closer": (
        COPIES,
        "Share closer to a training image than to a held-out one",
        "With equally many candidates on each side. Above what chance gives: the generator follows its "
        "training images more closely than the population that they come from.",
        "Which image is a copy: it is about all of them together.",
    ),
    "separability": (
        PROBE,
        "AUROC of a linear probe, real or synthetic",
        "0.5: a linear probe cannot tell synthetic from real; 1: it always can. Near 1, a classifier can "
        "learn “synthetic, so this label” instead of pneumonia, because all synthetic images bear one label.",
        "What gives them away: blur, a border or a texture suffices, and none need be visible. Nor whether a "
        "classifier does take this short cut.",
    ),
}


def row(kind: str, space: str, value: float | None, n: str, extractor: str, **more: Any) -> dict[str, Any]:
    """One row; ``more``: uncertainty, yardstick, yardstick_name, cannot_tell (after what is always so)."""
    group, name, what, cannot_tell = TEXTS[kind]
    yardstick = more.get("yardstick")
    return {
        "id": f"{kind}_{space}" if space else kind,
        "group": group,
        "name": f"{name} ({SPACES.get(space, space)})" if space else name,
        "value": value,
        "uncertainty": more.get("uncertainty"),
        "yardstick": yardstick,
        "yardstick_name": None if yardstick is None else more["yardstick_name"],
        "n": n,
        "extractor": extractor,
        "what": what,
        "cannot_tell": " ".join([cannot_tell, *more.get("cannot_tell", [])]),
    }


def _spread(sd: float | None, over: str) -> str | None:
    return None if sd is None else f"SD {sd:.2g} over {over}"


def _interval(bounds: list[float] | None) -> str | None:
    return None if bounds is None else f"95 % CI {bounds[0]:.3f} to {bounds[1]:.3f}"


# --- distances -------------------------------------------------------------------------------------
def distance_rows(space: str, words: str, fid: dict[str, Any], kid: dict[str, Any] | None) -> list[dict]:
    """FID with its floor, the same as a multiple of it, and KID; ``fid``: of ``feature_distances``, ``kid``:
    {"synthetic_vs_training", "heldout_vs_training", "n"} of ``kernel_distance_of_subsets``."""
    if "distances" not in fid:
        return []
    n = f"{fid['n']:,} and {fid['n']:,} images"
    made, floor = fid["distances"]["synthetic_vs_training"], fid["distances"]["floor"]["fid"]
    unseen = fid["distances"].get("training_vs_heldout")
    rows = [
        row("fid", space, made["fid"], n, words, uncertainty=_spread(made["fid_sd"], f"{fid['draws']} draws"),
            yardstick=floor, yardstick_name="floor: training images of other patients"),
        row("fid_relative", space, made["fid"] / floor if floor > 0 else None, n, words,
            yardstick=unseen["fid"] / floor if unseen and floor > 0 else None, yardstick_name=HELD_OUT),
    ]  # fmt: skip
    if kid:
        made, unseen = kid["synthetic_vs_training"], kid["heldout_vs_training"]
        n = f"subsets of {made['size']:,} of {kid['n'][0]:,} synthetic and {kid['n'][1]:,} training images"
        rows.append(
            row("kid", space, made["mean"], n, words,
                uncertainty=_spread(made["sd"], f"{made['n_subsets']} subsets"),
                yardstick=unseen["mean"] if unseen else None, yardstick_name=HELD_OUT)
        )  # fmt: skip
    return rows


# --- fidelity and variety --------------------------------------------------------------------------
def score_rows(space: str, words: str, result: dict[str, Any]) -> list[dict]:
    """Precision, recall, density and coverage; ``result``: of ``fidelity.scores_over_draws``."""
    if "scores" not in result:
        return []
    scores = result["scores"]
    unseen = "training_vs_heldout" if "training_vs_heldout" in scores else "floor"
    name = HELD_OUT if unseen == "training_vs_heldout" else "training images of other patients"
    n = f"{result['n']:,} and {result['n']:,} images, k = {result['k']}"
    return [
        row(kind, space, made["mean"], n, words, uncertainty=_spread(made["sd"], f"{result['draws']} draws"),
            yardstick=scores[unseen][kind]["mean"], yardstick_name=name)
        for kind, made in scores["synthetic_vs_training"].items()
    ]  # fmt: skip


def diversity_row(diversity: dict[str, Any], ssim: dict[str, Any]) -> dict[str, Any]:
    """``diversity``: of ``image_quality.relative_diversity``; ``ssim``: the content of ssim_analysis.json."""
    made, real = (ssim["comparisons"][f"{kind}_vs_{kind}"] for kind in ("synthetic", "training"))
    n = f"{made['n_pairs']:,} synthetic and {real['n_pairs']:,} real pairs"
    interval = _interval(diversity["ci95"])
    return row("ssim_diversity", "", diversity["ratio"], n, "pixels", uncertainty=interval, yardstick=1.0,
               yardstick_name="training images of different patients")  # fmt: skip


# --- memorisation ----------------------------------------------------------------------------------
def memorisation_rows(space: str, words: str, result: dict[str, Any], more: list[str]) -> list[dict]:
    """Near-copies, nearest distances, training against held-out. ``result``: {"copies", "closer"}, of
    ``memorisation``; ``more``: what else they cannot tell in this space."""
    copies, closer = result["copies"], result["closer"]
    n = (
        f"{copies['n_synthetic']:,} synthetic, {copies['n_training']:,} training and "
        f"{copies['n_heldout']:,} held-out images"
    )
    low, high = closer["chance95"]
    return [
        row("near_copies", space, copies["share"], n, words, uncertainty=_interval(copies["share_ci95"]),
            yardstick=copies["heldout_share"], yardstick_name=f"{HELD_OUT}, by construction",
            cannot_tell=more),
        row("nearest", space, copies["median_nearest"], n, words,
            yardstick=copies["heldout_median_nearest"], yardstick_name=HELD_OUT, cannot_tell=more),
        row("closer", space, closer["share"], f"{n}; {closer['candidates']:,} candidates on each side", words,
            uncertainty=f"by chance {low:.2f} to {high:.2f} (central 95 %)",
            yardstick=0.5, yardstick_name="a generator that saw neither", cannot_tell=more),
    ]  # fmt: skip


# --- separability ----------------------------------------------------------------------------------
def probe_row(space: str, words: str, made: dict[str, Any], unseen: dict[str, Any] | None) -> dict[str, Any]:
    """``made``: of ``fidelity.separability`` of training against synthetic images; ``unseen``: held-out."""
    n = f"{made['n'][0]:,} training and {made['n'][1]:,} synthetic images"
    return row("separability", space, made["auroc"], n, words,
               uncertainty=_spread(made["sd"], f"{made['folds']} folds"),
               yardstick=unseen["auroc"] if unseen else None,
               yardstick_name="held-out against training real images")  # fmt: skip


# --- all of them -----------------------------------------------------------------------------------
def compose(
    extractors: dict[str, str],
    spaces: dict[str, dict[str, Any]],
    pixels: dict[str, Any],
    diversity: dict[str, Any] | None,
    ssim: dict[str, Any] | None,
    of_copies: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """All rows, those of one group together. ``extractors``: their words by name; ``spaces``: of
    ``assessment.assess_features`` by name; ``pixels``: of ``assess_pixels``; ``of_copies``: what else the
    rows on memorisation cannot tell."""
    rows = []
    if diversity and ssim:
        rows.append(diversity_row(diversity, ssim))
    if "copies" in pixels:
        rows += memorisation_rows("pixels", PIXELS, pixels, [*of_copies])
    for name, words in extractors.items():
        space = spaces[name]
        rows += distance_rows(name, words, space["fid"], space["kid"])
        rows += score_rows(name, words, space["scores"])
        if space["memorisation"]:
            more = [*([CLASSIFIER_COPIES] if name == "classifier" else []), *of_copies]
            rows += memorisation_rows(name, words, space["memorisation"], more)
        rows.append(probe_row(name, words, space["separability"], space["separability_heldout"]))
    return sorted(rows, key=lambda one: GROUPS.index(one["group"]))
