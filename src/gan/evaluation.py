"""Evaluation of a GAN while it learns: how like real images, how varied, and how original its images are.

Whether an epoch is evaluated depends on its number, the options and nominal speeds, never on the clock: a run
that was interrupted and resumed has the same history as one that was not. Nothing here changes the training:
noise is a stream of its own, networks are in eval mode and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor

from common.distributed import single_process
from data_loader import to_gan_range
from dataset.near_copies import DETAIL_SIDE, detail_distances
from gan.file_formats import (
    BestInState,
    CopyScores,
    DiscriminatorScores,
    Evaluation,
    MetricsFacts,
    SetScores,
    SpaceMetrics,
    TimetableRecord,
)
from gan.networks import GAN, Discriminator, in_eval_mode
from gan.settings import Plan
from gan.step import image_noise
from gan.timetable import COPY_IMAGES, Costs, Timetable
from gan.training_set import TrainingSet
from gan.warnings import HOG
from image_metrics.distances import frechet_distance_of_features, halve_by_group, kernel_distance
from image_metrics.feature_spaces import Space, build_spaces, grain, hog_space, small_images
from image_metrics.fidelity import NEIGHBOURS, neighbourhood_scores
from utils import UserError, derive_seed

SHARE = 0.04  # of the time, at most, for metrics; grids and figures take some of the 5 % promised
FEWEST = 2  # real images on either side of a comparison


# --- the reals -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reals:
    """Features of two halves of the real images, which share no patient, and how these halves compare.

    ``floor``: one half against the other. ``spread``: mean distance of two. ``holdout``: features, or None.
    """

    features: tuple[np.ndarray, np.ndarray]
    floor: SetScores
    spread: float
    holdout: np.ndarray | None


def compare_sets(a: np.ndarray, real: np.ndarray) -> SetScores:
    """Score features [n, D] beside those of as many real images.

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


def average_scores(one: SetScores, other: SetScores) -> SetScores:
    """Average two comparisons; None where one has none."""

    def mean(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else float(np.mean([a, b]))

    return {
        "kid": float(np.mean([one["kid"], other["kid"]])),
        "fd": float(np.mean([one["fd"], other["fd"]])),
        "precision": mean(one["precision"], other["precision"]),
        "recall": mean(one["recall"], other["recall"]),
    }


def mean_distance(features: np.ndarray) -> float:
    """Return the mean Euclidean distance of two different rows."""
    wide = features.astype(np.float64)
    return float(euclidean_distances(wide).sum() / (len(wide) * (len(wide) - 1)))


# --- the monitor -----------------------------------------------------------------------------------
class Monitor:
    """Evaluates a generator in several spaces, each at its own interval; the first chooses the best one.

    Fréchet distances and KID depend on the number of images. So ``n`` generated images, always from the same
    noise, are compared with ``n`` of each half of the reals, and the halves with one another (the floor).
    With classes, the generated images have the classes of the first half. ``floors``: the floors of the
    spaces that an earlier part of the run has evaluated.
    """

    def __init__(
        self, data: TrainingSet, spaces: Sequence[Space], tables: Mapping[str, Timetable], n_images: int,
        input_dim: int, seed: int, floors: Mapping[str, SetScores] | None = None,
    ) -> None:  # fmt: skip
        self.data, self.tables = data, dict(tables)
        self.spaces = {space.name: space for space in spaces}
        self.primary = spaces[0].name
        self.patients = data.patients or [str(row) for row in range(len(data.pixels))]
        halves = halve_by_group(self.patients, derive_seed(seed, "metrics halves") % 2**32)
        self.n = min(n_images, *map(len, halves))
        self.rows = [half[: self.n] for half in halves]
        self.noise = image_noise(seed, "metrics", 1, self.n, input_dim) if self.n else torch.empty(0)
        self.floors: dict[str, SetScores] = dict(floors or {})
        self._reals: dict[str, Reals] = {}

    def records(self) -> dict[str, TimetableRecord]:
        """Return the timetables as plain types, for the state."""
        return {name: cast(TimetableRecord, asdict(table)) for name, table in self.tables.items()}

    def facts(self) -> MetricsFacts:
        """Say what is measured, when, and what real images score, for the history."""
        return {
            "images": self.n,
            "chosen_by": self.primary,
            "neighbours": NEIGHBOURS,
            "spaces": {name: space.facts for name, space in self.spaces.items()},
            "every_epochs": {name: table.interval for name, table in self.tables.items()},
            "floors": self.floors,
        }

    def notices(self, epochs: int) -> list[str]:
        """Say how often each space is evaluated, a line each, where there is anything to say."""
        if not any(table.interval for table in self.tables.values()):
            return []
        if self.n < FEWEST:
            return ["no metrics: there are too few images to compare with"]
        lines = []
        for name, table in self.tables.items():
            first = max(table.first, table.interval)
            when = f"every {table.interval:,} epochs" if table.interval > 1 else "every epoch"
            if first > epochs:
                once = self._due_at_end(name, table, epochs)
                when = "once, at the end" if once else f"from epoch {first:,} on, not in so short a run"
            lines.append(f"metrics in {name} features of {self.n:,} images: {when}")
        return lines

    # --- when
    def due(self, epoch: int, last: bool = False) -> list[str]:
        """Return the spaces in which ``epoch`` is evaluated; ``last``: those that the end of a run adds."""
        if self.n < FEWEST:
            return []
        if last:
            return [name for name, table in self.tables.items() if self._due_at_end(name, table, epoch)]
        return [name for name, table in self.tables.items() if table.due(epoch)]

    def _due_at_end(self, name: str, table: Timetable, epoch: int) -> bool:
        """Return whether a run that ends with ``epoch`` adds an evaluation.

        In HOG always, as nothing else tells whether the training was long enough (``warnings.too_short``).
        """
        judged = name == HOG and table.interval > 0 and not table.due(epoch)
        return judged or table.due_at_end(epoch, SHARE / len(self.tables))

    # --- what
    def evaluate(
        self,
        names: Sequence[str],
        sample: Callable[[Tensor, Tensor | None], np.ndarray],
        D: Discriminator | None,
    ) -> Evaluation:
        """Evaluate a generator in spaces ``names``; ``sample``: (noise, classes) -> uint8 [n, S, S]."""
        images = sample(self.noise, self._labels(self.rows[0]))
        result: Evaluation = {
            "n": self.n,
            "spaces": {name: self.in_space(name, images) for name in names},
            "copying": self.copying(images[:COPY_IMAGES]),
            "grain": grain(images) / max(self._real_grain, 1e-6),
        }
        if D is not None:
            result["discriminator"] = self.discriminator(D, images)
        return result

    def in_space(self, name: str, images: np.ndarray) -> SpaceMetrics:
        """Compare generated images uint8 [n, S, S] with both halves of the reals in the space ``name``."""
        real, made = self.reals(name), np.asarray(self.spaces[name].features(images))
        scores = average_scores(*(compare_sets(made, half) for half in real.features))
        result: SpaceMetrics = {
            **scores,
            "fd_relative": scores["fd"] / max(real.floor["fd"], 1e-12),
            "diversity": mean_distance(made) / max(real.spread, 1e-12),
        }
        if real.holdout is not None:
            result["holdout"] = compare_sets(made[: len(real.holdout)], real.holdout)
        return result

    def reals(self, name: str) -> Reals:
        """Return the real images' features and how they compare, computed once."""
        if name not in self._reals:
            space, holdout = self.spaces[name], None
            first, second = (self._features(space, rows) for rows in self.rows)
            floor = average_scores(compare_sets(first, second), compare_sets(second, first))
            spread = mean_distance(np.concatenate([first, second]))
            if (held := self._holdout()) is not None:
                holdout = np.asarray(space.features(held))
            self._reals[name] = Reals((first, second), floor, spread, holdout)
            self.floors[name] = floor
        return self._reals[name]

    def copying(self, images: np.ndarray) -> CopyScores:
        """Say how near the details of generated images come to a training image (``detail_distances``)."""
        made = small_images(torch.from_numpy(np.ascontiguousarray(images)), DETAIL_SIDE)
        nearest = float(np.median(detail_distances(made, self._thumbnails).min(axis=1)))
        return {"nearest": nearest, "usual": self._usual_distance, "ratio": nearest / max(self._usual_distance, 1e-6)}

    @cached_property
    def _thumbnails(self) -> np.ndarray:
        """All training images, as small as ``detail_distances`` sees them."""
        return small_images(self.data.pixels, DETAIL_SIDE)

    @cached_property
    def _usual_distance(self) -> float:
        """The median distance of training images to the nearest of another patient."""
        rows = np.concatenate(self.rows)[:COPY_IMAGES]
        distances = detail_distances(self._thumbnails[rows], self._thumbnails)
        patients = np.asarray(self.patients)
        distances[patients[rows][:, None] == patients[None, :]] = np.inf
        return float(np.median(distances.min(axis=1)))

    @cached_property
    def _real_grain(self) -> float:
        return grain(self._pixels(self.rows[0]))

    def discriminator(self, D: Discriminator, images: np.ndarray) -> DiscriminatorScores:
        """Return D's mean outputs, in eval mode, for training, held-out and generated images.

        With held-out images also the standard error of their difference from training images.
        """
        rows, held = np.concatenate(self.rows)[: self.n], self._holdout()
        with in_eval_mode(D):
            training = self._logits(D, self._pixels(rows), self._labels(rows))
            generated = self._logits(D, images, self._labels(self.rows[0]))
            scores: DiscriminatorScores = {
                "training": float(training.mean()),
                "generated": float(generated.mean()),
                "training_sign": float(training.sign().mean()),
            }
            if held is not None:
                classes = self.data.holdout_labels
                unseen = self._logits(D, held, None if classes is None else classes[: self.n])
                errors = [logits.var() / len(logits) for logits in (training, unseen)]
                scores["holdout"] = float(unseen.mean())
                scores["holdout_error"] = float((errors[0] + errors[1]) ** 0.5)
        return scores

    # --- parts of the images
    def _pixels(self, rows: np.ndarray) -> np.ndarray:
        return self.data.pixels[torch.from_numpy(rows).to(self.data.pixels.device)].cpu().numpy()

    def _labels(self, rows: np.ndarray) -> Tensor | None:
        labels = self.data.labels
        return None if labels is None else labels[torch.from_numpy(rows).to(labels.device)]

    def _holdout(self) -> np.ndarray | None:
        """Return the held-out images that are compared; None if they are too few."""
        held = self.data.holdout
        return None if held is None or len(held) < FEWEST else held[: self.n]

    def _features(self, space: Space, rows: np.ndarray) -> np.ndarray:
        if self.data.images is not None:
            with single_process():  # the other processes go on to wait for this one
                return np.asarray(space.of_rows(self.data.images, rows))
        return np.asarray(space.features(self._pixels(rows)))

    def _logits(self, D: Discriminator, pixels: np.ndarray, labels: Tensor | None) -> Tensor:
        """Return D's logits float32 [N] for uint8 [N, S, S], with their classes if there are any."""
        device, parts = self.data.pixels.device, []
        for start in range(0, len(pixels), 32):
            some = torch.from_numpy(np.ascontiguousarray(pixels[start : start + 32])).to(device)
            label = [] if labels is None else [labels[start : start + 32]]
            parts.append(D(to_gan_range(some, D.num_channels), *label).float())
        return torch.cat(parts)


def build_monitor(
    plan: Plan, gan: GAN, data: TrainingSet, watched: Mapping[str, TimetableRecord] | None,
    floors: Mapping[str, SetScores],
) -> Monitor:  # fmt: skip
    """Build the monitor that ``plan`` asks for, or with ``watched`` the one of an earlier part of the run.

    Raises ``UserError`` if features that the earlier part used are no longer available.
    """
    watching, device, side = plan.watching, data.pixels.device, data.pixels.shape[1]
    spaces = [hog_space(side)]
    if watching.metrics_interval != 0:
        spaces = build_spaces(watching.metrics_features, watching.cache, side, device)
    if watched is not None:
        tables = {name: Timetable(**record) for name, record in watched.items()}
        if gone := set(tables) - {space.name for space in spaces}:
            raise UserError(
                f"--resume: {', '.join(sorted(gone))} features, by which this run was evaluated, "
                "are no longer available: their weights are not in torch's cache; put them back, or start "
                "anew without --resume"
            )
        spaces = [space for space in spaces if space.name in tables]
    else:
        costs = Costs.of(gan, plan.schedule.batch_size, device, plan.precision)
        n, steps = len(data.pixels), len(data.pixels) // plan.schedule.batch_size
        wanted, n_images = watching.metrics_interval, watching.metrics_images
        tables = costs.timetables(spaces, wanted, n_images, n, steps, SHARE)
    return Monitor(data, spaces, tables, watching.metrics_images, gan.G.input_dim, plan.seed, floors)


def is_better(metrics: Evaluation, primary: str, best: BestInState | None) -> bool:
    """Return whether this evaluation is the best so far, by KID in the ``primary`` space."""
    found = metrics["spaces"].get(primary)
    return found is not None and (best is None or found["kid"] < best["kid"])
