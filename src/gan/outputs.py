"""What a GAN's training shows: history, statistics, sample grids and figures.

Each file appears whole, but for the statistics, which grow by lines. If several processes train, only the main one
calls these functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from common import paths
from common.distributed import process_count
from data_loader import from_gan_range
from dataset.images import save_png
from dataset.patients import GROUPED_BY_IMAGE
from gan.checkpoints import Progress, list_red_flags
from gan.figures import encode_gif, gan_losses, gan_quality, mosaic
from gan.file_formats import (
    BestGenerator,
    Evaluation,
    GanTrainingHistory,
    MetricsFacts,
    RunTime,
    StatsLine,
    WarningLine,
)
from gan.networks import GAN
from gan.settings import CLASS_NAMES, Plan
from gan.training_set import TrainingSet
from gan.warnings import length_not_judged, new_warnings
from image_metrics.feature_spaces import small_images
from utils import UserError, atomic_path, plain, save_figure, save_text

HISTORY_ORIGIN = (
    "grouped_by", "split_sha256", "data_sha256", "classes", "train_fraction", "fold", "k_folds",
)  # fmt: skip
GRID_COLUMNS = 8
MOST_WATCHING, WORTH_SAYING = 0.05, 10.0  # share of the time; seconds
WALKS, WALK_STOPS, WALK_FRAMES, WALK_SIDE = 3, 4, 8, 112  # side by side; noises; frames between two; pixels


# --- history ---------------------------------------------------------------------------------------
def history_content(
    plan: Plan, data: TrainingSet, progress: Progress, step: int, time: RunTime,
    metrics: MetricsFacts | None, final_metrics: Evaluation | None,
) -> GanTrainingHistory:  # fmt: skip
    """Return the history of a run.

    ``metrics``: what is evaluated when. ``final_metrics``: metrics of an evaluation after the last epoch,
    if that had none by itself.
    """
    best = progress.best
    content = {
        "config": plan.config,
        **plan.named_files,
        "environment": plan.environment,
        "seed": plan.seed,
        "n_images": len(data.pixels),
        "n_patients": len(data.origin["train_patients"]),
        **{key: data.origin[key] for key in HISTORY_ORIGIN},
        "red_flags": list_red_flags(data, progress.stats),
        "skipped_images": {"count": len(data.skipped), "image_ids": data.skipped},
        "perceptual": plan.perceptual,
        "precision": plan.precision,
        "batch_size": plan.schedule.batch_size,
        "processes": process_count(),
        "steps": step,
        "images_seen": step * plan.schedule.batch_size,
        "metrics": metrics,
        "best": None if best is None else {key: dict(best)[key] for key in BestGenerator.__annotations__},
        "final_metrics": final_metrics,
        "warnings": past_warnings(progress.stats),
        "epochs": progress.history,
        "time": time,
    }
    return cast(GanTrainingHistory, content)


def past_warnings(stats: Sequence[StatsLine]) -> list[WarningLine]:
    """List every warning when it was first given."""
    return [
        {"epoch": line["epoch"], "step": line["step"], "rule": rule, "message": message}
        for number, line in enumerate(stats, start=1)
        for rule, message in new_warnings(stats, number).items()
    ]


def summary(plan: Plan, progress: Progress, final_metrics: Evaluation | None, time: RunTime) -> list[str]:
    """Write the lines that end a run: last evaluation, best generator, warnings, and what watching cost."""
    lines = []
    evaluations = [line["metrics"] for line in progress.history if "metrics" in line]
    if final_metrics is not None:
        evaluations.append(final_metrics)
    if evaluations:
        space, metrics = next(iter(evaluations[-1]["spaces"].items()))
        recall = "" if metrics["recall"] is None else f", recall {metrics['recall']:.2f}"
        lines.append(f"last evaluation ({space}): KID {metrics['kid']:.4f}{recall}, "
                     f"diversity {metrics['diversity']:.2f} of the reals'")  # fmt: skip
    if (best := progress.best) is not None:
        file = plan.folders.generator_best.name
        lines.append(f"{file}: step {best['step']:,}, KID {best['kid']:.4f} ({best['space']})")
    active = progress.stats[-1]["warnings"]
    lines += [f"WARNING at the end, {rule}: {message}" for rule, message in active.items()]
    if "too_short" not in active and (not_judged := length_not_judged(progress.stats)):
        lines.append(not_judged)
    seconds, watching = time["seconds"], time["watching_seconds"]
    if watching > MOST_WATCHING * seconds and watching > WORTH_SAYING:
        lines.append(
            f"metrics, grids and figures took {watching / seconds:.0%} of the time: a larger "
            "--metrics-interval or --save-interval, or fewer --metrics-images, take less"
        )
    return lines


# --- statistics ------------------------------------------------------------------------------------
def as_line(line: StatsLine) -> str:
    """Write a line of the statistics as JSON."""
    return json.dumps(plain(line), allow_nan=False) + "\n"


def rewrite_stats(file: Path, stats: Sequence[StatsLine]) -> None:
    """Make ``file`` hold these lines and no other.

    What a killed run wrote after its last state goes, and a line that it left half written.
    """
    save_text(file, "".join(map(as_line, stats)))


def append_stats(file: Path, line: StatsLine) -> None:
    with file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(as_line(line))


class TensorBoard:
    """Scalars of each line of the statistics, for ``tensorboard --logdir <output-dir>/tensorboard``."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open ``folder``; what an earlier part of the run wrote after ``step`` is not shown."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs the package tensorboard: pip install tensorboard, or leave the flag out"
            ) from None
        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, content: Mapping[str, Any]) -> None:
        """Write the numbers in ``content``."""
        for name, value in scalars(content).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def scalars(content: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """Return the numbers in nested dictionaries by path: {"time": {"seconds": 3}} -> {"time/seconds": 3}."""
    found: dict[str, float] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= scalars(value, f"{above}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{above}{key}"] = value
    return found


# --- images ----------------------------------------------------------------------------------------
@torch.no_grad()
def make_samples(gan: GAN, z: Tensor, label: Tensor | None = None) -> np.ndarray:
    """Make the averaged generator's images uint8 [N, S, S] of noise z [N, input_dim].

    A conditional one makes images of the classes ``label`` [N], or of one class in each row of a grid.
    """
    device, n_classes = next(gan.G_ema.parameters()).device, gan.options.n_classes
    if n_classes and label is None:
        label = torch.arange(len(z)) // GRID_COLUMNS % n_classes
    images = []
    for rows in torch.arange(len(z)).split(32):
        classes = None if label is None or not n_classes else label[rows.to(label.device)].to(device)
        images.append(from_gan_range(gan.G_ema(z[rows].to(device), classes)).cpu())
    return torch.cat(images).numpy()


def save_samples(file: Path, gan: GAN, noise: Tensor, when: str) -> None:
    """Save a grid of the averaged generator's images of ``noise``."""
    rows = f"; rows: {', '.join(CLASS_NAMES)} in turn" if gan.options.conditional else ""
    save_mosaic(file, make_samples(gan, noise), f"Generated images, {when}{rows}")


def save_reals(plan: Plan, pixels: Tensor) -> None:
    """Save a grid of real images to compare with; where it is not wanted, an earlier run's goes, too."""
    path = paths.gan_real_grid(plan.folders.output_dir, plan.folders.fold)
    if plan.watching.no_real_images:
        path.unlink(missing_ok=True)
        return
    save_mosaic(path, pixels[: plan.watching.vis_batch_size].cpu().numpy(), "Real training images")


def save_mosaic(file: Path, images: np.ndarray, title: str) -> None:
    save_png(file, mosaic(images, GRID_COLUMNS, title))


def save_interpolation(file: Path, gan: GAN, noise: Tensor) -> None:
    """Save walks through the latent space, side by side, as a GIF; ``noise`` [N, input_dim]: their stops."""
    side = min(WALK_SIDE, gan.G_ema.image_size)
    walks = []
    for start in range(WALKS):
        stops = noise[(torch.arange(WALK_STOPS) + start * WALK_STOPS) % len(noise)]
        z = closed_walk(stops, WALK_FRAMES)
        label = torch.full((len(z),), start % max(1, gan.options.n_classes))
        walks.append(small_images(torch.from_numpy(make_samples(gan, z, label)), side))
    content = encode_gif(np.concatenate(walks, axis=2))
    with atomic_path(file) as temporary:
        temporary.write_bytes(content)


def closed_walk(stops: Tensor, frames: int) -> Tensor:
    """Walk z [S, D] -> [S * frames, D]: from each of ``stops`` to the next, and back to the first.

    By ``slerp``: a straight line between two draws of N(0, 1) passes through noise of too small a length.
    """
    steps = torch.arange(frames) / frames
    return torch.cat([slerp(a, b, steps) for a, b in zip(stops, stops.roll(-1, 0), strict=True)])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate a and b [D] spherically at ``t`` [T] in [0, 1]: [T, D] (Shoemake 1985).

    Lengths are interpolated linearly. Between noises that point the same way, or opposite ways, the walk is
    the straight line.
    """
    one, other = a / a.norm(), b / b.norm()
    angle = torch.arccos((one @ other).clamp(-1, 1))
    length = (1 - t) * a.norm() + t * b.norm()
    if float(angle.sin()) < 1e-4:
        return (1 - t)[:, None] * a + t[:, None] * b
    part = [torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()]
    return length[:, None] * (part[0][:, None] * one + part[1][:, None] * other)


# --- figures ---------------------------------------------------------------------------------------
def save_figures(plan: Plan, history: GanTrainingHistory, stats: Sequence[StatsLine]) -> None:
    """Draw the loss curve, and the quality of the images where they were evaluated."""
    folders, epochs, final = plan.folders, history["epochs"], history["final_metrics"]
    save_figure(folders.loss_figure, gan_losses(epochs, _title("GAN training", history), stats))
    evaluations = [(line["images_seen"], line["metrics"]) for line in epochs if "metrics" in line]
    if final is not None:
        evaluations.append((history["images_seen"], final))
    if not evaluations or history["metrics"] is None:
        folders.quality_figure.unlink(missing_ok=True)  # of an earlier run
        return
    title = _title("Quality of the images of a GAN trained", history)
    figure = gan_quality(evaluations, history["metrics"]["floors"], history["best"], title)
    save_figure(folders.quality_figure, figure)


def _title(what: str, history: GanTrainingHistory) -> str:
    """Say what a figure is about; patients are counted only where the dataset says who they are."""
    text = f"{what} on {history['n_images']:,} images"
    if history["grouped_by"] != GROUPED_BY_IMAGE:
        text += f" of {history['n_patients']:,} patients"
    fold, k_folds = history["fold"], history["k_folds"]
    return text if fold is None else f"{text}, without fold {fold} of {k_folds}"
