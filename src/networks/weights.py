"""Pretrained weights from torch's own cache folder, or downloaded there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from utils import WeightsUnavailableError, load_checkpoint


def hub_weights(url: str, what: str, remedy: str) -> dict[str, torch.Tensor]:
    """Pretrained weights from torch's own cache folder, or downloaded there from ``url`` (hash checked).

    ``what`` names the weights and ``remedy`` what else the user can do, for the error that is raised
    (``WeightsUnavailableError``) when they are neither cached nor reachable, or the cached file is no such
    file.
    """
    import urllib.error

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rsplit("/", 1)[1]

    def unavailable(problem: str) -> WeightsUnavailableError:
        message = f"{what}: {file.name} {problem}; put the file from {url} there, or {remedy}"
        return WeightsUnavailableError(message, message.replace(str(folder), "torch's cache"))

    if not file.is_file():
        # torch.hub reads the first characters of the hash from the file name: resnet50-0676ba61.pth.
        prefix = file.stem.rsplit("-", 1)[1]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _network_timeout(10.0):
                torch.hub.download_url_to_file(url, str(file), hash_prefix=prefix, progress=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            # Not all of an OSError, which would name the folder once more.
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise unavailable(f"is not in {folder} and could not be downloaded ({reason})") from None
    try:
        state = load_checkpoint(file)
    except Exception:  # damaged bytes in torch's older format make it raise nearly anything
        raise unavailable(f"in {folder} is damaged or another file") from None
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise unavailable(f"in {folder} is not a file of weights alone")
    return state


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """torch.hub sets no timeout of its own, and would wait for minutes behind a silent firewall."""
    import socket

    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
