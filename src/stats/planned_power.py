"""What a study can be expected to show before anything is trained: the detectable difference of two arms.

The assumptions are rough on purpose and are named in every result. They come near the intervals of the ten pairs of
arms in docs/results-rsna-1500.md; the analysis says afterwards what the data really can show.
"""

from __future__ import annotations

import math

from scipy.stats import norm

from stats.bootstrap import POWER
from stats.paired_tests import ALPHA

AREA = 0.80  # AUROC of both arms
CORRELATION = 0.92  # of the AUROCs of two arms on other patients
DISCORDANT = 0.10  # share of images that only one of two arms calls correctly
RUN_SD = {"auroc": 0.010, "accuracy": 0.020}  # of single training runs beyond what other patients change


def planned_difference(metric: str, n_positive: int, n_negative: int, n_patients: int, runs: int) -> float:
    """Return the true difference, a fraction, that one unadjusted pair finds with 80 % power.

    ``metric``: "auroc" or "accuracy"; ``runs``: independent training runs of each arm over all folds. The variance of
    an AUROC is that of Hanley and McNeil (1982); several images of a patient count as one.
    """
    share = n_patients / (n_positive + n_negative)
    positives, negatives = share * n_positive, share * n_negative
    if metric == "auroc":
        variance = 2 * (1 - CORRELATION) * area_variance(AREA, positives, negatives)
    else:
        variance = DISCORDANT / (positives + negatives)
    variance += 2 * RUN_SD[metric] ** 2 / runs
    return float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * math.sqrt(variance)


def area_variance(area: float, positives: float, negatives: float) -> float:
    """Return the variance of an AUROC ``area`` of so many images of each class (Hanley and McNeil 1982)."""
    both_positive, both_negative = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (positives - 1) * (both_positive - area**2) + (negatives - 1) * (both_negative - area**2)
    return (area * (1 - area) + spread) / (positives * negatives)


def assumptions(metric: str) -> str:
    """Write what ``planned_difference`` assumes."""
    if metric == "auroc":
        of_images = f"both arms have an AUROC of {AREA:g}, correlated by {CORRELATION:g}"
    else:
        of_images = f"the arms disagree on {DISCORDANT:.0%} of the images"
    return f"{of_images}; other training seeds have a standard deviation of {RUN_SD[metric]:g}"
