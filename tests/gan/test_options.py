"""Presets, what is given against what a preset says, and combinations that are refused."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import train_gan
from common import paths
from common.options import Affects, Option, flags_set_by_study
from data_loader import from_gan_range
from dataset.labels import LABEL_OF_CLASS
from gan import combinations, generation, outputs
from gan import networks as gan_networks
from gan import options as gan_options
from gan import training_set as gan_training_set
from gan.settings import CLASS_NAMES, GANOptions
from gan.step import image_noise
from gan_data import CLASSES, make_dataset
from utils import UserError, load_checkpoint, load_json

pytestmark = pytest.mark.usefixtures("unrendered")


def settings_of(*flags: str):
    return train_gan.parse_arguments(list(flags))


def resolved(*flags: str) -> SimpleNamespace:
    """The value of every option."""
    return SimpleNamespace(**settings_of(*flags).values)


def test_every_field_is_a_flag_with_the_default_of_today():
    settings = settings_of()
    assert settings.gan == replace(GANOptions(), diffaug=True)
    assert GANOptions(**GANOptions().as_dict()) == GANOptions()
    assert gan_options.describe_options(settings) == "preset default"


@pytest.mark.parametrize("preset", gan_options.PRESETS)
def test_a_preset_sets_its_values_and_can_be_trained(preset):
    settings, values = settings_of("--preset", preset), gan_options.PRESETS[preset]
    assert {name: settings.values[name] for name in values} == values
    assert values.keys() <= gan_options.default_values().keys()
    options = settings.gan
    combinations.check_gan_options(options)
    assert combinations.list_doubts(options) == []
    assert options.preset == preset


def test_a_flag_that_is_given_wins_over_the_preset():
    flags = ["--preset", "cpu", "--r1", "3", "--image-size", "32", "--lambda-fm", "0.5", "--mbstd"]
    args = resolved(*flags)
    assert (args.r1, args.image_size, args.lambda_fm, args.mbstd) == (3.0, 32, 0.5, True)
    assert args.d_norm == "none"
    told = gan_options.describe_options(settings_of(*flags))
    assert "--r1 3.0" in told and "--mbstd" in told


def test_values_that_belong_to_an_architecture_or_a_loss_follow_it():
    for preset in gan_options.PRESETS:
        net = resolved("--preset", preset, "--arch", "resnet")
        assert (net.adversarial_loss, net.r1, net.r2, net.reg_every) == ("rpgan", 1.0, 1.0, 1)
        assert (net.upsample, net.d_norm, net.label_smoothing, net.beta1) == ("resize", "none", 0.0, 0.0)
    net = resolved("--arch", "resnet", "--adversarial-loss", "hinge", "--r2", "0", "--reg-every", "16")
    assert (net.adversarial_loss, net.r1, net.r2, net.reg_every) == ("hinge", 1.0, 0.0, 16)
    loss = resolved("--preset", "cpu", "--adversarial-loss", "rpgan")
    assert (loss.reg_every, loss.label_smoothing) == (1, 0.0)
    assert resolved("--preset", "cpu", "--adversarial-loss", "rpgan", "--reg-every", "4").reg_every == 4


@pytest.mark.parametrize("preset", ["cpu", "best"])
def test_a_penalty_of_the_preset_goes_where_it_cannot_be_had(preset):
    critic = resolved("--preset", preset, "--adversarial-loss", "wgan-gp")
    assert (critic.r1, critic.r2, critic.reg_every) == (0.0, 0.0, 1)
    batch = resolved("--preset", preset, "--d-norm", "batch")
    assert (batch.r1, batch.r2) == (0.0, 0.0)
    assert resolved("--preset", preset, "--adversarial-loss", "bce").r1 == 1.0


def test_a_penalty_that_is_given_is_refused_also_with_a_preset(capsys):
    for flags in (["--d-norm", "batch"], ["--adversarial-loss", "wgan-gp"]):
        with pytest.raises(SystemExit):
            resolved("--preset", "cpu", "--r1", "1", *flags)
    assert len(capsys.readouterr().err.splitlines()) == 2


LITE0_LOSS = ["--perceptual-network", "efficientnet_lite0"]


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
        (["--compile", "--preset", "cpu"], r"--compile cannot be combined with a gradient penalty"),
        (
            ["--preset", "cpu", "--lambda-perceptual", "0.5"],
            r"--lambda-perceptual 0\.5 weighs .* which is off",
        ),
        (["--perceptual", "on", "--lambda-perceptual", "0"], r"--perceptual on needs a weight"),
        (["--preset", "best", *LITE0_LOSS], r"efficientnet_lite0 is for the perceptual loss, .* add --perceptual on"),
        (["--lambda-perceptual", "0", *LITE0_LOSS], r"which is off: add a --lambda-perceptual above 0"),
        ([*LITE0_LOSS, "--metrics-features", "efficientnet_lite0"], r"trains on, so they cannot judge it"),
        (["--reg-every", "4"], r"--reg-every 4 is about a gradient penalty, and there is none"),
        (["--preset", "best", "--lambda-adv", "0"], r"G has nothing to learn from"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line_with_the_reason(flags, reason, capsys):
    with pytest.raises(SystemExit) as stop:
        train_gan.main(flags)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(reason, lines[0])


def test_flags_that_do_nothing_are_taken_as_they_are_anyway():
    """Commands in reports give every flag."""
    assert resolved("--preset", "cpu", "--perceptual", "off", "--lambda-perceptual", "0.1").preset == "cpu"
    assert resolved("--reg-every", "16").reg_every == 16


def test_networks_are_not_built_of_what_cannot_work():
    with pytest.raises(UserError, match="BatchNorm"):
        gan_networks.build_gan(32, 1, 5, (4, 4), 1e-3, 0.5, 0, torch.device("cpu"), GANOptions(r1=1.0))


def test_what_often_fails_is_said_and_not_refused():
    assert "diverges" in combinations.list_doubts(GANOptions(adversarial_loss="rpgan", label_smoothing=0.0))[0]
    assert "--r1" in combinations.list_doubts(GANOptions(r2=1.0, d_norm="none"))[0]
    assert combinations.list_doubts(GANOptions(r1=1.0, d_norm="none")) == []


def test_all_classes_are_learned_from_if_networks_are_told_them():
    assert resolved().classes == "positive"
    assert resolved("--conditional").classes == "all"
    assert set(CLASS_NAMES) == set(LABEL_OF_CLASS)


def test_settings_of_a_run_leave_the_name_of_the_preset_out():
    fixed = gan_options.fixed_values(settings_of("--preset", "cpu"))
    assert "--preset" not in fixed and fixed["--d-norm"] == "none"
    assert fixed["--ema-kimg"] == 2.0 and fixed["--train-fraction"] == 1.0
    assert not fixed.keys() & {"--data-dir", "--epochs", "--kimg", "--save-interval", "--resume", "--cpu"}


def test_the_values_of_a_preset_are_those_of_the_table():
    """Rows of the benchmark of generators are known by them."""
    assert gan_options.preset_values("cpu") == gan_options.default_values() | gan_options.PRESETS["cpu"]
    fields = set(GANOptions().as_dict()) - {"preset"}
    assert fields <= gan_options.default_values().keys()


def test_help_says_what_each_preset_makes_of_a_flag():
    text = {o.name: o.default_text() for o in gan_options.OPTIONS if isinstance(o, gan_options.PresetOption)}
    assert text["image_size"] == "(default: 224; cpu: 64; best: 64)"
    assert text["lr_d"] == "(default: as --lr)"
    assert text["mbstd"] == "(default: off)"


def test_an_option_in_the_table_is_in_help_recorded_and_compared_on_resume(data_dir, tmp_path, monkeypatch, capsys):
    toy = Option("--toy", "a toy", Affects.RUN, type=int, default=3, metavar="N", set_by_study=True)
    monkeypatch.setattr(gan_options, "OPTIONS", (*gan_options.OPTIONS, toy))
    with pytest.raises(SystemExit):
        train_gan.main(["--help"])
    assert "--toy N" in capsys.readouterr().out
    assert "--toy" in flags_set_by_study(gan_options.OPTIONS)
    checkpoint = train(data_dir, tmp_path, "--preset", "cpu", "--epochs", "1", "--toy", "4")
    history = load_json(paths.gan_history(tmp_path / "metrics"))
    assert checkpoint["config"]["toy"] == history["config"]["toy"] == 4
    with pytest.raises(UserError, match=r"--toy 4 \(now 5\); only --epochs and --kimg may grow"):
        train(data_dir, tmp_path, "--preset", "cpu", "--epochs", "2", "--toy", "5", "--resume")


# --- the script ------------------------------------------------------------------------------------
SMALL = [
    "--image-size", "32", "--feature-maps-g", "4", "--feature-maps-d", "4", "--batch-size", "4",
    "--vis-batch-size", "6", "--workers", "1", "--cpu", "--precision", "fp32", "--no-cache",
    "--perceptual", "off",
]  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


def train(data_dir: Path, folder: Path, *flags: str) -> dict:
    where = ["--data-dir", str(data_dir), "--model-dir", str(folder / "models"), "--output-dir", str(folder)]
    train_gan.main([*where, *SMALL, *flags])
    return load_checkpoint(paths.generator_final(folder / "models"))


@pytest.mark.parametrize(
    ("preset", "arch", "module"),
    [("cpu", "dcgan", "dcgan"), ("best", "dcgan", "dcgan"), ("best", "resnet", "gan.resnet")],
)
def test_a_preset_is_trained_said_and_recorded(preset, arch, module, data_dir, tmp_path, capsys):
    flags = ["--preset", preset, "--arch", arch]
    checkpoint = train(data_dir, tmp_path, *flags, "--epochs", "1")
    assert f"preset {preset} --" in capsys.readouterr().out
    options = GANOptions(**checkpoint["options"])
    assert options.preset == preset
    assert options == settings_of(*flags).gan
    generator = gan_networks.generator_from_checkpoint(checkpoint, "g")
    assert type(generator).__module__ == module
    images = generation.ImageMaker(generator, 0, torch.device("cpu"))([1, 2])
    assert images.shape == (2, 32, 32)


def test_flags_that_contradict_a_state_are_refused_and_the_name_of_a_preset_is_none(data_dir, tmp_path):
    train(data_dir, tmp_path, "--preset", "cpu", "--epochs", "1")
    with pytest.raises(UserError, match=r"--r1 1\.0 \(now 2\.0\)"):
        train(data_dir, tmp_path, "--preset", "cpu", "--r1", "2", "--epochs", "2", "--resume")
    with pytest.raises(UserError, match=r"--diffaug on \(now off\)"):
        train(data_dir, tmp_path, "--preset", "cpu", "--no-diffaug", "--epochs", "2", "--resume")
    spelled = [
        "--num-channels", "1", "--d-norm", "none", "--label-smoothing", "0", "--r1", "1", "--beta1", "0",
        "--beta2", "0.99", "--ema-kimg", "2", "--lambda-fm", "0",
    ]  # fmt: skip
    assert train(data_dir, tmp_path, *spelled, "--epochs", "2", "--resume")["epoch"] == 2


def test_classes_are_learned_and_each_can_be_had(data_dir, tmp_path):
    checkpoint = train(data_dir, tmp_path, "--preset", "cpu", "--conditional", "--epochs", "1")
    assert (checkpoint["classes"], checkpoint["label"]) == ("all", None)
    generator = gan_networks.generator_from_checkpoint(checkpoint, "g")
    one, other = (generation.ImageMaker(generator, 0, torch.device("cpu"), label)([1]) for label in (0, 1))
    assert generator.n_classes == 3
    assert (one != other).any()


def test_classes_that_the_metadata_lacks_are_refused_in_a_line(tmp_path):
    folder = make_dataset(tmp_path / "set")
    metadata = folder / paths.TRAIN_METADATA
    lines = [line.split(",") for line in metadata.read_text().splitlines()]
    metadata.write_text("\n".join(",".join(cells[:6] + cells[7:]) for cells in lines) + "\n")
    with pytest.raises(UserError, match=r"--conditional: the metadata has no image of class .*Normal"):
        train(folder, tmp_path, "--conditional", "--epochs", "1")
    with pytest.raises(UserError, match="--conditional: the metadata"):
        train(folder, tmp_path, "--conditional", "--estimate")


def test_numbers_of_classes_follow_their_names():
    records = pd.DataFrame({"class": ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal"]})
    assert gan_training_set.class_numbers(records).tolist() == [1, 0, 2]


def test_rows_of_a_sample_grid_are_of_one_class_each(data_dir, tmp_path, monkeypatch):
    shown = {}
    original = outputs.mosaic

    def record(images, columns, title):
        shown[title] = (images, columns)
        return original(images, columns, title)

    monkeypatch.setattr(outputs, "mosaic", record)
    checkpoint = train(data_dir, tmp_path, "--conditional", "--epochs", "1", "--vis-batch-size", "24")
    title = next(title for title in shown if title.endswith("rows: " + ", ".join(CLASSES) + " in turn"))
    images, columns = shown[title]
    generator = gan_networks.generator_from_checkpoint(checkpoint, "g")
    z = image_noise(42, "samples", 1, 24, generator.input_dim)
    with torch.no_grad():
        expected = from_gan_range(generator(z, torch.arange(24) // columns))
    assert abs(torch.tensor(images).int() - expected.int()).max() <= 1
