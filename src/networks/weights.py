"""Pretrained weights: read from torch's own cache folder, downloaded there if they are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from utils import UserError, WeightsUnavailableError, load_checkpoint


def weights_file(url: str) -> Path:
    """File in torch's cache folder that holds the weights from ``url`` once they are downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]


def hub_weights(url: str, what: str, remedy: str) -> dict[str, torch.Tensor]:
    """Load pretrained weights from torch's cache folder; download them from ``url`` first (hash checked).

    ``what`` names the weights in the error, and ``remedy`` says what else the user can do. Raises
    ``WeightsUnavailableError`` if the weights are neither cached nor reachable, or the file is damaged.
    """
    import urllib.error

    file = weights_file(url)
    folder = file.parent

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
            # The whole text of an OSError would name the folder once more.
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise unavailable(f"is not in {folder} and could not be downloaded ({reason})") from None
    try:
        state = load_checkpoint(file)
    except UserError:
        raise unavailable(f"in {folder} is damaged or is not a file of weights") from None
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise unavailable(f"in {folder} holds more than weights")
    return state


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for connections: torch.hub has none and can wait for minutes behind a firewall."""
    import socket

    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
