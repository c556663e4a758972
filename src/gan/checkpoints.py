"""Checkpoints of a GAN's training: what a run has found so far, saved and read back.

A state is saved at the ends of epochs, so that an interrupted run repeats at most what lies after the last of
them, and ends with the very files that an uninterrupted run would have written.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from common import paths
from common.distributed import from_main, process_count
from common.file_formats import format_problems
from common.plan_files import named_files
from gan.file_formats import (
    DISCRIMINATOR_FORMAT,
    GENERATOR_FORMAT,
    STATE_FORMAT,
    BestInState,
    EpochLine,
    NetworkCheckpoint,
    RunTime,
    SetScores,
    StatsLine,
    TimetableRecord,
    TrainingState,
)
from gan.networks import GAN, Discriminator, Generator
from gan.options import describe_differences, fixed_values
from gan.settings import Plan, Settings
from gan.training_set import TrainingSet
from networks.backbones import LITE0
from utils import UserError, load_checkpoint, public_path, save_checkpoint, sha256_file, sha256_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """What a run has found so far; a change makes a new one.

    ``history``: a line per epoch; ``stats``: a line per some steps, at least one per epoch; ``best``: the generator
    of the lowest KID. Of an earlier part of a resumed run: ``watched``, which spaces are evaluated when; ``floors``,
    what real images score; ``time``.
    """

    history: list[EpochLine] = field(default_factory=list)
    stats: list[StatsLine] = field(default_factory=list)
    best: BestInState | None = None
    watched: dict[str, TimetableRecord] | None = None
    floors: dict[str, SetScores] = field(default_factory=dict)
    time: RunTime | None = None


# --- networks --------------------------------------------------------------------------------------
def list_red_flags(data: TrainingSet, stats: Sequence[StatsLine]) -> list[str]:
    """List what everybody must know who uses the generator as it is at the last line of ``stats``."""
    return [*data.red_flags, *(f"GAN training: {message}" for message in stats[-1]["warnings"].values())]


def network_checkpoint(
    network: Generator | Discriminator, plan: Plan, data: TrainingSet, progress: Progress, step: int
) -> NetworkCheckpoint:
    """Return ``network`` with all that rebuilding it takes, and the images that it saw."""
    content = {
        "format": GENERATOR_FORMAT if isinstance(network, Generator) else DISCRIMINATOR_FORMAT,
        "state_dict": {key: value.detach().cpu().clone() for key, value in network.state_dict().items()},
        "architecture": network.architecture,
        "pixel_range": [-1, 1],
        **data.origin,
        "red_flags": list_red_flags(data, progress.stats),
        "step": step,
        "epoch": len(progress.history),
        "images_seen": step * plan.schedule.batch_size,
        "seed": plan.seed,
        "options": plan.gan.as_dict(),
        "config": plan.config,
        **plan.named_files,
    }
    return cast(NetworkCheckpoint, content)


def save_networks(files: tuple[Path, Path], gan: GAN, plan: Plan, data: TrainingSet, progress: Progress) -> None:
    """Save the averaged generator and the discriminator as ``files``."""
    for file, network in zip(files, (gan.G_ema, gan.D), strict=True):
        save_checkpoint(file, dict(network_checkpoint(network, plan, data, progress, gan.step)))


def save_best(file: Path, best: BestInState | None) -> None:
    """Save the best generator so far, which the state holds too; without one, an earlier run's file goes."""
    if best is None:
        file.unlink(missing_ok=True)
    else:
        save_checkpoint(file, dict(best["checkpoint"]))


def flag_best(file: Path, progress: Progress) -> None:
    """Save the best generator anew if the warnings at the end say that training was too short: so it was for it."""
    message = progress.stats[-1]["warnings"].get("too_short")
    if message is None or progress.best is None:
        return
    checkpoint, flag = progress.best["checkpoint"], f"GAN training: {message}"
    if flag not in checkpoint["red_flags"]:
        save_checkpoint(file, {**checkpoint, "red_flags": [*checkpoint["red_flags"], flag]})


# --- state -----------------------------------------------------------------------------------------
def fixed_facts(
    settings: Settings, data: TrainingSet, batch_size: int, precision: str, perceptual: str
) -> dict[str, Any]:
    """Return what must be the same when a run is continued: options by flag, and what they led to."""
    features = settings.watching.metrics_features
    return fixed_values(settings) | {
        "--batch-size": batch_size,
        "--precision": precision,
        "--perceptual": perceptual,
        "--metrics-features": features if features in (None, LITE0) else sha256_file(features)[:12],
        "processes": process_count(),
        "plan sha256": named_files().get("plan_sha256"),
        "metadata sha256": data.origin["data_sha256"],
        "split sha256": data.origin["split_sha256"],
        "training images": f"{len(data.pixels)} ({sha256_json(data.origin['train_image_ids'])[:12]})",
    }


def save_state(file: Path, fixed: dict[str, Any], progress: Progress, gan: GAN) -> None:
    """Save all that ``read_state`` needs; ``fixed``: what must be the same on resume, by flag."""
    state = {
        "format": STATE_FORMAT,
        "settings": fixed,
        "history": progress.history,
        "stats": progress.stats,
        "best": progress.best,
        "watched": progress.watched,
        "floors": progress.floors,
        "clock": progress.time,
    }
    save_checkpoint(file, state | gan.state_dict())


def resume(plan: Plan, gan: GAN, where: str) -> Progress | None:
    """Load ``gan`` and the progress from the state file ``where``, or with "auto" from this run's own.

    Returns None if there is none of its own: the run starts from the beginning. Raises ``UserError`` if a
    named file is not there, or the state was made with other settings, or has more epochs than asked for.
    """
    state = from_main(read_state, plan, where)
    if state is None:
        return None
    try:
        gan.load_state_dict(dict(state))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError):  # torch's, for tensors that do not fit
        name = public_path(plan.folders.state if where == "auto" else where)
        raise UserError(
            f"--resume: {name} is damaged: its weights do not fit these networks; leave --resume out to start anew"
        ) from None
    best = state["best"]
    words = f"; best so far: step {best['step']:,}, KID {best['kid']:.4f}" if best else ""
    log.info(f"resumed at step {gan.step}{words}")
    return Progress(state["history"], state["stats"], best, state["watched"], state["floors"], state["clock"])


def read_state(plan: Plan, where: str) -> TrainingState | None:
    """Read the state to be resumed, which fits ``plan``; None if there is none of its own."""
    path = plan.folders.state if where == "auto" else Path(where)
    name = public_path(path)
    if not path.exists():
        if where != "auto":
            raise UserError(f"--resume: {name} is not there: give a training_state.pth, or --resume alone")
        log.info(f"--resume: {name} is not there: starting from the beginning")
        return None
    state = load_checkpoint(path, "python src/train_gan.py")
    if state.get("format") != STATE_FORMAT:
        raise UserError(
            f"--resume: {name} is not a training state; python src/train_gan.py writes "
            f"{paths.gan_state('<model-dir>').as_posix()}"
        )
    problems = format_problems(state, TrainingState)
    if not problems and not (state["history"] and state["stats"]):
        problems = ["it holds no epoch"]
    if problems:
        raise UserError(f"--resume: {name} is damaged: {problems[0]}; leave --resume out to start anew")
    if different := describe_differences(state["settings"], plan.fixed):
        raise UserError(
            f"--resume: {name} was made with {', '.join(different)}; only --epochs and --kimg may "
            "grow: give the same flags, or leave --resume out to start anew"
        )
    if (done := len(state["history"])) > plan.schedule.epochs:
        raise UserError(
            f"--resume: {name} has {done} epochs behind it, but only {plan.schedule.epochs} are asked for: "
            "--epochs and --kimg may only grow"
        )
    return cast(TrainingState, state)
