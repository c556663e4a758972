"""Options of run_pipeline.py and run_study.py."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from arms.options import TRAIN_OPTIONS
from arms.registry import ARMS, AUGMENTED, BASELINE, CONTROL_DUPLICATE, few_label_arms, study_arms
from common import paths
from common.command_line import number
from common.experiment_files import FILE_FLAGS
from common.options import HandedOn, Option, flags_set_by_study
from common.plan_files import PLAN_OPTION
from comparison.options import ANALYSIS_OPTIONS, DEFAULT_MARGIN
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from gan.options import GENERATION_OPTIONS
from gan.options import OPTIONS as GAN_OPTIONS
from studies.steps import MAKE_NOTHING, passed_on_words

FRACTIONS = [0.05, 0.25, 1.0]  # of a low-data study, unless others are asked for


def study_fractions(text: str) -> list[float]:
    """Read an argparse value: "1,0.05" -> [0.05, 1.0], each above 0 and at most 1."""
    return _rising(text, _as_written(number(float, above=0, high=1)))


def labelled_numbers(text: str) -> list[int]:
    """Read an argparse value: "100,50" -> [50, 100], numbers of labelled patients."""
    return _rising(text, number(int, 2))


def study_doses(text: str) -> list[float]:
    """Read an argparse value: "1,0.5" -> [0.5, 1.0], synthetic images per real training image."""
    return _rising(text, _as_written(number(float, above=0)))


def _as_written(one: Callable[[str], Any]) -> Callable[[str], float]:
    """Let ``one`` read a number, and round it as it stands in folder names and commands."""
    return lambda text: float(f"{one(text):g}")


def _rising(text: str, one: Callable[[str], Any]) -> list[Any]:
    """Read values that commas separate, each with ``one``, and sort them."""
    values = sorted(one(part) for part in text.split(","))
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} names a number twice")
    return values


def arms_of_study(arms: list[str] | None, labelled: list[int] | None) -> list[str]:
    """Return the arms that a study trains: ``arms``, or if None the usual ones, of all or ``labelled`` patients."""
    return arms or (few_label_arms() if labelled else study_arms()[:3])


def wrong_few_labels(options: Mapping[str, Any]) -> str | None:
    """Say what is wrong with --labelled-patients, or with the arms for want of it; None if nothing is."""
    few = options["labelled_patients"] is not None
    known = few_label_arms() if few else study_arms()
    if few and options["cross_fit"] is None:
        return "--labelled-patients is for --cross-fit, which is not given"
    if unfit := [name for name in options["arms"] if name not in known]:
        reason = "knows labels that --labelled-patients hides" if few else "needs --labelled-patients"
        return f"--arms: {unfit[0]} {reason}; choose from {', '.join(known)}"
    if few and any(word.split("=")[0] in ("--classes", "--conditional") for word in options["gan_args"]):
        return "--gan-args: with --labelled-patients the GAN is told no label: leave --conditional and --classes out"
    return None


def wrong_cross_fit(options: Mapping[str, Any]) -> str | None:
    """Say which of the other ``options`` --cross-fit excludes; None if none was given."""
    if options["cross_fit"] is None:
        return None
    if options["fractions"] != FRACTIONS:
        return "--fractions and --cross-fit exclude each other: every fold trains on all its patients"
    if flag := "--splits" if options["splits"] else "--k-folds" if options["k_folds"] else "":
        return f"{flag} and --cross-fit exclude each other: the outer folds are its splits"
    return None


def wrong_doses(options: Mapping[str, Any]) -> str | None:
    """Say what is wrong with --doses beside the other ``options``; None if nothing is."""
    if options["doses"] is None:
        return None
    if options["labelled_patients"] is not None:
        return "--doses and --labelled-patients exclude each other: vary one of them at a time"
    return None if options["gans_from"] else "--doses needs --gans-from: its images come from GANs that are there"


def chosen_arms(text: str) -> list[str]:
    """Read an argparse value: names of arms that a study can train, the baseline among them -> in training order."""
    names = text.split(",")
    known = [name for name in ARMS if name in {*study_arms(), *few_label_arms()}]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is not an arm; choose from {', '.join(known)}")
    if BASELINE not in names:
        raise argparse.ArgumentTypeError(f"{text!r} lacks the baseline, against which arms are measured; add it")
    return [name for name in known if name in names]


def two_arms(text: str) -> tuple[str, str]:
    """Read an argparse value: "augmented:control_duplicate" -> the arm, and the one that it is measured against."""
    arm, colon, against = text.partition(":")
    if not colon or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in (arm, against)):
        example = f"{AUGMENTED}:{CONTROL_DUPLICATE}"
        raise argparse.ArgumentTypeError(f"must be ARM:AGAINST, {example} for example, got {text!r}")
    if arm == against:
        raise argparse.ArgumentTypeError(f"{text!r} names one arm twice")
    return arm, against


_IMAGE_SIZE = Option("--image-size", "pixels per side", type=number(int, 32, 1024), default=224, metavar="N")
_SEED = Option("--seed", "seed of training and generation", type=number(int, 0, 2**32 - 1), default=42, metavar="N")
_CPU = Option("--cpu", "use the CPU even if a GPU is available", switch=True)


def _words_for(script: str, flag: str, example: str, options: tuple[Option, ...], given: Iterable[str]) -> Option:
    """Make the option ``flag``, whose words are handed on to ``script``; the sequence gives ``given`` itself."""
    refused = dict.fromkeys(given, "this script gives it itself")
    refused |= dict.fromkeys(FILE_FLAGS, f"give this script the file, with a section {script}")
    refused |= dict.fromkeys(MAKE_NOTHING, "the step would make nothing")
    return Option(
        flag, f"more options of {script}.py, e.g. '{example}' (default: none)",
        type=passed_on_words, default=[], metavar="'ARGS'", hands_on=HandedOn(script, options, refused),
    )  # fmt: skip


# What the steps of the pipeline may be told otherwise than by its own options.
_FREE = {"--image-size", "--epochs", "--epochs-final", "--kimg", "--seed", "--repeats", "--train-fraction", "--cpu"}
_PLACES = frozenset(option.flag for option in (*DATA_OPTIONS, *CACHE_OPTIONS))
_PIPELINE_WORDS = (
    _words_for("train_classifier", "--classifier-args", "--weights none --unfreeze", TRAIN_OPTIONS,
               flags_set_by_study(TRAIN_OPTIONS) - _FREE - {"--k-folds"}),
    _words_for("train_gan", "--gan-args", "--num-channels 1", GAN_OPTIONS, flags_set_by_study(GAN_OPTIONS) - _FREE),
    _words_for("generate_synthetic", "--generation-args", "--batch-size 16", GENERATION_OPTIONS,
               {"--model-path", "--output-dir", "--label", "--overwrite"}),
    _words_for("analyze_results", "--analysis-args", "--margin 2", ANALYSIS_OPTIONS,
               _PLACES | {"--metrics-dir", "--analysis-dir", "--synthetic-dir", "--model-dir"}),
)  # fmt: skip
_STUDY_WORDS = (
    _words_for("train_classifier", "--classifier-args", "--weights none --unfreeze", TRAIN_OPTIONS,
               flags_set_by_study(TRAIN_OPTIONS)),
    _words_for("train_gan", "--gan-args", "--num-channels 1", GAN_OPTIONS, flags_set_by_study(GAN_OPTIONS)),
)  # fmt: skip

PIPELINE_OPTIONS = (
    Option("--demo",
           f"run on procedural chest phantoms, everything below {paths.DEMO_DIR}; ignores other options but --repeats",
           switch=True),
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    PLAN_OPTION,
    Option("--synthetic-dir", "folder of synthetic images", default=paths.SYNTHETIC_DIR, metavar="PATH"),
    Option("--model-dir", "folder for model checkpoints", default=paths.MODEL_DIR, metavar="PATH"),
    Option("--output-dir", "folder for all results", default=paths.OUTPUT_DIR, metavar="PATH"),
    _IMAGE_SIZE,
    Option("--epochs", "epochs of the classifiers", type=number(int, 1), default=15, metavar="N"),
    Option("--gan-epochs", "epochs of the GAN", type=number(int, 1), default=50, metavar="N"),
    Option("--num-images", "synthetic images to make", type=number(int, 1), default=5000, metavar="N"),
    Option("--k-folds", "folds; 0 disables cross-validation", type=number(int, 0), default=5, metavar="N"),
    Option("--repeats", "training runs of each arm, of seeds SEED to SEED + R - 1", type=number(int, 1), default=1,
           metavar="R"),
    _SEED,
    *_PIPELINE_WORDS,
    Option("--no-controls", "leave out the control that synthetic images must beat", switch=True),
    Option("--no-real-images", "leave out every picture that shows a real X-ray", switch=True),
    _CPU,
)  # fmt: skip

STUDY_OPTIONS = (
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    PLAN_OPTION,
    Option("--study-dir", "where the curve goes, and below it a folder per fraction, models included",
           default=paths.STUDY_DIR, metavar="PATH"),
    Option("--fractions",
           "shares of the training patients; smaller ones lie within larger ones (default: 0.05,0.25,1)",
           type=study_fractions, default=FRACTIONS, metavar="F,..."),
    Option("--cross-fit",
           "instead of fractions: K outer folds over all labelled images, grouped by patient; each fold has a GAN of "
           "its own, and every image is predicted by models that never saw its patient (default: not)",
           type=number(int, 2, 20), metavar="K"),
    Option("--gan-seeds", "with --cross-fit: GANs per fold, each with training runs of its own",
           type=number(int, 1, 10), default=1, metavar="G"),
    Option("--gans-from",
           "with --cross-fit: folder of another study of the same folds, whose GANs make the images, so that none is "
           "trained; for other classifiers or numbers of images (default: none)",
           metavar="PATH"),
    Option("--labelled-patients",
           "with --cross-fit: only so many patients of each training set are labelled (smaller numbers lie within "
           "larger ones), and the GAN learns from all its images without labels; each number has a folder labelled_N "
           "(default: all are labelled)",
           type=labelled_numbers, metavar="N,..."),
    Option("--arms",
           f"of {', '.join(study_arms())}; with --labelled-patients of {', '.join(few_label_arms())}; the baseline is "
           f"needed (default: {','.join(study_arms()[:3])}; with --labelled-patients: all of these)",
           type=chosen_arms, metavar="A,..."),
    Option("--repeats", "training runs of each arm, of seeds SEED to SEED + R - 1", type=number(int, 1),
           default=3, metavar="R"),
    Option("--k-folds", "folds of each arm beside its final models; nothing is chosen on them here",
           type=number(int, 0), default=0, metavar="N"),
    Option("--epochs",
           "passes of the classifiers over all training images; a smaller fraction gets more passes, so that "
           "the number of optimiser steps stays the same",
           type=number(int, 1), default=15, metavar="N"),
    Option("--kimg", "thousands of images shown to the GAN of each fraction", type=number(float, above=0),
           default=200.0, metavar="N"),
    Option("--synthetic-per-real",
           "synthetic images per real training image; 0.5 makes the classes about equal where a quarter is "
           "positive",
           type=number(float, above=0), default=0.5, metavar="X"),
    Option("--doses",
           "with --gans-from: several numbers of synthetic images per real one, instead of --synthetic-per-real; each "
           "has a study in a folder dose_X, and dose_response.png shows all (default: one)",
           type=study_doses, metavar="X,..."),
    _IMAGE_SIZE,
    _SEED,
    *_STUDY_WORDS,
    Option("--estimate", "only say what would be done and about how long it takes", switch=True),
    Option("--draw-only", "only draw the curve of what is finished in --study-dir", switch=True),
    _CPU,
)  # fmt: skip

# Of plan_comparison.py. The words for the scripts are those that will be typed, or handed on by a study.
PLANNING_OPTIONS = (
    Option("--primary", "the one pair that is asked about, ARM:AGAINST (default: none, required)", type=two_arms,
           required=True, metavar="ARM:AGAINST"),
    Option("--metric", "in which it is compared, auroc or accuracy", default="auroc", metavar="NAME"),
    Option("--margin", "differences below it count as none; points, as in analyze_results.py",
           type=number(float, above=0), default=DEFAULT_MARGIN, metavar="POINTS"),
    Option("--plan", "file to write", default=paths.PLAN, metavar="FILE"),
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    _words_for("run_study", "--study-args", "--cross-fit 5 --repeats 3", STUDY_OPTIONS,
               _PLACES | {"--plan", "--classifier-args", "--gan-args"}),
    _words_for("train_classifier", "--classifier-args", "--backbone resnet18 --repeats 3", TRAIN_OPTIONS,
               _PLACES | {"--plan"}),
    _words_for("train_gan", "--gan-args", "--preset best", GAN_OPTIONS, _PLACES | {"--plan"}),
    _words_for("generate_synthetic", "--generation-args", "--num-images 450", GENERATION_OPTIONS,
               {"--plan", "--model-path", "--output-dir", "--overwrite"}),
)  # fmt: skip
