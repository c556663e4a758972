"""Soft labels: the ensemble of baselines that labels images whose labels are hidden, or that have none.

It is the baseline's final models of the same split and the same labelled patients, and nothing else: a model that has
learned from another label would pass it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from arms.data import ArmData
from arms.file_formats import FinalMetrics
from arms.options import differing_options
from arms.registry import BASELINE, BASELINE_PREFIX, treatment_of
from arms.result_files import read_result, run_prefixes
from classifier import load_classifier
from common import paths
from dataset.feature_cache import sha256_weights
from dataset.hidden_labels import sha256_labelled
from utils import UserError, public_path, sha256_json


@dataclass(frozen=True)
class LabelEnsemble:
    """Weights of whole classifiers, and a hash of all."""

    states: list[dict[str, torch.Tensor]]
    sha256: str


def load_label_ensemble(
    model_dir: str, results_dir: str, data: ArmData, config: dict[str, Any]
) -> LabelEnsemble | None:
    """Load the baseline's final models; None if the arm of ``data``, of the options ``config``, needs none.

    Raises ``UserError`` unless all are there and learned from the same labelled patients of the same split, with the
    same options.
    """
    if data.softly_labelled() is None:
        return None
    arm, metrics = data.use.treatment.kind.name, paths.final_metrics(results_dir, BASELINE_PREFIX)
    if (baseline := read_result(metrics, FinalMetrics)) is None:
        raise UserError(
            f"{metrics} is missing: the baseline's final models label the images of the arm {arm}; train the baseline "
            "first (the same command without --use-synthetic, --soft-labels and --control)"
        )
    states, hashes = [], []
    for prefix in run_prefixes(BASELINE_PREFIX, baseline["repeats"]):
        file = paths.classifier_model(model_dir, prefix, config["backbone"])
        model, checkpoint = load_classifier(file)
        if reason := _why_unfit(dict(checkpoint), data, config):
            raise UserError(f"{public_path(file)} cannot label the images of the arm {arm}: {reason}")
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        hashes.append(sha256_weights(model))
    return LabelEnsemble(states, sha256_json(hashes))


def _why_unfit(checkpoint: dict[str, Any], data: ArmData, config: dict[str, Any]) -> str | None:
    again = "train the baseline again with the options of this arm"
    if treatment_of(checkpoint["config"]).kind.name != BASELINE:
        return f"it is no baseline; {again}"
    if checkpoint["split_sha256"] != data.splits.sha256:
        return "it was trained on another split or fold, and may have seen what is tested here; give its --model-dir"
    if checkpoint.get("labelled_sha256") != sha256_labelled(data.train.records):
        return f"it has learned from the labels of other patients, which are hidden here; {again} (--seed)"
    differing = differing_options(config, checkpoint["config"])
    return f"{differing[0]}; {again}" if differing else None
