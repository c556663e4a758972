"""What a GAN's training writes: checkpoints, history, statistics, grids and figures. Each appears whole.

Functions of the ``Run``; of several processes only the main one calls them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from common import paths
from common.distributed import process_count
from data_loader import from_gan_range
from dataset.image_writer import save_png
from dataset.patients import GROUPED_BY_PATIENT
from gan.figures import gan_losses, gan_quality, mosaic, moving
from gan.networks import DISCRIMINATOR_FORMAT, GENERATOR_FORMAT
from gan.options import CLASS_NAMES
from gan.warnings import new_warnings
from image_metrics.pixel_features import small_images
from utils import UserError, atomic_path, plain, save_checkpoint, save_figure, save_json, save_text

if TYPE_CHECKING:
    from gan.run import Run

HISTORY_ORIGIN = (
    "grouped_by", "split_sha256", "data_sha256", "classes", "train_fraction", "fold", "k_folds",
)  # fmt: skip
GRID_COLUMNS = 8
MOST_WATCHING, WORTH_SAYING = 0.05, 10.0  # share of the time; seconds
WALKS, WALK_STOPS, WALK_FRAMES, WALK_SIDE = 3, 4, 8, 112  # side by side; noises; frames between two; pixels


def remove_unfinished(run: Run) -> None:
    """Temporary files that a killed run could not remove, each perhaps as large as a checkpoint."""
    where, fold = run.folders, run.folders.fold
    of_gan = (paths.gan_dir(where.models, fold), paths.gan_images(where.output, fold))
    unfinished = [file for folder in of_gan for file in folder.glob(paths.TEMPORARY_PATTERN)]
    # Beside these, other scripts may be writing theirs at this moment.
    for path in (
        paths.gan_history(where.results, fold),
        paths.gan_stats(where.results, fold),
        paths.gan_loss_figure(where.figures, fold),
        paths.gan_quality_figure(where.figures, fold),
    ):
        unfinished += path.parent.glob(paths.temporary_pattern(path))
    for file in unfinished:
        file.unlink(missing_ok=True)


# --- networks --------------------------------------------------------------------------------------
def save_networks(run: Run, generator: Path, discriminator: Path) -> None:
    """The averaged generator and the discriminator, each with all that rebuilding it takes."""
    save_checkpoint(generator, network_checkpoint(run, GENERATOR_FORMAT, run.gan.G_ema))
    save_checkpoint(discriminator, network_checkpoint(run, DISCRIMINATOR_FORMAT, run.gan.D))


def network_checkpoint(run: Run, kind: str, network: nn.Module) -> dict[str, Any]:
    weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
    return {
        "format": kind,
        "state_dict": weights,
        "architecture": network.architecture,
        "pixel_range": [-1, 1],
        **run.data.origin,
        "red_flags": run.red_flags(),
        "step": run.gan.step,
        "epoch": len(run.history),
        "images_seen": run.images_seen(),
        "seed": run.seed,
        "options": run.gan.options.as_dict(),
        "config": run.facts["config"],
    }


def save_best(run: Run) -> None:
    """The best generator so far, which the state holds too; a file of an earlier run goes."""
    path = paths.generator_best(run.folders.models, run.folders.fold)
    if run.best is None:
        path.unlink(missing_ok=True)
    else:
        save_checkpoint(path, run.best["checkpoint"])


# --- history and statistics ------------------------------------------------------------------------
def save_history(run: Run, final_metrics: dict[str, Any] | None = None) -> None:
    """``final_metrics``: of an evaluation after the last epoch that had none by itself."""
    origin, skipped, monitor = run.data.origin, run.data.skipped, run.monitor
    content = run.facts | {
        "n_images": len(run.data.pixels),
        "n_patients": len(origin["train_patients"]),
        **{key: origin[key] for key in HISTORY_ORIGIN},
        "red_flags": run.red_flags(),
        "skipped_images": {"count": len(skipped), "image_ids": skipped},
        "perceptual": run.settings["--perceptual"],
        "precision": run.precision,
        "batch_size": run.schedule.batch_size,
        "processes": process_count(),
        "steps": run.gan.step,
        "images_seen": run.images_seen(),
        "metrics": monitor.describe() if monitor is not None else None,
        "best": {key: value for key, value in run.best.items() if key != "checkpoint"} if run.best else None,
        "final_metrics": final_metrics,
        "warnings": past_warnings(run.stats),
        "epochs": run.history,
        "time": run.clock.summary(),
    }
    save_json(paths.gan_history(run.folders.results, run.folders.fold), content)


def past_warnings(stats: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every warning when it was first given: {"epoch", "step", "rule", "message"}."""
    return [
        {"epoch": line["epoch"], "step": line["step"], "rule": rule, "message": message}
        for number, line in enumerate(stats, start=1)
        for rule, message in new_warnings(stats, number).items()
    ]


def as_line(content: dict[str, Any]) -> str:
    return json.dumps(plain(content), allow_nan=False) + "\n"


def rewrite_stats(run: Run) -> None:
    """The file holds the lines of ``run.stats`` and no other: what a killed run wrote after its last state
    goes, and a line that it left half written."""
    path = paths.gan_stats(run.folders.results, run.folders.fold)
    save_text(path, "".join(map(as_line, run.stats)))


def append_stats(run: Run) -> None:
    path = paths.gan_stats(run.folders.results, run.folders.fold)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(as_line(run.stats[-1]))


class TensorBoard:
    """Scalars of each line of the statistics, for ``tensorboard --logdir <output-dir>/tensorboard``."""

    def __init__(self, folder: Path, step: int) -> None:
        """What an earlier part of the run wrote after ``step`` is not shown."""
        self.writer = _summary_writer(folder, step)

    def add(self, line: dict[str, Any]) -> None:
        for name, value in scalars({key: line[key] for key in line if key != "step"}).items():
            self.writer.add_scalar(name, value, line["step"])
        self.writer.flush()


def scalars(content: dict[str, Any], above: str = "") -> dict[str, float]:
    """The numbers in nested dictionaries by their path: {"time": {"seconds": 3}} -> {"time/seconds": 3}."""
    found: dict[str, float] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= scalars(value, f"{above}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{above}{key}"] = value
    return found


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs the package tensorboard: pip install tensorboard, or leave the flag out"
        ) from None
    return SummaryWriter(str(folder), purge_step=step + 1)


def summary(run: Run, final_metrics: dict[str, Any] | None) -> list[str]:
    """The lines that end a run: its best generator, the warnings that hold, and what watching cost."""
    lines = []
    evaluated = [line["metrics"] for line in run.history if "metrics" in line] + [final_metrics]
    last = next((metrics["spaces"] for metrics in reversed(evaluated) if metrics is not None), None)
    if last is not None:
        space, metrics = next(iter(last.items()))
        recall = "" if metrics["recall"] is None else f", recall {metrics['recall']:.2f}"
        lines.append(f"last evaluation ({space}): KID {metrics['kid']:.4f}{recall}, "
                     f"diversity {metrics['diversity']:.2f} of the reals'")  # fmt: skip
    if run.best is not None:
        file = paths.generator_best(run.folders.models, run.folders.fold).name
        lines.append(f"{file}: step {run.best['step']:,}, KID {run.best['kid']:.4f} ({run.best['space']})")
    for rule, message in (run.stats[-1]["warnings"] if run.stats else {}).items():
        lines.append(f"WARNING at the end, {rule}: {message}")
    seconds, watching = run.clock.seconds(), run.clock.watching
    if watching > MOST_WATCHING * seconds and watching > WORTH_SAYING:
        lines.append(
            f"metrics, grids and figures took {watching / seconds:.0%} of the time: a larger "
            "--metrics-interval or --save-interval, or fewer --metrics-images, take less"
        )
    return lines


# --- images ----------------------------------------------------------------------------------------
@torch.no_grad()
def generate(run: Run, z: Tensor, label: Tensor | None = None) -> np.ndarray:
    """The averaged generator's images uint8 [N, S, S] of noise z [N, input_dim]; of a conditional one, images
    of the classes ``label`` [N], or of one class in each row of a grid."""
    device, n_classes = run.data.pixels.device, run.gan.options.n_classes
    if n_classes and label is None:
        label = torch.arange(len(z)) // GRID_COLUMNS % n_classes
    images = []
    for rows in torch.arange(len(z)).split(32):
        classes = [label[rows.to(label.device)].to(device)] if n_classes else []
        images.append(from_gan_range(run.gan.G_ema(z[rows].to(device), *classes)).cpu())
    return torch.cat(images).numpy()


def save_samples(run: Run, path: Path, when: str) -> None:
    """A grid of the averaged generator's images, on the same noise all along."""
    rows = f"; rows: {', '.join(CLASS_NAMES)} in turn" if run.gan.options.conditional else ""
    save_grid(path, generate(run, run.vis_noise), f"Generated images, {when}{rows}")


def save_reals(run: Run) -> None:
    """A grid of real images to compare with; where it is not wanted, an earlier run's goes, too."""
    path = paths.gan_real_grid(run.folders.output, run.folders.fold)
    if not run.show_reals:
        path.unlink(missing_ok=True)
        return
    save_grid(path, run.data.pixels[: len(run.vis_noise)].cpu().numpy(), "Real training images")


def save_grid(path: Path, images: np.ndarray, title: str) -> None:
    save_png(path, mosaic(images, GRID_COLUMNS, title))


def save_interpolation(run: Run) -> None:
    """Walks through the latent space, side by side, as a GIF."""
    side = min(WALK_SIDE, run.data.pixels.shape[1])
    walks = []
    for start in range(WALKS):
        stops = run.vis_noise[(torch.arange(WALK_STOPS) + start * WALK_STOPS) % len(run.vis_noise)]
        z = closed_walk(stops, WALK_FRAMES)
        label = torch.full((len(z),), start % max(1, run.gan.options.n_classes))
        walks.append(small_images(torch.from_numpy(generate(run, z, label)), side))
    content = moving(np.concatenate(walks, axis=2))
    with atomic_path(paths.gan_interpolation(run.folders.output, run.folders.fold)) as temporary:
        temporary.write_bytes(content)


def closed_walk(stops: Tensor, frames: int) -> Tensor:
    """z [S, D] -> [S * frames, D]: from each of ``stops`` to the next, and back to the first, by ``slerp``:
    a straight line between two draws of N(0, 1) passes through noise of too small a length."""
    steps = torch.arange(frames) / frames
    return torch.cat([slerp(a, b, steps) for a, b in zip(stops, stops.roll(-1, 0), strict=True)])


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation [T, D] of a and b [D] at ``t`` [T] in [0, 1] (Shoemake 1985); of their lengths,
    linearly. Of noises that point the same way, or opposite ways, it is the straight line."""
    one, other = a / a.norm(), b / b.norm()
    angle = torch.arccos((one @ other).clamp(-1, 1))
    length = (1 - t) * a.norm() + t * b.norm()
    if float(angle.sin()) < 1e-4:
        return (1 - t)[:, None] * a + t[:, None] * b
    part = [torch.sin((1 - t) * angle) / angle.sin(), torch.sin(t * angle) / angle.sin()]
    return length[:, None] * (part[0][:, None] * one + part[1][:, None] * other)


# --- figures ---------------------------------------------------------------------------------------
def save_figures(run: Run, final_metrics: dict[str, Any] | None) -> None:
    figures, fold = run.folders.figures, run.folders.fold
    curves = gan_losses(run.history, title(run), run.stats)
    save_figure(paths.gan_loss_figure(figures, fold), curves)
    evaluations = [
        {"images_seen": line["images_seen"], **line["metrics"]} for line in run.history if "metrics" in line
    ]
    if final_metrics is not None:
        evaluations.append({"images_seen": run.images_seen(), **final_metrics})
    path = paths.gan_quality_figure(figures, fold)
    if not evaluations:
        path.unlink(missing_ok=True)  # of an earlier run
        return
    heading = title(run, "Quality of the images of a GAN trained")
    save_figure(path, gan_quality(evaluations, run.monitor.floors, run.best, heading))


def title(run: Run, what: str = "GAN training") -> str:
    """What the curves are about; patients are counted only where the dataset says who they are."""
    text, origin = f"{what} on {len(run.data.pixels):,} images", run.data.origin
    if origin["grouped_by"] == GROUPED_BY_PATIENT:
        text += f" of {len(origin['train_patients']):,} patients"
    fold = run.folders.fold
    return text if fold is None else f"{text}, without fold {fold} of {origin['k_folds']}"
