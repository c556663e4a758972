"""Options of scripts that read the dataset, decode its images, or name what a generator learned from."""

from __future__ import annotations

from common import paths
from common.command_line import number
from common.options import Affects, Option

DATA_OPTIONS = (
    Option(
        "--data-dir", "processed dataset folder", default=paths.DATA_DIR, metavar="PATH", set_by_study=True,
    ),
    Option(
        "--splits",
        "frozen train/test split, written by the first script that needs it "
        f"(default: <data-dir>/{paths.SPLITS})",
        metavar="PATH", set_by_study=True,
    ),
    Option(
        "--patient-map",
        "official RSNA-to-NIH mapping, which tells the images of one person "
        f"(default: <data-dir>/{paths.PATIENT_MAP} if it is there)",
        Affects.RUN, metavar="PATH", set_by_study=True,
    ),
    Option(
        "--patient-column",
        "metadata column that names the person (default: Patient ID, patient_id, subject_id and the like, if there)",
        Affects.RUN, metavar="NAME", set_by_study=True,
    ),
    Option(
        "--skip-bad-images",
        "go on without missing or unreadable images and record them, instead of stopping",
        Affects.RUN, switch=True, set_by_study=True,
    ),
    Option(
        "--bits",
        "bits in use of 16-bit images, such as 12 for the usual DICOM export: 2**N - 1 is white (default: all 16)",
        Affects.RUN | Affects.FOLDS | Affects.COMPARISON | Affects.THRESHOLDS,
        type=number(int, 1, 16), metavar="N", set_by_study=True,
    ),
)  # fmt: skip
CACHE_OPTIONS = (
    Option(
        "--cache-dir",
        "folder for what need not be computed twice, decoded images among it; may be deleted",
        default=paths.CACHE_DIR, metavar="PATH", set_by_study=True,
    ),
    Option("--no-cache", "neither read nor write --cache-dir", switch=True, set_by_study=True),
)  # fmt: skip
PART_OPTIONS = (
    Option(
        "--train-fraction", "share of the training patients; a smaller share lies within a larger one",
        Affects.RUN, type=number(float, above=0, high=1), default=1.0, metavar="F",
        group="training images of the generator", set_by_study=True,
    ),
    Option(
        "--fold", "leave out fold I of --k-folds (default: none is left out)",
        Affects.RUN, type=number(int, 1), metavar="I",
        group="training images of the generator", set_by_study=True,
    ),
    Option(
        "--k-folds", "number of folds, the classifier's --k-folds (default: no folds)",
        Affects.RUN, type=number(int, 2), metavar="K",
        group="training images of the generator", set_by_study=True,
    ),
)  # fmt: skip


def fold_problem(fold: int | None, k_folds: int | None) -> str | None:
    """Say what is wrong with --fold and --k-folds together; None if nothing is."""
    if fold is None and k_folds is None:
        return None
    if fold is None or k_folds is None:
        given, lacking = ("--k-folds", "--fold") if fold is None else ("--fold", "--k-folds")
        return f"{given} needs {lacking}: --fold I --k-folds K leaves out fold I of K"
    if fold > k_folds:
        return f"--fold {fold} does not exist among --k-folds {k_folds}: give 1 to {k_folds}"
    return None


def cache_folder(no_cache: bool, cache_dir: str) -> str | None:
    """Return the cache folder that --no-cache and --cache-dir name, None for no cache."""
    return None if no_cache else cache_dir
