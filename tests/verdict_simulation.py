"""How often judge_images.py's verdict is right: draws of real patients, and of worse images made of them.

    python tests/verdict_simulation.py --data-dir ./data/processed

Every draw takes 2n real images, and n images of other patients that pose as synthetic: as they are, or made worse.
docs/judge-images.md quotes what it prints.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from scipy.ndimage import gaussian_filter

from data_loader import load_images
from dataset.records import load_dataset
from image_metrics.energy_distance import measure_energy
from image_metrics.feature_spaces import hog_space, pixel_space
from image_metrics.file_formats import CopySearch
from image_metrics.folder_comparison import FALSE_ALARMS, decide

SIDE = 64
SPACES = (hog_space(SIDE), pixel_space())
NO_COPIES: CopySearch = {
    "threshold": 1.0, "found_of_planted": 1.0, "reliable": True, "copies": 0, "real_twins": 0, "closest": [],
}  # fmt: skip


def collapsed(pixels: np.ndarray) -> np.ndarray:
    """Every image is one of the first 20, moved by up to 2 pixels."""
    moves = np.random.default_rng(0).integers(-2, 3, size=(len(pixels), 2))
    return np.stack([np.roll(pixels[i % 20], move, (0, 1)) for i, move in enumerate(moves)])


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: change(pixels.astype(np.float32)).round().clip(0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "other patients": lambda pixels: pixels,
    "blur of 1 of 64 pixels": changed(lambda pixels: gaussian_filter(pixels, (0, 1, 1))),
    "noise of SD 8": changed(lambda pixels: pixels + np.random.default_rng(0).normal(0, 8, pixels.shape)),
    "a fifth of the mean image mixed in": changed(lambda pixels: 0.8 * pixels + 0.2 * pixels.mean(axis=0)),
    "half of the mean image mixed in": changed(lambda pixels: 0.5 * pixels + 0.5 * pixels.mean(axis=0)),
    "20 images, moved by up to 2 pixels": collapsed,
}


def draw(groups: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 2n real images, and of n images of other patients."""
    rows = np.concatenate([np.flatnonzero(groups == name) for name in rng.permutation(np.unique(groups))])
    posing, rest = rows[:n], rows[n:]
    return rest[~np.isin(groups[rest], groups[posing])][: 2 * n], posing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--draws", type=int, default=200, help="of other patients; a quarter of each other kind")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 100, 300])
    args = parser.parse_args()
    records = load_dataset(args.data_dir).images
    pixels, groups = load_images(records, SIDE).pixels, records["patient"].to_numpy(dtype=str)
    print(f"{len(pixels):,} images of {len(np.unique(groups)):,} patients")
    for n in args.sizes:
        rng = np.random.default_rng(n)
        for kind, change in KINDS.items():
            verdicts: Counter[str] = Counter()
            needed, ratios = [], []
            draws = args.draws if kind == "other patients" else args.draws // 4
            for seed in range(draws):
                real, posing = draw(groups, n, rng)
                made, whose = change(pixels[posing]), groups[posing]
                energies = {
                    space.name: measure_energy(
                        space.features(pixels[real]), groups[real], space.features(made), whose,
                        level=FALSE_ALARMS / len(SPACES), seed=seed,
                    )
                    for space in SPACES
                }  # fmt: skip
                verdict = decide(energies, NO_COPIES, [], (n, 2 * n))
                verdicts[verdict["verdict"].split(":")[0]] += 1
                needed.append(verdict["needed"])
                ratios.append([energy.value / energy.floor for energy in energies.values()])
            shares = ", ".join(f"{name} {count / draws:.1%}" for name, count in verdicts.most_common())
            times = " and ".join(f"{ratio:.1f}" for ratio in np.median(ratios, axis=0))
            line = f"{n} and {2 * n}, {kind}: {shares}; needed {np.median(needed):.0f}; {times} times the floor"
            print(line, flush=True)


if __name__ == "__main__":
    main()
