"""Each warning of a GAN's training is provoked, silent where nothing is wrong, and names flags that exist."""

import re
from dataclasses import replace

import pytest

import train_gan
from gan.combinations import check_gan_options
from gan.options import PRESETS
from gan.settings import GANOptions, describe_length
from gan.warnings import EXPLOSION, PATIENCE, active_warnings, length_not_judged, new_warnings, too_short


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


# --- the end of a run ------------------------------------------------------------------------------
def curve(kids: dict[int, float], n: int = 112, **last) -> list[dict]:
    """Lines with evaluations: images shown (thousands) -> KID in HOG of ``n`` images; ``last``: of the last line."""
    lines = [
        line(1000 * kimg // 32, metrics(kid=kid) | {"n": n}, images_seen=1000 * kimg, warnings={})
        for kimg, kid in kids.items()
    ]
    lines[-1] |= last
    return lines


def floors(kid: float = -0.008) -> dict:
    return {"HOG": {"kid": kid}}


MEASURED = {  # on the 225 real training positives of docs/results-rsna-1500.md
    "best, 112 px": {7: 0.172, 14: 0.072, 22: 0.042, 29: 0.030, 36: 0.034, 43: 0.018, 50: 0.025, 57: 0.019, 65: 0.023,
                     72: 0.026, 79: 0.025, 86: 0.004, 97: 0.008, 100: 0.007},
    "cpu, 64 px": {4: 0.209, 9: 0.120, 13: 0.098, 18: 0.096, 22: 0.046, 27: 0.054, 31: 0.041, 36: 0.032, 40: 0.038,
                   45: 0.041, 49: 0.050, 54: 0.029, 58: 0.048, 63: 0.023, 64: 0.019},
    "default, 224 px": {2: 2.02, 4: 0.686, 7: 0.555, 9: 0.292, 11: 0.20},
}  # fmt: skip


def test_measured_trainings_are_judged_as_by_the_eye():
    for name in ("best, 112 px", "cpu, 64 px"):
        assert too_short(curve(MEASURED[name]), floors()) is None
    message = too_short(curve(MEASURED["default, 224 px"]), floors())
    assert "after 11,000 images shown" in message and "--resume --kimg 64" in message
    assert "still falling (0.69 after 4,000 images)" in message and "far above the 0.00 of real images" in message


@pytest.mark.parametrize(
    ("kids", "expected"),
    [
        ({11: 0.2}, "far above"),  # one evaluation, at the end
        ({64: 0.07}, None),  # the worst of the presets' seeds
        ({64: 0.3}, "--kimg 128"),
        ({5: 0.5, 10: 0.04, 20: 0.3}, None),  # worse than it was: no_progress says so
        ({10: 0.12, 20: 0.06}, "still falling (0.12 after 10,000 images)"),
        ({10: 0.04, 20: 0.01}, None),  # at the floor
        ({10: 0.09, 20: 0.07}, None),  # hardly falls
        ({19: 0.12, 20: 0.06}, None),  # nothing tells of the first half
    ],
)
def test_kid_far_from_its_floor_or_still_falling_is_too_short(kids, expected):
    message = too_short(curve(kids), floors())
    assert message is None if expected is None else expected in message


def test_limits_give_way_to_the_noise_of_few_images_and_to_the_floor():
    assert too_short(curve({11: 0.2}, n=16), floors()) is None  # 0.1 + 2 / 16
    assert too_short(curve({11: 0.3}, n=16), floors()) is not None
    assert too_short(curve({11: 0.2}), floors(kid=0.09)) is None
    assert too_short(curve({10: 0.20, 20: 0.12}, n=16), floors()) is None


def test_a_collapse_is_not_blamed_on_a_short_training():
    assert too_short(curve({40: 0.5, 80: 0.5}), floors())
    assert too_short(curve({40: 0.5, 80: 0.5}, warnings={"collapse": "c"}), floors()) is None
    assert too_short(curve({4: 0.9, 11: 0.5}, warnings={"collapse": "no images yet"}), floors())


def test_what_cannot_be_judged_is_said():
    assert length_not_judged(curve({11: 0.2})) is None
    assert "10 images on either side are too few" in length_not_judged(curve({11: 0.2}, n=10))
    assert "no image was evaluated" in length_not_judged([line(50), line(100)])
    assert too_short([line(50)], floors()) is None and too_short(curve({11: 0.2}), {}) is None


def test_what_will_be_shown_is_said_with_what_was_needed():
    said = describe_length(11_200, 225)
    assert said.startswith("11,200 images will be shown (11.2 kimg), each of 225 50 times. THAT IS LITTLE")
    assert "--kimg 64 shows as many" in said
    assert "LITTLE" not in describe_length(64_000, 225)


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
