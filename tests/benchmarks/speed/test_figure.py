"""The figure of the speed benchmark."""

from __future__ import annotations

import pytest

from benchmarks.speed import plan
from benchmarks.speed.figure import speed_figure
from fake_speed_rows import fake_row


def test_speedups_stand_on_their_own_axis_and_limits_below():
    rows = [fake_row("quality"), fake_row("memory"), fake_row("peak_share"), plan.not_measured("growth", "no"),
            plan.not_measured("generate", "no"), fake_row("lite0")]  # fmt: skip
    content = {"machine": {"gpu": None, "cpu": "a CPU", "cores": 2}, "settings": {"quick": True}, "rows": rows}
    above, below = speed_figure(content).axes
    assert [text.get_text() for text in above.texts] == ["1.5x", "not measured"]
    ends = [bar.get_x() + bar.get_width() for bar in above.patches]
    assert ends == pytest.approx([1.5, 1.0])  # speed-ups themselves, whatever was aimed at
    assert [text.get_text() for text in below.texts] == ["2 GB, limit 3 GB", "67 % of 3 GFLOP/s", "not measured"]
    assert [bar.get_width() for bar in below.patches] == pytest.approx([200 / 3, 200 / 3, 0.0])
