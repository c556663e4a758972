"""Options that every script reading the dataset shares, and those of every script that decodes it."""

from __future__ import annotations

from common import paths
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
        "--skip-bad-images",
        "go on without missing or unreadable images and record them, instead of stopping",
        Affects.RUN, switch=True, set_by_study=True,
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


def cache_folder(no_cache: bool, cache_dir: str) -> str | None:
    """Return the cache folder that --no-cache and --cache-dir name, None for no cache."""
    return None if no_cache else cache_dir
