"""Options of analyze_results.py. None changes what was trained, so none matters to resuming or to folds."""

from __future__ import annotations

import argparse
import re

from common import paths
from common.command_line import number
from common.options import Option
from common.plan_files import PLAN_OPTION
from dataset.options import CACHE_OPTIONS, DATA_OPTIONS
from networks.backbones import LITE0

DEFAULT_MARGIN = 1.0  # percentage points
INTERNAL, EXTERNAL = "internal", "external:"  # values of --test-set; the latter with the name of the test


def external_name(text: str) -> str:
    """Read an argparse value: the name of an external test, which names its folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, - and _")
    return text


def read_test_set(text: str) -> str:
    """Read an argparse value: "internal" or "external:NAME"."""
    if text != INTERNAL:
        if not text.startswith(EXTERNAL):
            raise argparse.ArgumentTypeError(f"must be {INTERNAL} or {EXTERNAL}NAME, got {text!r}")
        external_name(text.removeprefix(EXTERNAL))
    return text


ANALYSIS_OPTIONS = (
    Option("--metrics-dir", "folder of the training metrics", default=paths.METRICS_DIR, metavar="PATH"),
    Option("--analysis-dir", "folder for reports and figures", default=paths.ANALYSIS_DIR, metavar="PATH"),
    Option(
        "--test-set",
        "the test images of the training, or those of an external test (external:NAME) that evaluate_external.py made "
        "beside --metrics-dir; the report of that goes to its own folder, unless --analysis-dir names another",
        type=read_test_set, default=INTERNAL, metavar="{internal,external:NAME}",
    ),
    Option(
        "--arms",
        "arms to compare, separated by commas: file prefixes without the last _ (default: all found)",
        metavar="NAMES",
    ),
    Option(
        "--margin",
        "call two arms equivalent if the whole 95 %% interval of their difference lies within it; percentage "
        f"points of accuracy, hundredths of AUROC (default: that of the plan, else {DEFAULT_MARGIN:g})",
        type=number(float, above=0), metavar="POINTS",
    ),
    Option(
        "--prevalence",
        "share of ill people for which to give PPV and NPV as well (default: none)",
        type=number(float, above=0, high=1), metavar="FRACTION",
    ),
    *DATA_OPTIONS,
    *CACHE_OPTIONS,
    PLAN_OPTION,
    Option("--synthetic-dir", "folder of synthetic images", default=paths.SYNTHETIC_DIR, metavar="PATH"),
    Option(
        "--model-dir",
        "folder of the classifiers, for heat maps and for the baseline's features",
        default=paths.MODEL_DIR, metavar="PATH",
    ),
    Option(
        "--num-compare", "image pairs of each SSIM row", type=number(int, 1), default=100, metavar="N"
    ),
    Option(
        "--num-fid",
        "images on each side of a Fréchet distance, at most; fewer where fewer exist",
        type=number(int, 2), default=2000, metavar="N",
    ),
    Option("--skip-ssim", "leave out the SSIM comparison", switch=True),
    Option(
        "--extractor",
        "features for the Fréchet distance: Inception's, the baseline classifier's, EfficientNet-Lite0's "
        "(requirements-offline.txt; not comparable with published FID), or (auto) Inception's if its weights are "
        "cached or can be downloaded, else the classifier's, else EfficientNet-Lite0's",
        choices=("auto", "inception", "classifier", LITE0), default="auto",
    ),
    Option("--no-real-images", "leave out every picture that shows a real X-ray", switch=True),
    Option(
        "--image-size",
        "side in pixels at which images are compared (default: the baseline classifier's, else that of the "
        "synthetic images, else 224)",
        type=number(int, 32), metavar="N",
    ),
    Option(
        "--robustness",
        "test images, drawn by patient, that the final models score again after small changes of brightness, "
        "contrast, noise, blur, JPEG compression and rotation; 0: none",
        type=number(int, 0), default=0, metavar="N",
    ),
    Option("--seed", "seed of every random draw", type=number(int, 0, 2**32 - 1), default=42, metavar="N"),
    Option("--workers", "threads that decode images", type=number(int, 0), default=4, metavar="N"),
    Option("--cpu", "use the CPU even if a GPU is available", switch=True),
)  # fmt: skip
