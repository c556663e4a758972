"""Training and sampling of one contender, in a command with a time limit and a folder of its own.

This project's generators are trained by ``train_gan.py`` as a user would call it. Others are trained by the
drivers in ``peer_drivers/``, run by the Python of an environment in which their packages were installed by
name (``install_peers``). Their packages are never imported here.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import benchmark_paths
from benchmarks.generators.contenders import Unit
from benchmarks.generators.data import K_FOLDS, BenchmarkData
from benchmarks.generators.scores import AVERAGED, RAW
from benchmarks.measured_commands import CommandFailedError, run_measured
from common import paths
from common.locks import try_lock
from common.paths import SRC
from utils import UserError, atomic_path, load_json, save_json

PACKAGES = ("torch", "torchvision", "numpy", "lightweight-gan", "stylegan2_pytorch", "diffusers")
NEVER = str(10**6)  # epochs between files that are not wanted here, and epochs of a run that time ends
Failure = Literal["failed", "over_time", "not_installed"]


@dataclass(frozen=True)
class RunSetup:
    """What all contenders share.

    ``data_flags``: options with which ``train_gan.py`` finds the same images. ``work``: folder of all runs.
    ``peers_python``: Python of the peers' environment. ``count``: images that each generator makes.
    ``grace``: seconds allowed beyond the training for imports, decoding and sampling.
    """

    data: BenchmarkData
    data_flags: tuple[str, ...]
    work: Path
    peers_python: Path
    device: str
    count: int
    grace: float

    def folder(self, unit: Unit) -> Path:
        """Return the folder of one unit's run."""
        return self.work / unit.folder_name(f"{self.data.key()} {self.count}")


@dataclass(frozen=True)
class MadeImages:
    """Images of a contender, uint8 [N, S, S] by generator (RAW, maybe AVERAGED), and facts of its run."""

    images: dict[str, np.ndarray]
    facts: dict[str, Any]


class UnitFailedError(Exception):
    """A contender made no images; ``status`` says how it failed, the message why."""

    def __init__(self, status: Failure, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UnitBusyError(Exception):
    """Another command is training this contender in this folder."""


def make_unit_images(unit: Unit, setup: RunSetup, again: bool = False) -> MadeImages:
    """Train and sample a contender, or return the images of a finished run.

    An interrupted training to a time begins anew: only a run in one piece has an equal budget. With ``again``
    the contender is trained in a folder beside, which replaces the old one once there are new images. Raises
    ``UnitFailedError`` if there are no images, ``UnitBusyError`` if another command holds the folder.
    """
    folder = setup.folder(unit)
    with locked_folder(folder):
        if not again and (kept := read_made(benchmark_paths.made_images(folder))) is not None:
            return kept
        place = benchmark_paths.unit_again(folder) if again else folder
        if again or unit.budget.kimg is None:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        (_train_ours if unit.contender.ours else _train_peer)(unit, setup, place)
        made = read_made(benchmark_paths.made_images(place))
        if made is None or not made.images:
            raise UnitFailedError("failed", "it ended without images")
        if again:
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
        return made


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a unit's folder; raises ``UnitBusyError`` if another process holds it."""
    with try_lock(benchmark_paths.lock_beside(folder)) as ours:
        if not ours:
            raise UnitBusyError
        yield


def read_made(file: Path) -> MadeImages | None:
    """Read the images and facts that a run left; None if they are missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            images: dict[str, np.ndarray] = {name: content[name] for name in (RAW, AVERAGED) if name in content}
            facts = json.loads(str(content["facts"]))
        cost = benchmark_paths.unit_cost(file.parent)
        return MadeImages(images, facts | (load_json(cost) if cost.is_file() else {}))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, UserError):
        return None


# --- others ----------------------------------------------------------------------------------------
def _train_peer(unit: Unit, setup: RunSetup, folder: Path) -> None:
    contender = unit.contender
    assert unit.budget.minutes is not None and contender.driver is not None  # only ours are trained to a --kimg
    python = Path(sys.executable) if contender.package is None else setup.peers_python
    if not python.is_file():
        reason = f"{contender.package} is not installed: --what install makes its environment"
        raise UnitFailedError("not_installed", reason)
    seconds, reals = 60 * unit.budget.minutes, benchmark_paths.benchmark_reals(folder)
    try:
        with atomic_path(reals) as temporary, temporary.open("wb") as file:
            np.save(file, setup.data.training)
        command = [
            str(python), str(benchmark_paths.PEER_DRIVERS / contender.driver), "--images", str(reals),
            "--out", str(benchmark_paths.made_images(folder)), "--seconds", f"{seconds:g}",
            "--seed", str(unit.seed), "--count", str(setup.count), "--device", setup.device, *contender.flags,
        ]  # fmt: skip
        run_contender(command, folder, seconds + setup.grace)
    finally:
        reals.unlink(missing_ok=True)


def run_contender(command: Sequence[str], folder: Path, limit: float | None) -> None:
    """Run ``command``, log and cost in ``folder``; ``UnitFailedError`` if it fails or exceeds ``limit``."""
    try:
        cost = run_measured(command, benchmark_paths.unit_log(folder), limit)
    except CommandFailedError as failure:
        raise UnitFailedError("over_time" if failure.over_time else "failed", str(failure)) from None
    content = {"command_seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds}
    save_json(benchmark_paths.unit_cost(folder), content)


# --- ours ------------------------------------------------------------------------------------------
def _train_ours(unit: Unit, setup: RunSetup, folder: Path) -> None:
    """Train with ``train_gan.py`` in one command, then sample the weights and their average."""
    budget, data = unit.budget, setup.data
    limit: float | None = None
    if budget.minutes is None:
        length = ["--kimg", f"{budget.kimg:g}", "--resume"]
    else:
        length = ["--epochs", NEVER, "--max-minutes", f"{budget.minutes:g}"]
        limit = 60 * budget.minutes + setup.grace
    command = [
        sys.executable, str(SRC / "train_gan.py"), *setup.data_flags,
        "--image-size", str(data.image_size), "--fold", str(data.fold), "--k-folds", str(K_FOLDS),
        "--seed", str(unit.seed), "--model-dir", str(folder / "models"), "--output-dir", str(folder / "out"),
        "--no-real-images", "--save-interval", NEVER, "--checkpoint-interval", NEVER,
        *length, *([] if setup.device != "cpu" else ["--cpu"]),
        # VGG16 may be there on one machine and not on another: it is off unless a set of options asks for it.
        "--perceptual", "off", *unit.contender.flags,
    ]  # fmt: skip
    run_contender(command, folder, limit)
    images, facts = sample_ours(folder, unit.seed, setup)
    settings = {name: facts.pop(name) for name in ("precision", "perceptual")}
    facts["settings"] = {"flags": shlex.join(unit.contender.flags), **settings}
    with atomic_path(benchmark_paths.made_images(folder)) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {"facts": np.array(json.dumps(facts)), **images}
        np.savez_compressed(file, **arrays)


def sample_ours(folder: Path, seed: int, setup: RunSetup) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Sample both generators of the finished run in ``folder`` with the same noise; return also its facts."""
    import torch

    from dcgan import count_parameters
    from gan.generation import ImageMaker
    from gan.networks import generator_from_checkpoint
    from utils import load_checkpoint

    models, fold = folder / "models", setup.data.fold
    averaged = load_checkpoint(paths.generator_final(models, fold))
    state = load_checkpoint(paths.gan_state(models, fold))
    numbers, images = range(1, setup.count + 1), dict[str, np.ndarray]()
    for name, weights in ((RAW, state["G"]), (AVERAGED, averaged["state_dict"])):
        generator = generator_from_checkpoint(averaged | {"state_dict": weights}, name)
        make = ImageMaker(generator, seed, torch.device(setup.device))
        images[name] = np.concatenate([make(numbers[start : start + 50]) for start in range(0, setup.count, 50)])
    history = load_json(paths.gan_history(folder / "out" / "metrics", fold))
    d_parameters = sum(value.numel() for name, value in state["D"].items() if "running" not in name)
    facts = {
        "parameters": count_parameters(generator) + d_parameters,
        "steps": history["steps"],
        "images_seen": history["images_seen"],
        "train_seconds": history["time"]["seconds"],  # its own evaluations included
        "threads": torch.get_num_threads(),
        "precision": history["precision"],
        "perceptual": history["perceptual"],
    }
    return images, facts


# --- the peers' environment ------------------------------------------------------------------------
def install_peers(peers_dir: Path) -> None:
    """Make an environment in ``peers_dir`` with the peers' packages, by name from the package index."""
    uv = shutil.which("uv")
    _run_or_stop([*([uv, "venv", "--allow-existing"] if uv else [sys.executable, "-m", "venv"]), str(peers_dir)])
    python = str(benchmark_paths.peers_python(peers_dir))  # where it lies tells only the environment that is there
    install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    _run_or_stop([*install, *PACKAGES])


def _run_or_stop(command: Sequence[str]) -> None:
    if subprocess.run(command, check=False).returncode != 0:
        raise UserError(f"`{shlex.join(command[:3])} ...` failed; its own messages above say why")
