"""Fitting a classifier: equal optimiser steps in every arm, the best epoch kept, resumable.

Everything random is a pure function of (seed, epoch). So an interrupted and resumed run ends with the numbers
of an uninterrupted one (same machine, same thread count): to the bit where whole networks are fitted, up to
rounding (about 1e-8) where several heads are fitted together (see ``head_fitting``).

Each of several processes (``common.distributed``) takes its share of every batch and of the validation
images. Gradients are means over all, so weights stay the same everywhere; BatchNorm normalises within a
share, as in DistributedDataParallel, and its running statistics are means over the processes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from arms.file_formats import Curves
from arms.registry import BY_NUMBER, Shares, steps_per_epoch
from classifier import InputPipeline, cpu_state_dict, predict_batches
from common.distributed import (
    average,
    average_training,
    check_batch_size,
    from_main,
    gather,
    is_main,
    merge_shares,
    my_share,
    rank,
    require_same_weights,
)
from common.progress import progress_bar
from utils import UserError, autocast, derive_seed, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 60.0  # a ResNet-50's training state is 380 MB


@dataclass(frozen=True)
class Recipe:
    """Settings of a fit; they are the same in every arm of a comparison."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: str  # "none" or "onecycle"
    precision: str  # "fp32" or "bf16"
    compiled: bool = False  # by torch.compile


@dataclass
class Fit:
    """The result of a fit: histories per epoch, and the weights and validation logits of the best epoch.

    Without validation images the best epoch is the last, and ``val_loss``, ``val_acc``, ``val_logits``
    are None.
    """

    best_epoch: int = 0
    steps: int = 0
    state_dict: dict[str, torch.Tensor] = field(default_factory=dict)
    val_logits: torch.Tensor | None = None
    history: dict[str, list[float]] = field(default_factory=dict)

    def curves(self) -> Curves:
        """Losses and accuracies per epoch; None where nothing was validated."""
        return cast(Curves, {name: self.history.get(name) for name in Curves.__annotations__})


# --- batches ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pool:
    """Rows that the epochs draw from: the real images, and ``extra`` ones (synthetic, or real again).

    ``shares``: (first epoch, share of extra images among those drawn) in ascending order; a share of None
    draws both kinds in proportion to their numbers. ``epoch_images``: images drawn in an epoch, None: as many as
    there are real ones.
    """

    real: np.ndarray
    extra: np.ndarray
    shares: Shares = BY_NUMBER
    epoch_images: int | None = None

    def shape(self, batch_size: int) -> tuple[int, int]:
        """Return (steps of an epoch, images of a batch)."""
        n = self.epoch_images or len(self.real)
        return steps_per_epoch(n, batch_size), min(batch_size, n)

    def share(self, epoch: int) -> float | None:
        """Return the share in force at ``epoch``, counted from 1."""
        return [share for first, share in self.shares if first <= epoch][-1]

    def batches(self, epoch: int, batch_size: int, seed: int) -> np.ndarray:
        """Return the rows to draw, int64 [steps, min(batch_size, number of real images)].

        As many steps, of as many images, as for the real images alone: every arm of a comparison takes
        equally many.
        """
        steps, width = self.shape(batch_size)
        rng = np.random.default_rng(seed)
        if (share := self.share(epoch)) is None:
            rows = shuffled(np.concatenate([self.real, self.extra]), steps * width, rng)
        else:
            n_extra = round(share * steps * width)
            real = shuffled(self.real, steps * width - n_extra, rng)
            rows = np.concatenate([real, shuffled(self.extra, n_extra, rng)])
            rows = rows if n_extra == 0 else rng.permutation(rows)
        return rows.reshape(steps, width)


def shuffled(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``n`` of ``rows`` in random order; where they run out, a fresh shuffle goes on.

    So every batch is full: a left-over batch of one image would break BatchNorm.
    """
    if n == 0:
        return rows[:0]
    return np.concatenate([rng.permutation(rows) for _ in range(math.ceil(n / len(rows)))])[:n]


@dataclass(frozen=True)
class FitTask:
    """One fit: a fresh ``module`` and what it learns from. Messages call it ``name``.

    Without ``val_rows`` nothing is validated. ``class_weights``: factors of the loss of negative and positive
    images, None for 1.
    """

    name: str
    module: nn.Module
    pool: Pool
    seed: int
    val_rows: np.ndarray | None = None
    class_weights: tuple[float, float] | None = None


# --- one epoch -------------------------------------------------------------------------------------
def train_one_epoch(
    model: nn.Module,
    data: InputPipeline,
    labels: torch.Tensor,
    batches: np.ndarray,
    optimizer: torch.optim.Optimizer,
    *,
    precision: str,
    seed: int,
    class_weights: tuple[float, float] | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Train one epoch on ``batches`` [steps, B] (rows of ``data``); labels float [N] on the device.

    ``class_weights``: factors of the loss of negative and positive images (default: 1). ``on_step`` is called
    after every step. Returns mean binary cross-entropy (nats, so weighted) and accuracy over the images
    drawn, as seen while learning. Raises ``UserError`` naming the step if the loss is not finite.
    """
    device, batches = labels.device, batches[:, my_share()]
    process = [rank()] if not is_main() else []  # each varies its images in its own way
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment", *process))
    losses = torch.zeros(len(batches), device=device)
    correct = torch.zeros((), device=device)
    rows = torch.from_numpy(batches).to(device)
    places = torch.from_numpy(data.drawn(batches, seed)).to(device)
    for step in range(len(batches)):
        target = labels[rows[step]]
        with autocast(device, precision):
            logits = model(data.train_batch(places[step], generator))
        weight = None
        if class_weights is not None:
            weight = torch.where(target > 0.5, class_weights[1], class_weights[0])
        loss = binary_cross_entropy_with_logits(logits.float(), target, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_training(model)
        optimizer.step()
        losses[step] = loss.detach()
        correct += ((logits.detach() >= 0) == (target > 0.5)).sum()
        on_step()
    check_losses(losses)
    average([losses, correct])
    return {"loss": losses.mean().item(), "acc": correct.item() / batches.size}


def check_losses(losses: torch.Tensor, where: str = "") -> None:
    """Raise ``UserError`` naming ``where`` and the first step whose loss, of float [steps], is not finite."""
    if len(bad := (~torch.isfinite(losses)).nonzero()):
        raise UserError(f"{where}the loss is not finite at step {int(bad[0]) + 1} of the epoch; lower --lr")


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return the mean binary cross-entropy (nats) and accuracy of logits [N] against labels 0/1 [N]."""
    target = labels.float()
    loss = binary_cross_entropy_with_logits(logits, target).item()
    return {"loss": loss, "acc": ((logits >= 0) == (target > 0.5)).float().mean().item()}


# --- a whole fit -----------------------------------------------------------------------------------
class _Learner:
    """A fit in progress: its optimiser, its learning rate, and what it has given so far."""

    def __init__(self, task: FitTask, data: InputPipeline, labels: torch.Tensor, recipe: Recipe) -> None:
        self.task, self.data, self.labels, self.recipe = task, data, labels, recipe
        self.module, self.fit = task.module, Fit()
        learning = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimizer = adamw(learning, recipe)
        self.scheduler = learning_rate_schedule(self.optimizer, recipe, task.pool.shape(recipe.batch_size)[0])

    def train(self, epoch: int, on_step: Callable[[], object]) -> dict[str, float]:
        """Train one epoch; see ``train_one_epoch``."""
        seed = derive_seed(self.task.seed, epoch)
        self.module.train()
        try:
            return train_one_epoch(
                self.module,
                self.data,
                self.labels,
                self.task.pool.batches(epoch, self.recipe.batch_size, seed),
                self.optimizer,
                precision=self.recipe.precision,
                seed=seed,
                class_weights=self.task.class_weights,
                on_step=on_step,
            )
        except UserError as error:
            raise UserError(f"{self.task.name}, epoch {epoch}: {error}") from None

    def validate(self) -> tuple[torch.Tensor, dict[str, float]] | None:
        """Return the logits of the validation rows, their loss and accuracy; None without such rows."""
        if (rows := self.task.val_rows) is None:
            return None
        batch_size, precision = 2 * self.recipe.batch_size, self.recipe.precision
        logits = predict(self.module.eval(), self.data, rows, batch_size=batch_size, precision=precision)
        return logits, loss_and_accuracy(logits, self.labels.cpu()[rows])

    def state(self, epoch: int) -> dict[str, Any]:
        """Return the state after ``epoch``, for a checkpoint."""
        return {
            "epoch": epoch,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "fit": dict(vars(self.fit)),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Take up a ``state``; returns the epoch after which it was written."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.fit = Fit(**state["fit"])
        return state["epoch"]


def adamw(parameters: Sequence[torch.Tensor], recipe: Recipe) -> torch.optim.AdamW:
    """Make the optimiser of ``parameters``."""
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Make the schedule of a fit of ``steps`` an epoch; None for a constant learning rate."""
    if recipe.schedule == "none":
        return None
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps * recipe.epochs)


def fit(
    task: FitTask,
    data: InputPipeline,
    labels: torch.Tensor,
    recipe: Recipe,
    *,
    stop_after: int | None = None,
    state_file: Path | None = None,
    resume: bool = False,
    on_step: Callable[[], object] = lambda: None,
) -> Fit:
    """Train the module of ``task`` on ``data`` with ``labels`` [N] for ``recipe.epochs`` epochs.

    An epoch is ceil(real images / batch_size) steps, whatever else is drawn. ``stop_after`` ends training
    earlier without changing the learning-rate schedule, so that a refit walks the path that the folds walked.
    With validation rows the epoch of lowest validation loss is kept. ``state_file`` is written at most once a
    minute; with ``resume`` training goes on from it. ``on_step`` is called after every step.
    """
    module, (steps, batch_size) = task.module, task.pool.shape(recipe.batch_size)
    check_batch_size(batch_size)
    require_same_weights(f"initial weights ({task.name})", module)
    if recipe.compiled:
        module.compile()
    learner, done = _Learner(task, data, labels, recipe), 0
    if resume and state_file is not None and (state := from_main(_read_state, state_file)) is not None:
        done = learner.restore(state)
        log.info(f"{task.name}: resumed after epoch {done}")
    last, saved = stop_after or recipe.epochs, time.monotonic()
    with progress_bar(total=steps * last, initial=steps * done, desc=task.name, unit="step") as bar:

        def count_step() -> None:
            if learner.scheduler is not None:
                learner.scheduler.step()
            bar.update()
            on_step()

        for epoch in range(done + 1, last + 1):
            train = learner.train(epoch, count_step)
            learner.fit.steps += steps
            record_epoch(task.name, learner.fit, epoch, lambda: cpu_state_dict(module), train, learner.validate())
            bar.set_postfix(epoch=f"{epoch}/{last}", loss=f"{train['loss']:.3f}", best=learner.fit.best_epoch)
            if state_file is not None and epoch < last and is_due(saved) and is_main():
                save_checkpoint(state_file, learner.state(epoch))
                saved = time.monotonic()
    require_same_weights(f"weights ({task.name})", module)
    if task.val_rows is None:
        learner.fit.best_epoch, learner.fit.state_dict = last, cpu_state_dict(module)
    return learner.fit


def _read_state(path: Path) -> dict[str, Any] | None:
    return load_checkpoint(path) if path.is_file() else None


def is_due(saved: float) -> bool:
    """Tell whether a training state last saved at ``saved`` (monotonic seconds) is to be saved again."""
    return time.monotonic() - saved > SAVE_EVERY_SECONDS


def predict(
    module: nn.Module, data: InputPipeline, rows: np.ndarray, *, batch_size: int, precision: str
) -> torch.Tensor:
    """Predict ``rows`` as ``predict_batches`` does, each process its share of them."""
    mine = predict_batches(module, data, rows[my_share()], batch_size=batch_size, precision=precision)
    return merge_shares(gather(mine))


def record_epoch(
    name: str,
    result: Fit,
    epoch: int,
    weights: Callable[[], dict[str, torch.Tensor]],
    train: dict[str, float],
    validation: tuple[torch.Tensor, dict[str, float]] | None,
) -> None:
    """Append an epoch of the fit ``name`` to its history; keep the weights if the validation loss is the lowest so far.

    ``validation``: logits [V] and their loss and accuracy. Raises ``UserError`` if that loss is not finite.
    """
    row = {"train_loss": train["loss"], "train_acc": train["acc"]}
    if validation is not None:
        logits, val = validation
        row |= {"val_loss": val["loss"], "val_acc": val["acc"]}
        if not math.isfinite(val["loss"]):
            raise UserError(f"{name}, epoch {epoch}: the validation loss is not finite; lower --lr")
        if val["loss"] < min(result.history.get("val_loss", [math.inf])):
            result.best_epoch, result.val_logits, result.state_dict = epoch, logits, weights()
    for quantity, value in row.items():
        result.history.setdefault(quantity, []).append(value)
