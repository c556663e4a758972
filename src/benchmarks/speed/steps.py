"""Rows of the speed benchmark that time one step or one function, ours and the plain one side by side.

Before anything is timed both paths must give the same answer.
"""

from __future__ import annotations

import copy
import shutil
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from arms.fitting import train_one_epoch
from benchmarks.file_formats import SpeedRow
from benchmarks.machine import matrix_gflops, seconds_side_by_side, wall_seconds
from benchmarks.speed import plain_path
from benchmarks.speed.plan import Bench, measured, note_of_agreement
from classifier import FeatureExtractor, InputPipeline, build_classifier
from common import paths
from data_loader import to_classifier_range, to_gan_range
from dcgan import Discriminator, Generator, initialise
from gan.generation import NOISE_STREAM, ImageMaker, write_images
from gan.losses import Objective, PerceptualLoss, perceptual_every
from gan.networks import GAN, build_gan
from gan.step import TERMS, image_noise, step_noise, train_step
from image_metrics.distances import frechet_distance_of_features, kernel_distance_of_subsets
from image_metrics.fidelity import NEIGHBOURS, neighbourhood_scores
from networks.vgg16 import untrained_vgg16
from utils import autocast, derive_seed, set_seed

LATENT_DIM = 100
LR, BETA1 = 0.0002, 0.5
WEIGHTS = {"adversarial": 1.0, "perceptual": 0.1, "feature_matching": 1.0}  # train_gan.py's defaults
GENERATED_BATCH = 64
KID_SUBSETS = 100
LOSS_TOLERANCE = {"fp32": 0.005, "bf16": 0.05}  # nats


def noise_images(bench: Bench, count: int) -> Tensor:
    """Make noise, uint8 [count, S, S] on the device: a step takes equally long whatever images show."""
    generator = torch.Generator().manual_seed(derive_seed(bench.seed, "benchmark images"))
    side = bench.sizes.side
    images = torch.randint(0, 256, (count, side, side), generator=generator, dtype=torch.uint8)
    return images.to(bench.device)


# --- classifier ------------------------------------------------------------------------------------
def measure_unfreeze_step(bench: Bench) -> SpeedRow:
    """Time a training step of all layers of the classifier."""
    batch, device = bench.sizes.batch, bench.device
    pixels, labels = noise_images(bench, batch), (torch.arange(batch, device=device) % 4 == 0).float()
    images = to_classifier_range(pixels).contiguous()
    set_seed(bench.seed)
    plain_model = build_classifier(bench.weights, frozen=False).to(device).train()
    our_model = copy.deepcopy(plain_model).to(memory_format=torch.channels_last)
    plain_optimizer = torch.optim.AdamW(plain_model.parameters(), lr=0.001, weight_decay=0.0)
    optimizer = torch.optim.AdamW(our_model.parameters(), lr=0.001, weight_decay=0.0, fused=True)
    data, rows = InputPipeline(pixels), np.arange(batch)[None]

    def plain() -> float:
        return plain_path.plain_classifier_step(plain_model, images, labels, plain_optimizer)

    def ours() -> float:
        line = train_one_epoch(our_model, data, labels, rows, optimizer, precision=bench.precision, seed=bench.seed)
        return line["loss"]

    gap = abs(plain() - ours())
    note = note_of_agreement("losses of the first step (nats)", gap, LOSS_TOLERANCE[bench.precision])
    seconds, our_seconds = seconds_side_by_side(plain, ours, bench.sizes.repeats, device)
    return measured(
        "unfreeze_step", our_seconds, seconds,
        note=f"batch {batch}, {bench.sizes.side} px, {bench.precision}, {bench.weights_note()}; {note}",
    )  # fmt: skip


def measure_peak_share(bench: Bench) -> SpeedRow:
    """Measure the arithmetic speed of ResNet-50 inference as a share of the machine's peak."""
    n = bench.sizes.inference_images * (16 if bench.gpu else 1)
    dtype = torch.float32 if bench.precision == "fp32" else torch.bfloat16
    pixels = noise_images(bench, n).cpu().numpy()
    set_seed(bench.seed)
    model = build_classifier(bench.weights, frozen=True)
    operations = n * inference_operations(bench.sizes.side)

    extract = FeatureExtractor(model, bench.device, bench.precision)

    def infer() -> np.ndarray:
        return extract(pixels)

    infer()
    peaks, speeds = [], []
    for _ in range(bench.sizes.repeats):
        peaks.append(matrix_gflops(bench.device, bench.sizes.matrix, dtype, 2))
        speeds.append(operations / wall_seconds(infer, bench.device) / 1e9)
    kind = str(dtype).removeprefix("torch.")
    return measured(
        "peak_share", statistics.median(speeds), statistics.median(peaks),
        note=f"plain is the {kind} matrix peak measured in turn with {n} images of {bench.sizes.side} px; "
        f"{operations / n / 1e9:.2f} GFLOP an image; {bench.weights_note()}",
    )  # fmt: skip


def inference_operations(side: int) -> int:
    """Count ResNet-50's floating-point operations for one image, two for each multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build_classifier("none", frozen=True).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.features(torch.empty(1, 3, side, side))
    return counter.get_total_flops()


# --- GAN -------------------------------------------------------------------------------------------
def measure_gan_step(bench: Bench) -> SpeedRow:
    """Time a GAN step with all three losses."""
    return _gan_row(bench, "gan_step", with_vgg=True)


def measure_gan_step_without_vgg(bench: Bench) -> SpeedRow:
    """Time a GAN step without the perceptual loss."""
    return _gan_row(bench, "gan_step_no_vgg", with_vgg=False)


def _gan_row(bench: Bench, row_id: str, with_vgg: bool) -> SpeedRow:
    """Time a GAN step; ours is the mean over a whole cycle of steps with and without VGG16."""
    sizes, device = bench.sizes, bench.device
    gan, plain_gan, objective = build_both(bench, with_vgg)
    pixels = noise_images(bench, sizes.batch)
    real = to_gan_range(pixels, 3).contiguous()
    cycle = objective.perceptual_every if with_vgg else 1

    def noise() -> Tensor:
        return step_noise(bench.seed, gan.step, sizes.batch, LATENT_DIM).to(device)

    def plain() -> dict[str, float]:
        return plain_path.plain_gan_step(plain_gan, real, noise(), objective.perceptual, objective.feature_matching)

    def ours() -> Tensor:
        for _ in range(cycle):
            terms = train_step(gan, to_gan_range(pixels, 3), noise(), objective, bench.precision)
        return terms

    first = plain()
    terms = dict(zip(TERMS, train_step(gan, real, noise(), objective, bench.precision).tolist(), strict=True))
    gap = max(abs(first[name] - terms[name]) for name in ("d_loss_real", "d_loss_fake"))
    note = note_of_agreement("D's losses of the first step (nats)", gap, LOSS_TOLERANCE[bench.precision])
    ours()
    seconds, cycle_seconds = seconds_side_by_side(plain, ours, sizes.repeats, device)
    lazy = f", VGG16 (untrained) every {cycle} steps" if with_vgg else ""
    return measured(
        row_id, cycle_seconds / cycle, seconds,
        note=f"batch {sizes.batch}, {sizes.side} px, feature maps {sizes.feature_maps}, "
        f"{bench.precision}{lazy}; {note}",
    )  # fmt: skip


def build_both(bench: Bench, with_vgg: bool) -> tuple[GAN, plain_path.PlainGAN, Objective]:
    """Build our GAN, a plain one with the same weights, and our objective."""
    sizes, device = bench.sizes, bench.device
    maps = (sizes.feature_maps, sizes.feature_maps)
    gan = build_gan(sizes.side, 3, LATENT_DIM, maps, LR, BETA1, bench.seed, device)
    G = copy.deepcopy(gan.G).to(memory_format=torch.contiguous_format)
    D = copy.deepcopy(gan.D).to(memory_format=torch.contiguous_format)
    assert isinstance(G, Generator) and isinstance(D, Discriminator)
    vgg = untrained_vgg16(bench.seed).to(device) if with_vgg else None
    perceptual_loss = None
    if vgg is not None:
        with autocast(device, bench.precision):
            perceptual_loss = PerceptualLoss(vgg, [to_gan_range(noise_images(bench, sizes.batch), 3)])
    every = perceptual_every(device)
    objective = Objective(**WEIGHTS, perceptual_loss=perceptual_loss, perceptual_every=every)
    plain_vgg = None if vgg is None else plain_path.PlainVGG16(vgg)
    return gan, plain_path.PlainGAN(G, D, LR, BETA1, plain_vgg), objective


def measure_generation(bench: Bench) -> SpeedRow:
    """Time generating and writing images."""
    sizes, device = bench.sizes, bench.device
    generator = lively_generator(bench)
    numbers = list(range(1, sizes.generated + 1))
    z = torch.cat([image_noise(bench.seed, NOISE_STREAM, number, 1, LATENT_DIM) for number in numbers])
    folders = {name: bench.work / "generated" / name for name in ("plain", "ours")}
    shutil.rmtree(folders["plain"].parent, ignore_errors=True)
    plain_generator = copy.deepcopy(generator).to(device)
    make = ImageMaker(generator, bench.seed, device)

    def plain(count: int = sizes.generated) -> None:
        plain_path.write_images_one_by_one(plain_generator, z[:count].to(device), folders["plain"], GENERATED_BATCH)

    def ours(count: int = sizes.generated) -> None:
        write_images(folders["ours"], numbers[:count], make, batch_size=GENERATED_BATCH, workers=bench.workers)

    few = min(16, sizes.generated)
    plain(few)
    ours(few)
    gap = max(
        np.abs(
            mean_of_channels(folders["plain"] / f"{number}.png")
            - mean_of_channels(paths.synthetic_image(folders["ours"], number))
        ).max()
        for number in numbers[:few]
    )
    note = note_of_agreement("pixels (gray levels)", float(gap), 1.0)
    seconds, our_seconds = seconds_side_by_side(plain, ours, min(3, sizes.repeats), device)
    shutil.rmtree(folders["plain"].parent)
    return measured(
        "generate", our_seconds, seconds,
        note=f"{sizes.generated:,} images of {sizes.side} px, feature maps {sizes.feature_maps}, "
        f"weights: untrained; {note}",
    )  # fmt: skip


def mean_of_channels(file: Path) -> np.ndarray:
    """Read an image as gray levels, float [S, S]."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=float).mean(axis=2)


def lively_generator(bench: Bench) -> Generator:
    """Make an untrained generator whose images vary about as much as X-rays; flat ones compress too fast."""
    sizes = bench.sizes
    torch.manual_seed(derive_seed(bench.seed, "generator"))
    generator = Generator(sizes.side, 3, LATENT_DIM, sizes.feature_maps)
    initialise(generator)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.constant_(module.running_var, 0.01)
    return generator.eval()


# --- comparing images ------------------------------------------------------------------------------
def measure_image_quality(bench: Bench) -> SpeedRow:
    """Time FID, KID and precision; both paths are given the same features."""
    sizes = bench.sizes
    rng = np.random.default_rng(bench.seed)
    mixing = rng.standard_normal((64, sizes.features))
    a, b = (
        (rng.standard_normal((sizes.compared, 64)) + shift) @ mixing
        + rng.standard_normal((sizes.compared, sizes.features))
        for shift in (0.0, 0.1)
    )
    subset = sizes.compared // 2

    def plain() -> tuple[float, float, float]:
        kid = plain_path.plain_kernel_distances(a, b, subset, KID_SUBSETS, bench.seed).mean()
        precision, _ = plain_path.plain_neighbour_scores(a, b, NEIGHBOURS)
        return plain_path.plain_frechet_distance(a, b), float(kid), precision

    def ours() -> tuple[float, float, float]:
        kid = kernel_distance_of_subsets(a, b, size=subset, seed=bench.seed, n_subsets=KID_SUBSETS)
        precision = neighbourhood_scores(a, b)["precision"]
        return frechet_distance_of_features(a, b), kid["kid_of_subsets"], precision

    gaps = [abs(x - y) / max(abs(x), 1e-12) for x, y in zip(plain(), ours(), strict=True)]
    note = note_of_agreement("FID, KID and precision (relative)", max(gaps), 0.01)
    cpu = torch.device("cpu")
    seconds, our_seconds = seconds_side_by_side(plain, ours, min(3, sizes.repeats), cpu)
    return measured(
        "quality", our_seconds, seconds,
        note=f"2 x {sizes.compared:,} made-up features of {sizes.features} numbers, given to both (computing "
        f"them is not counted), {KID_SUBSETS} KID subsets of {subset}; {note}",
    )  # fmt: skip
