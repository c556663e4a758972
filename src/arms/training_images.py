"""What an arm's result files say about the images that it was trained on: their origin, red flags, numbers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from arms.data import ArmData
from arms.file_formats import FewLabelsUsed, FinalMetrics, Origin, SyntheticFolder, SyntheticImages
from arms.options import differing_options
from arms.registry import Addition
from common.plan_files import named_files
from dataset.hidden_labels import sha256_labelled
from dataset.near_copies import detail_distances
from dataset.patients import GROUPED_BY_IMAGE, grouping_sentence
from image_metrics.copies import NearCopies, near_copies
from synthetic.folders import SyntheticSet
from utils import public_path

MOST_SEARCHED = 1000  # synthetic images, and test images, in the search for near-copies
FEWEST_UNSEEN = 5  # test images; fewer are no yardstick


# --- origin ----------------------------------------------------------------------------------------
def origin_of_results(config: dict[str, Any], data: ArmData, red_flags: list[str], **hashes: str | None) -> Origin:
    """Return what every result file of the arm says about its origin; ``config``: the recorded options.

    ``hashes``: weights_sha256, ensemble_sha256 (see ``file_formats.Origin``), None where there is no such file.
    """
    origin: Origin = {
        "config": config,
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "grouped_by": data.splits.grouped_by,
        "unmapped_images": data.dataset.unmapped,
        "manifest_sha256": {str(fold): images.manifest_sha256 for fold, images in data.synthetic.items()},
        "skipped_images": data.skipped(),
        "red_flags": red_flags,
    }
    there = {name: value for name, value in hashes.items() if value is not None}
    return cast(Origin, {**origin, **there, **named_files()})


# --- red flags -------------------------------------------------------------------------------------
def data_flags(data: ArmData, config: dict[str, Any], baseline: FinalMetrics | None) -> list[str]:
    """Return the red flags of an arm's images and options, also against the ``baseline`` of another arm."""
    from_manifests = [flag for images in data.synthetic.values() for flag in images.red_flags]
    flags = list(dict.fromkeys([*data.dataset.red_flags, *from_manifests]))  # a manifest repeats the data's own
    if data.splits.grouped_by == GROUPED_BY_IMAGE:
        flags.append(grouping_sentence(GROUPED_BY_IMAGE))
    if (count := data.skipped()["count"]) > 0:
        flags.append(f"{count} missing or unreadable images were left out (--skip-bad-images)")
    if config["weights"] == "none" and not config["unfreeze"]:
        flags.append("the backbone is random and frozen (--weights none without --unfreeze): a toy")
    if baseline is not None:
        flags += differing_options(config, baseline["config"])
    return flags


# --- training images -------------------------------------------------------------------------------
def count_added(data: ArmData, addition: Addition) -> tuple[int, int, int]:
    """Return (synthetic images, real ones again, real ones without labels) among the rows that an arm adds."""
    n_synthetic = int((addition.rows >= data.n_real).sum())
    n_unlabelled = int(np.isin(addition.rows, data.unlabelled_rows()).sum())
    return n_synthetic, len(addition.rows) - n_synthetic - n_unlabelled, n_unlabelled


def training_images_in_words(data: ArmData, addition: Addition) -> str:
    """Say what is trained on: "899 real + 450 synthetic training images"."""
    kinds = ("synthetic", "real again", "real without labels")
    counts = zip(count_added(data, addition), kinds, strict=True)
    extra = "".join(f" + {count:,} {kind}" for count, kind in counts if count)
    if extra and not (labels := data.final_synthetic_labels()).all():
        extra += f" ({int(labels.sum()):,} of them positive)"
    return f"{len(data.labelled_rows()):,} {'labelled ' if data.few else ''}real{extra} training images"


def describe_training_images(data: ArmData, addition: Addition) -> dict[str, Any]:
    """Return what final metrics say about the training images (see ``file_formats.Training``)."""
    n_synthetic, n_duplicated, _ = count_added(data, addition)
    labelled = data.labelled_images().records
    return {
        "n_train_images": len(labelled),
        "n_train_patients": int(labelled["patient"].nunique()),
        "n_train_positive": int(labelled["label"].sum()),
        "n_synthetic": n_synthetic,
        "n_duplicated": n_duplicated,
        "n_extra_positive": int(np.nansum(data.final_synthetic_labels())),
        "class_weights": addition.class_weights,
        "synthetic_shares": data.use.treatment.shares if data.use.trained_on else None,
        "synthetic": _describe_synthetic(data),
    }


def describe_few_labels(data: ArmData, addition: Addition, labels: np.ndarray, models: int) -> FewLabelsUsed:
    """Return what final metrics say about few labels; ``labels`` [N + M] of the pool, ``models``: in the ensemble."""
    hidden = data.train.records.iloc[data.unlabelled_rows()]
    n_synthetic, _, n_unlabelled = count_added(data, addition)
    return {
        "labelled_sha256": sha256_labelled(data.train.records),
        "n_hidden": len(hidden),
        "n_hidden_patients": int(hidden["patient"].nunique()),
        "n_unlabelled": n_unlabelled,
        "models": models,
        "mean_soft_label": float(labels[addition.rows].mean()) if models else None,
        "near_copies": _near_copies(data, n_synthetic) if n_synthetic else None,
    }


def _near_copies(data: ArmData, n_synthetic: int) -> NearCopies | None:
    """Search for copies of training images among the synthetic ones that joined, with test images as the yardstick."""
    made, unseen = (images.pixels[:MOST_SEARCHED] for images in (data.synthetic_images[0], data.test))
    if len(unseen) < FEWEST_UNSEEN:
        return None
    training = data.train.pixels
    return near_copies(detail_distances(made[:n_synthetic], training), detail_distances(unseen, training))


def _describe_synthetic(data: ArmData) -> SyntheticImages | None:
    if (images := data.synthetic.get(0)) is None:
        return None
    n, places = len(data.final_synthetic_labels()), [public_path(f) for f in data.use.folders]
    folders = [_describe_folder(folder) for folder in images.folders]
    generators = {folder["generator_sha256"] for folder in folders}
    return {
        "n_used": n,
        "n_available": len(images.records),
        "ratio": n / data.n_real,
        "label": images.label,
        "verified": images.verified,
        "generator_sha256": generators.pop() if len(generators) == 1 else None,
        "manifest_sha256": images.manifest_sha256,
        "side": images.smallest_side(),
        "dir": places[0] if len(places) == 1 else places,
        "folders": folders,
        "folds_of_their_own": sorted(fold for fold in data.synthetic if fold),
        "trained_on": data.use.trained_on,
    }


def _describe_folder(images: SyntheticSet) -> SyntheticFolder:
    found: SyntheticFolder = {
        "dir": public_path(images.records["path"].iloc[0].parent),
        "n_available": len(images.records),
        "label": images.label,
        "class": images.class_flag,
        "verified": images.verified,
        "generator_sha256": images.manifest.get("generator_sha256"),
        "manifest_sha256": images.manifest_sha256,
    }
    if elsewhere := images.manifest.get("trained_elsewhere"):
        found["trained_elsewhere"] = elsewhere
    return found
