"""The options of train_classifier.py: one table, from which its parser and all checks of options follow.

Each entry says what the option's value affects (``common.options.Affects``). The resume check, the check of
folds, the warnings about arms that were trained differently and the study read that; a new flag is one entry.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from arms.registry import ARMS, control_name, control_names, treatment_of
from common import paths
from common.command_line import number
from common.options import Affects, Option
from common.plan_files import PLAN_OPTION
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from networks.backbones import BACKBONES, DEFAULT

RUN, FOLDS, COMPARISON = Affects.RUN, Affects.FOLDS, Affects.COMPARISON
FIT = RUN | FOLDS  # what a fit learns; arms may differ in it by design
SHARED = FIT | COMPARISON | Affects.THRESHOLDS  # what a fit learns, and every arm of a comparison must share


def prefix_name(text: str) -> str:
    """Read an argparse value: an arm's name as the prefix of its files, "mine" or "mine_" -> "mine_"."""
    name = text.removesuffix("_")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, - and _")
    if re.match("(gan|best_overall)_|(.*_)?r[0-9]+_", f"{name}_"):
        raise argparse.ArgumentTypeError(f"{text!r} is taken: gan_, best_overall_ and _r1_ name other files")
    return f"{name}_"


def share_schedule(text: str) -> tuple[tuple[int, float], ...]:
    """Read an argparse value: "0:0,5:0.25,10:0.5" -> ((0, 0.0), (5, 0.25), (10, 0.5)).

    From so many finished epochs on, that share of the images drawn is synthetic.
    """
    try:
        schedule = tuple((int(done), float(share)) for done, share in (part.split(":") for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 0:0,5:0.25,10:0.5, got {text!r}") from None
    epochs = [done for done, _ in schedule]
    if epochs[0] != 0 or any(b <= a for a, b in zip(epochs, epochs[1:], strict=False)):
        raise argparse.ArgumentTypeError(f"the epochs must begin at 0 and rise, got {text!r}")
    if any(not 0 <= share < 1 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"each share must be >= 0 and < 1, got {text!r}")
    if all(share == 0 for _, share in schedule):
        raise argparse.ArgumentTypeError(f"at least one share must be above 0, got {text!r}")
    return schedule


_FOLDERS = (
    Option("--model-dir", "folder for model checkpoints", default=paths.MODEL_DIR, metavar="PATH",
           set_by_study=True),
    Option("--results-dir", "folder for metrics and predictions", default=paths.METRICS_DIR, metavar="PATH",
           set_by_study=True),
    Option("--figures-dir", "folder for plots", default=paths.FIGURES_DIR, metavar="PATH", set_by_study=True),
    Option("--prefix",
           f"name of the arm, with which its files begin (default: {', '.join(ARMS)}, as the options below "
           "say)",
           RUN, type=prefix_name, metavar="NAME", set_by_study=True),
    Option("--train-fraction", "share of the training patients; smaller shares lie within larger ones",
           SHARED, type=number(float, above=0, high=1), default=1.0, metavar="F", set_by_study=True),
    Option("--labelled-patients",
           "know the labels of N training patients only, drawn with --seed (smaller draws lie within larger ones), and "
           "hide all others; an epoch then shows N images (default: all are known)",
           RUN | COMPARISON, type=number(int, 2), metavar="N", set_by_study=True),
    Option("--test-set", "score the frozen hold-out, or the official test CSV if that is truly labelled",
           RUN | COMPARISON, choices=("split", "official"), default="split"),
)  # fmt: skip
_TRAINING = (
    Option("--epochs", "passes over the training images", SHARED, type=number(int, 1), default=15,
           metavar="N", set_by_study=True),
    Option("--epochs-final",
           "epochs of the final model (default: median best epoch of the folds; with --use-synthetic the "
           "baseline's, so that both take the same number of steps)",
           RUN, type=number(int, 1), metavar="N", set_by_study=True),
    Option("--batch-size", "images per optimiser step", SHARED, type=number(int, 2), default=32, metavar="N"),
    Option("--lr", "(peak) learning rate", SHARED, type=number(float, above=0), default=0.001,
           metavar="FLOAT"),
    Option("--weight-decay", "AdamW's weight decay", SHARED, type=number(float, 0), default=0.0,
           metavar="FLOAT"),
    Option("--schedule", "learning rate over --epochs", SHARED, choices=("none", "onecycle"),
           default="none"),
    Option("--unfreeze", "fine-tune all layers instead of the last one only", SHARED, switch=True),
    Option("--backbone",
           "the network; of another than resnet50, the names of checkpoints carry its name; the ImageNet weights of "
           "efficientnet_lite0 need no download (requirements-offline.txt)",
           SHARED, choices=tuple(BACKBONES), default=DEFAULT),
    Option("--weights",
           "initial weights; none (from scratch) makes sense with --unfreeze only; a file may hold the --backbone in "
           "any usual wrapping, PyTorch's or safetensors",
           SHARED, default="imagenet", metavar="{imagenet,none,PATH}"),
    Option("--weights-trained-on",
           "data that a file of --weights has learned from, ImageNet for example; refused if these hold the test "
           "patients; needless for checkpoints of this program (default: none)",
           FIT | COMPARISON, metavar="NAME"),
    Option("--allow-unverified-weights",
           "use a file of --weights that may have seen the test patients, and flag every result", FIT, switch=True),
    Option("--augment", "light: small affine, brightness and contrast changes; never mirrored", SHARED,
           choices=("none", "light"), default="none"),
    Option("--feature-views",
           "with --augment light and a frozen backbone: features of V views of each image (itself and V - 1 "
           "changed ones, the same for all repeats and arms) are computed once, and one is drawn per epoch; "
           "1 augments anew in every epoch, through the whole network",
           SHARED, type=number(int, 1, 64), default=1, metavar="V"),
    Option("--image-size", "pixels per side", SHARED, type=number(int, 32, 1024), default=224, metavar="N",
           set_by_study=True),
    Option("--match-resolution",
           "reduce every image, real ones of all arms included, to N pixels per side before it is brought to "
           "--image-size, so that blur cannot tell synthetic images of N pixels from real ones (default: not)",
           SHARED, type=number(int, 8, 1023), metavar="N"),
    Option("--seed", "of everything but the split", FIT | COMPARISON, type=number(int, 0, 2**32 - 1),
           default=42, metavar="N", set_by_study=True),
    Option("--repeats",
           "final models, of seeds SEED to SEED + R - 1; the arm's predictions are their mean",
           type=number(int, 1), default=1, metavar="R", set_by_study=True),
)  # fmt: skip
_SYNTHETIC = (
    Option("--use-synthetic", "augment training with synthetic images; results get the prefix augmented_",
           FIT, switch=True, set_by_study=True),
    Option("--synthetic-dir",
           "folder of synthetic images, which are of one label; or several folders, of positives and of "
           "negatives, say",
           nargs="+", default=paths.SYNTHETIC_DIR, metavar="PATH", set_by_study=True),
    Option("--soft-labels",
           "with --use-synthetic and --labelled-patients: images without labels (of train_gan.py --classes all); "
           "the mean probability of the baseline's final models labels each, and half of what is drawn is synthetic",
           RUN, switch=True, set_by_study=True),
    Option("--synthetic-ratio",
           "synthetic images per real training image, of each folder in proportion to what it holds "
           "(default: all of them)",
           FIT, type=number(float, above=0), metavar="FLOAT", set_by_study=True),
    Option("--allow-unverified-synthetic", "use images of unknown or leaky origin, and flag every result",
           FIT, switch=True),
    Option("--synthetic-schedule",
           "curriculum: share S of synthetic images among those drawn once E epochs are done, e.g. "
           "0:0,5:0.25,10:0.5 (default: always in proportion to their number)",
           FIT, type=share_schedule, metavar="E:S,...", set_by_study=True),
    Option("--pretrain-synthetic",
           "train the first N epochs on synthetic and real images, the others on real ones only "
           "(default: all on both)",
           FIT, type=number(int, 1), metavar="N", set_by_study=True),
    Option("--control",
           "a control of what synthetic images do: as many real positives again (real negatives for "
           "synthetic ones), drawn with replacement, or a loss weighted to the class balance that they give; with "
           "--labelled-patients: real images whose labels are hidden, labelled as with --soft-labels; "
           "--synthetic-dir says how many they are (default: none)",
           FIT, type=control_name, metavar=f"{{{','.join(control_names())}}}", set_by_study=True),
)  # fmt: skip
_FOLDS = (
    Option("--k-folds", "patient-grouped folds; 0 uses one 10 %% validation split instead", RUN,
           type=number(int, 0), default=5, metavar="N", set_by_study=True),
)  # fmt: skip
_HARDWARE = (
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    Option("--precision", "auto: bf16 where the hardware multiplies it", FIT,
           choices=("auto", "fp32", "bf16"), default="auto"),
    Option("--compile", "with --unfreeze: torch.compile the network first, which takes a minute", FIT,
           switch=True),
    Option("--cpu", "use the CPU even if a GPU is available", RUN, switch=True, set_by_study=True),
    Option("--resume", "go on with an interrupted run of the same options", switch=True, set_by_study=True),
    Option("--estimate",
           "only say about how long it takes, and what is quicker; writes nothing but splits.json where "
           "there is none",
           switch=True),
)  # fmt: skip


def _under(heading: str, options: tuple[Option, ...]) -> tuple[Option, ...]:
    return tuple(replace(option, group=heading) for option in options)


TRAIN_OPTIONS: tuple[Option, ...] = (
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    PLAN_OPTION,
    *_FOLDERS,
    *_under("training", _TRAINING),
    *_under("synthetic data", _SYNTHETIC),
    *_under("cross-validation", _FOLDS),
    *_under("hardware", _HARDWARE),
)


# --- checks ----------------------------------------------------------------------------------------
def wrong_combination(options: Mapping[str, Any]) -> str | None:
    """Say which of the parsed ``options`` (name -> value) do not go together; None if all do."""
    control, synthetic = options["control"], options["use_synthetic"]
    no_file = options["weights"] in ("imagenet", "none")
    views, unfreeze = options["feature_views"], options["unfreeze"]
    problems = {
        "--k-folds 1 is not allowed: one fold cannot validate; use 0, or at least 2": options["k_folds"] == 1,
        "--synthetic-ratio needs --use-synthetic or --control": (
            options["synthetic_ratio"] is not None and not (synthetic or control)
        ),
        "--control takes the place of --use-synthetic: give one of them": control and synthetic,
        "--pretrain-synthetic is a schedule of its own: leave --synthetic-schedule out": (
            options["synthetic_schedule"] and options["pretrain_synthetic"]
        ),
        f"--feature-views {views} needs a frozen backbone: leave --unfreeze out": views > 1 and unfreeze,
        f"--feature-views {views} needs --augment light": views > 1 and options["augment"] == "none",
        f"--weights-trained-on is for a file: leave it out with --weights {options['weights']}": (
            no_file and options["weights_trained_on"] is not None
        ),
        f"--allow-unverified-weights is for a file: leave it out with --weights {options['weights']}": (
            no_file and options["allow_unverified_weights"]
        ),
        "--compile needs --unfreeze: a frozen backbone sees every image once only": (
            options["compile"] and not unfreeze
        ),
        f"--match-resolution {options['match_resolution']} reduces nothing: give fewer pixels than --image-size "
        f"{options['image_size']}, or leave it out": (options["match_resolution"] or 0) >= options["image_size"],
        "--epochs-final lies beyond --epochs, where --schedule ends": (
            options["schedule"] != "none" and (options["epochs_final"] or 0) > options["epochs"]
        ),
    }
    problems |= _wrong_with_few_labels(options)
    for name in ("synthetic_schedule", "pretrain_synthetic"):
        problems[f"{flag_of(name)} needs --use-synthetic"] = options[name] is not None and not synthetic
    wrong = next((sentence for sentence, is_wrong in problems.items() if is_wrong), None)
    return wrong or _prefix_of_another_arm(options)


def _wrong_with_few_labels(options: Mapping[str, Any]) -> dict[str, bool]:
    """Return sentence -> whether it is wrong, of --labelled-patients."""
    few = options["labelled_patients"] is not None
    kind = treatment_of(options).kind
    return {
        "--labelled-patients needs --k-folds 0 and --epochs-final: few labels leave none to choose an epoch by": (
            few and (options["k_folds"] != 0 or options["epochs_final"] is None)
        ),
        "--soft-labels needs --use-synthetic": options["soft_labels"] and not options["use_synthetic"],
        "--soft-labels has a schedule of its own: leave --synthetic-schedule and --pretrain-synthetic out": (
            options["soft_labels"] and bool(options["synthetic_schedule"] or options["pretrain_synthetic"])
        ),
        f"the arm {kind.name} needs --labelled-patients: without it no label is hidden": kind.soft_labels and not few,
        f"--labelled-patients is not for the arm {kind.name}: labels that it needs are hidden (--soft-labels?)": (
            few and not kind.few_labels
        ),
    }


def _prefix_of_another_arm(options: Mapping[str, Any]) -> str | None:
    own, prefix = treatment_of(options).kind, options["prefix"]
    if prefix == own.prefix or prefix not in [kind.prefix for kind in ARMS.values()]:
        return None
    return f"--prefix {prefix[:-1]} names another arm than these options train ({own.name})"


def differing_options(own: Mapping[str, Any], baseline: Mapping[str, Any], what: Affects = COMPARISON) -> list[str]:
    """Return a sentence for each option that affects all of ``what`` and differs between two runs' "config".

    Options that only one of them names are not compared.
    """
    names = [option.name for option in TRAIN_OPTIONS if what in option.affects]
    return [
        f"{flag_of(name)} was {own[name]} here and {baseline[name]} in the baseline"
        for name in names
        if name in own and name in baseline and own[name] != baseline[name]
    ]


def flag_of(name: str) -> str:
    """Return the flag of an option's name: "image_size" -> "--image-size"."""
    return f"--{name.replace('_', '-')}"


def features_computed_once(frozen: bool, augment: str, views: int) -> bool:
    """Whether the frozen backbone's features are computed once, so that heads alone are fitted on them."""
    return frozen and (augment == "none" or views > 1)
