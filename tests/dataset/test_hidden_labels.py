"""Few labels: which patients are drawn, and what of the others is hidden."""

import numpy as np
import pandas as pd
import pytest

from dataset.hidden_labels import FewLabels, draw_labelled, hide_labels, sha256_labelled
from utils import UserError


def images_of(n_patients: int = 400, positive: float = 0.25) -> pd.DataFrame:
    """Two images of each patient; a positive patient has one positive image."""
    patients = np.repeat([f"p{i:04d}" for i in range(n_patients)], 2)
    label = (np.arange(2 * n_patients) % 2) * (np.arange(2 * n_patients) // 2 < positive * n_patients)
    return pd.DataFrame({
        "image_id": [f"i{i:04d}" for i in range(2 * n_patients)], "patient": patients, "label": label,
        "class": np.where(label, "Lung Opacity", "Normal"), "n_boxes": label,
    })  # fmt: skip


def test_draws_are_stratified_and_nested():
    images, drawn = images_of(), {}
    positive = set(images.loc[images["label"] == 1, "patient"])
    for n in (50, 100, 200):
        drawn[n] = draw_labelled(images, FewLabels(n, 1))
        assert len(drawn[n]) == n and abs(len(drawn[n] & positive) - n / 4) < 1
    assert drawn[50] < drawn[100] < drawn[200]


def test_a_draw_is_a_function_of_its_seed_and_the_patients():
    images = images_of()
    again = draw_labelled(images.sample(frac=1, random_state=0), FewLabels(100, 1))
    assert again == draw_labelled(images, FewLabels(100, 1)) != draw_labelled(images, FewLabels(100, 2))


@pytest.mark.parametrize(
    ("n", "positive", "message"),
    [
        (400, 0.25, "--labelled-patients 400 hides no label: there are 400 training patients"),
        (2, 0.1, r"leaves no patient with pneumonia \(40 of 400 training patients are\); give more"),
        (2, 0.95, "leaves no patient without pneumonia"),
    ],
)
def test_draws_that_teach_nothing_are_refused(n, positive, message):
    with pytest.raises(UserError, match=message):
        draw_labelled(images_of(positive=positive), FewLabels(n, 1))


def test_what_tells_a_hidden_label_is_gone():
    images = images_of(20)
    labelled = draw_labelled(images, FewLabels(8, 1))
    shown = hide_labels(images, labelled)
    hidden = ~shown["patient"].isin(labelled)
    assert shown["label"].isna().equals(hidden) and hidden.sum() == 24
    assert set(shown.loc[hidden, "class"]) == {""} and set(shown.loc[hidden, "n_boxes"]) == {0}
    pd.testing.assert_frame_equal(shown[~hidden], images[~hidden], check_dtype=False)
    flipped = images.assign(label=images["label"].where(~hidden, 1 - images["label"]))
    assert sha256_labelled(hide_labels(flipped, labelled)) == sha256_labelled(shown)
    other = hide_labels(images.assign(label=1 - images["label"]), labelled)
    assert sha256_labelled(other) != sha256_labelled(shown)
