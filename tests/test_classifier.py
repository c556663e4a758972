import numpy as np
import pytest
import torch
from torchvision.models import resnet50

import classifier
from arms.fitting import train_one_epoch
from classifier import (
    ClassifierHead,
    FeatureExtractor,
    InputPipeline,
    PneumoniaClassifier,
    build_classifier,
    load_classifier,
    predict_batches,
)
from conftest import SMALL
from networks import backbone_builder
from utils import UserError, WeightsUnavailableError, save_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 40, 40), dtype=np.uint8)


def train_two_steps(model: PneumoniaClassifier, pixels: np.ndarray) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    labels = torch.tensor([0.0, 1.0] * 3)
    batches = np.arange(6).reshape(2, 3)
    data = InputPipeline(torch.from_numpy(pixels))
    train_one_epoch(model, data, labels, batches, optimizer, precision="fp32", seed=1)


class TestFrozenBackbone:
    def test_batchnorm_buffers_and_weights_never_move(self, pixels):
        torch.manual_seed(0)
        model = PneumoniaClassifier(frozen=True, name=SMALL)
        before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
        head = model.head.weight.clone()
        train_two_steps(model, pixels)
        for key, value in model.backbone.state_dict().items():
            assert torch.equal(value, before[key]), key
        assert not torch.equal(model.head.weight, head), "the head learns"

    def test_unfrozen_everything_learns(self, pixels):
        torch.manual_seed(0)
        model = PneumoniaClassifier(frozen=False, name=SMALL)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        train_two_steps(model, pixels)
        after = model.state_dict()
        for key in ("backbone.conv1.weight", "backbone.bn1.running_mean", "head.weight"):
            assert not torch.equal(after[key], before[key]), key

    def test_head_on_cached_features_gives_the_logits_of_the_whole(self, pixels):
        torch.manual_seed(0)
        model = PneumoniaClassifier(frozen=True, name=SMALL).eval()
        head = ClassifierHead(SMALL).eval()
        head.load_state_dict({key: value for key, value in model.state_dict().items() if key.startswith("head.")})
        features = FeatureExtractor(model, CPU)(pixels)
        assert features.shape == (6, 512) and features.dtype == np.float32
        rows = np.arange(6)
        whole = predict_batches(model, InputPipeline(torch.from_numpy(pixels)), rows, batch_size=6, precision="fp32")
        cached = predict_batches(head, InputPipeline(torch.from_numpy(features)), rows, batch_size=6, precision="fp32")
        assert torch.allclose(whole, cached, atol=1e-3)


def test_logits_have_full_precision_under_bfloat16():
    torch.manual_seed(0)
    head, features = ClassifierHead(), torch.randn(500, 2048)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(features))


def test_imagenet_weights_come_from_the_cache_or_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(backbone_builder, "imagenet_url", lambda _: "http://127.0.0.1:9/resnet50-0676ba61.pth")
    with pytest.raises(WeightsUnavailableError) as error:
        build_classifier("imagenet", frozen=True)
    for part in ("resnet50-0676ba61.pth", str(tmp_path), "--weights PATH", "--weights none --unfreeze"):
        assert part in str(error.value)
    torch.manual_seed(2)
    state = resnet50().state_dict()
    save_checkpoint(tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth", state)
    model = build_classifier("imagenet", frozen=True)
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])


def test_own_checkpoints_are_loaded_and_others_refused(tmp_path):
    model = PneumoniaClassifier(frozen=False, name=SMALL)
    content = {"format": classifier.CHECKPOINT_FORMAT, "backbone": SMALL, "frozen": False}
    content["state_dict"] = model.state_dict()
    save_checkpoint(tmp_path / "own.pth", content)
    loaded, _ = load_classifier(tmp_path / "own.pth")
    assert not loaded.training
    assert torch.equal(loaded.head.weight, model.head.weight)
    save_checkpoint(tmp_path / "other.pth", {"state_dict": {}})
    with pytest.raises(UserError, match="not a classifier"):
        load_classifier(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "content",
    [{}, {"frozen": True}, {"frozen": True, "state_dict": None}, {"frozen": True, "state_dict": {}},
     {"frozen": True, "state_dict": {"head.weight": 3}}, {"frozen": True, "state_dict": {0: torch.ones(1)}}],
)  # fmt: skip
def test_a_checkpoint_without_fitting_weights_is_damaged_in_one_line(tmp_path, content):
    save_checkpoint(tmp_path / "own.pth", {"format": classifier.CHECKPOINT_FORMAT, "backbone": SMALL, **content})
    with pytest.raises(UserError, match=r"own\.pth is damaged: its weights do not fit ResNet-18"):
        load_classifier(tmp_path / "own.pth")


@pytest.mark.parametrize("content", [{0: torch.ones(2)}, {"format": None}, {"format": 3}, {}])
def test_other_dicts_are_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a classifier"):
        load_classifier(tmp_path / "other.pth")


def test_evaluation_inputs_are_never_augmented(pixels):
    data = InputPipeline(torch.from_numpy(pixels), augment="light")
    rows = torch.arange(6)
    assert torch.equal(data.eval_batch(rows), data.eval_batch(rows))
    varied = data.train_batch(rows, torch.Generator().manual_seed(0))
    assert not torch.equal(varied, data.eval_batch(rows))
