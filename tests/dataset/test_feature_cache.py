"""Features computed once: what is looked up, what is computed again, and that both are the same."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import classifier
from classifier import (
    ClassifierHead,
    FeatureExtractor,
    InputPipeline,
    PneumoniaClassifier,
    folded_for_inference,
    predict_batches,
)
from common import progress
from conftest import blob_image
from data_loader import ImageSet, load_images, to_classifier_range
from dataset import feature_cache
from dataset.feature_cache import FeatureCache, FeaturesOverflowError, sha256_weights
from stats.metrics import auroc
from utils import UserError

CPU = torch.device("cpu")
SIDE = 8


class Counting:
    """As a network: row means of the pixels; remembers what it was asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, pixels, image_ids):
        self.seen += image_ids
        return pixels.astype(np.float32).mean(axis=2) / 7.0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(feature_cache, "BLOCK", 4)


@pytest.fixture
def records(tmp_path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    files = [tmp_path / "images" / f"img-{index:02d}.png" for index in range(10)]
    files[0].parent.mkdir()
    for file in files:
        Image.fromarray(blob_image(rng, SIDE, positive=False)).save(file)
    return pd.DataFrame({"image_id": [file.stem for file in files], "path": files})


@pytest.fixture
def images(records) -> ImageSet:
    return load_images(records, SIDE)


def cache(folder: Path | None, **facts) -> FeatureCache:
    return FeatureCache(folder, {"network": "means", **facts}, Counting(), SIDE)


def block_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob(feature_cache.BLOCK_PATTERN))


class TestLookUp:
    def test_computed_once_and_the_same_to_the_bit(self, images, tmp_path):
        without, first, second = cache(None), cache(tmp_path / "c"), cache(tmp_path / "c")
        expected = without.features(images)
        assert expected.dtype == np.float16 and expected.shape == (10, SIDE)
        assert np.allclose(expected, images.pixels.mean(axis=2) / 7, rtol=1e-3)
        assert np.array_equal(first.features(images), expected) and len(first.compute.seen) == 10
        assert np.array_equal(second.features(images), expected) and second.compute.seen == []
        assert len(block_files(tmp_path / "c")) == 3 and without.compute.seen == first.compute.seen

    def test_any_list_finds_what_another_has_had_computed(self, records, images, tmp_path):
        cache(tmp_path / "c").features(images)
        backwards = load_images(records.iloc[::-2].reset_index(drop=True), SIDE)
        part = cache(tmp_path / "c")
        assert np.array_equal(part.features(backwards), cache(None).features(backwards)) and part.compute.seen == []
        rows = np.array([7, 2])
        assert np.array_equal(part.features(images, rows), cache(None).features(images)[rows])

    def test_only_what_is_missing_is_computed(self, records, images, tmp_path):
        cache(tmp_path / "c").features(load_images(records.iloc[2:5].reset_index(drop=True), SIDE))
        rest = cache(tmp_path / "c")
        assert np.array_equal(rest.features(images), cache(None).features(images))
        assert rest.compute.seen == [f"img-{i:02d}" for i in (0, 1, 5, 6, 7, 8, 9)]

    def test_another_network_or_precision_is_another_space(self, images, tmp_path):
        cache(tmp_path / "c", precision="fp32").features(images)
        other = cache(tmp_path / "c", precision="bf16")
        other.features(images)
        assert len(other.compute.seen) == 10

    @pytest.mark.parametrize("what", ["content", "size of the pixels"])
    def test_a_changed_image_or_size_is_computed_again(self, records, images, tmp_path, what):
        cache(tmp_path / "c").features(images)
        if what == "content":
            Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(records["path"][3])
        changed = load_images(records, SIDE if what == "content" else 2 * SIDE)
        again = FeatureCache(tmp_path / "c", {"network": "means"}, lambda p, i: Counting()(p[:, :SIDE, :SIDE], i), SIDE)
        features = again.features(changed)
        assert np.allclose(features, changed.pixels[:, :SIDE, :SIDE].mean(axis=2) / 7, rtol=1e-3)

    def test_images_without_keys_are_never_kept(self, images, tmp_path):
        nameless = ImageSet(images.records, images.pixels, [])
        for _ in range(2):
            own = cache(tmp_path / "c")
            own.features(nameless)
            assert len(own.compute.seen) == 10
        assert not block_files(tmp_path / "c")

    def test_pixels_are_read_block_by_block(self, images):
        class Watched:
            longest = 0

            def __getitem__(self, rows):
                self.longest = max(self.longest, len(rows))
                return images.pixels[rows]

        watched = Watched()
        features = cache(None).features(ImageSet(images.records, watched, []))
        assert np.array_equal(features, cache(None).features(images)) and watched.longest == feature_cache.BLOCK

    def test_a_memory_map_that_was_let_go_is_read_again(self, images, tmp_path):
        np.save(tmp_path / "pixels.npy", images.pixels)
        mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
        features = cache(None).features(ImageSet(images.records, mapped[:], []))
        assert np.array_equal(features, cache(None).features(images)) and np.array_equal(mapped, images.pixels)


class TestDamage:
    @pytest.mark.parametrize("how", ["a bit", "cut", "empty", "text", "key"])
    def test_a_damaged_block_is_not_used_but_made_again(self, images, tmp_path, how):
        cache(tmp_path / "c").features(images)
        file = block_files(tmp_path / "c")[1]
        content = bytearray(file.read_bytes())
        if how == "a bit":
            content[-3] ^= 1
        elif how == "key":
            content[32 + 130] ^= 1  # within the keys, after the header of 128 bytes
        damaged = {"cut": content[: len(content) // 2], "empty": b"", "text": b"x" * 300}.get(how, content)
        file.write_bytes(damaged)
        again = cache(tmp_path / "c")
        assert np.array_equal(again.features(images), cache(None).features(images))
        assert 0 < len(again.compute.seen) <= 4
        whole = cache(tmp_path / "c")
        whole.features(images)
        assert whole.compute.seen == [], "it was mended"

    def test_nothing_pickled_is_read(self, images, tmp_path):
        own = cache(tmp_path / "c")
        own.features(images)
        file = block_files(tmp_path / "c")[0]
        with file.open("wb") as opened:
            opened.write(b"0" * 32)
            np.save(opened, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        assert np.array_equal(cache(tmp_path / "c").features(images), cache(None).features(images))

    def test_a_killed_run_goes_on_after_its_last_block(self, images, tmp_path):
        killed = cache(tmp_path / "c")
        compute = killed.compute

        def until(pixels, image_ids):
            if "img-08" in image_ids:
                raise KeyboardInterrupt
            return compute(pixels, image_ids)

        killed.compute = until
        with pytest.raises(KeyboardInterrupt):
            killed.features(images)
        again = cache(tmp_path / "c")
        assert np.array_equal(again.features(images), cache(None).features(images))
        assert again.compute.seen == ["img-08", "img-09"]

    def test_a_folder_that_cannot_be_written_costs_one_line(self, images, tmp_path, capsys):
        (tmp_path / "c").write_text("a file")
        own = cache(tmp_path / "c")
        assert np.array_equal(own.features(images), cache(None).features(images))
        own.features(images)
        out = capsys.readouterr().out
        assert out.count("WARNING") == 1 and "--no-cache" in out

    def test_a_full_disk_leaves_no_half_file(self, images, tmp_path, monkeypatch, capsys):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        own = cache(tmp_path / "c")
        assert np.array_equal(own.features(images), cache(None).features(images))
        assert "No space left" in capsys.readouterr().out
        left = [file.name for file in (tmp_path / "c").rglob("*") if file.is_file()]
        assert left == ["about.json"], "no block, and no temporary file of one"

    @pytest.mark.parametrize("value", [7e4, np.nan, np.inf])
    def test_features_that_overflow_are_refused_in_words_of_the_network(self, images, tmp_path, value):
        own = FeatureCache(
            tmp_path / "c", {"network": "the test's"}, lambda p, _: np.full((len(p), SIDE), value), SIDE,
            remedy="try another",
        )  # fmt: skip
        with pytest.raises(FeaturesOverflowError, match="of the test.s .* float16 .*; try another$"):
            own.features(images)
        assert not block_files(tmp_path / "c") and issubclass(FeaturesOverflowError, UserError)


class TestHint:
    def test_a_long_computation_names_the_flags_of_its_script(self, images, monkeypatch, capsys):
        monkeypatch.setattr(progress.Announcement, "AFTER", 0.0)
        monkeypatch.setattr(progress, "WORTH_SAYING", 0.0)
        FeatureCache(None, {}, Counting(), SIDE, hint="--few is quicker").features(images)
        assert "for 10 features; --few is quicker" in capsys.readouterr().out
        FeatureCache(None, {}, Counting(), SIDE).features(images)
        out = capsys.readouterr().out
        assert "for 10 features" in out and ";" not in out


# --- the classifier's features ---------------------------------------------------------------------
def picture(rng: np.random.Generator) -> np.ndarray:
    """uint8 [64, 64]: a few bright bars of random place, width and brightness on a random ground."""
    pixels = rng.normal(rng.integers(20, 120), 8, (64, 64))
    for _ in range(4):
        top, left, height, width = rng.integers(2, 40, 4)
        pixels[top : top + height, left : left + width] += rng.integers(-60, 90)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([picture(rng) for _ in range(48)])


def random_classifier(pixels: np.ndarray) -> PneumoniaClassifier:
    """Random weights whose BatchNorm layers know the statistics of ``pixels``: else all images would give
    nearly the same features. Residual branches add little each, as in trained networks."""
    torch.manual_seed(0)
    model = PneumoniaClassifier(frozen=True)
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
            nn.init.uniform_(module.weight, *((0.05, 0.3) if name.endswith("bn3") else (0.3, 0.7)))
            nn.init.uniform_(module.bias, -0.1, 0.2)
    model.backbone.train()
    with torch.no_grad():
        model.features(to_classifier_range(torch.from_numpy(pixels)))
    return model.eval()


@pytest.fixture(scope="module")
def model(pixels) -> PneumoniaClassifier:
    """Its head tells bright images from dark ones (difference of the means); logits have mean 0 and SD 1."""
    model = random_classifier(pixels)
    features = torch.from_numpy(FeatureExtractor(model, CPU)(pixels))
    bright = torch.from_numpy(is_bright(pixels))
    direction = features[bright].mean(dim=0) - features[~bright].mean(dim=0)
    logits = features @ direction
    with torch.no_grad():
        model.head.weight.copy_(direction / logits.std())
        model.head.bias.fill_(-(logits.mean() / logits.std()).item())
    return model


def is_bright(pixels: np.ndarray) -> np.ndarray:
    """bool [N]: half of the images."""
    brightness = pixels.mean(axis=(1, 2))
    return brightness > np.median(brightness)


def live_logits(model: PneumoniaClassifier, pixels: np.ndarray, precision: str = "fp32") -> torch.Tensor:
    """Of the whole network as it was trained, unfolded, in eval mode."""
    data = InputPipeline(torch.from_numpy(pixels))
    return predict_batches(model, data, np.arange(len(pixels)), batch_size=12, precision=precision)


def head_logits(model: PneumoniaClassifier, features: np.ndarray) -> torch.Tensor:
    head = ClassifierHead()
    head.load_state_dict({f"head.{key}": value for key, value in model.head.state_dict().items()})
    return head.eval()(torch.from_numpy(features)).detach()


class TestParity:
    def test_fp32_logits_from_features_are_those_of_the_live_network(self, model, pixels):
        live = live_logits(model, pixels)
        assert 0.9 < live.std() < 1.1
        features = FeatureExtractor(model, CPU)(pixels)
        assert features.dtype == np.float32 and features.shape == (48, 2048)
        assert (head_logits(model, features) - live).abs().max() < 5e-4
        assert (head_logits(model, features.astype(np.float16)) - live).abs().max() < 1e-3

    @pytest.mark.slow
    def test_bf16_changes_probabilities_and_auroc_little(self, model, pixels):
        exact = live_logits(model, pixels)
        coarse = head_logits(model, FeatureExtractor(model, CPU, "bf16")(pixels).astype(np.float16))
        assert (coarse.sigmoid() - exact.sigmoid()).abs().max() < 0.02
        labels = is_bright(np.roll(pixels, 7, axis=0) // 2 + pixels // 2).astype(int)
        assert 0.6 < auroc(labels, exact.numpy()) < 0.99
        assert abs(auroc(labels, coarse.numpy()) - auroc(labels, exact.numpy())) < 0.003

    @pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
    def test_an_images_features_do_not_depend_on_the_images_beside_it(self, model, pixels, precision):
        extract = FeatureExtractor(model, CPU, precision)
        whole = extract(pixels)
        assert np.array_equal(extract(pixels[13:14])[0], whole[13])
        assert np.array_equal(extract(pixels[5:22]), whole[5:22])

    def test_folding_leaves_no_batchnorm_and_the_network_as_it_was(self, model):
        before = sha256_weights(model.backbone)
        folded = folded_for_inference(model.backbone)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        assert sha256_weights(model.backbone) == before


class TestClassifierCache:
    def test_the_space_depends_on_all_that_features_do_but_not_on_the_head(self, model, tmp_path, monkeypatch):
        def key(of: PneumoniaClassifier = model, precision: str = "fp32", view: int = 0) -> str:
            caches = classifier.feature_caches(of, tmp_path, device=CPU, precision=precision, views=view + 1)
            return caches[view].key

        first = key()
        other = copy.deepcopy(model)
        other.head.weight.data += 1.0
        assert key(other) == key(), "the head differs, the backbone does not"
        other.backbone.bn1.running_mean[3] += 1e-3
        assert len({key(), key(other), key(precision="bf16"), key(view=1)}) == 4
        monkeypatch.setattr(classifier, "EXTRACTOR", "computed in another way")
        assert key() != first

    def test_a_view_of_an_image_depends_on_view_and_id_alone(self, model, records, tmp_path):
        def features(of: pd.DataFrame, view: int) -> np.ndarray:
            made = classifier.feature_caches(model, None, device=CPU, precision="fp32", views=3)
            return made[view].features(load_images(of.reset_index(drop=True), 32)).astype(np.float32)

        some = records.iloc[[1, 5]]
        one, two = features(some, 1), features(some, 2)
        assert np.array_equal(features(records.iloc[:6], 1)[[1, 5]], one)
        plain = features(some, 0)
        for a, b in ((one, two), (one, plain), (two, plain)):
            assert np.abs(a - b).max() > 0.05
