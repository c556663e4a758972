"""Two folders of images, real and synthetic, compared without labels or splits: a table of axes and one verdict.

Every number stands beside its floor, what disjoint halves of the real patients score against each other. The verdict
rests on the energy distance (``energy_distance``) in features that need no weights, and on a search for copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.stats import t

from dataset.near_copies import detail_distances, find_copies
from image_metrics.distances import (
    EqualDraws,
    Groups,
    distances_of_draws,
    equal_draws,
    halve_by_group,
    mean_distances,
)
from image_metrics.energy_distance import REFERENCE, EnergyDistance, measure_energy
from image_metrics.feature_spaces import Space, grain
from image_metrics.fidelity import PROBE_FOLDS, SCORES, scores_over_draws, separability
from image_metrics.file_formats import Axis, Better, CopyPair, CopySearch, Verdict
from image_metrics.planted_copies import at_search_size, choose_threshold
from networks.backbones import BACKBONES, LITE0
from stats.metrics import CONFIDENCE, wilson_interval
from stats.paired_tests import Z

LEAST = 12  # groups on each side, below which nothing is measured: halves of them still have a sixth image
MOST_COMPARED = 5000  # images a side in the distances; copies are searched for among all
MOST_PROBED = 1500  # images a side of the probe
FALSE_ALARMS = 0.05  # chance that other patients are called farther, in any of the spaces
VALUE_DRAWS, ERROR_DRAWS = 5, 20
LISTED = 12  # pairs of images
BLOCK = 2048  # synthetic images whose distances to all real ones are held at once
CLOSE, FAR = "as near as other patients", "farther than other patients"
SPACE_WORDS = {"HOG": "edges (HOG)", "16x16 pixels": "brightness (16x16)"}  # else the name of the network
COPIES, FEW = "copies real images", "too few images: at least {:,}"


def draw_rows(n: int, most: int, seed: int) -> np.ndarray:
    """Draw at most ``most`` of n rows at random; returns them in their order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:most])


@dataclass(frozen=True)
class Side:
    """Images of one side: uint8 [N, S, S], their names and their groups (patients)."""

    pixels: np.ndarray
    names: Sequence[str]
    groups: Sequence[str]

    def some(self, most: int, seed: int) -> Side:
        """Return at most ``most`` images, drawn at random."""
        if len(self.names) <= most:
            return self
        rows = draw_rows(len(self.names), most, seed)
        return Side(self.pixels[rows], [self.names[row] for row in rows], [self.groups[row] for row in rows])


@dataclass(frozen=True)
class FolderComparison:
    """Everything measured; ``pairs`` int [P, 2]: rows of the synthetic and the real images of ``copies``' pairs."""

    axes: list[Axis]
    verdict: Verdict
    copies: CopySearch
    pairs: np.ndarray
    confidence: float


def compare_folders(real: Side, synthetic: Side, spaces: Sequence[Space], *, seed: int) -> FolderComparison:
    """Compare synthetic with real images of at least ``LEAST`` groups each.

    The first space serves the scores by neighbours and variety, all of them the distances and the probe.
    """
    copies, pairs = search_copies(real, synthetic, seed)
    real, synthetic = real.some(MOST_COMPARED, seed), synthetic.some(MOST_COMPARED, seed)
    features = {space.name: (space.features(real.pixels), space.features(synthetic.pixels)) for space in spaces}
    level = FALSE_ALARMS / len(spaces)
    energies = {
        name: measure_energy(a, real.groups, b, synthetic.groups, level=level, seed=seed)
        for name, (a, b) in features.items()
    }
    name, (real_features, made_features) = next(iter(features.items()))
    axes = [_distance_axis(space, energy) for space, energy in energies.items()]
    axes += _draw_axes(name, real_features, real.groups, made_features, seed)
    axes.append(_variety_axis(name, energies[name]))
    axes.append(_copies_axis(copies, len(synthetic.names), len(real.names)))
    axes += _probe_axis(features, real.groups, synthetic.groups, seed)
    axes.append(_grain_axis(real, synthetic))
    verdict = decide(energies, copies, axes, (len(synthetic.names), len(real.names)))
    return FolderComparison(axes, verdict, copies, pairs, 1.0 - 2.0 * level)


# --- verdict ---------------------------------------------------------------------------------------
def decide(
    energies: dict[str, EnergyDistance], copies: CopySearch, axes: Sequence[Axis], n_images: tuple[int, int]
) -> Verdict:
    """Choose the verdict, copies first; ``n_images``: synthetic and real ones compared."""
    far = [name for name, energy in energies.items() if energy.farther]
    needed = 10 * math.ceil(max(energy.needed for energy in energies.values()) / 10)
    unclear = [name for name, energy in energies.items() if energy.half_width > energy.margin]
    name = (far or unclear or list(energies))[0]
    energy = energies[name]
    numbers = (
        f"the distance in {_in_words(name)} is {energy.value:.3g} ({energy.ci95[0]:.3g} to {energy.ci95[1]:.3g}), "
        f"that of other real patients {energy.floor:.3g}"
    )
    if copies["copies"] and copies["reliable"]:
        text, sentence = COPIES, f"{copies['copies']:,} synthetic images show the picture of a real one; {numbers}"
    elif far:
        text, sentence = FAR, numbers
    elif unclear:
        text = FEW.format(needed)
        sentence = (
            f"{n_images[0]:,} synthetic and {n_images[1]:,} real images leave the distance in {_in_words(name)} "
            f"uncertain by {energy.half_width:.2g}; it must be below {energy.margin:.2g}, by which {REFERENCE} and "
            f"{REFERENCE} real images differ by chance"
        )
    else:
        text, sentence = CLOSE, numbers
    said = {_distance_id(name)} | ({"copies"} if text == COPIES else set())
    also = [axis["name"] for axis in axes if axis["outside"] and axis["id"] not in said]
    return {"verdict": text, "needed": needed, "sentence": sentence, "also": also}


# --- axes ------------------------------------------------------------------------------------------
def _axis(
    kind: str, name: str, value: float, floor: float, ci95: list[float] | None, better: Better, n: str, what: str
) -> Axis:
    low, high = ci95 or (-math.inf, math.inf)
    worse = {"lower": floor < low, "higher": floor > high, "near the floor": not low <= floor <= high}[better]
    return {
        "id": kind, "name": name, "value": value, "better": better, "floor": floor, "ci95": ci95, "outside": worse,
        "n": n, "what": what,
    }  # fmt: skip


def _in_words(space: str) -> str:
    return SPACE_WORDS.get(space, space)


def _distance_id(space: str) -> str:
    return "distance_" + space.lower().replace(" ", "_")


def _distance_axis(space: str, energy: EnergyDistance) -> Axis:
    return _axis(
        _distance_id(space), f"distance in {_in_words(space)}", energy.value, energy.floor, energy.ci95, "lower",
        f"{energy.n:,} images a side",
        "Energy distance of the features. Floor: disjoint halves of the real patients, as many images a side.",
    )  # fmt: skip


def _variety_axis(space: str, energy: EnergyDistance) -> Axis:
    reach = Z * energy.variety_error
    ci95 = [max(0.0, energy.variety - reach), energy.variety + reach]
    return _axis(
        "variety", "variety", energy.variety, 1.0, ci95, "near the floor", f"all pairs, {space} features",
        "Mean difference between two synthetic images over that between X-rays of two patients. Below 1: too alike.",
    )  # fmt: skip


WORDS: dict[str, tuple[str, Better, str]] = {
    "frechet": ("Fréchet distance", "lower", "What pytorch-fid and its kin print, in these features. It falls as the "
                "number of images grows: read it beside the floor only."),
    "kid": ("kernel distance (KID)", "lower", "0 on average for two sets of one kind. It hardly sees lost variety."),
    "precision": ("precision", "higher", "Share of the synthetic images that lie among the real ones."),
    "recall": ("recall", "higher", "Share of the real images that lie among the synthetic ones."),
    "density": ("density", "higher", "Real neighbourhoods that a synthetic image lies in, over k."),
    "coverage": ("coverage", "higher", "Share of the real images with a synthetic one in their neighbourhood."),
}  # fmt: skip


def _draw_axes(space: str, real: np.ndarray, patients: Groups, made: np.ndarray, seed: int) -> list[Axis]:
    """Fréchet and kernel distance and the four scores by neighbours: means over draws, errors by half-samples."""
    n = min(len(made), len(real) // 2)
    values = _over_draws(equal_draws(real, patients, made, None, max_images=n, seed=seed, draws=VALUE_DRAWS))
    half = min(len(made), len(real)) // 2
    halves = equal_draws(real, patients, made, None, max_images=half, seed=seed + VALUE_DRAWS, draws=ERROR_DRAWS)
    spread = _over_draws(halves)
    # Delete-d jackknife (Shao and Wu 1989) of two sides that are taken to vary alike.
    kept, whole = 1.0 / halves.n, 1.0 / len(real) + 1.0 / len(made)
    scale = math.sqrt(whole / (2.0 * kept - whole))
    axes = []
    for kind, (name, better, what) in WORDS.items():
        if kind not in values or kind not in spread:
            continue
        if kind == "frechet" and space == BACKBONES[LITE0].title:
            name += f" in {space} features, not comparable with published FID"
        (value, _), (floor, _) = values[kind]
        reach = Z * scale * spread[kind][0][1]
        low, high = value - reach, value + reach
        if kind != "kid":
            low = max(0.0, low)
        if kind in ("precision", "recall", "coverage"):
            high = min(1.0, high)
        n_images = f"{n:,} images a side, {space} features"
        axes.append(_axis(kind, name, value, floor, [low, high] if reach else None, better, n_images, what))
    return axes


def _over_draws(sets: EqualDraws) -> dict[str, list[tuple[float, float]]]:
    """Return (mean, SD) of each number: of the synthetic images, and of the floor."""
    found: dict[str, list[tuple[float, float]]] = {}
    distances = mean_distances(sets.n, distances_of_draws(sets)).get("comparisons", {})
    scores = scores_over_draws(sets).get("comparisons", {})
    for compared in ("synthetic_vs_training", "floor"):
        if compared in distances:
            part = distances[compared]
            found.setdefault("frechet", []).append((part["fid"], part["fid_sd"] or 0.0))
            found.setdefault("kid", []).append((part["kid"], part["kid_sd"] or 0.0))
        for kind in SCORES if compared in scores else ():
            row = cast(dict[str, Any], scores[compared])
            found.setdefault(kind, []).append((row[kind], row[f"{kind}_sd"] or 0.0))
    return found


def _probe_axis(
    features: dict[str, tuple[np.ndarray, np.ndarray]], patients: Groups, groups: Groups, seed: int
) -> list[Axis]:
    """AUROC of a linear probe, real or synthetic; none with too few groups."""
    real, made = (np.concatenate([pair[side] for pair in features.values()], axis=1) for side in (0, 1))
    first, second = halve_by_group(patients, seed)
    patients = np.asarray(patients, dtype=str)
    n = min(len(first), len(second), len(made), MOST_PROBED)
    probe = separability(real[first], patients[first], made, groups, n=n, seed=seed)
    floor = separability(real[first], patients[first], real[second], patients[second], n=n, seed=seed)
    value, sd, among_real = probe["probe_auroc"], probe["probe_auroc_sd"], floor["probe_auroc"]
    if value is None or sd is None or among_real is None:
        return []
    # The interval over the folds, corrected for what their training sets share (Nadeau and Bengio 2003).
    error = sd * math.sqrt(1 / PROBE_FOLDS + 1 / (PROBE_FOLDS - 1))
    reach = float(t.ppf(0.5 + CONFIDENCE / 2, PROBE_FOLDS - 1)) * error
    ci95 = [max(0.0, value - reach), min(1.0, value + reach)]
    what = "AUROC of a linear probe that tells synthetic from real. 0.5: it cannot; 1: it always can."
    n_images = f"{n:,} images a side, all features"
    return [_axis("separability", "separability", value, among_real, ci95, "lower", n_images, what)]


def _grain_axis(real: Side, synthetic: Side) -> Axis:
    values = [np.array([grain(image[None]) for image in side.pixels]) for side in (real, synthetic)]
    # The interval is that of the difference, drawn around the value.
    error = math.hypot(*(_clustered_error(v, side.groups) for v, side in zip(values, (real, synthetic), strict=True)))
    floor, value = (float(part.mean()) for part in values)
    reach = Z * error
    n = f"{len(values[1]):,} synthetic, {len(values[0]):,} real images"
    what = "Mean Laplacian in gray levels: blurred images have less, grainy ones more. Floor: the real images."
    return _axis("grain", "grain", value, floor, [max(0.0, value - reach), value + reach], "near the floor", n, what)


def _clustered_error(values: np.ndarray, groups: Groups) -> float:
    """Standard error of the mean of ``values`` [N] with groups as units."""
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.bincount(member, values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


# --- copies ----------------------------------------------------------------------------------------
def search_copies(real: Side, synthetic: Side, seed: int) -> tuple[CopySearch, np.ndarray]:
    """Search for synthetic images that show the picture of a real one; returns (what was found, pairs listed)."""
    threshold = choose_threshold(real.pixels, real.groups, len(synthetic.names), seed)
    small_real, small_made = at_search_size(real.pixels), at_search_size(synthetic.pixels)
    found = find_copies(small_made, small_real, "searching for copies")
    scores: dict[tuple[int, int], float] = {}
    for (row, other), score in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
        scores[row, other] = max(score, scores.get((row, other), -1.0))
    copies = {row for (row, _), score in scores.items() if score >= threshold.score}
    twins = find_copies(small_real, desc="real images that look alike")
    groups = np.asarray(real.groups, dtype=str)
    apart = groups[twins.rows[:, 0]] != groups[twins.rows[:, 1]]
    twin_rows = np.unique(twins.rows[apart & (twins.scores >= threshold.score)])
    pairs = _closest(small_made, small_real, scores)
    closest: list[CopyPair] = []
    for row, other in pairs.tolist():
        score = scores.get((row, other))
        distance = float(detail_distances(small_made[row : row + 1], small_real[other : other + 1])[0, 0])
        closest.append({
            "synthetic": synthetic.names[row], "real": real.names[other], "distance": distance, "score": score,
            "copy": score is not None and score >= threshold.score,
        })  # fmt: skip
    return {
        "threshold": threshold.score, "found_of_planted": threshold.found, "reliable": threshold.reliable,
        "copies": len(copies), "real_twins": len(twin_rows), "closest": closest,
    }, pairs  # fmt: skip


def _closest(made: np.ndarray, real: np.ndarray, scores: dict[tuple[int, int], float]) -> np.ndarray:
    """Return at most ``LISTED`` pairs: those of the highest scores, then those of the smallest detail distance."""
    best = sorted(scores, key=lambda pair: -scores[pair])
    nearest, distances = [], []
    for start in range(0, len(made), BLOCK):
        part = detail_distances(made[start : start + BLOCK], real)
        nearest.append(part.argmin(axis=1))
        distances.append(part.min(axis=1))
    order = np.argsort(np.concatenate(distances), kind="stable")
    others = np.concatenate(nearest)
    pairs: dict[int, int] = {}
    for row, other in [*best, *((int(row), int(others[row])) for row in order[:LISTED])]:
        pairs.setdefault(row, other)
    return np.array(list(pairs.items())[:LISTED], dtype=int).reshape(-1, 2)


def _copies_axis(copies: CopySearch, n_synthetic: int, n_real: int) -> Axis:
    return _axis(
        "copies", "near-copies", copies["copies"] / n_synthetic, copies["real_twins"] / n_real,
        wilson_interval(copies["copies"], n_synthetic), "lower", f"{n_synthetic:,} synthetic, {n_real:,} real images",
        "Share of the synthetic images that show the picture of a real one. Floor: real images that show that of "
        "another patient's.",
    )  # fmt: skip
