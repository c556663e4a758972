"""Figures of the arms are checked by what they draw."""

import numpy as np
import pytest
from matplotlib.text import Text

from arms import figures as plots
from arms.output import ArmOutput, _save_figures
from common import paths
from fake_results import fake_cv, fake_history, fake_records, write_arm
from stats.metric_registry import Shown, metrics_shown


def texts(figure) -> str:
    """Everything that is written in a figure."""
    return "\n".join(item.get_text() for item in figure.findobj(Text))


def drawn_values(ax) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) > 1]


def test_training_curves_draw_every_fold_and_the_final_fit():
    history = fake_history(3)
    figure = plots.training_curves(history, "loss", "baseline: n = 360 images")
    training, validation = figure.axes
    assert drawn_values(training) == [fold["train_loss"] for fold in history["folds"]] + [
        history["final"]["train_loss"]
    ]
    assert drawn_values(validation) == [fold["val_loss"] for fold in history["folds"]]
    dots = [tuple(np.ravel(line.get_data())) for line in validation.lines if line.get_marker() == "o"]
    best = history["folds"][0]["best_epoch"]
    assert (best, history["folds"][0]["val_loss"][best - 1]) in dots
    written = texts(figure)
    assert "n = 360 images" in written and "fold 3" in written and "(nats)" in written


def test_training_curves_without_folds_and_with_one_epoch():
    figure = plots.training_curves(fake_history(0, epochs=8), "acc", "augmented")
    assert len(figure.axes) == 1 and "% of images" in texts(figure)
    single = plots.training_curves(fake_history(1, epochs=1), "loss", "one epoch")
    final = single.axes[0].lines[-1]
    assert final.get_marker() == "o"  # a line of one point would be invisible
    with pytest.raises(ValueError, match="quantity"):
        plots.training_curves(fake_history(1), "auroc", "")


def test_the_held_out_split_is_not_called_a_fold():
    history = fake_history(1)
    history["folds"][0]["fold"] = 0
    written = texts(plots.training_curves(history, "loss", "baseline"))
    assert "10 % held out" in written and "fold 0" not in written


def test_cv_comparison_marks_contaminated_arms():
    summaries = {"baseline": fake_cv(4), "augmented": fake_cv(4, contaminated=True, seed=1)}
    figure = plots.cv_comparison(summaries)
    bars = [patch for patch in figure.axes[0].patches if patch.get_height() > 0]
    hatched = [bar for bar in bars if bar.get_hatch()]
    shown = [metric.name for metric in metrics_shown(Shown.FOLDS_FIGURE)]
    assert len(bars) == 2 * len(shown) == 14 and len(hatched) == len(shown)
    assert {round(bar.get_height(), 9) for bar in hatched} == {
        round(summaries["augmented"]["mean"][metric], 9) for metric in shown
    }
    written = texts(figure)
    assert written.count("contaminated: its generator may have seen the validation images") == 1
    assert "n = 360 images of 301 patients" in written and "not a confidence interval" in written
    clean = plots.cv_comparison({"baseline": fake_cv(4)})
    assert "contaminated" not in texts(clean)


def test_a_broken_summary_of_another_arm_is_left_out(tmp_path, caplog):
    write_arm(tmp_path, "baseline", fake_records(), folds=2)
    paths.cv_summary(tmp_path, "other_").write_text("{", encoding="utf-8")
    out = ArmOutput("baseline_", "models", str(tmp_path), str(tmp_path), {})
    _save_figures(out, fake_history(2), "360 images")
    assert "cv_comparison.png is drawn without other: " in caplog.text
    assert paths.cv_comparison_figure(tmp_path).is_file()


def test_cv_comparison_shows_an_undefined_metric_as_such():
    summary = fake_cv(3)
    summary["mean"]["auroc"] = None
    assert "n/a" in texts(plots.cv_comparison({"baseline": summary}))


def test_comparison_curves_average_the_folds_and_mark_contamination():
    histories = {"baseline": fake_history(3), "augmented": fake_history(2, seed=1)}
    figure = plots.comparison_curves(histories, "acc", "title", contaminated=["augmented"])
    _, validation = figure.axes
    mean = np.mean([fold["val_acc"] for fold in histories["baseline"]["folds"]], axis=0)
    assert np.allclose(drawn_values(validation)[0], mean)
    assert [line.get_linestyle() for line in validation.lines] == ["-", "--"]
    written = texts(figure)
    assert "baseline (3 folds)" in written and "augmented (2 folds)\ncontaminated" in written
    alone = plots.comparison_curves({"baseline": fake_history(0)}, "loss", "title")
    assert "no arm was validated" in texts(alone)
