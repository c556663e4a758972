"""Going on with a GAN's training after a stop, from the state that it left at the end of an epoch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import paths
from common.distributed import from_main
from gan.monitor import MonitorOptions
from gan.options import GANOptions, settings_of
from utils import UserError, load_checkpoint, public_path

if TYPE_CHECKING:
    from gan.run import Run

log = logging.getLogger(__name__)


STATE_FORMAT = "gan-training-state-1"


def resume(run: Run, where: str) -> None:
    """Continue from the state file ``where``, or with "auto" from this run's own; where there is none of its
    own: from the beginning.

    ``UserError`` if a file that was named is not there, or if the state was made with other settings, or is
    beyond the epochs asked for.
    """
    state = from_main(read_state, run, where)
    if state is None:
        return
    run.gan.load_state_dict(state)
    run.history, run.stats = list(state["history"]), list(state.get("stats", []))
    run.best, run.watched = state.get("best"), state.get("watched")
    run.floors = state.get("floors", {})
    run.clock.restore(state.get("clock"))
    best = f"; best so far: step {run.best['step']:,}, KID {run.best['kid']:.4f}" if run.best else ""
    log.info(f"resumed at step {run.gan.step}{best}")


def read_state(run: Run, where: str) -> dict[str, Any] | None:
    """The state to be resumed, which fits this run; None if there is none of its own."""
    of_this_run = paths.gan_state(run.folders.models, run.folders.fold)
    path = of_this_run if where == "auto" else Path(where)
    name = public_path(path)
    if not path.exists():
        if where != "auto":
            raise UserError(f"--resume: {name} is not there: give a training_state.pth, or --resume alone")
        log.info(f"--resume: {name} is not there: starting from the beginning")
        return None
    state = load_checkpoint(path, "python src/train_gan.py")
    refuse_unfit(run, state, name)
    return state


def _in_words(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def refuse_unfit(run: Run, state: dict[str, Any], name: str) -> None:
    if state.get("format") != STATE_FORMAT:
        raise UserError(
            f"--resume: {name} is not a training state; python src/train_gan.py writes "
            f"{paths.gan_state('<model-dir>').as_posix()}"
        )
    # What older states do not know of.
    earlier = settings_of(GANOptions()) | MonitorOptions().settings()
    earlier |= {"--train-fraction": 1.0, "processes": 1, "--compile": False} | state["settings"]
    different = [
        f"{flag} {_in_words(earlier.get(flag))} (now {_in_words(value)})"
        for flag, value in run.settings.items()
        if earlier.get(flag) != value
    ]
    if different:
        raise UserError(
            f"--resume: {name} was made with {', '.join(different)}; only --epochs and --kimg may "
            "grow: give the same flags, or leave --resume out to start anew"
        )
    if (done := len(state["history"])) > run.schedule.epochs:
        raise UserError(
            f"--resume: {name} has {done} epochs behind it and {run.schedule.epochs} are asked: "
            "--epochs and --kimg may only grow"
        )
