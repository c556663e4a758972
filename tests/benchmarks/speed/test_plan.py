"""Rows of the speed benchmark: ratios, targets, sizes."""

from __future__ import annotations

import pytest

from benchmarks.speed import plan
from benchmarks.speed.results import reached


@pytest.mark.parametrize(
    ("row_id", "ours", "theirs", "ratio"),
    [("gan_step", 2.0, 16.0, 8.0), ("memory", 1.5, None, 2.0), ("warm_full", 60.0, None, 0.5),
     ("growth", 5.0, None, 2.0), ("peak_share", 140.0, 200.0, 0.7)],
)  # fmt: skip
def test_a_larger_ratio_is_better_whatever_a_row_compares_with(row_id, ours, theirs, ratio):
    row = plan.measured(row_id, ours, theirs, note="")
    assert row["ratio"] == pytest.approx(ratio)
    assert reached(row) == (ratio >= row["target"])


def test_a_time_alone_has_no_ratio_and_no_target():
    row = plan.measured("lite0", 60.0, note="")
    assert row["ratio"] is None and row["target"] is None and not reached(row)


def test_a_quick_run_is_small_throughout_and_growth_doubles():
    for name in (
        "baseline_images",
        "plain_images",
        "full_images",
        "batch",
        "generated",
        "compared",
        "repeats",
    ):
        assert getattr(plan.QUICK, name) < getattr(plan.FULL, name)
    assert plan.FULL.full_images == plan.REAL_SIZE == 26_684
    assert plan.FULL.growth == (500, 1000, 2000, 4000)
    for sizes in (plan.QUICK.growth, plan.FULL.growth):
        assert [b / a for a, b in zip(sizes, sizes[1:], strict=False)] == [2, 2, 2]


def test_targets_are_those_that_were_set():
    targets = {item.id: item.target for item in plan.PLANS}
    assert targets == {
        "baseline_default": 150, "first_pass": 3, "warm_full": 1, "unfreeze_step": 2, "gan_step": 8,
        "gan_step_no_vgg": 2, "generate": 4, "quality": 5, "peak_share": 0.7, "memory": 1, "growth": 1,
        "lite0": None, "lite0_warm": None,
    }  # fmt: skip
    assert (plan.MAX_SECONDS, plan.MAX_GB, plan.MAX_DEVIATION) == (30, 3, 10)
