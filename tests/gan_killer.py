"""Trains a tiny GAN, kills it with SIGKILL at a random moment and resumes it, many times over; a script.

    PYTHONPATH=src:tests python -P tests/gan_killer.py <data-dir> <folder> <number of kills> <seed>

<folder>/whole holds what the uninterrupted run wrote, <folder>/1, /2, ... what the killed and resumed did.
One process imports everything and forks a child for each run, as starting Python anew would take longer than
the training. A third of the kills each come at any time, half-way through a checkpoint, and half-way through
a line of the statistics.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import train_gan
from gan import evaluation, outputs, trainer

FLAGS = [
    "--image-size", "32", "--num-channels", "1", "--latent-dim", "6", "--feature-maps-g", "4",
    "--feature-maps-d", "4", "--batch-size", "4", "--vis-batch-size", "4", "--workers", "1", "--cpu",
    "--precision", "fp32", "--perceptual", "off", "--no-cache", "--epochs", "8", "--checkpoint-interval", "2",
    "--save-interval", "5", "--metrics-interval", "3", "--diffaug", "--resume",
]  # fmt: skip
BEGUN, HALF_WAY = b"b", b"h"
CHECKPOINTS, LINES = 9, 8  # about so many are written in a run


def child(arguments: list[str], tell: int, halt_in: str | None, number: int) -> None:
    """Train; say when the first step begins. ``halt_in``: in the write ``number`` of "checkpoint" or "line",
    say so half-way and wait to be killed."""
    writes = {"checkpoint": 0, "line": 0}
    original_step, original_save = trainer.train_step, torch.save

    def half(kind: str, write_half: Callable[[], object]) -> None:
        writes[kind] += 1
        if kind == halt_in and writes[kind] == number:
            write_half()
            os.write(tell, HALF_WAY)
            time.sleep(600)

    def step(gan, *rest):
        os.write(tell, BEGUN)
        trainer.train_step = original_step
        return original_step(gan, *rest)

    def save(content, file):
        buffer = io.BytesIO()
        original_save(content, buffer)
        whole = buffer.getvalue()
        half("checkpoint", lambda: (file.write(whole[: len(whole) // 2]), file.flush()))
        file.write(whole)

    def append(path, line, original=outputs.append_stats):
        text = outputs.as_line(line)
        half("line", lambda: path.write_text(path.read_text() + text[: len(text) // 2]))
        original(path, line)

    trainer.train_step, torch.save, outputs.append_stats = step, save, append
    outputs.save_figures = lambda *_: None  # slow, and made of the history that is compared
    train_gan.main(arguments)


def forked(arguments: list[str], halt_in: str | None = None, number: int = 0) -> tuple[int, int]:
    """(process id, end of a pipe that says how far it is) of a child that trains."""
    listen, tell = os.pipe()
    if (pid := os.fork()) == 0:
        code = 1
        try:
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
                sys.stderr = nowhere
                try:
                    child(arguments, tell, halt_in, number)
                    code = 0
                except BaseException:
                    traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    os.close(tell)
    return pid, listen


def finish(arguments: list[str]) -> float:
    """Train to the end; seconds from the first step on."""
    pid, listen = forked(arguments)
    os.read(listen, 1)
    start = time.monotonic()
    _, status = os.waitpid(pid, 0)
    os.close(listen)
    assert status == 0, f"a training failed: status {status}"
    return time.monotonic() - start


def kill(arguments: list[str], halt_in: str | None, number: int, delay: float) -> bool:
    """Train, and kill after ``delay`` seconds or half-way through a write; was it still running?"""
    pid, listen = forked(arguments, halt_in, number)
    assert os.read(listen, 1) == BEGUN
    if halt_in is None:
        time.sleep(delay)
    else:
        select.select([listen], [], [])  # half-way, or at its end
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(listen)
    return os.WIFSIGNALED(status)


def main(data_dir: str, folder: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    evaluation.SHARE = 1e9  # metrics whenever --metrics-interval says so, however little there is to train
    trainer.STATS_EVERY, trainer.PROBE_EVERY = 2, 4
    draw = random.Random(seed)

    def arguments(name: str) -> list[str]:
        where = Path(folder) / name
        folders = ["--model-dir", str(where / "models"), "--output-dir", str(where)]
        return [*FLAGS, "--data-dir", data_dir, *folders]

    seconds = finish(arguments("whole"))
    for number in range(1, kills + 1):
        halt_in = (None, "checkpoint", "line")[number % 3]
        write = draw.randint(1, CHECKPOINTS if halt_in == "checkpoint" else LINES)
        longest = seconds
        while not kill(arguments(str(number)), halt_in, write, draw.uniform(0, longest)):
            shutil.rmtree(Path(folder) / str(number))  # it had come to its end: once more, and sooner
            longest /= 2
        finish(arguments(str(number)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
