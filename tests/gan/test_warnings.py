"""Each warning of a GAN's training is provoked, silent where nothing is wrong, and names flags that exist."""

import re
from dataclasses import replace

import pytest

import train_gan
from gan.combinations import check_gan_options
from gan.options import PRESETS
from gan.settings import GANOptions
from gan.warnings import EXPLOSION, PATIENCE, active_warnings, new_warnings


def line(step: int, metrics: dict | None = None, **changes) -> dict:
    """A line of healthy statistics about 50 steps of 32 images."""
    healthy = {
        "step": step, "epoch": step // 100, "steps": 50, "images_seen": 32 * step, "d_loss": 1.2,
        "d_real": 0.7, "d_fake": 0.3, "g_grad_norm_max": 2.0, "d_grad_norm_max": 5.0, "metrics": metrics,
    }  # fmt: skip
    return healthy | changes


def metrics(kid=0.1, diversity=0.9, recall=0.4, precision=0.8, ratio=1.0, **discriminator) -> dict:
    d = {"training": 1.0, "generated": -1.0, "training_sign": 0.5} | discriminator
    space = {"kid": kid, "diversity": diversity, "recall": recall, "precision": precision}
    return {"spaces": {"HOG": space}, "copying": {"ratio": ratio}, "discriminator": d}


def found(lines: list[dict], loss: str = "bce", precision: str = "bf16", **options) -> dict[str, str]:
    """With no label smoothing, unless ``options`` say so."""
    how = GANOptions(**{"adversarial_loss": loss, "label_smoothing": 0.0} | options)
    return active_warnings(lines, how, "HOG", precision)


def after_warm_up(*evaluations: dict) -> list[dict]:
    return [line(400 + 50 * number, one) for number, one in enumerate(evaluations)]


def test_a_healthy_training_is_not_warned_of():
    lines = [line(50 * n, metrics(kid=1 / n) if n % 2 else None) for n in range(1, 60)]
    for end in range(1, len(lines)):
        assert found(lines[:end]) == {}


@pytest.mark.parametrize("loss", ["bce", "rpgan"])
def test_d_that_has_won_for_a_hundred_steps(loss):
    won = {"d_real": 0.99, "d_fake": 0.001}
    assert "d_saturated" not in found([line(50, **won)], loss)
    assert "d_saturated" in found([line(50, **won), line(100, **won)], loss)
    assert "d_saturated" not in found([line(50, **won), line(100), line(150, **won)], loss)
    assert "d_saturated" in found([line(100, **won, steps=100)], loss)


def test_how_sure_d_can_be_depends_on_its_targets():
    """The optimum of the default, which smooths its labels, is D(x) = 0.90."""
    nearly = [line(100, d_real=0.88, d_fake=0.001, steps=100)]
    assert "d_saturated" in found(nearly, label_smoothing=0.1)
    assert "d_saturated" not in found(nearly)
    assert "d_saturated" not in found([line(100, d_real=0.8, d_fake=0.001, steps=100)], label_smoothing=0.1)


def test_hinge_has_won_where_its_margins_are_met():
    margins = {"d_real": 0.75, "d_fake": 0.25, "steps": 100}  # sigmoid(1) and sigmoid(-1) are 0.73, 0.27
    assert "d_saturated" in found([line(100, d_loss=0.01, **margins)], "hinge")
    assert "d_saturated" not in found([line(100, d_loss=0.3, **margins)], "hinge")


def test_a_critic_cannot_be_too_sure():
    assert "d_saturated" not in found([line(100, d_real=1.0, d_fake=0.0, d_loss=-9.0, steps=100)], "wgan-gp")


def test_d_that_tells_training_images_from_unseen_ones():
    def gap(holdout: float, error: float = 0.5) -> dict[str, str]:
        d = {"training": 4.0, "holdout": holdout, "generated": -4.0, "holdout_error": error}
        return found(after_warm_up(*[metrics(**d)] * 2))

    assert "over_fit" not in gap(1.0)  # 3 of 8
    assert "75%" in gap(-2.0)["over_fit"]
    assert "over_fit" not in gap(-2.0, error=2.5)  # too few images to say so
    once = metrics(training=4.0, holdout=-2.0, generated=-4.0, holdout_error=0.5)
    assert "over_fit" not in found(after_warm_up(once))


def test_without_unseen_images_d_must_be_sure_of_everything():
    sure = metrics(training=5.0, generated=-5.0, training_sign=0.98)
    lines = after_warm_up(sure, sure)
    assert "over_fit" not in found(lines)  # D(G(z)) of the steps is 0.3: G still fools it
    lines[-1]["d_fake"] = 0.01
    assert "--metrics-holdout" in found(lines)["over_fit"]
    assert "over_fit" not in found(lines, "rpgan")  # whose logits have no zero
    lines[-1]["d_fake"] = 0.2
    assert "over_fit" not in found(lines) and "over_fit" in found(lines, "hinge")


def test_images_that_are_alike_or_show_little_of_the_reals():
    alike, partial, noise = metrics(diversity=0.3), metrics(recall=0.01), metrics(precision=0.0, recall=1.0)
    for bad in (alike, partial, noise, metrics(diversity=0.2, recall=None, precision=None)):
        assert "collapse" in found(after_warm_up(metrics(), bad, bad))
        assert "collapse" not in found(after_warm_up(bad, bad, metrics()))
        assert "collapse" not in found(after_warm_up(metrics(), bad))
        early = [line(50, bad), line(100, bad)]  # 3,200 images seen: everybody starts like that
        assert "collapse" not in found(early)


def test_images_that_are_too_near_training_images():
    assert "copying" in found(after_warm_up(metrics(), metrics(ratio=0.3)))
    assert "copying" not in found(after_warm_up(metrics(ratio=0.3), metrics(ratio=0.9)))


@pytest.mark.parametrize(("name", "network"), [("g_grad_norm_max", "G"), ("d_grad_norm_max", "D")])
def test_gradients_that_explode(name, network):
    usual = [line(50 * n) for n in range(1, 15)]
    value = usual[0][name]
    assert "exploding" not in found([*usual, line(750, **{name: 0.9 * EXPLOSION * value})])
    message = found([*usual, line(750, **{name: 1.1 * EXPLOSION * value})])["exploding"]
    assert message.startswith(network) and "110 x" in message
    one_step = {name: 150 * value}
    spiky = [line(50 * n, **{name: 2 * value}) for n in range(1, 15)]  # as lazy penalties make them
    assert "exploding" not in found([*spiky, line(750, **one_step)])
    assert "exploding" not in found([line(50), line(100, **{name: 1e6})])  # nothing is usual yet


def test_a_gradient_that_is_often_zero_is_compared_with_what_it_is_when_it_is_not():
    """As D's is where the margins of hinge are met."""
    met = [line(50 * n, d_grad_norm_max=0.0) for n in range(1, 40)]
    assert "exploding" not in found([*met, line(2000, d_grad_norm_max=1.0)])
    some = [line(2000 + 50 * n, d_grad_norm_max=1.0) for n in range(15)]
    assert "exploding" not in found([*met, *some, line(3000, d_grad_norm_max=0.9 * EXPLOSION)])
    assert "110 x" in found([*met, *some, line(3000, d_grad_norm_max=1.1 * EXPLOSION)])["exploding"]


def test_kid_that_does_not_get_better():
    stuck = [metrics(kid=0.1), *(metrics(kid=0.2) for _ in range(PATIENCE))]
    assert "no_progress" not in found(after_warm_up(*stuck[:-1]))
    assert "no_progress" in found(after_warm_up(*stuck))
    assert "no_progress" not in found(after_warm_up(*stuck, metrics(kid=0.05)))


def test_a_warning_that_comes_and_goes_is_new_once():
    lines = []
    for step, active in ((50, {}), (100, {"collapse": "a"}), (150, {"collapse": "b"}), (200, {})):
        lines.append(line(step, warnings=active))
        assert new_warnings(lines) == (active if step == 100 else {})
    lines.append(line(250, warnings={"collapse": "c", "copying": "d"}))
    assert new_warnings(lines) == {"copying": "d"}
    lines += [line(260, warnings={}), line(2500, warnings={"collapse": "e"})]
    assert new_warnings(lines) == {"collapse": "e"}
    assert new_warnings(lines, 2) == {"collapse": "a"} and new_warnings(lines, 3) == {}


def test_messages_are_one_line_and_name_flags_of_the_trainer():
    won = {"d_real": 0.99, "d_fake": 0.001, "g_grad_norm_max": 1e6, "steps": 100}
    bad = metrics(diversity=0.1, ratio=0.1, training_sign=0.99, training=5.0, generated=-5.0)
    lines = [*after_warm_up(*[bad] * 12), line(1000, **won)]
    messages = found(lines, label_smoothing=0.1)
    assert set(messages) == {"d_saturated", "over_fit", "collapse", "copying", "exploding", "no_progress"}
    known = {flag for action in train_gan.build_parser()._actions for flag in action.option_strings}
    for message in messages.values():
        assert "\n" not in message
        flags = re.findall(r"--[a-z][a-z0-9-]*", message)
        assert flags and set(flags) <= known, message


def test_what_is_advised_is_neither_refused_nor_done_already():
    """Of every preset, each flag in a message can be added to those that are given."""
    won = {"d_real": 0.99, "d_fake": 0.001, "d_grad_norm_max": 1e6, "steps": 100}
    bad = metrics(diversity=0.1, ratio=0.1, training_sign=0.99, training=5.0, generated=-5.0)
    lines = [*after_warm_up(*[bad] * 12), line(1000, **won)]
    wgan = GANOptions(adversarial_loss="wgan-gp", d_norm="none", label_smoothing=0.0, diffaug=True)
    check_gan_options(wgan)
    plain = [train_gan.parse_arguments(["--preset", name]) for name in PRESETS]
    for options in [*(settings.gan for settings in plain), wgan]:
        messages = active_warnings(lines, options, "HOG", "fp32")
        assert {"collapse", "exploding"} <= set(messages)
        for message in messages.values():
            assert "--precision" not in message
            assert f"--preset {options.preset}" not in message
            assert not (options.diffaug and "--diffaug" in message)
            for remedy in re.findall(r"(?<!a larger )(--(?:r1|d-norm)[^,:]*?)(?:,| or |$)", message):
                flags = sum(re.findall(r"--([a-z0-9-]+) (\w+)", remedy), ())
                given = dict(zip(flags[::2], flags[1::2], strict=True))
                changes = {name.replace("-", "_"): value for name, value in given.items()}
                if "r1" in changes:
                    changes["r1"] = float(changes["r1"])
                check_gan_options(replace(options, **changes))
                assert all(getattr(options, name) != value for name, value in changes.items())
    assert "--preset cpu" in active_warnings(lines, GANOptions(), "HOG", "bf16")["collapse"]
    assert "--precision fp32" in active_warnings(lines, GANOptions(), "HOG", "bf16")["exploding"]
