"""Figures of the dataset are checked by what they draw."""

import pandas as pd
from matplotlib.text import Text

from dataset import figures


def texts(figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join(item.get_text() for item in figure.findobj(Text))


def test_counts_are_written_into_the_bars():
    counts = pd.DataFrame({"AP": [900, 10], "PA": [2100, 1500]}, index=["Normal", "Lung Opacity"])
    written = texts(figures.stacked_counts(counts, "Classes by view: n = 4,510 images", "Images"))
    assert "2,100" in written and "900" in written and "Lung Opacity" in written
    assert "\n10\n" not in written  # no room for it
    histogram = figures.count_histogram([1, 1, 1, 2, 5], "Images per patient", "Images", "Patients")
    assert [patch.get_height() for patch in histogram.axes[0].patches] == [3, 1, 1]
