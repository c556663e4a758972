"""The common part of all drivers: command line, clock, and the file that a driver leaves.

    python DRIVER.py --images reals.npy --out made.npz --seconds 600 --seed 0 --count 300 --device cpu

A driver is run by the Python of the contender's own environment, so nothing here imports the project. It
trains for ``--seconds`` of wall time on ``reals.npy``, uint8 gray [N, S, S]; building the networks, importing
and sampling are not counted. ``made.npz`` then holds ``raw`` and, where there is one, ``averaged`` (the
moving average of the weights), each uint8 gray [count, S, S], and ``facts``, a JSON text. ``--variant small``
asks for the contender's adaptation to minutes of a CPU, where it has one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

SAMPLING_BATCH = 32
TRIES = 3  # of a step whose loss is not a number, as the packages' command lines do


class Peer(Protocol):
    """A contender in training."""

    settings: dict[str, Any]  # what a reader must know of it, for the table
    parameters: int  # all that learn

    def step(self) -> int:
        """Update every network once; return how many real images were looked at."""

    def sample(self, count: int) -> dict[str, torch.Tensor]:
        """Return {"raw": [count, C, S, S] in [0, 1]}, perhaps with "averaged": the same from the averaged weights."""


# (reals float [N, 1, S, S] in [0, 1], device); with variants also whether the small one is meant
Build = Callable[..., Peer]
DEFAULT, SMALL = VARIANTS = ("default", "small")


def main(build: Build, package: str | None = None, argv: list[str] | None = None, variants: bool = False) -> None:
    """Train, sample, save. ``package``: the contender's name in the package index; ``variants``: whether it
    has a small one."""
    args = parser(VARIANTS if variants else (DEFAULT,)).parse_args(argv)
    seed_everything(args.seed)
    device = torch.device(args.device)
    pixels = torch.from_numpy(np.load(args.images, allow_pickle=False))  # uint8 [N, S, S]
    reals = pixels.unsqueeze(1).float() / 255.0
    peer = build(reals, device, args.variant == SMALL) if variants else build(reals, device)
    import_what_is_lazy()
    steps, seen, seconds = train_for(peer, args.seconds, device)
    print(f"{steps} steps, {seen} images in {seconds:.1f} s", flush=True)
    images = {name: to_gray(batch) for name, batch in peer.sample(args.count).items()}
    facts = {
        "package": package and f"{package} {importlib.metadata.version(package)}",
        "threads": torch.get_num_threads(),
        "parameters": peer.parameters,
        "settings": peer.settings,
        "steps": steps,
        "images_seen": seen,
        "train_seconds": seconds,
    }
    save(Path(args.out), images, facts)


def parser(variants: tuple[str, ...]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Train one contender for a time and sample it.")
    add = made.add_argument
    add("--images", required=True, help="uint8 [N, S, S] in an .npy file")
    add("--out", required=True, help="the .npz to be written")
    add("--seconds", required=True, type=float, help="wall time of training")
    add("--seed", type=int, default=0)
    add("--count", type=int, default=300, help="images to be generated")
    add("--device", default="cpu")
    add("--variant", choices=variants, default=DEFAULT)
    return made


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the contenders draw from the global generators
    torch.manual_seed(seed)


def import_what_is_lazy() -> None:
    """Take a step of Adam on one number: torch imports much of itself at the first, and imports are no training."""
    weight = torch.nn.Parameter(torch.ones(1))
    (weight * weight).sum().backward()
    torch.optim.Adam([weight]).step()


def train_for(peer: Peer, seconds: float, device: torch.device) -> tuple[int, int, float]:
    """Begin steps until the time is over; return (steps, real images looked at, seconds)."""
    steps = seen = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        seen += peer.step()
        steps += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return steps, seen, elapsed


# --- what packages lack ----------------------------------------------------------------------------
def tried(step: Callable[[], object], failure: type[Exception]) -> None:
    """Run ``step``, again if it raises ``failure``; the failure of the last of ``TRIES`` is raised."""
    for left in reversed(range(TRIES)):
        try:
            step()
            return
        except failure:
            if not left:
                raise


class Average:
    """A moving average of ``networks`` in ``averages`` from the first step on: decay min(``decay``,
    (1 + t) / (10 + t)) after t steps, the ramp of TensorFlow's ExponentialMovingAverage; buffers are copied.

    The packages begin theirs after 20,000 steps and reset it until 25,000: in minutes it would be the
    network as it was after two steps.
    """

    def __init__(self, networks: list[torch.nn.Module], averages: list[torch.nn.Module], decay: float) -> None:
        self.pairs, self.decay, self.steps = list(zip(networks, averages)), decay, 0  # noqa: B905

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for network, average in self.pairs:
            for value, mean in zip(network.parameters(), average.parameters()):  # noqa: B905
                mean.lerp_(value, 1 - decay)
            for value, kept in zip(network.buffers(), average.buffers()):  # noqa: B905
                kept.copy_(value)

    def take_over(self, gan: Any) -> str:
        """Switch off the package's own average; return words for ``settings``."""
        gan.reset_parameter_averaging()
        gan.EMA = gan.reset_parameter_averaging = lambda: None
        return f"decay {self.decay}, from step 0 with a ramp (the package: from step 20,000)"


def enlarged(reals: torch.Tensor) -> torch.Tensor:
    """Enlarge [N, C, S, S] in [0, 1] bilinearly to the next power of two, as packages insist on one."""
    side = 1 << (reals.shape[-1] - 1).bit_length()
    if side == reals.shape[-1]:
        return reals
    larger = [
        torch.nn.functional.interpolate(part, side, mode="bilinear", align_corners=False) for part in reals.split(256)
    ]
    return torch.cat(larger)


def reduced(images: torch.Tensor, side: int) -> torch.Tensor:
    """Average areas: [N, C, T, T] -> [N, C, side, side]."""
    if images.shape[-1] == side:
        return images
    return torch.nn.functional.adaptive_avg_pool2d(images, side)


def side_words(side: int, trained: int) -> dict[str, str]:
    """Name both sides for ``settings`` if they differ."""
    words = f"trained at {trained} pixels on enlarged reals, samples area-averaged to {side}"
    return {} if side == trained else {"size": words}


def to_gray(images: torch.Tensor) -> np.ndarray:
    """Average the channels: [N, C, S, S] in [0, 1] -> uint8 [N, S, S]; ends the driver if a value is not finite."""
    gray = images.detach().float().cpu().mean(dim=1)
    if not gray.isfinite().all():
        sys.exit("the generated images are not finite")
    return (gray * 255.0).round().clamp(0, 255).byte().numpy()


def save(path: Path, images: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write the .npz, whole or not at all."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, facts=np.array(json.dumps(facts)), **images)
    os.replace(temporary, path)  # noqa: PTH105


def batches_of(reals: torch.Tensor, size: int):
    """Yield batches [size, C, S, S] without end, shuffled anew after every pass over ``reals``."""
    size = min(size, len(reals))
    while True:
        order = torch.randperm(len(reals))
        for start in range(0, len(reals) - size + 1, size):
            yield reals[order[start : start + size]]


def in_batches(make: Callable[[int], torch.Tensor], count: int) -> torch.Tensor:
    """Call ``make(n)`` for some images at a time until there are ``count``."""
    sizes = [min(SAMPLING_BATCH, count - start) for start in range(0, count, SAMPLING_BATCH)]
    with torch.no_grad():
        return torch.cat([make(size).cpu() for size in sizes])


def count_parameters(*networks: torch.nn.Module) -> int:
    """Count the trainable parameters of ``networks``."""
    return sum(value.numel() for network in networks for value in network.parameters() if value.requires_grad)
