"""The figure of a low-data study."""

import pytest

from arms.registry import study_arms
from studies import figures as plots_study
from studies import learning_curve
from study_points import write_study


@pytest.fixture
def points(tmp_path):
    return write_study(tmp_path)


def test_the_figure_has_a_logarithmic_axis_of_patients(points):
    curve = learning_curve.build_learning_curve(points, n_resamples=100)
    figure = plots_study.draw_learning_curve(curve)
    axes = figure.axes
    assert len(axes) == 4 and axes[0].get_xscale() == "log"
    assert list(axes[2].get_xticks()) == [36, 180, 720]
    labels = [label.get_text() for label in axes[2].get_xticklabels()]
    assert labels[0] == "36\n5 %\n40 images\n10 positive (few)" and "few" not in labels[1]
    shown = [text.get_text() for part in figure.subfigs for text in (*part.texts, part._suptitle) if text]
    words = " ".join(" ".join(shown).split())
    assert "n = 300 test images of 150 patients" in words
    assert "about as many optimiser steps (501 to 520)" in words
    # Each arm is a line through its three fractions, in order.
    lines = [line for line in axes[0].lines if len(line.get_xdata()) == 3]
    expected = [[p["auroc"] for p in curve["points"] if p["arm"] == arm] for arm in study_arms()[:3]]
    assert [list(line.get_ydata()) for line in lines] == expected


def test_a_single_point_can_be_drawn(points):
    figure = plots_study.draw_learning_curve(learning_curve.build_learning_curve(points[:1], n_resamples=50))
    assert len(figure.axes) == 2
