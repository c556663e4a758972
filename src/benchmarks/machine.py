"""Facts and peak speeds of the machine that a benchmark runs on, and the timing of work on its device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.file_formats import Machine, MachinePeaks
from utils import environment, usable_cores


# --- facts -----------------------------------------------------------------------------------------
def machine_facts(device: torch.device) -> Machine:
    """Return what a benchmark was measured on; no host name and no path."""
    facts = environment(device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple GPU" if device.type == "mps" else None
    return {
        "cpu": facts["processor"],
        "cores": usable_cores(),
        "gpu": gpu,
        "system": facts["system"],
        "python": facts["python"],
        "torch": facts["torch"],
    }


# --- timing ----------------------------------------------------------------------------------------
def wait_for(device: torch.device) -> None:
    """Wait until ``device`` has finished all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def wall_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Run ``work`` and return its wall-clock time, including its work on ``device``."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def seconds_side_by_side(
    plain: Callable[[], object], ours: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float]:
    """Return the median seconds of ``plain`` and of ``ours``, run in turn ``repeats`` times.

    They take turns so that other work on the machine slows both. Call both once before: the first call is
    slower.
    """
    times = [(wall_seconds(plain, device), wall_seconds(ours, device)) for _ in range(repeats)]
    plain_seconds, our_seconds = zip(*times, strict=True)
    return statistics.median(plain_seconds), statistics.median(our_seconds)


# --- peaks -----------------------------------------------------------------------------------------
def machine_peaks(device: torch.device, side: int, copied_bytes: int, repeats: int) -> MachinePeaks:
    """Measure the best of ``repeats``: products of square matrices of ``side`` rows, and a large copy."""
    return {
        "bf16_gflops": matrix_gflops(device, side, torch.bfloat16, repeats),
        "fp32_gflops": matrix_gflops(device, side, torch.float32, repeats),
        "copy_gb_per_s": copy_speed(device, copied_bytes, repeats),
    }


def matrix_gflops(device: torch.device, side: int, dtype: torch.dtype, repeats: int) -> float:
    """Return GFLOP/s of the fastest of ``repeats`` matrix products, 2 n^3 operations each.

    A GPU gets twice the ``side``.
    """
    n = side * (2 if device.type == "cuda" else 1)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = a @ b
    seconds = min(wall_seconds(lambda: torch.matmul(a, b, out=out), device) for _ in range(repeats))
    return 2 * n**3 / seconds / 1e9


def copy_speed(device: torch.device, copied_bytes: int, repeats: int) -> float:
    """Return GB/s of the fastest of ``repeats`` copies; each byte is read and written."""
    source = torch.ones(copied_bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    seconds = min(wall_seconds(lambda: target.copy_(source), device) for _ in range(repeats))
    return 2 * copied_bytes / seconds / 1e9
