"""Other people's weights: every wrapping is loaded as the network it is, all else ends in one line."""

import argparse
import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18, resnet50

from classifier import build_classifier
from networks.backbones import BACKBONES
from networks.weight_files import find_network, read_weight_file
from utils import UserError


def fresh_network(build: Callable[..., nn.Module]) -> nn.Module:
    """A ResNet whose BatchNorm statistics are not those of a fresh one, with another last layer, in eval mode."""
    torch.manual_seed(0)
    network = build(num_classes=7)
    with torch.no_grad():
        for name, value in network.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def source() -> nn.Module:
    return fresh_network(resnet50)


@pytest.fixture(scope="module")
def state(source) -> dict:
    return dict(source.state_dict())


@pytest.fixture(scope="module")
def expected(source) -> dict:
    return {name: value for name, value in source.state_dict().items() if not name.startswith("fc.")}


def under(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def noise(state: dict) -> dict:
    """Another network of the same names."""
    return {name: value + 1 for name, value in state.items()}


def numbered(state: dict, numbers: str = "01 4567") -> dict:
    """The names that nn.Sequential(*children) gives; ``numbers``: of conv1, bn1 and the four layers."""
    parts = ("conv1", "bn1", " ", "layer1", "layer2", "layer3", "layer4")
    new = dict(zip(parts, numbers, strict=True))
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first in new:
            renamed[f"{new[first]}.{rest}"] = value
    return renamed


def without_counters(state: dict) -> dict:
    return {name: value for name, value in state.items() if "num_batches" not in name}


WRAPPINGS = {
    "plain": lambda s: s,
    "OrderedDict": OrderedDict,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "model": lambda s: {"model": s, "model_ema": noise(s)},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.3},
    "net": lambda s: {"net": s, "acc": 91.2},
    "network": lambda s: {"network": under("module.", s)},
    "backbone": lambda s: {"backbone": s, "head": {"weight": torch.ones(2, 2)}},
    "nested": lambda s: {"checkpoint": {"model": {"state_dict": under("module.model.", s)}}},
    "module": lambda s: under("module.", s),
    "compiled": lambda s: {"state_dict": under("_orig_mod.", s)},
    "compiled and parallel": lambda s: under("_orig_mod.module.", s),
    "Lightning": lambda s: {"pytorch-lightning_version": "2.4.0", "state_dict": under("model.", s), "loops": {}},
    "Lightning, deeper": lambda s: {"state_dict": under("net.backbone.", s) | {"net.head.weight": torch.ones(2)}},
    "MoCo": lambda s: {"state_dict": under("module.encoder_q.", s) | under("module.encoder_k.", noise(s))
                       | {"module.queue": torch.ones(3)}},
    "MoCo v3": lambda s: {"state_dict": under("module.base_encoder.", s) | under("module.momentum_encoder.", noise(s))},
    "DINO": lambda s: {"student": under("module.backbone.", noise(s)), "teacher": under("backbone.", s)},
    "BYOL": lambda s: under("online_encoder.net.", s) | under("target_encoder.net.", noise(s)),
    "SwAV": lambda s: under("module.", s) | {"module.prototypes.weight": torch.ones(3, 2)},
    "SimSiam": lambda s: {"state_dict": under("module.encoder.", s), "arch": "resnet50"},
    "segmentation": lambda s: under("encoder.", s) | {"decoder.blocks.0.conv1.0.weight": torch.ones(3, 3)},
    "Sequential": numbered,
    "RadImageNet": lambda s: under("backbone.", numbered(s)),
    "Sequential without maximum": lambda s: under("f.", numbered(s, "01 3456")),
    "timm": lambda s: without_counters(s),
    "a copy of itself": lambda s: {"model": s, "best": {name: value.clone() for name, value in s.items()}},
    "odd keys": lambda s: {0: "zero", "state_dict": s, 1: {2: s["conv1.weight"]}},
    "odd counters": lambda s: s | {name: torch.ones(1) for name in s if "num_batches" in name},
}  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_the_network_is_found_in_every_wrapping(state, expected, wrap):
    found, _ = find_network(wrap(state), expected, BACKBONES["resnet50"], "file")
    for name, value in expected.items():
        if "num_batches" not in name:
            assert torch.equal(found[name], value), name


def save_lightning(state: dict, file: Path) -> None:
    more = {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.9), "state_dict": under("model.", state)}
    torch.save(more, file)


SAVED = {
    "plain.pth": torch.save,
    "old.pth.tar": lambda s, file: torch.save({"state_dict": s}, file, _use_new_zipfile_serialization=False),
    "lightning.ckpt": save_lightning,
    "model.safetensors": lambda s, file: save_file(under("model.", s), file, metadata={"format": "pt"}),
    "named_otherwise.bin": lambda s, file: save_file(s, file),
    "numbered.pt": lambda s, file: torch.save(under("backbone.", numbered(s)), file),
    "half.pth": lambda s, file: torch.save({name: value.half() for name, value in s.items()}, file),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_features_are_those_of_the_source_network(tmp_path, name):
    source = fresh_network(resnet18)
    state = dict(source.state_dict())
    SAVED[name](state, tmp_path / name)
    if name == "half.pth":
        source.load_state_dict({key: value.half() for key, value in state.items()})
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    loaded = build_classifier(str(tmp_path / name), frozen=True, name="resnet18").eval()
    with torch.no_grad():
        (body := nn.Sequential(*list(source.children())[:-1])).eval()
        assert torch.equal(loaded.features(images), body(images).flatten(1))
    assert loaded.backbone.conv1.weight.dtype == torch.float32


CHANGES = {
    "ResNet-18": (lambda s: dict(resnet18().state_dict()),
                  r"layer1\.0\.conv1\.weight is \[64, 64, 3, 3\], not .*looks like ResNet-18"),
    "ResNet-101": (lambda s: s | {f"layer3.{i}.conv1.weight": torch.ones(1) for i in range(6, 23)},
                   r"layer3\.6\.conv1\.weight, which ResNet-50 has not.*looks like ResNet-101"),
    "gray": (lambda s: s | {"conv1.weight": torch.ones(64, 1, 7, 7)}, r"conv1\.weight is \[64, 1, 7, 7\], not \[64, 3"),
    "wide": (lambda s: s | {"layer1.0.conv2.weight": torch.ones(128, 128, 3, 3)}, r"is \[128, 128, 3, 3\], not \[64"),
    "squeeze and excitation": (lambda s: s | {"layer1.0.se.fc1.weight": torch.ones(2)}, r"it has layer1\.0\.se\.fc1"),
    "deep stem": (lambda s: {("conv1.0.weight" if k == "conv1.weight" else k): v for k, v in s.items()},
                  r"it lacks conv1\.weight"),
    "GroupNorm": (lambda s: {k: v for k, v in s.items() if "running" not in k}, r"it lacks bn1\.running_mean"),
    "numbers": (lambda s: dict.fromkeys(s, 3), r"conv1\.weight is of type int, not a tensor.*holds no tensor"),
    "one number": (lambda s: s | {"bn1.bias": 0.5}, r"bn1\.bias is of type float"),
    "lists": (lambda s: s | {"bn1.bias": [0.5] * 64}, r"bn1\.bias is of type list"),
    "quantised": (lambda s: s | {"conv1.weight": s["conv1.weight"].to(torch.int8)}, r"type int8, perhaps quantised"),
    "not finite": (lambda s: s | {"layer2.0.bn1.bias": torch.full((128,), torch.nan)}, r"layer2.* not finite"),
    "without values": (lambda s: {k: v.to("meta") for k, v in s.items()}, r"holds no plain values"),
    "two networks": (lambda s: under("a.", s) | under("b.", noise(s)), r"several networks, 'a\.' and 'b\.'"),
    "state_dict None": (lambda s: {"state_dict": None}, r"no ResNet-50: it holds no tensor, but a dict "
                        r"\{'state_dict': NoneType\}; expected"),
    "empty": (lambda s: {}, r"it holds no tensor, but a dict \{\}"),
    "number keys": (lambda s: {0: torch.ones(2), 1: torch.ones(3)}, r"it holds 2 tensors, first 0, 1; expected"),
    "a tensor": (lambda s: {"weight": torch.ones(2)}, r"it holds 1 tensor, first weight; expected"),
    "vision transformer": (lambda s: {"cls_token": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(2)},
                           r"first cls_token, blocks\.0\.attn\.qkv\.weight, looks like a vision transformer"),
    "DenseNet": (lambda s: {"state_dict": {"module.features.denseblock1.denselayer1.conv1.weight": torch.ones(1)}},
                 "looks like a DenseNet"),
    "Hugging Face": (lambda s: {"resnet.embedder.embedder.convolution.weight": torch.ones(1)}, "transformers"),
    "a generator of ours": (lambda s: {"format": "pneumonia-gan-1", "state_dict": {"main.0.weight": torch.ones(1)}},
                            "its format is 'pneumonia-gan-1'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_is_no_resnet50_is_described(state, expected, change, message):
    with pytest.raises(UserError, match=message) as error:
        find_network(change(state), expected, BACKBONES["resnet50"], "file.pth")
    text = str(error.value)
    assert text.startswith("file.pth ") and "\n" not in text
    assert "expected: the 318 tensors of torchvision's ResNet-50" in text or "save the one you mean" in text


class Spy:
    """Pickled, it would run code when it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


def script(file: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(file))


def zipped(file: Path, names: list[str]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


def truncated(file: Path, save) -> None:
    save({"w": torch.ones(3000)}, file)
    file.write_bytes(file.read_bytes()[:-1500])


def flipped(file: Path) -> None:
    torch.save({"w": torch.ones(3000)}, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def folder(file: Path, names: list[str]) -> None:
    file.mkdir()
    for name in names:
        (file / name).write_text("x")


BROKEN = {
    "absent": (lambda f: None, "is missing"),
    "empty": (lambda f: f.write_bytes(b""), "is empty"),
    "LFS pointer": (lambda f: f.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:a9\nsize 9\n"),
                    "git-LFS pointer.*git lfs pull"),
    "web page": (lambda f: f.write_text("\n<!DOCTYPE html><html>sign in</html>"), "is a web page"),
    "XML": (lambda f: f.write_text('<?xml version="1.0"?><Error>AccessDenied</Error>'), "is a web page"),
    "text": (lambda f: f.write_text("Not found"), "is a text file"),
    "index of parts": (lambda f: f.write_text(json.dumps({"weight_map": {"a": "b"}})), "in parts"),
    "HDF5": (lambda f: f.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5 file, as Keras"),
    "NumPy": (lambda f: np.save(f.open("wb"), np.ones(3)), "NumPy array"),
    "npz": (lambda f: np.savez(f.open("wb"), w=np.ones(3)), r"ZIP archive of other files \(w\.npy\)"),
    "gzip": (lambda f: f.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "packed \\(gzip\\)"),
    "TorchScript": (script, r"is a TorchScript archive.*torch\.jit\.load"),
    "zipped folder": (lambda f: zipped(f, ["run/a.pth", "run/b.txt"]), r"ZIP archive of other files \(run/a\.pth"),
    "module": (lambda f: torch.save(nn.Linear(2, 2), f), r"a Python object \(torch\.nn\.modules\.linear\.Linear\)"),
    "code": (lambda f: torch.save({"w": Spy()}, f), r"a Python object \(_pytest\.outcomes\."),
    "code, plain pickle": (lambda f: f.write_bytes(pickle.dumps(Spy(), 2)), "a Python object"),
    "plain pickle": (lambda f: f.write_bytes(pickle.dumps({"w": 1}, 2)), "PyTorch did not write it|holds no"),
    "list": (lambda f: torch.save([torch.ones(2)], f), "holds a list, not a dict"),
    "tensor": (lambda f: torch.save(torch.ones(2), f), "holds a Tensor, not a dict"),
    "truncated": (lambda f: truncated(f, torch.save), "is truncated or damaged"),
    "truncated, old": (lambda f: truncated(f, lambda c, g: torch.save(c, g, _use_new_zipfile_serialization=False)),
                       "is truncated or damaged"),
    "truncated safetensors": (lambda f: truncated(f, save_file), "is truncated or damaged, or no safetensors"),
    "flipped bit": (flipped, "is damaged \\(checksum mismatch\\)"),
    "noise": (lambda f: f.write_bytes(np.random.default_rng(0).bytes(3000)), "damaged"),
    "folder": (lambda f: folder(f, ["b.pth", "a.safetensors", "notes.txt"]), r"give a file in it: a\.safetensors, b"),
    "empty folder": (lambda f: folder(f, []), "give a file of weights"),
    "parts": (lambda f: folder(f, ["m-1-of-2.safetensors", "m-2-of-2.safetensors", "m.safetensors.index.json"]),
              "divided into 2 files"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(("make", "message"), BROKEN.values(), ids=BROKEN)
def test_files_of_other_kinds_end_in_one_line(tmp_path, make, message):
    file = tmp_path / "weights.pth"
    make(file)
    with pytest.raises(UserError, match=message) as error:
        read_weight_file(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.onnx", "saved_model.pb", "net.tflite"])
def test_graphs_of_other_programs_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(99))
    with pytest.raises(UserError, match="graph"):
        read_weight_file(tmp_path / name)


@pytest.mark.parametrize("old", [False, True])
def test_any_cut_through_a_file_is_noticed(tmp_path, old):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer, _use_new_zipfile_serialization=not old)
    whole, file = buffer.getvalue(), tmp_path / "cut.pth"
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError):
            read_weight_file(file)
