"""Sizes so small that a row of the speed benchmark takes seconds, and rows that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.file_formats import SpeedRow
from benchmarks.speed import plan

TINY = replace(
    plan.QUICK, side=32, source_side=64, small_side=32, epochs=1, folds=2, baseline_images=40, plain_images=8,
    full_images=160, batch=4, feature_maps=4, generated=6, compared=40, features=16, inference_images=4,
    growth=(40, 48, 56, 64), repeats=1, matrix=64, copied_bytes=2**16,
)  # fmt: skip
ROW_KEYS = ["id", "name", "plain", "ours", "unit", "ratio", "target", "extrapolated", "status", "note"]


def tiny_bench(work: Path) -> plan.Bench:
    return plan.Bench(TINY, torch.device("cpu"), "fp32", "none", 1, work)


def fake_row(row_id: str) -> SpeedRow:
    item = plan.PLAN_OF[row_id]
    return plan.measured(row_id, 2.0, 3.0 if item.kind in ("speedup", "share") else None, note="made up")
