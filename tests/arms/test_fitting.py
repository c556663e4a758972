import math

import numpy as np
import pytest
import torch
from torch import nn

from arms import fitting
from arms.fitting import FitTask, Pool, Recipe, fit, loss_and_accuracy, train_one_epoch
from arms.registry import steps_per_epoch
from classifier import ClassifierHead, InputPipeline
from utils import UserError

RECIPE = Recipe(epochs=6, batch_size=16, lr=0.01, weight_decay=0.01, schedule="onecycle", precision="fp32")


@pytest.fixture
def separable() -> tuple[InputPipeline, torch.Tensor]:
    """200 feature vectors [200, 2048] of two classes that a linear head separates mostly."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    features = rng.normal(size=(200, 2048)) * 0.5
    features[:, :20] += labels[:, None]
    return InputPipeline(torch.from_numpy(features).float()), torch.from_numpy(labels).float()


def new_head() -> nn.Module:
    torch.manual_seed(0)
    return ClassifierHead()


def task_of(pool: Pool, val_rows: np.ndarray | None = None, **changes) -> FitTask:
    """A fresh head that learns from ``pool`` with seed 1."""
    options = {"name": "training", "module": new_head(), "seed": 1, "val_rows": val_rows, **changes}
    return FitTask(pool=pool, **options)


def pool_of(n_real: int, n_extra: int = 0, *shares: tuple[int, float | None]) -> Pool:
    return Pool(np.arange(n_real), np.arange(n_real, n_real + n_extra), shares or ((1, None),))


class TestEqualSteps:
    @pytest.mark.parametrize("n_synthetic", [0, 30, 500])
    def test_synthetic_images_change_what_is_drawn_not_how_often(self, n_synthetic):
        n_real, batch_size = 101, 16
        batches = pool_of(n_real, n_synthetic).batches(1, batch_size, seed=1)
        assert steps_per_epoch(n_real, batch_size) == math.ceil(101 / 16) == 7
        assert batches.shape == (7, 16)
        assert (batches.max() >= n_real) == (n_synthetic > 0)

    def test_an_epoch_sees_every_real_image_and_fills_the_last_batch(self):
        batches = Pool(np.arange(50, 151), np.arange(0)).batches(1, 16, seed=1)
        assert set(batches.flatten()) == set(range(50, 151))
        assert len(set(batches.flatten()[:101])) == 101, "nothing twice before everything once"

    def test_batches_are_a_pure_function_of_the_seed(self):
        pool = pool_of(30, 10, (1, 0.3))
        assert np.array_equal(pool.batches(1, 16, 5), pool.batches(1, 16, 5))
        assert not np.array_equal(pool.batches(1, 16, 5), pool.batches(1, 16, 6))

    @pytest.mark.parametrize("n_extra", [0, 100])
    def test_a_batch_larger_than_the_real_images_shrinks_in_every_arm(self, n_extra):
        assert pool_of(5, n_extra).batches(1, 16, 0).shape == (1, 5)

    def test_the_share_of_extra_images_follows_the_schedule(self):
        pool = pool_of(100, 40, (1, 0.0), (4, 0.25), (6, 0.5))
        drawn = [int((pool.batches(epoch, 10, seed=epoch) >= 100).sum()) for epoch in range(1, 8)]
        assert drawn == [0, 0, 0, 25, 25, 50, 50]

    def test_extra_images_are_spread_over_the_batches(self):
        batches = pool_of(1000, 1000, (1, 0.5)).batches(1, 10, seed=0)
        per_batch = (batches >= 1000).sum(axis=1)
        assert per_batch.min() < 5 < per_batch.max() and np.count_nonzero(per_batch == 10) == 0

    def test_an_epoch_without_extra_images_draws_what_the_baseline_draws(self):
        with_extra = pool_of(50, 20, (1, None), (3, 0.0))
        assert np.array_equal(with_extra.batches(3, 16, 9), pool_of(50).batches(3, 16, 9))
        assert not np.array_equal(with_extra.batches(2, 16, 9), pool_of(50).batches(2, 16, 9))

    def test_arms_take_the_same_number_of_optimizer_steps(self, separable, monkeypatch):
        data, labels = separable
        counted = []
        step = torch.optim.AdamW.step
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (counted.append(1), step(self, *a))[1])
        for pool in (pool_of(100), pool_of(100, 100), pool_of(100, 100, (1, 0.0), (3, 0.5))):
            counted.clear()
            result = fit(task_of(pool), data, labels, RECIPE)
            assert result.steps == len(counted) == 6 * 7


class TestFit:
    def test_it_learns_and_keeps_a_real_copy_of_the_best_epoch(self, separable):
        data, labels = separable
        train, val = np.arange(150), np.arange(150, 200)
        head = new_head()
        result = fit(task_of(Pool(train, train[:0]), val, module=head), data, labels, RECIPE)
        losses = result.history["val_loss"]
        assert len(losses) == 6 and losses[-1] < losses[0]
        assert result.best_epoch == int(np.argmin(losses)) + 1
        kept = {key: value.clone() for key, value in result.state_dict.items()}
        head.head.weight.data.zero_()
        assert torch.equal(result.state_dict["head.weight"], kept["head.weight"]), "not a view of the live weights"
        restored = ClassifierHead()
        restored.load_state_dict(kept)
        logits = restored(data.inputs[torch.from_numpy(val)])
        assert torch.allclose(logits, result.val_logits, atol=1e-6)
        assert loss_and_accuracy(result.val_logits, labels[val])["loss"] == pytest.approx(min(losses))

    def test_an_earlier_best_epoch_survives_later_worse_ones(self, separable):
        data, labels = separable
        wild = Recipe(epochs=8, batch_size=4, lr=0.5, weight_decay=0.0, schedule="none", precision="fp32")
        result = fit(task_of(pool_of(20), np.arange(150, 200)), data, labels, wild)
        losses = result.history["val_loss"]
        assert result.best_epoch < 8, "with this learning rate the last epoch is not the best"
        assert loss_and_accuracy(result.val_logits, labels[150:])["loss"] == pytest.approx(min(losses))

    def test_stopping_early_walks_the_same_path(self, separable):
        data, labels = separable
        whole = fit(task_of(pool_of(150)), data, labels, RECIPE)
        part = fit(task_of(pool_of(150)), data, labels, RECIPE, stop_after=3)
        assert part.history["train_loss"] == whole.history["train_loss"][:3]
        assert part.best_epoch == 3 and part.curves()["val_loss"] is None

    def test_resumed_is_uninterrupted_to_the_bit(self, separable, tmp_path, monkeypatch):
        data, labels = separable
        monkeypatch.setattr(fitting, "SAVE_EVERY_SECONDS", 0.0)
        options = {"pool": pool_of(150), "val_rows": np.arange(150, 200)}
        whole = fit(task_of(**options), data, labels, RECIPE)
        state = tmp_path / "state.pth"
        fit(task_of(**options), data, labels, RECIPE, stop_after=4, state_file=state)  # its last state is epoch 3
        other = task_of(**options, module=ClassifierHead())
        resumed = fit(other, data, labels, RECIPE, state_file=state, resume=True)
        assert resumed.history == whole.history
        assert resumed.steps == whole.steps and resumed.best_epoch == whole.best_epoch
        for key, value in whole.state_dict.items():
            assert torch.equal(value, resumed.state_dict[key]), key

    def test_a_loss_that_is_not_finite_stops_the_run(self, separable):
        data, labels = separable
        data.inputs[7] = float("nan")
        with pytest.raises(UserError, match=r"fold 3, epoch 1: the loss is not finite at step \d+ of the epoch"):
            fit(task_of(pool_of(16), name="fold 3"), data, labels, RECIPE)
        with pytest.raises(UserError, match="fold 3, epoch 1: the validation loss is not finite; lower --lr"):
            fit(task_of(Pool(np.arange(20, 40), np.arange(0)), np.arange(9), name="fold 3"), data, labels, RECIPE)


class TestClassWeights:
    def test_the_loss_is_the_weighted_cross_entropy(self, separable):
        data, labels = separable
        batches = np.arange(40).reshape(1, 40)
        head = new_head()
        logits = head(data.inputs[:40]).detach()
        weights = torch.where(labels[:40] > 0.5, 3.0, 0.5)
        probability = torch.sigmoid(logits)
        own = torch.where(labels[:40] > 0.5, probability, 1 - probability)
        expected = -(weights * own.log()).mean().item()
        optimizer = torch.optim.SGD(head.parameters(), lr=0.0)
        options = {"precision": "fp32", "seed": 0, "class_weights": (0.5, 3.0)}
        result = train_one_epoch(head, data, labels, batches, optimizer, **options)
        assert result["loss"] == pytest.approx(expected, rel=1e-5)

    def test_weights_of_one_change_nothing(self, separable):
        data, labels = separable
        plain = fit(task_of(pool_of(100)), data, labels, RECIPE)
        ones = fit(task_of(pool_of(100), class_weights=(1.0, 1.0)), data, labels, RECIPE)
        assert plain.history == ones.history
