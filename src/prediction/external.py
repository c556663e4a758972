"""External test: the final models of all arms predict a data set that nothing was trained on.

Every training run of every arm predicts the images, and the predictions are written in the format of the test
predictions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arms.file_formats import DataMeaning, ExternalArm, ExternalReferences, ExternalTest
from arms.result_files import Arm
from arms.scores import ReferencePredictors, prediction_table
from arms.training import sigmoid
from classifier import InputPipeline, feature_caches, logits_in_full_precision, predict_batches
from common import paths
from common.experiment_files import named_config
from common.progress import progress_bar
from data_loader import ImageSet
from prediction.data_origin import DataOrigin
from prediction.external_data import ExternalData, ExternalOptions, count_unknown_people, load_external
from prediction.models import LoadedModel, load_models, require_one_recipe
from prediction.models_by_arm import find_models, shared_facts
from stats.metrics import auroc
from utils import as_tensor, environment, resolve_precision, save_csv, save_json, sha256_file

log = logging.getLogger(__name__)

FORMAT = "external-test-1"


# --- predictions -------------------------------------------------------------------------------------
def predict_run(model: LoadedModel, images: ImageSet, device: torch.device, cache_dir: str | None) -> np.ndarray:
    """Return the probabilities of one final model, float64 [N], as its training computed those of the test images."""
    config = model.checkpoint["config"]
    precision, size = resolve_precision(config["precision"], device), 2 * config["batch_size"]
    rows, network = np.arange(len(images.records)), model.network
    if model.features_once:
        cache = feature_caches(network, cache_dir, device=device, precision=precision)[0]
        features = cache.features(images, desc=f"features for {model.file.name}")
        inputs = InputPipeline(torch.from_numpy(features).to(device))
        apply: Any = partial(logits_in_full_precision, network.head.to(device))
        return sigmoid(predict_batches(apply, inputs, rows, batch_size=size, precision=precision))
    inputs = InputPipeline(as_tensor(np.asarray(images.pixels)).to(device))
    network.to(device).to(memory_format=torch.channels_last)
    bar = partial(progress_bar, desc=f"predicting with {model.file.name}", unit="batch")
    return sigmoid(predict_batches(network, inputs, rows, batch_size=size, precision=precision, progress=bar))


def write_predictions(
    options: ExternalOptions, arm: Arm, files: Sequence[Path], images: ImageSet, device: torch.device
) -> ExternalArm:
    """Predict with every training run of an arm, and write each and their mean."""
    models = load_models(files)
    require_one_recipe(models)
    runs = np.stack([predict_run(model, images, device, options.cache_dir) for model in models])
    tables = {arm.prefix: runs.mean(axis=0)}
    if len(runs) > 1:
        tables |= {paths.repeat_prefix(arm.prefix, number): run for number, run in enumerate(runs, start=1)}
    written = {}
    for prefix, probabilities in tables.items():
        file = paths.test_predictions(options.folder, prefix)
        save_csv(file, prediction_table(images.records, probabilities))
        written[file.name] = sha256_file(file)
    metrics = paths.final_metrics(options.metrics_dir, arm.prefix)
    return {
        "models": {model.file.name: model.sha256 for model in models},
        "predictions": written,
        "metrics_sha256": sha256_file(metrics) if metrics.is_file() else None,
    }


def score_references(data: ExternalData) -> ExternalReferences | None:
    """Score predictors that ignore the lungs, fitted on the training images; None where these are not here."""
    if data.training is None:
        return None
    used = data.training.records["used"].to_numpy(dtype=bool)
    train = data.training.records[used].reset_index(drop=True)
    if train["label"].nunique() < 2:
        return None
    references = ReferencePredictors(train, data.training.pixels[used])
    found = references.predict(data.images.records, data.images.pixels)
    labels = data.images.records["label"].to_numpy()
    return {"metadata_auroc": auroc(labels, found["metadata"]), "thumbnail_auroc": auroc(labels, found["thumbnail"])}


# --- the whole test ----------------------------------------------------------------------------------
def evaluate(options: ExternalOptions, config: dict[str, Any], device: torch.device) -> ExternalTest:
    """Check the data, predict them with every arm, write the files; ``config``: recorded options of the run.

    Raises ``UserError`` if models or data are missing, do not belong together, or were seen in training.
    """
    arms = find_models(options.model_dir, options.metrics_dir)
    facts = shared_facts(arms)
    data = load_external(options, [arm for arm, _ in arms.values()], facts)
    file = paths.external_test(options.folder)
    # Written last and removed first: its presence means that all files are there and belong together.
    file.unlink(missing_ok=True)
    for stale in options.folder.glob("*_test_predictions.csv"):
        stale.unlink()
    found = {prefix: write_predictions(options, *arm, data.images, device) for prefix, arm in arms.items()}
    records, skipped = data.images.records, sorted(data.images.skipped)
    result: ExternalTest = {
        "format": FORMAT, "name": options.name, "config": config, "split_sha256": facts["split_sha256"],
        "data_sha256": data.dataset.data_sha256, "n_images": len(records),
        "n_patients": int(records["patient"].nunique()), "n_positive": int(records["label"].sum()),
        "grouped_by": data.dataset.grouped_by, "unmapped_images": count_unknown_people(data),
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
        "dropped": data.overlap.dropped(), "shared_with_test": data.tested_before,
        "data": _meaning(data.origin), "training_data": _meaning(data.training_origin),
        "positive_differs": _differ(data.origin.positive, data.training_origin.positive),
        "patients_compared": data.origin.knows_people_of(data.training_origin),
        "pictures_compared": data.training is not None, "references": score_references(data), "arms": found,
        "environment": environment(device), "red_flags": list(dict.fromkeys(data.red_flags)), **named_config(),
    }  # fmt: skip
    save_json(file, result)
    return result


def _meaning(origin: DataOrigin) -> DataMeaning:
    return {"families": sorted(origin.families), "positive": origin.positive}


def _differ(one: str | None, other: str | None) -> bool | None:
    return None if None in (one, other) else one != other
