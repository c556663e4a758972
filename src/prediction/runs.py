"""Predicting a list of files: in batches, so that memory does not grow with the list, and what came out of it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.progress import progress_bar
from prediction.ensembles import Ensemble
from prediction.odd_input import ReadImage, add_outliers, read_images
from prediction.output_table import OutputTable, Row
from prediction.pictures import save_heat_maps

BATCH = 64  # images that are decoded, predicted and written together
LISTED = 50  # unreadable files that are kept for messages and pages


@dataclass
class Summary:
    """What came out: counts, the ``n_shown`` most suspicious rows, and the first unreadable ones.

    Most suspicious is the highest probability.
    """

    n_shown: int
    n_images: int = 0
    n_predicted: int = 0
    n_odd: int = 0
    positive: dict[str, int] = field(default_factory=lambda: {"at_050": 0, "at_youden": 0, "at_sensitivity_90": 0})
    unreadable: list[Row] = field(default_factory=list)
    _highest: list[tuple[float, int, Row]] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.n_images += 1
        if row.decision is None:
            self.unreadable += [row] if len(self.unreadable) < LISTED else []
            return
        self.n_predicted += 1
        self.n_odd += bool(row.warnings)
        for name in self.positive:
            self.positive[name] += bool(getattr(row.decision, name))
        item = (row.decision.probability, -self.n_images, row)  # the earlier of equal ones first
        if len(self._highest) < self.n_shown:
            heapq.heappush(self._highest, item)
        elif self._highest:
            heapq.heappushpop(self._highest, item)

    def most_suspicious(self) -> list[Row]:
        """Return the rows of the highest probabilities, the highest first."""
        return [row for *_, row in sorted(self._highest, reverse=True)]


def predict_files(table: OutputTable, ensemble: Ensemble, workers: int, heat_map_dir: Path | None) -> None:
    """Predict the files of ``table`` that are not done yet; the next batch is decoded meanwhile."""
    done = table.take_up()
    with (
        ThreadPoolExecutor(max(1, workers)) as decoders,
        ThreadPoolExecutor(1) as ahead,
        progress_bar(total=len(table.files), initial=done, desc="predicting", unit="img") as bar,
    ):
        for files, images in _read_ahead(table.files[done:], ensemble, decoders, ahead):
            rows = _predict_batch(files, images, ensemble, heat_map_dir)
            table.append(rows)
            bar.update(len(rows))


def _read_ahead(
    files: Sequence[Path], ensemble: Ensemble, decoders: ThreadPoolExecutor, ahead: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Path], list[ReadImage]]]:
    """Yield batches of files with what was read of them; one batch at most waits."""
    waiting: tuple[Sequence[Path], Future[list[ReadImage]]] | None = None
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        reading = ahead.submit(read_images, batch, ensemble.inputs, decoders, ensemble.largest_aspect)
        if waiting is not None:
            yield waiting[0], waiting[1].result()
        waiting = batch, reading
    if waiting is not None:
        yield waiting[0], waiting[1].result()


def _predict_batch(
    files: Sequence[Path], images: Sequence[ReadImage], ensemble: Ensemble, heat_map_dir: Path | None
) -> list[Row]:
    images = add_outliers(images, ensemble.space)
    good = [(file, image.pixels) for file, image in zip(files, images, strict=True) if image.pixels is not None]
    if not good:
        return [Row(file, None, image.warnings, image.error) for file, image in zip(files, images, strict=True)]
    pixels = np.stack([own for _, own in good])
    decisions = iter(ensemble.decide(pixels))
    if heat_map_dir is not None:
        save_heat_maps(heat_map_dir, [file for file, _ in good], pixels, ensemble.heat_maps(pixels))
    return [
        Row(file, None if image.pixels is None else next(decisions), image.warnings, image.error)
        for file, image in zip(files, images, strict=True)
    ]
