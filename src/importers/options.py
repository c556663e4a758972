"""Options of import_dataset.py."""

from __future__ import annotations

import argparse
import re

from common import paths
from common.command_line import number
from common.options import Option

LAYOUTS = ("rsna-kaggle", "folders", "nih", "chexpert", "csv")
LAYOUT_OF_GROUP = {"layout folders": "folders", "layout chexpert": "chexpert", "layout csv": "csv"}
DEFAULT_UNCERTAIN = "drop"
FOLDERS, CHEXPERT, CSV = LAYOUT_OF_GROUP  # headings of options that belong to one layout


def names(text: str) -> list[str]:
    """Parse names that commas separate."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("must be one name, or several with commas between them")
    return found


def pattern(text: str) -> re.Pattern[str]:
    """Parse a regular expression with a group."""
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from None
    if not compiled.groups:
        raise argparse.ArgumentTypeError(f"{text!r} needs brackets around what names the patient, as in '^([^_]+)_'")
    return compiled


OPTIONS = (
    Option(
        "--from", "layout of the data set: RSNA's competition on Kaggle, a folder for each class, NIH ChestX-ray14, "
        "CheXpert, or any images with a CSV file (default: none, required)",
        choices=LAYOUTS, required=True,
    ),
    Option(
        "--source", "folder of the data set; never changed (default: none, required)", required=True, metavar="PATH",
    ),
    Option(
        "--data-dir", "folder to import into: empty, or begun by the same import", default=paths.DATA_DIR,
        metavar="PATH",
    ),
    Option(
        "--positive",
        "class folders, findings, or values of the label column that are positive; all others are negative "
        "(default: what is called pneumonia)",
        type=names, metavar="NAME[,NAME...]",
    ),
    Option(
        "--patient-key",
        "file with the key of the patients' pseudonyms, made if it does not exist; imports "
        "with the same key can be compared (default: a new key, thrown away)",
        metavar="FILE",
    ),
    Option(
        "--patient-map",
        f"RSNA's mapping to NIH patients (default: {paths.PATIENT_MAP} in --source, if there)", metavar="FILE",
    ),
    Option("--keep-names", "name the images after their files; folders and csv otherwise hide the names", switch=True),
    Option("--skip-bad-images", "leave out and count images that are missing or cannot be read", switch=True),
    Option("--workers", "threads that read and write images", type=number(int, 0), default=4, metavar="N"),
    Option(
        "--group-pattern",
        "regular expression whose first group names the patient, within the file's place in its class folder, such as "
        "'^([^_]+)_' (default: Kermany's names, else unknown)",
        type=pattern, metavar="REGEX", group=FOLDERS,
    ),
    Option(
        "--uncertain", "how images with an uncertain label count (default: drop: they are left out)",
        choices=("positive", "negative", "drop"), group=CHEXPERT,
    ),
    Option(
        "--table", "the CSV file (default: the only one in --source)", metavar="FILE", group=CSV,
    ),
    *(
        Option(f"--{what}-column", f"{meaning} (default: found by its name)", metavar="NAME", group=CSV)
        for what, meaning in (
            ("image", "image file, with or without folders and ending"), ("label", "label: 0 or 1, or see --positive"),
            ("patient", "patient"), ("age", "age"), ("sex", "sex"), ("view", "view: PA, AP, lateral"),
        )
    ),
)  # fmt: skip
