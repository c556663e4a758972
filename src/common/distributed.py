"""One run in several processes, which torchrun starts: who is who, exchange, and means over all of them.

Without torchrun there is one process, and every function here does the obvious thing at no cost. Processes
are counted from 0 (torchrun's ranks). The main one, 0, prints and writes; the others print errors only. All
must call the functions that exchange something in the same order. A process that ends early ends the others.

Gradients are averaged by ``average`` after a backward pass, as DistributedDataParallel does: a GAN step, with
several passes through two networks, does not fit its wrapper.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from utils import UserError, WeightsUnavailableError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

T = TypeVar("T")

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")  # environment variables that torchrun sets
TIMEOUT = datetime.timedelta(hours=2)  # the others may wait while one decodes a whole dataset
_on_its_own = False  # True inside the block of single_process()


# --- joining ---------------------------------------------------------------------------------------
def launched() -> tuple[int, int] | None:
    """Return (number of this process, their count) if torchrun started several; else None.

    Variables that a job script or an earlier run left behind start nothing: torchrun sets all of them.
    """
    try:
        rank, local, count, _ = (int(os.environ[name]) for name in NUMBERS)
    except (KeyError, ValueError):
        return None
    whole = 0 <= rank < count and 0 <= local < count and bool(os.environ.get("MASTER_ADDR"))
    return (rank, count) if whole and count > 1 else None


def _warn_of_leftovers() -> None:
    """Say that the environment speaks of several processes, but not as torchrun does."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count.strip() not in ("", "1"):
        lacking = [name for name in (*NUMBERS, "MASTER_ADDR") if not os.environ.get(name)]
        why = f"without {', '.join(lacking)}" if lacking else "with numbers that do not fit together"
        log.warning(f"WORLD_SIZE={count} is set {why}, so it is ignored: one process works; torchrun starts several")


@contextlib.contextmanager
def process_group(cpu: bool) -> Iterator[None]:
    """Join the processes that torchrun started, and leave when all are done; does nothing without torchrun.

    Processes exchange by gloo, GPU tensors by NCCL; each has the GPU of its local number. Raises
    ``UserError`` if there are fewer GPUs than processes.
    """
    if (started := launched()) is None:
        _warn_of_leftovers()
        yield
        return
    import torch.distributed as dist

    number, count = started
    if number == 0:
        log.info(f"waiting for all of {count} processes")
    backend = _choose_device(cpu)
    with _exchanging():
        dist.init_process_group(backend, timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if number > 0:  # the main process prints; errors are printed outside
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
    barrier()
    dist.destroy_process_group()


def _choose_device(cpu: bool) -> str:
    """Make this process's GPU the current one; returns torch's name of the means of exchange."""
    import torch

    if cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        return "gloo"
    gpus, local = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    if local >= gpus:
        more = f"--nproc-per-node {gpus}" if gpus else "one process"
        raise UserError(f"there are more processes than NVIDIA GPUs ({gpus}), and each needs one: use {more}, or --cpu")
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def _exchanging() -> Iterator[None]:
    """Raise ``UserError`` if the others cannot be reached, most often because one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        where_in_gloo = r"^\[[^ ]*\] "
        reason = re.sub(where_in_gloo, "", str(error)).split(". ")[0].strip()[:200]
        raise UserError(
            f"process {os.environ.get('RANK', 0)} lost the others: one of them has ended (its own message "
            f"says why), or the network failed ({reason})"
        ) from None


@contextlib.contextmanager
def single_process() -> Iterator[None]:
    """Let this process act alone in the block, for example to measure its speed: nothing is exchanged."""
    global _on_its_own
    before, _on_its_own = _on_its_own, True
    try:
        yield
    finally:
        _on_its_own = before


# --- who is who ------------------------------------------------------------------------------------
def process_count() -> int:
    """Return the number of processes that work together, 1 inside ``single_process``."""
    import torch.distributed as dist

    joined = not _on_its_own and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if joined else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if process_count() > 1 else 0


def is_main() -> bool:
    """Return whether this is the process that prints and writes."""
    return rank() == 0


def my_share() -> slice:
    """Return the slice of this process: every ``process_count()``-th item, from the ``rank()``-th on."""
    return slice(rank(), None, process_count())


def check_batch_size(batch_size: int) -> None:
    """Raise ``UserError`` unless each process gets the same number of images, two or more."""
    n = process_count()
    if n > 1 and (batch_size % n or batch_size < 2 * n):
        raise UserError(
            f"--batch-size {batch_size} cannot be divided among {n} processes (it counts the images of all): "
            f"give a multiple of {n}, at least {2 * n}, or start fewer processes"
        )


# --- exchange --------------------------------------------------------------------------------------
def barrier() -> None:
    """Wait until all processes have come here."""
    gather(None)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the main process, then in the others: they find what it downloaded or wrote.

    If it fails there, the others do not begin, unless weights are missing: a caller may go on without them.
    """
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
    """Call ``make(*arguments)`` in the main process alone; all processes return its result."""
    if process_count() == 1:
        return make(*arguments)
    import torch
    import torch.distributed as dist

    box: list[Any] = [make(*arguments) if is_main() else None]
    with _exchanging():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather(value: T) -> list[T]:
    """Return the ``value`` of every process, by rank: plain types, arrays or CPU tensors."""
    if process_count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * process_count()
    with _exchanging():
        dist.all_gather_object(values, value)
    return values


def interleave(mine: Iterator[T]) -> Iterator[T]:
    """Yield in every process what the iterators of all yield, in the order 0, 1, ..., 0, 1, ..., at once.

    No item may be None.
    """
    if process_count() == 1:
        yield from mine
        return
    while made := [item for item in gather(next(mine, None)) if item is not None]:
        yield from made


def merge_shares(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put the rows that each process made for its ``my_share()`` of N items back in order: [N, ...]."""
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def require_same(what: str, value: Any) -> None:
    """Raise ``UserError`` if ``value`` differs between processes; ``what``: its name in the message."""
    values = gather(value)
    different = [number for number, other in enumerate(values) if other != values[0]]
    if different:
        raise UserError(
            f"process {different[0]} has other {what} than process 0: start all of them with the same code, "
            "files and options, on machines of one kind"
        )


def require_same_weights(what: str, *networks: torch.nn.Module) -> None:
    """Raise ``UserError`` if weights or buffers of ``networks`` differ between processes."""
    if process_count() == 1:
        return
    import hashlib

    digest = hashlib.sha256()
    for network in networks:
        for value in network.state_dict().values():
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    require_same(what, digest.hexdigest())


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Replace float ``tensors``, all on one device, by their means over the processes, in one exchange."""
    if process_count() == 1:
        return
    import torch
    import torch.distributed as dist

    with torch.no_grad(), _exchanging():
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= process_count()
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


def average_training(network: torch.nn.Module, *others: torch.nn.Module) -> None:
    """Average over processes: gradients of ``network``, BatchNorm statistics of it and ``others``."""
    if process_count() == 1:
        return
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    buffers = [buffer for each in (network, *others) for buffer in each.buffers()]
    average([*gradients, *(buffer for buffer in buffers if buffer.is_floating_point())])
