"""Measure the intervals of cross-fitted comparisons: python -m simulations --out FILE (see ``make simulations``).

The same command goes on where it was stopped. Each line of the file is one cell with its settings and figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from simulations.cross_fitting import Cell, World, find_truth, simulate, summarise
from utils import derive_seed, save_json

CELLS = (
    *(Cell(pair, n) for n in (600, 1200, 2400) for pair in ("equal", "other", "better")),
    Cell("equal", 600, runs=3), Cell("better", 1200, runs=3), Cell("equal", 600, gans=2), Cell("better", 600, gans=2),
    Cell("equal", 1200, gans=2), Cell("other", 1200, gans=2),
)  # fmt: skip
BATCH = 25  # comparisons between two writings


def run_cell(cell: Cell, known: dict[str, Any], studies: int, trainings: int, save: Any) -> dict[str, Any]:
    """Simulate what ``known`` lacks of a cell; ``save`` is called after each batch with all that is known then."""
    world = World()
    if "truth" not in known:
        known |= {"truth": find_truth(world, cell, trainings, np.random.default_rng(derive_seed(1, cell.name)))}
    known.setdefault("results", [])
    while len(known["results"]) < studies:
        start = len(known["results"])
        rng = np.random.default_rng(derive_seed(2, cell.name, start))
        known["results"] += [simulate(world, cell, rng) for _ in range(min(BATCH, studies - start))]
        save(known)
    return known


def write_table(cells: dict[str, Any]) -> str:
    """Return the figures of all finished cells as a table in Markdown."""
    lines = ["| cell | metric | studies | truth | mean | SD | coverage | relative width | p < .05 |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, known in cells.items():
        for metric, row in summarise(known["results"], known["truth"]).items():
            values = [f"{row[key]:+.4f}" for key in ("truth", "mean")] + [f"{row['sd']:.4f}"]
            values += [f"{row['coverage']:.3f}", f"{row['relative_width']:.2f}", f"{row['significant']:.3f}"]
            lines.append(f"| {name} | {metric} | {len(known['results'])} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of results, JSON")
    parser.add_argument("--studies", type=int, default=1000, help="cross-fitted comparisons per cell")
    parser.add_argument("--trainings", type=int, default=2000, help="independent trainings behind each truth")
    args = parser.parse_args()
    cells: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for cell in CELLS:

        def save(known: dict[str, Any], name: str = cell.name) -> None:
            cells[name] = known
            save_json(args.out, cells)

        run_cell(cell, cells.get(cell.name, {}), args.studies, args.trainings, save)
        print(cell.name, flush=True)
    print(write_table(cells))


if __name__ == "__main__":
    main()
