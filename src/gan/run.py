"""One run of GAN training: the loop over epochs, and what is looked at on the way.

The state for --resume is saved at the ends of epochs, so an interrupted run repeats at most what lies
after the last of them, and ends with the very files that an uninterrupted run would have written. Of several
processes (see ``distributed``), which all train, the main one alone evaluates, reads the state and writes
files.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from torch import Tensor
from tqdm import tqdm

from common import paths
from common.distributed import from_main, my_share, require_same_weights
from common.progress import progress_bar
from data_loader import to_gan_range
from gan import files as gan_files
from gan.clock import Clock, TimeEstimate, peak_memory_mb, quicker_options
from gan.monitor import Monitor, MonitorOptions, better
from gan.networks import GENERATOR_FORMAT
from gan.probe import gradient_shares
from gan.resume import STATE_FORMAT
from gan.setup import Folders, Schedule, TrainingSet
from gan.training import (
    GAN,
    PERCEPTUAL_IMAGES,
    LossMeter,
    Objective,
    epoch_batches,
    image_noise,
    step_noise,
    train_step,
)
from gan.warnings import active_warnings, new_warnings
from utils import UserError, save_checkpoint

log = logging.getLogger(__name__)


CHECK_EVERY = 50  # steps between looks at the losses, which stay on the device
STATS_EVERY = 200  # steps, at most about so many, that a line of the statistics is about
PROBE_EVERY = 500  # steps from one look at the shares of G's gradient, which takes about a step, to the next
STATE_EVERY = 300.0  # seconds after which the end of an epoch saves the state in any case
NOT_FINITE = (
    "training stopped, the last good checkpoint is kept; a lower --lr, a larger --batch-size or "
    "--precision fp32 may help"
)


class Run:
    """What is trained, on what, and what has been seen so far.

    ``settings``: what may not change on resume, by flag. ``facts``: what every result file records
    (config, environment, seed). ``vis_noise`` [N, input_dim]: the noise of every sample grid.
    ``show_reals``: may a grid of real training images lie beside them? ``history``: a line per epoch;
    ``stats``: a line per so many steps, of the main process; ``best``: the generator of the lowest KID.
    """

    def __init__(
        self, gan: GAN, data: TrainingSet, objective: Objective, schedule: Schedule, folders: Folders,
        settings: dict[str, Any], facts: dict[str, Any], vis_batch_size: int, show_reals: bool = True,
        monitoring: MonitorOptions | None = None,
    ) -> None:  # fmt: skip
        self.gan, self.data, self.objective = gan, data, objective
        self.schedule, self.folders, self.settings, self.facts = schedule, folders, settings, facts
        self.monitoring = monitoring or MonitorOptions()
        self.seed, self.precision = facts["seed"], settings["--precision"]
        self.show_reals = show_reals
        self.steps_per_epoch = len(data.pixels) // schedule.batch_size
        self.vis_noise = image_noise(self.seed, "samples", 1, vis_batch_size, gan.G.input_dim)
        self.history: list[dict[str, Any]] = []
        self.stats: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.watched: dict[str, Any] | None = None  # which spaces are evaluated when, of an earlier part
        self.floors: dict[str, Any] = {}  # what real images score, by space, of an earlier part
        self.clock = Clock()
        self.monitor: Monitor | None = None
        self.board: gan_files.TensorBoard | None = None
        self.state_saved_at = time.monotonic()

    def images_seen(self) -> int:
        return self.gan.step * self.schedule.batch_size

    # --- training
    def train(self) -> None:
        """From the epoch after the last one in ``history`` to the last; leaves all files written.

        ``UserError`` in the end if --stop-on-collapse ended it.
        """
        total, done = self.schedule.epochs * self.steps_per_epoch, self.gan.step
        self.clock.start()
        from_main(self.prepare)
        hint = quicker_options(self.gan.G.image_size, self.objective.perceptual_loss is not None)
        estimate = TimeEstimate(total - done, self.schedule.batch_size, hint)
        with progress_bar(total=total, initial=done, unit="step", smoothing=0.05) as bar:
            for epoch in range(len(self.history) + 1, self.schedule.epochs + 1):
                bar.set_description(f"epoch {epoch}/{self.schedule.epochs}")
                self.train_one_epoch(epoch, bar, estimate)
                bar.set_postfix_str(describe_epoch(self.history[-1]), refresh=False)
                if epoch % self.schedule.checkpoint_interval == 0:
                    self.check_weights()
                from_main(self.save_epoch, epoch)
                if from_main(self.reason_to_stop) is not None:
                    break
        self.check_weights()  # whatever ended the run
        stop = from_main(self.save_final)
        if stop == "collapse":
            raise UserError(
                f"training stopped after epoch {len(self.history)}: mode collapse (--stop-on-collapse); all "
                "files are written, and generator_best may be of before"
            )
        if stop is not None and len(self.history) < self.schedule.epochs:
            log.info(f"--max-minutes: stopped after epoch {len(self.history)}; --resume goes on")

    def prepare(self) -> None:
        """Before the first step, in the main process: what it is watched with, and files of earlier runs."""
        gan_files.remove_unfinished(self)
        gan_files.save_reals(self)
        gan_files.rewrite_stats(self)
        gan_files.save_best(self)
        if self.monitoring.tensorboard:
            folder = paths.gan_events(self.folders.output, self.folders.fold)
            self.board = gan_files.TensorBoard(folder, self.gan.step)
        with self.clock.aside():
            self.monitor = Monitor.of_run(self)
        for line in self.monitor.notices(self.schedule.epochs):
            log.info(line)

    def train_one_epoch(self, epoch: int, bar: tqdm[Any], estimate: TimeEstimate) -> None:
        """Every image once, save for an incomplete batch; adds the epoch's line to the history."""
        gan, batch_size = self.gan, self.schedule.batch_size
        whole, part = self.meter(), self.meter()
        ends = part_ends(self.steps_per_epoch)
        for number, rows in enumerate(epoch_batches(len(self.data.pixels), batch_size, self.seed, epoch), 1):
            step = gan.step
            part.add(self.step(rows), step)
            bar.update()
            if gan.step % CHECK_EVERY == 0 or estimate.pending:
                self.check(part)
                estimate.after_step()
            if gan.step % self.schedule.save_interval == 0:
                self.check(part)
                from_main(self.save_samples)
            if number in ends:
                self.check(part)
                whole.include(part)
                if number == self.steps_per_epoch:
                    line = {"epoch": epoch, "step": gan.step, "images_seen": self.images_seen()}
                    self.history.append(line | whole.means())
                from_main(self.record, epoch, part.means(), part.steps)
                part = self.meter()

    def meter(self) -> LossMeter:
        return LossMeter(self.objective, self.data.pixels.device)

    def step(self, rows: Tensor) -> Tensor:
        """One step on the images ``rows`` [batch_size], of which each process takes its share."""
        data, gan = self.data, self.gan
        real = to_gan_range(data.pixels[rows[my_share()].to(data.pixels.device)], gan.G.num_channels)
        z = step_noise(self.seed, gan.step, self.schedule.batch_size, gan.G.input_dim)
        labels = None if data.labels is None else data.labels[rows[my_share()].to(data.labels.device)]
        return train_step(gan, real, z[my_share()].to(real.device), self.objective, self.precision, labels)

    def check(self, meter: LossMeter) -> None:
        """Wait for the device; ``UserError`` with step and term if one was not finite."""
        if (step := meter.first_bad_step()) is not None:
            raise UserError(f"{meter.first_bad_term()} is not finite at step {step}: {NOT_FINITE}")

    def check_weights(self) -> None:
        """``UserError`` if the weights are not the same in all processes."""
        gan = self.gan
        require_same_weights(f"weights after epoch {len(self.history)}", gan.G, gan.D, gan.G_ema)

    def reason_to_stop(self) -> str | None:
        """After an epoch: "collapse", "time" or nothing."""
        if self.monitoring.stop_on_collapse and self.stats and "collapse" in self.stats[-1]["warnings"]:
            return "collapse"
        limit = self.schedule.max_minutes
        return "time" if limit is not None and self.clock.seconds() >= 60 * limit else None

    # --- watching, in the main process
    def record(self, epoch: int, means: dict[str, float | None], steps: int) -> None:
        """Add a line to the statistics, with an evaluation where one is due at the end of an epoch, and say
        what it warns of. Nothing here changes the training."""
        gan = self.gan
        line: dict[str, Any] = {
            "step": gan.step,
            "epoch": epoch,
            "epoch_fraction": gan.step / self.steps_per_epoch,
            "images_seen": self.images_seen(),
            "steps": steps,
            **means,
            "shares": None,
            "metrics": None,
            "time": self.clock.lap(steps * self.schedule.batch_size),
            "memory": {"peak_mb": peak_memory_mb(self.data.pixels.device)},
        }
        with self.clock.aside():
            if (gan.step - steps) // PROBE_EVERY < gan.step // PROBE_EVERY or gan.step == steps:
                line["shares"] = self.probe()
            if gan.step % self.steps_per_epoch == 0 and (names := self.monitor.due(epoch)):
                line["metrics"] = self.evaluate(names)
                self.history[-1]["metrics"] = line["metrics"]
            self.warn(line)
            if line["metrics"] is not None:
                self.keep_if_best(line["metrics"])
            gan_files.append_stats(self)
            if self.board is not None:
                self.board.add(line)

    def probe(self) -> dict[str, float]:
        """Each term's share of G's gradient, on the same images all along."""
        n = min(PERCEPTUAL_IMAGES, self.schedule.batch_size)
        real = to_gan_range(self.data.pixels[:n], self.gan.G.num_channels)
        labels = None if self.data.labels is None else self.data.labels[:n]
        return gradient_shares(self.gan, real, self.objective, self.precision, self.seed, labels)

    def evaluate(self, spaces: list[str]) -> dict[str, Any]:
        return self.monitor.evaluate(spaces, lambda z, label: gan_files.generate(self, z, label), self.gan.D)

    def warn(self, line: dict[str, Any]) -> None:
        """Make ``line`` the last of the statistics, with all warnings that hold, and print the new ones."""
        self.stats.append(line)
        line["warnings"] = self.current_warnings()
        for message in new_warnings(self.stats).values():
            log.warning(f"WARNING at step {line['step']:,}: {message}")

    def current_warnings(self) -> dict[str, str]:
        """Those that hold at the last line of the statistics."""
        return active_warnings(self.stats, self.gan.options, self.monitor.primary, self.precision)

    def judge_end(self, metrics: dict[str, Any]) -> None:
        """Let the last line of the statistics bear an evaluation after the last epoch, beside what it has of
        other spaces, and the warnings that follow: whoever uses the generator must know of them."""
        if not self.stats:  # of a state of an earlier version, with nothing trained since
            return
        spaces = (self.stats[-1]["metrics"] or {"spaces": {}})["spaces"] | metrics["spaces"]
        line = self.stats[-1] | {"metrics": metrics | {"spaces": spaces}}
        self.stats = [*self.stats[:-1], line]
        line["warnings"] = self.current_warnings()
        gan_files.rewrite_stats(self)
        if self.board is not None:
            self.board.add({"step": line["step"], "metrics": metrics})

    def keep_if_best(self, metrics: dict[str, Any]) -> None:
        primary = self.monitor.primary
        if better(metrics, primary, self.best):
            kid = metrics["spaces"][primary]["kid"]
            where = {"epoch": len(self.history), "step": self.gan.step, "images_seen": self.images_seen()}
            self.best = {"kid": kid, "space": primary, **where}
            content = gan_files.network_checkpoint(self, GENERATOR_FORMAT, self.gan.G_ema)
            self.best["checkpoint"] = content | {"kid": kid, "kid_space": primary}
            gan_files.save_best(self)

    def red_flags(self) -> list[str]:
        """What everybody who uses the generator as it is now must know."""
        active = self.stats[-1]["warnings"] if self.stats else {}
        return [*self.data.red_flags, *(f"GAN training: {message}" for message in active.values())]

    # --- saving, in the main process
    def save_samples(self) -> None:
        with self.clock.aside():
            path = paths.gan_sample_grid(self.folders.output, self.gan.step, self.folders.fold)
            gan_files.save_samples(self, path, f"step {self.gan.step:,}")

    def save_epoch(self, epoch: int) -> None:
        """Checkpoints every ``checkpoint_interval`` epochs; the state then, and when it is old. The state
        comes last: what it leaves behind it must be there, as a resumed run does not make it again."""
        due = epoch % self.schedule.checkpoint_interval == 0
        if due:
            self.refuse_lost_weights()
            models, fold = self.folders.models, self.folders.fold
            generator = paths.generator_epoch(models, epoch, fold)
            gan_files.save_networks(self, generator, paths.discriminator_epoch(models, epoch, fold))
        if due or time.monotonic() - self.state_saved_at > STATE_EVERY:
            self.save_state()

    def save_final(self) -> str | None:
        """All files of a finished run; returns why it ended before the last epoch, as ``reason_to_stop``.

        An evaluation after the last epoch is not part of the state: a run of more epochs would not have made
        it."""
        self.save_state()
        where, fold, of_state = self.folders, self.folders.fold, (self.best, self.stats)
        metrics = None
        with self.clock.aside():
            if self.history and (names := self.monitor.due(len(self.history), last=True)):
                metrics = self.evaluate(names)
                self.judge_end(metrics)
                self.keep_if_best(metrics)
        generator = paths.generator_final(where.models, fold)
        gan_files.save_networks(self, generator, paths.discriminator_final(where.models, fold))
        with self.clock.aside():
            gan_files.save_samples(
                self, paths.gan_final_grid(where.output, fold), f"after {self.gan.step:,} steps"
            )
            gan_files.save_interpolation(self)
            gan_files.save_figures(self, metrics)
        gan_files.save_history(self, metrics)
        for line in gan_files.summary(self, metrics):
            log.info(line)
        stop = self.reason_to_stop()
        self.best, self.stats = of_state
        return stop

    def save_state(self) -> None:
        """The state for --resume and the history so far."""
        self.refuse_lost_weights()
        state = {
            "format": STATE_FORMAT,
            "settings": self.settings,
            "history": self.history,
            "stats": self.stats,
            "best": self.best,
            "watched": self.monitor.tables_as_dict(),
            "floors": self.monitor.floors,
            "clock": self.clock.state(),
        }
        path = paths.gan_state(self.folders.models, self.folders.fold)
        save_checkpoint(path, state | self.gan.state_dict())
        gan_files.save_history(self)
        self.state_saved_at = time.monotonic()

    def refuse_lost_weights(self) -> None:
        """``UserError`` if weights are no longer finite, which happens while the loss before still is."""
        if not self.gan.is_finite():
            raise UserError(f"the weights are not finite after step {self.gan.step}: {NOT_FINITE}")


def part_ends(steps: int) -> set[int]:
    """The steps of an epoch of ``steps``, counted from 1, after which a line of the statistics is due: parts
    as equal as can be, of about ``STATS_EVERY`` steps, the last of which ends with the epoch."""
    parts = max(1, round(steps / STATS_EVERY))
    return {steps * part // parts for part in range(1, parts + 1)}


def describe_epoch(line: dict[str, Any]) -> str:
    losses = f"D {line['d_loss']:.2f}, G {line['g_loss']:.2f}"
    return f"{losses}, D(x) {line['d_real']:.2f}, D(G(z)) {line['d_fake']:.2f}"
