"""Made-up contenders whose place is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.generators.contenders import Budget, Contender, Unit

SIDE, COUNT = 32, 40


MACHINE = {
    "cpu": "made up", "cores": 1, "gpu": None, "system": "Linux", "python": "3.11", "torch": "2"
}  # fmt: skip
SCORER = {
    "network": "made up", "trained_on": "nothing", "epochs": 0, "heldout_auroc": 0.75, "weights_digest": "d"
}  # fmt: skip


DRIVER = """
import json, sys, time
import numpy as np
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
reals = np.load(args["--images"])
rng, count = np.random.default_rng(int(args["--seed"])), int(args["--count"])
facts = {{"train_seconds": 2.0, "images_seen": 100, "parameters": 7, "steps": 1}}
{body}
np.savez(args["--out"], facts=np.array(json.dumps(facts)), **made)
"""


BODIES = {
    "noise": "made = {'raw': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8)}",
    "copies": "made = {'raw': reals[rng.integers(0, len(reals), count)]}",
    # The average is as good as the reals, the weights themselves give noise.
    "both": "made = {'raw': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8),"
    " 'averaged': reals[rng.integers(0, len(reals), count)]}",
    "worse average": "made = {'averaged': rng.integers(0, 256, (count, *reals.shape[1:]), dtype=np.uint8),"
    " 'raw': reals[rng.integers(0, len(reals), count)]}",
    "one image": "made = {'raw': np.repeat(reals[:1], count, axis=0)}",
    "too few": "made = {'raw': reals[:3]}",
    "wrong size": "made = {'raw': np.zeros((count, 8, 8), np.uint8)}",
    "fails": "sys.exit('AssertionError: /some/where/file.py is not what it needs')",
    "slow": "open(args['--out'] + '.pid', 'w').write(str(__import__('os').getpid())); time.sleep(60)",
}


def smooth_faces(rng: np.random.Generator, n: int, base: int) -> np.ndarray:
    """uint8 [n, SIDE, SIDE]: smooth fields, each its own; ``base`` is the mean gray level."""
    coarse = torch.from_numpy(rng.normal(size=(n, 1, 8, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic")[:, 0].numpy()
    return (base + 40 * fine).clip(0, 255).astype(np.uint8)


def simple_features(pixels: np.ndarray) -> np.ndarray:
    """[N, 16]: a stand-in for the scorer's, which need not be trained here."""
    return pixels.reshape(len(pixels), 4, SIDE // 4, 4, SIDE // 4).mean(axis=(2, 4)).reshape(-1, 16) / 255.0


def fake(tmp_path: Path, name: str) -> Contender:
    file = tmp_path / f"{name}.py"
    file.write_text(DRIVER.format(body=BODIES[name]))
    return Contender(name, driver=str(file))


def unit(tmp_path: Path, name: str, seed: int = 0, minutes: float = 0.01) -> Unit:
    return Unit(fake(tmp_path, name), seed, Budget(minutes=minutes))


def has_ended(pid: int) -> bool:
    """Whether a killed process ends within seconds; it may then wait for somebody to ask how it ended."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(200):
        if not status.exists() or status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
