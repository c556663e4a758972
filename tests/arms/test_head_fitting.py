"""Heads fitted together against heads fitted one by one with ``fitting.fit``."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from arms import fitting
from arms.fitting import Fit, FitTask, Pool, Recipe, fit
from arms.head_fitting import equal_steps, fit_heads
from classifier import ClassifierHead, InputPipeline
from utils import UserError

N, EXTRA = 210, 40
PLAIN = Recipe(epochs=4, batch_size=16, lr=0.003, weight_decay=0.01, schedule="none", precision="fp32")
ONECYCLE = Recipe(epochs=4, batch_size=16, lr=0.01, weight_decay=0.0, schedule="onecycle", precision="fp32")
# 42 images a fold would leave equal steps; these leave 10 steps of an epoch to two folds and 11 to two.
FOLD_SIZES = (56, 42, 53, 59)


@pytest.fixture
def data() -> tuple[InputPipeline, torch.Tensor]:
    """250 images in float16 features [250, 2048], two classes that a head separates mostly."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N + EXTRA)
    features = rng.normal(size=(N + EXTRA, 2048)) * 0.5
    features[:, :20] += labels[:, None]
    return InputPipeline(torch.from_numpy(features).half()), torch.from_numpy(labels).float()


def tasks_of(validate: bool = True, **changes) -> list[FitTask]:
    fold = np.repeat(np.arange(4), FOLD_SIZES)
    tasks = []
    for number in range(4):
        torch.manual_seed(number)
        extra = np.arange(N, N + EXTRA) if number == 1 else np.arange(0)
        pool = Pool(np.flatnonzero(fold != number), extra, ((1, None), (3, 0.2)) if number == 1 else ((1, None),))
        val_rows = np.flatnonzero(fold == number) if validate else None
        weights = (0.5, 2.0) if number == 2 else None
        task = {"pool": pool, "seed": 7 + number, "val_rows": val_rows, "class_weights": weights, **changes}
        tasks.append(FitTask(f"fold {number + 1}", ClassifierHead(), **task))
    return tasks


def one_by_one(tasks: list[FitTask], data: InputPipeline, labels: torch.Tensor, **options) -> list[Fit]:
    fits = []
    for task in tasks:
        head = ClassifierHead()
        head.load_state_dict(task.module.state_dict())
        fits.append(fit(replace(task, module=head), data, labels, **options))
    return fits


def together(tasks: list[FitTask], data: InputPipeline, labels: torch.Tensor, **options) -> list[Fit]:
    fits = {}
    for group in equal_steps(tasks, options["recipe"].batch_size):
        fits |= zip([task.name for task in group], fit_heads(group, data, labels, **options), strict=True)
    return [fits[task.name] for task in tasks]


def assert_same(fits: list[Fit], expected: list[Fit]) -> None:
    for own, other in zip(fits, expected, strict=True):
        assert own.best_epoch == other.best_epoch and own.steps == other.steps
        for name, values in other.history.items():
            assert own.history[name] == pytest.approx(values, abs=1e-4), name
        if other.val_logits is None:
            assert own.val_logits is None
        else:
            assert torch.allclose(own.val_logits, other.val_logits, atol=1e-4)
        assert list(own.state_dict) == list(other.state_dict)
        for key, value in other.state_dict.items():
            assert own.state_dict[key].shape == value.shape
            assert torch.allclose(own.state_dict[key], value, atol=1e-5), key


def test_tasks_of_unequal_steps_are_not_mixed():
    groups = equal_steps(tasks_of(), 16)
    assert [[task.name for task in group] for group in groups] == [
        ["fold 1", "fold 3", "fold 4"], ["fold 2"]
    ]  # fmt: skip
    assert len(equal_steps(tasks_of(), 500)) == 4, "a batch of all real images is of another size in each fold"


@pytest.mark.parametrize("recipe", [PLAIN, ONECYCLE], ids=["constant", "onecycle"])
def test_together_is_one_by_one(data, recipe):
    """With folds of unequal steps, synthetic images by a schedule in one, and class weights in another."""
    fits = together(tasks_of(), *data, recipe=recipe)
    assert_same(fits, one_by_one(tasks_of(), *data, recipe=recipe))
    assert fits[0].history["val_loss"][-1] < fits[0].history["val_loss"][0], "they learn"


def test_without_validation_training_stops_where_it_is_told(data):
    options = {"recipe": ONECYCLE, "stop_after": 2}
    fits = together(tasks_of(validate=False), *data, **options)
    assert_same(fits, one_by_one(tasks_of(validate=False), *data, **options))
    assert [result.best_epoch for result in fits] == [2] * 4
    assert fits[0].curves()["val_loss"] is None


def test_an_earlier_best_epoch_is_kept_as_a_copy(data):
    wild = Recipe(epochs=6, batch_size=4, lr=0.5, weight_decay=0.0, schedule="none", precision="fp32")
    fold = np.repeat(np.arange(4), FOLD_SIZES)
    pool = Pool(np.flatnonzero(fold == 0)[:20], np.arange(0))
    fits = together(tasks_of(pool=pool), *data, recipe=wild)
    assert_same(fits[:1], one_by_one(tasks_of(pool=pool)[:1], *data, recipe=wild))
    assert min(result.best_epoch for result in fits) < 6


def test_views_are_drawn_alike_and_only_for_training(data):
    plain, labels = data
    other = plain.inputs + 0.1 * torch.randn(plain.inputs.shape, generator=torch.Generator().manual_seed(0))
    views = InputPipeline(torch.cat([plain.inputs, other.half()]), views=2)
    assert len(views) == len(plain)
    rows = np.arange(N)
    drawn = views.drawn(rows, seed=3)
    assert 0.3 < (drawn >= len(plain)).mean() < 0.7 and (drawn % len(plain) == rows).all()
    assert not np.array_equal(drawn, views.drawn(rows, seed=4)), "another epoch draws others"
    assert torch.equal(views.eval_batch(torch.arange(N)), plain.inputs[:N])
    fits = together(tasks_of(), views, labels, recipe=PLAIN)
    assert_same(fits, one_by_one(tasks_of(), views, labels, recipe=PLAIN))
    assert fits[0].history != together(tasks_of(), plain, labels, recipe=PLAIN)[0].history


def test_resumed_is_uninterrupted_to_the_bit(data, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_EVERY_SECONDS", 0.0)
    group = equal_steps(tasks_of(), 16)[0]
    whole = fit_heads(group, *data, recipe=ONECYCLE)
    state = tmp_path / "state.pth"
    fit_heads(group, *data, recipe=ONECYCLE, stop_after=3, state_file=state)  # its last state is epoch 2
    fresh = [replace(task, module=ClassifierHead()) for task in group]
    resumed = fit_heads(fresh, *data, recipe=ONECYCLE, state_file=state, resume=True)
    for own, other in zip(resumed, whole, strict=True):
        assert own.history == other.history and own.steps == other.steps
        assert own.best_epoch == other.best_epoch and torch.equal(own.val_logits, other.val_logits)
        assert all(torch.equal(own.state_dict[key], value) for key, value in other.state_dict.items())


def test_the_state_of_other_tasks_is_left(data, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_EVERY_SECONDS", 0.0)
    group = equal_steps(tasks_of(), 16)[0]
    state = tmp_path / "state.pth"
    fit_heads(group, *data, recipe=PLAIN, state_file=state)
    fewer = fit_heads(group[:2], *data, recipe=PLAIN, state_file=state, resume=True)
    assert_same(fewer, one_by_one(group[:2], *data, recipe=PLAIN))


def test_a_loss_that_is_not_finite_names_the_head(data):
    data[0].inputs[60] = float("nan")  # an image of fold 2: the other folds train on it
    with pytest.raises(UserError, match=r"fold 1, epoch 1: the loss is not finite at step \d+ of the epoch"):
        together(tasks_of(), *data, recipe=PLAIN)
