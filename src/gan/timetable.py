"""When a GAN in training is evaluated, so that evaluations never take more than their share of the time.

Costs are counted in operations and turned into seconds by nominal speeds: the timetable is the same on every
machine of a kind and number of threads, at every time, and for every part of a run that was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dataset.near_copies import DETAIL_SIDE
from gan.networks import GAN, in_eval_mode
from image_metrics.feature_spaces import Space

COPY_IMAGES = 128  # generated, compared with every training image
# Nominal operations per second and seconds, from which intervals follow; of a CPU, on one core. There a step
# reaches 2e11 in bfloat16 on a current server, and metrics cost a third to a half of what these numbers make
# of them. Those of GPUs are guesses on the same side. Training is taken to gain from every thread, and
# metrics from none: HOG and distances are computed by one.
STEP_OPERATIONS = {("cpu", "fp32"): 1e11, ("cpu", "bf16"): 2e11, ("gpu", "fp32"): 2e13, ("gpu", "bf16"): 4e13}
OPERATIONS = {"cpu": 5e10, "gpu": 1e13}  # of networks that only look
STEP_SECONDS = 5e-3  # of a step, whatever its size
ARRAY_OPERATIONS_PER_SECOND = 1e10  # of NumPy, in float64
START_SECONDS = 5.0  # of a run before its first step


# --- what an evaluation costs ----------------------------------------------------------------------
def forward_operations(network: nn.Module, *inputs: torch.Tensor) -> float:
    """Count the floating-point operations of ``network`` for one image."""
    with in_eval_mode(network), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() / len(inputs[0])


@dataclass(frozen=True)
class Costs:
    """Nominal seconds of a step and of evaluations.

    ``g``, ``d``: operations of one image through G and D. ``threads``: that train on a CPU.
    """

    g: float
    d: float
    batch_size: int
    device: str
    precision: str
    threads: int = 1

    @classmethod
    def of(cls, gan: GAN, batch_size: int, device: torch.device, precision: str) -> Costs:
        z = torch.zeros(2, gan.G.input_dim, device=device)
        label = [torch.zeros(2, dtype=torch.int64, device=device)] if gan.options.conditional else []
        images = torch.zeros(2, gan.G.num_channels, gan.G.image_size, gan.G.image_size, device=device)
        g, d = forward_operations(gan.G, z, *label), forward_operations(gan.D, images, *label)
        kind, threads = ("cpu", torch.get_num_threads()) if device.type == "cpu" else ("gpu", 1)
        return cls(g, d, batch_size, kind, precision, threads)

    def step(self) -> float:
        """Return the seconds of a step without penalties and VGG16.

        G forward and backward takes 3 g, D's update on reals and fakes 6 d, fakes through D and back 2 d.
        """
        operations = self.batch_size * (3 * self.g + 8 * self.d)
        speed = self.threads * STEP_OPERATIONS[self.device, self.precision]
        return STEP_SECONDS + operations / speed

    def evaluation(self, space: Space, n: int, n_training: int) -> float:
        """Return the seconds of an evaluation of ``n`` images in ``space``."""
        network = n * (self.g + 2 * self.d + space.operations) / OPERATIONS[self.device]
        distances = 20 * n * n * space.dim + 60 * n**3
        distances += 18 * min(n, COPY_IMAGES) * n_training * DETAIL_SIDE**2
        return network + n * space.seconds + distances / ARRAY_OPERATIONS_PER_SECOND

    def timetables(
        self, spaces: Sequence[Space], wanted: int | None, n_images: int, n_training: int,
        steps_per_epoch: int, share: float,
    ) -> dict[str, Timetable]:  # fmt: skip
        """Return a timetable for each space, which has an equal part of the ``share`` of the time.

        ``wanted``: epochs from one evaluation to the next, see ``fit_timetable``. ``n_images``: at most, to be
        compared.
        """
        n, epoch = min(n_images, n_training // 2), steps_per_epoch * self.step()
        tables = {}
        for space in spaces:
            seconds = self.evaluation(space, n, n_training)
            setup = 2 * n * (space.seconds + space.operations / OPERATIONS[self.device])
            tables[space.name] = fit_timetable(wanted, seconds, setup, epoch, share / len(spaces))
        return tables


@dataclass(frozen=True)
class Timetable:
    """When a space is evaluated: every ``interval`` epochs (0: never) from epoch ``first`` on.

    Nominal durations in seconds: ``seconds`` for an evaluation, ``setup`` for the features of the reals,
    ``epoch`` for an epoch.
    """

    interval: int
    first: int
    seconds: float
    setup: float
    epoch: float

    def due(self, epoch: int) -> bool:
        return self.interval > 0 and epoch >= self.first and epoch % self.interval == 0

    def due_at_end(self, epoch: int, share: float) -> bool:
        """Return whether there is time for one more evaluation after the last epoch, if that has none."""
        if self.interval == 0 or self.due(epoch):
            return False
        done = max(0, (epoch - self.first) // self.interval + 1)
        return self.setup + (done + 1) * self.seconds <= share * (START_SECONDS + epoch * self.epoch)


def fit_timetable(wanted: int | None, seconds: float, setup: float, epoch: float, share: float) -> Timetable:
    """Find the shortest interval, a multiple of ``wanted``, that takes at most ``share`` of the time."""
    if wanted == 0:
        return Timetable(0, 0, seconds, setup, epoch)
    wanted = wanted or 1
    interval = wanted * max(1, math.ceil(seconds / (share * epoch * wanted)))
    # The first must have earned the features of the reals too; from then on each interval earns its own.
    earned = ((setup + seconds) / share - START_SECONDS) / epoch
    first = interval * max(1, math.ceil(earned / interval))
    return Timetable(interval, first, seconds, setup, epoch)
