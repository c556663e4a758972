"""The threshold of copies is chosen on real images, and its two rates are measured."""

from __future__ import annotations

import numpy as np

from fake_pictures import pictures
from image_metrics import planted_copies
from image_metrics.planted_copies import choose_threshold


def test_both_rates_are_measured_on_training_images(monkeypatch):
    monkeypatch.setattr(planted_copies, "PLANTED", 12)
    training = pictures(np.random.default_rng(7), 60)
    found = choose_threshold(training, [f"patient-{row}" for row in range(60)], n_synthetic=500)
    assert found.reliable and found.found >= 0.99 and found.refused == 0
    assert 0.6 < found.score < 1 and found.n_posing == 30
