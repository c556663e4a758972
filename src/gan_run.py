"""One run of GAN training: the loop over epochs and every file that it writes and reads back.

The state for --resume is saved at the ends of epochs, so an interrupted run repeats at most what lies
after the last of them, and ends with the very files that an uninterrupted run would have written. Of several
processes (see ``distributed``), which all train, the main one alone reads the state and writes files.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import paths
from data_loader import GROUPED_BY_PATIENT, from_gan_range, to_gan_range
from dcgan import DISCRIMINATOR_FORMAT, GENERATOR_FORMAT, Discriminator, Generator
from distributed import agree, from_main, own, size, weights_digest
from estimates import gan_hint
from gan_training import GAN, LossMeter, Objective, epoch_batches, image_noise, step_noise, train_step
from plots import gan_losses
from plots_images import image_grid
from utils import UserError, load_checkpoint, public_path, save_checkpoint, save_figure, save_json

STATE_FORMAT = "gan-training-state-1"
HISTORY_ORIGIN = (
    "grouped_by", "split_sha256", "data_sha256", "classes", "train_fraction", "fold", "k_folds",
)  # fmt: skip
CHECK_EVERY = 50  # steps between looks at the losses, which stay on the device
STATE_EVERY = 300.0  # seconds after which the end of an epoch saves the state in any case
GRID_COLUMNS = 8
NOT_FINITE = (
    "training stopped, the last good checkpoint is kept; a lower --lr, a larger --batch-size or "
    "--precision fp32 may help"
)


@dataclass(frozen=True)
class TrainingSet:
    """``pixels`` uint8 [N, S, S] on the device; ``origin``: what a checkpoint says about its images;
    ``red_flags``: what everybody who uses the generator must know."""

    pixels: Tensor
    origin: dict[str, Any]
    skipped: list[str]
    red_flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to save: whole epochs, and intervals in steps and epochs.

    ``batch_size`` is that of all processes together, which must be able to share it evenly.
    """

    epochs: int
    batch_size: int
    save_interval: int
    checkpoint_interval: int


@dataclass(frozen=True)
class Folders:
    """Where files go: models (its subfolder gan/), sample grids, history, curves; each with names of its own
    for a GAN that never saw fold ``fold``."""

    models: str
    output: str
    results: str
    figures: str
    fold: int | None = None


class Run:
    """What is trained, on what, and the history so far.

    ``settings``: what may not change on resume, by flag. ``facts``: what every result file records
    (config, environment, seed). ``vis_noise`` [N, latent_dim]: the noise of every sample grid.
    ``show_reals``: may a grid of real training images lie beside them?
    """

    def __init__(
        self, gan: GAN, data: TrainingSet, objective: Objective, schedule: Schedule, folders: Folders,
        settings: dict[str, Any], facts: dict[str, Any], vis_batch_size: int, show_reals: bool = True,
    ) -> None:  # fmt: skip
        self.gan, self.data, self.objective = gan, data, objective
        self.schedule, self.folders, self.settings, self.facts = schedule, folders, settings, facts
        self.seed, self.precision = facts["seed"], settings["--precision"]
        self.show_reals = show_reals
        self.steps_per_epoch = len(data.pixels) // schedule.batch_size
        self.vis_noise = image_noise(self.seed, "samples", 1, vis_batch_size, gan.G.latent_dim)
        self.history: list[dict[str, Any]] = []
        self.state_saved_at = time.monotonic()

    # --- training
    def train(self) -> None:
        """From the epoch after the last one in ``history`` to the last; leaves all files written."""
        total, done = self.schedule.epochs * self.steps_per_epoch, self.gan.step
        from_main(self.save_reals)
        hint = gan_hint(self.gan.G.image_size, self.objective.perceptual_loss is not None)
        estimate = TimeEstimate(total - done, self.schedule.batch_size, hint)
        with tqdm(total=total, initial=done, unit="step", smoothing=0.05) as bar:
            for epoch in range(len(self.history) + 1, self.schedule.epochs + 1):
                bar.set_description(f"epoch {epoch}/{self.schedule.epochs}")
                self.history.append(self.train_one_epoch(epoch, bar, estimate))
                bar.set_postfix_str(describe_epoch(self.history[-1]), refresh=False)
                self.check_weights(epoch)
                from_main(self.save_epoch, epoch)
        from_main(self.save_final)

    def train_one_epoch(self, epoch: int, bar: tqdm, estimate: TimeEstimate) -> dict[str, Any]:
        """Every image once, save for an incomplete batch; returns the epoch's line of the history."""
        gan, device, batch_size = self.gan, self.data.pixels.device, self.schedule.batch_size
        meter = LossMeter(self.objective, device)
        for indices in epoch_batches(len(self.data.pixels), batch_size, self.seed, epoch):
            step = gan.step
            real = to_gan_range(self.data.pixels[indices[own()].to(device)], gan.G.num_channels)
            z = step_noise(self.seed, step, batch_size, gan.G.latent_dim)[own()].to(device)
            meter.add(train_step(gan, real, z, self.objective, self.precision), step)
            bar.update()
            if gan.step % CHECK_EVERY == 0 or estimate.pending:
                self.check(meter)
                estimate.after_step(bar)
            if gan.step % self.schedule.save_interval == 0:
                self.check(meter)
                grid = paths.gan_sample_grid(self.folders.output, gan.step, self.folders.fold)
                from_main(self.save_samples, grid, f"step {gan.step:,}")
        self.check(meter)
        return {"epoch": epoch, "step": gan.step, "images_seen": gan.step * batch_size, **meter.means()}

    def check(self, meter: LossMeter) -> None:
        """Wait for the device; ``UserError`` with the step if a loss was not finite."""
        if (step := meter.first_bad_step()) is not None:
            raise UserError(f"the loss is not finite at step {step}: {NOT_FINITE}")

    def check_weights(self, epoch: int) -> None:
        """When checkpoints are due, and last: ``UserError`` if the weights are not the same everywhere."""
        if epoch % self.schedule.checkpoint_interval == 0 or epoch == self.schedule.epochs:
            gan = self.gan
            agree(f"weights after epoch {epoch}", weights_digest(gan.G, gan.D, gan.G_ema))

    # --- files
    def save_epoch(self, epoch: int) -> None:
        """Checkpoints every ``checkpoint_interval`` epochs; the state then, and when it is old."""
        due = epoch % self.schedule.checkpoint_interval == 0
        if due or time.monotonic() - self.state_saved_at > STATE_EVERY:
            self.save_state()
        if due:
            models, fold = self.folders.models, self.folders.fold
            generator = paths.generator_epoch(models, epoch, fold)
            self.save_networks(generator, paths.discriminator_epoch(models, epoch, fold))

    def save_final(self) -> None:
        self.save_state()
        where, fold = self.folders, self.folders.fold
        generator = paths.generator_final(where.models, fold)
        self.save_networks(generator, paths.discriminator_final(where.models, fold))
        self.save_samples(paths.gan_final_grid(where.output, fold), f"after {self.gan.step:,} steps")
        save_figure(paths.gan_loss_figure(where.figures, fold), gan_losses(self.history, self.title()))

    def title(self) -> str:
        """What the curves are about; patients are counted only where the dataset says who they are."""
        title, origin = f"GAN training on {len(self.data.pixels):,} images", self.data.origin
        if origin["grouped_by"] == GROUPED_BY_PATIENT:
            title += f" of {len(origin['train_patients']):,} patients"
        fold = self.folders.fold
        return title if fold is None else f"{title}, without fold {fold} of {origin['k_folds']}"

    def save_state(self) -> None:
        """The state for --resume and the history so far; never of weights that are no longer finite."""
        if not self.gan.is_finite():  # a weight can be lost while the loss before it was still finite
            raise UserError(f"the weights are not finite after step {self.gan.step}: {NOT_FINITE}")
        state = {"format": STATE_FORMAT, "settings": self.settings, "history": self.history}
        path = paths.gan_state(self.folders.models, self.folders.fold)
        save_checkpoint(path, state | self.gan.state_dict())
        self.save_history()
        self.state_saved_at = time.monotonic()

    def save_networks(self, generator: Path, discriminator: Path) -> None:
        """The averaged generator and the discriminator, each with all that rebuilding it takes."""
        for path, kind, network in (
            (generator, GENERATOR_FORMAT, self.gan.G_ema),
            (discriminator, DISCRIMINATOR_FORMAT, self.gan.D),
        ):
            save_checkpoint(path, self.network_checkpoint(kind, network))

    def network_checkpoint(self, kind: str, network: Generator | Discriminator) -> dict[str, Any]:
        weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        return {
            "format": kind,
            "state_dict": weights,
            "architecture": network.architecture,
            "pixel_range": [-1, 1],
            **self.data.origin,
            "red_flags": self.data.red_flags,
            "step": self.gan.step,
            "epoch": len(self.history),
            "images_seen": self.gan.step * self.schedule.batch_size,
            "seed": self.seed,
            "config": self.facts["config"],
        }

    def save_history(self) -> None:
        origin, skipped = self.data.origin, self.data.skipped
        content = self.facts | {
            "n_images": len(self.data.pixels),
            "n_patients": len(origin["train_patients"]),
            **{key: origin[key] for key in HISTORY_ORIGIN},
            "red_flags": self.data.red_flags,
            "skipped_images": {"count": len(skipped), "image_ids": skipped},
            "perceptual": self.settings["--perceptual"],
            "precision": self.precision,
            "batch_size": self.schedule.batch_size,
            "processes": size(),
            "steps": self.gan.step,
            "images_seen": self.gan.step * self.schedule.batch_size,
            "epochs": self.history,
        }
        save_json(paths.gan_history(self.folders.results, self.folders.fold), content)

    @torch.no_grad()
    def save_samples(self, path: Path, when: str) -> None:
        """A grid of the averaged generator's images, on the same noise all along."""
        noise = self.vis_noise.to(self.data.pixels.device).split(32)
        images = torch.cat([self.gan.G_ema(z) for z in noise])  # [N, C, S, S]
        save_grid(path, from_gan_range(images).cpu().numpy(), f"Generated images, {when}")

    def save_reals(self) -> None:
        """A grid of real images to compare with; where it is not wanted, an earlier run's goes, too."""
        path = paths.gan_real_grid(self.folders.output, self.folders.fold)
        if not self.show_reals:
            path.unlink(missing_ok=True)
            return
        pixels = self.data.pixels[: len(self.vis_noise)].cpu().numpy()
        save_grid(path, pixels, "Real training images")

    # --- resuming
    def resume(self, where: str) -> None:
        """Continue from the state file ``where`` ("auto": this run's own); none there: from the beginning.

        ``UserError`` if the state was made with other settings, or is beyond the epochs asked for.
        """
        state = from_main(self.read_state, where)
        if state is None:
            return
        self.gan.load_state_dict(state)
        self.history = list(state["history"])
        print(f"resumed at step {self.gan.step}")

    def read_state(self, where: str) -> dict[str, Any] | None:
        """The state to be resumed, which fits this run; None if it is not there."""
        of_this_run = paths.gan_state(self.folders.models, self.folders.fold)
        path = of_this_run if where == "auto" else Path(where)
        name = public_path(path)
        if not path.exists():
            print(f"--resume: {name} is not there: starting from the beginning")
            return None
        state = load_checkpoint(path, "python src/train_gan.py")
        self.refuse_unfit(state, name)
        return state

    def refuse_unfit(self, state: dict[str, Any], name: str) -> None:
        if state.get("format") != STATE_FORMAT:
            raise UserError(
                f"--resume: {name} is not a training state; python src/train_gan.py writes "
                f"{paths.gan_state('<model-dir>').as_posix()}"
            )
        # What older states do not know of.
        earlier = {"--train-fraction": 1.0, "processes": 1, "--compile": False} | state["settings"]
        different = [
            f"{flag} {earlier.get(flag)} (now {value})"
            for flag, value in self.settings.items()
            if earlier.get(flag) != value
        ]
        if different:
            raise UserError(
                f"--resume: {name} was made with {', '.join(different)}; only --epochs and --kimg may "
                "grow: give the same flags, or leave --resume out to start anew"
            )
        if (done := len(state["history"])) > self.schedule.epochs:
            raise UserError(
                f"--resume: {name} has {done} epochs behind it and {self.schedule.epochs} are asked: "
                "--epochs and --kimg may only grow"
            )


class TimeEstimate:
    """Says once, early in the run, how long it will take; the first steps, slower, are not counted."""

    WARM_UP, SECONDS = 3, 5.0

    def __init__(self, steps_to_go: int, batch_size: int, hint: str) -> None:
        self.steps_to_go, self.batch_size, self.hint = steps_to_go, batch_size, hint
        self.done, self.started, self.pending = 0, 0.0, steps_to_go > self.WARM_UP

    def after_step(self, bar: tqdm) -> None:
        if not self.pending:
            return
        self.done += 1
        if self.done == self.WARM_UP:
            self.started = time.monotonic()
        elapsed, counted = time.monotonic() - self.started, self.done - self.WARM_UP
        if counted > 0 and (elapsed > self.SECONDS or self.done == self.steps_to_go):
            self.pending = False
            seconds = elapsed / counted
            bar.write(
                f"about {seconds * self.steps_to_go / 60:.1f} minutes for {self.steps_to_go:,} steps "
                f"({self.batch_size / seconds:.0f} images/s); {self.hint}"
            )


def describe_epoch(line: dict[str, Any]) -> str:
    losses = f"D {line['d_loss']:.2f}, G {line['g_loss']:.2f}"
    return f"{losses}, D(x) {line['d_real']:.2f}, D(G(z)) {line['d_fake']:.2f}"


def save_grid(path: Path, images: np.ndarray, title: str) -> None:
    save_figure(path, image_grid(images, columns=min(GRID_COLUMNS, len(images)), title=title))
