"""Robustness: how the scores of the arms change where their test images are perturbed a little.

Every arm scores the same images as they are and perturbed, so changes are paired: within an arm with the same
images unperturbed, between arms with the same perturbed images. Nothing is adjusted for the number of
perturbations; no verdict rests on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from arms.result_files import Arm
from common import paths
from common.progress import Announcement, progress_bar
from comparison.file_formats import Comparison
from comparison.final_models import FinalModel, FinalModels, Sources, find_test_records
from comparison.perturbations import PERTURBATIONS, UNPERTURBED, VERSION, Perturbation, PerturbedPixels
from comparison.reviewer_file_formats import PerturbationResult, Robustness, ScoreChange
from data_loader import ImageSet, load_images
from stats.bootstrap import PatientDraws, ResampledScore, percentile_interval, resample_scores
from stats.metric_registry import compared_metrics
from stats.subgroups import FEWEST
from utils import UserError, derive_seed, load_json, save_json, sha256_file, sha256_json, without_folders

log = logging.getLogger(__name__)

ALL = (UNPERTURBED, *PERTURBATIONS)
CHUNK = 256  # images that are perturbed and held at a time
FARTHEST = 0.1  # a probability may be from the recorded one: bfloat16, or another device, moves it by less


@dataclass(frozen=True)
class _Scored:
    """One arm: its drawn images, and the changes of each perturbation, statistic by statistic."""

    table: pd.DataFrame
    probabilities: np.ndarray  # [perturbations, N], the mean over the runs
    changes: list[dict[str, ResampledScore]]


# --- the whole -------------------------------------------------------------------------------------
def measure_robustness(arms: Mapping[str, Arm], content: Comparison, n_images: int, sources: Sources) -> Robustness:
    """Perturb ``n_images`` test images, drawn by patient, and score them by the final models of every arm.

    Arms whose models are missing are named in ``left_out``. Raises ``UserError`` if none can be scored, or the
    images drawn hold too few of a class.
    """
    first = draw_by_patient(arms[next(iter(content["arms"]))].tested, n_images, sources.seed)
    _check_size(first, n_images)
    scored: dict[str, _Scored] = {}
    left_out: dict[str, str] = {}
    for name in content["arms"]:
        drawn = draw_by_patient(arms[name].tested, n_images, sources.seed)
        try:
            if not drawn[["image_id", "label"]].equals(first[["image_id", "label"]]):
                raise UserError("it was tested on other images than the first arm")
            scored[name] = _score_arm(arms[name], drawn, content, sources)
        except UserError as error:
            left_out[name] = without_folders(str(error))
    if not scored:
        raise UserError("; ".join(dict.fromkeys(left_out.values())))
    pairs = [(pair["a"], pair["b"]) for pair in content["pairs"] if {pair["a"], pair["b"]} <= scored.keys()]
    seed = content["settings"]["seed"]
    return {
        "n_images": len(first),
        "n_patients": int(first["patient"].nunique()),
        "n_positive": int(first["label"].sum()),
        "seed": sources.seed,
        "unperturbed": {name: _score_unperturbed(arm) for name, arm in scored.items()},
        "perturbations": [_compare_perturbation(number, scored, pairs, seed) for number in range(1, len(ALL))],
        "left_out": left_out,
    }


def draw_by_patient(predictions: pd.DataFrame, n_images: int, seed: int) -> pd.DataFrame:
    """Draw patients at random, each with all images, until there are at least ``n_images``; all if fewer."""
    patients = np.sort(predictions["patient"].unique())
    sizes = predictions["patient"].value_counts()
    drawn = patients[np.random.default_rng(derive_seed(seed, "robustness")).permutation(len(patients))]
    before = np.concatenate([[0], np.cumsum(sizes[drawn].to_numpy())[:-1]])  # images of the patients drawn earlier
    return predictions[predictions["patient"].isin(drawn[before < n_images])].reset_index(drop=True)


def _check_size(drawn: pd.DataFrame, n_images: int) -> None:
    positive = int(drawn["label"].sum())
    if min(positive, len(drawn) - positive) < FEWEST:
        raise UserError(
            f"--robustness {n_images} draws {positive} test images with pneumonia and {len(drawn) - positive} "
            f"without; at least {FEWEST} of each are needed"
        )


# --- one arm ---------------------------------------------------------------------------------------
def _score_arm(arm: Arm, drawn: pd.DataFrame, content: Comparison, sources: Sources) -> _Scored:
    models = FinalModels(arm, sources)
    records = find_test_records(arm, sources).set_index("image_id").loc[drawn["image_id"]].reset_index()
    config = arm.recorded.get("config", {})
    if "image_size" not in config:
        raise UserError(f"its metrics do not say how many pixels {arm.name} sees")
    images = load_images(
        records, config["image_size"], workers=sources.workers, desc="decoding test images",
        cache_dir=sources.cache_dir, through=config.get("match_resolution"), bits=sources.bits,
    )  # fmt: skip
    logits = np.stack([_logits_of(models, file, images, sources) for file in models.files])
    runs = expit(logits)  # [runs, perturbations, N]
    farthest = float(np.abs(runs[:, 0].mean(axis=0) - drawn["probability"].to_numpy()).max())
    if farthest > FARTHEST:
        raise UserError(f"its models do not give its recorded probabilities: they differ by up to {farthest:.2f}")
    labels, metrics = drawn["label"].to_numpy(), compared_metrics()

    def statistic(mean: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the changes [R, perturbations x (probability and metrics)]."""
        total = weights.sum(axis=1)
        values = [weights @ each / total for each in mean]
        columns = [value - values[0] for value in values[1:]]
        for metric in metrics:
            values = [metric.on_weights(labels, each, weights) for each in mean]
            columns += [value - values[0] for value in values[1:]]
        return np.stack(columns, axis=1)

    draws = PatientDraws(list(drawn["patient"]), content["settings"]["n_resamples"], content["settings"]["seed"])
    found = iter(resample_scores(draws, statistic, runs))
    by_statistic = {name: [next(found) for _ in PERTURBATIONS] for name in ("probability", *(m.name for m in metrics))}
    changes = [{name: values[k] for name, values in by_statistic.items()} for k in range(len(PERTURBATIONS))]
    return _Scored(drawn, runs.mean(axis=0), changes)


def _score_unperturbed(arm: _Scored) -> dict[str, float | None]:
    """Score the images as they are."""
    labels, own = arm.table["label"].to_numpy(), arm.probabilities[0]
    scores: dict[str, float | None] = {m.name: m.point_estimate(labels, own) for m in compared_metrics()}
    return {"probability": float(own.mean()), **scores}


# --- one model -------------------------------------------------------------------------------------
def _logits_of(models: FinalModels, file: Path, images: ImageSet, sources: Sources) -> np.ndarray:
    """Return the logits [perturbations, N] of one model; what is in the cache is not computed again."""
    facts = {
        "checkpoint": sha256_file(file), "config": sha256_json(models.arm.recorded["config"]), "images": images.key,
        "version": VERSION, "seed": sources.seed, "precision": models.precision(), "device": sources.device.type,
    }  # fmt: skip
    n = len(images.pixels)
    kept = {each.name: _read_kept(facts, each, n, sources) for each in ALL}
    to_do = [each for each in ALL if kept[each.name] is None]
    if not to_do:
        return np.stack([cast(np.ndarray, kept[each.name]) for each in ALL])
    model = models.load(file)
    announcement = Announcement(n * len(to_do), "perturbed images", "a smaller --robustness is quicker", log.info)
    with progress_bar(total=n * len(to_do), desc=f"robustness of {models.arm.name}", unit="img") as bar:
        for each in to_do:
            parts = []
            for part in _perturb(images, each, sources.seed, model):
                parts.append(model.logits(part))
                bar.update(len(parts[-1]))
                announcement.after(len(parts[-1]))
            kept[each.name] = np.concatenate(parts)
            _keep(facts, each, kept[each.name], sources)
    return np.stack([cast(np.ndarray, kept[each.name]) for each in ALL])


def _perturb(images: ImageSet, perturbation: Perturbation, seed: int, model: FinalModel) -> Iterator[ImageSet]:
    """Yield the perturbed images: in parts, or, for a frozen model, at once: its features are computed in parts."""
    ids = list(images.records["image_id"])
    pixels = PerturbedPixels(images.pixels, ids, perturbation, seed)
    if model.frozen:
        keys = [_hash(row_key, perturbation.name, VERSION, str(seed)) for row_key in images.row_keys]
        key = _hash(images.key, perturbation.name, VERSION, str(seed))
        yield ImageSet(images.records, cast(np.ndarray, pixels), [], key=key, row_keys=keys)
        return
    for start in range(0, len(ids), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(ids)))
        yield ImageSet(images.records.iloc[rows], pixels[rows], [])


def _hash(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def _cache_file(facts: Mapping[str, Any], perturbation: Perturbation, cache_dir: str) -> Path:
    return paths.cached_scores(cache_dir, sha256_json({**facts, "perturbation": perturbation.name})[:32])


def _read_kept(facts: Mapping[str, Any], perturbation: Perturbation, n: int, sources: Sources) -> np.ndarray | None:
    """Return the logits [N] that were kept; None if there are none, or their file is damaged."""
    if sources.cache_dir is None:
        return None
    file = _cache_file(facts, perturbation, sources.cache_dir)
    try:
        logits = np.array(load_json(file)["logits"], dtype=float) if file.is_file() else np.empty(0)
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return logits if logits.shape == (n,) and np.isfinite(logits).all() else None


def _keep(facts: Mapping[str, Any], perturbation: Perturbation, logits: Any, sources: Sources) -> None:
    if sources.cache_dir is None:
        return
    content = {**facts, "perturbation": perturbation.name, "logits": logits}
    try:
        save_json(_cache_file(facts, perturbation, sources.cache_dir), content)
    except OSError as error:
        log.warning(f"WARNING: scores of perturbed images cannot be kept ({error.strerror or error})")


# --- one perturbation ------------------------------------------------------------------------------
def _compare_perturbation(
    number: int, scored: Mapping[str, _Scored], pairs: Sequence[tuple[str, str]], seed: int
) -> PerturbationResult:
    """Compare perturbation ``number`` of ``ALL`` with the images as they are, per arm and between arms."""
    perturbation = ALL[number]
    arms: dict[str, Any] = {}
    for name, arm in scored.items():
        own_seed = derive_seed(seed, name, perturbation.name)
        arms[name] = {key: _change(_no_change(each), each, own_seed) for key, each in arm.changes[number - 1].items()}
        arms[name]["absolute_probability"] = float(np.abs(arm.probabilities[number] - arm.probabilities[0]).mean())
    between: list[dict[str, Any]] = []
    for a, b in pairs:
        own_seed = derive_seed(seed, a, b, perturbation.name)
        one, other = scored[a].changes[number - 1], scored[b].changes[number - 1]
        between.append({"a": a, "b": b} | {key: _change(each, other[key], own_seed) for key, each in one.items()})
    content = {"name": perturbation.name, "meaning": perturbation.meaning, "arms": arms, "pairs": between}
    return cast(PerturbationResult, content)


def _no_change(change: ResampledScore) -> ResampledScore:
    """Return a score of 0 in every resample: no change."""
    return ResampledScore(0.0, np.zeros_like(change.patients))


def _change(a: ResampledScore, b: ResampledScore, seed: int) -> ScoreChange:
    """Return b minus a with its interval; no interval where no resample differs: there is nothing to go by."""
    both = b.minus(a)
    values = both.distribution(seed)
    if not np.isfinite(both.score) or not len(values):
        return {"change": None, "ci95": None}
    return {"change": both.score, "ci95": percentile_interval(values) if both.standard_error > 1e-12 else None}
