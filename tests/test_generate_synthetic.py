"""Generation of synthetic images as a user runs it: what is written, what is continued, what is refused."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dcgan
import generate_synthetic
from common import paths
from common.command_line import NOT_RECORDED
from common.file_formats import format_problems
from gan import generation
from gan import networks as gan_networks
from gan import step as gan_step
from gan_data import save_generator
from synthetic.file_formats import Manifest
from utils import UserError, load_checkpoint, load_json, save_checkpoint, save_json, sha256_file


@pytest.fixture
def generator(tmp_path) -> Path:
    return save_generator(tmp_path / "generator_final.pth")


def generate(generator: Path, folder: Path, *flags: str) -> None:
    command = ["--model-path", str(generator), "--output-dir", str(folder), "--cpu", "--num-images", "9"]
    generate_synthetic.main([*command, *flags])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_images_are_numbered_gray_8_bit_png_with_a_manifest_of_their_origin(generator, tmp_path):
    generate(generator, tmp_path / "out")
    names = [f"synthetic_{number:05d}.png" for number in range(1, 10)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", *names]
    with Image.open(tmp_path / "out" / names[0]) as image:
        assert (image.mode, image.size, image.format) == ("L", (32, 32), "PNG")
    manifest = load_json(paths.synthetic_manifest(tmp_path / "out"))
    expected = {
        "format": "synthetic-manifest-1", "generator_sha256": sha256_file(generator), "split_sha256": "split",
        "data_sha256": "data", "grouped_by": "nih_patient", "classes": "positive", "label": 1,
        "image_size": 32, "count": 9, "seed": 42, "train_image_ids": ["a", "b"], "train_patients": ["p"],
        "generator_step": 7, "files": "synthetic_%05d.png", "complete": True,
        "created_by": "generate_synthetic.py", "generator": "generator_final.pth",
        "output_dir": "out",
        "train_fraction": 1.0, "fold": None, "k_folds": None, "red_flags": [],
    }  # fmt: skip
    assert manifest == expected
    assert not format_problems(manifest, Manifest)


def test_images_of_a_seed_differ_from_each_other_and_from_those_of_another_seed(generator, tmp_path):
    generate(generator, tmp_path / "a")
    generate(generator, tmp_path / "b", "--seed", "43")
    assert len(set(contents(tmp_path / "a").values()) | set(contents(tmp_path / "b").values())) == 18


def test_an_image_depends_on_seed_and_number_alone(generator, tmp_path):
    generate(generator, tmp_path / "all")
    for name, flags in {"one": ["--batch-size", "1"], "four": ["--batch-size", "4"]}.items():
        generate(generator, tmp_path / name, *flags)
        assert contents(tmp_path / name) == contents(tmp_path / "all")
    generate(generator, tmp_path / "fewer", "--num-images", "3")
    assert contents(tmp_path / "fewer").items() <= contents(tmp_path / "all").items()


def test_pixels_are_the_generators_output_from_black_to_white(generator, tmp_path):
    generate(generator, tmp_path / "out")
    network = gan_networks.generator_from_checkpoint(load_checkpoint(generator), "g").double()
    z = gan_step.image_noise(42, generation.NOISE_STREAM, 5, 1, 5)
    gray = network(z.double()).mean(dim=1)[0].detach().numpy()  # [32, 32] in [-1, 1]
    with Image.open(paths.synthetic_image(tmp_path / "out", 5)) as image:
        np.testing.assert_allclose(np.asarray(image), (gray + 1) / 2 * 255, atol=0.51)


def test_folding_batchnorm_changes_nothing_but_the_time():
    torch.manual_seed(0)
    network = dcgan.Generator(image_size=32, num_channels=3, latent_dim=5, feature_maps=4)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.3, 3.0)
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.normal_(module.bias)
    z = torch.randn(6, 5)
    expected = network.eval()(z)
    folded = generation.for_inference(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert not any(weight.requires_grad for weight in folded.parameters())
    torch.testing.assert_close(folded(z), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network(z), expected)  # the generator itself is left as it was


@pytest.mark.parametrize("workers", [1, 3])
def test_images_do_not_depend_on_the_number_of_writing_threads(generator, tmp_path, workers):
    generate(generator, tmp_path / "four")
    generate(generator, tmp_path / "other", "--workers", str(workers), "--batch-size", "2")
    assert contents(tmp_path / "other") == contents(tmp_path / "four")


def test_a_disk_that_fills_up_ends_generation_and_leaves_no_part_of_a_file(generator, tmp_path, monkeypatch):
    original = generation.save_png

    def full(path, pixels):
        if path.name == "synthetic_00003.png":
            raise OSError(28, "No space left on device")
        original(path, pixels)

    monkeypatch.setattr(generation, "save_png", full)
    with pytest.raises(OSError, match="No space left"):
        generate(generator, tmp_path / "out", "--batch-size", "2")
    assert load_json(paths.synthetic_manifest(tmp_path / "out"))["complete"] is False
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"synthetic_00001.png", "synthetic_00002.png"} <= names
    assert not any(name.endswith(".tmp") for name in names)


def test_interrupted_generation_goes_on_where_it_stopped(generator, tmp_path, monkeypatch, capsys):
    generate(generator, tmp_path / "whole")
    original, saved, lock = generation.save_png, [], threading.Lock()

    def interrupted(path, pixels):  # called by several threads
        with lock:
            if len(saved) == 4:
                raise KeyboardInterrupt
            saved.append(path)
        original(path, pixels)

    monkeypatch.setattr(generation, "save_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(generator, tmp_path / "out")
    assert load_json(paths.synthetic_manifest(tmp_path / "out"))["complete"] is False
    times = {path: path.stat().st_mtime_ns for path in saved}
    monkeypatch.setattr(generation, "save_png", original)
    generate(generator, tmp_path / "out")
    assert "4 images of this generator and seed are there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in saved} == times
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert load_json(paths.synthetic_manifest(tmp_path / "out"))["complete"] is True


def test_more_images_extend_the_folder_and_a_damaged_one_is_made_again(generator, tmp_path):
    generate(generator, tmp_path / "whole")
    generate(generator, tmp_path / "out", "--num-images", "5")
    damaged = paths.synthetic_image(tmp_path / "out", 2)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    generate(generator, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert load_json(paths.synthetic_manifest(tmp_path / "out"))["count"] == 9


def test_fewer_images_than_there_are_is_refused_with_both_numbers(generator, tmp_path):
    generate(generator, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds 9 images, but --num-images 3 .*--overwrite"):
        generate(generator, tmp_path / "out", "--num-images", "3")
    assert len(contents(tmp_path / "out")) == 9


@pytest.mark.parametrize("what", ["generator", "seed"])
def test_images_of_another_generator_or_seed_are_kept_unless_overwritten(generator, tmp_path, what):
    other = save_generator(tmp_path / "other.pth", seed=1)
    generate(generator, tmp_path / "out", "--num-images", "12")
    before = contents(tmp_path / "out")
    new = (other, tmp_path / "out") if what == "generator" else (generator, tmp_path / "out", "--seed", "1")
    with pytest.raises(UserError, match=rf"images of another {what} .*--overwrite"):
        generate(*new)
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "notes.txt").write_text("mine")
    generate(*new, "--overwrite")
    after = contents(tmp_path / "out")
    assert len(after) == 9
    assert not set(after.values()) & set(before.values())
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_images_without_a_fold_go_to_its_subfolder_and_outlive_the_others(generator, tmp_path, capsys):
    origin = {"fold": 2, "k_folds": 3, "train_fraction": 0.5, "red_flags": ["few"]}
    without_fold = save_generator(tmp_path / "fold.pth", seed=1, **origin)
    generate(without_fold, tmp_path / "out")
    inner = tmp_path / "out" / "fold_2"
    assert f"without fold 2 of 3: into {inner}" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fold_2"]
    manifest = load_json(paths.synthetic_manifest(inner))
    assert {key: manifest[key] for key in origin} == origin
    before = contents(inner)
    assert len(before) == 9
    generate(generator, tmp_path / "out")  # no images are in its way
    generate(generator, tmp_path / "out", "--overwrite", "--seed", "1")
    assert contents(inner) == before
    with pytest.raises(UserError, match=r"fold_2 holds images of another generator"):
        generate(save_generator(tmp_path / "other.pth", seed=2, **origin), tmp_path / "out")


def test_images_of_unknown_origin_are_refused(generator, tmp_path):
    folder = tmp_path / "out"
    generate(generator, folder)
    stray = paths.synthetic_image(folder, 10)
    stray.write_bytes(paths.synthetic_image(folder, 1).read_bytes())
    with pytest.raises(UserError, match=r"1 image \(synthetic_00010\.png\) of unknown origin"):
        generate(generator, folder)
    stray.unlink()
    paths.synthetic_manifest(folder).unlink()
    with pytest.raises(UserError, match=r"9 images without a manifest\.json"):
        generate(generator, folder)


def test_a_damaged_manifest_is_named(generator, tmp_path):
    generate(generator, tmp_path / "out")
    file = paths.synthetic_manifest(tmp_path / "out")
    save_json(file, load_json(file) | {"count": "many"})
    with pytest.raises(UserError, match=r"manifest\.json is damaged: count: 'many' is not .*--overwrite"):
        generate(generator, tmp_path / "out")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(generator, tmp_path, value):
    content = load_checkpoint(generator)
    next(iter(content["state_dict"].values())).view(-1)[0] = value
    save_checkpoint(generator, content)
    with pytest.raises(UserError, match="not all finite"):
        generate(generator, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_generator_of_all_classes_makes_images_without_a_label(tmp_path, capsys):
    generator = save_generator(tmp_path / "g.pth", classes="all", label=None)
    generate(generator, tmp_path / "out")
    assert load_json(paths.synthetic_manifest(tmp_path / "out"))["label"] is None
    assert "no label" in capsys.readouterr().out


class TestClasses:
    """A generator that was trained with --conditional."""

    @pytest.fixture
    def conditional(self, tmp_path) -> Path:
        return save_generator(tmp_path / "c.pth", n_classes=3, classes="all", label=None)

    @pytest.mark.parametrize(
        ("label", "number", "meaning"), [("lung_opacity", 0, 1), ("normal", 1, 0), ("not_normal", 2, 0)]
    )
    def test_images_and_manifest_are_of_the_class_that_is_asked_for(
        self, conditional, tmp_path, capsys, label, number, meaning
    ):
        generate(conditional, tmp_path / "out", "--label", label)
        manifest = load_json(paths.synthetic_manifest(tmp_path / "out"))
        assert (manifest["label"], manifest["class"], manifest["classes"]) == (meaning, label, "all")
        assert manifest["train_image_ids"] == ["a", "b"], "of all classes: what the generator has seen"
        assert f"32 px, label {meaning} ({label})" in capsys.readouterr().out
        network = gan_networks.generator_from_checkpoint(load_checkpoint(conditional), "c").double()
        z = gan_step.image_noise(42, generation.NOISE_STREAM, 5, 1, 5)
        gray = network(z.double(), torch.tensor([number])).mean(dim=1)[0].detach().numpy()
        with Image.open(paths.synthetic_image(tmp_path / "out", 5)) as image:
            np.testing.assert_allclose(np.asarray(image), (gray + 1) / 2 * 255, atol=0.51)

    def test_an_image_of_a_class_depends_on_seed_and_number_alone_and_classes_differ(self, conditional, tmp_path):
        for name, label, flags in (
            ("normal", "normal", []), ("again", "normal", ["--batch-size", "2"]), ("ill", "lung_opacity", []),
        ):  # fmt: skip
            generate(conditional, tmp_path / name, "--label", label, *flags)
        assert contents(tmp_path / "again") == contents(tmp_path / "normal")
        normal, ill = contents(tmp_path / "normal"), contents(tmp_path / "ill")
        assert all(normal[name] != ill[name] for name in normal)

    def test_the_class_must_be_said(self, conditional, tmp_path):
        with pytest.raises(UserError, match=r"c\.pth was .*--label {lung_opacity,normal,not_normal}"):
            generate(conditional, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_folder_holds_images_of_one_class(self, conditional, tmp_path):
        generate(conditional, tmp_path / "out", "--label", "normal")
        before = contents(tmp_path / "out")
        with pytest.raises(UserError, match=r"another class \(normal, now lung_opacity\).*--output-dir"):
            generate(conditional, tmp_path / "out", "--label", "lung_opacity")
        assert contents(tmp_path / "out") == before
        generate(conditional, tmp_path / "out", "--label", "lung_opacity", "--overwrite")
        assert load_json(paths.synthetic_manifest(tmp_path / "out"))["label"] == 1

    def test_images_without_a_fold_go_to_its_subfolder(self, tmp_path):
        origin = {"classes": "all", "label": None, "fold": 2, "k_folds": 3}
        generator = save_generator(tmp_path / "c.pth", n_classes=3, **origin)
        generate(generator, tmp_path / "out", "--label", "normal")
        manifest = load_json(paths.synthetic_manifest(tmp_path / "out" / "fold_2"))
        assert (manifest["label"], manifest["class"], manifest["fold"]) == (0, "normal", 2)

    def test_other_generators_take_no_class_but_what_they_learned_from(self, generator, tmp_path):
        generate(generator, tmp_path / "plain")
        generate(generator, tmp_path / "said", "--label", "lung_opacity")
        assert contents(tmp_path / "said") == contents(tmp_path / "plain")
        manifests = [load_json(paths.synthetic_manifest(tmp_path / name)) for name in ("plain", "said")]
        assert "class" not in manifests[1]
        assert manifests[0] | {"output_dir": "said"} == manifests[1]
        with pytest.raises(UserError, match=r"--label normal contradicts .*images of lung_opacity only"):
            generate(generator, tmp_path / "out", "--label", "normal")
        of_all = save_generator(tmp_path / "all.pth", classes="all", label=None)
        with pytest.raises(UserError, match=r"all classes as if they were one; train .*--conditional"):
            generate(of_all, tmp_path / "out", "--label", "lung_opacity")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flag", "given", "trained"), [("--latent-dim", 6, 5), ("--feature-maps-g", 8, 4)])
def test_flags_that_contradict_the_checkpoint_are_refused_with_both_numbers(generator, tmp_path, flag, given, trained):
    generate(generator, tmp_path / "same", flag, str(trained))
    with pytest.raises(UserError, match=rf"{flag} {given} contradicts .*has {trained}"):
        generate(generator, tmp_path / "out", flag, str(given))
    assert not (tmp_path / "out").exists()


def test_missing_or_foreign_checkpoints_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth is missing; python src/train_gan\.py"):
        generate(tmp_path / "none.pth", tmp_path / "out")
    foreign = save_generator(tmp_path / "d.pth", format="dcgan-discriminator-1")
    with pytest.raises(UserError, match=r"d\.pth is not a generator"):
        generate(foreign, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_documented_defaults():
    parsed = vars(generate_synthetic.build_parser().parse_args(["--model-path", "g.pth"]))
    assert {name: value for name, value in parsed.items() if name not in NOT_RECORDED} == {
        "model_path": "g.pth", "output_dir": "./data/synthetic", "num_images": 5000, "latent_dim": None,
        "feature_maps_g": None, "batch_size": 64, "seed": 42, "workers": 4,
        "overwrite": False, "cpu": False, "estimate": False, "label": None, "plan": None,
    }  # fmt: skip
    text = " ".join(generate_synthetic.build_parser().format_help().split())
    assert "(default: the checkpoint's; 100 in a default training)" in text


@pytest.mark.parametrize(
    "flags",
    [[], ["--model-path", "g.pth", "--num-images", "0"], ["--model-path", "g.pth", "--seed", str(2**32)]],
)
def test_wrong_usage_exits_with_2(flags):
    with pytest.raises(SystemExit) as stop:
        generate_synthetic.main(flags)
    assert stop.value.code == 2
