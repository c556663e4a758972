"""Names of the folders and files of the benchmarks; see ``common/paths.py``."""

from __future__ import annotations

from pathlib import Path

from common.paths import SRC, in_folder

# --- benchmark -------------------------------------------------------------------------------------
BENCHMARK_DIR = "./data/cache/benchmark"  # its phantoms, caches and outputs
benchmark_results = in_folder("benchmark.json")
benchmark_figure = in_folder("benchmark.png")


# --- comparison of generators ----------------------------------------------------------------------
GAN_BENCHMARK_DIR = "./data/cache/gan_benchmark"  # of what contenders made, and their logs
PEERS_DIR = "./data/cache/gan_peers"  # the environment in which the others' packages are installed
PEER_DRIVERS = SRC / "benchmarks" / "generators" / "peer_drivers"
gan_benchmark_results = in_folder("gan_benchmark.json")


def gan_benchmark_figure(output_dir: str | Path, what: str) -> Path:
    """``what`` is "peers" or "options"."""
    return Path(output_dir) / f"gan_benchmark_{what}.png"


def gan_benchmark_grid(output_dir: str | Path, what: str) -> Path:
    """Generated images only."""
    return Path(output_dir) / f"gan_benchmark_{what}_images.png"


benchmark_reals = in_folder("reals.npy")  # shows patients: removed afterwards
made_images = in_folder("made.npz")
unit_log = in_folder("log.txt")
unit_cost = in_folder("cost.json")


def unit_again(unit: str | Path) -> Path:
    """Folder in which a unit is trained again, until it has images."""
    return Path(unit).with_name(f"{Path(unit).name}_again")


def lock_beside(path: str | Path) -> Path:
    """Lock file for writers of ``path``."""
    return Path(path).with_name(f".{Path(path).name}.lock")


def benchmark_scorer(cache_dir: str | Path, name: str) -> Path:
    """Return the ResNet-18 in whose features generated images are scored."""
    return Path(cache_dir) / "gan_scorer" / f"{name}.pth"


def peers_python(peers_dir: str | Path) -> Path:
    """Python of the environment ``peers_dir``, on Windows or elsewhere."""
    windows = Path(peers_dir) / "Scripts" / "python.exe"
    return windows if windows.is_file() else Path(peers_dir) / "bin" / "python"
