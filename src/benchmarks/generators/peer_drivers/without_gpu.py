"""Lets packages that insist on an Nvidia GPU run on the CPU; their arithmetic stays as it is.

Nothing is changed on disk: ``.cuda()`` becomes a no-op, "is there a GPU?" is answered with yes while the
package is imported, and packages for logging that training does not need are stood in for by empty ones.
Where there is a GPU, only the latter is done.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

LOGGING = ("aim", "pytorch_fid")  # imported by the packages, used by none of the drivers


@contextlib.contextmanager
def importable(device: torch.device) -> Iterator[None]:
    """Make such a package importable in the block.

    ``torch.cuda.is_available`` is itself again afterwards, because torch asks it too.
    """
    for name in LOGGING:
        sys.modules.setdefault(name, types.ModuleType(name))
    if device.type == "cuda":
        yield
        return
    stay = lambda self, *_, **__: self  # noqa: E731
    torch.Tensor.cuda = torch.nn.Module.cuda = stay
    honest = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_available = honest


class TorchOnCPU:
    """torch as a module sees it, but every ``torch.device`` is the CPU: for one that spells "cuda:0"."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(*_: Any) -> torch.device:
        return torch.device("cpu")
