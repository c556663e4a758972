"""The comparison in plain words: findings in, text out, always in the same order.

Written to be read by someone who reads X-rays, not JSON. It states numbers, how many images and patients
they rest on, and what they cannot tell; it draws no conclusion from a difference and names no winner.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arms import AUGMENTED, BASELINE, Arm

GOAL_ACCURACY = 0.85  # of the specification: accuracy above it on the test set
WIDTH = 96
# Folders from the root (or a drive) and a file name; not the inside of an URL or of a relative path.
ABSOLUTE_PATH = re.compile(
    r"""(?<![\w.:/\\~-])(?:[A-Za-z]:)?[\\/](?:[^\s;,()'"`]*[\\/])?([^\s;,()'"`\\/]+)"""
)

SSIM_ROWS = {
    "synthetic_vs_training": "synthetic with training {kind}",
    "synthetic_vs_heldout": "synthetic with held-out {kind}",
    "training_vs_training": "real with real, other patients (the yardstick)",
    "synthetic_vs_synthetic": "synthetic with synthetic (variety)",
}
FID_ROWS = {
    "synthetic_vs_training": "synthetic and training {kind}",
    "synthetic_vs_heldout": "synthetic and held-out {kind}",
    "training_vs_heldout": "training and held-out {kind} (both real)",
    "floor": "training {kind}, half and half (the floor)",
}


@dataclass(frozen=True)
class Findings:
    """All that the report says. ``ssim`` and ``fid`` are the contents of their JSON files, or None.

    ``missing``: (what is not there, how to get it); ``pictures``: (file, what it shows).
    """

    arms: Sequence[Arm]  # those with final metrics, in order
    cross_validated: Sequence[Arm]
    differences: Sequence[dict[str, Any]]
    warnings: Sequence[str]
    grouping: str
    ssim: dict[str, Any] | None = None
    fid: dict[str, Any] | None = None
    missing: Sequence[tuple[str, str]] = field(default_factory=list)
    pictures: Sequence[tuple[str, str]] = field(default_factory=list)
    no_real_images: bool = False


def compose(findings: Findings) -> str:
    """The text of ``comparison_report.txt``."""
    sections = [
        ("Warnings: read these first", _bullets(findings.warnings) if findings.warnings else None),
        ("What was compared", _what_was_compared(findings)),
        ("Each arm on the test images", _each_arm(findings.arms)),
        ("Differences between arms", _differences(findings)),
        ("Cross-validation on the training images", _cross_validation(findings.cross_validated)),
        ("Synthetic images beside real ones", _synthetic_images(findings)),
        ("Pictures, in the folder of this report", _pictures(findings)),
        ("What is missing", [line for item in findings.missing for line in _missing(*item)] or None),
    ]
    lines = ["COMPARISON REPORT", "================="]
    for heading, body in sections:
        if body:
            lines += ["", heading, "-" * len(heading), *body]
    return "\n".join(lines) + "\n"


# --- words -----------------------------------------------------------------------------------------
def percent(fraction: float | None, digits: int = 1) -> str:
    return "undefined" if fraction is None else f"{100 * fraction:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval(bounds: Sequence[float | None], scale: float = 1.0, digits: int = 3, sign: str = "") -> str:
    if not _defined(bounds):
        return "95 % CI undefined"
    low, high = (f"{scale * bound:{sign}.{digits}f}" for bound in bounds)
    return f"95 % CI {low} to {high}"


def _defined(bounds: Sequence[float | None]) -> bool:
    return bool(bounds) and all(bound is not None and math.isfinite(bound) for bound in bounds)


def _wrap(text: str, indent: str = "", first: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first or indent, subsequent_indent=indent)


def _bullets(items: Iterable[str]) -> list[str]:
    return [line for item in items for line in _wrap(item, "  ", "* ")]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


# --- sections --------------------------------------------------------------------------------------
def _what_was_compared(findings: Findings) -> list[str]:
    lines = []
    for arm in findings.arms:
        m = arm.metrics
        trained_on = _count(m["n_train_images"], "real image") if m.get("n_train_images") else "real images"
        if m.get("n_train_patients"):
            trained_on += f" of {_count(m['n_train_patients'], 'patient')}"
        if m.get("n_synthetic"):
            trained_on += f" and {_count(m['n_synthetic'], 'synthetic image')}"
        steps = f"{_count(m['optimizer_steps'], 'step')}, seed {m['seed']}"
        lines += _wrap(f"{arm.name}: trained on {trained_on} ({steps}).", "  ", "* ")
    tested = {_tested_on(arm.metrics): None for arm in findings.arms}
    for sentence in tested:
        lines += _wrap(sentence)
    if findings.grouping:
        lines += _wrap(f"Patients: {findings.grouping}.")
    lines += _wrap(
        "A result is called positive when its probability is 0.5 or more. No test image was used to choose "
        "an epoch, a threshold or a setting."
    )
    return lines


def _tested_on(m: dict[str, Any]) -> str:
    images, positives = _count(m["n_images"], "image"), f"{m['n_positive']:,} positive"
    share = percent(m["n_positive"] / m["n_images"])
    name = "the official test set" if m.get("test_set") == "official" else "the test part"
    return (
        f"Tested once on {images} of {_count(m['n_patients'], 'patient')} ({positives}, {share}): {name} of "
        f"split {m['split_sha256'][:12]}."
    )


def _each_arm(arms: Sequence[Arm]) -> list[str]:
    lines = []
    for arm in arms:
        lines += ["", *_one_arm(arm)] if lines else _one_arm(arm)
    return lines


def _one_arm(arm: Arm) -> list[str]:
    m = arm.metrics
    reference = m["references"]["test"]
    negative = percent(reference["always_negative_accuracy"])
    accuracy_ci = interval(m["accuracy_ci95"], 100, 1)
    n = f"n = {_count(m['n_images'], 'image')}, {_count(m['n_patients'], 'patient')}"
    gap = reference["auroc_minus_thumbnail"]
    gap_ci = interval(reference["auroc_minus_thumbnail_ci95"], sign="+")
    rows = [
        ("accuracy", f"{percent(m['accuracy'])} ({accuracy_ci}; always saying “negative”: {negative})"),
        ("goal", _goal(m["accuracy"])),
        ("AUROC", f"{decimal(m['auroc'])} ({interval(m['auroc_ci95'])})"),
        ("  references", f"16 x 16 thumbnails {decimal(reference['thumbnail_auroc'])}, "
                         f"view + sex + age {decimal(reference['metadata_auroc'])}"),
        ("  minus thumbnails", f"{gap:+.3f} ({gap_ci})" if gap is not None else "undefined"),
        ("weighted", f"precision {decimal(m['weighted_precision'])}, recall {decimal(m['weighted_recall'])}, "
                     f"F1 {decimal(m['weighted_f1'])}"),
        ("sensitivity", percent(m["sensitivity"])),
        ("specificity", percent(m["specificity"])),
    ]  # fmt: skip
    return [f"{arm.name} ({n})", *(f"  {label:<19}{text}" for label, text in rows)]


def _goal(accuracy: float) -> str:
    gap = 100 * (accuracy - GOAL_ACCURACY)
    verdict = f"met, by {gap:.1f} points" if gap > 0 else f"not met, {-gap:.1f} points short"
    return f"accuracy above {percent(GOAL_ACCURACY, 0)}: {verdict}"


def _differences(findings: Findings) -> list[str]:
    if not findings.differences:
        names = [arm.name for arm in findings.arms]
        other = AUGMENTED if BASELINE in names else BASELINE
        return _wrap(f"None: there are no final metrics of {other}, so nothing is compared.")
    lines = []
    for pair in findings.differences:
        lines += [f"{pair['other']} minus {pair['base']}"]
        if "reason" in pair:
            lines += _wrap(f"Not computed: {pair['reason']}.", "  ")
            continue
        accuracy, auroc = pair["accuracy"], pair["auroc"]
        change, ci = 100 * accuracy["difference"], interval(accuracy["ci95"], 100, 1, "+")
        lines += [
            f"  {'accuracy':<19}{change:+.1f} points ({ci}{_about_zero(accuracy['ci95'])})",
            f"  {'AUROC':<19}{auroc['difference']:+.3f} ({interval(auroc['ci95'], sign='+')}"
            f"{_about_zero(auroc['ci95'])})",
        ]
    paired = [pair for pair in findings.differences if "reason" not in pair]
    if paired:
        lines += _how_paired(paired[0])
    for arm in findings.arms:
        lines += _moved_prior(arm.name, arm.metrics)
    return lines


def _moved_prior(name: str, m: dict[str, Any]) -> list[str]:
    """What synthetic positives alone do to figures taken at a probability of 0.5."""
    synthetic = m.get("synthetic")
    if not synthetic or synthetic["label"] != 1:
        return []
    return _wrap(
        f"Mind the threshold: {name} learned from {_count(synthetic['n_used'], 'more positive image')} "
        f"beside {_count(m['n_train_images'], 'real image')}, which by itself tends to raise its "
        "probabilities. That moves accuracy, sensitivity and specificity at 0.5, whatever else it learned; "
        "AUROC does not depend on it."
    )


def _about_zero(bounds: Sequence[float | None]) -> str:
    if not _defined(bounds):
        return ""
    return "; contains 0" if bounds[0] <= 0 <= bounds[1] else "; does not contain 0"


def _how_paired(pair: dict[str, Any]) -> list[str]:
    images, patients = _count(pair["n_images"], "image"), _count(pair["n_patients"], "patient")
    return _wrap(
        f"Both arms on the same {images}; intervals from {pair['n_resamples']:,} paired bootstrap resamples "
        f"of the {patients} (seed {pair['seed']}). An interval that contains 0 means that "
        "these images do not show which arm is ahead. One training run per arm: how much another seed would "
        "change the result (seed variance) is not included."
    )


def _cross_validation(arms: Sequence[Arm]) -> list[str] | None:
    if not arms:
        return None
    columns = {
        "accuracy": "accuracy", "auroc": "AUROC", "weighted_f1": "weighted F1", "sensitivity": "sensitivity",
        "specificity": "specificity",
    }  # fmt: skip
    width = max(len(arm.name) for arm in arms) + 4
    lines = [" " * (width + 8) + "".join(f"{title:>15}" for title in columns.values())]
    for arm in arms:
        mark = " *" if arm.cv["contaminated"] else "  "
        cells = (_mean_sd(arm.cv["mean"].get(key), arm.cv["std"].get(key)) for key in columns)
        folds = f"{arm.cv['k']} folds"
        lines.append(f"{arm.name + mark:<{width}}{folds:<8}" + "".join(f"{cell:>15}" for cell in cells))
    sizes = {(arm.cv["n_images"], arm.cv["n_patients"]): None for arm in arms}
    n = " / ".join(f"{_count(images, 'image')} of {_count(people, 'patient')}" for images, people in sizes)
    lines += _wrap(
        "Mean over the folds and, in brackets, their standard deviation, which is not a confidence interval; "
        f"{n}. Fold figures are for orientation: arms are compared on the test images."
    )
    if any(arm.cv["contaminated"] for arm in arms):
        lines += _wrap(
            "* CONTAMINATED: the generator of this arm's synthetic images saw the validation images. These "
            "figures may be too good and are not compared with any other row."
        )
    return lines


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean:.3f}" + (f" ({sd:.3f})" if sd is not None else "")


# --- synthetic images ------------------------------------------------------------------------------
def _synthetic_images(findings: Findings) -> list[str] | None:
    lines = _ssim(findings.ssim) if findings.ssim else []
    if findings.fid:
        lines += [""] if lines else []
        lines += _fid(findings.fid)
    return lines or None


def _ssim(ssim: dict[str, Any]) -> list[str]:
    size = f"{ssim['image_size']} x {ssim['image_size']}"
    lines = _wrap(f"SSIM of pairs of images of {size} pixels: mean (SD), median:")
    for key, label in SSIM_ROWS.items():
        row = ssim["comparisons"].get(key)
        if not row:
            continue
        value = f"{_mean_sd(row['mean'], row['sd'])}, {decimal(row['median'])}"
        images = " + ".join(f"{n:,}" for n in row["n_images"])
        label = label.format(kind=ssim["kind"])
        lines.append(f"  {label:<48}{value:<24}{_count(row['n_pairs'], 'pair')}, {images} images")
    return lines + _wrap(f"{ssim['what']} {ssim['cannot_tell']}")


def _fid(fid: dict[str, Any]) -> list[str]:
    lines = _wrap(
        f"Fréchet distance and kernel distance (KID) of two sets of {fid['n']:,} images each, in "
        f"{fid['extractor_description']}; mean (SD) of {fid['draws']} draws:"
    )
    for key, label in FID_ROWS.items():
        row = fid["distances"].get(key)
        if row:
            frechet = f"{row['fid']:.4g}" + (f" ({row['fid_sd']:.2g})" if row["fid_sd"] is not None else "")
            kid = f"KID {row['kid']:.3g}"
            lines.append(f"  {label.format(kind=fid['kind']):<48}{frechet:<24}{kid}")
    return lines + _wrap(f"{fid['comparability']} {fid['cannot_tell']}")


# --- files -----------------------------------------------------------------------------------------
def _pictures(findings: Findings) -> list[str] | None:
    lines = [f"  {file:<36}{what}" for file, what in findings.pictures]
    if findings.no_real_images:
        lines += _wrap("--no-real-images: every picture that would show a real X-ray was left out.")
    return lines or None


def _missing(what: str, remedy: str) -> list[str]:
    return _wrap(without_folders(f"{what}; {remedy}" if remedy else what), "  ", "* ")


def without_folders(text: str) -> str:
    """``text`` with the last part alone of every absolute path: the report must not name this machine."""
    # The home folder by itself first: a user's name can contain spaces.
    text = text.replace(str(Path.home()) + os.sep, os.sep)
    return ABSOLUTE_PATH.sub(r"\1", text)
