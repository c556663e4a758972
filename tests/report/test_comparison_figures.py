"""Figures of the comparison are checked by what they draw: lines, bars, words, and who has which colour."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from arms.figures import arm_colours
from arms.registry import ARMS
from fake_comparison import fake_comparison
from report import comparison_figures as figures

FOUR = ("baseline", "augmented", "control_duplicate", "control_weight")


def texts(figure: Figure) -> str:
    return "\n".join(item.get_text() for item in figure.findobj(mpl.text.Text))


def segments(ax) -> list[tuple[list[float], list[float]]]:
    """(x, y) of the lines of two points: intervals, and lines across the whole axes."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines if len(line.get_xdata()) == 2]


def small() -> dict:
    t = np.linspace(0, 1, 20)
    return {"fpr": t, "tpr": np.sqrt(t), "recall": t, "precision": 1 - 0.7 * t}


# --- differences -----------------------------------------------------------------------------------
def test_differences_draws_every_pair_with_its_interval_margin_and_verdict():
    content = fake_comparison(FOUR, verdicts=("VERDICT-A", "VERDICT-B"))
    content["settings"]["margin"] = 0.02
    figure = figures.differences(content)
    for ax, metric, scale in zip(figure.axes, ("accuracy", "auroc"), (100, 1), strict=True):
        drawn = [x for x, y in segments(ax) if y[0] == y[1]]
        wanted = [[scale * bound for bound in pair[f"{metric}_ci95"]] for pair in content["pairs"]]
        np.testing.assert_allclose(drawn, wanted)
        points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
        values = [scale * pair[f"{metric}_difference"] for pair in content["pairs"]]
        np.testing.assert_allclose(points, list(zip(values, range(6), strict=True)))
        low, high = ax.get_xlim()
        assert low <= np.min(drawn) and np.max(drawn) <= high and low == -high
        (margin,) = [p for p in ax.patches if to_rgb(p.get_facecolor()) == to_rgb(figures.BAND)]
        assert margin.get_x() == pytest.approx(-0.02 * scale)
        assert margin.get_width() == pytest.approx(0.04 * scale)
    written = texts(figure)
    assert written.count("VERDICT-A") == written.count("VERDICT-B") == 6
    assert "control_weight − control_duplicate" in written and "margin: within 2 points" in written
    assert "n = 301 test images of 258 patients, 75 positive" in written
    assert "(smallest found with 80 % power: 6.1)" in written and "power: 0.042)" in written


def test_differences_state_numbers_with_signs_and_undefined_ones():
    content = fake_comparison()
    pair = content["pairs"][0]
    pair |= {"accuracy_difference": 0.0123, "accuracy_ci95": [-0.0204, 0.045], "auroc_difference": None,
             "auroc_minimum_detectable_difference": None}  # fmt: skip
    written = texts(figures.differences(content))
    assert "+1.2 (−2.0 to +4.5)  no evidence of a difference" in written and "undefined" in written
    pair |= {"auroc_difference": -0.0001, "auroc_ci95": [-0.03, 0.03]}
    assert "0.000 (−0.030 to +0.030)" in texts(figures.differences(content))


def test_only_the_two_decisive_verdicts_are_bold():
    for verdict, weight in (("better", "bold"), ("worse", "bold"), ("no evidence of a difference", "normal")):
        figure = figures.differences(fake_comparison(verdicts=(verdict, "equivalent within 1 point")))
        accuracy, auroc = figure.axes
        (own,) = [text for text in accuracy.texts if text.get_text().endswith(verdict)]
        assert own.get_fontweight() == weight
        (other,) = [text for text in auroc.texts if "equivalent" in text.get_text()]
        assert other.get_fontweight() == "normal"


# --- the others ------------------------------------------------------------------------------------
def test_curves_are_those_given_and_the_legend_states_the_areas():
    content = fake_comparison(FOUR)
    curves = {name: small() for name in FOUR}
    figure = figures.roc_pr(curves, content)
    roc, pr = figure.axes
    assert sum(len(line.get_xdata()) == 20 for line in roc.lines) == 4
    styles = {(to_rgb(line.get_color()), line.get_linestyle()) for line in roc.lines if len(line.get_xdata()) == 20}
    assert len(styles) == 4
    prevalence = content["test_set"]["prevalence"]
    assert any(np.allclose(y, prevalence) for _, y in segments(pr))
    arm, written = content["arms"]["augmented"], texts(figure)
    low, high = arm["auroc_ci95_image_level"]
    assert (
        f"augmented: AUROC {arm['auroc']:.3f} (95 % CI, image-level: {low:.3f} to {high:.3f}), "
        f"AP {arm['auprc']:.3f}" in written
    )
    assert "prevalence 24.9 %" in written and "n = 301 test images" in written


def test_calibration_draws_both_curves_and_all_counts():
    content = fake_comparison(FOUR[:3])
    content["arms"]["augmented"]["calibration"] |= {"temperature": None, "after": None, "bins_after": None}
    figure = figures.calibration(content)
    shown = [ax for ax in figure.axes if ax.axison]
    tops = [ax for ax in shown if ax.get_ylabel() == "Share of positives"]
    bottoms = [ax for ax in shown if ax.get_ylabel() == "Images"]
    assert len(tops) == len(bottoms) == 3
    bins = content["arms"]["baseline"]["calibration"]["bins_before"]
    (curve,) = [line for line in tops[0].lines if line.get_markerfacecolor() == "white"]
    np.testing.assert_allclose(curve.get_ydata(), [b["share_positive"] for b in bins if b["n"]])
    assert [len(ax.lines) for ax in tops] == [3, 2, 3]  # the diagonal, before, after
    assert sum(bar.get_height() for bar in bottoms[1].patches) == 301
    written = texts(figure)
    assert "ECE 0.031 temperature 1.31" in written and "no temperature" in written


def test_confusion_states_counts_and_shares_of_rows():
    content = fake_comparison(("baseline",))
    content["arms"]["baseline"]["confusion_matrix"] = [[200, 26], [45, 30]]
    written = texts(figures.confusion(content)).split("\n")
    assert {"200", "26", "45", "30", "88.5 %", "11.5 %", "60.0 %", "40.0 %"} <= set(written)
    assert "Right and wrong calls, positive from a probability of 0.5" in written


def test_subgroups_draw_an_interval_per_arm_and_say_where_there_are_too_few():
    content = fake_comparison(FOUR)
    for arm in content["arms"].values():
        rows = arm["subgroups"]
        rows[0] |= {"auroc": None, "auroc_ci95_image_level": None}
    figure = figures.subgroups(content)
    people, classes = figure.axes
    inside = [x for x, y in segments(people) if y[0] == y[1] and x != [0, 1]]
    assert len(inside) == 6 * 4
    assert [text.get_text() for text in people.texts] == ["too few images"]
    labels = [label.get_text() for label in classes.get_yticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["Lung Opacity", "Normal", "No Lung Opacity / Not"]
    row = content["arms"]["baseline"]["subgroups"][7]
    assert row["sensitivity_ci95_image_level"] in [x for x, _ in segments(classes)]
    assert f"n = {row['n_images']}" in labels[0]


def test_an_arm_without_subgroups_is_left_out_of_them():
    content = fake_comparison()
    content["arms"]["augmented"]["subgroups"] = []
    assert "augmented" not in texts(figures.subgroups(content))


# --- colours ---------------------------------------------------------------------------------------
def test_an_arm_has_one_colour_whoever_stands_beside_it():
    everybody = arm_colours([*ARMS, "mine", "yours"])
    assert len(set(everybody.values())) == len(everybody)
    for some in (["augmented"], ["control_weight", "baseline"], ["mine", "pretrain"]):
        colours = arm_colours(some)
        assert all(colours[arm] == everybody[arm] for arm in some)


def test_settings_of_matplotlib_stay_as_they_were():
    before = dict(mpl.rcParams)
    figures.differences(fake_comparison())
    figures.subgroups(fake_comparison())
    assert dict(mpl.rcParams) == before
