"""Shortcut test: does an arm take the blur of its synthetic images for their label?

Synthetic images of fewer pixels than the classifier sees are blurrier than real ones. A classifier that has
learned "blurry, so pneumonia" gives a real negative a higher logit once that is reduced to so few pixels and
enlarged again. Reduction moves the logits of any classifier. So the change is compared, image by image, with
the change under an arm that saw no synthetic image: a difference of differences.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arms.registry import BASELINE, CONTROL_DUPLICATE
from arms.result_files import Arm, why_not_comparable
from common import paths
from comparison.file_formats import ShortcutTest, SyntheticNegatives
from comparison.final_models import FinalModels, Sources, find_test_records
from data_loader import ImageSet, load_images
from dataset.images import enlarged, typical_side
from gan.generation import ImageMaker
from gan.networks import generator_from_checkpoint
from gan.settings import CLASS_FLAGS
from stats.bootstrap import RESAMPLES, bootstrap_mean
from synthetic.folders import existing_images, read_manifest
from utils import UserError, derive_seed, load_checkpoint, public_path, sha256_file, without_folders

log = logging.getLogger(__name__)

REFERENCES = (CONTROL_DUPLICATE, BASELINE)  # the first that is there
MOST = 500  # images that are scored; their interval is some 0.1 to 0.2 wide
MOST_SYNTHETIC, BATCH = 200, 32
WIDEST = 0.5  # of an interval on the logit scale that can say something
FLAGGED, CLEAR, CANNOT_SAY = "flagged", "not flagged", "cannot say"
NOT_NEEDED, NOT_TESTED = "not needed", "not tested"


class _NotNeeded(Exception):
    """The synthetic images are as sharp as real ones, for the reason given."""


# --- the test --------------------------------------------------------------------------------------
def find_shortcuts(arms: Mapping[str, Arm], sources: Sources) -> list[ShortcutTest]:
    """Test every arm that was trained on synthetic images; images and models are read only if that needs them."""
    return [_test_arm(arm, arms, sources) for arm in arms.values() if arm.recorded.get("n_synthetic")]


def shortcut_flags(tests: Sequence[ShortcutTest]) -> list[str]:
    """Return a warning for each arm that takes blur for the label."""
    return [f"{test['arm']}: BLUR PASSES FOR THE LABEL: {test['why']}" for test in tests if test["state"] == FLAGGED]


def _test_arm(arm: Arm, arms: Mapping[str, Arm], sources: Sources) -> ShortcutTest:
    reference = next((arms[name] for name in REFERENCES if name in arms), None)
    side = (arm.recorded.get("synthetic") or {}).get("side")
    result: ShortcutTest = {
        "arm": arm.name, "reference": reference.name if reference else None, "state": NOT_TESTED, "why": "",
        "side": side, "image_size": arm.recorded["config"].get("image_size"), "label": None,
        "n_images": None, "n_patients": None, "change": None, "change_in_reference": None,
        "difference": None, "ci95": None, "synthetic_negatives": None,
    }  # fmt: skip
    try:
        _check_need(arm, side)
        if reference is None:
            raise UserError(f"it needs an arm without synthetic images to compare with: {' or '.join(REFERENCES)}")
        _measure(arm, reference, result, sources)
    except _NotNeeded as reason:
        return {**result, "state": NOT_NEEDED, "why": str(reason)}
    except UserError as error:
        return {**result, "state": NOT_TESTED, "why": without_folders(str(error))}
    return result


def _check_need(arm: Arm, side: int | None) -> None:
    config = arm.recorded["config"]
    if matched := config.get("match_resolution"):
        raise _NotNeeded(f"all images were reduced to {matched} px (--match-resolution)")
    size = config.get("image_size")
    if side is None or size is None:
        raise UserError("its metrics do not say how many pixels its synthetic images have")
    if "few_labels" in arm.recorded:
        raise UserError("its synthetic images have soft labels, and the test asks whether blur passes for one label")
    if side >= size:
        raise _NotNeeded(f"its synthetic images have {side} px, the classifier sees {size} px")


def _measure(arm: Arm, reference: Arm, result: ShortcutTest, sources: Sources) -> None:
    """Score the images and fill ``result``; raises ``UserError`` if something that it needs is missing."""
    if reason := why_not_comparable(reference, arm):
        raise UserError(f"it cannot be compared with {reference.name}: {reason}")
    side, size = result["side"] or 0, result["image_size"] or 0
    for key in ("image_size", "match_resolution"):
        if arm.recorded["config"].get(key) != reference.recorded.get("config", {}).get(key):
            raise UserError(f"{reference.name} was trained with another --{key.replace('_', '-')}")
    models = {each.name: FinalModels(each, sources) for each in (arm, reference)}
    # Images whose label differs from that of the synthetic ones: negatives, as a rule.
    label = 0 if (arm.recorded.get("synthetic") or {}).get("label") == 0 else 1
    records = _test_images(arm, 1 - label, sources)
    if (real := typical_side(list(records["path"]))) is not None and real <= side:
        raise _NotNeeded(f"real images have {real} px, synthetic ones {side} px")
    log.info(f"shortcut test of {arm.name}: {len(records):,} real test images, reduced to {side} px")
    reduced = load_images(
        records, size, workers=sources.workers, desc=f"reducing test images to {side} pixels",
        cache_dir=sources.cache_dir, through=side, bits=sources.bits,
    )  # fmt: skip
    before = {name: each.recorded_logits(list(records["image_id"])) for name, each in models.items()}
    after = {name: each.mean_logits(reduced) for name, each in models.items()}
    towards = 1 if label else -1
    changes = {name: towards * (after[name] - before[name]) for name in models}
    differences = changes[arm.name] - changes[reference.name]
    seed = derive_seed(sources.seed, "shortcut", arm.name) % 2**32
    found = bootstrap_mean(differences, list(records["patient"]), n_resamples=RESAMPLES, seed=seed)
    result |= {
        "label": label, "n_images": len(differences), "n_patients": int(records["patient"].nunique()),
        "change": float(changes[arm.name].mean()),
        "change_in_reference": float(changes[reference.name].mean()),
        "difference": found["difference"], "ci95": found["ci95"], "state": judge(found["ci95"]),
    }  # fmt: skip
    result["why"] = _describe(result)
    if label:
        result["synthetic_negatives"] = _score_negatives(arm, models[arm.name], before[arm.name], after[arm.name])


def judge(ci95: Sequence[float]) -> str:
    """Judge the interval of a difference of differences, on the logit scale towards the synthetic label."""
    low, high = ci95
    if low > 0:
        return FLAGGED
    return CLEAR if high - low <= WIDEST else CANNOT_SAY


def _describe(test: ShortcutTest) -> str:
    low, high = test["ci95"] or [float("nan")] * 2
    kind, label = ("negatives", "positive") if test["label"] else ("positives", "negative")
    measured = (
        f"reduced to the {test['side']} px of the synthetic images, real test {kind} look more {label} by "
        f"{test['difference']:+.2f} on the logit scale than under {test['reference']} (95 % CI {low:+.2f} to "
        f"{high:+.2f}, {test['n_images']:,} images of {test['n_patients']:,} patients)"
    )
    if test["state"] == FLAGGED:
        return f"{measured}; --match-resolution {test['side']} in every arm takes that away"
    if test["state"] == CANNOT_SAY:
        return f"{measured}: the interval is wider than {WIDEST:g}, so the test cannot say"
    return f"{measured}: no sign that blur passes for the label"


# --- what is scored --------------------------------------------------------------------------------
def _test_images(arm: Arm, label: int, sources: Sources) -> pd.DataFrame:
    """Return at most ``MOST`` test images of ``label``: image_id, patient, path."""
    known = find_test_records(arm, sources)
    wanted = known.loc[known["label"] == label, ["image_id", "patient", "path"]]
    if len(wanted) > MOST:
        wanted = wanted.sample(MOST, random_state=sources.seed).sort_index()
    if wanted.empty:
        raise UserError(f"no test image has the label {label}")
    return wanted.reset_index(drop=True)


# --- synthetic negatives ---------------------------------------------------------------------------
def _score_negatives(arm: Arm, models: FinalModels, before: np.ndarray, after: np.ndarray) -> SyntheticNegatives | None:
    """Score synthetic negatives under ``arm``, beside its logits of real ones; None if there are none."""
    size = arm.recorded["config"]["image_size"]
    folders = (arm.recorded.get("synthetic") or {}).get("folders", [])
    found = next((made for folder in folders if (made := _find_negatives(folder, size, models.sources))), None)
    if found is None:
        return None
    source, images = found
    return {
        "source": source, "n_images": len(images.pixels), "logit": float(models.mean_logits(images).mean()),
        "logit_real": float(before.mean()), "logit_real_reduced": float(after.mean()),
    }  # fmt: skip


def _find_negatives(folder: Mapping[str, Any], size: int, sources: Sources) -> tuple[str, ImageSet] | None:
    """Return (where they come from, images): those of a folder of negatives, or new ones of its generator.

    Only a generator that knows classes makes negatives beside positives. None if folder or generator is not
    where the arm found it, or is another one by now.
    """
    file = paths.synthetic_manifest(folder["dir"])
    if not file.is_file() or sha256_file(file) != folder["manifest_sha256"]:
        return None
    if folder["label"] == 0:
        files = existing_images(file.parent)[:MOST_SYNTHETIC]
        records = pd.DataFrame({"image_id": [path.stem for path in files], "path": files})
        return folder["dir"], load_images(records, size, workers=sources.workers, cache_dir=sources.cache_dir)
    generator = Path(read_manifest(file).get("generator") or "")
    if folder["class"] is None or not generator.is_file() or sha256_file(generator) != folder["generator_sha256"]:
        return None
    network = generator_from_checkpoint(load_checkpoint(generator), str(generator))
    make = ImageMaker(network, sources.seed, sources.device, CLASS_FLAGS.index("normal"))
    numbers = range(1, MOST_SYNTHETIC + 1)
    batches = [make(numbers[start : start + BATCH]) for start in range(0, MOST_SYNTHETIC, BATCH)]
    pixels = np.stack([enlarged(image, size) for image in np.concatenate(batches)])
    name = f"made by {public_path(generator)}"
    return name, ImageSet(pd.DataFrame({"image_id": [str(number) for number in numbers]}), pixels, [], key=name)
