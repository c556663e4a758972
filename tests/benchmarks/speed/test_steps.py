"""Every row of single steps at a tiny size."""

from __future__ import annotations

import pytest

from benchmarks.speed import steps
from benchmarks.speed.results import MEASUREMENTS
from fake_speed_rows import ROW_KEYS


@pytest.mark.parametrize(
    "row_id", ["unfreeze_step", "gan_step", "gan_step_no_vgg", "generate", "quality", "peak_share"]
)
def test_a_row_of_steps_measures_and_finds_agreement(bench, row_id):
    row = MEASUREMENTS[row_id](bench)
    assert list(row) == ROW_KEYS and row["status"] == "measured"
    assert row["ours"] > 0 and row["plain"] > 0 and not row["extrapolated"]
    assert row_id == "peak_share" or "agree within" in row["note"]
    assert row_id == "quality" or "untrained" in row["note"] or row_id == "gan_step_no_vgg"


def test_operations_of_resnet50_are_the_published_ones():
    # 4.09 thousand million multiply-adds at 224 pixels: torchvision's table of models.
    assert steps.inference_operations(224) == pytest.approx(2 * 4.09e9, rel=0.01)
