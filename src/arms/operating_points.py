"""Thresholds and temperature of an arm's final models, chosen on its out-of-fold predictions."""

from __future__ import annotations

from arms import options as arm_options
from arms.file_formats import Origin
from common.options import Affects, values_affecting
from utils import sha256_json


def recipe_sha256(origin: Origin) -> str:
    """Hash what all training runs of one arm share: options, images and initial weights, not seed and folds.

    The folds of such runs tell how the probabilities of their final models relate to labels.
    """
    options = values_affecting(arm_options.TRAIN_OPTIONS, Affects.FOLDS, origin["config"])
    options.pop("seed", None)
    images = {key: origin[key] for key in ("split_sha256", "data_sha256", "skipped_images")}
    # Of the images that the final model learns from; those of single folds have manifests of their own.
    manifest = origin["manifest_sha256"].get("0")
    return sha256_json({**images, "options": options, "manifest": manifest, "weights": origin.get("weights_sha256")})
