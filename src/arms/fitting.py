"""Fitting a classifier: equal optimiser steps in every arm, the best epoch kept, resumable.

Everything random is a pure function of (seed, epoch), so a run that was interrupted and resumed ends with
the numbers of one that was not (same machine, same thread count): to the bit where whole networks are fitted,
up to rounding (about 1e-8) where several heads are fitted together (see ``head_fitting``).

Of several processes (see ``distributed``) each takes its share of every batch and of the validation images.
Gradients are means over all, so weights stay the same everywhere; BatchNorm normalises within a share, as in
DistributedDataParallel, and its running statistics are means over the processes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from arms.treatments import steps_per_epoch
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
    """How to fit: the same in every arm of a comparison."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: str  # "none" or "onecycle"
    precision: str  # "fp32" or "bf16"
    compiled: bool = False  # by torch.compile


@dataclass
class Fit:
    """What fitting gives: histories per epoch, and the weights and validation logits of the best epoch.

    Without validation images the best epoch is the last, and ``val_loss``, ``val_acc``, ``val_logits``
    are None.
    """

    best_epoch: int = 0
    steps: int = 0
    state_dict: dict[str, torch.Tensor] = field(default_factory=dict)
    val_logits: torch.Tensor | None = None
    history: dict[str, list[float]] = field(default_factory=dict)

    def curves(self) -> dict[str, list[float] | None]:
        """train_loss, train_acc, val_loss, val_acc per epoch; None where nothing was validated."""
        names = ("train_loss", "train_acc", "val_loss", "val_acc")
        return {name: self.history.get(name) for name in names}


# --- batches ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pool:
    """Rows that the epochs draw from: the real images, and ``extra`` ones (synthetic, or real again).

    ``shares``: (first epoch, share of extra images among those drawn) in ascending order; a share of None
    draws both kinds in proportion to their numbers.
    """

    real: np.ndarray
    extra: np.ndarray
    shares: tuple[tuple[int, float | None], ...] = ((1, None),)

    def share(self, epoch: int) -> float | None:
        """The share in force at ``epoch``, counted from 1."""
        return [share for first, share in self.shares if first <= epoch][-1]

    def batches(self, epoch: int, batch_size: int, seed: int) -> np.ndarray:
        """Rows to draw, int64 [steps, min(batch_size, number of real images)].

        As many steps, of as many images, as for the real images alone: every arm of a comparison takes
        equally many.
        """
        steps, width = steps_per_epoch(len(self.real), batch_size), min(batch_size, len(self.real))
        rng = np.random.default_rng(seed)
        share = self.share(epoch)
        if share is None:
            rows = shuffled(np.concatenate([self.real, self.extra]), steps * width, rng)
        else:
            n_extra = round(share * steps * width)
            real = shuffled(self.real, steps * width - n_extra, rng)
            rows = np.concatenate([real, shuffled(self.extra, n_extra, rng)])
            rows = rows if n_extra == 0 else rng.permutation(rows)
        return rows.reshape(steps, width)


def shuffled(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` of ``rows`` in random order, without replacement; where they run out, a fresh shuffle goes on.

    So every batch is full: a left-over batch of one image would break BatchNorm.
    """
    if n == 0:
        return rows[:0]
    return np.concatenate([rng.permutation(rows) for _ in range(math.ceil(n / len(rows)))])[:n]


# --- one epoch -------------------------------------------------------------------------------------
def train_one_epoch(
    model: nn.Module,
    data: InputPipeline,
    labels: torch.Tensor,
    batches: np.ndarray,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    *,
    precision: str,
    seed: int,
    class_weights: tuple[float, float] | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """One epoch over ``batches`` [steps, B] (rows of ``data``); labels float [N] on the device.

    ``class_weights``: factors of the loss of negative and positive images (default: 1). Returns mean binary
    cross-entropy (nats, so weighted) and accuracy over the images drawn, as seen while learning.
    ``UserError`` naming the step if the loss is not finite.
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
        if scheduler is not None:
            scheduler.step()
        losses[step] = loss.detach()
        correct += ((logits.detach() >= 0) == (target > 0.5)).sum()
        on_step()
    check_losses(losses)
    average([losses, correct])
    return {"loss": losses.mean().item(), "acc": correct.item() / batches.size}


def check_losses(losses: torch.Tensor) -> None:
    """``UserError`` naming the first step whose loss is not finite; float [steps]."""
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise UserError(f"the loss is not finite at step {int(bad[0]) + 1} of the epoch; lower --lr")


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Mean binary cross-entropy (nats) and accuracy at probability 0.5 of float [N] against 0/1 [N]."""
    target = labels.float()
    loss = binary_cross_entropy_with_logits(logits, target).item()
    return {"loss": loss, "acc": ((logits >= 0) == (target > 0.5)).float().mean().item()}


# --- a whole fit -----------------------------------------------------------------------------------
def fit(
    module: nn.Module,
    data: InputPipeline,
    labels: torch.Tensor,
    *,
    pool: Pool,
    recipe: Recipe,
    seed: int,
    class_weights: tuple[float, float] | None = None,
    stop_after: int | None = None,
    val_rows: np.ndarray | None = None,
    state_file: Path | None = None,
    resume: bool = False,
    desc: str = "training",
    on_step: Callable[[], object] = lambda: None,
) -> Fit:
    """Train ``module`` on the rows ``pool`` of ``data`` for ``recipe.epochs`` epochs.

    An epoch is ceil(real images / batch_size) steps, whatever else is in ``pool``. ``stop_after`` ends
    training earlier without changing the learning-rate schedule, so that a refit walks the path that the
    folds walked. With ``val_rows`` the epoch of lowest validation loss is kept. ``state_file`` is written at
    most once a minute; with ``resume`` training goes on from it. ``on_step`` is called after every step.
    """
    steps = steps_per_epoch(len(pool.real), recipe.batch_size)
    check_batch_size(min(recipe.batch_size, len(pool.real)))
    require_same_weights(f"initial weights ({desc})", module)
    if recipe.compiled:
        module.compile()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = None
    if recipe.schedule == "onecycle":
        total = steps * recipe.epochs
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=total)
    last = stop_after or recipe.epochs
    result, first = Fit(), 1
    state = from_main(_read, state_file) if resume and state_file is not None else None
    if state is not None:
        result, first = _restore(state, module, optimizer, scheduler)
        log.info(f"{desc}: resumed after epoch {first - 1}")

    saved = time.monotonic()
    with progress_bar(total=steps * last, initial=steps * (first - 1), desc=desc, unit="step") as bar:

        def count_step() -> None:
            bar.update()
            on_step()

        for epoch in range(first, last + 1):
            module.train()
            batches = pool.batches(epoch, recipe.batch_size, derive_seed(seed, epoch))
            try:
                train = train_one_epoch(
                    module, data, labels, batches, optimizer, scheduler,
                    precision=recipe.precision, seed=derive_seed(seed, epoch), class_weights=class_weights,
                    on_step=count_step,
                )  # fmt: skip
            except UserError as error:
                raise UserError(f"{desc}, epoch {epoch}: {error}") from None
            result.steps += steps
            validation = _validate(module, data, labels, val_rows, recipe)
            record_epoch(result, epoch, lambda: cpu_state_dict(module), train, validation)
            bar.set_postfix(epoch=f"{epoch}/{last}", loss=f"{train['loss']:.3f}", best=result.best_epoch)
            due = state_file is not None and time.monotonic() - saved > SAVE_EVERY_SECONDS
            if due and epoch < last and is_main():
                _save(state_file, epoch, result, module, optimizer, scheduler)
                saved = time.monotonic()
    require_same_weights(f"weights ({desc})", module)
    if val_rows is None:
        result.best_epoch, result.state_dict = last, cpu_state_dict(module)
    return result


def _validate(
    module: nn.Module,
    data: InputPipeline,
    labels: torch.Tensor,
    val_rows: np.ndarray | None,
    recipe: Recipe,
) -> tuple[torch.Tensor, dict[str, float]] | None:
    if val_rows is None:
        return None
    module.eval()
    batch_size, precision = 2 * recipe.batch_size, recipe.precision
    logits = predict(module, data, val_rows, batch_size=batch_size, precision=precision)
    return logits, loss_and_accuracy(logits, labels.cpu()[val_rows])


def predict(
    module: nn.Module, data: InputPipeline, rows: np.ndarray, *, batch_size: int, precision: str
) -> torch.Tensor:
    """``predict_batches``, to which each process contributes its share of ``rows``."""
    mine = predict_batches(module, data, rows[my_share()], batch_size=batch_size, precision=precision)
    return merge_shares(gather(mine))


def record_epoch(
    result: Fit,
    epoch: int,
    weights: Callable[[], dict[str, torch.Tensor]],
    train: dict[str, float],
    validation: tuple[torch.Tensor, dict[str, float]] | None,
) -> None:
    """Append an epoch to the history; keep a copy of the weights if it is the best so far by validation loss.

    ``validation``: logits [V] and their loss and accuracy. ``UserError`` if that loss is not finite.
    """
    row = {"train_loss": train["loss"], "train_acc": train["acc"]}
    if validation is not None:
        logits, val = validation
        row |= {"val_loss": val["loss"], "val_acc": val["acc"]}
        if not math.isfinite(val["loss"]):
            raise UserError(f"the validation loss is not finite after epoch {epoch}; lower --lr")
        if val["loss"] < min(result.history.get("val_loss", [math.inf])):
            result.best_epoch, result.val_logits = epoch, logits
            result.state_dict = weights()
    for name, value in row.items():
        result.history.setdefault(name, []).append(value)


# --- resuming --------------------------------------------------------------------------------------
def _save(
    path: Path,
    epoch: int,
    result: Fit,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
) -> None:
    state = {
        "epoch": epoch,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler else None,
        "fit": fit_to_dict(result),
    }
    save_checkpoint(path, state)


def _read(path: Path) -> dict[str, Any] | None:
    return load_checkpoint(path) if path.is_file() else None


def _restore(
    state: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
) -> tuple[Fit, int]:
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    return fit_from_dict(state["fit"]), state["epoch"] + 1


def fit_to_dict(result: Fit) -> dict[str, Any]:
    """A ``Fit`` as tensors and plain types, for a checkpoint."""
    return dict(vars(result))


def fit_from_dict(content: dict[str, Any]) -> Fit:
    return Fit(**content)
