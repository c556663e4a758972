"""Training and sampling one contender: a command of its own for every contender, seed and budget, with a
limit of time, that leaves its generated images in a folder of its own.

This project's generators are trained by ``train_gan.py`` as a user would call it. Others are trained by the
drivers in ``peer_drivers/``, run by the Python of an environment in which their packages were installed by
name (``install_peers``); nothing of theirs is ever imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generators.contenders import Unit, folder_name
from benchmarks.generators.data import K_FOLDS, BenchmarkData
from benchmarks.generators.scores import AVERAGED, RAW
from common import paths
from common.file_lock import try_lock
from common.paths import SRC
from utils import UserError, atomic_path, load_json, save_json

DONE, FAILED, OVER_TIME, NOT_INSTALLED = "done", "failed", "over_time", "not_installed"
PACKAGES = ("torch", "torchvision", "numpy", "lightweight-gan", "stylegan2_pytorch", "diffusers")
NEVER = str(10**6)  # steps or epochs: of files that nobody looks at here, and of an end that time sets


@dataclass(frozen=True)
class Field:
    """Where and on what everybody is trained. ``data_flags``: those with which ``train_gan.py`` finds the
    same images; ``peers_python``: of the peers' environment; ``count``: images to be generated; ``grace``:
    seconds allowed beyond the training for imports, decoding and sampling."""

    data: BenchmarkData
    data_flags: tuple[str, ...]
    work: Path
    peers_python: Path
    device: str
    count: int
    grace: float

    def folder(self, unit: Unit) -> Path:
        return paths.benchmark_unit(self.work, unit.folder_name(self._key()))

    def folder_of_row(self, row: Mapping[str, Any]) -> Path:
        """Of a row of the result file, whatever its settings were."""
        name = folder_name(row["contender"], row["budget"], row["seed"], row["id"], self._key())
        return paths.benchmark_unit(self.work, name)

    def _key(self) -> str:
        return f"{self.data.key()} {self.count}"


@dataclass(frozen=True)
class Made:
    """``images``: uint8 [N, S, S] by generator, RAW and maybe AVERAGED; ``facts``: of the training."""

    images: dict[str, np.ndarray]
    facts: dict[str, Any]


class UnitFailedError(Exception):
    """A contender made no images; ``status`` says how, the message why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class UnitBusyError(Exception):
    """Another command trains this contender in this folder."""


def make_images(unit: Unit, field: Field, again: bool = False) -> Made:
    """Train and sample, unless the images of an earlier time are there; ``UnitFailedError`` if that fails,
    ``UnitBusyError`` if another command is at it.

    Training to a time that was interrupted begins anew: only a run in one piece has an equal budget. With
    ``again`` it is trained in a folder beside, and what there was is replaced once there are new images.
    """
    folder = field.folder(unit)
    with only_one(folder):
        if not again and (kept := read_made(paths.made_images(folder))) is not None:
            return kept
        place = paths.unit_again(folder) if again else folder
        if again or unit.budget.kimg is None:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        (_train_ours if unit.contender.ours else _train_peer)(unit, field, place)
        made = read_made(paths.made_images(place))
        if made is None or not made.images:
            raise UnitFailedError(FAILED, "it ended without images")
        if again:
            shutil.rmtree(folder, ignore_errors=True)
            place.rename(folder)
        return made


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a unit's folder; ``UnitBusyError`` if another process holds it."""
    with try_lock(paths.lock_beside(folder)) as ours:
        if not ours:
            raise UnitBusyError
        yield


def read_made(file: Path) -> Made | None:
    """What a driver left; None if it is not there or damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            images = {name: content[name] for name in (RAW, AVERAGED) if name in content}
            facts = json.loads(str(content["facts"]))
        cost = paths.unit_cost(file.parent)
        return Made(images, facts | (load_json(cost) if cost.is_file() else {}))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, UserError):
        return None


# --- others ----------------------------------------------------------------------------------------
def _train_peer(unit: Unit, field: Field, folder: Path) -> None:
    contender = unit.contender
    if unit.budget.minutes is None:
        raise UnitFailedError(FAILED, "only this project's generators are trained to a number of images")
    python = Path(sys.executable) if contender.package is None else field.peers_python
    if not python.is_file():
        reason = f"{contender.package} is not installed: --what install makes its environment"
        raise UnitFailedError(NOT_INSTALLED, reason)
    seconds, reals = 60 * unit.budget.minutes, paths.benchmark_reals(folder)
    try:
        with atomic_path(reals) as temporary, temporary.open("wb") as file:
            np.save(file, field.data.training)
        command = [
            str(python), str(paths.PEER_DRIVERS / contender.driver), "--images", str(reals),
            "--out", str(paths.made_images(folder)), "--seconds", f"{seconds:g}", "--seed", str(unit.seed),
            "--count", str(field.count), "--device", field.device, *contender.flags,
        ]  # fmt: skip
        cost = run_limited(command, paths.unit_log(folder), seconds + field.grace)
        save_json(paths.unit_cost(folder), cost)
    finally:
        reals.unlink(missing_ok=True)


def run_limited(command: Sequence[str], log: Path, limit: float | None) -> dict[str, Any]:
    """Run ``command`` with its output in ``log``: {"command_seconds", "cpu_seconds"}, the latter of it and
    its children, None where the system does not say.

    ``UnitFailedError`` with its last line if it fails, or if it is not over after ``limit`` seconds: then it
    is ended, with all that it started.
    """
    start, cpu = time.perf_counter(), _cpu_of_children()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise UnitFailedError(OVER_TIME, f"not over after {limit / 60:.3g} minutes") from None
        finally:
            if process.poll() is None:
                _end(process)
    if code != 0:
        raise UnitFailedError(FAILED, _last_line(log) or f"ended with code {code}")
    used = None if cpu is None else _cpu_of_children() - cpu
    return {"command_seconds": time.perf_counter() - start, "cpu_seconds": used}


def _cpu_of_children() -> float | None:
    """Seconds that all ended children of this process have spent computing."""
    if os.name == "nt":
        return None
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _end(process: subprocess.Popen) -> None:
    """The process and its children, which are a group of their own where the system has groups."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _last_line(log: Path) -> str:
    """Without the folders of this machine, which an error may name."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    words = (lines[-1] if lines else "").split()
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)[:300]


# --- ours ------------------------------------------------------------------------------------------
def _train_ours(unit: Unit, field: Field, folder: Path) -> None:
    """By ``train_gan.py``, in one command; then the average and the weights themselves are sampled."""
    budget = unit.budget
    if budget.minutes is None:
        length, limit = ["--kimg", f"{budget.kimg:g}", "--resume"], None
    else:
        length = ["--epochs", NEVER, "--max-minutes", f"{budget.minutes:g}"]
        limit = 60 * budget.minutes + field.grace
    command = [
        sys.executable, str(SRC / "train_gan.py"), *field.data_flags,
        "--image-size", str(field.data.image_size), "--fold", str(field.data.fold), "--k-folds", str(K_FOLDS),
        "--seed", str(unit.seed), "--model-dir", str(folder / "models"), "--output-dir", str(folder / "out"),
        "--no-real-images", "--save-interval", NEVER, "--checkpoint-interval", NEVER,
        *length, *([] if field.device != "cpu" else ["--cpu"]),
        # Its weights may be there on one machine and not on another: it is off for all unless a set asks.
        "--perceptual", "off", *unit.contender.flags,
    ]  # fmt: skip
    cost = run_limited(command, paths.unit_log(folder), limit)
    save_json(paths.unit_cost(folder), cost)
    images, facts = sample_ours(folder, unit.seed, field)
    settings = {name: facts.pop(name) for name in ("precision", "perceptual")}
    facts["settings"] = {"flags": shlex.join(unit.contender.flags), **settings}
    with atomic_path(paths.made_images(folder)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, facts=np.array(json.dumps(facts)), **images)


def sample_ours(folder: Path, seed: int, field: Field) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """({RAW, AVERAGED}, facts) of a finished run in ``folder``; noise of the seed, the same for both."""
    import torch

    from dcgan import count_parameters
    from gan.generation import ImageMaker
    from gan.networks import generator_from_checkpoint
    from utils import load_checkpoint, load_json

    models, fold = folder / "models", field.data.fold
    averaged = load_checkpoint(paths.generator_final(models, fold))
    state = load_checkpoint(paths.gan_state(models, fold))
    numbers, images = range(1, field.count + 1), {}
    for name, weights in ((RAW, state["G"]), (AVERAGED, averaged["state_dict"])):
        generator = generator_from_checkpoint(averaged | {"state_dict": weights}, name)
        make = ImageMaker(generator, seed, torch.device(field.device))
        images[name] = np.concatenate(
            [make(numbers[start : start + 50]) for start in range(0, field.count, 50)]
        )
    history = load_json(paths.gan_history(folder / "out" / "metrics", fold))
    d_parameters = sum(value.numel() for name, value in state["D"].items() if "running" not in name)
    facts = {
        "parameters": count_parameters(generator) + d_parameters,
        "torch": torch.__version__,
        "steps": history["steps"],
        "images_seen": history["images_seen"],
        "train_seconds": history["time"]["seconds"],  # what it watches itself by included
        "threads": torch.get_num_threads(),
        "precision": history["precision"],
        "perceptual": history["perceptual"],
    }
    return images, facts


# --- the peers' environment ------------------------------------------------------------------------
def install_peers(peers_dir: Path) -> None:
    """An environment in ``peers_dir`` with the peers' packages, by name from the package index."""
    uv = shutil.which("uv")
    create = [uv, "venv", "--allow-existing"] if uv else [sys.executable, "-m", "venv"]
    python = str(paths.peers_python(peers_dir))
    commands = [[*create, str(peers_dir)]]
    if uv:
        commands.append([uv, "pip", "install", "--python", python, *PACKAGES])
    else:
        commands.append([python, "-m", "pip", "install", *PACKAGES])
    for command in commands:
        if subprocess.run(command, check=False).returncode != 0:
            raise UserError(f"{shlex.join(command[:3])} ... failed: see its own words above")
