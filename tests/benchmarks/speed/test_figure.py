"""The figure of the speed benchmark."""

from __future__ import annotations

from benchmarks.speed import plan
from benchmarks.speed.figure import speed_figure
from fake_speed_rows import fake_row


def test_the_figure_says_reached_missed_and_not_measured():
    content = {
        "machine": {"gpu": None, "cpu": "a CPU", "cores": 2},
        "settings": {"quick": True},
        "rows": [fake_row("quality"), fake_row("memory"), plan.not_measured("growth", "no")],
    }
    (ax,) = speed_figure(content).axes
    words = {text.get_text() for text in ax.texts}
    assert words == {"1.5x, target 5x", "2 GB, limit 3 GB", "not measured"}
