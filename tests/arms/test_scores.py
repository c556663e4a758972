"""Which folds count as seen by the generator of the synthetic images."""

from types import SimpleNamespace

import numpy as np
import pytest

from arms.scores import CLEAN_NOTE, out_of_fold_table, summarise_folds
from fake_results import fake_records
from synthetic.folders import SyntheticSet


def summary_of(synthetic: SyntheticSet | None) -> dict:
    """Two folds of 20 images each; ``synthetic`` joins both."""
    records = fake_records(40)
    data = SimpleNamespace(
        train=SimpleNamespace(records=records),
        synthetic_images={0: np.zeros((3, 8, 8), np.uint8)} if synthetic else {},
        synthetic_of=lambda fold: synthetic,
    )
    fit = SimpleNamespace(best_epoch=1, history={"val_loss": [0.5]})
    folds = [
        SimpleNamespace(
            fold=number,
            val_rows=rows,
            fit=fit,
            probabilities=lambda rows=rows: np.linspace(0.1, 0.9, len(rows)),
        )
        for number, rows in ((1, np.arange(20)), (2, np.arange(20, 40)))
    ]
    return summarise_folds(data, folds, out_of_fold_table(data, folds), weights_saw_folds=False)


@pytest.mark.parametrize(
    ("verified", "seen", "contaminated"),
    [
        (True, {"of nobody here"}, []),
        (True, {"00000012"}, [2]),
        (True, None, [1, 2]),
        # Trained elsewhere, say, by its maker's word: nothing in this dataset, but nobody can check it.
        (False, set(), [1, 2]),
        (False, {"00000012"}, [1, 2]),
    ],
)
def test_folds_are_clean_only_if_the_origin_is_verified_and_does_not_touch_them(verified, seen, contaminated):
    summary = summary_of(SyntheticSet(None, 1, verified, seen))
    assert summary["contaminated_folds"] == contaminated
    assert summary["contaminated"] is bool(contaminated)
    assert (summary["note"] == CLEAN_NOTE) is not bool(contaminated)


def test_without_synthetic_images_folds_are_clean():
    assert summary_of(None)["note"] == CLEAN_NOTE
