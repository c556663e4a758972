"""The page of predicted images: the most suspicious first, with heat maps where there are some. It shows patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from prediction.ensembles import Decision, Ensemble
from prediction.output_table import Row
from prediction.pictures import heat_map_file, small_jpeg
from prediction.runs import LISTED, Summary
from report.blocks import count, interval, percent
from report.page import data_uri, load_template
from stats.calibration import ChosenThreshold
from stats.metrics import THRESHOLD
from utils import public_path, readable

BANNER = (
    "This page shows patients' images: keep it where patients' images may lie. It is no medical device: it was made to "
    "compare ways of training, and no decision about a patient may rest on its numbers."
)
HEAT_MAPS = (
    "A heat map shows where the score for pneumonia is sensitive, not why, nor whether the score is right. It is "
    "scaled to its own maximum: colours cannot be compared between images."
)


@dataclass(frozen=True)
class Rule:
    """A threshold: its ``name``, how it was chosen (``words``), the ``field`` of a decision, its ``value``."""

    name: str
    words: str
    field: str
    value: float


def compose_prediction_page(summary: Summary, ensemble: Ensemble, heat_map_dir: Path | None) -> str:
    """Write the page; pictures are read again from their files and embedded."""
    rows = summary.most_suspicious()
    rules = decision_rules(ensemble)
    return load_template(paths.PREDICTION_TEMPLATE).render(
        title=f"Predictions for {count(summary.n_images, 'image')}",
        banner=BANNER,
        facts=_facts(summary, ensemble, rules),
        heading=f"The {len(rows):,} most suspicious of {summary.n_predicted:,}"
        if len(rows) < summary.n_predicted
        else "Most suspicious first",
        heat_maps=HEAT_MAPS if heat_map_dir is not None else "",
        cards=[_card(number, row, rules, ensemble.inputs.bits, heat_map_dir) for number, row in enumerate(rows, 1)],
        unreadable=[(readable(str(row.file)), readable(row.error)) for row in summary.unreadable],
        n_unreadable=summary.n_images - summary.n_predicted,
        most_listed=LISTED,
    )


def decision_rules(ensemble: Ensemble) -> list[Rule]:
    """Return the thresholds that there are."""
    scale = "calibrated probability" if ensemble.points else "probability"
    rules = [Rule(f"{THRESHOLD:.2f}", f"with a {scale} of at least {THRESHOLD:g}", "at_050", THRESHOLD)]
    if (points := ensemble.points) is not None:
        named: Sequence[tuple[str, str, ChosenThreshold]] = (
            ("Youden", "at_youden", points["youden"]),
            ("sens. 90 %", "at_sensitivity_90", points["sensitivity_90"]),
        )
        rules += [Rule(name, _threshold_in_words(row), field, row["threshold"]) for name, field, row in named]
    return rules


def _threshold_in_words(row: ChosenThreshold) -> str:
    sensitivity, specificity = row["sensitivity"], row["specificity"]
    return (
        f"with at least {row['threshold']:.3f} (95 % CI {interval(row['threshold_ci95'])}); out of fold, sensitivity "
        f"{percent(sensitivity, 0)}, specificity {percent(specificity, 0)}"
    )


def _facts(summary: Summary, ensemble: Ensemble, rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """Return what stands above the pictures: pairs of a label and a text."""
    names = ", ".join(public_path(model.file) for model in ensemble.models)
    averaged = f" (mean of {len(ensemble.models)})" if len(ensemble.models) > 1 else ""
    facts = [("classifier" if not averaged else "classifiers", f"{names}{averaged}")]
    facts += [("red flag", flag) for flag in ensemble.red_flags]
    unreadable = summary.n_images - summary.n_predicted
    read = f"{summary.n_predicted:,} predicted" + (f", {unreadable:,} unreadable" if unreadable else "")
    facts.append(("images", f"{read}; {summary.n_odd:,} with warnings"))
    facts += [
        (f"positive, {rule.name}", f"{count(summary.positive[rule.field], 'image')} {rule.words}") for rule in rules
    ]
    if (points := ensemble.points) is not None:
        bounds = interval(points["temperature_ci95"], digits=2)
        facts.append(("temperature", f"{points['temperature']:.2f} (95 % CI {bounds})"))
    facts.append(("thresholds", ensemble.points_note))
    if ensemble.space is None:
        facts.append(("odd images", "not looked for beyond the files themselves: too few training images"))
    return facts


def _card(
    number: int, row: Row, rules: Sequence[Rule], bits: int | None, heat_map_dir: Path | None
) -> Mapping[str, Any]:
    """Return what the template needs of one image."""
    assert row.decision is not None
    files = [(row.file, "X-ray")]
    if heat_map_dir is not None:
        files.append((heat_map_file(heat_map_dir, row.file), "heat map"))
    pictures = []
    for file, what in files:
        try:
            content, width, height = small_jpeg(file, bits)
        except OSError:  # it was moved since
            continue
        pictures.append({"data": data_uri(content, "jpeg"), "width": width, "height": height, "what": what})
    return {
        "number": number,
        "name": readable(str(row.file)),
        "pictures": pictures,
        "probability": f"{_shown(row.decision):.3f}",
        "raw": None if row.decision.calibrated is None else f"{row.decision.probability:.3f}",
        "called": [(rule.name, bool(getattr(row.decision, rule.field))) for rule in rules],
        "warnings": row.warnings,
    }


def _shown(decision: Decision) -> float:
    return decision.probability if decision.calibrated is None else decision.calibrated
