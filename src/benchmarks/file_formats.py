"""Formats of the benchmarks' result files: ``benchmark.json`` and ``gan_benchmark.json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY
from image_metrics.copies import CloserToTraining, NearCopies


class Machine(TypedDict):
    """The machine and the software that a benchmark ran on."""

    cpu: Annotated[str, "name of the processor"]
    cores: Annotated[int, "cores that the process may use"]
    gpu: Annotated[str | None, "name of the GPU; null if the CPU did the work"]
    system: Annotated[str, "operating system"]
    python: Annotated[str, "version of Python"]
    torch: Annotated[str, "version of PyTorch"]


# --- benchmark.json --------------------------------------------------------------------------------
class TimedMachine(Machine):
    """The machine of the speed benchmark, with the threads of the process that measured."""

    threads: Annotated[int, "threads of PyTorch"]


class SpeedSettings(TypedDict):
    """Options of ``benchmark.py`` that change its numbers."""

    quick: Annotated[bool, "whether it ran with few images"]
    precision: Annotated[str, "arithmetic of this project's path: fp32 or bf16"]
    weights: Annotated[Literal["imagenet", "none"], "weights of ResNet-50"]
    workers: Annotated[int, "threads or processes that decode or write images"]
    seed: Annotated[int, "seed of phantoms and weights"]


class MachinePeaks(TypedDict):
    """The highest speeds that the machine reaches."""

    bf16_gflops: Annotated[float, "matrix products in bfloat16, GFLOP/s"]
    fp32_gflops: Annotated[float, "matrix products in float32, GFLOP/s"]
    copy_gb_per_s: Annotated[float, "copying in memory, GB/s read and written"]


class SpeedRow(TypedDict):
    """One measurement of the speed benchmark beside what it is compared with."""

    id: Annotated[str, "name of the row for --rows"]
    name: Annotated[str, "name of the row for readers"]
    plain: Annotated[float | None, "the plain path or the machine's peak, in unit; null if there is none"]
    ours: Annotated[float | None, "this project's path, in unit; null if not measured"]
    unit: Annotated[str, "unit of plain and ours"]
    ratio: Annotated[float | None, "how good the measurement is; larger is better; null for a time alone"]
    target: Annotated[float | None, "ratio to reach; null for a time alone"]
    extrapolated: Annotated[bool, "whether a part was measured on fewer images and scaled up"]
    status: Annotated[Literal["measured", "not_measured"], "whether the row was measured"]
    note: Annotated[str, "how it was measured, or why it was not"]


class SpeedBenchmark(TypedDict):
    """``benchmark.json``: times and memory of this project beside a plain implementation."""

    format: Annotated[Literal["benchmark-1"], "name of this format"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    settings: SpeedSettings
    machine: TimedMachine
    peaks: MachinePeaks
    rows: list[SpeedRow]


# --- gan_benchmark.json ----------------------------------------------------------------------------
class BenchmarkImages(TypedDict):
    """The real images of the comparison of generators."""

    image_size: Annotated[int, "pixels a side"]
    data_sha256: Annotated[str, "SHA-256 of the list of images"]
    split_sha256: Annotated[str, "SHA-256 of the train/test split"]
    grouped_by: Annotated[str, "how images of one person are recognised"]
    held_out: Annotated[str, "which part is held out, in words"]
    learned_positives: Annotated[int, "positives that contenders learn from"]
    learned_patients: Annotated[int, "their patients"]
    heldout_positives: Annotated[int, "positives that contenders are scored against"]
    heldout_patients: Annotated[int, "their patients"]
    scorer_images: Annotated[int, "images of both labels that the scoring ResNet-18 learns from"]


class ScorerFacts(TypedDict):
    """The ResNet-18 in whose features generators are compared."""

    network: Annotated[str, "its architecture"]
    trained_on: Annotated[str, "its training images, in words"]
    epochs: Annotated[int, "epochs of training"]
    heldout_auroc: Annotated[float, "AUROC on the held-out patients, 0 to 1"]
    weights_digest: Annotated[str, "first 16 digits of the SHA-256 of its weights"]


class DrawScores(TypedDict):
    """Two sets of images in one space, means over draws of equally many images of each."""

    n: Annotated[int, "images on either side"]
    fid: Annotated[float, "Frechet distance"]
    fid_sd: Annotated[float, "its standard deviation over the draws"]
    kid: Annotated[float, "kernel distance (unbiased squared MMD)"]
    precision: Annotated[float, "share of the first set near the second, 0 to 1"]
    recall: Annotated[float, "share of the second set near the first, 0 to 1"]
    density: Annotated[float, "precision that counts how many neighbourhoods an image lies in"]
    coverage: Annotated[float, "share of the second set with an image of the first nearby, 0 to 1"]


class FloorScores(DrawScores):
    """One half of the real positives beside the other."""

    kid_sd: Annotated[float, "standard deviation of kid over the draws"]


class KernelMeans(TypedDict):
    """Mean kernels of a set of images, from which KID and its interval follow."""

    kernel_within: Annotated[float, "mean kernel of two images of the set"]
    kernel_to_heldout: Annotated[list[float], "mean kernel of the set with each held-out positive"]


class SpaceScores(DrawScores, KernelMeans):
    """Images beside the held-out positives in one space; kid is computed from all images, not from draws."""

    kid_ci95: Annotated[list[float], "95 % interval of kid, bootstrap over held-out patients"]
    kid_learned: Annotated[float, "kid beside the positives that were learned from"]
    diversity: Annotated[float, "mean distance of two images as a share of that of two learned positives"]


class RealScores(TypedDict):
    """What real images score in one space."""

    floor: FloorScores
    training: SpaceScores


class HeldoutKernel(TypedDict):
    """Mean kernel of two held-out positives of different patients in one space."""

    mean: Annotated[float, "over all pairs"]
    resampled: Annotated[list[float], "in each resample of the patients"]


class HeldoutReference(TypedDict):
    """The held-out positives, as intervals of KID need them."""

    resamples: Annotated[list[str], "of each resample of the patients: how often each image is in it"]
    kernels: Annotated[dict[str, HeldoutKernel], "by space"]


class CopyScores(NearCopies):
    """Near-copies of training images among generated ones."""

    closer: CloserToTraining


class ImageScores(TypedDict):
    """Scores of one set of images."""

    spaces: Annotated[dict[str, SpaceScores], "by space: resnet18, hog, pixels"]
    grain: Annotated[float, "fine grain as a share of that of the learned positives"]
    copies: CopyScores


class UnitRow(TypedDict):
    """One contender with one seed and one budget."""

    id: Annotated[str, "contender, flags, budget, seed and preset; a row of another id is measured anew"]
    what: Annotated[Literal["peers", "options"], "comparison that the row belongs to"]
    contender: Annotated[str, "name of the contender"]
    ours: Annotated[bool, "whether it is a generator of this project"]
    seed: Annotated[int, "seed of training and sampling"]
    minutes: Annotated[float | None, "budget of training time, minutes; null if kimg limits it"]
    kimg: Annotated[float | None, "budget of images shown, thousands; null if minutes limit it"]
    budget: Annotated[str, "the budget in words"]


class FinishedRow(UnitRow):
    """A contender that made images."""

    status: Annotated[Literal["done"], "it made images"]
    package: Annotated[str | None, "package and version; null for this project and the plain DCGAN"]
    parameters: Annotated[int | None, "parameters that learn"]
    steps: Annotated[int | None, "training steps"]
    settings: Annotated[dict[str, Any] | None, "settings of the contender, in its own words"]
    threads: Annotated[int | None, "threads of PyTorch"]
    command_seconds: Annotated[float | None, "wall time of the whole command, seconds"]
    cpu_seconds: Annotated[float | None, "processor time of the whole command, seconds"]
    images_seen: Annotated[int, "real images shown in training"]
    train_seconds: Annotated[float, "wall time of training, seconds"]
    images_per_second: Annotated[float | None, "images_seen divided by train_seconds"]
    generator: Annotated[Literal["raw", "averaged"], "the generator that counts"]
    trained: Annotated[bool, "whether recall, precision and diversity exceed their limits in all spaces"]
    scores: Annotated[dict[str, ImageScores], "by generator: raw, and averaged if there is one"]


class FailedRow(UnitRow):
    """A contender that made no images."""

    status: Annotated[Literal["failed", "over_time", "not_installed"], "how it failed"]
    reason: Annotated[str, "why, in words"]


class GeneratorBenchmark(TypedDict):
    """``gan_benchmark.json``: generators beside others, or options of this project beside one another."""

    format: Annotated[Literal["gan-benchmark-1"], "name of this format"]
    config_sha256: NotRequired[Annotated[str, f"of the run that wrote last: {CONFIG_KEY}"]]
    machine: Machine
    data: BenchmarkImages
    images: Annotated[int, "images that each generator makes"]
    scorer: ScorerFacts
    reals: Annotated[dict[str, RealScores], "scores of real images, by space"]
    heldout: HeldoutReference
    controls: Annotated[dict[str, ImageScores], "scores of images that are bad in a known way, by name"]
    rows: list[FinishedRow | FailedRow]
