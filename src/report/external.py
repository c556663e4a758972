"""What the report of an external test says: whose images, what shifted, thresholds carried over; links to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from arms.file_formats import ExternalTest
from comparison.external import ExternalReport
from comparison.file_formats import Comparison, ExternalComparison, SideOfShift
from report.blocks import Block, Facts, Links, Table, count, decimal, interval, percent, signed, with_interval
from report.details import note_lines, reference_rows
from stats.calibration import AtThreshold

RULES = {
    "youden": "Threshold of the highest sensitivity + specificity on the training's out-of-fold predictions (Youden)",
    "sensitivity_90": "Threshold of a sensitivity of at least 0.90 on the training's out-of-fold predictions",
}


def tested_on(test: ExternalTest) -> str:
    """Write for the first sentence: "hospital_b (412 images of 300 patients), on which nothing was trained"."""
    words = f"{test['name']} ({count(test['n_images'], 'image')} of {count(test['n_patients'], 'patient')})"
    words += ", on which nothing was trained"
    if test["positive_differs"]:
        here, there = test["data"]["positive"], test["training_data"]["positive"]
        words += f", and where “positive” means something else: {here} (in training: {there})"
    return words


def external_images(content: Comparison, external: ExternalComparison) -> list[Block]:
    """Write whose images were tested on, and how they were compared with the training data."""
    test = external["test"]
    dropped = test["dropped"]
    seen = {
        "by their ids": dropped["by_image_id"], "by their patients": dropped["by_patient"],
        "by their pictures": dropped["by_picture"],
        "because nobody knows their patients": dropped["by_unknown_patient"],
    }  # fmt: skip
    left_out = [f"{n:,} {how}" for how, n in seen.items() if n]
    also = {"patients": test["patients_compared"], "pictures": test["pictures_compared"]}
    *more, last = ["ids", *(what for what, done in also.items() if done)]
    compared = f"{', '.join(more)} and {last}" if more else last
    words = (
        f"{test['name']} has {count(test['n_images'], 'image')} of {count(test['n_patients'], 'patient')}; "
        f"{test['n_positive']:,} of the images are positive ({percent(test['n_positive'] / test['n_images'])}). Their "
        f"{compared} were compared with those of the training data. "
        + (f"Left out: {', '.join(left_out)}. " if left_out else "No image had to be left out. ")
        + "Nothing was trained, chosen or calibrated on them."
    )
    sides = (test["data"], test["training_data"])
    rows = [
        ("known data sets", *(", ".join(side["families"]) or "not known" for side in sides)),
        ("a positive means", *(side["positive"] or "not known" for side in sides)),
    ]
    return [
        words,
        Table(("", test["name"], "training data"), rows),
        Facts("Reference predictors that ignore the lungs, fitted on the training images", reference_rows(content)),
    ]


def shift(external: ExternalComparison) -> list[Block]:
    """Write how each arm did on the internal and on the external test, and how its calibration shifted."""
    scores, lines = [], []
    for label, side in _sides(external):
        accuracy = with_interval(side["accuracy"], side["accuracy_ci95"], 100, 1)
        scores.append((label, f"{side['n_images']:,}", accuracy, _auroc(side)))
        line = side["line"]
        lines.append((
            label, percent(line["share_positive"]), percent(line["mean_probability"]),
            _estimate(line["intercept"], line["intercept_ci95"], sign=True),
            _estimate(line["slope"], line["slope_ci95"]), decimal(side["ece"]),
        ))  # fmt: skip
    return [
        Table(("arm, test", "images", "accuracy, %", "AUROC"), scores),
        "Brackets hold 95 % intervals by patient. Accuracy at 0.5 changes with the share of positives; AUROC does not.",
        Table(
            ("arm, test", "positive", "predicted", "intercept", "slope", "ECE"), lines,
            "Calibration of the probabilities as trained",
        ),
        "Predicted: the mean probability, which equals the share of positives where calibration in the large is right. "
        "The intercept (logit scale) is 0 then, and below 0 where probabilities are too high. A slope below 1 means "
        "probabilities too bold, above 1 too timid. ECE: expected calibration error over ten bins; 0 is perfect.",
    ]  # fmt: skip


def _sides(external: ExternalComparison) -> list[tuple[str, SideOfShift]]:
    """List ("arm, test", its numbers) of the internal test, if there was one, and of the external one."""
    name, sides = external["test"]["name"], []
    for arm, both in external["arms"].items():
        if both["internal"] is not None:
            sides.append((f"{arm}, internal", both["internal"]))
        sides.append((f"{arm}, {name}", both["external"]))
    return sides


def scores_of_both(external: ExternalComparison) -> list[str]:
    """Write in a sentence the AUROC of each arm on both tests; none without an internal one."""
    name, words = external["test"]["name"], []
    for arm, both in external["arms"].items():
        if (inside := both["internal"]) is not None:
            outside = both["external"]
            words.append(f"{arm} {decimal(inside['auroc'])} and {_auroc(outside).replace('(', '(95 % CI ')}")
    return [f"AUROC on the internal test and on {name}: {'; '.join(words)}."] if words else []


def _estimate(value: float | None, bounds: Sequence[float] | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    written = signed(value, 2) if sign else f"{value:.2f}"
    return f"{written} ({interval(bounds, 1.0, 2, sign=sign)})".replace("-", "−")


def _auroc(side: SideOfShift) -> str:
    return with_interval(side["auroc"], side["auroc_ci95"])


def thresholds_carried_over(content: Comparison, external: ExternalComparison) -> list[Block]:
    """Write sensitivity and specificity at thresholds that the training chose, on both tests."""
    blocks: list[Block] = []
    for rule, title in RULES.items():
        rows = [
            (label, decimal(found["threshold"]), *_rates(found))
            for label, side in _sides(external) if (found := side["thresholds"].get(rule))
        ]  # fmt: skip
        if rows:
            blocks.append(Table(("arm, test", "threshold", "sensitivity, %", "specificity, %"), rows, title))
    if blocks:
        blocks.append("Brackets hold image-level 95 % intervals. The thresholds were never adapted to these images.")
    return [*blocks, *note_lines({arm: row["thresholds"]["note"] for arm, row in content["arms"].items()})]


def _rates(found: AtThreshold) -> list[str]:
    return [
        with_interval(found["sensitivity"], found["sensitivity_ci95_image_level"], 100, 1),
        with_interval(found["specificity"], found["specificity_ci95_image_level"], 100, 1),
    ]


# --- links -------------------------------------------------------------------------------------------
def report_links(reports: Sequence[ExternalReport], folder: Path) -> list[Block]:
    """Write links from a report in ``folder`` to the reports of external tests; none without them."""
    rows = []
    for report in reports:
        size = f"{count(report.n_images, 'image')} of {count(report.n_patients, 'patient')}"
        words = f"{report.name}, {size}, on which nothing was trained"
        if not report.current:
            words += "; made with models of an earlier training: test them again"
        rows.append((Path(os.path.relpath(report.page, folder)).as_posix(), words))
    return [Links(rows)] if rows else []
