"""A user's own experiment, stage by stage: how long it takes on this machine, and what would make it shorter.

Options say how much work each stage is; ``studies.time_estimate`` times a few steps of each kind of work, and
``stage_seconds`` multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arms.options import TRAIN_OPTIONS
from arms.registry import ARMS, AUGMENTED, BASELINE, CONTROL_DUPLICATE, Synthetic, steps_per_epoch
from benchmarks.text_table import aligned_columns
from common.command_line import parser_of_words
from common.options import Option
from common.progress import duration_in_words
from gan.options import GENERATION_OPTIONS, IMAGE_SIZES, read_settings
from gan.options import OPTIONS as GAN_OPTIONS
from gan.settings import POSITIVE, Settings
from networks.backbones import BACKBONES, LITE0
from networks.lite0 import check_lite0
from studies.commands import MAKE_IMAGES, TRAIN_GAN, sets_length, uses_images
from studies.options import PIPELINE_OPTIONS, STUDY_OPTIONS, arms_of_study
from studies.plan import equal_epochs
from studies.time_estimate import (
    MOST_OFFERS,
    SCRIPT_SECONDS,
    WORTH_OFFERING,
    ClassifierWork,
    GANWork,
    Speeds,
    classifier_speeds,
    gan_speeds,
    study_speeds,
)
from utils import UserError, select_device

TEST_SHARE = 0.25  # of the labelled images, where no outer folds are asked for
# By experience: 25 s for 1,200 images, 164 s for 26,684, a quarter of them tested.
ANALYSIS_SECONDS, ANALYSED_IMAGE = 2 * SCRIPT_SECONDS, 0.02
VIEWS = 8  # of each image, offered in place of augmenting anew
DECODE, TWINS = "decode the images", "look for twins"
# Seconds for an image and for a pair that the search for twins takes on two cores beside decoding, by experience:
# 1.5 s for 1,200 X-rays, 70 s for all pairs of 26,684. Phantoms, which are more alike, take longer.
TWIN_IMAGE, TWIN_PAIR = 0.0012, 1e-7
PROBE_PIXELS = 4 * 224**2  # of a batch that is timed on a CPU
SMALLER = 0.6  # of the side: sizes up to this share are offered


@dataclass(frozen=True)
class Experiment:
    """What is trained, on how many images.

    ``n_images``, ``n_positive``: labelled images. ``n_synthetic``: made for all training images. ``shares``: of the
    training patients, trained on one after the other. ``outer_folds`` of cross-fitting, 0 without; ``gans``: trained
    in each. ``equal_folds``: controls have the folds of the other arms.
    """

    classifier: ClassifierWork
    gan: Settings
    arms: tuple[str, ...]
    n_images: int
    n_positive: int
    n_synthetic: int
    shares: tuple[float, ...] = (1.0,)
    outer_folds: int = 0
    gans: int = 1
    equal_folds: bool = False

    @property
    def n_training(self) -> int:
        """Images that one run trains on if it is shown all."""
        return self.n_images - self.n_scored

    @property
    def n_scored(self) -> int:
        """Images of the test set of one run."""
        return round(self.n_images * (1 / self.outer_folds if self.outer_folds else TEST_SHARE))

    def __str__(self) -> str:
        work, side = self.classifier, self.classifier.image_size
        how = "frozen" if work.frozen else "all layers"
        folds = f"{work.k_folds} folds" if work.k_folds else "no folds"
        lines = [f"{self.n_images:,} labelled images, {self.n_positive:,} of them positive, at {side} px"]
        if self.outer_folds:
            lines.append(f"cross-fitted: {self.outer_folds} outer folds with {self.gans} GAN(s) each")
        elif self.shares != (1.0,):
            lines.append(f"shares of the training patients: {', '.join(f'{share:g}' for share in self.shares)}")
        lines.append(
            f"{BACKBONES[work.backbone].title}, {how}, {work.epochs} epochs, {folds}, {work.repeats} final model(s) "
            f"of each arm: {', '.join(self.arms)}"
        )
        if self.with_images:
            schedule, size = self.gan.schedule, self.gan.images.image_size
            length = f"{schedule.kimg:g} kimg" if schedule.kimg else f"{schedule.epochs} epochs"
            preset = self.gan.values["preset"]
            lines.append(f"GAN {preset} at {size} px, {length}; {self.n_synthetic:,} synthetic images")
        return "\n".join(lines)

    @property
    def with_images(self) -> bool:
        """Whether an arm needs synthetic images."""
        return any(map(uses_images, self.arms))


# --- from options ----------------------------------------------------------------------------------
def plan_experiment(options: Mapping[str, Any], n_images: int, n_positive: int) -> Experiment:
    """Make the experiment of the ``options`` of benchmark.py (name -> value, None: not given).

    It is a study if options of run_study.py or outer folds are given, else the pipeline. Exit code 2 or ``UserError``
    if an option is wrong.
    """
    typed = [
        word
        for name in ("image_size", "epochs", "k_folds", "repeats")
        if options[name] is not None
        for word in (f"--{name.replace('_', '-')}", str(options[name]))
    ]
    sides = [] if options["image_size"] is None else ["--image-size", str(options["image_size"])]
    if options["study_args"] or options["cross_fit"]:
        return _plan_study(options, typed, sides, n_images, n_positive)
    told = _parse("run_pipeline", PIPELINE_OPTIONS, options["pipeline_args"])
    usual = ["--image-size", str(told["image_size"])]
    runs = ["--epochs", str(told["epochs"]), "--k-folds", str(told["k_folds"]), "--repeats", str(told["repeats"])]
    classifier = [*runs, *usual, *told["classifier_args"], *options["classifier_args"], *typed]
    gan = [*told["gan_args"], *options["gan_args"], *sides]
    length = [] if sets_length(gan) else ["--epochs", str(told["gan_epochs"])]
    generation = ["--num-images", str(told["num_images"]), *told["generation_args"], *options["generation_args"]]
    controls = () if told["no_controls"] else (CONTROL_DUPLICATE,)
    return Experiment(
        ClassifierWork.from_options(_parse("train_classifier", TRAIN_OPTIONS, classifier)),
        read_settings(_parse("train_gan", GAN_OPTIONS, [*length, *usual, *gan])),
        tuple(options["arms"] or (BASELINE, AUGMENTED, *controls)),
        n_images, n_positive, _parse("generate_synthetic", GENERATION_OPTIONS, generation)["num_images"],
    )  # fmt: skip


def _plan_study(
    options: Mapping[str, Any], typed: Sequence[str], sides: Sequence[str], n_images: int, n_positive: int
) -> Experiment:
    told = _parse("run_study", STUDY_OPTIONS, options["study_args"])
    says = "run_study.py --estimate says how long it takes"
    if told["gans_from"]:
        raise UserError(f"a study with --gans-from trains no GAN: {says}")
    if len(told["labelled_patients"] or ()) > 1:
        raise UserError(f"a study of several --labelled-patients trains its arms for each number: {says}")
    outer = options["cross_fit"] or told["cross_fit"] or 0
    usual = ["--image-size", str(told["image_size"])]
    runs = ["--repeats", str(told["repeats"]), "--k-folds", str(told["k_folds"]), "--epochs", str(told["epochs"])]
    classifier = [*runs, *usual, *told["classifier_args"], *options["classifier_args"], *typed]
    work = ClassifierWork.from_options(_parse("train_classifier", TRAIN_OPTIONS, classifier))
    gan = [*told["gan_args"], *options["gan_args"], *sides]
    length = [] if sets_length(gan) else ["--kimg", str(told["kimg"])]
    settings = read_settings(_parse("train_gan", GAN_OPTIONS, [*length, *usual, *gan]))
    experiment = Experiment(
        replace(work, epochs_final=work.epochs), settings,
        tuple(options["arms"] or arms_of_study(told["arms"], told["labelled_patients"])), n_images, n_positive, 0,
        (1.0,) if outer else tuple(told["fractions"]), outer, told["gan_seeds"], equal_folds=True,
    )  # fmt: skip
    return replace(experiment, n_synthetic=max(1, round(told["synthetic_per_real"] * experiment.n_training)))


def _parse(script: str, table: Sequence[Option], words: Sequence[str]) -> dict[str, Any]:
    """Read ``words`` for ``script`` with the options of ``table``, none of them needed; exit code 2 if one is wrong."""
    parser = parser_of_words([option for option in table if not option.required], f"{script}.py")
    options, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(f"no such option: {unknown[0]}")
    return vars(options)


# --- how long --------------------------------------------------------------------------------------
def stage_seconds(experiment: Experiment, speeds: Speeds, warm: bool = False) -> dict[str, float]:
    """Return the seconds of each stage; ``warm``: images are decoded, and features that are kept are computed."""
    work, stages = experiment.classifier, dict[str, float]()
    features = work.views * experiment.n_training + experiment.n_scored if work.features_once else 0
    n = experiment.n_images
    stages[TWINS] = 0.0 if warm else n * (speeds.decoding + TWIN_IMAGE) + n**2 * TWIN_PAIR
    stages[DECODE] = 0.0 if warm else n * speeds.decoding
    if features:
        first = f"first pass through {BACKBONES[work.backbone].title}"
        stages[first] = 0.0 if warm else features * speeds.prediction
    runs = max(1, experiment.outer_folds) * experiment.gans
    for share in experiment.shares:
        for name, seconds in _seconds_of_run(experiment, share, speeds, warm).items():
            stages[name] = stages.get(name, 0.0) + runs * seconds
    tested = experiment.n_images if experiment.outer_folds else experiment.n_scored
    return stages | {"analysis": ANALYSIS_SECONDS + tested * ANALYSED_IMAGE}


def _seconds_of_run(experiment: Experiment, share: float, speeds: Speeds, warm: bool) -> dict[str, float]:
    """Return the seconds of each command that trains on a ``share`` of the training patients."""
    work, n = experiment.classifier, max(1, round(share * experiment.n_training))
    steps = work.epochs * steps_per_epoch(experiment.n_training, work.batch_size)
    epochs = equal_epochs(n, work.batch_size, steps)
    made = max(1, round(share * experiment.n_synthetic))
    final = None if work.epochs_final is None else epochs if share < 1 else work.epochs_final
    usual = replace(work, epochs=epochs, epochs_final=final, n_real=n, n_scored=experiment.n_scored)
    seconds = {}
    for arm in (name for name in ARMS if name in experiment.arms):
        folds = 0 if ARMS[arm].is_control and not experiment.equal_folds else work.k_folds
        new = made if ARMS[arm].synthetic is Synthetic.TRAINED_ON and not warm else 0
        own = replace(usual, k_folds=folds, n_undecoded=new, n_features=work.views * new)
        if arm != BASELINE:  # other arms take the baseline's epochs
            own = replace(own, epochs_final=final or epochs)
        seconds[f"train {arm}"] = own.seconds(speeds)
        if arm == BASELINE and experiment.with_images:
            seconds[TRAIN_GAN] = gan_work(experiment, share).seconds(speeds)
            seconds[MAKE_IMAGES] = SCRIPT_SECONDS + made * speeds.generation
    return seconds


def gan_work(experiment: Experiment, share: float = 1.0) -> GANWork:
    """Return what the training of one GAN has to do."""
    settings, train = experiment.gan, experiment.n_training / experiment.n_images
    images = experiment.n_positive if settings.images.classes == POSITIVE else experiment.n_images
    n = max(1, round(share * train * images))
    schedule = settings.schedule.fitted(n, min(n, settings.schedule.batch_size))
    return GANWork(settings, schedule.epochs, n // schedule.batch_size * schedule.batch_size)


def measured_speeds(experiment: Experiment, images: Sequence[Path], cpu: bool) -> Speeds:
    """Time each kind of work of the ``experiment``; ``images``: some files to decode."""
    work, few = experiment.classifier, _quick_to_time(experiment, cpu)
    speeds = study_speeds(few.classifier, few.gan if few.with_images else None, images, cpu)
    return replace(speeds, step=speeds.step * work.batch_size / few.classifier.batch_size)


def _quick_to_time(experiment: Experiment, cpu: bool) -> Experiment:
    """Return the ``experiment`` with small batches on a CPU, where an image of a large one takes about as long.

    Small images keep large batches: there the step of the optimiser, which a batch takes once, weighs more.
    """
    if select_device(cpu).type != "cpu":
        return experiment
    work, gan = experiment.classifier, experiment.gan
    n, n_gan = (max(4, PROBE_PIXELS // side**2) for side in (work.image_size, gan.images.image_size))
    schedule = replace(gan.schedule, batch_size=min(n_gan, gan.schedule.batch_size))
    few = replace(work, batch_size=min(n, work.batch_size))
    return replace(experiment, classifier=few, gan=replace(gan, schedule=schedule))


def stage_table(first: Mapping[str, float], again: Mapping[str, float]) -> list[str]:
    """Return aligned lines: stage, its time the first time, and again with warm caches, with their sums."""
    lines = [("stage", "first time", "caches warm")]
    rows = [(name, seconds, again[name]) for name, seconds in first.items()]
    for name, seconds, warm in [*rows, ("TOTAL", sum(first.values()), sum(again.values()))]:
        lines.append((name, duration_in_words(seconds), duration_in_words(warm) if warm else "-"))
    return aligned_columns(lines, left=(0,))


def describe_shorter(seconds: float, ways: Mapping[str, float]) -> str:
    """Say which changes shorten an experiment of so many ``seconds`` most; ``ways``: flag -> seconds with it."""
    offers = sorted((time, flag) for flag, time in ways.items() if time <= WORTH_OFFERING * seconds)[:MOST_OFFERS]
    if not offers:
        return "no single change that was tried makes it a tenth shorter"
    lines = [f"  {flag}: {duration_in_words(time)} in all" for time, flag in offers]
    return "\n".join(["what would make it shorter, each alone:", *lines])


# --- what is shorter -------------------------------------------------------------------------------
def shorter_ways(experiment: Experiment, speeds: Speeds, cpu: bool) -> dict[str, float]:
    """Return the seconds of the whole experiment for each change of its options: flag -> seconds.

    Other networks and GANs without the perceptual loss are timed too.
    """
    changes = {**_fewer(experiment, speeds), **_smaller(experiment, speeds), **_others(experiment, speeds, cpu)}
    return {flag: sum(stage_seconds(*change).values()) for flag, change in changes.items()}


def _fewer(experiment: Experiment, speeds: Speeds) -> dict[str, tuple[Experiment, Speeds]]:
    """List changes that do less of the same work."""
    work = experiment.classifier
    kinds: dict[str, dict[str, Any]] = {}
    if work.k_folds:
        kinds["--k-folds 0"] = {"k_folds": 0}
    if work.repeats > 1:
        kinds["--repeats 1"] = {"repeats": 1}
    if not work.frozen:
        kinds["a frozen backbone (no --unfreeze)"] = {"frozen": True, "augment": "none", "views": 1}
    if not work.features_once:
        half = max(1, work.epochs // 2)
        final = None if work.epochs_final is None else min(half, work.epochs_final)
        kinds[f"--epochs {half}"] = {"epochs": half, "epochs_final": final}
        if work.frozen:
            kinds[f"--classifier-args '--feature-views {VIEWS}'"] = {"views": VIEWS}
    found = {flag: (replace(experiment, classifier=replace(work, **kind)), speeds) for flag, kind in kinds.items()}
    if experiment.with_images:
        schedule = experiment.gan.schedule
        changed = replace(schedule, epochs=max(1, schedule.epochs // 2), kimg=schedule.kimg and schedule.kimg / 2)
        flag = f"--kimg {changed.kimg:g}" if changed.kimg else f"--epochs {changed.epochs}"
        gan = replace(experiment.gan, schedule=changed)
        found[f"--gan-args '{flag}'"] = (replace(experiment, gan=gan), speeds)
    return found


def _smaller(experiment: Experiment, speeds: Speeds) -> dict[str, tuple[Experiment, Speeds]]:
    """List the next smaller image, of a size that GANs have."""
    side = experiment.classifier.image_size
    sizes = [size for size in IMAGE_SIZES if size <= SMALLER * side]
    if not sizes:
        return {}
    less = (max(sizes) / side) ** 2  # convolutions take as many operations as there are pixels
    quicker = replace(
        speeds, step=less * speeds.step, prediction=less * speeds.prediction, gan=less * speeds.gan,
        generation=less * speeds.generation,
    )  # fmt: skip
    return {f"--image-size {max(sizes)}": (experiment, quicker)}


def _others(experiment: Experiment, speeds: Speeds, cpu: bool) -> dict[str, tuple[Experiment, Speeds]]:
    """List other networks, timed here unless the time that they could save is little."""
    stages, few, found = stage_seconds(experiment, speeds), _quick_to_time(experiment, cpu), {}
    enough = (1 - WORTH_OFFERING) * sum(stages.values())
    without_network = stage_seconds(experiment, replace(speeds, step=0.0, prediction=0.0))
    work, device = experiment.classifier, select_device(cpu)
    for name in ("resnet18", LITE0) if sum(stages.values()) - sum(without_network.values()) > enough else ():
        if BACKBONES[name].operations >= BACKBONES[work.backbone].operations or not _is_installed(name):
            continue
        new = classifier_speeds(replace(few.classifier, backbone=name), device)
        step = new.step * work.batch_size / few.classifier.batch_size
        faster = replace(speeds, step=step, prediction=new.prediction)
        changed = replace(experiment, classifier=replace(work, backbone=name))
        found[f"--classifier-args '--backbone {name}'"] = (changed, faster)
    if experiment.with_images and experiment.gan.losses.want_perceptual and stages[TRAIN_GAN] > enough:
        without = replace(few.gan, losses=replace(few.gan.losses, perceptual="off"))
        faster = replace(speeds, gan=gan_speeds(without, device).gan)
        found["--gan-args '--perceptual off'"] = (experiment, faster)
    return found


def _is_installed(backbone: str) -> bool:
    try:
        if backbone == LITE0:
            check_lite0()
    except UserError:
        return False
    return True
