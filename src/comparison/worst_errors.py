"""The wrong calls of each arm about which it was most confident.

They are there to be looked at: some are wrong labels. A list of ten proves nothing about an arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from arms.result_files import Arm, probabilities_of_runs
from comparison.file_formats import Comparison
from comparison.reviewer_file_formats import ErrorsOfArm, WorstError
from stats.metrics import THRESHOLD

MOST = 10  # of each arm


def worst_errors(arms: Mapping[str, Arm], content: Comparison) -> dict[str, ErrorsOfArm]:
    """List the wrong calls of every arm that ``content`` compares, those farthest from 0.5 first."""
    wrong = {name: _wrong_ids(arms[name].tested) for name in content["arms"]}
    return {name: _list_errors(arms[name], wrong) for name in content["arms"]}


def _is_wrong(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return bool of the shape of ``probabilities``, [N] or [R, N]: called wrongly."""
    return (probabilities >= THRESHOLD) != (labels == 1)


def _wrong_ids(table: pd.DataFrame) -> set[str]:
    return set(table["image_id"][_is_wrong(table["label"].to_numpy(), table["probability"].to_numpy())])


def _list_errors(arm: Arm, wrong: Mapping[str, set[str]]) -> ErrorsOfArm:
    table, runs = arm.tested, probabilities_of_runs(arm)
    labels, probabilities = table["label"].to_numpy(), table["probability"].to_numpy()
    rows = np.flatnonzero(_is_wrong(labels, probabilities))
    confidence = np.abs(probabilities - THRESHOLD)
    worst = sorted(rows, key=lambda row: (-confidence[row], table["image_id"][row]))[:MOST]
    runs_wrong = _is_wrong(labels, runs).sum(axis=0)
    found: list[dict[str, Any]] = []
    for row in worst:
        record = table.iloc[row]
        found.append({
            "image_id": record["image_id"],
            "label": int(record["label"]),
            "probability": float(record["probability"]),
            "runs_wrong": int(runs_wrong[row]),
            "others_wrong": [name for name, ids in wrong.items() if name != arm.name and record["image_id"] in ids],
            "class_name": record.get("class") or None,
            "view": record.get("view") or None,
            "sex": record.get("sex") or None,
            "age": None if pd.isna(record.get("age")) else float(record["age"]),
        })  # fmt: skip
    return {"n_wrong": len(rows), "n_runs": len(runs), "worst": cast(list[WorstError], found)}
