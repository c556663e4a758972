import math

import numpy as np
import pytest
import torch
from torch import nn

import fitting
from classifier import ClassifierHead, InputPipeline
from fitting import Recipe, epoch_batches, fit, loss_and_accuracy, steps_per_epoch
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


class TestEqualSteps:
    @pytest.mark.parametrize("n_synthetic", [0, 30, 500])
    def test_synthetic_images_change_what_is_drawn_not_how_often(self, n_synthetic):
        n_real, batch_size = 101, 16
        steps = steps_per_epoch(n_real, batch_size)
        batches = epoch_batches(np.arange(n_real + n_synthetic), steps, batch_size, seed=1)
        assert steps == math.ceil(101 / 16) == 7
        assert batches.shape == (7, 16)
        assert (batches.max() >= n_real) == (n_synthetic > 0)

    def test_an_epoch_sees_every_real_image_and_fills_the_last_batch(self):
        batches = epoch_batches(np.arange(50, 151), 7, 16, seed=1)
        assert set(batches.flatten()) == set(range(50, 151))
        assert len(set(batches.flatten()[:101])) == 101, "nothing twice before everything once"

    def test_batches_are_a_pure_function_of_the_seed(self):
        pool = np.arange(40)
        assert np.array_equal(epoch_batches(pool, 3, 16, 5), epoch_batches(pool, 3, 16, 5))
        assert not np.array_equal(epoch_batches(pool, 3, 16, 5), epoch_batches(pool, 3, 16, 6))

    def test_a_batch_larger_than_the_pool_shrinks(self):
        assert epoch_batches(np.arange(5), 1, 16, 0).shape == (1, 5)

    def test_arms_take_the_same_number_of_optimizer_steps(self, separable, monkeypatch):
        data, labels = separable
        counted = []
        step = torch.optim.AdamW.step
        monkeypatch.setattr(
            torch.optim.AdamW, "step", lambda self, *a: (counted.append(1), step(self, *a))[1]
        )
        for pool in (np.arange(100), np.arange(200)):  # the second arm has a hundred extra images
            counted.clear()
            result = fit(new_head(), data, labels, pool=pool, n_real=100, recipe=RECIPE, seed=1)
            assert result.steps == len(counted) == 6 * 7


class TestFit:
    def test_it_learns_and_keeps_a_real_copy_of_the_best_epoch(self, separable):
        data, labels = separable
        train, val = np.arange(150), np.arange(150, 200)
        head = new_head()
        result = fit(head, data, labels, pool=train, n_real=150, recipe=RECIPE, seed=1, val_rows=val)
        losses = result.history["val_loss"]
        assert len(losses) == 6 and losses[-1] < losses[0]
        assert result.best_epoch == int(np.argmin(losses)) + 1
        kept = {key: value.clone() for key, value in result.state_dict.items()}
        head.head.weight.data.zero_()
        assert torch.equal(result.state_dict["head.weight"], kept["head.weight"]), (
            "not a view of the live weights"
        )
        restored = ClassifierHead()
        restored.load_state_dict(kept)
        logits = restored(data.inputs[torch.from_numpy(val)])
        assert torch.allclose(logits, result.val_logits, atol=1e-6)
        assert loss_and_accuracy(result.val_logits, labels[val])["loss"] == pytest.approx(min(losses))

    def test_an_earlier_best_epoch_survives_later_worse_ones(self, separable):
        data, labels = separable
        wild = Recipe(epochs=8, batch_size=4, lr=0.5, weight_decay=0.0, schedule="none", precision="fp32")
        result = fit(
            new_head(),
            data,
            labels,
            pool=np.arange(20),
            n_real=20,
            recipe=wild,
            seed=1,
            val_rows=np.arange(150, 200),
        )
        losses = result.history["val_loss"]
        assert result.best_epoch < 8, "with this learning rate the last epoch is not the best"
        assert loss_and_accuracy(result.val_logits, labels[150:])["loss"] == pytest.approx(min(losses))

    def test_stopping_early_walks_the_same_path(self, separable):
        data, labels = separable
        options = {"pool": np.arange(150), "n_real": 150, "recipe": RECIPE, "seed": 1}
        whole = fit(new_head(), data, labels, **options)
        part = fit(new_head(), data, labels, stop_after=3, **options)
        assert part.history["train_loss"] == whole.history["train_loss"][:3]
        assert part.best_epoch == 3 and part.curves()["val_loss"] is None

    def test_resumed_is_uninterrupted_to_the_bit(self, separable, tmp_path, monkeypatch):
        data, labels = separable
        monkeypatch.setattr(fitting, "SAVE_EVERY_SECONDS", 0.0)
        options = {"pool": np.arange(150), "n_real": 150, "recipe": RECIPE, "seed": 1,
                   "val_rows": np.arange(150, 200)}  # fmt: skip
        whole = fit(new_head(), data, labels, **options)
        state = tmp_path / "state.pth"
        fit(new_head(), data, labels, stop_after=4, state_file=state, **options)  # its last state is epoch 3
        resumed = fit(ClassifierHead(), data, labels, state_file=state, resume=True, **options)
        assert resumed.history == whole.history
        assert resumed.steps == whole.steps and resumed.best_epoch == whole.best_epoch
        for key, value in whole.state_dict.items():
            assert torch.equal(value, resumed.state_dict[key]), key

    def test_a_loss_that_is_not_finite_stops_the_run(self, separable):
        data, labels = separable
        data.inputs[7] = float("nan")
        with pytest.raises(
            UserError, match=r"fold 3, epoch 1: the loss is not finite at step \d+ of the epoch"
        ):
            fit(new_head(), data, labels, pool=np.arange(16), n_real=16, recipe=RECIPE, seed=1, desc="fold 3")
