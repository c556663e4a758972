"""One run of GAN training: the loop over epochs, and what is looked at and saved on the way.

The trainer alone changes the state of the run. Of several processes (see ``common.distributed``), which all
train, the main one alone evaluates, reads the state and writes files.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import cast

import numpy as np
from torch import Tensor
from tqdm import tqdm

from common import paths
from common.distributed import from_main, my_share, require_same_weights
from common.progress import Announcement, duration_in_words, progress_bar
from data_loader import to_gan_range
from gan import checkpoints, outputs
from gan.checkpoints import Progress, network_checkpoint
from gan.evaluation import Monitor, build_monitor, is_better
from gan.file_formats import (
    BestInState,
    EpochLine,
    Evaluation,
    GanTrainingHistory,
    NetworkCheckpoint,
    StatsLine,
)
from gan.losses import Objective
from gan.meters import Clock, LossMeter, peak_memory_mb
from gan.networks import GAN
from gan.settings import NEEDED_KIMG, Plan, in_kimg
from gan.step import PERCEPTUAL_IMAGES, epoch_batches, gradient_shares, image_noise, step_noise, train_step
from gan.training_set import TrainingSet
from gan.warnings import active_warnings, new_warnings, too_short
from utils import UserError, save_json

log = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between looks at the losses, which stay on the device
STATS_EVERY = 200  # steps, at most about so many, that a line of the statistics is about
PROBE_EVERY = 500  # steps from one look at the shares of G's gradient, which takes about a step, to the next
STATE_EVERY = 300.0  # seconds after which the end of an epoch saves the state in any case
WARM_UP_STEPS = 3  # are slower, and not counted when the time of the run is announced
NOT_FINITE = (
    "training stopped, the last good checkpoint is kept; a lower --lr, a larger --batch-size or "
    "--precision fp32 may help"
)


class Trainer:
    """A run: what is trained, on what, and what has been found so far.

    ``progress``: progress of an earlier part of the run, whose networks are in ``gan``; None at the
    beginning.
    """

    def __init__(
        self, plan: Plan, gan: GAN, data: TrainingSet, objective: Objective, progress: Progress | None = None
    ) -> None:
        self.plan, self.gan, self.data, self.objective = plan, gan, data, objective
        self.progress = progress or Progress()
        self.clock = Clock(self.progress.time)
        self.device = data.pixels.device
        self.steps_per_epoch = len(data.pixels) // plan.schedule.batch_size
        self.grid_noise = image_noise(
            plan.seed, "samples", 1, plan.watching.vis_batch_size, gan.G.input_dim
        )  # of every sample grid
        self.state_saved_at = time.monotonic()
        self.monitor: Monitor  # of the main process alone, as is the board: ``prepare`` makes them
        self.board: outputs.TensorBoard | None = None

    @property
    def images_seen(self) -> int:
        return self.gan.step * self.plan.schedule.batch_size

    # --- training
    def train(self) -> None:
        """Train from the epoch after the last one in the history to the last; leaves all files written.

        Raises ``UserError`` in the end if --stop-on-collapse ended it.
        """
        epochs = self.plan.schedule.epochs
        total, done = epochs * self.steps_per_epoch, self.gan.step
        from_main(self.prepare)
        announcement = Announcement(total - done, "steps", self.time_hint, log.info, WARM_UP_STEPS)
        with progress_bar(total=total, initial=done, unit="step", smoothing=0.05) as bar:
            for epoch in range(len(self.progress.history) + 1, epochs + 1):
                bar.set_description(f"epoch {epoch}/{epochs}")
                self.train_one_epoch(epoch, bar, announcement)
                bar.set_postfix_str(describe_epoch(self.progress.history[-1]), refresh=False)
                if epoch % self.plan.schedule.checkpoint_interval == 0:
                    self.check_weights()
                from_main(self.save_epoch, epoch)
                if from_main(self.reason_to_stop, self.progress) is not None:
                    break
        self.check_weights()  # whatever ended the run
        stop = from_main(self.finish)
        done = len(self.progress.history)
        if stop == "collapse":
            raise UserError(
                f"training stopped after epoch {done}: mode collapse (--stop-on-collapse); all files are "
                "written, and generator_best may be of an earlier epoch"
            )
        if stop is not None and done < epochs:
            log.info(f"--max-minutes: stopped after epoch {done}; --resume goes on")

    def time_hint(self, seconds: float) -> str:
        """Say which options make a training shorter or, if it is little already, how long a sound one takes.

        ``seconds``: of a step.
        """
        schedule = self.plan.schedule
        if (shown := schedule.images_shown(len(self.data.pixels))) < 1000 * NEEDED_KIMG:
            longer = duration_in_words(seconds * 1000 * NEEDED_KIMG / schedule.batch_size)
            return f"that shows {in_kimg(shown)}, --kimg {NEEDED_KIMG:g} takes about {longer}"
        flags = ["--epochs or --kimg"]
        flags += ["--perceptual off"] if self.objective.perceptual_loss is not None else []
        flags += ["a smaller --image-size"] if self.gan.G.image_size >= 64 else []
        return f"shorter with {', '.join(flags)}"

    def train_one_epoch(self, epoch: int, bar: tqdm, announcement: Announcement) -> None:
        """Show every image once, but for an incomplete batch; adds the epoch's line to the history."""
        gan, batch_size = self.gan, self.plan.schedule.batch_size
        whole, part = LossMeter(self.objective, self.device), LossMeter(self.objective, self.device)
        ends = part_ends(self.steps_per_epoch)
        batches = epoch_batches(len(self.data.pixels), batch_size, self.plan.seed, epoch)
        for number, rows in enumerate(batches, 1):
            step = gan.step
            part.add(self.take_step(rows), step)
            bar.update()
            if gan.step % CHECK_EVERY == 0 or announcement.pending:
                require_finite(part)
                announcement.after()
            if gan.step % self.plan.schedule.save_interval == 0:
                require_finite(part)
                from_main(self.save_samples)
            if number in ends:
                require_finite(part)
                whole.include(part)
                if number == self.steps_per_epoch:
                    self.add_epoch(epoch, whole)
                from_main(self.record, epoch, part.means(), part.steps)
                part = LossMeter(self.objective, self.device)

    def take_step(self, rows: Tensor) -> Tensor:
        """Train one step on the images ``rows`` [batch_size], of which each process takes its share."""
        data, gan, plan = self.data, self.gan, self.plan
        mine = rows[my_share()].to(self.device)
        real = to_gan_range(data.pixels[mine], gan.G.num_channels)
        z = step_noise(plan.seed, gan.step, plan.schedule.batch_size, gan.G.input_dim)[my_share()]
        labels = None if data.labels is None else data.labels[mine]
        return train_step(gan, real, z.to(self.device), self.objective, plan.precision, labels)

    def add_epoch(self, epoch: int, losses: LossMeter) -> None:
        """Add the line of ``epoch`` to the history."""
        where = {"epoch": epoch, "step": self.gan.step, "images_seen": self.images_seen}
        line = cast(EpochLine, where | losses.means())
        self.progress = replace(self.progress, history=[*self.progress.history, line])

    def check_weights(self) -> None:
        """Raise ``UserError`` if the weights are not the same in all processes."""
        what = f"weights after epoch {len(self.progress.history)}"
        require_same_weights(what, self.gan.G, self.gan.D, self.gan.G_ema)

    def reason_to_stop(self, progress: Progress) -> str | None:
        """Return "collapse" or "time" if one of them ends the run after an epoch."""
        stats, limit = progress.stats, self.plan.schedule.max_minutes
        if self.plan.watching.stop_on_collapse and "collapse" in stats[-1]["warnings"]:
            return "collapse"
        return "time" if limit is not None and self.clock.seconds() >= 60 * limit else None

    # --- watching, in the main process
    def prepare(self) -> None:
        """Set up what watches the run, before its first step."""
        folders = self.plan.folders
        outputs.save_reals(self.plan, self.data.pixels)
        outputs.rewrite_stats(folders.stats, self.progress.stats)
        checkpoints.save_best(folders.generator_best, self.progress.best)
        if self.plan.watching.tensorboard:
            events = paths.gan_events(folders.output_dir, folders.fold)
            self.board = outputs.TensorBoard(events, self.gan.step)
        with self.clock.aside():
            earlier = self.progress.watched, self.progress.floors
            self.monitor = build_monitor(self.plan, self.gan, self.data, *earlier)
        for notice in self.monitor.notices(self.plan.schedule.epochs):
            log.info(notice)

    def record(self, epoch: int, means: dict[str, float | None], steps: int) -> None:
        """Add a line to the statistics and log new warnings; the training goes on unchanged.

        If an evaluation is due at the end of this epoch, the line holds it. It may find the best generator.
        """
        step, images = self.gan.step, steps * self.plan.schedule.batch_size
        content = {
            "step": step,
            "epoch": epoch,
            "epoch_fraction": step / self.steps_per_epoch,
            "images_seen": self.images_seen,
            "steps": steps,
            **means,
            "shares": None,
            "metrics": None,
            "time": self.clock.lap(images),
            "memory": {"peak_mb": peak_memory_mb(self.device)},
            "warnings": {},
        }
        line = cast(StatsLine, content)
        with self.clock.aside():
            if (step - steps) // PROBE_EVERY < step // PROBE_EVERY or step == steps:
                line["shares"] = self.probe()
            if step % self.steps_per_epoch == 0 and (names := self.monitor.due(epoch)):
                metrics = line["metrics"] = self.monitor.evaluate(names, self.sample, self.gan.D)
                evaluated: EpochLine = {**self.progress.history[-1], "metrics": metrics}
                self.progress = replace(self.progress, history=[*self.progress.history[:-1], evaluated])
            line["warnings"] = self.warnings_of([*self.progress.stats, line])
            self.progress = replace(self.progress, stats=[*self.progress.stats, line])
            for message in new_warnings(self.progress.stats).values():
                log.warning(f"WARNING at step {step:,}: {message}")
            if line["metrics"] is not None:
                self.progress = self.keep_if_best(self.progress, line["metrics"])
            outputs.append_stats(self.plan.folders.stats, line)
            if self.board is not None:
                self.board.add(step, {key: value for key, value in line.items() if key != "step"})

    def probe(self) -> dict[str, float]:
        """Return each term's share of G's gradient, on the same images all along."""
        n = min(PERCEPTUAL_IMAGES, self.plan.schedule.batch_size)
        real = to_gan_range(self.data.pixels[:n], self.gan.G.num_channels)
        labels = None if self.data.labels is None else self.data.labels[:n]
        plan = self.plan
        return gradient_shares(self.gan, real, self.objective, plan.precision, plan.seed, labels)

    def sample(self, z: Tensor, label: Tensor | None) -> np.ndarray:
        """Make the averaged generator's images uint8 [N, S, S]."""
        return outputs.make_samples(self.gan, z, label)

    def warnings_of(self, stats: list[StatsLine]) -> dict[str, str]:
        """Return the warnings that hold at the last line of ``stats``."""
        return active_warnings(stats, self.plan.gan, self.monitor.primary, self.plan.precision)

    def keep_if_best(self, progress: Progress, metrics: Evaluation) -> Progress:
        """Return ``progress`` with the generator as it is now if ``metrics`` are the best; saves it then."""
        primary = self.monitor.primary
        if not is_better(metrics, primary, progress.best):
            return progress
        kid = metrics["spaces"][primary]["kid"]
        content = network_checkpoint(self.gan.G_ema, self.plan, self.data, progress, self.gan.step)
        best: BestInState = {
            "kid": kid,
            "space": primary,
            "epoch": len(progress.history),
            "step": self.gan.step,
            "images_seen": self.images_seen,
            "checkpoint": cast(NetworkCheckpoint, {**content, "kid": kid, "kid_space": primary}),
        }
        checkpoints.save_best(self.plan.folders.generator_best, best)
        return replace(progress, best=best)

    # --- saving, in the main process
    def save_samples(self) -> None:
        """Save a grid of samples of this step."""
        folders, step = self.plan.folders, self.gan.step
        with self.clock.aside():
            file = paths.gan_sample_grid(folders.output_dir, step, folders.fold)
            outputs.save_samples(file, self.gan, self.grid_noise, f"step {step:,}")

    def save_epoch(self, epoch: int) -> None:
        """Save networks every ``checkpoint_interval`` epochs; the state then, and when it is old.

        The state comes last: the files that it leaves behind it must be there, as a resumed run does not make
        them again.
        """
        due = epoch % self.plan.schedule.checkpoint_interval == 0
        if due:
            self.refuse_lost_weights()
            files = self.plan.folders.networks(epoch)
            checkpoints.save_networks(files, self.gan, self.plan, self.data, self.progress)
        if due or time.monotonic() - self.state_saved_at > STATE_EVERY:
            self.save_state()

    def save_state(self) -> None:
        """Save the state for --resume and the history so far."""
        self.refuse_lost_weights()
        now = replace(
            self.progress, watched=self.monitor.records(), floors=self.monitor.floors,
            time=self.clock.summary(),
        )  # fmt: skip
        checkpoints.save_state(self.plan.folders.state, self.plan.fixed, now, self.gan)
        save_json(self.plan.folders.history, self.history_content(self.progress, None))
        self.state_saved_at = time.monotonic()

    def history_content(self, progress: Progress, final: Evaluation | None) -> GanTrainingHistory:
        """Return the history of ``progress``, with an evaluation after the last epoch."""
        return outputs.history_content(
            self.plan, self.data, progress, self.gan.step, self.clock.summary(), self.monitor.facts(), final
        )

    def finish(self) -> str | None:
        """Save all files of a finished run; returns why it ended before the last epoch (``reason_to_stop``).

        An evaluation after the last epoch is in these files but not in the state, nor in ``self.progress``: a
        run of more epochs would not have made it.
        """
        self.save_state()
        plan, gan, folders = self.plan, self.gan, self.plan.folders
        progress, final = self.progress, None
        with self.clock.aside():
            if names := self.monitor.due(len(progress.history), last=True):
                final = self.monitor.evaluate(names, self.sample, gan.D)
            progress = self.judged(progress, final)
            if final is not None:
                progress = self.keep_if_best(progress, final)
            checkpoints.flag_best(folders.generator_best, progress)
        checkpoints.save_networks(folders.networks(), gan, plan, self.data, progress)
        with self.clock.aside():
            grid = paths.gan_final_grid(folders.output_dir, folders.fold)
            outputs.save_samples(grid, gan, self.grid_noise, f"after {gan.step:,} steps")
            walk = paths.gan_interpolation(folders.output_dir, folders.fold)
            outputs.save_interpolation(walk, gan, self.grid_noise)
            outputs.save_figures(plan, self.history_content(progress, final), progress.stats)
        save_json(folders.history, self.history_content(progress, final))
        for line in outputs.summary(plan, progress, final, self.clock.summary()):
            log.info(line)
        return self.reason_to_stop(progress)

    def judged(self, progress: Progress, final: Evaluation | None) -> Progress:
        """Return ``progress`` as it is at the end: the last line of the statistics tells all that users must know.

        That is an evaluation after the last epoch, if there was one, beside what the line has of other
        spaces, the warnings that follow, and whether the training was too short. The file of the statistics
        is written anew.
        """
        *others, line = progress.stats
        last: StatsLine = {**line}
        if final is not None:
            earlier = line["metrics"]["spaces"] if line["metrics"] is not None else {}
            last["metrics"] = {**final, "spaces": earlier | final["spaces"]}
            last["warnings"] = self.warnings_of([*others, last])
        if message := too_short([*others, last], self.monitor.floors):
            last["warnings"] = {**last["warnings"], "too_short": message}
        if last == line:
            return progress
        stats = [*others, last]
        outputs.rewrite_stats(self.plan.folders.stats, stats)
        if self.board is not None and final is not None:
            self.board.add(line["step"], {"metrics": final})
        return replace(progress, stats=stats)

    def refuse_lost_weights(self) -> None:
        """Raise ``UserError`` if weights are not finite, which happens while the loss before still is."""
        if not self.gan.is_finite():
            raise UserError(f"the weights are not finite after step {self.gan.step}: {NOT_FINITE}")


def require_finite(meter: LossMeter) -> None:
    """Wait for the device; raises ``UserError`` with step and term if a loss was not finite."""
    if (step := meter.first_bad_step()) is not None:
        raise UserError(f"{meter.first_bad_term()} is not finite at step {step}: {NOT_FINITE}")


def part_ends(steps: int) -> set[int]:
    """Return the steps of an epoch of ``steps``, from 1, after which a line of the statistics is due.

    They end parts as equal as can be, of about ``STATS_EVERY`` steps, the last of which ends with the epoch.
    """
    parts = max(1, round(steps / STATS_EVERY))
    return {steps * part // parts for part in range(1, parts + 1)}


def describe_epoch(line: EpochLine) -> str:
    """Write the losses of an epoch in short."""
    losses = f"D {line['d_loss']:.2f}, G {line['g_loss']:.2f}"
    return f"{losses}, D(x) {line['d_real']:.2f}, D(G(z)) {line['d_fake']:.2f}"
