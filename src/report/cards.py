"""Model card and data set card: what the files say is filled in, the rest waits for the author.

An author fills the cells marked so, in the file. A new analysis keeps what was filled in and renews the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from dataset.splits import TEST, TRAIN
from report import data_facts as data
from report import model_facts as model
from report.blocks import Table, percent
from report.markdown import code_block, escape_text, join_cells, read_tables, write_table
from report.patient_flow import flow_table
from report.study import Fact, Study
from utils import save_text

if TYPE_CHECKING:
    import pandas as pd

ASK = "**The author must fill this:** "
AUTHOR = "author"  # source of what the author fills in
NO_FILE = "no file of this analysis says it"
COLUMNS = ("field", "value", "source")
INTRODUCTION = (
    "Written by `analyze_results.py`. A value stands beside the file and the key that it comes from. What no file can "
    f'know is marked "{ASK.strip("* :")}": write into that cell, in one line. A new analysis keeps these cells '
    "and writes everything else anew."
)
Field = tuple[str, Fact | str | None]  # name; a fact, or what the author must say; None: left out


def write_cards(study: Study, folder: Path) -> None:
    """Write model_card.md and dataset_card.md."""
    names = ", ".join(study.comparison["arms"])
    _write_card(paths.model_card(folder), f"Model card: {names}", _model_sections(study))
    _write_card(paths.dataset_card(folder), "Data set card", _data_sections(study))


# --- model card ------------------------------------------------------------------------------------
def _model_sections(study: Study) -> dict[str, Sequence[Field | str]]:
    return {
        "Model": [
            ("Kind", model.model_kind(study)),
            ("Arms", model.arms_compared(study)),
            ("Network", model.architecture(study)),
            ("Initial weights", model.initial_weights(study) or NO_FILE),
            ("Preprocessing", model.preprocessing(study) or NO_FILE),
            ("Training", model.training_options(study) or NO_FILE),
            ("Choice of the final model", model.selection(study) or NO_FILE),
            ("Several training runs", model.ensemble(study)),
            ("Software and device", model.software(study) or NO_FILE),
            ("Files", _files(study) or NO_FILE),
            ("Owner, contact, date and version", "who made the model, whom to ask, when, and which version this is"),
            ("Licence of the trained model", "terms of the weights; those of the initial weights count, too"),
        ],
        "Intended use": [
            ("Intended use", "what the model is for, and in which setting"),
            ("Intended users", "who may use it, and what they must know"),
            ("Uses that it is not for", "at least: diagnosis without a study that supports it"),
        ],
        "Factors": [
            ("Subgroups scored", model.subgroups(study)),
            ("Arms compared within subgroups", model.interactions(study)),
            ("Factors not scored", "such as site, device, ethnicity, severity and other diseases, and why"),
        ],
        "Training data": [
            ("Real images", data.images_and_patients(study)),
            ("Split", data.split(study) or NO_FILE),
            ("Cross-validation", data.folds(study)),
            ("Synthetic images", data.synthetic_origin(study)),
            ("Generator", data.generator(study)),
            ("Unequal classes", model.imbalance(study)),
        ],
        "Test data": [
            ("Test set", data.test_set(study)),
            ("Level of the split", data.grouping(study) or NO_FILE),
            ("External test set", data.external_tests(study) or "a test on people from elsewhere, and its result"),
        ],
        "Metrics and results": _results(study),
        "Ethics": [
            ("Ethical considerations", "risks, harms, who is affected, and what was done about it"),
            ("Approval and consent", "committee, number, consent or waiver"),
        ],
        "Caveats": [
            ("Warnings of this analysis", model.limits(study)),
            ("Limits and recommendations", "what else a user must know before relying on the model"),
        ],
        "Commands": [code_block([f"# {what}\n{line}" for what, line in study.commands])] if study.commands else [],
    }


def _results(study: Study) -> list[Field | str]:
    return [
        ("Metrics", model.metrics(study)),
        ("Uncertainty", model.uncertainty(study)),
        ("Thresholds", model.thresholds(study)),
        ("Calibration", model.calibration(study)),
        ("Differences between arms", model.differences(study)),
        ("Net benefit", model.net_benefit(study)),
        ("Robustness", model.robustness(study)),
        ("What ignoring the lungs achieves", model.references(study)),
        ("Wrong calls at 0.5", model.confusion(study)),
        ("Worst errors", model.errors(study)),
        _scores(study),
    ]


def _files(study: Study) -> Fact | None:
    known = [arm for arm in study.arms.values() if arm.metrics]
    files = ", ".join(paths.classifier_model("", arm.prefix, arm.backbone).name for arm in known)
    source = "each arm's final_metrics.json: prefix, config"
    return Fact(f"in the folder of --model-dir: {files}", source) if known else None


def _scores(study: Study) -> str:
    """Write every metric of every arm as a table."""
    scores = {name: model.arm_scores(study, name) for name in study.comparison["arms"]}
    titles = [title for title, _ in next(iter(scores.values()))]
    rows = [(name, *(text for _, text in found)) for name, found in scores.items()]
    return _markdown(Table(("arm", *titles), rows, "Test set; brackets: 95 % interval by patient"))


# --- data set card ---------------------------------------------------------------------------------
def _data_sections(study: Study) -> dict[str, Sequence[Field | str]]:
    people = [_markdown(people_table(study.data.dataset.images, study.data.splits.images))] if study.data else []
    flow, notes = flow_table(study.flow)
    data_flags = [*study.data.dataset.red_flags, *study.data.dataset.notes] if study.data else []
    flags = Fact("; ".join(data_flags), paths.TRAIN_METADATA) if data_flags else None
    return {
        "Data set": [
            ("Name and source", data.data_set(study) or "name, version, link, and how it was obtained"),
            ("Version of the table", data.data_version(study) or NO_FILE),
            ("Licence and terms", "under which terms the images may be used and shared"),
            ("Hospitals, period, country", "where and when the images were taken"),
            ("Purpose", "why the data were collected, and by whom"),
        ],
        "Images and people": [
            ("Images", data.images_and_patients(study)),
            ("Who counts as one patient", data.grouping(study) or NO_FILE),
            ("Views", data.views(study) or NO_FILE),
            ("Acquisition", "devices, protocols, resolution and bits of the originals"),
            ("Missing data", data.missing_data(study) or NO_FILE),
            ("What reading the table found", flags),
            ("How far the people stand for the intended population", "who is missing or over-represented"),
            *people,
        ],
        "Patient flow": [_markdown(flow), escape_text(notes) + "\n", "Figure: `patient_flow.png`.\n"],
        "Labels": [
            ("Meaning", data.label(study) or NO_FILE),
            ("Reference standard", "how the label was obtained, and why this way"),
            ("Annotators", "who labelled, with which training and tools"),
            ("Quality of the annotation", "agreement between readers, and how disagreements were settled"),
        ],
        "Parts": [
            ("Split", data.split(study) or NO_FILE),
            ("Cross-validation", data.folds(study)),
            ("Left out within the data folder", data.exclusions(study)),
            ("Left out before", "inclusion and exclusion criteria, and how many they left out"),
        ],
        "Synthetic images": [
            ("Used by arms", data.synthetic_origin(study)),
            ("Generator", data.generator(study)),
            ("Compared with real ones", data.synthetic_quality(study)),
        ],
        "Ethics and privacy": [
            ("Approval and consent", "committee, number, consent or waiver"),
            ("What the import removed", data.removed_at_import(study)),
            ("De-identification", "how names, dates and text in pixels were removed, and who checked it"),
            ("Sensitive content", "what the images could reveal, and to whom they may be shown"),
        ],
    }  # fmt: skip


def people_table(images: pd.DataFrame, split: pd.DataFrame) -> Table:
    """Return age, sex, view and class of both sides of the split, in images.

    ``images``: image_id, view, sex, age, class; ``split``: image_id, role.
    """
    role = split.set_index("image_id")["role"]
    sides = {what: images[images["image_id"].map(role) == name] for name, what in ((TRAIN, "training"), (TEST, "test"))}
    rows: list[tuple[str, ...]] = [("images", *(f"{len(side):,}" for side in sides.values()))]
    rows.append(("age in years: median (quartiles)", *(_age(side["age"]) for side in sides.values())))
    rows.append(("age unknown", *(_share(side["age"].isna()) for side in sides.values())))
    for column in ("sex", "view", "class"):
        for value in sorted(images[column].fillna("").unique(), key=lambda text: (text == "", text)):
            name = f"{column} {value or ('not given' if column == 'class' else 'unknown')}"
            rows.append((name, *(_share(side[column].fillna("") == value) for side in sides.values())))
    return Table(("characteristic", *(f"{what} side" for what in sides)), rows, "Images of both sides of the split")


def _age(ages: pd.Series) -> str:
    known = ages.dropna()
    low, middle, high = (known.quantile(q) for q in (0.25, 0.5, 0.75)) if len(known) else (None, None, None)
    return "–" if middle is None else f"{middle:.0f} ({low:.0f}–{high:.0f})"


def _share(chosen: pd.Series) -> str:
    return f"{int(chosen.sum()):,} ({percent(float(chosen.mean()))})" if len(chosen) else "0"


# --- writing ---------------------------------------------------------------------------------------
def _write_card(path: Path, title: str, sections: Mapping[str, Sequence[Field | str]]) -> None:
    filled = authors_cells(path)
    parts = [f"# {escape_text(title)}\n", INTRODUCTION + "\n"]
    for heading, entries in sections.items():
        fields = [entry for entry in entries if not isinstance(entry, str)]
        rows = [row for name, value in fields if (row := _row(name, value, filled))]
        parts += [f"## {heading}\n"] if rows or len(fields) < len(entries) else []
        parts += [write_table(COLUMNS, rows)] if rows else []
        parts += [entry for entry in entries if isinstance(entry, str)]
    if filled:  # of fields that are filled by facts now, or of an earlier version
        rows = [(name, text, AUTHOR) for name, text in filled.items()]
        parts += ["## Kept from an earlier version\n", write_table(COLUMNS, rows)]
    save_text(path, "\n".join(parts))


def _row(name: str, value: Fact | str | None, filled: dict[str, str]) -> tuple[str, str, str] | None:
    """Return the cells of a field; takes what the author wrote out of ``filled``."""
    name = escape_text(name)
    if isinstance(value, Fact):
        return name, escape_text(value.text), escape_text(value.source)
    if value is None:
        return None
    return name, filled.pop(name, "") or ASK + escape_text(value), AUTHOR


def authors_cells(path: Path) -> dict[str, str]:
    """Return field -> what the author wrote, of the cells of a card that the author has filled."""
    rows = [row for row in read_tables(path) if len(row) >= len(COLUMNS) and row[-1] == AUTHOR]
    written = {row[0]: join_cells(row[1:-1]) for row in rows}
    return {name: text for name, text in written.items() if text and not text.startswith(ASK.strip())}


def _markdown(table: Table) -> str:
    """Write a table of the report as Markdown."""
    rows = [[escape_text(cell) for cell in row] for row in table.rows]
    title = f"{escape_text(table.title)}:\n\n" if table.title else ""
    return title + write_table([escape_text(column) for column in table.columns], rows)


def count_open_fields(path: Path) -> int:
    """Count the fields of a card that still wait for the author."""
    return sum(row[1].startswith(ASK.strip()) for row in read_tables(path) if len(row) == len(COLUMNS))
