"""A run of train_gan.py as it is watched: metrics, statistics, warnings, ends of several kinds, previews."""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data_loader
import train_gan
from common import paths
from gan import evaluation, figures, outputs, trainer
from gan import warnings as gan_warnings
from gan.figures import encode_gif, gan_quality, mosaic
from gan.meters import Clock
from gan_data import make_dataset
from synthetic.folders import make_manifest
from utils import UserError, load_checkpoint, load_json, save_checkpoint

SMALL = [
    "--image-size", "32", "--num-channels", "1", "--latent-dim", "6", "--feature-maps-g", "4",
    "--feature-maps-d", "4", "--batch-size", "4", "--vis-batch-size", "4", "--workers", "1", "--cpu",
    "--precision", "fp32", "--perceptual", "off", "--no-cache",
]  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """48 images, 16 positive; 12 of them, of 6 patients, in the training split."""
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


def flags_of(data_dir: Path, folder: Path) -> list[str]:
    return ["--data-dir", str(data_dir), "--model-dir", str(folder / "models"), "--output-dir", str(folder)]


def train(data_dir: Path, folder: Path, *flags: str) -> None:
    train_gan.main([*flags_of(data_dir, folder), *SMALL, *flags])


@pytest.fixture
def at_any_cost(monkeypatch):
    """Metrics as often as --metrics-interval says, and no figures, which take longest."""
    monkeypatch.setattr(evaluation, "SHARE", 1e9)
    monkeypatch.setattr(outputs, "save_figures", lambda *_: None)


def history(folder: Path) -> dict:
    return load_json(paths.gan_history(folder / "metrics"))


def stats(folder: Path) -> list[dict]:
    return [json.loads(line) for line in paths.gan_stats(folder / "metrics").read_text().splitlines()]


# --- what a run leaves behind ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def watched(data_dir, tmp_path_factory) -> Path:
    """Four epochs of three steps, evaluated every second one."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "SHARE", 1e9)
        patch.setattr(trainer, "STATS_EVERY", 2)
        train(data_dir, folder, "--epochs", "4", "--metrics-interval", "2", "--checkpoint-interval", "4")
    return folder


def test_every_line_of_the_statistics_says_what_it_is_about(watched):
    lines = stats(watched)
    assert [line["step"] for line in lines] == [1, 3, 4, 6, 7, 9, 10, 12]  # epochs end at 3, 6, 9 and 12
    assert [line["steps"] for line in lines] == [1, 2] * 4
    for line in lines:
        assert {"d_loss", "g_loss", "d_real", "d_fake", "g_grad_norm", "d_grad_norm"} <= line.keys()
        assert line["images_seen"] == 4 * line["step"] and line["time"]["images_per_second"] > 0
        assert line["memory"]["peak_mb"] > 10
    assert sum(lines[0]["shares"].values()) == pytest.approx(1)
    assert [line["step"] for line in lines if line["metrics"]] == [6, 12]


def test_the_epoch_is_the_mean_of_its_parts(watched):
    lines, epochs = stats(watched), history(watched)["epochs"]
    for epoch in epochs:
        parts = [line for line in lines if line["epoch"] == epoch["epoch"]]
        for name in ("d_loss", "g_adversarial", "d_real", "g_grad_norm"):
            mean = sum(part[name] * part["steps"] for part in parts) / 3
            assert epoch[name] == pytest.approx(mean)


def test_metrics_stand_in_the_history_with_their_floor_and_the_best_generator_is_kept(watched):
    content = history(watched)
    measured = [line for line in content["epochs"] if "metrics" in line]
    assert [line["epoch"] for line in measured] == [2, 4]
    assert content["metrics"]["chosen_by"] == "HOG" and "kid" in content["metrics"]["floors"]["HOG"]
    kids = {line["epoch"]: line["metrics"]["spaces"]["HOG"]["kid"] for line in measured}
    best = min(kids, key=kids.get)
    assert content["best"] == {
        "kid": kids[best], "space": "HOG", "epoch": best, "step": 3 * best, "images_seen": 12 * best,
    }  # fmt: skip
    checkpoint = load_checkpoint(paths.generator_best(watched / "models"))
    assert (checkpoint["step"], checkpoint["kid"]) == (3 * best, kids[best])
    assert checkpoint["train_image_ids"] and checkpoint["format"] == "dcgan-generator-1"
    last = load_checkpoint(paths.generator_final(watched / "models"))["state_dict"]
    assert (best == 4) == all(torch.equal(last[name], checkpoint["state_dict"][name]) for name in last)


def test_figures_and_a_walk_are_there(watched):
    for figure in (paths.gan_loss_figure(watched / "figures"), paths.gan_quality_figure(watched / "figures")):
        assert Image.open(figure).size[0] > 900
    assert Image.open(paths.gan_interpolation(watched)).size == (outputs.WALKS * 32, 32)


def test_watching_does_not_change_the_training(watched, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "save_figures", lambda *_: None)
    train(data_dir, tmp_path, "--epochs", "4", "--metrics-interval", "0", "--checkpoint-interval", "4")
    pair = [load_checkpoint(paths.generator_final(folder / "models")) for folder in (watched, tmp_path)]
    one, other = (checkpoint["state_dict"] for checkpoint in pair)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not paths.generator_best(tmp_path / "models").exists()
    assert history(tmp_path)["best"] is None


def test_a_new_run_leaves_nothing_of_the_old_statistics_and_best(data_dir, tmp_path, at_any_cost):
    train(data_dir, tmp_path, "--epochs", "2")
    assert paths.generator_best(tmp_path / "models").exists() and len(stats(tmp_path)) == 2
    train(data_dir, tmp_path, "--epochs", "1", "--metrics-interval", "0")
    assert not paths.generator_best(tmp_path / "models").exists() and len(stats(tmp_path)) == 1


def test_efficientnet_lite0_is_measured_in_and_does_not_choose(data_dir, tmp_path, at_any_cost):
    train(data_dir, tmp_path / "usual", "--epochs", "1")
    train(data_dir, tmp_path / "more", "--epochs", "1", "--metrics-features", "efficientnet_lite0")
    usual, more = (history(tmp_path / name) for name in ("usual", "more"))
    assert list(more["metrics"]["spaces"]) == ["HOG", "EfficientNet-Lite0"] and more["metrics"]["chosen_by"] == "HOG"
    spaces = more["epochs"][0]["metrics"]["spaces"]
    assert spaces["HOG"] == usual["epochs"][0]["metrics"]["spaces"]["HOG"] and spaces["EfficientNet-Lite0"]["fd"] > 0


def test_an_evaluation_at_the_end_is_no_part_of_the_state(data_dir, tmp_path, at_any_cost):
    """It would not have been made in a longer run, which goes on as if it had been one from the start."""
    train(data_dir, tmp_path / "a", "--epochs", "3", "--metrics-interval", "2")
    assert history(tmp_path / "a")["final_metrics"]["spaces"]["HOG"]["kid"] is not None
    train(data_dir, tmp_path / "a", "--epochs", "4", "--metrics-interval", "2", "--resume")
    train(data_dir, tmp_path / "b", "--epochs", "4", "--metrics-interval", "2")
    one, other = (history(tmp_path / name) for name in "ab")
    assert (one["epochs"], one["best"], one["warnings"]) == (
        other["epochs"],
        other["best"],
        other["warnings"],
    )
    assert other["final_metrics"] is None


def test_an_evaluation_at_the_end_warns_and_flags_what_is_saved(data_dir, tmp_path, at_any_cost, monkeypatch):
    """Most runs end with one; the generator's users hear of it, and a longer run does not."""
    monkeypatch.setattr(gan_warnings, "COPY_RATIO", 1e9)  # whatever is evaluated, it copies
    train(data_dir, tmp_path, "--epochs", "3", "--metrics-interval", "4")
    assert history(tmp_path)["final_metrics"] is not None
    given = {line["rule"]: line["epoch"] for line in history(tmp_path)["warnings"]}
    assert given == {"copying": 3, "too_short": 3}  # after 36 images
    last = stats(tmp_path)[-1]
    assert last["metrics"] == history(tmp_path)["final_metrics"] and "copying" in last["warnings"]
    for file in (paths.generator_final(tmp_path / "models"), paths.generator_best(tmp_path / "models")):
        for words in ("copy training images", "GAN training: too short: after 36 images"):
            assert any(words in flag for flag in load_checkpoint(file)["red_flags"])
    assert load_checkpoint(paths.gan_state(tmp_path / "models"))["stats"][-1]["warnings"] == {}


def test_the_best_generator_of_a_short_run_is_flagged_too(data_dir, tmp_path, at_any_cost):
    """Also where the last epoch was evaluated by itself, and the best one was an earlier one."""
    train(data_dir, tmp_path, "--epochs", "2", "--metrics-interval", "1")
    assert history(tmp_path)["final_metrics"] is None and "too_short" in stats(tmp_path)[-1]["warnings"]
    for file in (paths.generator_final(tmp_path / "models"), paths.generator_best(tmp_path / "models")):
        assert sum("too short" in flag for flag in load_checkpoint(file)["red_flags"]) == 1
    assert not any("too short" in flag for flag in load_checkpoint(paths.gan_state(tmp_path / "models"))["best"]
                   ["checkpoint"]["red_flags"])  # fmt: skip


def test_a_run_too_short_for_a_timetable_is_judged_at_its_end(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(outputs, "save_figures", lambda *_: None)
    train(data_dir, tmp_path, "--epochs", "1")
    assert "too short: after 12 images" in capsys.readouterr().out
    train(data_dir, tmp_path, "--epochs", "1", "--metrics-interval", "0")
    assert "nothing tells whether training was long enough" in capsys.readouterr().out
    assert history(tmp_path)["final_metrics"] is None


def test_a_collapse_that_only_the_end_finds_is_an_error_too(data_dir, tmp_path, at_any_cost, monkeypatch):
    for name, value in {"WARM_UP": 0, "IN_A_ROW": 1, "LOW_DIVERSITY": 1e9}.items():
        monkeypatch.setattr(gan_warnings, name, value)
    flags = ["--epochs", "3", "--metrics-interval", "4"]
    with pytest.raises(UserError, match="after epoch 3: mode collapse"):
        train(data_dir, tmp_path, *flags, "--stop-on-collapse")
    assert paths.generator_final(tmp_path / "models").is_file()


def test_the_summary_names_the_best_generator_that_is_kept(data_dir, tmp_path, at_any_cost, monkeypatch, capsys):
    """Also where the evaluation after the last epoch found it."""
    kids = iter([0.3, 0.1])
    original = evaluation.Monitor.in_space
    monkeypatch.setattr(evaluation.Monitor, "in_space", lambda *args: original(*args) | {"kid": next(kids)})
    train(data_dir, tmp_path, "--epochs", "3", "--metrics-interval", "2")
    assert history(tmp_path)["best"]["step"] == 9
    assert load_checkpoint(paths.generator_best(tmp_path / "models"))["step"] == 9
    assert "generator_best.pth: step 9, KID 0.1000 (HOG)" in capsys.readouterr().out


def test_a_finished_run_that_is_resumed_keeps_what_real_images_score(watched, tmp_path, data_dir):
    """It evaluates nothing any more, and still draws and records the floors of the part before."""
    shutil.copytree(watched, tmp_path / "a")
    floors = history(watched)["metrics"]["floors"]
    assert floors["HOG"]["kid"] is not None
    flags = ["--epochs", "4", "--metrics-interval", "2", "--checkpoint-interval", "4"]
    train(data_dir, tmp_path / "a", *flags, "--resume")
    assert history(tmp_path / "a")["metrics"]["floors"] == floors
    figure = paths.gan_quality_figure("figures")
    assert (tmp_path / "a" / figure).read_bytes() == (watched / figure).read_bytes()


def test_resume_refuses_other_metrics(watched, data_dir, tmp_path):
    state = str(paths.gan_state(watched / "models"))
    with pytest.raises(UserError, match=r"--metrics-interval 2 \(now 3\)"):
        train(data_dir, tmp_path, "--epochs", "8", "--resume", state, "--metrics-interval", "3")


# --- patients set aside ----------------------------------------------------------------------------
def test_a_holdout_is_not_trained_on_and_not_in_the_checkpoint(data_dir, tmp_path, watched, at_any_cost):
    train(data_dir, tmp_path, "--epochs", "2", "--metrics-interval", "1", "--metrics-holdout", "0.34")
    all_of_them = load_checkpoint(paths.generator_final(watched / "models"))
    reduced = load_checkpoint(paths.generator_final(tmp_path / "models"))
    assert len(all_of_them["train_image_ids"]) == 12 and len(reduced["train_image_ids"]) == 8
    assert set(reduced["train_patients"]) < set(all_of_them["train_patients"])
    metrics = history(tmp_path)["epochs"][-1]["metrics"]
    assert "holdout" in metrics["spaces"]["HOG"] and "holdout" in metrics["discriminator"]


def test_held_out_images_of_a_conditional_gan_are_judged_as_of_their_classes(
    data_dir, tmp_path, at_any_cost, monkeypatch
):
    """D is asked about each of them with the class that the metadata give it."""
    asked = {}
    original = evaluation.Monitor._logits

    def record(self, D, pixels, labels):
        asked.setdefault(len(asked), (torch.from_numpy(pixels.copy()), labels.clone()))
        return original(self, D, pixels, labels)

    monkeypatch.setattr(evaluation.Monitor, "_logits", record)
    flags = ["--conditional", "--epochs", "1", "--metrics-interval", "1", "--metrics-holdout", "0.2"]
    train(data_dir, tmp_path, *flags)
    assert "holdout_error" in history(tmp_path)["epochs"][-1]["metrics"]["discriminator"]
    pixels, labels = asked[2]  # after training and generated images
    brightness = {int(label): pixels[labels == label].float().mean() for label in labels.unique()}
    expected = {0: 95, 1: 125, 2: 155}  # of gan_data's classes, in the order of CLASS_NAMES
    assert len(brightness) > 1
    for label, mean in brightness.items():
        assert float(mean) == pytest.approx(expected[label], abs=5)


def test_flags_about_metrics_are_refused_where_there_are_none(data_dir, tmp_path, capsys):
    (tmp_path / "c.pth").write_bytes(b"")
    for flags in (["--metrics-holdout", "0.1"], ["--metrics-features", str(tmp_path / "c.pth")]):
        with pytest.raises(SystemExit):
            train(data_dir, tmp_path, *flags, "--metrics-interval", "0")
        assert f"{flags[0]} is for metrics, and --metrics-interval 0" in capsys.readouterr().err


def test_a_wrong_file_of_a_classifier_is_found_before_anything_is_read(tmp_path, capsys):
    """There are no data, either."""
    with pytest.raises(SystemExit):
        train(tmp_path / "none", tmp_path, "--metrics-features", str(tmp_path / "c.pth"))
    assert "c.pth is not there" in capsys.readouterr().err
    save_checkpoint(tmp_path / "g.pth", {"format": "dcgan-generator-1"})
    for flags in ([], ["--dry-run"]):
        with pytest.raises(UserError, match=r"g\.pth is not a classifier"):
            train(tmp_path / "none", tmp_path, "--metrics-features", str(tmp_path / "g.pth"), *flags)


def test_12_bits_in_16_are_refused_and_train_as_their_8_bits_on_request(data_dir, tmp_path, at_any_cost):
    other = tmp_path / "twelve"
    shutil.copytree(data_dir, other)
    (other / paths.SPLITS).unlink(missing_ok=True)
    for file in paths.training_images(other).iterdir():
        gray = np.asarray(Image.open(file)).astype(np.float64)
        Image.fromarray(np.round(gray * 4095 / 255).astype(np.uint16)).save(file)
    flags = ["--epochs", "1", "--metrics-interval", "0"]
    with pytest.raises(UserError, match="uses more than 12 bits.*--bits 12"):
        train(other, tmp_path / "b", *flags)
    train(other, tmp_path / "b", *flags, "--bits", "12")
    train(data_dir, tmp_path / "a", *flags)
    eight, twelve = (load_checkpoint(paths.generator_final(tmp_path / n / "models"))["state_dict"] for n in "ab")
    assert all(torch.equal(eight[name], twelve[name]) for name in eight)


# --- warnings --------------------------------------------------------------------------------------
def test_a_collapse_is_told_everywhere_and_ends_the_run_on_request(
    data_dir, tmp_path, at_any_cost, monkeypatch, capsys
):
    monkeypatch.setattr(gan_warnings, "WARM_UP", 0)
    original = outputs.make_samples
    # A generator that makes one image, whatever its noise.

    def repeat_one(gan, z, label=None):
        return original(gan, z[:1], label).repeat(len(z), axis=0)

    monkeypatch.setattr(outputs, "make_samples", repeat_one)
    flags = ["--epochs", "9", "--metrics-interval", "1", "--stop-on-collapse"]
    with pytest.raises(UserError, match="after epoch 2: mode collapse"):
        train(data_dir, tmp_path, *flags)
    assert "mode collapse" in capsys.readouterr().out
    content = history(tmp_path)
    assert [(line["rule"], line["epoch"]) for line in content["warnings"]] == [("collapse", 2)]
    assert "diversity 0.00" in stats(tmp_path)[-1]["warnings"]["collapse"]
    checkpoint = load_checkpoint(paths.generator_final(tmp_path / "models"))
    flag = next(flag for flag in checkpoint["red_flags"] if "mode collapse" in flag)
    manifest = make_manifest(checkpoint, 1, "generate_synthetic.py")
    assert flag in manifest["red_flags"]  # from where it travels into every report


def test_a_generator_of_training_images_is_told_of(data_dir, tmp_path, at_any_cost, monkeypatch):
    monkeypatch.setattr(trainer.Trainer, "sample", lambda run, z, label: run.data.pixels[: len(z)].cpu().numpy())
    train(data_dir, tmp_path, "--epochs", "1", "--metrics-interval", "1")
    assert [line["rule"] for line in history(tmp_path)["warnings"]] == ["copying"]


def rules(folder: Path) -> set[str]:
    return {line["rule"] for line in history(folder)["warnings"]}


def test_a_discriminator_that_is_far_too_strong_is_told_of(data_dir, tmp_path, at_any_cost, monkeypatch):
    """G learns nothing, and D a hundred times as fast as usual: it has won, and knows its images by heart."""
    monkeypatch.setattr(gan_warnings, "SATURATED_STEPS", 20)
    flags = ["--epochs", "25", "--lr-d", "0.02", "--lr", "1e-9", "--d-norm", "none", "--no-diffaug"]
    train(data_dir, tmp_path, *flags, "--metrics-interval", "5")
    assert {"d_saturated", "over_fit"} <= rules(tmp_path)


def test_a_generator_that_stands_still_is_told_of(data_dir, tmp_path, at_any_cost):
    """Without BatchNorm, whose statistics move although no weight does."""
    train(data_dir, tmp_path, "--arch", "resnet", "--lr", "1e-12", "--epochs", "6", "--metrics-interval", "1")
    assert "no_progress" in rules(tmp_path)


def test_gradients_that_explode_are_told_of(data_dir, tmp_path, at_any_cost, monkeypatch):
    """After twelve steps as usual D's weights are what a broken update leaves."""
    monkeypatch.setattr(trainer, "STATS_EVERY", 1)
    original = trainer.Trainer.take_step

    def broken(run, rows):
        if run.gan.step == 12:
            with torch.no_grad():
                run.gan.D.head.weight.mul_(1e4)
        return original(run, rows)

    monkeypatch.setattr(trainer.Trainer, "take_step", broken)
    train(data_dir, tmp_path, "--epochs", "5", "--d-norm", "none", "--metrics-interval", "0")
    assert [line["step"] for line in history(tmp_path)["warnings"] if line["rule"] == "exploding"] == [13]


# --- other ends ------------------------------------------------------------------------------------
def test_time_that_is_used_up_ends_a_run_that_resume_goes_on_with(
    data_dir, tmp_path, at_any_cost, monkeypatch, watched, capsys
):
    flags = ["--epochs", "4", "--metrics-interval", "2", "--checkpoint-interval", "4"]
    train(data_dir, tmp_path, *flags, "--max-minutes", "1e-6")
    assert "stopped after epoch 1" in capsys.readouterr().out
    assert load_checkpoint(paths.generator_final(tmp_path / "models"))["epoch"] == 1
    train(data_dir, tmp_path, *flags, "--max-minutes", "1000", "--resume")
    assert [line["d_loss"] for line in history(tmp_path)["epochs"]] == [
        line["d_loss"] for line in history(watched)["epochs"]
    ]


def test_weights_are_compared_whatever_ends_a_run(data_dir, tmp_path, at_any_cost, monkeypatch):
    compared = []
    monkeypatch.setattr(trainer, "require_same_weights", lambda what, *_: compared.append(what))
    train(data_dir, tmp_path, "--epochs", "4", "--checkpoint-interval", "4", "--max-minutes", "1e-6")
    assert compared == ["weights after epoch 1"]


def test_time_of_earlier_parts_counts():
    clock = Clock({"seconds": 100.0, "watching_seconds": 4.0})
    assert 100 <= clock.seconds() < 101
    with clock.aside():
        pass
    assert clock.summary()["watching_seconds"] == pytest.approx(4.0, abs=0.1)


def test_a_dry_run_says_what_there_would_be_and_writes_nothing(data_dir, tmp_path, monkeypatch, capsys):
    from studies import time_estimate

    monkeypatch.setattr(time_estimate, "PROBE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    fresh = shutil.copytree(data_dir, tmp_path / "data")
    (fresh / paths.SPLITS).unlink(missing_ok=True)
    before = sorted(tmp_path.rglob("*"))
    train_gan.main(["--data-dir", str(fresh), *SMALL, "--preset", "cpu", "--no-diffaug", "--dry-run"])
    text = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert re.search(r"--r1 +1\.0", text) and re.search(r"--lambda-fm +0\.0", text)
    assert re.search(r"--label-smoothing +0\.0", text) and "--resume" not in text and "--cpu\n" in text
    assert re.search(r"generator [\d,]+ parameters", text) and "--no-diffaug\n" in text
    assert "ABOUT" in text


def test_previewed_augmentations_are_real_images_and_only_shown_on_request(data_dir, tmp_path, capsys, monkeypatch):
    """Networks, VGG16 and the other images are left alone."""
    decoded, original = [], data_loader.read_and_measure
    monkeypatch.setattr(data_loader, "read_and_measure", lambda *a, **k: decoded.append(a) or original(*a, **k))
    monkeypatch.setattr(train_gan, "run_training", None)
    flags = ["--preview-augmentations", "--perceptual", "on", "--conditional"]
    train(data_dir, tmp_path, *flags)
    assert len(decoded) == train_gan.PREVIEW_IMAGES == 8
    made = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()]
    assert made == ["gan_images/reals_augmented.png"]
    assert "reals_augmented.png" in (Path(train_gan.__file__).parent.parent / ".gitignore").read_text()
    with pytest.raises(SystemExit):
        train(data_dir, tmp_path, "--preview-augmentations", "--no-real-images")
    with pytest.raises(SystemExit):
        train(data_dir, tmp_path, "--preview-augmentations", "--no-diffaug")
    assert "add --diffaug" in capsys.readouterr().err


def test_a_preview_of_few_images_has_each_below_itself(data_dir, tmp_path, monkeypatch):
    drawn = []

    def draw(images, columns, title):
        drawn.append((len(images), columns))
        return images[0]

    monkeypatch.setattr(figures, "mosaic", draw)
    train(data_dir, tmp_path, "--preview-augmentations", "--train-fraction", "0.34")
    ((n_images, columns),) = drawn
    assert columns < train_gan.PREVIEW_IMAGES and n_images == train_gan.PREVIEW_ROWS * columns


# --- TensorBoard -----------------------------------------------------------------------------------
def test_tensorboard_gets_every_number_of_every_line(data_dir, tmp_path, at_any_cost, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.folder, self.purge_step = folder, purge_step

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    train(data_dir, tmp_path, "--epochs", "2", "--metrics-interval", "2", "--tensorboard")
    names = {name for name, _, step in written if step == 6}
    assert {"d_loss", "metrics/spaces/HOG/kid", "time/images_per_second"} <= names
    line = stats(tmp_path)[0]
    assert ("d_loss", pytest.approx(line["d_loss"]), 3) in written


def test_tensorboard_that_is_not_installed_is_one_line(data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        train(data_dir, tmp_path, "--epochs", "1", "--tensorboard")


# --- pictures --------------------------------------------------------------------------------------
def test_a_mosaic_shows_every_pixel_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype(np.uint8)
    sheet = mosaic(images, 3, "six")
    scale = 4  # 32 pixels become 128
    top, left = 12 + 34 + 128 + 4, 12 + 128 + 4  # the fifth: second row, second column
    assert (sheet[top : top + 128, left : left + 128] == np.kron(images[4], np.ones((scale, scale)))).all()


def test_a_walk_goes_through_its_stops_and_comes_back():
    stops = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    walk = outputs.closed_walk(stops, 4)
    torch.testing.assert_close(walk[::4], stops)
    middle = outputs.slerp(stops[0], stops[1], torch.tensor([0.5]))[0]
    assert float(middle.norm()) == pytest.approx(float(stops[0].norm() + stops[1].norm()) / 2, rel=1e-5)
    angles = [torch.cosine_similarity(middle, stop, dim=0) for stop in stops[:2]]
    assert float(angles[0]) == pytest.approx(float(angles[1]), abs=1e-5)
    same_way = outputs.slerp(stops[0], 2 * stops[0], torch.tensor([0.5]))[0]
    torch.testing.assert_close(same_way, 1.5 * stops[0])


def test_a_gif_holds_the_frames_to_a_level_of_gray(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16)).astype(np.uint8)
    file = tmp_path / "walk.gif"
    file.write_bytes(encode_gif(frames))
    with Image.open(file) as walk:
        assert walk.n_frames == 5
        for number in range(5):
            walk.seek(number)
            shown = np.asarray(walk.convert("L")).astype(int)
            assert np.abs(shown - frames[number]).max() <= 255 / 31 / 2 + 1


def test_quality_is_drawn_with_floor_and_best():
    space = {"kid": 0.1, "recall": 0.2, "precision": 0.5, "diversity": 0.7}
    evaluations = [(1000 * n, {"spaces": {"HOG": space | {"kid": 0.1 / n}}}) for n in (1, 2, 3)]
    floors = {"HOG": {"kid": 0.001, "recall": 0.8, "precision": 0.8}}
    best = {"space": "HOG", "images_seen": 3000, "kid": 0.1 / 3}
    figure = gan_quality(evaluations, floors, best, "title")
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert left.lines[1].get_ydata()[0] == 0.001 and left.lines[2].get_xdata()[0] == 3.0
    assert {line.get_label() for line in right.lines} >= {"recall", "precision", "diversity"}
