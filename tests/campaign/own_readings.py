"""Readings of tables that share no code with the scripts: the csv module, and formulas written out."""

from __future__ import annotations

import csv
import io


def table_by_image(content: bytes) -> dict[str, dict[str, list[str]]] | None:
    """Read a metadata table by the csv module: image -> column -> its cells; None if it is no plain table."""
    try:
        rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    names = [name.strip() for name in rows[0]]
    if "patientId" not in names:
        return None
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows[1:]:
        row = [cell.strip().removeprefix("=").strip('"') for cell in row]  # Excel protects zeros as ="0012"
        cells = found.setdefault(row[names.index("patientId")], {})
        for name, cell in zip(names, row, strict=True):
            cells.setdefault(name, []).append(cell)
    return found


def scores_of(content: bytes) -> dict[str, float] | None:
    """Score a table of predictions, with formulas of this file; None if it is no plain table."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        pairs = [(int(float(row["label"])), float(row["probability"])) for row in rows]
        patients = {row["patient"] for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error):
        return None
    positive, negative = ([p for label, p in pairs if label == wanted] for wanted in (1, 0))
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    found = {
        "n_images": len(pairs), "n_patients": len(patients), "n_positive": len(positive),
        "accuracy": sum((p >= 0.5) == bool(label) for label, p in pairs) / len(pairs),
        "brier": sum((p - label) ** 2 for label, p in pairs) / len(pairs),
    }  # fmt: skip
    return {**found, "auroc": wins / (len(positive) * len(negative))} if positive and negative else found
