"""The sections of the report behind the answer: thresholds, calibration, subgroups, training, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arms.registry import ARMS
from report.blocks import Block, Bullets, Table, count, decimal, percent, with_interval

RULES = {
    "fixed": "0.5, as it is",
    "youden": "Highest sensitivity + specificity out of fold (Youden)",
    "sensitivity_90": "Sensitivity of at least 0.90 out of fold",
}
RATES = ("accuracy", "sensitivity", "specificity")
SUBGROUP_METRICS = {
    "auroc": "AUROC", "sensitivity": "Sensitivity at 0.5, %", "specificity": "Specificity at 0.5, %"
}  # fmt: skip
CV_METRICS = {
    "accuracy": "accuracy", "auroc": "AUROC", "weighted_f1": "weighted F1", "sensitivity": "sensitivity",
    "specificity": "specificity",
}  # fmt: skip


# --- thresholds, calibration, subgroups ------------------------------------------------------------
def thresholds(content: Mapping[str, Any]) -> list[Block]:
    arms = {name: m["thresholds"] for name, m in content["arms"].items() if m.get("thresholds")}
    blocks: list[Block] = []
    for rule in dict.fromkeys(rule for item in arms.values() for rule in item["rules"]):
        rows = [
            (name, decimal(m["threshold"]), *(_rate(m, key, 100, 1) for key in RATES))
            for name, item in arms.items()
            if (m := item["rules"].get(rule))
        ]
        if rows:
            columns = ("arm", "threshold", *(f"{key}, %" for key in RATES))
            blocks.append(Table(columns, rows, RULES.get(rule, rule)))
    return [*blocks, *_notes(arms)] if blocks else []


def _notes(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each arm's note, arms with the same note together."""
    notes: dict[str, list[str]] = {}
    for name, item in arms.items():
        if item.get("note"):
            notes.setdefault(item["note"].rstrip("."), []).append(name)
    return [f"{', '.join(names)}: {note}." for note, names in notes.items()]


def calibration(content: Mapping[str, Any]) -> list[Block]:
    arms = {name: m["calibration"] for name, m in content["arms"].items() if m.get("calibration")}
    # Said once: the temperature is fitted on what the thresholds are chosen on.
    chosen = {name: (m.get("thresholds") or {}).get("note") for name, m in content["arms"].items()}
    rows = []
    for name, item in arms.items():
        after = item["after"] or {}
        cells = (
            decimal(item["before"][key]) + (f" → {decimal(after[key])}" if after else "")
            for key in ("brier", "ece", "log_loss")
        )
        rows.append((name, decimal(item["temperature"], 2) if item["temperature"] else "none", *cells))
    if not rows:
        return []
    return [
        Table(("arm", "temperature", "Brier", "ECE", "log loss (nats)"), rows),
        "Before → after dividing the logits by a temperature, fitted on the predictions that the thresholds "
        "were chosen on (none without them); 0 is perfect. The temperature changes no "
        "order: AUROC and the results at 0.5 stay as they are.",
        *_notes({name: item for name, item in arms.items() if item["note"] != chosen.get(name)}),
    ]


def subgroups(content: Mapping[str, Any]) -> list[Block]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, m in content["arms"].items():
        for row in m.get("subgroups") or []:
            found.setdefault((row["group"], row["value"]), {})[name] = row
    names = list(content["arms"])
    blocks: list[Block] = []
    for metric, title in SUBGROUP_METRICS.items():
        rows = [
            _subgroup_row(key, by_arm, metric, names) for key, by_arm in found.items() if key[0] != "class"
        ]
        if rows:
            blocks.append(Table(("positives of images", *names), rows, title))
    rows = [
        _subgroup_row(key, by_arm, "sensitivity" if _any(by_arm)["n_positive"] else "specificity", names)
        for key, by_arm in found.items()
        if key[0] == "class"
    ]
    if rows:
        title = "Called correctly at 0.5, %: sensitivity on Lung Opacity, specificity on the others"
        blocks.append(Table(("images of the class", *names), rows, title))
    note = "In brackets image-level 95 % CI, not adjusted for the number of subgroups; –: too few images."
    return [*blocks, note] if blocks else []


def _any(by_arm: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of any arm: all were tested on the same images."""
    return next(iter(by_arm.values()))


def _subgroup_row(
    key: tuple[str, str], by_arm: Mapping[str, Mapping[str, Any]], metric: str, names: Sequence[str]
) -> tuple[str, ...]:
    (group, value), row = key, _any(by_arm)
    label = f"{value}: {row['n_images']:,}" if group == "class" else (
        f"{group} {value}: {row['n_positive']:,} of {row['n_images']:,}"
    )  # fmt: skip
    style = (1.0, 2) if metric == "auroc" else (100.0, 0)
    cells = (_rate(by_arm[name], metric, *style) if name in by_arm else "–" for name in names)
    return (label, *cells)


def _rate(row: Mapping[str, Any], metric: str, scale: float, digits: int) -> str:
    return with_interval(row[metric], row[f"{metric}_ci95"], scale, digits)


# --- training --------------------------------------------------------------------------------------
def training(content: Mapping[str, Any], cross_validated: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    lines = [_trained_on(name, m) for name, m in content["arms"].items()]
    blocks: list[Block] = [Bullets(lines)]
    if not cross_validated:
        return blocks
    rows = [
        (name + (" *" if cv["contaminated"] else ""), str(cv["k"]),
         *(_mean_sd(cv["mean"].get(key), cv["std"].get(key)) for key in CV_METRICS))
        for name, cv in cross_validated.items()
    ]  # fmt: skip
    sizes = {(cv["n_images"], cv["n_patients"]): None for cv in cross_validated.values()}
    n = " / ".join(f"{count(images, 'image')} of {count(people, 'patient')}" for images, people in sizes)
    blocks += [
        Table(("arm", "folds", *CV_METRICS.values()), rows),
        "Mean over the folds and, in brackets, their standard deviation, which is not a confidence interval; "
        f"{n}. Fold figures are for orientation: arms are compared on the test images.",
    ]
    if any(cv["contaminated"] for cv in cross_validated.values()):
        blocks.append(
            "* CONTAMINATED: the generator of this arm's synthetic images saw, or may have seen, the "
            "validation images. These figures may be too good and are not compared with any other row."
        )
    return blocks


def _trained_on(name: str, m: Mapping[str, Any]) -> str:
    if not m.get("n_train_images"):
        return f"{name}: not known, its file of metrics is missing."
    kind = f" ({ARMS[name].words})" if name in ARMS else ""
    words = f"{name}{kind}: trained on {count(m['n_train_images'], 'real image')}"
    if m.get("n_train_patients"):
        words += f" of {count(m['n_train_patients'], 'patient')}"
    if m.get("n_synthetic"):
        words += f" and {synthetic_words(m)}"
    if m.get("n_duplicated"):
        words += f" and {duplicated_words(m)}"
    steps = count(m["optimizer_steps"], "step") if m.get("optimizer_steps") else "steps not known"
    seeds = ", ".join(map(str, m.get("seeds") or []))
    words += f" ({steps}; {'seeds' if m['repeats'] > 1 else 'seed'} {seeds or 'not known'})."
    if m["repeats"] > 1 and m.get("per_repeat"):
        runs = "; ".join(f"{percent(run['accuracy'])}, {decimal(run['auroc'])}" for run in m["per_repeat"])
        words += f" Its {m['repeats']} runs one by one, accuracy and AUROC: {runs}."
    return words


def extra_positive(m: Mapping[str, Any]) -> int:
    """How many of an arm's synthetic or repeated images are positives; all where results do not say."""
    n = m.get("n_synthetic") or m.get("n_duplicated") or 0
    told = m.get("n_extra_positive")
    return n if told is None else told


def synthetic_words(m: Mapping[str, Any]) -> str:
    """ "450 synthetic images"; if some are negatives, how many are positives."""
    n, positive = m["n_synthetic"], extra_positive(m)
    return count(n, "synthetic image") + ("" if positive == n else f" ({positive:,} of them positive)")


def duplicated_words(m: Mapping[str, Any]) -> str:
    """ "450 real positives drawn again", or what else a control repeated."""
    n, positive = m["n_duplicated"], extra_positive(m)
    kinds = [f"{k:,} real {kind}" for k, kind in ((positive, "positives"), (n - positive, "negatives")) if k]
    return f"{' and '.join(kinds)} drawn again"


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return "undefined"
    return f"{mean:.3f}" + (f" ({sd:.3f})" if sd is not None else "")


# --- synthetic images ------------------------------------------------------------------------------
def images(quality: Mapping[str, Any] | None, comparability: str) -> list[Block]:
    """From the content of image_quality.json, if it was made; ``comparability``: of its distances."""
    blocks: list[Block] = []
    rows = quality["rows"] if quality else []
    for group in dict.fromkeys(row["group"] for row in rows):
        blocks += _quality_group(group, [row for row in rows if row["group"] == group])
    return [*blocks, f"Fréchet distance: {comparability}"] if blocks and comparability else blocks


def _quality_group(group: str, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The numbers side by side; below them what each is, rests on and cannot tell."""
    cells = [(row["name"], _figure(row["value"]), _figure(row.get("yardstick"))) for row in rows]
    return [Table((group, "value", "yardstick"), cells), Bullets([_reading(row) for row in rows])]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def _reading(row: Mapping[str, Any]) -> str:
    details = {
        "value": row.get("uncertainty"), "yardstick": row.get("yardstick_name"), "n": row.get("n"),
        "features": row.get("extractor"),
    }  # fmt: skip
    basis = "; ".join(f"{what}: {words}" for what, words in details.items() if words)
    words = " ".join(part for part in (row.get("what"), row.get("cannot_tell")) if part)
    return f"{row['name']}: {words}" + (f" ({basis}.)" if basis else "")
