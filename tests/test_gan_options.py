"""Presets, what is given against what a preset says, and combinations that are refused."""

import re
from dataclasses import replace

import pytest
import torch

import gan_layers
import gan_options
import gan_training
import train_gan
from data_loader import LABEL_OF_CLASS
from gan_options import GANOptions
from utils import UserError


def resolved(*flags: str):
    return train_gan.parse_arguments(list(flags))


def test_every_field_is_a_flag_with_the_default_of_today():
    args = resolved()
    assert gan_options.options_of(args) == GANOptions()
    assert GANOptions(**GANOptions().as_dict()) == GANOptions()
    assert gan_options.describe_options(args) == "preset default"


@pytest.mark.parametrize("preset", gan_options.PRESETS)
def test_a_preset_sets_its_values_and_can_be_trained(preset):
    args = resolved("--preset", preset)
    assert {name: getattr(args, name) for name in gan_options.PRESETS[preset]} == gan_options.PRESETS[preset]
    assert gan_options.PRESETS[preset].keys() <= gan_options.DEFAULTS.keys()
    options = gan_options.options_of(args)
    gan_options.check(options)
    assert gan_options.doubts(options) == []
    assert options.preset == preset


def test_a_flag_that_is_given_wins_over_the_preset():
    args = resolved("--preset", "cpu", "--r1", "3", "--image-size", "32", "--lambda-fm", "0.5", "--mbstd")
    assert (args.r1, args.image_size, args.lambda_fm, args.mbstd) == (3.0, 32, 0.5, True)
    assert args.d_norm == "none"
    assert "--r1 3.0" in gan_options.describe_options(args)
    assert "--mbstd" in gan_options.describe_options(args)


def test_values_that_belong_to_an_architecture_or_a_loss_follow_it():
    other = resolved("--preset", "best", "--arch", "dcgan")
    assert (other.upsample, other.d_norm) == ("deconv", "none")
    net = resolved("--arch", "resnet")
    assert (net.upsample, net.d_norm, net.label_smoothing) == ("resize", "none", 0.1)
    loss = resolved("--preset", "cpu", "--adversarial-loss", "rpgan")
    assert (loss.reg_every, loss.label_smoothing) == (1, 0.0)
    assert resolved("--preset", "cpu", "--adversarial-loss", "rpgan", "--reg-every", "4").reg_every == 4


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--r1", "1"], r"--r1 penalises .* BatchNorm .* --d-norm none or --d-norm spectral"),
        (["--r2", "1"], r"--r2 penalises .* BatchNorm"),
        (["--adversarial-loss", "wgan-gp"], r"wgan-gp penalises .* BatchNorm"),
        (["--arch", "resnet", "--d-norm", "batch"], r"--d-norm batch is not for --arch resnet"),
        (["--arch", "resnet", "--d-norm", "spectral"], r"--d-norm spectral is not for"),
        (["--arch", "resnet", "--upsample", "deconv"], r"--upsample deconv is not for --arch resnet"),
        (
            ["--adversarial-loss", "wgan-gp", "--d-norm", "none", "--r1", "1"],
            r"wgan-gp has a gradient penalty of its own",
        ),
        (["--adversarial-loss", "hinge", "--label-smoothing", "0.1"], r"--label-smoothing is about .* bce"),
        (["--conditional", "--classes", "positive"], r"leave --classes positive out"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line_with_the_reason(flags, reason, capsys):
    with pytest.raises(SystemExit) as stop:
        train_gan.main(flags)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(reason, lines[0])


def test_networks_are_not_built_of_what_cannot_work():
    with pytest.raises(UserError, match="BatchNorm"):
        gan_training.build_gan(32, 1, 5, (4, 4), 1e-3, 0.5, 0, torch.device("cpu"), GANOptions(r1=1.0))


def test_what_often_fails_is_said_and_not_refused():
    assert "diverges" in gan_options.doubts(GANOptions(adversarial_loss="rpgan", label_smoothing=0.0))[0]
    assert "--r1" in gan_options.doubts(GANOptions(r2=1.0, d_norm="none"))[0]
    assert gan_options.doubts(GANOptions(r1=1.0, d_norm="none")) == []


def test_all_classes_are_learned_from_if_networks_are_told_them():
    assert resolved().classes == "positive"
    assert resolved("--conditional").classes == "all"
    assert set(gan_options.CLASS_NAMES) == set(LABEL_OF_CLASS)
    assert train_gan.IMAGE_SIZES == gan_layers.IMAGE_SIZES


def test_settings_of_a_run_leave_the_name_of_the_preset_out():
    named = gan_options.settings_of(GANOptions(preset="cpu"))
    assert named == gan_options.settings_of(GANOptions())
    assert named["--d-norm"] == "batch"
    assert gan_options.settings_of(replace(GANOptions(), ema_kimg=2.0))["--ema-kimg"] == 2.0


def test_help_says_what_each_preset_makes_of_a_flag():
    assert gan_options.default_text("image_size") == "(default: 224; cpu: 64; best: 64)"
    assert gan_options.default_text("lr_d") == "(default: as --lr)"
    assert gan_options.default_text("mbstd") == "(default: off)"
