"""Files of weights that other people wrote: reading them without running their code, finding a network in them.

Weights come in many wrappings: ``{"state_dict": ...}``, ``module.``, MoCo's ``module.encoder_q.``, numbered
layers of an ``nn.Sequential``. The network is found by the names of its layers, whatever stands before them. What
cannot be used ends in one line that says what the file holds.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from networks.backbones import Backbone
from utils import UserError, is_out_of_memory

# First bytes of files that are no weights of PyTorch: what they are, and what to do.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a git-LFS pointer, not the file itself; fetch that with `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras and TensorFlow write; convert it to a PyTorch state dict"),
    (b"\x93NUMPY", "is a NumPy array, not a PyTorch state dict; convert it"),
    (b"\x1f\x8b", "is packed (gzip); unpack it and give the file inside"),
    (b"BZh", "is packed (bzip2); unpack it and give the file inside"),
    (b"\xfd7zXZ", "is packed (xz); unpack it and give the file inside"),
    (b"7z\xbc\xaf", "is packed (7-Zip); unpack it and give the file inside"),
    (b"Rar!", "is packed (RAR); unpack it and give the file inside"),
    (b"\x89PNG", "is a picture"),
    (b"%PDF", "is a PDF document"),
)
_ENDINGS = {
    ".onnx": "is an ONNX graph; give a PyTorch state dict",
    ".pb": "is a TensorFlow graph; convert it to a PyTorch state dict",
    ".tflite": "is a TensorFlow Lite graph; give a PyTorch state dict",
}
COUNTER = "num_batches_tracked"  # of BatchNorm; it matters for nothing here, and other people leave it out
_WEIGHT_ENDINGS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar")


def _numpy_scalar_of(core: str) -> Callable[..., np.generic]:
    """Return the constructor of NumPy's scalars under the name that it has in files of NumPy 1 or 2.

    PyTorch before 2.6 takes the name from the function alone, later ones from a pair too.
    """
    construct: Any = np.float64(0).__reduce__()[0]

    def scalar(*arguments: Any) -> np.generic:
        return construct(*arguments)

    scalar.__module__, scalar.__qualname__ = f"numpy.{core}.multiarray", "scalar"
    return scalar


# Plain values in other people's checkpoints that torch refuses by itself; none of them runs code.
_HARMLESS: list[Any] = [
    argparse.Namespace, np.dtype, *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")},
    *map(_numpy_scalar_of, ("core", "_core")),
]  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------
def read_weight_file(path: str | Path) -> dict[Any, Any]:
    """Read a file of weights, PyTorch's or safetensors, onto the CPU; no code in it is run.

    Raises ``UserError`` in one line if it is missing, damaged, of another kind, or holds Python objects.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; {_files_inside(path)}")
    if not path.is_file():
        raise UserError(f"{path} is missing")
    with path.open("rb") as file:
        head = file.read(1024)
    if kind := _foreign_kind(path, head):
        raise UserError(f"{path} {kind}")
    if _is_safetensors(path, head):
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _check_archive(path)
    return _read_torch(path)


def _files_inside(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.suffix in _WEIGHT_ENDINGS)
    if len(names) > 1 and list(folder.glob("*.index.json")):
        return f"its weights are divided into {len(names)} files ({names[0]}, ...); save them as one state dict"
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"give a file in it: {some}" if names else "give a file of weights"


def _foreign_kind(path: Path, head: bytes) -> str | None:
    """Say what the file is and what to do, if it cannot hold weights of PyTorch; else None."""
    if not head:
        return "is empty; download or save it again"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, perhaps one that asks to sign in, not a file of weights; download it again"
    if b'"weight_map"' in head:
        return "is a list of files that hold the weights in parts; save them as one state dict"
    if head[257:262] == b"ustar":
        return "is packed (tar); unpack it and give the file inside"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return "is a text file, not a file of weights"
    return _ENDINGS.get(path.suffix.lower())


def _is_safetensors(path: Path, head: bytes) -> bool:
    """Tell safetensors by its start, the length of a JSON header, or by its name."""
    length = int.from_bytes(head[:8], "little")
    return path.suffix == ".safetensors" or (head[8:9] == b"{" and 2 <= length < path.stat().st_size)


def _read_safetensors(path: Path) -> dict[Any, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is truncated or damaged, or no safetensors file ({error})") from None


def _check_archive(path: Path) -> None:
    """Raise ``UserError`` unless the ZIP file is an undamaged one of ``torch.save``."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tails = {name.rsplit("/", 1)[-1] for name in names}
        if "constants.pkl" in tails:  # of TorchScript: loading it would run its code
            raise UserError(
                f"{path} is a TorchScript archive; where you trust it, save its weights alone: "
                'torch.save(torch.jit.load(FILE, "cpu").state_dict(), "weights.pth")'
            )
        if "data.pkl" not in tails:
            some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise UserError(f"{path} is a ZIP archive of other files ({some}); give a PyTorch state dict")
        try:
            damaged = archive.testzip()  # torch itself loads a flipped byte silently
        except Exception:  # damaged bytes make zipfile raise nearly anything
            damaged = "?"
    if damaged is not None:
        raise UserError(f"{path} is damaged (checksum mismatch); download or save it again")


def _read_torch(path: Path) -> dict[Any, Any]:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (found := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise UserError(f"{path} is damaged, or PyTorch did not write it; give a PyTorch state dict") from None
        raise UserError(
            f"{path} holds a Python object ({found[1]}), which loading would run as code; where you trust it, save "
            "the network's state_dict() alone with torch.save, and give that file"
        ) from None
    except Exception as error:  # damaged bytes make torch raise nearly anything
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{path} is truncated or damaged, or PyTorch did not write it; download or save it again"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a dict of tensors; give a state dict")
    return dict(content)


# --- finding a network -----------------------------------------------------------------------------
@dataclass(frozen=True)
class _Network:
    """A network in a file: where, and its values (the backbone's names), those of its last layer left out."""

    place: str
    values: dict[str, Any]

    def problem(self, expected: Mapping[str, torch.Tensor], title: str) -> str | None:
        """Say why it is not the network of ``expected``, or None."""
        for name, wanted in expected.items():
            if name.endswith(COUNTER):
                continue
            if name not in self.values:
                return f"it lacks {name}"
            value = self.values[name]
            if not isinstance(value, torch.Tensor):
                return f"{name} is of type {type(value).__name__}, not a tensor"
            if value.shape != wanted.shape:
                return f"{name} is {[*value.shape]}, not {[*wanted.shape]}"
            if value.is_meta or value.layout != torch.strided:
                return f"{name} holds no plain values"
            if not value.is_floating_point():
                return f"{name} has values of type {str(value.dtype).removeprefix('torch.')}, perhaps quantised ones"
            if not value.isfinite().all():
                return f"{name} holds values that are not finite"
        return next((f"it has {name}, which {title} has not" for name in self.values if name not in expected), None)

    def chosen(self, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the values of the names in ``expected``; BatchNorm's counters only if they are usable."""
        found = {name: value for name, value in self.values.items() if isinstance(value, torch.Tensor)}
        return {name: found[name] for name in expected if name in found and found[name].shape == expected[name].shape}


def find_network(
    content: Mapping[Any, Any], expected: Mapping[str, torch.Tensor], backbone: Backbone, source: str
) -> tuple[dict[str, torch.Tensor], str]:
    """Return the ``backbone`` in ``content``: its values, named as in ``expected``, and where they were found.

    ``expected``: its state dict without last layer. ``source`` names the file. Where a file holds a
    network and its moving average, the first is taken; of a teacher and its student the teacher. Raises
    ``UserError`` if there is none, or several of which nobody knows which is meant.
    """
    found = [network for table in _tables(content) for network in _networks_in(*table, expected, backbone)]
    problems = {network.place: network.problem(expected, backbone.title) for network in found}
    fitting = [network for network in found if problems[network.place] is None]
    wanted = (
        f"expected: the {len(expected)} tensors of {backbone.library}'s {backbone.title}, with or without prefix and "
        "last layer"
    )
    if not found:
        raise UserError(f"{source} holds no {backbone.title}: {_describe(content)}; {wanted}")
    if not fitting:
        best = max(found, key=lambda network: len(network.values.keys() & expected.keys()))
        problem = f"{problems[best.place]} ({_describe(content)})"
        raise UserError(f"{source} does not fit {backbone.title}: {problem}; {wanted}")
    first = min(_rank(network.place) for network in fitting)
    chosen, *others = [network for network in fitting if _rank(network.place) == first]
    for other in others:
        if any(not torch.equal(value, other.values[name]) for name, value in chosen.chosen(expected).items()):
            places = f"{chosen.place!r} and {other.place!r}"
            raise UserError(f"{source} holds several networks, {places} among them; save the one you mean alone")
    return chosen.chosen(expected), chosen.place


def _tables(content: Mapping[Any, Any], place: str = "", depth: int = 4) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, entries with names) of ``content`` and of all dicts in it."""
    yield place, {name: value for name, value in content.items() if isinstance(name, str)}
    for name, value in content.items():
        if depth and isinstance(value, Mapping):
            yield from _tables(value, f"{place}{name}: ", depth - 1)


def _networks_in(
    place: str, table: dict[str, Any], expected: Mapping[str, torch.Tensor], backbone: Backbone
) -> Iterator[_Network]:
    """Yield the networks in one dict, under the names of ``expected``, or numbered, each behind any prefix."""
    anchor = re.escape(_anchor(expected))
    parts = {name.partition(".")[0]: name.partition(".")[0] for name in expected}
    numbered: dict[str, set[int]] = {}
    for name in table:
        if match := re.fullmatch(rf"((?:.*\.)?){anchor}", name):
            last_layer = f"{match[1]}{backbone.last_layer}."
            without_last = {key: value for key, value in table.items() if not key.startswith(last_layer)}
            yield _renamed(place, without_last, match[1], parts)
        elif match := re.fullmatch(r"((?:.*\.)?)(\d+)\.0\.conv1\.weight", name):
            numbered.setdefault(match[1], set()).add(int(match[2]))
    for prefix, numbers in numbered.items():
        # nn.Sequential(*resnet.children()), with or without activation and pooling
        if len(numbers) == 4 and f"{prefix}0.weight" in table and "layer4" in parts:
            layers = {str(number): f"layer{i}" for i, number in enumerate(sorted(numbers), 1)}
            yield _renamed(place, table, prefix, {"0": "conv1", "1": "bn1", **layers})


def _anchor(expected: Mapping[str, torch.Tensor]) -> str:
    """Return a name that no other kind of network has: the first convolution deep inside."""
    return next(name for name in expected if name.count(".") >= 3 and name.endswith(".weight"))


def _renamed(place: str, table: dict[str, Any], prefix: str, names: dict[str, str]) -> _Network:
    values = {}
    for name, value in table.items():
        first, _, rest = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and first in names:
            values[f"{names[first]}.{rest}"] = value
    return _Network(place + prefix, values)


def _rank(place: str) -> int:
    """Order of preference: a teacher before plain networks, these before moving averages and students."""
    if re.search(r"teacher", place, re.IGNORECASE):
        return 0
    return 2 if re.search(r"momentum|target|encoder_k|student|(?<![a-z])(ema|key|swa)(?![a-z])", place, re.I) else 1


# --- describing ------------------------------------------------------------------------------------
_ARCHITECTURES = (
    (r"attn\.qkv|attention\.attention|encoder_layer_\d|transformer\.", "a vision transformer"),
    (r"denseblock", "a DenseNet"),
    (r"Mixed_\d", "an Inception network"),
    (r"embedder\.embedder\.convolution", "a ResNet of Hugging Face's transformers, whose names differ"),
    (r"res2\.0\.|stem\.conv1\.norm", "a ResNet of Detectron2, whose names differ"),
    (r"conv_stem|features\.\d+\.\d+\.block|_blocks\.", "an EfficientNet or MobileNet"),
    (r"stages\.\d|features\.\d+\.\d+\.", "a ConvNeXt, Swin or RegNet"),
    (r"features\.\d+\.weight", "a VGG or AlexNet"),
)


def _describe(content: Mapping[Any, Any]) -> str:
    """Say what the dict holds: number of tensors, first names, and what architecture it looks like."""
    tensors = dict(_tensors(content))
    if not tensors:
        kinds = [f"{name!r}: {type(value).__name__}" for name, value in content.items()]
        return f"it holds no tensor, but a dict {{{', '.join(kinds[:4])}{', ...' if len(kinds) > 4 else ''}}}"
    kind, own = _architecture(list(tensors)), content.get("format")
    looks = f", looks like {kind}" if kind else f", its format is {own!r}" if isinstance(own, str) else ""
    count = f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"
    return f"it holds {count}, first {', '.join(list(tensors)[:3])}{looks}"


def _tensors(content: Mapping[Any, Any], place: str = "", depth: int = 4) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{place}{name}", value
        elif depth and isinstance(value, Mapping):
            yield from _tensors(value, f"{place}{name}.", depth - 1)


def _architecture(names: list[str]) -> str | None:
    text = "\n".join(names)
    third = {int(number) for number in re.findall(r"layer3\.(\d+)\.conv1\.weight", text)}
    if third:
        deep = {6: "50", 23: "101", 36: "152"} if "layer1.0.conv3.weight" in text else {2: "18", 6: "34"}
        return f"ResNet-{deep[len(third)]} or a variant of it" if len(third) in deep else "a ResNet of other depth"
    return next((kind for pattern, kind in _ARCHITECTURES if re.search(pattern, text)), None)
