"""Random changes of images and checkpoints that no checksum tells; the others are in ``mutators``."""

from __future__ import annotations

import io
import random
import zlib
from typing import Any

import numpy as np
import torch
from PIL import Image

from campaign.mutators import BYTES, VALUES, Mutator, flip, overwrite


# --- images ----------------------------------------------------------------------------------------
def re_encoded(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """The same gray values in another way of writing PNG: they must not change."""
    gray = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    what = draw.choice(["RGB", "RGBA", "palette", "16 bits", "other compression"])
    if what == "RGB":
        image = Image.fromarray(gray).convert("RGB")
    elif what == "RGBA":
        image = Image.fromarray(gray).convert("RGBA")
    elif what == "palette":
        image = Image.fromarray(gray).convert("P")
    elif what == "16 bits":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(gray)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=9)
    return f"the same values as {what}", out.getvalue()


def twelve_bits(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """12-bit values in 16 bits, as naive DICOM exports have them: nonsense if they are taken as they are."""
    gray = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    out = io.BytesIO()
    Image.fromarray(gray.astype(np.uint16) * 16).save(out, "PNG")
    return "12 bits in 16", out.getvalue()


def chunk(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """A PNG chunk is dropped, doubled, or changed with a checksum that fits."""
    chunks, place = [], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number, what = draw.randrange(len(chunks)), draw.choice(["dropped", "doubled", "changed", "emptied"])
    name, data = chunks[number]
    if what == "dropped":
        del chunks[number]
    elif what == "doubled":
        chunks.insert(number, chunks[number])
    elif what == "emptied":
        chunks[number] = (name, b"")
    elif data:
        changed = bytearray(data)
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        chunks[number] = (name, bytes(changed))
    parts = [len(d).to_bytes(4, "big") + n + d + zlib.crc32(n + d).to_bytes(4, "big") for n, d in chunks]
    return f"chunk {name.decode(errors='replace')} {what}", content[:8] + b"".join(parts)


PNG: list[Mutator] = [*BYTES, flip, flip, overwrite, chunk, chunk, chunk, re_encoded, re_encoded, twelve_bits]


# --- checkpoints -----------------------------------------------------------------------------------
class _Stranger:
    """An object that no checkpoint holds."""


def checkpoint(draw: random.Random, content: bytes) -> tuple[str, bytes]:
    """The content of a ``.pth`` is changed and saved again, so that no checksum tells."""
    data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    what = draw.choice(["key dropped", "key renamed", "value", "value", "weights", "weights", "whole", "stranger"])
    words = what
    if what == "stranger":
        data[draw.choice(list(data))] = _Stranger()
    elif what == "whole":
        data = draw.choice([[], {}, 1, None, {"state_dict": None}, {"model": data}, {0: 1}, [data], torch.zeros(3)])
    elif what == "weights":
        words, data = _other_weights(draw, data)
    else:
        key = draw.choice(list(data))
        old = data.pop(key)
        words = f"{key}: {what}"
        if what == "key renamed":
            data[f"{key}_"] = old
        elif what == "value":
            data[key] = draw.choice(VALUES)
            words = f"{key} becomes {str(data[key])[:40]!r}"
    out = io.BytesIO()
    torch.save(data, out)
    return words, out.getvalue()


def _other_weights(draw: random.Random, data: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    weights = data.get("state_dict") or data.get("G_ema") or data.get("G") or data
    tensors = [key for key, value in weights.items() if isinstance(value, torch.Tensor) and value.numel()]
    if not tensors:
        return "nothing to change", data
    key = draw.choice(tensors)
    old = weights[key]
    kind = draw.choice(["nan", "inf", "dropped", "shape", "number", "half", "more", "list"])
    if kind in ("nan", "inf"):
        new = old.float().clone()
        new.view(-1)[draw.randrange(new.numel())] = float(kind)
        weights[key] = new
    elif kind == "dropped":
        del weights[key]
    elif kind == "shape":
        weights[key] = torch.cat([old.reshape(-1), old.reshape(-1)])
    elif kind == "number":
        weights[key] = 1.0
    elif kind == "half":
        weights[key] = old.half()
    elif kind == "more":
        weights[f"{key}.more"] = old
    else:
        weights[key] = old.reshape(-1)[:3].tolist()
    return f"{key}: {kind}", data


PTH: list[Mutator] = [
    *BYTES,
    flip,
    flip,
    checkpoint,
    checkpoint,
    checkpoint,
    checkpoint,
    checkpoint,
    checkpoint,
    checkpoint,
]
