"""Fitting several heads on cached features at once; up to rounding, as if each were fitted alone.

A head is a logistic regression of 2,049 weights: its arithmetic costs less than the calls around it. So the
heads of folds, or of repeats, are rows of one matrix; a step gathers the images of all,
multiplies them in one batched product, and lets one AdamW, which is elementwise, step them all. The gradient
of binary cross-entropy is written out: dL/dlogit = weight (sigmoid(logit) - label) / B.

The last bits of a batched product depend on how many heads share it. So a run that is resumed after some of
its heads were finished fits the others in a smaller group, and their weights may differ by about 1e-8 from
those of a run without interruption; resumed within a group they are the same to the bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from arms.fitting import (
    Fit,
    FitTask,
    Recipe,
    adamw,
    check_losses,
    is_due,
    learning_rate_schedule,
    loss_and_accuracy,
    record_epoch,
)
from classifier import ClassifierHead, InputPipeline
from common.progress import progress_bar
from utils import derive_seed, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

VALIDATION_ROWS = 4096  # images validated at a time: 34 MB of features


def equal_steps(tasks: Sequence[FitTask], batch_size: int) -> list[list[FitTask]]:
    """Group the tasks that can be fitted together: equal steps, equal batches, one learning-rate schedule.

    Folds differ by a step where their sizes lie about a multiple of the batch size; these are two groups.
    """
    groups: dict[tuple[int, int], list[FitTask]] = {}
    for task in tasks:
        groups.setdefault(task.pool.shape(batch_size), []).append(task)
    return list(groups.values())


class Heads:
    """K heads as one: ``weight`` [K, 2048], ``bias`` [K, 1], their optimiser and schedule."""

    def __init__(self, tasks: Sequence[FitTask], recipe: Recipe, steps: int, device: torch.device) -> None:
        heads = [cast(ClassifierHead, task.module).head for task in tasks]
        with torch.no_grad():
            self.weight = torch.cat([head.weight for head in heads]).to(device)
            self.bias = torch.stack([head.bias for head in heads]).to(device)
        for parameter in (self.weight, self.bias):
            parameter.requires_grad_()
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = adamw([self.weight, self.bias], recipe)
        self.scheduler = learning_rate_schedule(self.optimizer, recipe, steps)

    @torch.no_grad()
    def step(self, features: torch.Tensor, target: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Step on features [K, B, 2048], labels [K, B], weights / B [K, B]; returns the logits before it."""
        # Written this way round the product is several times faster on CPUs than features times weights.
        logits = torch.bmm(self.weight.unsqueeze(1), features.transpose(1, 2)).squeeze(1) + self.bias
        error = (logits.sigmoid() - target) * factor
        assert self.weight.grad is not None and self.bias.grad is not None
        torch.bmm(error.unsqueeze(1), features, out=self.weight.grad.unsqueeze(1))
        torch.sum(error, dim=1, keepdim=True, out=self.bias.grad)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return logits

    @torch.no_grad()
    def logits(self, number: int, data: InputPipeline, rows: np.ndarray) -> torch.Tensor:
        """Return the logits of one head, float32 [len(rows)] on the CPU, never augmented."""
        parts = []
        for start in range(0, len(rows), VALIDATION_ROWS):
            chunk = torch.from_numpy(rows[start : start + VALIDATION_ROWS]).to(data.inputs.device)
            features = data.eval_batch(chunk).float()
            parts.append((features @ self.weight[number] + self.bias[number]).cpu())
        return torch.cat(parts)

    def state_dict(self, number: int) -> dict[str, torch.Tensor]:
        """Copy the weights of one head, named as in ``ClassifierHead``."""
        weight, bias = self.weight.detach()[number : number + 1], self.bias.detach()[number]
        return {"head.weight": weight.to("cpu", copy=True), "head.bias": bias.to("cpu", copy=True)}


# --- one epoch -------------------------------------------------------------------------------------
def train_heads_one_epoch(
    heads: Heads,
    tasks: Sequence[FitTask],
    data: InputPipeline,
    labels: torch.Tensor,
    epoch: int,
    batch_size: int,
) -> list[dict[str, float]]:
    """Train one epoch; returns loss and accuracy of each head, as ``fitting.train_one_epoch`` does.

    Raises ``UserError`` naming the head and the step if a loss is not finite.
    """
    device, n = labels.device, len(tasks)
    seeds = [derive_seed(task.seed, epoch) for task in tasks]
    batches = [task.pool.batches(epoch, batch_size, seed) for task, seed in zip(tasks, seeds, strict=True)]
    places = [data.drawn(rows, seed) for rows, seed in zip(batches, seeds, strict=True)]
    target = labels[torch.from_numpy(np.stack(batches, axis=1)).to(device)]  # [steps, K, B]
    steps, _, width = target.shape
    place = torch.from_numpy(np.stack(places, axis=1).reshape(steps, -1)).to(device)  # [steps, K * B]
    pairs = torch.tensor([task.class_weights or (1.0, 1.0) for task in tasks], device=device)  # [K, 2]
    weight = torch.where(target > 0.5, pairs[:, 1:], pairs[:, :1])
    factor, logits = weight / width, torch.empty_like(target)
    for step in range(steps):
        features = data.inputs.index_select(0, place[step]).float().view(n, width, -1)
        logits[step] = heads.step(features, target[step], factor[step])
    losses = binary_cross_entropy_with_logits(logits, target, weight, reduction="none").mean(dim=2)
    correct = ((logits >= 0) == (target > 0.5)).float().mean(dim=(0, 2)).tolist()
    for number, task in enumerate(tasks):
        check_losses(losses[:, number], f"{task.name}, epoch {epoch}: ")
    means = losses.mean(dim=0).tolist()
    return [{"loss": loss, "acc": acc} for loss, acc in zip(means, correct, strict=True)]


# --- whole fits ------------------------------------------------------------------------------------
def fit_heads(
    tasks: Sequence[FitTask],
    data: InputPipeline,
    labels: torch.Tensor,
    *,
    recipe: Recipe,
    stop_after: int | None = None,
    state_file: Path | None = None,
    resume: bool = False,
    desc: str = "training",
) -> list[Fit]:
    """Fit tasks of equal steps (``equal_steps``) together; returns what ``fitting.fit`` would give for each.

    ``data``: features. ``stop_after``, ``state_file``, ``resume``: as there; a state of other tasks is left.
    """
    (steps, _), *others = {task.pool.shape(recipe.batch_size) for task in tasks}
    assert not others, "tasks of unequal steps"
    heads = Heads(tasks, recipe, steps, labels.device)
    last, names = stop_after or recipe.epochs, [task.name for task in tasks]
    fits, first = [Fit() for _ in tasks], 1
    if resume and state_file is not None and state_file.is_file():
        state = load_checkpoint(state_file)
        if state["names"] == names:
            fits, first = _restore(state, heads), state["epoch"] + 1
            log.info(f"{desc}: resumed after epoch {first - 1}")
    host_labels, saved = labels.cpu(), time.monotonic()
    with progress_bar(total=steps * last, initial=steps * (first - 1), desc=desc, unit="step") as bar:
        for epoch in range(first, last + 1):
            train = train_heads_one_epoch(heads, tasks, data, labels, epoch, recipe.batch_size)
            for number, (task, result) in enumerate(zip(tasks, fits, strict=True)):
                result.steps += steps
                validation = None
                if task.val_rows is not None:
                    logits = heads.logits(number, data, task.val_rows)
                    validation = logits, loss_and_accuracy(logits, host_labels[task.val_rows])
                record_epoch(task.name, result, epoch, partial(heads.state_dict, number), train[number], validation)
            bar.update(steps)
            bar.set_postfix(epoch=f"{epoch}/{last}", loss=f"{np.mean([row['loss'] for row in train]):.3f}")
            if state_file is not None and epoch < last and is_due(saved):
                _save(state_file, epoch, names, heads, fits)
                saved = time.monotonic()
    for number, (task, result) in enumerate(zip(tasks, fits, strict=True)):
        if task.val_rows is None:
            result.best_epoch, result.state_dict = last, heads.state_dict(number)
    return fits


# --- resuming --------------------------------------------------------------------------------------
def _save(path: Path, epoch: int, names: list[str], heads: Heads, fits: Sequence[Fit]) -> None:
    state = {
        "epoch": epoch,
        "names": names,
        "weight": heads.weight.detach(),
        "bias": heads.bias.detach(),
        "optimizer": heads.optimizer.state_dict(),
        "scheduler": heads.scheduler.state_dict() if heads.scheduler else None,
        "fits": [dict(vars(result)) for result in fits],
    }
    save_checkpoint(path, state)


def _restore(state: dict[str, Any], heads: Heads) -> list[Fit]:
    with torch.no_grad():
        heads.weight.copy_(state["weight"])
        heads.bias.copy_(state["bias"])
    heads.optimizer.load_state_dict(state["optimizer"])
    if heads.scheduler is not None:
        heads.scheduler.load_state_dict(state["scheduler"])
    return [Fit(**content) for content in state["fits"]]
