"""What the comparison says, section by section, for a text file and a page alike: findings in, blocks out.

Written to be read by someone who reads X-rays, not JSON. It states numbers, how many images and patients
they rest on, and what they cannot tell. The only conclusions are the verdicts that ``comparison.json``
holds, one per pair and compared metric, word for word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison.external import ExternalReport
from comparison.file_formats import ArmResult, Comparison, PairResult, metric_entry
from comparison.planned_pairs import EXPLORATORY
from dataset.patients import grouping_sentence
from report import details, reviewer_details
from report.blocks import (
    Block,
    Bullets,
    Commands,
    Facts,
    Links,
    Section,
    Table,
    capital,
    change,
    column_of,
    count,
    decimal,
    interval,
    p_value,
    percent,
    scale_of,
    with_interval,
)
from report.external import external_images, report_links, shift, thresholds_carried_over
from report.file_formats import PatientFlow
from report.patient_flow import flow_table
from report.verdict import seeds_words, smallest_differences, verdict_lines
from stats.metric_registry import METRICS, Metric, Shown, compared_metrics, metrics_shown
from stats.paired_tests import points
from utils import without_folders


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its file, a caption that can be read alone, and its section's key."""

    file: str
    what: str
    section: str


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    ``comparison`` is the content of comparison.json, ``quality`` of image_quality.json, None if not made;
    ``comparability``: what the Fréchet distance may be compared with; ``cross_validated``: arm ->
    cv_summary.json; ``missing``: (what is not there, how to get it); ``commands``: (what it does, command
    line); ``files``: (name, what it holds); ``flow``: content of patient_flow.json; ``cards``: files for authors
    and reviewers (name, what it holds); ``external_reports``: of external tests, linked to from ``folder``.
    """

    comparison: Comparison
    cross_validated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quality: Mapping[str, Any] | None = None
    comparability: str = ""
    flags: Sequence[str] = ()
    missing: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Picture] = ()
    commands: Sequence[tuple[str, str]] = ()
    files: Sequence[tuple[str, str]] = ()
    no_real_images: bool = False
    flow: PatientFlow | None = None
    cards: Sequence[tuple[str, str]] = ()
    external_reports: Sequence[ExternalReport] = ()
    folder: Path = Path()


# Key of a section that the page folds -> the words that open it.
FOLDED = {"reviewers": "Show the patient flow, the cards and the checklist", **reviewer_details.FOLDED}


def sections(findings: Findings) -> list[Section]:
    """Write the report, always in this order; sections without content are left out."""
    content = findings.comparison
    images = details.images(findings.quality, findings.comparability)
    if external := content.get("external"):
        own = [
            ("test-set", f"The images of {external['test']['name']}", external_images(content, external)),
            ("shift", f"Internal test and {external['test']['name']}", shift(external)),
        ]
        at_thresholds = thresholds_carried_over(content, external)
    else:
        own = [("test-set", "Test set and references", _test_set(content, findings.flow))]
        at_thresholds = details.thresholds(content)
    parts = [
        ("verdict", "Verdict", verdict_lines(content)),
        ("warnings", "Warnings: read these before any number", _warnings(findings.flags)),
        *own,
        ("external", "External tests", report_links(findings.external_reports, findings.folder)),
        ("arms", "Each arm on the test images", _arms(content)),
        ("differences", "Differences between arms", _differences(content)),
        ("shortcut", "Shortcut test: does blur pass for the label?", details.shortcut(content)),
        ("thresholds", "Thresholds carried over" if external else "Thresholds", at_thresholds),
        ("calibration", "Calibration", details.calibration(content)),
        ("subgroups", "Subgroups", details.subgroups(content)),
        (
            "training", "Training" if external else "Training and cross-validation",
            details.training(content, findings.cross_validated),
        ),
        ("images", "Synthetic images beside real ones", images),
        ("heat-maps", "Heat maps", _heat_maps(findings.pictures)),
        ("reviewers", "For authors and reviewers", _reviewers(findings)),
        *reviewer_details.parts(content),
        ("commands", "Commands that made these results", _commands(findings.commands)),
        ("files", "Files beside this report", _files(findings)),
        ("missing", "What is missing", _missing(findings.missing)),
    ]  # fmt: skip
    shown = {picture.section for picture in findings.pictures}
    return [
        Section(key, heading, blocks, FOLDED.get(key, "")) for key, heading, blocks in parts if blocks or key in shown
    ]


def _warnings(flags: Sequence[str]) -> list[Block]:
    return [Bullets([without_folders(flag) for flag in flags])] if flags else []


# --- the test set and the arms ---------------------------------------------------------------------
def _test_set(content: Comparison, flow: PatientFlow | None) -> list[Block]:
    test = content["test_set"]
    split = f"split {test['split_sha256'][:12]}" if test["split_sha256"] else "an unknown split"
    part = f"the test part of {split}"
    if flow and flow["test_set"] == "official":
        part = "the official test set; nothing was trained on it"
    grouped = grouping_sentence(test["grouped_by"]) if test["grouped_by"] else ""
    words = (
        f"The test set has {count(test['n_images'], 'image')} of {count(test['n_patients'], 'patient')}; "
        f"{test['n_positive']:,} of the images are positive ({percent(test['prevalence'])}). It is {part}. "
        f"{f'{capital(grouped)}. ' if grouped else ''}"
        "No test image was used to choose an epoch, a threshold, a temperature or a setting."
    )
    return [words, Facts("Reference predictors that ignore the lungs", details.reference_rows(content))]


def _arms(content: Comparison) -> list[Block]:
    arms, goal = content["arms"], content["goal"]
    of_training = "external" not in content  # the goal was set for its test
    first, more = metrics_shown(Shown.ARMS), metrics_shown(Shown.DETAILS)
    main = Table(
        ("arm", *map(column_of, first), *([f"goal {percent(goal['accuracy'], 0)}"] if of_training else [])),
        [
            (
                name,
                *(_cell(row, metric) for metric in first),
                *(["met" if goal["arms"][name]["met"] else "not met"] if of_training else []),
            )
            for name, row in arms.items()
        ],
    )
    return [
        main,
        "An image is called positive from a probability of 0.5. Brackets hold 95 % confidence intervals that "
        "take every image for independent of the others (image-level: Wilson for accuracy, DeLong for "
        "AUROC). The next table holds the intervals by patient, which keep the images of a patient together.",
        _by_patient(arms),
        Table(
            ("arm", *(metric.heading for metric in more)),
            [(name, *(decimal(metric_entry(row, m)) for m in more)) for name, row in arms.items()],
        ),
        "wPrec, wRec and wF1 are means over the two classes, weighted by class size. PPV and NPV hold at the "
        "prevalence of this test set.",
        *_at_prevalence(arms),
        *_moved_prior(arms),
    ]


def _cell(row: ArmResult, metric: Metric) -> str:
    """Return a metric of an arm, with its image-level interval if it has one."""
    value, (scale, digits) = metric_entry(row, metric), scale_of(metric)
    if metric.image_level:
        return with_interval(value, metric_entry(row, metric, "ci95_image_level"), scale, digits)
    return decimal(None if value is None else scale * value, digits)


def _by_patient(arms: Mapping[str, ArmResult]) -> Table:
    resampled = [metric for metric in METRICS.values() if metric.weighted]
    rows = [
        (name, *(interval(metric_entry(row, metric, "ci95"), *scale_of(metric)) for metric in resampled))
        for name, row in arms.items()
    ]
    return Table(("arm", *(f"{column_of(metric)}: 95 % CI by patient" for metric in resampled)), rows)


def _at_prevalence(arms: Mapping[str, ArmResult]) -> list[Block]:
    found = [(name, item) for name, row in arms.items() if (item := row["at_prevalence"])]
    if not found:
        return []
    rows = [(name, decimal(item["ppv"]), decimal(item["npv"])) for name, item in found]
    return [Table((f"at a prevalence of {percent(found[0][1]['prevalence'])}", "PPV", "NPV"), rows)]


def _moved_prior(arms: Mapping[str, ArmResult]) -> list[Block]:
    """Explain how another share of positives in training changes results at a probability of 0.5."""
    trained = []
    for name, row in arms.items():
        if row["n_synthetic"]:
            trained.append(f"{name} trained on {details.synthetic_words(row)}")
        elif row["n_duplicated"]:
            trained.append(f"{name} trained on {details.duplicated_words(row)}")
        elif row["class_weights"]:
            trained.append(f"{name} trained with a loss weighted by class")
    if not trained:
        return []
    extra = [row for row in arms.values() if details.n_extra(row)]
    negatives = any(row["n_extra_positive"] != details.n_extra(row) for row in extra)
    classes, effect = "positives", "raise the predicted probabilities"
    if negatives:
        classes, effect = "one class", f"{effect} (positives) or lower them (negatives)"
    return [
        f"Mind the threshold: {', '.join(trained)}. Extra weight on {classes} tends to {effect} by itself. "
        "Accuracy, sensitivity and specificity at 0.5 change with that, whatever else was learned. AUROC "
        "does not depend on it."
    ]


# --- differences -----------------------------------------------------------------------------------
def _differences(content: Comparison) -> list[Block]:
    pairs = content["pairs"]
    blocks: list[Block] = [Facts(f"{pair['b']} minus {pair['a']}", _pair_rows(pair, content)) for pair in pairs]
    if pairs:
        s = content["settings"]
        blocks.append(
            "Both arms of a pair were scored on the same test images. Intervals and p values come from a "
            f"paired bootstrap with {s['n_resamples']:,} resamples of the patients (seed {s['seed']}); p of an "
            "exploratory pair is adjusted for their number (Holm). McNemar and DeLong take every image for "
            "independent of the others (image-level) and are not adjusted. The verdict follows a fixed rule, in this "
            f"order: if the interval lies within ±{points(s['margin'])}, the arms are equivalent; if the adjusted p "
            f"is below {s['alpha']:g}, there is a difference in its direction; otherwise there is "
            "no evidence of one."
        )
    if others := content["not_compared"]:
        reasons = [f"{item['b']} and {item['a']} are not compared: {item['reason']}." for item in others]
        blocks.append(Bullets(reasons))
    return blocks or ["There is only one arm, so there is nothing to compare."]


def _pair_rows(pair: PairResult, content: Comparison) -> list[tuple[str, str]]:
    rows = []
    for metric in compared_metrics():
        difference, bounds, p, p_holm, role, verdict = (
            metric_entry(pair, metric, what) for what in ("difference", "ci95", "p", "p_holm", "role", "verdict")
        )
        adjusted = f"after Holm {p_value(p_holm)}" if role == EXPLORATORY else f"{role}, not adjusted"
        numbers = f"{change(metric, difference, bounds)}; {p_value(p)}, {adjusted}"
        rows += [(metric.title, numbers), (f"verdict, {metric.title}", verdict)]
    right = f"only {pair['a']} was right on {pair['mcnemar_b']} images, only {pair['b']} on {pair['mcnemar_c']}"
    smallest = smallest_differences(pair)
    return [
        *rows,
        ("McNemar, exact", f"{p_value(pair['mcnemar_p'])} ({right}; image-level)"),
        ("DeLong", f"{p_value(pair['delong_p'])} (image-level)"),
        ("Nadeau-Bengio", _nadeau_bengio(pair)),
        ("found with 80 % power", f"{smallest}, or more" if smallest else "undefined"),
        ("training seeds", f"the intervals {seeds_words(pair, content['arms'])}"),
    ]


def _nadeau_bengio(pair: PairResult) -> str:
    result = pair["nadeau_bengio"]
    if result is None:
        return f"not computed: {pair['nadeau_bengio_why_not']}"
    words = []
    for metric in compared_metrics():
        if test := metric_entry(result, metric):
            numbers = change(metric, test["difference"], test["ci95"])
            words.append(f"{metric.title} {numbers}, {p_value(test['p'])}")
    return f"over {result['k']} clean folds: {'; '.join(words)}"


# --- the rest --------------------------------------------------------------------------------------
def _heat_maps(pictures: Sequence[Picture]) -> list[Block]:
    if not any(picture.section == "heat-maps" for picture in pictures):
        return []
    return [
        "Each arm's model looks at the same test images; some of them are called correctly, some wrongly. A "
        "heat map shows where the score is sensitive. It does not show why, nor whether the score is right. "
        "The words below the maps say how the images were chosen."
    ]


def _reviewers(findings: Findings) -> list[Block]:
    blocks: list[Block] = []
    if findings.cards:
        blocks += ["Files for a paper or a submission. The author fills in what no tool can know.",
                   Links(findings.cards)]  # fmt: skip
    if findings.flow:
        blocks += flow_table(findings.flow)
    return blocks


def _commands(rows: Sequence[tuple[str, str]]) -> list[Block]:
    note = "Run these commands in the folder of the project. A path outside it is given by its last part only."
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
