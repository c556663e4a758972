"""What the comparison says, section by section, for a text file and a page alike: findings in, blocks out.

Written to be read by someone who reads X-rays, not JSON. It states numbers, how many images and patients
they rest on, and what they cannot tell. The only conclusions are the verdicts that ``comparison.json``
holds, two per pair, word for word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.public_text import without_folders
from dataset.patients import grouping_sentence
from report import details
from report.blocks import (
    Block,
    Bullets,
    Commands,
    Facts,
    Section,
    Table,
    count,
    decimal,
    interval,
    p_value,
    percent,
    with_interval,
)
from report.verdict import (
    accuracy_change,
    auroc_change,
    goal_words,
    seeds_words,
    smallest_differences,
    verdict_lines,
)
from stats.paired_tests import points


@dataclass(frozen=True)
class Picture:
    """``section``: the key of the section that it belongs to; ``what``: a caption that can be read alone."""

    file: str
    what: str
    section: str


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    ``comparison`` is the content of comparison.json, ``quality`` of image_quality.json, None if not made;
    ``comparability``: what the Fréchet distance may be compared with; ``cross_validated``: arm ->
    cv_summary.json; ``missing``: (what is not there, how to get it); ``commands``: (what it made, command
    line); ``files``: (name, what it holds).
    """

    comparison: Mapping[str, Any]
    cross_validated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quality: Mapping[str, Any] | None = None
    comparability: str = ""
    flags: Sequence[str] = ()
    missing: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[tuple[str, str]] = ()
    files: Sequence[tuple[str, str]] = ()
    no_real_images: bool = False


def sections(findings: Findings) -> list[Section]:
    """The report, always in this order; sections without content are left out."""
    content = findings.comparison
    images = details.images(findings.quality, findings.comparability)
    parts = [
        ("verdict", "Verdict", verdict_lines(content)),
        ("warnings", "Warnings: read these before any figure", _warnings(findings.flags)),
        ("test-set", "Test set and references", _test_set(content)),
        ("arms", "Each arm on the test images", _arms(content)),
        ("differences", "Differences between arms", _differences(content)),
        ("thresholds", "Thresholds", details.thresholds(content)),
        ("calibration", "Calibration", details.calibration(content)),
        ("subgroups", "Subgroups", details.subgroups(content)),
        ("training", "Training and cross-validation", details.training(content, findings.cross_validated)),
        ("images", "Synthetic images beside real ones", images),
        ("heat-maps", "Heat maps", _heat_maps(findings.pictures)),
        ("commands", "The commands that made this", _commands(findings.commands)),
        ("files", "Files beside this report", _files(findings)),
        ("missing", "What is missing", _missing(findings.missing)),
    ]
    shown = {picture.section for picture in findings.pictures}
    return [Section(key, heading, blocks) for key, heading, blocks in parts if blocks or key in shown]


# --- before the figures ---------------------------------------------------------------------------
def _warnings(flags: Sequence[str]) -> list[Block]:
    return [Bullets([without_folders(flag) for flag in flags])] if flags else []


# --- the test set and the arms ---------------------------------------------------------------------
def _test_set(content: Mapping[str, Any]) -> list[Block]:
    test = content["test_set"]
    split = f"split {test['split_sha256'][:12]}" if test.get("split_sha256") else "a split that is not known"
    lines: list[Block] = [
        f"Test set: {count(test['n_images'], 'image')} of {count(test['n_patients'], 'patient')}, "
        f"{test['n_positive']:,} positive ({percent(test['prevalence'])}); {split}. "
        + (f"Patients: {grouping_sentence(test['grouped_by'])}. " if test.get("grouped_by") else "")
        + "No test image was used to choose an epoch, a threshold, a temperature or a setting."
    ]
    r = content["references"]
    rows = [("always saying “negative”", f"accuracy {percent(r['always_negative_accuracy'])}")]
    for key, what in (("metadata", "view, sex and age alone"), ("thumbnail", "16 x 16 thumbnails")):
        value = r.get(f"{key}_auroc")
        rows.append((what, "not known" if value is None else f"AUROC {decimal(value)}"))
    return [*lines, Facts("What can be had without looking closely", rows)]


def _arms(content: Mapping[str, Any]) -> list[Block]:
    arms, goal = content["arms"], content["goal"]
    main = Table(
        ("arm", "accuracy, %", "AUROC", "sensitivity", "specificity", f"goal {percent(goal['accuracy'], 0)}"),
        [
            (name, with_interval(m["accuracy"], m["accuracy_ci95"], 100, 1),
             with_interval(m["auroc"], m["auroc_ci95"]), percent(m["sensitivity"]),
             percent(m["specificity"]), goal_words(goal["arms"][name]).split(",")[0])
            for name, m in arms.items()
        ],
    )  # fmt: skip
    columns = {"weighted_precision": "wPrec", "weighted_recall": "wRec", "weighted_f1": "wF1", "ppv": "PPV",
               "npv": "NPV", "auprc": "AUPRC", "brier": "Brier", "ece": "ECE"}  # fmt: skip
    more = Table(
        ("arm", *columns.values()),
        [(name, *(decimal(m[key]) for key in columns)) for name, m in arms.items()],
    )
    blocks: list[Block] = [
        main,
        "Called positive from a probability of 0.5. In brackets 95 % CI: of the accuracy Wilson's, of the "
        "AUROC DeLong's, both image-level. By patient:",
        _clustered(arms),
        more,
        "w: mean over the two classes, weighted by their size. PPV and NPV at this test set's prevalence.",
    ]
    if any(m["at_prevalence"] for m in arms.values()):
        blocks.append(_at_prevalence(arms))
    return blocks + _moved_prior(arms)


def _clustered(arms: Mapping[str, Any]) -> Table:
    rows = [
        (name, interval(m["accuracy_cluster_ci95"], 100, 1), interval(m["auroc_cluster_ci95"]))
        for name, m in arms.items()
    ]
    return Table(("arm", "accuracy, %: 95 % CI by patient", "AUROC: 95 % CI by patient"), rows)


def _at_prevalence(arms: Mapping[str, Any]) -> Table:
    given = next(m["at_prevalence"]["prevalence"] for m in arms.values() if m["at_prevalence"])
    rows = [
        (name, decimal(m["at_prevalence"]["ppv"]), decimal(m["at_prevalence"]["npv"]))
        for name, m in arms.items()
        if m["at_prevalence"]
    ]
    return Table((f"at a prevalence of {percent(given)}", "PPV", "NPV"), rows)


def _moved_prior(arms: Mapping[str, Any]) -> list[Block]:
    """What another share of positives in training does by itself to figures taken at a probability of 0.5."""
    learned = []
    for name, m in arms.items():
        if m.get("n_synthetic"):
            learned.append(f"{name} learned from {details.synthetic_words(m)}")
        elif m.get("n_duplicated"):
            learned.append(f"{name} from {details.duplicated_words(m)}")
        elif m.get("class_weights"):
            learned.append(f"{name} from a loss weighted by class")
    if not learned:
        return []
    extra = [m for m in arms.values() if m.get("n_synthetic") or m.get("n_duplicated")]
    negatives = any(details.extra_positive(m) < (m.get("n_synthetic") or m["n_duplicated"]) for m in extra)
    classes, effect = ("positives", "raise the probabilities")
    if negatives:
        classes, effect = "one class", "raise the probabilities (more positives) or to lower them (negatives)"
    return [
        f"Mind the threshold: {', '.join(learned)}. Synthetic images, or other extra weight on {classes}, "
        f"move the prior: that by itself tends to {effect}, and so moves accuracy, sensitivity "
        "and specificity at 0.5, whatever else was learned. AUROC does not depend on it."
    ]


# --- differences -----------------------------------------------------------------------------------
def _differences(content: Mapping[str, Any]) -> list[Block]:
    pairs = content["pairs"]
    blocks: list[Block] = [
        Facts(f"{pair['b']} minus {pair['a']}", _pair_rows(pair, content)) for pair in pairs
    ]
    if pairs:
        s = content["settings"]
        blocks.append(
            f"Each pair on the same test images. Intervals and p: paired bootstrap of {s['n_resamples']:,} "
            f"resamples of the patients (seed {s['seed']}); p adjusted over the pairs by Holm. McNemar and "
            "DeLong take each image by itself (image-level) and are not adjusted. Verdict, in this order: "
            f"interval within ±{points(s['margin'])}: equivalent; adjusted p below {s['alpha']:g}: a "
            "difference in its direction; else no evidence of one."
        )
    if others := content["not_compared"]:
        reasons = [f"{item['b']} and {item['a']} are not compared: {item['reason']}." for item in others]
        blocks.append(Bullets(reasons))
    return blocks or ["None: there is one arm only."]


def _pair_rows(pair: Mapping[str, Any], content: Mapping[str, Any]) -> list[tuple[str, str]]:
    accuracy = accuracy_change(pair["accuracy_difference"], pair["accuracy_ci95"])
    auroc = auroc_change(pair["auroc_difference"], pair["auroc_ci95"])
    right = f"only {pair['a']} right: {pair['mcnemar_b']}, only {pair['b']} right: {pair['mcnemar_c']}"
    smallest = smallest_differences(pair)
    return [
        ("accuracy", f"{accuracy}; {_both_p(pair['p'], pair['p_holm'])}"),
        ("verdict, accuracy", pair["verdict_accuracy"]),
        ("AUROC", f"{auroc}; {_both_p(pair['p_auroc'], pair['p_holm_auroc'])}"),
        ("verdict, AUROC", pair["verdict_auroc"]),
        ("McNemar, exact", f"{p_value(pair['mcnemar_p'])} ({right}; image-level)"),
        ("DeLong", f"{p_value(pair['delong_p'])} (image-level)"),
        ("Nadeau-Bengio", _nadeau_bengio(pair)),
        ("80 % power", f"from {smallest}" if smallest else "undefined"),
        ("seeds", seeds_words(pair, content["arms"])),
    ]


def _both_p(p: float | None, adjusted: float | None) -> str:
    return f"{p_value(p)}, after Holm {p_value(adjusted)}"


def _nadeau_bengio(pair: Mapping[str, Any]) -> str:
    result = pair["nadeau_bengio"]
    if result is None:
        return f"not computed: {pair['nadeau_bengio_why_not']}"
    words = []
    for key, what, change in (("accuracy", "accuracy", accuracy_change), ("auroc", "AUROC", auroc_change)):
        if test := result[key]:
            words.append(f"{what} {change(test['difference'], test['ci95'])}, {p_value(test['p'])}")
    return f"{result['k']} clean folds: {'; '.join(words)}"


def _heat_maps(pictures: Sequence[Picture]) -> list[Block]:
    if not any(picture.section == "heat-maps" for picture in pictures):
        return []
    return [
        "The same test images under the model of each arm, right and wrong ones. A heat map shows where the "
        "score is sensitive, not why, nor whether it is right; how the images were chosen stands below it."
    ]


# --- the rest --------------------------------------------------------------------------------------
def _commands(rows: Sequence[tuple[str, str]]) -> list[Block]:
    note = "Run from the folder of the project; paths outside it are given by their last part."
    return [Commands(rows), note] if rows else []


def _files(findings: Findings) -> list[Block]:
    rows = [(picture.file, picture.what) for picture in findings.pictures] + list(findings.files)
    blocks: list[Block] = [Facts("", rows)] if rows else []
    if findings.no_real_images:
        blocks.append("--no-real-images: every picture that would show a real X-ray was left out.")
    return blocks


def _missing(missing: Sequence[tuple[str, str]]) -> list[Block]:
    lines = [without_folders(f"{what}; {remedy}" if remedy else what) for what, remedy in missing]
    return [Bullets(lines)] if lines else []
