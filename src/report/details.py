"""The sections of the report behind the answer: thresholds, calibration, subgroups, training, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arms.registry import ARMS
from comparison.file_formats import ArmResult, Comparison, metric_entry
from report.blocks import (
    Block,
    Bullets,
    Facts,
    Table,
    count,
    decimal,
    interval,
    percent,
    score,
    signed,
    with_interval,
)
from stats.metric_registry import Shown, compared_metrics, metrics_shown
from stats.subgroups import SubgroupRow

RULES = {
    "fixed": "Fixed threshold of 0.5",
    "youden": "Highest sensitivity + specificity on the out-of-fold predictions (Youden)",
    "sensitivity_90": "Sensitivity of at least 0.90 on the out-of-fold predictions",
}
RATES = ("accuracy", "sensitivity", "specificity")
SUBGROUP_METRICS = {
    "auroc": "AUROC", "sensitivity": "Sensitivity at 0.5, %", "specificity": "Specificity at 0.5, %"
}  # fmt: skip


# --- references, thresholds, calibration, subgroups -------------------------------------------------
def reference_rows(content: Comparison) -> list[tuple[str, str]]:
    """Write the scores of the predictors that ignore the lungs."""
    found = content["references"]
    rows = [("calling every image negative", f"accuracy {percent(found['always_negative_accuracy'])}")]
    for value, what in (
        (found["metadata_auroc"], "view, sex and age alone"),
        (found["thumbnail_auroc"], "thumbnails of 16 x 16 pixels"),
    ):
        rows.append((what, "not known" if value is None else f"AUROC {decimal(value)}"))
    return rows


def thresholds(content: Comparison) -> list[Block]:
    """Write a table per rule of choosing a threshold, and where the thresholds come from."""
    arms = {name: row["thresholds"] for name, row in content["arms"].items()}
    blocks: list[Block] = []
    for rule, title in RULES.items():
        rows = [
            (name, decimal(found["threshold"]), *(_rate(found, key, 100, 1) for key in RATES))
            for name, item in arms.items()
            if (found := item["rules"][rule])
        ]
        if rows:
            blocks.append(Table(("arm", "threshold", *(f"{key}, %" for key in RATES)), rows, title))
    return [*blocks, *note_lines({name: item["note"] for name, item in arms.items()})]


def note_lines(notes: Mapping[str, str]) -> list[str]:
    """Write each arm's note, arms with the same note together."""
    names: dict[str, list[str]] = {}
    for name, note in notes.items():
        names.setdefault(note, []).append(name)
    return [f"{', '.join(arms)}: {note}." for note, arms in names.items() if note]


def shortcut(content: Comparison) -> list[Block]:
    """Write what the shortcut test of each arm trained on synthetic images says; nothing without such arms."""
    tests = content.get("shortcut_tests", [])
    said = [f"{test['arm']}: {test['state']}: {test['why']}." for test in tests]
    blocks: list[Block] = [Bullets(said)] if said else []
    for test in tests:
        if test["difference"] is None:
            continue
        kind = "negatives" if test["label"] else "positives"
        rows = [
            (f"change under {test['arm']}", signed(test["change"] or 0.0, 2)),
            (f"change under {test['reference']}", signed(test["change_in_reference"] or 0.0, 2)),
            ("difference", f"{signed(test['difference'], 2)}, 95 % CI {interval(test['ci95'], 1.0, 2, sign=True)}"),
        ]
        if made := test["synthetic_negatives"]:
            rows.append((
                "synthetic negatives",
                f"mean logit {signed(made['logit'], 2)} ({count(made['n_images'], 'image')}, {made['source']}); real "
                f"ones {signed(made['logit_real'], 2)}, reduced {signed(made['logit_real_reduced'], 2)}",
            ))  # fmt: skip
        blocks.append(Facts(f"{test['arm']}: real test {kind}, reduced to {test['side']} px, logit scale", rows))
    if len(blocks) > 1:
        blocks.append(
            "Reducing an image moves the logit of any classifier. What counts is how much more it moves towards "
            "the label of the synthetic images in the arm that has seen these. The interval is by patient."
        )
    return blocks


def calibration(content: Comparison) -> list[Block]:
    """Write the calibration of each arm, before and after the temperature."""
    rows = []
    for name, row in content["arms"].items():
        before: Mapping[str, Any] = row["calibration"]["before"]
        after: Mapping[str, Any] | None = row["calibration"]["after"]
        temperature = row["calibration"]["temperature"]
        scores = ("brier", "ece", "log_loss")
        cells = (decimal(before[key]) + (f" → {decimal(after[key])}" if after else "") for key in scores)
        rows.append((name, decimal(temperature, 2) if temperature else "none", *cells))
    # Said once: the temperature is fitted on what the thresholds are chosen on.
    notes = {name: row["calibration"]["note"] for name, row in content["arms"].items()
             if row["calibration"]["note"] != row["thresholds"]["note"]}  # fmt: skip
    return [
        Table(("arm", "temperature", "Brier", "ECE", "log loss (nats)"), rows),
        "A cell holds the value before → after the logits are divided by the temperature; 0 is perfect. The "
        "temperature is fitted on the same out-of-fold predictions as the thresholds; without them there is "
        "none. A temperature keeps the order of the images, so AUROC and the results at 0.5 do not change.",
        *note_lines(notes),
    ]


def subgroups(content: Comparison) -> list[Block]:
    """Write the scores of each arm on parts of the test images."""
    found: dict[tuple[str, str], dict[str, SubgroupRow]] = {}
    for name, arm in content["arms"].items():
        for row in arm["subgroups"]:
            found.setdefault((row["group"], row["value"]), {})[name] = row
    names = list(content["arms"])
    people = [by_arm for (group, _), by_arm in found.items() if group != "class"]
    blocks: list[Block] = []
    for metric, title in SUBGROUP_METRICS.items() if people else ():
        rows = [_subgroup_row(by_arm, metric, names) for by_arm in people]
        blocks.append(Table(("subgroup (positives of images)", *names), rows, title))
    rows = [
        _subgroup_row(by_arm, "sensitivity" if _any(by_arm)["n_positive"] else "specificity", names)
        for (group, _), by_arm in found.items()
        if group == "class"
    ]
    if rows:
        title = "Called correctly at 0.5, %: sensitivity for Lung Opacity, specificity for the other classes"
        blocks.append(Table(("original class (images)", *names), rows, title))
    note = (
        "Brackets hold image-level 95 % confidence intervals, not adjusted for the number of subgroups. A "
        "dash stands for too few images."
    )
    return [*blocks, note] if blocks else []


def _any(by_arm: Mapping[str, SubgroupRow]) -> SubgroupRow:
    """Return the row of the first arm: arms that are compared were tested on the same images."""
    return next(iter(by_arm.values()))


def _subgroup_row(by_arm: Mapping[str, SubgroupRow], metric: str, names: Sequence[str]) -> tuple[str, ...]:
    row = _any(by_arm)
    label = f"{row['value']}: {row['n_images']:,}" if row["group"] == "class" else (
        f"{row['group']} {row['value']}: {row['n_positive']:,} of {row['n_images']:,}"
    )  # fmt: skip
    style = (1.0, 2) if metric == "auroc" else (100.0, 0)
    cells = (_rate(by_arm[name], metric, *style) if name in by_arm else "–" for name in names)
    return (label, *cells)


def _rate(row: Mapping[str, Any], rate: str, scale: float, digits: int) -> str:
    return with_interval(row[rate], row[f"{rate}_ci95_image_level"], scale, digits)


# --- training --------------------------------------------------------------------------------------
def training(content: Comparison, cross_validated: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Write what each arm was trained on, and the results of the folds."""
    blocks: list[Block] = [Bullets([_trained_on(name, row) for name, row in content["arms"].items()])]
    if not cross_validated:
        return blocks
    shown = metrics_shown(Shown.FOLDS)
    rows = [
        (name + (" *" if cv["contaminated"] else ""), str(cv["k"]),
         *(_mean_sd(cv["mean"].get(metric.name), cv["std"].get(metric.name)) for metric in shown))
        for name, cv in cross_validated.items()
    ]  # fmt: skip
    sizes = {(cv["n_images"], cv["n_patients"]): None for cv in cross_validated.values()}
    n = " / ".join(f"{count(images, 'image')} of {count(people, 'patient')}" for images, people in sizes)
    blocks += [
        Table(("arm", "folds", *(metric.title for metric in shown)), rows),
        "Cells hold the mean over the folds and, in brackets, the standard deviation, which is not a "
        f"confidence interval ({n}). Results of folds are for orientation only: arms "
        "are compared on the test images.",
    ]
    if any(cv["contaminated"] for cv in cross_validated.values()):
        blocks.append(
            "* CONTAMINATED: the generator of this arm's synthetic images saw, or may have seen, the "
            "validation images. These results may be too good and are not compared with any other row."
        )
    return blocks


def _trained_on(name: str, row: ArmResult) -> str:
    if not row["n_train_images"]:
        return f"{name}: its training is not known, because its file of metrics is missing."
    kind = f" ({ARMS[name].words})" if name in ARMS else ""
    words = f"{name}{kind}: trained on {count(row['n_train_images'], 'real image')}"
    if row["n_train_patients"]:
        words += f" of {count(row['n_train_patients'], 'patient')}"
    if row["n_synthetic"]:
        words += f" and {synthetic_words(row)}"
    if row["n_duplicated"]:
        words += f" and {duplicated_words(row)}"
    steps = count(row["optimizer_steps"], "step") if row["optimizer_steps"] else "steps not known"
    seeds = ", ".join(map(str, row["seeds"] or []))
    words += f" ({steps}; {'seeds' if row['repeats'] > 1 else 'seed'} {seeds or 'not known'})."
    if row["repeats"] > 1 and row["per_repeat"]:
        titles = " and ".join(metric.title for metric in compared_metrics())
        runs = "; ".join(
            ", ".join(score(metric, metric_entry(run, metric)) for metric in compared_metrics())
            for run in row["per_repeat"]
        )
        words += f" Its {row['repeats']} runs one by one ({titles}): {runs}."
    return words


def n_extra(row: ArmResult) -> int:
    """Return how many synthetic or repeated images an arm trained on."""
    return row["n_synthetic"] or row["n_duplicated"] or 0


def synthetic_words(row: ArmResult) -> str:
    """Write "450 synthetic images"; if some are negatives, how many are positives."""
    n, positive = n_extra(row), row["n_extra_positive"]
    return count(n, "synthetic image") + ("" if positive in (None, n) else f" ({positive:,} of them positive)")


def duplicated_words(row: ArmResult) -> str:
    """Write "450 real positives drawn again", or what else a control repeated."""
    n, positive = n_extra(row), row["n_extra_positive"]
    if positive is None:
        return f"{count(n, 'real image')} drawn again"
    kinds = [f"{k:,} real {kind}" for k, kind in ((positive, "positives"), (n - positive, "negatives")) if k]
    return f"{' and '.join(kinds)} drawn again"


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean:.3f}" + (f" ({sd:.3f})" if sd is not None else "")


# --- synthetic images ------------------------------------------------------------------------------
def images(quality: Mapping[str, Any] | None, comparability: str) -> list[Block]:
    """Write the content of image_quality.json, if it was made.

    ``comparability``: what its distances may be compared with.
    """
    blocks: list[Block] = []
    rows = quality["rows"] if quality else []
    for group in dict.fromkeys(row["group"] for row in rows):
        blocks += _quality_group(group, [row for row in rows if row["group"] == group])
    return [*blocks, f"Fréchet distance: {comparability}"] if blocks and comparability else blocks


def _quality_group(group: str, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return the numbers side by side; below them what each is, rests on and cannot tell."""
    cells = [(row["name"], _short_number(row["value"]), _short_number(row.get("yardstick"))) for row in rows]
    return [Table((group, "value", "yardstick"), cells), Bullets([_reading(row) for row in rows])]


def _short_number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def _reading(row: Mapping[str, Any]) -> str:
    details = {
        "value": row.get("uncertainty"), "yardstick": row.get("yardstick_name"), "n": row.get("n"),
        "features": row.get("extractor"),
    }  # fmt: skip
    basis = "; ".join(f"{what}: {words}" for what, words in details.items() if words)
    words = " ".join(part for part in (row.get("what"), row.get("cannot_tell")) if part)
    return f"{row['name']}: {words}" + (f" ({basis}.)" if basis else "")
