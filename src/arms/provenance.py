"""What the result files of an arm say about where its numbers come from, and what it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arms.file_formats import FinalMetrics, Origin, SyntheticFolder, SyntheticImages
from arms.options import differing_options
from arms.registry import BASELINE
from classifier import split_of_weights
from dataset.records import GROUPED_BY_IMAGE, grouping_sentence
from utils import UserError, public_path

if TYPE_CHECKING:
    from arms.data import ArmData
    from arms.treatments import Addition
    from synthetic.folders import SyntheticSet


def origin_of_results(config: dict[str, Any], data: ArmData, red_flags: list[str]) -> Origin:
    """Return what every result file of the arm says about its origin; ``config``: the recorded options."""
    return {
        "config": config,
        "split_sha256": data.splits.sha256,
        "data_sha256": data.dataset.data_sha256,
        "grouped_by": data.splits.grouped_by,
        "unmapped_images": data.dataset.unmapped,
        "manifest_sha256": {str(fold): images.manifest_sha256 for fold, images in data.synthetic.items()},
        "skipped_images": data.skipped(),
        "red_flags": red_flags,
    }


# --- red flags -------------------------------------------------------------------------------------
def weight_flags(weights: str, split_sha256: str) -> list[str]:
    """Return the red flags of --weights.

    Raises ``UserError`` if they are a classifier that may have seen test patients.
    """
    split = split_of_weights(weights)
    if split is None:
        return []
    if split != split_sha256:
        raise UserError(
            f"--weights {weights} was trained on another split ({split[:12]}, not {split_sha256[:12]}) "
            "and may have seen the test patients; use imagenet, none, or a file of this split"
        )
    return [f"--weights {public_path(weights)} had learned from these training images before"]


def data_flags(data: ArmData, config: dict[str, Any], baseline: FinalMetrics | None) -> list[str]:
    """Return the red flags of an arm's images and options, also against the ``baseline`` if it is known."""
    flags = list({flag: None for images in data.synthetic.values() for flag in images.red_flags})
    if data.splits.grouped_by == GROUPED_BY_IMAGE:
        flags.append(grouping_sentence(GROUPED_BY_IMAGE))
    if (count := data.skipped()["count"]) > 0:
        flags.append(f"{count} missing or unreadable images were left out (--skip-bad-images)")
    if config["weights"] == "none" and not config["unfreeze"]:
        flags.append("the backbone is random and frozen (--weights none without --unfreeze): a toy")
    if baseline is not None and data.use.treatment.kind.name != BASELINE:
        flags += differing_options(config, baseline["config"])
    return flags


# --- training images -------------------------------------------------------------------------------
def count_added(data: ArmData, addition: Addition) -> tuple[int, int]:
    """Return (synthetic images, real ones again) among the rows that an arm adds."""
    n_synthetic = int((addition.rows >= data.n_real).sum())
    return n_synthetic, len(addition.rows) - n_synthetic


def training_images_in_words(data: ArmData, addition: Addition) -> str:
    """Say what is trained on: "899 real + 450 synthetic training images"."""
    counts = zip(count_added(data, addition), ("synthetic", "real again"), strict=True)
    extra = "".join(f" + {count:,} {kind}" for count, kind in counts if count)
    if extra and not (labels := data.synthetic_labels(0, data.n_real)).all():
        extra += f" ({int(labels.sum()):,} of them positive)"
    return f"{data.n_real:,} real{extra} training images"


def describe_training_images(data: ArmData, addition: Addition) -> dict[str, Any]:
    """Return what final metrics say about the training images (see ``file_formats.Training``)."""
    n_synthetic, n_duplicated = count_added(data, addition)
    return {
        "n_train_images": data.n_real,
        "n_train_patients": int(data.train.records["patient"].nunique()),
        "n_train_positive": int(data.labels().sum()),
        "n_synthetic": n_synthetic,
        "n_duplicated": n_duplicated,
        "n_extra_positive": int(data.synthetic_labels(0, data.n_real).sum()),
        "class_weights": addition.class_weights,
        "synthetic_shares": data.use.treatment.shares if data.use.trained_on else None,
        "synthetic": _describe_synthetic(data),
    }


def _describe_synthetic(data: ArmData) -> SyntheticImages | None:
    images = data.synthetic.get(0)
    if images is None:
        return None
    n, places = len(data.synthetic_labels(0, data.n_real)), [public_path(f) for f in data.use.folders]
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
        "dir": places[0] if len(places) == 1 else places,
        "folders": folders,
        "folds_of_their_own": sorted(fold for fold in data.synthetic if fold),
        "trained_on": data.use.trained_on,
    }


def _describe_folder(images: SyntheticSet) -> SyntheticFolder:
    return {
        "dir": public_path(images.records["path"].iloc[0].parent),
        "n_available": len(images.records),
        "label": images.label,
        "class": images.class_flag,
        "verified": images.verified,
        "generator_sha256": images.manifest.get("generator_sha256"),
        "manifest_sha256": images.manifest_sha256,
    }
