"""The final models of every arm, and whether those of all arms may be compared on the same new images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arms.registry import arm_order
from arms.result_files import TRAIN_COMMAND, Arm, find_arms, find_prefixes, repeat_of, run_prefixes
from common import paths
from networks.backbones import BACKBONES
from utils import UserError, load_checkpoint, plain, public_path

log = logging.getLogger(__name__)

FINAL_MODEL = re.compile(rf"(?!best_overall_)(.+_)({'|'.join(BACKBONES)})\.pth")
DIFFER = {
    "split_sha256": "were trained on different splits",
    "data_sha256": "were trained with different metadata files",
    "backbone": "have different backbones",
    "image_size": "take images of different sizes",
    "match_resolution": "were trained with different --match-resolution",
    "weights": "began with different --weights",
}


def find_models(model_dir: str | Path, metrics_dir: str | Path) -> dict[str, tuple[Arm, list[Path]]]:
    """Return prefix -> (what the result files say of the arm, files of its final models, one per training run).

    Raises ``UserError`` if there is none, a run of an arm lacks its model, or a result file is broken.
    """
    known: dict[str, Arm] = {}
    if any(find_prefixes(metrics_dir, kind) for kind in (paths.final_metrics, paths.test_predictions)):
        known = {arm.prefix: arm for arm in find_arms(metrics_dir).values()}
    else:
        log.warning(f"WARNING: {public_path(metrics_dir)} holds no results of training: nothing to compare these with")
    there = _backbones_there(Path(model_dir))
    runs = {name: own for name in there if (own := repeat_of(name, there))}
    found = {}
    for prefix in (name for name in there if name not in runs):
        arm = known.get(prefix) or Arm(prefix.removesuffix("_"), prefix)
        backbone = arm.backbone if arm.metrics else there[prefix][0]
        if len(there[prefix]) > 1 and not arm.metrics:
            several = ", ".join(there[prefix])
            raise UserError(f"{model_dir} holds {arm.name} with several backbones ({several}); keep one of them")
        numbers = [number for arm_prefix, number in runs.values() if arm_prefix == prefix]
        repeats = arm.recorded.get("repeats") or max(numbers, default=1)
        files = [paths.classifier_model(model_dir, name, backbone) for name in run_prefixes(prefix, repeats)]
        if missing := [file for file in files if not file.is_file()]:
            raise UserError(f"{missing[0]} is missing, one of {repeats} training runs of {arm.name}; train it again")
        found[prefix] = (arm, files)
    if not found:
        raise UserError(
            f"{model_dir} holds no final model; `{TRAIN_COMMAND}` trains them, --model-dir says where they are"
        )
    if lost := [arm.name for prefix, arm in known.items() if prefix not in found]:
        log.warning(f"WARNING: {', '.join(lost)}: no model is in {public_path(model_dir)}, so not tested")
    return dict(sorted(found.items(), key=lambda item: arm_order(item[0])))


def _backbones_there(model_dir: Path) -> dict[str, list[str]]:
    """Return prefix -> backbones of the final models in the folder."""
    found: dict[str, list[str]] = {}
    for file in sorted(model_dir.glob("*.pth")):
        if match := FINAL_MODEL.fullmatch(file.name):
            found.setdefault(match[1], []).append(match[2])
    return found


def shared_facts(files: Mapping[str, tuple[Arm, list[Path]]]) -> dict[str, Any]:
    """Return what all checkpoints share: split_sha256, data_sha256, image_size, config (of the first arm).

    Raises ``UserError`` naming two that differ, so that no difference between arms could be read.
    """
    first: dict[str, Any] = {}
    for arm, models in files.values():
        content = load_checkpoint(models[0], f"`{TRAIN_COMMAND}`")
        config = content.get("config") or {}
        own = {key: content.get(key) for key in ("split_sha256", "data_sha256", "backbone", "image_size")}
        own |= {key: config.get(key) for key in ("match_resolution", "weights")} | {"file": models[0], "config": config}
        first = first or own
        for key, what in DIFFER.items():
            if first[key] != own[key]:
                raise UserError(
                    f"{first['file']} and {own['file']} {what}, so they cannot be compared; move the models of one of "
                    "them elsewhere"
                )
        recorded = arm.recorded or own
        if plain(config) != recorded["config"] or own["split_sha256"] != recorded["split_sha256"]:
            raise UserError(
                f"{models[0]} is not the model whose results lie in --results-dir (other options or split); train "
                f"{arm.name} again, or give the folders that belong together"
            )
    return first
