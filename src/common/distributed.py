"""One run in several processes, which torchrun starts: who is who, exchange, and means over all of them.

Without torchrun there is one process, and every function here is the obvious thing at no cost: callers
have one path for one and many. Processes are counted from 0 (torchrun's ranks). The main one, 0, prints
and writes; the others are silent but for their errors. Every function that exchanges must be called by all
processes in the same order. A process that ends early, in whatever way, ends the others: what they
exchange with it fails at once.

Gradients are averaged by ``average`` after a backward pass, which is what DistributedDataParallel does; a
GAN step, with several passes through two networks, would have to be bent to fit its wrapper.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

TIMEOUT = datetime.timedelta(hours=2)  # the others may wait while one decodes a whole dataset
_alone = False  # inside the block of alone()?


# --- joining ---------------------------------------------------------------------------------------
@contextlib.contextmanager
def together(cpu: bool) -> Iterator[None]:
    """Join the processes that torchrun started, and leave when all are done; alone, nothing happens.

    They talk by gloo, about GPU tensors by NCCL; each has the GPU of its number on its machine.
    ``UserError`` if there are fewer GPUs than processes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield
        return
    import torch.distributed as dist

    backend = _choose_device(cpu)
    with _exchanging():
        dist.init_process_group(backend, timeout=TIMEOUT)
    with _silent() if rank > 0 else contextlib.nullcontext():
        yield
    barrier()
    dist.destroy_process_group()


def _choose_device(cpu: bool) -> str:
    """Make this process's GPU the current one; returns what the processes talk by."""
    import torch

    if cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return "gloo"
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    if local >= gpus:
        more = f"--nproc-per-node {gpus}" if gpus else "one process"
        raise UserError(f"this machine has {gpus} NVIDIA GPUs, one process each: use {more}, or give --cpu")
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """No lines, bars and warnings, which would be the main process's once more. Errors are told outside."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


@contextlib.contextmanager
def _exchanging() -> Iterator[None]:
    """``UserError`` if the others cannot be reached, most often because one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        where_in_gloo = r"^\[[^ ]*\] "
        reason = re.sub(where_in_gloo, "", str(error)).split(". ")[0].strip()[:200]
        raise UserError(
            f"process {os.environ.get('RANK', 0)} lost the others: one of them has ended, and says why, or "
            f"the network failed ({reason})"
        ) from None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside the block there is one process, this one, and nothing is exchanged: for what it does without
    the others, as measuring how fast it is."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


# --- who is who ------------------------------------------------------------------------------------
def size() -> int:
    """Number of processes."""
    import torch.distributed as dist

    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    return rank() == 0


def own() -> slice:
    """This process's share of a sequence: every ``size()``-th, beginning with the ``rank()``-th."""
    return slice(rank(), None, size())


def check_batch_size(batch_size: int) -> None:
    """``UserError`` unless a batch can be dealt out evenly, with two images or more for every process."""
    n = size()
    if n > 1 and (batch_size % n or batch_size < 2 * n):
        raise UserError(
            f"batches of {batch_size} images cannot be dealt out to {n} processes: --batch-size counts the "
            f"images of all processes, give a multiple of {n}, at least {2 * n}; or start fewer processes"
        )


# --- exchange --------------------------------------------------------------------------------------
def barrier() -> None:
    """Wait until all processes have come here."""
    gather(None)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The block of the main process ends before that of the others begins: it downloads, decodes and
    writes what they find. If it fails they do not begin, unless weights are missing, which a caller may
    live with, and they find out for themselves."""
    if not is_main():
        barrier()
    try:
        yield
    except WeightsUnavailableError:
        if is_main():
            barrier()
        raise
    if is_main():
        barrier()


def from_main(make: Callable[..., T], *arguments: Any) -> T:
    """What ``make(*arguments)`` returns in the main process, the only one that calls it."""
    if size() == 1:
        return make(*arguments)
    import torch
    import torch.distributed as dist

    box = [make(*arguments) if is_main() else None]
    with _exchanging():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather(value: T) -> list[T]:
    """The ``value`` of every process (plain types, arrays, CPU tensors), by rank, everywhere."""
    if size() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * size()
    with _exchanging():
        dist.all_gather_object(values, value)
    return values


def in_turn(mine: Iterator[T]) -> Iterator[T]:
    """What all processes' iterators yield, in turn (0, 1, ..., 0, 1, ...), everywhere, as it is made.

    No item may be None.
    """
    if size() == 1:
        yield from mine
        return
    while made := [item for item in gather(next(mine, None)) if item is not None]:
        yield from made


def woven(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """[N, ...] of the ``parts`` that processes made of their ``own()`` of N rows."""
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def agree(what: str, value: Any) -> None:
    """``UserError`` if ``value`` is not the same in all processes; ``what``: that it is, in words."""
    values = gather(value)
    different = [number for number, other in enumerate(values) if other != values[0]]
    if different:
        raise UserError(
            f"process {different[0]} has other {what} than process 0: all need the same code, files and "
            "options, and machines of one kind"
        )


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Replace float ``tensors``, all on one device, by their means over the processes, in one exchange."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    with torch.no_grad(), _exchanging():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= size()
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def average_training(network: torch.nn.Module, *others: torch.nn.Module) -> None:
    """The gradients of ``network``, and the running statistics of its and ``others``' BatchNorm layers,
    become means over the processes."""
    if size() == 1:
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    buffers = [buffer for each in (network, *others) for buffer in each.buffers()]
    average([*gradients, *(buffer for buffer in buffers if buffer.is_floating_point())])


def weights_digest(*networks: torch.nn.Module) -> str:
    """sha256 of all weights and buffers, for ``agree``; "" in a single process, where nobody compares."""
    if size() == 1:
        return ""
    import hashlib

    digest = hashlib.sha256()
    for network in networks:
        for value in network.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
