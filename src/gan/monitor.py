"""Metrics of a GAN while it learns: how like real images, how varied, and how original its images are.

Whether an epoch is evaluated depends on its number, the options and nominal speeds, never on the clock: a run
that was interrupted and resumed has the same history as one that was not. Nothing here changes the training:
noise is a stream of its own, networks are in eval mode and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor, nn

from common.distributed import single_process
from data_loader import to_gan_range
from gan.options import METRICS_IMAGES
from gan.timetable import COPY_IMAGES, Costs, Timetable
from gan.training import image_noise
from image_metrics.copies import DETAIL_SIDE, detail_distances
from image_metrics.equal_draws import halve_by_group
from image_metrics.feature_spaces import Space, build_spaces, hog_space
from image_metrics.frechet import frechet_distance_of_features
from image_metrics.kernel_distance import kernel_distance
from image_metrics.neighbourhoods import NEIGHBOURS, neighbourhood_scores
from image_metrics.pixel_features import grain, small_images
from utils import UserError, derive_seed, sha256_file

if TYPE_CHECKING:
    from gan.run import Run, TrainingSet

SHARE = 0.04  # of the time, at most, for metrics; grids and figures take some of the 5 % promised
FEWEST = 2  # real images on either side of a comparison


@dataclass(frozen=True)
class MonitorOptions:
    """What the command line says about watching. ``interval``: epochs, None: as often as the time allows, 0:
    never; ``images``: generated for an evaluation; ``features``: a classifier's file; ``holdout``: share of
    the images that is not trained on."""

    interval: int | None = None
    images: int = METRICS_IMAGES
    features: str | None = None
    holdout: float = 0.0
    cache_dir: str | Path | None = None
    stop_on_collapse: bool = False
    tensorboard: bool = False

    def settings(self) -> dict[str, Any]:
        """What may not change between a state and its continuation, by flag."""
        return {
            "--metrics-interval": self.interval,
            "--metrics-images": self.images,
            "--metrics-features": None if self.features is None else sha256_file(self.features)[:12],
            "--metrics-holdout": self.holdout,
        }


# --- the reals -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reals:
    """Two halves of real images that share no patient, ``rows`` of each, and their distances."""

    features: tuple[np.ndarray, np.ndarray]
    floor: dict[str, float | None]
    spread: float
    holdout: np.ndarray | None


def compare(a: np.ndarray, real: np.ndarray) -> dict[str, float | None]:
    """KID, Fréchet distance, precision and recall of features [n, D] beside those of as many real images.

    Precision and recall are None with too few images for ``NEIGHBOURS``.
    """
    enough = min(len(a), len(real)) > NEIGHBOURS
    scores = neighbourhood_scores(a, real) if enough else {}
    return {
        "kid": kernel_distance(a, real),
        "fd": frechet_distance_of_features(a, real),
        "precision": scores.get("precision"),
        "recall": scores.get("recall"),
    }


def mean_of(results: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Of each key over ``results``; None where one has none."""
    return {
        key: None if any(result[key] is None for result in results)
        else float(np.mean([result[key] for result in results]))
        for key in results[0]
    }  # fmt: skip


def mean_distance(features: np.ndarray) -> float:
    """Mean Euclidean distance of two different rows."""
    wide = features.astype(np.float64)
    return float(euclidean_distances(wide).sum() / (len(wide) * (len(wide) - 1)))


# --- the monitor -----------------------------------------------------------------------------------
class Monitor:
    """Evaluates a generator in several spaces, each at its own interval; the first chooses the best one.

    Fréchet distances and KID depend on the number of images, so that ``n`` generated ones, always of the same
    noise, are compared with each half of the reals at one n, and so are the halves with one another (the
    floor). With classes, the generated images are of those of the first half.
    """

    def __init__(
        self, data: TrainingSet, spaces: Sequence[Space], tables: dict[str, Timetable], n_images: int,
        input_dim: int, seed: int,
    ) -> None:  # fmt: skip
        self.data, self.tables = data, tables
        self.spaces = {space.name: space for space in spaces}
        self.primary = spaces[0].name
        halves = halve_by_group(data.patients, derive_seed(seed, "metrics halves") % 2**32)
        self.n = min(n_images, *map(len, halves))
        self.rows = [half[: self.n] for half in halves]
        self.noise = image_noise(seed, "metrics", 1, self.n, input_dim) if self.n else None
        self._reals: dict[str, Reals] = {}
        self.floors: dict[str, dict[str, float | None]] = {}  # by space, those of an earlier part included
        self._thumbnails: np.ndarray | None = None
        self._usual: float | None = None
        self._grain: float | None = None

    @classmethod
    def of_run(cls, run: Run) -> Monitor:
        """As the options of ``run`` say, or as an earlier part of it did."""
        options, gan, data = run.monitoring, run.gan, run.data
        device = data.pixels.device
        spaces = [hog_space(data.pixels.shape[1])]
        if options.interval != 0:
            spaces = build_spaces(options.features, options.cache_dir, data.pixels.shape[1], device)
        if run.watched is not None:
            tables = {name: Timetable(**table) for name, table in run.watched.items()}
            gone = set(tables) - {space.name for space in spaces}
            if gone:
                raise UserError(
                    f"--resume: {', '.join(sorted(gone))} features, by which this run was evaluated, "
                    "cannot be had any more: their weights are not in torch's cache"
                )
            spaces = [space for space in spaces if space.name in tables]
        else:
            costs = Costs.of(gan, run.schedule.batch_size, device, run.precision)
            n, per_epoch = len(data.pixels), run.steps_per_epoch
            tables = costs.timetables(spaces, options.interval, options.images, n, per_epoch, SHARE)
        monitor = cls(data, spaces, tables, options.images, gan.G.input_dim, run.seed)
        monitor.floors |= run.floors
        return monitor

    def tables_as_dict(self) -> dict[str, Any]:
        return {name: asdict(table) for name, table in self.tables.items()}

    def describe(self) -> dict[str, Any]:
        """For the history: what is measured, when, and what real images score."""
        return {
            "images": self.n,
            "chosen_by": self.primary,
            "neighbours": NEIGHBOURS,
            "spaces": {name: space.facts for name, space in self.spaces.items()},
            "every_epochs": {name: table.interval for name, table in self.tables.items()},
            "floors": self.floors,
        }

    def notices(self, epochs: int) -> list[str]:
        """What is evaluated how often, a line for each space, where there is anything to say."""
        if not any(table.interval for table in self.tables.values()):
            return []
        if self.n < FEWEST:
            return ["no metrics: there are too few images to compare with"]
        lines = []
        for name, table in self.tables.items():
            first = max(table.first, table.interval)
            when = f"every {table.interval:,} epochs" if table.interval > 1 else "every epoch"
            if first > epochs:
                once = table.due_at_end(epochs, SHARE / len(self.tables))
                when = "once, at the end" if once else f"from epoch {first:,} on, not in so short a run"
            lines.append(f"metrics in {name} features of {self.n:,} images: {when}")
        return lines

    # --- when
    def due(self, epoch: int, last: bool = False) -> list[str]:
        """Names of the spaces in which ``epoch`` is evaluated; ``last``: those that the end adds."""
        if self.n < FEWEST:
            return []
        if last:
            share = SHARE / len(self.tables)
            return [name for name, table in self.tables.items() if table.due_at_end(epoch, share)]
        return [name for name, table in self.tables.items() if table.due(epoch)]

    # --- what
    def evaluate(
        self, names: Sequence[str], sample: Callable[[Tensor, Tensor | None], np.ndarray], D: nn.Module | None
    ) -> dict[str, Any]:
        """{"n", "spaces": {name: metrics}, "copying": {...}, "grain": as a share of the reals',
        "discriminator": {...}} of the generator that makes images uint8 [n, S, S] of (noise, classes); see
        ``in_space``, ``copying``, ``gan_spaces.grain`` and ``discriminator``."""
        images = sample(self.noise, self._labels(self.rows[0]))
        result: dict[str, Any] = {
            "n": self.n,
            "spaces": {name: self.in_space(name, images) for name in names},
            "copying": self.copying(images[:COPY_IMAGES]),
            "grain": grain(images) / max(self._usual_grain(), 1e-6),
        }
        if D is not None:
            result["discriminator"] = self.discriminator(D, images)
        return result

    def _labels(self, rows: np.ndarray) -> Tensor | None:
        labels = self.data.labels
        return None if labels is None else labels[torch.from_numpy(rows).to(labels.device)]

    def in_space(self, name: str, images: np.ndarray) -> dict[str, Any]:
        """KID, Fréchet distance (and as a multiple of the floor), precision, recall, and diversity: the mean
        distance of two generated images as a share of that of two reals; "holdout": of images never seen."""
        real, made = self.reals(name), np.asarray(self.spaces[name].features(images))
        result: dict[str, Any] = mean_of([compare(made, half) for half in real.features])
        result["fd_relative"] = result["fd"] / max(real.floor["fd"], 1e-12)
        result["diversity"] = mean_distance(made) / max(real.spread, 1e-12)
        if real.holdout is not None:
            result["holdout"] = compare(made[: len(real.holdout)], real.holdout)
        return result

    def reals(self, name: str) -> Reals:
        """The real images' features, computed once."""
        if name not in self._reals:
            space, data = self.spaces[name], self.data
            first, second = (self._features(space, rows) for rows in self.rows)
            floor = mean_of([compare(first, second), compare(second, first)])
            spread = mean_distance(np.concatenate([first, second]))
            holdout = None
            if data.holdout is not None and len(data.holdout) >= FEWEST:
                holdout = np.asarray(space.features(data.holdout[: self.n]))
            self._reals[name] = Reals((first, second), floor, spread, holdout)
            self.floors[name] = floor
        return self._reals[name]

    def _features(self, space: Space, rows: np.ndarray) -> np.ndarray:
        if self.data.images is not None:
            with single_process():  # the other processes go on to wait for this one
                return np.asarray(space.of_rows(self.data.images, rows))
        pixels = self.data.pixels[torch.from_numpy(rows).to(self.data.pixels.device)]
        return np.asarray(space.features(pixels.cpu().numpy()))

    def copying(self, images: np.ndarray) -> dict[str, float]:
        """How near the details (see ``memorisation.detail_distances``) of generated images come to a training
        image: medians of the nearest distances of generated images and of training images to those of other
        patients, and their ratio; below 1/2 the generator seems to copy."""
        if self._thumbnails is None:
            self._thumbnails = small_images(self.data.pixels, DETAIL_SIDE)
            self._usual = self._usual_distance()
        made = small_images(torch.from_numpy(np.ascontiguousarray(images)), DETAIL_SIDE)
        nearest = float(np.median(detail_distances(made, self._thumbnails).min(axis=1)))
        return {"nearest": nearest, "usual": self._usual, "ratio": nearest / max(self._usual, 1e-6)}

    def _usual_grain(self) -> float:
        """Of the training images that generated ones are compared with."""
        if self._grain is None:
            rows = torch.from_numpy(self.rows[0]).to(self.data.pixels.device)
            self._grain = grain(self.data.pixels[rows].cpu().numpy())
        return self._grain

    def _usual_distance(self) -> float:
        """Median distance of training images to the nearest of another patient."""
        rows = np.concatenate(self.rows)[:COPY_IMAGES]
        distances = detail_distances(self._thumbnails[rows], self._thumbnails)
        patients = np.asarray(self.data.patients)
        distances[patients[rows][:, None] == patients[None, :]] = np.inf
        return float(np.median(distances.min(axis=1)))

    @torch.no_grad()
    def discriminator(self, D: nn.Module, images: np.ndarray) -> dict[str, float]:
        """Mean logits of D, in eval mode, for training images, held-out ones if there are, and generated
        ones, the mean sign for training images (1: D is sure of each of them), and with held-out images the
        standard error of the difference from training images."""
        device, training = self.data.pixels.device, D.training
        rows = torch.from_numpy(np.concatenate(self.rows)[: self.n]).to(device)
        parts = {"training": self.data.pixels[rows], "generated": torch.from_numpy(images).to(device)}
        holdout = self.data.holdout
        if holdout is not None and len(holdout) >= FEWEST:
            parts["holdout"] = torch.from_numpy(np.ascontiguousarray(holdout[: self.n])).to(device)
        labels = {"training": self._labels(rows.cpu().numpy()), "generated": self._labels(self.rows[0])}
        if self.data.holdout_labels is not None:
            labels["holdout"] = self.data.holdout_labels[: self.n]
        try:
            D.eval()
            logits = {name: _logits(D, pixels, labels.get(name)) for name, pixels in parts.items()}
        finally:
            D.train(training)
        means = {name: float(values.mean()) for name, values in logits.items()}
        means["training_sign"] = float(logits["training"].sign().mean())
        if "holdout" in logits:
            squares = [logits[name].var() / len(logits[name]) for name in ("training", "holdout")]
            means["holdout_error"] = float(sum(squares) ** 0.5)
        return means


def _logits(D: nn.Module, pixels: Tensor, labels: Tensor | None) -> Tensor:
    """Of uint8 [N, S, S], with their classes if there are any: float32 [N]."""
    parts = []
    for start in range(0, len(pixels), 32):
        images = to_gan_range(pixels[start : start + 32], D.num_channels)
        label = [] if labels is None else [labels[start : start + 32]]
        parts.append(D(images, *label).float())
    return torch.cat(parts)


def better(metrics: dict[str, Any], primary: str, best: dict[str, Any] | None) -> bool:
    """Is this evaluation the best so far, by KID in the ``primary`` space?"""
    found = metrics["spaces"].get(primary)
    return found is not None and (best is None or found["kid"] < best["kid"])


def set_aside(patients: Sequence[str], fraction: float, seed: int) -> np.ndarray:
    """bool [N]: the images of random patients that are at most ``fraction`` of all, as nearly as whole
    patients allow; a pure function of the arguments."""
    patients = np.asarray(patients, dtype=str)
    names, sizes = np.unique(patients, return_counts=True)
    order = np.random.default_rng(derive_seed(seed, "metrics holdout")).permutation(len(names))
    reached = np.cumsum(sizes[order])
    taken = order[reached <= fraction * len(patients)]
    return np.isin(patients, names[taken])
