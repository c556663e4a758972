"""Contents of the files that a GAN's training writes: history, statistics, checkpoints and state.

Checkpoints and the state are torch files of tensors and plain types. "reals" are real X-rays, "fakes" are
generated images; D(x) and D(G(z)) are how likely D finds a real and a fake to be real.

No ``from __future__ import annotations`` here: it would hide ``NotRequired`` from ``TypedDict``.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from common.experiment_files import CONFIG_KEY
from common.plan_files import PLAN_KEY
from dataset.file_formats import SkippedImages

GENERATOR_FORMAT = "dcgan-generator-1"  # of either architecture, which the checkpoint names
DISCRIMINATOR_FORMAT = "dcgan-discriminator-1"
STATE_FORMAT = "gan-training-state-1"


# --- evaluations -----------------------------------------------------------------------------------
class SetScores(TypedDict):
    """One set of images compared with as many real ones, in one space of features."""

    kid: Annotated[float, "kernel distance (KID), 0 for equal distributions; an estimate may be negative"]
    fd: Annotated[float, "Frechet distance"]
    precision: Annotated[float | None, "share of the images that lie among the real ones; null: too few"]
    recall: Annotated[float | None, "share of the real images that lie among the images; null: too few"]


class SpaceMetrics(SetScores):
    """Generated images in one space of features: means over comparisons with two halves of the reals."""

    fd_relative: Annotated[float, "fd as a multiple of that between the two halves of the reals"]
    diversity: Annotated[float, "mean distance of two fakes as a multiple of that of two reals"]
    holdout: NotRequired[Annotated[SetScores, "compared with images that were not trained on"]]


class CopyScores(TypedDict):
    """How near the details of fakes come to a training image."""

    nearest: Annotated[float, "median distance of a fake to the nearest training image"]
    usual: Annotated[float, "median distance of a training image to the nearest of another patient"]
    ratio: Annotated[float, "nearest / usual; below 0.5 the generator seems to copy"]


class DiscriminatorScores(TypedDict):
    """D's outputs, logits, in eval mode."""

    training: Annotated[float, "mean for training images"]
    generated: Annotated[float, "mean for fakes"]
    training_sign: Annotated[float, "mean sign for training images; 1: D is sure of each"]
    holdout: NotRequired[Annotated[float, "mean for images that were not trained on"]]
    holdout_error: NotRequired[Annotated[float, "standard error of training - holdout"]]


class Evaluation(TypedDict):
    """The averaged generator at one moment."""

    n: Annotated[int, "fakes, and reals of each half"]
    spaces: Annotated[dict[str, SpaceMetrics], "space of features -> metrics"]
    copying: CopyScores
    grain: Annotated[float, "mean size of the Laplacian as a multiple of the reals'"]
    discriminator: NotRequired[DiscriminatorScores]


# --- losses ----------------------------------------------------------------------------------------
class LossMeans(TypedDict):
    """Means over steps, unweighted but for g_loss; null: not taken, absent: not recorded."""

    d_loss: Annotated[float, "d_loss_real + d_loss_fake"]
    g_loss: Annotated[float, "weighted sum of G's terms"]
    d_loss_real: Annotated[float, "D's loss on reals"]
    d_loss_fake: Annotated[float, "D's loss on fakes"]
    d_real: Annotated[float, "D(x), 0 to 1"]
    d_fake: Annotated[float, "D(G(z)), 0 to 1"]
    r1: NotRequired[Annotated[float | None, "squared gradient of D at reals"]]
    r2: NotRequired[Annotated[float | None, "squared gradient of D at fakes"]]
    gradient_penalty: NotRequired[Annotated[float | None, "penalty of wgan-gp"]]
    d_grad_norm: NotRequired[Annotated[float, "norm of D's gradient"]]
    g_adversarial: Annotated[float, "adversarial term"]
    g_perceptual: Annotated[float | None, "perceptual term"]
    g_feature_matching: Annotated[float, "feature-matching term"]
    g_grad_norm: NotRequired[Annotated[float, "norm of G's gradient"]]
    g_grad_norm_max: NotRequired[Annotated[float, "largest norm of G's gradient"]]
    d_grad_norm_max: NotRequired[Annotated[float, "largest norm of D's gradient"]]


class EpochLine(LossMeans):
    """One epoch."""

    epoch: Annotated[int, "from 1"]
    step: Annotated[int, "steps so far"]
    images_seen: Annotated[int, "training images shown so far"]
    metrics: NotRequired[Annotated[Evaluation, "where the epoch was evaluated"]]


class LapTime(TypedDict):
    """Time and speed of the steps that one line sums up."""

    seconds: Annotated[float, "of the run so far, earlier parts included"]
    images_per_second: Annotated[float, "training speed, watching left out"]


class StatsLine(LossMeans):
    """``gan_stats.jsonl`` holds one such object a line, each about some 200 steps or the end of an epoch."""

    step: Annotated[int, "steps so far"]
    epoch: Annotated[int, "epoch under way, from 1"]
    epoch_fraction: Annotated[float, "epochs so far"]
    images_seen: Annotated[int, "training images shown so far"]
    steps: Annotated[int, "steps that the line is about"]
    shares: Annotated[dict[str, float] | None, "term -> its share of the gradient at G's output, 0 to 1"]
    metrics: Evaluation | None
    time: LapTime
    memory: Annotated[dict[str, float | None], "peak_mb: most so far, in MiB; null where unknown"]
    warnings: Annotated[dict[str, str], "rule that holds now -> what it says"]


# --- history ---------------------------------------------------------------------------------------
class MetricsFacts(TypedDict):
    """What is evaluated, when, and what real images score."""

    images: Annotated[int, "compared with each other"]
    chosen_by: Annotated[str, "space whose KID chooses generator_best.pth"]
    neighbours: Annotated[int, "k of precision and recall"]
    spaces: Annotated[dict[str, dict[str, Any]], "space of features -> network and weights"]
    every_epochs: Annotated[dict[str, int], "space -> epochs between evaluations; 0: none"]
    floors: Annotated[dict[str, SetScores], "space -> one half of the reals against the other"]


class BestGenerator(TypedDict):
    """The generator of the lowest KID."""

    kid: float
    space: Annotated[str, "space of features"]
    epoch: int
    step: int
    images_seen: int


class WarningLine(TypedDict):
    """A warning when it was first given."""

    epoch: int
    step: int
    rule: str
    message: str


class RunTime(TypedDict):
    """Seconds of a run, earlier parts included."""

    seconds: float
    watching_seconds: Annotated[float, "of these on metrics, grids, figures and statistics"]


class GanTrainingHistory(TypedDict):
    """``gan_training_history.json``: a GAN's training, an entry per epoch."""

    config: Annotated[dict[str, Any], "option -> value"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    environment: Annotated[dict[str, Any], "versions and hardware"]
    seed: int
    n_images: Annotated[int, "training images"]
    n_patients: Annotated[int, "patients of the training images"]
    grouped_by: Annotated[str, "what tells the images of one person"]
    split_sha256: str
    data_sha256: Annotated[str, "of the metadata"]
    classes: Annotated[Literal["positive", "all"], "images learned from"]
    train_fraction: Annotated[float, "share of the training patients, 0 to 1"]
    fold: Annotated[int | None, "fold that was left out, from 1"]
    k_folds: int | None
    red_flags: Annotated[list[str], "what every user of the generator must know"]
    skipped_images: SkippedImages
    perceptual: Annotated[Literal["on", "off", "unavailable"], "perceptual loss"]
    precision: Annotated[Literal["fp32", "bf16"], "arithmetic of the networks"]
    batch_size: Annotated[int, "images per step, of all processes"]
    processes: int
    steps: int
    images_seen: int
    metrics: Annotated[MetricsFacts | None, "null: nothing was watched"]
    best: BestGenerator | None
    final_metrics: Annotated[Evaluation | None, "after the last epoch, if that had none by itself"]
    warnings: list[WarningLine]
    epochs: list[EpochLine]
    time: Annotated[RunTime | None, "null: not measured"]


# --- checkpoints -----------------------------------------------------------------------------------
class NetworkCheckpoint(TypedDict):
    """``generator_*.pth`` (averaged), ``discriminator_*.pth``: a network and the images that it saw."""

    format: str
    state_dict: Annotated[dict[str, Any], "weight -> tensor"]
    architecture: Annotated[dict[str, Any], "arch, and the arguments that build the network"]
    pixel_range: Annotated[list[int], "[-1, 1]"]
    classes: Literal["positive", "all"]
    label: Annotated[int | None, "of the images learned from; null: all"]
    train_image_ids: list[str]
    train_patients: list[str]
    data_sha256: str
    split_sha256: str
    grouped_by: str
    train_fraction: float
    fold: int | None
    k_folds: int | None
    red_flags: list[str]
    step: int
    epoch: int
    images_seen: int
    seed: int
    options: Annotated[dict[str, Any], "fields of GANOptions"]
    config: Annotated[dict[str, Any], "option -> value"]
    config_sha256: NotRequired[Annotated[str, CONFIG_KEY]]
    plan_sha256: NotRequired[Annotated[str, PLAN_KEY]]
    kid: NotRequired[Annotated[float, "of generator_best.pth"]]
    kid_space: NotRequired[Annotated[str, "space of features in which it was chosen"]]


class BestInState(BestGenerator):
    """The generator of the lowest KID, with the content of its file."""

    checkpoint: NetworkCheckpoint


class TimetableRecord(TypedDict):
    """When one space of features is evaluated; seconds are nominal, of a machine that is taken as usual."""

    interval: Annotated[int, "epochs; 0: never"]
    first: Annotated[int, "first epoch"]
    seconds: Annotated[float, "of an evaluation"]
    setup: Annotated[float, "seconds of the features of the reals"]
    epoch: Annotated[float, "seconds of an epoch of training"]


class TrainingState(TypedDict):
    """``training_state.pth``: all that --resume needs, at the end of an epoch."""

    format: str
    settings: Annotated[dict[str, Any], "what must be the same on resume, by flag"]
    history: list[EpochLine]
    stats: list[StatsLine]
    best: BestInState | None
    watched: Annotated[dict[str, TimetableRecord], "space -> timetable"]
    floors: Annotated[dict[str, SetScores], "space -> one half of the reals against the other"]
    clock: RunTime
    step: int
    G: Annotated[dict[str, Any], "weights"]
    D: dict[str, Any]
    G_ema: dict[str, Any]
    optimizer_G: Annotated[dict[str, Any], "state of Adam"]
    optimizer_D: dict[str, Any]
