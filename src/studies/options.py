"""Options of run_pipeline.py and run_study.py."""

from __future__ import annotations

import argparse

from arms.registry import BASELINE, study_arms
from common import paths
from common.command_line import number
from common.options import Option
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from studies.steps import passed_on_words


def study_fractions(text: str) -> list[float]:
    """Read an argparse value: "1,0.05" -> [0.05, 1.0], each above 0 and at most 1."""
    one = number(float, above=0, high=1)
    # As they stand in folder names and commands.
    values = sorted(float(f"{one(part):g}") for part in text.split(","))
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"{text!r} names a fraction twice")
    return values


def chosen_arms(text: str) -> list[str]:
    """Read an argparse value: names of ``study_arms`` with the baseline -> the same in training order."""
    names, known = text.split(","), study_arms()
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)!r} is not an arm; choose from {', '.join(known)}")
    if BASELINE not in names:
        raise argparse.ArgumentTypeError(f"{text!r} lacks the baseline, against which arms are measured; add it")
    return [name for name in known if name in names]


_IMAGE_SIZE = Option("--image-size", "pixels per side", type=number(int, 32, 1024), default=224, metavar="N")
_SEED = Option("--seed", "seed of training and generation", type=number(int, 0, 2**32 - 1), default=42, metavar="N")
_CPU = Option("--cpu", "use the CPU even if a GPU is available", switch=True)
_PASSED_ON = (
    Option("--classifier-args",
           "more options of train_classifier.py, e.g. '--weights none --unfreeze' (default: none)",
           type=passed_on_words, default=[], metavar="'ARGS'"),
    Option("--gan-args", "more options of train_gan.py, e.g. '--num-channels 1' (default: none)",
           type=passed_on_words, default=[], metavar="'ARGS'"),
)  # fmt: skip

PIPELINE_OPTIONS = (
    Option("--demo",
           f"run on procedural chest phantoms, everything below {paths.DEMO_DIR}; ignores other options",
           switch=True),
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    Option("--synthetic-dir", "folder of synthetic images", default=paths.SYNTHETIC_DIR, metavar="PATH"),
    Option("--model-dir", "folder for model checkpoints", default=paths.MODEL_DIR, metavar="PATH"),
    Option("--output-dir", "folder for all results", default=paths.OUTPUT_DIR, metavar="PATH"),
    _IMAGE_SIZE,
    Option("--epochs", "epochs of the classifiers", type=number(int, 1), default=15, metavar="N"),
    Option("--gan-epochs", "epochs of the GAN", type=number(int, 1), default=50, metavar="N"),
    Option("--num-images", "synthetic images to make", type=number(int, 1), default=5000, metavar="N"),
    Option("--k-folds", "folds; 0 disables cross-validation", type=number(int, 0), default=5, metavar="N"),
    _SEED,
    *_PASSED_ON,
    Option("--no-controls", "leave out the control that synthetic images must beat", switch=True),
    Option("--no-real-images", "leave out every picture that shows a real X-ray", switch=True),
    _CPU,
)  # fmt: skip

STUDY_OPTIONS = (
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    Option("--study-dir", "where the curve goes, and below it a folder per fraction, models included",
           default=paths.STUDY_DIR, metavar="PATH"),
    Option("--fractions",
           "shares of the training patients; smaller ones lie within larger ones (default: 0.05,0.25,1)",
           type=study_fractions, default=[0.05, 0.25, 1.0], metavar="F,..."),
    Option("--arms",
           f"of {', '.join(study_arms())}; the baseline is needed (default: {','.join(study_arms()[:3])})",
           type=chosen_arms, default=study_arms()[:3], metavar="A,..."),
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
    _IMAGE_SIZE,
    _SEED,
    *_PASSED_ON,
    Option("--estimate", "only say what would be done and about how long it takes", switch=True),
    Option("--draw-only", "only draw the curve of what is finished in --study-dir", switch=True),
    _CPU,
)  # fmt: skip
