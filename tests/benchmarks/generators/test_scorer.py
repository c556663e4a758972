"""The ResNet-18 that scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.generators import scorer
from fake_contenders import SIDE


@pytest.mark.slow
def test_the_scorer_is_trained_once_and_never_on_heldout_patients(data, tmp_path, monkeypatch):
    seen = []
    original = scorer.train_scorer

    def spied(images, *args):
        seen.append(set(images.records["patient"]))
        return original(images, *args) if len(seen) == 1 else scorer.build_scorer(SIDE).eval()

    monkeypatch.setattr(scorer, "train_scorer", spied)
    cpu = torch.device("cpu")
    first = scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    again = scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    assert len(seen) == 1 and not seen[0] & set(data.heldout.records["patient"])
    np.testing.assert_array_equal(first.features(data.reference), again.features(data.reference))
    assert first.features(data.reference).shape == (len(data.reference), 512)
    other = scorer.digest_of_weights(scorer.build_scorer(SIDE))
    assert first.facts["weights_digest"] != other
    assert again.facts == first.facts and 0 <= first.facts["heldout_auroc"] <= 1
    file = next((tmp_path / "gan_scorer").glob("*.pth"))
    file.write_bytes(file.read_bytes()[:1000])
    scorer.load_scorer(data, str(tmp_path), cpu, "fp32", epochs=1)
    assert len(seen) == 2
